//! `restore --replace`: a restored database takes a live one's place in one step, or the live one stays as it was.

use std::process::{Child, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::forge::{artifact, backed_up, content_of, databases_of, forge, pack, target_on};
use crate::session::Session;
use crate::support::cluster::{PASSWORD, SUPERUSER, quoted};
use crate::support::{Cluster, Database, Ran, SHARED, Test, eventually};

/// A server on which everything can be that stands in the way of a swap.
static FULL: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::start_with(&["wal_level=logical", "max_prepared_transactions=5", "log_statement=all"]));

/// A database with two rows, backed up, and then changed: the backup has `old`, the live one `new`.
fn changed_since(database: &Database) -> Test {
    database.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('old'), ('old')");
    let test = backed_up(database, "gzip");
    database.psql("UPDATE t SET what = 'new'; CREATE TABLE later (i int)");
    test
}

/// The databases that made room for this one.
fn formers(cluster: &Cluster, name: &str) -> Vec<String> {
    databases_of(cluster, &format!("{name}_before_"))
}

/// The command behind this label among a run's notes, as it stands in its report for a person.
#[track_caller]
fn command(ran: &Ran, label: &str) -> String {
    let start = format!("app: {label}: ");
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {label:?} in\n{}", ran.stderr)).to_owned()
}

fn comment(cluster: &Cluster, name: &str) -> String {
    let name = name.replace('\'', "''");
    cluster.psql("postgres", &format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'"))
}

const ROWS: &str = "SELECT string_agg(what, ' ') FROM t";

/// The live database is as it was, and nothing is beside it.
#[track_caller]
fn is_untouched(database: &Database, before: &str) {
    assert_eq!(database.dump(), before);
    assert_eq!(databases_of(database.cluster(), &format!("{}_", database.name())), [""; 0]);
}

#[test]
fn the_restored_one_takes_the_live_ones_place_and_the_printed_commands_lead_back() {
    let database = SHARED.create_database();
    let (test, name) = (changed_since(&database), database.name());
    SHARED.psql("postgres", &format!("COMMENT ON DATABASE {name} IS 'it''s \\ ours'"));
    let before = database.dump();
    let ran = test.run(["restore", "app", "--replace"]).ok().says(&format!("restored to database {name}"));
    assert_eq!(database.psql(ROWS), "old old");
    let former = SHARED.adopt(&formers(&SHARED, name).concat());
    let ran = ran.says(&format!("what was database {name} is kept as {}", former.name()));
    assert_eq!(former.psql(ROWS), "new new");
    let said = comment(&SHARED, former.name());
    assert!(said.starts_with(&format!("db-backup-tools former database: was \"{name}\" until 2")), "{said}");
    assert!(said.contains(", replaced by backup 2") && said.ends_with("; its comment was: it's \\ ours"), "{said}");
    assert_eq!(databases_of(&SHARED, &format!("{name}_restoring_")), [""; 0]);

    SHARED.psql("postgres", &command(&ran, "to swap back"));
    assert_eq!(database.dump(), before);
    assert_eq!(comment(&SHARED, name), "it's \\ ours");
    let after = SHARED.adopt(&databases_of(&SHARED, &format!("{name}_after_")).concat());
    assert_eq!(after.psql(ROWS), "old old");

    let ran = test.run(["restore", "app", "--replace"]).ok();
    let former = formers(&SHARED, name);
    assert_eq!(former.len(), 1);
    SHARED.psql("postgres", &command(&ran, "to drop it"));
    assert_eq!(formers(&SHARED, name), [""; 0]);
    assert_eq!(database.psql(ROWS), "old old");
}

#[test]
fn what_the_live_one_had_beside_its_content_is_told_where_it_differs() {
    let cluster = &*FULL;
    let database = cluster.create_database();
    let (test, name) = (changed_since(&database), database.name());
    cluster.psql(
        "postgres",
        &format!(
            "CREATE ROLE reader; CREATE ROLE teller; ALTER DATABASE {name} SET work_mem = '64MB'; ALTER DATABASE {name} CONNECTION LIMIT 7;
             ALTER ROLE teller IN DATABASE {name} SET jit = off; GRANT CREATE ON DATABASE {name} TO reader; ALTER DATABASE {name} OWNER TO teller"
        ),
    );
    let ran = test.run(["restore", "app", "--replace", "--json"]).ok();
    let notes = ran.json()["items"][0]["notes"].as_array().unwrap().clone();
    let _former = cluster.adopt(&formers(cluster, name).concat());
    for said in [
        "the former one had work_mem=64MB, the restored one has none",
        "the former one had connection limit=7, the restored one has -1",
        "the former one had jit for role teller=off, the restored one has none",
        "the former one had owner=teller, the restored one has admin",
        "the former one had privileges of reader=CREATE, the restored one has none",
    ] {
        assert!(notes.iter().any(|note| note == said), "{said}: {notes:?}");
    }
    assert!(!notes.iter().any(|note| note.as_str().unwrap().contains("encoding")), "{notes:?}");
}

#[test]
fn an_absent_or_empty_place_needs_no_swap() {
    let database = SHARED.create_database();
    let test = changed_since(&database);
    let place = SHARED.adopt(&format!("{}_place", database.name()));
    for made in [false, true] {
        if made {
            SHARED.psql("postgres", &format!("DROP DATABASE {0}; ", place.name()));
            SHARED.psql("postgres", &format!("CREATE DATABASE {0} TEMPLATE template0", place.name()));
        }
        let ran = test.run(["restore", "app", "--to-database", place.name(), "--replace", "--json"]).ok();
        assert_eq!(ran.json()["items"][0]["notes"], serde_json::Value::Null);
        assert_eq!(place.psql(ROWS), "old old");
        assert_eq!(formers(&SHARED, place.name()), [""; 0]);
    }
}

#[test]
fn any_name_makes_room() {
    let source = SHARED.create_database();
    let test = changed_since(&source);
    for name in ["x".repeat(63), "東京".repeat(10) + "abc", "it's \"a\" {name} \\ $$ :x".into(), "two\nlines".into()] {
        let live = SHARED.adopt(&name);
        SHARED.psql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", quoted(&name)));
        live.psql("CREATE TABLE kept (i int)");
        let ran = test.run(["restore", "app", "--to-database", &name, "--replace"]).ok();
        assert_eq!(live.psql(ROWS), "old old");
        SHARED.psql("postgres", &command(&ran, "to swap back"));
        assert_eq!(live.psql("SELECT count(*) FROM kept"), "0");
        assert_eq!(comment(&SHARED, &name), "");
        let mark = "SELECT count(*) FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE 'db-backup-tools former%' AND datname";
        let cut: String = name.chars().take(11).collect();
        assert_eq!(SHARED.psql("postgres", &format!("{mark} LIKE {}", literal(&format!("{cut}%")))), "0");
        let others = format!(
            "SELECT datname FROM pg_database WHERE strpos(datname, '_after_') > 0 AND datname LIKE {}",
            literal(&format!("{}%", cut.replace('\\', "\\\\")))
        );
        drop(SHARED.adopt(&SHARED.psql("postgres", &others)));
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Asserts that a swap is refused with each of these texts, dry or not, and that nothing is changed.
#[track_caller]
fn is_refused(test: &Test, database: &Database, options: &[&str], said: &[&str]) {
    let before = database.dump();
    for more in [None, Some("--dry-run")] {
        let arguments = ["restore", "app", "--replace"].iter().chain(options).copied().chain(more);
        let mut ran = test.run(arguments).fails(2).says("can't make room");
        for text in said {
            ran = ran.says(text);
        }
    }
    is_untouched(database, &before);
    assert!(!database.cluster().log().contains(&format!("\"{}_restoring_", database.name())));
}

#[test]
fn everything_that_stands_in_the_way_is_named_at_once() {
    let database = FULL.create_database();
    let test = changed_since(&database);
    let name = database.name();
    // A slot is made when no transaction is open.
    database.psql(&format!("SELECT pg_create_logical_replication_slot('{name}_slot', 'pgoutput')"));
    database.psql("BEGIN; INSERT INTO t VALUES ('prepared'); PREPARE TRANSACTION 'two phases'");
    database.psql(&format!("CREATE SUBSCRIPTION {name}_sub CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)"));
    database.psql(&format!("ALTER SUBSCRIPTION {name}_sub ENABLE"));
    let session = Session::start(&FULL, name, "SELECT 1;");
    let (slot, subscription) = (format!("logical replication slot {name}_slot"), format!("enabled subscription {name}_sub"));
    let all = [
        "prepared transaction 'two phases' of role admin",
        &slot,
        &subscription,
        "sessions are on it: pid ",
        "(role admin, psql, from 127.0.0.1)",
        "--disconnect",
    ];
    is_refused(&test, &database, &[], &all);
    is_refused(&test, &database, &["--disconnect"], &all[..3]);
    {
        let _sender = Sender::start(&FULL, name);
        is_refused(&test, &database, &["--disconnect"], &["walsender (pid "]);
    }
    drop(session);
    database.psql("ROLLBACK PREPARED 'two phases'");
    database.psql(&format!("SELECT pg_drop_replication_slot('{name}_slot')"));
    is_refused(&test, &database, &["--disconnect"], &[&subscription, "DISABLE"]);
    database.psql(&format!("ALTER SUBSCRIPTION {name}_sub DISABLE; ALTER SUBSCRIPTION {name}_sub SET (slot_name = NONE)"));
    let workers = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type LIKE 'logical%'");
    eventually("its worker has ended", || FULL.psql("postgres", &workers) == "0");
    test.run(["restore", "app", "--replace", "--disconnect"]).ok();
    let former = FULL.adopt(&formers(&FULL, name).concat());
    former.psql(&format!("DROP SUBSCRIPTION {name}_sub"));
    assert_eq!(database.psql(ROWS), "old old");
}

#[test]
fn a_role_that_can_not_do_it_is_told_before_anything_is_loaded() {
    let database = FULL.create_database();
    let (test, name) = (changed_since(&database), database.name());
    FULL.psql(
        "postgres",
        &format!("CREATE ROLE swapper LOGIN CREATEDB PASSWORD '{PASSWORD}'; CREATE ROLE bystander LOGIN PASSWORD '{PASSWORD}'"),
    );
    let test = target_on(test, &FULL, "swapper", name);
    is_refused(&test, &database, &["--no-owner"], &["role swapper does not own it, but admin does"]);
    FULL.psql("postgres", &format!("ALTER ROLE swapper NOCREATEDB; ALTER DATABASE {name} OWNER TO swapper"));
    is_refused(&test, &database, &["--no-owner"], &["role swapper may not create or rename databases", "CREATEDB"]);
    FULL.psql("postgres", "ALTER ROLE swapper CREATEDB");
    {
        let _session = Session::start(&FULL, name, "SELECT 1;");
        is_refused(
            &test,
            &database,
            &["--no-owner", "--disconnect"],
            &["role swapper may not end the sessions on it: pid ", "role admin"],
        );
        let _other = Session::start(&FULL, name, "SET SESSION AUTHORIZATION bystander;");
        is_refused(&test, &database, &["--no-owner"], &["sessions are on it: pid "]);
    }
    test.run(["restore", "app", "--replace", "--no-owner"]).ok();
    let former = FULL.adopt(&formers(&FULL, name).concat());
    assert_eq!((database.psql(ROWS), former.psql(ROWS)), ("old old".into(), "new new".into()));
}

#[test]
fn the_servers_own_databases_are_never_replaced() {
    let database = SHARED.create_database();
    let test = changed_since(&database);
    for (name, said) in [("template1", "it is a template"), ("postgres", "it is the server's maintenance database")] {
        test.run(["restore", "app", "--replace", "--to-database", name]).fails(2).says(said).says("NEWNAME");
    }
    let test = target_on(test, &SHARED, SUPERUSER, "postgres");
    test.run(["restore", "app", "--replace"]).fails(2).says("maintenance database");
}

#[test]
fn clients_that_reconnect_at_once_do_not_stop_a_swap() {
    let database = SHARED.create_database();
    let (test, name) = (changed_since(&database), database.name());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut client = SHARED.client("psql", name);
                    client.args(["-X", "-q", "-c", "SELECT pg_sleep(600)"]).stderr(Stdio::null());
                    let _ = client.stdout(Stdio::null()).status();
                }
            })
        });
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE '%sleep%'");
        eventually("the clients are there", || SHARED.psql("postgres", &sessions) == "2");
        let ran = test.run(["restore", "app", "--replace"]);
        let swapped = test.run(["restore", "app", "--replace", "--disconnect"]);
        done.store(true, Ordering::Relaxed);
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        // One of them may be on its way to the server just now.
        eventually("the clients have ended", || {
            SHARED.psql("postgres", &end);
            clients.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
        ran.fails(2).says("sessions are on it: pid ");
        swapped.ok().says("are ended before the swap: pid ");
    });
    let former = SHARED.adopt(&formers(&SHARED, name).concat());
    assert_eq!((database.psql(ROWS), former.psql(ROWS)), ("old old".into(), "new new".into()));
}

#[test]
fn a_difference_or_a_check_that_does_not_hold_leaves_the_live_one_as_it_is() {
    let database = SHARED.create_database();
    let test = changed_since(&database).target_option("checks: [{ name: two rows, sql: 'SELECT count(*) FROM t', expect: 2 }]");
    let before = database.dump();
    let wrong = changed_since_is(&test, "checks: [{ name: three rows, sql: 'SELECT count(*) = 3 FROM t' }]");
    wrong.fails(1).says("nothing is replaced").says("three rows").says("--to-database NEWNAME");
    is_untouched(&database, &before);
    let content = String::from_utf8(content_of("gzip", &artifact(&test))).unwrap();
    forge(&test, &pack("gzip", content.replacen("old\n", "", 1).as_bytes()));
    test.run(["restore", "app", "--replace"]).fails(1).says("nothing is replaced").says("public.t has 1 row");
    is_untouched(&database, &before);
    // Without an inventory there is nothing to compare with, but there are checks.
    std::fs::remove_file(test.stored_one(".inventory.json")).unwrap();
    let ran = test.run(["restore", "app", "--replace"]).fails(1).says("two rows");
    assert!(ran.stderr.contains("compared with nothing"), "{}", ran.stderr);
    is_untouched(&database, &before);
}

/// A restore with another configuration's checks.
fn changed_since_is(test: &Test, checks: &str) -> Ran {
    let text = std::fs::read_to_string(test.path("backup.yml")).unwrap();
    let at = text.find("    checks:").unwrap();
    std::fs::write(test.path("other.yml"), format!("{}    {checks}\n", &text[..at])).unwrap();
    test.run(["-c", "other.yml", "restore", "app", "--replace"])
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let database = SHARED.create_database();
    let (test, before) = (changed_since(&database), database.dump());
    let ran = test.run(["restore", "app", "--replace", "--dry-run"]).ok();
    assert!(
        ran.stdout.contains("its own place, by target app; a database that is there would stay as NAME_before_..."),
        "{ran:?}"
    );
    let _session = Session::start(&SHARED, database.name(), "SELECT 1;");
    test.run(["restore", "app", "--replace", "--disconnect", "--dry-run"]).ok().says("are ended before the swap: pid ");
    is_untouched(&database, &before);
}

/// A session that reads the server's log of changes.
struct Sender(Child);

impl Sender {
    fn start(cluster: &Cluster, database: &str) -> Self {
        let mut command = cluster.client("psql", database);
        command.args(["-X", "-q", "-d", &format!("dbname={database} replication=database")]);
        let sender = Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'walsender'");
        eventually("the sender is there", || cluster.psql("postgres", &there) == "1");
        sender
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A restore with something done by `meanwhile` when the load has ended, and all looks have been had.
fn with_meanwhile(test: Test, options: &[&str], meanwhile: impl FnOnce()) -> Ran {
    let script = r#"case "$PGAPPNAME" in *swap) touch '{dir}/reached'; until [ -e '{dir}/go' ]; do sleep 0.02; done ;; esac; exec {real} "$@""#;
    let text = std::fs::read_to_string(test.path("backup.yml")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("client_bin:")).collect();
    let test = test.file("backup.yml", &kept.join("\n")).fake_bin("psql", script);
    let running = test.spawn(["restore", "app", "--replace"].iter().chain(options));
    eventually("the swap begins", || test.path("reached").exists());
    meanwhile();
    test.write("go", "");
    running.wait()
}

#[test]
fn what_comes_in_during_the_load_stops_the_swap_and_is_named() {
    let database = FULL.create_database();
    let (test, name) = (changed_since(&database), database.name());
    let slot = || drop(database.psql(&format!("SELECT pg_create_logical_replication_slot('{name}_late', 'pgoutput')")));
    let ran = with_meanwhile(test, &["--disconnect"], slot).fails(1);
    let before = database.dump();
    ran.says(&format!("database {name} is as it was")).says(&format!("logical replication slot {name}_late"));
    database.psql(&format!("SELECT pg_drop_replication_slot('{name}_late')"));
    is_untouched(&database, &before);
}

#[test]
fn a_session_that_comes_in_during_the_load_stops_the_swap_and_is_named() {
    let database = SHARED.create_database();
    let (test, before) = (changed_since(&database), database.dump());
    let mut session = None;
    let ran = with_meanwhile(test, &[], || session = Some(Session::start(&SHARED, database.name(), "SELECT 1;")));
    ran.fails(1).says("is as it was").says("sessions are on it: pid ").says("role admin, psql");
    drop(session);
    is_untouched(&database, &before);
}

#[test]
fn another_database_under_the_same_name_is_not_replaced() {
    let database = SHARED.create_database();
    let (test, name) = (changed_since(&database), database.name());
    let ran = with_meanwhile(test, &[], || {
        SHARED.psql("postgres", &format!("DROP DATABASE {name}"));
        SHARED.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        database.psql("CREATE TABLE other (i int)");
    });
    ran.fails(1).says("it is not the database that had the name before the load");
    assert_eq!(database.psql("SELECT count(*) FROM other"), "0");
    assert_eq!(databases_of(&SHARED, &format!("{name}_")), [""; 0]);
}
