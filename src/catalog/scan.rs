//! One listing made into entries. It reads no object: names alone say what is there.

use std::collections::HashMap;

use crate::catalog::Entry;
use crate::error::Result;
use crate::host::Context;
use crate::names::{Escaped, Key, NameReader, ObjectName, Stem, prefix_of_host};
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
    let mut found = Collected::default();
    let mut foreign = 0;
    let mut first_foreign: Option<Key> = None;
    let mut names = NameReader::default();
    let mut each = |object: ObjectMeta| {
        match names.read(&object.key) {
            // The prefix alone would do, but identity is not left to prefixes.
            Some(name) if host.is_none_or(|host| *host == name.host) => found.add(name, object.bytes),
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
    Ok(Survey { entries: found.entries(), foreign, first_foreign })
}

/// Objects on the way to entries. A listing mostly gives a run's objects together: only those of the run at hand are
/// looked for, and what comes back to an earlier one is joined in the end.
#[derive(Default)]
struct Collected {
    entries: Vec<Entry>,
    /// Where the entries of the run at hand are.
    of_run: HashMap<Stem, usize>,
}

impl Collected {
    fn add(&mut self, name: ObjectName, bytes: Option<u64>) {
        let ObjectName { host, stem, role } = name;
        let is_of_run = |last: &Entry| last.stem.id.run() == stem.id.run() && last.host == host;
        if !self.entries.last().is_some_and(is_of_run) {
            self.of_run.clear();
        }
        let at = if let Some(at) = self.of_run.get(&stem) {
            *at
        } else {
            self.entries.push(Entry::without_objects(host, stem.clone()));
            self.of_run.insert(stem, self.entries.len() - 1);
            self.entries.len() - 1
        };
        self.entries[at].add(role, bytes);
    }

    /// Oldest first, and in one order whatever the listing's.
    fn entries(self) -> Vec<Entry> {
        let mut entries = self.entries;
        entries.sort_by(|a, b| a.order().cmp(&b.order()));
        entries.dedup_by(|later, kept| {
            let same = later.order() == kept.order();
            if same {
                let later = std::mem::replace(later, Entry::without_objects(kept.host.clone(), kept.stem.clone()));
                kept.absorb(later);
            }
            same
        });
        entries
    }
}
