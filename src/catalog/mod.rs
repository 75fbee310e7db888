//! What the storages' listings and manifests say is there. One listing is enough to plan; manifests
//! are read for what is shown, and before anything is deleted.

pub mod manifest;
pub mod backups;
pub mod inventory;
pub mod resolve;
pub mod stats;
mod look;
mod scan;

use chrono::{DateTime, Utc};

use crate::error::{Error, Kind, Result};
use crate::names::{Escaped, Id, Key, ObjectName, ProofKind, Role, RunId, Stem, prefix_of_run};
use manifest::Manifest;

pub use look::{Sizes, artifact_bytes, look, look_all};
pub use scan::{Survey, scan, survey};

/// What the small objects beside an artifact hold, pins and proofs: their names say it all.
pub const MARK: &[u8] = b"{}\n";

/// What one storage's listing says of one backup.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose it is.
    pub host: Escaped,
    /// What it is.
    pub stem: Stem,
    /// The artifact's file extension; `None`: there is no artifact. Should there be several, the
    /// manifest says which one counts: [`Entry::artifact_of`].
    pub artifact: Option<String>,
    /// Its size, where the listing told it.
    pub artifact_bytes: Option<u64>,
    /// The extensions of further ones, in order.
    pub more_artifacts: Vec<String>,
    /// The commit mark is there.
    pub has_manifest: bool,
    /// What was counted is there.
    pub has_inventory: bool,
    /// Kept whatever the policy says.
    pub pinned: bool,
    /// It tripped a guard.
    pub suspect: bool,
    /// A person has accepted it.
    pub accepted: bool,
    /// Verifications and drills, oldest first.
    pub proofs: Vec<Proof>,
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

impl Seen {
    /// What its manifest says, where that could be read.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Whole(manifest) | Self::Suspicious(manifest) | Self::Damaged(manifest, _) => Some(manifest),
            Self::Incomplete { .. } | Self::Unknown(_) => None,
        }
    }
}

impl Entry {
    /// Of a backup of which nothing has a name yet but an upload under way, or left there.
    pub fn without_objects(host: Escaped, stem: Stem) -> Self {
        Self {
            host,
            stem,
            artifact: None,
            artifact_bytes: None,
            more_artifacts: Vec::new(),
            has_manifest: false,
            has_inventory: false,
            pinned: false,
            suspect: false,
            accepted: false,
            proofs: Vec::new(),
        }
    }

    /// Every object that belongs to it, in the order in which they are to be deleted: manifest, artifact, the rest.
    pub fn keys(&self) -> Vec<Key> {
        let artifacts = self.artifact.iter().chain(&self.more_artifacts).cloned().map(Role::Artifact);
        let marks = [
            (self.has_inventory, Role::Inventory),
            (self.pinned, Role::Pin),
            (self.suspect, Role::Suspect),
            (self.accepted, Role::Accept),
        ];
        let marks = marks.into_iter().filter_map(|(is_there, role)| is_there.then_some(role));
        let proofs = self.proofs.iter().map(|Proof { at, kind, ok }| Role::Proof { kind: *kind, at: *at, ok: *ok });
        let mut rest: Vec<Key> = marks.chain(proofs).map(|role| self.object(role).key()).collect();
        rest.sort();
        let first = self.has_manifest.then_some(Role::Manifest).into_iter().chain(artifacts);
        first.map(|role| self.object(role).key()).chain(rest).collect()
    }

    /// What the listing said of an artifact's size. Where it showed several, it is left open which it meant.
    fn listed_bytes(&self, artifact: &ObjectName) -> Option<u64> {
        let Role::Artifact(extension) = &artifact.role else { return None };
        self.artifact_bytes.filter(|_| self.more_artifacts.is_empty() && self.artifact.as_ref() == Some(extension))
    }

    /// Notes an object that a listing shows, with its size where that is told. One that is shown twice is one.
    fn add(&mut self, role: Role, bytes: Option<u64>) {
        match role {
            Role::Manifest => self.has_manifest = true,
            Role::Inventory => self.has_inventory = true,
            Role::Pin => self.pinned = true,
            Role::Suspect => self.suspect = true,
            Role::Accept => self.accepted = true,
            Role::Proof { kind, at, ok } => insert(&mut self.proofs, Proof { at, kind, ok }),
            Role::Artifact(extension) => match &mut self.artifact {
                None => (self.artifact, self.artifact_bytes) = (Some(extension), bytes),
                Some(first) if *first == extension => {}
                Some(first) if *first < extension => insert(&mut self.more_artifacts, extension),
                Some(first) => insert(&mut self.more_artifacts, std::mem::replace(first, extension)),
            },
        }
    }

    /// Notes what another listing of the same backup's objects shows.
    fn absorb(&mut self, other: Self) {
        self.has_manifest |= other.has_manifest;
        self.has_inventory |= other.has_inventory;
        self.pinned |= other.pinned;
        self.suspect |= other.suspect;
        self.accepted |= other.accepted;
        let artifacts = other.artifact.into_iter().chain(other.more_artifacts);
        artifacts.for_each(|extension| self.add(Role::Artifact(extension), other.artifact_bytes));
        other.proofs.into_iter().for_each(|proof| insert(&mut self.proofs, proof));
    }

    /// Oldest first; of one id, by unit, then by host.
    fn order(&self) -> (Id, &Escaped, &Escaped) {
        (self.stem.id, &self.stem.unit, &self.host)
    }

    /// The newest verdict that it is bad, and that no later one clears. Reading every byte again shows that it is as it
    /// was written, and not that it can be restored: only a drill clears what a drill found. Of two that ended within the
    /// same second the bad one counts.
    pub fn found_bad(&self) -> Option<Proof> {
        let clears =
            |good: &Proof, bad: &Proof| good.ok && good.at > bad.at && (good.kind == ProofKind::Drill || bad.kind == good.kind);
        let stands = |bad: &&Proof| !bad.ok && !self.proofs.iter().any(|good| clears(good, bad));
        self.proofs.iter().filter(stands).max_by_key(|bad| bad.at).copied()
    }

    /// The name of the entry's object of this role.
    pub fn object(&self, role: Role) -> ObjectName {
        ObjectName { host: self.host.clone(), stem: self.stem.clone(), role }
    }

    /// The artifact that the manifest names. Its text is no path: it must be the name that we would
    /// give to an artifact of this very entry, or it is an error.
    pub fn artifact_of(&self, manifest: &Manifest) -> Result<ObjectName> {
        let name = &manifest.artifact.name;
        let manifest_key = self.object(Role::Manifest).key();
        let directory = prefix_of_run(&self.host, self.stem.id.run());
        let named = format!("{directory}{name}").parse().ok().and_then(|key: Key| ObjectName::parse(&key));
        match named {
            Some(named) if matches!(named.role, Role::Artifact(_)) && named == self.object(named.role.clone()) => Ok(named),
            _ => Err(Error::new(
                Kind::Damaged,
                format!("{manifest_key} names {name:?} as its artifact, which is no name of this backup's"),
            )
            .hint("it was changed or moved; nothing is done with it")),
        }
    }
}

fn insert<T: Ord>(sorted: &mut Vec<T>, value: T) {
    if let Err(at) = sorted.binary_search(&value) {
        sorted.insert(at, value);
    }
}

#[cfg(test)]
mod tests;
