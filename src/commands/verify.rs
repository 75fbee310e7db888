//! Reads a stored backup again, byte by byte, and writes the verdict beside it. Only a difference
//! found in the bytes is a bad verdict: a storage that can't be read proves nothing either way.

use std::io;

use crate::catalog::Entry;
use crate::catalog::manifest::Manifest;
use crate::commands::attempt::compression_of;
use crate::commands::stores::Store;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{ProofKind, Role, RunId, UnitName};
use crate::observe::Event;
use crate::stage::digest::Digested;
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
    let compression = compression_of(&manifest.compression)?;
    let mut input = store.storage.read(&key, 0, cx).map_err(|error| error.storage(store.name()).step("read"))?;
    let progress = |bytes| cx.observer.event(Event::UnitProgress { unit: unit.clone(), bytes });
    pipeline::unpack(&mut input, compression, &expected, output, &progress).map_err(|error| match error.kind() {
        Kind::Damaged => damaged(store, &key.to_string(), &error),
        _ => error,
    })
}

/// Names the file that is not what it was.
fn damaged(store: &Store<'_>, key: &str, error: &Error) -> Error {
    let hint = error.hint_text().unwrap_or("restore another backup (list shows them), and take a new one");
    Error::new(Kind::Damaged, format!("{key} in {}: {}", store.storage.describe(), error.cause()))
        .hint(hint)
        .storage(store.name())
        .step("read")
}

/// Verifies one copy; the verdict is written beside it. `Err` is what was found, or why nothing was.
pub(super) fn verify(store: &Store<'_>, entry: &Entry, manifest: &Manifest, unit: &UnitName, cx: &Context) -> Result<RunId> {
    let read = read_through(store, entry, manifest, unit, &mut io::sink(), cx);
    let at = RunId::starting(cx.clock.now());
    let ok = match &read {
        Ok(_) => true,
        Err(error) if error.kind() == Kind::Damaged => false,
        Err(_) => return read.map(|_| at),
    };
    let proof = entry.object(Role::Proof { kind: ProofKind::Verify, at, ok });
    let written = store.storage.put_new(&proof.key(), b"{}\n", cx);
    read?;
    match written {
        // Two verifications in one second that agree are one.
        Err(error) if error.kind() != Kind::Exists => Err(error.storage(store.name()).step("verdict")),
        _ => Ok(at),
    }
}
