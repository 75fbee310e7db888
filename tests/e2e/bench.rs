//! `scripts/bench`: that it measures what it says and leaves nothing. Its figures, of so little data, mean nothing.

use std::fs;
use std::process::Command;

use crate::support::repository;
use crate::support::script::{ended_early_leaves_nothing, is_empty, script};

const SMALL: [&str; 8] = ["--quick", "--rounds", "1", "--dump-mb", "3", "--tree-mb", "2", "--backups=60"];
const COLUMNS: &str = "| what | ours | baseline | ratio | spread | CPU ours | CPU base | at most | verdict |";

/// The rows that there are, as the help names them.
fn rows() -> Vec<String> {
    let help = Command::new(repository().join("scripts/bench")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let names = help.split_once("Rows: ").unwrap().1.split_once('.').unwrap().0;
    names.split(", ").map(str::to_owned).collect()
}

#[test]
fn a_bench_writes_its_table_as_text_and_into_a_page_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let page = elsewhere.path().join("page.md");
    let performance = fs::read_to_string(repository().join("docs/performance.md")).unwrap();
    let marks: Vec<_> = performance.lines().filter(|line| line.starts_with("<!--")).collect();
    fs::write(&page, format!("# Before\n\n{}\nold figures\n{}\n\nbehind\n", marks[0], marks[1])).unwrap();

    let mut bench = script("bench", temporary.path());
    bench.args(SMALL).args(["--only", "gzip,volume-gzip,list,start", "--markdown"]).arg(&page);
    let output = bench.output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{stdout}\n---\n{stderr}");
    let written = fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("# Before\n") && written.ends_with("\nbehind\n"), "{written}");
    assert!(written.contains(COLUMNS) && !written.contains("old figures"), "{written}");
    for what in [
        "backup into a directory, gzip",
        "size of that backup",
        "volume of 2 MB, gzip",
        "list, 60 backups",
        "peak memory of that list",
        "first output of list, empty storage",
    ] {
        let in_text = stdout.lines().filter(|line| line.starts_with(what)).collect::<Vec<_>>();
        assert!(matches!(in_text[..], [line] if ends_in_verdict(line)), "{what} in\n{stdout}");
        let start = format!("| {what} | ");
        let in_page = written.lines().filter(|line| line.starts_with(&start)).collect::<Vec<_>>();
        // Its figures, and what they are made by.
        assert!(
            matches!(in_page[..], [line, made] if line.split(" | ").count() == 9 && made.contains("`scripts/bench --only ")),
            "{written}"
        );
    }
    assert!(is_empty(temporary.path()));
}

fn ends_in_verdict(line: &str) -> bool {
    ["met", "missed", "equal"].iter().any(|verdict| line.ends_with(verdict))
}

#[test]
fn a_bench_that_is_ended_early_leaves_nothing() {
    // As soon as the first of its programs is measured.
    ended_early_leaves_nothing(
        |temporary| {
            let mut bench = script("bench", temporary);
            bench.args(SMALL).args(["--only", "gzip", "--rounds", "1000"]);
            bench
        },
        "log",
    );
}

#[test]
fn a_row_that_is_not_there_is_refused_by_name() {
    let temporary = tempfile::tempdir().unwrap();
    let output = script("bench", temporary.path()).args(["--only", "gzip,gunzip"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("no such row: gunzip. There are gzip, zstd, "), "{stderr}");
    assert!(is_empty(temporary.path()));
}

#[test]
fn the_page_of_figures_has_every_row() {
    let page = fs::read_to_string(repository().join("docs/performance.md")).unwrap();
    let rows = rows();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        assert!(page.contains(&format!("`scripts/bench --only {row}`")), "docs/performance.md has no row {row}");
    }
}
