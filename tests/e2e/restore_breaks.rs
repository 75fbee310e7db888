//! A restore that something ends in the middle: exit code 1 (or the signal's), psql's own words, no scratch database
//! and no session left.

use std::fs;

use rustix::process::{Pid, kill_process};

use crate::forge::{backed_up, databases_of};
use crate::session::Session;
use crate::support::{Cluster, Database, Running, SHARED, Signal, Test, eventually, sample_database};

/// A database whose load comes to an index that takes ten minutes, behind 300 kB of rows.
fn slow_to_load(cluster: &Cluster) -> Database {
    let database = cluster.create_database();
    database.psql(
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
         CREATE TABLE t AS SELECT 1 AS i, repeat('x', 300000) AS filler; CREATE INDEX ON t (f(i));
         CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(600); RETURN $1; END'",
    );
    database
}

/// A restore of such a database that has come to its index.
fn loading(cluster: &Cluster, name: &str) -> (Test, Running) {
    let test = backed_up(&slow_to_load(cluster), "gzip");
    let running = test.spawn(["restore", "app", "--to-database", name]);
    let at_index =
        format!("SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, '{name}') AND query LIKE 'CREATE INDEX%'");
    eventually("the load is at its index", || cluster.psql("postgres", &at_index) == "1");
    (test, running)
}

#[track_caller]
fn nothing_is_left(cluster: &Cluster, name: &str) {
    assert_eq!(databases_of(cluster, name), [""; 0]);
    let sessions = "SELECT application_name, query FROM pg_stat_activity WHERE starts_with(application_name, 'db-backup-tools restore') AND ";
    let ours = format!("{sessions} (starts_with(datname, '{name}') OR query LIKE '%{name}_restoring%')");
    eventually("its sessions are gone", || cluster.psql("postgres", &ours).is_empty());
}

#[test]
fn a_psql_that_swallows_everything_and_exits_0_is_caught() {
    for (number, script) in [
        "cat >/dev/null; exit 0",
        "cat >/dev/null; echo done; exit 0",
        // It applies the beginning, and says that all is well.
        "head -c 400000 | {real} \"$@\" >/dev/null; cat >/dev/null; exit 0",
        "head -c 1000 >/dev/null; exit 0",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("swallowed_{number}");
        let test = with_psql(&format!("{ON_LOAD}; {script}"));
        let ran = test.run(["restore", "app", "--to-database", &name]).fails(1);
        assert!(ran.stderr.contains("psql"), "{script}: {}", ran.stderr);
        nothing_is_left(&SHARED, &name);
    }
}

/// A test with a backup of the sample, and then another psql.
fn with_psql(script: &str) -> Test {
    let sample = sample_database();
    let test = Test::of(&sample);
    test.run(["-q", "backup"]).ok();
    test.fake_bin("psql", script)
}

/// The beginning of a psql that is itself but for the load.
const ON_LOAD: &str = r#"case "$PGDATABASE" in *_restoring_*) ;; *) exec {real} "$@" ;; esac"#;

#[test]
fn a_psql_that_is_killed_in_the_middle_is_told() {
    let script = format!("{ON_LOAD}; head -c 100000 >/dev/null; kill -9 $$");
    let test = with_psql(&script);
    test.run(["restore", "app", "--to-database", "killed"]).fails(1).says("killed by signal 9");
    nothing_is_left(&SHARED, "killed");
}

#[test]
fn a_psql_that_fails_at_once_is_told_in_its_words() {
    let script = format!("{ON_LOAD}; echo 'psql: error: no memory today' >&2; exit 3");
    let test = with_psql(&script);
    test.run(["restore", "app", "--to-database", "failing"]).fails(1).says("no memory today").says("code 3");
    nothing_is_left(&SHARED, "failing");
}

#[test]
fn a_statement_that_fails_on_load_is_told_in_the_servers_words() {
    let database = SHARED.create_database();
    database.psql(
        "CREATE FUNCTION is_good(int) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE TABLE t (i int CONSTRAINT must_be_good CHECK (is_good(i))); INSERT INTO t VALUES (1);
         CREATE OR REPLACE FUNCTION is_good(int) RETURNS bool LANGUAGE sql AS 'SELECT false'",
    );
    let test = backed_up(&database, "gzip");
    test.run(["restore", "app", "--to-database", "unloadable"]).fails(1).says("violates check constraint \"must_be_good\"");
    nothing_is_left(&SHARED, "unloadable");
}

#[test]
fn a_session_that_is_ended_in_the_middle_leaves_nothing() {
    let (_test, running) = loading(&SHARED, "ended");
    SHARED.psql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with(datname, 'ended')");
    running.wait().fails(1).says("terminating connection");
    nothing_is_left(&SHARED, "ended");
}

#[test]
fn a_server_that_stops_in_the_middle_is_told_with_what_is_left() {
    let cluster = Cluster::start();
    let (_test, running) = loading(&cluster, "stopped");
    let pid = fs::read_to_string(cluster.socket_directory().join("data/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    // As `pg_ctl stop -m immediate` does.
    kill_process(pid, Signal::QUIT).unwrap();
    let ran = running.wait().fails(1).says("could not be dropped").says("DROP DATABASE \"stopped_restoring_");
    assert!(ran.stderr.contains("server"), "{}", ran.stderr);
}

#[test]
fn a_server_that_crashes_and_comes_back_has_no_scratch_database() {
    let cluster = Cluster::start();
    let (_test, running) = loading(&cluster, "crashed");
    let pid = cluster.psql("postgres", "SELECT pid FROM pg_stat_activity WHERE starts_with(datname, 'crashed')");
    // A backend that is killed takes all of them with it; the server recovers by itself.
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    running.wait().fails(1);
    eventually("the server is back", || cluster.try_psql("postgres", "SELECT 1").status.success());
    nothing_is_left(&cluster, "crashed");
}

#[test]
fn a_restore_that_is_done_outlives_a_crash_of_a_server_that_commits_asynchronously() {
    let cluster = Cluster::start_with(&["synchronous_commit=off"]);
    let database = cluster.create_database();
    database.psql("CREATE TABLE t AS SELECT 1 AS i");
    let test = backed_up(&database, "gzip");
    let pid = cluster.psql("postgres", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
    let wal_writer = Pid::from_raw(pid.parse().unwrap()).unwrap();
    // It would bring what was committed to the disk a little later.
    kill_process(wal_writer, Signal::STOP).unwrap();
    test.run(["restore", "app", "--to-database", "outlives"]).ok();
    kill_process(wal_writer, Signal::KILL).unwrap();
    // The shared memory goes with it, and the log that was in there alone.
    eventually("the crash is seen", || cluster.log().contains("terminating any other active server processes"));
    eventually("the server is back", || cluster.try_psql("postgres", "SELECT 1").status.success());
    assert_eq!(databases_of(&cluster, "outlives"), ["outlives"]);
    assert_eq!(cluster.psql("outlives", "SELECT i FROM t"), "1");
}

#[test]
fn a_signal_during_the_load_leaves_nothing() {
    for (signal, code, name) in
        [(Signal::TERM, 143, "signalled_term"), (Signal::INT, 130, "signalled_int"), (Signal::HUP, 129, "signalled_hup")]
    {
        let (_test, running) = loading(&SHARED, name);
        running.kill(signal);
        running.wait().fails(code);
        nothing_is_left(&SHARED, name);
    }
}

#[test]
fn a_signal_before_anything_is_made_leaves_nothing() {
    let script = r#"case "$*" in *--version*) exec {real} "$@" ;; esac; touch {dir}/asking; cat; sleep 600"#;
    let test = with_psql(script);
    let running = test.spawn(["restore", "app", "--to-database", "early"]);
    eventually("psql is asking", || test.path("asking").exists());
    running.kill(Signal::TERM);
    running.wait().fails(143);
    nothing_is_left(&SHARED, "early");
}

#[test]
fn a_signal_while_the_scratch_database_is_made_leaves_nothing() {
    let cluster = Cluster::start();
    let test = backed_up(&slow_to_load(&cluster), "gzip");
    let lock = Session::start(&cluster, "postgres", "BEGIN; COMMENT ON DATABASE template0 IS 'locked';");
    let running = test.spawn(["restore", "app", "--to-database", "unmade"]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CREATE DATABASE%' AND wait_event_type = 'Lock'";
    eventually("it waits for template0", || cluster.psql("postgres", waits) == "1");
    running.kill(Signal::TERM);
    running.wait().fails(143);
    nothing_is_left(&cluster, "unmade");
    drop(lock);
    nothing_is_left(&cluster, "unmade");
}

#[test]
fn a_signal_while_it_gets_its_name_leaves_what_had_the_name() {
    let cluster = Cluster::start();
    let original = cluster.create_database();
    original.psql("CREATE TABLE t (i int)");
    let test = backed_up(&original, "gzip");
    cluster.psql("postgres", "CREATE DATABASE taken TEMPLATE template0");
    let oid = || cluster.psql("postgres", "SELECT oid FROM pg_database WHERE datname = 'taken'");
    let before = oid();
    let lock = Session::start(&cluster, "postgres", "BEGIN; COMMENT ON DATABASE taken IS 'locked';");
    let running = test.spawn(["restore", "app", "--to-database", "taken"]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%' AND wait_event_type = 'Lock'";
    eventually("it waits for the name", || cluster.psql("postgres", waits) == "1");
    running.kill(Signal::TERM);
    running.wait().fails(143);
    drop(lock);
    assert_eq!(databases_of(&cluster, "taken"), ["taken"]);
    assert_eq!(oid(), before);
}

#[test]
fn a_database_that_came_in_the_meantime_is_left_alone() {
    let cluster = Cluster::start();
    let original = cluster.create_database();
    original.psql("CREATE TABLE t (i int)");
    // It makes the wanted database when the load begins.
    let made = "PGDATABASE=postgres {real} -X -q -c 'CREATE DATABASE raced' && PGDATABASE=raced {real} -X -q -c 'CREATE TABLE precious (i int)'";
    let test = Test::of(&original);
    test.run(["-q", "backup"]).ok();
    let test = test.fake_bin("psql", &format!("{ON_LOAD}; {made} </dev/null; exec {{real}} \"$@\""));
    let raced = cluster.adopt("raced");
    test.run(["restore", "app", "--to-database", "raced"]).fails(1).says("already exists");
    assert_eq!(databases_of(&cluster, "raced"), ["raced"]);
    assert_eq!(raced.psql("SELECT count(*) FROM precious"), "0");
}

#[test]
fn what_came_into_an_empty_database_in_the_meantime_is_kept() {
    let cluster = Cluster::start();
    let original = cluster.create_database();
    original.psql("CREATE TABLE t (i int)");
    let test = Test::of(&original);
    test.run(["-q", "backup"]).ok();
    let filled = "PGDATABASE=filled {real} -X -q -c 'CREATE TABLE precious (i int)' </dev/null";
    let test = test.fake_bin("psql", &format!("{ON_LOAD}; {filled}; exec {{real}} \"$@\""));
    cluster.psql("postgres", "CREATE DATABASE filled");
    test.run(["restore", "app", "--to-database", "filled"]).says("is kept as filled_restoring_");
    let kept = databases_of(&cluster, "filled_restoring_");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(cluster.adopt(&kept[0]).psql("SELECT count(*) FROM precious"), "0");
}
