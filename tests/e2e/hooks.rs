//! A target's own commands around its backups: when they run, what they know, and what their failure means.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::cluster::PASSWORD;
use crate::support::{Database, SHARED, Signal, Test, eventually};

/// Far longer than an end should take, and far shorter than what is waited for here.
const SOON: Duration = Duration::from_secs(20);

fn small_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)");
    database
}

/// A hook that notes all that it knows, and the directory that it runs in, in a file of its name.
fn noting(hook: &str) -> String {
    format!("{hook}: 'env >{{dir}}/{hook}.env; pwd >{{dir}}/{hook}.pwd; echo {hook} >>{{dir}}/order'")
}

/// What a hook was told, without the beginning that all names have.
fn facts(test: &Test, hook: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(test.path(&format!("{hook}.env"))).unwrap();
    let pairs = text.lines().filter_map(|line| line.strip_prefix("DB_BACKUP_")?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn order(test: &Test) -> Vec<String> {
    let text = fs::read_to_string(test.path("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// With all three, each of them noting.
fn with_all(database: &Database) -> Test {
    let hooks = ["before", "after", "on_error"].map(noting).join(", ");
    Test::of(database).target_option(&format!("hooks: {{ {hooks} }}"))
}

#[test]
fn hooks_run_around_a_backup_and_know_what_it_came_to() {
    let database = small_database();
    let test = with_all(&database).env("SHOWN", "yes");
    test.run(["backup"]).ok();
    assert_eq!(order(&test), ["before", "after"]);
    let (before, after) = (facts(&test, "before"), facts(&test, "after"));
    for (name, value) in [("TARGET", "app"), ("UNIT", "app"), ("HOST", "web1"), ("HOOK", "before"), ("OUTCOME", ""), ("ID", "")] {
        assert_eq!(before[name], value, "{name}");
    }
    assert_eq!(before["CONFIG"], test.path("backup.yml").to_str().unwrap());
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(test.stored_one(".manifest.json")).unwrap()).unwrap();
    assert_eq!((after["HOOK"].as_str(), after["OUTCOME"].as_str(), after["STORAGES"].as_str()), ("after", "ok", "local"));
    assert_eq!((after["ID"].as_str(), after["RUN"].as_str()), (manifest["id"].as_str().unwrap(), before["RUN"].as_str()));
    assert_eq!(after["BYTES"], manifest["artifact"]["bytes"].to_string());
    assert_eq!((after["ERROR"].as_str(), after["SECONDS"].parse::<f64>().is_ok()), ("", true));
    let all = fs::read_to_string(test.path("before.env")).unwrap();
    assert!(all.contains("SHOWN=yes") && !all.contains(PASSWORD), "{all}");
    let directory = fs::read_to_string(test.path("before.pwd")).unwrap();
    assert_eq!(directory.trim_end(), test.path("").to_str().unwrap().trim_end_matches('/'));
}

#[test]
fn a_before_that_fails_fails_the_unit_and_nothing_is_read() {
    let failing = [
        ("1m", "echo that; echo frozen is nothing >&2; exit 7", "the command exited with code 7: frozen is nothing"),
        ("1m", "kill -KILL $$", "the command was killed by signal 9"),
        ("4s", "echo $$ >{dir}/hangs; exec sleep 1000", "not done within 4.0s, and ended with all that it started"),
    ];
    for (timeout, script, cause) in failing {
        let database = small_database();
        let rest = ["after", "on_error"].map(noting).join(", ");
        let test = Test::of(&database)
            .fake_bin("pg_dump", "[ \"$1\" = --version ] && exec {real} --version\ntouch {dir}/dumped; exec {real} \"$@\"")
            .target_option(&format!("hooks: {{ timeout: {timeout}, before: '{script}', {rest} }}"));
        test.run(["backup"]).fails(1).says(&format!("app: hook before: {cause}"));
        assert_eq!((test.stored(), test.path("dumped").exists()), (Vec::new(), false), "{script}");
        assert_eq!(order(&test), ["on_error", "after"], "{script}");
        let facts = facts(&test, "after");
        assert_eq!((facts["OUTCOME"].as_str(), facts["ID"].as_str(), facts["BYTES"].as_str()), ("failed", "", "0"));
        assert_eq!(facts["ERROR"].split(':').next(), Some("hook before"));
    }
}

#[test]
fn a_program_of_a_hook_that_is_not_there_is_told_by_its_name() {
    let database = small_database();
    let test = Test::of(&database).target_option("hooks: { before: [./freeze, now] }");
    let ran = test.run(["backup", "--json"]).fails(1);
    let problem = &ran.json()["problems"][0];
    assert_eq!((&problem["step"], &problem["kind"]), (&"hook before".into(), &"child".into()));
    assert!(problem["cause"].as_str().unwrap().contains("freeze"), "{problem}");
    // A path is meant from the configuration's directory, wherever the program is started.
    test.script("freeze", "echo \"$@\" >frozen");
    let path = test.path("backup.yml");
    let test = test.under(["env", "--chdir=/"]);
    test.run(["-c", path.to_str().unwrap(), "backup"]).ok();
    assert_eq!(fs::read_to_string(test.path("frozen")).unwrap(), "now\n");
}

#[test]
fn a_failing_after_leaves_the_backup_and_is_told() {
    let database = small_database();
    let test = Test::of(&database).target_option("hooks: { after: 'echo can not thaw; exit 1' }");
    test.run(["backup"]).fails(3).says("app: hook after: the command exited with code 1: can not thaw");
    assert!(test.stored_one(".manifest.json").exists());
}

#[test]
fn a_dump_that_fails_has_on_error_run_before_after() {
    let database = small_database();
    let test = with_all(&database).fake_bin("pg_dump", "echo no such thing >&2; exit 1");
    test.run(["backup"]).fails(1);
    assert_eq!(order(&test), ["before", "on_error", "after"]);
    let facts = facts(&test, "on_error");
    assert_eq!((facts["OUTCOME"].as_str(), facts["HOOK"].as_str(), facts["STORAGES"].as_str()), ("failed", "on_error", ""));
    assert!(facts["ERROR"].contains("no such thing"), "{facts:?}");
}

#[test]
fn what_a_hook_says_is_in_the_log_and_shown_where_more_is_asked_for() {
    let database = small_database();
    let test = Test::of(&database)
        .top_option("log_dir: '{dir}/logs'")
        .target_option("hooks: { before: 'echo to stdout; echo to stderr >&2; seq -f \"line %g\" 100000' }");
    fs::create_dir(test.path("logs")).unwrap();
    let quiet = test.run(["backup"]).ok();
    assert!(!quiet.stderr.contains("to stdout"), "{}", quiet.stderr);
    let log = fs::read_dir(test.path("logs")).unwrap().next().unwrap().unwrap().path();
    let log = fs::read_to_string(log).unwrap();
    for line in ["hook before: to stdout", "hook before: to stderr", "hook before: line 1 ", "bytes left out]", "line 100000"] {
        assert!(log.contains(line), "{line}");
    }
    assert!(log.len() < 1_000_000);
    test.run(["-v", "backup"]).ok().says("hook before: to stdout").says("hook before: line 100000");
}

#[test]
fn no_hook_runs_where_nothing_is_done() {
    let database = small_database();
    let test = with_all(&database);
    test.run(["backup", "--dry-run"]).ok();
    test.run(["validate", "--connect"]).ok();
    assert_eq!(order(&test), Vec::<String>::new());
}

#[test]
fn each_unit_has_hooks_of_its_own() {
    let (one, two) = (small_database(), small_database());
    let test = Test::of(&one);
    let text = fs::read_to_string(test.path("backup.yml")).unwrap();
    let names = format!("databases: [{}, {}]", one.name(), two.name());
    let text = text.replace(&format!("database: {}", one.name()), &names);
    test.write("backup.yml", &format!("{text}    hooks: {{ before: 'echo $DB_BACKUP_UNIT >>{{dir}}/order' }}\n"));
    test.run(["backup"]).ok();
    assert_eq!(order(&test), [format!("app.{}", one.name()), format!("app.{}", two.name())]);
}

#[test]
fn a_signal_ends_the_backup_and_not_what_undoes_the_before() {
    let database = small_database();
    let after = "after: 'echo begun >{dir}/begun; while [ ! -e {dir}/signalled ]; do sleep 0.05; done; env >{dir}/after.env'";
    let test = Test::of(&database)
        .fake_bin("pg_dump", "[ \"$1\" = --version ] && exec {real} --version\necho $$ >{dir}/dumps; exec sleep 1000")
        .target_option(&format!("hooks: {{ before: 'true', {after}, {} }}", noting("on_error")));
    let mut running = test.spawn(["backup"]);
    eventually("it dumps", || test.path("dumps").exists());
    running.kill(Signal::TERM);
    eventually("after has begun", || test.path("begun").exists());
    fs::write(test.path("signalled"), "").unwrap();
    assert!(running.ends_within(SOON));
    running.wait().fails(143);
    assert_eq!(order(&test), ["on_error"]);
    assert_eq!(facts(&test, "after")["OUTCOME"], "interrupted");
    // A signal that comes while it runs leaves it the same time.
    let test = Test::of(&database).target_option(&format!("hooks: {{ {after} }}"));
    let mut running = test.spawn(["backup"]);
    eventually("after has begun", || test.path("begun").exists());
    running.kill(Signal::TERM);
    fs::write(test.path("signalled"), "").unwrap();
    assert!(running.ends_within(SOON));
    running.wait().fails(143);
    assert_eq!(facts(&test, "after")["OUTCOME"], "ok");
}

#[test]
fn a_signal_ends_a_before_and_after_follows() {
    let database = small_database();
    let before = "before: 'echo $$ >{dir}/begun; exec sleep 1000'";
    let test = Test::of(&database).target_option(&format!("hooks: {{ {before}, {} }}", noting("after")));
    let mut running = test.spawn(["backup"]);
    eventually("it runs", || test.path("begun").exists());
    running.kill(Signal::INT);
    assert!(running.ends_within(SOON));
    running.wait().fails(130);
    assert_eq!((order(&test), facts(&test, "after")["OUTCOME"].as_str()), (vec!["after".to_owned()], "interrupted"));
    assert_eq!(test.stored(), Vec::<String>::new());
}
