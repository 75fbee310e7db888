//! pg_dump replaced by programs that fail in every way that one can: each time the run fails, says
//! why in one line, lists nothing and leaves no file.

use std::fs;

use crate::support::{Cluster, Database, Ran, SHARED, Signal, Test, eventually};

fn small_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (id int, word text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    database
}

/// The real pg_dump's answer to `--version`, and this instead of a dump; each call is counted.
fn faked(database: &Database, script: &str) -> Test {
    let version = r#"[ "$1" = --version ] && exec {real} --version"#;
    Test::of(database).fake_bin("pg_dump", &format!("{version}\necho call >>{{dir}}/calls\n{script}"))
}

fn calls(test: &Test) -> usize {
    fs::read_to_string(test.path("calls")).unwrap_or_default().lines().count()
}

/// What it says without what differs from machine to machine.
fn said(test: &Test, ran: &Ran) -> String {
    let directory = test.path("");
    let without_place = ran.stderr.replace(directory.to_str().unwrap().trim_end_matches('/'), "DIR");
    let without_time = |line: &str| match line.split_once(" in ") {
        Some((counts, _)) if line.starts_with("backup: ") => format!("{counts} in TIME"),
        _ => line.to_owned(),
    };
    without_place.lines().map(without_time).collect::<Vec<_>>().join("\n")
}

/// Fails with exit code 1, lists nothing, leaves no file of any kind, and never tries again.
#[track_caller]
fn leaves_nothing(test: &Test) -> String {
    let ran = test.run(["backup"]).fails(1);
    assert_eq!(test.stored(), Vec::<String>::new());
    let listed = test.run(["list", "--json", "--all"]).ok().json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 0);
    assert_eq!(calls(test), 1, "a child's own failure is tried again");
    assert_eq!(crate::support::tool::files_below(&test.path("tmp")), Vec::<String>::new());
    said(test, &ran)
}

/// The first half of a real dump.
const HALF: &str = r#"{real} "$@" >{dir}/whole; head -c $(($(wc -c <{dir}/whole) / 2)) {dir}/whole"#;

// FIELD: "a dump's exit code ignored".
#[test]
fn half_a_dump_and_exit_1() {
    let database = small_database();
    let test = faked(&database, &format!("{HALF}; echo 'pg_dump: error: the disk fell off' >&2; exit 1"));
    insta::assert_snapshot!(leaves_nothing(&test), @r"
    app: failed
    error: app: dump: pg_dump exited with code 1: the disk fell off
      hint: run DIR/bin/pg_dump by hand, as this user, on the same database
    backup: 1 unit failed, 0 B in TIME
    ");
}

// FIELD: "truncated objects completed ... before the dump's status was known"; exit 0 proves nothing.
#[test]
fn half_a_dump_and_exit_0() {
    let database = small_database();
    let test = faked(&database, HALF);
    let said = leaves_nothing(&test);
    let half = fs::metadata(test.path("whole")).unwrap().len() / 2;
    insta::assert_snapshot!(said.replace(&half.to_string(), "HALF"), @r"
    app: failed
    error: app: dump: pg_dump exited with code 0, but the HALF bytes that it wrote do not end as a whole dump does
      hint: is DIR/bin/pg_dump the real pg_dump? run it by hand and look at its last lines
    backup: 1 unit failed, 0 B in TIME
    ");
}

// FIELD: "killed by the OOM killer, unnoticed".
#[test]
fn half_a_dump_and_a_kill() {
    let database = small_database();
    let test = faked(&database, &format!("{HALF}; kill -9 $$"));
    insta::assert_snapshot!(leaves_nothing(&test), @r"
    app: failed
    error: app: dump: pg_dump was killed by signal 9 (SIGKILL; the out-of-memory killer?) and said nothing
      hint: find out who sent the signal: where memory ran out, the kernel's log says so
    backup: 1 unit failed, 0 B in TIME
    ");
}

// FIELD: "0-byte archives reported as success".
#[test]
fn nothing_and_exit_0() {
    let database = small_database();
    let test = faked(&database, "exit 0");
    insta::assert_snapshot!(leaves_nothing(&test), @r"
    app: failed
    error: app: dump: pg_dump exited with code 0 and wrote nothing
      hint: is DIR/bin/pg_dump the real pg_dump? run it by hand and look at its last lines
    backup: 1 unit failed, 0 B in TIME
    ");
}

#[test]
fn a_whole_dump_and_exit_3() {
    let database = small_database();
    let test = faked(&database, r#"{real} "$@"; exit 3"#);
    insta::assert_snapshot!(leaves_nothing(&test), @r"
    app: failed
    error: app: dump: pg_dump exited with code 3 and said nothing
      hint: run DIR/bin/pg_dump by hand, as this user, on the same database
    backup: 1 unit failed, 0 B in TIME
    ");
}

#[test]
fn a_dump_whose_end_mark_stands_only_in_a_row() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (line text); INSERT INTO t VALUES ('--'), ('-- PostgreSQL database dump complete'), ('--')");
    // Cut behind that row, so that the text ends like a whole dump's.
    let cut = r#"{real} "$@" >{dir}/whole; sed -n '1,/^-- PostgreSQL database dump complete$/p' {dir}/whole; echo --"#;
    let test = faked(&database, cut);
    let said = leaves_nothing(&test);
    assert!(said.contains("do not end as a whole dump does"), "{said}");
    let whole = fs::read_to_string(test.path("whole")).unwrap();
    assert_eq!(whole.matches("\n-- PostgreSQL database dump complete\n").count(), 2, "one in a row, one at the end");
}

#[test]
fn a_dump_without_its_last_line() {
    let database = small_database();
    let test = faked(&database, r#"{real} "$@" >{dir}/whole; grep -v '^-- PostgreSQL database dump complete' {dir}/whole"#);
    let said = leaves_nothing(&test);
    assert!(said.contains("do not end as a whole dump does"), "{said}");
}

#[test]
fn a_dump_with_more_behind_its_end() {
    let database = small_database();
    let test = faked(&database, r#"{real} "$@"; echo 'SELECT 1;'"#);
    let said = leaves_nothing(&test);
    assert!(said.contains("do not end as a whole dump does"), "{said}");
}

#[test]
fn endless_words_on_stderr_stop_nothing_and_are_cut() {
    let database = small_database();
    let chatter = "awk 'BEGIN { for (i = 0; i < 400000; i++) print \"pg_dump: chatter \" i > \"/dev/stderr\" }'";
    let test = faked(&database, &format!("{chatter}\n{HALF}; exit 1"));
    let said = leaves_nothing(&test);
    assert!(said.contains("chatter 0") && said.len() < 3000, "{} bytes: {said}", said.len());
}

#[test]
fn a_pg_dump_that_can_not_be_run() {
    let database = small_database();
    let test = Test::of(&database).target_option("client_bin: '{dir}/none'");
    test.run(["backup"]).fails(1).says("there is no psql in ").says("hint: correct `client_bin:`");
    assert!(test.stored().is_empty());
}

// FIELD: "a truncated object that became latest"; "a month of failed runs empties it".
#[test]
fn a_failed_run_deletes_nothing_and_the_last_good_backup_stays_the_latest() {
    let database = small_database();
    let test = Test::of(&database).target_option("retention: { keep_last: 1 }");
    for _ in 0..2 {
        test.run(["backup", "--no-prune"]).ok();
    }
    let before = test.stored();
    let test = test.fake_bin("pg_dump", &format!("[ \"$1\" = --version ] && exec {{real}} --version\n{HALF}"));
    test.run(["backup"]).fails(1);
    assert_eq!(test.stored(), before);
    test.run(["restore", "app", "--output", "latest.sql"]).ok();
    let dump = fs::read_to_string(test.path("latest.sql")).unwrap();
    assert!(crate::support::comparable(&dump) == database.dump());
}

/// FIELD: an unknown failure that is only a warning: they are kept, and the backup is whole.
#[test]
fn warnings_of_a_pg_dump_that_ended_well_are_told_and_kept() {
    let database = small_database();
    let test = faked(&database, r#"echo 'pg_dump: warning: there are circular foreign keys' >&2; exec {real} "$@""#);
    let ran = test.run(["backup", "--json"]).ok().says("app: there are circular foreign keys");
    assert_eq!(ran.stderr.matches("circular").count(), 1, "{}", ran.stderr);
    let warnings = serde_json::json!(["there are circular foreign keys"]);
    assert_eq!(ran.json()["items"][0]["warnings"], warnings);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["warnings"], warnings);
}

/// Whether a process of this number is there and no zombie.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_timeout_ends_a_pg_dump_that_hangs_and_all_that_it_started() {
    let database = small_database();
    let hangs = "sleep 1000 & echo $! >{dir}/grandchild; echo $$ >{dir}/child; echo '-- half'; wait";
    let test = faked(&database, hangs).target_option("timeout: 8s");
    insta::assert_snapshot!(leaves_nothing(&test), @r"
    app: failed
    error: app: dump: not done within 8s
      hint: raise the target's `timeout:`, or find out what it waits for
    backup: 1 unit failed, 0 B in TIME
    ");
    for name in ["child", "grandchild"] {
        assert!(!lives(&fs::read_to_string(test.path(name)).unwrap()), "the {name} lives on");
    }
}

#[test]
fn a_process_left_in_the_background_does_not_hold_up_the_end() {
    let database = small_database();
    let test = faked(&database, r#"{real} "$@" >{dir}/whole; sleep 1000 & echo $! >{dir}/grandchild; cat {dir}/whole"#);
    let said = leaves_nothing(&test);
    assert!(said.contains("holds its pipe and is silent"), "{said}");
    assert!(!lives(&fs::read_to_string(test.path("grandchild")).unwrap()));
}

#[test]
fn a_dump_that_fails_in_the_server_is_quoted_with_a_way_out() {
    let database = small_database();
    database.psql("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''on purpose''; END'");
    database.psql("CREATE TABLE secret (id int); ALTER TABLE secret ENABLE ROW LEVEL SECURITY");
    let role = format!("reader_{}", database.name());
    database.psql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{}'; GRANT pg_read_all_data TO {role}",
        crate::support::cluster::PASSWORD
    ));
    let test = Test::of(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace("user: admin", &format!("user: {role}")));
    let ran = test.run(["backup"]);
    database.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    ran.fails(1).says("app: dump: pg_dump exited with code 1: ").says("row-level security").says("hint: row security would hide");
    assert!(test.stored().is_empty());
}

// It waits the 5 seconds between two attempts: the only test that does.
#[test]
fn a_server_that_comes_up_later_is_met_by_a_second_attempt() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    // The first psql finds nobody; those behind it, the server.
    let psql =
        r#"[ -e {dir}/first ] || [ "$1" = --version ] || { touch {dir}/first; PGPORT=1; export PGPORT; }; exec {real} "$@""#;
    let test =
        Test::of(&database).fake_bin("psql", psql).fake_bin("pg_dump", r#"echo "$PGAPPNAME" >>{dir}/names; exec {real} "$@""#);
    let ran = test.run(["backup", "--json"]).ok().says("app: ").says("Connection refused").says("trying again in 5.0s");
    let item = ran.json()["items"][0].clone();
    assert_eq!((&item["status"], test.stored().len()), (&"ok".into(), 3));
    let id = item["id"].as_str().unwrap();
    assert!(fs::read_to_string(test.path("names")).unwrap().contains(id));
}

#[test]
fn without_retries_a_server_that_is_down_fails_at_once() {
    let database = small_database();
    let test = Test::of(&database).target_option("retries: 0");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace(&format!("port: {}", SHARED.port()), "port: 1"));
    let ran = test.run(["backup"]).fails(1);
    insta::assert_snapshot!(said(&test, &ran), @r#"
    app: failed
    error: app: connect: connection to server at "127.0.0.1", port 1 failed: Connection refused; Is the server running on that host and accepting TCP/IP connections?
      hint: is the server running there, and are `host:` and `port:` right?
    backup: 1 unit failed, 0 B in TIME
    "#);
    assert!(test.stored().is_empty());
}

// FIELD: a run killed in the middle; what it leaves is never listed and is said to be incomplete.
#[test]
fn a_killed_run_lists_nothing() {
    let database = small_database();
    let test = faked(&database, &format!("{HALF}; echo $$ >{{dir}}/child; sleep 1000"));
    let running = test.spawn(["backup"]);
    eventually("half is written", || test.path("child").exists() && !test.stored().is_empty());
    running.kill(Signal::KILL);
    assert_eq!(running.wait().signal, Some(9));
    let child = fs::read_to_string(test.path("child")).unwrap();
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 0);
    let pid = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process_group(pid, Signal::KILL).unwrap();
    test.fake_bin("pg_dump", r#"exec {real} "$@""#).run(["backup"]).ok();
}
