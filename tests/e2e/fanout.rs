//! Several storages of one target: who has what, what is told of one that lacks it, and how a run goes on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::storages::{Disk, can_mount, stored_in, with_second};
use crate::support::{Planted, Ran, SHARED, Test};

const NOW: &str = "2026-06-12T12:00:00Z";
const CONFIG: &str = "
version: 1
host: web1
state_dir: {state}
storages:
  local: { type: local, path: '{storage}' }
  offsite: { type: local, path: '{dir}/offsite' }
  third: { type: local, path: '{dir}/third' }
defaults: { storages: [local, offsite] }
targets:
  - { name: app, type: postgres, database: app }
  - { name: shop, type: postgres, database: shop }
  - { name: old, type: postgres, database: old, enabled: false }
  - { name: solo, type: postgres, database: solo, storages: [local] }
  - { name: wide, type: postgres, database: wide, storages: [local, offsite, third] }
";

fn test() -> Test {
    let test = Test::new().config(CONFIG);
    for name in ["offsite", "third"] {
        fs::create_dir(test.path(name)).unwrap();
    }
    test
}

fn plant(test: &Test, unit: &str, id: &str, storages: &[&str]) {
    for name in storages {
        Planted::new(unit, id).into(&test.path(name));
    }
}

/// Of each problem unit, storage and step.
fn told(ran: &Ran) -> Vec<String> {
    let problems = ran.json()["problems"].as_array().unwrap().clone();
    let text = |problem: &Value, field: &str| problem[field].as_str().unwrap_or("-").to_owned();
    problems.iter().map(|problem| ["target", "storage", "step"].map(|field| text(problem, field)).join(" ")).collect()
}

fn listed(test: &Test, arguments: &[&str]) -> Ran {
    test.run_at(NOW, [&["list", "--json"], arguments].concat())
}

#[test]
fn a_storage_a_run_behind_its_sibling_is_a_warning() {
    let test = test();
    plant(&test, "app", "20260611_030000Z-aaaa", &["storage", "offsite"]);
    assert_eq!(told(&listed(&test, &[]).ok()), Vec::<String>::new());
    plant(&test, "app", "20260612_030000Z-bbbb", &["storage"]);
    let ran = listed(&test, &[]).fails(3).says(
        "app: storage offsite: behind: it lacks the newest whole backup, 20260612_030000Z-bbbb, which local holds; \
         its newest is 20260611_030000Z-aaaa",
    );
    let ran = ran.says("hint: the messages of the last `backup` say why");
    assert_eq!(told(&ran), ["app offsite behind"]);
    let problem = &ran.json()["problems"][0];
    assert_eq!((&problem["severity"], &problem["kind"]), (&json!("partial"), &json!("check")));
    // The same for a monitor, and whatever else is shown.
    for more in [&["--max-age", "26h", "app"][..], &["--stats"], &["--limit", "1", "app"], &["--all"]] {
        listed(&test, more).fails(3).says("storage offsite: behind: ");
    }
    // The next night makes it good.
    plant(&test, "app", "20260612_040000Z-cccc", &["storage", "offsite"]);
    listed(&test, &[]).ok();
}

#[test]
fn a_storage_that_is_empty_for_a_unit_is_a_warning() {
    let test = test();
    plant(&test, "app", "20260612_030000Z-aaaa", &["storage", "offsite"]);
    plant(&test, "shop", "20260612_030000Z-bbbb", &["offsite"]);
    plant(&test, "wide", "20260612_030000Z-cccc", &["offsite"]);
    let ran = listed(&test, &[]).fails(3).says("shop: storage local: behind: ").says("bbbb, which offsite holds; it holds none");
    assert_eq!(told(&ran), ["shop local behind", "wide local behind", "wide third behind"]);
    // An upload that never ended is none.
    fs::create_dir_all(test.path("storage/web1/20260612_030000Z")).unwrap();
    fs::write(test.path("storage/web1/20260612_030000Z/shop_20260612_030000Z-bbbb.sql.gz"), "x").unwrap();
    assert_eq!(told(&listed(&test, &["shop"]).fails(3)), ["shop local behind"]);
}

#[test]
fn nothing_is_told_where_nothing_is_missed() {
    let test = test();
    // No unit has one: there is nothing to compare.
    listed(&test, &[]).ok();
    // A disabled target, one storage alone, a unit that no target has, another host.
    for unit in ["old", "solo", "gone"] {
        plant(&test, unit, "20260612_030000Z-aaaa", &["storage"]);
    }
    Planted::new("app", "20260612_030000Z-bbbb").host("web2").into(&test.storage());
    listed(&test, &[]).ok();
    listed(&test, &["--host", "web2"]).ok();
    // One dated in the future is nobody's newest.
    plant(&test, "app", "20260611_030000Z-cccc", &["storage", "offsite"]);
    plant(&test, "app", "20270101_030000Z-dddd", &["storage"]);
    listed(&test, &[]).ok();
    // A second attempt has another id, and is of the same run.
    plant(&test, "app", "20260612_030000Z-eeee", &["storage"]);
    plant(&test, "app", "20260612_030000Z-ffff", &["offsite"]);
    listed(&test, &[]).ok();
    // What is asked of one storage, or of one backup.
    plant(&test, "app", "20260612_040000Z-gggg", &["offsite"]);
    listed(&test, &["--storage", "local"]).ok();
    listed(&test, &["--at", "latest", "app"]).ok();
    listed(&test, &["shop", "solo"]).ok();
    listed(&test, &["--host", "web1"]).fails(3);
}

#[test]
fn what_is_told_already_is_not_told_twice() {
    let test = test();
    plant(&test, "app", "20260611_030000Z-aaaa", &["storage", "offsite"]);
    plant(&test, "app", "20260612_030000Z-bbbb", &["storage", "offsite"]);
    let artifact = test.path("offsite/web1/20260612_030000Z/app_20260612_030000Z-bbbb.sql.gz");
    fs::write(&artifact, "short").unwrap();
    assert_eq!(told(&listed(&test, &[]).fails(3)), ["app offsite -"]);
    // Where the newest is nowhere whole, the one before counts.
    fs::write(test.path("storage/web1/20260612_030000Z/app_20260612_030000Z-bbbb.sql.gz"), "short").unwrap();
    assert_eq!(told(&listed(&test, &[]).fails(3)), ["app local -", "app offsite -"]);
    fs::remove_dir_all(test.path("offsite/web1/20260611_030000Z")).unwrap();
    assert_eq!(told(&listed(&test, &[]).fails(3)), ["app local -", "app offsite -", "app offsite behind"]);
    fs::rename(test.path("offsite"), test.path("away")).unwrap();
    assert_eq!(told(&listed(&test, &[]).fails(1)), ["- offsite list", "app local -"]);
}

#[test]
fn a_backup_into_one_storage_alone_leaves_the_other_behind() {
    let database = SHARED.create_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    test.run(["backup"]).ok();
    test.run(["backup", "--storage", "local"]).ok();
    test.run(["list"]).fails(3).says("app: storage second: behind: ");
    test.run(["backup"]).ok();
    test.run(["list"]).ok();
}

#[test]
fn the_newest_is_looked_for_in_all_storages_and_one_that_is_gone_stops_restore_and_drill() {
    let database = SHARED.create_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    database.psql("CREATE TABLE t (word text); INSERT INTO t VALUES ('the former')");
    test.run(["backup"]).ok();
    database.psql("UPDATE t SET word = 'the newest'");
    test.run(["backup", "--storage", "second"]).ok();
    let restored = |more: &[&str]| test.run([&["restore", "app", "--output", "-"], more].concat());
    assert!(restored(&[]).ok().stdout.contains("the newest"));
    assert!(restored(&["--from", "local"]).ok().stdout.contains("the former"));
    fs::rename(test.path("second"), test.path("away")).unwrap();
    let hint = "the newest backup may be there; to go on without it: --from NAME (of: local)";
    assert_eq!(restored(&[]).fails(1).says("storage second: ").says(hint).stdout, "");
    assert!(restored(&["--from", "local"]).ok().stdout.contains("the former"));
    test.run(["restore", "--drill", "app", "--dry-run"]).fails(1).says("storage second: ").says(hint);
    test.run(["restore", "--drill", "app", "--dry-run", "--from", "local"]).ok();
    // What is left is shown, and that a storage is gone is told once.
    let ran = test.run(["list", "--json"]).fails(1);
    assert_eq!((told(&ran), ran.json()["items"].as_array().unwrap().len()), (vec!["- second list".to_owned()], 1));
}

/// What mounts and removals make of three storages in one night, and that the next one is none the worse.
#[test]
fn of_four_storages_three_fail_each_in_its_way_and_the_fourth_has_it() {
    if !can_mount() {
        eprintln!("SKIPPED: no file system can be mounted here (it takes root)");
        return;
    }
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT n AS id, md5(n::text) AS word FROM generate_series(1, 100000) n");
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let more = "  full: { type: local, path: '{dir}/full/s' }\n  locked: { type: local, path: '{dir}/locked/s' }\ntargets:";
    let config = config.replace("targets:", more).replace("storages: [local, second]", "storages: [full, local, locked, second]");
    test.write("backup.yml", &config);
    let (full, locked) = (Disk::mount(test.path("full"), "size=1m"), Disk::mount(test.path("locked"), "size=64m"));
    fs::create_dir(test.path("locked/s")).unwrap();
    remount(&test.path("locked"), "ro");
    fs::write(test.path("second"), "no directory").unwrap();
    let ran = test.run(["backup", "--json"]).fails(3).says("No space left on device").says("hint: the disk is full");
    let ran = ran.says("app: storage locked: upload: ").says("Read-only file system").says("is no directory");
    let item = &ran.json()["items"][0];
    assert_eq!((&item["status"], &item["storages"]), (&json!("partial"), &json!(["local"])));
    let mut without: Vec<String> = told(&ran).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    without.sort();
    assert_eq!(without, ["full", "locked", "second"]);
    let all_have_hints = ran.json()["problems"].as_array().unwrap().iter().all(|problem| problem["hint"].is_string());
    assert!(all_have_hints, "{}", ran.stdout);
    assert_eq!((test.stored().len(), stored_in(&test.path("full/s")).len()), (3, 0));
    // Room, a disk that can be written, a directory.
    remount(&test.path("full"), "rw,size=64m");
    remount(&test.path("locked"), "rw");
    fs::remove_file(test.path("second")).unwrap();
    let ran = test.run(["backup", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["storages"].as_array().unwrap().len(), 4);
    test.run(["list", "--verify"]).ok();
    drop((full, locked));
}

fn remount(place: &Path, options: &str) {
    let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(place).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_storage_that_only_grows_is_tried_without_making_anything() {
    let database = SHARED.create_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second', prune: false }");
    let ran = test.run(["validate", "--connect"]).ok();
    let line = ran.stdout.lines().find(|line| line.contains("storage second")).unwrap();
    assert!(line.contains("as prune is false nothing of a backup was stored"), "{line}");
    assert!(stored_in(&test.path("second")).is_empty());
    let test = with_second(&database, "{ type: local, path: '{dir}/absent/second', prune: false }");
    test.run(["validate", "--connect"]).fails(1);
}

// FIELD: different retention for each storage; one that only grows keeps all of them, night after night.
#[test]
fn each_storage_keeps_what_its_own_policy_says() {
    let database = SHARED.create_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second', prune: false }");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let third = "  third: { type: local, path: '{dir}/third', retention: { keep_last: 2 } }\ntargets:";
    let config = config.replace("targets:", third).replace("[local, second]", "[local, second, third]");
    test.write("backup.yml", &format!("{config}    retention: {{ keep_last: 1 }}\n"));
    for _ in 0..3 {
        test.run(["backup"]).ok();
    }
    let held = |storage: &str| test.run(["list", "--json", "--storage", storage]).ok().json()["items"].as_array().unwrap().len();
    assert_eq!(["local", "second", "third"].map(held), [1, 3, 2]);
    // Each has the newest: nobody is behind.
    test.run(["list"]).ok();
}
