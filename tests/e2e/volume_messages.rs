//! What tar says while it reads, made for real: by the machine's own tar, and files that change under it, or system calls that fail.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::support::{
    Ran, Test,
    volume_target::{real_tar, tar_of},
};

/// Two files of which tar is in the midst of one when it has written 100,000 bytes.
const TWO: &str = "for name in a b; do head -c 3000000 /dev/urandom >$name; done";

fn manifest(test: &Test) -> Value {
    serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap()
}

/// What stands in the report as warnings stands in the manifest as well, with this among it.
#[track_caller]
fn recorded(test: &Test, ran: Ran, text: &str) {
    let ran = ran.says(text);
    let warnings = manifest(test)["warnings"].as_array().unwrap().clone();
    assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains(text)), "{text}: {warnings:?}\n{}", ran.stderr);
}

/// With tar under strace, which has system calls on a path in the tree go wrong: tar itself tells. strace's own words are
/// left out.
fn with_failing(test: Test, path: &str, call: &str, how: &str) -> Test {
    // It must be there as it is named, relative or not.
    test.fake_tar(&format!(
        "case \"$*\" in *--file=-*) ;; *) exec {{real}} \"$@\" ;; esac\n\
         mkfifo {{bin}}/said; grep -v '^strace: ' <{{bin}}/said >&2 & cd {{dir}}/tree\n\
         strace -o {{dir}}/trace -P '{path}' -e trace={call} -e inject={call}:{how} {{real}} \"$@\" 2>{{bin}}/said\n\
         code=$?; wait; exit $code"
    ))
}

#[test]
fn a_file_that_vanishes_is_a_warning_with_its_name() {
    // Both go: tar holds one open, and has the other's name on its list.
    let test = Test::of_tree(TWO, "").meanwhile("rm a b");
    let ran = test.run(["backup"]).ok();
    recorded(&test, ran.clone(), "1 file vanished while the tree was read, and the backup has no copy: ");
    recorded(&test, ran, "1 file went away while being read; the backup has what was read: ");
    let archived = test.archived();
    assert!(archived == ["./", "./a"] || archived == ["./", "./b"], "{archived:?}");
    assert_eq!(manifest(&test)["inventory"]["files"], 1);
}

#[test]
fn a_file_that_changes_is_in_doubt_unless_that_is_allowed() {
    let test = Test::of_tree("mkdir data; head -c 3000000 /dev/urandom >data/a", "").meanwhile("printf more >>data/a");
    let ran = test.run(["backup"]).fails(3);
    recorded(&test, ran, "1 file changed while being read; the copy may be neither the old content nor the new one: data/a");
    for pattern in ["data", "/data/a", "a", "*"] {
        let lines = format!("allow_changed: ['{pattern}']");
        let test = Test::of_tree("mkdir data; head -c 3000000 /dev/urandom >data/a", &lines).meanwhile("printf more >>data/a");
        recorded(&test, test.run(["backup"]).ok(), "1 file changed while being read, which allow_changed allows: data/a");
    }
    let test = Test::of_tree("mkdir data; head -c 3000000 /dev/urandom >data/a", "allow_changed: [/a, dat]")
        .meanwhile("printf more >>data/a");
    test.run(["backup"]).fails(3);
}

#[test]
fn a_file_that_shrinks_is_in_doubt_unless_that_is_allowed() {
    for (lines, code, text) in [
        ("", 3, "shrank while being read; the copy ends in zeros: a (by "),
        ("allow_changed: [a]", 0, "allow_changed allows: a (by "),
    ] {
        let test = Test::of_tree("head -c 30000000 /dev/urandom >a", lines).meanwhile("truncate -s 1000 a");
        let ran = test.run(["backup"]).fails(code);
        recorded(&test, ran, text);
        // As tar pads it, it has its length, and the stream is whole.
        assert_eq!(
            tar_of(&test.stored_one(".tar.gz"), &["--list", "--verbose"])
                .lines()
                .filter(|line| line.contains(" 30000000 "))
                .count(),
            1
        );
        assert_eq!(test.run(["list", "--verify", "--json"]).ok().json()["items"][0]["state"], "whole");
    }
}

#[test]
fn a_directory_that_changes_is_a_warning() {
    let test = Test::of_tree("mkdir d; head -c 3000000 /dev/urandom >d/a", "").meanwhile("touch d/new");
    recorded(
        &test,
        test.run(["backup"]).ok(),
        "1 directory changed while being read; what came or was moved there may be missing: d",
    );
}

#[test]
fn what_can_not_be_read_fails_unless_that_is_allowed() {
    let tree = "mkdir open closed; touch open/a closed/b readable; chmod 000 closed open/a";
    for (lines, code) in [("", 1), ("skip_unreadable: true", 0)] {
        let test = Test::of_tree(tree, lines).unprivileged();
        let ran = test
            .run(["backup"])
            .fails(code)
            .says("2 files")
            .says("closed (Permission denied)")
            .says("open/a (Permission denied)");
        if code == 0 {
            recorded(&test, ran, "2 files could not be read, and the backup has no copy (skip_unreadable)");
            assert_eq!(
                test.archived().into_iter().filter(|name| name != "./closed/").collect::<Vec<_>>(),
                ["./", "./open/", "./readable"]
            );
        } else {
            ran.says("run this as root, or as a user that may read them").says("skip_unreadable");
            assert!(!test.stored().iter().any(|path| path.ends_with(".manifest.json")));
        }
        test.in_tree("chmod 700 closed");
    }
}

#[test]
fn a_disk_that_can_not_be_read_fails_and_where_that_is_allowed_the_file_is_in_doubt() {
    for (lines, code) in [("", 1), ("skip_unreadable: true", 3)] {
        let test = with_failing(Test::of_tree("echo content >bad; echo content >good", lines), "bad", "read", "error=EIO");
        let ran = test.run(["backup"]).fails(code).says("bad (Read error at byte 0, while reading 8 bytes: Input/output error)");
        if code == 3 {
            recorded(&test, ran, "1 file could not be read to the end; the copy has zeros instead (skip_unreadable)");
        } else {
            ran.says("look at the disk");
        }
    }
}

#[test]
fn a_name_that_is_gone_when_tar_comes_to_it_is_a_warning() {
    let test = with_failing(Test::of_tree("touch 'a: b' c", ""), "a: b", "newfstatat", "error=ENOENT");
    recorded(&test, test.run(["backup"]).ok(), "1 file vanished while the tree was read, and the backup has no copy: a: b");
}

#[test]
fn attributes_that_can_not_be_read_are_a_doubt() {
    let test = with_failing(Test::of_tree("echo a >a; echo b >b", ""), "a", "flistxattr", "error=EIO");
    recorded(
        &test,
        test.run(["backup"]).fails(3),
        "1 file with extended attributes or an ACL that could not be read, and that the backup lacks: a (",
    );
}

#[test]
fn sockets_are_left_out_and_said() {
    let test = Test::of_tree("touch a", "");
    let _socket = std::os::unix::net::UnixListener::bind(test.path("tree/s.sock")).unwrap();
    recorded(&test, test.run(["backup"]).ok(), "1 file left out, as a tar holds no sockets: s.sock");
    assert_eq!(test.archived(), ["./", "./a"]);
}

#[test]
fn of_many_messages_the_first_names_are_told_and_the_rest_counted() {
    let tree = "head -c 3000000 /dev/urandom >z; mkdir d; cd d; seq 30000 | xargs touch";
    let test = Test::of_tree(tree, "").unprivileged();
    test.in_tree("cd d; seq 30000 | xargs chmod 000");
    let ran = test.run(["backup"]).fails(1);
    assert!(ran.stderr.contains("30000 files: ") && ran.stderr.contains(" and 29980 more"), "{}", &ran.stderr[..2000]);
    assert!(ran.stderr.len() < 20_000);
}

#[test]
fn what_this_program_does_not_know_puts_it_in_doubt() {
    let odd = r#"case "$*" in *--file=-*) echo 'tar: ./a: Something new' >&2 ;; esac; exec {real} "$@""#;
    let test = Test::of_tree("touch a", "").fake_tar(odd);
    recorded(&test, test.run(["backup"]).fails(3), "tar says what this program does not know: ");
    let failing = r#"case "$*" in *--file=-*) {real} "$@"; echo "$0: ./a: Something new" >&2; exit 2 ;; esac; exec {real} "$@""#;
    let test = Test::of_tree("touch a", "").fake_tar(failing);
    test.run(["backup"]).fails(1).says("tar exited with code 2: ./a: Something new");
}

#[test]
fn this_machines_tar_speaks_as_it_is_expected_to() {
    let said = Command::new(real_tar()).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("tar (GNU tar) 1."));
}
