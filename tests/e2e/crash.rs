//! `kill -9` before every call that changes a file: what is listed is whole all the same, and the next
//! run needs no help. What is whole is judged here by code of its own, not by the program's.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::strace::for_each_step;
use crate::support::tool::files_below;
use crate::support::{Cluster, Database, SHARED, Step, Test, Traced, eventually, sample_database};

/// A database whose backup is quickly made.
pub fn tiny_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 500) g");
    database
}

fn sha256sum(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    assert!(output.status.success(), "sha256sum {}", file.display());
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// A test of one target with other storages than the usual one: lines of YAML.
pub fn with_storages(test: Test, lines: &str) -> Test {
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let (head, tail) = config.split_once("  local:").unwrap();
    test.write("backup.yml", &format!("{head}{lines}targets:{}", tail.split_once("targets:").unwrap().1));
    test
}

/// The ids of the manifests below a storage. Each must have its artifact, to the byte.
#[track_caller]
fn whole_in(storage: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    for name in files_below(storage).iter().filter(|name| name.ends_with(".manifest.json")) {
        let path = storage.join(name);
        let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let artifact = path.parent().unwrap().join(manifest["artifact"]["name"].as_str().unwrap());
        assert_eq!(fs::metadata(&artifact).unwrap().len(), manifest["artifact"]["bytes"], "{name}");
        assert_eq!(sha256sum(&artifact), manifest["artifact"]["sha256"], "{name}");
        let inventory = path.parent().unwrap().join(manifest["inventory"]["name"].as_str().unwrap());
        assert_eq!(sha256sum(&inventory), manifest["inventory"]["sha256"], "{name}");
        ids.push(manifest["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids
}

/// All that `list` shows must be whole, byte for byte, and be all that is; that another storage lacks it may be told,
/// and nothing else. Gives it: id and storages.
#[track_caller]
fn listed(test: &Test, storages: &[&str], when: &str) -> Vec<(String, Vec<String>)> {
    let found = test.run(["list", "--verify", "--json"]).json();
    let problems = found["problems"].as_array().unwrap();
    assert!(problems.iter().all(|problem| problem["step"] == "behind"), "{when}: {problems:?}");
    assert_eq!(found["exit_code"], if problems.is_empty() { 0 } else { 3 }, "{when}");
    let items = found["items"].as_array().unwrap().clone();
    let mut rows = Vec::new();
    for item in &items {
        assert!(item["state"] == "whole" && !item["proven"].is_null(), "{when}: {item}");
        let held = item["storages"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        rows.push((item["id"].as_str().unwrap().to_owned(), held));
    }
    for storage in storages {
        let shown = rows.iter().filter(|(_, held): &&(_, Vec<String>)| held.iter().any(|name| name == storage));
        let mut shown: Vec<String> = shown.map(|(id, _)| id.clone()).collect();
        shown.sort();
        assert_eq!(shown, whole_in(&test.path(storage)), "{when}");
    }
    rows
}

/// What files in the storages belong to no whole backup, by id.
fn leftovers(test: &Test, storages: &[&str]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for storage in storages {
        let whole = whole_in(&test.path(storage));
        let files = files_below(&test.path(storage));
        let id_of = |file: &String| file.rsplit('/').next()?.split_once("app_")?.1.split('.').next().map(str::to_owned);
        ids.extend(files.iter().map(|file| id_of(file).unwrap()).filter(|id| !whole.contains(id)));
    }
    ids.sort();
    ids.dedup();
    ids
}

/// `list --all` must name every leftover; once they are three days old, `prune` must remove each, and nothing else.
#[track_caller]
fn leftovers_are_named_and_collected(test: &Test, storages: &[&str], when: &str) {
    let expected = leftovers(test, storages);
    let items = test.run(["list", "--all", "--json"]).ok().json()["items"].as_array().unwrap().clone();
    let incomplete = items.iter().filter(|item| item["state"] == "incomplete");
    let mut named: Vec<&str> = incomplete.map(|item| item["id"].as_str().unwrap()).collect();
    named.sort_unstable();
    let partly = items.iter().filter(|item| item["state"] == "whole" && expected.iter().any(|id| item["id"] == **id));
    named.extend(partly.map(|item| item["id"].as_str().unwrap()));
    assert_eq!(named, expected, "{when}");
    let kept: Vec<_> = storages.iter().map(|storage| whole_in(&test.path(storage))).collect();
    for storage in storages {
        let aged = Command::new("find").arg(test.path(storage)).args(["-exec", "touch", "-d", "3 days ago", "{}", "+"]).status();
        assert!(aged.unwrap().success());
    }
    test.run(["prune"]).ok();
    assert_eq!(leftovers(test, storages), [""; 0], "{when}: {:?}", test.stored());
    assert_eq!(kept, storages.iter().map(|storage| whole_in(&test.path(storage))).collect::<Vec<_>>(), "{when}");
}

/// Kills `backup` before each of these steps, and looks at what stands then.
fn survive_backups(steps: &[Step], storages: &[&str], fresh: impl Fn() -> Traced + Sync) {
    for_each_step(steps, |step| {
        let test = fresh();
        let when = format!("killed before {step:?}");
        test.killed_before(step, ["backup"]);
        let before = listed(&test, &storages.iter().copied().filter(|name| test.path(name).exists()).collect::<Vec<_>>(), &when);
        assert!(before.len() < 2, "{when}");
        test.run(["backup"]).ok();
        let after = listed(&test, storages, &when);
        assert_eq!(after.len(), before.len() + 1, "{when}");
        assert!(after.iter().any(|(_, held)| held.len() == storages.len()), "{when}: {after:?}");
        leftovers_are_named_and_collected(&test, storages, &when);
    });
}

#[test]
fn a_backup_killed_at_any_step_is_whole_or_not_listed() {
    let database = tiny_database();
    let one = "  storage: { type: local, path: '{storage}' }\n";
    let fresh = || Traced::new(with_storages(Test::of(&database), one));
    let steps = fresh().steps(["backup"]);
    let renames = steps.iter().filter(|step| step.call.starts_with("rename")).count();
    assert_eq!(renames, 3, "artifact, inventory, manifest: {steps:?}");
    survive_backups(&steps, &["storage"], fresh);
}

#[test]
fn a_backup_killed_between_two_storages_is_whole_in_each_that_lists_it() {
    let database = tiny_database();
    let fresh = || {
        let two = "  one: { type: local, path: '{dir}/one' }\n  two: { type: local, path: '{dir}/two' }\n";
        let test = with_storages(Test::of(&database).target_option("storages: [one, two]"), two);
        for name in ["one", "two"] {
            fs::create_dir(test.path(name)).unwrap();
        }
        Traced::new(test)
    };
    let mut steps = fresh().steps(["backup"]);
    steps.retain(|step| ["renameat2", "write", "unlink"].contains(&step.call.as_str()));
    survive_backups(&steps, &["one", "two"], fresh);
}

#[test]
fn a_backup_killed_in_the_middle_of_its_bytes_is_not_listed() {
    let database = sample_database();
    // Its parent is the program, which dies when the first bytes are in the storage.
    let half = r#"case "$1" in --format*) ;; *) exec {real} "$@" ;; esac
        {real} "$@" | head -c 5000000
        until find '{storage}' -name '.app*' -size +0 | grep -q .; do sleep 0.01; done
        kill -9 $PPID"#;
    let test = Test::of(&database).target_option("compression: { type: none }").fake_bin("pg_dump", half);
    assert_eq!(test.run(["backup"]).signal, Some(9));
    assert!(test.stored().iter().any(|file| file.contains(".tmp-")), "{:?}", test.stored());
    assert_eq!(whole_in(&test.storage()), [""; 0]);
    let items = test.run(["list", "--json"]).ok().json();
    assert_eq!(items["items"].as_array().unwrap().len(), 0);
    leftovers_are_named_and_collected(&test, &["storage"], "in the middle");
}

#[test]
fn a_backup_killed_while_a_large_artifact_is_synced_is_not_listed() {
    let database = tiny_database();
    let large = r#"case "$1" in --format*) ;; *) exec {real} "$@" ;; esac
        yes -- '-- a line that only takes space' | head -c 64M; echo; exec {real} "$@""#;
    let test = Test::of(&database).target_option("compression: { type: none }").fake_bin("pg_dump", large);
    let test = Traced::new(test);
    let wrapper = "strace -f --seccomp-bpf -o trace -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=1";
    let ran = test.run_under(wrapper, ["backup"]);
    assert_eq!(ran.signal, Some(9), "{ran:?}");
    assert_eq!(whole_in(&test.storage()), [""; 0]);
    test.run(["backup"]).ok();
    assert_eq!(whole_in(&test.storage()).len(), 1);
    leftovers_are_named_and_collected(&test, &["storage"], "in the sync");
}

#[test]
fn a_prune_killed_at_any_step_leaves_whole_backups_and_is_done_by_the_next() {
    let database = tiny_database();
    let fresh = || Test::of(&database).target_option("retention: { keep_last: 1 }");
    let template = fresh();
    for _ in 0..3 {
        template.run(["backup", "--no-prune", "--label", "to be pruned"]).ok();
    }
    let newest = whole_in(&template.storage()).pop().unwrap();
    let copied = || {
        let test = fresh();
        fs::remove_dir(test.storage()).unwrap();
        let copied = Command::new("cp").arg("-a").arg(template.storage()).arg(test.storage()).status();
        assert!(copied.unwrap().success());
        Traced::new(test)
    };
    let test = copied();
    let steps = test.steps(["prune"]);
    assert_eq!(whole_in(&test.storage()).len(), 1);
    assert_eq!(steps.iter().filter(|step| step.call.starts_with("unlink")).count(), 6, "{steps:?}");
    for_each_step(&steps, |step| {
        let (test, when) = (copied(), format!("killed before {step:?}"));
        test.killed_before(step, ["prune"]);
        // By hand, as a verification would add files to delete.
        let whole = whole_in(&test.storage());
        let items = test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().clone();
        let mut shown: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
        shown.sort_unstable();
        assert_eq!(shown, whole, "{when}");
        test.run(["prune"]).ok();
        assert_eq!(whole_in(&test.storage()), std::slice::from_ref(&newest), "{when}");
        leftovers_are_named_and_collected(&test, &["storage"], &when);
        assert_eq!(test.stored().len(), 3, "{when}: {:?}", test.stored());
    });
}

#[test]
fn a_restore_into_a_file_killed_at_any_step_leaves_the_whole_file_or_none() {
    let database = tiny_database();
    let fresh = || Traced::new(Test::of(&database));
    let test = fresh();
    test.run(["backup"]).ok();
    let manifest: Value = serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap();
    let file = test.path("out.sql");
    let restore = ["restore", "app", "--output", file.to_str().unwrap()];
    let steps = test.steps(restore);
    fs::remove_file(&file).unwrap();
    for step in &steps {
        test.killed_before(step, restore);
        if file.exists() {
            assert_eq!(sha256sum(&file), manifest["content"]["sha256"], "killed before {step:?}");
            fs::remove_file(&file).unwrap();
        }
        test.run(restore).ok();
        assert_eq!(sha256sum(&file), manifest["content"]["sha256"], "after a kill before {step:?}");
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_restore_killed_at_any_moment_leaves_the_whole_database_or_none_of_that_name() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 500) g");
    let test = Traced::new(Test::of(&database));
    test.run(["backup"]).ok();
    let restore = ["restore", "app", "--to-database", "wanted"];
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'db-backup-tools%'";
    let scratch = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname LIKE 'wanted_restoring%'";
    for number in (1..).step_by(6) {
        // It waits for its children all along.
        let wrapper = format!("strace -o trace -e trace=waitid -e inject=waitid:signal=KILL:when={number}");
        let ran = test.run_under(&wrapper, restore);
        if ran.code == Some(0) {
            assert!(number > 7, "killed in the first moments only: {number}");
            break;
        }
        assert_eq!(ran.signal, Some(9), "{ran:?}");
        let restored = cluster.adopt("wanted");
        eventually("what it started has ended", || cluster.psql("postgres", ours) == "0");
        for line in cluster.psql("postgres", scratch).lines() {
            let (name, comment) = line.split_once('|').unwrap();
            // The comment is the statement after the one that makes the database.
            assert!(comment.is_empty() || comment.starts_with("db-backup-tools scratch database"), "{line}");
            drop(cluster.adopt(name));
        }
        if !restored.exists() {
            test.run(restore).ok();
        }
        assert_eq!(restored.dump(), database.dump(), "killed at wait {number}");
    }
}

#[test]
fn the_order_of_a_backup_is_dump_exit_artifact_manifest_each_synced_before_it_is_named() {
    let database = tiny_database();
    let test = Traced::new(Test::of(&database));
    let lines = test.order(["backup"]);
    let nth = |what: &str, found: Option<usize>| found.unwrap_or_else(|| panic!("no {what} in\n{}", lines.join("\n")));
    let after = |from: usize, parts: &[&str]| {
        let found = lines.iter().skip(from).position(|line| parts.iter().all(|part| line.contains(part)));
        nth(&format!("{parts:?} after line {from}"), found.map(|at| at + from))
    };
    let only_before = |limit: usize, parts: &[&str]| {
        let last = lines.iter().rposition(|line| parts.iter().all(|part| line.contains(part)));
        assert!(nth(&format!("{parts:?}"), last) < limit, "{parts:?} after line {limit} in\n{}", lines.join("\n"));
    };
    let thread = |line: usize| lines[line].split(' ').next().unwrap();
    let dump = after(0, &["execve(", "--format=plain"]);
    let waited = after(dump, &["waitid(", &format!("si_pid={}", thread(dump)), ", WNOHANG|WEXITED, NULL) = 0"]);
    let mut at = waited;
    for (name, ending) in [("artifact", ".sql.gz"), ("inventory", ".inventory.json"), ("manifest", ".manifest.json")] {
        let temporary = format!("{ending}.tmp-");
        let synced = after(at, &[" fsync(", &temporary]);
        only_before(synced, &[" write(", &temporary]);
        let named = after(synced, &["renameat2(", &temporary, "RENAME_NOREPLACE) = 0"]);
        at = after(named, &[" fsync(", "Z>) = 0"]);
        let run_directory = lines[at].split_once('<').unwrap().1.split('>').next().unwrap();
        assert!(lines[named].contains(&format!("{run_directory}/app_")), "{name}: {}", lines[at]);
        only_before(at, &[&temporary]);
    }
    let begun = |ending: &str| after(0, &["O_CREAT", ending]);
    assert!(begun(".manifest.json.tmp-") > after(0, &["renameat2(", ".inventory.json.tmp-"]));
    assert!(begun(".inventory.json.tmp-") > after(0, &["renameat2(", ".sql.gz.tmp-"]));
    // What the kill tests rest on: they see the main thread alone.
    let storage = test.storage().to_str().unwrap().to_owned();
    for line in lines.iter().filter(|line| line.contains(&storage) && !line.contains(" write(")) {
        assert_eq!(line.split(' ').next().unwrap(), thread(0), "not by the main thread: {line}");
    }
}
