//! Format `custom`: pg_dump's own archive, there and back, one object after another and several at once.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::forge::{artifact, content_of, databases_of, forge, manifest, pack};
use crate::roundtrip::{assert_same, awkward, drop_subscriptions};
use crate::support::cluster::{SUPERUSER, binaries};
use crate::support::tool::files_below;
use crate::support::{Cluster, Database, SHARED, Signal, Test, eventually, is_root, sample_database};

/// A test whose target is this database, with one backup in format custom.
fn archived(database: &Database) -> Test {
    let test = configured(database);
    test.run(["-q", "backup"]).ok();
    test
}

fn configured(database: &Database) -> Test {
    Test::of(database).target_option("format: custom").target_option(&format!("client_bin: {}", binaries().display()))
}

/// The two ways back.
const WAYS: [&[&str]; 2] = [&[], &["--jobs", "3"]];

fn restore(name: &str, way: &[&str]) -> Vec<String> {
    ["restore", "app", "--to-database", name].iter().chain(way).map(|word| (*word).to_owned()).collect()
}

/// Neither a database nor a session nor a spool.
#[track_caller]
fn nothing_is_left(test: &Test, cluster: &Cluster, name: &str, what: &str) {
    assert_eq!(databases_of(cluster, name), [""; 0], "{what}");
    let ours = format!("SELECT application_name, query FROM pg_stat_activity WHERE starts_with(datname, '{name}')");
    eventually("its sessions are gone", || cluster.psql("postgres", &ours).is_empty());
    assert_eq!(spools(test), [""; 0], "{what}");
}

/// What is in `state_dir`, but for locks.
fn spools(test: &Test) -> Vec<String> {
    files_below(&test.path("state")).into_iter().filter(|path| !path.starts_with("locks/")).collect()
}

/// Tables of several blocks, rows that look like something else, large objects, a constraint.
static ORIGINAL: LazyLock<Database> = LazyLock::new(|| {
    let database = SHARED.create_database();
    database.psql(
        r"CREATE TABLE many (id int PRIMARY KEY, words text);
          INSERT INTO many SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 2000) n;
          CREATE TABLE few (id int REFERENCES many); INSERT INTO few SELECT generate_series(1, 8);
          CREATE TABLE odd (t text); INSERT INTO odd VALUES (E'\\.'), (E'a\n\\.\nCOPY x FROM stdin;'), (NULL), ('');
          CREATE TABLE empty (); CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES;
          CREATE SEQUENCE s; SELECT nextval('s');
          SELECT lo_from_bytea(1, 'large'), lo_from_bytea(2, '');",
    );
    database
});

#[test]
fn awkward_contents_come_back_from_an_archive_both_ways() {
    let (cluster, database) = awkward(&["log_statement=all"]);
    let test = archived(&database);
    assert!(test.stored_one(".dump.gz").exists());
    assert_eq!(manifest(&test)["format"], "custom");
    let asked = || cluster.log().matches("FROM public.asked").count();
    let before = asked();
    for (number, way) in WAYS.iter().enumerate() {
        let restored = cluster.adopt(&format!("back_{number}"));
        test.run(restore(restored.name(), way)).ok().says("is not refreshed").says("REFRESH MATERIALIZED VIEW");
        assert_eq!(asked(), before, "the restore asked the other server");
    }
    for (number, way) in WAYS.iter().enumerate() {
        let restored = cluster.adopt(&format!("back_{number}"));
        restored
            .psql("REFRESH MATERIALIZED VIEW \"far; --\".\"copied v\u{e9}\"; REFRESH MATERIALIZED VIEW \"far; --\".of_copied");
        eprintln!("{way:?}");
        assert_same(&database.dump(), &restored.dump());
    }
    assert_eq!(spools(&test), [""; 0]);
    drop_subscriptions(&cluster);
}

#[test]
fn strings_with_escapes_come_back_from_an_archive_both_ways() {
    let (cluster, database) = awkward(&["standard_conforming_strings=off", "backslash_quote=on", "escape_string_warning=off"]);
    let test = archived(&database);
    for (number, way) in WAYS.iter().enumerate() {
        let restored = cluster.adopt(&format!("back_{number}"));
        test.run(restore(restored.name(), way)).ok();
        restored
            .psql("REFRESH MATERIALIZED VIEW \"far; --\".\"copied v\u{e9}\"; REFRESH MATERIALIZED VIEW \"far; --\".of_copied");
        assert_same(&database.dump(), &restored.dump());
    }
    drop_subscriptions(&cluster);
}

#[test]
fn owners_and_privileges_are_left_out_of_an_archive_both_ways() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql("CREATE ROLE someone; CREATE TABLE t (i int); ALTER TABLE t OWNER TO someone; GRANT SELECT ON t TO PUBLIC");
    let test = archived(&database);
    for (number, way) in WAYS.iter().enumerate() {
        let restored = cluster.adopt(&format!("back_{number}"));
        let mut words = restore(restored.name(), way);
        words.extend(["--no-owner", "--no-privileges"].map(str::to_owned));
        test.run(words).ok();
        assert_eq!(
            restored.psql("SELECT relowner::regrole, relacl IS NULL FROM pg_class WHERE relname = 't'"),
            format!("{SUPERUSER}|t")
        );
    }
}

#[test]
fn amounts_of_money_and_names_in_another_encoding_come_back_both_ways() {
    let database = SHARED.create_from("template0", "ENCODING 'LATIN1' LOCALE 'C'");
    database.psql("CREATE TABLE \"t \u{e9}\" (m money, \"\u{df} x\" text); INSERT INTO \"t \u{e9}\" VALUES (1.50, '\u{e9};')");
    let test = archived(&database);
    for (number, way) in WAYS.iter().enumerate() {
        let restored = SHARED.adopt(&format!("{}_back_{number}", database.name()));
        test.run(restore(restored.name(), way)).ok();
        assert_same(&database.dump(), &restored.dump());
    }
}

#[test]
fn stock_tools_alone_read_the_archive() {
    let sample = sample_database();
    let test = archived(&sample);
    test.run(["restore", "app", "--output", test.path("out.dump").to_str().unwrap()]).ok();
    let listed = Command::new(binaries().join("pg_restore")).arg("-l").arg(test.path("out.dump")).output().unwrap();
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("TABLE DATA"));

    let restored = SHARED.create_database();
    let client = SHARED.client("pg_restore", restored.name());
    let artifact = test.stored_one(".dump.gz");
    let script = format!(
        "gunzip -c '{}' | '{}' --exit-on-error -d \"$PGDATABASE\"",
        artifact.display(),
        client.get_program().to_str().unwrap()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_same(&sample.dump(), &restored.dump());
}

fn inventory(test: &Test) -> Value {
    let mut inventory: Value = serde_json::from_slice(&fs::read(test.stored_one(".inventory.json")).unwrap()).unwrap();
    // An archive is in another order where there is a sequence's owner.
    for part in ["tables", "sequences"] {
        if let Some(items) = inventory[part].as_array_mut() {
            items.sort_by_key(ToString::to_string);
        }
    }
    inventory
}

#[test]
fn the_inventory_is_that_of_a_plain_dump() {
    let (cluster, database) = awkward(&[]);
    let custom = archived(&database);
    let plain = Test::of(&database);
    plain.run(["-q", "backup"]).ok();
    assert_eq!(inventory(&custom), inventory(&plain));
    assert_eq!(manifest(&custom)["inventory"]["rows"], manifest(&plain)["inventory"]["rows"]);
    drop_subscriptions(&cluster);
}

#[test]
fn a_cut_archive_is_never_restored() {
    let test = archived(&ORIGINAL);
    let content = content_of("gzip", &artifact(&test));
    let data_from = memchr_of(&content, b"\\.\n\n\n");
    let places = [3, 60, 400, data_from / 2, data_from, content.len() / 2, content.len() - 30, content.len() - 1];
    for (at, way) in places.iter().flat_map(|at| WAYS.map(|way| (*at, way))) {
        forge(&test, &pack("gzip", &content[..at]));
        let ran = test.run(restore("cut_custom", way)).fails(1);
        nothing_is_left(&test, &SHARED, "cut_custom", &format!("cut at {at} of {}: {}", content.len(), ran.stderr));
    }
    // Packed again whole, it is restored.
    forge(&test, &pack("gzip", &content));
    let restored = SHARED.adopt("uncut_custom");
    test.run(restore("uncut_custom", WAYS[0])).ok();
    assert_same(&ORIGINAL.dump(), &restored.dump());
}

fn memchr_of(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}

#[test]
fn an_archive_with_a_flipped_bit_is_refused_or_restored_whole_but_never_in_between() {
    let test = archived(&ORIGINAL);
    let content = content_of("gzip", &artifact(&test));
    let mut refused = 0;
    for step in 0..14 {
        let mut flipped = content.clone();
        let at = (step * 7919 + 11) % content.len().min(12_000);
        flipped[at] ^= 1 << (step % 8);
        forge(&test, &pack("gzip", &flipped));
        let name = format!("flipped_custom_{step}");
        let restored = SHARED.adopt(&name);
        let ran = test.run(restore(&name, WAYS[step % 2]));
        if ran.code == Some(0) {
            assert!(restored.exists());
        } else {
            refused += 1;
            nothing_is_left(&test, &SHARED, &name, &format!("flipped at {at}: {}", ran.stderr));
        }
    }
    assert!(refused > 0);
}

/// Puts another text in the place of one in an archive's table of contents, with its length.
fn replaced(content: &[u8], old: &str, new: &str) -> Vec<u8> {
    let sized = |text: &str| [&[0], u32::try_from(text.len()).unwrap().to_le_bytes().as_slice(), text.as_bytes()].concat();
    let old = sized(old);
    let at = memchr_of(content, &old);
    [&content[..at], &sized(new), &content[at + old.len()..]].concat()
}

#[test]
fn an_archive_that_acts_outside_is_refused_both_ways() {
    let other = SHARED.create_database();
    let test = archived(&ORIGINAL);
    let content = content_of("gzip", &artifact(&test));
    let table = "CREATE TABLE public.bare (\n);\n";
    let drop_other = format!("DROP DATABASE {};\n", other.name());
    let hostile = [
        replaced(&content, table, &format!("{table}{drop_other}")),
        replaced(&content, "COPY public.few (id) FROM stdin;\n", &format!("{drop_other}COPY public.few (id) FROM stdin;\n")),
        replaced(&content, "DROP TABLE public.bare;\n", &format!("DROP TABLE public.bare OWNER TO postgres; {drop_other}")),
        replaced(&content, "SELECT pg_catalog.set_config('search_path', '', false);\n", &drop_other),
    ];
    for (number, hostile) in hostile.iter().enumerate() {
        for way in WAYS {
            // What drops an object is for the owners that pg_restore sets by itself.
            if number == 2 && way.is_empty() {
                continue;
            }
            forge(&test, &pack("gzip", hostile));
            let ran = test.run(restore("hostile_custom", way)).fails(1).says("acts outside");
            nothing_is_left(&test, &SHARED, "hostile_custom", &ran.stderr);
            assert!(other.exists(), "{number}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_pg_restore_that_fails_in_any_way_is_told() {
    let wrapped = |script: &str| {
        let test = Test::of(&ORIGINAL).target_option("format: custom").target_option("client_bin: '{bin}'");
        let version = r#"[ "$1" = --version ] && exec {real} --version"#;
        let test = test.fake_bin("pg_restore", &format!("{version}\n{script}"));
        test.run(["-q", "backup"]).ok();
        test
    };
    for (script, said) in [
        ("head -c 20000 | {real} \"$@\"; exit 1", "end of file"),
        ("{real} \"$@\" | head -c 5000; kill -9 $$", "killed by signal 9"),
        ("{real} \"$@\" >{dir}/text; head -c 5000 {dir}/text", "does not end as a whole one does"),
        ("cat >/dev/null", "does not end as a whole one does"),
        ("head -c 1000 >/dev/null; exit 0", "before the end of the archive"),
        ("echo 'pg_restore: error: no memory today' >&2; exit 3", "no memory today"),
    ] {
        let test = wrapped(script);
        let ran = test.run(restore("failed_custom", WAYS[0])).fails(1);
        assert!(ran.stderr.contains(said), "{script}: {}", ran.stderr);
        nothing_is_left(&test, &SHARED, "failed_custom", script);
    }
    let test = wrapped("echo 'pg_restore: error: no memory today' >&2; exit 1");
    test.run(restore("failed_custom", WAYS[1])).fails(1).says("loading with pg_restore").says("no memory today");
    nothing_is_left(&test, &SHARED, "failed_custom", "with jobs");
}

#[test]
fn what_the_server_refuses_on_load_is_told_in_its_words_both_ways() {
    let database = SHARED.create_database();
    database.psql(
        "CREATE FUNCTION is_good(int) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE TABLE t (i int CONSTRAINT must_be_good CHECK (is_good(i))); INSERT INTO t VALUES (1);
         CREATE OR REPLACE FUNCTION is_good(int) RETURNS bool LANGUAGE sql AS 'SELECT false'",
    );
    let test = archived(&database);
    for way in WAYS {
        test.run(restore("unloadable_custom", way)).fails(1).says("violates check constraint \"must_be_good\"");
        nothing_is_left(&test, &SHARED, "unloadable_custom", "");
    }
}

#[test]
fn a_signal_during_the_load_leaves_nothing_both_ways() {
    let database = SHARED.create_database();
    database.psql(
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
         CREATE TABLE t AS SELECT 1 AS i; CREATE INDEX ON t (f(i));
         CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(600); RETURN $1; END'",
    );
    let test = archived(&database);
    for (number, way) in WAYS.iter().enumerate() {
        let name = format!("signalled_custom_{number}");
        let running = test.spawn(restore(&name, way));
        let at_index =
            format!("SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, '{name}') AND query LIKE 'CREATE INDEX%'");
        eventually("the load is at its index", || SHARED.psql("postgres", &at_index) == "1");
        running.kill(Signal::TERM);
        running.wait().fails(143);
        nothing_is_left(&test, &SHARED, &name, "");
    }
}

#[test]
fn a_spool_without_room_is_refused_before_anything_is_made() {
    if !is_root() {
        return;
    }
    let test = archived(&ORIGINAL);
    let state = test.path("state");
    let mount = |words: &[&str]| assert!(Command::new(words[0]).args(&words[1..]).arg(&state).status().unwrap().success());
    mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    let refused = test.run(restore("roomless_custom", WAYS[1]));
    let dry = test.run(restore("roomless_custom", &["--jobs", "3", "--dry-run"]));
    let restored = SHARED.adopt("roomless_custom");
    let one = test.run(restore("roomless_custom", &["--jobs", "1"]));
    mount(&["umount"]);
    refused.fails(2).says(" MiB, and ").says("64.0 KiB free").says("--jobs 1");
    dry.fails(2);
    one.ok();
    assert!(restored.exists());
}

#[test]
fn jobs_are_no_matter_of_a_plain_dump() {
    let database = SHARED.create_database();
    let test = Test::of(&database);
    test.run(["-q", "backup"]).ok();
    let restored = SHARED.adopt(&format!("{}_back", database.name()));
    test.run(restore(restored.name(), WAYS[1])).ok().says("--jobs has no effect");
}

/// The real pg_dump's answer to `--version`, and this instead of an archive.
fn dumping(script: &str) -> Test {
    let version = r#"[ "$1" = --version ] && exec {real} --version"#;
    Test::of(&ORIGINAL).target_option("format: custom").fake_bin("pg_dump", &format!("{version}\n{script}"))
}

#[test]
fn an_archive_that_is_not_whole_is_no_backup() {
    for (script, said) in [
        ("exit 0", "wrote nothing"),
        (r#"{real} "$@" >{dir}/whole; head -c $(($(wc -c <{dir}/whole) / 2)) {dir}/whole"#, "do not end as a whole dump does"),
        (r#"{real} "$@"; exit 3"#, "exited with code 3"),
        (r#"{real} "$@" | sed '1s/^PGDMP\x01./PGDMP\x01\x63/'"#, "version 1.99"),
        (r#"{real} "$@"; echo more"#, "the archive has"),
        (r#"exec {real} "$@" --compress=3"#, "compressed"),
        ("exec {real} --format=plain", "not an archive's"),
    ] {
        let test = dumping(script);
        let ran = test.run(["backup"]).fails(1);
        assert!(ran.stderr.contains(said), "{script}: {}", ran.stderr);
        assert_eq!(test.stored(), Vec::<String>::new(), "{script}");
    }
}
