//! Which backup is meant, and which copy of it is read: the one way for restores and drills.

use std::io::Write;

use crate::catalog::backups::{self, Backup};
use crate::catalog::manifest::Manifest;
use crate::catalog::resolve::{self, When};
use crate::catalog::{self, Entry, Seen};
use crate::commands::stores::{self, Store, UnitNames, name_in_files};
use crate::commands::{named_host, verify, warn};
use crate::config::mistake::nearest;
use crate::config::model::{Config, Target};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Escaped, UnitName};
use crate::plan::{self, Names};
use crate::stage::pipeline::Passed;

/// What is asked for.
pub(super) struct Wanted<'a> {
    /// The unit, as the user named it.
    pub name: &'a str,
    /// Which backup.
    pub at: &'a When,
    /// Only this storage.
    pub from: Option<&'a str>,
    /// Whose; none: our own, or the only host that has it.
    pub host: Option<&'a str>,
}

/// A backup that was chosen, and the copy that is read.
pub(super) struct Choice<'a> {
    pub unit: UnitName,
    pub store: &'a Store<'a>,
    pub entry: Entry,
    pub manifest: Box<Manifest>,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// The target's own storages where there is a target, else all; `--from` names one.
pub(super) fn open_stores<'a>(config: &'a Config, names: &Names, wanted: &Wanted<'_>) -> Result<Vec<Store<'a>>> {
    if let Some(from) = wanted.from {
        return stores::open_named(config, &[from.to_owned()]);
    }
    let named = UnitName::new(wanted.name);
    let is_meant = |target: &&Target| {
        target.owns(&named)
            || names.matches(&UnitName::of_target(&target.name), &target.name)
            || target.units().iter().any(|unit| names.matches_unit(unit))
    };
    let target = plan::target_of(config, &named).or_else(|| config.targets.iter().find(is_meant));
    stores::open_named(config, target.map_or(&[], |target| target.storages.as_slice()))
}

/// Finds it; warnings are told at once.
pub(super) fn choose<'a>(
    config: &Config,
    stores: &'a [Store<'a>],
    names: &Names,
    wanted: &Wanted<'_>,
    cx: &Context,
) -> Result<Choice<'a>> {
    choose_where(config, stores, &|unit| names.matches_unit(unit), false, wanted, cx)
}

/// Finds one of this very unit for a drill. What was found bad before may be tried again where it is named by
/// its id: only so can a later drill clear it.
pub(super) fn choose_for_drill<'a>(
    config: &Config,
    stores: &'a [Store<'a>],
    unit: &UnitName,
    wanted: &Wanted<'_>,
    cx: &Context,
) -> Result<Choice<'a>> {
    choose_where(config, stores, &|other| other == unit, true, wanted, cx)
}

fn choose_where<'a>(
    config: &Config,
    stores: &'a [Store<'a>],
    is_meant: &dyn Fn(&UnitName) -> bool,
    again: bool,
    wanted: &Wanted<'_>,
    cx: &Context,
) -> Result<Choice<'a>> {
    let host = named_host(wanted.host)?;
    let own = host.as_ref().unwrap_or(&config.host).escaped();
    let mut backups = scan(stores, Some(&own), cx)?;
    let mut units = UnitNames::new(config);
    let mut is_wanted = |backup: &Backup| is_meant(&units.of_backup(backup, stores, cx));
    if host.is_none() && !backups.iter().any(&mut is_wanted) {
        backups = scan(stores, None, cx)?;
    }
    backups.retain(is_wanted);
    let one_of = |what: &str, mut found: Vec<Escaped>, hint: &str| -> Result<()> {
        found.sort();
        found.dedup();
        if found.len() < 2 {
            return Ok(());
        }
        let listed: Vec<String> = found.iter().map(|name| name_in_files(name).to_string()).collect();
        Err(Error::new(Kind::Config, format!("{} is of several {what}: {}", wanted.name, listed.join(", "))).hint(hint))
    };
    one_of("hosts", backups.iter().map(|backup| backup.host.clone()).collect(), "say which with --host")?;
    one_of("units", backups.iter().map(|backup| backup.stem.unit.clone()).collect(), "name one of them")?;
    if backups.is_empty() {
        return Err(nothing_found(config, stores, wanted, cx));
    }
    pick(config, stores, backups, wanted.at, again, cx)
}

fn scan(stores: &[Store<'_>], host: Option<&Escaped>, cx: &Context) -> Result<Vec<Backup>> {
    let mut listings = Vec::new();
    for store in stores {
        let entries = store.scan(host, cx).map_err(|error| {
            let others = stores.iter().map(Store::name).filter(|name| *name != store.name()).collect::<Vec<_>>().join(", ");
            match others.as_str() {
                "" => error,
                _ => error.hint(format!("the newest backup may be there; to go on without it: --from NAME (of: {others})")),
            }
        })?;
        listings.push((store.name().to_owned(), entries));
    }
    Ok(backups::merge(listings))
}

fn nothing_found(config: &Config, stores: &[Store<'_>], wanted: &Wanted<'_>, cx: &Context) -> Error {
    let host = wanted.host.map(str::to_owned).unwrap_or_else(|| config.host.to_string());
    let entries = stores.iter().filter_map(|store| store.scan(None, cx).ok()).flatten();
    let mut known: Vec<String> = entries.map(|entry| name_in_files(&entry.stem.unit).to_string()).collect();
    known.sort();
    known.dedup();
    let hint = if known.is_empty() {
        "the storages hold no backup at all".into()
    } else {
        let near = nearest(wanted.name, known.iter().map(String::as_str)).map(|near| format!("did you mean {near}? "));
        format!("{}there are backups of: {}", near.unwrap_or_default(), known.join(", "))
    };
    Error::new(Kind::NotFound, format!("there is no backup of {} for host {host}", wanted.name)).hint(hint)
}

/// Finds the backup that is meant. What turns out not to be whole drops out, and is told; what is
/// unknown stops, as it may be the one that is wanted.
fn pick<'a>(
    config: &Config,
    stores: &'a [Store<'a>],
    mut backups: Vec<Backup>,
    when: &When,
    again: bool,
    cx: &Context,
) -> Result<Choice<'a>> {
    let mut warnings: Vec<String> = Vec::new();
    let mut newest_damage = None;
    backups.retain(|backup| backup.copies.iter().any(|copy| copy.entry.has_manifest));
    loop {
        cx.cancel.check()?;
        let chosen = match resolve::resolve(&backups, |backup| backup.stem.id, when, config.timezone, cx.clock.now()) {
            Ok(chosen) => chosen.clone(),
            // Where none is left, the damage is the news, not that nothing matches.
            Err(error) => return Err(newest_damage.unwrap_or(error)),
        };
        match first_whole(stores, &chosen, when, again, &mut warnings, cx) {
            Ok((store, entry, manifest)) => {
                let unit = manifest.unit.clone();
                for text in &warnings {
                    warn(cx, unit.as_str(), text);
                }
                return Ok(Choice { unit, store, entry, manifest, warnings });
            }
            Err(error) if error.kind() == Kind::Damaged && !when.is_id() => {
                backups.retain(|backup| backup.stem != chosen.stem);
                newest_damage = newest_damage.or(Some(error));
            }
            Err(error) => {
                return Err(error.hint_if_none("choose another backup with --at, or another copy with --from"));
            }
        }
    }
}

/// The first copy of a backup that is whole. Where none is: why; an unknown copy outweighs a damaged
/// one, as it may be good.
fn first_whole<'a>(
    stores: &'a [Store<'a>],
    backup: &Backup,
    when: &When,
    again: bool,
    warnings: &mut Vec<String>,
    cx: &Context,
) -> Result<(&'a Store<'a>, Entry, Box<Manifest>)> {
    let mut failure: Option<Error> = None;
    for copy in &backup.copies {
        let Some(store) = stores::named(stores, &copy.storage) else { continue };
        match catalog::look(store.storage.as_ref(), &copy.entry, cx).unwrap_or_else(Seen::Unknown) {
            Seen::Whole(manifest) => return Ok((store, copy.entry.clone(), manifest)),
            Seen::Suspicious(manifest) if when.is_id() => return Ok((store, copy.entry.clone(), manifest)),
            Seen::Damaged(manifest, _) if again && when.is_id() => return Ok((store, copy.entry.clone(), manifest)),
            other => {
                let error = not_whole(other).storage(store.name()).step("read");
                warnings.push(format!("{} in {} is passed over: {}", backup.stem.id, store.name(), error.cause()));
                if failure.as_ref().is_none_or(|failure| failure.kind() == Kind::Damaged) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::Internal, format!("{} has no copy", backup.stem.id))))
}

fn not_whole(seen: Seen) -> Error {
    match seen {
        Seen::Damaged(_, error) => error.kind_is(Kind::Damaged),
        Seen::Unknown(error) => error.kind_is(Kind::Missing),
        Seen::Incomplete { .. } => Error::new(Kind::Damaged, "this copy is incomplete"),
        Seen::Suspicious(_) => Error::new(Kind::Damaged, "it is suspicious").hint("name it by its id to restore it all the same"),
        Seen::Whole(_) => Error::new(Kind::Internal, "a whole backup was passed over"),
    }
}

/// Reads the chosen copy through to its proven end.
pub(super) fn read_into(choice: &Choice<'_>, output: &mut (dyn Write + Send), cx: &Context) -> Result<Passed> {
    verify::read_through(choice.store, &choice.entry, &choice.manifest, &choice.unit, output, cx)
}
