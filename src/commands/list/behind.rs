//! Whether each of a unit's storages has what its siblings have. A backup that is in one place alone is told here
//! first: a copy that nobody misses is found missing on the day that it is needed.

use super::Listing;
use crate::catalog::backups::{Backup, Copy};
use crate::catalog::{self, Seen};
use crate::commands::stores;
use crate::error::{Error, Kind, Result};
use crate::names::{Id, Role, RunId, UnitName};
use crate::outcome::{Problem, Severity};
use crate::plan;

/// A unit's newest whole backup, and who holds one of its run.
struct Newest<'a> {
    backup: &'a Backup,
    holder: &'a str,
}

impl Listing<'_> {
    /// A warning for each storage of a unit's target that lacks the newest whole backup which a sibling holds, or
    /// holds none at all. Only of our own host's units that the enabled targets ought to have, and where the call
    /// does not narrow what is seen. A storage that could not be listed has been told already.
    pub(super) fn judge_copies(&mut self, unit: &UnitName, backups: &[&Backup]) -> Result<()> {
        let target = plan::target_of(self.config, unit).filter(|target| target.enabled);
        let Some(target) = target.filter(|_| self.sees_all()) else { return Ok(()) };
        let siblings: Vec<&str> = target.storages.iter().map(String::as_str).filter(|name| self.is_listed(name)).collect();
        // One alone is behind nobody.
        if siblings.len() < 2 {
            return Ok(());
        }
        let Some(newest) = self.newest_of(backups, &siblings)? else { return Ok(()) };
        let run = newest.backup.stem.id.run();
        let mut problems = Vec::new();
        for name in siblings {
            // A copy of that run which is not whole is told as what it is. One of another id is a second attempt's.
            let held = backups.iter().filter(|backup| backup.stem.id.run() == run);
            if held.flat_map(|backup| &backup.copies).any(|copy| *copy.storage == *name && copy.entry.has_manifest) {
                continue;
            }
            // It may have come since that storage was listed.
            if self.has_it_now(name, newest.backup)? {
                continue;
            }
            let own = self.newest_of(backups, &[name])?.map(|own| own.backup.stem.id);
            problems.push(behind(unit, name, &newest, own));
        }
        self.problems.extend(problems);
        Ok(())
    }

    /// Whether the call leaves no storage and no backup of the unit out.
    fn sees_all(&self) -> bool {
        self.options.storages.is_empty() && self.options.at.is_none() && self.host == self.config.host
    }

    fn is_listed(&self, name: &str) -> bool {
        self.listed.iter().any(|listed| listed == name)
    }

    /// The newest that is whole in one of these storages, and no later than now.
    fn newest_of<'b>(&self, backups: &[&'b Backup], storages: &[&str]) -> Result<Option<Newest<'b>>> {
        let now = RunId::starting(self.cx.clock.now());
        for backup in backups.iter().rev().filter(|backup| backup.stem.id.run() <= now) {
            for copy in backup.copies.iter().filter(|copy| storages.contains(&&*copy.storage)) {
                if self.is_whole(copy)? {
                    return Ok(Some(Newest { backup, holder: &copy.storage }));
                }
            }
        }
        Ok(None)
    }

    /// The one error is an interruption.
    fn is_whole(&self, copy: &Copy) -> Result<bool> {
        let Some(store) = stores::named(&self.stores, &copy.storage).filter(|_| copy.entry.has_manifest) else {
            return Ok(false);
        };
        Ok(matches!(catalog::look(store.storage.as_ref(), &copy.entry, self.cx)?, Seen::Whole(_)))
    }

    /// The one error is an interruption.
    fn has_it_now(&self, name: &str, backup: &Backup) -> Result<bool> {
        let (Some(store), Some(copy)) = (stores::named(&self.stores, name), backup.copies.first()) else { return Ok(false) };
        let key = copy.entry.object(Role::Manifest).key();
        match store.storage.stat(&key, self.cx) {
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            found => Ok(matches!(found, Ok(Some(_)))),
        }
    }
}

fn behind(unit: &UnitName, storage: &str, newest: &Newest<'_>, own: Option<Id>) -> Problem {
    let (id, holder) = (newest.backup.stem.id, newest.holder);
    let own = own.map_or_else(|| "it holds none".to_owned(), |own| format!("its newest is {own}"));
    let error = Error::new(Kind::Check, format!("it lacks the newest whole backup, {id}, which {holder} holds; {own}"))
        .hint("the messages of the last `backup` say why; the next one that this storage takes sets it right")
        .target(unit)
        .storage(storage)
        .step("behind");
    Problem::of(&error, Severity::Partial)
}
