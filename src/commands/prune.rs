//! `prune`: applies retention, unit by unit and storage by storage. It sees its own host's backups
//! alone, and reads every manifest before it deletes beside it.

mod by_id;
mod collect;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::catalog::resolve::When;
use crate::catalog::{self, Entry, Seen, Sizes};
use crate::commands::stores::{self, Store, UnitNames};
use crate::commands::{Found, is_interrupted};
use crate::config::model::{Config, Policy, Target};
use crate::error::{Error, Kind, Result};
use crate::host::{Context, lock};
use crate::names::{Escaped, Id, Key, ObjectName, Role, UnitName};
use crate::outcome::{Items, Problem, PruneDecision, PruneItem, Severity};
use crate::plan::{self, Names};
use crate::retention::{self, Decision};
use crate::storage::Leftover;

pub use by_id::Action;

/// Backups that are deleted together: few enough that little is left half deleted by an end in the middle.
const BATCH: usize = 100;

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
        for listing in listed.iter().take_while(|_| !is_interrupted(cx)) {
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
    /// By unit, in the order in which they are met, each oldest first.
    units: Vec<(Escaped, Vec<Entry>)>,
    /// Of uploads that never committed; none where nothing is ever deleted.
    leftovers: Vec<(Leftover, ObjectName)>,
    /// Why such uploads can't be seen: the backups are pruned all the same.
    unseen: Option<Error>,
}

impl<'a> Listed<'a> {
    fn of(store: &'a Store<'a>, config: &Config, cx: &Context) -> Result<Self> {
        let host = config.host.escaped();
        let units = by_unit(store.scan(Some(&host), cx)?);
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
        Ok(Self { store, units, leftovers, unseen })
    }

    fn of_unit(&self, unit: &Escaped) -> &[Entry] {
        self.units.iter().find(|(name, _)| name == unit).map_or(&[], |(_, entries)| entries)
    }
}

fn by_unit(entries: Vec<Entry>) -> Vec<(Escaped, Vec<Entry>)> {
    let mut units: Vec<(Escaped, Vec<Entry>)> = Vec::new();
    let mut places: HashMap<Escaped, usize> = HashMap::new();
    for entry in entries {
        let unit = &entry.stem.unit;
        let at = *places.entry(unit.clone()).or_insert_with(|| {
            units.push((unit.clone(), Vec::new()));
            units.len() - 1
        });
        units[at].1.push(entry);
    }
    units
}

/// Every unit of the config, and every other that the storages hold.
fn units_of(config: &Config, listed: &[Listed<'_>], cx: &Context) -> Vec<UnitName> {
    let mut units: Vec<UnitName> = config.targets.iter().flat_map(Target::units).collect();
    let mut names = UnitNames::new(config);
    for listing in listed {
        let left = listing.leftovers.iter().map(|(_, name)| names.of(&name.stem.unit));
        let left: Vec<UnitName> = left.collect();
        let of_entries = |(unit, entries): &(Escaped, Vec<Entry>)| {
            names.of_entries(unit, entries.iter().map(|entry| (entry, listing.store)), cx)
        };
        units.extend(listing.units.iter().map(of_entries));
        units.extend(left);
    }
    let mut met = HashSet::new();
    units.retain(|unit| met.insert(unit.clone()));
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

/// What a look at a backup came to. Its manifest is not kept: those of a hundred thousand are much.
struct Looked {
    weighed: retention::Entry,
    bytes: Option<u64>,
    unknown: Option<Error>,
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
        let mut entries = listed.of_unit(&self.escaped);
        let anew;
        if !self.dry_run && !self.is_settled(entries) {
            let Some(found) = self.scan() else { return };
            anew = found;
            entries = &anew;
        }
        self.apply(entries);
        if self.store.config.prune && !is_interrupted(self.cx) {
            self.collect(entries, &listed.leftovers, timeout);
        }
    }

    fn scan(&mut self) -> Option<Vec<Entry>> {
        match self.store.scan(Some(&self.config.host.escaped()), self.cx) {
            Ok(entries) => Some(entries.into_iter().filter(|entry| entry.stem.unit == self.escaped).collect()),
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

    /// Decides over what has a manifest, and carries it out. Every manifest is read anew where one of them may go.
    fn apply(&mut self, entries: &[Entry]) {
        let entries: Vec<&Entry> = entries.iter().filter(|entry| entry.has_manifest).collect();
        let looked = self.look_at(&entries);
        // What was interrupted says nothing of a backup.
        if let Err(error) = self.cx.cancel.check() {
            return self.failed(error);
        }
        let weighed: Vec<_> = looked.iter().map(|looked| looked.weighed).collect();
        let mut decisions = self.decide(&weighed).into_iter().peekable();
        let mut going: Vec<(usize, &Entry)> = Vec::new();
        // Both are in the order of their ids; of one that is there twice there is one decision.
        for (entry, looked) in entries.into_iter().zip(looked) {
            if let Some(error) = &looked.unknown {
                self.stopped_by(error);
            }
            while decisions.next_if(|(id, _)| *id < entry.stem.id).is_some() {}
            let Some((_, decision)) = decisions.peek().filter(|(id, _)| *id == entry.stem.id) else { continue };
            let mut item = self.item(entry.stem.id, decision.is_delete());
            item.bytes = looked.bytes;
            item.reasons = decision.reasons().iter().map(ToString::to_string).collect();
            if decision.is_delete() && !self.store.config.prune {
                keep(&mut item, "the storage has prune: false");
            } else if decision.is_delete() {
                going.push((self.items.len(), entry));
            }
            self.items.push(item);
        }
        // What the listing says of pins is enough to be shown.
        if !self.dry_run {
            going.chunks(BATCH).for_each(|some| self.delete_by_policy(some));
        }
    }

    /// What of each is weighed, and shown.
    fn look_at(&self, entries: &[&Entry]) -> Vec<Looked> {
        let storage = self.store.storage.as_ref();
        let listed: Vec<_> = entries.iter().map(|entry| weigh(entry, None)).collect();
        // Whatever their manifests say, nothing goes.
        if retention::keeps_all(&listed, &self.policy, self.config.timezone, self.cx.clock.now()) {
            let are_told = self.dry_run || !self.policy.is_empty();
            let bytes = if are_told { catalog::artifact_bytes(storage, entries, self.cx) } else { vec![None; entries.len()] };
            let looked = listed.into_iter().zip(bytes);
            return looked.map(|(weighed, bytes)| Looked { weighed, bytes, unknown: None }).collect();
        }
        let sizes = if self.dry_run { Sizes::Listed } else { Sizes::Anew };
        let take = |at: usize, seen: Result<Seen>| {
            let (entry, seen) = (entries[at], seen.unwrap_or_else(Seen::Unknown));
            let weighed = weigh(entry, Some(&seen));
            let bytes = self.bytes_of(entry, &seen);
            let unknown = if let Seen::Unknown(error) = seen { Some(error) } else { None };
            Looked { weighed, bytes, unknown }
        };
        catalog::look_all(storage, entries, sizes, self.cx, &take)
    }

    /// Deletes these, each with the place of its item.
    fn delete_by_policy(&mut self, going: &[(usize, &Entry)]) {
        // Another machine may have pinned one a moment ago.
        let pins: Vec<Key> = going.iter().map(|(_, entry)| entry.object(Role::Pin).key()).collect();
        let mut going_still = Vec::new();
        for ((at, entry), pin) in going.iter().zip(self.store.storage.stat_many(&pins, self.cx)) {
            match pin {
                Ok(Some(_)) => keep(&mut self.items[*at], "pinned"),
                Ok(None) => going_still.push((*at, *entry)),
                Err(error) => self.failed(error),
            }
        }
        let (places, entries): (Vec<usize>, Vec<&Entry>) = going_still.into_iter().unzip();
        for (at, outcome) in places.into_iter().zip(delete(self.store, &entries, self.cx)) {
            self.items[at].done = outcome.is_ok();
            if let Err(error) = outcome {
                self.failed(error);
            }
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
        let problem = Problem::of(&error, Severity::Partial);
        // A signal is no fault of each backup that was to go.
        if error.kind() != Kind::Interrupted || !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
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

fn keep(item: &mut PruneItem, reason: &str) {
    item.decision = PruneDecision::Keep;
    item.reasons = vec![reason.to_owned()];
}

/// Deletes backups; each one's own outcome. Their manifests go first, so that what is left of them is never listed; of one
/// whose manifest stays, nothing else goes.
fn delete(store: &Store<'_>, entries: &[&Entry], cx: &Context) -> Vec<Result<()>> {
    let storage = &store.storage;
    let with_manifest = entries.iter().filter(|entry| entry.has_manifest);
    let manifests: Vec<Key> = with_manifest.map(|entry| entry.object(Role::Manifest).key()).collect();
    // What was not answered for is not taken for deleted.
    let unanswered = || Err(Error::new(Kind::Internal, "the storage does not say whether it was deleted"));
    let mut gone = storage.delete(&manifests, cx).into_iter();
    let gone = entries.iter().map(|entry| if entry.has_manifest { gone.next().unwrap_or_else(unanswered) } else { Ok(()) });
    let gone: Vec<Result<()>> = gone.collect();
    let rest = |entry: &Entry| entry.keys().into_iter().skip(usize::from(entry.has_manifest));
    let going = entries.iter().zip(&gone).filter(|(_, gone)| gone.is_ok());
    let keys: Vec<Key> = going.flat_map(|(entry, _)| rest(entry)).collect();
    let mut outcomes = storage.delete(&keys, cx).into_iter();
    let own = |(entry, gone): (&&Entry, Result<()>)| {
        gone?;
        // To the last, as each has taken its place.
        let own: Vec<Result<()>> = rest(entry).map(|_| outcomes.next().unwrap_or_else(unanswered)).collect();
        own.into_iter().collect()
    };
    entries.iter().zip(gone).map(own).collect()
}
