//! Config and selection give what to do. Pure: it asks no storage, no server and no clock.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};

use crate::config::mistake::{enumerate, nearest};
use crate::config::model::{Config, StorageConfig, Target};
use crate::error::{Error, Kind, Result};
use crate::names::{TargetName, UnitName};

/// Names that a message shows.
const SHOWN: usize = 20;

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
    /// All units of its target, where the server was asked for them.
    pub units_found: Option<&'c [UnitName]>,
}

/// What servers said of the targets in [`to_ask`]: the units of each that answered.
pub type Answers = BTreeMap<TargetName, Vec<UnitName>>;

/// The targets whose servers a `backup` must ask for their units, as NAMEs may mean one of those. A NAME,
/// or a storage, that can match nothing whatever they answer is `NotFound`.
pub fn to_ask<'c>(config: &'c Config, names: &[String], storages: &[String]) -> Result<Vec<&'c Target>> {
    let names = Names::new(names)?;
    let chosen = self::storages(config, storages)?;
    names.check_answered(config, &Answers::new())?;
    let goes_somewhere = |target: &Target| chosen.iter().any(|storage| target.storages.contains(&storage.name));
    let wanted = |target: &&Target| {
        let meant = if target.enabled { names.may_mean(target) } else { names.may_say(target) };
        target.asks_for_units() && meant && goes_somewhere(target)
    };
    Ok(config.targets.iter().filter(wanted).collect())
}

/// What `backup` is to back up: all enabled targets, or those of them that a NAME matches; a
/// disabled one only when its very name is given. `storages` (empty: all) restricts where it goes.
/// Of a target whose server did not answer there is nothing in the plan. A NAME, or a storage, that
/// matches nothing is `NotFound`, and is found before anything runs.
pub fn backup<'c>(config: &'c Config, names: &[String], storages: &[String], answers: &'c Answers) -> Result<Plan<'c>> {
    let names = Names::new(names)?;
    let chosen = self::storages(config, storages)?;
    names.check_answered(config, answers)?;
    let mut plan = Plan { units: Vec::new(), disabled: Vec::new(), elsewhere: Vec::new() };
    let mut is_all = true;
    for target in &config.targets {
        let found = answers.get(&target.name).map(Vec::as_slice);
        let known = found.map_or_else(|| target.units(), <[UnitName]>::to_vec);
        let units: Vec<UnitName> = known.into_iter().filter(|unit| names.matches(unit, &target.name)).collect();
        let is_unasked = target.asks_for_units() && found.is_none();
        if units.is_empty() && !(is_unasked && names.may_mean(target)) {
            continue;
        }
        let says = units.iter().any(|unit| names.says(unit, &target.name)) || (is_unasked && names.may_say(target));
        if !target.enabled && !says {
            plan.disabled.push(&target.name);
            continue;
        }
        let storages: Vec<&StorageConfig> =
            target.storages.iter().filter_map(|name| chosen.iter().copied().find(|storage| storage.name == *name)).collect();
        if storages.is_empty() {
            plan.elsewhere.push(&target.name);
        } else if is_unasked {
            is_all = false;
        } else {
            let planned = |unit| PlannedUnit { unit, target, storages: storages.clone(), units_found: found };
            plan.units.extend(units.into_iter().map(planned));
        }
    }
    match plan.elsewhere.as_slice() {
        [_, ..] if plan.units.is_empty() && is_all => {
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
    /// What it is as a glob, or why it is none: then it can only be a name.
    glob: Result<GlobMatcher, String>,
}

impl Names {
    /// Compiles them.
    pub fn new(names: &[String]) -> Result<Self> {
        let pattern = |text: &String| {
            let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build();
            let glob = glob.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string());
            Pattern { text: text.clone(), glob }
        };
        Ok(Self { patterns: names.iter().map(pattern).collect() })
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

    /// Whether any NAME may match the target or a unit of its, of which only the server knows.
    fn may_mean(&self, target: &Target) -> bool {
        self.is_empty() || self.patterns.iter().any(|pattern| pattern.may_mean(target))
    }

    /// Whether any NAME may be the very name of the target or of a unit of its.
    fn may_say(&self, target: &Target) -> bool {
        self.patterns.iter().any(|pattern| pattern.literal_part() == pattern.text && pattern.may_mean(target))
    }

    /// The NAMEs that match none of these units.
    pub fn unmatched(&self, units: &[UnitName]) -> Vec<&str> {
        self.lost(units).into_iter().map(|pattern| pattern.text.as_str()).collect()
    }

    fn lost(&self, units: &[UnitName]) -> Vec<&Pattern> {
        self.patterns.iter().filter(|pattern| !units.iter().any(|unit| pattern.matches_unit(unit))).collect()
    }

    /// `NotFound` for the first NAME that matches nothing in the config and none of the stored units; one that
    /// is a broken glob as well is a mistake in the command line.
    pub fn check(&self, config: &Config, stored: &[UnitName]) -> Result<()> {
        let known = known(config, stored);
        self.lost(&known).first().map_or(Ok(()), |lost| Err(lost.not_found(&known)))
    }

    /// The same by what servers answered: what may be a unit of one that has not is none that is lost.
    fn check_answered(&self, config: &Config, answers: &Answers) -> Result<()> {
        let known = known(config, &answers.values().flatten().cloned().collect::<Vec<_>>());
        let open = |target: &&Target| target.asks_for_units() && !answers.contains_key(&target.name);
        let open: Vec<&Target> = config.targets.iter().filter(open).collect();
        let lost = self.lost(&known).into_iter().find(|pattern| !open.iter().any(|target| pattern.may_mean(target)));
        lost.map_or(Ok(()), |lost| Err(lost.not_found(&known)))
    }
}

/// All names that a NAME may be: targets, their units, and these.
fn known(config: &Config, others: &[UnitName]) -> Vec<UnitName> {
    let units = config.targets.iter().flat_map(Target::units);
    let targets = config.targets.iter().map(|target| UnitName::of_target(&target.name));
    let mut known: Vec<UnitName> = units.chain(targets).chain(others.iter().cloned()).collect();
    known.sort();
    known.dedup();
    known
}

impl Pattern {
    /// A name that is meant as it is matches also where it would be another as a glob.
    fn matches(&self, name: &str) -> bool {
        self.text == name || self.glob.as_ref().is_ok_and(|glob| glob.is_match(name))
    }

    fn matches_unit(&self, unit: &UnitName) -> bool {
        self.matches(unit.as_str()) || self.matches(unit.target_part())
    }

    /// What stands before the first character with a meaning in a glob.
    fn literal_part(&self) -> &str {
        self.text.split(['*', '?', '[', ']', '{', '}', '\\']).next().unwrap_or_default()
    }

    fn may_mean(&self, target: &Target) -> bool {
        let name = target.name.as_str();
        let of_database = format!("{name}.");
        let literal = self.literal_part();
        let is_glob = literal != self.text;
        self.matches(name)
            || target.units().iter().any(|unit| self.matches(unit.as_str()))
            || (target.asks_for_units() && (literal.starts_with(&of_database) || (is_glob && of_database.starts_with(literal))))
    }

    fn not_found(&self, known: &[UnitName]) -> Error {
        let text = &self.text;
        match &self.glob {
            Ok(_) => not_found(&format!("no target or unit matches {text}"), text, known.iter().map(UnitName::as_str)),
            Err(reason) => Error::new(Kind::Config, format!("NAME {text:?} is no glob: {reason}"))
                .hint("in a glob, *, ?, [, ] and {, } have a meaning: write \\[ for a literal one"),
        }
    }
}

fn not_found<'a>(cause: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let near = nearest(name, known.clone()).map(|near| format!("did you mean {near}? "));
    // A server may have hundreds of databases.
    let more = known.clone().count().saturating_sub(SHOWN);
    let mut words: Vec<String> = known.take(SHOWN).map(str::to_owned).collect();
    words.extend((more > 0).then(|| format!("{more} more")));
    let all = enumerate(words.iter().map(String::as_str), "and");
    let all = if all.is_empty() { "there is none yet".to_owned() } else { format!("known: {all}") };
    Error::new(Kind::NotFound, cause).hint(format!("{}{all}", near.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
