//! Which units a target ought to have backups of: what a monitor judges by. It asks no server: of a target
//! with `databases: all`, its last run has written down what it found.

use std::collections::BTreeMap;

use crate::catalog::backups::Backup;
use crate::catalog::manifest::Manifest;
use crate::catalog::{self, Seen};
use crate::commands::stores::{self, Store};
use crate::config::model::Target;
use crate::error::Result;
use crate::host::Context;
use crate::names::UnitName;

/// The units that a target ought to have, as the config names them; those of `databases: all` as its
/// newest backup found them, so that a database which never got into one is among them. `units` is what
/// the storages hold of one host. Where no backup says it, the target itself is the one unit, of which there is none.
///
/// The one error is an interruption: a manifest that can't be read leaves the word to the one before it.
pub(super) fn expected_units(
    target: &Target,
    units: &BTreeMap<UnitName, Vec<&Backup>>,
    stores: &[Store<'_>],
    cx: &Context,
) -> Result<Vec<UnitName>> {
    if !target.asks_for_units() {
        return Ok(target.units());
    }
    let now = cx.clock.now();
    let own = units.iter().filter(|(unit, _)| unit.target_part() == target.name.as_str()).flat_map(|(_, backups)| backups);
    // One dated in the future counts in nothing.
    let mut newest_last: Vec<&Backup> = own.copied().filter(|backup| backup.stem.id.run().time() <= now).collect();
    newest_last.sort_by_key(|backup| backup.stem.id);
    for backup in newest_last.into_iter().rev() {
        let Some(manifest) = manifest_of(backup, stores, cx)? else { continue };
        if let Some(found) = manifest.units_found.filter(|_| manifest.target == target.name) {
            let databases = found.into_iter().filter(|unit| unit.database_of(&target.name).is_some());
            return Ok(databases.chain(target.units()).collect());
        }
    }
    Ok(vec![UnitName::of_target(&target.name)])
}

/// A backup's manifest, from the first storage where it can be read.
fn manifest_of(backup: &Backup, stores: &[Store<'_>], cx: &Context) -> Result<Option<Box<Manifest>>> {
    for copy in backup.copies.iter().filter(|copy| copy.entry.has_manifest) {
        let Some(store) = stores::named(stores, &copy.storage) else { continue };
        match catalog::look(store.storage.as_ref(), &copy.entry, cx)? {
            Seen::Whole(manifest) | Seen::Suspicious(manifest) | Seen::Damaged(manifest, _) => return Ok(Some(manifest)),
            Seen::Incomplete { .. } | Seen::Unknown(_) => {}
        }
    }
    Ok(None)
}
