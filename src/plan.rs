//! Config and selection give what to do. Pure: it asks no storage, no server and no clock.

use globset::{GlobBuilder, GlobMatcher};

use crate::config::mistake::{enumerate, nearest};
use crate::config::model::{Config, StorageConfig, Target};
use crate::error::{Error, Kind, Result};
use crate::names::{TargetName, UnitName};

/// What a `backup` does.
#[derive(Debug, Clone)]
pub struct Plan<'c> {
    /// In the config's order.
    pub units: Vec<PlannedUnit<'c>>,
    /// Targets that a pattern met and that are left out, as they are disabled.
    pub disabled: Vec<&'c TargetName>,
    /// Targets that were chosen, and that go to none of the chosen storages.
    pub elsewhere: Vec<&'c TargetName>,
}

/// A unit and where it goes.
#[derive(Debug, Clone)]
pub struct PlannedUnit<'c> {
    /// The unit.
    pub unit: UnitName,
    /// Its target.
    pub target: &'c Target,
    /// Its storages, in the target's order; at least one.
    pub storages: Vec<&'c StorageConfig>,
}

/// What `backup` is to back up: all enabled targets, or those of them that a NAME matches; a
/// disabled one only when its very name is given. `storages` (empty: all) restricts where it goes.
/// A NAME, or a storage, that matches nothing is `NotFound`, and is found before anything runs.
pub fn backup<'c>(config: &'c Config, names: &[String], storages: &[String]) -> Result<Plan<'c>> {
    let names = Names::new(names)?;
    let chosen = self::storages(config, storages)?;
    names.check(config, &[])?;
    let mut plan = Plan { units: Vec::new(), disabled: Vec::new(), elsewhere: Vec::new() };
    for target in &config.targets {
        let units: Vec<UnitName> = target.units().into_iter().filter(|unit| names.matches(unit, &target.name)).collect();
        if units.is_empty() {
            continue;
        }
        if !target.enabled && !units.iter().any(|unit| names.says(unit, &target.name)) {
            plan.disabled.push(&target.name);
            continue;
        }
        let storages: Vec<&StorageConfig> =
            target.storages.iter().filter_map(|name| chosen.iter().copied().find(|storage| storage.name == *name)).collect();
        if storages.is_empty() {
            plan.elsewhere.push(&target.name);
        } else {
            plan.units.extend(units.into_iter().map(|unit| PlannedUnit { unit, target, storages: storages.clone() }));
        }
    }
    match plan.elsewhere.as_slice() {
        [_, ..] if plan.units.is_empty() => {
            let targets = enumerate(plan.elsewhere.iter().map(|name| name.as_str()), "and");
            let cause = format!("{targets} goes to no storage that --storage names");
            Err(Error::new(Kind::NotFound, cause).hint("look at the target's `storages:`"))
        }
        _ => Ok(plan),
    }
}

/// The storages of these names (none: all), in the config's order.
pub fn storages<'c>(config: &'c Config, names: &[String]) -> Result<Vec<&'c StorageConfig>> {
    let known = || config.storages.iter().map(|storage| storage.name.as_str());
    if let Some(unknown) = names.iter().find(|name| config.storage(name).is_none()) {
        return Err(not_found(&format!("no storage is named {unknown}"), unknown, known()));
    }
    Ok(config.storages.iter().filter(|storage| names.is_empty() || names.contains(&storage.name)).collect())
}

/// The target whose unit this is, where the config still has it. Exactly its own: a stored unit
/// `app.db` is none of a target `app` that is one database.
pub fn target_of<'c>(config: &'c Config, unit: &UnitName) -> Option<&'c Target> {
    config.targets.iter().find(|target| target.owns(unit))
}

/// NAMEs of a command line: names of units or targets, or globs in which `*` and `?` stand for any
/// character. They may mean units that are in a storage and in no config.
#[derive(Debug, Clone)]
pub struct Names {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    glob: GlobMatcher,
}

impl Names {
    /// Compiles them; a broken glob is a mistake in the command line.
    pub fn new(names: &[String]) -> Result<Self> {
        let patterns = names.iter().map(|text| {
            let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build().map_err(|error| {
                let cause = format!("NAME {text:?} is no glob: {}", error.kind());
                Error::new(Kind::Config, cause).hint("in a glob, *, ?, [, ] and {, } have a meaning: write \\[ for a literal one")
            })?;
            Ok(Pattern { text: text.clone(), glob: glob.compile_matcher() })
        });
        Ok(Self { patterns: patterns.collect::<Result<_>>()? })
    }

    /// Whether none was given: then everything matches.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any NAME matches the unit or its target.
    pub fn matches(&self, unit: &UnitName, target: &TargetName) -> bool {
        self.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(unit.as_str()) || pattern.matches(target.as_str()))
    }

    /// Whether any NAME matches a stored unit, or its target's name, by the unit's name alone.
    pub fn matches_unit(&self, unit: &UnitName) -> bool {
        self.is_empty() || self.patterns.iter().any(|pattern| pattern.matches_unit(unit))
    }

    /// Whether any NAME matches this very text.
    pub fn matches_text(&self, text: &str) -> bool {
        self.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(text))
    }

    /// Whether any NAME is the unit's or the target's very name.
    pub fn says(&self, unit: &UnitName, target: &TargetName) -> bool {
        self.patterns.iter().any(|pattern| pattern.text == unit.as_str() || pattern.text == target.as_str())
    }

    /// The NAMEs that match none of these units.
    pub fn unmatched(&self, units: &[UnitName]) -> Vec<&str> {
        let lost = |pattern: &&Pattern| !units.iter().any(|unit| pattern.matches_unit(unit));
        self.patterns.iter().filter(lost).map(|pattern| pattern.text.as_str()).collect()
    }

    /// `NotFound` for the first NAME that matches nothing in the config and none of the stored units.
    pub fn check(&self, config: &Config, stored: &[UnitName]) -> Result<()> {
        let mut known: Vec<UnitName> = config.targets.iter().flat_map(Target::units).collect();
        for target in &config.targets {
            known.push(UnitName::of_target(&target.name));
        }
        known.extend_from_slice(stored);
        known.sort();
        known.dedup();
        match self.unmatched(&known).first() {
            None => Ok(()),
            Some(lost) => Err(not_found(&format!("no target or unit matches {lost}"), lost, known.iter().map(UnitName::as_str))),
        }
    }
}

impl Pattern {
    /// A name that is meant as it is matches also where it would be another as a glob.
    fn matches(&self, name: &str) -> bool {
        self.text == name || self.glob.is_match(name)
    }

    fn matches_unit(&self, unit: &UnitName) -> bool {
        self.matches(unit.as_str()) || self.matches(unit.target_part())
    }
}

fn not_found<'a>(cause: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let near = nearest(name, known.clone()).map(|near| format!("did you mean {near}? "));
    let all = enumerate(known, "and");
    let all = if all.is_empty() { "there is none yet".to_owned() } else { format!("known: {all}") };
    Error::new(Kind::NotFound, cause).hint(format!("{}{all}", near.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
