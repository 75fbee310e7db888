//! A server's roles and tablespaces: there as `pg_dumpall` writes them, and back without handing a login to anyone.

use std::fs;

use serde_json::json;

use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries};
use crate::support::{Cluster, Test};

/// A server with a target `main` that has globals.
fn target(cluster: &Cluster, role: &str, more: &str) -> Test {
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets:\n  - {{ name: main, type: postgres, host: {HOST}, port: {}, user: {role}, password: {PASSWORD}, retries: 0,\n      \
         client_bin: {}, databases: [postgres], globals: true{more} }}\n",
        cluster.port(),
        binaries().display()
    ))
}

const ROLES: &str = "
CREATE ROLE \"we\"\"ird; role\" LOGIN PASSWORD 'hidden-1';
CREATE ROLE app LOGIN PASSWORD 'hidden-2' CREATEDB;
CREATE ROLE grp NOLOGIN; GRANT grp TO app;
COMMENT ON ROLE grp IS 'CREATE ROLE none; -- PostgreSQL database cluster dump complete';
ALTER ROLE app SET work_mem = '9MB';
CREATE ROLE \"größe\" NOLOGIN;
";

fn roles(cluster: &Cluster) -> Vec<String> {
    let sql = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'admin' ORDER BY rolname COLLATE \"C\"";
    cluster.psql("postgres", sql).lines().map(str::to_owned).collect()
}

#[test]
fn roles_and_tablespaces_are_a_unit_of_their_own() {
    let cluster = Cluster::start();
    cluster.psql("postgres", ROLES);
    let test = target(&cluster, SUPERUSER, "");
    test.run(["validate", "--connect"]).ok();
    let ran = test.run(["--json", "backup"]).ok();
    let items = ran.json()["items"].clone();
    let units: Vec<&str> = items.as_array().unwrap().iter().map(|item| item["unit"].as_str().unwrap()).collect();
    assert_eq!(units, ["main.postgres", "main:globals"]);
    let stored = test.stored();
    assert!(stored.iter().any(|path| path.contains("/main%3Aglobals_") && path.ends_with(".sql.gz")), "{stored:?}");
    // All that pg_dumpall says, passwords too: as stock tools write it.
    test.run(["restore", "main:globals", "--output", test.path("globals.sql").to_str().unwrap()]).ok();
    let dumped = fs::read_to_string(test.path("globals.sql")).unwrap();
    assert!(dumped.contains("SCRAM-SHA-256$"), "{dumped}");
    let by_hand = cluster.client("pg_dumpall", "postgres").arg("--globals-only").output().unwrap();
    let plain = |text: &str| {
        text.lines().filter(|line| !line.starts_with('\\') && !line.starts_with("-- ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(plain(&dumped), plain(&String::from_utf8(by_hand.stdout).unwrap()));
    let manifest = stored.iter().find(|path| path.contains("%3Aglobals") && path.ends_with(".manifest.json")).unwrap();
    let manifest = fs::read_to_string(test.storage().join(manifest)).unwrap();
    assert!(!manifest.contains("SCRAM") && !manifest.contains("hidden"), "{manifest}");
    test.run(["list", "--verify", "main"]).ok();
    test.run(["list", "--max-age", "1h"]).ok();
    test.run(["list", "--tables", "main:globals"]).ok();
}

#[test]
fn absent_roles_come_back_without_a_login_and_none_is_altered() {
    let cluster = Cluster::start();
    cluster.psql("postgres", ROLES);
    let test = target(&cluster, SUPERUSER, "");
    test.run(["backup", "main:globals"]).ok();
    test.run(["restore", "main:globals"]).fails(2).says("--missing-roles");
    test.run(["restore", "main:globals", "--to-database", "x"]).fails(2);
    cluster.psql(
        "postgres",
        "DROP ROLE \"we\"\"ird; role\"; DROP ROLE app; DROP ROLE grp; ALTER ROLE \"größe\" LOGIN PASSWORD 'new'; CREATE ROLE later",
    );
    let kept = "SELECT rolname, rolcanlogin, rolpassword FROM pg_authid WHERE rolname IN ('größe', 'later') ORDER BY 1";
    let before = cluster.psql("postgres", kept);
    test.run(["restore", "main:globals", "--missing-roles", "--dry-run"]).ok().says("\"app\", \"grp\", \"we\"\"ird; role\"");
    assert_eq!(roles(&cluster), ["größe", "later"], "a dry run makes none");
    test.run(["restore", "main:globals", "--missing-roles"]).ok().says("3 roles").says("\"we\"\"ird; role\"");
    assert_eq!(roles(&cluster), ["app", "grp", "größe", "later", "we\"ird; role"]);
    let made = "SELECT count(*) FROM pg_authid WHERE rolname IN ('app', 'grp', 'we\"ird; role')
                AND NOT rolcanlogin AND rolpassword IS NULL AND NOT rolsuper AND NOT rolcreatedb";
    assert_eq!(cluster.psql("postgres", made), "3");
    assert_eq!(cluster.psql("postgres", kept), before);
    test.run(["restore", "main:globals", "--missing-roles"]).ok().says("nothing was made");
}

#[test]
fn a_database_is_restored_with_the_roles_that_it_names_and_the_server_lacks() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE ROLE owner_of; CREATE ROLE \"rea\"\"der\"; CREATE DATABASE shop OWNER owner_of");
    // Named by no object in it.
    cluster.psql("postgres", "CREATE ROLE caller; CREATE ROLE tuned; GRANT CONNECT ON DATABASE shop TO caller; ALTER ROLE tuned IN DATABASE shop SET jit = off");
    cluster.psql(
        "shop",
        "SET SESSION AUTHORIZATION owner_of; CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS a; GRANT SELECT ON s.t TO \"rea\"\"der\"",
    );
    let test = target(&cluster, SUPERUSER, "").config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets:\n  - {{ name: shop, type: postgres, host: {HOST}, port: {}, user: {SUPERUSER}, password: {PASSWORD}, client_bin: {}, database: shop }}\n",
        cluster.port(),
        binaries().display()
    ));
    test.run(["backup"]).ok();
    cluster
        .psql("postgres", "DROP DATABASE shop; DROP ROLE owner_of; DROP ROLE \"rea\"\"der\"; DROP ROLE caller; DROP ROLE tuned");
    test.run(["restore", "shop"]).fails(2).says("lacks roles").says("--missing-roles");
    test.run(["restore", "shop", "--missing-roles", "--dry-run"]).ok().says("\"rea\"\"der\"");
    assert_eq!(roles(&cluster), [""; 0]);
    let ran = test.run(["restore", "shop", "--missing-roles"]).ok().says("without login");
    assert!(!ran.stderr.contains("left out"), "{}", ran.stderr);
    assert_eq!(roles(&cluster), ["caller", "owner_of", "rea\"der", "tuned"]);
    assert_eq!(cluster.psql("shop", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "owner_of");
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname <> 'admin'"), "0");
}

#[test]
fn a_role_that_sees_no_passwords_dumps_the_rest_and_says_so() {
    let cluster = Cluster::start();
    cluster.psql("postgres", &format!("{ROLES} CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'"));
    let test = target(&cluster, "plain", "");
    test.run(["backup", "main:globals"]).ok().says("without their passwords");
    test.run(["restore", "main:globals", "--output", test.path("g.sql").to_str().unwrap()]).ok();
    let dumped = fs::read_to_string(test.path("g.sql")).unwrap();
    assert!(dumped.contains("CREATE ROLE app;") && !dumped.contains("SCRAM"), "{dumped}");
}

#[test]
fn roles_are_drilled_on_a_server_of_their_own_whatever_the_place() {
    let cluster = Cluster::start();
    cluster.psql("postgres", ROLES);
    let spaces = format!("{}/space", cluster.socket_directory().display());
    cluster.psql(
        "postgres",
        &format!("COPY (SELECT 1) TO PROGRAM 'mkdir {spaces}'; CREATE TABLESPACE \"outside it\" LOCATION '{spaces}'"),
    );
    for more in ["", ", drill: { server: same }"] {
        let test = target(&cluster, SUPERUSER, more);
        test.run(["backup"]).ok();
        let before = roles(&cluster);
        let ran = test.run(["--json", "restore", "--drill", "main:globals"]).ok();
        let item = ran.json()["items"][0].clone();
        assert_eq!(item["status"], json!("passed"), "{item:#}");
        assert_eq!(item["compared"]["roles"], json!(5), "{item:#}");
        assert!(item["place"].as_str().unwrap().contains("temporary server"), "{item:#}");
        assert_eq!(roles(&cluster), before);
        test.run(["list", "--max-unproven", "1h", "main:globals"]).ok();
    }
}
