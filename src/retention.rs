//! Which backups of one unit stay in one storage, and why. Pure: it is given what is there, the
//! policy and the time, and gives back a decision for each. It must never let the last good backup
//! go, and never let a failure, a damaged file or a wrong clock decide that a whole one goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;

use crate::config::model::Policy;
use crate::names::Id;

/// One backup of one unit of one host in one storage, as retention sees it. An incomplete one is
/// no backup and is not given here; it is collected by the age of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The backup. Its run's start is its date, whatever a file's or manifest's time says.
    pub id: Id,
    /// How it is.
    pub state: State,
    /// A person said that it stays.
    pub pinned: bool,
}

/// How a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Listed, there at its size, and not found bad; a suspicious one that was accepted, too.
    Whole {
        /// Its last verification or drill held.
        proven: bool,
    },
    /// Found bad, missing, or of another size than recorded.
    Damaged,
    /// It tripped a guard, and nobody has accepted it.
    Suspicious,
    /// What it is can't be said: nothing may be concluded from it.
    Unknown,
}

/// What is to happen to a backup, with every reason; never without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It stays.
    Keep(Vec<Reason>),
    /// It goes.
    Delete(Vec<Reason>),
}

impl Decision {
    /// Whether it goes.
    pub fn is_delete(&self) -> bool {
        matches!(self, Self::Delete(_))
    }

    /// Every reason.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Keep(reasons) | Self::Delete(reasons) => reasons,
        }
    }
}

/// Why a backup stays or goes; shown to a person as a clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// `keep_last`: the N newest.
    Last(u32),
    /// `keep_days`: started within N days before the newest whole one.
    Days(u32),
    /// `keep_hourly` and the like: the newest of one of the N latest periods that hold one.
    Period {
        /// Hours, days, ...
        period: Period,
        /// How many of them the policy keeps.
        count: u32,
        /// Which one this is: `2026-06-12`, `2026-W24`.
        name: String,
    },
    /// The newest whole backup always stays.
    NewestWhole,
    /// The newest proven one always stays.
    NewestProven,
    /// A pinned one always stays.
    Pinned,
    /// There is no policy.
    NoPolicy,
    /// Dated after now: it counts in nothing, and no clock that was wrong deletes it.
    Future,
    /// Damaged, and the policy would keep a whole one in its place: the verdict may be cleared.
    DamagedInPlace,
    /// Damaged, and no older than the newest whole one: it may hold what nothing else holds.
    DamagedNewest,
    /// Suspicious: it stays until a person accepts or deletes it.
    Suspicious,
    /// Unknown: never deleted.
    Unknown,
    /// An unknown backup stops pruning for the unit.
    StoppedByUnknown(Id),
    /// A suspicious backup, newer than the newest whole one, stops pruning for the unit.
    StoppedBySuspicious(Id),
    /// Damaged, and older than the newest whole one.
    Damaged,
    /// No key of the policy keeps it.
    NotKept(Policy),
}

/// A span of the calendar in the config's timezone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// An hour of the clock. One that comes twice, when clocks go back, is two hours.
    Hour,
    /// A day of the calendar.
    Day,
    /// An ISO week, Monday to Sunday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// The period that holds this time: two times are in one period if this gives the same text.
    fn name(self, time: DateTime<Tz>) -> String {
        let format = match self {
            // The offset is what tells the two hours of a fall-back apart.
            Self::Hour => "%Y-%m-%d %H:00 %:z",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-W%V",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        };
        time.format(format).to_string()
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// Decides for every backup of one unit in one storage. The order of `entries` does not matter;
/// the decisions come oldest first, one for each id. Backups of the same second are ordered by id.
///
/// Only whole backups that are not dated after `now` count: as the newest, and in any key. What is
/// damaged, suspicious or of the future takes no whole one's place.
pub fn decide(entries: &[Entry], policy: &Policy, timezone: Tz, now: DateTime<Utc>) -> Vec<(Id, Decision)> {
    let entries = by_id(entries);
    let counting = |entry: &&Entry| matches!(entry.state, State::Whole { .. }) && !is_future(entry.id, now);
    let newest = entries.values().rfind(counting).map(|entry| entry.id);
    let newest_proven = entries.values().filter(counting).rfind(|entry| entry.state == State::Whole { proven: true });
    let newest_proven = newest_proven.map(|entry| entry.id);
    let unlimited = keys(policy).next().is_none();
    let stop = stop(&entries, newest).filter(|_| !unlimited);

    let mut places = Places::new(policy, timezone, newest);
    let mut decisions = Vec::with_capacity(entries.len());
    // From the newest to the oldest, each meets the places that whole ones newer than it have taken.
    for entry in entries.values().rev() {
        let mut reasons = Vec::new();
        match entry.state {
            State::Unknown => reasons.push(Reason::Unknown),
            State::Suspicious => reasons.push(Reason::Suspicious),
            _ if is_future(entry.id, now) => reasons.push(Reason::Future),
            State::Damaged if newest.is_none_or(|newest| entry.id > newest) => reasons.push(Reason::DamagedNewest),
            State::Damaged if !places.open_to(entry.id).is_empty() => reasons.push(Reason::DamagedInPlace),
            State::Damaged => {}
            State::Whole { .. } => {
                reasons.extend((newest == Some(entry.id)).then_some(Reason::NewestWhole));
                reasons.extend((newest_proven == Some(entry.id)).then_some(Reason::NewestProven));
                reasons.extend(places.open_to(entry.id));
                places.take(entry.id);
            }
        }
        reasons.extend(entry.pinned.then_some(Reason::Pinned));
        reasons.extend(unlimited.then_some(Reason::NoPolicy));
        reasons.extend(stop.clone().filter(|_| !matches!(entry.state, State::Unknown | State::Suspicious)));
        decisions.push((entry.id, conclude(entry.state, reasons, policy)));
    }
    decisions.reverse();
    decisions
}

/// Whether nothing of the unit goes, whatever a closer look finds of each: so that nobody need look. States are not
/// asked for. Were all of them whole, each would be kept by the policy, or by a pin, or as the newest; one that is not
/// whole leaves its places to others, and is kept in them itself.
pub fn keeps_all(entries: &[Entry], policy: &Policy, timezone: Tz, now: DateTime<Utc>) -> bool {
    if keys(policy).next().is_none() {
        return true;
    }
    let entries = by_id(entries);
    let newest = entries.values().rfind(|entry| !is_future(entry.id, now)).map(|entry| entry.id);
    let mut places = Places::new(policy, timezone, newest);
    entries.values().rev().filter(|entry| !is_future(entry.id, now)).all(|entry| {
        let stays = entry.pinned || newest == Some(entry.id) || !places.open_to(entry.id).is_empty();
        places.take(entry.id);
        stays
    })
}

/// One reason to stay is enough.
fn conclude(state: State, reasons: Vec<Reason>, policy: &Policy) -> Decision {
    if !reasons.is_empty() {
        return Decision::Keep(reasons);
    }
    Decision::Delete(match state {
        State::Damaged => vec![Reason::Damaged, Reason::NotKept(*policy)],
        _ => vec![Reason::NotKept(*policy)],
    })
}

/// Sorted, each id once. An id that is there twice is not understood, and so unknown.
fn by_id(entries: &[Entry]) -> BTreeMap<Id, Entry> {
    let mut sorted: BTreeMap<Id, Entry> = BTreeMap::new();
    for entry in entries {
        sorted.entry(entry.id).and_modify(|twice| twice.state = State::Unknown).or_insert(*entry);
    }
    sorted
}

fn is_future(id: Id, now: DateTime<Utc>) -> bool {
    id.run().time() > now
}

/// What stops pruning for the whole unit. A suspicious one of the future stops it as well: the
/// newest whole one does not follow it.
fn stop(entries: &BTreeMap<Id, Entry>, newest: Option<Id>) -> Option<Reason> {
    let last = |state: State| entries.values().rfind(|entry| entry.state == state).map(|entry| entry.id);
    let unknown = last(State::Unknown).map(Reason::StoppedByUnknown);
    let suspicious = last(State::Suspicious).filter(|id| newest.is_none_or(|newest| *id > newest));
    unknown.or(suspicious.map(Reason::StoppedBySuspicious))
}

/// The keys of a policy that keep something. A zero keeps nothing, so a policy of zeros is none:
/// it must not be the one that deletes all but the newest.
fn keys(policy: &Policy) -> impl Iterator<Item = (&'static str, u32)> {
    [
        ("keep_last", policy.keep_last),
        ("keep_days", policy.keep_days),
        ("keep_hourly", policy.keep_hourly),
        ("keep_daily", policy.keep_daily),
        ("keep_weekly", policy.keep_weekly),
        ("keep_monthly", policy.keep_monthly),
        ("keep_yearly", policy.keep_yearly),
    ]
    .into_iter()
    .filter_map(|(key, count)| count.filter(|count| *count > 0).map(|count| (key, count)))
}

/// The places that a policy has for whole backups, on the way from the newest to the oldest.
struct Places {
    timezone: Tz,
    /// Whole ones met so far.
    met: u64,
    keep_last: u32,
    /// The days, and the earliest start that they reach back to.
    keep_days: Option<(u32, DateTime<Utc>)>,
    rules: Vec<Rule>,
}

struct Rule {
    period: Period,
    count: u32,
    /// Periods whose newest has been met. A set, as a day can come back: clocks that go from
    /// 00:01 back to 23:01 show yesterday's date once more.
    taken: BTreeSet<String>,
}

impl Places {
    fn new(policy: &Policy, timezone: Tz, newest: Option<Id>) -> Self {
        let rules = [
            (Period::Hour, policy.keep_hourly),
            (Period::Day, policy.keep_daily),
            (Period::Week, policy.keep_weekly),
            (Period::Month, policy.keep_monthly),
            (Period::Year, policy.keep_yearly),
        ];
        let keep_days = policy.keep_days.filter(|days| *days > 0);
        Self {
            timezone,
            met: 0,
            keep_last: policy.keep_last.unwrap_or(0),
            keep_days: newest.zip(keep_days).map(|(newest, days)| {
                let reach = newest.run().time().checked_sub_signed(Duration::days(i64::from(days)));
                (days, reach.unwrap_or(DateTime::<Utc>::MIN_UTC))
            }),
            rules: rules
                .into_iter()
                .filter_map(|(period, count)| Some(Rule { period, count: count?, taken: BTreeSet::new() }))
                .collect(),
        }
    }

    /// What the policy would keep a whole backup here for.
    fn open_to(&self, id: Id) -> Vec<Reason> {
        let started = id.run().time();
        let last = (self.met < u64::from(self.keep_last)).then_some(Reason::Last(self.keep_last));
        let days = self.keep_days.filter(|(_, reach)| started >= *reach).map(|(days, _)| Reason::Days(days));
        let periods = self.rules.iter().filter(|rule| rule.has_room()).filter_map(|rule| {
            let name = rule.period.name(started.with_timezone(&self.timezone));
            let open = !rule.taken.contains(&name);
            open.then_some(Reason::Period { period: rule.period, count: rule.count, name })
        });
        last.into_iter().chain(days).chain(periods).collect()
    }

    /// A whole backup takes its place, so that older ones don't find it open.
    fn take(&mut self, id: Id) {
        self.met += 1;
        let started = id.run().time().with_timezone(&self.timezone);
        for rule in self.rules.iter_mut().filter(|rule| rule.has_room()) {
            rule.taken.insert(rule.period.name(started));
        }
    }
}

impl Rule {
    fn has_room(&self) -> bool {
        self.taken.len() < usize::try_from(self.count).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(1) => write!(f, "the newest one"),
            Self::Last(count) => write!(f, "one of the {count} newest"),
            Self::Days(1) => write!(f, "within 1 day before the newest whole backup"),
            Self::Days(days) => write!(f, "within {days} days before the newest whole backup"),
            Self::Period { period, count: 1, name } => write!(f, "the latest {}: {name}", period.noun()),
            Self::Period { period, count, name } => write!(f, "one of the {count} latest {}s: {name}", period.noun()),
            Self::NewestWhole => write!(f, "newest whole backup"),
            Self::NewestProven => write!(f, "newest proven backup"),
            Self::Pinned => write!(f, "pinned"),
            Self::NoPolicy => write!(f, "no policy"),
            Self::Future => write!(f, "dated in the future"),
            Self::DamagedInPlace => write!(f, "damaged, but the policy would keep a whole one in its place"),
            Self::DamagedNewest => write!(f, "damaged, but no whole backup is newer"),
            Self::Suspicious => write!(f, "suspicious: accept it or delete it by its id"),
            Self::Unknown => write!(f, "unknown: what can't be read is never deleted"),
            Self::StoppedByUnknown(id) => write!(f, "pruning is stopped: {id} is unknown"),
            Self::StoppedBySuspicious(id) => write!(f, "pruning is stopped: {id} is suspicious, and no whole backup is newer"),
            Self::Damaged => write!(f, "damaged"),
            Self::NotKept(policy) => {
                write!(f, "not kept by ")?;
                for (at, (key, count)) in keys(policy).enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{key} {count}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
