//! Databases in containers, and what ends in the middle: whatever ends the program, nothing of it goes on in the container, and
//! the server there is not disturbed.

use std::process::{Child, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard};

use rustix::process::kill_process;

use crate::support::{Container, Docker, Signal, Test, eventually};

const TABLE: &str = "CREATE TABLE t (id int, word text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 1000) n";

/// A server of these tests alone, one after another: they look at its processes.
fn own() -> Option<MutexGuard<'static, Container>> {
    static OWN: LazyLock<Option<Mutex<Container>>> =
        LazyLock::new(|| Docker::shared().map(|docker| Mutex::new(docker.postgres_container())));
    OWN.as_ref().map(|own| own.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// A psql session that holds a lock on `t` until it is dropped.
struct Locker(Child);

impl Locker {
    fn of(container: &Container, database: &str) -> Self {
        let psql = ["exec", "-i", container.name(), "psql", "-X", "-q", "-U", "postgres", "-d", database];
        let mut psql = Docker::shared().unwrap().command(psql).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(psql.stdin.as_mut().unwrap(), b"BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE;\n").unwrap();
        let held = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock' AND granted";
        eventually("the table is locked", || container.psql_in(database, held) == "1");
        Self(psql)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn waits_for_table(container: &Container, database: &str) {
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted";
    eventually("pg_dump waits for the table", || container.psql_in(database, waits) == "1");
}

fn sessions(container: &Container) -> String {
    container.psql("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'db-backup-tools%'")
}

/// What runs in the container besides the server and the tests' own.
fn ours(container: &Container) -> Vec<String> {
    let processes = container.processes().into_iter().filter(|line| line.contains("pg_dump") || line.contains("ON_ERROR_STOP"));
    processes.collect()
}

#[track_caller]
fn is_undisturbed(container: &Container) {
    let logs = container.logs();
    assert!(
        !logs.contains("terminated by signal") && !logs.contains("terminating any other active server processes"),
        "the server was hit:\n{logs}"
    );
}

#[test]
fn nothing_of_a_dump_goes_on_in_the_container_whatever_ends_it() {
    let Some(container) = own() else { return };
    let database = container.new_database(TABLE);
    let _locker = Locker::of(&container, &database);
    for signal in [Some(Signal::TERM), Some(Signal::INT), Some(Signal::KILL), None] {
        let timeout = if signal.is_none() { "timeout: 10s" } else { "timeout: 1h" };
        let test = Test::inside(&container, &database).target_option(timeout);
        let running = test.spawn(["backup"]);
        if let Some(signal) = signal {
            waits_for_table(&container, &database);
            assert!(sessions(&container).starts_with("db-backup-tools 2"), "{}", sessions(&container));
            running.kill(signal);
        }
        let ran = running.wait();
        match signal {
            Some(Signal::TERM) => drop(ran.fails(143).says("interrupted")),
            Some(Signal::INT) => drop(ran.fails(130)),
            Some(_) => assert_eq!(ran.signal, Some(9)),
            None => drop(ran.fails(1).says("app: dump: not done within 10s")),
        }
        eventually("pg_dump has gone", || ours(&container).is_empty());
        eventually("its session has gone", || sessions(&container).is_empty());
        assert!(signal == Some(Signal::KILL) || test.stored().is_empty(), "{:?}", test.stored());
        assert!(test.stored().iter().all(|name| !name.ends_with(".manifest.json")));
    }
    is_undisturbed(&container);
}

#[test]
fn a_pg_dump_that_is_killed_in_the_container_is_a_failure_and_no_crash_of_the_server() {
    let Some(container) = own() else { return };
    let database = container.new_database(TABLE);
    let _locker = Locker::of(&container, &database);
    let test = Test::inside(&container, &database).target_option("retries: 0");
    let running = test.spawn(["backup"]);
    waits_for_table(&container, &database);
    container.exec(["sh", "-c", "kill -9 $(pidof pg_dump)"]);
    running.wait().fails(1).says("pg_dump was killed by signal 9").says("OOMKilled");
    assert!(test.stored().is_empty());
    eventually("its session has gone", || sessions(&container).is_empty());
    is_undisturbed(&container);
}

#[test]
fn a_client_that_exits_well_before_the_end_is_a_failure() {
    let Some(container) = own() else { return };
    let database = container.new_database(TABLE);
    for format in ["plain", "custom"] {
        let locker = Locker::of(&container, &database);
        let test = Test::inside(&container, &database).target_option("retries: 0").target_option(&format!("format: {format}"));
        let running = test.spawn(["backup"]);
        waits_for_table(&container, &database);
        // Sent this it exits with code 0, as where its connection is cut.
        kill_process(Container::client_in(&container.id(), &format!("--format={format}")), Signal::TERM).unwrap();
        running.wait().fails(1).says("app: dump: pg_dump in container").says("the connection to the engine broke before the end");
        assert!(test.stored().is_empty());
        eventually("pg_dump has gone", || ours(&container).is_empty());
        drop(locker);
    }
    is_undisturbed(&container);
}

/// A database whose load elsewhere waits at its end.
fn slow_to_load(container: &Container) -> String {
    let database = container.new_database(TABLE);
    let slow = format!(
        "CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS
           $$ SELECT CASE WHEN current_database() = '{database}' THEN 1 ELSE (SELECT 1 FROM pg_sleep(600)) END $$;
         CREATE MATERIALIZED VIEW m AS SELECT slow() AS n"
    );
    container.psql_in(&database, &slow);
    database
}

#[test]
fn a_restore_that_is_ended_leaves_nothing_under_the_wanted_name() {
    let Some(container) = own() else { return };
    let database = slow_to_load(&container);
    let test = Test::inside(&container, &database);
    test.run(["backup"]).ok();
    let copy = format!("{database}_copy");
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    for signal in [Signal::TERM, Signal::KILL] {
        let running = test.spawn(["restore", "app", "--to-database", &copy]);
        eventually("it loads", || container.psql(sleeps) == "1");
        running.kill(signal);
        let ran = running.wait();
        let left = container.databases_like(&copy);
        if signal == Signal::TERM {
            ran.fails(143);
            assert_eq!(left, Vec::<String>::new());
            eventually("psql has gone", || ours(&container).is_empty());
            assert_eq!(sessions(&container), "");
        } else {
            assert!(left.len() == 1 && left[0].starts_with(&format!("{copy}_restoring_")), "{left:?}");
        }
    }
    // What the killed one left goes with the next, as soon as nobody is at work in it.
    container.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    eventually("psql has gone", || ours(&container).is_empty());
    container.psql_in(&database, "DROP MATERIALIZED VIEW m");
    test.run(["backup"]).ok();
    test.run(["restore", "app", "--to-database", &copy]).ok().says("is what an interrupted restore left");
    assert_eq!(container.databases_like(&copy), std::slice::from_ref(&copy));
    assert_eq!(container.dump(&copy), container.dump(&database));
}

#[test]
fn a_container_that_stops_in_the_middle_is_a_failure() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker.postgres_container();
    let database = container.new_database(TABLE);
    for (end, says) in [("stop", "look into its log"), ("kill", "was container")] {
        container.start();
        container.wait_ready();
        let locker = Locker::of(&container, &database);
        let test = Test::inside(&container, &database).target_option("retries: 0");
        let running = test.spawn(["backup"]);
        waits_for_table(&container, &database);
        docker.ok([end, container.name()]);
        running.wait().fails(1).says("app: dump: pg_dump ").says(says);
        assert!(test.stored().is_empty());
        drop(locker);
    }
}
