//! Collects what never became whole: a backup without a manifest, an upload that never committed. It
//! must never take one that may still be under way.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::catalog::{Entry, Seen};
use crate::commands::prune::Work;
use crate::error::Result;
use crate::names::{Id, ObjectName};
use crate::storage::Leftover;

/// No incomplete backup younger than this is collected: it may still be under way.
const MINIMUM_AGE: Duration = Duration::from_secs(24 * 3600);

impl Work<'_> {
    /// Collects what never became whole, and is too old to be under way.
    pub(super) fn collect(&mut self, entries: &[Entry], leftovers: &[(Leftover, ObjectName)], timeout: Option<Duration>) {
        let minimum = timeout.map_or(MINIMUM_AGE, |timeout| MINIMUM_AGE.max(timeout.saturating_mul(2)));
        let now = match self.store.storage.now(self.cx) {
            Ok(now) => now,
            Err(error) => return self.failed(error),
        };
        let is_old = |modified: DateTime<Utc>| (now - modified).to_std().is_ok_and(|age| age > minimum);
        for entry in entries.iter().filter(|entry| !entry.has_manifest) {
            // The second look: a manifest that came since the listing makes it whole.
            let Seen::Incomplete { modified: Some(modified) } = self.look(entry) else { continue };
            let keys = entry.keys();
            let bytes = keys.iter().map(|key| self.store.storage.stat(key, self.cx).ok()?.and_then(|meta| meta.bytes));
            let bytes = bytes.sum();
            self.collect_one(entry.stem.id, bytes, is_old(modified), |work| {
                work.store.storage.delete(&keys, work.cx).into_iter().collect()
            });
        }
        let escaped = self.escaped.clone();
        for (leftover, name) in leftovers.iter().filter(|(_, name)| name.stem.unit == escaped) {
            self.collect_one(name.stem.id, leftover.bytes, is_old(leftover.modified), |work| {
                work.store.storage.discard(leftover, work.cx)
            });
        }
    }

    fn collect_one(&mut self, id: Id, bytes: Option<u64>, old: bool, remove: impl Fn(&Self) -> Result<()>) {
        let mut item = self.item(id, old);
        item.bytes = bytes;
        let reason = if old { "it never became whole" } else { "incomplete, and young enough to be under way" };
        item.reasons = vec![reason.to_owned()];
        if old && !self.dry_run {
            match remove(self) {
                Ok(()) => item.done = true,
                Err(error) => self.failed(error),
            }
        }
        self.items.push(item);
    }
}
