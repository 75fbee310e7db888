//! The same backup in several storages, made one. Pure: it reads nothing and judges nothing.

use std::sync::Arc;

use crate::catalog::Entry;
use crate::names::{Escaped, Stem};

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
    pub storage: Arc<str>,
    /// What its listing says.
    pub entry: Entry,
}

/// Merges listings, each with its storage's name, into backups: those of one host, unit and id are
/// one. Oldest first; of one id, by unit, then by host.
pub fn merge(listings: Vec<(String, Vec<Entry>)>) -> Vec<Backup> {
    let mut all: Vec<Copy> = Vec::with_capacity(listings.iter().map(|(_, entries)| entries.len()).sum());
    for (storage, entries) in listings {
        let storage: Arc<str> = storage.into();
        all.extend(entries.into_iter().map(|entry| Copy { storage: Arc::clone(&storage), entry }));
    }
    // It keeps the listings' order where they have the same, and is quick where each is in order already.
    all.sort_by(|a, b| a.entry.order().cmp(&b.entry.order()));
    let mut backups: Vec<Backup> = Vec::with_capacity(all.len());
    for copy in all {
        let is_same = |last: &&mut Backup| (&last.host, &last.stem) == (&copy.entry.host, &copy.entry.stem);
        if let Some(last) = backups.last_mut().filter(is_same) {
            last.copies.push(copy);
        } else {
            let (host, stem) = (copy.entry.host.clone(), copy.entry.stem.clone());
            backups.push(Backup { host, stem, copies: vec![copy] });
        }
    }
    backups
}
