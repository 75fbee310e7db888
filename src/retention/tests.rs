//! Retention by example: each test is a rule that an operator can rely on.

use super::*;
use chrono::NaiveDate;
use chrono_tz::{America, Australia, Europe};

const NONE: Policy = Policy {
    keep_last: None,
    keep_days: None,
    keep_hourly: None,
    keep_daily: None,
    keep_weekly: None,
    keep_monthly: None,
    keep_yearly: None,
};

/// A moment in UTC, to the minute: `2026-06-12 03:00`.
fn utc(text: &str) -> DateTime<Utc> {
    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc()
}

fn id(text: &str) -> Id {
    format!("{}-aaaa", utc(text).format("%Y%m%d_%H%M%SZ")).parse().unwrap()
}

fn whole(text: &str) -> Entry {
    Entry { id: id(text), state: State::Whole { proven: false }, pinned: false }
}

fn proven(text: &str) -> Entry {
    Entry { state: State::Whole { proven: true }, ..whole(text) }
}

fn in_state(text: &str, state: State) -> Entry {
    Entry { state, ..whole(text) }
}

/// One whole backup a day at 03:00 UTC, from the first day to the last.
fn nightly(first: &str, last: &str) -> Vec<Entry> {
    let (first, last): (NaiveDate, NaiveDate) = (first.parse().unwrap(), last.parse().unwrap());
    first.iter_days().take_while(|day| *day <= last).map(|day| whole(&format!("{day} 03:00"))).collect()
}

fn now() -> DateTime<Utc> {
    utc("2027-01-01 00:00")
}

/// Starts of what stays, oldest first, as `12-31 03:00`, and in full with `%F`.
fn kept(entries: &[Entry], policy: Policy, timezone: Tz, format: &str) -> Vec<String> {
    let decisions = decide(entries, &policy, timezone, now());
    let kept = decisions.iter().filter(|(_, decision)| !decision.is_delete());
    kept.map(|(id, _)| id.run().time().format(format).to_string()).collect()
}

/// What is said of the backup that started then: `keep: pinned`.
fn verdict(entries: &[Entry], policy: Policy, start: &str) -> String {
    let decisions = decide(entries, &policy, Tz::UTC, now());
    let (_, decision) = decisions.iter().find(|(of, _)| *of == id(start)).unwrap();
    let reasons: Vec<String> = decision.reasons().iter().map(ToString::to_string).collect();
    format!("{}: {}", if decision.is_delete() { "delete" } else { "keep" }, reasons.join("; "))
}

#[test]
fn without_a_policy_nothing_is_ever_deleted() {
    let entries = nightly("2026-01-01", "2026-12-31");
    assert_eq!(kept(&entries, NONE, Tz::UTC, "%F").len(), 365);
    assert_eq!(verdict(&entries, NONE, "2026-01-01 03:00"), "keep: no policy");
    assert_eq!(verdict(&entries, NONE, "2026-12-31 03:00"), "keep: newest whole backup; no policy");
}

#[test]
fn a_policy_of_zeros_is_no_policy() {
    let policy = Policy { keep_last: Some(0), keep_daily: Some(0), ..NONE };
    assert_eq!(kept(&nightly("2026-01-01", "2026-12-31"), policy, Tz::UTC, "%F").len(), 365);
    // Beside a key that keeps something, a zero adds nothing.
    let policy = Policy { keep_last: Some(2), keep_daily: Some(0), keep_days: Some(0), ..NONE };
    assert_eq!(kept(&nightly("2026-01-01", "2026-12-31"), policy, Tz::UTC, "%F"), ["2026-12-30", "2026-12-31"]);
}

#[test]
fn where_the_policy_has_room_for_all_nobody_need_look() {
    let five = nightly("2026-12-01", "2026-12-05");
    let unseen = |entries: &[Entry], policy| keeps_all(entries, &policy, Tz::UTC, now());
    assert!(unseen(&five, NONE) && unseen(&five, Policy { keep_last: Some(5), ..NONE }));
    assert!(unseen(&five, Policy { keep_days: Some(4), ..NONE }) && unseen(&five, Policy { keep_daily: Some(9), ..NONE }));
    assert!(!unseen(&five, Policy { keep_last: Some(4), ..NONE }));
    // Were it found bad, the newest proven one would go.
    let mut last = five.clone();
    last[0].state = State::Whole { proven: true };
    assert!(!unseen(&last, Policy { keep_last: Some(4), ..NONE }));
    last[0].pinned = true;
    assert!(unseen(&last, Policy { keep_last: Some(4), ..NONE }));
}

#[test]
fn keep_last_keeps_the_newest_whatever_their_dates() {
    let entries = [whole("2020-01-01 00:00"), whole("2023-05-05 05:05"), whole("2026-12-31 03:00"), whole("2026-12-31 04:00")];
    let policy = Policy { keep_last: Some(3), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%F %H"), ["2023-05-05 05", "2026-12-31 03", "2026-12-31 04"]);
    assert_eq!(verdict(&entries, policy, "2020-01-01 00:00"), "delete: not kept by keep_last 3");
}

/// The example of `docs/retention.md`, to the day.
#[test]
fn grandfather_father_son_over_two_years() {
    let entries = nightly("2025-01-01", "2026-12-31");
    let policy = Policy { keep_daily: Some(7), keep_weekly: Some(4), keep_monthly: Some(12), keep_yearly: Some(3), ..NONE };
    let sons = ["2026-12-25", "2026-12-26", "2026-12-27", "2026-12-28", "2026-12-29", "2026-12-30", "2026-12-31"];
    // The last Sundays; that of the newest week is the newest backup so far, Thursday the 31st.
    let fathers = ["2026-12-13", "2026-12-20"];
    let grandfathers = [
        "2025-12-31", // the year 2025, of which it is the newest
        "2026-01-31",
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
        "2026-05-31",
        "2026-06-30",
        "2026-07-31",
        "2026-08-31",
        "2026-09-30",
        "2026-10-31",
        "2026-11-30",
    ];
    assert_eq!(kept(&entries, policy, Tz::UTC, "%F"), [&grandfathers[..], &fathers[..], &sons[..]].concat());
    assert_eq!(verdict(&entries, policy, "2026-12-20 03:00"), "keep: one of the 4 latest weeks: 2026-W51");
    assert_eq!(verdict(&entries, policy, "2025-12-31 03:00"), "keep: one of the 3 latest years: 2025");
    assert_eq!(
        verdict(&entries, policy, "2026-12-31 03:00"),
        "keep: newest whole backup; one of the 7 latest days: 2026-12-31; one of the 4 latest weeks: 2026-W53; \
         one of the 12 latest months: 2026-12; one of the 3 latest years: 2026"
    );
    assert_eq!(
        verdict(&entries, policy, "2026-12-24 03:00"),
        "delete: not kept by keep_daily 7, keep_weekly 4, keep_monthly 12, keep_yearly 3"
    );
}

/// Of the 730 nights, 21: the number that `docs/retention.md` gives.
#[test]
fn pruned_each_night_it_ends_where_pruning_once_does() {
    let policy = Policy { keep_daily: Some(7), keep_weekly: Some(4), keep_monthly: Some(12), keep_yearly: Some(3), ..NONE };
    let nights = nightly("2025-01-01", "2026-12-31");
    let mut stored: Vec<Entry> = Vec::new();
    for night in &nights {
        stored.push(*night);
        let now = night.id.run().time() + Duration::minutes(5);
        let decisions: BTreeMap<Id, Decision> = decide(&stored, &policy, Tz::UTC, now).into_iter().collect();
        stored.retain(|entry| !decisions[&entry.id].is_delete());
    }
    let stored: Vec<String> = stored.iter().map(|entry| entry.id.run().time().format("%F").to_string()).collect();
    assert_eq!(stored, kept(&nights, policy, Tz::UTC, "%F"));
    assert_eq!((nights.len(), stored.len()), (730, 21));
}

#[test]
fn hourly_backups_thin_out_to_days() {
    let mut entries = Vec::new();
    for day in ["29", "30", "31"] {
        entries.extend((0..24).map(|hour| whole(&format!("2026-12-{day} {hour:02}:00"))));
    }
    let policy = Policy { keep_hourly: Some(3), keep_daily: Some(7), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d %H"), ["29 23", "30 23", "31 21", "31 22", "31 23"]);
}

/// Why `docs/retention.md` says to give `keep_last` beside `keep_days`.
#[test]
fn after_a_long_pause_keep_last_holds_what_keep_days_lets_go() {
    let mut entries = nightly("2026-09-01", "2026-09-30");
    entries.push(whole("2026-12-31 03:00"));
    let days = Policy { keep_days: Some(30), ..NONE };
    assert_eq!(kept(&entries, days, Tz::UTC, "%F"), ["2026-12-31"]);
    let both = Policy { keep_last: Some(3), ..days };
    assert_eq!(kept(&entries, both, Tz::UTC, "%F"), ["2026-09-29", "2026-09-30", "2026-12-31"]);
}

#[test]
fn of_a_day_with_many_backups_the_newest_stays() {
    let entries = [whole("2026-12-30 03:00"), whole("2026-12-30 15:00"), whole("2026-12-31 03:00"), whole("2026-12-31 15:00")];
    let policy = Policy { keep_daily: Some(2), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d %H"), ["30 15", "31 15"]);
}

#[test]
fn days_without_a_backup_are_not_counted() {
    let entries = [whole("2024-02-29 03:00"), whole("2025-07-01 03:00"), whole("2026-12-31 03:00")];
    let policy = Policy { keep_daily: Some(2), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%F"), ["2025-07-01", "2026-12-31"]);
}

#[test]
fn a_month_of_failures_ages_nothing_away() {
    // The newest whole one is of June; it is January.
    let entries = nightly("2026-05-01", "2026-06-30");
    let policy = Policy { keep_days: Some(30), ..NONE };
    let kept = kept(&entries, policy, Tz::UTC, "%F");
    assert_eq!((kept.len(), kept[0].as_str()), (31, "2026-05-31"));
    let last = verdict(&entries, policy, "2026-06-30 03:00");
    assert_eq!(last, "keep: newest whole backup; within 30 days before the newest whole backup");
}

#[test]
fn a_day_of_keep_days_is_24_hours_and_its_edge_is_within() {
    let entries = [whole("2026-12-30 02:59"), whole("2026-12-30 03:00"), whole("2026-12-31 03:00")];
    let policy = Policy { keep_days: Some(1), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d %H:%M"), ["30 03:00", "31 03:00"]);
}

#[test]
fn the_day_ends_when_the_users_clock_says_so() {
    // 23:30 and 00:30 in São Paulo: two days there, one day in UTC.
    let entries = [whole("2026-06-12 02:30"), whole("2026-06-12 03:30")];
    let policy = Policy { keep_daily: Some(9), ..NONE };
    assert_eq!(kept(&entries, policy, America::Sao_Paulo, "%H:%M"), ["02:30", "03:30"]);
    assert_eq!(kept(&entries, policy, Tz::UTC, "%H:%M"), ["03:30"]);
}

#[test]
fn a_week_belongs_to_the_year_of_its_thursday() {
    let entries = [whole("2024-12-29 03:00"), whole("2024-12-30 03:00"), whole("2025-01-05 03:00"), whole("2025-01-06 03:00")];
    let policy = Policy { keep_weekly: Some(9), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%F"), ["2024-12-29", "2025-01-05", "2025-01-06"]);
    assert_eq!(verdict(&entries, policy, "2025-01-05 03:00"), "keep: one of the 9 latest weeks: 2025-W01");
}

#[test]
fn the_hour_that_comes_twice_when_clocks_go_back_is_two_hours() {
    let policy = Policy { keep_hourly: Some(24), ..NONE };
    // Berlin, 25 October 2026: 02:15 CEST, 02:45 CEST, 02:15 CET, 02:45 CET.
    let entries = [whole("2026-10-25 00:15"), whole("2026-10-25 00:45"), whole("2026-10-25 01:15"), whole("2026-10-25 01:45")];
    assert_eq!(kept(&entries, policy, Europe::Berlin, "%H:%M"), ["00:45", "01:45"]);
    // Lord Howe, 5 April 2026, half an hour back: 01:10, 01:50, then 01:40 and 02:10.
    let entries = [whole("2026-04-04 14:10"), whole("2026-04-04 14:50"), whole("2026-04-04 15:10"), whole("2026-04-04 15:40")];
    assert_eq!(kept(&entries, policy, Australia::Lord_Howe, "%H:%M"), ["14:50", "15:10", "15:40"]);
}

#[test]
fn a_day_of_25_hours_is_one_day() {
    // São Paulo, 17 February 2018: the clock went from midnight back to 23:00 of the same day.
    let entries = [whole("2018-02-17 03:00"), whole("2018-02-18 01:30"), whole("2018-02-18 02:30"), whole("2018-02-18 03:30")];
    let policy = Policy { keep_daily: Some(9), ..NONE };
    assert_eq!(kept(&entries, policy, America::Sao_Paulo, "%d %H:%M"), ["18 02:30", "18 03:30"]);
}

#[test]
fn a_day_that_the_calendar_skipped_takes_no_place() {
    // Apia went from 29 to 31 December 2011.
    let entries = [whole("2011-12-29 20:00"), whole("2011-12-30 09:00"), whole("2011-12-30 11:00"), whole("2011-12-31 20:00")];
    let policy = Policy { keep_daily: Some(3), ..NONE };
    assert_eq!(kept(&entries, policy, chrono_tz::Pacific::Apia, "%d %H"), ["30 09", "30 11", "31 20"]);
}

#[test]
fn a_date_that_comes_back_is_still_one_day() {
    // St. John's, 7 November 2010: at 00:01 of Sunday it became 23:01 of Saturday again.
    let sunday = Entry { id: "20101107_023030Z-aaaa".parse().unwrap(), ..whole("2010-11-07 02:30") };
    let entries = [whole("2010-11-06 12:00"), sunday, whole("2010-11-07 02:45"), whole("2010-11-07 12:00")];
    let policy = Policy { keep_daily: Some(9), ..NONE };
    assert_eq!(kept(&entries, policy, America::St_Johns, "%d %H:%M"), ["07 02:45", "07 12:00"]);
}

#[test]
fn the_newest_whole_the_newest_proven_and_the_pinned_stay() {
    let pinned = Entry { pinned: true, ..whole("2026-01-02 03:00") };
    let entries =
        [proven("2026-01-01 03:00"), pinned, proven("2026-01-03 03:00"), whole("2026-01-04 03:00"), whole("2026-01-05 03:00")];
    let policy = Policy { keep_last: Some(1), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d"), ["02", "03", "05"]);
    assert_eq!(verdict(&entries, policy, "2026-01-02 03:00"), "keep: pinned");
    assert_eq!(verdict(&entries, policy, "2026-01-03 03:00"), "keep: newest proven backup");
    assert_eq!(verdict(&entries, policy, "2026-01-05 03:00"), "keep: newest whole backup; the newest one");
}

#[test]
fn failures_take_no_whole_ones_place() {
    let mut entries = nightly("2026-12-01", "2026-12-05");
    entries.extend([in_state("2026-12-06 03:00", State::Damaged), in_state("2026-12-07 03:00", State::Damaged)]);
    let policy = Policy { keep_last: Some(2), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d"), ["04", "05", "06", "07"]);
}

#[test]
fn a_damaged_one_stays_while_a_whole_one_in_its_place_would() {
    let damaged = |day: &str| in_state(&format!("{day} 03:00"), State::Damaged);
    let entries = [
        damaged("2026-12-01"),
        whole("2026-12-28 03:00"),
        damaged("2026-12-29"),
        whole("2026-12-29 09:00"),
        damaged("2026-12-30"),
        whole("2026-12-31 03:00"),
    ];
    let policy = Policy { keep_daily: Some(3), ..NONE };
    let in_place = "keep: damaged, but the policy would keep a whole one in its place";
    assert_eq!(verdict(&entries, policy, "2026-12-30 03:00"), in_place);
    // A whole one of the same day has taken its place.
    assert_eq!(verdict(&entries, policy, "2026-12-29 03:00"), "delete: damaged; not kept by keep_daily 3");
    assert_eq!(verdict(&entries, policy, "2026-12-01 03:00"), "delete: damaged; not kept by keep_daily 3");
    // It has taken no place itself: the third latest day is the 28th.
    assert_eq!(verdict(&entries, policy, "2026-12-28 03:00"), "keep: one of the 3 latest days: 2026-12-28");
}

#[test]
fn a_damaged_one_stays_while_nothing_whole_is_newer() {
    let entries = [in_state("2026-12-01 03:00", State::Damaged), in_state("2026-12-02 03:00", State::Damaged)];
    let policy = Policy { keep_last: Some(1), ..NONE };
    assert_eq!(verdict(&entries, policy, "2026-12-01 03:00"), "keep: damaged, but no whole backup is newer");
}

#[test]
fn an_unknown_one_stops_pruning_for_the_unit() {
    let mut entries = nightly("2026-12-01", "2026-12-05");
    entries.push(in_state("2026-11-01 03:00", State::Unknown));
    let policy = Policy { keep_last: Some(1), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d").len(), 6);
    assert_eq!(verdict(&entries, policy, "2026-12-01 03:00"), "keep: pruning is stopped: 20261101_030000Z-aaaa is unknown");
    assert_eq!(verdict(&entries, policy, "2026-11-01 03:00"), "keep: unknown: what can't be read is never deleted");
}

#[test]
fn an_id_that_is_there_twice_is_not_understood_and_nothing_is_deleted() {
    let entries = [whole("2026-12-01 03:00"), whole("2026-12-02 03:00"), whole("2026-12-01 03:00")];
    assert_eq!(kept(&entries, Policy { keep_last: Some(1), ..NONE }, Tz::UTC, "%d"), ["01", "02"]);
}

#[test]
fn a_suspicious_one_stops_pruning_until_a_whole_one_follows() {
    let mut entries = nightly("2026-12-01", "2026-12-03");
    entries.push(in_state("2026-12-04 03:00", State::Suspicious));
    let policy = Policy { keep_last: Some(1), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d"), ["01", "02", "03", "04"]);
    assert_eq!(
        verdict(&entries, policy, "2026-12-01 03:00"),
        "keep: pruning is stopped: 20261204_030000Z-aaaa is suspicious, and no whole backup is newer"
    );
    entries.push(whole("2026-12-05 03:00"));
    assert_eq!(kept(&entries, policy, Tz::UTC, "%d"), ["04", "05"]);
}

#[test]
fn what_is_dated_in_the_future_stays_and_counts_in_nothing() {
    let mut entries = nightly("2026-12-01", "2026-12-03");
    let future = Entry { state: State::Whole { proven: true }, ..whole("2030-01-01 03:00") };
    entries.extend([future, in_state("2031-01-01 03:00", State::Damaged)]);
    let policy = Policy { keep_last: Some(1), keep_days: Some(1), ..NONE };
    assert_eq!(kept(&entries, policy, Tz::UTC, "%F"), ["2026-12-02", "2026-12-03", "2030-01-01", "2031-01-01"]);
    assert_eq!(verdict(&entries, policy, "2030-01-01 03:00"), "keep: dated in the future");
    assert!(verdict(&entries, policy, "2026-12-03 03:00").starts_with("keep: newest whole backup"));
}

#[test]
fn a_clock_that_was_reset_to_1970_deletes_nothing() {
    let entries = nightly("2026-12-01", "2026-12-31");
    let decisions = decide(&entries, &Policy { keep_last: Some(1), ..NONE }, Tz::UTC, utc("1970-01-01 00:00"));
    assert!(decisions.iter().all(|(_, decision)| *decision == Decision::Keep(vec![Reason::Future])));
}

#[test]
fn decisions_come_oldest_first_and_backups_of_one_second_by_id() {
    let named = |random: &str| Entry { id: format!("20261201_030000Z-{random}").parse().unwrap(), ..whole("2026-12-01 03:00") };
    let decisions =
        decide(&[named("zzzz"), named("0000"), named("kkkk")], &Policy { keep_last: Some(2), ..NONE }, Tz::UTC, now());
    let shown: Vec<_> = decisions.iter().map(|(id, decision)| (id.short(), decision.is_delete())).collect();
    assert_eq!(shown, [("0000", true), ("kkkk", false), ("zzzz", false)]);
}

#[test]
fn every_key_has_its_words() {
    let policy = Policy {
        keep_last: Some(1),
        keep_days: Some(1),
        keep_hourly: Some(1),
        keep_daily: Some(1),
        keep_weekly: Some(1),
        keep_monthly: Some(1),
        keep_yearly: Some(1),
    };
    let entries = [whole("2025-01-01 00:00"), whole("2026-06-12 03:20")];
    assert_eq!(
        verdict(&entries, policy, "2026-06-12 03:20"),
        "keep: newest whole backup; the newest one; within 1 day before the newest whole backup; \
         the latest hour: 2026-06-12 03:00 +00:00; the latest day: 2026-06-12; the latest week: 2026-W24; \
         the latest month: 2026-06; the latest year: 2026"
    );
    assert_eq!(
        verdict(&entries, policy, "2025-01-01 00:00"),
        "delete: not kept by keep_last 1, keep_days 1, keep_hourly 1, keep_daily 1, keep_weekly 1, keep_monthly 1, keep_yearly 1"
    );
}
