//! `restore --drill`: each chosen unit's backup restored into a scratch place, held against its
//! inventory, asked the target's own questions, and thrown away.

pub(super) mod judge;
mod select;
mod summary;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::catalog;
use crate::catalog::resolve::When;
use crate::commands::choose::{self, Choice, Wanted, read_into};
use crate::commands::stores::{self, Store, source_of};
use crate::commands::{Found, is_interrupted, notice, verify, warn};
use crate::config::model::{Config, Target};
use crate::error::{Error, Kind, Result};
use crate::host::lock::{self, Lock};
use crate::host::{Cancel, Context};
use crate::names::{ProofKind, UnitName};
use crate::observe::Event;
use crate::outcome::{DrillItem, DrillStatus, Items, Problem, Severity};
use crate::source::{Destination, Landing, Source, StageOptions, Staged, volume};
use select::Subject;

/// `restore --drill`'s options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Units or targets, by name or glob; none: all enabled ones.
    pub patterns: Vec<String>,
    /// Which backup of each.
    pub at: When,
    /// Only this storage.
    pub from: Option<String>,
    /// Whose; none: our own.
    pub host: Option<String>,
    /// How long to wait for another run's lock.
    pub wait: Option<Duration>,
    /// Objects loaded at once, where the format can.
    pub jobs: Option<NonZeroU32>,
    /// Look, and do nothing.
    pub dry_run: bool,
}

struct Work<'a> {
    config: &'a Config,
    options: &'a Options,
    /// All that may be asked.
    stores: Vec<Store<'a>>,
    cx: &'a Context,
}

/// A unit's drill as it goes.
struct Drill {
    item: DrillItem,
    problems: Vec<Problem>,
}

/// What a drill that ran to its end found.
struct Tried {
    /// What did not hold.
    failures: Vec<Error>,
    /// What could not be removed.
    left: Option<Error>,
}

/// Drills what is selected. One after the other, as the time that a restore takes is a result: others beside
/// it would stretch it.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    let opened = stores::open_named(config, options.from.as_slice());
    let selected = opened.and_then(|stores| Ok((select::subjects(config, options, &stores, cx)?, stores)));
    let (selected, stores) = match selected {
        Ok(selected) => selected,
        Err(error) => return Found::failure(Items::Drills(Vec::new()), &error),
    };
    let work = Work { config, options, stores, cx };
    let (mut items, mut problems) = (Vec::new(), selected.notices);
    if selected.subjects.is_empty() {
        // What a monitor takes for a drill that passed must be one.
        let error = Error::new(Kind::NotFound, "there is nothing to drill: no enabled target has a unit that is meant")
            .hint("name a unit that `list` shows; a disabled target is drilled where its very name is given");
        problems.push(Problem::of(&error, Severity::Failure));
    }
    for subject in &selected.subjects {
        let drill = work.unit(subject);
        items.push(drill.item);
        problems.extend(drill.problems);
    }
    Found { items: Items::Drills(items), problems }
}

impl Work<'_> {
    fn unit(&self, subject: &Subject<'_>) -> Drill {
        let mut drill = Drill::new(&subject.unit);
        if is_interrupted(self.cx) {
            drill.item.status = DrillStatus::Skipped;
            return drill;
        }
        let begun = Instant::now();
        if let Err(error) = self.chosen(subject, &mut drill) {
            drill.fail(error);
        }
        drill.item.seconds = begun.elapsed().as_secs_f64();
        let warnings = drill.item.warnings.iter().map(|text| notice(Some(&drill.item.unit), text.as_str()));
        drill.problems.extend(warnings.collect::<Vec<_>>());
        if drill.item.id.is_some() && !self.options.dry_run {
            let ok = drill.item.status == DrillStatus::Passed;
            let summary = summary::clause(&drill.item);
            self.cx.observer.event(Event::UnitFinished { unit: subject.unit.clone(), ok, summary });
        }
        drill
    }

    /// Chooses the backup, and drills it.
    fn chosen(&self, subject: &Subject<'_>, drill: &mut Drill) -> Result<()> {
        let (config, options, unit) = (self.config, self.options, &subject.unit);
        let target = subject.target.ok_or_else(|| {
            Error::new(Kind::Config, "the config has no target for it, so nothing says how to drill it")
                .hint("add the target to the config, or read the backup alone with `list --verify`")
        })?;
        let cx = self.cx.with_cancel(self.cx.cancel.child(target.timeout)?);
        let storages = options.from.clone().map_or_else(|| target.storages.clone(), |from| vec![from]);
        let stores = stores::among(&self.stores, &storages);
        let wanted =
            Wanted { name: unit.as_str(), at: &options.at, from: options.from.as_deref(), host: options.host.as_deref() };
        let choice = choose::choose_for_drill(config, &stores, unit, &wanted, &cx).map_err(|error| subject.explained(error))?;
        let item = &mut drill.item;
        item.id = Some(choice.manifest.id);
        item.storage = Some(choice.store.name().to_owned());
        item.bytes = choice.manifest.content.bytes;
        item.warnings.clone_from(&choice.warnings);
        let source = source_of(target, config);
        let landing = Landing {
            id: choice.manifest.id,
            unit,
            facts: &choice.manifest.facts,
            bytes: choice.manifest.content.bytes,
            to: &Destination::Drill,
            options: StageOptions { jobs: options.jobs, ..StageOptions::default() },
            state_dir: &config.state_dir,
        };
        if options.dry_run {
            item.warnings.extend(source.check(&landing, &cx)?);
            item.place = select::place_of(target);
            item.status = DrillStatus::Planned;
            return Ok(());
        }
        let expected_bytes = Some(item.bytes);
        cx.observer.event(Event::UnitStarted { unit: unit.clone(), action: "drill", expected_bytes });
        let _lock = self.lock(unit)?;
        let tried = self.tried(target, &choice, source.as_ref(), &landing, item, &cx);
        self.conclude(&choice, &stores, tried, drill);
        Ok(())
    }

    /// A drill holds no backup up, so it does not take its unit's lock: it reads what is committed, and looks once
    /// more before it writes its verdict. It has a lock of its own, as two drills of a unit at once only slow each
    /// other down. No target's name begins like it, so it is no unit's.
    fn lock(&self, unit: &UnitName) -> Result<Lock> {
        let name = UnitName::new(format!("_drill.{unit}"));
        lock::take(&self.config.state_dir, &name, self.options.wait, self.cx).map_err(|error| match error.kind() {
            Kind::Locked => {
                let hint = error.hint_text().unwrap_or_default().to_owned();
                Error::new(Kind::Locked, format!("another drill of it is at work: {}", error.cause())).hint(hint)
            }
            _ => error,
        })
    }

    /// Restores, compares and asks. An error means that it got no further.
    fn tried(
        &self,
        target: &Target,
        choice: &Choice<'_>,
        source: &dyn Source,
        landing: &Landing<'_>,
        item: &mut DrillItem,
        cx: &Context,
    ) -> Result<Tried> {
        let inventory = catalog::inventory::read(choice.store.storage.as_ref(), &choice.entry, &choice.manifest, cx)
            .map_err(|error| error.storage(choice.store.name()).step("inventory"))?;
        let told = source.check(landing, cx)?;
        for text in &told {
            warn(cx, choice.unit.as_str(), text);
        }
        item.warnings.extend(told);
        let mut sink = source.stage(landing, cx)?;
        let begun = Instant::now();
        read_into(choice, &mut sink, cx)?;
        let mut staged = sink.finish()?;
        item.restore_seconds = begun.elapsed().as_secs_f64();
        item.place = staged.place();
        item.warnings.extend(staged.warnings());
        let mut failures = Vec::new();
        if let Some(inventory) = &inventory {
            let compared = item.compared.insert(staged.compare(inventory)?);
            failures.extend(judge::differences(compared));
        }
        self.ask(target, choice, staged.as_mut(), item, &mut failures)?;
        if item.checks.is_empty() && item.compared.as_ref().is_none_or(crate::source::Comparison::is_empty) {
            failures.push(judge::nothing_compared(choice.manifest.facts.kind == volume::KIND));
        }
        // It is tried out: what is left to do is clean-up, whoever interrupts now.
        Ok(Tried { failures, left: staged.discard().err() })
    }

    /// The target's own questions. One that can't be answered did not hold; an error is the end of the drill.
    fn ask(
        &self,
        target: &Target,
        choice: &Choice<'_>,
        staged: &mut dyn Staged,
        item: &mut DrillItem,
        failures: &mut Vec<Error>,
    ) -> Result<()> {
        for check in judge::asked(target, &choice.unit, choice.manifest.facts.database.as_deref())? {
            let (question, failure) = judge::answered(check, staged.check(&check.sql))?;
            item.checks.push(question);
            failures.extend(failure);
            self.cx.cancel.check()?;
        }
        Ok(())
    }

    /// Says what came out, and writes it beside the backup where it says something about the backup.
    fn conclude(&self, choice: &Choice<'_>, stores: &[Store<'_>], tried: Result<Tried>, drill: &mut Drill) {
        let (failures, left) = match tried {
            Ok(tried) => (tried.failures, tried.left),
            Err(error) => (vec![error], None),
        };
        drill.problems.extend(left.map(|error| problem(&choice.unit, error.step("clean-up"), Severity::Partial)));
        let faults: Vec<&Error> = failures.iter().filter(|error| judge::is_backups_fault(error)).collect();
        let verdict = match faults.as_slice() {
            [] => failures.is_empty().then_some(true),
            _ => Some(false),
        };
        // What is compared was read to its proven end, and all copies hold the same bytes. What did not load may have
        // been this copy's alone.
        let of_content = faults.iter().any(|error| error.place().step.as_deref() == Some("compare"));
        let judged: Vec<&Store<'_>> = stores.iter().filter(|store| store.name() == choice.store.name() || of_content).collect();
        if failures.is_empty() {
            drill.item.status = DrillStatus::Passed;
        }
        for error in failures {
            drill.fail(error);
        }
        for store in judged {
            let Some(ok) = verdict else { break };
            let written = self.write(choice, store, ok);
            drill.problems.extend(written.map_err(|error| problem(&choice.unit, error, Severity::Partial)).err());
        }
    }

    fn write(&self, choice: &Choice<'_>, store: &Store<'_>, ok: bool) -> Result<()> {
        // What was found is worth a moment, also when a signal came just now.
        let cx = self.cx.with_cancel(Cancel::for_clean_up()?);
        if verify::is_there(store, &choice.entry, &cx)? {
            return verify::put_verdict(store, &choice.entry, ProofKind::Drill, ok, &cx).map(|_| ());
        }
        if store.name() != choice.store.name() {
            return Ok(());
        }
        Err(Error::new(Kind::Missing, "the backup was deleted while it was drilled, so its outcome is not kept"))
    }
}

impl Drill {
    fn new(unit: &UnitName) -> Self {
        let item = DrillItem {
            unit: unit.to_string(),
            id: None,
            storage: None,
            status: DrillStatus::Failed,
            place: String::new(),
            bytes: 0,
            restore_seconds: 0.0,
            seconds: 0.0,
            compared: None,
            checks: Vec::new(),
            warnings: Vec::new(),
        };
        Self { item, problems: Vec::new() }
    }

    fn fail(&mut self, error: Error) {
        self.item.status = DrillStatus::Failed;
        let unit = UnitName::new(self.item.unit.as_str());
        self.problems.push(problem(&unit, error, Severity::Failure));
    }
}

fn problem(unit: &UnitName, error: Error, severity: Severity) -> Problem {
    Problem::of(&error.target(unit), severity)
}
