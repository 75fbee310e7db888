//! Archives made by hand, as pg_dump lays them out.

use proptest::prelude::*;

use super::{Judge, Reader, Tally};
use crate::error::{Kind, Result};
use crate::source::Inventory;
use crate::source::postgres::filter::Omit;
use crate::source::postgres::spelling::Spelling;

/// Writes an archive.
struct Writer {
    minor: u8,
    entries: Vec<Vec<u8>>,
    blocks: Vec<u8>,
}

fn int(value: i64) -> Vec<u8> {
    let mut bytes = vec![u8::from(value < 0)];
    bytes.extend_from_slice(&u32::try_from(value.abs()).unwrap().to_le_bytes());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [int(text.len().try_into().unwrap()), text.into()].concat()
}

impl Writer {
    /// One that begins as every archive does.
    fn new(minor: u8) -> Self {
        let mut writer = Self { minor, entries: Vec::new(), blocks: Vec::new() };
        writer.entry("ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n", "", None);
        writer.entry("STDSTRINGS", "STDSTRINGS", "SET standard_conforming_strings = 'on';\n", "", None);
        writer.entry("SEARCHPATH", "SEARCHPATH", "SELECT pg_catalog.set_config('search_path', '', false);\n", "", None);
        writer
    }

    /// An entry, which has data where it has a COPY; its number.
    fn entry(&mut self, desc: &str, tag: &str, defn: &str, drop: &str, copy: Option<&str>) -> i64 {
        let id = i64::try_from(self.entries.len()).unwrap() + 1;
        let null = int(-1);
        let relkind = if self.minor >= 16 { int(114) } else { Vec::new() };
        let state = if copy.is_some() { 1 } else { 3 };
        let parts = [
            [int(id), int(copy.is_some().into()), text("0"), text("0"), text(tag), text(desc), int(2)].concat(),
            [text(defn), text(drop), copy.filter(|copy| !copy.is_empty()).map_or(null.clone(), text)].concat(),
            [text("public"), null.clone(), text("heap"), relkind, text("me"), text("false"), text("7"), null].concat(),
            vec![state, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        self.entries.push(parts.concat());
        id
    }

    /// A table, its rows in pieces.
    fn table(&mut self, copy: &str, pieces: &[&str]) -> &mut Self {
        let id = self.entry("TABLE DATA", "t", "", "", Some(copy));
        self.blocks.extend([vec![1], int(id)].concat());
        pieces.iter().chain([&"\\.\n\n\n"]).for_each(|piece| self.blocks.extend(text(piece)));
        self.blocks.extend(int(0));
        self
    }

    fn large_objects(&mut self, objects: &[&str]) -> &mut Self {
        let id = self.entry("BLOBS", "BLOBS", "", "", Some(""));
        self.blocks.extend([vec![3], int(id)].concat());
        for (number, object) in objects.iter().enumerate() {
            self.blocks.extend(int(4711 + i64::try_from(number).unwrap()));
            if !object.is_empty() {
                self.blocks.extend(text(object));
            }
            self.blocks.extend(int(0));
        }
        self.blocks.extend(int(0));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let compression = if self.minor >= 15 { vec![0] } else { int(0) };
        let time = [1, 2, 3, 4, 5, 126, 0].map(int).concat();
        let head = [b"PGDMP\x01".to_vec(), vec![self.minor, 0, 4, 8, 1], compression, time, text("app"), text("15"), text("15")];
        let count = int(self.entries.len().try_into().unwrap());
        [head.concat(), count, self.entries.concat(), self.blocks.clone()].concat()
    }
}

fn sample(minor: u8) -> Vec<u8> {
    let mut writer = Writer::new(minor);
    writer.entry("DATABASE", "app", "CREATE DATABASE app;\n", "DROP DATABASE app;\n", None);
    writer.entry("FUNCTION", "f()", "CREATE FUNCTION f() ... AS 'it''s;';\n", "DROP FUNCTION public.f();\n", None);
    writer.table("COPY public.a (x, \"y z\") FROM stdin;\n", &["1\tx\n", "2\\n\\\\.", "\n3\t\n"]);
    writer.entry("SEQUENCE SET", "s", "SELECT pg_catalog.setval('public.s', 7, true);\n", "", None);
    writer.table("COPY public.\"b \"\"c\" FROM stdin;\n", &[]);
    writer.large_objects(&["\0\x01", "", "abc"]);
    writer.table("COPY public.a (x) FROM stdin;\n", &["4\n"]);
    writer.bytes()
}

fn counted(bytes: &[u8]) -> Result<(bool, Inventory)> {
    let mut tally = Tally::default();
    tally.feed(bytes)?;
    Ok((tally.is_complete(), tally.inventory(&Spelling::default())))
}

#[test]
fn rows_and_large_objects_of_every_known_version_are_counted() {
    for minor in [14, 15, 16] {
        let (whole, inventory) = counted(&sample(minor)).unwrap();
        assert!(whole, "1.{minor}");
        let tables: Vec<_> = inventory.tables.iter().map(|table| (table.name.as_str(), table.rows, table.bytes)).collect();
        assert_eq!(tables, [("a", 4, 16), ("b \"c", 0, 0)]);
        let large = inventory.large_objects.unwrap();
        assert_eq!((large.count, large.bytes), (3, 5));
    }
}

#[test]
fn a_length_with_the_byte_of_a_line_end_in_it_is_no_line() {
    let row = |bytes: usize| "x".repeat(bytes - 1) + "\n";
    let (ten, hundreds, thousands) = (row(10), row(266), row(2560));
    // Rows are one piece each as pg_dump writes them; several in one, one in several, and empty ones count alike.
    let pieces = [ten.as_str(), &hundreds, &thousands, "\n", "1\n2\n3\n", "be", "gin", "end\n", "\n", &ten];
    let mut writer = Writer::new(14);
    writer.table("COPY public.t (x) FROM stdin;\n", &pieces).table("COPY public.\"none\" (x) FROM stdin;\n", &[]);
    let bytes = writer.bytes();
    let length = pieces.concat().len() as u64;
    for size in [1, 2, 7, 64, bytes.len()] {
        let mut tally = Tally::default();
        bytes.chunks(size).for_each(|piece| tally.feed(piece).unwrap());
        assert!(tally.is_complete());
        let tables: Vec<_> =
            tally.inventory(&Spelling::default()).tables.into_iter().map(|t| (t.name, t.rows, t.bytes)).collect();
        assert_eq!(tables, [("t".to_owned(), 10, length), ("none".to_owned(), 0, 0)], "in pieces of {size}");
    }
}

#[test]
fn an_archive_that_is_cut_anywhere_is_not_whole() {
    for minor in [14, 16] {
        let whole = sample(minor);
        for end in 0..whole.len() {
            assert!(!counted(&whole[..end]).unwrap().0, "cut at {end} of {}", whole.len());
        }
    }
}

#[test]
fn an_archive_without_data_is_whole_at_the_end_of_its_entries() {
    let bytes = Writer::new(15).bytes();
    assert!(counted(&bytes).unwrap().0);
    assert!(!counted(&bytes[..bytes.len() - 1]).unwrap().0);
}

#[test]
fn bytes_behind_the_last_block_are_no_archives() {
    let more = [sample(15).as_slice(), b"\x01\x00\x63\x00\x00\x00"].concat();
    assert_eq!(counted(&more).unwrap_err().kind(), Kind::Damaged);
    assert_eq!(counted(&[sample(15), sample(15)].concat()).unwrap_err().kind(), Kind::Damaged);
}

#[test]
fn what_cannot_be_proven_is_refused_with_a_way_out() {
    let unknown = counted(&sample(17)).unwrap_err();
    assert!(unknown.to_string().contains("version 1.17"), "{unknown}");
    assert!(unknown.hint_text().unwrap().contains("format: plain"));
    let mut compressed = sample(15);
    compressed[11] = 1;
    assert!(counted(&compressed).unwrap_err().to_string().contains("compressed"));
    assert_eq!(counted(b"--\n-- PostgreSQL database dump\n--\n").unwrap_err().kind(), Kind::Damaged);
    let mut unmarked = Writer::new(16);
    unmarked.table("COPY t FROM stdin;\n", &["1\n"]);
    let at = unmarked.blocks.len() - 9;
    unmarked.blocks[at] = b'x';
    assert!(counted(&unmarked.bytes()).unwrap_err().to_string().contains("do not end as a COPY does"));
}

fn judged(bytes: &[u8], omit: Omit) -> Result<Judge> {
    let mut judge = Judge::new(omit);
    judge.feed(bytes)?;
    assert!(judge.is_complete());
    Ok(judge)
}

#[test]
fn what_is_loaded_is_listed_with_the_places_of_its_data() {
    let bytes = sample(16);
    let judge = judged(&bytes, Omit::default()).unwrap();
    assert_eq!(judge.list(), "5;\n6;\n7;\n8;\n9;\n10;\n");
    let mut patched = bytes.clone();
    for (place, offset) in judge.offsets() {
        let place = usize::try_from(place).unwrap();
        let at = usize::try_from(u64::from_le_bytes(offset[1..].try_into().unwrap())).unwrap();
        assert!(bytes[place] == 1 && matches!(bytes[at], 1 | 3), "{place} {at}");
        patched[place..place + 9].copy_from_slice(&offset);
    }
    assert_eq!(judge.offsets().count(), 4);
    assert!(counted(&patched).unwrap().0);
}

#[test]
fn a_refresh_that_asks_another_server_is_not_listed() {
    let mut writer = Writer::new(15);
    writer.entry("MATERIALIZED VIEW DATA", "far", "REFRESH MATERIALIZED VIEW public.far;\n", "", None);
    writer.entry("MATERIALIZED VIEW DATA", "near", "REFRESH MATERIALIZED VIEW public.near;\n", "", None);
    let judge = judged(&writer.bytes(), Omit { refreshes: vec!["public.far".into()], ..Omit::default() }).unwrap();
    assert_eq!((judge.list().as_str(), judge.omitted_refreshes()), ("5;\n", ["public.far".to_owned()].as_slice()));
}

#[test]
fn what_acts_outside_is_refused_wherever_an_archive_holds_it() {
    let hostile: [&dyn Fn(&mut Writer); 11] = [
        &|archive| _ = archive.entry("TABLE", "t", "CREATE TABLE t (); DROP DATABASE live;\n", "", None),
        &|archive| _ = archive.entry("DEFAULT", "t", "ALTER SYSTEM SET a = 1;\n", "", None),
        // pg_restore sends each alone; as one text they would look like one statement.
        &|archive| _ = archive.entry("TABLE", "t", "SELECT", "", None),
        &|archive| _ = archive.entry("TABLE", "t", "SELECT '", "", None),
        // It sets owners with these words.
        &|archive| _ = archive.entry("FUNCTION", "t", "", "DROP DATABASE live;\n", None),
        &|archive| _ = archive.entry("FUNCTION", "t", "", "DROP TABLE t; DROP DATABASE live; ALTER TABLE t;\n", None),
        &|archive| _ = archive.entry("SEARCHPATH", "t", "DROP DATABASE live;\n", "", None),
        &|archive| _ = archive.entry("BLOB METADATA", "1..2", "1\n2'); DROP DATABASE live; --\n", "", None),
        &|archive| {
            let grant = "GRANT ALL ON LARGE OBJECT 1 TO \"a\nDROP DATABASE x;\n\";\n";
            archive.entry("ACL", "LARGE OBJECTS 1..2", grant, "", None);
        },
        &|archive| _ = archive.table("DROP DATABASE live; COPY t FROM stdin;\n", &["1\n"]),
        &|archive| _ = archive.table("COPY t FROM stdin;\n", &["1\n\\.\nDROP DATABASE live;\n"]),
    ];
    for (number, make) in hostile.iter().enumerate() {
        let mut archive = Writer::new(16);
        make(&mut archive);
        let mut judge = Judge::new(Omit::default());
        let error = judge.feed(&archive.bytes()).unwrap_err();
        assert_eq!(error.kind(), Kind::Check, "{number}: {error}");
    }
}

#[test]
fn an_archive_that_says_late_or_twice_how_strings_are_read_is_refused() {
    let strings = "SET standard_conforming_strings = 'off';\n";
    let mut archive = Writer::new(15);
    archive.entry("STDSTRINGS", "STDSTRINGS", strings, "", None);
    assert!(Judge::new(Omit::default()).feed(&archive.bytes()).is_err());
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_into_pieces_changes_nothing(cuts in proptest::collection::vec(1_usize..60, 1..40)) {
        let bytes = sample(16);
        let mut tally = Tally::default();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            tally.feed(piece).unwrap();
            rest = tail;
            if rest.is_empty() { break; }
        }
        prop_assert!(tally.is_complete());
        prop_assert_eq!(tally.inventory(&Spelling::default()), counted(&bytes).unwrap().1);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(at in 0_usize..1000, with in any::<[u8; 6]>(), piece in 1_usize..400) {
        let mut bytes = sample(14);
        let at = at % (bytes.len() - 6);
        bytes[at..at + 6].copy_from_slice(&with);
        let (mut reader, mut judge) = (Reader::default(), Judge::new(Omit::default()));
        let _ = bytes.chunks(piece).try_for_each(|piece| reader.feed(piece, &mut ()));
        let _ = bytes.chunks(piece).try_for_each(|piece| judge.feed(piece));
    }
}
