//! `--at` by example: each form, and what a person gets where it matches nothing or too much.

use super::*;
use chrono_tz::{America, Europe, Pacific};
use proptest::prelude::*;

const NIGHTS: [&str; 4] = ["20260610_030000Z-k3f9", "20260611_030000Z-8tq2", "20260612_030000Z-m0ax", "20260613_013000Z-zzzz"];

fn utc(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc()
}

fn now() -> DateTime<Utc> {
    utc("2026-06-13 12:00")
}

fn find_in(ids: &[&str], at: &str, timezone: Tz) -> Result<String> {
    let ids: Vec<Id> = ids.iter().map(|id| id.parse().unwrap()).collect();
    resolve(&ids, |id| *id, &at.parse()?, timezone, now()).map(ToString::to_string)
}

/// The short id of the night that is meant.
fn find(at: &str) -> String {
    find_in(&NIGHTS, at, Tz::UTC).unwrap()[17..].to_owned()
}

/// The whole message, as a person meets it.
fn refusal(ids: &[&str], at: &str, timezone: Tz) -> String {
    format!("{:?}", find_in(ids, at, timezone).unwrap_err())
}

#[test]
fn latest_is_the_newest() {
    assert_eq!(find("latest"), "zzzz");
}

#[test]
fn an_id_its_end_or_its_beginning_is_enough() {
    assert_eq!(find("20260611_030000Z-8tq2"), "8tq2");
    assert_eq!(find("8tq2"), "8tq2");
    assert_eq!(find("20260611"), "8tq2");
    assert_eq!(find("20260611_03"), "8tq2");
    assert_eq!(find("20260611_030000Z"), "8tq2");
    assert_eq!(find("20260611_030000Z-8t"), "8tq2");
}

#[test]
fn a_day_is_the_newest_by_its_end_in_the_users_timezone() {
    assert_eq!(find("2026-06-12"), "m0ax");
    // 01:30 UTC of the 13th is 22:30 of the 12th in São Paulo.
    assert!(find_in(&NIGHTS, "2026-06-12", America::Sao_Paulo).unwrap().ends_with("zzzz"));
    // A day without a backup is that of the day before: the state of the data at its end.
    assert_eq!(find("2026-06-30"), "zzzz");
}

#[test]
fn a_day_without_a_midnight_and_a_day_that_never_was_have_an_end() {
    let ids = ["20181103_120000Z-aaaa", "20181104_040000Z-bbbb"];
    // São Paulo, 4 November 2018: after 23:59:59 came 01:00.
    assert!(find_in(&ids, "2018-11-03", America::Sao_Paulo).unwrap().ends_with("aaaa"));
    assert!(find_in(&ids, "2018-11-04", America::Sao_Paulo).unwrap().ends_with("bbbb"));
    let ids = ["20111230_090000Z-aaaa", "20111230_110000Z-bbbb"];
    assert!(find_in(&ids, "2011-12-30", Pacific::Apia).unwrap().ends_with("aaaa"));
    assert!(find_in(&ids, "2011-12-31", Pacific::Apia).unwrap().ends_with("bbbb"));
}

#[test]
fn a_time_is_the_newest_started_at_or_before_it() {
    assert_eq!(find("2026-06-12T02:59"), "8tq2");
    assert_eq!(find("2026-06-12T03:00"), "m0ax");
    assert_eq!(find("2026-06-12T03:00:00Z"), "m0ax");
    assert_eq!(find("2026-06-12T05:00+02:00"), "m0ax");
    assert_eq!(find("2026-06-12T04:59:59+02:00"), "8tq2");
    let sao_paulo = |at| find_in(&NIGHTS, at, America::Sao_Paulo).unwrap();
    assert!(sao_paulo("2026-06-12T00:00").ends_with("m0ax"));
    assert!(sao_paulo("2026-06-11T23:59").ends_with("8tq2"));
}

#[test]
fn an_age_is_the_newest_at_least_that_old() {
    assert_eq!(find("1d"), "m0ax");
    assert_eq!(find("3d"), "k3f9");
    assert_eq!(find("33h"), "m0ax");
    assert_eq!(find("34h"), "8tq2");
    assert_eq!(find("0s"), "zzzz");
}

#[test]
fn of_one_backup_in_two_storages_the_first_is_taken() {
    let id: Id = NIGHTS[0].parse().unwrap();
    let candidates = [(id, "local"), (id, "offsite")];
    for at in ["latest", "k3f9", "2026-06-10"] {
        let found = resolve(&candidates, |(id, _)| *id, &at.parse().unwrap(), Tz::UTC, now()).unwrap();
        assert_eq!(found.1, "local", "{at}");
    }
}

#[test]
fn nothing_that_matches_is_an_error_with_the_neighbours() {
    assert_eq!(
        refusal(&NIGHTS, "2026-06-01", America::Sao_Paulo),
        "NotFound no backup matches \"2026-06-01\": the oldest is 20260610_030000Z-k3f9 (2026-06-10 00:00:00 -03) \
         (hint: name one of those, or see them all with `list --limit 0`)"
    );
    assert_eq!(
        refusal(&NIGHTS, "30d", Tz::UTC),
        "NotFound no backup matches \"30d\": the oldest is 20260610_030000Z-k3f9 (2026-06-10 03:00:00 UTC) \
         (hint: name one of those, or see them all with `list --limit 0`)"
    );
    assert_eq!(
        refusal(&NIGHTS, "20260611_040000Z-8tq2", Tz::UTC),
        "NotFound no backup matches \"20260611_040000Z-8tq2\": its neighbours are \
         20260611_030000Z-8tq2 (2026-06-11 03:00:00 UTC) and 20260612_030000Z-m0ax (2026-06-12 03:00:00 UTC) \
         (hint: name one of those, or see them all with `list --limit 0`)"
    );
    assert_eq!(
        refusal(&NIGHTS, "none", Tz::UTC),
        "NotFound no backup matches \"none\": the newest is 20260613_013000Z-zzzz (2026-06-13 01:30:00 UTC) \
         (hint: name one of those, or see them all with `list --limit 0`)"
    );
    assert_eq!(
        refusal(&[], "latest", Tz::UTC),
        "NotFound no backup matches \"latest\": there is none at all \
         (hint: `list --all` shows incomplete, damaged and unknown ones too)"
    );
}

#[test]
fn a_part_that_several_have_is_an_error_that_lists_them() {
    let ids = ["20260610_030000Z-k3f9", "20260610_120000Z-m0ax", "20260611_030000Z-k3f9"];
    assert_eq!(
        refusal(&ids, "20260610", Tz::UTC),
        "NotFound 20260610 is not one backup alone: 20260610_030000Z-k3f9 (2026-06-10 03:00:00 UTC), \
         20260610_120000Z-m0ax (2026-06-10 12:00:00 UTC) (hint: give the whole id)"
    );
    assert!(refusal(&ids, "k3f9", Tz::UTC).starts_with("NotFound k3f9 is not one backup alone: "));
    let many: Vec<String> = (0..9).map(|n| format!("2026061{n}_030000Z-k3f9")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refusal(&many, "k3f9", Tz::UTC).contains(" and 4 more (hint"));
}

#[test]
fn an_age_that_is_also_the_end_of_an_id_is_never_guessed() {
    let ids = ["20250101_030000Z-aaaa", "20260611_030000Z-100d"];
    assert_eq!(
        refusal(&ids, "100d", Tz::UTC),
        "NotFound 100d may be an age, and it is the end of 20260611_030000Z-100d (2026-06-11 03:00:00 UTC) \
         (hint: give the whole id, or the age in another unit, like 48h for 2d)"
    );
    assert!(find_in(&ids, "20260611_030000Z-100d", Tz::UTC).is_ok());
    assert!(find_in(&ids, "2400h", Tz::UTC).unwrap().ends_with("aaaa"));
    assert!(find_in(&["20250101_030000Z-aaaa"], "100d", Tz::UTC).is_ok());
}

#[test]
fn four_digits_are_the_end_of_an_id_and_no_year() {
    assert!(find_in(&["20260610_030000Z-2026", "20260611_030000Z-aaaa"], "2026", Tz::UTC).unwrap().ends_with("2026"));
    assert!(refusal(&NIGHTS, "2026", Tz::UTC).starts_with("NotFound no backup matches \"2026\": "));
}

#[test]
fn what_is_dated_in_the_future_is_found_by_its_id_alone() {
    let ids = ["20260610_030000Z-k3f9", "20300101_030000Z-aaaa"];
    for at in ["latest", "2030-12-31", "2031-01-01T00:00", "0s"] {
        assert!(find_in(&ids, at, Tz::UTC).unwrap().ends_with("k3f9"), "{at}");
    }
    assert!(find_in(&ids, "aaaa", Tz::UTC).is_ok());
    assert_eq!(
        refusal(&ids[1..], "latest", Tz::UTC),
        "NotFound no backup matches \"latest\": what there is is dated in the future: \
         20300101_030000Z-aaaa (2030-01-01 03:00:00 UTC) \
         (hint: check the clock; one of the future is found by its id alone)"
    );
}

#[test]
fn a_time_that_the_clocks_show_twice_or_never_is_refused() {
    assert_eq!(
        refusal(&NIGHTS, "2026-10-25T02:30", Europe::Berlin),
        "Config 2026-10-25T02:30:00 comes twice, as clocks go back in Europe/Berlin \
         (hint: add Z to give the time in UTC, or an offset like +02:00)"
    );
    assert!(refusal(&NIGHTS, "2026-03-29T02:30", Europe::Berlin).contains("doesn't exist, as clocks go forward"));
    assert!(find_in(&NIGHTS, "2026-10-25T02:30+02:00", Europe::Berlin).is_ok());
}

#[test]
fn what_is_no_when_says_what_is() {
    assert_eq!(
        refusal(&NIGHTS, "yesterday", Tz::UTC),
        "Config \"yesterday\" names no backup: expected `latest`, an id (20260612_030000Z-k3f9), its end (k3f9) or its \
         beginning (20260612), a day (2026-06-12), a time (2026-06-12T10:00, or with Z or +02:00), or an age (26h, 3d)"
    );
    let bad = [
        "",
        "2",
        "202",
        "20260",
        "2026-06",
        "2026-6-1",
        "2026-02-30",
        " 2026-06-12",
        "12.06.2026",
        "2026-06-12T10",
        "2026-06-12T25:00",
        "2026-06-12T10:00z",
        "2026-06-12T10:00+2",
        "2026-06-12T1:000",
        "2026-06-12T10:00:00.5Z",
        "3D",
        "-3d",
        "1.5h",
        "LATEST",
        "K3F9",
        "20260612-k3f9",
        "20260612_030000Z-k3f9x",
        "20260612_030000Z_k3f9",
        "größe",
        "2026-06-1é",
    ];
    for text in bad {
        assert_eq!(text.parse::<When>().map_err(|error| error.kind()), Err(Kind::Config), "{text:?}");
    }
}

#[test]
fn an_age_beyond_all_time_matches_nothing() {
    assert!(refusal(&NIGHTS, "30000000000000w", Tz::UTC).starts_with("NotFound"));
}

proptest! {
    #[test]
    fn every_backup_is_found_by_its_id_and_by_its_start(seconds in prop::collection::btree_set(0_i64..4_000_000, 1..20), zone in 0_usize..4) {
        let timezone = [Tz::UTC, America::Sao_Paulo, Europe::Berlin, chrono_tz::Australia::Lord_Howe][zone];
        let start = |seconds: i64| now() - chrono::Duration::seconds(seconds);
        let ids: Vec<Id> = seconds.iter().map(|s| Id::new(RunId::starting(start(*s)), s.to_le_bytes())).collect();
        for id in &ids {
            let time = id.run().time();
            let local = time.with_timezone(&timezone);
            for at in [id.to_string(), time.format("%FT%TZ").to_string(), local.format("%FT%T%:z").to_string()] {
                prop_assert_eq!(resolve(&ids, |id| *id, &at.parse().unwrap(), timezone, now()).unwrap(), id, "{}", at);
            }
            let day = local.date_naive();
            let found = resolve(&ids, |id| *id, &When::Date(day), timezone, now()).unwrap();
            prop_assert!(found >= id && found.run().time().with_timezone(&timezone).date_naive() == day);
        }
    }

    #[test]
    fn no_text_panics_and_what_is_read_prints_as_itself(text in "\\PC{0,24}|[0-9TZ:+_a-z-]{1,24}|2026-06-1[0-9]T[0-9:]{1,8}[Z+]?[0-9:]{0,5}") {
        if let Ok(when) = text.parse::<When>() {
            prop_assert_eq!(when.to_string().parse::<When>().unwrap(), when);
        }
    }
}
