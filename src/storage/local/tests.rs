use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::host::Env;
use crate::host::process::Program;
use crate::storage::conformance;

const KEY: &str = "web1/20260612_030000Z/app_20260612_030000Z-k3f9.sql.gz";

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn new_storage() -> (TempDir, Local, Context) {
    let base = tempfile::tempdir().unwrap();
    let storage = Local::new(base.path().join("root"), None);
    let cx = Context::for_tests();
    storage.prepare(&cx).unwrap();
    (base, storage, cx)
}

fn listed(storage: &Local, cx: &Context) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut each = |object: ObjectMeta| {
        keys.push(object.key.to_string());
        Ok(())
    };
    storage.list("", &mut each, cx).map(|()| keys)
}

fn leftovers(storage: &Local, cx: &Context) -> Vec<Leftover> {
    let mut found = Vec::new();
    let mut each = |leftover| {
        found.push(leftover);
        Ok(())
    };
    storage.leftovers(&mut each, cx).unwrap();
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every call that touches the place, and what came of it.
fn every_call(storage: &Local, cx: &Context) -> Vec<(&'static str, Result<()>)> {
    let key = key(KEY);
    let leftover = Leftover { key: key.clone(), handle: temporary_name("0123abcd"), bytes: None, modified: cx.clock.now() };
    vec![
        ("features", storage.features(cx).map(drop)),
        ("upload", storage.upload(&key, None, cx).map(drop)),
        ("put_new", storage.put_new(&key, b"x", cx).map(drop)),
        ("read", storage.read(&key, 0, cx).map(drop)),
        ("stat", storage.stat(&key, cx).map(drop)),
        ("list", listed(storage, cx).map(drop)),
        ("delete", storage.delete(std::slice::from_ref(&key), cx).remove(0)),
        ("leftovers", storage.leftovers(&mut |_| Ok(()), cx)),
        ("discard", storage.discard(&leftover, cx)),
    ]
}

fn temporary_name(random: &str) -> String {
    format!(".{}.tmp-{random}", key(KEY).file_name())
}

/// A small file system of its own, or a word on why there is none.
struct Mounted(TempDir);

impl Mounted {
    fn tmpfs(cx: &Context) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mount = Program::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(place.path()).output(b"", cx);
        match mount {
            Ok(output) if output.exit.is_success() => Some(Self(place)),
            Ok(output) => skip(&output.stderr_tail),
            Err(error) => skip(&error.to_string()),
        }
    }

    fn change(&self, what: &str, cx: &Context) {
        let output = Program::new("mount").args(["-o", what]).arg(self.0.path()).output(b"", cx).unwrap();
        assert!(output.exit.is_success(), "{}", output.stderr_tail);
    }
}

fn skip(why: &str) -> Option<Mounted> {
    assert_ne!(Env::of_process().get("CI"), Some("true"), "CI=true allows no test to be left out: {why}");
    eprintln!("SKIPPED, as no file system can be mounted here (it takes root): {}", why.trim());
    None
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg(self.0.path()).output(b"", &Context::for_tests());
    }
}

/// Runs a test of this file again in a shell's words, which end in `"$@"`: under another umask or user.
fn run_again(test: &str, shell: &str, cx: &Context) {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The target directory may be closed to another user.
    let copy = place.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let name = format!("storage::local::tests::{test}");
    let program = Program::new("sh").args(["-c", shell, "sh"]).arg(&copy).args(["--exact", &name, "--nocapture"]);
    let output = program.env("AGAIN", "1").directory("/").output(b"", cx).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.exit.is_success() && stdout.contains("1 passed"), "{shell}: {stdout}{}", output.stderr_tail);
}

fn is_again() -> bool {
    crate::host::Env::of_process().get("AGAIN").is_some()
}

#[test]
fn it_keeps_the_contract() {
    let base = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    let make = || -> Box<dyn Storage> {
        count.set(count.get() + 1);
        Box::new(Local::new(base.path().join(count.get().to_string()), None))
    };
    assert_eq!(conformance::run(&make), Vec::<String>::new());
}

#[test]
fn whatever_goes_wrong_a_backup_is_whole_or_has_failed() {
    let base = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    let make = || {
        count.set(count.get() + 1);
        Local::new(base.path().join(count.get().to_string()), None)
    };
    assert_eq!(conformance::faults::broken(&conformance::faults::run(&make, 1000)), Vec::<String>::new());
}

#[test]
fn files_are_for_their_owner_alone_whatever_the_umask() {
    if !is_again() {
        for umask in ["000", "022", "077"] {
            let shell = format!("umask {umask}; exec \"$@\"");
            run_again("files_are_for_their_owner_alone_whatever_the_umask", &shell, &Context::for_tests());
        }
        return;
    }
    let (_base, storage, cx) = new_storage();
    let place = storage.place(&key(KEY)).unwrap();
    let upload = storage.upload(&key(KEY), None, &cx).unwrap();
    assert_eq!(mode(&place.run_dir.join(&leftovers(&storage, &cx)[0].handle)), 0o600);
    upload.commit().unwrap();
    let modes = [&storage.root, &place.host_dir, &place.run_dir, &place.file].map(|path| mode(path));
    assert_eq!(modes, [0o700, 0o700, 0o700, 0o600]);
}

#[test]
fn what_another_may_not_touch_is_said_so() {
    if !is_again() && files::is_root() {
        let shell = "exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"";
        return run_again("what_another_may_not_touch_is_said_so", shell, &Context::for_tests());
    }
    let (base, storage, cx) = new_storage();
    storage.put_new(&key(KEY), b"x", &cx).unwrap();
    let place = storage.place(&key(KEY)).unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // A disk's own private directory is nobody's backup.
    fs::create_dir(storage.root.join("lost+found")).unwrap();
    set(&storage.root.join("lost+found"), 0o000);
    assert_eq!(listed(&storage, &cx).unwrap(), [KEY]);
    for dir in [&place.host_dir, &place.run_dir] {
        set(dir, 0o000);
        let error = listed(&storage, &cx).unwrap_err();
        set(dir, 0o700);
        assert_eq!(error.kind(), Kind::StorageDenied);
        assert!(
            error.to_string().contains(dir.to_str().unwrap()) && error.hint_text().unwrap().contains("let user"),
            "{error:?}"
        );
    }
    set(&place.run_dir, 0o500);
    let other = key("web1/20260612_030000Z/other_20260612_030000Z-k3f9.sql");
    assert_eq!(storage.upload(&other, None, &cx).map(drop).unwrap_err().kind(), Kind::StorageDenied);
    assert_eq!(storage.delete(&[key(KEY)], &cx)[0].as_ref().unwrap_err().kind(), Kind::StorageDenied);
    set(&place.run_dir, 0o700);
    set(&storage.root, 0o500);
    assert_eq!(storage.prepare(&cx).unwrap_err().kind(), Kind::StorageDenied);
    set(&storage.root, 0o700);
    set(base.path(), 0o700);
    assert_eq!(listed(&storage, &cx).unwrap(), [KEY]);
}

#[test]
fn only_the_last_component_is_made() {
    let base = tempfile::tempdir().unwrap();
    let cx = Context::for_tests();
    let error = Local::new(base.path().join("a/b"), None).prepare(&cx).unwrap_err();
    assert_eq!(error.kind(), Kind::StorageDenied);
    assert!(error.to_string().contains("/a is not there") && error.hint_text().is_some(), "{error:?}");
    assert!(!base.path().join("a").exists());
    Local::new(base.path().join("a"), None).prepare(&cx).unwrap();
    Local::new(base.path().join("a/b"), None).prepare(&cx).unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    assert_eq!(Local::new(base.path().join("file"), None).prepare(&cx).unwrap_err().kind(), Kind::StorageDenied);
}

#[test]
fn an_absent_directory_is_no_empty_storage() {
    let base = tempfile::tempdir().unwrap();
    let storage = Local::new(base.path().join("root"), None);
    for (call, outcome) in every_call(&storage, &Context::for_tests()) {
        let error = outcome.expect_err(call);
        // An absent storage must not be taken for an absent object.
        let expected = if matches!(call, "features" | "list" | "leftovers") { Kind::Missing } else { Kind::StorageDenied };
        assert_eq!(error.kind(), expected, "{call}: {error:?}");
        assert!(error.hint_text().is_some(), "{call}");
    }
    assert!(!base.path().join("root").exists());
}

#[test]
fn an_unmounted_disk_is_an_error_of_every_call() {
    let (base, storage, cx) = new_storage();
    storage.put_new(&key(KEY), b"on the wrong disk", &cx).unwrap();
    for mount in [base.path().to_owned(), base.path().join("absent")] {
        let storage = Local::new(base.path().join("root"), Some(mount));
        let mut outcomes = every_call(&storage, &cx);
        outcomes.push(("prepare", storage.prepare(&cx)));
        for (call, outcome) in outcomes {
            let error = outcome.expect_err(call);
            assert_eq!(error.kind(), Kind::StorageDenied, "{call}: {error:?}");
            assert!(error.to_string().ends_with("is not a mount point: is the disk mounted?"), "{call}: {error:?}");
        }
    }
    assert_eq!(fs::read(storage.root.join(KEY)).unwrap(), b"on the wrong disk");
}

#[test]
fn a_mounted_disk_takes_backups_until_it_is_full() {
    let cx = Context::for_tests();
    let Some(disk) = Mounted::tmpfs(&cx) else { return };
    let storage = Local::new(disk.0.path().join("root"), Some(disk.0.path().to_owned()));
    storage.prepare(&cx).unwrap();
    let mut upload = storage.upload(&key(KEY), None, &cx).unwrap();
    let error = upload.write(&vec![7; 2 << 20]).and_then(|()| upload.commit().map(drop)).unwrap_err();
    assert_eq!(error.kind(), Kind::StorageDenied);
    assert!(error.to_string().contains("No space left") && error.hint_text().unwrap().contains("full"), "{error:?}");
    // What was written gives its space back, and others go on.
    assert!(listed(&storage, &cx).unwrap().is_empty() && leftovers(&storage, &cx).is_empty());
    assert!(!storage.place(&key(KEY)).unwrap().run_dir.exists());
    storage.put_new(&key(KEY), &vec![7; 500_000], &cx).unwrap();
    let features = storage.features(&cx).unwrap();
    assert!(features.free_bytes.unwrap() < 600_000, "{features:?}");
}

#[test]
fn a_read_only_disk_is_said_so_and_can_be_read() {
    let cx = Context::for_tests();
    let Some(disk) = Mounted::tmpfs(&cx) else { return };
    let storage = Local::new(disk.0.path().join("root"), None);
    storage.prepare(&cx).unwrap();
    storage.put_new(&key(KEY), b"x", &cx).unwrap();
    disk.change("remount,ro", &cx);
    let other = key("web1/20260612_030000Z/other_20260612_030000Z-k3f9.sql");
    let outcomes = [
        storage.prepare(&cx),
        storage.upload(&other, None, &cx).map(drop),
        storage.put_new(&other, b"x", &cx).map(drop),
        storage.delete(&[key(KEY)], &cx).remove(0),
    ];
    for error in outcomes.map(Result::unwrap_err) {
        assert_eq!(error.kind(), Kind::StorageDenied);
        assert!(error.hint_text().unwrap().contains("read-only"), "{error:?}");
    }
    assert_eq!(listed(&storage, &cx).unwrap(), [KEY]);
    assert_eq!(storage.stat(&key(KEY), &cx).unwrap().unwrap().bytes, Some(1));
}

#[test]
fn a_link_or_a_pipe_is_never_read() {
    let (base, storage, cx) = new_storage();
    storage.put_new(&key("web1/20260612_030000Z/real.sql"), b"x", &cx).unwrap();
    let run = storage.place(&key(KEY)).unwrap().run_dir;
    fs::write(base.path().join("secret"), "of another").unwrap();
    symlink(base.path().join("secret"), run.join("link.sql")).unwrap();
    symlink(base.path().join("nowhere"), run.join("dangling.sql")).unwrap();
    assert!(Program::new("mkfifo").arg(run.join("pipe.sql")).output(b"", &cx).unwrap().exit.is_success());
    for name in ["link", "dangling", "pipe"] {
        let key = key(&format!("web1/20260612_030000Z/{name}.sql"));
        let errors = [storage.read(&key, 0, &cx).map(drop), storage.stat(&key, &cx).map(drop)].map(Result::unwrap_err);
        for error in errors {
            assert_eq!(error.kind(), Kind::StorageDenied, "{error:?}");
            assert!(error.to_string().contains("regular file") && error.hint_text().is_some(), "{error:?}");
        }
        assert_eq!(storage.upload(&key, None, &cx).map(drop).unwrap_err().kind(), Kind::Exists);
        assert_eq!(storage.put_new(&key, b"x", &cx).unwrap_err().kind(), Kind::Exists);
    }
    assert_eq!(fs::read_to_string(base.path().join("secret")).unwrap(), "of another");
}

#[test]
fn a_link_to_a_directory_is_neither_listed_nor_written_through() {
    let (base, storage, cx) = new_storage();
    let elsewhere = base.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("20260612_030000Z")).unwrap();
    fs::write(elsewhere.join("20260612_030000Z/app.sql"), "").unwrap();
    symlink(&elsewhere, storage.root.join("web1")).unwrap();
    assert!(listed(&storage, &cx).unwrap().is_empty());
    let error = storage.put_new(&key(KEY), b"x", &cx).unwrap_err();
    assert_eq!(error.kind(), Kind::StorageDenied);
    assert!(error.to_string().contains("a file or a link"), "{error:?}");
}

#[test]
fn the_root_itself_may_be_a_link() {
    let (base, storage, cx) = new_storage();
    symlink(&storage.root, base.path().join("link")).unwrap();
    let linked = Local::new(base.path().join("link"), None);
    linked.prepare(&cx).unwrap();
    linked.put_new(&key(KEY), b"x", &cx).unwrap();
    assert_eq!(listed(&storage, &cx).unwrap(), [KEY]);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_an_error() {
    let (_base, storage, cx) = new_storage();
    storage.put_new(&key(KEY), &[7; 10_000], &cx).unwrap();
    let mut reader = storage.read(&key(KEY), 0, &cx).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    fs::OpenOptions::new().write(true).open(storage.root.join(KEY)).unwrap().set_len(5000).unwrap();
    let mut rest = Vec::new();
    let error = reader.read_to_end(&mut rest).map_err(|error| crate::error::from_io(error, Kind::Internal, "")).unwrap_err();
    assert_eq!((error.kind(), rest.len()), (Kind::Damaged, 4900));
    assert!(error.to_string().contains("5000 bytes are gone"), "{error:?}");
}

#[test]
fn a_file_that_is_cut_before_its_commit_is_an_error_and_not_listed() {
    let (_base, storage, cx) = new_storage();
    let mut upload = storage.upload(&key(KEY), None, &cx).unwrap();
    upload.write(&[7; 10_000]).unwrap();
    let temporary = storage.place(&key(KEY)).unwrap().run_dir.join(&leftovers(&storage, &cx)[0].handle);
    fs::OpenOptions::new().write(true).open(temporary).unwrap().set_len(5000).unwrap();
    let error = upload.commit().unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    assert!(error.to_string().contains("5000 bytes after 10000 were written"), "{error:?}");
    assert!(listed(&storage, &cx).unwrap().is_empty() && leftovers(&storage, &cx).is_empty());
}

#[test]
fn an_upload_larger_than_what_is_synced_at_once_is_whole() {
    let (_base, storage, cx) = new_storage();
    let block: Vec<u8> = (0..3_000_001_u32).map(|at| at.to_le_bytes()[1]).collect();
    let mut upload = storage.upload(&key(KEY), None, &cx).unwrap();
    for _ in 0..23 {
        upload.write(&block).unwrap();
    }
    assert_eq!(upload.commit().unwrap().bytes, Some(23 * 3_000_001));
    assert!(fs::read(storage.root.join(KEY)).unwrap() == block.repeat(23));
}

#[test]
fn a_leftover_is_told_from_whatever_else_is_hidden() {
    let (_base, storage, cx) = new_storage();
    storage.put_new(&key("web1/20260612_030000Z/other.sql"), b"x", &cx).unwrap();
    let run = storage.place(&key(KEY)).unwrap().run_dir;
    for foreign in [".hidden", ".tmp-0123abcd", "..x.tmp-0123abcd", ".x.tmp-0123abc", ".x.tmp-0123abcg", "x.tmp-0123abcd.swp"] {
        fs::write(run.join(foreign), "").unwrap();
    }
    fs::write(run.join(temporary_name("0123abcd")), "half").unwrap();
    fs::create_dir(run.join(temporary_name("00000000"))).unwrap();
    symlink("/nowhere", run.join(temporary_name("11111111"))).unwrap();
    let found = leftovers(&storage, &cx);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].key.as_str(), found[0].bytes), (KEY, Some(4)));
    for handle in ["../20260612_030000Z/other.sql", "other.sql", ".hidden", "", ".x.tmp-0123abcd"] {
        let other = Leftover { handle: handle.into(), ..found[0].clone() };
        assert_eq!(storage.discard(&other, &cx).unwrap_err().kind(), Kind::Internal, "{handle}");
    }
    storage.discard(&found[0], &cx).unwrap();
    assert!(leftovers(&storage, &cx).is_empty());
    assert_eq!(fs::read(run.join("other.sql")).unwrap(), b"x");
}

#[test]
fn what_is_no_key_of_ours_is_neither_listed_nor_written() {
    use std::os::unix::ffi::OsStrExt;
    let (_base, storage, cx) = new_storage();
    storage.put_new(&key(KEY), b"x", &cx).unwrap();
    let place = storage.place(&key(KEY)).unwrap();
    fs::create_dir_all(place.run_dir.join("deeper")).unwrap();
    let foreign = ["deeper/file", "control\n", "../file", "../../file", ".swp"];
    for name in foreign {
        fs::write(place.run_dir.join(name), "").unwrap();
    }
    fs::write(place.run_dir.join(std::ffi::OsStr::from_bytes(b"not\xffutf8")), "").unwrap();
    assert_eq!(listed(&storage, &cx).unwrap(), [KEY]);
    for bad in ["file", "a/b", "a/b/c/d", ".a/b/c", "a/.b/c", "a/b/.c"] {
        assert_eq!(storage.put_new(&key(bad), b"x", &cx).unwrap_err().kind(), Kind::Internal, "{bad}");
    }
}

#[test]
fn the_last_delete_takes_the_empty_run_along() {
    let (_base, storage, cx) = new_storage();
    let other = key("web1/20260612_030000Z/other.sql");
    storage.put_new(&key(KEY), b"x", &cx).unwrap();
    storage.put_new(&other, b"x", &cx).unwrap();
    let run = storage.place(&key(KEY)).unwrap().run_dir;
    storage.delete(&[key(KEY)], &cx).remove(0).unwrap();
    assert!(run.exists());
    storage.delete(&[other], &cx).remove(0).unwrap();
    assert!(!run.exists());
}

#[test]
fn uploads_and_a_prune_of_the_same_run_do_not_hurt_each_other() {
    let (_base, storage, cx) = new_storage();
    let work = |name: &str| {
        for round in 0..200 {
            let key = key(&format!("web1/20260612_030000Z/{name}{round}.sql"));
            storage.put_new(&key, b"x", &cx).unwrap();
            storage.delete(&[key], &cx).remove(0).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work("a"));
        scope.spawn(|| work("b"));
        work("c");
    });
    assert!(listed(&storage, &cx).unwrap().is_empty() && leftovers(&storage, &cx).is_empty());
}
