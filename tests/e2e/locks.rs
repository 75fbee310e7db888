//! One run a unit at a time: who is told what while another holds the lock, and who is not concerned.

use std::fs;

use crate::support::cluster::{HOST, PASSWORD, SUPERUSER};
use crate::support::{Database, Ran, Running, SHARED, Signal, Test, eventually};

/// Says so in `{dir}/waiting`, and waits for a file `{dir}/go`, no longer than the test's directory is there.
const WAITS: &str = r#"[ "$1" = --version ] && exec {real} --version
echo $$ >>{dir}/waiting; while [ -d {dir} ] && ! [ -e {dir}/go ]; do sleep 0.05; done; exec {real} "$@""#;

fn small_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    database
}

/// A run that holds the lock of `app`, in the middle of its dump.
fn holding(test: &Test) -> Running {
    let running = test.spawn(["backup", "app"]);
    eventually("its dump runs", || test.path("waiting").exists());
    running
}

fn let_go(test: &Test) {
    fs::write(test.path("go"), "").unwrap();
}

#[track_caller]
fn items(ran: &Ran) -> usize {
    ran.json()["items"].as_array().unwrap().len()
}

#[test]
fn a_second_run_ends_in_75_and_names_the_holder_and_since_when() {
    let database = small_database();
    let test = Test::of(&database).fake_bin("pg_dump", WAITS);
    let first = holding(&test);
    let second = test.run(["backup"]).fails(75);
    let pid = first.pid().as_raw_nonzero().to_string();
    let said = second.stderr.replace(&format!("process {pid} "), "process PID ");
    insta::with_settings!({ filters => vec![
        (r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \([^)]*\)", "since TIME (SPAN)"),
        (r"in \d+[^ \n]*\n", "in TIME\n"),
    ] }, {
        insta::assert_snapshot!(said, @r"
        app: failed
        error: app: its lock is held by process PID since TIME (SPAN)
          hint: try again when it is done, or let this run wait for it: `--wait 10m`
        backup: 1 unit failed, 0 B in TIME
        ");
    });
    let_go(&test);
    first.wait().ok();
    assert_eq!(items(&test.run(["list", "--json", "--all"]).ok()), 1);
}

#[test]
fn a_run_that_may_wait_takes_the_lock_when_it_is_free() {
    let database = small_database();
    let test = Test::of(&database).fake_bin("pg_dump", WAITS);
    let first = holding(&test);
    let mut second = test.spawn(["backup", "--wait", "10m"]);
    eventually("both are under way", || open_files(&second).contains("app.lock"));
    assert!(second.is_running() && first.stderr_so_far().is_empty());
    assert_eq!(fs::read_to_string(test.path("waiting")).unwrap().lines().count(), 1, "the second one's dump has begun");
    let_go(&test);
    first.wait().ok();
    second.wait().ok();
    assert_eq!(items(&test.run(["list", "--json"]).ok()), 2);
}

/// What the program holds open.
fn open_files(running: &Running) -> String {
    let directory = format!("/proc/{}/fd", running.pid().as_raw_nonzero());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names: Vec<_> = entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect();
    names.join("\n")
}

#[test]
fn a_wait_that_is_over_ends_in_75() {
    let database = small_database();
    let test = Test::of(&database).fake_bin("pg_dump", WAITS);
    let first = holding(&test);
    test.run(["backup", "--wait", "1s"]).fails(75).says("its lock is still held by process").says("hint: wait longer");
    let_go(&test);
    first.wait().ok();
}

#[test]
fn the_lock_of_a_killed_run_is_free() {
    let database = small_database();
    let test = Test::of(&database).fake_bin("pg_dump", WAITS);
    let first = holding(&test);
    first.kill(Signal::KILL);
    assert_eq!(first.wait().signal, Some(9));
    // Its pg_dump lives on, as nothing can end it then, and holds no lock.
    let_go(&test);
    test.run(["backup"]).ok();
}

#[test]
fn another_unit_is_not_concerned() {
    let database = small_database();
    let target = |name: &str, more: &str| {
        let (port, database) = (SHARED.port(), database.name());
        format!(
            "  - {{ name: {name}, type: postgres, host: {HOST}, port: {port}, user: {SUPERUSER}, \
             password: '{PASSWORD}', database: {database}{more} }}\n"
        )
    };
    let real = crate::support::cluster::binaries().display().to_string();
    let config = format!(
        "version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\ntargets:\n{}{}",
        target("app", ", client_bin: '{bin}'"),
        target("app2", &format!(", client_bin: '{real}'"))
    );
    let test = Test::new().config(&config).fake_bin("pg_dump", WAITS);
    let first = holding(&test);
    test.run(["backup", "app2"]).ok();
    let both = test.run(["backup", "--json"]).fails(75).says("app: its lock is held by process");
    let statuses: Vec<_> = both.json()["items"].as_array().unwrap().iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, ["failed", "ok"]);
    let_go(&test);
    first.wait().ok();
}

#[test]
fn a_restore_and_a_prune_wait_for_no_dump_and_a_dry_run_needs_no_lock() {
    let database = small_database();
    let test = Test::of(&database).fake_bin("pg_dump", WAITS);
    let_go(&test);
    test.run(["backup"]).ok();
    fs::remove_file(test.path("go")).unwrap();
    fs::remove_file(test.path("waiting")).unwrap();
    let first = holding(&test);
    let wanted = SHARED.adopt(&format!("{}_restored", database.name()));
    test.run(["restore", "app", "--to-database", wanted.name()]).fails(75).says("its lock is held by process");
    assert!(!wanted.exists());
    test.run(["prune"]).fails(75).says("app: its lock is held by process");
    test.run(["prune", "--dry-run"]).ok();
    test.run(["backup", "--dry-run"]).ok();
    test.run(["restore", "app", "--to-database", wanted.name(), "--dry-run"]).ok();
    test.run(["list"]).ok();
    test.run(["restore", "app", "--output", "dump.sql"]).ok();
    let mut waiting = test.spawn(["restore", "app", "--to-database", wanted.name(), "--wait", "10m"]);
    eventually("it waits", || open_files(&waiting).contains("app.lock"));
    assert!(waiting.is_running() && !wanted.exists());
    let_go(&test);
    first.wait().ok();
    waiting.wait().ok();
    assert!(wanted.exists());
}

#[test]
fn a_state_directory_that_can_not_be_written_is_said_before_anything_runs() {
    let database = small_database();
    let test = Test::of(&database).fake_bin("pg_dump", WAITS).unprivileged();
    let closed = std::process::Command::new("chmod").arg("500").arg(test.path("state")).status().unwrap();
    assert!(closed.success());
    let ran = test.run(["backup"]).fails(1);
    ran.says("app: can't keep a lock in ").says("Permission denied").says("hint: set `state_dir:` to a directory");
    assert!(test.stored().is_empty() && !test.path("waiting").exists());
}

#[test]
fn a_state_directory_is_made_with_its_parents() {
    let database = small_database();
    let test = Test::of(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let state = test.path("state").display().to_string();
    test.write("backup.yml", &config.replace(&state, &format!("{state}/a/b")));
    test.run(["backup"]).ok();
    assert!(test.path("state/a/b/locks/app.lock").exists());
}
