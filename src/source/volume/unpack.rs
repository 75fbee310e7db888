//! Unpacks a tar by GNU tar, which puts back all that it keeps. Each byte goes through our own reading first: a member that
//! leads out of the place, or that can't be told, never reaches it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use super::archiver::{self, Tar};
use super::digests::Digests;
use super::guard::{Guard, Reader};
use super::landing::Owners;
use super::members::{Member, Members, Visitor};
use crate::config::model::Archiver;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::engine::leash_said;
use crate::host::process::{Child, Exit, Program};
use crate::source::Look;

/// Messages of tar that an error or a warning quotes.
const SHOWN: usize = 5;

/// This machine's GNU tar: no other puts back what ours keep.
pub(super) fn full_tar(cx: &Context) -> Result<Tar> {
    Tar::of_host(Archiver::Full, cx).map_err(|error| match error.kind() {
        Kind::Child => error
            .kind_is(Kind::Refused)
            .hint("install GNU tar, or take the plain tar with --output FILE and unpack it by hand")
            .step("unpack"),
        _ => error,
    })
}

/// It on its way to unpack what it is given into this directory.
pub(super) fn host_tar(tar: &Tar, directory: &Path, owners: Owners) -> Program {
    let mut into = OsString::from("--directory=");
    into.push(directory);
    archiver::host(&tar.path).args(options(owners)).arg(into)
}

/// How it unpacks (GNU tar's manual, "Options to Extract" and "Extended File Attributes").
pub(super) fn options(owners: Owners) -> [&'static str; 10] {
    [
        "--extract",
        "--file=-",
        "--numeric-owner",
        // Modes whole, whatever the umask is.
        "--same-permissions",
        if owners == Owners::Same { "--same-owner" } else { "--no-same-owner" },
        // Else a directory that is closed to changes could not be filled.
        "--delay-directory-restore",
        "--xattrs",
        // Without it, those of users alone.
        "--xattrs-include=*",
        // ACLs are among them, by number: tar's own way would take a name for whoever has it here.
        "--no-acls",
        // Of times in the future, which are as they were.
        "--warning=no-timestamp",
    ]
}

/// What comes on the way to tar.
struct Passing {
    guard: Guard,
    digests: Option<Digests>,
}

impl Visitor for Passing {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        self.guard.member(member)?;
        self.digests.as_mut().map_or(Ok(()), |digests| digests.member(member))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.guard.data(bytes)?;
        self.digests.as_mut().map_or(Ok(()), |digests| digests.data(bytes))
    }

    fn hole(&mut self, bytes: u64) -> Result<()> {
        self.guard.hole(bytes)?;
        self.digests.as_mut().map_or(Ok(()), |digests| digests.hole(bytes))
    }

    fn end(&mut self) -> Result<()> {
        self.guard.end()?;
        self.digests.as_mut().map_or(Ok(()), Visitor::end)
    }
}

/// A tar that is read and held to be harmless, and no more.
pub(super) struct Looked {
    members: Members,
    passing: Passing,
}

impl Looked {
    /// With digests of its files, where these are wanted.
    pub(super) fn new(digests: Option<Digests>) -> Self {
        Self { members: Members::default(), passing: Passing { guard: Guard::new(Reader::Gnu), digests } }
    }

    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.members.feed(bytes, &mut self.passing).map_err(|error| error.step("load"))
    }

    /// After the last byte.
    pub(super) fn finish(self) -> Result<Option<Digests>> {
        if self.members.is_complete() {
            return Ok(self.passing.digests);
        }
        Err(Error::new(Kind::Damaged, "the tar does not end as a whole one does")
            .hint("verify the backup, and take another one")
            .step("load"))
    }
}

impl Write for Looked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Look for Looked {
    fn finish(self: Box<Self>) -> Result<()> {
        Self::finish(*self).map(drop)
    }
}

/// A tar that unpacks what passes.
pub(super) struct Unpacking {
    looked: Looked,
    tar: Child,
    /// tar has read all that it wants: what follows its end mark is nothing.
    is_read: bool,
    /// The name under which it says in a container how it ended: there its client's exit code alone proves nothing.
    told_as: Option<String>,
}

/// What came of it.
pub(super) struct Unpacked {
    pub digests: Option<Digests>,
    /// What tar could not put back as it was, one clause each.
    pub doubts: Vec<String>,
}

impl Unpacking {
    /// Starts it.
    pub(super) fn start(tar: &Program, digests: Option<Digests>, cx: &Context) -> Result<Self> {
        let tar = tar.spawn_writer(cx).map_err(|error| error.step("unpack"))?;
        Ok(Self { looked: Looked::new(digests), tar, is_read: false, told_as: None })
    }

    /// It runs in a container, and has ended well only when that is said under this name, see [`told_as`](crate::host::engine::told_as).
    pub(super) fn told_as(mut self, name: String) -> Self {
        self.told_as = Some(name);
        self
    }

    /// Passes more of it on.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.looked.feed(bytes)?;
        if self.is_read {
            return Ok(());
        }
        match self.tar.write_all(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.looked.members.is_complete() => {
                self.is_read = true;
                Ok(())
            }
            written => written.map_err(|error| self.stopped(error)),
        }
    }

    /// After the last byte, and only when it is proven: waits until tar has put everything where it belongs.
    pub(super) fn finish(self) -> Result<Unpacked> {
        let Self { looked, mut tar, told_as, .. } = self;
        let digests = looked.finish()?;
        tar.close_stdin();
        let finished = tar.wait().map_err(|error| error.step("unpack"))?;
        let (told, said) = heard(told_as.as_deref(), &finished.stderr_tail);
        if told_as.is_some() && finished.exit.is_success() && told != Some(0) {
            return Err(Error::new(Kind::Child, "the connection to the engine ended before tar did")
                .hint("look whether the engine was restarted, and restore again")
                .step("unpack"));
        }
        match finished.exit {
            Exit::Code(0) => Ok(Unpacked { digests, doubts: doubts(&said) }),
            exit => Err(failed(exit, &said)),
        }
    }

    /// Why tar took no more: what it said, where it ended; else the write's own error.
    fn stopped(&mut self, error: io::Error) -> Error {
        let error = crate::error::from_io(error, Kind::Child, "tar took no more of the archive");
        if error.kind() != Kind::Child {
            return error.step("unpack");
        }
        match self.tar.wait() {
            Ok(finished) if !finished.exit.is_success() => {
                failed(finished.exit, &heard(self.told_as.as_deref(), &finished.stderr_tail).1)
            }
            Ok(_) => error.step("unpack"),
            Err(other) => other.step("unpack"),
        }
    }
}

/// How it ended, where that was told in a container, and what tar said.
fn heard(told_as: Option<&str>, stderr: &str) -> (Option<i32>, Vec<String>) {
    let Some(name) = told_as else { return (None, messages(stderr)) };
    let (told, said) = leash_said(name, stderr);
    (told, messages(&said))
}

/// What tar said, without its name and without the line that it ends with.
fn messages(stderr: &str) -> Vec<String> {
    // It calls itself by the path that it was started by.
    let unnamed = |line: &str| match line.split_once(": ") {
        Some((name, rest)) if name.ends_with("tar") && !name.contains(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).map(unnamed);
    lines
        .filter(|line| !line.starts_with("Exiting with failure status") && line != "Error is not recoverable: exiting now")
        .collect()
}

fn failed(exit: Exit, said: &[String]) -> Error {
    let shown = said.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = match said.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more messages"),
    };
    let about = if shown.is_empty() { String::new() } else { format!(": {shown}{more}") };
    let is_said = |words: &[&str]| said.iter().any(|line| words.iter().any(|word| line.contains(word)));
    let hint = if is_said(&["No space left on device", "Disk quota exceeded", "Wrote only"]) {
        "make room, or restore it to another file system"
    } else if is_said(&["Operation not permitted", "Permission denied"]) {
        "run it as root: devices, others' files and some attributes are root's alone to make"
    } else {
        "look at what tar says; --output FILE gives the plain tar, to be unpacked by hand"
    };
    Error::new(Kind::Child, format!("tar {}{about}", exit.describe())).hint(hint).step("unpack")
}

fn doubts(said: &[String]) -> Vec<String> {
    let mut doubts: Vec<String> = said.iter().take(SHOWN).map(|line| format!("tar says: {line}")).collect();
    if said.len() > SHOWN {
        doubts.push(format!("tar says {} more such things", said.len() - SHOWN));
    }
    doubts
}
