//! Which units are drilled: what the config knows, what the storages hold, and what a server's last run found.

use std::collections::BTreeMap;

use crate::catalog::backups::{self, Backup};
use crate::commands::drill::Options;
use crate::commands::expected::expected_units;
use crate::commands::stores::{Store, UnitNames};
use crate::commands::{named_host, notice};
use crate::config::model::{Config, DrillPlace, Target, TargetKind};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Escaped, UnitName};
use crate::outcome::Problem;
use crate::plan::{self, Names};

/// What is drilled.
pub(super) struct Selected<'c> {
    pub subjects: Vec<Subject<'c>>,
    /// What was left out, and why.
    pub notices: Vec<Problem>,
}

/// A unit to be drilled.
pub(super) struct Subject<'c> {
    pub unit: UnitName,
    /// None where the config has none for it.
    pub target: Option<&'c Target>,
    /// Whether the storages hold anything of it.
    pub is_stored: bool,
}

impl Subject<'_> {
    /// Where there is no backup at all, it is no NAME or WHEN that is wrong: a unit that ought to have one has none.
    pub(super) fn explained(&self, error: Error) -> Error {
        if error.kind() != Kind::NotFound || self.is_stored {
            return error;
        }
        let hint = format!("take one (`db-backup-tools backup {}`), and look why there is none", self.unit);
        Error::new(Kind::Check, "it has no backup that could be drilled").hint(hint)
    }
}

/// Units, and what the storages hold of each.
type Held<'b> = BTreeMap<UnitName, Vec<&'b Backup>>;

/// The units that are meant: those of all enabled targets, or those of them that a NAME matches. A disabled
/// target only when its very name is given. `NotFound` for a NAME that matches nothing.
pub(super) fn subjects<'c>(config: &'c Config, options: &Options, stores: &[Store<'_>], cx: &Context) -> Result<Selected<'c>> {
    let names = Names::new(&options.patterns)?;
    let host = named_host(options.host.as_deref())?;
    let Scanned { mut backups, mut lost, listed } = scan(stores, Some(&host.as_ref().unwrap_or(&config.host).escaped()), cx)?;
    if backups.is_empty() && host.is_none() {
        // After a disaster the new machine has another name. One that has just failed would take as long again, for nothing.
        let others = scan(&listed, None, cx)?;
        (backups, lost) = (others.backups, lost.or(others.lost));
    }
    let held: Held<'_> = UnitNames::new(config).group(&backups, stores, cx);
    let known: Vec<UnitName> = held.keys().cloned().collect();
    // A storage that can't be listed may hold what the NAME means.
    names.check(config, &known).map_err(|error| lost.unwrap_or(error))?;
    if let Some(host) = host.as_ref().filter(|_| held.is_empty()) {
        return Err(Error::new(Kind::NotFound, format!("there is no backup of host {host}"))
            .hint("without --host it is our own host's; `list --host NAME` shows another's"));
    }
    let mut selected = Selected { subjects: Vec::new(), notices: Vec::new() };
    let subject = |unit: UnitName, target| Subject { is_stored: held.contains_key(&unit), unit, target };
    for target in &config.targets {
        let expected = if host.is_some() { Vec::new() } else { expected_units(target, &held, stores, cx)? };
        let units = meant(target, expected, &held, &names, host.is_some());
        if target.enabled || units.iter().any(|unit| names.says(unit, &target.name)) {
            selected.subjects.extend(units.into_iter().map(|unit| subject(unit, Some(target))));
        } else if !names.is_empty() && !units.is_empty() {
            let text = "disabled in the config: left out, unless its very name is given";
            selected.notices.push(notice(Some(target.name.as_str()), text));
        }
    }
    let orphans = held.keys().filter(|unit| !names.is_empty() && names.matches_unit(unit));
    let orphans = orphans.filter(|unit| plan::target_of(config, unit).is_none());
    selected.subjects.extend(orphans.map(|unit| subject(unit.clone(), None)));
    Ok(selected)
}

/// A target's units that are meant. Those that are stored and that the config or the server no longer has are
/// drilled when they are named, or when it is another host's backups that are.
fn meant(target: &Target, mut units: Vec<UnitName>, held: &Held<'_>, names: &Names, of_host: bool) -> Vec<UnitName> {
    let also = held.keys().filter(|unit| (of_host || !names.is_empty()) && target.owns(unit) && !units.contains(unit));
    let also: Vec<UnitName> = also.cloned().collect();
    units.extend(also);
    units.retain(|unit| names.matches(unit, &target.name));
    units
}

struct Scanned<'a> {
    backups: Vec<Backup>,
    /// Why the first that could not be listed was not.
    lost: Option<Error>,
    /// Those that could be.
    listed: Vec<Store<'a>>,
}

/// All that the storages hold of a host, or of all. One that can't be listed is the failure of those units
/// that need it, and of nothing else: its error comes back.
fn scan<'a>(stores: &[Store<'a>], host: Option<&Escaped>, cx: &Context) -> Result<Scanned<'a>> {
    let (mut listings, mut lost, mut listed) = (Vec::new(), None, Vec::new());
    for store in stores {
        match store.scan(host, cx) {
            Ok(entries) => {
                listings.push((store.name().to_owned(), entries));
                listed.push(store.clone());
            }
            Err(error) => lost = lost.or(Some(error)),
        }
        cx.cancel.check()?;
    }
    Ok(Scanned { backups: backups::merge(listings), lost, listed })
}

/// Where a target's drills restore to, for a person.
pub(super) fn place_of(target: &Target) -> String {
    let postgres = match &target.kind {
        TargetKind::Postgres(postgres) => postgres,
        TargetKind::Volume(_) => return "a scratch directory".to_owned(),
    };
    match &postgres.drill.place {
        DrillPlace::Temporary => "a temporary server".to_owned(),
        DrillPlace::Container => "a temporary container of its server's image".to_owned(),
        DrillPlace::Same => "a scratch database on the target's own server".to_owned(),
        DrillPlace::Server(server) => match &server.host {
            Some(host) => format!("a scratch database on {host}"),
            None => "a scratch database on another server".to_owned(),
        },
    }
}
