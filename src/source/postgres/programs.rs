//! Which of the client programs on this machine are used: those of the server's own major version, else
//! the next newer, never an older one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::inside::Inside;
use super::site::{Site, Variables};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::engine::Stdin;
use crate::host::files::{FileState, state_of_executable};
use crate::host::process::{Program, find_programs};

/// Where distributions keep the programs of each version, and what follows the version there.
const VERSIONED: [(&str, &str, &str); 3] =
    [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin"), ("/usr/local", "pgsql-", "bin")];
/// What Debian has on PATH under every program's name. It starts one of the versioned directories' own, and
/// which one depends on more than it says when asked for its version.
const DEBIAN_WRAPPER: &str = "pg_wrapper";
/// A program that can't say its version in this time won't be waited for.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// What programs of this machine have said of their version, for as long as their files stay as they were: a run of many units asks
/// each program once, and one that is replaced in the middle of it anew.
static SAID: Mutex<BTreeMap<(PathBuf, FileState), Version>> = Mutex::new(BTreeMap::new());

/// A version as `--version` says it: `15.18`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub major: u32,
    pub minor: u32,
    pub text: String,
}

impl Version {
    /// One of which no more is known, or asked.
    pub(super) fn of_major(major: u32) -> Self {
        Self { major, minor: 0, text: major.to_string() }
    }

    /// Reads `pg_dump (PostgreSQL) 15.18 (Debian ...)`, `18beta1`, and a server's `server_version`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let mut parts = word.split('.');
        let major = number(parts.next()?)?;
        let minor = parts.next().and_then(number).unwrap_or(0);
        Some(Self { major, minor, text: word.to_owned() })
    }
}

/// A program that was found, and its version where it says one.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub site: Site,
    pub path: PathBuf,
    pub version: Option<Version>,
}

impl Client {
    /// One of this machine.
    pub(super) fn at(path: PathBuf, site: &Site, cx: &Context) -> Result<Self> {
        // What a script starts may change without it: it has no such state.
        let file = state_of_executable(&path).map(|state| (path.clone(), state));
        let known = file.as_ref().and_then(|file| said().get(file).cloned());
        let version = match known {
            Some(known) => Some(known),
            None => Self::ask_version(&path, cx)?,
        };
        if let (Some(file), Some(version)) = (file, &version) {
            said().insert(file, version.clone());
        }
        Ok(Self { site: site.clone(), path, version })
    }

    fn ask_version(path: &Path, cx: &Context) -> Result<Option<Version>> {
        let limited = cx.with_cancel(cx.cancel.child(Some(VERSION_LIMIT))?);
        let said = Program::new(path).arg("--version").env("LC_ALL", "C").output(b"", &limited);
        cx.cancel.check()?;
        let said = said.ok().filter(|said| said.exit.is_success());
        Ok(said.and_then(|said| Version::parse(String::from_utf8_lossy(&said.stdout).lines().next()?)))
    }

    /// It, to be given arguments, with these variables and no other that libpq reads.
    pub(super) fn program(&self, stdin: Stdin, variables: &Variables) -> Program {
        self.site.program(&self.path, stdin, variables)
    }

    /// How a person calls it.
    pub(super) fn by_hand(&self) -> String {
        self.site.inside().map_or_else(|| self.path.display().to_string(), |inside| inside.by_hand(&self.path))
    }

    /// Its name and version, for messages: `pg_dump 15.18`.
    pub(super) fn title(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} {}", self.version_text().unwrap_or_else(|| "of unknown version".into()))
    }

    /// Whether this psql has the restricted mode (`\restrict`, in the releases of August 2025).
    pub(super) fn has_restricted_mode(&self) -> bool {
        let since = |major| match major {
            13 => 22,
            14 => 19,
            15 => 14,
            16 => 10,
            17 => 6,
            18.. => 0,
            _ => u32::MAX,
        };
        self.version.as_ref().is_some_and(|version| version.minor >= since(version.major))
    }

    /// For messages.
    pub(super) fn version_text(&self) -> Option<String> {
        self.version.as_ref().map(|version| version.text.clone())
    }

    /// For messages: `pg_dump 15.18 in /usr/lib/postgresql/15/bin`.
    pub(super) fn describe(&self) -> String {
        format!("{} in {}", self.title(), self.site.inside().map_or_else(|| self.directory(), Inside::describe))
    }

    fn directory(&self) -> String {
        self.path.parent().unwrap_or(Path::new("/")).display().to_string()
    }

    /// A warning where it is newer than the server that it works with. One that does not say its version is not known to be.
    pub(super) fn newer_than(&self, server: &Version) -> Option<String> {
        self.version.as_ref().filter(|own| own.major > server.major)?;
        let what = format!("{} is newer than the server ({})", self.describe(), server.text);
        Some(match self.site {
            Site::Host(_) => format!("{what}, and none of its own version is found: install {}", package(server.major)),
            Site::Inside(_) => what,
        })
    }
}

fn said() -> MutexGuard<'static, BTreeMap<(PathBuf, FileState), Version>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The packages of a version's client programs, for a person.
fn package(major: u32) -> String {
    format!("postgresql-client-{major} (Debian, Ubuntu) or postgresql{major} (Fedora, RHEL)")
}

/// Every one of a client program that may be used.
#[derive(Debug)]
pub(super) struct Programs {
    name: String,
    site: Site,
    /// In the order in which equals are preferred; never empty.
    found: Vec<Client>,
}

impl Programs {
    /// Looks there; on this machine in `client_bin` alone where it is given, else on PATH and in the distributions'
    /// versioned directories. None at all is an error.
    pub(super) fn look(name: &str, site: &Site, cx: &Context) -> Result<Self> {
        let found = match site {
            Site::Host(client_bin) => {
                let paths = candidates(name, client_bin.as_deref(), cx);
                let found = paths.into_iter().map(|path| Client::at(path, site, cx)).collect::<Result<Vec<_>>>()?;
                if found.is_empty() {
                    return Err(not_found(name, client_bin.as_deref()));
                }
                found
            }
            Site::Inside(inside) => {
                let found = inside.look(name, cx)?.into_iter();
                found.map(|(path, version)| Client { site: site.clone(), path, version }).collect()
            }
        };
        Ok(Self { name: name.to_owned(), site: site.clone(), found })
    }

    /// The newest: for the first question to a server, whose version is not known yet.
    pub(super) fn newest(&self) -> Result<Client> {
        let newest = self.found.iter().filter_map(|client| client.version.as_ref()).map(|version| version.major).max();
        let of = |client: &&Client| client.version.as_ref().map(|version| version.major) == newest;
        self.found
            .iter()
            .find(of)
            .cloned()
            .ok_or_else(|| Error::new(Kind::Internal, format!("no {} after a look for it", self.name)))
    }

    /// The one for a server: of its own major version, else the next newer one, else one that does not say its
    /// version, as what it does will tell. Never an older one.
    pub(super) fn fitting(&self, server: &Version) -> Result<Client> {
        self.at_least(server.major, || format!("the server is version {}", server.text), server.major)
    }

    /// The pg_restore for a server and an archive, which none older than the pg_dump that wrote it can read.
    pub(super) fn fitting_archive(&self, server: &Version, written_by: Option<&Version>) -> Result<Client> {
        let Some(by) = written_by.filter(|by| by.major > server.major) else { return self.fitting(server) };
        let why = || format!("the archive was written by pg_dump {}, which none older than {} can read", by.text, by.major);
        self.at_least(by.major, why, by.major)
    }

    fn at_least(&self, major: u32, why: impl Fn() -> String, need: u32) -> Result<Client> {
        let known = |client: &&Client| client.version.as_ref().is_some_and(|version| version.major >= major);
        let fits = self.found.iter().filter(known).min_by_key(|client| client.version.as_ref().map(|version| version.major));
        let unknown = || self.found.iter().find(|client| client.version.is_none());
        fits.or_else(unknown).cloned().ok_or_else(|| {
            let found: Vec<String> = self.found.iter().map(Client::describe).collect();
            let cause =
                format!("{}, and there is no {} of version {need} or newer: found {}", why(), self.name, found.join(", "));
            let hint = match &self.site {
                Site::Host(Some(_)) => format!("install {}, or correct `client_bin:`", package(need)),
                Site::Host(None) => format!("install {}, or set `client_bin:`", package(need)),
                Site::Inside(inside) => format!("is {} the server's own?", inside.describe()),
            };
            Error::new(Kind::Child, cause).hint(hint).step("programs")
        })
    }
}

fn not_found(program: &str, client_bin: Option<&Path>) -> Error {
    let error = match client_bin {
        Some(directory) => Error::new(Kind::Child, format!("there is no {program} in {} (`client_bin:`)", directory.display()))
            .hint("correct `client_bin:`, or leave it out to use the programs on PATH"),
        None => Error::new(Kind::Child, format!("{program} is not found on PATH nor in the distributions' directories"))
            .hint("install PostgreSQL's client programs (Debian: postgresql-client; Fedora, RHEL: postgresql), or set `client_bin:`; cron's PATH is short"),
    };
    error.step("programs")
}

/// Every place that has the program, the preferred first: as PATH has them, then the newest.
pub(super) fn candidates(program: &str, client_bin: Option<&Path>, cx: &Context) -> Vec<PathBuf> {
    if let Some(directory) = client_bin {
        let path = directory.join(program);
        return if path.is_file() { vec![path] } else { Vec::new() };
    }
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (base, prefix, bin) in VERSIONED {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|version| version.parse().ok());
            let path = entry.path().join(bin).join(program);
            if let Some(version) = version.filter(|_| path.is_file()) {
                versioned.push((version, path));
            }
        }
    }
    versioned.sort_by(|a, b| b.cmp(a));
    let mut seen = Vec::new();
    let all = find_programs(program, cx).into_iter().chain(versioned.into_iter().map(|(_, path)| path));
    all.filter(|path| is_another(path, &mut seen)).collect()
}

/// Whether it is none of Debian's wrappers, and no program that was seen under another name already: `/bin` is
/// often `/usr/bin`.
fn is_another(path: &Path, seen: &mut Vec<PathBuf>) -> bool {
    let Ok(real) = path.canonicalize() else { return true };
    let another = real.file_name().is_none_or(|name| name != DEBIAN_WRAPPER) && !seen.contains(&real);
    seen.push(real);
    another
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(found: &[(&str, Option<&str>)]) -> Programs {
        let client = |(place, version): &(&str, Option<&str>)| Client {
            site: Site::Host(None),
            path: PathBuf::from(format!("/{place}/pg_dump")),
            version: version.and_then(Version::parse),
        };
        Programs { name: "pg_dump".into(), site: Site::Host(None), found: found.iter().map(client).collect() }
    }

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn a_program_that_is_replaced_is_asked_anew_and_a_script_always() {
        let home = tempfile::tempdir().unwrap();
        let cx = Context::for_tests();
        let path = home.path().join("program");
        let version = || Client::at(path.clone(), &Site::Host(None), &cx).unwrap().version_text();
        let replace_by = |other: &str| {
            let _ = std::fs::remove_file(&path);
            // Copied by a program: a file that we had open for writing could not be run at once.
            assert!(Program::new("cp").arg(other).arg(&path).output(b"", &cx).unwrap().exit.is_success());
        };
        replace_by("/bin/ls");
        let first = version();
        assert!(first.is_some() && version() == first);
        replace_by("/bin/bash");
        assert!(version().is_some_and(|other| Some(other) != first));
        for said in ["15.1", "15.2"] {
            let script =
                format!("printf '#!/bin/sh\\necho psql {said}\\n' >{0}/said && chmod 755 {0}/said", home.path().display());
            assert!(Program::new("sh").args(["-c", &script]).output(b"", &cx).unwrap().exit.is_success());
            let script = Client::at(home.path().join("said"), &Site::Host(None), &cx).unwrap();
            assert_eq!(script.version_text().as_deref(), Some(said));
        }
    }

    #[test]
    fn versions_are_read_as_the_programs_say_them() {
        let read = |text| Version::parse(text).map(|version| (version.major, version.minor, version.text));
        assert_eq!(read("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18, "15.18".into())));
        assert_eq!(read("psql (PostgreSQL) 18beta1"), Some((18, 0, "18beta1".into())));
        assert_eq!(read("something else"), None);
    }

    #[test]
    fn each_is_looked_at_once_and_debians_wrapper_never() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let places = ["wrapped", "real", "same"].map(|name| root.join(name));
        places[..2].iter().for_each(|place| std::fs::create_dir(place).unwrap());
        std::os::unix::fs::symlink(&places[1], &places[2]).unwrap();
        for program in [root.join(DEBIAN_WRAPPER), places[1].join("pg_none")] {
            std::fs::copy("/bin/true", program).unwrap();
        }
        std::os::unix::fs::symlink(root.join(DEBIAN_WRAPPER), places[0].join("pg_none")).unwrap();
        let mut cx = Context::for_tests();
        cx.env = std::sync::Arc::new([("PATH", std::env::join_paths(&places).unwrap())].into_iter().collect());
        assert_eq!(candidates("pg_none", None, &cx), [places[1].join("pg_none")]);
        assert_eq!(candidates("pg_none", Some(&places[0]), &cx), [places[0].join("pg_none")]);
    }

    #[test]
    fn the_servers_own_version_goes_before_every_other() {
        let all = [
            ("old", Some("9.6.24")),
            ("mute", None),
            ("new", Some("18.4")),
            ("next", Some("17.2")),
            ("own", Some("16.1")),
            ("again", Some("16.9")),
        ];
        let chosen = |found: &[_], server| programs(found).fitting(&version(server)).unwrap().directory();
        assert_eq!(chosen(&all, "16.14"), "/own");
        assert_eq!(chosen(&all[..4], "16.14"), "/next");
        assert_eq!(chosen(&all[..3], "16.14"), "/new");
        assert_eq!(chosen(&all[..2], "16.14"), "/mute");
        assert_eq!(chosen(&all, "18.0"), "/new");
        let newest = |found: &[_]| programs(found).newest().unwrap().directory();
        assert_eq!((newest(&all), newest(&all[1..2])), ("/new".into(), "/mute".into()));
    }

    #[test]
    fn none_that_fits_says_what_there_is_and_what_to_install() {
        let error = programs(&[("a", Some("9.6.24")), ("b", Some("15.18"))]).fitting(&version("18.4 (Debian)")).unwrap_err();
        let said = "programs: the server is version 18.4, and there is no pg_dump of version 18 or newer: found pg_dump 9.6.24 in /a, pg_dump 15.18 in /b";
        assert_eq!(error.to_string(), said);
        let hint = "install postgresql-client-18 (Debian, Ubuntu) or postgresql18 (Fedora, RHEL), or set `client_bin:`";
        assert_eq!(error.hint_text(), Some(hint));
    }

    #[test]
    fn an_archive_is_read_by_none_older_than_what_wrote_it() {
        let found = [("own", Some("15.18")), ("new", Some("18.4"))];
        let chosen = |found: &[_], by: Option<&str>| {
            let by = by.map(version);
            programs(found).fitting_archive(&version("15.18"), by.as_ref()).map(|client| client.directory())
        };
        assert_eq!(chosen(&found, Some("18.1")).unwrap(), "/new");
        assert_eq!(chosen(&found, Some("13.1")).unwrap(), "/own");
        assert_eq!(chosen(&found, None).unwrap(), "/own");
        assert!(chosen(&found[..1], Some("16.0")).unwrap_err().to_string().contains("written by pg_dump 16.0"));
    }

    #[test]
    fn a_newer_one_is_told() {
        let newer = |own| programs(&[("a", own)]).found[0].newer_than(&version("15.18"));
        assert!(newer(Some("18.4")).unwrap().starts_with("pg_dump 18.4 in /a is newer than the server (15.18)"));
        assert_eq!((newer(Some("15.1")), newer(None)), (None, None));
    }
}
