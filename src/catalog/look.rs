//! A closer look at one entry: its manifest is read and believed only where it agrees with the
//! entry's own name, and its artifact is looked at. It must never take another backup's word.

use std::io::Read;

use chrono::{DateTime, Utc};

use crate::catalog::manifest::Manifest;
use crate::catalog::{Entry, Seen};
use crate::error::{Error, Kind, Result, from_io};
use crate::host::Context;
use crate::names::{ProofKind, Role};
use crate::quantity::show_bytes;
use crate::storage::Storage;

/// A manifest is a few KiB; what is larger is not one, and is not read whole.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// Takes a closer look: reads the manifest, checks that it is this entry's own (host, unit, id),
/// and that the artifact is there at its recorded size. It asks the storage anew, whatever the
/// entry's listing said, so that it serves as the second look before a leftover is deleted.
/// The one error is an interruption; all others, a timeout too, make the entry `Unknown`.
pub fn look(storage: &dyn Storage, entry: &Entry, cx: &Context) -> Result<Seen> {
    match seen(storage, entry, cx) {
        Err(error) if error.kind() != Kind::Interrupted => Ok(Seen::Unknown(error)),
        other => other,
    }
}

/// Like [`look`]; an error means that nothing can be said.
fn seen(storage: &dyn Storage, entry: &Entry, cx: &Context) -> Result<Seen> {
    let bytes = match manifest_bytes(storage, entry, cx) {
        Err(error) if error.kind() == Kind::Missing => {
            return Ok(Seen::Incomplete { modified: last_change(storage, entry, cx)? });
        }
        other => other?,
    };
    let key = entry.object(Role::Manifest).key();
    let manifest = Box::new(Manifest::parse(&bytes).map_err(|error| of_object(&error, key.as_str()))?);
    check_identity(entry, &manifest)?;
    let artifact = entry.artifact_of(&manifest)?.key();
    let bytes = storage.stat(&artifact, cx)?.map(|meta| meta.bytes);
    let fault = match bytes {
        // A manifest goes first when a backup is deleted, which may be just now.
        None if storage.stat(&key, cx)?.is_none() => return Ok(Seen::Incomplete { modified: last_change(storage, entry, cx)? }),
        None => Some(format!("{artifact} is missing")),
        Some(Some(bytes)) if bytes != manifest.artifact.bytes => {
            Some(wrong_size(artifact.as_str(), bytes, manifest.artifact.bytes))
        }
        Some(None) => return Err(Error::new(Kind::Internal, format!("the storage gives no size of {artifact}"))),
        Some(Some(_)) => proven_bad(entry).map(|cause| format!("{artifact}: {cause}")),
    };
    Ok(match fault {
        Some(cause) => Seen::Damaged(
            manifest,
            Error::new(Kind::Damaged, cause)
                .hint("restore another backup, or take this one from another storage with `--from`; `prune --delete` removes it"),
        ),
        None if entry.suspect && !entry.accepted => Seen::Suspicious(manifest),
        None => Seen::Whole(manifest),
    })
}

fn manifest_bytes(storage: &dyn Storage, entry: &Entry, cx: &Context) -> Result<Vec<u8>> {
    let key = entry.object(Role::Manifest).key();
    let mut bytes = Vec::new();
    let reader = storage.read(&key, 0, cx)?;
    let read = reader.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| from_io(error, Kind::Storage, format!("can't read {key}")))?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(Error::new(
            Kind::Damaged,
            format!("{key} is larger than {} and no manifest", show_bytes(MAX_MANIFEST_BYTES)),
        ));
    }
    Ok(bytes)
}

/// The same failure, naming the object; its hint stays where it has one.
fn of_object(error: &Error, key: &str) -> Error {
    error
        .restated(format!("{key}: {}", error.cause()))
        .hint_if_none("take another backup, or another storage's copy; `prune --delete` removes this one")
}

/// A manifest that was copied or renamed is not this backup's, however whole it is.
fn check_identity(entry: &Entry, manifest: &Manifest) -> Result<()> {
    let (host, unit) = (manifest.host.escaped(), manifest.unit.escaped());
    if (&host, &unit, manifest.id) == (&entry.host, &entry.stem.unit, entry.stem.id) {
        return Ok(());
    }
    let key = entry.object(Role::Manifest).key();
    let cause = format!("{key} is the manifest of another backup: {} of {} on {}", manifest.id, manifest.unit, manifest.host);
    Err(Error::new(Kind::Damaged, cause).hint("it was copied or renamed; move it back where it belongs"))
}

fn wrong_size(artifact: &str, found: u64, recorded: u64) -> String {
    format!("{artifact} has {found} bytes, its manifest says {recorded}")
}

/// What a verdict says that it is bad.
fn proven_bad(entry: &Entry) -> Option<String> {
    let bad = entry.found_bad()?;
    let what = match bad.kind {
        ProofKind::Verify => "verification",
        ProofKind::Drill => "drill",
    };
    Some(format!("its last {what}, at {}, found it bad", bad.at.time().format("%Y-%m-%d %H:%M:%S UTC")))
}

fn last_change(storage: &dyn Storage, entry: &Entry, cx: &Context) -> Result<Option<DateTime<Utc>>> {
    let mut last = None;
    for key in &entry.keys {
        last = last.max(storage.stat(key, cx)?.and_then(|meta| meta.modified));
    }
    Ok(last)
}
