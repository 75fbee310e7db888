//! The program under test: `Test::of(&database).run(["backup", "app"]).ok()`. Each test has a directory
//! of its own, in which the program starts, with an environment that holds nothing it was not given.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

use super::cluster::{self, Database};
use super::container::Container;
use super::is_root;

/// No run of the program in a test takes this long: one that does hangs.
const HANGS: Timespec = Timespec { tv_sec: 300, tv_nsec: 0 };
const NOBODY: u32 = 65534;

/// One test's program, configuration and directory, which go when it does.
pub struct Test {
    directory: TempDir,
    pub(super) environment: BTreeMap<OsString, OsString>,
    program: PathBuf,
    wrapper: Vec<OsString>,
    target_options: String,
    top_options: String,
    storages: String,
    database: Option<String>,
    runs: AtomicU32,
}

impl Default for Test {
    fn default() -> Self {
        Self::new()
    }
}

impl Test {
    /// Without a configuration; `storage/` and `state/` are there, and empty.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("test.").tempdir().unwrap();
        let root = directory.path();
        for name in ["storage", "state", "tmp", "bin", ".ran"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let path = [root.join("bin").into_os_string(), std::env::var_os("PATH").unwrap_or_default()].join(OsStr::new(":"));
        let environment =
            [("PATH", path), ("HOME", root.into()), ("TMPDIR", root.join("tmp").into()), ("LANG", "C.UTF-8".into())];
        Self {
            environment: environment.map(|(name, value)| (name.into(), value)).into(),
            directory,
            program: env!("CARGO_BIN_EXE_db-backup-tools").into(),
            wrapper: Vec::new(),
            target_options: String::new(),
            top_options: String::new(),
            storages: "  local: { type: local, path: '{storage}' }\n".into(),
            database: None,
            runs: AtomicU32::new(0),
        }
    }

    /// With a configuration of one target `app`, which is this database, and one storage `local`.
    pub fn of(database: &Database) -> Self {
        let server = database.cluster();
        let place = format!(
            "host: {}\n    port: {}\n    user: {}\n    password: ${{DB_PASSWORD}}\n    database: {}\n",
            cluster::HOST,
            server.port(),
            cluster::SUPERUSER,
            database.name()
        );
        let mut test = Self::new().env("DB_PASSWORD", cluster::PASSWORD);
        test.database = Some(place);
        test.write_target();
        test
    }

    /// With a configuration of one target `app`, which is this database of the server in a container.
    pub fn inside(container: &Container, database: &str) -> Self {
        let mut test = Self::new();
        test.database = Some(format!("container: {}\n    database: {database}\n", container.name()));
        test.write_target();
        test
    }

    /// One more line of the target that [`Test::of`] wrote: `retention: { keep_last: 2 }`.
    #[must_use]
    pub fn target_option(mut self, line: &str) -> Self {
        self.target_options.extend(["    ", &self.filled(line), "\n"]);
        self.write_target();
        self
    }

    /// One more line at the top level of what [`Test::of`] wrote: `parallel: 2`.
    #[must_use]
    pub fn top_option(mut self, line: &str) -> Self {
        self.top_options.extend([&self.filled(line), "\n"]);
        self.write_target();
        self
    }

    /// Other storages than the one of [`Test::of`], each with its name: `[("offsite", bucket.yaml())]`.
    #[must_use]
    pub fn storages<const N: usize>(mut self, storages: [(&str, String); N]) -> Self {
        let lines = storages.each_ref().map(|(name, yaml)| format!("  {name}: {yaml}\n"));
        self.storages = lines.concat();
        let names = storages.map(|(name, _)| name).join(", ");
        self.target_option(&format!("storages: [{names}]"))
    }

    fn write_target(&self) {
        let place = self.database.as_ref().expect("a test begun with Test::of");
        let text = format!(
            "version: 1\nhost: web1\nstate_dir: {{state}}\n{}storages:\n{}\
             targets:\n  - name: app\n    type: postgres\n    {place}{}",
            self.top_options, self.storages, self.target_options
        );
        self.write("backup.yml", &text);
    }

    /// A configuration of the test's own. `{storage}`, `{state}`, `{bin}` and `{dir}` stand for the test's
    /// directories. As root, one that is used needs a `state_dir:`, or the machine's is.
    #[must_use]
    pub fn config(self, yaml: &str) -> Self {
        self.write("backup.yml", yaml);
        self
    }

    /// A file in the test's directory, its text filled like [`Test::config`]'s.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    /// Writes a file in the test's directory; only its owner may read it.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, self.filled(text)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for name in ["storage", "state", "bin"] {
            text = text.replace(&format!("{{{name}}}"), self.path(name).to_str().unwrap());
        }
        text.replace("{dir}", self.path("").to_str().unwrap().trim_end_matches('/'))
    }

    /// A variable for the program.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().into());
        self
    }

    /// A program that runs the program: `["strace", "-f", ...]`.
    #[must_use]
    pub fn under<const N: usize>(mut self, wrapper: [&str; N]) -> Self {
        self.wrapper.extend(wrapper.map(OsString::from));
        self
    }

    /// Runs the program as a user who may not do everything, where the tests run as root; the test's
    /// directory is that user's.
    #[must_use]
    pub fn unprivileged(self) -> Self {
        self.unprivileged_in_group(NOBODY)
    }

    /// The same, with this as its only group.
    #[must_use]
    pub fn unprivileged_in_group(mut self, group: u32) -> Self {
        if is_root() {
            // The build's directory may be closed to others. Copied by a program, as scripts are written by one.
            let copy = self.path("bin/db-backup-tools");
            assert!(Command::new("cp").arg(&self.program).arg(&copy).status().unwrap().success());
            self.program = copy;
            let group = format!("--regid={group}");
            let setpriv = ["setpriv", "--reuid=65534", &group, "--clear-groups"];
            self.wrapper.splice(0..0, setpriv.map(OsString::from));
            give_to_nobody(self.directory.path());
        }
        self
    }

    /// Puts a shell script in place of a client program, in `{bin}`, which is first in the program's PATH and
    /// also fit for `client_bin:`, as the other client programs are linked there. In the script `{real}` is
    /// the real program's path. It says the real one's version, unless the script takes care of `--version`.
    #[must_use]
    pub fn fake_bin(self, name: &str, script: &str) -> Self {
        for program in ["pg_dump", "pg_dumpall", "pg_restore", "psql", "pg_isready"] {
            // Linked already where this is not the test's first fake.
            let _ = std::os::unix::fs::symlink(cluster::binaries().join(program), self.path("bin").join(program));
        }
        let path = self.path("bin").join(name);
        let _ = fs::remove_file(&path);
        let real = cluster::binaries().join(name);
        let version = r#"[ "$1" = --version ] && exec {real} --version"#;
        let script = if script.contains("--version") { script.to_owned() } else { format!("{version}\n{script}") };
        self.script(&format!("bin/{name}"), &script.replace("{real}", real.to_str().unwrap()));
        self
    }

    /// A shell script in the test's directory that can be run, its text filled like [`Test::config`]'s.
    pub fn script(&self, name: &str, text: &str) {
        let text = format!("#!/bin/sh\n{}\n", self.filled(text));
        // Written by a program: a file that we had open for writing could not be run while another test's new child still
        // holds it.
        let written = Command::new("sh")
            .args(["-c", r#"printf '%s' "$1" >"$2" && chmod 755 "$2""#, "sh", &text])
            .arg(self.path(name))
            .status();
        assert!(written.unwrap().success());
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The storage's directory.
    pub fn storage(&self) -> PathBuf {
        self.path("storage")
    }

    /// The files in the storage, hidden ones too, as sorted paths relative to it.
    pub fn stored(&self) -> Vec<String> {
        files_below(&self.storage())
    }

    /// The only file in the storage whose name ends like this: `.manifest.json`.
    #[track_caller]
    pub fn stored_one(&self, ending: &str) -> PathBuf {
        let stored = self.stored();
        let mut found = stored.iter().filter(|path| path.ends_with(ending));
        match (found.next(), found.next()) {
            (Some(path), None) => self.storage().join(path),
            _ => panic!("not one file that ends in {ending}: {stored:?}"),
        }
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Ran {
        self.spawn(arguments).wait()
    }

    /// Starts the program.
    #[track_caller]
    pub fn spawn<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Running {
        let mut words = self.wrapper.clone();
        words.push(self.program.clone().into());
        words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        // Files, not pipes: a grandchild that holds one open keeps no test waiting.
        let [stdout, stderr] = ["out", "err"].map(|name| self.path(&format!(".ran/{number}.{name}")));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let command = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Running { child, command, stdout, stderr }
    }
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_nobody(&entry.unwrap().path());
        }
    }
}

/// The files below a directory, as sorted paths relative to it.
pub fn files_below(root: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

/// The program at work. Dropped before its end, it is killed.
pub struct Running {
    child: Child,
    command: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Sends a signal to the program, or to the wrapper it runs under.
    pub fn kill(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has printed to stderr so far.
    pub fn stderr_so_far(&self) -> String {
        text_of(&self.stderr)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; one that never comes fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        if let Ok(process) = pidfd_open(self.pid(), PidfdFlags::empty()) {
            let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&HANGS)).unwrap();
            assert!(ended > 0, "it hangs: {}\n{}", self.command, self.stderr_so_far());
        }
        let status = self.child.wait().unwrap();
        Ran::new(&self.command, status, text_of(&self.stdout), text_of(&self.stderr))
    }

    /// Whether it ends within this time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        super::holds_within(limit, || !self.is_running())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What a run of the program came to.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Results.
    pub stdout: String,
    /// What is for people.
    pub stderr: String,
}

impl Ran {
    fn new(command: &str, status: ExitStatus, stdout: String, stderr: String) -> Self {
        Self { command: command.to_owned(), code: status.code(), signal: status.signal(), stdout, stderr }
    }

    /// It must have ended in exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails(0)
    }

    /// It must have ended in this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "{}\nended in {:?} (signal {:?}), not in {code}\n--- stdout\n{}--- stderr\n{}",
            self.command,
            self.code,
            self.signal,
            self.stdout,
            self.stderr
        );
        self
    }

    /// It must have told a person this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{}\ndoes not say {text:?} but\n{}", self.command, self.stderr);
        self
    }

    /// Nothing that it printed may hold this: a secret.
    #[track_caller]
    pub fn never_shows(self, secret: &str) -> Self {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{} shows {secret}", self.command);
        self
    }

    /// Its stdout, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error} in\n{}--- stderr\n{}", self.command, self.stdout, self.stderr))
    }
}
