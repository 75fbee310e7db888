//! What GNU tar and busybox's write.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::host::Context;
use crate::host::process::{Exit, Program};

/// Content that repeats nowhere.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251).to_le_bytes()[0] | 1).collect()
}

fn path(directory: &Path, name: &[u8]) -> PathBuf {
    directory.join(OsStr::from_bytes(name))
}

/// Every kind of member that an ordinary user can make, with names that any format holds.
fn plain_tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    for bytes in [0, 1, 511, 512, 513, 1024, 70_000] {
        fs::write(top.join(format!("file_of_{bytes}")), content(bytes)).unwrap();
    }
    fs::create_dir_all(top.join("directory/empty")).unwrap();
    fs::write(top.join("directory/inner"), "inner").unwrap();
    fs::set_permissions(top.join("directory/inner"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(top.join("directory/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::hard_link(top.join("directory/inner"), top.join("hard_link")).unwrap();
    symlink("directory/inner", top.join("symbolic_link")).unwrap();
    symlink("..", top.join("directory/up")).unwrap();
    directory
}

/// With names and kinds that need extensions.
fn nasty_tree() -> tempfile::TempDir {
    let directory = plain_tree();
    let top = directory.path();
    made(top, "mkfifo", &["fifo"]);
    let names: [&[u8]; 10] = [
        b"two\nlines\n",
        b"\xff\xfeno utf-8",
        "größe \u{1f3f4}\u{e0067}\u{e007f}".as_bytes(),
        b" blanks ",
        b"-dash",
        b"back\\slash",
        b"\x01\x1b[31mcontrol\x7f",
        &[b'n'; 100],
        &[b'o'; 101],
        &[b'p'; 255],
    ];
    for name in names {
        fs::write(path(top, name), name).unwrap();
    }
    let deep = top.join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep"), "deep").unwrap();
    fs::hard_link(deep.join("deep"), deep.join("f".repeat(150))).unwrap();
    symlink("x".repeat(1000), top.join("long_link")).unwrap();
    symlink(OsStr::from_bytes(b"to\n\xff"), top.join("odd_link")).unwrap();
    directory
}

/// Writes pieces of data into a file that is otherwise holes.
fn sparse(path: &Path, length: u64, pieces: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    for (offset, bytes) in pieces {
        file.write_all_at(&content(*bytes), *offset).unwrap();
    }
}

fn sparse_tree() -> tempfile::TempDir {
    const MIB: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    sparse(&top.join("all_hole"), 3 * MIB + 1, &[]);
    sparse(&top.join("begins_with_a_hole"), MIB + 5000, &[(MIB, 5000)]);
    sparse(&top.join("hole_in_the_middle"), MIB + 4097, &[(0, 4096), (MIB, 4097)]);
    sparse(&top.join("ends_with_a_hole"), MIB + 1, &[(0, 8192)]);
    // More than fit into the header, and into it and one block; and a map of several blocks as text.
    let pieces: Vec<_> = (0..150).map(|piece| (piece * 64 * 1024, 4096)).collect();
    sparse(&top.join("5_pieces"), MIB, &pieces[..5]);
    sparse(&top.join("40_pieces"), 40 * MIB, &pieces[..40]);
    sparse(&top.join("150_pieces"), 40 * MIB, &pieces);
    sparse(&top.join(format!("größe_{}", "n".repeat(120))), MIB, &[(8192, 4096)]);
    fs::write(top.join("plain"), content(10_000)).unwrap();
    directory
}

/// Holds what was told against the tree that it was made from. Every name of it must have come.
fn compare(told: &[Told], top: &Path) {
    let mut first_names: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for told in told {
        let on_disk = path(top, &told.path);
        let shown = String::from_utf8_lossy(&told.path);
        let metadata = fs::symlink_metadata(&on_disk).unwrap();
        assert!(told.ended, "{shown}");
        assert_eq!(told.owner, (metadata.uid().into(), metadata.gid().into()), "{shown}");
        assert_eq!(told.mode, metadata.mode() & 0o7777, "{shown}");
        let kind = metadata.file_type();
        match told.kind {
            MemberKind::File => {
                assert!(kind.is_file(), "{shown}");
                assert_eq!((told.bytes, told.length()), (metadata.len(), metadata.len()), "{shown}");
                compare_content(told, &on_disk);
                first_names.insert(metadata.ino(), &told.path);
            }
            MemberKind::HardLink => assert_eq!(first_names.get(&metadata.ino()), Some(&told.link.as_slice()), "{shown}"),
            MemberKind::SymbolicLink => assert_eq!(fs::read_link(&on_disk).unwrap(), OsStr::from_bytes(&told.link), "{shown}"),
            MemberKind::Directory => assert!(kind.is_dir(), "{shown}"),
            MemberKind::Fifo => assert!(kind.is_fifo(), "{shown}"),
            other => panic!("{shown} is {other:?}"),
        }
        assert_eq!(told.pieces.is_empty(), told.bytes == 0, "{shown}");
    }
    let mut found: Vec<_> = told.iter().map(|told| told.path.strip_suffix(b"/").unwrap_or(&told.path).to_vec()).collect();
    found.sort();
    let mut there = made(top, "find", &[".", "-print0"]).split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>();
    there.retain(|name| !name.is_empty());
    there.sort();
    assert_eq!(found, there);
}

fn compare_content(told: &Told, on_disk: &Path) {
    let file = File::open(on_disk).unwrap();
    let mut at = 0;
    for part in &told.pieces {
        // Of a large hole the beginning is read.
        let (length, expected) = match part {
            Part::Data(bytes) => (bytes.len() as u64, bytes.clone()),
            Part::Hole(length) => (*length, vec![0; usize::try_from(*length).unwrap().min(1 << 20)]),
        };
        let mut there = vec![0; expected.len()];
        file.read_exact_at(&mut there, at).unwrap();
        assert!(there == expected, "{} at {at}", on_disk.display());
        at += length;
    }
}

/// What we and GNU tar read of a tar that was made from a tree.
fn check(tar: &[u8], top: &Path) -> Vec<Told> {
    let told = read(tar);
    compare(&told, top);
    assert_eq!(listed(tar), (lines(&told), true));
    told
}

fn kinds(told: &[Told]) -> usize {
    let mut kinds: Vec<_> = told.iter().map(|told| format!("{:?}", told.kind)).collect();
    kinds.sort();
    kinds.dedup();
    kinds.len()
}

#[test]
fn every_format_is_read_as_it_was_written() {
    let (plain, nasty) = (plain_tree(), nasty_tree());
    for format in ["v7", "ustar"] {
        let tar = made(plain.path(), "tar", &["-c", &format!("--format={format}"), "."]);
        assert_eq!(kinds(&check(&tar, plain.path())), 4, "{format}");
    }
    for format in ["oldgnu", "gnu", "posix"] {
        let tar = made(nasty.path(), "tar", &["-c", &format!("--format={format}"), "--sparse", "."]);
        let told = check(&tar, nasty.path());
        assert_eq!(kinds(&told), 5, "{format}");
        assert_eq!(told.iter().any(|told| told.extended), format == "posix");
    }
}

#[test]
fn a_tar_with_attributes_is_read_as_it_was_written() {
    let tree = nasty_tree();
    // Where the file system takes none, this is the same without.
    run(tree.path(), "setfattr", &["-n", "user.odd=", "-v", "0x003d0aff", "file_of_1"], b"");
    run(tree.path(), "setfacl", &["-m", "u:4711:r", "file_of_1"], b"");
    let arguments = ["-c", "--format=posix", "--sparse", "--xattrs", "--acls", "--numeric-owner", "."];
    let tar = made(tree.path(), "tar", &arguments);
    let told = read(&tar);
    let mut modes_aside = told.clone();
    // With an ACL a mode's group bits are its mask.
    for told in &mut modes_aside {
        told.mode = fs::symlink_metadata(path(tree.path(), &told.path)).unwrap().mode() & 0o7777;
    }
    compare(&modes_aside, tree.path());
    assert_eq!(listed(&tar), (lines(&told), true));
}

#[test]
fn what_busybox_writes_is_read_as_it_was_written() {
    let tree = nasty_tree();
    let tar = made(tree.path(), "busybox", &["tar", "-c", "-f", "-", "."]);
    let told = read(&tar);
    compare(&told, tree.path());
    assert_eq!(listed(&tar), (lines(&told), true));
}

#[test]
fn sparse_files_are_read_with_their_holes_in_every_version() {
    let tree = sparse_tree();
    let is_sparse = |name: &str| fs::metadata(tree.path().join(name)).is_ok_and(|file| file.blocks() * 512 < file.len());
    assert!(is_sparse("all_hole") && is_sparse("150_pieces"), "the file system has no sparse files");
    let versions: [&[&str]; 6] = [
        &["--format=oldgnu"],
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=posix", "--hole-detection=raw"],
    ];
    for version in versions {
        let tar = made(tree.path(), "tar", &[&["-c", "--sparse"], version, &["."]].concat());
        let told = check(&tar, tree.path());
        assert_eq!(told.iter().filter(|told| told.sparse).count(), 8, "{version:?}");
    }
}

#[test]
fn numbers_too_large_for_their_fields_are_read() {
    let tree = tempfile::tempdir().unwrap();
    sparse(&tree.path().join("large"), 10 << 30, &[(9 << 30, 4096)]);
    for format in ["oldgnu", "gnu", "posix"] {
        let format = format!("--format={format}");
        let arguments = ["-c", "--sparse", &format, "--owner=:3000000000", "--group=:4294967294", "large"];
        let tar = made(tree.path(), "tar", &arguments);
        let told = read(&tar);
        let [large] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((large.owner, large.bytes, large.length()), ((3_000_000_000, 4_294_967_294), 10 << 30, 10 << 30));
        compare_content(large, &tree.path().join("large"));
    }
    // A file of such a size that is not sparse: the stored bytes are not made, but fed.
    for (size, extension) in
        [(&b"\x80\0\0\0\0\0\0\x02\0\0\0\x01"[..], vec![]), (&[0; 12], forge::pax(b'x', &[("size", b"8589934593")]))]
    {
        let header = forge::Block::new(b'0', b"large", 0).put(124, size).sealed();
        let (mut members, mut counter) = (Members::default(), Counter::default());
        members.feed(&[extension, header].concat(), &mut counter).unwrap();
        let mebibyte = vec![0; 1 << 20];
        for _ in 0..8 << 10 {
            members.feed(&mebibyte, &mut counter).unwrap();
        }
        assert!(!members.is_complete());
        members.feed(&forge::tar(&[vec![0; 512]]), &mut counter).unwrap();
        assert!(members.is_complete());
        assert_eq!((counter.announced, counter.came), ((8 << 30) + 1, (8 << 30) + 1));
    }
}

#[derive(Default)]
struct Counter {
    announced: u64,
    came: u64,
}

impl Visitor for Counter {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        self.announced += member.bytes;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.came += bytes.len() as u64;
        Ok(())
    }
}

#[test]
fn names_longer_than_any_path_are_read_as_tar_reads_them() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "content").unwrap();
    fs::hard_link(tree.path().join("file"), tree.path().join("hard_link")).unwrap();
    for length in [99, 100, 101, 154, 155, 156, 254, 255, 256, 257, 4095, 4096, 4097, 10_000, 60_000] {
        let prefix = "directory/".repeat(length / 10) + &"n".repeat(length % 10);
        let transform = format!("--transform=s,^,{prefix},");
        for format in ["ustar", "oldgnu", "gnu", "posix"] {
            let tar =
                run(tree.path(), "tar", &["-c", &format!("--format={format}"), &transform, "file", "hard_link"], b"").stdout;
            let told = read(&tar);
            assert_eq!(listed(&tar), (lines(&told), true), "{format} {length}");
            // What ustar can't hold it leaves out, or cuts.
            if format != "ustar" {
                assert_eq!(told.iter().map(|told| told.kind).collect::<Vec<_>>(), [MemberKind::File, MemberKind::HardLink]);
                assert_eq!((&told[1].link, told[0].path.len()), (&told[0].path, length + 4));
            }
        }
    }
}

#[test]
fn a_tar_that_is_cut_anywhere_is_not_whole() {
    let (nasty, sparse) = (nasty_tree(), sparse_tree());
    let arguments = ["-c", "--format=posix", "--sparse", "."];
    for tar in [
        made(nasty.path(), "tar", &arguments),
        made(sparse.path(), "tar", &arguments),
        made(nasty.path(), "busybox", &["tar", "-cf", "-", "."]),
    ] {
        let end = tar.len() - tar.iter().rev().take_while(|byte| **byte == 0).count();
        let end_mark = end.next_multiple_of(512) + 1024;
        for size in [512, 1, 509] {
            let (mut members, mut recorder) = (Members::default(), Recorder::default());
            let mut fed = 0;
            for piece in tar.chunks(size) {
                members.feed(piece, &mut recorder).unwrap();
                fed += piece.len();
                assert_eq!(members.is_complete(), fed >= end_mark, "after {fed} of {} bytes", tar.len());
            }
        }
    }
}

#[test]
fn a_tar_that_ends_early_because_a_sparse_file_shrank_is_not_whole() {
    use std::io::Read as _;
    let tree = tempfile::tempdir().unwrap();
    let (shrinks, after) = (tree.path().join("shrinks"), tree.path().join("z_after"));
    sparse(&shrinks, 8 << 20, &[(4096, 3_000_000), (4 << 20, 500_000)]);
    fs::write(&after, "after").unwrap();
    let program = Program::new("tar").args(["-c", "--format=posix", "--sparse", "shrinks", "z_after"]).directory(tree.path());
    let mut child = program.spawn_reader(&Context::for_tests()).unwrap();
    // Its map is made; of the data, a pipe holds less than the first piece.
    let mut tar = vec![0];
    child.read_exact(&mut tar).unwrap();
    File::options().write(true).open(&shrinks).unwrap().set_len((4 << 20) + 300).unwrap();
    child.read_to_end(&mut tar).unwrap();
    assert_eq!(child.wait().unwrap().exit, Exit::Code(1));
    let Err(error) = read_in(&tar, usize::MAX) else {
        // A tar that does better: then it is whole for tar too.
        return assert_eq!(listed(&tar), (b"shrinks\nz_after\n".to_vec(), true));
    };
    assert!(error.to_string().contains(LONE_ZEROS) && error.hint_text().unwrap().contains("shrinks"), "{error:?}");
    // Which tar itself takes for a tar's end.
    assert_eq!(listed(&tar), (b"shrinks\n".to_vec(), true));
}
