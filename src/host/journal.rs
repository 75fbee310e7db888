//! The journal of things to undo: a small file in `state_dir/undo` for each deed that must not outlive its process, written
//! before the deed and removed after it is undone. The process that wrote it holds a lock on it as long as it lives, so that
//! a later one can tell what was left from what is under way. What can't be read is told, and never removed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::fs::{CWD, FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::Context;
use super::engine::{EngineKind, Member, Remedy, Resumed, Way};
use super::files::{create_private, create_private_dirs, open_regular_with, random_bytes, rename_new, sync_dir, try_lock};
use super::lock::{self, Lock};
use crate::error::{Error, Kind, Result};
use crate::names::{RunId, UnitName, hex};
use crate::observe::Event;

/// What to do where it can't be written.
const UNUSABLE: &str = "set `state_dir:` to a directory on a local disk that this user can write; nothing was stopped";
/// The version of a record that is written, and the newest that is read.
const SCHEMA: u32 = 1;
/// A look at a record holds its lock for a moment: that long it is asked for before its owner counts as alive.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(20);
/// A temporary file this old has lost its process; it was no record yet.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// No record is longer.
const LONGEST: u64 = 1 << 20;

/// What is to be undone, and who has to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    schema: u32,
    /// What undoes it.
    pub action: Remedy,
    /// Whose containers they are.
    pub engine: EngineKind,
    /// In the order in which they were made to stand still.
    pub containers: Vec<Member>,
    /// For which unit.
    pub unit: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The process that did it.
    pub pid: u32,
    /// Its words.
    #[serde(default)]
    pub command: Vec<String>,
}

impl Undo {
    /// One of this process's, from now on.
    pub fn new(action: Remedy, engine: EngineKind, containers: Vec<Member>, unit: &UnitName, cx: &Context) -> Self {
        // Our words hold no secret: any user can see them in the process list.
        let command = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let (since, pid) = (RunId::starting(cx.clock.now()).time(), std::process::id());
        Self { schema: SCHEMA, action, engine, containers, unit: unit.to_string(), since, pid, command }
    }

    /// The containers, for a person: `container web`, `containers web, db`.
    pub fn names(&self) -> String {
        names(self.containers.iter())
    }
}

/// Containers, for a person: `container web`, `containers web, db`.
pub fn names<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let names: Vec<&str> = members.map(|member| member.name.as_str()).collect();
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// The journal of a `state_dir`.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: PathBuf,
}

/// A record whose process lives: the lock on it goes with this.
#[derive(Debug)]
pub struct Record {
    file: File,
    path: PathBuf,
}

/// A record that its process left, locked by us.
#[derive(Debug)]
pub struct Orphan {
    /// The file.
    pub record: Record,
    /// What it says.
    pub undo: Undo,
}

/// What a look at the journal found.
#[derive(Debug, Default)]
pub struct Orphans {
    /// What is to be undone, the oldest first.
    pub found: Vec<Orphan>,
    /// What can't be read, and why.
    pub unreadable: Vec<Error>,
}

impl Journal {
    /// That of this directory; nothing is touched yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("undo") }
    }

    /// Writes a record that survives a power cut. To be called before the deed.
    pub fn record(&self, undo: &Undo) -> Result<Record> {
        let random = hex(&random_bytes::<8>()?);
        let name = format!("{}-{random}.json", RunId::starting(undo.since));
        self.write(undo, &self.directory.join(format!(".{random}.tmp")), &self.directory.join(name)).map_err(|error| {
            Error::new(Kind::Internal, format!("can't write down in {} what is to be undone", self.directory.display()))
                .hint(UNUSABLE)
                .source(error)
                .step("journal")
        })
    }

    fn write(&self, undo: &Undo, temporary: &Path, path: &Path) -> io::Result<Record> {
        create_private_dirs(&self.directory)?;
        let mut file = create_private(temporary)?;
        let written = (|| {
            // Ours before it has a name that anybody looks at.
            if !try_lock(&file)? {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds a new file"));
            }
            let mut text = serde_json::to_vec_pretty(undo)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            rename_new(temporary, path)
        })();
        if let Err(error) = written {
            let _ = std::fs::remove_file(temporary);
            return Err(error);
        }
        let record = Record { file, path: path.to_owned() };
        if let Err(error) = sync_dir(&self.directory) {
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(record)
    }

    /// Has a record say from now on what is left to be undone: nothing, and it goes. Where another says it, its path.
    pub fn settle(&self, record: Record, undo: &Undo, resumed: &[Resumed]) -> Result<Option<PathBuf>> {
        let left = |one: &&Resumed| matches!(one.way, Way::Failed(_));
        let containers: Vec<Member> = resumed.iter().filter(left).map(|one| one.member.clone()).collect();
        if containers == undo.containers {
            return Ok(None);
        }
        let is_done = containers.is_empty();
        let rest = if is_done { None } else { Some(self.record(&Undo { containers, ..undo.clone() })?.path().to_owned()) };
        record.remove().map(|()| rest).map_err(|error| {
            Error::new(Kind::Internal, format!("can't remove what was undone from {}", self.directory.display()))
                .source(error)
                .step("journal")
        })
    }

    /// What was left by processes that are gone. Nobody else undoes it as long as the result is kept.
    pub fn orphans(&self, cx: &Context) -> Result<Orphans> {
        let unusable = |error| {
            Error::new(Kind::Internal, format!("can't look in {} for what was left to be undone", self.directory.display()))
                .source(error)
                .step("journal")
        };
        let mut paths = match self.paths(cx) {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Orphans::default()),
            Err(error) => return Err(unusable(error)),
        };
        paths.sort();
        let mut orphans = Orphans::default();
        for look in 0..LOOKS {
            paths.retain(|path| match look_at(path) {
                Ok(Looked::Held) => true,
                Ok(Looked::Gone) => false,
                Ok(Looked::Left(orphan)) => {
                    orphans.found.push(orphan);
                    false
                }
                Err(error) => {
                    orphans.unreadable.push(unreadable(path, error));
                    false
                }
            });
            if paths.is_empty() {
                break;
            }
            if look + 1 < LOOKS {
                cx.cancel.sleep(LOOK)?;
            }
        }
        orphans.found.sort_by(|one, other| one.record.path.cmp(&other.record.path));
        Ok(orphans)
    }

    fn paths(&self, cx: &Context) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match path.extension().and_then(OsStr::to_str) {
                Some("json") => paths.push(path),
                Some("tmp") => remove_stale(&path, cx),
                _ => {}
            }
        }
        Ok(paths)
    }

    /// Takes these containers for ourselves, waiting for others of our kind that have them: so that none takes for one that did not run
    /// what another has stopped. By name, as a container that is made anew has another id, and a lock's file stays for ever.
    pub fn claim(&self, engine: EngineKind, names: &[&str], unit: &UnitName, cx: &Context) -> Result<Vec<Lock>> {
        self.claim_each(engine, names, |state, name, shown| match lock::take(state, name, None, cx) {
            Err(error) if error.kind() == Kind::Locked => {
                let text = format!("{unit}: waits for container {shown}: {}", error.cause());
                cx.observer.event(Event::Note { text });
                lock::take(state, name, Some(Duration::MAX), cx)
            }
            taken => taken,
        })
    }

    /// The same without waiting: a container that somebody has is `Locked`.
    pub fn claim_now(&self, engine: EngineKind, names: &[&str], cx: &Context) -> Result<Vec<Lock>> {
        self.claim_each(engine, names, |state, name, _| lock::take(state, name, None, cx))
    }

    fn claim_each(
        &self,
        engine: EngineKind,
        names: &[&str],
        take: impl Fn(&Path, &UnitName, &str) -> Result<Lock>,
    ) -> Result<Vec<Lock>> {
        // In one order for all: two that want the same ones wait for each other's first.
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let take = |name| take(&self.directory, &UnitName::new(format!("{engine}.{name}")), name);
        let unusable = |error: Error| if error.kind() == Kind::Internal { error.hint(UNUSABLE).step("journal") } else { error };
        sorted.into_iter().map(take).collect::<Result<_>>().map_err(unusable)
    }
}

impl Record {
    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that was forked and has not yet called exec.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

enum Looked {
    /// Its process lives.
    Held,
    /// It was undone meanwhile.
    Gone,
    Left(Orphan),
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

fn look_at(path: &Path) -> io::Result<Looked> {
    let mut file = match open_regular_with(CWD, path, OFlags::RDWR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Looked::Gone),
        file => file?,
    };
    if !try_lock(&file)? {
        return Ok(Looked::Held);
    }
    if file.metadata()?.nlink() == 0 {
        return Ok(Looked::Gone);
    }
    let mut text = Vec::new();
    (&mut file).take(LONGEST).read_to_end(&mut text)?;
    let record = Record { file, path: path.to_owned() };
    let Version { schema } = serde_json::from_slice(&text)?;
    if schema > SCHEMA {
        return Err(io::Error::other(format!("its schema {schema} is newer than this program's")));
    }
    Ok(Looked::Left(Orphan { record, undo: serde_json::from_slice(&text)? }))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Kind::Internal, format!("what is to be undone by {} can't be read", path.display()))
        .hint("look in it which containers were stopped, start what does not run, then remove the file")
        .source(error)
        .step("journal")
}

/// Of a process that was killed before it had done anything.
fn remove_stale(path: &Path, cx: &Context) {
    let age = |time: std::time::SystemTime| (cx.clock.now() - DateTime::<Utc>::from(time)).to_std().unwrap_or_default();
    let modified = std::fs::symlink_metadata(path).and_then(|found| found.modified());
    if modified.is_ok_and(|time| age(time) > STALE) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
