//! The CI job and the crontab lines of docs/drills.md, run as they stand on a backup of real data.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Block, page};
use crate::support::cluster::{PASSWORD, binaries};
use crate::support::{Test, sample_database};

pub const PAGE: &str = "docs/drills.md";

fn blocks(info: &str) -> Vec<Block> {
    let blocks: Vec<_> = page(PAGE).blocks().into_iter().filter(|block| block.info == info).collect();
    assert!(!blocks.is_empty(), "{PAGE} shows no {info}");
    blocks
}

/// Runs a line as a shell in the test's directory would.
#[track_caller]
fn run(test: &Test, line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_db-backup-tools")).parent().unwrap();
    let output = Command::new("sh")
        .args(["-euc", line])
        .env_clear()
        .env("PATH", format!("{}:{}:/usr/bin:/bin", program.display(), binaries().display()))
        .envs([("DB_PASSWORD", PASSWORD), ("HOME", test.path("").to_str().unwrap())])
        .current_dir(test.path(""))
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{line}: {}\n{stdout}{stderr}", output.status);
    stdout + &stderr
}

#[test]
fn the_job_and_the_crontab_lines_do_what_the_page_says() {
    let database = sample_database();
    let test = Test::of(&database);
    test.run(["-q", "backup"]).ok();
    for block in blocks("yaml ci") {
        let job: serde_yaml::Value = serde_yaml::from_str(&block.text).unwrap();
        for line in job["restore-drill"]["script"].as_sequence().unwrap() {
            run(&test, line.as_str().unwrap());
        }
        for path in job["restore-drill"]["artifacts"]["paths"].as_sequence().unwrap() {
            let kept = std::fs::read(test.path(path.as_str().unwrap())).unwrap();
            let document: Value = serde_json::from_slice(&kept).unwrap();
            assert_eq!(document["items"][0]["status"], "passed", "{document}");
        }
    }
    for line in blocks("crontab").iter().flat_map(|block| block.text.lines()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let command = words[5..].join(" ").replace("/etc/db-backup/backup.yml", "backup.yml");
        // What is printed would be mailed.
        assert_eq!(run(&test, &command), "", "{line}");
    }
}
