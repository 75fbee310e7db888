//! Which backup a restore takes, from where, and its content as a file or a stream.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::forge::{artifact, backed_up, content_of, damage, manifest, redate};
use crate::support::cluster::{HOST, PASSWORD, SUPERUSER};
use crate::support::{Cluster, Database, SHARED, Test};

/// A database of one number, and a test with a backup of it for each of these runs: the first holds 0, and so on.
fn dated(runs: &[&str]) -> (Database, Test) {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (-1)");
    let test = Test::of(&database);
    for run in runs {
        database.psql("UPDATE t SET i = i + 1");
        test.run(["-q", "backup"]).ok();
        redate(&test, run);
    }
    (database, test)
}

/// The number in the backup that these options choose.
#[track_caller]
fn chosen(test: &Test, options: &[&str]) -> String {
    let ran = test.run(["restore", "app", "--output", "-"].iter().chain(options)).ok();
    let (_, rows) = ran.stdout.split_once("COPY public.t (i) FROM stdin;\n").unwrap();
    rows.lines().next().unwrap().to_owned()
}

/// The ids in the storage, the oldest first.
fn ids(test: &Test) -> Vec<String> {
    let manifests = test.stored().into_iter().filter(|path| path.ends_with(".manifest.json"));
    manifests.map(|path| path.rsplit('/').next().unwrap()[4..25].to_owned()).collect()
}

#[test]
fn each_form_of_at_finds_its_backup() {
    let (_database, test) = dated(&["20240110_030000Z", "20240110_150000Z", "20250220_030000Z"]);
    let ids = ids(&test);
    for (at, number) in [
        ("latest", "2"),
        (&ids[0], "0"),
        (&ids[1][17..], "1"),
        ("20240110_15", "1"),
        ("2024-01-10", "1"),
        ("2025-02-19", "1"),
        ("2024-01-10T14:59", "0"),
        ("2024-01-10T15:00:00Z", "1"),
        ("1d", "2"),
    ] {
        assert_eq!(chosen(&test, &["--at", at]), number, "{at}");
    }
    assert_eq!(chosen(&test, &[]), "2");
}

#[test]
fn what_matches_nothing_is_4_with_the_neighbours() {
    let (database, test) = dated(&["20240110_030000Z", "20250220_030000Z"]);
    let ids = ids(&test);
    let fails = |at: &str, text: &str| {
        for to in [["--output", "-"], ["--to-database", "unmatched"]] {
            test.run(["restore", "app", "--at", at].iter().chain(&to)).fails(4).says(text);
        }
    };
    fails("2024-01-09", &format!("the oldest is {}", ids[0]));
    fails("9999d", &format!("the oldest is {}", ids[0]));
    fails("20240610", &format!("its neighbours are {} (2024-01-10 03:00:00 UTC) and {}", ids[0], ids[1]));
    fails("2024", "no backup matches");
    test.run(["restore", "ap", "--output", "-"]).fails(4).says("there are backups of: app");
    test.run(["restore", "app", "--at", "yesterday", "--output", "-"]).fails(2).says("names no backup");
    drop(database);
}

#[test]
fn a_damaged_newest_is_passed_over_and_told() {
    let (_database, test) = dated(&["20240110_030000Z", "20250220_030000Z"]);
    let ids = ids(&test);
    let newest = test.stored().into_iter().find(|path| path.ends_with(&format!("{}.sql.gz", ids[1]))).unwrap();
    let path = test.storage().join(newest);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let ran = test.run(["restore", "app", "--output", "older.sql"]).ok().says(&format!("{} in local is passed over", ids[1]));
    assert!(ran.stderr.contains("bytes"), "{}", ran.stderr);
    assert!(fs::read_to_string(test.path("older.sql")).unwrap().contains("FROM stdin;\n0\n"));
    test.run(["restore", "app", "--output", "-", "--at", &ids[1]]).fails(1).says("bytes");
    fs::remove_file(&path).unwrap();
    assert_eq!(chosen(&test, &[]), "0", "it is missing");
}

#[test]
fn an_unknown_newest_stops_the_restore() {
    let (_database, test) = dated(&["20240110_030000Z", "20250220_030000Z"]);
    let ids = ids(&test);
    let newest = test.stored().into_iter().find(|path| path.ends_with(&format!("{}.manifest.json", ids[1]))).unwrap();
    let path = test.storage().join(newest);
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replace("\"schema\": 1,", "\"schema\": 2,")).unwrap();
    test.run(["restore", "app", "--output", "-"]).fails(1).says("schema 2").says("upgrade");
    assert_eq!(chosen(&test, &["--at", &ids[0]]), "0");
}

#[test]
fn where_the_only_backup_is_damaged_that_is_what_is_told() {
    let (_database, test) = dated(&["20240110_030000Z"]);
    let whole = artifact(&test);
    damage(&test, &whole[..9]);
    test.run(["restore", "app", "--output", "-"]).fails(1).says("has 9 bytes");
}

#[test]
fn the_own_host_comes_first_then_the_only_other_one() {
    let (database, test) = dated(&["20240110_030000Z"]);
    let as_host = |host: &str| {
        let yaml = fs::read_to_string(test.path("backup.yml")).unwrap();
        let lines = yaml.lines().map(|line| if line.starts_with("host:") { format!("host: {host}") } else { line.to_owned() });
        test.write("backup.yml", &lines.collect::<Vec<_>>().join("\n"));
    };
    as_host("web2");
    assert_eq!(chosen(&test, &[]), "0", "web1 is the only one");
    test.run(["restore", "app", "--host", "web2", "--output", "-"]).fails(4).says("web2");
    database.psql("UPDATE t SET i = 7");
    test.run(["-q", "backup"]).ok();
    assert_eq!(chosen(&test, &[]), "7", "our own");
    assert_eq!(chosen(&test, &["--host", "web1"]), "0");
    as_host("web3");
    test.run(["restore", "app", "--output", "-"]).fails(2).says("web1, web2").says("--host");
}

#[test]
fn a_storage_that_can_not_be_listed_stops_and_from_goes_on() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (5)");
    let yaml = format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages:\n  near: {{ type: local, path: '{{storage}}' }}\n  \
         far: {{ type: local, path: '{{dir}}/far' }}\ntargets:\n  - {{ name: app, type: postgres, host: {HOST}, port: {}, \
         user: {SUPERUSER}, password: {PASSWORD}, database: {}, storages: [near, far] }}\n",
        database.cluster().port(),
        database.name()
    );
    let test = Test::new().config(&yaml);
    test.run(["-q", "backup"]).ok();
    let far = test.path("far");
    fs::rename(&far, test.path("unmounted")).unwrap();
    test.run(["restore", "app", "--output", "-"]).fails(1).says("far").says("--from").says("near");
    assert_eq!(chosen(&test, &["--from", "near"]), "5");
    test.run(["restore", "app", "--from", "far", "--output", "-"]).fails(1);
    test.run(["restore", "app", "--from", "faraway", "--output", "-"]).fails(4).says("near and far");
    fs::rename(test.path("unmounted"), &far).unwrap();
    // One copy is bad: the other one is read.
    let name = test.stored_one(".sql.gz");
    fs::write(&name, b"short").unwrap();
    let ran = test.run(["restore", "app", "--output", "-"]).ok().says("in near is passed over");
    assert!(ran.stdout.contains("FROM stdin;\n5\n"));
}

#[test]
fn an_output_file_is_private_new_and_equal_to_the_content() {
    let (_database, test) = dated(&["20240110_030000Z"]);
    let content = content_of("gzip", &artifact(&test));
    test.run(["restore", "app", "--output", "out.sql", "--dry-run"]).ok();
    assert!(!test.path("out.sql").exists(), "a dry run touches nothing");
    test.run(["restore", "app", "--output", "out.sql"]).ok();
    assert_eq!(fs::read(test.path("out.sql")).unwrap(), content);
    assert_eq!(fs::metadata(test.path("out.sql")).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(test.path("out.sql"), "mine").unwrap();
    test.run(["restore", "app", "--output", "out.sql"]).fails(2).says("exists");
    assert_eq!(fs::read_to_string(test.path("out.sql")).unwrap(), "mine");
    std::os::unix::fs::symlink("nowhere", test.path("link")).unwrap();
    test.run(["restore", "app", "--output", "link"]).fails(2).says("exists");
    test.run(["restore", "app", "--output", "absent/out.sql"]).fails(2).says("directory is not there");
    assert!(!test.path("absent").exists());
    let long = "x".repeat(250);
    test.run(["restore", "app", "--output", &long]).ok();
    assert_eq!(fs::read(test.path(&long)).unwrap(), content);
    let mut bad = artifact(&test);
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    damage(&test, &bad);
    test.run(["restore", "app", "--output", "bad.sql"]).fails(1);
    let left: Vec<_> = fs::read_dir(test.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "bad.sql" || name.to_string_lossy().starts_with(".db-backup")), "{left:?}");
}

#[test]
fn output_needs_neither_the_target_nor_its_server() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (3)");
    let test = Test::of(&database);
    test.run(["-q", "backup"]).ok();
    drop(database);
    drop(cluster);
    assert_eq!(chosen(&test, &[]), "3", "the server is down");
    let other = "version: 1\nhost: web1\nstate_dir: '{state}'\nstorages:\n  local: { type: local, path: '{storage}' }\n\
        targets:\n  - { name: other, type: postgres, host: nowhere, database: x }\n";
    let test = test.config(other);
    assert_eq!(chosen(&test, &[]), "3", "the target is not in the config any more");
    test.run(["restore", "app", "--to-database", "x"]).fails(2).says("no target app").says("--output");
}

#[test]
fn a_stream_is_equal_to_the_content_for_each_compression() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i");
    for compression in ["gzip", "zstd", "none"] {
        let test = backed_up(&database, compression);
        let ran = test.run(["-q", "restore", "app", "--output", "-"]).ok();
        assert!(ran.stdout.as_bytes() == content_of(compression, &artifact(&test)), "{compression}");
        assert_eq!(ran.stdout.len() as u64, manifest(&test)["content"]["bytes"].as_u64().unwrap());
    }
}

#[test]
fn a_reader_that_goes_away_is_told() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i");
    let test = backed_up(&database, "gzip");
    let mut child = Command::new(env!("CARGO_BIN_EXE_db-backup-tools"))
        .args(["restore", "app", "--output", "-"])
        .env("DB_PASSWORD", PASSWORD)
        .current_dir(test.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the reader of standard output went away"), "{said}");
}
