//! An artifact that lost its end is never restored, also where its digests and sizes say that it is whole.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::forge::{artifact, backed_up, content_of, damage, forge, member_ends, pack};
use crate::support::{Database, SHARED, Test};

/// Over two blocks of text, so that an artifact has members; rows, quotes, a function, a constraint.
const CONTENTS: &str = r"
    CREATE TABLE long (id int PRIMARY KEY, words text);
    INSERT INTO long SELECT n, (SELECT string_agg(md5((n * 9000 + i)::text), '') FROM generate_series(1, 9000) i) FROM generate_series(1, 8) n;
    CREATE TABLE many (id int PRIMARY KEY REFERENCES long, CHECK (id > 0));
    INSERT INTO many SELECT generate_series(1, 8);
    CREATE TABLE wide AS SELECT i, 'row ' || i AS word FROM generate_series(1, 2000) i;
    CREATE FUNCTION ends_early() RETURNS text LANGUAGE sql AS $$ SELECT 'a;
\.
-- PostgreSQL database dump complete
' $$;
    COMMENT ON TABLE wide IS 'it''s; a -- comment';
    SELECT lo_from_bytea(1, 'large');";

/// One database for all, as none changes it.
static ORIGINAL: LazyLock<Database> = LazyLock::new(|| {
    let database = SHARED.create_database();
    database.psql(CONTENTS);
    database
});

/// Numbers that come again with `CUT_SEED=` what a failed run has printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = || u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
        let seed = std::env::var("CUT_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
        eprintln!("CUT_SEED={seed}");
        Self(seed | 1)
    }

    /// From 0 to below.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[track_caller]
fn is_never_restored(test: &Test, name: &str, what: &str) {
    let ran = test.run(["restore", "app", "--to-database", name]);
    assert!(ran.code == Some(1), "{what}: ended in {:?}\n{}", ran.code, ran.stderr);
    let left: Vec<String> = SHARED.databases().into_iter().filter(|database| database.starts_with(name)).collect();
    assert!(left.is_empty(), "{what}: left {left:?}\n{}", ran.stderr);
}

/// Cuts the artifact itself at random places.
fn cut_packed(compression: &str, times: usize, name: &str) {
    let test = backed_up(&ORIGINAL, compression);
    let whole = artifact(&test);
    let mut random = Random::new();
    for _ in 0..times {
        let at = random.below(whole.len());
        forge(&test, &whole[..at]);
        is_never_restored(&test, name, &format!("{compression} cut at {at} of {}", whole.len()));
    }
}

/// Cuts its text at random places, and packs what is left as if it were all.
fn cut_text(compression: &str, times: usize, name: &str) {
    let test = backed_up(&ORIGINAL, compression);
    let content = content_of(compression, &artifact(&test));
    let mut random = Random::new();
    for _ in 0..times {
        // Behind the last command there is one empty line, which is nothing to lose.
        let at = random.below(content.len() - 2);
        forge(&test, &pack(compression, &content[..at]));
        is_never_restored(&test, name, &format!("{compression}: text cut at {at} of {}", content.len()));
    }
}

#[test]
fn an_artifact_that_is_packed_again_whole_is_restored() {
    for compression in ["gzip", "zstd", "none"] {
        let test = backed_up(&ORIGINAL, compression);
        let content = content_of(compression, &artifact(&test));
        forge(&test, &pack(compression, &content));
        let restored = SHARED.adopt(&format!("{}_whole_{compression}", ORIGINAL.name()));
        test.run(["restore", "app", "--to-database", restored.name()]).ok();
        assert_eq!(restored.dump(), ORIGINAL.dump());
    }
}

#[test]
fn a_gzip_artifact_cut_anywhere_is_never_restored() {
    cut_packed("gzip", 13, "cut_gzip_1");
}

#[test]
fn a_gzip_artifact_cut_anywhere_else_is_never_restored_either() {
    cut_packed("gzip", 12, "cut_gzip_2");
}

#[test]
fn a_text_cut_anywhere_and_packed_again_is_never_restored() {
    cut_text("gzip", 13, "cut_text_1");
}

#[test]
fn a_text_cut_anywhere_else_and_packed_again_is_never_restored_either() {
    cut_text("gzip", 12, "cut_text_2");
}

#[test]
fn a_zstd_artifact_cut_anywhere_is_never_restored() {
    cut_packed("zstd", 4, "cut_zstd");
    cut_text("zstd", 3, "cut_zstd_text");
}

#[test]
fn an_uncompressed_artifact_cut_anywhere_is_never_restored() {
    cut_text("none", 6, "cut_none");
}

#[test]
fn an_artifact_that_ends_with_a_member_or_a_statement_is_never_restored() {
    let test = backed_up(&ORIGINAL, "gzip");
    let whole = artifact(&test);
    let ends = member_ends(&whole);
    assert!(ends.len() > 2, "one member alone: {ends:?}");
    for end in &ends[..ends.len() - 1] {
        forge(&test, &whole[..*end]);
        is_never_restored(&test, "cut_member", &format!("members up to {end}"));
    }
    let content = content_of("gzip", &whole);
    let find = |what: &[u8]| content.windows(what.len()).rposition(|window| window == what).unwrap();
    let data = find(b"\nCOPY public.wide");
    // Inside of the rows, before their end, behind it, and around the trailer.
    let row = data + content[data..].iter().position(|byte| *byte == b'9').unwrap();
    let rows_end = data + content[data..].windows(3).position(|window| window == b"\\.\n").unwrap();
    let trailer = find(b"-- PostgreSQL database dump complete");
    for at in [row, rows_end, rows_end + 3, trailer, trailer + 36, trailer + 37, find(b"\\unrestrict")] {
        forge(&test, &pack("gzip", &content[..at]));
        is_never_restored(&test, "cut_statement", &format!("text up to {at}"));
    }
}

#[test]
fn a_cut_or_changed_artifact_is_told_from_what_its_manifest_says() {
    for compression in ["gzip", "zstd", "none"] {
        let test = backed_up(&ORIGINAL, compression);
        let name = format!("cut_plainly_{compression}");
        let whole = artifact(&test);
        let mut random = Random::new();
        damage(&test, &whole[..random.below(whole.len())]);
        is_never_restored(&test, &name, "cut, and the manifest is right");
        let mut flipped = whole.clone();
        let (at, bit) = (random.below(whole.len()), random.below(8));
        flipped[at] ^= 1 << bit;
        damage(&test, &flipped);
        is_never_restored(&test, &name, &format!("bit {bit} of byte {at} flipped"));
        damage(&test, &[whole.as_slice(), &whole].concat());
        is_never_restored(&test, &name, "twice as long");
        damage(&test, &whole);
        let restored = SHARED.adopt(&name);
        test.run(["restore", "app", "--to-database", restored.name()]).ok();
    }
}
