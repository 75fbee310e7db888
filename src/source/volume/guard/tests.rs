use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::source::volume::members::Members;
use crate::source::volume::members::tests::forge::{Block, link, long, member, pax, tar};
use crate::source::volume::members::tests::{Random, made, run};

/// Passes a tar through a guard, and says how much of it went well: to the end of the block before the error.
fn passed(tar: &[u8], reader: Reader) -> (usize, Result<()>) {
    let (mut members, mut guard) = (Members::default(), Guard::new(reader));
    for (at, block) in tar.chunks(512).enumerate() {
        if let Err(error) = members.feed(block, &mut guard) {
            return (at * 512, Err(error));
        }
    }
    assert!(members.is_complete());
    (tar.len(), Ok(()))
}

fn refused(parts: &[Vec<u8>]) -> String {
    let error = passed(&tar(parts), Reader::Gnu).1.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    error.to_string()
}

fn allowed(parts: &[Vec<u8>]) {
    passed(&tar(parts), Reader::Gnu).1.unwrap();
}

fn file(name: &str) -> Vec<u8> {
    member(b'0', name.as_bytes(), b"content")
}

fn directory(name: &str) -> Vec<u8> {
    member(b'5', name.as_bytes(), b"")
}

fn soft(name: &str, target: &str) -> Vec<u8> {
    link(b'2', name.as_bytes(), target.as_bytes())
}

fn hard(name: &str, target: &str) -> Vec<u8> {
    link(b'1', name.as_bytes(), target.as_bytes())
}

/// Archives that must not be unpacked, and what is said of them.
fn hostile() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("member /etc/x has a name that begins at the root", vec![file("/etc/x")]),
        ("member ../x has a name that leads upwards (..)", vec![file("../x")]),
        ("member ./a/../../x has a name that leads upwards (..)", vec![directory("a/"), file("./a/../../x")]),
        ("member a/.. has a name that leads upwards (..)", vec![directory("a/..")]),
        ("member ../long has a name that leads upwards", vec![pax(b'x', &[("path", b"../long")]), file("x")]),
        ("member ../long has a name that leads upwards", vec![long(b'L', b"../long"), Block::new(b'0', b"x", 0).gnu().sealed()]),
        ("member ../pre/x has a name that leads upwards", vec![Block::new(b'0', b"x", 0).put(345, b"../pre").sealed()]),
        ("member . would take the place of the destination itself", vec![soft(".", "/etc")]),
        ("member .//. would take the place of the destination itself", vec![file(".//.")]),
        ("member hard is a hard link to /etc/passwd, which begins at the root", vec![hard("hard", "/etc/passwd")]),
        ("member hard is a hard link to ../x, which leads upwards (..)", vec![hard("hard", "../x")]),
        ("member hard is a hard link to a/../../x, which leads upwards", vec![hard("hard", "a/../../x")]),
        ("member hard is a hard link to the destination itself", vec![hard("hard", "./")]),
        ("member out/x has a name that leads through a symbolic link", vec![soft("out", "/tmp"), file("out/x")]),
        ("member out/x has a name that leads through a symbolic link", vec![soft("./out", ".."), file("out/x")]),
        ("member ./out//x/ has a name that leads through a symbolic link", vec![soft("out/.", "a"), directory("./out//x/")]),
        ("member a/out/b/x has a name that leads through a symbolic link", vec![soft("a/out", ".."), file("a/out/b/x")]),
        ("member out/soft has a name that leads through a symbolic link", vec![soft("out", "/tmp"), soft("out/soft", "x")]),
        ("member out/ would take the place of a symbolic link", vec![soft("out", "/tmp"), directory("out/")]),
        ("member out would take the place of a symbolic link", vec![soft("out", "/tmp/x"), file("out")]),
        ("member out would take the place of a symbolic link", vec![soft("out", "a"), soft("out", "b")]),
        (
            "member hard is a hard link to out/passwd, which leads through a symbolic link",
            vec![soft("out", "/etc"), hard("hard", "out/passwd")],
        ),
        (
            "member twin/x has a name that leads through a symbolic link",
            vec![soft("out", "/tmp"), hard("twin", "out"), file("twin/x")],
        ),
        (
            "member third/x has a name that leads through a symbolic link",
            vec![soft("out", "/tmp"), hard("twin", "./out"), hard("third", "twin"), file("third/x")],
        ),
        ("member twin would take the place of a symbolic link", vec![soft("out", "/tmp/x"), hard("twin", "out"), file("twin")]),
        ("member label is of a kind that no backup has ('V')", vec![member(b'V', b"label", b"")]),
        ("member part is of a kind that no backup has ('M')", vec![member(b'M', b"part", b"")]),
        ("member d is of a kind that no backup has ('D')", vec![member(b'D', b"d", b"")]),
        (
            "member /\\033[2J\\n\\377\\342\\200\\256x has a name that begins at the root",
            vec![member(b'0', b"/\x1b[2J\n\xff\xe2\x80\xaex", b"")],
        ),
    ]
}

#[test]
fn what_leads_out_of_the_destination_is_refused() {
    for (why, parts) in hostile() {
        let error = refused(&parts);
        assert!(error.starts_with("the archive's ") && error.contains(why), "{why}: {error}");
    }
    let error = passed(&tar(&[file("../x")]), Reader::Gnu).1.unwrap_err();
    insta::assert_snapshot!(
        format!("{error:?}"),
        @"Damaged the archive's member ../x has a name that leads upwards (..) (hint: the archive was not made by this program, or was changed since: nothing of it was left at the destination)"
    );
}

/// Unpacks a tar in a directory beside another that a link may lead to, and looks whether all stayed where it was.
fn unpack(tar: impl Fn(&Path) -> Vec<u8>, program: &[&str]) {
    let place = tempfile::tempdir().unwrap();
    let (inner, outer) = (place.path().join("destination"), place.path().join("out"));
    fs::create_dir(&inner).unwrap();
    fs::create_dir(&outer).unwrap();
    fs::write(outer.join("kept"), "kept").unwrap();
    for (path, mode) in [(place.path(), 0o750), (&outer, 0o750), (&outer.join("kept"), 0o640)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    run(&inner, program[0], &[&program[1..], &["-x", "-f", "-"]].concat(), &tar(&outer));
    let around = made(place.path(), "find", &[".", "-path", "./destination", "-prune", "-o", "-printf", "%P %y %n %m\n"]);
    let around = String::from_utf8(around).unwrap();
    let around: std::collections::BTreeSet<_> = around.lines().collect();
    assert_eq!(around.into_iter().collect::<Vec<_>>(), [" d 4 750", "out d 2 750", "out/kept f 1 640"]);
    assert_eq!(fs::read_to_string(outer.join("kept")).unwrap(), "kept");
}

/// Told to trust the tar: what they would do of themselves against links that lead out, they leave.
const PROGRAMS: [&[&str]; 2] = [&["tar", "-P"], &["env", "EXTRACT_UNSAFE_SYMLINKS=1", "busybox", "tar"]];

#[test]
fn nothing_of_a_hostile_member_reaches_tar() {
    for (_, parts) in hostile() {
        let tar = tar(&parts);
        let (good, _) = passed(&tar, Reader::Gnu);
        for program in PROGRAMS {
            unpack(|_| tar[..good].to_vec(), program);
        }
    }
}

/// A tar of members that get in each other's way.
fn tangled(random: &mut Random, out: &str) -> Vec<u8> {
    let name = |random: &mut Random| {
        let parts = (0..=random.below(3)).map(|_| ["a", "b", "c", "a", "b", "kept", ".", "", ".."][random.below(9)]);
        parts.collect::<Vec<_>>().join("/")
    };
    let member = |random: &mut Random| match random.below(6) {
        0 => directory(&(name(random) + "/")),
        1 => soft(&name(random), &["../out".to_owned(), out.to_owned(), "..".into(), ".".into(), name(random)][random.below(5)]),
        2 => hard(&name(random), &name(random)),
        3 => soft(["a", "b", "a/b"][random.below(3)], [out, "../out", "b", "."][random.below(4)]),
        _ => file(&name(random)),
    };
    (0..2 + random.below(6)).flat_map(|_| member(random)).collect()
}

#[test]
fn whatever_is_let_through_stays_within() {
    let mut let_through = 0;
    for seed in 1..400 {
        let tar = |out: &Path| tar(&[tangled(&mut Random::new(seed), out.to_str().unwrap())]);
        // By its members, and not by where the directory happens to be.
        if passed(&tar(Path::new("/out")), Reader::Gnu).1.is_ok() {
            let_through += 1;
            for program in PROGRAMS {
                unpack(tar, program);
            }
        }
    }
    assert!(let_through > 40, "{let_through}");
}

#[test]
fn what_stays_within_is_let_through() {
    allowed(&[directory("./"), directory("./a/"), file("./a/b"), soft("./a/soft", "/etc"), hard("./hard", "./a/b")]);
    allowed(&[file("plain"), file("a/implied/parent"), file("..name"), file("a/..."), file("a/ ..")]);
    // A link may lead anywhere; only what would go through it may not.
    allowed(&[soft("up", "../../.."), soft("down", "up"), file("upper"), file("up_"), file("a/up"), directory("a/up2/")]);
    // Another name of a symbolic link, as tar writes it.
    allowed(&[soft("soft", "target"), hard("twin", "soft"), hard("third", "./twin")]);
    // A directory that is told twice, as with tar's arguments `a a/b`.
    allowed(&[directory("a/"), file("a/b"), directory("a/"), file("a/b")]);
    allowed(&[member(b'3', b"null", b""), member(b'4', b"disk", b""), member(b'6', b"fifo", b"")]);
}

#[test]
fn what_real_tars_hold_is_let_through() {
    let tree = tempfile::tempdir().unwrap();
    let top = tree.path();
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/b/file"), "content").unwrap();
    symlink("/etc", top.join("a/absolute")).unwrap();
    symlink("../..", top.join("a/b/up")).unwrap();
    fs::hard_link(top.join("a/b/up"), top.join("twin")).unwrap();
    fs::hard_link(top.join("a/b/file"), top.join("hard")).unwrap();
    fs::write(top.join("n".repeat(150)), "long").unwrap();
    for format in ["gnu", "posix"] {
        let tar = made(top, "tar", &["-c", &format!("--format={format}"), "."]);
        passed(&tar, Reader::Gnu).1.unwrap();
    }
    let tar = made(top, "busybox", &["tar", "-c", "-f", "-", "."]);
    passed(&tar, Reader::Gnu).1.unwrap();
    passed(&tar, Reader::Busybox).1.unwrap();
}

#[test]
fn a_name_that_busybox_would_not_see_is_refused_before_it() {
    let parts = [pax(b'x', &[("path", b"harmless")]), file("../x")];
    allowed(&parts);
    let error = passed(&tar(&parts), Reader::Busybox).1.unwrap_err();
    assert!(error.cause().contains("has a pax header, which this tar does not read"), "{error}");
}

#[test]
fn a_name_is_shown_without_what_steers_a_terminal() {
    assert_eq!(shown("./a b/größe".as_bytes()), "./a b/größe");
    assert_eq!(shown(b"a\nb\tc\rd\\e"), "a\\nb\\tc\\rd\\\\e");
    assert_eq!(shown(b"\x1b[31m\x7f\xff\xfe"), "\\033[31m\\177\\377\\376");
    assert_eq!(shown("a\u{202e}b\u{85}".as_bytes()), "a\\342\\200\\256b\\302\\205");
    assert_eq!(shown(&[b'a'; 5000]), "a".repeat(4096) + "…");
}
