//! Drills of databases in containers: in a container of the same image that nothing is left of, however the drill ends.

use std::fs;

use rustix::process::kill_process;

use crate::support::tool::files_below;
use crate::support::{Container, Docker, Signal, Test, eventually};

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, word text);
    INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 5000) n";

/// A backup of a new database in the shared container.
fn backed_up(sql: &str, option: &str) -> Option<(&'static Container, String, Test)> {
    let container = Container::postgres()?;
    let database = container.new_database(sql);
    let test = Test::inside(container, &database).target_option(option);
    test.run(["backup"]).ok();
    Some((container, database, test))
}

/// The lock of a drill under way.
fn locks(test: &Test) -> Vec<String> {
    files_below(&test.path("state")).into_iter().filter(|name| name.starts_with("drill-")).collect()
}

/// A database whose restore anywhere else waits.
fn slow(container: &Container, database: &str) {
    let slow = format!(
        "CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS
           $$ SELECT CASE WHEN current_database() = '{database}' THEN 1 ELSE (SELECT 1 FROM pg_sleep(600)) END $$;
         CREATE MATERIALIZED VIEW m AS SELECT slow() AS n"
    );
    container.psql_in(database, &slow);
}

#[test]
fn a_drill_takes_place_in_a_container_of_the_same_image() {
    let Some((container, database, test)) = backed_up(ROWS, "checks: [ { name: all, sql: 'SELECT count(*) = 5000 FROM t' } ]")
    else {
        return;
    };
    let ran = test.run(["restore", "app", "--drill", "--json"]).ok().json();
    let item = &ran["items"][0];
    assert_eq!(item["status"], "passed", "{item}");
    let place = item["place"].as_str().unwrap();
    assert!(place.ends_with(&format!("in a container of the image of {}", container.name())), "{place}");
    assert_eq!(container.databases_like(&format!("{database}_")), Vec::<String>::new());
    assert_eq!(locks(&test), Vec::<String>::new());
}

#[test]
fn an_archive_with_roles_and_tablespaces_is_drilled_there_and_on_other_servers() {
    let Some(container) = Container::postgres() else { return };
    let database = container.new_database(ROWS);
    let role = format!("{database}_owner");
    container.exec(["sh", "-c", &format!("mkdir -p /srv/{database} && chown postgres /srv/{database}")]);
    container.psql(&format!("CREATE ROLE {role} LOGIN; CREATE TABLESPACE {database}_space LOCATION '/srv/{database}'"));
    container
        .psql_in(&database, &format!("CREATE TABLE other () TABLESPACE {database}_space; ALTER TABLE other OWNER TO {role}"));
    for place in ["container: temporary", "cluster: temporary", "server: same"] {
        let test = Test::inside(container, &database).target_option(&format!("drill: {{ {place} }}"));
        let test = test.target_option("format: custom").target_option("globals: true").target_option("jobs: 2");
        test.run(["backup"]).ok();
        let ran = test.run(["restore", "--drill"]).ok();
        assert_eq!(ran.stderr.contains("--jobs has no effect"), place != "cluster: temporary", "{}", ran.stderr);
        assert!(ran.stderr.contains("2 units passed"), "{}", ran.stderr);
    }
}

/// Waits until the drill of a slow database loads: its random name, and its container.
fn loading(test: &Test) -> (String, Container) {
    let docker = Docker::shared().unwrap();
    let id = |name: &String| name.trim_start_matches("drill-").trim_end_matches(".lock").to_owned();
    let found = || {
        locks(test)
            .iter()
            .map(id)
            .find(|id| docker.raw(["container", "inspect", &format!("db-backup-tools-drill-{id}")]).status.success())
    };
    eventually("its container runs", || found().is_some());
    let id = found().unwrap();
    let drill = docker.adopt_container(&format!("db-backup-tools-drill-{id}"));
    let sleeps = ["psql", "-X", "-A", "-t", "-h", "/db-backup-tools-drill", "-U", "db_backup_drill", "-d", "postgres", "-c"];
    let sleeps = sleeps.into_iter().chain(["SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"]);
    eventually("it loads", || drill.try_exec(sleeps.clone()).stdout == b"1\n");
    (id, drill)
}

#[test]
fn nothing_of_a_drill_is_left_whatever_ends_it() {
    let Some(docker) = Docker::shared() else { return };
    let Some((container, database, test)) = backed_up(ROWS, "retries: 0") else { return };
    slow(container, &database);
    test.run(["backup"]).ok();
    for signal in [Signal::TERM, Signal::KILL] {
        let running = test.spawn(["restore", "app", "--drill"]);
        let (id, drill) = loading(&test);
        assert_eq!(docker.containers_with(&format!("db-backup-tools.drill={id}")), [drill.name()]);
        assert_eq!(drill.look("{{.HostConfig.NetworkMode}}"), "none");
        let volume = docker.adopt_volume(
            &drill.look("{{range .Mounts}}{{if eq .Destination \"/db-backup-tools-drill\"}}{{.Name}}{{end}}{{end}}"),
        );
        assert!(volume.exists());
        running.kill(signal);
        let ran = running.wait();
        assert_eq!((ran.code, ran.signal), if signal == Signal::TERM { (Some(143), None) } else { (None, Some(9)) });
        eventually("its container has gone", || !drill.exists() && !volume.exists());
    }
    // The killed one's lock goes with the next command.
    assert_eq!(locks(&test).len(), 1);
    test.run(["prune"]).ok();
    assert_eq!(locks(&test), Vec::<String>::new());
    // What the way to the container does is no word on the backup.
    let running = test.spawn(["restore", "app", "--drill"]);
    let (_, drill) = loading(&test);
    kill_process(Container::client_in(drill.name(), "ON_ERROR_STOP=1"), Signal::TERM).unwrap();
    running.wait().fails(1).says("the connection to the engine broke before the end");
    assert!(test.stored().iter().all(|name| !name.contains(".drill.")), "{:?}", test.stored());
    eventually("its container has gone", || !drill.exists());
}

#[test]
fn a_container_that_a_killed_drill_left_is_removed_by_the_next_command_and_no_other() {
    let Some(docker) = Docker::shared() else { return };
    let Some((_, _, test)) = backed_up("", "retries: 0") else { return };
    let left = |id: &str| docker.run(docker.busybox()).name(id).label(&format!("db-backup-tools.drill={id}")).start();
    let [dead, alive, strange] = ["dead", "alive", "strange"].map(|name| docker.unique(name));
    let [dead_box, alive_box, strange_box] = [&dead, &alive, &strange].map(|id| left(id));
    let lock = |id: &str| test.path(&format!("state/drill-{id}.lock"));
    for id in [&dead, &alive] {
        fs::write(lock(id), "docker\n").unwrap();
    }
    let held = fs::File::open(lock(&alive)).unwrap();
    held.try_lock().unwrap();
    for (command, gone) in [(["prune", "--dry-run"].as_slice(), false), (&["list"], false), (&["backup"], true)] {
        let ran = test.run(command).ok();
        assert_eq!(ran.stderr.contains("which an interrupted drill left"), gone, "{}", ran.stderr);
        assert_eq!(dead_box.exists(), !gone);
    }
    assert!(alive_box.exists() && strange_box.exists() && !lock(&dead).exists() && lock(&alive).exists());
}
