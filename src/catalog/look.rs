//! A closer look at one entry: its manifest is read and believed only where it agrees with the
//! entry's own name, and its artifact is looked at. It must never take another backup's word.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use chrono::{DateTime, Utc};

use crate::catalog::manifest::Manifest;
use crate::catalog::{Entry, Seen};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Key, ProofKind, Role};
use crate::observe::logged_here;
use crate::quantity::show_bytes;
use crate::storage::Storage;

/// A manifest is a few KiB; what is larger is not one, and is not read whole.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// Entries that are looked at in one call, where there are many.
const MOST_AT_ONCE: usize = 32;

/// Threads that look; what they wait for is a storage, or the disk.
const MOST_THREADS: usize = 8;

/// Whose word is taken for an artifact's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// The storage's, asked anew.
    Anew,
    /// The listing's, where it told the one that the manifest says: for what is shown.
    Listed,
}

/// Takes a closer look: reads the manifest, checks that it is this entry's own (host, unit, id),
/// and that the artifact is there at its recorded size. It asks the storage anew, whatever the
/// entry's listing said, so that it serves as the second look before a leftover is deleted.
/// The one error is an interruption; all others, a timeout too, make the entry `Unknown`.
pub fn look(storage: &dyn Storage, entry: &Entry, cx: &Context) -> Result<Seen> {
    look_at(storage, &[entry], Sizes::Anew, cx).remove(0)
}

/// Looks at many, several at once where the storage is quicker so. `take` is given each one's place among them and what
/// [`look`] would say, and keeps of it what is wanted, in the entries' order: manifests of a hundred thousand are much.
pub fn look_all<T: Send>(
    storage: &dyn Storage,
    entries: &[&Entry],
    sizes: Sizes,
    cx: &Context,
    take: &(dyn Fn(usize, Result<Seen>) -> T + Sync),
) -> Vec<T> {
    at_once(storage, entries, &|first, some| {
        let seen = look_at(storage, some, sizes, cx).into_iter().enumerate();
        seen.map(|(at, seen)| take(first + at, seen)).collect()
    })
}

/// What each one's artifact takes in the storage: by the listing, or where that did not tell, by a look. None where there is
/// no artifact, or nothing can be said of it.
pub fn artifact_bytes(storage: &dyn Storage, entries: &[&Entry], cx: &Context) -> Vec<Option<u64>> {
    let asked = |entry: &Entry| entry.artifact.clone().filter(|_| entry.artifact_bytes.is_none());
    at_once(storage, entries, &|_, some| {
        let keys = some.iter().filter_map(|entry| Some(entry.object(Role::Artifact(asked(entry)?)).key()));
        let mut found = storage.stat_many(&keys.collect::<Vec<_>>(), cx).into_iter();
        let mut bytes = |entry: &&Entry| match asked(entry) {
            Some(_) => found.next()?.ok()??.bytes,
            None => entry.artifact_bytes,
        };
        some.iter().map(&mut bytes).collect()
    })
}

/// Does this with some of the entries after others, several at once where the storage is quicker so. It is given the place of
/// the first of them, and gives one answer each; the answers come in the entries' order.
fn at_once<T: Send>(storage: &dyn Storage, entries: &[&Entry], some: &(dyn Fn(usize, &[&Entry]) -> Vec<T> + Sync)) -> Vec<T> {
    let threads = storage.at_once().clamp(1, MOST_THREADS);
    let count = entries.len().div_ceil(threads).clamp(1, MOST_AT_ONCE);
    let (next, taken) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let first = next.fetch_add(count, Ordering::Relaxed);
            let Some(chunk) = entries.get(first..entries.len().min(first + count)).filter(|chunk| !chunk.is_empty()) else {
                break;
            };
            let answers = some(first, chunk);
            taken.lock().unwrap_or_else(PoisonError::into_inner).push((first, answers));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(entries.len().div_ceil(count)) {
            // Where none can be made, fewer do the work.
            if thread::Builder::new().name("look".into()).spawn_scoped(scope, logged_here(work)).is_err() {
                break;
            }
        }
        work();
    });
    let mut taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
    taken.sort_unstable_by_key(|(first, _)| *first);
    taken.into_iter().flat_map(|(_, answers)| answers).collect()
}

fn look_at(storage: &dyn Storage, entries: &[&Entry], sizes: Sizes, cx: &Context) -> Vec<Result<Seen>> {
    let manifests: Vec<Key> = entries.iter().map(|entry| entry.object(Role::Manifest).key()).collect();
    let read = storage.read_small(&manifests, MAX_MANIFEST_BYTES + 1, cx);
    let promised: Vec<_> =
        entries.iter().zip(&manifests).zip(read).map(|((entry, key), read)| promise(entry, key, read)).collect();
    let as_promised = |promise: &Promise| promise.listed.filter(|bytes| *bytes == promise.manifest.artifact.bytes);
    let listed = |promise: &Promise| as_promised(promise).filter(|_| sizes == Sizes::Listed);
    let asked = promised.iter().flatten().flatten().filter(|promise| listed(promise).is_none());
    let asked: Vec<Key> = asked.map(|promise| promise.artifact.clone()).collect();
    let mut found = storage.stat_many(&asked, cx).into_iter();
    let mut seen = |entry: &Entry, key: &Key, promise: Result<Option<Promise>>| -> Result<Seen> {
        let Some(promise) = promise? else { return Ok(Seen::Incomplete { modified: last_change(storage, entry, cx)? }) };
        let unsaid = || Error::new(Kind::Internal, format!("the storage gives no size of {}", promise.artifact));
        let there = if let Some(bytes) = listed(&promise) {
            Some(bytes)
        } else {
            // One that was not answered for is not taken for one that is missing.
            let found = found.next().ok_or_else(unsaid)??;
            found.map(|meta| meta.bytes.ok_or_else(unsaid)).transpose()?
        };
        // A manifest goes first when a backup is deleted, which may be just now.
        if there.is_none() && storage.stat(key, cx)?.is_none() {
            return Ok(Seen::Incomplete { modified: last_change(storage, entry, cx)? });
        }
        Ok(judge(entry, promise, there))
    };
    let all = entries.iter().zip(&manifests).zip(promised);
    let all = all.map(|((entry, key), promise)| match seen(entry, key, promise) {
        Err(error) if error.kind() != Kind::Interrupted => Ok(Seen::Unknown(error)),
        other => other,
    });
    all.collect()
}

/// What a manifest says that there is.
struct Promise {
    manifest: Box<Manifest>,
    artifact: Key,
    /// Its size by the listing, where that told it.
    listed: Option<u64>,
}

/// Believes a manifest only where it is the entry's own. `None`: there is none. An error means that nothing can be said.
fn promise(entry: &Entry, key: &Key, read: Result<Vec<u8>>) -> Result<Option<Promise>> {
    let bytes = match read {
        Err(error) if error.kind() == Kind::Missing => return Ok(None),
        other => other?,
    };
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        let cause = format!("{key} is larger than {} and no manifest", show_bytes(MAX_MANIFEST_BYTES));
        return Err(Error::new(Kind::Damaged, cause));
    }
    let manifest = Box::new(Manifest::parse(&bytes).map_err(|error| of_object(&error, key.as_str()))?);
    check_identity(entry, &manifest)?;
    let artifact = entry.artifact_of(&manifest)?;
    let listed = entry.listed_bytes(&artifact);
    Ok(Some(Promise { manifest, artifact: artifact.key(), listed }))
}

/// `there`: none where the artifact is missing, else its size.
fn judge(entry: &Entry, promise: Promise, there: Option<u64>) -> Seen {
    let Promise { manifest, artifact, .. } = promise;
    let fault = match there {
        None => Some(format!("{artifact} is missing")),
        Some(bytes) if bytes != manifest.artifact.bytes => Some(wrong_size(artifact.as_str(), bytes, manifest.artifact.bytes)),
        Some(_) => proven_bad(entry).map(|cause| format!("{artifact}: {cause}")),
    };
    match fault {
        Some(cause) => Seen::Damaged(
            manifest,
            Error::new(Kind::Damaged, cause)
                .hint("restore another backup, or take this one from another storage with `--from`; `prune --delete` removes it"),
        ),
        None if entry.suspect && !entry.accepted => Seen::Suspicious(manifest),
        None => Seen::Whole(manifest),
    }
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
    for key in &entry.keys() {
        last = last.max(storage.stat(key, cx)?.and_then(|meta| meta.modified));
    }
    Ok(last)
}
