//! What a restore refuses before anything is made, with exit code 2, and what it leaves alone.

use std::sync::LazyLock;

use serde_json::json;

use crate::forge::{backed_up, databases_of, manifest, target_on};
use crate::session::Session;
use crate::support::cluster::{PASSWORD, SUPERUSER};
use crate::support::{Cluster, Database, SHARED, Test, eventually};

/// A server whose log has every statement, so that it tells of a database that was there for a moment.
static LOGGED: LazyLock<Cluster> = LazyLock::new(|| Cluster::start_with(&["log_statement=all", "allow_in_place_tablespaces=on"]));

/// Asserts that a restore as this database is refused with this text, and that nothing was made.
#[track_caller]
fn is_refused(test: &Test, arguments: &[&str], cluster: &Cluster, name: &str, said: &str) {
    let before = databases_of(cluster, name).contains(&name.to_owned());
    let arguments = [&["restore", "app", "--to-database", name], arguments].concat();
    for more in [None, Some("--dry-run")] {
        test.run(arguments.iter().copied().chain(more)).fails(2).says(said);
    }
    assert_eq!(databases_of(cluster, name).contains(&name.to_owned()), before);
    let made = format!("\"{}_restoring_", &name[..name.len().min(40)]);
    assert!(!cluster.log().contains(&made), "a scratch database was made");
}

fn small(cluster: &Cluster) -> Database {
    let database = cluster.create_database();
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2)");
    database
}

#[test]
fn a_database_that_holds_anything_at_all_is_refused() {
    let test = backed_up(&small(&LOGGED), "gzip");
    for (contents, told) in [
        ("CREATE TABLE kept (i int)", "relation public.kept"),
        ("CREATE VIEW kept AS SELECT 1", "relation public.kept"),
        ("CREATE SEQUENCE kept", "relation public.kept"),
        ("CREATE FUNCTION kept() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function kept"),
        ("CREATE SCHEMA kept", "schema kept"),
        ("SELECT lo_create(7)", "large objects"),
        ("CREATE TYPE kept AS ENUM ('a')", "type kept"),
        ("CREATE EXTENSION citext", "citext"),
        ("CREATE FOREIGN DATA WRAPPER kept", "foreign-data wrapper kept"),
        ("CREATE COLLATION kept FROM \"C\"", "collation kept"),
        ("CREATE CAST (json AS xml) WITH INOUT", "cast from json"),
        ("CREATE TEXT SEARCH CONFIGURATION kept (COPY = simple)", "text search configuration kept"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", "default privileges"),
        ("CREATE PUBLICATION kept", "publication kept"),
        ("CREATE SUBSCRIPTION kept CONNECTION '' PUBLICATION p WITH (connect = false, slot_name = NONE)", "subscription kept"),
    ] {
        let full = LOGGED.create_database();
        full.psql(contents);
        let before = full.dump();
        is_refused(&test, &[], &LOGGED, full.name(), "exists and is not empty");
        is_refused(&test, &[], &LOGGED, full.name(), told);
        assert_eq!(full.dump(), before);
        if contents.contains("SUBSCRIPTION") {
            full.psql("DROP SUBSCRIPTION kept");
        }
    }
}

#[test]
fn the_targets_own_place_is_refused_where_it_holds_something() {
    let database = small(&LOGGED);
    let test = backed_up(&database, "gzip");
    test.run(["restore", "app"]).fails(2).says("exists and is not empty").says("--to-database");
    assert_eq!(database.psql("SELECT count(*) FROM t"), "2");
}

#[test]
fn an_empty_database_that_somebody_is_connected_to_is_refused() {
    let test = backed_up(&small(&LOGGED), "gzip");
    let empty = LOGGED.create_database();
    let _session = Session::start(&LOGGED, empty.name(), "SELECT 1;");
    is_refused(&test, &[], &LOGGED, empty.name(), "1 sessions are connected");
}

#[test]
fn the_servers_own_databases_are_refused() {
    let test = backed_up(&small(&LOGGED), "gzip");
    let templates = "SELECT datname FROM pg_database WHERE datistemplate ORDER BY 1";
    for name in ["template1", "template0"] {
        is_refused(&test, &[], &LOGGED, name, "is a template");
    }
    is_refused(&test, &[], &LOGGED, "postgres", "is the server's maintenance database");
    assert_eq!(LOGGED.psql("postgres", templates), "template0\ntemplate1");
}

#[test]
fn a_role_that_may_not_create_databases_is_refused() {
    let database = small(&LOGGED);
    let test = backed_up(&database, "gzip");
    LOGGED.psql("postgres", &format!("CREATE ROLE no_creator LOGIN PASSWORD '{PASSWORD}'"));
    let test = target_on(test, &LOGGED, "no_creator", database.name());
    is_refused(&test, &[], &LOGGED, "not_created", "role no_creator may not create databases");
}

#[test]
fn a_name_that_postgresql_would_cut_is_refused() {
    let test = backed_up(&small(&LOGGED), "gzip");
    is_refused(&test, &[], &LOGGED, &"x".repeat(64), "PostgreSQL takes 1 to 63 bytes");
}

#[test]
fn missing_tablespaces_and_extensions_are_named() {
    let other = Cluster::start_with(&["allow_in_place_tablespaces=on"]);
    other.psql("postgres", "CREATE TABLESPACE \"fast disk\" LOCATION ''");
    let database = other.create_database();
    database.psql("CREATE TABLE t (i int) TABLESPACE \"fast disk\"");
    let test = target_on(backed_up(&database, "gzip"), &LOGGED, SUPERUSER, "app");
    is_refused(&test, &[], &LOGGED, "lacks_tablespace", "lacks tablespaces that the dump names: \"fast disk\"");
    is_refused(&test, &["--no-owner", "--no-privileges"], &LOGGED, "lacks_tablespace", "\"fast disk\"");

    let test = backed_up(&small(&LOGGED), "gzip");
    let mut changed = manifest(&test);
    changed["restore"]["extensions"] = json!(["citext 1.6", "post gis 3.4"]);
    std::fs::write(test.stored_one(".manifest.json"), changed.to_string()).unwrap();
    is_refused(&test, &[], &LOGGED, "lacks_extension", "lacks extensions that the dump names: \"post gis\"");
}

#[test]
fn missing_roles_are_named_and_left_out_on_request() {
    let other = Cluster::start();
    let database = other.create_database();
    for name in ["db_owner", "table_owner", "reader", "\"odd role\"", "default_role"] {
        other.psql("postgres", &format!("CREATE ROLE {name}"));
    }
    database.psql(&format!(
        "ALTER DATABASE {} OWNER TO db_owner;
         CREATE TABLE owned (i int); ALTER TABLE owned OWNER TO table_owner; REVOKE UPDATE ON owned FROM table_owner;
         CREATE TABLE granted (i int); GRANT SELECT ON granted TO reader, \"odd role\"; INSERT INTO granted VALUES (1);
         GRANT USAGE ON SCHEMA public TO \"odd role\";
         ALTER DEFAULT PRIVILEGES FOR ROLE default_role GRANT SELECT ON TABLES TO reader",
        database.name()
    ));
    let test = target_on(backed_up(&database, "gzip"), &LOGGED, SUPERUSER, "app");
    let refused = |options: &[&str], text: &str| is_refused(&test, options, &LOGGED, "lacks_roles", text);
    refused(&[], "\"db_owner\"");
    refused(&[], "\"table_owner\"");
    refused(&[], "\"reader\"");
    refused(&[], "\"odd role\"");
    refused(&[], "--no-owner and --no-privileges");
    refused(&["--no-owner"], "lacks roles that the dump names: \"default_role\", \"odd role\", \"reader\", \"table_owner\"");
    refused(&["--no-privileges"], "\"db_owner\"");
    let restored = LOGGED.adopt("lacks_roles");
    test.run(["restore", "app", "--to-database", "lacks_roles", "--no-owner", "--no-privileges"]).ok();
    let dump = restored.dump();
    for name in ["db_owner", "table_owner", "reader", "odd role", "default_role"] {
        assert!(!dump.contains(name), "{name} in\n{dump}");
    }
    assert_eq!(
        restored.psql("SELECT i, pg_get_userbyid(datdba) FROM granted, pg_database WHERE datname = 'lacks_roles'"),
        "1|admin"
    );

    // Each of the two is enough where the other's roles are there.
    LOGGED.psql("postgres", "CREATE ROLE db_owner; CREATE ROLE table_owner; CREATE ROLE default_role");
    test.run(["restore", "app", "--to-database", "lacks_grants", "--no-privileges"]).ok();
    let restored = LOGGED.adopt("lacks_grants");
    assert!(restored.dump().contains("OWNER TO table_owner") && !restored.dump().contains("reader"));
}

#[test]
fn an_owner_that_nothing_else_names_needs_no_owner_alone() {
    let other = Cluster::start();
    let database = other.create_database();
    other.psql("postgres", "CREATE ROLE mere_owner");
    database.psql("CREATE TABLE t (i int); ALTER TABLE t OWNER TO mere_owner; GRANT SELECT ON t TO PUBLIC");
    let test = target_on(backed_up(&database, "gzip"), &LOGGED, SUPERUSER, "app");
    test.run(["restore", "app", "--to-database", "without_owner", "--no-owner"]).ok();
    let restored = LOGGED.adopt("without_owner");
    assert!(restored.dump().contains("GRANT SELECT ON TABLE public.t TO PUBLIC"));
}

#[test]
fn a_role_that_no_option_leaves_out_is_told_so() {
    let other = Cluster::start();
    let database = other.create_database();
    other.psql("postgres", "CREATE ROLE in_policy; CREATE ROLE mapped");
    database.psql(
        "CREATE TABLE t (i int); CREATE POLICY p ON t TO in_policy USING (true);
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR mapped SERVER s",
    );
    let test = target_on(backed_up(&database, "gzip"), &LOGGED, SUPERUSER, "app");
    for options in [&[][..], &["--no-owner", "--no-privileges"]] {
        is_refused(&test, options, &LOGGED, "lacks_policy_role", "\"in_policy\", \"mapped\"");
        is_refused(&test, options, &LOGGED, "lacks_policy_role", "no option leaves out");
    }
    LOGGED.psql("postgres", "CREATE ROLE in_policy; CREATE ROLE mapped");
    test.run(["restore", "app", "--to-database", "has_policy_role"]).ok();
    assert_eq!(LOGGED.adopt("has_policy_role").dump(), database.dump());
}

#[test]
fn an_empty_database_in_the_own_place_is_replaced() {
    let database = small(&LOGGED);
    let (test, before) = (backed_up(&database, "gzip"), database.dump());
    let name = database.name();
    LOGGED.psql("postgres", &format!("DROP DATABASE {name}"));
    test.run(["restore", "app"]).ok().says(&format!("restored to database {name}"));
    assert_eq!(database.dump(), before, "it was absent");
    LOGGED.psql("postgres", &format!("DROP DATABASE {name}"));
    LOGGED.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
    test.run(["restore", "app", "--dry-run"]).ok();
    assert_eq!(database.psql("SELECT count(*) FROM pg_class WHERE oid >= 16384"), "0", "a dry run touches nothing");
    test.run(["restore", "app"]).ok();
    assert_eq!(database.dump(), before, "it was empty");
    assert_eq!(databases_of(&LOGGED, &format!("{name}_restoring_")), [""; 0]);
    let comment = format!("SELECT shobj_description(oid, 'pg_database') IS NULL FROM pg_database WHERE datname = '{name}'");
    assert_eq!(database.psql(&comment), "t", "our mark is gone");
}

#[test]
fn what_may_be_another_restores_at_work_is_not_called_left_behind() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql("CREATE TABLE t (id int)");
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    cluster.psql(
        "postgres",
        "CREATE DATABASE app_restoring_0123456789ab; CREATE ROLE plain LOGIN CREATEDB PASSWORD 'only-for-tests-4f9a7c'",
    );
    let test = target_on(test, &cluster, "plain", database.name());
    let look = || test.run(["restore", "app", "--to-database", "other", "--dry-run", "--no-owner"]).ok().stderr;
    let said = "app_restoring_0123456789ab";
    // Another restore's session, which an ordinary role sees too.
    for at_work in ["lock", "restore"] {
        let other = format!("SET application_name = 'db-backup-tools {at_work} 0123456789abcdef'; SELECT 1;");
        let other = Session::start(&cluster, "postgres", &other);
        assert!(!look().contains(said), "{at_work}");
        drop(other);
        eventually("it is said when nobody is at work", || look().contains(said));
    }
}

#[test]
fn what_goes_with_an_empty_database_and_what_was_left_behind_is_said() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql("CREATE TABLE t (id int)");
    cluster.psql("postgres", "CREATE DATABASE waiting");
    cluster.psql("postgres", "REVOKE CONNECT ON DATABASE waiting FROM public; ALTER DATABASE waiting SET jit = off");
    // A restore that was killed right after it made its scratch database, one that was killed later, one at work.
    cluster.psql("postgres", "CREATE DATABASE unmarked_restoring_0123456789ab");
    for name in ["marked", "held"] {
        cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
        cluster.psql("postgres", &format!("COMMENT ON DATABASE {name} IS 'db-backup-tools scratch database, made by a test'"));
    }
    let holder = Session::start(&cluster, "postgres", "SELECT pg_advisory_lock(1684169332, hashtext('held'));");
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    test.run(["restore", "app", "--to-database", "waiting", "--dry-run"])
        .ok()
        .says("\"marked\" is what an interrupted restore left");
    assert_eq!(databases_of(&cluster, "marked"), ["marked"]);
    let mut ran = test.run(["restore", "app", "--to-database", "waiting", "--json"]).ok().never_shows("held");
    let warnings = ran.json()["items"][0]["warnings"].as_array().unwrap().clone();
    let warnings: Vec<&str> = warnings.iter().filter_map(|text| text.as_str()).collect();
    let unmarked = "DROP DATABASE \"unmarked_restoring_0123456789ab\";";
    for said in ["jit=off, privileges {", unmarked, "\"marked\" is what an interrupted restore left"] {
        assert!(warnings.iter().any(|text| text.contains(said)), "{said}: {warnings:?}");
        ran = ran.says(said);
    }
    assert_eq!(databases_of(&cluster, "marked"), [""; 0]);
    assert_eq!(databases_of(&cluster, "unmarked").len(), 1);
    drop(holder);
    eventually("its lock is free", || {
        test.run(["restore", "app", "--to-database", "again", "--dry-run"]).ok().stderr.contains("\"held\" is what")
    });
    test.run(["restore", "app", "--to-database", "again"]).ok();
    assert_eq!(databases_of(&cluster, "held"), [""; 0]);
}

#[test]
fn amounts_of_money_are_read_as_they_were_written_or_not_at_all() {
    let database = SHARED.create_database();
    database.psql("CREATE DOMAIN price AS money; CREATE TABLE t AS SELECT 1.5::numeric::money::price AS price");
    let test = backed_up(&database, "gzip");
    let mut changed = manifest(&test);
    assert_eq!(changed["restore"]["money_locale"], json!(database.psql("SHOW lc_monetary")));
    let restored = SHARED.adopt(&format!("{}_again", database.name()));
    test.run(["restore", "app", "--to-database", restored.name()]).ok();
    assert_eq!(restored.psql("SELECT price::money::numeric FROM t"), "1.50");
    // In `xx_XX`, whatever that is, they may be other amounts.
    changed["restore"]["money_locale"] = json!("xx_XX");
    std::fs::write(test.stored_one(".manifest.json"), changed.to_string()).unwrap();
    test.run(["restore", "app", "--to-database", "other_money"]).fails(1).says("the locale that the dump's amounts of money");
    assert_eq!(databases_of(&SHARED, "other_money"), [""; 0]);
    assert_eq!(manifest(&backed_up(&small(&SHARED), "gzip"))["restore"]["money_locale"], json!(null));
}
