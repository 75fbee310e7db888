//! The commands of README.md and QUICKSTART.md (but for its buckets, which `buckets.rs` fills, and its Compose host, which is `compose.rs`'s),
//! run in their order, in one shell, on a server with the sample data. Only places are changed: `/etc/db-backup` and the like stand in
//! the test's directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Block, page};
use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries};
use crate::support::{Cluster, comparable, repository};

/// Directories of the machine that the pages use.
const PLACES: [&str; 4] = ["/etc/db-backup", "/var/backups", "/var/lib/db-backup", "/usr/local/bin"];
/// The superuser's password, as QUICKSTART.md shows it.
const SUPERUSER_PASSWORD: &str = "change-me-too";

/// A directory in which the places of the pages stand, with the program installed there, and a shell that runs what they show.
pub(super) struct Places {
    directory: tempfile::TempDir,
    /// What stands in the pages, and what stands for it here.
    replaced: Vec<(&'static str, String)>,
    /// `NAME=VALUE`, in the shell and in a crontab line.
    variables: Vec<String>,
}

impl Places {
    pub(super) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("docs.").tempdir().unwrap();
        let root = directory.path();
        for name in ["etc", "var/backups", "var/lib", "usr/local/bin", "home"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_db-backup-tools"), root.join("usr/local/bin/db-backup-tools")).unwrap();
        let replaced = PLACES.map(|place| (place, format!("{}{place}", root.display()))).into();
        Self { directory, replaced, variables: Vec::new() }
    }

    /// With more that stands for something of the pages, before the places.
    pub(super) fn replacing<const N: usize>(mut self, more: [(&'static str, String); N]) -> Self {
        // Our own directory may be in one that is named there: what has been replaced must not be again.
        self.replaced.splice(0..0, more);
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same text with places in this machine's directory.
    pub(super) fn placed(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (shown, here)| text.replace(shown, here))
    }

    /// What a shell does for a block.
    fn script(&self, block: &Block) -> String {
        let text = self.placed(&block.text);
        let script = match block.info.split(' ').collect::<Vec<_>>()[..] {
            ["sh", ..] => text,
            ["yaml", file, ..] => format!("cat >{} <<'_END_'\n{text}_END_\n", self.placed(file)),
            ["sql"] => format!(
                "PGHOST={HOST} PGUSER={SUPERUSER} PGPASSWORD={PASSWORD} \
                 psql -X -q -v ON_ERROR_STOP=1 -d postgres <<'_END_'\n{text}_END_\n"
            ),
            ["crontab", ..] => text.lines().filter_map(|line| self.cron(line)).collect(),
            _ => return String::new(),
        };
        format!("echo '== {}:{}' >&2\n{script}", block.page, block.line)
    }

    /// As cron runs a line; what would be mailed is a failure here.
    fn cron(&self, line: &str) -> Option<String> {
        if line.starts_with("MAILTO=") {
            return None;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let fields = words[..5].iter().all(|field| field.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c)));
        assert!(fields && !line.contains('%'), "{line:?} is no crontab line");
        let command = words[5..].join(" ").replace('\'', r"'\''");
        let home = self.path("home");
        Some(format!(
            "env -i HOME={} SHELL=/bin/sh PATH=/usr/bin:/bin {} sh -c '{command}' >mail 2>&1 || {{ cat mail >&2; exit 1; }}\n\
             [ ! -s mail ] || {{ cat mail >&2; exit 1; }}\nrm mail\n",
            home.display(),
            self.variables.join(" ")
        ))
    }

    /// Runs blocks in one shell, as one person would. What is printed comes back, of a failure too.
    pub(super) fn run(&self, blocks: &[Block]) -> Result<String, String> {
        let script: String = blocks.iter().map(|block| self.script(block)).collect();
        let home = self.path("home");
        let path = format!("{}:{}:/usr/bin:/bin", self.path("usr/local/bin").display(), binaries().display());
        let output = Command::new("bash")
            .args(["-eu", "-o", "pipefail", "-c", &script])
            .env_clear()
            .envs([("HOME", home.as_os_str()), ("PATH", path.as_ref()), ("LANG", "C.UTF-8".as_ref())])
            .envs(self.variables.iter().filter_map(|variable| variable.split_once('=')))
            .current_dir(&home)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let printed = format!("{}\n--- stdout\n{stdout}--- stderr\n{stderr}", output.status);
        if output.status.success() { Ok(printed) } else { Err(printed) }
    }
}

/// A machine as the pages take it to be: the program installed, a server with a database `shop`.
pub(super) struct Machine {
    places: Places,
    pub(super) server: Cluster,
}

impl Machine {
    pub(super) fn new() -> Self {
        let mut places = Places::new();
        // In place of psql's prompt.
        let passwords = places.path("home/.pgpass");
        fs::write(&passwords, format!("localhost:*:*:postgres:{SUPERUSER_PASSWORD}\n")).unwrap();
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
        let server = Cluster::start();
        // As on Debian, the superuser has no password yet.
        server.psql(
            "postgres",
            "CREATE ROLE postgres SUPERUSER LOGIN; CREATE ROLE shop_owner; CREATE DATABASE shop OWNER shop_owner",
        );
        let sample = repository().join("scripts/sample.sql");
        server.psql("shop", &format!("SET SESSION AUTHORIZATION shop_owner;\n\\o /dev/null\n\\i '{}'", sample.display()));
        places.variables.push(format!("PGPORT={}", server.port()));
        Self { places, server }
    }

    /// See [`Places::replacing`].
    pub(super) fn replacing<const N: usize>(self, more: [(&'static str, String); N]) -> Self {
        Self { places: self.places.replacing(more), ..self }
    }

    /// A database as SQL.
    pub(super) fn dump(&self, name: &str) -> String {
        let output = self.server.client("pg_dump", name).output().unwrap();
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        comparable(&String::from_utf8(output.stdout).unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.places.path(name)
    }

    /// See [`Places::run`].
    pub(super) fn run(&self, blocks: &[Block]) -> Result<String, String> {
        self.places.run(blocks)
    }
}

/// The blocks of a page that are run where artifacts are compressed like this.
fn steps(path: &str, compression: &str) -> Vec<Block> {
    let is_step = |block: &Block| {
        let words: Vec<_> = block.info.split(' ').collect();
        matches!(words[..], ["sh" | "sql" | "crontab"] | ["yaml", _]) || words[..] == ["sh", compression]
    };
    let mut steps: Vec<_> = page(path).blocks().into_iter().filter(is_step).collect();
    // A plain dump and gzip are the defaults; the page shows no other for this target.
    let line = "    database: shop\n";
    let more = match compression {
        "gzip" => String::new(),
        "custom" => "    format: custom\n".to_owned(),
        _ => format!("    compression: {{ type: {compression} }}\n"),
    };
    for block in steps.iter_mut().filter(|block| block.info.starts_with("yaml")) {
        block.text = block.text.replace(line, &format!("{line}{more}"));
    }
    assert!(path != "QUICKSTART.md" || steps.iter().any(|block| block.text.contains(&format!("{line}{more}"))));
    steps
}

/// From nothing to a nightly backup and every restore, each of which must be the original.
fn follow_the_quickstart(compression: &str, ending: &str) {
    let machine = Machine::new();
    let server = &machine.server;
    let original = machine.dump("shop");
    let mut blocks = steps("QUICKSTART.md", compression);
    // What is found by hand is not another target's, though that one's name begins alike and it is newer.
    let by_hand = blocks.iter().position(|block| block.text.contains("ls -d")).unwrap();
    let other = "/var/backups/db-backup/web1/29991231_235959Z";
    let text = format!("mkdir {other}\ntouch {other}/shop_old_29991231_235959Z-aaaa.manifest.json\n");
    blocks.insert(by_hand, Block { text, ..blocks[by_hand].clone() });
    machine.run(&blocks).unwrap_or_else(|printed| panic!("{printed}"));
    for name in ["shop_check", "shop_broken", "shop_moved", "shop_before", "shop"] {
        assert!(server.databases().contains(&name.to_owned()), "{:?}", server.databases());
        assert!(machine.dump(name) == original, "{name} differs from the original");
        let facts =
            "SELECT datdba::regrole, pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = ";
        let facts = |name: &str| server.psql("postgres", &format!("{facts}'{name}'"));
        assert_eq!(facts(name), facts("shop_broken"), "{name}");
    }
    let stored = crate::support::tool::files_below(&machine.path("var/backups"));
    assert!(stored.iter().any(|path| path.ends_with(ending)), "{stored:?}");
    assert_eq!(machine.path("etc/db-backup/env").metadata().unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn the_quickstart_leads_from_nothing_to_every_restore() {
    follow_the_quickstart("gzip", ".sql.gz");
}

#[test]
fn the_quickstart_leads_to_every_restore_of_zstd() {
    follow_the_quickstart("zstd", ".sql.zst");
}

#[test]
fn the_quickstart_leads_to_every_restore_of_what_is_not_compressed() {
    follow_the_quickstart("none", ".sql");
}

#[test]
fn the_quickstart_leads_to_every_restore_of_an_archive() {
    follow_the_quickstart("custom", ".dump.gz");
}

#[test]
fn the_commands_of_the_readme_run() {
    let machine = Machine::new();
    let commands: Vec<_> = steps("README.md", "gzip").into_iter().filter(|block| block.info == "sh").collect();
    machine.run(&commands).unwrap_or_else(|printed| panic!("{printed}"));
    assert!(machine.path("home/backup.yml").exists());
    // Its crontab line needs what QUICKSTART.md makes, and is run there.
    let lines = |path: &str| -> Vec<String> {
        let blocks = page(path).blocks().into_iter().filter(|block| block.info == "crontab");
        blocks.flat_map(|block| block.text.lines().map(words_of).collect::<Vec<_>>()).collect()
    };
    let known = lines("QUICKSTART.md");
    let own = lines("README.md");
    assert!(!own.is_empty() && own.iter().all(|line| known.contains(line)), "{own:?}");
}

fn words_of(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_quickstarts_role_may_do_no_more_than_it_needs() {
    for (taken, named) in [
        ("GRANT pg_read_all_data TO backup;", "permission denied for table"),
        ("ALTER ROLE backup BYPASSRLS;", "row-level security"),
        ("ALTER ROLE backup SET lo_compat_privileges = on;", "permission denied for large object"),
    ] {
        let machine = Machine::new();
        let mut blocks = steps("QUICKSTART.md", "gzip");
        let check = blocks.iter().position(|block| block.text.contains("validate --connect")).unwrap();
        blocks.truncate(check + 1);
        let role = blocks.iter_mut().find(|block| block.info == "sql").unwrap();
        assert!(role.text.contains(taken));
        role.text = role.text.replace(taken, "");
        machine.run(&blocks).expect_err(taken);
        // The check has said so; a backup that is made all the same fails, too.
        let mut backup = blocks.pop().unwrap();
        backup.text = backup.text.replace("validate --connect", "backup");
        let printed = machine.run(&[backup]).expect_err(taken);
        assert!(printed.contains(named), "{taken}: {printed}");
    }
}

#[test]
fn a_command_that_fails_is_no_pass() {
    let machine = Machine::new();
    let block = |info: &str, text: &str| Block { page: "x.md".into(), line: 1, info: info.into(), text: text.into() };
    for (info, text, passes) in [
        ("sh", "test -d /var/lib/db-backup || test -x /usr/local/bin/db-backup-tools\n", true),
        ("sh", "false | cat\ntrue\n", false),
        ("sql", "SELECT 1/0;\n", false),
        ("crontab", "0 3 * * * echo something to mail\n", false),
        ("crontab", "0 3 * * * exit 1\n", false),
        ("crontab", "0 3 * * * echo >/dev/null\n", true),
    ] {
        assert_eq!(machine.run(&[block(info, text)]).is_ok(), passes, "{text}");
    }
    assert!(Path::new(&machine.places.placed("/etc/db-backup/x")).starts_with(machine.path("")));
}
