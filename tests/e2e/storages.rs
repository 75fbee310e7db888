//! One pass into several storages: what each holds when one of them, or all, can't take it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Database, SHARED, Test, is_root};

/// Counts its real runs in `{dir}/dumps`.
const COUNTED: &str = r#"[ "$1" = --version ] || echo run >>{dir}/dumps; exec {real} "$@""#;

fn small_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (id int, word text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 100000) n");
    database
}

/// The usual test, with a second storage `second` of this YAML, and a counted pg_dump.
pub(crate) fn with_second(database: &Database, second: &str) -> Test {
    // Not compressed: then the size of what is written is known.
    let test = Test::of(database).target_option("storages: [local, second]").target_option("compression: { type: none }");
    let test = test.fake_bin("pg_dump", COUNTED);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let config = config.replace("\ntargets:", &format!("\n  second: {second}\ntargets:"));
    test.write("backup.yml", &config);
    test
}

fn dumps(test: &Test) -> usize {
    fs::read_to_string(test.path("dumps")).unwrap_or_default().lines().count()
}

pub(crate) fn stored_in(root: &Path) -> Vec<String> {
    if root.exists() { crate::support::tool::files_below(root) } else { Vec::new() }
}

#[track_caller]
fn listed(test: &Test, storage: &str) -> usize {
    test.run(["list", "--json", "--all", "--storage", storage]).ok().json()["items"].as_array().unwrap().len()
}

#[test]
fn two_storages_get_the_same_bytes_from_one_dump() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    let ran = test.run(["backup", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["storages"], json!(["local", "second"]));
    assert_eq!(dumps(&test), 1);
    assert_eq!(test.stored(), stored_in(&test.path("second")));
    for name in test.stored() {
        assert!(fs::read(test.storage().join(&name)).unwrap() == fs::read(test.path("second").join(&name)).unwrap(), "{name}");
    }
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_storage_option_narrows_where_it_goes() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    test.run(["backup", "--storage", "second"]).ok();
    assert!(test.stored().is_empty() && stored_in(&test.path("second")).len() == 3);
    test.run(["backup", "--storage", "third"]).fails(4).says("third");
    assert_eq!(dumps(&test), 1);
}

#[track_caller]
fn one_of_two_fails(test: &Test, cause: &str, hint: &str) -> Value {
    let ran = test.run(["backup", "--json"]).fails(3).says("app: storage second: ").says(cause).says(&format!("hint: {hint}"));
    let item = ran.json()["items"][0].clone();
    assert_eq!((&item["status"], &item["storages"]), (&json!("partial"), &json!(["local"])));
    assert_eq!(listed(test, "local"), 1);
    assert_eq!(dumps(test), 1);
    ran.json()
}

#[test]
fn a_storage_that_can_not_be_made_leaves_the_unit_partial() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/absent/second' }");
    one_of_two_fails(&test, "absent is not there", "create it, or correct `path:`");
    assert!(!test.path("absent").exists());
}

// FIELD: silent failure; an unmounted disk is an error, not a backup onto the root disk.
#[test]
fn a_storage_whose_disk_is_not_mounted_gets_nothing() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/disk/second', mount: '{dir}/disk' }");
    fs::create_dir(test.path("disk")).unwrap();
    let found = one_of_two_fails(&test, "disk is not a mount point: is the disk mounted?", "mount the disk");
    assert_eq!(found["problems"][0]["storage"], "second");
    assert!(stored_in(&test.path("disk")).is_empty() && !test.path("disk/second").exists());
}

#[test]
fn a_file_in_a_storages_place_is_said_so_and_left_alone() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }").file("second", "not a directory");
    one_of_two_fails(&test, "is no directory, and no link to one", "correct `path:`");
    assert_eq!(fs::read_to_string(test.path("second")).unwrap(), "not a directory");
}

/// A small disk of the test's own.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(place: PathBuf, size: &str) -> Self {
        fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&place).status().unwrap();
        assert!(mounted.success(), "no file system can be mounted here");
        Self(place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Whether a disk can be mounted. In CI, where everything must be tested, it has to be.
pub(crate) fn can_mount() -> bool {
    let can = is_root() && {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(place.path()).output().unwrap().status.success();
        mounted && Command::new("umount").arg(place.path()).status().unwrap().success()
    };
    assert!(can || std::env::var_os("CI").is_none(), "CI must be able to mount a disk");
    can
}

// FIELD: "a full disk".
#[test]
fn a_disk_that_gets_full_drops_out_alone_and_keeps_no_byte() {
    if !can_mount() {
        eprintln!("SKIPPED: no file system can be mounted here (it takes root)");
        return;
    }
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/disk/second', mount: '{dir}/disk' }");
    let _disk = Disk::mount(test.path("disk"), "size=1m");
    one_of_two_fails(&test, "No space left on device", "the disk is full");
    assert!(stored_in(&test.path("disk")).is_empty());
    assert_eq!(listed(&test, "second"), 0);
}

#[test]
fn a_read_only_storage_is_said_so() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    fs::create_dir(test.path("second")).unwrap();
    let test = test.unprivileged();
    let closed = Command::new("chmod").arg("500").arg(test.path("second")).status().unwrap();
    assert!(closed.success());
    one_of_two_fails(&test, "Permission denied", "let user");
}

#[test]
fn when_no_storage_takes_it_pg_dump_is_not_even_started() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/absent/second' }").file("taken", "");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace(test.storage().to_str().unwrap(), test.path("taken").to_str().unwrap()));
    let ran = test.run(["backup", "--json"]).fails(1).says("app: storage local: ").says("app: storage second: ");
    assert_eq!(ran.json()["items"][0]["status"], "failed");
    assert_eq!(dumps(&test), 0);
}

#[test]
fn only_the_last_component_of_a_storages_path_is_made() {
    let database = small_database();
    let test = Test::of(&database);
    fs::remove_dir(test.storage()).unwrap();
    test.run(["backup"]).ok();
    assert_eq!(test.stored().len(), 3);
    let test = Test::of(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let storage = test.storage();
    test.write("backup.yml", &config.replace(storage.to_str().unwrap(), storage.join("a/b").to_str().unwrap()));
    test.run(["backup"]).fails(1).says("can't make").says("only ").says("is made here");
    assert!(!test.storage().join("a").exists());
}

// FIELD: retention that ate the wrong thing: of a partial unit only the storages that committed are pruned.
#[test]
fn a_storage_that_failed_is_not_pruned_in_that_run() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &format!("{config}    retention: {{ keep_last: 1 }}\n"));
    test.run(["backup"]).ok();
    test.run(["backup", "--no-prune"]).ok();
    let run: PathBuf = test.path("second").join("web1");
    // The next run's directory can't be made; what is there can be read and deleted.
    let before = stored_in(&run);
    let test = test.unprivileged();
    let closed = Command::new("chmod").arg("500").arg(&run).status().unwrap();
    assert!(closed.success());
    test.run(["backup"]).fails(3).says("app: storage second: upload: ");
    assert_eq!(stored_in(&run), before);
    assert_eq!(listed(&test, "local"), 1);
}

// The contract of retries: a new attempt, under a new id, for the storages that still lack it. It waits
// the 5 seconds between two attempts.
#[test]
fn a_storage_that_fails_once_gets_a_backup_of_its_own_by_a_second_attempt() {
    let database = small_database();
    let test = with_second(&database, "{ type: local, path: '{dir}/second' }");
    let place = test.path("second/web1");
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", place.to_str().unwrap()];
    let test = test.under(strace).under(["-e", "inject=mkdir,mkdirat:error=EIO:when=1"]);
    let ran =
        test.run(["backup", "--json"]).ok().says("trying again in 5.0s: storage second: upload: ").says("Input/output error");
    let item = ran.json()["items"][0].clone();
    assert_eq!((&item["status"], &item["storages"]), (&json!("ok"), &json!(["local", "second"])));
    assert_eq!(dumps(&test), 2);
    assert_eq!((test.stored().len(), stored_in(&test.path("second")).len()), (3, 3));
    let id = |root: &Path| stored_in(root)[0].split_once("app_").unwrap().1[..21].to_owned();
    assert_ne!(id(&test.storage()), id(&test.path("second")));
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_storage_that_goes_away_in_the_middle_is_told_with_a_remedy() {
    let database = small_database();
    let vanish = "[ \"$1\" = --version ] && exec {real} --version\n{real} \"$@\" && rm -rf {storage}";
    let test = Test::of(&database).fake_bin("pg_dump", vanish);
    test.run(["backup"]).fails(1).says("app: storage local: commit: can't").says("is the disk still there?");
    test.run(["list"]).fails(1).says("is not there");
}

/// An upload's parts are as large as its size needs, and memory with them: that is said before any backup.
#[test]
fn what_a_size_takes_in_a_bucket_is_said_beforehand() {
    let database = small_database();
    let bucket = |keys: &str| {
        let keys = format!("retries: 0, access_key_id: AKID, secret_access_key: 'hunter2', {keys}");
        with_second(&database, &format!("{{ type: s3, bucket: nightly, endpoint: 'http://127.0.0.1:1', {keys} }}"))
    };
    let said = |test: &Test, command: [&str; 2]| test.run(command).never_shows("hunter2").stdout.clone();
    for command in [["backup", "--dry-run"], ["validate", "--connect"]] {
        let short = said(&bucket("part_size: 5MiB, max_parts: 1"), command);
        let (_, remark) = short.split_once("storage second: parts of ").unwrap_or_else(|| panic!("{command:?}: {short}"));
        assert!(remark.contains(" MiB, about ") && remark.contains(" MiB of memory"), "{command:?}: {short}");
        let ample = said(&bucket("part_size: 5MiB"), command);
        assert!(!ample.contains("parts of"), "{command:?}: {ample}");
    }
}
