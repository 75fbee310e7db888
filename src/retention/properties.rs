//! Retention against a plain, slow model that is written differently: it asks of each backup and
//! each key how many later periods hold a whole one, and numbers the periods by arithmetic.

use super::*;
use chrono::{Datelike, Offset, TimeZone};
use proptest::prelude::*;

use crate::names::RunId;

/// Timezones, each with a moment (UTC, RFC 3339) around which its clocks do something odd.
const ODD: [(&str, &str); 12] = [
    ("UTC", "2026-12-31T23:00:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00:00Z"), // midnight back to 23:00
    ("America/Sao_Paulo", "2018-11-04T03:00:00Z"), // there is no midnight
    ("America/Sao_Paulo", "2026-12-29T03:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"), // half an hour back
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),      // a day skipped
    ("America/St_Johns", "2010-11-07T02:31:00Z"),  // 00:01 back to yesterday's 23:01
    ("Asia/Kathmandu", "2024-12-29T18:15:00Z"),    // +05:45, an ISO year's end
    ("Africa/Casablanca", "2026-02-15T02:00:00Z"), // clocks follow Ramadan
];

#[derive(Debug, Clone)]
struct Case {
    entries: Vec<Entry>,
    policy: Policy,
    timezone: Tz,
    now: DateTime<Utc>,
}

impl Case {
    fn decide(&self) -> Vec<(Id, Decision)> {
        decide(&self.entries, &self.policy, self.timezone, self.now)
    }

    fn deleted(&self) -> BTreeSet<Id> {
        self.decide().into_iter().filter(|(_, decision)| decision.is_delete()).map(|(id, _)| id).collect()
    }

    fn without(&self, gone: &BTreeSet<Id>) -> Self {
        let entries = self.entries.iter().filter(|entry| !gone.contains(&entry.id)).copied().collect();
        Self { entries, ..self.clone() }
    }
}

fn a_key() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![3 => Just(None), 4 => (0_u32..6).prop_map(Some), 1 => Just(Some(u32::MAX))]
}

fn a_policy() -> impl Strategy<Value = Policy> {
    [a_key(), a_key(), a_key(), a_key(), a_key(), a_key(), a_key()].prop_map(
        |[keep_last, keep_days, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly]| Policy {
            keep_last,
            keep_days,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
        },
    )
}

/// Mostly whole ones; unknown and suspicious ones in few cases, as they stop everything.
fn a_state(stoppers: bool) -> impl Strategy<Value = State> {
    let stopper = u32::from(stoppers);
    prop_oneof![
        20 => Just(State::Whole { proven: false }),
        3 => Just(State::Whole { proven: true }),
        6 => Just(State::Damaged),
        stopper => Just(State::Suspicious),
        stopper => Just(State::Unknown),
    ]
}

fn a_case() -> impl Strategy<Value = Case> {
    let step = prop::sample::select(vec![60_i64, 900, 1800, 3600, 43_200, 86_400, 604_800, 2_600_000]);
    let shape = (prop::sample::select(ODD.to_vec()), step, prop::bool::weighted(0.3), -50_i64..130);
    shape.prop_flat_map(|((timezone, around), step, stoppers, now)| {
        let around = DateTime::parse_from_rfc3339(around).unwrap().with_timezone(&Utc);
        let at = move |steps: i64, seconds: i64| around + Duration::seconds(steps * step + seconds);
        let entry = (-40_i64..40, prop_oneof![Just(0_i64), -60_i64..60], 0_u8..3, a_state(stoppers), prop::bool::weighted(0.05));
        let entries = prop::collection::vec(entry, 0..60).prop_map(move |made| {
            let entry = |(steps, seconds, random, state, pinned): (i64, i64, u8, State, bool)| {
                let id = Id::new(RunId::starting(at(steps, seconds)), [random; 8]);
                (id, Entry { id, state, pinned })
            };
            let entries: BTreeMap<Id, Entry> = made.into_iter().map(entry).collect();
            entries.into_values().collect::<Vec<_>>()
        });
        (entries.prop_shuffle(), a_policy()).prop_map(move |(entries, policy)| Case {
            entries,
            policy,
            timezone: timezone.parse().unwrap(),
            now: at(now, 0),
        })
    })
}

/// The model.
mod model {
    use super::*;

    fn started(id: Id) -> DateTime<Utc> {
        id.run().time()
    }

    fn whole(case: &Case) -> Vec<Id> {
        let whole = case.entries.iter().filter(|entry| matches!(entry.state, State::Whole { .. }));
        whole.map(|entry| entry.id).filter(|id| started(*id) <= case.now).collect()
    }

    fn newest(case: &Case) -> Option<Id> {
        whole(case).into_iter().max()
    }

    fn newest_proven(case: &Case) -> Option<Id> {
        let proven = |id: &Id| case.entries.contains(&Entry { id: *id, state: State::Whole { proven: true }, pinned: false });
        let pinned = |id: &Id| case.entries.contains(&Entry { id: *id, state: State::Whole { proven: true }, pinned: true });
        whole(case).into_iter().filter(|id| proven(id) || pinned(id)).max()
    }

    /// Numbers the period that holds a time.
    fn period(period: Period, time: DateTime<Utc>, timezone: Tz) -> (i64, i32) {
        let offset = timezone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc();
        let seconds = time.timestamp() + i64::from(offset);
        let date = DateTime::from_timestamp(seconds, 0).unwrap();
        match period {
            Period::Hour => (seconds.div_euclid(3600), offset),
            Period::Day => (seconds.div_euclid(86_400), 0),
            // 1 January 1970 was a Thursday.
            Period::Week => ((seconds.div_euclid(86_400) + 3).div_euclid(7), 0),
            Period::Month => (i64::from(date.year()) * 12 + i64::from(date.month()), 0),
            Period::Year => (i64::from(date.year()), 0),
        }
    }

    /// Whether a whole backup with this id would be kept by some key.
    fn policy_keeps(case: &Case, id: Id) -> bool {
        let newer: Vec<Id> = whole(case).into_iter().filter(|other| *other > id).collect();
        let last = newer.len() < case.policy.keep_last.unwrap_or(0) as usize;
        let days = case.policy.keep_days.is_some_and(|days| {
            let age = newest(case).map_or(0, |newest| (started(newest) - started(id)).num_seconds());
            days > 0 && age <= i64::from(days) * 86_400
        });
        let by = |which: Period, count: Option<u32>| {
            let of = |id: Id| period(which, started(id), case.timezone);
            let later: BTreeSet<_> = newer.iter().map(|other| of(*other)).collect();
            !later.contains(&of(id)) && later.len() < count.unwrap_or(0) as usize
        };
        last || days
            || by(Period::Hour, case.policy.keep_hourly)
            || by(Period::Day, case.policy.keep_daily)
            || by(Period::Week, case.policy.keep_weekly)
            || by(Period::Month, case.policy.keep_monthly)
            || by(Period::Year, case.policy.keep_yearly)
    }

    fn stopped(case: &Case) -> bool {
        case.entries.iter().any(|entry| match entry.state {
            State::Unknown => true,
            State::Suspicious => newest(case).is_none_or(|newest| entry.id > newest),
            _ => false,
        })
    }

    fn has_policy(policy: &Policy) -> bool {
        let Policy { keep_last, keep_days, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly } = *policy;
        let counts = [keep_last, keep_days, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly];
        counts.iter().any(|count| count.unwrap_or(0) > 0)
    }

    pub(super) fn deletes(case: &Case, entry: Entry) -> bool {
        let guarded = entry.pinned || started(entry.id) > case.now || newest(case) == Some(entry.id);
        if guarded || stopped(case) || !has_policy(&case.policy) {
            return false;
        }
        match entry.state {
            State::Whole { .. } => newest_proven(case) != Some(entry.id) && !policy_keeps(case, entry.id),
            State::Damaged => newest(case).is_some_and(|newest| newest > entry.id) && !policy_keeps(case, entry.id),
            State::Suspicious | State::Unknown => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decisions_are_those_of_a_plain_slow_model(case in a_case()) {
        let expected: BTreeSet<Id> =
            case.entries.iter().filter(|entry| model::deletes(&case, **entry)).map(|entry| entry.id).collect();
        prop_assert_eq!(case.deleted(), expected);
    }

    #[test]
    fn every_backup_gets_one_decision_with_a_reason(case in a_case()) {
        let decisions = case.decide();
        let ids: Vec<Id> = decisions.iter().map(|(id, _)| *id).collect();
        let mut expected: Vec<Id> = case.entries.iter().map(|entry| entry.id).collect();
        expected.sort();
        prop_assert_eq!(ids, expected);
        prop_assert!(decisions.iter().all(|(_, decision)| !decision.reasons().is_empty()));
    }

    #[test]
    fn what_is_kept_unseen_is_kept_whatever_is_found(case in a_case(), found in prop::collection::vec(a_state(true), 60)) {
        if keeps_all(&case.entries, &case.policy, case.timezone, case.now) {
            let entries = case.entries.iter().zip(found).map(|(entry, state)| Entry { state, ..*entry }).collect();
            prop_assert_eq!(Case { entries, ..case.clone() }.deleted(), BTreeSet::new());
        }
    }

    #[test]
    fn pruning_twice_deletes_nothing_more(case in a_case()) {
        let survivors = case.without(&case.deleted());
        prop_assert_eq!(survivors.deleted(), BTreeSet::new());
    }

    #[test]
    fn a_pruning_cut_short_and_begun_again_ends_where_a_whole_one_does(case in a_case(), cut in 0_usize..60) {
        // Deletion goes in any order, and may stop anywhere.
        let all = case.deleted();
        let first: BTreeSet<Id> = all.iter().copied().take(cut).collect();
        let rest = case.without(&first).deleted();
        prop_assert_eq!(first.union(&rest).copied().collect::<BTreeSet<_>>(), all);
    }

    #[test]
    fn keeping_more_never_deletes_more(case in a_case(), more in a_policy()) {
        let larger = |one: Option<u32>, other: Option<u32>| one.max(other);
        let policy = Policy {
            keep_last: larger(case.policy.keep_last, more.keep_last),
            keep_days: larger(case.policy.keep_days, more.keep_days),
            keep_hourly: larger(case.policy.keep_hourly, more.keep_hourly),
            keep_daily: larger(case.policy.keep_daily, more.keep_daily),
            keep_weekly: larger(case.policy.keep_weekly, more.keep_weekly),
            keep_monthly: larger(case.policy.keep_monthly, more.keep_monthly),
            keep_yearly: larger(case.policy.keep_yearly, more.keep_yearly),
        };
        // No policy keeps all, so one beside none is the only way to keep less.
        prop_assume!(keys(&case.policy).next().is_some());
        let generous = Case { policy, ..case.clone() };
        prop_assert!(generous.deleted().is_subset(&case.deleted()));
    }

    #[test]
    fn the_last_good_ones_always_stay(case in a_case()) {
        let deleted = case.deleted();
        let whole = |entry: &&Entry| matches!(entry.state, State::Whole { .. }) && entry.id.run().time() <= case.now;
        let newest = case.entries.iter().filter(whole).max_by_key(|entry| entry.id);
        let proven = case.entries.iter().filter(whole).filter(|entry| entry.state == State::Whole { proven: true });
        for entry in newest.into_iter().chain(proven.max_by_key(|entry| entry.id)) {
            prop_assert!(!deleted.contains(&entry.id));
        }
        for entry in case.entries.iter().filter(|entry| entry.pinned || entry.id.run().time() > case.now) {
            prop_assert!(!deleted.contains(&entry.id));
        }
    }

    #[test]
    fn the_order_of_a_listing_decides_nothing(case in a_case()) {
        let mut reversed = case.clone();
        reversed.entries.reverse();
        prop_assert_eq!(reversed.decide(), case.decide());
    }

    #[test]
    fn what_is_not_whole_never_costs_a_whole_one(case in a_case()) {
        let bad = |entry: &&Entry| !matches!(entry.state, State::Whole { .. }) || entry.id.run().time() > case.now;
        let alone = case.without(&case.entries.iter().filter(bad).map(|entry| entry.id).collect());
        // What stops pruning may save whole ones; nothing may cost any.
        let deleted = case.deleted();
        let of_whole: BTreeSet<Id> = alone.entries.iter().map(|entry| entry.id).filter(|id| deleted.contains(id)).collect();
        prop_assert!(of_whole.is_subset(&alone.deleted()));
        let stops = case.entries.iter().any(|entry| matches!(entry.state, State::Unknown | State::Suspicious));
        prop_assert!(stops || of_whole == alone.deleted());
    }

    #[test]
    fn one_unknown_backup_saves_all(mut case in a_case(), at in 0_usize..60) {
        prop_assume!(!case.entries.is_empty());
        let at = at % case.entries.len();
        case.entries[at].state = State::Unknown;
        prop_assert_eq!(case.deleted(), BTreeSet::new());
    }

    #[test]
    fn a_verdict_that_is_cleared_later_came_too_late_for_no_backup(case in a_case()) {
        // What is damaged today and whole tomorrow is not deleted today if it would stay tomorrow.
        let deleted = case.deleted();
        for at in (0..case.entries.len()).filter(|at| case.entries[*at].state == State::Damaged) {
            let mut cleared = case.clone();
            cleared.entries[at].state = State::Whole { proven: false };
            let id = case.entries[at].id;
            prop_assert!(cleared.deleted().contains(&id) || !deleted.contains(&id));
        }
    }
}
