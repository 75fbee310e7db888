//! What makes a unit's byte stream, and what takes one back. A source knows nothing of
//! compression, encryption or storages.

mod inventory;
pub mod postgres;
pub mod volume;

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::host::Context;
use crate::names::{Id, UnitName};

pub use inventory::{Comparison, FileCounts, Inventory, LargeObjects, SequenceState, TableCount};

/// Something that can be captured and staged again.
pub trait Source: Send + Sync {
    /// Its units; `all` is resolved here, which asks the server.
    fn units(&self, cx: &Context) -> Result<Units>;

    /// The file extension of a unit's stream, before compression's own: `sql`, `dump`.
    fn extension(&self, unit: &UnitName) -> &'static str;

    /// Versions, a size estimate, and which way it goes; also whether a backup would be allowed.
    fn probe(&self, unit: &UnitName, cx: &Context) -> Result<Probe>;

    /// Starts to read one unit. May be called again for another attempt, with a new id.
    /// Dropping the capture ends all that it started.
    fn capture(&self, unit: &UnitName, id: Id, cx: &Context) -> Result<Box<dyn Capture>>;

    /// Looks whether a stream with these facts could be restored there, and changes nothing. `Refused`
    /// where the destination must not be touched, or lacks what the stream needs. Warnings come back.
    fn check(&self, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>>;

    /// What a stream must have passed through, and be proven whole, before it goes there; where it is written in place, and
    /// not first into a scratch place.
    fn look_first(&self, _landing: &Landing<'_>, _cx: &Context) -> Result<Option<Box<dyn Look>>> {
        Ok(None)
    }

    /// Makes a scratch place for a stream that was captured with these facts. Fails before anything
    /// is made when the destination must not be touched or lacks what the stream needs.
    fn stage(&self, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>>;
}

/// What a target names now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    /// Its units, in order.
    pub units: Vec<UnitName>,
    /// What was left out of `all`, and why, one clause each.
    pub left_out: Vec<String>,
}

/// What a look at a source found.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// The server's version.
    pub server_version: Option<String>,
    /// The client programs' version.
    pub client_version: Option<String>,
    /// Bytes on the source's disk: an estimate of what will be read.
    pub estimated_bytes: Option<u64>,
    /// For a person: `host client 15.18 over TCP to db:5432`.
    pub way: String,
    /// What the backup can't read, one clause each: it would fail on it.
    pub unreadable: Vec<String>,
    /// What a person should know of it.
    pub warnings: Vec<String>,
}

/// A unit's bytes on their way. A child's failure arrives as a read error; an end of file alone
/// proves nothing: [`Capture::finish`] does.
pub trait Capture: Read + Send {
    /// Bytes on the source's disk, as known when it began: an estimate of what will be read, which may be far from it.
    fn estimated_bytes(&self) -> Option<u64> {
        None
    }

    /// After the end of file: waits for the child, and proves that the stream was whole.
    fn finish(self: Box<Self>) -> Result<CaptureInfo>;
}

/// What is known of a stream when it is whole.
#[derive(Debug, Clone)]
pub struct CaptureInfo {
    /// What a later restore needs to know.
    pub facts: Facts,
    /// What was counted in passing.
    pub inventory: Inventory,
    /// What a person should know of it.
    pub warnings: Vec<String>,
    /// What puts its data in doubt, though it is whole as a stream: a file that changed while it was read.
    pub doubts: Vec<String>,
}

/// What a manifest keeps about the source, and a restore needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `postgres`, `volume`.
    pub kind: String,
    /// The database, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What the stream is: `plain`.
    pub format: String,
    /// The server's version, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The version of the program that made the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// The source's own: owner, encoding, roles, ...
    #[serde(default)]
    pub restore: serde_json::Value,
}

/// Where a restore goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The unit's own place: absent or empty, unless it is to be replaced.
    Own,
    /// A database of this name on the target's server, likewise.
    Database(String),
    /// A directory of this machine, likewise.
    Directory(PathBuf),
    /// A volume of a container engine, likewise; it is made where it is absent.
    Volume(String),
    /// A scratch place that is never published, where the target's `drill:` says.
    Drill,
}

/// How a restore is done.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)] // each is an option of the command line
pub struct StageOptions {
    /// Owners are left out.
    pub no_owner: bool,
    /// Grants are left out.
    pub no_privileges: bool,
    /// What has the wanted name makes room, and stays under another one.
    pub replace: bool,
    /// Sessions on what is replaced are ended.
    pub disconnect: bool,
    /// Roles that the stream names and the server lacks are made, without login or password.
    pub missing_roles: bool,
    /// Objects loaded at once, where the format can.
    pub jobs: Option<NonZeroU32>,
    /// Containers that use the destination are stopped meanwhile.
    pub stop: bool,
}

/// A stream's way back: what it is and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Landing<'a> {
    /// Whose backup it is.
    pub unit: &'a UnitName,
    /// The backup.
    pub id: Id,
    /// What its manifest says.
    pub facts: &'a Facts,
    /// Bytes of content.
    pub bytes: u64,
    /// Where it goes.
    pub to: &'a Destination,
    /// How.
    pub options: StageOptions,
    /// Under what lasting files of ours may be made: spools, temporary servers.
    pub state_dir: &'a Path,
}

/// Takes a stream, and does nothing with it but to look whether it may be taken back.
pub trait Look: Write + Send {
    /// After the last byte.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Takes a stream back into a scratch place. Dropped before [`Sink::finish`] it removes all that
/// it made.
pub trait Sink: Write + Send {
    /// After the last byte, and only when it is proven that the stream was whole: waits until
    /// everything is applied, and proves it.
    fn finish(self: Box<Self>) -> Result<Box<dyn Staged>>;
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it is, for a person: `database app_restored`.
    pub place: String,
    /// What is not as it was in the source, one clause each.
    pub warnings: Vec<String>,
    /// The same, where what is missing may be missed: an attribute that the file system does not take.
    pub doubts: Vec<String>,
    /// What else a person needs to know, a line each: what became of the former one, and the commands for it.
    pub notes: Vec<String>,
}

/// A restored unit in its scratch place. Dropped without [`Staged::publish`] it is removed.
pub trait Staged: Send {
    /// Counts what is there, for all that was counted when it was dumped, and compares.
    fn compare(&mut self, dumped: &Inventory) -> Result<Comparison>;

    /// Runs one query of a user's in it: the first value of its first row as text, empty where there is none.
    fn check(&mut self, sql: &str) -> Result<String>;

    /// Where it is, for a person: `a temporary server 15.18`.
    fn place(&self) -> String {
        "a scratch place".into()
    }

    /// What a person should know of it so far; the observer was told at once.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Gives it the wanted name.
    fn publish(self: Box<Self>) -> Result<Published>;

    /// Removes it.
    fn discard(self: Box<Self>) -> Result<()>;
}
