//! The numbers of `list --stats` and the answers of `--max-age`.

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc()
}

fn sample(id: &str, stored_bytes: u64, content_bytes: u64) -> Sample {
    Sample { id: id.parse().unwrap(), stored_bytes, content_bytes }
}

#[test]
fn stats_are_what_a_person_would_reckon_by_hand() {
    let numbers = stats([
        sample("20260614_030000Z-cccc", 150, 600),
        sample("20260612_030000Z-aaaa", 100, 400),
        sample("20260613_030000Z-bbbb", 51, 204),
    ]);
    assert_eq!(
        numbers,
        Stats {
            count: 3,
            bytes: 301,
            average_bytes: 100,
            oldest: Some(utc("2026-06-12 03:00:00")),
            newest: Some(utc("2026-06-14 03:00:00")),
            compression_ratio: Some(4.0),
            growth: Some(0.5),
        }
    );
}

#[test]
fn a_backup_in_two_storages_counts_once() {
    let one = sample("20260612_030000Z-aaaa", 100, 400);
    assert_eq!(stats([one, one]), stats([one]));
}

#[test]
fn numbers_that_mean_nothing_are_left_out() {
    assert_eq!(stats([]), Stats::default());
    let one = stats([sample("20260612_030000Z-aaaa", 100, 400)]);
    assert_eq!((one.count, one.growth), (1, None));
    let empty = stats([sample("20260612_030000Z-aaaa", 0, 0), sample("20260613_030000Z-aaaa", 0, 10)]);
    assert_eq!((empty.compression_ratio, empty.growth), (None, None));
}

#[test]
fn sizes_that_no_disk_has_don_t_wrap_around() {
    let numbers = stats([sample("20260612_030000Z-aaaa", u64::MAX, 1), sample("20260613_030000Z-aaaa", u64::MAX, 1)]);
    assert_eq!(numbers.bytes, u64::MAX);
}

#[test]
fn max_age_holds_up_to_the_last_second() {
    let allowed = Duration::from_secs(26 * 3600);
    let started = Some(utc("2026-06-12 03:00:00"));
    assert_eq!(too_old(started, allowed, utc("2026-06-13 05:00:00")), None);
    let age = Duration::from_secs(26 * 3600 + 1);
    assert_eq!(too_old(started, allowed, utc("2026-06-13 05:00:01")), Some(TooOld::Older { age, max_age: allowed }));
}

#[test]
fn what_is_too_old_is_said_in_words() {
    let say = |newest, now| too_old(newest, Duration::from_secs(26 * 3600), utc(now)).map(|why| why.to_string());
    let started = Some(utc("2026-06-12 03:00:00"));
    assert_eq!(say(None, "2026-06-13 05:00:00").as_deref(), Some("there is no whole backup"));
    assert_eq!(say(started, "2026-06-15 04:00:00").as_deref(), Some("the newest whole backup is 3d 1h old, 1d 2h is allowed"));
    assert_eq!(
        say(started, "2026-06-12 02:00:00").as_deref(),
        Some("the newest backup is dated in the future: 2026-06-12 03:00:00 UTC")
    );
}
