//! `restore --drill`: what it restores it compares and throws away; what it found stands beside the backup.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::forge::{self, artifact, content_of, manifest, pack};
use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries};
use crate::support::{Cluster, Database, Running, SHARED, Signal, Test, eventually, holds_within};

const FILLED: &str = "
CREATE TABLE orders (id int, note text);
INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 1000) n;
CREATE TABLE \"Odd \"\"name\"\" \\\\ :x\" AS SELECT 1 AS one;
CREATE TABLE users AS SELECT n AS id FROM generate_series(1, 3) n;
CREATE TABLE parted (at int) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO parted SELECT generate_series(0, 14);
CREATE TABLE parent (a int);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2), (3);
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM orders;
CREATE SEQUENCE counter; SELECT setval('counter', 42);
SELECT lo_from_bytea(0, 'a large object');
";

fn filled() -> Database {
    let database = SHARED.create_database();
    database.psql(FILLED);
    database
}

fn backed_up(database: &Database) -> Test {
    forge::backed_up(database, "gzip")
}

/// The drills' outcomes in the storage: `ok` and `bad`.
fn outcomes(test: &Test) -> Vec<String> {
    let ending = |name: &String| Some(name.split_once(".drill.")?.1.split_once('.')?.1.to_owned());
    test.stored().iter().filter_map(ending).collect()
}

/// What drills and restores left on the shared server, of this program's calls.
#[track_caller]
fn leaves_nothing(test: &Test) {
    assert_eq!(crate::support::tool::files_below(&test.path("tmp")), Vec::<String>::new());
    let state = crate::support::tool::files_below(&test.path("state"));
    assert!(state.iter().all(|file| file.starts_with("locks/")), "{state:?}");
}

/// A drill of this database that will never end by itself, while it is at work.
fn endless(database: &Database) -> (Test, Running) {
    let test = backed_up(database).target_option("checks: [ { name: long, sql: select pg_sleep(600) is null } ]");
    let running = test.spawn(["restore", "--drill", "-vv"]);
    eventually("it begins", || running.stderr_so_far().contains("drill begins"));
    // On a server of its own nobody sees it: then it is wherever it is by now.
    let asks = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()";
    holds_within(Duration::from_secs(3), || SHARED.psql("postgres", asks) == "t");
    (test, running)
}

/// Changes the dump, and makes its digests match.
fn tamper(test: &Test, change: impl FnOnce(String) -> String) {
    let content = String::from_utf8(content_of("gzip", &artifact(test))).unwrap();
    forge::forge(test, &pack("gzip", change(content).as_bytes()));
}

/// Changes the inventory, and makes its digest match.
fn recount(test: &Test, change: impl FnOnce(&mut Value)) {
    let path = test.stored_one(".inventory.json");
    let mut inventory: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut inventory);
    let bytes = serde_json::to_vec(&inventory).unwrap();
    fs::write(path, &bytes).unwrap();
    let mut manifest = manifest(test);
    manifest["inventory"]["sha256"] = json!(format!("{:x}", Sha256::digest(&bytes)));
    fs::write(test.stored_one(".manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn a_whole_backup_passes_and_is_proven() {
    let database = filled();
    let test = backed_up(&database).target_option("checks: [ { name: users, sql: select count(*) = 3 from users } ]");
    let ran =
        test.run(["restore", "--drill"]).ok().says("app: drill passed: ").says("and 1 check compared").says("1 unit passed");
    assert!(
        ran.stdout.is_empty() && ran.stderr.contains("7 tables, 1022 rows, 1 sequence, 1 large object and 1 check compared"),
        "{}",
        ran.stderr
    );
    assert_eq!(outcomes(&test), ["ok"]);
    assert!(!test.run(["list", "--json"]).ok().json()["items"][0]["proven"].is_null());
    leaves_nothing(&test);
}

#[test]
fn the_document_is_evidence_to_file() {
    let database = filled();
    let test = backed_up(&database).target_option("checks: [ { name: users, sql: select count(*) from users, expect: 3 } ]");
    let ran = test.run(["restore", "--drill", "app", "--json"]).ok();
    let document = ran.json();
    let item = &document["items"][0];
    assert_eq!((&document["command"], &document["exit_code"], &item["status"]), (&json!("restore"), &json!(0), &json!("passed")));
    assert_eq!((&item["unit"], &item["storage"], &item["id"]), (&json!("app"), &json!("local"), &manifest(&test)["id"]));
    assert_eq!(item["checks"], json!([{ "name": "users", "ok": true, "expected": "3", "found": "3" }]));
    let compared = &item["compared"];
    assert_eq!((&compared["tables"], &compared["rows"], &compared["differences"]), (&json!(7), &json!(1022), &json!([])));
    assert!(item["restore_seconds"].as_f64().unwrap() > 0.0 && item["seconds"].as_f64() >= item["restore_seconds"].as_f64());
    assert!(!item["place"].as_str().unwrap().is_empty());
}

#[test]
fn a_dry_run_says_what_would_be_drilled_and_where() {
    let database = filled();
    let test = backed_up(&database);
    let ran = test.run(["restore", "--drill", "--dry-run"]).ok();
    assert!(
        ran.stdout.contains(manifest(&test)["id"].as_str().unwrap()) && ran.stdout.contains("a temporary server"),
        "{}",
        ran.stdout
    );
    assert_eq!(outcomes(&test), Vec::<String>::new());
}

#[test]
fn a_row_that_is_missing_is_found_and_makes_the_backup_bad() {
    let database = filled();
    let test = backed_up(&database);
    tamper(&test, |dump| dump.replacen("500\torder 500\n", "", 1));
    test.run(["list", "--verify"]).ok();
    test.run(["restore", "--drill"])
        .fails(1)
        .says("app: compare: what was restored is not what was dumped: public.orders has 999 rows, 1000 were dumped")
        .says("app: failed: drill of ")
        .says("hint: ");
    assert_eq!(outcomes(&test), ["bad"]);
    let ran = test.run(["list"]).fails(3).says("its last drill, at ").says("found it bad");
    assert!(ran.stdout.contains("damaged"), "{}", ran.stdout);
    test.run(["restore", "app", "--output", "x"]).fails(1);
    leaves_nothing(&test);
}

#[test]
fn a_row_that_is_missing_from_an_archive_is_found_and_makes_the_backup_bad() {
    for jobs in ["jobs: 1", "jobs: 3"] {
        let database = filled();
        let archived = || {
            let test = Test::of(&database).target_option("format: custom").target_option(jobs);
            let test = test.target_option(&format!("client_bin: {}", binaries().display()));
            test.run(["-q", "backup"]).ok();
            test
        };
        let test = archived();
        test.run(["restore", "--drill"]).ok().says("7 tables, 1022 rows, 1 sequence and 1 large object compared");
        // The same database's archive without the row, under the manifest and inventory of the whole one.
        database.psql("DELETE FROM orders WHERE id = 500");
        let short = artifact(&archived());
        forge::forge(&test, &short);
        test.run(["list", "--verify"]).ok();
        test.run(["restore", "--drill"])
            .fails(1)
            .says("app: compare: what was restored is not what was dumped: public.orders has 999 rows, 1000 were dumped");
        assert!(outcomes(&test).contains(&"bad".to_owned()));
        leaves_nothing(&test);
    }
}

#[test]
fn a_later_drill_of_it_by_its_id_clears_it() {
    let database = filled();
    let test = backed_up(&database);
    let good = artifact(&test);
    tamper(&test, |dump| dump.replacen("500\torder 500\n", "", 1));
    test.run(["restore", "--drill"]).fails(1);
    forge::forge(&test, &good);
    test.run(["restore", "--drill"]).fails(1).says("found it bad");
    let id = manifest(&test)["id"].as_str().unwrap().to_owned();
    // Of two outcomes of one second the bad one would count.
    test.run(["restore", "--drill", "--at", &id]).ok();
    eventually("a later second", || {
        let done = test.run(["list"]).code == Some(0);
        if !done {
            test.run(["restore", "--drill", "--at", &id]).ok();
        }
        done
    });
    assert!(outcomes(&test).contains(&"bad".to_owned()) && outcomes(&test).contains(&"ok".to_owned()));
}

#[test]
fn a_dump_that_does_not_load_makes_the_backup_bad() {
    let database = filled();
    let test = backed_up(&database);
    tamper(&test, |dump| dump.replacen("500\torder 500\n", "five hundred\torder 500\n", 1));
    test.run(["restore", "--drill"]).fails(1).says("app: load: ").says("invalid input syntax");
    assert_eq!(outcomes(&test), ["bad"]);
    leaves_nothing(&test);
}

#[test]
fn a_flipped_bit_makes_the_backup_bad() {
    let database = filled();
    let test = backed_up(&database);
    let mut bytes = artifact(&test);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    forge::damage(&test, &bytes);
    test.run(["restore", "--drill"]).fails(1).says("app: storage local: read: ");
    assert_eq!(outcomes(&test), ["bad"]);
}

#[test]
fn a_check_that_does_not_hold_fails_the_drill_and_leaves_the_backup_whole() {
    let database = filled();
    let checks =
        "checks: [ { name: users, sql: select count(*) from users, expect: 4 }, { name: none, sql: select 1 from nowhere } ]";
    let test = backed_up(&database).target_option(checks);
    test.run(["restore", "--drill"])
        .fails(1)
        .says("app: check: check \"users\" does not hold: expected \"4\", found \"3\"")
        .says("app: check: check \"none\" could not be asked: ")
        .says("relation \"nowhere\" does not exist");
    assert_eq!(outcomes(&test), Vec::<String>::new());
    test.run(["list"]).ok();
    leaves_nothing(&test);
}

#[test]
fn a_check_is_one_query_and_no_command_of_psql() {
    let database = filled();
    let test = backed_up(&database).target_option(
        r#"checks:
      - { name: lines, sql: "select E'a\\nb' from users order by 1 -- comment", expect: "a\nb" }
      - { name: nothing, sql: "select null;", expect: "" }
      - { name: "no rows", sql: "select 1 where false", expect: "" }
      - { name: path, sql: "show search_path", expect: "\"$user\", public" }
      - { name: dollars, sql: "select $$:USER \\! $$", expect: ":USER \\! " }
      - { name: shell, sql: "\\! touch {dir}/owned" }
      - { name: hidden, sql: "select true \\g | touch {dir}/owned" }
      - { name: writes, sql: "delete from users returning true" }"#,
    );
    let items = test.run(["restore", "--drill", "--json"]).fails(1).json()["items"][0]["checks"].clone();
    let held: Vec<_> =
        items.as_array().unwrap().iter().map(|item| (item["name"].as_str().unwrap(), item["ok"] == true)).collect();
    let expected = [
        ("lines", true),
        ("nothing", true),
        ("no rows", true),
        ("path", true),
        ("dollars", true),
        ("shell", false),
        ("hidden", false),
        ("writes", false),
    ];
    assert_eq!(held, expected, "{items}");
    assert!(!test.path("owned").exists());
}

#[test]
fn what_compared_nothing_proves_nothing() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let test = backed_up(&database);
    // As --schema-only leaves it.
    tamper(&test, |dump| {
        let (head, rest) = dump.split_once("COPY public.t").unwrap();
        format!("{head}{}", rest.split_once("\\.\n").unwrap().1)
    });
    recount(&test, |inventory| inventory["tables"] = json!([]));
    test.run(["restore", "--drill"]).fails(1).says("app: compare: nothing was compared").says("`checks:`");
    assert_eq!(outcomes(&test), Vec::<String>::new());
    let test = test.target_option("checks: [ { name: there, sql: select count(*) = 0 from t } ]");
    test.run(["restore", "--drill"]).ok().says("1 check compared");
}

#[test]
fn an_empty_database_is_compared_as_empty() {
    let database = SHARED.create_database();
    let test = backed_up(&database);
    test.run(["restore", "--drill"]).ok().says("empty, as it was dumped");
    assert_eq!(outcomes(&test), ["ok"]);
}

#[test]
fn sequences_and_large_objects_are_compared_where_they_were_counted() {
    let database = filled();
    let test = backed_up(&database);
    let sequence = |value: i64| json!([{ "schema": "public", "name": "counter", "last_value": value, "is_called": true }]);
    recount(&test, |inventory| {
        inventory["sequences"] = sequence(42);
        inventory["large_objects"] = json!({ "count": 1, "bytes": 14 });
    });
    test.run(["restore", "--drill"]).ok().says("7 tables, 1022 rows, 1 sequence and 1 large object compared");
    recount(&test, |inventory| {
        inventory["sequences"] = sequence(43);
        inventory["large_objects"] = json!({ "count": 1, "bytes": 15 });
    });
    test.run(["restore", "--drill"]).fails(1).says(
        "sequence public.counter stands at 42, when dumped it stood at 43; the large objects hold 14 bytes, 15 were dumped",
    );
}

#[test]
fn what_was_loaded_through_the_root_is_compared_there() {
    let database = filled();
    let test = backed_up(&database);
    let root = |rows: u64| json!({ "schema": "public", "name": "parted", "rows": rows, "bytes": 1 });
    let tables = |rows: u64| {
        move |inventory: &mut Value| {
            let tables = inventory["tables"].as_array_mut().unwrap();
            tables.retain(|table| !table["name"].as_str().unwrap().starts_with("parted"));
            tables.push(root(rows));
        }
    };
    recount(&test, tables(15));
    test.run(["restore", "--drill"]).ok().says("6 tables").says("1022 rows");
    recount(&test, tables(16));
    test.run(["restore", "--drill"]).fails(1).says("public.parted has 15 rows, 16 were dumped");
}

#[test]
fn rows_that_nobody_dumped_are_a_difference() {
    let database = filled();
    let test = backed_up(&database);
    recount(&test, |inventory| inventory["tables"].as_array_mut().unwrap().retain(|table| table["name"] != "orders"));
    test.run(["restore", "--drill"]).fails(1).says("public.orders has 1000 rows, none were dumped");
}

#[test]
fn a_database_in_another_encoding_is_compared_by_its_own_names() {
    let database = SHARED.create_from("template0", "ENCODING 'LATIN1' LOCALE 'C'");
    database.psql("CREATE TABLE \"caf\u{e9}\" AS SELECT 1 AS a; CREATE TABLE \"men\u{fc}\" AS SELECT generate_series(1, 2)");
    let test = backed_up(&database);
    test.run(["restore", "--drill"]).ok().says("2 tables").says("3 rows");
}

#[test]
fn hundreds_of_tables_are_counted() {
    let database = SHARED.create_database();
    database.psql("SELECT format('CREATE TABLE t%s AS SELECT 1 AS a', n) FROM generate_series(1, 300) n \\gexec");
    let test = backed_up(&database);
    test.run(["restore", "--drill"]).ok().says("300 tables").says("300 rows");
}

#[test]
fn a_damaged_inventory_fails_the_drill_and_not_the_backup() {
    let database = filled();
    let test = backed_up(&database);
    fs::write(test.stored_one(".inventory.json"), "{}").unwrap();
    test.run(["restore", "--drill"]).fails(1).says("app: storage local: inventory: ").says("its digest differs");
    assert_eq!(outcomes(&test), Vec::<String>::new());
    test.run(["list"]).ok();
}

fn several(databases: &[(&str, &str)]) -> Test {
    let target = |(name, database): &(&str, &str)| {
        format!(
            "  - {{ name: {name}, type: postgres, host: {HOST}, port: {}, user: {SUPERUSER}, password: {PASSWORD}, database: {database}, client_bin: {} }}\n",
            SHARED.port(),
            binaries().display()
        )
    };
    let targets: String = databases.iter().map(target).collect();
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\ntargets:\n{targets}"
    ))
}

#[test]
fn one_units_failure_leaves_the_others() {
    let databases = [filled(), filled(), filled()];
    let [one, two, three] = [0, 1, 2].map(|at: usize| databases[at].name());
    let test = several(&[("one", one), ("two", two), ("three", three)]);
    test.run(["-q", "backup", "one", "three"]).ok();
    let ran = test.run(["restore", "--drill", "--json"]).fails(1);
    let statuses: Vec<Value> = ran.json()["items"].as_array().unwrap().iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, ["passed", "failed", "passed"]);
    let ran = test.run(["restore", "--drill"]).fails(1).says("two: it has no backup that could be drilled");
    assert!(
        ran.stderr.contains("db-backup-tools backup two") && ran.stderr.contains("2 units passed, 1 failed"),
        "{}",
        ran.stderr
    );
    let ran = test.run(["restore", "--drill", "t*", "--json"]).fails(1);
    assert_eq!(ran.json()["items"].as_array().unwrap().len(), 2);
    test.run(["restore", "--drill", "one", "three"]).ok().says("2 units passed");
    test.run(["restore", "--drill", "one", "nowhere"]).fails(4).says("nowhere");
    test.run(["restore", "--drill", "one", "--at", "2020-01-01"]).fails(4);
    test.run(["restore", "--drill", "one", "three", "--from", "elsewhere"]).fails(4);
    test.run(["restore", "--drill", "one", "--host", "web2"]).fails(4).says("web2");
}

#[test]
fn a_storage_that_takes_no_outcome_makes_it_partial() {
    let database = filled();
    let test = backed_up(&database).unprivileged();
    let run = test.stored_one(".manifest.json").parent().unwrap().to_owned();
    let closed = |mode| fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    closed(0o500);
    let ran = test.run(["restore", "--drill"]);
    closed(0o700);
    ran.fails(3).says("app: storage local: verdict: ").says("drill passed");
    assert_eq!(outcomes(&test), Vec::<String>::new());
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    let server = Cluster::start();
    let database = server.create_database();
    database.psql(FILLED);
    let (test, running) = endless(&database);
    running.kill(Signal::TERM);
    running.wait().fails(143).says("interrupted");
    assert_eq!(outcomes(&test), Vec::<String>::new());
    assert_eq!(server.databases(), ["postgres", database.name()]);
    leaves_nothing(&test);
}

#[test]
fn a_timeout_ends_it_and_says_nothing_of_the_backup() {
    let database = filled();
    let test = backed_up(&database)
        .target_option("timeout: 25s")
        .target_option("checks: [ { name: long, sql: select pg_sleep(600) is null } ]");
    test.run(["restore", "--drill"]).fails(1).says("app: check: not done within 25s");
    assert_eq!(outcomes(&test), Vec::<String>::new());
}

#[test]
fn after_a_kill_the_next_drill_needs_no_help() {
    let database = filled();
    let (test, running) = endless(&database);
    running.kill(Signal::KILL);
    assert_eq!(running.wait().signal, Some(9));
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace("pg_sleep(600) is null", "true"));
    test.run(["restore", "--drill"]).ok();
    assert_eq!(outcomes(&test), ["ok"]);
}

#[test]
fn two_drills_of_a_unit_do_not_run_at_once_and_hold_no_backup_up() {
    let database = filled();
    let (test, running) = endless(&database);
    eventually("it holds its lock", || test.run(["restore", "--drill"]).code == Some(75));
    test.run(["restore", "--drill"]).fails(75).says("app: another drill of it is at work: ");
    test.run(["-q", "backup"]).ok();
    running.kill(Signal::TERM);
    running.wait().fails(143);
}
