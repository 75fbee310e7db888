//! Drills of backups of files: unpacked, counted, compared, thrown away.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::archive::{Archive, SMALL_TREE, small_tree, uploads_with};
use crate::support::{Signal, Test, eventually};

/// A test with a backup of a small tree, with more of the target: `, drill: { hash: true }`.
fn archived(more: &str) -> Test {
    let test = uploads_with(more);
    small_tree(&test.path("was"));
    Archive::of(&test.path("was")).counted(SMALL_TREE).put(&test, "uploads");
    test
}

/// What drills have left in a directory.
fn left_in(directory: &Path) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("db-backup-tools-drill-")).count()
}

/// With a tar that does something else where it would unpack.
fn fake_tar(test: Test, instead: &str) -> Test {
    test.fake_tar(&format!("case \"$*\" in *--extract*) {instead};; *) exec {{real}} \"$@\";; esac"))
}

#[test]
fn a_drill_counts_what_was_archived_and_is_a_proof() {
    let test = archived("");
    test.run(["-q", "list", "--max-unproven", "8d", "--json"]).fails(1);
    let ran = test.run(["restore", "--drill"]).ok();
    let ran = ran.says("drill passed").says("4 files, 4 directories, 3 links, 1 other").says("1.0 MiB").says("compared");
    assert!(!ran.stderr.contains("digest"), "{}", ran.stderr);
    test.run(["-q", "list", "--max-unproven", "8d"]).ok();
    assert_eq!(left_in(&test.path("state")), 0);
    assert!(!test.path("live").exists());
    let document = test.run(["restore", "--drill", "--json"]).ok().json();
    let compared = &document["items"][0]["compared"];
    assert_eq!(compared["tree"], json!({ "files": 4, "directories": 4, "links": 3, "others": 1, "bytes": SMALL_TREE[4] }));
    assert_eq!((&compared["files"], &compared["digests"]), (&json!(12), &json!(0)));
}

#[test]
fn digests_of_all_files_are_compared_where_they_are_asked_for() {
    let test = archived(", drill: { hash: true, directory: '{dir}/tmp' }");
    test.run(["restore", "--drill"]).ok().says("and 4 digests compared").says("tmp");
    // What tar unpacks is not what it was given.
    let test = fake_tar(test, r#"{real} "$@"; for d in {dir}/tmp/*/content; do printf 'jello' >"$d/file"; done"#);
    let ran = test.run(["restore", "--drill"]).fails(1);
    ran.says("./file holds something else than was archived").says("restored is not what was dumped");
    assert_eq!(left_in(&test.path("tmp")), 0);
    assert!(test.run(["list"]).fails(3).stdout.contains("damaged"));
    // Without digests nothing of it would be seen.
    let test = archived("");
    let test = fake_tar(test, r#"{real} "$@"; for d in {dir}/state/*/content; do printf 'jello' >"$d/file"; done"#);
    test.run(["restore", "--drill"]).ok();
}

#[test]
fn what_is_missing_is_named() {
    let test = archived("");
    let test = fake_tar(test, r#"{real} "$@"; cd {dir}/state/*/content; rm absolute; mkdir more"#);
    let ran = test.run(["restore", "--drill"]).fails(1);
    ran.says("there are 5 directories, and 4 were archived; there are 2 links, and 3 were archived");
}

#[test]
fn a_drill_that_can_not_run_says_nothing_of_the_backup() {
    let test = archived("");
    let test = fake_tar(test, "cat >/dev/null; echo 'tar: ./file: Cannot write: No space left on device' >&2; exit 2");
    test.run(["restore", "--drill"]).fails(1).says("No space left on device").says("make room");
    assert!(test.run(["list"]).ok().stdout.contains("whole"));
    let test = archived(", drill: { directory: '{dir}/nowhere' }");
    test.run(["restore", "--drill"]).fails(1).says("nowhere").says("`drill: { directory: ... }`");
}

#[test]
fn an_ordinary_user_drills_others_files_and_is_told() {
    let test = uploads_with(", drill: { hash: true }");
    small_tree(&test.path("was"));
    Archive::of(&test.path("was")).owners(&["0:0"]).counted(SMALL_TREE).put(&test, "uploads");
    let test = test.unprivileged();
    test.run(["restore", "--drill"]).ok().says("owners were not tried").says("4 digests");
    assert_eq!(left_in(&test.path("state")), 0);
}

#[test]
fn an_empty_directory_is_something_that_is_compared() {
    let test = uploads_with("");
    fs::create_dir(test.path("was")).unwrap();
    Archive::of(&test.path("was")).counted([0, 1, 0, 0, 0]).put(&test, "uploads");
    test.run(["restore", "--drill"]).ok().says("0 files and 1 directory compared");
}

#[test]
fn a_killed_drill_is_cleaned_up_by_the_next() {
    let test = archived("");
    let test = fake_tar(test, "touch {dir}/began; exec sleep 1000");
    let running = test.spawn(["restore", "--drill"]);
    eventually("tar is started", || test.path("began").exists());
    running.kill(Signal::KILL);
    running.wait();
    assert_eq!(left_in(&test.path("state")), 1);
    fs::remove_file(test.path("bin/tar")).unwrap();
    test.run(["restore", "--drill"]).ok().says("which an interrupted run left");
    assert_eq!(left_in(&test.path("state")), 0);
}
