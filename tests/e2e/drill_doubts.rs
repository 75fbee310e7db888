//! Drills that must not blame a good backup, and verdicts that must not clear a bad one.

use std::fs;

use serde_json::{Value, json};

use crate::forge::{self, artifact, content_of, manifest, pack};
use crate::support::cluster::{SERVER_18, SUPERUSER, binaries};
use crate::support::{Cluster, SHARED, Test, eventually};

const DRILL: [&str; 2] = ["restore", "--drill"];

/// The outcomes of this kind in the storage: `ok` and `bad`.
fn outcomes(test: &Test, kind: &str) -> Vec<String> {
    let mark = format!(".{kind}.");
    let ending = |name: &String| Some(name.split_once(&mark)?.1.split_once('.')?.1.to_owned());
    test.stored().iter().filter_map(ending).collect()
}

fn change_manifest(test: &Test, change: impl FnOnce(&mut Value)) {
    let mut manifest = manifest(test);
    change(&mut manifest);
    fs::write(test.stored_one(".manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// Changes the dump, and makes its digests match.
fn tamper(test: &Test, from: &str, to: &str) {
    let content = String::from_utf8(content_of("gzip", &artifact(test))).unwrap();
    assert!(content.contains(from), "{content}");
    forge::forge(test, &pack("gzip", content.replacen(from, to, 1).as_bytes()));
}

/// PostgreSQL documentation, "A Database Login Event Trigger Example": such a trigger writes a row for each session.
#[test]
fn a_trigger_on_login_adds_no_row_to_what_is_compared() {
    let database = SERVER_18.create_database();
    database.psql(
        "CREATE TABLE logins (who text, at timestamptz); CREATE TABLE t AS SELECT 1 AS i;
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$
           BEGIN INSERT INTO public.logins VALUES (session_user, now()); END $$;
         CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION note(); ALTER EVENT TRIGGER on_login ENABLE ALWAYS",
    );
    for format in ["plain", "custom"] {
        let test = Test::of(&database)
            .target_option(&format!("format: {format}"))
            .target_option(&format!("client_bin: {}", SERVER_18.binaries().display()))
            .target_option("checks: [ { name: one, sql: select i from t, expect: 1 } ]");
        test.run(["-q", "backup"]).ok();
        for way in [&[][..], &["--jobs", "2"]] {
            test.run(DRILL.iter().chain(way)).ok().says("2 tables");
        }
        let copy = SERVER_18.adopt(&format!("{}_copy", database.name()));
        SERVER_18.psql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", copy.name()));
        copy.psql("CREATE TABLE old (i int)");
        test.run(["restore", "app", "--replace", "--to-database", copy.name()]).ok();
        let kept = SERVER_18.databases().into_iter().find(|name| name.starts_with(&format!("{}_before_", copy.name()))).unwrap();
        drop(SERVER_18.adopt(&kept));
    }
}

#[test]
fn settings_of_the_database_keep_nobody_from_comparing_it() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE ROLE clerk");
    let database = cluster.create_database();
    database.psql(&format!(
        "CREATE TABLE t AS SELECT generate_series(1, 9) AS i; ALTER DATABASE {name} SET role = clerk;
         ALTER DATABASE {name} SET default_transaction_read_only = on; ALTER ROLE {SUPERUSER} IN DATABASE {name} SET lock_timeout = 1",
        name = database.name()
    ));
    // What backs it up reads all of it.
    let test =
        Test::of(&database).env("PGOPTIONS", "-c role=none").target_option(&format!("client_bin: {}", binaries().display()));
    test.run(["-q", "backup"]).ok();
    // A library of the source's machine that the receiving one lacks.
    change_manifest(&test, |manifest| {
        manifest["restore"]["settings"].as_array_mut().unwrap().push(json!("session_preload_libraries=not_there"));
    });
    let test = test.env("PGOPTIONS", "");
    test.run(DRILL).ok().says("9 rows");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    fs::write(test.path("backup.yml"), format!("{config}    drill: {{ server: same }}\n")).unwrap();
    test.run(DRILL).ok().says("9 rows");
    fs::write(test.path("backup.yml"), config).unwrap();
    let copy = cluster.adopt("copy");
    cluster.psql("postgres", "CREATE DATABASE copy TEMPLATE template0");
    copy.psql("CREATE TABLE old (i int)");
    test.run(["restore", "app", "--replace", "--to-database", "copy"])
        .ok()
        .says("not put back, the server has no library not_there, and nobody could connect: ALTER DATABASE \"copy\" SET \"session_preload");
    let settings = "SELECT string_agg(c, ' ' ORDER BY c) FROM pg_db_role_setting s, pg_database d, unnest(setconfig) c
                     WHERE d.oid = s.setdatabase AND datname = 'copy'";
    assert_eq!(cluster.psql("postgres", settings), "default_transaction_read_only=on lock_timeout=1 role=clerk");
}

#[test]
fn reading_every_byte_again_clears_no_drill_that_found_it_bad() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 3) AS i");
    let test = forge::backed_up(&database, "gzip");
    tamper(&test, "2\n3\n", "3\n");
    test.run(DRILL).fails(1);
    eventually("a later second", || {
        test.run(["list", "--verify"]).fails(3).says("found it bad");
        outcomes(&test, "verify").len() > 1
    });
    test.run(["list"]).fails(3).says("its last drill, at ");
    assert_eq!(test.run(["list", "--json"]).json()["items"][0]["state"], "damaged");
    test.run(["list", "--max-unproven", "1h"]).fails(1);
    test.run(["restore", "app", "--to-database", "never_made"]).fails(1).says("found it bad");
}

#[test]
fn a_load_that_fails_in_other_surroundings_makes_no_backup_bad() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 3) AS i");
    let test = forge::backed_up(&database, "gzip");
    tamper(&test, "CREATE TABLE public.t (", "CREATE TABLE public.t ( was_understood_once wherever,");
    let good = manifest(&test);
    // The server is newer than the dump's; and it sorts otherwise.
    change_manifest(&test, |manifest| manifest["server_version"] = json!("9.6.1"));
    test.run(DRILL).fails(1).says("wherever");
    change_manifest(&test, |manifest| {
        *manifest = good.clone();
        manifest["restore"]["locale"] = json!("xx_XX.UTF-8");
    });
    test.run(DRILL).fails(1).says("wherever");
    assert_eq!(outcomes(&test, "drill"), Vec::<String>::new());
    change_manifest(&test, |manifest| *manifest = good);
    test.run(DRILL).fails(1);
    assert_eq!(outcomes(&test, "drill"), ["bad"]);
}

#[test]
fn nothing_drilled_is_no_drill_that_passed() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT 1 AS i");
    let test = forge::backed_up(&database, "gzip");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    fs::write(test.path("backup.yml"), config.replace("name: app", "name: other")).unwrap();
    test.run(["restore", "--drill", "--host", "web1"]).fails(4).says("nothing to drill");
    fs::write(test.path("backup.yml"), format!("{config}    enabled: false\n")).unwrap();
    test.run(DRILL).fails(4).says("nothing to drill");
    test.run(["restore", "--drill", "a*"]).fails(4).says("nothing to drill");
}

/// pg_dump writes `CREATE SCHEMA public` where that schema is named.
#[test]
fn a_standard_schema_that_is_named_loads_with_several_jobs() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 3) AS i");
    let test = Test::of(&database)
        .target_option("format: custom")
        .target_option("schemas: [public]")
        .target_option(&format!("client_bin: {}", binaries().display()));
    test.run(["-q", "backup"]).ok();
    test.run(DRILL).ok();
    test.run(["restore", "--drill", "--jobs", "3"]).ok().says("3 rows");
}

/// Copies of one id hold the same bytes.
#[test]
fn what_a_drill_finds_in_the_content_is_said_of_every_copy() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 3) AS i");
    let test = forge::backed_up(&database, "gzip");
    tamper(&test, "2\n3\n", "3\n");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let other = config.replacen(
        "storages:\n",
        &format!("storages:\n  far: {{ type: local, path: '{}' }}\n", test.path("far").display()),
        1,
    );
    let other = other.replacen("    type: postgres\n", "    type: postgres\n    storages: [local, far]\n", 1);
    fs::write(test.path("backup.yml"), other).unwrap();
    copy_tree(&test.storage(), &test.path("far"));
    test.run(DRILL).fails(1);
    test.run(["list"]).fails(3).says("storage far: ");
    assert_eq!(test.run(["list", "--json"]).json()["items"][0]["state"], "damaged");
    test.run(["restore", "app", "--to-database", "never_made"]).fails(1).says("found it bad");
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
