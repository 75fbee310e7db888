//! `prune`: applies retention, collects what never became whole, and pins or deletes by id. It sees
//! its own host's backups alone, and reads every manifest before it deletes beside it.

use std::time::Duration;

use crate::catalog::resolve::When;
use crate::catalog::{self, Entry, Seen};
use crate::commands::stores::{self, Store};
use crate::commands::{Found, is_interrupted};
use crate::config::model::{Config, Policy};
use crate::error::{Error, Kind, Result};
use crate::host::{Context, lock};
use crate::names::{Escaped, Id, ObjectName, Role, UnitName};
use crate::outcome::{Items, Problem, PruneItem, Severity};
use crate::plan::Names;
use crate::retention::{self, Decision};
use crate::storage::Leftover;

/// No incomplete backup younger than this is collected: it may still be under way.
const MINIMUM_AGE: Duration = Duration::from_secs(24 * 3600);

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

/// What is done to one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It stays whatever the policy says.
    Pin,
    /// The policy holds for it again.
    Unpin,
    /// It goes.
    Delete,
}

/// Prunes what is selected.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    let result = match &options.by_id {
        Some((action, when)) => by_id(config, options, *action, when, cx),
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
    let mut scanned: Vec<(&Store<'_>, Vec<Entry>)> = Vec::new();
    for store in &stores {
        match store.scan(Some(&config.host.escaped()), cx) {
            Ok(entries) => scanned.push((store, entries)),
            Err(error) => problems.push(Problem::of(&error, Severity::Failure)),
        }
    }
    let units = units_of(config, &scanned);
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
        for (store, _) in &scanned {
            let target = config.targets.iter().find(|target| target.units().contains(unit));
            // Without a target there is no policy but the storage's own.
            let policy = target.map_or(store.config.retention.unwrap_or_default(), |target| *target.policy_in(store.config));
            let (decided, found) = unit_in(store, config, unit, &policy, options.dry_run, cx);
            items.extend(decided);
            problems.extend(found);
            let (collected, found) = collect(store, config, unit, options.dry_run, cx);
            items.extend(collected);
            problems.extend(found);
        }
    }
    Ok((items, problems))
}

/// Every unit of the config, and every other that the storages hold.
fn units_of(config: &Config, scanned: &[(&Store<'_>, Vec<Entry>)]) -> Vec<UnitName> {
    let mut units: Vec<UnitName> = config.targets.iter().flat_map(crate::config::model::Target::units).collect();
    let stored = scanned.iter().flat_map(|(_, entries)| entries).filter_map(|entry| entry.stem.unit.unescape());
    for unit in stored.map(UnitName::new) {
        if !units.contains(&unit) {
            units.push(unit);
        }
    }
    units
}

/// Applies a policy to one unit in one storage.
pub(super) fn unit_in(store: &Store<'_>, config: &Config, unit: &UnitName, policy: &Policy, dry_run: bool, cx: &Context) -> Done {
    let mut problems = Vec::new();
    let mut failed = |error: Error, severity| {
        problems.push(Problem::of(&error.target(unit).storage(store.name()).step("prune"), severity));
    };
    let entries = match store.scan(Some(&config.host.escaped()), cx) {
        Ok(entries) => entries,
        Err(error) => {
            failed(error, Severity::Partial);
            return (Vec::new(), problems);
        }
    };
    let escaped = unit.escaped();
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| entry.stem.unit == escaped && entry.has_manifest).collect();
    let mut items = Vec::new();
    for (entry, decision, bytes) in decide(store, &entries, policy, config, cx) {
        let mut item = item_of(unit, store, entry, &decision, bytes);
        if decision.is_delete() && !store.config.prune {
            item.decision = "keep";
            item.reasons = vec!["the storage has prune: false".to_owned()];
        } else if decision.is_delete() && !dry_run {
            match delete(store, entry, cx) {
                Ok(()) => item.done = true,
                Err(error) => failed(error, Severity::Partial),
            }
        }
        items.push(item);
    }
    (items, problems)
}

/// Decides from the listing first; where something is to go, every manifest is read and counts, and
/// sizes are known.
fn decide<'a>(
    store: &Store<'_>,
    entries: &'a [Entry],
    policy: &Policy,
    config: &Config,
    cx: &Context,
) -> Vec<(&'a Entry, Decision, Option<u64>)> {
    let now = cx.clock.now();
    let from_listing: Vec<_> = entries.iter().map(|entry| weigh(entry, None)).collect();
    let mut decisions = retention::decide(&from_listing, policy, config.timezone, now);
    let mut sizes: Vec<Option<u64>> = Vec::new();
    if decisions.iter().any(|(_, decision)| decision.is_delete()) {
        let seen: Vec<Seen> = entries.iter().map(|entry| look(store, entry, cx)).collect();
        let weighed: Vec<_> = entries.iter().zip(&seen).map(|(entry, seen)| weigh(entry, Some(seen))).collect();
        decisions = retention::decide(&weighed, policy, config.timezone, now);
        sizes = seen.iter().map(bytes_of).collect();
    }
    let found = |(id, decision): (Id, Decision)| {
        let at = entries.iter().position(|entry| entry.stem.id == id)?;
        Some((&entries[at], decision, sizes.get(at).copied().flatten()))
    };
    decisions.into_iter().filter_map(found).collect()
}

fn bytes_of(seen: &Seen) -> Option<u64> {
    match seen {
        Seen::Whole(manifest) | Seen::Suspicious(manifest) => Some(manifest.artifact.bytes),
        Seen::Damaged(..) | Seen::Incomplete { .. } | Seen::Unknown(_) => None,
    }
}

fn look(store: &Store<'_>, entry: &Entry, cx: &Context) -> Seen {
    catalog::look(store.storage.as_ref(), entry, cx).unwrap_or_else(Seen::Unknown)
}

fn weigh(entry: &Entry, seen: Option<&Seen>) -> retention::Entry {
    let newest_proof = entry.proofs.last().map(|proof| proof.ok);
    let whole = retention::State::Whole { proven: newest_proof == Some(true) };
    let state = match seen {
        None if entry.artifact.is_none() || newest_proof == Some(false) => retention::State::Damaged,
        None if entry.suspect && !entry.accepted => retention::State::Suspicious,
        None | Some(Seen::Whole(_)) => whole,
        Some(Seen::Damaged(..)) => retention::State::Damaged,
        Some(Seen::Suspicious(_)) => retention::State::Suspicious,
        Some(Seen::Incomplete { .. } | Seen::Unknown(_)) => retention::State::Unknown,
    };
    retention::Entry { id: entry.stem.id, state, pinned: entry.pinned }
}

fn item_of(unit: &UnitName, store: &Store<'_>, entry: &Entry, decision: &Decision, bytes: Option<u64>) -> PruneItem {
    PruneItem {
        unit: unit.to_string(),
        storage: store.name().to_owned(),
        id: entry.stem.id.to_string(),
        started: entry.stem.id.run().time(),
        bytes,
        decision: if decision.is_delete() { "delete" } else { "keep" },
        reasons: decision.reasons().iter().map(ToString::to_string).collect(),
        done: false,
    }
}

/// Deletes a backup: its manifest first, so that what is left of it is never listed; and nothing else
/// when that one stays.
fn delete(store: &Store<'_>, entry: &Entry, cx: &Context) -> Result<()> {
    let manifest = entry.object(Role::Manifest).key();
    let (first, rest): (Vec<_>, Vec<_>) = entry.keys.iter().cloned().partition(|key| *key == manifest);
    for outcome in store.storage.delete(&first, cx) {
        outcome?;
    }
    store.storage.delete(&rest, cx).into_iter().collect()
}

/// Collects what never became whole, and is too old to be under way.
fn collect(store: &Store<'_>, config: &Config, unit: &UnitName, dry_run: bool, cx: &Context) -> Done {
    let mut done: Done = (Vec::new(), Vec::new());
    if !store.config.prune {
        return done;
    }
    let timeout = config.targets.iter().find(|target| target.units().contains(unit)).and_then(|target| target.timeout);
    let minimum = timeout.map_or(MINIMUM_AGE, |timeout| MINIMUM_AGE.max(timeout * 2));
    if let Err(error) = collect_from(store, config, unit, minimum, dry_run, &mut done, cx) {
        done.1.push(Problem::of(&error.target(unit).storage(store.name()).step("prune"), Severity::Partial));
    }
    done
}

fn collect_from(
    store: &Store<'_>,
    config: &Config,
    unit: &UnitName,
    minimum: Duration,
    dry_run: bool,
    done: &mut Done,
    cx: &Context,
) -> Result<()> {
    let (host, escaped) = (config.host.escaped(), unit.escaped());
    let now = store.storage.now(cx)?;
    let age = |modified: chrono::DateTime<chrono::Utc>| (now - modified).to_std().unwrap_or_default();
    let mut note = |id: String, started, bytes, deleted: bool, reason: String| {
        let decision = if deleted { "delete" } else { "keep" };
        done.0.push(PruneItem {
            unit: unit.to_string(),
            storage: store.name().to_owned(),
            id,
            started,
            bytes,
            decision,
            reasons: vec![reason],
            done: deleted && !dry_run,
        });
    };
    let entries = store.scan(Some(&host), cx)?;
    for entry in entries.iter().filter(|entry| entry.stem.unit == escaped && !entry.has_manifest) {
        // The second look: a manifest that came since the listing makes it whole.
        let Seen::Incomplete { modified: Some(modified) } = look(store, entry, cx) else { continue };
        let old = age(modified) > minimum;
        if old && !dry_run {
            store.storage.delete(&entry.keys, cx).into_iter().collect::<Result<()>>()?;
        }
        note(entry.stem.id.to_string(), entry.stem.id.run().time(), None, old, incomplete(old));
    }
    let mut leftovers: Vec<(Leftover, ObjectName)> = Vec::new();
    store.storage.leftovers(
        &mut |leftover| {
            let name = ObjectName::parse(&leftover.key).filter(|name| name.host == host && name.stem.unit == escaped);
            leftovers.extend(name.map(|name| (leftover, name)));
            Ok(())
        },
        cx,
    )?;
    for (leftover, name) in leftovers {
        let old = age(leftover.modified) > minimum;
        if old && !dry_run {
            store.storage.discard(&leftover, cx)?;
        }
        note(name.stem.id.to_string(), name.stem.id.run().time(), leftover.bytes, old, incomplete(old));
    }
    Ok(())
}

fn incomplete(old: bool) -> String {
    if old { "it never became whole" } else { "incomplete, and young enough to be under way" }.to_owned()
}

/// Pins, unpins or deletes one backup, in every storage that holds it.
fn by_id(config: &Config, options: &Options, action: Action, when: &When, cx: &Context) -> Result<Done> {
    if !matches!(when, When::Id(_)) {
        return Err(Error::new(Kind::Config, "a backup is pinned, unpinned or deleted by its id").hint("`list` shows the ids"));
    }
    let stores = stores::open_named(config, &options.storages)?;
    let mut held: Vec<(&Store<'_>, Entry)> = Vec::new();
    for store in &stores {
        held.extend(store.scan(Some(&config.host.escaped()), cx)?.into_iter().map(|entry| (store, entry)));
    }
    let (_, found) = catalog::resolve::resolve(&held, |(_, entry)| entry.stem.id, when, config.timezone, cx.clock.now())?;
    let stem = found.stem.clone();
    let unit = unit_name(&stem.unit);
    let _lock = if options.dry_run { None } else { Some(lock::take(&config.state_dir, &unit, None, cx)?) };
    let mut done: Done = (Vec::new(), Vec::new());
    for (store, entry) in held.iter().filter(|(_, entry)| entry.stem == stem) {
        let outcome = act(store, entry, action, options.dry_run, cx);
        let reason = match action {
            Action::Pin => "pinned",
            Action::Unpin => "no longer pinned",
            Action::Delete => "asked for by id",
        };
        let ok = outcome.is_ok();
        if let Err(error) = outcome {
            done.1.push(Problem::of(&error.target(&unit).storage(store.name()), Severity::Failure));
        }
        done.0.push(PruneItem {
            unit: unit.to_string(),
            storage: store.name().to_owned(),
            id: stem.id.to_string(),
            started: stem.id.run().time(),
            bytes: None,
            decision: if action == Action::Delete { "delete" } else { "keep" },
            reasons: vec![reason.to_owned()],
            done: ok && !options.dry_run,
        });
    }
    Ok(done)
}

fn act(store: &Store<'_>, entry: &Entry, action: Action, dry_run: bool, cx: &Context) -> Result<()> {
    let refuse = |cause: &str, hint: &str| Err(Error::new(Kind::Refused, cause).hint(hint));
    match action {
        Action::Delete if entry.pinned => return refuse("it is pinned", "take the pin off first: prune --unpin ID"),
        Action::Delete if !store.config.prune => return refuse("the storage has prune: false", "name another with --storage"),
        Action::Pin if !entry.has_manifest => {
            return refuse("it is incomplete: there is nothing to keep", "`list --all` shows why");
        }
        _ if dry_run => return Ok(()),
        _ => {}
    }
    let pin = entry.object(Role::Pin).key();
    match action {
        Action::Pin if entry.pinned => Ok(()),
        Action::Pin => store.storage.put_new(&pin, b"{}\n", cx).map(drop),
        Action::Unpin => store.storage.delete(&[pin], cx).into_iter().collect(),
        Action::Delete => delete(store, entry, cx),
    }
}

/// The unit of an entry, for a person: a name that was cut is shown as it stands in files.
pub(super) fn unit_name(escaped: &Escaped) -> UnitName {
    UnitName::new(escaped.unescape().unwrap_or_else(|| escaped.to_string()))
}
