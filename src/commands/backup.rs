//! `backup`: every selected unit, each under its lock, tried again where that may help, then pruned
//! where it succeeded. One unit's failure leaves the others alone.

mod ask;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::commands::attempt::{self, Attempt, Job};
use crate::commands::hooks::Hooks;
use crate::commands::stores::{self, Store, remarks_on_size, source_of};
use crate::commands::{Found, is_interrupted, notice, prune, readable};
use crate::config::model::{Config, Policy, Target};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::{files, lock};
use crate::names::{Id, ObjectName, RunId, UnitName, prefix_of_run};
use crate::observe::{Event, logged_here};
use crate::outcome::{BackupItem, CopyItem, Items, Problem, PruneDecision, PruneItem, Severity, UnitStatus};
use crate::plan::{self, Plan, PlannedUnit};
use crate::quantity::{show_bytes, show_duration};
use crate::source::Source;
use crate::stage::pool::Pool;
use crate::storage::ObjectMeta;

/// The waits before new attempts; the last one repeats.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

/// `backup`'s options.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Units or targets, by name or glob; none: all enabled ones.
    pub patterns: Vec<String>,
    /// The user's own words, kept in the manifest.
    pub label: Option<String>,
    /// Keep it whatever the policy says.
    pub pin: bool,
    /// Only into these storages.
    pub storages: Vec<String>,
    /// Delete nothing afterwards.
    pub no_prune: bool,
    /// How long to wait for another run's lock.
    pub wait: Option<Duration>,
    /// Look, and do nothing.
    pub dry_run: bool,
}

struct Work<'a> {
    config: &'a Config,
    options: &'a Options,
    run: RunId,
    pool: Pool,
    /// Those of the plan, opened once and shared by all units.
    stores: Vec<Store<'a>>,
    source_of: fn(&Target, &Config) -> Box<dyn Source>,
    cx: &'a Context,
}

/// Backs up what is selected.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    match backup(config, options, cx) {
        Ok(found) => found,
        Err(error) => Found::failure(Items::Backups(Vec::new()), &error),
    }
}

fn backup(config: &Config, options: &Options, cx: &Context) -> Result<Found> {
    // NAMEs that can't be right end it before a server is asked.
    let to_ask = plan::to_ask(config, &options.patterns, &options.storages)?;
    let mut work = Work {
        config,
        options,
        run: RunId::starting(cx.clock.now()),
        pool: Pool::for_this_machine()?,
        stores: Vec::new(),
        source_of,
        cx,
    };
    let asked = work.ask(&to_ask);
    let plan = match plan::backup(config, &options.patterns, &options.storages, &asked.answers) {
        Ok(plan) => plan,
        // Nothing was done, and why a server did not answer is told all the same.
        Err(error) => {
            let mut problems = asked.problems;
            problems.push(Problem::of(&error, Severity::Failure));
            return Ok(Found { items: Items::Backups(asked.items), problems });
        }
    };
    work.stores = stores_of(&plan, config);
    let mut problems = left_out(&plan, options);
    problems.extend(asked.problems);
    let (done, found) = work.all(&plan.units);
    problems.extend(found);
    let items = asked.items.into_iter().chain(done).collect();
    Ok(Found { items: Items::Backups(items), problems })
}

/// Every storage that a unit of the plan goes to, opened.
fn stores_of<'c>(plan: &Plan<'c>, whole: &Config) -> Vec<Store<'c>> {
    let mut stores: Vec<Store<'c>> = Vec::new();
    for config in plan.units.iter().flat_map(|unit| &unit.storages) {
        if stores::named(&stores, &config.name).is_none() {
            stores.push(Store::open(config, whole));
        }
    }
    stores
}

/// Notices of targets that a NAME meets, and that are not backed up.
fn left_out(plan: &Plan<'_>, options: &Options) -> Vec<Problem> {
    let disabled = plan.disabled.iter().filter(|_| !options.patterns.is_empty());
    let disabled =
        disabled.map(|name| notice(Some(name.as_str()), "disabled in the config: left out, unless its very name is given"));
    let elsewhere = plan.elsewhere.iter();
    let elsewhere =
        elsewhere.map(|name| notice(Some(name.as_str()), "it uses none of the storages that --storage names: left out"));
    disabled.chain(elsewhere).collect()
}

type Done = (BackupItem, Vec<Problem>);

impl Work<'_> {
    /// All units, `parallel:` of them at once, in the plan's order in the end.
    fn all(&self, units: &[PlannedUnit<'_>]) -> (Vec<BackupItem>, Vec<Problem>) {
        let queue: Mutex<VecDeque<usize>> = Mutex::new((0..units.len()).collect());
        let done: Mutex<Vec<(usize, Done)>> = Mutex::new(Vec::new());
        let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
        let work = || {
            while let Some(at) = next() {
                let result = if self.options.dry_run { self.plan_unit(&units[at]) } else { self.unit(&units[at]) };
                if let Ok(mut done) = done.lock() {
                    done.push((at, result));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.config.parallel.get() {
                scope.spawn(logged_here(work));
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_default();
        done.sort_by_key(|(at, _)| *at);
        let (mut items, mut problems) = (Vec::new(), Vec::new());
        for (_, (item, found)) in done {
            items.push(item);
            problems.extend(found);
        }
        (items, problems)
    }

    fn item(&self, unit: &UnitName) -> BackupItem {
        BackupItem {
            unit: unit.to_string(),
            status: UnitStatus::Failed,
            id: None,
            run: self.run,
            bytes: 0,
            content_bytes: 0,
            seconds: 0.0,
            storages: Vec::new(),
            copies: Vec::new(),
            detail: None,
            warnings: Vec::new(),
            doubts: Vec::new(),
            pruned: Vec::new(),
        }
    }

    fn plan_unit(&self, unit: &PlannedUnit<'_>) -> Done {
        let mut item = self.item(&unit.unit);
        item.storages = unit.storages.iter().map(|storage| storage.name.clone()).collect();
        let looked = (self.source_of)(unit.target, self.config).probe(&unit.unit, self.cx).and_then(readable);
        match looked {
            Ok(probe) => {
                item.status = UnitStatus::Planned;
                let place = if probe.server_version.is_some() { " on the server" } else { "" };
                let size = probe.estimated_bytes.map(|bytes| format!(", about {}{place}", show_bytes(bytes)));
                let mut details = vec![format!("{}{}", probe.way, size.unwrap_or_default())];
                details.extend(remarks_on_size(unit.storages.iter().copied(), probe.estimated_bytes));
                item.detail = Some(details.join("; "));
                let notices = probe.warnings.iter().map(|text| notice(Some(unit.unit.as_str()), text.as_str())).collect();
                item.warnings = probe.warnings;
                (item, notices)
            }
            Err(error) => (item, vec![Problem::of(&error.target(&unit.unit), Severity::Failure)]),
        }
    }

    fn unit(&self, unit: &PlannedUnit<'_>) -> Done {
        let mut item = self.item(&unit.unit);
        if is_interrupted(self.cx) {
            item.status = UnitStatus::Skipped;
            return (item, Vec::new());
        }
        // At the level that no filter leaves out: what is logged below is of this unit, at whatever level.
        let _of_this_unit = tracing::error_span!("backup", unit = unit.unit.as_str()).entered();
        let begun = Instant::now();
        self.cx.observer.event(Event::UnitStarted { unit: unit.unit.clone(), action: "backup", expected_bytes: None });
        let mut problems = Vec::new();
        if let Err(error) = self.locked(unit, &mut item, &mut problems) {
            problems.push(Problem::of(&error.target(&unit.unit), Severity::Failure));
        }
        item.seconds = begun.elapsed().as_secs_f64();
        let summary = summary(&item, begun.elapsed());
        let ok = item.status.is_stored();
        self.cx.observer.event(Event::UnitFinished { unit: unit.unit.clone(), ok, summary });
        (item, problems)
    }

    fn locked(&self, unit: &PlannedUnit<'_>, item: &mut BackupItem, problems: &mut Vec<Problem>) -> Result<()> {
        let _lock = lock::take(&self.config.state_dir, &unit.unit, self.options.wait, self.cx)?;
        let stores: Vec<&Store<'_>> =
            unit.storages.iter().filter_map(|storage| stores::named(&self.stores, &storage.name)).collect();
        item.run = self.run_of(&unit.unit, &stores)?;
        let hooks = Hooks::of(unit, self.config, item.run, self.cx);
        let failed = match hooks.before() {
            Ok(()) => self.attempts(unit, &stores, item),
            Err(error) => vec![error],
        };
        let committed = item.storages.clone();
        let severity = if committed.is_empty() { Severity::Failure } else { Severity::Partial };
        item.status = match (committed.is_empty(), failed.is_empty()) {
            (true, _) => UnitStatus::Failed,
            (false, false) => UnitStatus::Partial,
            (false, true) => UnitStatus::Ok,
        };
        let afterwards = hooks.afterwards(item, &failed);
        problems.extend(failed.into_iter().map(|error| Problem::of(&error.target(&unit.unit), severity)));
        problems.extend(afterwards.into_iter().map(|error| Problem::of(&error.target(&unit.unit), Severity::Partial)));
        problems.extend(item.warnings.iter().map(|text| notice(Some(unit.unit.as_str()), text.as_str())));
        problems.extend(item.doubts.iter().map(|text| doubt(&unit.unit, text)));
        for store in stores.iter().filter(|store| committed.iter().any(|name| name == store.name())) {
            if self.options.no_prune || is_interrupted(self.cx) {
                break;
            }
            let policy = unit.target.policy_in(store.config);
            // Where nothing can go, nothing is asked: to list may not be allowed there, and costs.
            if policy.is_empty() || !store.config.prune {
                continue;
            }
            let (pruned, found) = self.prune(unit, store, policy);
            item.pruned.extend(pruned);
            problems.extend(found);
        }
        Ok(())
    }

    /// Attempts until every storage has it, or trying again can't help; what failed in the end comes back.
    fn attempts(&self, unit: &PlannedUnit<'_>, stores: &[&Store<'_>], item: &mut BackupItem) -> Vec<Error> {
        let source = (self.source_of)(unit.target, self.config);
        let job = self.job(unit, source.as_ref());
        let mut missing = stores.to_vec();
        let mut failed = Vec::new();
        let mut tries = 0;
        loop {
            let failures = match self.attempt(&job, item.run, &missing) {
                Ok(attempt) => note(attempt, item),
                // An earlier attempt served some storages: it is told for each that is still without.
                Err(error) if !item.storages.is_empty() => {
                    missing.iter().map(|store| error.copy().storage(store.name())).collect()
                }
                Err(error) => vec![error],
            };
            let (passing, lasting): (Vec<Error>, Vec<Error>) =
                failures.into_iter().partition(|error| error.kind().is_transient());
            failed.extend(lasting);
            let Some(first) = passing.first() else { return failed };
            if tries >= unit.target.retries || is_interrupted(self.cx) {
                failed.extend(passing);
                return failed;
            }
            if let Err(interrupted) = back_off(&unit.unit, tries, first, self.cx) {
                failed.extend(passing);
                failed.push(interrupted);
                return failed;
            }
            tries += 1;
            // A failure without a storage is the source's, and all of them lack it.
            let lack = |store: &&Store<'_>| {
                passing.iter().any(|error| error.place().storage.as_deref().is_none_or(|name| name == store.name()))
            };
            missing.retain(lack);
        }
    }

    fn job<'a>(&'a self, unit: &'a PlannedUnit<'a>, source: &'a dyn Source) -> Job<'a> {
        Job {
            config: self.config,
            target: unit.target,
            unit: &unit.unit,
            source,
            pool: &self.pool,
            units_found: unit.units_found,
            label: self.options.label.as_deref(),
            pin: self.options.pin,
        }
    }

    /// This run, or one of a later second where the unit has a backup of this second already: which of
    /// two of one second is the newer, their ids can't tell.
    fn run_of(&self, unit: &UnitName, stores: &[&Store<'_>]) -> Result<RunId> {
        let mut run = self.run;
        while stores.iter().any(|store| self.has_run(store, unit, run)) {
            let next = run.time() + chrono::Duration::seconds(1);
            let wait = (next - self.cx.clock.now()).to_std().unwrap_or_default();
            self.cx.cancel.sleep(wait.min(Duration::from_secs(1)))?;
            run = RunId::starting(next.max(self.cx.clock.now()));
        }
        Ok(run)
    }

    /// A storage that can't be listed says so when it is written to.
    fn has_run(&self, store: &Store<'_>, unit: &UnitName, run: RunId) -> bool {
        let (host, unit) = (self.config.host.escaped(), unit.escaped());
        let mut found = false;
        let mut each = |object: ObjectMeta| {
            found |= ObjectName::parse(&object.key).is_some_and(|name| name.host == host && name.stem.unit == unit);
            Ok(())
        };
        let _ = store.storage.list(&prefix_of_run(&host, run), &mut each, self.cx);
        found
    }

    /// One attempt, under an id and a time limit of its own.
    fn attempt(&self, job: &Job<'_>, run: RunId, missing: &[&Store<'_>]) -> Result<Attempt> {
        let cx = self.cx.with_cancel(self.cx.cancel.child(job.target.timeout)?);
        let id = Id::new(run, files::random_bytes::<8>()?);
        attempt::run(job, missing, id, &cx)
    }

    fn prune(&self, unit: &PlannedUnit<'_>, store: &Store<'_>, policy: &Policy) -> (Vec<PruneItem>, Vec<Problem>) {
        let (items, problems) = prune::unit_in(store, self.config, &unit.unit, policy, false, self.cx);
        (items.into_iter().filter(|item| item.decision == PruneDecision::Delete).collect(), problems)
    }
}

/// What was stored, and may not be what it ought to be.
fn doubt(unit: &UnitName, text: &str) -> Problem {
    Problem::of(&Error::new(Kind::Check, text).step("archive").target(unit), Severity::Partial)
}

/// Waits before another attempt; an error where it was interrupted.
fn back_off(unit: &UnitName, tries: u32, cause: &Error, cx: &Context) -> Result<()> {
    let after = BACK_OFF[usize::try_from(tries).unwrap_or(usize::MAX).min(BACK_OFF.len() - 1)];
    cx.observer.event(Event::Retry { unit: unit.clone(), cause: cause.to_string(), after });
    cx.cancel.sleep(after)
}

/// Notes what an attempt did; the storages' failures come back, each with its storage's name.
fn note(attempt: Attempt, item: &mut BackupItem) -> Vec<Error> {
    if !attempt.committed.is_empty() {
        let bytes = attempt.passed.as_ref().map_or(0, |passed| passed.artifact.bytes);
        let copies = attempt.committed.iter().map(|storage| CopyItem { storage: storage.clone(), id: attempt.id, bytes });
        item.copies.extend(copies);
        item.id.get_or_insert(attempt.id);
        item.storages.extend(attempt.committed);
        // Of a copy that an earlier attempt made, what was said then is as true as before.
        let add = |to: &mut Vec<String>, more: Vec<String>| {
            let new: Vec<String> = more.into_iter().filter(|text| !to.contains(text)).collect();
            to.extend(new);
        };
        add(&mut item.warnings, attempt.warnings);
        add(&mut item.doubts, attempt.doubts);
        if let Some(passed) = attempt.passed {
            item.bytes = passed.artifact.bytes;
            item.content_bytes = passed.content.bytes;
        }
    }
    attempt.failed
}

/// What was done; nothing where nothing was, as a problem says why.
fn summary(item: &BackupItem, took: Duration) -> String {
    if item.storages.is_empty() {
        return String::new();
    }
    let id = item.id.map(|id| id.to_string()).unwrap_or_default();
    // A later attempt's backup has another id: it is told with its storage.
    let place = |copy: &CopyItem| match item.id {
        Some(id) if id != copy.id => format!("{} as {}", copy.storage, copy.id),
        _ => copy.storage.clone(),
    };
    let places = item.copies.iter().map(place).collect::<Vec<_>>().join(", ");
    format!(
        "{id}: {} ({} of content) in {}, to {places}",
        show_bytes(item.bytes),
        show_bytes(item.content_bytes),
        show_duration(took)
    )
}

#[cfg(test)]
mod tests;
