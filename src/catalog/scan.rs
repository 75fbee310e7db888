//! One listing made into entries. It reads no object: names alone say what is there.

use std::collections::BTreeMap;

use crate::catalog::{Entry, Proof};
use crate::error::Result;
use crate::host::Context;
use crate::names::{Escaped, Id, Key, ObjectName, Role, Stem, prefix_of_host};
use crate::storage::{ObjectMeta, Storage};

/// What a listing says.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What is named as ours, oldest first.
    pub entries: Vec<Entry>,
    /// Objects that are not, and were passed over.
    pub foreign: u64,
    /// The first of those, for a person.
    pub first_foreign: Option<Key>,
}

/// Lists what a storage holds of one host (or of all), oldest first. Objects that are not named
/// as ours are passed over.
pub fn scan(storage: &dyn Storage, host: Option<&Escaped>, cx: &Context) -> Result<Vec<Entry>> {
    survey(storage, host, cx).map(|survey| survey.entries)
}

/// The same, and how many objects were passed over.
pub fn survey(storage: &dyn Storage, host: Option<&Escaped>, cx: &Context) -> Result<Survey> {
    // Oldest first, and in one order whatever the listing's.
    let mut found: BTreeMap<(Id, Escaped, Escaped), Vec<Role>> = BTreeMap::new();
    let mut foreign = 0;
    let mut first_foreign: Option<Key> = None;
    let mut each = |object: ObjectMeta| {
        match ObjectName::parse(&object.key) {
            // The prefix alone would do, but identity is not left to prefixes.
            Some(name) if host.is_none_or(|host| *host == name.host) => {
                found.entry((name.stem.id, name.stem.unit, name.host)).or_default().push(name.role);
            }
            Some(_) => {}
            None => {
                foreign += 1;
                // In one order whatever the listing's.
                if first_foreign.as_ref().is_none_or(|first| object.key < *first) {
                    first_foreign = Some(object.key);
                }
            }
        }
        Ok(())
    };
    storage.list(&host.map(prefix_of_host).unwrap_or_default(), &mut each, cx)?;
    let entries = found.into_iter().map(|((id, unit, host), roles)| entry(host, Stem { unit, id }, roles)).collect();
    Ok(Survey { entries, foreign, first_foreign })
}

fn entry(host: Escaped, stem: Stem, mut roles: Vec<Role>) -> Entry {
    roles.sort_by_cached_key(|role| {
        let rank = match role {
            Role::Manifest => 0,
            Role::Artifact(_) => 1,
            _ => 2,
        };
        (rank, ObjectName { host: host.clone(), stem: stem.clone(), role: role.clone() }.file_name())
    });
    let mut entry = Entry { keys: Vec::with_capacity(roles.len()), ..Entry::without_objects(host, stem) };
    for role in roles {
        entry.keys.push(entry.object(role.clone()).key());
        match role {
            Role::Manifest => entry.has_manifest = true,
            Role::Inventory => {}
            Role::Pin => entry.pinned = true,
            Role::Suspect => entry.suspect = true,
            Role::Accept => entry.accepted = true,
            Role::Proof { kind, at, ok } => entry.proofs.push(Proof { at, kind, ok }),
            Role::Artifact(extension) => {
                entry.artifact.get_or_insert(extension);
            }
        }
    }
    entry.proofs.sort();
    entry
}
