//! What pg_dump leaves out of a database comes back with it: settings, privileges, limit and comment.

use crate::forge::{manifest, target_on};
use crate::support::cluster::{SUPERUSER, quoted};
use crate::support::{Cluster, SERVER_18, SHARED, Test};

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

/// What a database has set, for all and for single roles.
fn settings(cluster: &Cluster, name: &str) -> String {
    let sql = format!(
        "SELECT string_agg(c, ' ' ORDER BY c) FROM pg_db_role_setting s, pg_database d, unnest(setconfig) c
          WHERE d.oid = s.setdatabase AND datname = '{name}'"
    );
    cluster.psql("postgres", &sql)
}

#[test]
fn a_library_is_loaded_in_no_session_of_ours_and_set_only_where_the_server_has_it() {
    let cluster = Cluster::start_with(&["log_min_messages=debug1"]);
    cluster.psql("postgres", "CREATE DATABASE loads");
    cluster.psql(
        "loads",
        "CREATE TABLE t AS SELECT generate_series(1, 9) AS i; ALTER DATABASE loads SET session_preload_libraries = auto_explain",
    );
    let original = cluster.adopt("loads");
    let test = target_on(Test::new(), &cluster, SUPERUSER, original.name());
    test.run(["backup"]).ok();
    // Of a machine that had it: here nobody could connect, nor back it up.
    let mut manifest = manifest(&test);
    manifest["restore"]["properties"]["role_settings"] =
        serde_json::json!([{ "role": SUPERUSER, "settings": ["local_preload_libraries=not_there"] }]);
    std::fs::write(test.stored_one(".manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let loads = || cluster.log().matches("loaded library \"auto_explain\"").count();
    let before = loads();
    assert!(before > 0, "the log does not tell of libraries");
    let restored = cluster.adopt("loads_again");
    let config = std::fs::read_to_string(test.path("backup.yml")).unwrap();
    test.run(["restore", "--drill"]).ok();
    test.write("backup.yml", &config.replace("name: app,", "name: app, drill: { server: same },"));
    test.run(["restore", "--drill"]).ok();
    let ran = test.run(["restore", "app", "--to-database", restored.name()]).ok();
    assert_eq!(loads(), before);
    ran.says("not put back, the server has no library $libdir/plugins/not_there, and nobody could connect: ALTER ROLE");
    assert_eq!(settings(&cluster, restored.name()), "session_preload_libraries=auto_explain");
    assert_eq!(restored.psql("SHOW session_preload_libraries"), "auto_explain");
    assert_eq!(loads(), before + 1);
}

#[test]
fn a_setting_that_the_server_does_not_know_or_take_is_a_warning() {
    let original = SERVER_18.create_database();
    let name = original.name();
    original.psql(&format!(
        "CREATE TABLE t AS SELECT generate_series(1, 9) AS i; ALTER DATABASE {name} SET transaction_timeout = '1h';
         ALTER DATABASE {name} SET io_combine_limit = '64kB'; ALTER DATABASE {name} SET work_mem = '9MB';
         ALTER DATABASE {name} SET default_text_search_config = 'public.not_there'; ALTER DATABASE {name} SET debug_parallel_query = on"
    ));
    let test = target_on(Test::new(), &SERVER_18, SUPERUSER, name);
    let bin = |cluster: &Cluster| format!("client_bin: {}", cluster.binaries().display());
    let config = std::fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace(&bin(&SHARED), &bin(&SERVER_18)));
    test.run(["backup"]).ok();
    let old = Cluster::start();
    let restored = old.adopt("older");
    let test = target_on(test, &old, SUPERUSER, "older");
    for arguments in [&["restore", "app"][..], &["restore", "app", "--replace"]] {
        let ran = test.run(arguments).ok();
        for unknown in ["transaction_timeout", "io_combine_limit"] {
            let said =
                format!("unrecognized configuration parameter \"{unknown}\": ALTER DATABASE \"older\" SET \"{unknown}\" TO");
            assert!(ran.stderr.contains(&said), "{said}: {}", ran.stderr);
        }
        assert!(settings(&old, "older").contains("work_mem=9MB"));
        assert_eq!(restored.psql("SELECT count(*) FROM t"), "9");
    }
}
