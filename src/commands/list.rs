//! `list`: what the storages hold, one row a backup, newest last; with `--verify` every byte is read
//! again, with `--max-age` and `--stats` it answers a monitor's and an operator's question.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::catalog::backups::{self, Backup, Copy};
use crate::catalog::manifest::Manifest;
use crate::catalog::resolve::{self, When};
use crate::catalog::stats::{self, Sample};
use crate::catalog::{self, Entry, Seen};
use crate::commands::prune::unit_name;
use crate::commands::stores::{self, Store};
use crate::commands::{Found, is_interrupted, verify};
use crate::config::model::{Config, Target};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Escaped, HostName, ObjectName, UnitName};
use crate::observe::Event;
use crate::outcome::{Items, ListItem, Problem, Severity, State, StatsItem};
use crate::plan::Names;
use crate::storage::Leftover;

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
}

/// A backup with what a closer look at each copy found.
struct Row<'a> {
    backup: &'a Backup,
    unit: UnitName,
    copies: Vec<(&'a Copy, Seen)>,
}

struct Listing<'a> {
    config: &'a Config,
    options: &'a Options,
    stores: Vec<Store<'a>>,
    host: HostName,
    cx: &'a Context,
    problems: Vec<Problem>,
}

/// Lists what is selected.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    let nothing = || if options.stats { Items::Stats(Vec::new()) } else { Items::Rows(Vec::new()) };
    let host = options.host.clone().map_or(Ok(config.host.clone()), HostName::new);
    let host = host.map_err(|error| Error::new(Kind::Config, format!("--host: {error}")));
    let opened = host.and_then(|host| Ok((host, stores::open_named(config, &options.storages)?)));
    let (host, stores) = match opened {
        Ok(opened) => opened,
        Err(error) => return Found::failure(nothing(), &error),
    };
    let mut listing = Listing { config, options, stores, host, cx, problems: Vec::new() };
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
        let stored: Vec<UnitName> = backups.iter().map(|backup| unit_name(&backup.stem.unit)).collect();
        names.check(self.config, &stored)?;
        let mut units: BTreeMap<UnitName, Vec<&Backup>> = BTreeMap::new();
        for backup in &backups {
            let unit = unit_name(&backup.stem.unit);
            if names.matches_unit(&unit) {
                units.entry(unit).or_default().push(backup);
            }
        }
        let mut rows = Vec::new();
        for (unit, backups) in &units {
            rows.extend(self.rows_of(unit, backups)?);
        }
        if self.options.at.is_some() && rows.is_empty() {
            return Err(Error::new(Kind::NotFound, "there is no backup").hint("`list` without --at shows what there is"));
        }
        self.judge_ages(&names, &rows);
        if self.options.stats {
            return Ok(Items::Stats(self.stats(&rows)));
        }
        let mut items: Vec<ListItem> = rows.iter().map(|row| self.item(row)).collect();
        items.sort_by(|a, b| (a.started, &a.unit, &a.id).cmp(&(b.started, &b.unit, &b.id)));
        Ok(Items::Rows(items))
    }

    /// Every storage's listing, merged. One that can't be listed is a failure, and the rest is shown.
    fn scan(&mut self) -> Result<Vec<Backup>> {
        let host = self.host.escaped();
        let mut listings = Vec::new();
        for store in &self.stores {
            match self.entries(store, &host) {
                Ok(entries) => listings.push((store.name().to_owned(), entries)),
                Err(error) => self.problems.push(Problem::of(&error, Severity::Failure)),
            }
            self.cx.cancel.check()?;
        }
        let backups = backups::merge(listings);
        if backups.is_empty() && self.options.host.is_none() {
            self.tell_other_hosts();
        }
        Ok(backups)
    }

    /// What a storage's listing says of a host; with `--all` also the uploads that never got a name.
    fn entries(&self, store: &Store<'_>, host: &Escaped) -> Result<Vec<Entry>> {
        let mut entries = store.scan(Some(host), self.cx)?;
        if self.options.all {
            let mut each = |leftover: Leftover| {
                let name = ObjectName::parse(&leftover.key).filter(|name| name.host == *host);
                if let Some(name) = name.filter(|name| entries.iter().all(|entry| entry.stem != name.stem)) {
                    entries.push(Entry::without_objects(name.host, name.stem));
                }
                Ok(())
            };
            store.storage.leftovers(&mut each, self.cx).map_err(|error| error.storage(store.name()).step("list"))?;
        }
        Ok(entries)
    }

    /// After a disaster the new machine has another name: say where the backups are.
    fn tell_other_hosts(&mut self) {
        let entries = self.stores.iter().filter_map(|store| store.scan(None, self.cx).ok()).flatten();
        let mut hosts: Vec<Escaped> = entries.map(|entry| entry.host).collect();
        hosts.sort();
        hosts.dedup();
        if !hosts.is_empty() {
            let names: Vec<String> = hosts.iter().map(|host| unit_name(host).to_string()).collect();
            let error =
                Error::new(Kind::NotFound, format!("host {} has no backup here, but others do: {}", self.host, names.join(", ")))
                    .hint("show them with --host NAME, or set `host:` in the config");
            self.problems.push(Problem::of(&error, Severity::Notice));
        }
    }

    /// The rows of one unit: looked at, and verified where that was asked for.
    fn rows_of<'a>(&mut self, unit: &UnitName, backups: &[&'a Backup]) -> Result<Vec<Row<'a>>> {
        let listed: Vec<&&Backup> = backups.iter().filter(|backup| self.options.all || is_committed(backup)).collect();
        let see_all = self.options.stats || self.options.verify || self.options.max_age.is_some() || self.options.at.is_some();
        let limit = self.options.limit.filter(|_| !see_all).unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        for backup in &listed[listed.len().saturating_sub(limit)..] {
            self.cx.cancel.check()?;
            rows.push(Row { backup, unit: unit.clone(), copies: self.look(backup) });
        }
        if let Some(when) = &self.options.at {
            let candidates: Vec<Row<'a>> = rows.into_iter().filter(|row| when.is_id() || row.state() == State::Whole).collect();
            let chosen = resolve::resolve(&candidates, |row| row.backup.stem.id, when, self.config.timezone, self.cx.clock.now());
            let chosen = match chosen {
                Ok(row) => row.backup.stem.clone(),
                // Another unit may have it.
                Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            rows = candidates.into_iter().filter(|row| row.backup.stem == chosen).collect();
        }
        if self.options.verify {
            for row in &mut rows {
                self.verify(row);
            }
        }
        rows.retain(|row| self.options.all || row.state() != State::Unknown);
        for row in &rows {
            self.tell_doubts(row);
        }
        Ok(rows)
    }

    fn look<'a>(&self, backup: &'a Backup) -> Vec<(&'a Copy, Seen)> {
        let seen = |copy: &'a Copy| {
            let store = self.store(&copy.storage)?;
            let seen = catalog::look(store.storage.as_ref(), &copy.entry, self.cx).unwrap_or_else(Seen::Unknown);
            Some((copy, seen))
        };
        backup.copies.iter().filter_map(seen).collect()
    }

    fn store(&self, name: &str) -> Option<&Store<'_>> {
        self.stores.iter().find(|store| store.name() == name)
    }

    /// Reads every copy that has a manifest again. What was found bad before may be found good now.
    fn verify(&mut self, row: &mut Row<'_>) {
        let mut problems = Vec::new();
        for (copy, seen) in &mut row.copies {
            let manifest = match seen {
                Seen::Whole(manifest) | Seen::Suspicious(manifest) | Seen::Damaged(manifest, _) => manifest.clone(),
                Seen::Incomplete { .. } | Seen::Unknown(_) => continue,
            };
            let Some(store) = self.stores.iter().find(|store| store.name() == copy.storage) else { continue };
            if is_interrupted(self.cx) {
                break;
            }
            let unit = row.unit.clone();
            self.cx.observer.event(Event::UnitStarted {
                unit: unit.clone(),
                action: "verify",
                expected_bytes: Some(manifest.content.bytes),
            });
            let result = verify::verify(store, &copy.entry, &manifest, &unit, self.cx);
            let id = row.backup.stem.id;
            let ok = result.is_ok();
            let summary =
                format!("{id} in {}: {}", copy.storage, if ok { "every byte is as it was written" } else { "NOT PROVEN" });
            self.cx.observer.event(Event::UnitFinished { unit: unit.clone(), ok, summary });
            match result {
                // The bytes are as they were written; what tripped a guard stays suspicious.
                Ok(_) if matches!(seen, Seen::Suspicious(_)) => {}
                Ok(_) => *seen = Seen::Whole(manifest),
                Err(error) => {
                    let error = error.target(&unit);
                    problems.push(Problem::of(&error, Severity::Failure));
                    if error.kind() == Kind::Damaged {
                        *seen = Seen::Damaged(manifest, error);
                    }
                }
            }
        }
        self.problems.extend(problems);
    }

    /// Damage that a row shows is told with its file's name; `--verify` has told its own already.
    fn tell_doubts(&mut self, row: &Row<'_>) {
        for (copy, seen) in &row.copies {
            let error = match seen {
                Seen::Damaged(_, error) | Seen::Unknown(error) if !self.options.verify => error,
                _ => continue,
            };
            let mut problem = Problem::of(error, Severity::Partial);
            problem.target.get_or_insert_with(|| row.unit.to_string());
            problem.storage.get_or_insert_with(|| copy.storage.clone());
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
            storages: holds.map(|(copy, _)| copy.storage.clone()).collect(),
            state,
            proven: proven.max(row.verified(self.options.verify, self.cx.clock.now())),
            label: manifest.and_then(|manifest| manifest.label.clone()),
            pinned: row.copies.iter().any(|(copy, _)| copy.entry.pinned),
        }
    }

    /// `--max-age`: every selected, enabled unit of the config must have a whole backup that is young enough.
    fn judge_ages(&mut self, names: &Names, rows: &[Row<'_>]) {
        let Some(max_age) = self.options.max_age else { return };
        let now = self.cx.clock.now();
        let enabled = self.config.targets.iter().filter(|target| target.enabled).flat_map(Target::units);
        for unit in enabled.filter(|unit| names.matches_unit(unit)) {
            let whole = rows.iter().filter(|row| row.unit == unit && row.state() == State::Whole);
            let newest = whole.map(|row| row.backup.stem.id.run().time()).filter(|started| *started <= now).max();
            if let Some(reason) = stats::too_old(newest, max_age, now) {
                let error = Error::new(Kind::Check, reason.to_string())
                    .hint("look at the last run's messages, and run `backup` by hand")
                    .target(&unit)
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
        let item = |(unit, samples): (&UnitName, Vec<Sample>)| {
            let stats = stats::stats(samples);
            StatsItem {
                host: self.host.to_string(),
                unit: unit.to_string(),
                count: stats.count,
                bytes: stats.bytes,
                average_bytes: stats.average_bytes,
                oldest: stats.oldest,
                newest: stats.newest,
                compression_ratio: stats.compression_ratio,
                growth: stats.growth,
            }
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
        self.copies.iter().find_map(|(_, seen)| match seen {
            Seen::Whole(manifest) | Seen::Suspicious(manifest) | Seen::Damaged(manifest, _) => Some(manifest.as_ref()),
            Seen::Incomplete { .. } | Seen::Unknown(_) => None,
        })
    }

    /// The verdict that `--verify` wrote a moment ago is in no listing yet.
    fn verified(&self, asked: bool, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (asked && self.state() == State::Whole).then_some(now)
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
