//! Children: the one home of `Command`. Each gets exactly the environment it is given, a process
//! group of its own, and pipes that are polled together with the cancel token. No wait on a child
//! may outlive its token, and no child may outlive its handle.

mod child;
mod group;
mod lines;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
#[allow(clippy::disallowed_types)] // the one home of Command
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Access, access};

use super::Context;
use crate::error::{Error, Kind, Result};

pub use child::{Child, Finished};
pub use lines::Listener;

/// Where programs are looked for when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// What [`Program::output`] takes, when not told otherwise: 64 MiB.
const OUTPUT_LIMIT: usize = 64 << 20;
/// Tries of a program file that somebody has open for writing, 20 ms apart.
const BUSY_TRIES: u32 = 50;

/// What to run, and with what. Values of the environment may be secrets: `Debug` shows their names
/// alone. Arguments are public to every user of the machine: a secret must not be among them.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    changes: Vec<Change>,
    directory: Option<PathBuf>,
    user: Option<(u32, u32)>,
    limit: usize,
    keeps_stdin: bool,
}

#[derive(Clone)]
enum Change {
    Set(OsString, OsString),
    RemovePrefix(OsString),
}

impl Program {
    /// A program by its path; a name without a slash is looked for in the child's `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            changes: Vec::new(),
            directory: None,
            user: None,
            limit: OUTPUT_LIMIT,
            keeps_stdin: false,
        }
    }

    /// Adds an argument. Never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments. Never a secret.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable for this child alone; it may be a secret. Changes apply in the order in
    /// which they are made.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.changes.push(Change::Set(name.into(), value.into()));
        self
    }

    /// Keeps all variables from this child whose names begin like this: `PG`.
    #[must_use]
    pub fn without_env_prefix(mut self, prefix: &str) -> Self {
        self.changes.push(Change::RemovePrefix(prefix.into()));
        self
    }

    /// Runs it in this directory; otherwise it runs in ours.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Runs it as this user and group, and as a member of no other group: root's to do.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// How many bytes [`Program::output`] takes; more is an error. 64 MiB when not set.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Its stdin stays open as long as it is read: it takes the end of it for ours.
    #[must_use]
    pub fn keeps_stdin(mut self) -> Self {
        self.keeps_stdin = true;
        self
    }

    /// The program's name, for messages.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Starts it to read what it writes to its stdout. Its stdin is empty, or open and silent where it
    /// [keeps](Program::keeps_stdin) one.
    pub fn spawn_reader(&self, cx: &Context) -> Result<Child> {
        let stdin = if self.keeps_stdin { Stdio::piped() } else { Stdio::null() };
        Ok(Child::reader(self.spawn(stdin, cx)?, self.name(), cx))
    }

    /// The same, and tells each line that it writes to its stderr to `listener` as it comes: there may be very many. The last
    /// has been told when [`Child::wait`] returns.
    pub fn spawn_reader_heard_by(&self, listener: Listener, cx: &Context) -> Result<Child> {
        Ok(self.spawn_reader(cx)?.heard_by(listener))
    }

    /// Starts it to write to its stdin. What it writes to its stdout is collected: the last 64 KiB.
    pub fn spawn_writer(&self, cx: &Context) -> Result<Child> {
        Ok(Child::writer(self.spawn(Stdio::piped(), cx)?, self.name(), cx))
    }

    /// Starts it to turn what is written to its stdin into what is read from its stdout, see [`Child::shift`].
    pub fn spawn_filter(&self, cx: &Context) -> Result<Child> {
        Ok(Child::reader(self.spawn(Stdio::piped(), cx)?, self.name(), cx))
    }

    /// Starts it on a file as its stdin. What it writes to its stdout is collected: the last 64 KiB.
    pub fn spawn_on(&self, stdin: File, cx: &Context) -> Result<Child> {
        Ok(Child::writer(self.spawn(stdin.into(), cx)?, self.name(), cx))
    }

    /// Starts it to talk with: to write to its stdin, and to read its stdout. It must say little before it
    /// is read: what it can't get rid of holds it up.
    pub fn spawn_session(&self, cx: &Context) -> Result<Child> {
        Ok(Child::reader(self.spawn(Stdio::piped(), cx)?, self.name(), cx))
    }

    /// Runs it to its end: gives it `input` and takes all of its stdout. An exit that is no success
    /// is no error here: look at [`Output::exit`]. A program that does not read all of its input is
    /// no error either. More output than [`Program::limit`] is one.
    pub fn output(&self, input: &[u8], cx: &Context) -> Result<Output> {
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut child = Child::reader(self.spawn(stdin, cx)?, self.name(), cx);
        let stdout = child.exchange(input, self.limit)?;
        let Finished { exit, stderr_tail, .. } = child.wait()?;
        Ok(Output { stdout, stderr_tail, exit })
    }

    #[allow(clippy::disallowed_types)] // the one home of Command
    fn spawn(&self, stdin: Stdio, cx: &Context) -> Result<std::process::Child> {
        cx.cancel.check()?;
        let variables = self.variables(cx);
        let program = self.resolve(&variables)?;
        let mut command = Command::new(program);
        command.args(&self.args).env_clear().envs(variables).process_group(0);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some((uid, gid)) = self.user {
            // The standard library takes all other groups from a child whose user root sets.
            command.uid(uid).gid(gid);
        }
        let mut tries = 0;
        loop {
            match command.spawn() {
                // A file that was written a moment ago may still be open in another thread's child
                // that is about to exec.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    cx.cancel.sleep(Duration::from_millis(20))?;
                }
                result => return result.map_err(|error| self.not_started(error)),
            }
        }
    }

    fn variables(&self, cx: &Context) -> BTreeMap<OsString, OsString> {
        let mut variables: BTreeMap<OsString, OsString> =
            cx.env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for change in &self.changes {
            match change {
                Change::Set(name, value) => drop(variables.insert(name.clone(), value.clone())),
                Change::RemovePrefix(prefix) => {
                    let prefix = prefix.as_encoded_bytes();
                    variables.retain(|name, _| !name.as_encoded_bytes().starts_with(prefix));
                }
            }
        }
        variables
    }

    /// The program's absolute path: a relative one would depend on the child's directory.
    fn resolve(&self, variables: &BTreeMap<OsString, OsString>) -> Result<PathBuf> {
        if self.path.as_os_str().as_encoded_bytes().contains(&b'/') {
            return std::path::absolute(&self.path).map_err(|error| self.not_started(error));
        }
        let path = variables.get(OsStr::new("PATH")).map(OsString::as_os_str);
        find_in(self.path.as_os_str(), path).next().ok_or_else(|| {
            let path = path.map_or(DEFAULT_PATH.into(), |path| path.to_string_lossy().into_owned());
            Error::new(Kind::Child, format!("can't run {}: it is in no directory of PATH ({path})", self.name()))
                .hint("install it, or add its directory to PATH; cron's PATH is shorter than a shell's")
        })
    }

    fn not_started(&self, error: io::Error) -> Error {
        let path = self.path.display();
        let directory = self.directory.as_deref().filter(|directory| !directory.is_dir());
        if let Some(directory) = directory {
            return Error::new(Kind::Child, format!("can't run {path} in {}", directory.display())).source(error);
        }
        let cause = Error::new(Kind::Child, format!("can't run {path}"));
        match error.kind() {
            io::ErrorKind::NotFound if self.path.exists() => {
                cause.hint("the file is there, but the interpreter or loader that it names is not").source(error)
            }
            io::ErrorKind::NotFound => cause.hint("install it, or correct its path").source(error),
            io::ErrorKind::PermissionDenied => {
                cause.hint("make it executable for this user; a file system mounted noexec runs nothing").source(error)
            }
            _ => cause.source(error),
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.changes.iter().map(|change| match change {
            Change::Set(name, _) => format!("{}=...", name.to_string_lossy()),
            Change::RemovePrefix(prefix) => format!("-{}*", prefix.to_string_lossy()),
        });
        f.debug_struct("Program")
            .field("path", &self.path)
            .field("args", &self.args)
            .field("env", &names.collect::<Vec<_>>())
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// Every program of this name in the directories of `cx.env`'s `PATH`, in their order.
pub fn find_programs(name: &str, cx: &Context) -> Vec<PathBuf> {
    find_in(OsStr::new(name), cx.env.get_os("PATH")).collect()
}

fn find_in<'a>(name: &'a OsStr, path: Option<&'a OsStr>) -> impl Iterator<Item = PathBuf> + 'a {
    let runs = |file: &PathBuf| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH)))
        // An empty part means the current directory, which is never meant.
        .filter(|directory| !directory.as_os_str().is_empty())
        .map(move |directory| directory.join(name))
        .filter(runs)
        .filter_map(|file| std::path::absolute(file).ok())
}

/// What a program that ran to its end left.
#[derive(Debug)]
pub struct Output {
    /// All that it wrote to its stdout.
    pub stdout: Vec<u8>,
    /// The beginning and the end of what it wrote to its stderr, 16 KiB at most.
    pub stderr_tail: String,
    /// How it ended.
    pub exit: Exit,
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// Its code, where it ended by itself.
    pub fn code(self) -> Option<i32> {
        if let Self::Code(code) = self { Some(code) } else { None }
    }

    /// For a message, behind the program's name: `exited with code 1`.
    pub fn describe(self) -> String {
        match self {
            Self::Code(code) => format!("exited with code {code}"),
            Self::Signal(9) => "was killed by signal 9 (SIGKILL; the out-of-memory killer?)".into(),
            Self::Signal(signal) => match signal_hook::low_level::signal_name(signal) {
                Some(name) => format!("was killed by signal {signal} ({name})"),
                None => format!("was killed by signal {signal}"),
            },
        }
    }
}
