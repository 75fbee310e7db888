//! What a person is told when a run fails: one clear line with target, step and cause, one with the way
//! out, and the exit code. Snapshots of all that is printed.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries};
use crate::support::{Cluster, Database, SHARED, Test, eventually};

/// A server whose roles only these tests change.
static ROLES: LazyLock<Cluster> = LazyLock::new(Cluster::start);

/// Runs the program, which ends in this code, and compares all that it prints.
#[track_caller]
pub fn prints<const N: usize>(test: &Test, arguments: [&str; N], code: i32, name: &str) {
    let ran = test.run(arguments).fails(code);
    let printed = format!("$ {}\n{}--- stderr\n{}exit code {code}\n", arguments.join(" "), ran.stdout, ran.stderr);
    let directory = test.path("").display().to_string();
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(&regex_of(directory.trim_end_matches('/')), "{dir}");
    settings.add_filter(&regex_of(binaries().to_str().unwrap()), "{binaries}");
    settings.add_filter(r"\d{8}_\d{6}Z-[a-z0-9]{4}", "RUN-XXXX");
    settings.add_filter(r"\d{8}_\d{6}Z", "RUN");
    settings.add_filter(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z| UTC)?", "TIME");
    settings.add_filter(r"\btest_\d+", "test_N");
    settings.add_filter(r"\b1\d\.\d+\b", "15.X");
    settings.add_filter(r"(postgresql-client-|/postgresql/|postgresql|version )1\d\b", "${1}15");
    settings.add_filter(r"(port |127\.0\.0\.1:|\.s\.PGSQL\.)\d{2,5}", "${1}PORT");
    settings.add_filter(r"(large object )\d+", "${1}OID");
    settings.add_filter(r"(process|pid) \d+", "$1 PID");
    settings.add_filter(r"/tmp/pg\.\w+", "{socket}");
    settings.add_filter(r" in \d+(\.\d+)? ?(ms|s)\b", " in TIME");
    settings.add_filter(r"\b[0-9a-f]{64}\b", "SHA256");
    settings.add_filter(r"\d+ bytes, its manifest says \d+", "N bytes, its manifest says M");
    settings.add_filter(r"line \d+ column \d+", "line N column M");
    settings.add_filter(r"[ ]+\d+s[ ]+", " AGE ");
    settings.add_filter(r"\(\d+(\.\d+)?s\)", "(AGE)");
    settings.add_filter(r"\buser \d+", "user UID");
    settings.add_filter(r"\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "SIZE");
    settings.bind(|| insta::assert_snapshot!(name, printed));
}

fn regex_of(text: &str) -> String {
    text.replace('.', r"\.")
}

/// A configuration of one target, whose lines these are.
pub fn target(lines: &[&str]) -> Test {
    let lines: String = lines.iter().flat_map(|line| ["    ", line, "\n"]).collect();
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets:\n  - name: app\n    type: postgres\n    retries: 0\n{lines}"
    ))
}

/// The lines that lead a role to a database.
fn login(database: &Database, role: &str) -> Test {
    let port = format!("port: {}", database.cluster().port());
    let host = format!("host: {HOST}");
    let user = format!("user: {role}");
    let name = format!("database: {}", database.name());
    target(&[&host, &port, &user, &name, "password: ${ROLE_PASSWORD}"]).env("ROLE_PASSWORD", "role-secret-81c")
}

/// A role that may log in; `grants` say what else it may.
fn role(database: &Database, name: &str, grants: &str) {
    database.psql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'role-secret-81c'; {grants}"));
}

fn small() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE people (id int, name text); INSERT INTO people VALUES (1, 'Ada'), (2, 'Grace')");
    database
}

#[test]
fn a_server_that_is_down() {
    let test = target(&["host: 127.0.0.1", "port: 1", "user: admin", "database: app"]);
    prints(&test, ["backup"], 1, "server_down");
    prints(&test, ["validate", "--connect"], 1, "server_down_validate");
    assert!(test.stored().is_empty());
}

#[test]
fn a_socket_that_is_not_there() {
    prints(&target(&["host: '{dir}'", "user: admin", "database: app"]), ["backup"], 1, "socket_missing");
}

#[test]
fn a_host_that_no_name_server_knows() {
    let ran = target(&["host: no-such-host.invalid", "user: admin", "database: app"]).run(["backup"]);
    ran.fails(1).says("error: app: connect: ").says("could not translate host name").says("hint: check `host:`");
}

#[test]
fn a_wrong_password() {
    let database = small();
    let test = login(&database, SUPERUSER);
    prints(&test, ["backup"], 1, "wrong_password");
}

#[test]
fn no_password_where_one_is_wanted() {
    let port = format!("port: {}", SHARED.port());
    let test = target(&["host: 127.0.0.1", &port, "user: admin", "database: postgres"]);
    prints(&test, ["backup"], 1, "no_password");
}

#[test]
fn no_such_database() {
    let port = format!("port: {}", SHARED.port());
    let lines = ["host: 127.0.0.1", &port, "user: admin", "password: ${PW}", "database: no_such_db"];
    prints(&target(&lines).env("PW", PASSWORD), ["backup"], 1, "no_such_database");
}

#[test]
fn no_such_role() {
    let database = small();
    prints(&login(&database, "nobody_here"), ["backup"], 1, "no_such_role");
}

#[test]
fn a_table_that_may_not_be_read() {
    let database = ROLES.create_database();
    database.psql("CREATE TABLE open (i int); CREATE TABLE \"Closed\" (i int)");
    role(&database, "no_table", "GRANT SELECT ON open TO no_table");
    let test = login(&database, "no_table");
    prints(&test, ["backup"], 1, "no_permission_table");
    prints(&test, ["validate", "--connect"], 1, "no_permission_table_validate");
    assert!(test.stored().is_empty());
}

#[test]
fn a_sequence_that_may_not_be_read() {
    let database = ROLES.create_database();
    database.psql("CREATE TABLE t (i serial)");
    role(&database, "no_sequence", "GRANT SELECT ON t TO no_sequence");
    let test = login(&database, "no_sequence");
    prints(&test, ["backup"], 1, "no_permission_sequence");
    prints(&test, ["validate", "--connect"], 1, "no_permission_sequence_validate");
}

#[test]
fn a_large_object_that_may_not_be_read() {
    let database = ROLES.create_database();
    database.psql("SELECT lo_from_bytea(0, 'secret')");
    role(&database, "no_object", "");
    let test = login(&database, "no_object");
    prints(&test, ["backup"], 1, "no_permission_large_object");
    prints(&test, ["validate", "--connect"], 1, "no_permission_large_object_validate");
    assert!(test.stored().is_empty());
}

#[test]
fn row_security_in_the_way() {
    let database = ROLES.create_database();
    database.psql("CREATE TABLE mine (owner text); ALTER TABLE mine ENABLE ROW LEVEL SECURITY");
    role(&database, "half_blind", "GRANT SELECT ON mine TO half_blind");
    let test = login(&database, "half_blind");
    prints(&test, ["backup"], 1, "row_security");
    prints(&test, ["validate", "--connect"], 1, "row_security_validate");
}

#[test]
fn no_programs_where_the_config_says() {
    let database = small();
    let test = Test::of(&database).target_option("client_bin: '{dir}/tmp'");
    prints(&test, ["backup"], 1, "client_bin_empty");
}

#[test]
fn a_short_path_as_cron_has_it_finds_the_distributions_programs() {
    let database = small();
    let test = Test::of(&database).env("PATH", "/nonexistent");
    let ran = test.run(["backup"]);
    if binaries().starts_with("/usr/lib/postgresql") {
        ran.ok();
    } else {
        ran.fails(1).says("not found on PATH").says("postgresql-client");
    }
}

#[test]
fn a_pg_dump_that_is_too_old() {
    let old = |test: Test| test.fake_bin("pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24' # --version");
    let database = small();
    let test = old(Test::of(&database).target_option("client_bin: '{bin}'"));
    prints(&test, ["backup"], 1, "pg_dump_too_old");
    if binaries().starts_with("/usr/lib/postgresql") {
        // First on PATH is no reason to take it.
        old(Test::of(&database)).run(["backup"]).ok();
    }
}

#[test]
fn a_storage_that_is_not_there() {
    let database = small();
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    fs::rename(test.storage(), test.path("away")).unwrap();
    prints(&test, ["list"], 1, "storage_missing_list");
    prints(&test, ["restore", "app", "--output", "x.sql"], 1, "storage_missing_restore");
    prints(&test, ["prune"], 1, "storage_missing_prune");
    assert!(!test.storage().exists() && !test.path("x.sql").exists());
}

#[test]
fn a_storage_whose_parent_is_not_there() {
    let test = target(&["database: app", "host: 127.0.0.1", "port: 1"]);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace("/storage'", "/disk/storage'"));
    prints(&test, ["validate", "--connect"], 1, "storage_parent_missing");
    assert!(!test.path("disk").exists());
}

#[test]
fn a_storage_that_can_t_be_written() {
    let database = small();
    let test = Test::of(&database).unprivileged();
    fs::set_permissions(test.storage(), fs::Permissions::from_mode(0o500)).unwrap();
    prints(&test, ["backup"], 1, "storage_read_only");
    prints(&test, ["validate", "--connect"], 1, "storage_read_only_validate");
    fs::set_permissions(test.storage(), fs::Permissions::from_mode(0o000)).unwrap();
    prints(&test, ["list"], 1, "storage_unreadable");
}

#[test]
fn a_storage_that_is_a_file() {
    let database = small();
    let test = Test::of(&database);
    fs::remove_dir(test.storage()).unwrap();
    fs::write(test.storage(), "a file").unwrap();
    prints(&test, ["backup"], 1, "storage_is_a_file");
    prints(&test, ["list"], 1, "storage_is_a_file_list");
}

#[test]
fn an_artifact_that_was_harmed() {
    let database = small();
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    let artifact = test.stored_one(".sql.gz");
    let whole = fs::read(&artifact).unwrap();
    flip(&artifact);
    prints(&test, ["restore", "app", "--output", "x.sql"], 1, "artifact_flipped_restore");
    prints(&test, ["list", "--verify"], 1, "artifact_flipped_verify");
    prints(&test, ["list"], 3, "artifact_flipped_list");
    fs::write(&artifact, &whole[..whole.len() / 2]).unwrap();
    prints(&test, ["restore", "app", "--output", "x.sql"], 1, "artifact_truncated_restore");
    fs::remove_file(&artifact).unwrap();
    prints(&test, ["restore", "app", "--output", "x.sql"], 1, "artifact_missing_restore");
    prints(&test, ["list"], 3, "artifact_missing_list");
    assert!(!test.path("x.sql").exists());
}

fn flip(path: &Path) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(200)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(200)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

#[test]
fn a_manifest_that_can_t_be_read() {
    let database = small();
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    let manifest = test.stored_one(".manifest.json");
    let written = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, &written[..written.len() / 2]).unwrap();
    prints(&test, ["list", "--all"], 3, "manifest_damaged_list");
    prints(&test, ["restore", "app", "--output", "x.sql"], 1, "manifest_damaged_restore");
    fs::write(&manifest, written.replacen("\"schema\": 1", "\"schema\": 99", 1).replacen("\"schema\":1", "\"schema\":99", 1))
        .unwrap();
    prints(&test, ["list", "--all"], 3, "manifest_newer_list");
    prints(&test, ["restore", "app", "--output", "x.sql"], 1, "manifest_newer_restore");
}

#[test]
fn a_name_that_matches_nothing() {
    let database = small();
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    prints(&test, ["backup", "ap"], 4, "unknown_name_backup");
    prints(&test, ["list", "other"], 4, "unknown_name_list");
    prints(&test, ["restore", "appp", "--output", "x.sql"], 4, "unknown_name_restore");
    prints(&test, ["prune", "nothing*"], 4, "unknown_name_prune");
    prints(&test, ["backup", "--storage", "locl"], 4, "unknown_storage_backup");
    prints(&test, ["list", "--storage", "locl"], 4, "unknown_storage_list");
    prints(&test, ["restore", "app", "--from", "offsite", "--output", "x.sql"], 4, "unknown_storage_restore");
    prints(&test, ["restore", "app", "--at", "zzzz", "--output", "x.sql"], 4, "unknown_id_restore");
    prints(&test, ["prune", "--pin", "zzzz"], 4, "unknown_id_prune");
    prints(&test, ["restore", "app", "--at", "2001-01-01", "--output", "x.sql"], 4, "no_backup_at_that_time");
    assert_eq!(test.stored().iter().filter(|path| path.ends_with(".manifest.json")).count(), 1);
}

#[test]
fn a_lock_that_another_run_holds() {
    let wait = "case $1 in --version) ;; *) touch {dir}/dumping; while [ ! -e {dir}/go ]; do sleep 0.02; done ;; esac";
    let database = small();
    let test = Test::of(&database).fake_bin("pg_dump", &format!("{wait}\nexec {{real}} \"$@\""));
    let first = test.spawn(["backup"]);
    eventually("the first run dumps", || test.path("dumping").exists());
    prints(&test, ["backup"], 75, "lock_held");
    fs::write(test.path("go"), "").unwrap();
    first.wait().ok();
    assert_eq!(test.stored().iter().filter(|path| path.ends_with(".manifest.json")).count(), 1);
}
