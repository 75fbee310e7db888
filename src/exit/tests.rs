use chrono::DateTime;

use super::*;
use crate::error::Error;
use crate::names::RunId;
use crate::outcome::{BackupItem, CheckItem, Problem};
use Severity::{Failure, Notice, Partial};

fn outcome(items: Items, problems: &[(Severity, Kind)]) -> Outcome {
    let problems = problems.iter().map(|(severity, kind)| Problem::of(&Error::new(*kind, "x"), *severity)).collect();
    Outcome { command: "backup", started: DateTime::UNIX_EPOCH, finished: DateTime::UNIX_EPOCH, signal: None, items, problems }
}

fn units(statuses: &[UnitStatus]) -> Items {
    let unit = |status: &UnitStatus| BackupItem {
        unit: "app".into(),
        status: *status,
        id: None,
        run: RunId::starting(DateTime::UNIX_EPOCH),
        bytes: 0,
        content_bytes: 0,
        seconds: 0.0,
        copies: Vec::new(),
        storages: Vec::new(),
        detail: None,
        warnings: Vec::new(),
        doubts: Vec::new(),
        pruned: Vec::new(),
    };
    Items::Backups(statuses.iter().map(unit).collect())
}

#[test]
fn the_first_row_that_applies_is_the_code() {
    let table: &[(&[(Severity, Kind)], u8)] = &[
        (&[], 0),
        (&[(Notice, Kind::Damaged), (Notice, Kind::Locked)], 0),
        (&[(Partial, Kind::StorageDenied)], 3),
        (&[(Partial, Kind::Locked)], 3),
        (&[(Failure, Kind::Check)], 1),
        (&[(Failure, Kind::Child), (Partial, Kind::Storage)], 1),
        (&[(Failure, Kind::Interrupted)], 1),
        (&[(Failure, Kind::Timeout)], 1),
        (&[(Failure, Kind::Exists)], 1),
        (&[(Failure, Kind::NotFound)], 4),
        (&[(Failure, Kind::NotFound), (Failure, Kind::Child)], 4),
        (&[(Failure, Kind::NotFound), (Failure, Kind::Config)], 2),
        (&[(Failure, Kind::Refused)], 2),
        (&[(Failure, Kind::Child), (Failure, Kind::Config)], 2),
        (&[(Failure, Kind::Locked)], 75),
        (&[(Failure, Kind::Child), (Failure, Kind::Locked), (Failure, Kind::Config)], 75),
    ];
    for (problems, expected) in table {
        assert_eq!(code(&outcome(units(&[]), problems)), *expected, "{problems:?}");
    }
}

#[test]
fn a_code_that_says_nothing_was_done_is_never_given_when_something_was() {
    for kind in [Kind::Config, Kind::Refused, Kind::NotFound] {
        assert_eq!(code(&outcome(units(&[UnitStatus::Ok, UnitStatus::Failed]), &[(Failure, kind)])), 1, "{kind:?}");
        assert_eq!(code(&outcome(units(&[UnitStatus::Partial, UnitStatus::Failed]), &[(Failure, kind)])), 1, "{kind:?}");
    }
    assert_eq!(code(&outcome(units(&[UnitStatus::Planned, UnitStatus::Failed]), &[(Failure, Kind::Config)])), 2);
}

#[test]
fn a_locked_unit_asks_for_another_run_whatever_the_others_did() {
    assert_eq!(code(&outcome(units(&[UnitStatus::Ok, UnitStatus::Failed]), &[(Failure, Kind::Locked)])), 75);
    assert_eq!(
        code(&outcome(units(&[UnitStatus::Failed, UnitStatus::Failed]), &[(Failure, Kind::Child), (Failure, Kind::Locked)])),
        75
    );
}

#[test]
fn a_signal_outranks_everything() {
    for (signal, expected) in [(1, 129), (2, 130), (15, 143), (0, 129), (-3, 255), (300, 255)] {
        let interrupted = Outcome { signal: Some(signal), ..outcome(units(&[UnitStatus::Ok]), &[(Failure, Kind::Locked)]) };
        assert_eq!(code(&interrupted), expected, "{signal}");
    }
}

#[test]
fn a_failed_item_without_a_problem_is_no_success() {
    assert_eq!(code(&outcome(units(&[UnitStatus::Ok, UnitStatus::Failed]), &[])), 1);
    assert_eq!(code(&outcome(units(&[UnitStatus::Ok, UnitStatus::Partial]), &[])), 3);
    assert_eq!(code(&outcome(units(&[UnitStatus::Ok, UnitStatus::Planned, UnitStatus::Skipped]), &[])), 0);
    let check = CheckItem { subject: "storage local".into(), ok: false, detail: "read-only".into(), hint: None };
    assert_eq!(code(&outcome(Items::Checks(vec![check]), &[])), 1);
}

#[test]
fn every_code_has_its_word() {
    let words: Vec<_> = [0, 1, 2, 3, 4, 75, 129, 130, 143].map(|code| format!("{code} {}", word(code))).into();
    insta::assert_snapshot!(words.join("\n"), @"
    0 ok
    1 failed
    2 refused
    3 partial
    4 not_found
    75 locked
    129 interrupted
    130 interrupted
    143 interrupted
    ");
    assert_eq!([0, 1, 2, 3, 4, 75, 143].map(unwritten), [1, 1, 2, 1, 4, 75, 143]);
    assert_eq!(USAGE.word, word(USAGE.code));
}

#[test]
fn the_published_table_names_every_code() {
    let published = include_str!("../../docs/exit-codes.md");
    for code in [0, 1, 2, 3, 4, 75, 129, 130, 143] {
        let row = format!("| {code} | `{}` |", word(code));
        assert!(published.contains(&row), "{row}");
    }
}

#[test]
fn a_drill_that_was_begun_is_never_a_refused_call() {
    let drill = |status, is_begun: bool| DrillItem {
        unit: "app".into(),
        id: is_begun.then(|| "20261121_101036Z-o0ua".parse().unwrap()),
        storage: None,
        status,
        place: String::new(),
        bytes: 0,
        restore_seconds: 0.0,
        seconds: 0.0,
        compared: None,
        checks: Vec::new(),
        warnings: Vec::new(),
    };
    for kind in [Kind::Config, Kind::Refused, Kind::NotFound, Kind::Damaged, Kind::Check] {
        assert_eq!(code(&outcome(Items::Drills(vec![drill(DrillStatus::Failed, true)]), &[(Failure, kind)])), 1, "{kind:?}");
    }
    assert_eq!(code(&outcome(Items::Drills(vec![drill(DrillStatus::Failed, false)]), &[(Failure, Kind::NotFound)])), 4);
    assert_eq!(code(&outcome(Items::Drills(vec![drill(DrillStatus::Failed, true)]), &[(Failure, Kind::Locked)])), 75);
    assert_eq!(code(&outcome(Items::Drills(vec![drill(DrillStatus::Failed, true)]), &[])), 1);
    assert_eq!(code(&outcome(Items::Drills(vec![drill(DrillStatus::Passed, true)]), &[(Partial, Kind::StorageDenied)])), 3);
    assert_eq!(code(&outcome(Items::Drills(vec![drill(DrillStatus::Passed, true)]), &[])), 0);
}
