//! Which units are drilled: what the config knows, what the storages hold, and what a server's last run found.

use std::collections::BTreeMap;

use crate::catalog::backups::{self, Backup};
use crate::catalog::{self, Seen};
use crate::commands::drill::Options;
use crate::commands::stores::{self, Store, UnitNames};
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

/// The units that are meant: those of all enabled targets, or those of them that a NAME matches. A disabled
/// target only when its very name is given. `NotFound` for a NAME that matches nothing.
pub(super) fn subjects<'c>(config: &'c Config, options: &Options, cx: &Context) -> Result<Selected<'c>> {
    let names = Names::new(&options.patterns)?;
    let stores = stores::open_named(config, options.from.as_slice())?;
    let host = named_host(options.host.as_deref())?;
    let (backups, lost) = held(&stores, Some(&host.as_ref().unwrap_or(&config.host).escaped()), cx)?;
    // After a disaster the new machine has another name.
    let (backups, lost) = if backups.is_empty() && host.is_none() { held(&stores, None, cx)? } else { (backups, lost) };
    let mut unit_names = UnitNames::new(config);
    let mut stored: BTreeMap<UnitName, Vec<&Backup>> = BTreeMap::new();
    for backup in &backups {
        stored.entry(unit_names.of_backup(backup, &stores, cx)).or_default().push(backup);
    }
    // A storage that can't be listed may hold what the NAME means.
    let known: Vec<UnitName> = stored.keys().cloned().collect();
    names.check(config, &known).map_err(|error| lost.unwrap_or(error))?;
    if let Some(host) = host.as_ref().filter(|_| stored.is_empty()) {
        return Err(Error::new(Kind::NotFound, format!("there is no backup of host {host}"))
            .hint("`list --all` without --host says which hosts have some"));
    }
    let mut selected = Selected { subjects: Vec::new(), notices: Vec::new() };
    let subject = |unit: UnitName, target| Subject { is_stored: stored.contains_key(&unit), unit, target };
    for target in &config.targets {
        let mut units = if host.is_some() { Vec::new() } else { expected_units(target, &stored, &stores, cx)? };
        // Those that are stored and that the config or the server no longer has are drilled when they are named.
        let also = stored.keys().filter(|unit| (host.is_some() || !names.is_empty()) && target.owns(unit));
        let also: Vec<UnitName> = also.filter(|unit| !units.contains(unit)).cloned().collect();
        units.extend(also);
        units.retain(|unit| names.matches(unit, &target.name));
        if !target.enabled && !units.iter().any(|unit| names.says(unit, &target.name)) {
            if !names.is_empty() && !units.is_empty() {
                let text = "disabled in the config: left out, unless its very name is given";
                selected.notices.push(notice(Some(target.name.as_str()), text));
            }
            continue;
        }
        selected.subjects.extend(units.into_iter().map(|unit| subject(unit, Some(target))));
    }
    if !names.is_empty() {
        let orphans = stored.keys().filter(|unit| names.matches_unit(unit) && plan::target_of(config, unit).is_none());
        selected.subjects.extend(orphans.map(|unit| subject(unit.clone(), None)));
    }
    Ok(selected)
}

/// All that the storages hold of a host, or of all. One that can't be listed is the failure of those units
/// that need it, and of nothing else: its error comes back.
fn held(stores: &[Store<'_>], host: Option<&Escaped>, cx: &Context) -> Result<(Vec<Backup>, Option<Error>)> {
    let (mut listings, mut lost) = (Vec::new(), None);
    for store in stores {
        match store.scan(host, cx) {
            Ok(entries) => listings.push((store.name().to_owned(), entries)),
            Err(error) => lost = lost.or(Some(error)),
        }
        cx.cancel.check()?;
    }
    Ok((backups::merge(listings), lost))
}

/// The units that a target ought to have; those of `databases: all` as its newest backup found them.
fn expected_units(
    target: &Target,
    stored: &BTreeMap<UnitName, Vec<&Backup>>,
    stores: &[Store<'_>],
    cx: &Context,
) -> Result<Vec<UnitName>> {
    if !target.asks_for_units() {
        return Ok(target.units());
    }
    let own = stored.iter().filter(|(unit, _)| target.owns(unit)).flat_map(|(_, backups)| backups);
    let mut newest_first: Vec<&Backup> = own.copied().collect();
    newest_first.sort_by_key(|backup| std::cmp::Reverse(backup.stem.id));
    for copy in newest_first.into_iter().flat_map(|backup| &backup.copies) {
        let Some(store) = stores::named(stores, &copy.storage) else { continue };
        let seen = catalog::look(store.storage.as_ref(), &copy.entry, cx)?;
        if let Seen::Whole(manifest) | Seen::Suspicious(manifest) | Seen::Damaged(manifest, _) = seen
            && let Some(units) = manifest.units_found
        {
            let databases = units.into_iter().filter(|unit| unit.database_of(&target.name).is_some());
            return Ok(databases.chain(target.units()).collect());
        }
    }
    Ok(vec![UnitName::of_target(&target.name)])
}

/// Where a target's drills restore to, for a person.
pub(super) fn place_of(target: &Target) -> String {
    let TargetKind::Postgres(postgres) = &target.kind;
    match &postgres.drill.place {
        DrillPlace::Temporary => "a temporary server".to_owned(),
        DrillPlace::Same => "a scratch database on the target's own server".to_owned(),
        DrillPlace::Server(server) => match &server.host {
            Some(host) => format!("a scratch database on {host}"),
            None => "a scratch database on another server".to_owned(),
        },
    }
}
