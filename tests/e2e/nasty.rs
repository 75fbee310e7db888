//! The proof of volumes: a tree of all that a file system can hold goes into a backup and comes back, and tools that know nothing of
//! this program find no difference, entry by entry.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::archive::assert_same_but;
use crate::support::volume_target::tar_of;
use crate::support::{Docker, Test, is_root};

/// A large file that is nearly all hole, and where it has data: at its beginning, in its midst, at its end.
const SPARSE: u64 = (5 << 30) + 1;
const PLACES: [u64; 3] = [0, (1 << 30) + 4096, SPARSE - 4096];
/// Small files, in directories of a thousand.
const MANY: usize = 100_000;

/// What an ordinary user can make.
const ORDINARY: &str = r#"
    umask 022
    mkdir -p empty/inner modes acls attributes a/b/c closed
    : >modes/setuid; chmod 4755 modes/setuid; : >modes/setgid; chmod 2711 modes/setgid
    mkdir modes/sticky modes/group; chmod 1777 modes/sticky; chmod 2775 modes/group
    printf one >a/one; ln a/one a/b/two; ln a/one a/b/c/three
    ln -s ../one a/b/link; ln -s /etc/passwd absolute; ln -s gone dangling; ln -s .. up; ln -s . itself; ln up 'up again'
    mkfifo fifo; chmod 640 fifo
    : >acls/file; setfacl -m u:4242:rw,g:4343:r,m::rwx acls/file
    setfacl -m u:4244:rwx acls; setfacl -d -m u:4245:rx,g:77:r,o::- acls
    : >attributes/file; setfattr -n user.note -v "$(printf 'a\nb')" attributes/file; setfattr -n user.empty attributes/file
    setfattr -n user.bytes -v 0x00ff0a003d attributes/file; setfattr -n user.note -v here attributes
    touch -d '2001-02-03 04:05:06.123456789 UTC' a/one; touch -hd '1999-12-31 23:59:59.999999999 UTC' up
    touch -d '1901-12-14 00:00:00.000000001 UTC' modes/setuid; touch -d '2400-01-01 00:00:00.5 UTC' modes/setgid
    touch -d '1969-12-31 23:59:59.25 UTC' empty
    printf closed >closed/file; chmod 0400 closed/file; chmod 0555 closed
    chmod 0751 .
"#;

/// What only root can, or only root can read again.
const ROOTS: &str = r"
    mkdir roots; cd roots
    printf none >none; chmod 0000 none; mkdir locked; printf x >locked/file; chmod 0000 locked
    : >numbers; chown 4294967290:3000000000 numbers; ln -s nowhere owned; chown -h 4242:4343 owned; mkfifo pipe; chown 4242 pipe
    : >trusted; setfattr -n trusted.note -v mine trusted
    : >capable; chmod 755 capable; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 capable
    mknod character c 1 3 2>/dev/null && mknod -m 0600 block b 7 200 || echo 'SKIPPED: no devices can be made here' >&2
";

/// Names that something may stumble over.
fn names() -> Vec<Vec<u8>> {
    let flag_of_england = "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
    let names: [&[u8]; 22] = [
        b"new\nline",
        b"\n",
        b"ends in one\n",
        b"invalid \xff\xfe utf-8",
        b"-dash",
        b"--checkpoint-action=exec=false",
        b"with space",
        b" ",
        b"*",
        b"[a-z]?",
        b"back\\slash",
        b"\\n",
        b"\"'`$(false);",
        b"tab\tand\rreturn",
        b"\x01\x1b[31mred\x7f",
        b"...",
        b"@LongLink",
        b"tar: .: Cannot stat",
        "grün 🦀".as_bytes(),
        flag_of_england.as_bytes(),
        &[b'n'; 255],
        &[0xff; 255],
    ];
    names.map(<[u8]>::to_vec).into()
}

/// A directory whose path below the root is as long as a path may be that tar is told.
fn deep(root: &Path) -> PathBuf {
    let name = "d".repeat(200);
    (0..17).fold(root.join("deep"), |path, _| path.join(&name))
}

fn nasty(root: &Path) {
    fs::create_dir(root).unwrap();
    for directory in ["names", "directories", "links"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for name in names() {
        let name = OsStr::from_bytes(&name);
        fs::write(root.join("names").join(name), name.as_bytes()).unwrap();
        fs::create_dir(root.join("directories").join(name)).unwrap();
        fs::write(root.join("directories").join(name).join("file"), "x").unwrap();
        std::os::unix::fs::symlink(name, root.join("links").join(name)).unwrap();
    }
    fs::create_dir_all(deep(root)).unwrap();
    fs::write(deep(root).join("file"), "deep").unwrap();
    sparse(&root.join("sparse"), SPARSE, &PLACES);
    sparse(&root.join("hole"), 100 << 20, &[]);
    sparse(&root.join("ends in a hole"), 100 << 20, &[4096, 1 << 20]);
    script(root, ORDINARY);
    if is_root() {
        script(root, ROOTS);
    }
}

/// Data of 4 KiB each at these places, and holes elsewhere.
fn sparse(path: &Path, length: u64, places: &[u64]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(length).unwrap();
    for place in places {
        file.write_all_at(&[b'x'; 4096], *place).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), length);
}

fn script(root: &Path, text: &str) {
    let ended = Command::new("sh").args(["-ec", text]).current_dir(root).status().unwrap();
    assert!(ended.success(), "{text}");
}

/// Very many files, of a few bytes each.
fn many(root: &Path) {
    for directory in 0..MANY / 1000 {
        let directory = root.join(format!("many/{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..1000 {
            fs::write(directory.join(file.to_string()), &b"0123456789"[..file % 11 % 10]).unwrap();
        }
    }
}

/// Takes what no tar holds out of the tree again, as if it had never been there.
fn remove_socket(directory: &Path) {
    let time = fs::metadata(directory).unwrap().modified().unwrap();
    fs::remove_file(directory.join("socket")).unwrap();
    fs::File::open(directory).unwrap().set_modified(time).unwrap();
}

/// By rsync, and by our own walk: what rsync takes no notice of, or takes lightly.
#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    // To read the large file's zeros would take longer than all else.
    assert_same_but(one, other, &["/sparse"]);
    assert_same_sparse(&other.join("sparse"));
    let (mut found, mut there) = (walked(one), walked(other));
    assert_eq!(found.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
    let mut names = [BTreeMap::<u64, Vec<OsString>>::new(), BTreeMap::new()];
    while let (Some((name, was)), Some((_, is))) = (found.pop_first(), there.pop_first()) {
        let name_shown = name.display();
        // A directory's own size is the file system's.
        let length = |of: &Metadata| if of.is_dir() { 0 } else { of.size() };
        let facts =
            |of: &Metadata| (of.mode(), of.uid(), of.gid(), length(of), of.mtime(), of.mtime_nsec(), of.nlink(), of.rdev());
        assert!(facts(&was) == facts(&is), "{name_shown}: {was:?} {is:?}");
        assert!(is.blocks() <= was.blocks() + 64, "{name_shown}: {} blocks, and were {}", is.blocks(), was.blocks());
        for (names, of) in names.iter_mut().zip([&was, &is]) {
            names.entry(of.ino()).or_default().push(name.clone());
        }
    }
    let [mut were, mut are] = names.map(|names| names.into_values().collect::<Vec<_>>());
    were.sort();
    are.sort();
    assert!(were == are, "other names are one file");
    assert_eq!(acls(one), acls(other));
}

/// It has the data that it had, and no blocks for anything else.
fn assert_same_sparse(path: &Path) {
    let file = fs::File::open(path).unwrap();
    for place in PLACES {
        let mut there = [0; 4096];
        file.read_exact_at(&mut there, place).unwrap();
        assert!(there == [b'x'; 4096], "at {place}");
    }
    let facts = file.metadata().unwrap();
    assert!(facts.len() == SPARSE && facts.blocks() <= 8 * 5, "{facts:?}");
}

fn walked(root: &Path) -> BTreeMap<OsString, Metadata> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.strip_prefix(root).unwrap().as_os_str().to_owned(), metadata);
    }
    found
}

fn acls(root: &Path) -> String {
    let said = Command::new("getfacl").args(["-nR", "acls"]).current_dir(root).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(text.contains("user:4242:rw-") && text.contains("default:group:77:r--"), "{text}");
    text
}

/// tar's own comparison of the artifact.
fn assert_archived(test: &Test, tree: &Path) {
    let words = ["--compare", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--no-acls", "--directory"];
    let words: Vec<&str> = words.into_iter().chain([tree.to_str().unwrap()]).collect();
    tar_of(&test.stored_one(".tar.gz"), &words);
}

/// There and back.
fn round_trip(test: &Test) {
    let tree = test.path("tree");
    fs::create_dir(tree.join("sockets")).unwrap();
    let _socket = UnixListener::bind(tree.join("sockets/socket")).unwrap();
    let ran = test.run(["backup", "--json"]).ok();
    let warnings = ran.json()["items"][0]["warnings"].clone();
    assert_eq!(warnings, serde_json::json!(["1 file left out, as a tar holds no sockets: sockets/socket"]));
    remove_socket(&tree.join("sockets"));
    assert_archived(test, &tree);
    test.run(["restore", "files", "--to-path", "back"]).ok();
    assert_same(&tree, &test.path("back"));
}

/// A drill compares the digest of each file.
fn drill(test: &Test) {
    let files = files(&test.path("tree"));
    test.run(["restore", "--drill"]).ok().says("drill passed").says(&format!("and {files} digests compared"));
}

/// Files, by their inodes.
fn files(root: &Path) -> usize {
    let mut inodes: Vec<u64> = walked(root).into_values().filter(Metadata::is_file).map(|found| found.ino()).collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes.len()
}

#[test]
fn a_tree_of_all_there_is_comes_back_entry_by_entry() {
    let test = Test::of_volume("path: {dir}/tree\ndrill: { hash: true }");
    nasty(&test.path("tree"));
    if is_root() {
        many(&test.path("tree"));
        round_trip(&test);
    } else {
        eprintln!("SKIPPED: only root can make all kinds of files: the tree is smaller");
        round_trip(&test);
        drill(&test);
    }
}

#[test]
fn a_tree_of_all_there_is_goes_through_a_container_and_back() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let test = Test::new();
    let [tree, back] = ["tree", "back"].map(|name| test.path(name));
    nasty(&tree);
    // Containers may not read those, or set them.
    script(&tree, "setfattr -x trusted.note roots/trusted");
    fs::create_dir(&back).unwrap();
    let bound = |name: &str, directory: &Path| {
        docker.volume_with_options(name, &["type=none", "o=bind", &format!("device={}", directory.display())])
    };
    let (was, is) = (bound("was", &tree), bound("is", &back));
    test.write(
        "backup.yml",
        &format!(
            "version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\n\
             targets:\n  - {{ name: files, type: volume, volume: {}, helper_image: {}, drill: {{ hash: true }} }}\n",
            was.name(),
            docker.with_tar()
        ),
    );
    let ran = test.run(["backup", "--json"]).ok();
    assert_eq!(ran.json()["items"][0]["warnings"], serde_json::json!([]));
    assert_archived(&test, &tree);
    test.run(["restore", "files", "--to-volume", is.name()]).ok();
    assert_same(&tree, &back);
    drill(&test);
}
