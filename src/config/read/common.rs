//! What stands in `defaults:` and in a target alike: storages, compression, retention, timeout,
//! retries. A target's own replaces the default whole.

use std::time::Duration;

use crate::config::mistake::{enumerate, nearest};
use crate::config::model::{Compression, Policy};
use crate::config::node::Node;
use crate::config::walk::{Fields, Walk};

/// Each key that is there, read; the inner `None` is one that is there and wrong: its mistake is
/// noted, and no default takes its place.
#[allow(clippy::option_option)]
#[derive(Default)]
pub(super) struct Common {
    pub(super) storages: Option<Option<Vec<String>>>,
    pub(super) compression: Option<Option<Compression>>,
    pub(super) retention: Option<Option<Policy>>,
    pub(super) timeout: Option<Option<Duration>>,
    pub(super) retries: Option<Option<u32>>,
}

/// `defaults:`.
pub(super) fn defaults(walk: &Walk<'_>, file: &Fields<'_>, names: &[String]) -> Common {
    let fields = file.get("defaults").and_then(|node| walk.map(node, "a mapping of defaults"));
    fields.map_or_else(Common::default, |fields| {
        let common = read(walk, &fields, names);
        fields.later(&["encryption", "guards"]);
        fields.finish();
        common
    })
}

/// The keys of a target, or of `defaults:`.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>, names: &[String]) -> Common {
    Common {
        storages: fields.get("storages").map(|node| storages(walk, node, names)),
        compression: fields.get("compression").map(|node| compression(walk, node)),
        retention: fields.get("retention").map(|node| retention(walk, node)),
        timeout: fields.get("timeout").map(|node| walk.duration(node)),
        retries: fields.get("retries").map(|node| walk.number(node, "a number", 0..=100)),
    }
}

fn storages(walk: &Walk<'_>, node: &Node, names: &[String]) -> Option<Vec<String>> {
    let items = walk.list(node, "a list of storages' names")?;
    let mut chosen: Vec<String> = Vec::new();
    let mut all_known = true;
    for item in items {
        let Some(name) = walk.text(item, "a storage's name") else {
            all_known = false;
            continue;
        };
        if chosen.contains(&name) {
            walk.wrong(item, format!("storage {} is given twice", item.describe()), None);
        } else if !names.contains(&name) {
            let known = names.iter().map(String::as_str);
            let hint = nearest(&name, known.clone()).map(|near| format!("did you mean {near}?"));
            let hint = hint.or_else(|| (!names.is_empty()).then(|| format!("defined: {}", enumerate(known, "and"))));
            walk.wrong(item, format!("unknown storage {}", item.describe()), hint);
            all_known = false;
        } else {
            chosen.push(name);
        }
    }
    all_known.then_some(chosen)
}

fn compression(walk: &Walk<'_>, node: &Node) -> Option<Compression> {
    let fields = walk.map(node, "a compression like { type: gzip, level: 6 }")?;
    let kind = fields.need("type", "write type: gzip, zstd or none");
    let kind = kind.and_then(|node| walk.word(node, "a compression", &["gzip", "zstd", "none"], &[]));
    let level = fields.get("level");
    let compression = match (kind, level) {
        (Some("gzip"), None) => Some(Compression::default()),
        (Some("gzip"), Some(level)) => walk.number(level, "a level", 1..=9).map(Compression::Gzip),
        (Some("zstd"), None) => Some(Compression::Zstd(3)),
        (Some("zstd"), Some(level)) => {
            walk.number(level, "a level", 1..=19).and_then(|level| level.try_into().ok()).map(Compression::Zstd)
        }
        (Some(_), Some(level)) => {
            walk.wrong(level, "type none has no level", Some("leave it out".into()));
            None
        }
        (Some(_), None) => Some(Compression::None),
        (None, _) => None,
    };
    fields.finish();
    compression
}

/// A policy; one without keys keeps everything.
pub(super) fn retention(walk: &Walk<'_>, node: &Node) -> Option<Policy> {
    let fields = walk.map(node, "a mapping like { keep_last: 5, keep_daily: 7 }")?;
    let hint = "leave the key out to keep none for its sake";
    let count = |key| {
        super::optional(fields.get(key), |node| {
            if node.describe() == "0" {
                walk.expected(node, "a number from 1 to 100000", Some(hint.into()));
                return None;
            }
            walk.number(node, "a number", 1..=100_000)
        })
    };
    let counts = [
        count("keep_last"),
        count("keep_days"),
        count("keep_hourly"),
        count("keep_daily"),
        count("keep_weekly"),
        count("keep_monthly"),
        count("keep_yearly"),
    ];
    fields.finish();
    let [keep_last, keep_days, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly] = counts;
    Some(Policy {
        keep_last: keep_last?,
        keep_days: keep_days?,
        keep_hourly: keep_hourly?,
        keep_daily: keep_daily?,
        keep_weekly: keep_weekly?,
        keep_monthly: keep_monthly?,
        keep_yearly: keep_yearly?,
    })
}
