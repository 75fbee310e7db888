//! What the storages' listings and manifests say is there. One listing is enough to plan; manifests
//! are read for what is shown, and before anything is deleted.

pub mod manifest;
pub mod resolve;
pub mod stats;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::host::Context;
use crate::names::{Escaped, Key, ObjectName, ProofKind, RunId, Stem};
use crate::storage::Storage;
use manifest::Manifest;

/// What one storage's listing says of one backup.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose it is.
    pub host: Escaped,
    /// What it is.
    pub stem: Stem,
    /// The artifact's file extension; `None`: there is no artifact.
    pub artifact: Option<String>,
    /// The commit mark is there.
    pub has_manifest: bool,
    /// An inventory is there.
    pub has_inventory: bool,
    /// Kept whatever the policy says.
    pub pinned: bool,
    /// It tripped a guard.
    pub suspect: bool,
    /// A person has accepted it.
    pub accepted: bool,
    /// Verifications and drills, oldest first.
    pub proofs: Vec<Proof>,
    /// Every object that belongs to it, in the order in which they are to be deleted.
    pub keys: Vec<Key>,
}

/// The outcome of a verification or a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proof {
    /// When it ended.
    pub at: RunId,
    /// Which.
    pub kind: ProofKind,
    /// Whether it held.
    pub ok: bool,
}

/// What a closer look at an entry found.
#[derive(Debug)]
pub enum Seen {
    /// Whole.
    Whole(Box<Manifest>),
    /// No manifest: an upload that never committed, or is still under way.
    Incomplete {
        /// Its objects' last change by the storage's clock.
        modified: Option<DateTime<Utc>>,
    },
    /// The manifest can't be read, or is of a newer version: shown, never deleted.
    Unknown(Error),
    /// The manifest is there and the artifact is not as it says, or it was found bad.
    Damaged(Box<Manifest>, Error),
    /// It tripped a guard and nobody has accepted it.
    Suspicious(Box<Manifest>),
}

/// Lists what a storage holds of one host (or of all), oldest first. Objects that are not named
/// as ours are passed over.
pub fn scan(_storage: &dyn Storage, _host: Option<&Escaped>, _cx: &Context) -> Result<Vec<Entry>> {
    todo!("helper D")
}

/// Takes a closer look: reads the manifest, checks that it is this entry's own (host, unit, id),
/// and that the artifact is there at its recorded size.
pub fn look(_storage: &dyn Storage, _entry: &Entry, _cx: &Context) -> Result<Seen> {
    todo!("helper D")
}

impl Entry {
    /// The name of the entry's object of this role.
    pub fn object(&self, role: crate::names::Role) -> ObjectName {
        ObjectName { host: self.host.clone(), stem: self.stem.clone(), role }
    }
}
