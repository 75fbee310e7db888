//! Reads a stored backup again, byte by byte, and writes the verdict beside it. Only a difference
//! found in the bytes is a bad verdict: a storage that can't be read proves nothing either way.

use std::io::{self, Read};

use crate::catalog::manifest::Manifest;
use crate::catalog::{Entry, MARK};
use crate::commands::stores::Store;
use crate::error::{Error, Kind, Result, from_io};
use crate::host::Context;
use crate::names::{Key, ProofKind, Role, RunId, UnitName};
use crate::observe::Event;
use crate::stage::digest::{Digested, Sha256Meter};
use crate::stage::pipeline::{self, Expected, Passed};

/// Reads a backup's artifact through decompression and digests into `output`.
pub(super) fn read_through(
    store: &Store<'_>,
    entry: &Entry,
    manifest: &Manifest,
    unit: &UnitName,
    output: &mut (dyn io::Write + Send),
    cx: &Context,
) -> Result<Passed> {
    let key = entry.artifact_of(manifest)?.key();
    let expected = Expected {
        artifact: Digested { bytes: manifest.artifact.bytes, sha256: manifest.artifact.sha256.clone() },
        content: Digested { bytes: manifest.content.bytes, sha256: manifest.content.sha256.clone() },
    };
    let compression = manifest.compression.parse()?;
    let input = store.storage.read(&key, 0, cx).map_err(|error| error.storage(store.name()).step("read"))?;
    let mut input = Stored { input, store, key: &key };
    let progress = |bytes| cx.observer.event(Event::UnitProgress { unit: unit.clone(), bytes });
    pipeline::unpack(&mut input, compression, &expected, output, &progress).map_err(|error| match error.kind() {
        Kind::Damaged => damaged(store, &key.to_string(), &error),
        _ => error,
    })
}

/// A stored object's bytes. What breaks off in their middle is the storage's failure, and told as such.
struct Stored<'a> {
    input: Box<dyn Read + Send>,
    store: &'a Store<'a>,
    key: &'a Key,
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let error = from_io(error, Kind::Storage, format!("can't read {}", self.key));
            // A signal or the timeout is nothing that the storage did.
            if error.kind().is_transient() || error.kind() == Kind::StorageDenied {
                return error.storage(self.store.name()).step("read").into();
            }
            error.into()
        })
    }
}

/// Names the file that is not what it was.
fn damaged(store: &Store<'_>, key: &str, error: &Error) -> Error {
    error
        .restated(format!("{key} in {}: {}", store.storage.describe(), error.cause()))
        .hint_if_none("restore another backup (list shows them), and take a new one")
        .storage(store.name())
        .step("read")
}

/// What a verification came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Every byte is as it was written, and the storage did not take the verdict.
    NotKept(Error),
    /// Every byte is as it was written; said beside it, with this time.
    Proven(RunId),
    /// Somebody deleted it meanwhile: nothing is said of it.
    Deleted,
}

/// Verifies one copy; the verdict is written beside it. `Err` is what was found, or why nothing was.
/// It takes no lock, as it may read for hours: a `prune` may delete the backup under it.
pub(super) fn verify(store: &Store<'_>, entry: &Entry, manifest: &Manifest, unit: &UnitName, cx: &Context) -> Result<Verdict> {
    let read = read_through(store, entry, manifest, unit, &mut io::sink(), cx);
    if let Err(error) = &read
        && !matches!(error.kind(), Kind::Damaged | Kind::Missing)
    {
        return read.map(|_| Verdict::Deleted);
    }
    if !is_there(store, entry, cx)? {
        return Ok(Verdict::Deleted);
    }
    let bad = match read {
        Ok(_) => None,
        Err(error) if error.kind() == Kind::Damaged => Some(error),
        // A missing artifact is told by its look already, and may come back with its disk.
        Err(error) => return Err(error),
    };
    if bad.is_none() {
        check_inventory(store, entry, manifest, cx)?;
    }
    let written = put_verdict(store, entry, ProofKind::Verify, bad.is_none(), cx);
    match bad {
        Some(error) => Err(error),
        None => Ok(written.map_or_else(Verdict::NotKept, Verdict::Proven)),
    }
}

/// Whether a backup was not deleted meanwhile: its manifest goes first. A verdict beside nothing would be an
/// incomplete backup.
pub(super) fn is_there(store: &Store<'_>, entry: &Entry, cx: &Context) -> Result<bool> {
    let manifest = store.storage.stat(&entry.object(Role::Manifest).key(), cx);
    Ok(manifest.map_err(|error| error.storage(store.name()).step("read"))?.is_some())
}

/// Writes a verdict beside a backup, with the time that it is now. An error means that the storage did not take it.
pub(super) fn put_verdict(store: &Store<'_>, entry: &Entry, kind: ProofKind, ok: bool, cx: &Context) -> Result<RunId> {
    let at = RunId::starting(cx.clock.now());
    let proof = entry.object(Role::Proof { kind, at, ok });
    match store.storage.put_new(&proof.key(), MARK, cx) {
        // Two in one second that agree are one.
        Err(error) if error.kind() != Kind::Exists => Err(error.storage(store.name()).step("verdict")),
        _ => Ok(at),
    }
}

/// Compares the inventory's digest. A restore needs no inventory: where it is not what it was, the
/// backup is not proven, and not bad either.
fn check_inventory(store: &Store<'_>, entry: &Entry, manifest: &Manifest, cx: &Context) -> Result<()> {
    let Some(facts) = &manifest.inventory else { return Ok(()) };
    let key = entry.object(Role::Inventory).key();
    let differs = |cause: &str| {
        Error::new(Kind::Check, format!("{key} in {} {cause}", store.storage.describe()))
            .hint("the dump itself is whole and restores; what its tables held can't be compared any more")
    };
    let place = |error: Error| error.storage(store.name()).step("read");
    let mut input = match store.storage.read(&key, 0, cx) {
        Err(error) if error.kind() == Kind::Missing => return Err(place(differs("is missing"))),
        other => other.map_err(place)?,
    };
    let mut meter = Sha256Meter::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match input.read(&mut block) {
            Ok(0) => break,
            Ok(read) => meter.update(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(place(from_io(error, Kind::Storage, format!("can't read {key}")))),
        }
    }
    if meter.finish().sha256 == facts.sha256 {
        return Ok(());
    }
    Err(place(differs("is not as it was written: its digest differs")))
}
