//! `prune`: applies retention, unit by unit and storage by storage. It sees its own host's backups
//! alone, and reads every manifest before it deletes beside it.

mod by_id;
mod collect;

use std::time::Duration;

use crate::catalog::resolve::When;
use crate::catalog::{self, Entry, Seen};
use crate::commands::stores::{self, Store, UnitNames};
use crate::commands::{Found, is_interrupted};
use crate::config::model::{Config, Policy, Target};
use crate::error::{Error, Result};
use crate::host::{Context, lock};
use crate::names::{Escaped, Id, ObjectName, Role, UnitName};
use crate::outcome::{Items, Problem, PruneDecision, PruneItem, Severity};
use crate::plan::{self, Names};
use crate::retention::{self, Decision};
use crate::storage::Leftover;

pub use by_id::Action;

/// `prune`'s options.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Units or targets, by name or glob; none: all.
    pub patterns: Vec<String>,
    /// Only in these storages.
    pub storages: Vec<String>,
    /// Show decisions, delete nothing.
    pub dry_run: bool,
    /// One backup instead of the policy.
    pub by_id: Option<(Action, When)>,
}

/// Prunes what is selected.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    let result = match &options.by_id {
        Some((action, when)) => by_id::run(config, options, *action, when, cx),
        None => by_policy(config, options, cx),
    };
    match result {
        Ok((items, problems)) => Found { items: Items::Pruned(items), problems },
        Err(error) => Found::failure(Items::Pruned(Vec::new()), &error),
    }
}

type Done = (Vec<PruneItem>, Vec<Problem>);

fn by_policy(config: &Config, options: &Options, cx: &Context) -> Result<Done> {
    let names = Names::new(&options.patterns)?;
    let stores = stores::open_named(config, &options.storages)?;
    let (mut items, mut problems) = (Vec::new(), Vec::new());
    let mut listed: Vec<Listed<'_>> = Vec::new();
    for store in &stores {
        match Listed::of(store, config, cx) {
            Ok(mut listing) => {
                problems.extend(listing.unseen.take().map(|error| Problem::of(&error, Severity::Partial)));
                listed.push(listing);
            }
            Err(error) => problems.push(Problem::of(&error, Severity::Failure)),
        }
    }
    let units = units_of(config, &listed, cx);
    names.check(config, &units)?;
    for unit in units.iter().filter(|unit| names.matches_unit(unit)) {
        if is_interrupted(cx) {
            break;
        }
        let held = if options.dry_run { Ok(None) } else { lock::take(&config.state_dir, unit, None, cx).map(Some) };
        let _lock = match held {
            Ok(lock) => lock,
            Err(error) => {
                problems.push(Problem::of(&error.target(unit), Severity::Failure));
                continue;
            }
        };
        let target = plan::target_of(config, unit);
        for listing in &listed {
            let store = listing.store;
            // Without a target there is no policy but the storage's own.
            let policy = target.map_or(store.config.retention.unwrap_or_default(), |target| *target.policy_in(store.config));
            let mut work = Work::new(store, config, unit, policy, options.dry_run, cx);
            work.prune(listing, target.and_then(|target| target.timeout));
            items.append(&mut work.items);
            problems.append(&mut work.problems);
        }
    }
    Ok((items, problems))
}

/// What one storage holds of this host, from one listing.
struct Listed<'a> {
    store: &'a Store<'a>,
    entries: Vec<Entry>,
    /// Of uploads that never committed; none where nothing is ever deleted.
    leftovers: Vec<(Leftover, ObjectName)>,
    /// Why such uploads can't be seen: the backups are pruned all the same.
    unseen: Option<Error>,
}

impl<'a> Listed<'a> {
    fn of(store: &'a Store<'a>, config: &Config, cx: &Context) -> Result<Self> {
        let host = config.host.escaped();
        let entries = store.scan(Some(&host), cx)?;
        let mut leftovers = Vec::new();
        let mut each = |leftover: Leftover| {
            let name = ObjectName::parse(&leftover.key).filter(|name| name.host == host);
            leftovers.extend(name.map(|name| (leftover, name)));
            Ok(())
        };
        let seen = if store.config.prune { store.storage.leftovers(&mut each, cx) } else { Ok(()) };
        let unseen = seen.err().map(|error| {
            let restated = error.restated(format!("uploads that never ended are not removed: {}", error.cause()));
            restated.storage(store.name()).step("list")
        });
        Ok(Self { store, entries, leftovers, unseen })
    }
}

/// Every unit of the config, and every other that the storages hold.
fn units_of(config: &Config, listed: &[Listed<'_>], cx: &Context) -> Vec<UnitName> {
    let mut units: Vec<UnitName> = config.targets.iter().flat_map(Target::units).collect();
    let mut names = UnitNames::new(config);
    for listing in listed {
        let left = listing.leftovers.iter().map(|(_, name)| names.of(&name.stem.unit));
        let left: Vec<UnitName> = left.collect();
        let held = listing.entries.iter().map(|entry| names.of_entry(entry, listing.store, cx));
        for unit in held.chain(left).collect::<Vec<_>>() {
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
    }
    units
}

/// Applies a policy to one unit in one storage.
pub(super) fn unit_in(store: &Store<'_>, config: &Config, unit: &UnitName, policy: &Policy, dry_run: bool, cx: &Context) -> Done {
    let mut work = Work::new(store, config, unit, *policy, dry_run, cx);
    if let Some(entries) = work.scan() {
        work.apply(&entries);
    }
    (work.items, work.problems)
}

/// The pruning of one unit in one storage.
struct Work<'a> {
    store: &'a Store<'a>,
    config: &'a Config,
    unit: &'a UnitName,
    escaped: Escaped,
    policy: Policy,
    dry_run: bool,
    cx: &'a Context,
    items: Vec<PruneItem>,
    problems: Vec<Problem>,
}

impl<'a> Work<'a> {
    fn new(store: &'a Store<'a>, config: &'a Config, unit: &'a UnitName, policy: Policy, dry_run: bool, cx: &'a Context) -> Self {
        let escaped = unit.escaped();
        Self { store, config, unit, escaped, policy, dry_run, cx, items: Vec::new(), problems: Vec::new() }
    }

    /// Policy and leftovers. What was listed before this unit's lock was held may have changed since:
    /// where something is to go, the storage is listed again.
    fn prune(&mut self, listed: &Listed<'_>, timeout: Option<Duration>) {
        let entries = self.own(&listed.entries);
        let entries = if self.dry_run || self.is_settled(&entries) { Some(entries) } else { self.scan() };
        let Some(entries) = entries else { return };
        self.apply(&entries);
        if self.store.config.prune {
            self.collect(&entries, &listed.leftovers, timeout);
        }
    }

    fn own(&self, entries: &[Entry]) -> Vec<Entry> {
        entries.iter().filter(|entry| entry.stem.unit == self.escaped).cloned().collect()
    }

    fn scan(&mut self) -> Option<Vec<Entry>> {
        match self.store.scan(Some(&self.config.host.escaped()), self.cx) {
            Ok(entries) => Some(self.own(&entries)),
            Err(error) => {
                self.failed(error);
                None
            }
        }
    }

    /// Whether the listing alone says that nothing is to go.
    fn is_settled(&self, entries: &[Entry]) -> bool {
        let (whole, rest): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.has_manifest);
        let weighed: Vec<_> = whole.into_iter().map(|entry| weigh(entry, None)).collect();
        rest.is_empty() && self.decide(&weighed).iter().all(|(_, decision)| !decision.is_delete())
    }

    fn decide(&self, weighed: &[retention::Entry]) -> Vec<(Id, Decision)> {
        retention::decide(weighed, &self.policy, self.config.timezone, self.cx.clock.now())
    }

    /// Decides over what has a manifest, every one of them read anew, and carries it out.
    fn apply(&mut self, entries: &[Entry]) {
        let entries: Vec<&Entry> = entries.iter().filter(|entry| entry.has_manifest).collect();
        // Without a policy nothing goes, and to read all manifests after each backup would be for nothing.
        let read = self.dry_run || !self.policy.is_empty();
        let seen: Vec<Option<Seen>> = entries.iter().map(|entry| read.then(|| self.look(entry))).collect();
        let weighed: Vec<_> = entries.iter().zip(&seen).map(|(entry, seen)| weigh(entry, seen.as_ref())).collect();
        let decisions = self.decide(&weighed);
        for (entry, seen) in entries.into_iter().zip(&seen) {
            if let Some(Seen::Unknown(error)) = seen {
                self.stopped_by(error);
            }
            let Some((_, decision)) = decisions.iter().find(|(id, _)| *id == entry.stem.id) else { continue };
            let mut item = self.item(entry.stem.id, decision.is_delete());
            item.bytes = seen.as_ref().and_then(|seen| self.bytes_of(entry, seen));
            item.reasons = decision.reasons().iter().map(ToString::to_string).collect();
            if decision.is_delete() {
                self.delete_by_policy(entry, &mut item);
            }
            self.items.push(item);
        }
    }

    fn delete_by_policy(&mut self, entry: &Entry, item: &mut PruneItem) {
        let mut keep = |reason: &str| {
            item.decision = PruneDecision::Keep;
            item.reasons = vec![reason.to_owned()];
        };
        if !self.store.config.prune {
            return keep("the storage has prune: false");
        }
        // Another machine may have pinned it a moment ago.
        let done = match self.store.storage.stat(&entry.object(Role::Pin).key(), self.cx) {
            Ok(Some(_)) => return keep("pinned"),
            Ok(None) if self.dry_run => return,
            Ok(None) => delete(self.store, entry, self.cx),
            Err(error) => Err(error),
        };
        item.done = done.is_ok();
        if let Err(error) = done {
            self.failed(error);
        }
    }

    fn look(&self, entry: &Entry) -> Seen {
        catalog::look(self.store.storage.as_ref(), entry, self.cx).unwrap_or_else(Seen::Unknown)
    }

    /// What the artifact takes in the storage.
    fn bytes_of(&self, entry: &Entry, seen: &Seen) -> Option<u64> {
        match seen {
            Seen::Whole(manifest) | Seen::Suspicious(manifest) => Some(manifest.artifact.bytes),
            Seen::Damaged(manifest, _) => {
                let artifact = entry.artifact_of(manifest).ok()?.key();
                Some(self.store.storage.stat(&artifact, self.cx).ok()?.and_then(|meta| meta.bytes).unwrap_or(0))
            }
            Seen::Unknown(_) | Seen::Incomplete { .. } => None,
        }
    }

    fn item(&self, id: Id, goes: bool) -> PruneItem {
        PruneItem {
            unit: self.unit.to_string(),
            storage: self.store.name().to_owned(),
            id: id.to_string(),
            started: id.run().time(),
            bytes: None,
            decision: if goes { PruneDecision::Delete } else { PruneDecision::Keep },
            reasons: Vec::new(),
            done: false,
        }
    }

    /// What is never pruned fills a disk: a person must hear of it.
    fn stopped_by(&mut self, error: &Error) {
        let stopped = error.restated(format!("nothing is pruned here: {}", error.cause()));
        self.failed(stopped.hint_if_none("`list --all` shows it; `prune --delete` removes it"));
    }

    fn failed(&mut self, error: Error) {
        let error = error.target(self.unit).storage(self.store.name()).step("prune");
        self.problems.push(Problem::of(&error, Severity::Partial));
    }
}

fn weigh(entry: &Entry, seen: Option<&Seen>) -> retention::Entry {
    let is_bad = entry.found_bad().is_some();
    let whole = retention::State::Whole { proven: !is_bad && entry.proofs.last().is_some_and(|proof| proof.ok) };
    let state = match seen {
        None if entry.artifact.is_none() || is_bad => retention::State::Damaged,
        None if entry.suspect && !entry.accepted => retention::State::Suspicious,
        None | Some(Seen::Whole(_)) => whole,
        Some(Seen::Damaged(..)) => retention::State::Damaged,
        Some(Seen::Suspicious(_)) => retention::State::Suspicious,
        Some(Seen::Incomplete { .. } | Seen::Unknown(_)) => retention::State::Unknown,
    };
    retention::Entry { id: entry.stem.id, state, pinned: entry.pinned }
}

/// Deletes a backup: its manifest first, so that what is left of it is never listed; and nothing else
/// when that one stays.
fn delete(store: &Store<'_>, entry: &Entry, cx: &Context) -> Result<()> {
    let manifest = entry.object(Role::Manifest).key();
    let (first, rest): (Vec<_>, Vec<_>) = entry.keys().into_iter().partition(|key| *key == manifest);
    for outcome in store.storage.delete(&first, cx) {
        outcome?;
    }
    store.storage.delete(&rest, cx).into_iter().collect()
}
