//! Where a drill restores to: a server of its own, which needs none that runs and leaves nothing, however it ends;
//! or a marked database on a server that is in use, which it harms in nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

use crate::forge::{self, manifest};
use crate::session::Session;
use crate::support::cluster::{HOST, PASSWORD, SUPERUSER};
use crate::support::{Cluster, Database, SHARED, Signal, Test, eventually};

const DRILL: [&str; 2] = ["restore", "--drill"];
/// At how many moments of a drill it is ended.
const MOMENTS: u32 = 10;
const ENDLESS: &str = "checks: [ { name: long, sql: select pg_sleep(600) is null } ]";

fn tiny(cluster: &Cluster) -> Database {
    let database = cluster.create_database();
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS i");
    database
}

fn backed_up(database: &Database) -> Test {
    forge::backed_up(database, "gzip")
}

fn change_manifest(test: &Test, change: impl FnOnce(&mut Value)) {
    let mut manifest = manifest(test);
    change(&mut manifest);
    fs::write(test.stored_one(".manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// The process numbers, parents first, of what works in or below a directory.
fn processes_in(directory: &Path) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory)) {
            found.push((pid, name.trim().to_owned()));
        }
    }
    found.sort_unstable();
    found
}

/// The databases of drills on a server.
fn drilled_on(cluster: &Cluster, database: &str) -> Vec<String> {
    cluster.databases().into_iter().filter(|name| name.starts_with(&format!("{database}_drill_"))).collect()
}

#[test]
fn a_temporary_server_needs_no_other_and_has_the_roles_and_tablespaces_of_the_dump() {
    let cluster = Cluster::start();
    let tablespace = cluster.socket_directory().join("space");
    fs::create_dir(&tablespace).unwrap();
    let owner = fs::metadata(cluster.socket_directory()).unwrap();
    chown(&tablespace, Some(owner.uid()), Some(owner.gid())).unwrap();
    cluster.psql("postgres", &format!("CREATE TABLESPACE far LOCATION '{}'", tablespace.display()));
    cluster.psql("postgres", "CREATE ROLE \"only \"\" there\" LOGIN; CREATE ROLE boss SUPERUSER; CREATE ROLE reader");
    let database = tiny(&cluster);
    database.psql(
        "CREATE TABLE o (i int) TABLESPACE far; ALTER TABLE o OWNER TO \"only \"\" there\"; GRANT SELECT ON t TO reader;
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f();
         ALTER EVENT TRIGGER e OWNER TO boss; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO reader USING (true)",
    );
    let is_placeholder = "select rolsuper or rolcanlogin from pg_roles where rolname like 'only%'";
    let test = backed_up(&database).target_option(&format!("checks: [ {{ name: role, sql: \"{is_placeholder}\", expect: f }} ]"));
    let other = format!("host: {HOST}, port: {}, user: {SUPERUSER}, password: '${{DB_PASSWORD}}'", SHARED.port());
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &format!("{config}    drill: {{ {other} }}\n"));
    // On a server that is in use, no role is made for it.
    test.run(DRILL).fails(1).says("lacks roles that the dump names: ").says("drill in a temporary server").never_shows(PASSWORD);
    test.write("backup.yml", &config);
    drop((database, cluster));
    let nonsense =
        [("PGHOST", "/nowhere"), ("PGPORT", "1"), ("PGDATA", "/nowhere"), ("PGOPTIONS", "-c nonsense=1"), ("PGUSER", "x")];
    let test = nonsense.into_iter().fold(test, |test, (name, value)| test.env(name, value));
    let ran = test.run(["restore", "--drill", "--json"]).ok();
    let item = &ran.json()["items"][0];
    assert_eq!((&item["status"], &item["warnings"]), (&json!("passed"), &json!([])));
    assert!(item["place"].as_str().unwrap().starts_with("a temporary server 1"), "{item}");
}

#[test]
fn an_ordinary_user_has_a_temporary_server_too_and_kill_9_leaves_none() {
    let database = tiny(&SHARED);
    let test = backed_up(&database).unprivileged();
    test.run(DRILL).ok();
    let tmp = test.path("tmp");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    fs::write(test.path("backup.yml"), format!("{config}    {ENDLESS}\n")).unwrap();
    let begin = || {
        let mut running = test.spawn(DRILL);
        eventually("the server is asked", || {
            assert!(running.is_running(), "{}", running.stderr_so_far());
            processes_in(&tmp).iter().any(|(_, name)| name == "postgres") && asks(&tmp)
        });
        running
    };
    begin().kill(Signal::KILL);
    eventually("server and directory are gone", || processes_in(&tmp).is_empty() && fs::read_dir(&tmp).unwrap().count() == 0);
    // Where its keeper is killed too, the directory stays, until the next drill.
    let running = begin();
    let (keeper, _) = processes_in(&tmp).into_iter().find(|(_, name)| name == "sh").unwrap();
    kill_process(Pid::from_raw(keeper).unwrap(), Signal::KILL).unwrap();
    running.kill(Signal::KILL);
    drop(running);
    eventually("the server has ended", || processes_in(&tmp).iter().all(|(_, name)| name != "postgres"));
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
    fs::write(test.path("backup.yml"), config).unwrap();
    test.run(DRILL).ok().says("was removed, the temporary server that an interrupted drill left");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}

/// Whether a server below this directory is at the question that never ends.
fn asks(tmp: &Path) -> bool {
    let titles = processes_in(tmp).into_iter().map(|(pid, _)| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    titles.into_iter().any(|title| String::from_utf8_lossy(&title).contains("SELECT"))
}

#[test]
fn a_signal_ends_a_temporary_server() {
    let database = tiny(&SHARED);
    let test = backed_up(&database).target_option(ENDLESS).unprivileged();
    let tmp = test.path("tmp");
    let running = test.spawn(DRILL);
    eventually("the server is asked", || asks(&tmp));
    running.kill(Signal::TERM);
    running.wait().fails(143);
    assert_eq!((processes_in(&tmp), fs::read_dir(&tmp).unwrap().count()), (Vec::new(), 0));
}

#[test]
fn a_signal_at_any_moment_of_a_drill_leaves_no_server_and_no_directory() {
    let database = tiny(&SHARED);
    let test = backed_up(&database).unprivileged();
    let tmp = test.path("tmp");
    let begun = Instant::now();
    test.run(DRILL).ok();
    let whole = begun.elapsed();
    let mut ended = Vec::new();
    for moment in 0..MOMENTS {
        let running = test.spawn(DRILL);
        std::thread::sleep(whole * moment / MOMENTS);
        running.kill(Signal::TERM);
        let ran = running.wait();
        let left = (processes_in(&tmp), fs::read_dir(&tmp).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>());
        assert!(left.0.is_empty() && left.1.is_empty(), "moment {moment} of {whole:?}: {left:?} {}", ran.stderr);
        ended.push(ran.code);
    }
    assert!(ended.contains(&Some(143)), "{ended:?}");
}

#[test]
fn a_server_that_is_told_to_end_before_it_listens_to_signals_ends() {
    let database = tiny(&SHARED);
    let test = Test::of(&database).target_option("client_bin: {bin}").fake_bin("initdb", r#"exec {real} "$@""#);
    let test = test.fake_bin("postgres", r#": >began; sleep 1; : >begun; exec {real} "$@""#);
    test.run(["backup"]).ok();
    let test = test.unprivileged();
    let tmp = test.path("tmp");
    let mut running = test.spawn(DRILL);
    let homes = || fs::read_dir(&tmp).unwrap().flatten().map(|entry| entry.path());
    eventually("the server begins", || homes().any(|home| home.join("began").exists() && !home.join("begun").exists()));
    running.kill(Signal::TERM);
    // Well within the clean-up's limit, at which it would be killed.
    assert!(running.ends_within(Duration::from_secs(20)));
    running.wait().fails(143);
    assert_eq!((processes_in(&tmp), homes().count()), (Vec::new(), 0));
    // The same when nobody is left who could kill it.
    let running = test.spawn(DRILL);
    eventually("the server begins", || homes().any(|home| home.join("began").exists() && !home.join("begun").exists()));
    running.kill(Signal::KILL);
    eventually("server and directory are gone", || processes_in(&tmp).is_empty() && homes().count() == 0);
}

#[test]
fn without_server_programs_the_package_and_another_place_are_named() {
    let database = tiny(&SHARED);
    let test = backed_up(&database);
    change_manifest(&test, |manifest| manifest["server_version"] = json!("99.1"));
    for command in [&["restore", "--drill"][..], &["restore", "--drill", "--dry-run"]] {
        test.run(command).fails(1).says("no server programs of version 99 or newer").says("postgresql-99").says("server: same");
    }
}

#[test]
fn an_older_dump_and_a_locale_that_is_missing_are_said() {
    let database = tiny(&SHARED);
    let test = backed_up(&database);
    change_manifest(&test, |manifest| {
        manifest["server_version"] = json!("9.6.1");
        manifest["restore"]["locale"] = json!("xx_XX.UTF-8");
    });
    let ran = test.run(["restore", "--drill", "--json"]).ok();
    let warnings = ran.json()["items"][0]["warnings"].clone();
    assert_eq!(warnings.as_array().unwrap().len(), 2, "{warnings}");
    ran.says("no server programs of version 9").says("lacks the locale xx_XX.UTF-8");
}

#[test]
fn a_drill_on_the_same_server_is_marked_held_and_collected() {
    let cluster = Cluster::start();
    let database = tiny(&cluster);
    let test = backed_up(&database).target_option("drill: { server: same }").target_option(ENDLESS);
    let running = test.spawn(DRILL);
    let asks = "SELECT datname FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()";
    let mut scratch = String::new();
    eventually("it is asked", || {
        scratch = cluster.psql("postgres", asks);
        !scratch.is_empty()
    });
    assert_eq!(drilled_on(&cluster, database.name()), [scratch.clone()]);
    let comment = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{scratch}'");
    assert!(cluster.psql("postgres", &comment).starts_with("db-backup-tools scratch database"));
    let lock = format!("SELECT pg_try_advisory_lock(1684169332, hashtext('{scratch}'))");
    assert_eq!(cluster.psql("postgres", &lock), "f");
    running.kill(Signal::KILL);
    drop(running);
    eventually("its lock is free", || cluster.psql("postgres", &lock) == "t");
    // Somebody looks into it: it stays.
    let looking = Session::start(&cluster, &scratch, "SELECT 1;");
    cluster.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()",
    );
    let restore = |name: &str| test.run(["restore", "app", "--to-database", name]).ok();
    restore("one");
    assert_eq!(drilled_on(&cluster, database.name()), [scratch.clone()]);
    drop(looking);
    eventually("nobody is in it", || {
        cluster.psql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{scratch}'")) == "0"
    });
    restore("two").says(&format!("\"{scratch}\" is what an interrupted restore left"));
    assert_eq!(drilled_on(&cluster, database.name()), [""; 0]);
}

#[test]
fn what_would_act_outside_of_a_scratch_database_is_refused_until_it_is_allowed() {
    let database = tiny(&SHARED);
    database.psql("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER \"far away\" FOREIGN DATA WRAPPER w");
    let test = backed_up(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &format!("{config}    drill: {{ server: same }}\n"));
    test.run(DRILL).fails(1).says("foreign server \"far away\"").says("allow_outbound: true");
    assert_eq!(drilled_on(&SHARED, database.name()), [""; 0]);
    test.write("backup.yml", &format!("{config}    drill: {{ server: same, allow_outbound: true }}\n"));
    let ran = test.run(["restore", "--drill", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["place"], "a scratch database on the target's server");
    assert_eq!(drilled_on(&SHARED, database.name()), [""; 0]);
}

#[test]
fn the_slot_of_a_subscription_survives_a_drill_beside_it() {
    let [publisher, subscriber] = [Cluster::start_with(&["wal_level=logical"]), Cluster::start()];
    let [there, here] = [tiny(&publisher), tiny(&subscriber)];
    there.psql("CREATE PUBLICATION p FOR TABLE t");
    here.psql("TRUNCATE t");
    here.psql(&format!(
        "CREATE SUBSCRIPTION \"the sub\" CONNECTION 'host={HOST} port={} user={SUPERUSER} password={PASSWORD} dbname={}'
         PUBLICATION p WITH (slot_name = production)",
        publisher.port(),
        there.name()
    ));
    eventually("it has copied", || here.psql("SELECT count(*) FROM t") == "100");
    let test = backed_up(&here);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &format!("{config}    drill: {{ server: same }}\n"));
    test.run(DRILL).fails(1).says("subscription \"the sub\"");
    test.write("backup.yml", &format!("{config}    drill: {{ server: same, allow_outbound: true }}\n"));
    test.run(DRILL).ok();
    assert_eq!(drilled_on(&subscriber, here.name()), [""; 0]);
    assert_eq!(
        publisher.psql("postgres", "SELECT slot_name FROM pg_replication_slots WHERE slot_name = 'production'"),
        "production"
    );
    there.psql("INSERT INTO t VALUES (101)");
    eventually("it goes on", || here.psql("SELECT count(*) FROM t") == "101");
    here.psql("DROP SUBSCRIPTION \"the sub\"");
}
