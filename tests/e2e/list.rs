//! `list`: what a person reads, what a monitor reads, and what it never says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use insta::assert_snapshot;
use serde_json::json;

use crate::support::{Planted, Ran, SHARED, Test};

const NOW: &str = "2026-06-12T12:00:00Z";
const CONFIG: &str = "
version: 1
host: web1
state_dir: {state}
storages:
  local: { type: local, path: '{storage}' }
  offsite: { type: local, path: '{dir}/offsite' }
# That each of a target's storages has what its siblings have, is tests/e2e/fanout.rs.
defaults: { storages: [local] }
targets:
  - { name: app, type: postgres, database: app }
  - { name: shop, type: postgres, database: shop }
  - { name: old, type: postgres, database: old, enabled: false }
";

fn test() -> Test {
    let test = Test::new().config(CONFIG);
    fs::create_dir(test.path("offsite")).unwrap();
    test
}

/// Sizes differ with the versions of pg_dump.
fn table(ran: &Ran) -> String {
    ran.stdout.lines().map(|line| sized(line) + "\n").collect()
}

fn sized(line: &str) -> String {
    line.split("  ").map(|cell| if cell.ends_with(" B") { "SIZE" } else { cell }).collect::<Vec<_>>().join("  ")
}

fn ids(ran: &Ran) -> Vec<String> {
    let items = ran.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["id"].as_str().unwrap()[17..].to_owned()).collect()
}

fn verdicts(storage: &Path) -> Vec<String> {
    let files = crate::support::tool::files_below(storage);
    files.into_iter().filter_map(|file| Some(file.split_once(".verify.")?.1.to_owned())).collect()
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_person_reads_the_table_at_a_glance() {
    let test = test();
    let offsite = test.path("offsite");
    Planted::new("app", "20260601_030000Z-aaaa").pinned().label("before 2.0").into(&test.storage());
    for storage in [&test.storage(), &offsite] {
        Planted::new("app", "20260611_030000Z-bbbb").into(storage);
    }
    Planted::new("shop", "20260612_030001Z-cccc").into(&offsite);
    let bad = Planted::new("app", "20260612_030000Z-dddd").into(&test.storage());
    fs::remove_file(bad.with_extension("sql.gz")).unwrap();
    let ran = test.run_at(NOW, ["list"]).fails(3).says("app_20260612_030000Z-dddd.sql.gz is missing");
    assert_snapshot!(table(&ran), @r"
    ID                     UNIT  AGE   SIZE  STORAGES       STATE          PROVEN  LABEL
    20260601_030000Z-aaaa  app   11d  SIZE  local          whole, pinned       -  before 2.0
    20260611_030000Z-bbbb  app   33h  SIZE  local,offsite  whole               -
    20260612_030000Z-dddd  app    9h  SIZE  local          damaged             -
    20260612_030001Z-cccc  shop   8h  SIZE  offsite        whole               -
    ");
    assert_eq!(test.run_at(NOW, ["list", "shop"]).ok().stderr, "");
}

#[test]
fn json_has_every_field_to_the_letter() {
    let test = test();
    let files = Planted::new("app", "20260611_030000Z-bbbb").pinned().label("é \"x\"").into(&test.storage());
    fs::write(files.with_extension("verify.20260611_040000Z.ok"), "{}\n").unwrap();
    Planted::new("app", "20260611_030000Z-bbbb").into(&test.path("offsite"));
    let ran = test.run_at(NOW, ["list", "--json"]).ok();
    let bytes = fs::metadata(files.with_extension("sql.gz")).unwrap().len();
    let expected = json!({
        "schema": 1, "command": "list", "exit_code": 0, "outcome": "ok", "dry_run": false,
        "started": NOW, "finished": NOW, "problems": [],
        "items": [{
            "id": "20260611_030000Z-bbbb", "run": "20260611_030000Z", "host": "web1", "unit": "app",
            "started": "2026-06-11T03:00:00Z", "bytes": bytes, "storages": ["local", "offsite"], "state": "whole",
            "proven": "2026-06-11T04:00:00Z", "label": "é \"x\"", "pinned": true,
        }],
    });
    assert_eq!(ran.json(), expected);
}

#[test]
fn fifty_of_each_unit_are_shown_and_json_has_them_all() {
    let test = test();
    for unit in ["app", "shop"] {
        for minute in 0..55 {
            Planted::new(unit, &format!("20260611_03{minute:02}00Z-aa{minute:02}")).into(&test.storage());
        }
    }
    let rows = |arguments: &[&str]| {
        let ran = test.run_at(NOW, [&["list"], arguments].concat()).ok();
        ran.stdout.lines().skip(1).map(|line| line[17..21].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rows(&[]).len(), 100);
    assert_eq!(rows(&["app"])[0], "aa05");
    assert_eq!(rows(&["app", "--limit", "3"]), ["aa52", "aa53", "aa54"]);
    assert_eq!(rows(&["--limit", "0"]).len(), 110);
    assert_eq!(rows(&["app", "--at", "aa01"]), ["aa01"]);
    assert_eq!(ids(&test.run_at(NOW, ["list", "--json", "--limit", "3"]).ok()).len(), 110);
    // What is not shown takes no place.
    for minute in [53, 54] {
        let files = test.storage().join(format!("web1/20260611_03{minute}00Z/app_20260611_03{minute}00Z-aa{minute}"));
        fs::write(files.with_extension("manifest.json"), "{}").unwrap();
    }
    let ran = test.run_at(NOW, ["list", "app", "--limit", "2"]).fails(3).says("aa54.manifest.json");
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    assert!(ran.stdout.contains("aa51") && ran.stdout.contains("aa52"));
}

#[test]
fn incomplete_and_unknown_ones_are_shown_on_demand_and_told_always() {
    let test = test();
    let files = Planted::new("app", "20260610_030000Z-inco").into(&test.storage());
    fs::remove_file(files.with_extension("manifest.json")).unwrap();
    Planted::new("app", "20260611_030000Z-good").into(&test.storage());
    let files = Planted::new("app", "20260612_030000Z-newr").into(&test.storage());
    fs::write(files.with_extension("manifest.json"), r#"{"schema": 2, "id": {}}"#).unwrap();
    let ran = test.run_at(NOW, ["list"]).fails(3).says("app_20260612_030000Z-newr.manifest.json").says("upgrade");
    assert!(ran.stdout.contains("good") && !ran.stdout.contains("newr") && !ran.stdout.contains("inco"));
    let ran = test.run_at(NOW, ["list", "--all"]).fails(3);
    assert_snapshot!(table(&ran), @r"
    ID                     UNIT  AGE   SIZE  STORAGES  STATE       PROVEN  LABEL
    20260610_030000Z-inco  app    2d      -  local     incomplete       -
    20260611_030000Z-good  app   33h  SIZE  local     whole            -
    20260612_030000Z-newr  app    9h      -  local     unknown          -
    ");
}

#[test]
fn stats_sum_up_each_unit_and_count_a_backup_once() {
    let test = test();
    for day in 1..=4 {
        Planted::new("app", &format!("202606{day:02}_030000Z-aaa{day}")).into(&test.storage());
        Planted::new("app", &format!("202606{day:02}_030000Z-aaa{day}")).into(&test.path("offsite"));
    }
    let bad = Planted::new("app", "20260605_030000Z-aaa5").into(&test.storage());
    fs::write(bad.with_extension("sql.gz"), "cut").unwrap();
    let ran = test.run_at(NOW, ["list", "--stats", "--json"]).fails(3);
    let artifact = fs::metadata(test.storage().join("web1/20260601_030000Z/app_20260601_030000Z-aaa1.sql.gz")).unwrap().len();
    let item = &ran.json()["items"][0];
    assert_eq!((item["count"].as_u64(), item["bytes"].as_u64()), (Some(4), Some(4 * artifact)));
    assert_eq!((item["average_bytes"].as_u64(), item["growth"].as_f64()), (Some(artifact), Some(0.0)));
    assert_eq!((&item["oldest"], &item["newest"]), (&json!("2026-06-01T03:00:00Z"), &json!("2026-06-04T03:00:00Z")));
    assert!(item["compression_ratio"].as_f64().unwrap() > 1.0);
    let ran = test.run_at(NOW, ["list", "--stats", "app"]).fails(3);
    assert!(ran.stdout.starts_with("UNIT  HOST  COUNT"), "{}", ran.stdout);
}

#[test]
fn at_shows_the_one_that_a_restore_would_take() {
    let test = test();
    for (id, storage) in
        [("20260609_030000Z-aaa1", "storage"), ("20260610_030000Z-aaa2", "offsite"), ("20260612_030000Z-aaa3", "storage")]
    {
        Planted::new("app", id).into(&test.path(storage));
    }
    let damaged = Planted::new("app", "20260611_030000Z-dama").into(&test.storage());
    fs::remove_file(damaged.with_extension("sql.gz")).unwrap();
    Planted::new("app", "20270101_030000Z-futu").into(&test.storage());
    for (when, id) in [
        ("latest", "aaa3"),
        ("2026-06-11", "aaa2"),
        ("2d", "aaa2"),
        ("20260609", "aaa1"),
        ("aaa1", "aaa1"),
        ("futu", "futu"),
        ("2026-06-09T03:00:00Z", "aaa1"),
    ] {
        assert_eq!(ids(&test.run_at(NOW, ["list", "app", "--json", "--at", when]).ok()), [id], "{when}");
        if when != "futu" {
            test.run_at(NOW, ["restore", "app", "--output", test.path("x").to_str().unwrap(), "--dry-run", "--at", when]).ok();
        }
    }
    test.run_at(NOW, ["list", "app", "--at", "dama"]).fails(3);
    test.run_at(NOW, ["list", "app", "--at", "2026-06-01"]).fails(4).says("20260609_030000Z-aaa1");
    test.run_at(NOW, ["list", "app", "--at", "nono"]).fails(4).says("20270101_030000Z-futu");
    test.run_at(NOW, ["list", "app", "--at", "soon"]).fails(4);
    test.run_at(NOW, ["list", "app", "--at", "yesterday"]).fails(2);
}

#[test]
fn an_unknown_newest_is_not_passed_over_for_an_older_one() {
    let test = test();
    Planted::new("app", "20260611_030000Z-good").into(&test.storage());
    let files = Planted::new("app", "20260612_030000Z-newr").into(&test.storage());
    fs::write(files.with_extension("manifest.json"), r#"{"schema": 2}"#).unwrap();
    let output = test.path("out.sql");
    let output = output.to_str().unwrap();
    test.run_at(NOW, ["list", "app", "--at", "latest"]).fails(1).says("newr.manifest.json").says("upgrade");
    test.run_at(NOW, ["restore", "app", "--output", output]).fails(1).says("newr.manifest.json").says("upgrade");
    assert!(!test.path("out.sql").exists());
    test.run_at(NOW, ["restore", "app", "--output", output, "--at", "2026-06-11"]).ok();
    assert!(test.path("out.sql").exists());
}

#[test]
fn storages_hosts_and_names_choose_what_is_shown() {
    let test = test();
    Planted::new("app", "20260611_030000Z-aaa1").into(&test.storage());
    Planted::new("app", "20260611_030000Z-aaa2").into(&test.path("offsite"));
    Planted::new("app", "20260611_030000Z-aaa3").host("web2").into(&test.storage());
    Planted::new("app2", "20260611_030000Z-aaa4").into(&test.storage());
    Planted::new("cluster.app", "20260611_030000Z-aaa5").into(&test.storage());
    let shown = |arguments: &[&str]| {
        let mut shown = ids(&test.run_at(NOW, [&["list", "--json"], arguments].concat()).ok());
        shown.sort();
        shown.concat().replace("aaa", "")
    };
    assert_eq!(shown(&[]), "1245");
    assert_eq!(shown(&["app"]), "12");
    assert_eq!(shown(&["app", "-n", "app2"]), "124");
    assert_eq!(shown(&["app*"]), "124");
    assert_eq!(shown(&["cluster"]), "5");
    assert_eq!(shown(&["*.app"]), "5");
    assert_eq!(shown(&["--storage", "offsite"]), "2");
    assert_eq!(shown(&["--host", "web2"]), "3");
    assert_eq!(shown(&["--host", "web"]), "");
    assert_eq!(shown(&["shop"]), "");
    test.run_at(NOW, ["list", "ap"]).fails(4).says("did you mean app");
    test.run_at(NOW, ["list", "--storage", "nowhere"]).fails(4).says("local and offsite");
    test.run_at(NOW, ["list", "[", "--json"]).fails(2);
}

#[test]
fn a_new_machine_is_told_whose_backups_are_there() {
    let test = test();
    Planted::new("app", "20260611_030000Z-aaa3").host("web2").into(&test.storage());
    let ran = test.run_at(NOW, ["list"]).ok().says("host web1 has no backup here, but others do: web2").says("--host");
    assert_eq!(ran.stdout, "");
}

#[test]
fn an_empty_storage_is_no_failure_and_an_absent_one_is() {
    let test = test();
    assert_eq!(test.run_at(NOW, ["list", "--json"]).ok().json()["items"], json!([]));
    test.run_at(NOW, ["list"]).ok().says("no backups found");
    fs::remove_dir(test.path("offsite")).unwrap();
    Planted::new("app", "20260611_030000Z-aaa1").into(&test.storage());
    let ran = test.run_at(NOW, ["list", "--json"]).fails(1).says("storage offsite").says("offsite is not there");
    assert_eq!(ids(&ran), ["aaa1"]);
    test.run_at(NOW, ["list", "--storage", "local"]).ok();
}

#[test]
fn max_age_names_each_enabled_unit_that_is_too_old() {
    let test = test();
    Planted::new("app", "20260611_110000Z-aaa1").into(&test.storage());
    // None of these says that shop is fresh.
    Planted::new("shop", "20260612_110000Z-aaa2").host("web2").into(&test.storage());
    Planted::new("shop", "20270101_110000Z-aaa3").into(&test.storage());
    let damaged = Planted::new("shop", "20260612_110000Z-aaa4").into(&test.storage());
    fs::remove_file(damaged.with_extension("sql.gz")).unwrap();
    let ran = test.run_at(NOW, ["-q", "list", "--max-age", "26h"]).fails(1).says("shop: max-age: there is no whole backup");
    assert!(!ran.stderr.contains("error: app") && !ran.stderr.contains("error: old"), "{}", ran.stderr);
    Planted::new("shop", "20260601_110000Z-aaa5").into(&test.path("offsite"));
    let ran = test.run_at(NOW, ["-q", "list", "--max-age", "26h"]).fails(1).says("the newest whole backup is 11d");
    assert!(ran.stdout.contains("aaa1"));
    test.run_at(NOW, ["list", "app", "--max-age", "25h"]).ok();
    test.run_at("2026-06-12T12:00:01Z", ["list", "app", "--max-age", "25h"]).fails(1).says("app: max-age");
    test.run_at(NOW, ["list", "app", "--max-age", "25h", "--limit", "1"]).ok();
}

#[test]
fn a_bad_verdict_stands_until_a_later_good_one() {
    let test = test();
    Planted::new("app", "20260610_030000Z-aaa1").into(&test.storage());
    let files = Planted::new("app", "20260611_030000Z-aaa2").into(&test.storage());
    let ran = test.run_at(NOW, ["list", "--verify", "--json"]).ok();
    assert_eq!(ran.json()["items"][1]["proven"], json!(NOW));
    assert_eq!(verdicts(&test.storage()), ["20260612_120000Z.ok", "20260612_120000Z.ok"]);
    let ran = test.run_at("2026-06-12T15:00:00Z", ["list"]).ok();
    assert!(ran.stdout.lines().nth(2).unwrap().contains("3h"), "{}", ran.stdout);

    flip_a_bit(&files.with_extension("sql.gz"));
    let next = "2026-06-13T12:00:00Z";
    test.run_at(next, ["list"]).ok();
    let ran = test.run_at(next, ["list", "--verify"]).fails(1).says("app_20260611_030000Z-aaa2.sql.gz");
    assert!(ran.stdout.contains("damaged"), "{}", ran.stdout);
    assert_eq!(verdicts(&test.storage()).len(), 4);
    assert!(files.with_extension("verify.20260613_120000Z.bad").exists());
    test.run_at(next, ["list"]).fails(3).says("its last verification, at 2026-06-13 12:00:00 UTC, found it bad");
    assert_eq!(ids(&test.run_at(next, ["list", "--json", "--at", "latest"]).ok()), ["aaa1"]);

    flip_a_bit(&files.with_extension("sql.gz"));
    let later = "2026-06-14T12:00:00Z";
    let ran = test.run_at(later, ["list", "--verify", "--json"]).ok();
    assert_eq!((&ran.json()["items"][1]["state"], &ran.json()["items"][1]["proven"]), (&json!("whole"), &json!(later)));
    assert_eq!(ids(&test.run_at(later, ["list", "--json", "--at", "latest"]).ok()), ["aaa2"]);
}

#[test]
fn what_could_not_be_read_proves_nothing() {
    let test = Test::new().config(CONFIG);
    fs::create_dir(test.path("offsite")).unwrap();
    let files = Planted::new("app", "20260611_030000Z-aaa2").into(&test.storage());
    let artifact = files.with_extension("sql.gz");
    fs::set_permissions(&artifact, fs::Permissions::from_mode(0o000)).unwrap();
    let test = test.unprivileged();
    let ran = test.run(["list", "--verify", "--json"]).fails(1).says("can't read").says("aaa2.sql.gz");
    let item = ran.json()["items"][0].clone();
    assert_eq!((&item["state"], &item["proven"]), (&json!("whole"), &json!(null)));
    assert!(verdicts(&test.storage()).is_empty());
    // A manifest that can't be read leaves its backup unverified: that is told, and no success.
    fs::write(files.with_extension("manifest.json"), "{").unwrap();
    test.run(["list", "--verify"]).fails(1).says("aaa2.manifest.json");
}

#[test]
fn a_damaged_inventory_is_told_and_makes_no_dump_bad() {
    let test = test();
    let files = Planted::new("app", "20260611_030000Z-aaa2").into(&test.storage());
    flip_a_bit(&files.with_extension("inventory.json"));
    let ran =
        test.run_at(NOW, ["list", "--verify", "--json"]).fails(1).says("aaa2.inventory.json").says("the dump itself is whole");
    assert_eq!((&ran.json()["items"][0]["state"], &ran.json()["items"][0]["proven"]), (&json!("whole"), &json!(null)));
    fs::remove_file(files.with_extension("inventory.json")).unwrap();
    test.run_at(NOW, ["list", "--verify"]).fails(1).says("aaa2.inventory.json").says("is missing");
    assert!(verdicts(&test.storage()).is_empty());
    test.run_at(NOW, ["list"]).ok();
}

#[test]
fn a_row_is_as_whole_as_its_best_copy_and_names_who_holds_that() {
    let test = test();
    let bad = Planted::new("app", "20260611_030000Z-aaa1").into(&test.storage());
    Planted::new("app", "20260611_030000Z-aaa1").into(&test.path("offsite"));
    fs::write(bad.with_extension("sql.gz"), "short").unwrap();
    let ran = test.run_at(NOW, ["list", "--json"]).fails(3).says("app: storage local: ").says("aaa1.sql.gz has 5 bytes");
    let document = ran.json();
    assert_eq!((&document["items"][0]["state"], &document["items"][0]["storages"]), (&json!("whole"), &json!(["offsite"])));
    assert_eq!((&document["problems"][0]["severity"], &document["problems"][0]["storage"]), (&json!("partial"), &json!("local")));
    test.run_at(NOW, ["list", "--max-age", "48h", "app"]).fails(3);
}

#[test]
fn a_unit_whose_name_is_cut_in_files_is_known_by_its_own() {
    let database = SHARED.create_database();
    let (mine, gone) = ("é".repeat(50), "ü".repeat(50));
    let target = |name: &str| {
        format!(
            "  - {{ name: {name}, type: postgres, host: 127.0.0.1, port: {}, user: admin, password: '${{PW}}', database: {} }}\n",
            SHARED.port(),
            database.name()
        )
    };
    let head = "version: 1\nhost: web1\nstate_dir: {state}\nstorages: { local: { type: local, path: '{storage}' } }\n\
                defaults: { retention: { keep_last: 1 } }\ntargets:\n";
    let test =
        Test::new().env("PW", crate::support::cluster::PASSWORD).config(&format!("{head}{}{}", target(&mine), target(&gone)));
    test.run_at("2026-06-10T03:00:00Z", ["backup"]).ok();
    test.run_at("2026-06-11T03:00:00Z", ["backup", "--no-prune"]).ok();
    test.write("backup.yml", &format!("{head}{}", target(&mine)));
    for name in [&mine, &gone] {
        let ran = test.run_at(NOW, ["list", "--json", name]).ok();
        assert_eq!(ran.json()["items"].as_array().unwrap().len(), 2);
        assert_eq!(ran.json()["items"][0]["unit"], json!(name));
        test.run_at(NOW, ["restore", name, "--output", test.path(name).to_str().unwrap()]).ok();
    }
    test.run_at(NOW, ["list", "--max-age", "40h"]).ok();
    let ran = test.run_at(NOW, ["prune", "--json"]).ok();
    let deleted: Vec<_> =
        ran.json()["items"].as_array().unwrap().iter().filter(|item| item["done"] == json!(true)).cloned().collect();
    assert_eq!((deleted.len(), &deleted[0]["unit"]), (1, &json!(mine)));
}
