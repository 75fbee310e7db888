//! Cancelling: whatever the program waits for, a signal ends it soon, with the right code and with
//! nothing left behind in the storage, on the server or in the process list.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::cluster::PASSWORD;
use crate::support::{Database, SHARED, Signal, Test, eventually};

/// Far longer than an end should take, and far shorter than anything that is waited for here.
const SOON: Duration = Duration::from_secs(20);

const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)];

fn small_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (id int, word text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 1000) n");
    database
}

/// The real pg_dump's answer to `--version`, and this instead of a dump.
fn faked(database: &Database, script: &str) -> Test {
    Test::of(database).fake_bin("pg_dump", &format!("[ \"$1\" = --version ] && exec {{real}} --version\n{script}"))
}

/// Whether a process whose number is in this file is there and no zombie.
fn lives(test: &Test, file: &str) -> bool {
    let pid = fs::read_to_string(test.path(file)).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[track_caller]
fn is_clean(test: &Test) {
    assert_eq!(test.stored(), Vec::<String>::new());
    assert_eq!(crate::support::tool::files_below(&test.path("tmp")), Vec::<String>::new());
}

/// A psql session that holds a lock on `t` until it is dropped.
struct Locker(Child);

impl Locker {
    fn of(database: &Database) -> Self {
        let mut psql = SHARED.client("psql", database.name());
        psql.args(["-X", "-q"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut psql = psql.spawn().unwrap();
        std::io::Write::write_all(psql.stdin.as_mut().unwrap(), b"BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE;\n").unwrap();
        let held = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock' AND granted";
        eventually("the table is locked", || database.psql(held) == "1");
        Self(psql)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn sessions(database: &Database) -> String {
    database.psql(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND application_name LIKE 'db-backup-tools%'",
    )
}

#[test]
fn a_dump_that_waits_for_a_table_lock_ends_with_its_server_session() {
    for (signal, code) in SIGNALS {
        let database = small_database();
        let _locker = Locker::of(&database);
        let test = Test::of(&database);
        let mut running = test.spawn(["backup"]);
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted";
        eventually("pg_dump waits for the table", || database.psql(waits) == "1");
        assert!(sessions(&database).starts_with("db-backup-tools 2"), "{}", sessions(&database));
        running.kill(signal);
        assert!(running.ends_within(SOON));
        running.wait().fails(code).says("app: ").says("interrupted").never_shows(PASSWORD);
        assert_eq!(sessions(&database), "", "the server session of pg_dump lives on");
        is_clean(&test);
    }
}

#[test]
fn a_timeout_ends_the_server_session_too() {
    let database = small_database();
    let _locker = Locker::of(&database);
    let test = Test::of(&database).target_option("timeout: 8s");
    test.run(["backup"]).fails(1).says("app: dump: not done within 8s");
    assert_eq!(sessions(&database), "");
    is_clean(&test);
}

#[test]
fn a_grandchild_that_holds_the_pipe_and_ignores_sigterm_is_ended() {
    let database = small_database();
    let stubborn = "(trap '' TERM INT HUP; while [ -d {dir} ]; do sleep 0.1; done) &
echo '-- half'; echo $! >{dir}/grandchild; wait";
    let test = faked(&database, stubborn);
    let mut running = test.spawn(["backup"]);
    eventually("it runs", || test.path("grandchild").exists() && !test.stored().is_empty());
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON));
    running.wait().fails(143);
    assert!(!lives(&test, "grandchild"));
    is_clean(&test);
}

#[test]
fn a_child_that_ignores_signals_and_never_writes_is_ended() {
    for (signal, code) in SIGNALS {
        let database = small_database();
        let test = faked(&database, "trap '' TERM INT HUP; echo $$ >{dir}/child; while [ -d {dir} ]; do sleep 0.1; done");
        let mut running = test.spawn(["backup"]);
        eventually("it runs", || test.path("child").exists());
        running.kill(signal);
        assert!(running.ends_within(SOON));
        running.wait().fails(code);
        assert!(!lives(&test, "child"));
        is_clean(&test);
    }
}

#[test]
fn a_dump_without_end_is_ended_in_the_middle() {
    let database = small_database();
    let test = faked(&database, "echo $$ >{dir}/child; exec yes 'SELECT 1;'");
    let mut running = test.spawn(["backup"]);
    eventually("it writes", || {
        test.stored().iter().any(|name| fs::metadata(test.storage().join(name)).is_ok_and(|m| m.len() > 0))
    });
    running.kill(Signal::INT);
    assert!(running.ends_within(SOON));
    running.wait().fails(130);
    assert!(!lives(&test, "child"));
    is_clean(&test);
}

#[test]
fn a_psql_that_never_reads_is_ended_and_no_database_stays() {
    let database = SHARED.create_database();
    // More than any pipe holds.
    database.psql("CREATE TABLE t (word text); INSERT INTO t SELECT repeat(md5(n::text), 10) FROM generate_series(1, 20000) n");
    // The psql that loads is the one on neither a maintenance database nor the dumped one.
    let deaf = r#"case "$PGDATABASE" in ''|postgres|template1|NAME) exec {real} "$@";; esac
trap '' TERM; echo $$ >{dir}/child; while [ -d {dir} ]; do sleep 0.1; done"#;
    let test = Test::of(&database).fake_bin("psql", &deaf.replace("NAME", database.name()));
    test.run(["backup"]).ok();
    let before = SHARED.databases();
    let wanted = SHARED.adopt(&format!("{}_restored", database.name()));
    let mut running = test.spawn(["restore", "app", "--to-database", wanted.name()]);
    eventually("psql runs", || test.path("child").exists());
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON));
    running.wait().fails(143);
    assert!(!lives(&test, "child") && !wanted.exists());
    let ours = |name: &String| !before.contains(name) && name.contains(database.name());
    assert_eq!(SHARED.databases().into_iter().filter(ours).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_wait_for_a_lock_is_ended() {
    let database = small_database();
    let test = faked(&database, "touch {dir}/runs; sleep 1000");
    let mut first = test.spawn(["backup"]);
    eventually("the first holds the lock", || test.path("runs").exists());
    let mut second = test.spawn(["backup", "--wait", "10m"]);
    let fds = format!("/proc/{}/fd", second.pid().as_raw_nonzero());
    let waits = || {
        let links = fs::read_dir(&fds).into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.into_iter().any(|link| link.ends_with("app.lock"))
    };
    eventually("the second waits", waits);
    second.kill(Signal::TERM);
    assert!(second.ends_within(SOON));
    second.wait().fails(143);
    assert!(first.is_running());
    first.kill(Signal::TERM);
    assert!(first.ends_within(SOON));
    first.wait().fails(143);
    is_clean(&test);
}

#[test]
fn the_wait_between_two_attempts_is_ended() {
    let database = small_database();
    let test = Test::of(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace(&format!("port: {}", SHARED.port()), "port: 1"));
    let mut running = test.spawn(["backup"]);
    eventually("it waits for a second attempt", || running.stderr_so_far().contains("trying again in 5.0s"));
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON));
    let ran = running.wait().fails(143);
    assert_eq!(ran.stderr.matches("trying again").count(), 1, "{}", ran.stderr);
    is_clean(&test);
}

#[test]
fn a_restore_to_a_reader_that_does_not_read_is_ended() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (word text); INSERT INTO t SELECT repeat(md5(n::text), 10) FROM generate_series(1, 20000) n");
    let test = Test::of(&database).under([
        "sh",
        "-c",
        r#"case "$*" in *restore*) echo $$ >pid; exec "$@" >fifo;; *) exec "$@";; esac"#,
        "sh",
    ]);
    test.run(["backup"]).ok();
    assert!(Command::new("mkfifo").arg(test.path("fifo")).status().unwrap().success());
    let mut running = test.spawn(["restore", "app", "--output", "-"]);
    // Opened, and never read.
    let reader: OwnedFd = File::open(test.path("fifo")).unwrap().into();
    eventually("the pipe is full", || rustix::io::ioctl_fionread(&reader).is_ok_and(|bytes| bytes >= 60_000));
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON));
    running.wait().fails(143);
}

#[test]
fn units_behind_the_one_that_was_ended_are_not_begun() {
    let database = small_database();
    let test = faked(&database, "echo $PGAPPNAME >>{dir}/begun; sleep 1000");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let (head, first) = config.split_once("targets:\n").unwrap();
    let targets: String = ["one", "two", "three"].map(|name| first.replace("name: app", &format!("name: {name}"))).concat();
    test.write("backup.yml", &format!("{head}targets:\n{targets}"));
    let mut running = test.spawn(["backup", "--json"]);
    eventually("the first has begun", || test.path("begun").exists());
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON));
    let ran = running.wait().fails(143);
    let statuses: Vec<_> = ran.json()["items"].as_array().unwrap().iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, ["failed", "skipped", "skipped"]);
    assert_eq!(ran.json()["outcome"], "interrupted");
    assert_eq!(fs::read_to_string(test.path("begun")).unwrap().lines().count(), 1);
    is_clean(&test);
}

#[test]
fn a_signal_that_timeout_sends_twice_leaves_nothing() {
    let database = small_database();
    let _locker = Locker::of(&database);
    let test = Test::of(&database);
    let running = test.spawn(["backup"]);
    eventually("the dump waits", || !test.stored().is_empty());
    // Often enough that they do not all become one on their way; and at once, or they would be another wish.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(50) {
        running.kill(Signal::TERM);
    }
    running.wait().fails(143).says("interrupted by signal 15");
    is_clean(&test);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let database = small_database();
    // Ending this child takes the two seconds that it is given to clean up.
    let test = faked(&database, "trap 'touch {dir}/asked' TERM; echo $$ >{dir}/child; while [ -d {dir} ]; do sleep 0.05; done");
    let mut running = test.spawn(["backup"]);
    eventually("it runs", || test.path("child").exists());
    running.kill(Signal::TERM);
    eventually("the child was asked to end", || test.path("asked").exists());
    eventually("it ends", || {
        running.kill(Signal::TERM);
        !running.is_running()
    });
    let ran = running.wait();
    assert_eq!((ran.code, ran.signal), (None, Some(15)), "{}", ran.stderr);
    let pid = fs::read_to_string(test.path("child")).unwrap().trim().parse().unwrap();
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 0);
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let database = small_database();
    let test =
        faked(&database, r#"touch {dir}/runs; while [ -d {dir} ] && ! [ -e {dir}/go ]; do sleep 0.05; done; exec {real} "$@""#)
            .under(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]);
    let mut running = test.spawn(["backup"]);
    eventually("it runs", || test.path("runs").exists());
    running.kill(Signal::HUP);
    fs::write(test.path("go"), "").unwrap();
    assert!(running.ends_within(SOON));
    running.wait().ok();
    assert_eq!(test.stored().len(), 3);
}

#[test]
fn a_sigkilled_program_leaves_nothing_listed_and_the_next_run_works() {
    let database = small_database();
    let test = faked(&database, r#"[ -e {dir}/go ] && exec {real} "$@"; echo $$ >{dir}/child; exec yes 'SELECT 1;'"#);
    let running = test.spawn(["backup"]);
    eventually("it writes", || test.path("child").exists() && !test.stored().is_empty());
    running.kill(Signal::KILL);
    running.wait();
    // Nobody reads its pipe any more.
    eventually("its child has ended by itself", || !lives(&test, "child"));
    fs::write(test.path("go"), "").unwrap();
    test.run(["backup"]).ok();
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_run_whose_output_nobody_reads_ends_all_the_same() {
    let database = small_database();
    // A pipe that is full from the beginning, and whose other end nobody reads: `| less`, a dead logger.
    let stuck = "mkfifo full && exec 3<>full && head -c 65536 /dev/zero >&3 && exec \"$@\" >&3 2>&3";
    for arguments in [["backup", "--no-prune"], ["list", "--json"]] {
        let test = Test::of(&database).under(["bash", "-c", stuck, "bash"]);
        let mut running = test.spawn(arguments);
        // Blocked in its first word to us: poll, or a write before the mend.
        let waits = || {
            let state = fs::read_to_string(format!("/proc/{}/syscall", running.pid().as_raw_nonzero())).unwrap_or_default();
            ["1 0x", "7 0x", "271 0x"].iter().any(|call| state.starts_with(call))
        };
        eventually("it waits for room", waits);
        running.kill(Signal::TERM);
        assert!(running.ends_within(SOON), "{arguments:?} is still there");
    }
}
