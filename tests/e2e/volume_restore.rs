//! Backups of files, restored into directories: whole, and only where nothing else is lost.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::archive::{Archive, SMALL_TREE, assert_same, small_tree, with_uploads};
use crate::support::{Signal, Test, eventually, files_below, is_root};

/// A test with a backup of a small tree, which is in `was`.
fn archived() -> Test {
    let test = with_uploads();
    small_tree(&test.path("was"));
    Archive::of(&test.path("was")).counted(SMALL_TREE).put(&test, "uploads");
    test
}

/// What is in a directory, hidden names too.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let test = archived();
    test.run(["restore", "uploads", "--to-path", "back"]).ok().says("to directory");
    assert_same(&test.path("was"), &test.path("back"));
    assert!(fs::metadata(test.path("back/sparse")).unwrap().blocks() < 100);
    // Its own place, and an empty directory.
    test.run(["restore", "uploads"]).ok();
    assert_same(&test.path("was"), &test.path("live"));
    fs::create_dir(test.path("empty")).unwrap();
    test.run(["restore", "uploads", "--to-path", "empty"]).ok();
    assert_same(&test.path("was"), &test.path("empty"));
    assert!(!names(&test.path("")).iter().any(|name| name.starts_with(".db-backup-tools")), "{:?}", names(&test.path("")));
}

#[test]
fn files_get_no_acl_of_the_directory_they_are_restored_below() {
    let test = archived();
    fs::create_dir(test.path("shared")).unwrap();
    let acl = |words: &[&str]| Command::new(words[0]).args(&words[1..]).arg(test.path("shared")).output().unwrap();
    assert!(acl(&["setfacl", "--default", "--modify", "user:12345:rwx"]).status.success());
    test.run(["restore", "uploads", "--to-path", "shared/back"]).ok();
    assert_same(&test.path("was"), &test.path("shared/back"));
    let listed = acl(&["getfacl", "--recursive", "--numeric"]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    let back = &listed[listed.find("shared/back").unwrap()..];
    assert!(!back.contains("12345"), "{back}");
}

#[test]
fn a_restore_needs_no_target_where_it_is_told_where_to() {
    let test = archived();
    test.write(
        "backup.yml",
        "version: 1\nhost: web1\nstate_dir: '{state}'\nstorages: { local: { type: local, path: '{storage}' } }\ntargets: [ { name: other, type: volume, path: /srv/other } ]\n",
    );
    test.run(["restore", "uploads", "--to-path", "back"]).ok();
    assert_same(&test.path("was"), &test.path("back"));
    test.run(["restore", "uploads"]).fails(2).says("no volume target uploads").says("--to-path DIR");
    test.run(["restore", "uploads", "--output", "plain.tar"]).ok();
    let script = r#"tar -C "$1/tmp" -xf "$1/plain.tar" ./file"#;
    assert!(Command::new("sh").args(["-c", script, "sh"]).arg(test.path("")).status().unwrap().success());
    assert_eq!(fs::read_to_string(test.path("tmp/file")).unwrap(), "hello");
}

#[test]
fn what_is_there_is_left_alone_or_kept() {
    let test = archived();
    fs::create_dir(test.path("live")).unwrap();
    fs::write(test.path("live/precious"), "old").unwrap();
    test.run(["restore", "uploads"]).fails(2).says("exists and is not empty").says("--replace");
    assert_eq!(names(&test.path("live")), ["precious"]);
    let ran = test
        .run(["restore", "uploads", "--replace"])
        .ok()
        .says("is kept as")
        .says("to swap back: mv")
        .says("to remove it: rm -r");
    assert_same(&test.path("was"), &test.path("live"));
    let kept: Vec<String> = names(&test.path("")).into_iter().filter(|name| name.starts_with("live.before-")).collect();
    assert_eq!(kept.len(), 1, "{}", ran.stderr);
    assert_eq!(fs::read_to_string(test.path(&kept[0]).join("precious")).unwrap(), "old");
    // The command that was told swaps back.
    let back = ran.stderr.lines().find_map(|line| line.split_once("to swap back: ")).unwrap().1;
    assert!(Command::new("sh").args(["-c", back]).status().unwrap().success());
    assert_eq!(names(&test.path("live")), ["precious"]);
    assert_eq!(names(&test.path("")).iter().filter(|name| name.starts_with("live")).count(), 2);
}

#[test]
fn places_that_would_not_do_are_refused_before_anything_is_done() {
    let test = archived();
    symlink(test.path("tmp"), test.path("link")).unwrap();
    fs::write(test.path("file"), "").unwrap();
    for (place, says) in [
        ("link", "is a symbolic link"),
        ("file", "is not a directory"),
        ("nowhere/back", "mkdir -p"),
        ("/", "/ holds"),
        ("storage", "the place of storage local"),
        ("storage/web1/below", "is within"),
        ("state/below", "`state_dir:`"),
        ("/var/tmp/..", "can't be restored to as a whole"),
    ] {
        for replace in [&["--replace"][..], &[]] {
            let arguments = ["restore", "uploads", "--to-path", place];
            let ran = test.run(arguments.iter().chain(replace)).fails(2).says(says);
            assert!(ran.stderr.contains("hint"), "{}", ran.stderr);
        }
    }
    for (options, says) in [
        (&["--to-database", "x"][..], "can't be restored into a database"),
        (&["--no-privileges"], "--no-privileges is for databases"),
        (&["--missing-roles"], "--missing-roles is for databases"),
        (&["--jobs", "4"], "--jobs is for databases"),
        (&["--replace", "--disconnect"], "--disconnect is for databases"),
    ] {
        test.run(["restore", "uploads"].iter().chain(options)).fails(2).says(says);
    }
    assert!(!test.path("live").exists());
    test.run(["restore", "uploads", "--to-path", "back", "--dry-run"]).ok();
    assert!(!test.path("back").exists());
}

#[test]
fn a_single_file_comes_back_to_its_place() {
    let test = with_uploads();
    fs::write(test.path("conf"), "new").unwrap();
    fs::set_permissions(test.path("conf"), fs::Permissions::from_mode(0o640)).unwrap();
    Archive::of_file(&test.path("conf")).counted([1, 0, 0, 0, 3]).put(&test, "uploads");
    test.run(["restore", "uploads"]).ok().says("to file");
    assert_eq!(fs::read_to_string(test.path("live")).unwrap(), "new");
    assert_eq!(fs::metadata(test.path("live")).unwrap().mode() & 0o7777, 0o640);
    test.run(["restore", "uploads"]).fails(2).says("live exists");
    fs::write(test.path("live"), "old").unwrap();
    test.run(["restore", "uploads", "--replace"]).ok().says("is kept as");
    assert_eq!(fs::read_to_string(test.path("live")).unwrap(), "new");
    let kept = names(&test.path("")).into_iter().find(|name| name.starts_with("live.before-")).unwrap();
    assert_eq!(fs::read_to_string(test.path(&kept)).unwrap(), "old");
    test.run(["restore", "uploads", "--to-path", "back"]).ok();
    assert_eq!(files_below(&test.path("back")), ["conf"]);
}

#[test]
fn others_files_need_root_or_a_word() {
    let test = with_uploads();
    small_tree(&test.path("was"));
    Archive::of(&test.path("was")).owners(&["0:0", "33:33"]).counted(SMALL_TREE).put(&test, "uploads");
    let test = test.unprivileged();
    test.run(["restore", "uploads"]).fails(2).says("0:0, 33:33").says("--no-owner");
    test.run(["restore", "uploads", "--no-owner"]).ok();
    let found = fs::metadata(test.path("live/file")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (fs::metadata(test.path("bin")).unwrap().uid(), 0o4751));
    // Directories that are closed to changes are moved, and removed, all the same.
    assert_eq!(fs::metadata(test.path("live/closed")).unwrap().mode() & 0o7777, 0o555);
    test.run(["restore", "uploads", "--no-owner", "--replace"]).ok();
}

#[test]
fn what_was_damaged_takes_no_place() {
    let test = archived();
    let artifact = test.stored_one(".tar");
    let mut bytes = fs::read(&artifact).unwrap();
    let place = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[place] = b'j';
    fs::write(&artifact, bytes).unwrap();
    let before = names(&test.path(""));
    test.run(["restore", "uploads"]).fails(1).says("sha256");
    assert_eq!(names(&test.path("")), before);
    // A backup that holds other things than were counted.
    let test = with_uploads();
    small_tree(&test.path("was"));
    Archive::of(&test.path("was")).counted([5, 4, 3, 1, 9 + (1 << 20)]).put(&test, "uploads");
    test.run(["restore", "uploads"]).fails(1).says("there are 4 files, and 5 were archived").says("nothing was put in place");
    assert!(!test.path("live").exists());
}

#[test]
fn a_tar_that_is_cut_leaves_nothing() {
    let test = with_uploads();
    small_tree(&test.path("was"));
    let tar = Command::new("tar").arg("-C").arg(test.path("was")).args(["-cf", "-", "."]).output().unwrap().stdout;
    let cut = tar.len() - 9000;
    Archive::of_tar(tar[..cut / 512 * 512].to_vec()).put(&test, "uploads");
    test.run(["restore", "uploads"]).fails(1).says("does not end as a whole one does");
    assert!(!names(&test.path("")).iter().any(|name| name.starts_with(".db-backup") || name == "live"));
}

#[test]
fn a_signal_leaves_nothing_and_a_kill_is_cleaned_up_by_the_next() {
    for signal in [Signal::TERM, Signal::KILL] {
        let test = archived();
        // A tar that never reads on.
        let test = test.fake_tar("case \"$*\" in *--extract*) touch {dir}/began; while [ -d {dir} ]; do sleep 0.1; done;; *) exec {real} \"$@\";; esac");
        let running = test.spawn(["restore", "uploads"]);
        eventually("tar is started", || test.path("began").exists());
        let scratch = || names(&test.path("")).into_iter().filter(|name| name.starts_with(".db-backup-tools-restore-")).count();
        assert_eq!(scratch(), 1);
        running.kill(signal);
        let ran = running.wait();
        fs::remove_file(test.path("bin/tar")).unwrap();
        if signal == Signal::TERM {
            ran.fails(143);
            assert_eq!(scratch(), 0);
        } else {
            assert_eq!(scratch(), 1);
            fs::create_dir(test.path(".db-backup-tools-restore-foreign")).unwrap();
            test.run(["restore", "uploads"]).ok().says("which an interrupted run left");
            assert_eq!(scratch(), 1);
            assert!(test.path(".db-backup-tools-restore-foreign").exists());
        }
    }
}

#[test]
fn what_tar_says_is_told_and_puts_the_restore_in_doubt() {
    let test = archived();
    let script = "{real} \"$@\"; code=$?\n\
                  case \"$*\" in *--extract*) echo \"tar: ./file: Cannot set 'user.origin' extended attribute\" >&2;; esac\n\
                  exit $code";
    let test = test.fake_tar(script);
    test.run(["restore", "uploads"]).fails(3).says("Cannot set 'user.origin'");
    assert_same(&test.path("was"), &test.path("live"));
    let full = "Cannot write: No space left on device\" >&2; exit 2";
    let test = test.fake_tar(&script.replace("Cannot set 'user.origin' extended attribute\" >&2", full));
    test.run(["restore", "uploads", "--to-path", "back"]).fails(1).says("No space left on device").says("make room");
    assert!(!test.path("back").exists());
    let bin = test.path("bin");
    let test = test.fake_tar("echo 'bsdtar 3.6.2 - libarchive'").env("PATH", &bin);
    test.run(["restore", "uploads", "--to-path", "back"]).fails(2).says("is not GNU tar").says("--output FILE");
}

#[test]
fn a_backup_of_a_tree_comes_back_as_the_tree() {
    let test = with_uploads();
    small_tree(&test.path("live"));
    test.run(["backup"]).ok();
    test.run(["restore", "uploads", "--to-path", "back"]).ok();
    assert_same(&test.path("live"), &test.path("back"));
    test.run(["restore", "--drill"]).ok().says("4 files, 4 directories, 3 links, 1 other and 1.0 MiB compared");
    test.run(["restore", "uploads", "--replace"]).ok();
    assert_same(&test.path("back"), &test.path("live"));
    // A single file; and a reader that has enough is no success, as that was not all.
    let one = r#""$1" -q restore uploads --output - | tar -xO ./file"#;
    let early = r#"{ "$1" -q restore uploads --output -; echo "ended in $?" >&2; } | true"#;
    let sh = |script: &str| {
        let program = env!("CARGO_BIN_EXE_db-backup-tools");
        let ran = Command::new("sh").args(["-c", script, "sh", program]).current_dir(test.path("")).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
    };
    assert_eq!(sh(one), "hello");
    fs::write(test.path("live/large"), vec![b'x'; 4 << 20]).unwrap();
    test.run(["backup"]).ok();
    let said = sh(early);
    assert!(said.contains("ended in 1"), "{said}");
}

/// A file system of this many MiB at a directory of the test's, as long as it lives; `None` where nothing can be mounted.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn at(path: std::path::PathBuf, mebibytes: u32) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&path).status().unwrap().success();
        assert!(mounted || !is_root() || std::env::var("CI").as_deref() != Ok("true"), "CI=true allows no test to be left out");
        if !mounted {
            eprintln!("SKIPPED, as nothing can be mounted here (it takes root)");
        }
        mounted.then(|| Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_mount_point_is_filled_and_never_swapped() {
    let test = archived();
    let Some(_mounted) = Mounted::at(test.path("disk"), 20) else { return };
    fs::create_dir(test.path("disk/lost+found")).unwrap();
    test.run(["restore", "uploads", "--to-path", "disk"]).ok();
    fs::remove_dir(test.path("disk/lost+found")).unwrap();
    // That changed the root's time.
    Command::new("touch").arg("-r").arg(test.path("was")).arg(test.path("disk")).status().unwrap();
    assert_same(&test.path("was"), &test.path("disk"));
    test.run(["restore", "uploads", "--to-path", "disk", "--replace"]).fails(2).says("is a mount point");
    test.run(["restore", "uploads", "--to-path", "disk"]).fails(2).says("exists and is not empty");
    assert_same(&test.path("was"), &test.path("disk"));
}

#[test]
fn a_disk_that_is_too_small_is_refused_and_one_that_fills_up_leaves_nothing() {
    let test = with_uploads();
    fs::create_dir(test.path("was")).unwrap();
    fs::write(test.path("was/large"), vec![b'x'; 3 << 20]).unwrap();
    Archive::of(&test.path("was")).counted([1, 1, 0, 0, 3 << 20]).put(&test, "uploads");
    let Some(_mounted) = Mounted::at(test.path("disk"), 4) else { return };
    fs::write(test.path("disk/filler"), vec![b'x'; 2 << 20]).unwrap();
    test.run(["restore", "uploads", "--to-path", "disk/back"]).fails(2).says("2.0 MiB free").says("make room");
    fs::remove_file(test.path("disk/filler")).unwrap();
    // There was room enough at the look beforehand.
    let fill = "case \"$*\" in *--extract*) head -c 2M /dev/zero >{dir}/disk/filler;; esac; exec {real} \"$@\"";
    let test = test.fake_tar(fill);
    test.run(["restore", "uploads", "--to-path", "disk/back"]).fails(1).says("./large: Wrote only").says("make room");
    assert_eq!(names(&test.path("disk")), ["filler"]);
}
