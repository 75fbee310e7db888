//! What pg_dump leaves out of a database comes back with it: settings, privileges, limit and comment.

use crate::forge::{manifest, target_on};
use crate::support::cluster::{SUPERUSER, quoted};
use crate::support::{Cluster, Test};

/// A server with roles of a test's own.
fn server() -> Cluster {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE ROLE db_boss; CREATE ROLE reader; CREATE ROLE \"we\"\"ird; role\"; CREATE ROLE deputy");
    cluster
}

/// A database of which everything was changed that is no part of its dump.
fn changed(cluster: &Cluster, name: &str) {
    let database = quoted(name);
    cluster.psql("postgres", &format!("CREATE DATABASE {database} OWNER db_boss"));
    cluster.psql(
        "postgres",
        &format!(
            r#"ALTER DATABASE {database} SET work_mem = '9MB';
            ALTER DATABASE {database} SET search_path = "$user", public, "we""ird, schema";
            ALTER DATABASE {database} SET app.note = 'it''s a \ "note"';
            ALTER DATABASE {database} SET default_transaction_read_only = on;
            ALTER ROLE reader IN DATABASE {database} SET statement_timeout = '3min';
            ALTER ROLE "we""ird; role" IN DATABASE {database} SET search_path = '';
            REVOKE ALL ON DATABASE {database} FROM PUBLIC;
            GRANT CONNECT ON DATABASE {database} TO deputy WITH GRANT OPTION;
            SET ROLE deputy;
            GRANT CONNECT ON DATABASE {database} TO reader;
            RESET ROLE;
            REVOKE TEMPORARY ON DATABASE {database} FROM db_boss;
            GRANT CREATE, CONNECT ON DATABASE {database} TO "we""ird; role";
            ALTER DATABASE {database} CONNECTION LIMIT 7;
            COMMENT ON DATABASE {database} IS 'it''s \ ours';"#
        ),
    );
    cluster.psql(name, "SET default_transaction_read_only = off; CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)");
}

/// All of it, as PostgreSQL's own tools write it down.
fn as_dumped(cluster: &Cluster, name: &str) -> String {
    let output = cluster.client("pg_dump", name).arg("--create").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = crate::support::comparable(&String::from_utf8(output.stdout).unwrap());
    // Roles' settings stand in the order in which they were set.
    let mut lines: Vec<&str> = dump.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn all_that_pg_dump_leaves_out_comes_back() {
    let name = "it's \"all\"";
    let cluster = server();
    changed(&cluster, name);
    let before = as_dumped(&cluster, name);
    let test = target_on(Test::new(), &cluster, SUPERUSER, name);
    test.run(["backup"]).ok();
    cluster.psql("postgres", &format!("DROP DATABASE {}", quoted(name)));
    let restored = cluster.adopt(name);
    let ran = test.run(["restore", "app"]).ok();
    assert!(!ran.stderr.contains("not put back") && !ran.stderr.contains("left out"), "{}", ran.stderr);
    assert_eq!(before, as_dumped(&cluster, restored.name()));
}

#[test]
fn a_drill_of_it_has_nothing_to_warn_of() {
    let cluster = server();
    changed(&cluster, "drilled");
    let original = cluster.adopt("drilled");
    let test = target_on(Test::new(), &cluster, SUPERUSER, original.name());
    test.run(["backup"]).ok();
    // Cron would mail it.
    assert_eq!(test.run(["-q", "restore", "--drill"]).ok().stderr, "");
}

#[test]
fn what_can_not_be_put_back_is_said_with_its_statement() {
    let cluster = server();
    changed(&cluster, "partly");
    let original = cluster.adopt("partly");
    let test = target_on(Test::new(), &cluster, SUPERUSER, original.name());
    test.run(["backup"]).ok();
    assert_eq!(manifest(&test)["restore"]["properties"]["connection_limit"], 7);
    cluster.psql(
        "postgres",
        "ALTER ROLE reader RENAME TO reader_gone; CREATE ROLE plain LOGIN CREATEDB PASSWORD 'only-for-tests-4f9a7c'",
    );
    let restored = cluster.adopt("partly_back");
    test.run(["restore", "app", "--to-database", "partly_back"])
        .ok()
        .says("settings of role \"reader\" in the database are left out, as there is no such role")
        .says("privileges on the database are left out, as there is no such role: \"reader\"");
    cluster.psql("postgres", "ALTER ROLE reader_gone RENAME TO reader");
    let settings =
        "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = 'partly_back'";
    assert_eq!(cluster.psql("postgres", settings), "2");
    drop(restored);
    // A role that may set nothing for others: each thing that it could not do is named, the rest is done.
    let restored = cluster.adopt("partly_plain");
    let plain = target_on(test, &cluster, "plain", original.name());
    plain
        .run(["restore", "app", "--to-database", "partly_plain", "--no-owner", "--no-privileges"])
        .ok()
        .says("not put back")
        .says("ALTER ROLE \"reader\" IN DATABASE \"partly_plain\" SET \"statement_timeout\" TO '3min';");
    assert_eq!(cluster.psql("postgres", "SELECT datconnlimit FROM pg_database WHERE datname = 'partly_plain'"), "7");
    drop(restored);
}
