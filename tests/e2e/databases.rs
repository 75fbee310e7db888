//! Several databases in one target: each is a unit of its own, whatever its name, and none is forgotten in silence.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::forge::databases_of;
use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries, quoted};
use crate::support::{Cluster, Ran, Signal, Test, eventually};

/// Names that PostgreSQL allows and that look like something else: to a shell, a path, libpq, a glob, or to us.
fn awkward() -> Vec<String> {
    let names = [
        "with space",
        "it's \"quoted\"",
        "a/b",
        "a%2Fb",
        "a\\b",
        "größe ✓",
        "dbname=x",
        "postgresql://x@nowhere/y",
        "..",
        ".",
        "New\nline\tand tab",
        "a.b",
        "x:globals",
        ":globals",
        "100%",
        "Shop",
        "shop",
        "SHOP",
        "shop.eu",
        "a*b",
        "aXb",
        "[x]",
        "[y",
        "{a,b}",
        "--help",
        "$HOME `id`",
        "~",
        "all",
    ];
    let long = ["x".repeat(63), "é".repeat(31)];
    names.iter().map(|name| (*name).to_owned()).chain(long).collect()
}

/// Databases that each hold their own name.
fn create(cluster: &Cluster, names: &[&str]) {
    let made: Vec<String> = names.iter().map(|name| format!("CREATE DATABASE {} TEMPLATE template0;\n", quoted(name))).collect();
    cluster.psql("postgres", &made.concat());
    for name in names {
        cluster.psql(name, "CREATE TABLE t AS SELECT current_database()::text AS name");
    }
}

fn drop_database(cluster: &Cluster, name: &str) {
    cluster.psql("postgres", &format!("DROP DATABASE {}", quoted(name)));
}

/// A configuration of these targets on a server, each with these keys.
fn targets(cluster: &Cluster, targets: &[(&str, Value)]) -> Test {
    let targets = targets.iter().map(|(name, keys)| {
        let mut target = json!({
            "name": name, "type": "postgres", "host": HOST, "port": cluster.port(), "user": SUPERUSER, "password": PASSWORD,
            "client_bin": binaries(),
        });
        let own = keys.as_object().unwrap().clone();
        target.as_object_mut().unwrap().extend(own);
        target
    });
    // JSON is YAML, too.
    let config = json!({
        "version": 1, "host": "web1", "state_dir": "{state}", "parallel": 2,
        "storages": { "local": { "type": "local", "path": "{storage}" } },
        "targets": targets.collect::<Vec<_>>(),
    });
    Test::new().config(&config.to_string())
}

fn all() -> Value {
    json!({ "databases": "all" })
}

/// The units that a command shows, in order, each once.
#[track_caller]
fn units(ran: &Ran) -> BTreeSet<String> {
    ran.json()["items"].as_array().unwrap().iter().map(|item| item["unit"].as_str().unwrap().to_owned()).collect()
}

/// Each item's unit and how it ended.
fn ended(ran: &Ran) -> Vec<String> {
    let word = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    ran.json()["items"].as_array().unwrap().iter().map(|item| word(item, "unit") + " " + &word(item, "status")).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// `units_found` of every manifest.
fn lists_found(test: &Test) -> BTreeSet<BTreeSet<String>> {
    let manifests = test.stored().into_iter().filter(|file| file.ends_with(".manifest.json"));
    let found = manifests.map(|file| {
        let manifest: Value = serde_json::from_slice(&fs::read(test.storage().join(file)).unwrap()).unwrap();
        serde_json::from_value(manifest["units_found"].clone()).unwrap()
    });
    found.collect()
}

#[test]
fn every_database_of_a_cluster_is_backed_up_and_comes_back_to_its_own_place() {
    let cluster = Cluster::start();
    let names = awkward();
    assert!(names.len() >= 20);
    create(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let test = targets(&cluster, &[("cluster", json!({ "databases": "all", "compression": { "type": "none" } }))]);
    test.run(["backup"]).ok().says("cluster: left out: template0, template1: a template");
    let expected: BTreeSet<String> =
        names.iter().map(String::as_str).chain(["postgres"]).map(|name| format!("cluster.{name}")).collect();
    assert_eq!(expected.len(), names.len() + 1);
    assert_eq!(units(&test.run(["list", "--json"]).ok()), expected);
    assert_eq!(lists_found(&test), BTreeSet::from([expected.clone()]));
    assert_eq!(test.stored().len(), expected.len() * 3, "one's files are another's");
    test.run(["-q", "list", "--max-age", "1h"]).ok();
    let manifests = test.stored().into_iter().filter(|file| file.ends_with(".manifest.json"));
    for path in manifests.map(|file| test.storage().join(file)) {
        let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let dump = fs::read_to_string(path.with_file_name(manifest["artifact"]["name"].as_str().unwrap())).unwrap();
        let name = manifest["unit"].as_str().unwrap().strip_prefix("cluster.").unwrap();
        let text = name.replace('\\', r"\\").replace('\n', r"\n").replace('\t', r"\t");
        assert!(name == "postgres" || dump.lines().any(|line| line == text), "the dump of {name:?} is another's");
    }

    let chosen = ["it's \"quoted\"", "a*b", "New\nline\tand tab", &names[names.len() - 1]];
    // They are dropped when these go.
    let chosen = chosen.map(|name| cluster.adopt(name));
    for database in &chosen {
        let (name, before, others) = (database.name(), database.dump(), cluster.databases());
        drop_database(&cluster, name);
        test.run(["restore", &format!("cluster.{name}")]).ok();
        assert_eq!(database.dump(), before, "{name:?}");
        assert_eq!(cluster.databases(), others, "{name:?}");
    }
    test.run(["restore", "cluster"])
        .fails(2)
        .says("cluster is of several units: ")
        .says("cluster.shop.eu")
        .says("name one of them");
    assert_eq!(units(&test.run(["list", "--json", "cluster.[y"]).ok()), set(["cluster.[y"]));
    assert_eq!(
        units(&test.run(["backup", "--json", "cluster.a\\*b", "cluster.SHOP"]).ok()),
        set(["cluster.SHOP", "cluster.a*b"])
    );
    assert_eq!(test.run(["prune", "--dry-run", "--json"]).ok().json()["items"].as_array().unwrap().len(), expected.len() + 2);
}

#[test]
fn what_is_left_out_is_said_and_globs_leave_out() {
    let cluster = Cluster::start();
    create(&cluster, &["shop", "shop_test", "b_test", "closed", "mould", "scratch", "shop_before_x"]);
    cluster.psql(
        "postgres",
        "ALTER DATABASE closed ALLOW_CONNECTIONS false; ALTER DATABASE mould IS_TEMPLATE true;
         COMMENT ON DATABASE scratch IS 'db-backup-tools scratch database, made by a test';
         COMMENT ON DATABASE shop_before_x IS 'db-backup-tools former database, of a test';
         COMMENT ON DATABASE shop IS 'no db-backup-tools scratch database'",
    );
    let test =
        targets(&cluster, &[("c", json!({ "databases": "all", "exclude_databases": ["*_test", "post?res", "nothing*"] }))]);
    let left_out = [
        "mould, template0, template1: a template",
        "closed: allows no connections",
        "scratch: a scratch database of ours",
        "shop_before_x: kept by a restore that replaced it",
        "b_test, postgres, shop_test: excluded",
        "exclude_databases \"nothing*\" matches no database",
    ];
    let ran = test.run(["backup"]).ok();
    left_out.iter().fold(ran, |ran, clause| ran.says(clause));
    assert_eq!(test.run(["-q", "backup"]).ok().stderr, "");
    assert_eq!(units(&test.run(["list", "--json"]).ok()), set(["c.shop"]));
    let ran = test.run(["validate", "--connect"]).ok();
    for clause in left_out.iter().chain(&["target c", "unit c.shop"]) {
        assert!(ran.stdout.contains(clause), "{clause}\n{}", ran.stdout);
    }
    cluster.psql("postgres", "ALTER DATABASE mould IS_TEMPLATE false; ALTER DATABASE closed ALLOW_CONNECTIONS true");
}

#[test]
fn a_backup_of_no_database_is_none() {
    let cluster = Cluster::start();
    let test = targets(&cluster, &[("c", json!({ "databases": "all", "exclude_databases": ["*"] }))]);
    test.run(["backup"]).fails(1).says("c: databases: the server has no database to back up").says("exclude_databases");
    test.run(["validate", "--connect"]).fails(1);
}

#[test]
fn a_database_that_was_never_backed_up_counts_as_too_old() {
    let cluster = Cluster::start();
    create(&cluster, &["fine", "closed"]);
    cluster.psql(
        "postgres",
        &format!("CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_read_all_data; REVOKE CONNECT ON DATABASE closed FROM PUBLIC"),
    );
    let test = targets(&cluster, &[("c", json!({ "databases": "all", "exclude_databases": ["postgres"], "user": "reader" }))]);
    let none = |unit: &str| format!("{unit}: max-age: there is no whole backup");
    test.run(["list", "--max-age", "1h"]).fails(1).says(&none("c"));
    let ran = test.run(["validate", "--connect", "--json"]).fails(1);
    let checks: Vec<_> =
        ran.json()["items"].as_array().unwrap().iter().map(|item| (item["subject"].clone(), item["ok"].clone())).collect();
    assert_eq!(
        checks[2..],
        [(json!("target c"), json!(true)), (json!("unit c.closed"), json!(false)), (json!("unit c.fine"), json!(true))]
    );

    test.run(["backup"]).fails(1).says("c.closed: connect: ").says("User does not have CONNECT privilege");
    assert_eq!(lists_found(&test), BTreeSet::from([set(["c.closed", "c.fine"])]));
    test.run(["list", "--max-age", "1h"]).fails(1).says(&none("c.closed"));
    test.run(["list", "--max-age", "1h", "c.closed"]).fails(1).says(&none("c.closed"));
    test.run(["list", "--max-age", "1h", "c.fine"]).ok();
    test.run(["list", "--max-age", "1h", "c.nowhere"]).fails(4);

    // One more since, of which a run knows that was to back up another.
    create(&cluster, &["new"]);
    drop_database(&cluster, "closed");
    test.run(["backup", "c.fine"]).ok();
    assert!(!test.run(["list", "--max-age", "1h"]).fails(1).says(&none("c.new")).stderr.contains("c.closed"));
    test.run(["backup", "c.new"]).ok();
    test.run(["list", "--max-age", "1h"]).ok();

    // One that is gone keeps its backups, and nobody waits for more of them.
    drop_database(&cluster, "new");
    test.run(["backup"]).ok();
    let late = test.run(["list", "--max-age", "0s"]);
    assert!(!late.stderr.contains("c.new"), "{}", late.stderr);
    assert_eq!(units(&test.run(["list", "--json", "c.new"]).ok()), set(["c.new"]));
}

#[test]
fn names_choose_databases_and_similar_targets_do_not_meet() {
    let cluster = Cluster::start();
    create(&cluster, &["shop", "c2.shop", "blog"]);
    let keeps_one = json!({ "databases": "all", "exclude_databases": ["postgres"], "retention": { "keep_last": 1 } });
    let test =
        targets(&cluster, &[("c", keeps_one.clone()), ("c2", keeps_one), ("two", json!({ "databases": ["shop", "c2.shop"] }))]);
    test.run(["backup", "c.shop", "c.nothing"]).fails(4).says("no target or unit matches c.nothing");
    test.run(["backup", "c.bl"]).fails(4).says("did you mean c.blog?");
    assert_eq!(test.stored(), [""; 0]);
    let planned = |names: &[&str]| units(&test.run([&["backup", "--dry-run", "--json"], names].concat()).ok());
    assert_eq!(planned(&["c"]), set(["c.shop", "c.c2.shop", "c.blog"]));
    assert_eq!(planned(&["c.*"]), planned(&["c"]));
    assert_eq!(planned(&["c2.shop"]), set(["c2.shop"]));
    assert_eq!(planned(&["*.shop"]), set(["c.shop", "c.c2.shop", "c2.shop", "c2.c2.shop", "two.shop", "two.c2.shop"]));
    assert_eq!(planned(&["two"]), set(["two.shop", "two.c2.shop"]));
    assert_eq!(planned(&[]).len(), 8);
    assert_eq!(test.stored(), [""; 0]);

    test.run(["backup"]).ok();
    test.run(["backup", "c.shop"]).ok();
    let of = |name: &str| test.run(["list", "--json", name]).ok().json()["items"].as_array().unwrap().len();
    assert_eq!((of("c"), of("c2"), of("c2.shop"), of("two")), (3, 3, 1, 2));
    for name in ["shop", "c2.shop"] {
        drop_database(&cluster, name);
        test.run(["restore", &format!("two.{name}")]).ok();
        assert_eq!(cluster.psql(name, "SELECT name FROM t"), name);
    }
}

#[test]
fn the_policy_of_the_target_holds_for_a_database_that_is_gone() {
    let cluster = Cluster::start();
    create(&cluster, &["gone", "stays"]);
    let keep = |policy: Value| json!({ "databases": "all", "exclude_databases": ["postgres"], "retention": policy });
    let test = targets(&cluster, &[("c", keep(json!({})))]);
    test.run(["backup"]).ok();
    test.run(["backup"]).ok();
    drop_database(&cluster, "gone");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace("\"retention\":{}", "\"retention\":{\"keep_last\":1}"));
    test.run(["prune"]).ok();
    let ran = test.run(["list", "--json"]).ok();
    assert_eq!(ran.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(units(&ran), set(["c.gone", "c.stays"]));
    test.run(["restore", "c.gone"]).ok();
    assert_eq!(databases_of(&cluster, "gone"), ["gone"]);
}

#[test]
fn a_server_that_is_down_fails_its_own_target_alone() {
    let cluster = Cluster::start();
    create(&cluster, &["shop"]);
    let down = json!({ "databases": "all", "port": 1, "retries": 0 });
    let test = targets(&cluster, &[("down", down), ("up", json!({ "database": "shop" }))]);
    let ran = test.run(["backup", "--json"]).fails(1).says("down: connect: ").says("is the server running there");
    assert_eq!(ended(&ran), ["down failed", "up ok"]);
    test.run(["backup", "up"]).ok();
    test.run(["backup", "u*"]).ok();
    test.run(["backup", "down.shop"]).fails(1).says("down: connect: ");
    test.run(["backup", "dawn.shop"]).fails(4);
    test.run(["list", "--max-age", "1h"]).fails(1).says("down: max-age: there is no whole backup");
}

#[test]
fn a_database_that_is_dropped_before_its_turn_is_its_own_failure() {
    let cluster = Cluster::start();
    create(&cluster, &["a", "b", "c"]);
    let keys = json!({ "databases": "all", "exclude_databases": ["postgres"], "client_bin": "{bin}" });
    let drop_b =
        "[ \"$1\" = --version ] || PGDATABASE=postgres {bin}/psql -X -q -c 'DROP DATABASE IF EXISTS b' >&2\nexec {real} \"$@\"";
    let test = targets(&cluster, &[("cl", keys)]).fake_bin("pg_dump", drop_b);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace("\"parallel\":2", "\"parallel\":1"));
    test.run(["backup"]).fails(1).says("cl.b: connect: ").says("does not exist").says("it was dropped or renamed after");
    assert_eq!(units(&test.run(["list", "--json"]).ok()), set(["cl.a", "cl.c"]));
}

#[test]
fn asking_a_server_is_tried_again_and_ends_with_a_signal() {
    let cluster = Cluster::start();
    let test = targets(&cluster, &[("down", json!({ "databases": "all", "port": 1 })), ("other", all())]);
    let running = test.spawn(["backup", "--json"]);
    eventually("it waits for another attempt", || running.stderr_so_far().contains("trying again in 5.0s"));
    running.kill(Signal::TERM);
    let ran = running.wait().fails(143);
    assert_eq!(ended(&ran), ["down failed", "other skipped"]);
    assert_eq!(test.stored(), [""; 0]);
}

#[test]
fn a_name_of_a_target_means_all_of_its_units_also_where_a_backup_has_it_alone() {
    let cluster = Cluster::start();
    create(&cluster, &["a*b", "aXb"]);
    let test = targets(&cluster, &[("c", json!({ "database": "aXb" }))]);
    test.run(["backup"]).ok();
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace("\"database\":\"aXb\"", "\"databases\":[\"a*b\",\"aXb\"]"));
    test.run(["backup"]).ok();
    let ran = test.run(["restore", "c", "--output", "-"]).fails(2).says("c is of several units: c, c.a*b, c.aXb");
    ran.says("hint: name one of them, or one backup with --at ID");
    let alone = test.run(["list", "--json"]).ok().json()["items"][0].clone();
    assert_eq!(alone["unit"], "c");
    test.run(["restore", "c", "--at", alone["id"].as_str().unwrap(), "--output", "-"]).ok();
    assert!(test.run(["restore", "c.a*b", "--output", "-"]).ok().stdout.contains("\na*b\n"));
    test.run(["restore", "c.a?b", "--output", "-"]).fails(2).says("several units");
}
