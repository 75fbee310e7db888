//! The inventory beside an artifact, believed only where it is the one that its manifest names.

use std::io::Read;

use crate::catalog::Entry;
use crate::catalog::manifest::Manifest;
use crate::error::{Error, Kind, Result, from_io};
use crate::host::Context;
use crate::names::Role;
use crate::source::Inventory;
use crate::stage::digest::Sha256Meter;
use crate::storage::Storage;

/// A table takes some 100 bytes of it; what is larger is none of ours.
const MAX_BYTES: u64 = 256 << 20;

/// Reads it; `None` where the manifest names none. `Damaged` where it is gone, or is not as the manifest says.
pub fn read(storage: &dyn Storage, entry: &Entry, manifest: &Manifest, cx: &Context) -> Result<Option<Inventory>> {
    let Some(facts) = &manifest.inventory else { return Ok(None) };
    let key = entry.object(Role::Inventory).key();
    let damaged = |cause: &str| {
        Error::new(Kind::Damaged, format!("{key} {cause}"))
            .hint("the artifact itself may be whole: `list --verify` tells; take another copy with `--from`, or another backup")
    };
    let reader = storage.read(&key, 0, cx).map_err(|error| match error.kind() {
        Kind::Missing => damaged("is missing, and the manifest names it"),
        _ => error,
    })?;
    let mut bytes = Vec::new();
    let read = reader.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| from_io(error, Kind::Storage, format!("can't read {key}")))?;
    let mut meter = Sha256Meter::new();
    meter.update(&bytes);
    if meter.finish().sha256 != facts.sha256 {
        return Err(damaged("is not as the manifest says: its digest differs"));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged("can't be read").source(error))
}
