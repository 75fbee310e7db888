//! What `prune` collects that was never whole, the order in which it deletes, and what is left when it is
//! killed or refused.

use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::prune::{LAST_1, NOW, left, plant_five, reasons, test};
use crate::support::Planted;
use crate::support::tool::files_below;

/// An artifact and an inventory whose manifest never came, last changed at this time.
pub(crate) fn leave_incomplete(storage: &Path, unit: &str, id: &str, modified: &str) {
    let files = Planted::new(unit, id).into(storage);
    fs::remove_file(files.with_extension("manifest.json")).unwrap();
    for ending in ["sql.gz", "inventory.json"] {
        set_modified(&files.with_extension(ending), modified);
    }
}

/// The temporary file of an upload that was killed.
fn leave_upload(storage: &Path, host: &str, name: &str, modified: &str) {
    let run =
        name.rsplit_once('_').unwrap().0.rsplit_once('_').unwrap().1.to_owned() + "_" + &name.rsplit_once('_').unwrap().1[..7];
    let directory = storage.join(host).join(run);
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!(".{name}.tmp-0a1b2c3d"));
    fs::write(&path, "half").unwrap();
    set_modified(&path, modified);
}

pub(crate) fn set_modified(path: &Path, time: &str) {
    let time: DateTime<Utc> = time.parse().unwrap();
    fs::File::options().append(true).open(path).unwrap().set_modified(time.into()).unwrap();
}

#[test]
fn leftovers_are_collected_when_they_are_old_and_ours() {
    let test = test("");
    let storage = test.storage();
    leave_incomplete(&storage, "app", "20260601_030000Z-oldi", "2026-06-11T11:59:00Z");
    leave_incomplete(&storage, "app", "20260601_030000Z-youn", "2026-06-11T12:01:00Z");
    // One young object is enough: the manifest may be next.
    leave_incomplete(&storage, "app", "20260602_030000Z-half", "2026-06-01T03:00:00Z");
    set_modified(&storage.join("web1/20260602_030000Z/app_20260602_030000Z-half.inventory.json"), NOW);
    leave_upload(&storage, "web1", "app_20260603_030000Z-uplo.sql.gz", "2026-06-03T03:00:00Z");
    leave_upload(&storage, "web1", "app_20260612_030000Z-upyo.sql.gz", "2026-06-12T03:00:00Z");
    leave_upload(&storage, "web1", "gone_20260603_030000Z-uplo.sql.gz", "2026-06-03T03:00:00Z");
    leave_upload(&storage, "web2", "app_20260603_030000Z-uplo.sql.gz", "2026-06-03T03:00:00Z");
    leave_upload(&storage, "web1", "no-id_20260603_030000Z.sql.gz", "2026-06-03T03:00:00Z");
    Planted::new("app", "20260601_030000Z-good").into(&storage);
    let foreign = [
        "readme.txt",
        "web1/notes",
        "web1/20260601_030000Z/app.sql.gz",
        "web1/20260601_030000Z/.app_20260601_030000Z-oldi.sql.gz.swp",
        "web1/2026/app_20260601_030000Z-oldi.sql.gz",
        "web1/20260601_030000Z/app_20260602_030000Z-oldi.sql.gz",
        "web2/20260601_030000Z/app_20260601_030000Z-oldi.sql.gz",
    ];
    for file in foreign {
        fs::create_dir_all(storage.join(file).parent().unwrap()).unwrap();
        fs::write(storage.join(file), "not ours").unwrap();
        set_modified(&storage.join(file), "2020-01-01T00:00:00Z");
    }
    let before = files_below(&storage);
    let shown = test.run_at(NOW, ["prune", "--dry-run", "--json"]).ok();
    assert_eq!(reasons(&shown, "oldi"), "delete: it never became whole");
    assert_eq!(reasons(&shown, "youn"), "keep: incomplete, and young enough to be under way");
    assert_eq!(files_below(&storage), before);
    test.run_at(NOW, ["prune"]).ok();
    let after = files_below(&storage);
    let gone: Vec<_> = before.iter().filter(|file| !after.contains(file)).map(String::as_str).collect();
    assert_eq!(
        gone,
        [
            "web1/20260601_030000Z/app_20260601_030000Z-oldi.inventory.json",
            "web1/20260601_030000Z/app_20260601_030000Z-oldi.sql.gz",
            "web1/20260603_030000Z/.app_20260603_030000Z-uplo.sql.gz.tmp-0a1b2c3d",
            "web1/20260603_030000Z/.gone_20260603_030000Z-uplo.sql.gz.tmp-0a1b2c3d",
        ]
    );
}

#[test]
fn a_leftover_may_be_as_old_as_two_timeouts() {
    let test = test(", timeout: 48h");
    leave_incomplete(&test.storage(), "app", "20260608_030000Z-oldi", "2026-06-08T11:59:00Z");
    leave_incomplete(&test.storage(), "app", "20260608_030000Z-youn", "2026-06-08T12:01:00Z");
    let ran = test.run_at(NOW, ["prune", "--json"]).ok();
    assert_eq!(reasons(&ran, "oldi"), "delete: it never became whole");
    assert!(reasons(&ran, "youn").starts_with("keep"));
}

const MANIFEST: &str = "web1/20260606_030000Z/app_20260606_030000Z-aaa1.manifest.json";

#[test]
fn the_manifest_goes_first_and_while_it_stays_all_stays() {
    let test = test(LAST_1);
    plant_five(&test.storage(), "app");
    let (manifest, log) = (test.storage().join(MANIFEST), test.path("trace"));
    let before = files_below(&test.storage());
    let paths = (manifest.to_str().unwrap().to_owned(), log.to_str().unwrap().to_owned());
    let refused = "inject=unlink,unlinkat:error=EPERM";
    let test = test.under(["strace", "-f", "-qq", "-o", &paths.1, "-P", &paths.0, "-e", refused]);
    test.run(["prune", "--json"]).fails(3).says("app_20260606_030000Z-aaa1.manifest.json").says("app: storage local: prune: ");
    let kept = |file: &&String| file.contains("aaa1") || file.contains("aaa5");
    assert_eq!(files_below(&test.storage()), before.iter().filter(kept).cloned().collect::<Vec<_>>());
}

#[test]
fn what_a_killed_prune_leaves_is_never_listed_and_is_collected_later() {
    let test = test(LAST_1);
    plant_five(&test.storage(), "app");
    for file in files_below(&test.storage()) {
        set_modified(&test.storage().join(file), "2026-06-10T03:00:00Z");
    }
    let trace = test.path("trace");
    let trace = trace.to_str().unwrap().to_owned();
    let test = test.under(["strace", "-f", "-qq", "-o", &trace, "-e", "inject=unlink,unlinkat:signal=KILL:when=2"]);
    let killed = test.run(["prune"]);
    assert!(killed.code != Some(0), "{killed:?}");
    assert_eq!(left(&test.storage()), "aaa2 aaa3 aaa4 aaa5");
    assert!(files_below(&test.storage()).iter().any(|file| file.ends_with("aaa1.sql.gz")));
    // The other storage of the target has none, and that is told.
    let ran = test.run_at(NOW, ["list"]).fails(3).says("storage offsite: behind");
    assert!(!ran.stdout.contains("aaa1"), "{}", ran.stdout);
    test.run_at(NOW, ["prune"]).ok();
    assert_eq!(left(&test.storage()), "aaa5");
    assert_eq!(files_below(&test.storage()).len(), 3);
}
