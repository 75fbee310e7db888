//! `list`: what the storages hold, one row a backup, newest last; with `--verify` every byte is read
//! again, with `--max-age` and `--stats` it answers a monitor's and an operator's question.

mod behind;
mod proofs;
mod reread;
mod tables;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::catalog::backups::{self, Backup, Copy};
use crate::catalog::manifest::Manifest;
use crate::catalog::resolve::{self, When};
use crate::catalog::stats::{self, Sample};
use crate::catalog::{self, Entry, Seen, Sizes, Survey};
use crate::commands::expected::expected_units;
use crate::commands::stores::{self, Store, UnitNames, name_in_files};
use crate::commands::{Found, named_host};
use crate::config::model::Config;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Escaped, HostName, ObjectName, RunId, Stem, UnitName};
use crate::outcome::{Items, ListItem, Problem, Severity, State, StatsItem};
use crate::plan::Names;
use crate::storage::Leftover;

/// Backups that are looked at in one go.
const AT_ONCE: usize = 1000;

/// `list`'s options.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Units or targets, by name or glob; none: all.
    pub patterns: Vec<String>,
    /// Only these storages.
    pub storages: Vec<String>,
    /// This host's; none: our own.
    pub host: Option<String>,
    /// Only the one that this means.
    pub at: Option<When>,
    /// The last so many of each unit; none: all.
    pub limit: Option<usize>,
    /// Incomplete and unknown ones too.
    pub all: bool,
    /// Numbers of each unit instead.
    pub stats: bool,
    /// Read every byte again.
    pub verify: bool,
    /// A failure if any enabled unit's newest is older.
    pub max_age: Option<Duration>,
    /// A failure if any enabled unit's newest proof is older.
    pub max_unproven: Option<Duration>,
    /// Tables and their growth instead.
    pub tables: bool,
}

/// A backup with what a closer look at each copy found.
struct Row<'a> {
    backup: &'a Backup,
    unit: UnitName,
    copies: Vec<(&'a Copy, Seen)>,
    /// When `--verify` proved it, a moment ago: that verdict is in no listing yet.
    verified: Option<RunId>,
}

struct Listing<'a> {
    config: &'a Config,
    options: &'a Options,
    stores: Vec<Store<'a>>,
    host: HostName,
    cx: &'a Context,
    /// The storages that could be listed.
    listed: Vec<String>,
    problems: Vec<Problem>,
}

/// Lists what is selected.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    let nothing = || match options {
        Options { tables: true, .. } => Items::Tables(Vec::new()),
        Options { stats: true, .. } => Items::Stats(Vec::new()),
        _ => Items::Rows(Vec::new()),
    };
    let host = named_host(options.host.as_deref()).map(|host| host.unwrap_or_else(|| config.host.clone()));
    let opened = host.and_then(|host| Ok((host, stores::open_named(config, &options.storages)?)));
    let (host, stores) = match opened {
        Ok(opened) => opened,
        Err(error) => return Found::failure(nothing(), &error),
    };
    let mut listing = Listing { config, options, stores, host, cx, listed: Vec::new(), problems: Vec::new() };
    match listing.run() {
        Ok(items) => Found { items, problems: listing.problems },
        Err(error) => {
            listing.problems.push(Problem::of(&error, Severity::Failure));
            Found { items: nothing(), problems: listing.problems }
        }
    }
}

impl Listing<'_> {
    fn run(&mut self) -> Result<Items> {
        let names = Names::new(&self.options.patterns)?;
        let backups = self.scan()?;
        let stores = self.stores.clone();
        let units = UnitNames::new(self.config).group(&backups, &stores, self.cx);
        let expected = self.expected(&units)?;
        names.check(self.config, &units.keys().chain(&expected).cloned().collect::<Vec<_>>())?;
        let mut rows = Vec::new();
        let mut lost = None;
        for (unit, backups) in units.iter().filter(|(unit, _)| names.matches_unit(unit)) {
            match self.rows_of(unit, backups) {
                Ok(found) => rows.extend(found),
                // Another unit may have it.
                Err(error) if error.kind() == Kind::NotFound => lost = Some(error.target(unit)),
                Err(error) => return Err(error),
            }
        }
        if self.options.at.is_some() && rows.is_empty() {
            let none = || Error::new(Kind::NotFound, "there is no backup").hint("`list` without --at shows what there is");
            return Err(lost.unwrap_or_else(none));
        }
        for unit in expected.iter().filter(|unit| names.matches_unit(unit)) {
            self.judge_copies(unit, units.get(unit).map_or(&[], Vec::as_slice))?;
        }
        self.judge_ages(&names, &expected, &rows);
        self.judge_proofs(&names, &expected, &rows);
        if self.options.tables {
            return Ok(Items::Tables(self.tables(&rows, &units)?));
        }
        if self.options.stats {
            return Ok(Items::Stats(self.stats(&rows)));
        }
        let mut items: Vec<ListItem> = rows.iter().map(|row| self.item(row)).collect();
        items.sort_by(|a, b| (a.started, &a.unit, &a.id).cmp(&(b.started, &b.unit, &b.id)));
        Ok(Items::Rows(items))
    }

    /// The units that the enabled targets ought to have.
    fn expected(&self, units: &BTreeMap<UnitName, Vec<&Backup>>) -> Result<Vec<UnitName>> {
        let enabled = self.config.targets.iter().filter(|target| target.enabled);
        let expected = enabled.map(|target| expected_units(target, units, &self.stores, self.cx));
        Ok(expected.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Every storage's listing, merged. One that can't be listed is a failure, and the rest is shown.
    fn scan(&mut self) -> Result<Vec<Backup>> {
        let host = self.host.escaped();
        let mut listings = Vec::new();
        for store in &self.stores {
            match self.survey(store, &host) {
                Ok(survey) => {
                    if let Some(first) = survey.first_foreign.filter(|_| self.options.all) {
                        let cause = format!("files that are not named as ours: {}, the first is {first}", survey.foreign);
                        let error = Error::new(Kind::Check, cause)
                            .hint("they are never deleted; a backup that was moved or renamed is seen again where it was")
                            .storage(store.name())
                            .step("list");
                        self.problems.push(Problem::of(&error, Severity::Notice));
                    }
                    listings.push((store.name().to_owned(), survey.entries));
                }
                Err(error) => self.problems.push(Problem::of(&error, Severity::Failure)),
            }
            self.cx.cancel.check()?;
        }
        self.listed = listings.iter().map(|(name, _)| name.clone()).collect();
        let backups = backups::merge(listings);
        if backups.is_empty() && self.options.host.is_none() {
            self.tell_other_hosts();
        }
        Ok(backups)
    }

    /// What a storage's listing says of a host; with `--all` also the uploads that never got a name.
    fn survey(&self, store: &Store<'_>, host: &Escaped) -> Result<Survey> {
        let mut survey = store.survey(Some(host), self.cx)?;
        let entries = &mut survey.entries;
        if self.options.all {
            let mut known: HashSet<Stem> = entries.iter().map(|entry| entry.stem.clone()).collect();
            let mut each = |leftover: Leftover| {
                let name = ObjectName::parse(&leftover.key).filter(|name| name.host == *host);
                if let Some(name) = name.filter(|name| known.insert(name.stem.clone())) {
                    entries.push(Entry::without_objects(name.host, name.stem));
                }
                Ok(())
            };
            store.storage.leftovers(&mut each, self.cx).map_err(|error| error.storage(store.name()).step("list"))?;
        }
        Ok(survey)
    }

    /// After a disaster the new machine has another name: say where the backups are.
    fn tell_other_hosts(&mut self) {
        // Another listing of one that has just failed would take as long, for nothing.
        let listed = self.stores.iter().filter(|store| self.listed.iter().any(|name| name == store.name()));
        let entries = listed.filter_map(|store| store.scan(None, self.cx).ok()).flatten();
        let mut hosts: Vec<Escaped> = entries.map(|entry| entry.host).collect();
        hosts.sort();
        hosts.dedup();
        if !hosts.is_empty() {
            let names: Vec<String> = hosts.iter().map(|host| name_in_files(host).to_string()).collect();
            let error =
                Error::new(Kind::NotFound, format!("host {} has no backup here, but others do: {}", self.host, names.join(", ")))
                    .hint("show them with --host NAME, or set `host:` in the config");
            self.problems.push(Problem::of(&error, Severity::Notice));
        }
    }

    /// The rows of one unit: looked at, and verified where that was asked for.
    fn rows_of<'a>(&mut self, unit: &UnitName, backups: &[&'a Backup]) -> Result<Vec<Row<'a>>> {
        let Options { stats, verify, tables, max_age, max_unproven, at, .. } = self.options;
        let see_all = *stats || *verify || max_age.is_some() || max_unproven.is_some() || at.is_some();
        let limit = if *tables { Some(tables::NEEDED) } else { self.options.limit };
        let limit = limit.filter(|_| !see_all).unwrap_or(usize::MAX);
        let is_listed = |backup: &&&Backup| self.options.all || is_committed(backup);
        let mut rows = Vec::new();
        let mut shown = 0;
        // From the newest on, so that what is not shown takes no place.
        let mut newest_first = backups.iter().filter(is_listed).rev().copied();
        while shown < limit {
            let some: Vec<&Backup> = newest_first.by_ref().take(AT_ONCE.min(limit - shown)).collect();
            if some.is_empty() {
                break;
            }
            let looked = self.look(&some);
            // What was interrupted says nothing of a backup.
            self.cx.cancel.check()?;
            for (backup, copies) in some.iter().zip(looked) {
                let row = Row { backup, unit: unit.clone(), copies, verified: None };
                shown += usize::from(if *tables { self.counts(&row) } else { self.is_shown(&row) });
                rows.push(row);
            }
        }
        rows.reverse();
        if let Some(when) = &self.options.at {
            rows = self.meant(rows, when)?;
        }
        if self.options.verify {
            for row in &mut rows {
                self.verify(row);
            }
            // What was deleted while it was read is no row any more.
            rows.retain(|row| self.options.all || !row.copies.iter().all(|(_, seen)| matches!(seen, Seen::Incomplete { .. })));
        }
        for row in &rows {
            self.tell_doubts(row);
        }
        rows.retain(|row| self.is_shown(row));
        Ok(rows)
    }

    fn is_shown(&self, row: &Row<'_>) -> bool {
        self.options.all || row.state() != State::Unknown
    }

    /// The one that `restore --at WHEN` would take. An unknown one may be it: then nothing can be said.
    fn meant<'a>(&self, rows: Vec<Row<'a>>, when: &When) -> Result<Vec<Row<'a>>> {
        let counts = |row: &Row<'_>| when.is_id() || matches!(row.state(), State::Whole | State::Unknown);
        let candidates: Vec<Row<'a>> = rows.into_iter().filter(counts).collect();
        let now = self.cx.clock.now();
        let chosen =
            resolve::resolve(&candidates, |row| row.backup.stem.id, when, self.config.timezone, now)?.backup.stem.clone();
        let mut chosen: Vec<Row<'a>> = candidates.into_iter().filter(|row| row.backup.stem == chosen).collect();
        if when.is_id() || !chosen.iter().any(|row| row.state() == State::Unknown) {
            return Ok(chosen);
        }
        let copies = chosen.drain(..).flat_map(|row| row.copies);
        let error = copies.filter_map(|(copy, seen)| match seen {
            Seen::Unknown(error) => Some(error.storage(&*copy.storage).step("read")),
            _ => None,
        });
        Err(error.last().unwrap_or_else(|| Error::new(Kind::Internal, "an unknown backup has no copy")))
    }

    /// What a closer look at each copy finds, for each of these backups.
    fn look<'a>(&self, backups: &[&'a Backup]) -> Vec<Vec<(&'a Copy, Seen)>> {
        let mut found: Vec<Vec<(&Copy, Seen)>> = backups.iter().map(|backup| Vec::with_capacity(backup.copies.len())).collect();
        // Copies stand in the order of the storages.
        for store in &self.stores {
            let copies = (0..).zip(backups).flat_map(|(at, backup)| backup.copies.iter().map(move |copy| (at, copy)));
            let (places, held): (Vec<usize>, Vec<&Copy>) = copies.filter(|(_, copy)| *copy.storage == *store.name()).unzip();
            let entries: Vec<&Entry> = held.iter().map(|copy| &copy.entry).collect();
            let take = |_, seen: Result<Seen>| seen.unwrap_or_else(Seen::Unknown);
            let seen = catalog::look_all(store.storage.as_ref(), &entries, Sizes::Listed, self.cx, &take);
            for ((at, copy), seen) in places.into_iter().zip(held).zip(seen) {
                found[at].push((copy, seen));
            }
        }
        found
    }

    fn store(&self, name: &str) -> Option<&Store<'_>> {
        stores::named(&self.stores, name)
    }

    /// Damage is told with its file's name, also that of a row which is not shown; `--verify` has
    /// told its own already. What it was to verify and could not be read is a failure.
    fn tell_doubts(&mut self, row: &Row<'_>) {
        for (copy, seen) in &row.copies {
            let (error, severity) = match seen {
                Seen::Unknown(error) if self.options.verify => (error, Severity::Failure),
                Seen::Unknown(error) => (error, Severity::Partial),
                Seen::Damaged(_, error) if !self.options.verify => (error, Severity::Partial),
                _ => continue,
            };
            let mut problem = Problem::of(error, severity);
            problem.target.get_or_insert_with(|| row.unit.to_string());
            problem.storage.get_or_insert_with(|| copy.storage.to_string());
            self.problems.push(problem);
        }
    }

    fn item(&self, row: &Row<'_>) -> ListItem {
        let state = row.state();
        let manifest = row.manifest();
        let holds = row.copies.iter().filter(|(_, seen)| state_of(seen) == state);
        let proven = row
            .copies
            .iter()
            .flat_map(|(copy, _)| &copy.entry.proofs)
            .filter(|proof| proof.ok)
            .map(|proof| proof.at.time())
            .max();
        let id = row.backup.stem.id;
        ListItem {
            id: id.to_string(),
            run: id.run().to_string(),
            host: self.host.to_string(),
            unit: manifest.map_or_else(|| row.unit.to_string(), |manifest| manifest.unit.to_string()),
            started: manifest.map_or_else(|| id.run().time(), |manifest| manifest.started),
            bytes: manifest.map(|manifest| manifest.artifact.bytes),
            storages: holds.map(|(copy, _)| copy.storage.to_string()).collect(),
            state,
            proven: proven.max(row.verified.map(RunId::time)),
            label: manifest.and_then(|manifest| manifest.label.clone()),
            pinned: row.copies.iter().any(|(copy, _)| copy.entry.pinned),
        }
    }

    /// `--max-age`: every selected, enabled unit of the config must have a whole backup that is young enough.
    fn judge_ages(&mut self, names: &Names, expected: &[UnitName], rows: &[Row<'_>]) {
        let Some(max_age) = self.options.max_age else { return };
        let now = self.cx.clock.now();
        for unit in expected.iter().filter(|unit| names.matches_unit(unit)) {
            let whole = rows.iter().filter(|row| row.unit == *unit && row.state() == State::Whole);
            let newest = whole.map(|row| row.backup.stem.id.run().time()).filter(|started| *started <= now).max();
            if let Some(reason) = stats::too_old(newest, max_age, now) {
                let error = Error::new(Kind::Check, reason.to_string())
                    .hint("look at the last run's messages, and run `backup` by hand")
                    .target(unit)
                    .step("max-age");
                self.problems.push(Problem::of(&error, Severity::Failure));
            }
        }
    }

    fn stats(&self, rows: &[Row<'_>]) -> Vec<StatsItem> {
        let mut units: BTreeMap<&UnitName, Vec<Sample>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.state() == State::Whole) {
            if let Some(manifest) = row.manifest() {
                let sample = Sample {
                    id: row.backup.stem.id,
                    stored_bytes: manifest.artifact.bytes,
                    content_bytes: manifest.content.bytes,
                };
                units.entry(&row.unit).or_default().push(sample);
            }
        }
        let item = |(unit, samples): (&UnitName, Vec<Sample>)| StatsItem {
            host: self.host.to_string(),
            unit: unit.to_string(),
            stats: stats::stats(samples),
        };
        units.into_iter().map(item).collect()
    }
}

impl Row<'_> {
    /// The best that any copy is: a restore takes that one.
    fn state(&self) -> State {
        let rank = |state: &State| match state {
            State::Whole => 0,
            State::Suspicious => 1,
            State::Damaged => 2,
            State::Unknown => 3,
            State::Incomplete => 4,
        };
        self.copies.iter().map(|(_, seen)| state_of(seen)).min_by_key(rank).unwrap_or(State::Unknown)
    }

    fn manifest(&self) -> Option<&Manifest> {
        self.copies.iter().find_map(|(_, seen)| seen.manifest())
    }
}

fn is_committed(backup: &Backup) -> bool {
    backup.copies.iter().any(|copy| copy.entry.has_manifest)
}

fn state_of(seen: &Seen) -> State {
    match seen {
        Seen::Whole(_) => State::Whole,
        Seen::Incomplete { .. } => State::Incomplete,
        Seen::Unknown(_) => State::Unknown,
        Seen::Damaged(..) => State::Damaged,
        Seen::Suspicious(_) => State::Suspicious,
    }
}
