//! Servers of several major versions: the machine's own, 16 and 18. Each is backed up and restored by the
//! programs of its own version, wherever they stand on PATH; into a newer server too, and into an older one
//! as far as that understands it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::support::cluster::{HOST, PASSWORD, SERVER_16, SERVER_18, SUPERUSER, binaries};
use crate::support::{Cluster, Database, Ran, SHARED, Test, repository, sample_database};

/// All of them, the oldest first.
fn servers() -> Vec<&'static Cluster> {
    let mut servers: Vec<&'static Cluster> = vec![&SHARED, &SERVER_16, &SERVER_18];
    servers.sort_by_key(|server| server.major());
    servers.dedup_by_key(|server| server.major());
    servers
}

/// One that does not know what pg_dump sets since 17.
fn old_server() -> &'static Cluster {
    if SHARED.major() < 17 { &SHARED } else { &SERVER_16 }
}

fn sample_on(server: &Cluster) -> Database {
    if server.port() == SHARED.port() {
        return sample_database();
    }
    let database = server.create_database();
    database.load(&repository().join("scripts/sample.sql"));
    database
}

/// Lets target `app` be this database, with one more line.
fn point_at(test: &Test, server: &Cluster, database: &str, line: &str) {
    test.write(
        "backup.yml",
        &format!(
            "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\ntargets:\n  - name: app\n\
             \x20   type: postgres\n    host: {HOST}\n    port: {}\n    user: {SUPERUSER}\n    password: {PASSWORD}\n    database: {database}\n    {line}\n",
            server.port(),
        ),
    );
}

/// A test whose PATH has every version, the newest first, behind what the machine has.
fn with_all_versions() -> Test {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for server in servers().iter().rev() {
        path.extend([OsString::from(":"), server.binaries().into()]);
    }
    Test::new().env("PATH", path)
}

/// The restored database, when the restore ends well.
fn restore_into(test: &Test, server: &Cluster, line: &str) -> (Ran, Database) {
    let restored = server.create_database();
    point_at(test, server, restored.name(), line);
    (test.run(["restore", "app"]).ok(), restored)
}

fn manifest(test: &Test) -> Value {
    serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap()
}

fn warnings(test: &Test) -> String {
    manifest(test)["warnings"].to_string()
}

/// A dump without what differs by the server alone: since 16 a view's text names no table where there is but
/// one, and since 18 a column that is not null has a constraint with a name.
fn settled(dump: &str) -> String {
    let (mut rows, mut view) = (false, false);
    let settle = |line: &str| {
        let begins = line.starts_with("COPY ") && line.ends_with(" FROM stdin;");
        rows = (rows || begins) && line != r"\.";
        view = !rows && (view || line.starts_with("CREATE VIEW ") || line.starts_with("CREATE MATERIALIZED VIEW "));
        let named = line.split_once(" CONSTRAINT ").and_then(|(column, rest)| Some((column, rest.split_once(" NOT NULL")?)));
        let text = match named {
            Some((column, (name, rest))) if !rows && is_name(name) => format!("{column} NOT NULL{rest}"),
            _ if view => {
                line.split_inclusive([' ', '(']).map(|word| word.rsplit_once('.').map_or(word, |(_, name)| name)).collect()
            }
            _ => line.to_owned(),
        };
        view &= !line.ends_with(';');
        text + "\n"
    };
    dump.lines().map(settle).collect()
}

fn is_name(text: &str) -> bool {
    text.starts_with('"') && text.ends_with('"') || text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

#[track_caller]
fn assert_same(original: &Database, restored: &Database) {
    let (from, to) = (original.cluster(), restored.cluster());
    let newer = if from.major() > to.major() { from } else { to };
    let [one, other] = [original, restored].map(|database| {
        let dump = database.dump_by(newer);
        if from.major() == to.major() { dump } else { settled(&dump) }
    });
    if one != other {
        let different = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        panic!("{} to {}: the dumps differ first in {different:?}", from.major(), to.major());
    }
}

/// Backs up, verifies, and restores into the same server and every newer one.
fn comes_back_here_and_later(server: &Cluster) {
    let original = sample_on(server);
    let test = with_all_versions();
    point_at(&test, server, original.name(), "");
    test.run(["backup"]).ok();
    let manifest = manifest(&test);
    for of in ["server_version", "client_version"] {
        let version = manifest[of].as_str().unwrap();
        assert!(version.starts_with(&format!("{}.", server.major())), "{of}: {version}");
    }
    assert_eq!(manifest["warnings"], serde_json::json!([]), "{manifest:#}");
    test.run(["list", "--verify"]).ok();
    for receiver in servers().into_iter().filter(|receiver| receiver.major() >= server.major()) {
        let (ran, restored) = restore_into(&test, receiver, "");
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        assert_same(&original, &restored);
    }
}

#[test]
fn the_machines_own_server_comes_back_here_and_later() {
    comes_back_here_and_later(&SHARED);
}

#[test]
fn server_16_comes_back_here_and_later() {
    comes_back_here_and_later(&SERVER_16);
}

#[test]
fn server_18_comes_back() {
    comes_back_here_and_later(&SERVER_18);
}

#[test]
fn a_dump_of_a_newer_server_goes_into_an_older_one_with_a_warning() {
    let original = sample_on(&SERVER_18);
    let test = with_all_versions();
    point_at(&test, &SERVER_18, original.name(), "");
    test.run(["backup"]).ok();
    let (ran, restored) = restore_into(&test, old_server(), "");
    ran.says("warning").says("the dump comes from server version 18.").says("which may not understand all of it");
    assert_same(&original, &restored);
}

#[test]
fn what_an_older_server_does_not_understand_is_named_and_nothing_is_left() {
    let original = SERVER_18.create_database();
    original.psql("CREATE TABLE t (i int, twice int GENERATED ALWAYS AS (i * 2) VIRTUAL); INSERT INTO t VALUES (1)");
    let test = with_all_versions();
    point_at(&test, &SERVER_18, original.name(), "");
    test.run(["backup"]).ok();
    point_at(&test, old_server(), "from_later", "");
    let warned = test.run(["restore", "app", "--dry-run"]).ok();
    warned.says("the dump comes from server version 18.");
    let ran = test.run(["restore", "app"]).fails(1).says("the dump comes from server version 18.");
    ran.says("load").says("syntax error at or near");
    assert!(!old_server().databases().iter().any(|name| name.starts_with("from_later")));
}

#[test]
fn newer_programs_alone_are_used_with_a_warning_and_what_they_dump_comes_back() {
    let small = SERVER_16.create_database();
    small.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 100) i");
    for original in [sample_on(old_server()), small] {
        let server = original.cluster();
        let only_newer = format!("client_bin: '{}'", SERVER_18.binaries().display());
        let test = with_all_versions();
        point_at(&test, server, original.name(), &only_newer);
        let newer = format!(" is newer than the server ({}.", server.major());
        let package = format!("install postgresql-client-{}", server.major());
        test.run(["validate", "--connect"]).ok();
        test.run(["backup"]).ok().says("warning").says("pg_dump 18.").says(&newer).says(&package);
        assert!(warnings(&test).contains(&newer) && manifest(&test)["client_version"].as_str().unwrap().starts_with("18."));
        // By psql 18, and by the server's own, which is the one that is found without `client_bin:`.
        let (ran, restored) = restore_into(&test, server, &only_newer);
        ran.says("psql 18.").says(&newer).says("the dump was written by pg_dump 18.");
        assert_same(&original, &restored);
        let (ran, restored) = restore_into(&test, server, "");
        assert!(!ran.stderr.contains("psql 18."), "{}", ran.stderr);
        assert_same(&original, &restored);
    }
}

#[test]
fn older_programs_alone_are_refused() {
    let original = SERVER_18.create_database();
    let test = with_all_versions();
    point_at(&test, &SERVER_18, original.name(), "");
    test.run(["backup"]).ok();
    point_at(&test, &SERVER_18, original.name(), &format!("client_bin: '{}'", SERVER_16.binaries().display()));
    for (command, program) in [("backup", "pg_dump"), ("restore", "psql")] {
        let ran = test.run([command, "app"]).fails(1).says("programs: the server is version 18.");
        let ran = ran.says(&format!("there is no {program} of version 18 or newer: found {program} 16."));
        let ran = ran.says(&SERVER_16.binaries().display().to_string());
        ran.says("install postgresql-client-18 (Debian, Ubuntu) or postgresql18 (Fedora, RHEL), or correct `client_bin:`");
    }
    assert!(original.exists());
}

#[test]
fn the_servers_own_version_is_found_wherever_it_stands_on_path() {
    let test = Test::new();
    let places = [("older", binaries()), ("newer", SERVER_18.binaries()), ("own", SERVER_16.binaries())];
    for (name, binaries) in places {
        fs::create_dir(test.path(name)).unwrap();
        for program in ["pg_dump", "psql"] {
            symlink(binaries.join(program), test.path(name).join(program)).unwrap();
        }
    }
    let original = SERVER_16.create_database();
    for order in [["older", "newer", "own"], ["own", "newer", "older"], ["newer", "own", "older"]] {
        let path = order.map(|name| test.path(name).into_os_string()).join(&OsString::from(":"));
        let test = Test::new().env("PATH", path);
        point_at(&test, &SERVER_16, original.name(), "");
        let ran = test.run(["validate", "--connect"]).ok();
        assert!(ran.stdout.contains("pg_dump 16.") && ran.stdout.contains("/own and psql 16."), "{}", ran.stdout);
    }
}
