//! Which tar reads a volume, and with which words. GNU tar is what keeps all that this program promises; whether it can, it is
//! asked. Any other is taken only where the user said that it may.

use std::ffi::OsString;
use std::path::PathBuf;

use super::patterns::Pattern;
use crate::config::model::{self, Archiver};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::process::{Output, Program, find_programs};

/// Names that GNU tar goes by.
const NAMES: [&str; 2] = ["tar", "gtar"];
/// Reads nothing but one directory's attributes. A tar that was built without extended attributes takes the options, and says
/// that it can't when it meets the first file.
pub(super) const TRIAL: [&str; 10] = [
    "--create",
    "--file=/dev/null",
    "--format=posix",
    "--sparse",
    "--xattrs",
    "--xattrs-include=*",
    "--no-acls",
    "--no-recursion",
    "--directory=/",
    ".",
];
/// What GNU tar is told, see docs/volumes.md: POSIX headers (sub-second times, any name), without the times of reading, which would
/// make each run's tar another one, and without tar's own process number in them. ACLs come as the attributes that they are made of: in
/// the words of `--acls` they name users, who are others in another container or on another machine, also with `--numeric-owner`.
const FULL: [&str; 13] = [
    "--create",
    "--file=-",
    "--format=posix",
    "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
    "--sparse",
    "--xattrs",
    "--xattrs-include=*",
    "--no-acls",
    "--numeric-owner",
    "--quoting-style=escape",
    "--verbose",
    "--no-unquote",
    "--anchored",
];
/// What any tar is told.
const BASIC: [&str; 3] = ["-c", "-f", "-"];

/// A tar that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tar {
    /// What it is called by.
    pub(super) path: PathBuf,
    /// Its version, as it says it: `1.34`.
    pub(super) version: String,
    /// It is GNU tar, and can do all.
    pub(super) is_full: bool,
}

impl Tar {
    /// What a person calls it: `GNU tar 1.34`.
    pub(super) fn describe(&self) -> String {
        if self.is_full { format!("GNU tar {}", self.version) } else { format!("a basic tar ({})", self.version) }
    }

    /// This machine's, as good as it must be.
    pub(super) fn of_host(wanted: Archiver, cx: &Context) -> Result<Self> {
        let mut other = None;
        let mut lacking = None;
        for path in NAMES.iter().flat_map(|name| find_programs(name, cx)) {
            let said = host(&path).arg("--version").output(b"", cx)?;
            let Some(version) = gnu_version(&said) else {
                other.get_or_insert_with(|| (path, first_line(&said)));
                continue;
            };
            let lacks = lacks(&host(&path).args(TRIAL).output(b"", cx)?);
            match lacks {
                None => return Ok(Self { path, version, is_full: true }),
                Some(lack) => drop(lacking.get_or_insert((path, version, lack))),
            }
        }
        match (lacking, other, wanted) {
            (Some((path, version, _)), _, Archiver::Basic) => {
                Ok(Self { path, version: format!("GNU {version}"), is_full: false })
            }
            (None, Some((path, version)), Archiver::Basic) => Ok(Self { path, version, is_full: false }),
            (Some((path, _, lack)), ..) => Err(poor(&path.display().to_string(), &lack)),
            (None, Some((path, said)), Archiver::Full) => {
                Err(poor(&path.display().to_string(), &format!("is not GNU tar ({said})")))
            }
            (None, None, _) => Err(Error::new(Kind::Child, "there is no tar in a directory of PATH")
                .hint("install GNU tar (the package tar), or add its directory to PATH; cron's PATH is shorter than a shell's")),
        }
    }

    /// Its words for a target's backup; before what it is to read.
    pub(super) fn words(&self, config: &model::Volume, exclude: &[Pattern]) -> Vec<OsString> {
        let fixed: &[&str] = if self.is_full { &FULL } else { &BASIC };
        let mut words: Vec<OsString> = fixed.iter().map(OsString::from).collect();
        if self.is_full {
            words.extend(config.one_file_system.then(|| "--one-file-system".into()));
            words.extend(config.exclude_caches.then(|| "--exclude-caches".into()));
        }
        words.extend(exclude.iter().map(|pattern| format!("--exclude={}", pattern.for_tar()).into()));
        words
    }

    /// What a basic one can't do for this target.
    pub(super) fn check_options(&self, config: &model::Volume) -> Result<()> {
        let asked = [(config.one_file_system, "one_file_system"), (config.exclude_caches, "exclude_caches")];
        match asked.into_iter().find(|(is_asked, _)| *is_asked && !self.is_full) {
            Some((_, key)) => Err(Error::new(Kind::Child, format!("{} knows nothing like `{key}`", self.describe()))
                .hint(format!("have GNU tar read it, or leave `{key}` out"))),
            None => Ok(()),
        }
    }

    /// What is lost by it, for the report and the manifest.
    pub(super) fn warning(&self) -> Option<String> {
        let lost = "ACLs, extended attributes, holes of sparse files and fractions of seconds are not kept, and a file that changes \
                    while it is read is not noticed";
        (!self.is_full).then(|| format!("{} made it: {lost}", self.describe()))
    }
}

/// A tar of this machine: in the C locale, whose messages are known, and without options from outside.
pub(super) fn host(path: &std::path::Path) -> Program {
    Program::new(path).without_env_prefix("TAR_OPTIONS").env("LC_ALL", "C")
}

/// GNU tar's version, where it is one.
pub(super) fn gnu_version(said: &Output) -> Option<String> {
    let first = first_line(said);
    first.strip_prefix("tar (GNU tar) ").filter(|_| said.exit.is_success()).map(str::to_owned)
}

/// The first line that a program printed.
pub(super) fn first_line(said: &Output) -> String {
    let text = String::from_utf8_lossy(&said.stdout);
    let text = if text.trim().is_empty() { said.stderr_tail.clone() } else { text.into_owned() };
    text.lines().next().unwrap_or("it says nothing").trim().to_owned()
}

/// What GNU tar lacks, as its trial shows.
pub(super) fn lacks(tried: &Output) -> Option<String> {
    let said = tried.stderr_tail.trim();
    let missing = said.lines().find(|line| line.contains("support is not available") || !tried.exit.is_success());
    match missing {
        Some(line) => Some(format!("can't keep all: {line}")),
        None if tried.exit.is_success() => None,
        None => Some(tried.exit.describe()),
    }
}

/// An error for a tar that would not keep what this program promises.
pub(super) fn poor(which: &str, why: &str) -> Error {
    Error::new(Kind::Child, format!("{which} {why}: ACLs, extended attributes and sparse files would be lost"))
        .hint("install GNU tar there, or accept the loss with `archiver: basic`, which is said in each report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::Exit;

    fn output(stdout: &str, stderr: &str, code: i32) -> Output {
        Output { stdout: stdout.into(), stderr_tail: stderr.into(), exit: Exit::Code(code) }
    }

    #[test]
    fn gnu_tar_is_known_by_its_version() {
        let of = |text: &str| gnu_version(&output(text, "", 0));
        assert_eq!(of("tar (GNU tar) 1.34\nCopyright"), Some("1.34".into()));
        assert_eq!(of("tar (busybox) 1.35.0"), None);
        assert_eq!(of("bsdtar 3.6.2 - libarchive 3.6.2"), None);
        assert_eq!(gnu_version(&output("tar (GNU tar) 1.34", "", 1)), None);
    }

    #[test]
    fn a_tar_without_attributes_says_so_in_its_trial() {
        assert_eq!(lacks(&output("", "", 0)), None);
        assert_eq!(lacks(&output("", "tar: ./: Warning: Cannot flistxattr: Not permitted\n", 0)), None);
        assert_eq!(
            lacks(&output("", "tar: XATTR support is not available\n", 0)).unwrap(),
            "can't keep all: tar: XATTR support is not available"
        );
        assert_eq!(
            lacks(&output("", "tar: unrecognized option '--no-acls'\nTry", 64)).unwrap(),
            "can't keep all: tar: unrecognized option '--no-acls'"
        );
        assert_eq!(lacks(&output("", "", 2)).unwrap(), "exited with code 2");
    }

    #[test]
    fn this_machines_tar_is_a_full_one() {
        let tar = Tar::of_host(Archiver::Full, &Context::for_tests()).unwrap();
        assert!(tar.is_full && tar.describe().starts_with("GNU tar 1."), "{tar:?}");
    }
}
