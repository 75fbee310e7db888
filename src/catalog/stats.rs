//! Numbers over a unit's backups: `list --stats`, and whether the newest is too old for
//! `--max-age`. Plain values in, plain values out; what counts is the caller's to say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::names::Id;
use crate::quantity::show_duration;

/// One whole backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The backup; given once for each storage that holds it, it still counts once.
    pub id: Id,
    /// Bytes of its artifact.
    pub stored_bytes: u64,
    /// Bytes of what comes out of it.
    pub content_bytes: u64,
}

/// What `list --stats` shows of a unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Backups.
    pub count: u64,
    /// Bytes stored by all of them.
    pub bytes: u64,
    /// Their mean in bytes, rounded down; 0 of none.
    pub average_bytes: u64,
    /// Start of the oldest.
    pub oldest: Option<DateTime<Utc>>,
    /// Start of the newest.
    pub newest: Option<DateTime<Utc>>,
    /// Content bytes over stored bytes: 4.0 where compression leaves a quarter. None where nothing is stored.
    pub compression_ratio: Option<f64>,
    /// Content bytes of the newest over those of the oldest, less one: 0.5 is half as much again.
    /// None of fewer than two, or where the oldest was empty.
    pub growth: Option<f64>,
}

/// The numbers of one unit's whole backups, in any order.
pub fn stats(samples: impl IntoIterator<Item = Sample>) -> Stats {
    let by_id: BTreeMap<Id, Sample> = samples.into_iter().map(|sample| (sample.id, sample)).collect();
    let (Some((_, oldest)), Some((_, newest))) = (by_id.first_key_value(), by_id.last_key_value()) else {
        return Stats::default();
    };
    let sum = |of: fn(&Sample) -> u64| by_id.values().map(of).fold(0, u64::saturating_add);
    let count = by_id.len() as u64;
    let stored = sum(|sample| sample.stored_bytes);
    let content = sum(|sample| sample.content_bytes);
    Stats {
        count,
        bytes: stored,
        average_bytes: stored / count,
        oldest: Some(oldest.id.run().time()),
        newest: Some(newest.id.run().time()),
        compression_ratio: ratio(content, stored),
        growth: ratio(newest.content_bytes, oldest.content_bytes).filter(|_| count > 1).map(|ratio| ratio - 1.0),
    }
}

fn ratio(over: u64, under: u64) -> Option<f64> {
    (under > 0).then(|| over as f64 / under as f64)
}

/// Why a unit does not hold `--max-age`; shown as a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooOld {
    /// It has no whole backup.
    None,
    /// Its newest is older than is allowed.
    Older {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        max_age: Duration,
    },
    /// Its newest is dated after now: it proves nothing of how fresh the backups are.
    Future {
        /// Its start.
        started: DateTime<Utc>,
    },
}

impl fmt::Display for TooOld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("there is no whole backup"),
            Self::Older { age, max_age } => {
                let (age, max_age) = (show_duration(*age), show_duration(*max_age));
                write!(f, "the newest whole backup is {age} old, {max_age} is allowed")
            }
            Self::Future { started } => {
                write!(f, "the newest backup is dated in the future: {}", started.format("%Y-%m-%d %H:%M:%S UTC"))
            }
        }
    }
}

/// Whether a unit's newest backup is older than `max_age`, to the second; at that age it is not yet.
///
/// `newest` is the start of the newest whole one that is not dated after `now`: a backup of the
/// future counts in nothing, and taken for the newest it would keep a monitor quiet for years.
/// So one that is given all the same is [`TooOld::Future`], never fresh.
pub fn too_old(newest: Option<DateTime<Utc>>, max_age: Duration, now: DateTime<Utc>) -> Option<TooOld> {
    let Some(started) = newest else {
        return Some(TooOld::None);
    };
    let Ok(age) = u64::try_from((now - started).num_seconds()) else {
        return Some(TooOld::Future { started });
    };
    let age = Duration::from_secs(age);
    (age > max_age).then_some(TooOld::Older { age, max_age })
}

#[cfg(test)]
mod tests;
