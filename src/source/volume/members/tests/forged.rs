//! What no program writes, and a hostile hand may.

use super::forge::{Block, link, long, member, padded, pax, tar};
use super::*;

/// One member, right by itself.
fn file() -> Vec<u8> {
    member(b'0', b"file", b"content")
}

/// What is told of a tar of these parts; GNU tar lists the same names.
fn agreed(parts: &[Vec<u8>]) -> Vec<Told> {
    let tar = tar(parts);
    let told = read(&tar);
    assert_eq!(listed(&tar), (lines(&told), true));
    told
}

fn names(told: &[Told]) -> Vec<String> {
    told.iter().map(|told| String::from_utf8_lossy(&told.path).into_owned()).collect()
}

#[test]
fn a_name_is_taken_from_where_tar_takes_it() {
    let block = |name: &[u8]| Block::new(b'0', name, 0);
    assert_eq!(names(&agreed(&[block(b"name").put(345, b"pre").sealed()])), ["pre/name"]);
    assert_eq!(
        names(&agreed(&[block(&[b'n'; 100]).put(345, &[b'p'; 155]).sealed()])),
        ["p".repeat(155) + "/" + &"n".repeat(100)]
    );
    assert_eq!(names(&agreed(&[long(b'L', b"long\n"), block(b"short").gnu().sealed()])), ["long\n"]);
    assert_eq!(names(&agreed(&[pax(b'x', &[("path", b"a=b\nc")]), block(b"short").put(345, b"pre").sealed()])), ["a=b\nc"]);
    // What follows a NUL in the header is nothing.
    assert_eq!(names(&agreed(&[block(b"short\0../hidden").sealed()])), ["short"]);
    // An extension speaks for one member.
    let parts = [pax(b'x', &[("path", b"once"), ("mtime", b"1.5")]), file(), file()];
    assert_eq!(names(&agreed(&parts)), ["once", "file"]);
}

#[test]
fn a_kind_is_what_tar_takes_it_for() {
    let of = |parts: &[Vec<u8>]| agreed(parts).pop().unwrap().kind;
    assert_eq!(of(&[member(0, b"old", b"content")]), MemberKind::File);
    assert_eq!(of(&[member(b'7', b"contiguous", b"content")]), MemberKind::File);
    assert_eq!(of(&[member(0, b"old/", b"")]), MemberKind::Directory);
    assert_eq!(of(&[member(b'0', b"directory/", b"")]), MemberKind::Directory);
    assert_eq!(of(&[pax(b'x', &[("path", b"directory/")]), member(b'0', b"file", b"")]), MemberKind::Directory);
    assert_eq!(of(&[member(b'3', b"null", b"")]), MemberKind::CharacterDevice);
    assert_eq!(of(&[member(b'4', b"disk", b"")]), MemberKind::BlockDevice);
    assert_eq!(of(&[link(b'1', b"hard", b"file")]), MemberKind::HardLink);
    // Their content is passed over.
    let parts: Vec<_> = [b'N', b'V', b'Z'].iter().map(|letter| member(*letter, b"x", b"content")).chain([file()]).collect();
    let told = read(&tar(&parts));
    assert_eq!(told[..3].iter().map(|told| told.kind).collect::<Vec<_>>(), [b'N', b'V', b'Z'].map(MemberKind::Other));
    assert!(told[0].pieces.is_empty());
    assert_eq!(told[3].pieces, [Part::Data(b"content".to_vec())]);
}

#[test]
fn a_global_header_speaks_for_all_that_follow() {
    let parts = [file(), pax(b'g', &[("uid", b"7"), ("comment", b"x")]), file(), pax(b'x', &[("uid", b"8")]), file(), file()];
    assert_eq!(
        agreed(&parts).iter().map(|told| told.owner).collect::<Vec<_>>(),
        [(0o1750, 0o1751), (7, 0o1751), (8, 0o1751), (7, 0o1751)]
    );
    // The next one takes its place, for GNU tar wholly.
    let parts = [pax(b'g', &[("uid", b"7")]), pax(b'g', &[("gid", b"9")]), file()];
    assert_eq!(agreed(&parts)[0].owner, (0o1750, 9));
    for key in ["path", "linkpath", "size", "GNU.sparse.name", "GNU.volume.filename"] {
        let why = refused(&tar(&[pax(b'g', &[(key, b"1")]), file()]));
        assert!(why.contains("a global header"), "{key}: {why}");
    }
}

#[test]
fn what_is_read_in_more_than_one_way_is_refused() {
    let x = |records: &[(&str, &[u8])]| pax(b'x', records);
    let gnu = || Block::new(b'0', b"file", 0).gnu().sealed();
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("two names", vec![x(&[("path", b"a"), ("path", b"b")]), file()]),
        ("two pax headers", vec![x(&[("path", b"a")]), x(&[("mtime", b"1")]), file()]),
        ("two long names", vec![long(b'L', b"a"), long(b'L', b"b"), gnu()]),
        ("a long name and a pax header", vec![long(b'L', b"a"), x(&[("path", b"b")]), file()]),
        ("a pax header and a long name", vec![x(&[("path", b"b")]), long(b'L', b"a"), gnu()]),
        ("a global header between", vec![x(&[("path", b"b")]), pax(b'g', &[("uid", b"1")]), file()]),
        ("a pax header of a GNU member", vec![x(&[("path", b"b")]), gnu()]),
        ("a long name of a POSIX member", vec![long(b'L', b"b"), file()]),
        ("an extension at the end", vec![x(&[("path", b"b")])]),
        ("a name with a NUL", vec![x(&[("path", b"a\0b")]), file()]),
        ("an empty name", vec![x(&[("path", b"")]), file()]),
        ("no name", vec![member(b'0', b"", b"")]),
        ("a name with tags", vec![x(&[("path", ".\u{e0041}./file".as_bytes())]), file()]),
        ("a link with tags", vec![x(&[("linkpath", "a\u{e0041}".as_bytes())]), link(b'1', b"hard", b"file")]),
        ("a link to nothing", vec![link(b'2', b"soft", b"")]),
        ("a long name with a NUL", vec![long(b'L', b"a\0b"), gnu()]),
        (
            "a long name that goes on in its padding",
            vec![Block::new(b'L', b"././@LongLink", 4).gnu().sealed(), padded(b"long/../name"), gnu()],
        ),
        ("a directory with a size", vec![member(b'5', b"directory/", b"content")]),
        ("a file that is a directory with a size", vec![member(b'0', b"directory/", b"content")]),
        ("a contiguous directory", vec![member(b'7', b"directory/", b"")]),
        ("a link with a size", vec![Block::new(b'1', b"hard", 512).link(b"file").sealed(), file()]),
        ("a link with a size in a pax header", vec![x(&[("size", b"512")]), link(b'2', b"soft", b"file"), file()]),
        ("a prefix of another format", vec![Block::new(b'0', b"file", 0).gnu().put(345, b"pre").sealed()]),
        (
            "a header of star's",
            vec![Block::new(b'0', b"file", 0).put(345, b"pre").put(476, b"14000000000 14000000000 ").sealed()],
        ),
        ("a size below zero", vec![Block::new(b'0', b"file", 0).put(124, &[0xff; 12]).sealed()]),
        ("a size of 2^63", vec![Block::new(b'0', b"file", 0).put(124, b"\x80\0\0\0\x80\0\0\0\0\0\0\0").sealed()]),
        ("a pax size of 2^63", vec![x(&[("size", b"9223372036854775808")]), file()]),
        ("a pax size below zero", vec![x(&[("size", b"-1")]), file()]),
        ("a size with a sign", vec![Block::new(b'0', b"file", 0).put(124, b"+00000000000").sealed()]),
        ("a size behind a NUL", vec![Block::new(b'0', b"file", 0).put(124, b"\x0000000001000").sealed()]),
        ("a user over 32 bits", vec![x(&[("uid", b"4294967296")]), file()]),
        ("Solaris' header", vec![pax(b'X', &[("path", b"a")]), file()]),
        ("an incremental archive's directory", vec![x(&[("GNU.dumpdir", b"Yfile\0\0")]), member(b'5', b"d/", b"")]),
        (
            "a wrong checksum",
            vec![Block::new(b'0', b"file", 0).sealed(), {
                let mut block = file();
                block[0] ^= 1;
                block
            }],
        ),
        ("a lone block of zeros", vec![file(), vec![0; 512], file()]),
        ("text", vec![padded(b"no tar at all")]),
        ("a second tar behind the first", vec![file(), vec![0; 1024], file()]),
    ];
    for (what, parts) in cases {
        let why = refused(&tar(&parts));
        assert!(why.starts_with("the tar has ") && why.contains(", at byte "), "{what}: {why}");
    }
}

#[test]
fn sparse_maps_that_do_not_fit_are_refused() {
    let x = |records: &[(&str, &[u8])]| pax(b'x', records);
    let one = |map: &[u8], real: &[u8], letter: u8, size: usize| {
        let keys: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", real),
        ];
        vec![x(&keys), member(letter, b"GNUSparseFile.0/sparse", &[padded(map), vec![b'd'; size]].concat())]
    };
    let zero = |map: &[u8], entries: &[u8]| {
        let keys: [(&str, &[u8]); 3] = [("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", entries), ("GNU.sparse.map", map)];
        vec![x(&keys), member(b'0', b"sparse", b"d")]
    };
    let right = agreed(&one(b"2\n512\n512\n2000\n0\n", b"2000", b'0', 512));
    assert_eq!(right[0].pieces, [Part::Hole(512), Part::Data(vec![b'd'; 512]), Part::Hole(976)]);
    let right = agreed(&zero(b"8,1", b"1"));
    assert_eq!(right[0].pieces, [Part::Hole(8), Part::Data(vec![b'd'])]);
    let gnu = |length, more: u8| {
        let block = Block::new(b'S', b"sparse", 512).sparse(length, &[(512, 512)]).put(482, &[more]);
        vec![block.sealed(), vec![b'd'; 512]]
    };
    let right = agreed(&gnu(1024, 0));
    assert_eq!((right[0].bytes, &right[0].pieces[..]), (1024, &[Part::Hole(512), Part::Data(vec![b'd'; 512])][..]));
    let cases = [
        ("data that is not told of", one(b"1\n0\n512\n", b"512", b'0', 1024)),
        ("less data than told of", one(b"1\n0\n1024\n", b"1024", b'0', 512)),
        ("no entries", one(b"0\n", b"512", b'0', 512)),
        ("no map", one(b"x\n", b"512", b'0', 512)),
        ("a map without an end", one(&[b"9\n".as_slice(), &b"0\n512\n".repeat(90)].concat()[..512], b"512", b'0', 0)),
        ("entries that go back", one(b"2\n512\n512\n0\n512\n", b"1024", b'0', 1024)),
        ("entries within a block", one(b"2\n0\n100\n512\n412\n", b"1024", b'0', 512)),
        ("an entry past any end", one(b"1\n9223372036854775807\n512\n", b"1", b'0', 512)),
        ("a sparse symbolic link", one(b"1\n0\n512\n", b"512", b'2', 512)),
        ("a sparse file of an old kind", one(b"1\n0\n512\n", b"512", 0, 512)),
        ("fewer entries than announced", zero(b"8,1", b"2")),
        ("an odd map", zero(b"8,1,9", b"1")),
        ("only a name", vec![x(&[("GNU.sparse.name", b"other")]), file()]),
        ("only a length", vec![x(&[("GNU.sparse.realsize", b"9")]), file()]),
        (
            "an unknown version",
            vec![x(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")]), file()],
        ),
        ("a map before its number", vec![x(&[("GNU.sparse.map", b"0,7"), ("GNU.sparse.numblocks", b"1")]), file()]),
        (
            "an offset without a length",
            vec![x(&[("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.offset", b"0")]), file()],
        ),
        ("a map past its file's end", gnu(1023, 0)),
        ("an announced block that tar would not read", gnu(1024, 1)),
        ("GNU's kind in a POSIX header", vec![Block::new(b'S', b"sparse", 0).sealed()]),
    ];
    for (what, parts) in cases {
        let why = refused(&tar(&parts));
        assert!(why.starts_with("the tar has ") && why.contains(", at byte "), "{what}: {why}");
    }
}

#[test]
fn what_would_take_much_memory_is_refused_before_it_comes() {
    let header = |letter, size| Block::new(letter, b"x", size).sealed();
    let long = |size| Block::new(b'L', b"x", size).gnu().sealed();
    for (part, why) in [
        (long((64 << 10) + 2), "a name of more than 64 KiB"),
        (header(b'x', (1 << 20) + 1), "a pax header of more than 1 MiB"),
        (header(b'g', 8 << 30), "a pax header of more than 1 MiB"),
    ] {
        let mut members = Members::default();
        let error = members.feed(&part, &mut Recorder::default()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let name = vec![b'n'; (64 << 10) + 1];
    assert!(refused(&tar(&[pax(b'x', &[("path", &name)]), file()])).contains("a name of more than 64 KiB"));
    assert!(refused(&tar(&[forge::long(b'L', &name), file()])).contains("a name of more than 64 KiB"));
    let longest = &name[1..];
    assert_eq!(agreed(&[pax(b'x', &[("path", longest)]), file()])[0].path, longest);
    let attribute = vec![b'a'; 900 << 10];
    assert_eq!(names(&agreed(&[pax(b'x', &[("SCHILY.xattr.user.a", &attribute), ("path", b"p")]), file()])), ["p"]);
}

#[test]
fn a_checksum_of_signed_bytes_is_one() {
    let block = Block::new(b'0', b"\xff\xfe", 0).put(148, b"        ");
    let bytes = block.sealed();
    let sum: i32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| i32::from(byte.cast_signed())).sum::<i32>() + 256;
    let mut signed = bytes;
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(agreed(&[signed])[0].path, b"\xff\xfe");
}

#[test]
fn nothing_is_read_behind_an_error() {
    let (mut members, mut recorder) = (Members::default(), Recorder::default());
    assert!(members.feed(&padded(b"no tar"), &mut recorder).is_err());
    let error = members.feed(&tar(&[file()]), &mut recorder).unwrap_err();
    assert!(error.to_string().contains("behind an error"), "{error}");
    assert!(!members.is_complete() && recorder.0.is_empty());
}

/// Refuses at its first call of a kind.
struct Refuses(&'static str);

impl Visitor for Refuses {
    fn member(&mut self, _: &Member<'_>) -> Result<()> {
        self.at("member")
    }
    fn data(&mut self, _: &[u8]) -> Result<()> {
        self.at("data")
    }
    fn end(&mut self) -> Result<()> {
        self.at("end")
    }
}

impl Refuses {
    fn at(&self, call: &str) -> Result<()> {
        if self.0 == call { Err(Error::new(Kind::Refused, call)) } else { Ok(()) }
    }
}

#[test]
fn what_a_visitor_refuses_is_the_error() {
    for call in ["member", "data", "end"] {
        let error = Members::default().feed(&tar(&[file()]), &mut Refuses(call)).unwrap_err();
        assert_eq!((error.kind(), error.cause()), (Kind::Refused, call.to_owned()));
    }
}
