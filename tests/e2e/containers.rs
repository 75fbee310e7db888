//! Databases that live in containers: dumped and restored by the programs there, with nothing of this machine's but the engine's
//! client.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::support::{Container, Docker, Podman, Test, cluster, engine, eventually, is_root};

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, word text);
    INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 5000) n; SELECT lo_from_bytea(0, 'large');";

/// A test whose program finds no client program of this machine's, and a directory `PATH` with the engine's client alone.
fn without_clients(container: &Container, database: &str) -> Test {
    let test = Test::inside(container, database);
    let docker = engine::program("docker").unwrap();
    std::os::unix::fs::symlink(docker, test.path("bin/docker")).unwrap();
    let path = test.path("bin");
    test.env("PATH", path)
}

/// What the configuration of a test with a server of its own says of it.
fn server(container: &Container, targets: &str) -> Test {
    let top = "version: 1\nhost: web1\nstate_dir: {state}\nstorages:\n  local: { type: local, path: '{storage}' }\ntargets:\n";
    let target = format!("  - name: all\n    type: postgres\n    container: {}\n    retries: 0\n", container.name());
    Test::new().config(&[top, &target, targets].concat())
}

#[test]
fn a_database_in_a_container_is_dumped_and_comes_back_there() {
    let Some(container) = Container::postgres() else { return };
    let database = container.new_database(ROWS);
    let test = without_clients(container, &database);
    let way = format!("docker exec into {} (pg_dump ", container.name());
    assert!(test.run(["validate", "--connect"]).ok().stdout.contains(&way));
    assert!(test.run(["backup", "--dry-run"]).ok().stdout.contains(&way));
    test.run(["backup"]).ok();
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["inventory"]["rows"], 5000);
    let copy = format!("{database}_copy");
    test.run(["restore", "app", "--to-database", &copy]).ok();
    assert_eq!(container.dump(&copy), container.dump(&database));
    assert_eq!(container.databases_like(&format!("{database}_")), [copy]);
    // Its own place is taken.
    test.run(["restore", "app"]).fails(2).says("exists and is not empty");
}

#[test]
fn an_archive_comes_back_and_a_live_database_makes_room() {
    let Some(container) = Container::postgres() else { return };
    let database = container.new_database(ROWS);
    let test = without_clients(container, &database).target_option("format: custom");
    test.run(["backup"]).ok();
    let dump = container.dump(&database);
    container.psql_in(&database, "DELETE FROM t WHERE id > 10; CREATE TABLE later ()");
    let psql = ["exec", "-i", container.name(), "psql", "-X", "-q", "-U", "postgres", "-d", &database];
    let mut session = Docker::shared().unwrap().command(psql);
    let mut session = session.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let connected = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    eventually("somebody is connected", || container.psql(&connected) == "1");
    test.run(["restore", "app", "--replace"]).fails(2).says("--disconnect");
    test.run(["restore", "app", "--replace", "--disconnect", "--jobs", "2"])
        .ok()
        .says("--jobs has no effect: pg_restore would need");
    assert_eq!(container.dump(&database), dump);
    let former = container.databases_like(&format!("{database}_"));
    assert_eq!(former.len(), 1, "{former:?}");
    assert_eq!(container.psql_in(&former[0], "SELECT count(*) FROM t"), "10");
    let _ = session.kill();
    session.wait().unwrap();
}

#[test]
fn all_databases_and_the_roles_of_a_container_come_back_in_another() {
    let Some(docker) = Docker::shared() else { return };
    let own = || docker.run(docker.postgres()).env("POSTGRES_PASSWORD", cluster::PASSWORD).env("POSTGRES_USER", "boss");
    let (from, to) = (own().start().ready(), own().start().ready());
    from.psql("CREATE ROLE keeper; CREATE DATABASE one OWNER keeper; CREATE DATABASE two");
    from.psql_in("one", &format!("SET ROLE keeper; CREATE SCHEMA s; {}", ROWS.replace(" t ", " s.t ")));
    let targets = "    databases: all\n    exclude_databases: [postgres, boss]\n    globals: true\n";
    let test = server(&from, targets);
    test.run(["backup"]).ok();
    let elsewhere = server(&to, targets);
    fs::remove_dir(elsewhere.storage()).unwrap();
    fs::rename(test.storage(), elsewhere.storage()).unwrap();
    elsewhere.run(["restore", "all.one"]).fails(2).says("lacks roles that the dump names: \"keeper\"");
    elsewhere.run(["restore", "all:globals", "--missing-roles"]).ok().says(&format!("in container {}", to.name()));
    elsewhere.run(["restore", "all.one"]).ok();
    elsewhere.run(["restore", "all.two"]).ok();
    assert_eq!(to.dump("one"), from.dump("one"));
    assert_eq!(to.databases_like("one"), ["one"]);
}

#[test]
fn nothing_of_this_machine_leads_a_program_in_a_container_elsewhere() {
    let Some(container) = Container::postgres() else { return };
    let database = container.new_database(ROWS);
    let test = without_clients(container, &database).file(".pgpass", "*:*:*:*:wrong\n");
    let wrong = [("PGHOST", "/nonexistent"), ("PGPORT", "1"), ("PGUSER", "nobody_such"), ("PGOPTIONS", "-c nonsense=1")];
    let wrong = wrong.into_iter().chain([("PGSERVICE", "absent"), ("PGDATABASE", "absent"), ("PGSSLMODE", "require")]);
    wrong.fold(test, |test, (name, value)| test.env(name, value)).run(["backup"]).ok();
}

#[test]
fn a_password_goes_by_the_environment_and_stands_in_no_command_line() {
    let Some(container) = Container::postgres() else { return };
    let database = container.new_database(ROWS);
    let secret = "s3cret-of-the-container";
    let role = format!("{database}_reader");
    container.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{secret}' IN ROLE pg_read_all_data"));
    container.psql_in(&database, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
    let psql = ["exec", "-i", container.name(), "psql", "-X", "-q", "-U", "postgres", "-d", &database];
    let mut locker = Docker::shared().unwrap().command(psql).stdin(Stdio::piped()).spawn().unwrap();
    locker.stdin.as_mut().unwrap().write_all(b"BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE;\n").unwrap();
    let locks = |granted| format!("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND granted = {granted}");
    eventually("the table is locked", || container.psql_in(&database, &locks(true)) == "1");
    // By its address, from where a password is asked for.
    let address = container.exec(["hostname", "-i"]);
    let test = Test::inside(container, &database).env("DB_PASSWORD", secret).target_option("password: ${DB_PASSWORD}");
    let test = test.target_option(&format!("user: {role}")).target_option(&format!("host: {}", address.trim()));
    let running = test.spawn(["-vv", "backup"]);
    eventually("pg_dump waits", || container.psql_in(&database, &locks(false)) == "1");
    let mut seen = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        seen += usize::from(line.contains("pg_dump") && line.contains("PGPASSWORD"));
        assert!(!line.contains(secret), "{line}");
    }
    assert!(seen > 0, "the engine's client was not seen");
    assert!(!container.inspect().to_string().contains(secret));
    drop(locker.stdin.take());
    locker.wait().unwrap();
    running.wait().ok().never_shows(secret);
    for file in test.stored().iter().filter(|name| name.ends_with(".json")) {
        assert!(!fs::read_to_string(test.storage().join(file)).unwrap().contains(secret));
    }
}

#[test]
fn podman_is_asked_the_same_way() {
    let Some(podman) = Podman::shared().filter(|_| is_root()) else { return };
    let name = "dbt-postgres";
    let run = ["run", "--detach", "--network", "none", "--name", name, "--env", "POSTGRES_PASSWORD=x", podman.postgres()];
    podman.ok(run);
    let psql = |sql| podman.raw(["exec", name, "psql", "-X", "-A", "-t", "-U", "postgres", "-h", "127.0.0.1", "-c", sql]);
    eventually("its server is ready", || psql("SELECT 1").status.success());
    assert!(psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n").status.success());
    let targets = "    engine: podman\n    database: postgres\n";
    let config = "version: 1\nhost: web1\nstate_dir: {state}\nstorages:\n  local: { type: local, path: '{storage}' }\ntargets:\n";
    let config = format!("{config}  - name: app\n    type: postgres\n    container: {name}\n    retries: 0\n{targets}");
    let test = podman.for_program(Test::new().config(&config));
    assert!(test.run(["backup", "--dry-run"]).ok().stdout.contains(&format!("podman exec into {name} (pg_dump ")));
    test.run(["backup"]).ok();
    test.run(["restore", "app", "--drill"]).ok().says("1 table and 100 rows compared");
    // Other tests have containers of their own in this store, and no drill.
    assert_eq!(podman.ok(["ps", "--all", "--filter", "label=db-backup-tools.drill", "--format", "{{.Names}}"]), "");
    test.run(["restore", "app", "--to-database", "copy"]).ok();
    podman.ok(["stop", "--time", "0", name]);
    test.run(["backup", "app"]).fails(1).says(&format!("container {name} is not running"));
    podman.ok(["rm", "--force", "--volumes", name]);
    test.run(["backup", "app"]).fails(1).says(&format!("podman has no container {name}"));
}
