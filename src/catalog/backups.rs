//! The same backup in several storages, made one. Pure: it reads nothing and judges nothing.

use std::collections::BTreeMap;

use crate::catalog::Entry;
use crate::names::{Escaped, Id, Stem};

/// One backup and every place that holds something of it.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Whose it is.
    pub host: Escaped,
    /// What it is.
    pub stem: Stem,
    /// At least one, in the order of the listings.
    pub copies: Vec<Copy>,
}

/// What one storage holds of a backup.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The storage's name in the config.
    pub storage: String,
    /// What its listing says.
    pub entry: Entry,
}

/// Merges listings, each with its storage's name, into backups: those of one host, unit and id are
/// one. Oldest first; of one id, by unit, then by host.
pub fn merge(listings: Vec<(String, Vec<Entry>)>) -> Vec<Backup> {
    let mut found: BTreeMap<(Id, Escaped, Escaped), Vec<Copy>> = BTreeMap::new();
    for (storage, entries) in listings {
        for entry in entries {
            let identity = (entry.stem.id, entry.stem.unit.clone(), entry.host.clone());
            found.entry(identity).or_default().push(Copy { storage: storage.clone(), entry });
        }
    }
    found.into_iter().map(|((id, unit, host), copies)| Backup { host, stem: Stem { unit, id }, copies }).collect()
}
