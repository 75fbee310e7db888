//! Disks that are full, read-only, failing or not there; and what the storage makes of its directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::crash::{tiny_database, with_storages};
use crate::support::strace::for_each_step;
use crate::support::tool::files_below;
use crate::support::{Ran, Step, Test, Traced, eventually, holds_within, is_root, sample_database};

/// A small file system of a test's own. Declare it after its test: it is to go first.
struct Disk(PathBuf);

impl Disk {
    /// None, and a word, where no disk can be mounted; in CI as root that is a failure.
    fn mount(place: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "test"]).arg(&place).output().unwrap();
        if mounted.status.success() {
            return Some(Self(place));
        }
        let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(!is_root() || std::env::var_os("CI").is_none(), "as root in CI disks must be mountable: {why}");
        eprintln!("not tested, as no disk can be mounted here: {why}");
        None
    }

    fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Takes the space, up to so many bytes, with a file beside the storage.
    fn fill_but(&self, bytes: u64) {
        let _ = fs::remove_file(self.0.join("filler"));
        let filler = vec![b'x'; usize::try_from(self.free_bytes() - bytes).unwrap()];
        fs::write(self.0.join("filler"), filler).unwrap();
        assert_eq!(self.free_bytes(), bytes);
    }

    fn remount(&self, options: &str) {
        let words = ["-o", &format!("remount,{options}")];
        eventually("it is remounted", || Command::new("mount").args(words).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Another test's new child may hold a file on it for a moment, as it inherits what we have open.
        let unmounted = || Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        let done = holds_within(Duration::from_secs(60), unmounted);
        assert!(done || std::thread::panicking(), "{} stays mounted", self.0.display());
    }
}

/// A test whose storage `local` stands on a disk, in `disk/storage`, with `mount:`.
fn on_disk(test: Test) -> Test {
    with_storages(test, "  local: { type: local, path: '{dir}/disk/storage', mount: '{dir}/disk' }\n")
}

#[track_caller]
fn lists(test: &Test, number: usize) {
    let items = test.run(["list", "--verify", "--json"]).ok().json();
    assert_eq!(items["items"].as_array().unwrap().len(), number, "{items}");
}

/// Says so plainly, once, for this storage, and nothing of an inner error.
#[track_caller]
fn says_full(ran: Ran) {
    ran.says("app: storage local: ").says("No space left on device").says("the disk is full: free some space");
}

#[test]
fn a_disk_that_fills_in_the_middle_of_a_backup_fails_it_and_gets_its_space_back() {
    let database = sample_database();
    let test = on_disk(Test::of(&database).target_option("compression: { type: none }"));
    let Some(disk) = Disk::mount(test.path("disk"), "size=3m") else { return };
    let free = disk.free_bytes();
    says_full(test.run(["backup"]).fails(1));
    assert_eq!(files_below(&disk.0), [""; 0]);
    assert_eq!(disk.free_bytes(), free);
    lists(&test, 0);
    disk.remount("size=100m");
    test.run(["backup"]).ok();
    lists(&test, 1);
}

#[test]
fn a_disk_that_fills_leaves_the_other_storage_its_backup() {
    let database = sample_database();
    let test = Test::of(&database).target_option("compression: { type: none }").target_option("storages: [local, other]");
    let test = with_storages(
        test,
        "  local: { type: local, path: '{dir}/disk/storage' }\n  other: { type: local, path: '{storage}' }\n",
    );
    let Some(disk) = Disk::mount(test.path("disk"), "size=3m") else { return };
    says_full(test.run(["backup"]).fails(3));
    assert_eq!(files_below(&disk.0), [""; 0]);
    assert_eq!(test.stored().len(), 3);
    let listed =
        test.run(["list", "--verify", "--json"]).fails(3).says("storage local: behind: it lacks the newest whole backup");
    let row = listed.json()["items"][0].clone();
    assert_eq!(
        (row["state"].as_str(), row["storages"][0].as_str(), &row["storages"][1]),
        (Some("whole"), Some("other"), &serde_json::Value::Null)
    );
}

#[test]
fn a_disk_that_is_full_at_any_file_of_a_backup_keeps_none_of_it() {
    let database = tiny_database();
    let test = on_disk(Test::of(&database));
    let Some(disk) = Disk::mount(test.path("disk"), "size=1m") else { return };
    let mut full_at = Vec::new();
    for pages in 0.. {
        disk.fill_but(pages * 4096);
        let ran = test.run(["backup"]);
        if ran.code == Some(0) {
            break;
        }
        let file =
            ran.stderr.lines().find_map(|line| line.split_once(".tmp-")?.0.rsplit_once('-').map(|(_, end)| end[5..].to_owned()));
        full_at.extend(file);
        says_full(ran.fails(1));
        assert_eq!(files_below(&disk.0), ["filler"]);
        assert_eq!(disk.free_bytes(), pages * 4096);
    }
    full_at.dedup();
    assert_eq!(full_at, ["sql.gz", "inventory.json", "manifest.json"]);
    fs::remove_file(test.path("disk/filler")).unwrap();
    lists(&test, 1);
}

#[test]
fn any_call_on_the_storage_that_fails_fails_the_backup_and_leaves_nothing() {
    let database = tiny_database();
    let fresh = || Traced::new(Test::of(&database).target_option("retries: 0"));
    let mut steps = fresh().steps(["backup"]);
    steps.retain(|step| step.text.contains("storage"));
    assert!(steps.len() > 20, "{steps:?}");
    let check = |step: &Step, errno: &str, says: &str| {
        let (test, what) = (fresh(), format!("{errno} in {step:?}"));
        let Step { call, number, .. } = step;
        let wrapper = format!("strace -o trace -e trace={call} -e inject={call}:error={errno}:when={number}");
        let ran = test.run_under(&wrapper, ["backup"]);
        assert_eq!(ran.code, Some(1), "{what}: {ran:?}");
        assert!(ran.stderr.contains("app: storage local: ") && ran.stderr.contains(says), "{what}: {ran:?}");
        assert_eq!(test.stored(), [""; 0], "{what}");
        assert!(!test.path("storage/web1/").is_dir() || fs::read_dir(test.path("storage/web1")).unwrap().count() == 0, "{what}");
    };
    for_each_step(&steps, |step| {
        check(step, "ENOSPC", "the disk is full");
        check(step, "EIO", "Input/output error");
        check(step, "EROFS", "the file system is read-only");
    });
}

#[test]
fn a_read_only_disk_can_be_listed_and_restored_from_and_says_what_it_is() {
    let database = tiny_database();
    let test = on_disk(Test::of(&database).target_option("retention: { keep_last: 1 }"));
    let Some(disk) = Disk::mount(test.path("disk"), "size=1m") else { return };
    for _ in 0..2 {
        test.run(["backup", "--no-prune"]).ok();
    }
    let before = files_below(&disk.0);
    disk.remount("ro");
    test.run(["backup"]).fails(1).says("app: storage local: ").says("the file system is read-only: remount it");
    test.run(["prune"]).fails(3).says("app: storage local: ").says("the file system is read-only: remount it");
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 2);
    test.run(["restore", "app", "--output", test.path("out.sql").to_str().unwrap()]).ok();
    // The bytes are right; only the verdict can't be kept, and so nothing is proven for the next look.
    let verified = test.run(["list", "--verify", "--json"]).fails(3).says("the file system is read-only: remount it").json();
    assert_eq!((&verified["items"][0]["state"], &verified["items"][0]["proven"]), (&"whole".into(), &serde_json::Value::Null));
    assert_eq!(files_below(&disk.0), before);
    disk.remount("rw");
    test.run(["prune"]).ok();
    lists(&test, 1);
}

#[test]
fn an_unmounted_disk_is_an_error_and_nothing_goes_to_the_disk_below() {
    let database = tiny_database();
    let test = on_disk(Test::of(&database));
    let Some(disk) = Disk::mount(test.path("disk"), "size=1m") else { return };
    test.run(["backup"]).ok();
    drop(disk);
    let says = format!("{} is not a mount point: is the disk mounted?", test.path("disk").display());
    test.run(["backup"]).fails(1).says("app: storage local: ").says(&says);
    test.run(["list"]).fails(1).says(&says);
    test.run(["prune"]).fails(1).says(&says);
    test.run(["restore", "app", "--output", "-"]).fails(1).says(&says);
    assert_eq!(fs::read_dir(test.path("disk")).unwrap().count(), 0);
}

#[test]
fn a_full_state_directory_is_told_apart_from_a_full_storage() {
    let database = tiny_database();
    let test = Test::of(&database);
    let Some(disk) = Disk::mount(test.path("state"), "size=1m,nr_inodes=3") else { return };
    disk.fill_but(0);
    let ran = test.run(["backup"]).fails(1).says("No space left on device").says("`state_dir:`");
    assert!(!ran.stderr.contains("local:"), "{ran:?}");
    assert_eq!(test.stored(), [""; 0]);
}

#[test]
fn a_file_restored_onto_a_full_disk_is_not_there() {
    let database = sample_database();
    let test = Test::of(&database);
    let Some(disk) = Disk::mount(test.path("disk"), "size=3m") else { return };
    test.run(["backup"]).ok();
    let file = test.path("disk/out.sql");
    let restore = ["restore", "app", "--output", file.to_str().unwrap()];
    test.run(restore).fails(1).says("No space left on device").says(file.to_str().unwrap());
    assert_eq!(files_below(&disk.0), [""; 0]);
    disk.remount("size=100m");
    test.run(restore).ok();
}

#[test]
fn a_log_directory_that_is_full_fails_no_backup() {
    let database = tiny_database();
    let test = Test::of(&database).top_option("log_dir: '{dir}/logs'");
    let Some(disk) = Disk::mount(test.path("logs"), "size=1m") else { return };
    disk.fill_but(0);
    test.run(["backup"]).ok().says("the log file is not whole: No space left on device");
    lists(&test, 1);
}

fn modes_below(root: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let listed = Command::new("find").arg(root).args(["-mindepth", "1", "-printf", "%y%m %P\\n"]).output().unwrap();
    for line in String::from_utf8(listed.stdout).unwrap().lines() {
        let (mode, path) = line.split_once(' ').unwrap();
        found.push((format!("{} {path}", &mode[..1]), u32::from_str_radix(&mode[1..], 8).unwrap()));
    }
    found
}

#[test]
fn what_is_stored_is_for_its_owner_alone_whatever_the_umask() {
    let database = tiny_database();
    for umask in ["000", "077"] {
        let test = Test::of(&database).top_option("log_dir: '{dir}/logs'");
        fs::create_dir(test.path("logs")).unwrap();
        fs::remove_dir(test.storage()).unwrap();
        let test = test.under(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        test.run(["backup", "--pin"]).ok();
        test.run(["list", "--verify"]).ok();
        test.run(["restore", "app", "--output", test.path("out.sql").to_str().unwrap()]).ok();
        assert_eq!(fs::metadata(test.storage()).unwrap().permissions().mode() & 0o7777, 0o700);
        let places = ["storage", "state", "logs"];
        let found: Vec<_> = places.iter().flat_map(|place| modes_below(&test.path(place))).collect();
        assert!(found.len() > 8, "{found:?}");
        for (path, mode) in found {
            assert_eq!(mode, if path.starts_with("d ") { 0o700 } else { 0o600 }, "umask {umask}: {path}");
        }
        assert_eq!(fs::metadata(test.path("out.sql")).unwrap().permissions().mode() & 0o777, 0o600, "umask {umask}");
    }
}

#[test]
fn a_thousand_backups_are_listed_and_pruned() {
    let database = tiny_database();
    let test = Test::of(&database).target_option("retention: { keep_last: 10 }");
    test.run(["backup"]).ok();
    let manifest = test.stored_one(".manifest.json");
    let run_directory = manifest.parent().unwrap();
    let (run, files) = (run_directory.file_name().unwrap().to_str().unwrap(), files_below(run_directory));
    let id = files[0].split_once("app_").unwrap().1.split('.').next().unwrap();
    // A day apart each, back from the real one.
    let started = chrono::NaiveDateTime::parse_from_str(run, "%Y%m%d_%H%M%SZ").unwrap();
    for day in 1..1000 {
        let earlier = started - chrono::Duration::days(day);
        let renamed = |text: &str| {
            let [then, now] = [earlier, started].map(|time| time.format("%Y-%m-%dT%H:%M:%S").to_string());
            text.replace(run, &earlier.format("%Y%m%d_%H%M%SZ").to_string()).replace(&now, &then)
        };
        let directory = PathBuf::from(renamed(run_directory.to_str().unwrap()));
        fs::create_dir(&directory).unwrap();
        for file in &files {
            let bytes = fs::read(run_directory.join(file)).unwrap();
            let bytes =
                String::from_utf8(bytes).map_or_else(std::string::FromUtf8Error::into_bytes, |text| renamed(&text).into_bytes());
            fs::write(directory.join(renamed(file)), bytes).unwrap();
        }
    }
    let items = test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 1000);
    assert!(items.iter().all(|item| item["state"] == "whole"), "{}", items[0]);
    assert_eq!(items.last().unwrap()["id"], id);
    assert_eq!(test.run(["list"]).ok().stdout.lines().count(), 51);
    assert_eq!(test.run(["list", "--limit", "0"]).ok().stdout.lines().count(), 1001);
    test.run(["prune"]).ok();
    assert_eq!(fs::read_dir(test.path("storage/web1")).unwrap().count(), 10, "empty runs go too");
    lists(&test, 10);
}

#[test]
fn a_storage_may_be_a_link_to_a_directory_but_no_link_inside_is_followed() {
    let database = tiny_database();
    let test = Test::of(&database);
    fs::rename(test.storage(), test.path("elsewhere")).unwrap();
    symlink(test.path("elsewhere"), test.storage()).unwrap();
    test.run(["backup"]).ok();
    lists(&test, 1);
    assert!(!files_below(&test.path("elsewhere")).is_empty());
    fs::rename(test.path("elsewhere/web1"), test.path("web1")).unwrap();
    symlink(test.path("web1"), test.path("elsewhere/web1")).unwrap();
    let before = files_below(&test.path("web1"));
    test.run(["list"]).fails(1).says("web1 is a symbolic link, not a directory");
    test.run(["backup"]).fails(1).says("app: storage local: ").says("web1 is no directory, but a file or a link");
    assert_eq!(files_below(&test.path("web1")), before);
}

#[test]
fn a_storage_that_is_a_dangling_link_is_not_made_anew() {
    let database = tiny_database();
    let test = Test::of(&database);
    fs::remove_dir(test.storage()).unwrap();
    symlink(test.path("gone"), test.storage()).unwrap();
    test.run(["backup"]).fails(1).says("app: storage local: ").says("storage is no directory, and no link to one");
    test.run(["list"]).fails(1).says("storage is not there");
    assert!(!test.path("gone").exists());
}
