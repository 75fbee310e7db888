//! `targets:`: what the user wants kept.

use croner::parser::{CronParser, Seconds, Year};

use crate::config::model::{Compression, Policy, Target, TargetKind};
use crate::config::node::Node;
use crate::config::walk::{Fields, Walk};
use crate::names::TargetName;

use super::common::{self, Common};
use super::{hooks, optional, postgres, volume};

/// New attempts where nothing is said.
const RETRIES: u32 = 2;
const NICKNAMES: [&str; 7] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];
const NAMED_TIMES: [&str; 19] = [
    "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV",
    "DEC",
];

/// All targets.
pub(super) fn read(walk: &Walk<'_>, file: &Fields<'_>, defaults: &Common, names: &[String]) -> Option<Vec<Target>> {
    let node = file.need("targets", "say what to back up: targets: [ { name: app, type: postgres, database: app } ]")?;
    let items = walk.list(node, "a list of targets")?;
    let mut seen: Vec<(TargetName, String)> = Vec::new();
    let targets: Vec<Option<Target>> = items.iter().map(|item| target(walk, item, defaults, names, &mut seen)).collect();
    targets.into_iter().collect()
}

/// `seen`: the names before it, each with its target's place.
fn target(
    walk: &Walk<'_>,
    node: &Node,
    defaults: &Common,
    storages: &[String],
    seen: &mut Vec<(TargetName, String)>,
) -> Option<Target> {
    let fields = walk.map(node, "a target like { name: app, type: postgres, database: app }")?;
    let name = fields.need("name", "write a name of letters, digits, `-` and `_`").and_then(|at| name(walk, at, node, seen));
    let enabled = fields.get("enabled").map_or(Some(true), |node| walk.boolean(node));
    let schedule = optional(fields.get("schedule"), |node| schedule(walk, node));
    let own = common::read(walk, &fields, storages);
    let storages = chosen_storages(walk, node, &own, defaults, storages);
    fields.later(&["encryption", "guards"]);
    let hooks = optional(fields.get("hooks"), |node| hooks::read(walk, node));
    let kind = fields.need("type", "write type: postgres, or type: volume");
    let kind = match kind.and_then(|node| walk.word(node, "a target's type", &["postgres", "volume"], &[])) {
        Some("postgres") => postgres::read(walk, &fields).map(|postgres| TargetKind::Postgres(Box::new(postgres))),
        Some(_) => volume::read(walk, &fields).map(|volume| TargetKind::Volume(Box::new(volume))),
        None => {
            // Which keys there can be is known by the type alone.
            fields.twice();
            return None;
        }
    };
    fields.finish();
    Some(Target {
        name: name?,
        enabled: enabled?,
        storages: storages?,
        compression: own.compression.or(defaults.compression).unwrap_or(Some(Compression::default()))?,
        retention: own.retention.or(defaults.retention).unwrap_or(Some(Policy::default()))?,
        timeout: own.timeout.or(defaults.timeout).map_or(Some(None), |span| span.map(Some))?,
        retries: own.retries.or(defaults.retries).unwrap_or(Some(RETRIES))?,
        schedule: schedule?,
        hooks: hooks?,
        kind: kind?,
    })
}

fn name(walk: &Walk<'_>, node: &Node, target: &Node, seen: &mut Vec<(TargetName, String)>) -> Option<TargetName> {
    let text = walk.text(node, "a target's name")?;
    match text.parse::<TargetName>() {
        Err(reason) => {
            walk.wrong(node, format!("unusable name {}: {reason}", node.describe()), None);
            None
        }
        Ok(name) => {
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == name) {
                let problem = format!("the name {} is taken by {first}", node.describe());
                walk.wrong(node, problem, Some("each backup is found by its name: give each target its own".into()));
            } else {
                seen.push((name.clone(), target.place.clone()));
            }
            Some(name)
        }
    }
}

/// The target's own, or the defaults', or the only one that there is.
fn chosen_storages(walk: &Walk<'_>, node: &Node, own: &Common, defaults: &Common, names: &[String]) -> Option<Vec<String>> {
    if let Some(chosen) = own.storages.as_ref().or(defaults.storages.as_ref()) {
        return chosen.clone();
    }
    match names {
        [] => None,
        [only] => Some(vec![only.clone()]),
        several => {
            let problem = format!("no storages: {} are defined and none is chosen", several.len());
            walk.wrong(node, problem, Some(format!("write storages: [{}] here or under defaults", several.join(", "))));
            None
        }
    }
}

/// A cron line such as crontab takes: generated lines carry it as it is.
fn schedule(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let what = "a cron line of five fields like \"0 3 * * *\", or @daily and the like";
    walk.parsed(node, what, |text| {
        let text = text.trim();
        let good = if text.starts_with('@') { NICKNAMES.contains(&text) } else { is_cron(text) };
        good.then(|| text.to_owned())
    })
}

fn is_cron(text: &str) -> bool {
    // croner takes L, W, # and more, which cron does not.
    let known = |c: char| c.is_ascii_digit() || "*/,- ".contains(c);
    let words = text.split(known).filter(|word| !word.is_empty());
    let plain = words.into_iter().all(|word| NAMED_TIMES.contains(&word.to_ascii_uppercase().as_str()));
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    plain && text.split(' ').filter(|field| !field.is_empty()).count() == 5 && parser.parse(text).is_ok()
}
