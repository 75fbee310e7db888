//! What a dump holds, counted as it passes: `list --tables` with growth, and `list --max-unproven`.

use std::fs;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::cluster::Database;
use crate::support::{Planted, Ran, SHARED, Test, sample_database};

const NOW: &str = "2026-06-12T12:00:00Z";

/// The same names hold rows and text that look like parts of a dump; `public.no` is not there.
const AWKWARD: &str = r#"
CREATE SCHEMA "we'ird \ "".s";
CREATE SEQUENCE "we'ird \ "".s"."a""b'c\d', 1, true); --" MINVALUE -9223372036854775808 START 1;
SELECT setval('"we''ird \ "".s"."a""b''c\d'', 1, true); --"', -9223372036854775808);
CREATE SEQUENCE down INCREMENT -1;
CREATE TABLE "we'ird \ "".s"."t.a(b"" from stdin" (id int, "col) FROM stdin;" text);
INSERT INTO "we'ird \ "".s"."t.a(b"" from stdin" SELECT n, E'\\.\n\\.' FROM generate_series(1, 7) n;
CREATE TABLE "line
end" (t text);
CREATE TABLE told (id bigserial, t text);
INSERT INTO told (t) VALUES (E'\\.'), ('\.'), (''), (NULL), ('COPY public.no (id) FROM stdin;'),
    (E'\nSELECT pg_catalog.setval(''public.no'', 1, true);\nSELECT pg_catalog.lo_create(''1'');'), (E'x\r'), (E'ends in \\.');
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 3);
COMMENT ON TABLE told IS '
SELECT pg_catalog.setval(''public.no'', 1, true);
SELECT pg_catalog.lo_create(''1'');
COPY public.no (id) FROM stdin;
\.
';
SET check_function_bodies = off;
CREATE FUNCTION quoted() RETURNS text LANGUAGE plpgsql AS $$ begin
COPY public.no (id) FROM stdin;
SELECT pg_catalog.setval('public.no', 1, true);
SELECT pg_catalog.lo_create('1');
SELECT pg_catalog.lowrite(0, '\x00');
\.
end $$;
CREATE FUNCTION parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC
 SELECT pg_catalog.lo_create('1'); SELECT pg_catalog.lowrite(0, '\x00'); SELECT pg_catalog.setval('public.down', -5, true);
END;
CREATE VIEW looks AS SELECT 'SELECT pg_catalog.lo_create(''1'');' AS t, pg_catalog.setval('public.down', -7, true) AS s;
CREATE RULE both_at_once AS ON DELETE TO told DO (SELECT pg_catalog.setval('public.down', -8, true); SELECT pg_catalog.lo_create('1'));
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (100);
INSERT INTO parts SELECT generate_series(1, 25);
SELECT lo_from_bytea(0, '\x0102'), lo_from_bytea(0, decode(repeat('ab', 40000), 'hex')), lo_create(0);
"#;

/// What the server itself counts, sorted by name.
const TABLES: &str = "SELECT json_agg(json_build_array(nspname, relname, (xpath('/row/c/text()', query_to_xml(
    format('SELECT count(*) AS c FROM ONLY %I.%I', nspname, relname), false, true, '')))[1]::text::bigint)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname !~ '^pg_|^information_schema'";
const SEQUENCES: &str = "SELECT json_agg(json_build_array(nspname, relname,
    (xpath('/row/last_value/text()', x))[1]::text::bigint, (xpath('/row/is_called/text()', x))[1]::text::boolean)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace,
    query_to_xml(format('SELECT * FROM %I.%I', nspname, relname), false, true, '') x WHERE relkind = 'S'";
const LARGE_OBJECTS: &str = "SELECT json_build_object('count', count(*), 'bytes', coalesce(sum(length(lo_get(oid))), 0))
    FROM pg_largeobject_metadata";

fn asked(database: &Database, sql: &str) -> Value {
    by_name(serde_json::from_str(&database.psql(sql)).unwrap())
}

/// The server sorts by bytes of its own encoding.
fn by_name(mut rows: Value) -> Value {
    if let Some(rows) = rows.as_array_mut() {
        rows.sort_by_key(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_str().unwrap().to_owned()));
    }
    rows
}

fn inventory(test: &Test) -> Value {
    serde_json::from_slice(&fs::read(test.stored_one(".inventory.json")).unwrap()).unwrap()
}

/// The fields of each entry, sorted.
fn sorted(entries: &Value, fields: &[&str]) -> Value {
    let row = |entry: &Value| -> Value { fields.iter().map(|field| entry[field].clone()).collect() };
    by_name(entries.as_array().unwrap().iter().map(row).collect())
}

fn holds_what_the_server_counts(test: &Test, database: &Database) {
    test.run(["backup", "app"]).ok();
    let inventory = inventory(test);
    assert_eq!(sorted(&inventory["tables"], &["schema", "name", "rows"]), asked(database, TABLES));
    let states = sorted(&inventory["sequences"], &["schema", "name", "last_value", "is_called"]);
    assert_eq!(states, asked(database, SEQUENCES));
    assert_eq!(inventory["large_objects"], asked(database, LARGE_OBJECTS));
}

fn awkward() -> Database {
    let database = SHARED.create_database();
    database.psql(AWKWARD);
    database
}

/// Ids end in four random characters.
fn shown(ran: &Ran) -> String {
    let mut parts = ran.stdout.split("0000Z-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "0000Z-****" + &part[4..])
}

#[test]
fn an_inventory_holds_what_the_server_counts() {
    let sample = sample_database();
    holds_what_the_server_counts(&Test::of(&sample), &sample);
}

#[test]
fn text_that_looks_like_a_dump_counts_for_nothing() {
    let database = awkward();
    holds_what_the_server_counts(&Test::of(&database), &database);
}

#[test]
fn what_is_quoted_all_over_is_counted_under_its_own_name() {
    let database = awkward();
    let all = Test::of(&database).fake_bin("pg_dump", r#"exec {real} --quote-all-identifiers "$@""#);
    holds_what_the_server_counts(&all, &database);
}

#[test]
fn strings_with_backslash_escapes_are_counted_too() {
    let database = awkward();
    database.psql(&format!("ALTER DATABASE {} SET standard_conforming_strings = off", database.name()));
    holds_what_the_server_counts(&Test::of(&database), &database);
}

#[test]
fn names_in_other_encodings_are_counted_under_their_own() {
    for encoding in ["LATIN1", "WIN1251", "EUC_JP"] {
        let database = SHARED.create_from("template0", &format!("ENCODING '{encoding}' LOCALE 'C'"));
        let names = match encoding {
            "LATIN1" => ["caf\u{e9}", "caf\u{e8}"],
            "WIN1251" => ["\u{437}\u{430}\u{43a}\u{430}\u{437}", "\u{441}\u{447}\u{451}\u{442}"],
            _ => ["\u{6ce8}\u{6587}", "\u{8acb}\u{6c42}"],
        };
        let [one, other] = names;
        database.psql(&format!("CREATE TABLE {one} (n serial); CREATE TABLE {other} AS SELECT generate_series(1, 3) AS n"));
        holds_what_the_server_counts(&Test::of(&database), &database);
    }
}

#[test]
fn partitions_that_are_loaded_by_their_root_add_up() {
    let database = awkward();
    let test = Test::of(&database).fake_bin("pg_dump", r#"exec {real} --load-via-partition-root "$@""#);
    test.run(["backup", "app"]).ok();
    let tables = sorted(&inventory(&test)["tables"], &["schema", "name", "rows"]);
    let parts: Vec<_> = tables.as_array().unwrap().iter().filter(|row| row[1].as_str().unwrap().starts_with("parts")).collect();
    assert_eq!(parts, [&json!(["public", "parts", 25])]);
}

#[test]
fn tables_are_shown_with_their_growth() {
    let database = SHARED.create_database();
    database.psql(
        "CREATE SCHEMA \"Odd.One\"; CREATE TABLE \"Odd.One\".\"a\u{202e}\n\x1b[2Jb\" AS SELECT 1 AS x;
         CREATE TABLE grows AS SELECT generate_series(1, 3000) AS n; CREATE TABLE same (n serial); CREATE TABLE goes AS SELECT 1 AS x;
         CREATE TABLE shrinks AS SELECT generate_series(1, 2) AS n",
    );
    let test = Test::of(&database);
    test.run_at("2026-06-10T03:00:00Z", ["backup"]).ok();
    let ran = test.run_at(NOW, ["list", "--tables"]).ok();
    assert!(ran.stdout.contains("no whole backup before it") && !ran.stdout.contains("new"), "{}", ran.stdout);
    database.psql(
        "INSERT INTO grows SELECT generate_series(1, 123); DROP TABLE goes; DELETE FROM shrinks WHERE n = 1;
         CREATE TABLE \"New\" AS SELECT 1 AS x; SELECT lo_from_bytea(0, '\\x010203')",
    );
    test.run_at("2026-06-11T03:00:00Z", ["backup"]).ok();
    let ran = test.run_at(NOW, ["list", "--tables", "app"]).ok();
    assert_eq!(ran.stderr, "");
    assert_snapshot!(shown(&ran), @r#"
    app: 20260611_030000Z-****, growth since 20260610_030000Z-****
    SCHEMA.TABLE                       ROWS     BYTES        GROWTH
    "Odd.One"."a\u{202e}\n\u{1b}[2Jb"     1       2 B             0
    public."New"                          1       2 B           new
    public.grows                       3123  13.9 KiB  +123 (+4.1%)
    public.same                           0       0 B             0
    public.shrinks                        1       2 B   -1 (-50.0%)
    public.goes                           -         -          gone
    total: 5 tables, 3126 rows, 13.9 KiB; growth +122 (+4.1%); 1 table gone; 1 sequence; 1 large object, 3 B
    "#);
    let item = ran_json(&test, &["list", "--tables", "--json"])["items"][0].clone();
    assert_eq!((&item["unit"], &item["sequences"], &item["large_objects"]), (&json!("app"), &json!(1), &json!(1)));
    let row = |name: &str| item["tables"].as_array().unwrap().iter().find(|table| table["name"] == name).cloned().unwrap();
    assert_eq!((&row("grows")["rows"], &row("grows")["rows_before"]), (&json!(3123), &json!(3000)));
    assert_eq!((&row("goes")["rows"], &row("goes")["rows_before"]), (&json!(null), &json!(1)));
    assert_eq!((&row("New")["rows"], &row("New")["rows_before"]), (&json!(1), &json!(null)));
    assert_eq!(row("a\u{202e}\n\x1b[2Jb")["schema"], "Odd.One");
    let older = ran_json(&test, &["list", "--tables", "--at", "2026-06-10", "--json"])["items"][0].clone();
    assert_eq!((&older["before"], older["tables"].as_array().unwrap().len()), (&json!(null), 5));
}

fn ran_json(test: &Test, arguments: &[&str]) -> Value {
    test.run_at(NOW, arguments).ok().json()
}

#[test]
fn an_inventory_that_is_damaged_or_missing_is_told() {
    let test = Test::new().config(CONFIG);
    let older = Planted::new("app", "20260610_030000Z-aaa1").into(&test.storage());
    let newer = Planted::new("app", "20260611_030000Z-aaa2").into(&test.storage());
    let ran = test.run_at(NOW, ["list", "--tables"]).ok();
    assert!(ran.stdout.contains("public.tale     40"), "{}", ran.stdout);

    let path = newer.with_extension("inventory.json");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, String::from_utf8(whole.clone()).unwrap().replace("40", "41")).unwrap();
    let ran = test.run_at(NOW, ["list", "--tables"]).fails(3).says("its digest differs").says("hint: ");
    assert_eq!(ran.stdout, "");
    fs::remove_file(&path).unwrap();
    test.run_at(NOW, ["list", "--tables"]).fails(3).says("aaa2.inventory.json is missing");
    test.run_at(NOW, ["list", "--tables", "--at", "aaa1"]).ok();

    // A manifest of a version that counted nothing.
    let manifest = newer.with_extension("manifest.json");
    let mut without: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    without.as_object_mut().unwrap().remove("inventory");
    fs::write(&manifest, serde_json::to_vec_pretty(&without).unwrap()).unwrap();
    let ran = test.run_at(NOW, ["list", "--tables", "--json"]).fails(3).json();
    assert_eq!(ran["problems"][0]["cause"], "20260611_030000Z-aaa2 has no inventory: what it holds was not counted");
    assert!(ran["problems"][0]["hint"].is_string());

    // The newest that is whole is shown, and the other told.
    fs::remove_file(newer.with_extension("sql.gz")).unwrap();
    let ran = test.run_at(NOW, ["list", "--tables"]).fails(3).says("aaa2.sql.gz is missing");
    assert!(ran.stdout.starts_with("app: 20260610_030000Z-aaa1"), "{}", ran.stdout);
    fs::remove_file(older.with_extension("sql.gz")).unwrap();
    test.run_at(NOW, ["list", "--tables"]).fails(3).says("no backup of it is whole");
}

const CONFIG: &str = "
version: 1
host: web1
state_dir: {state}
storages:
  local: { type: local, path: '{storage}' }
targets:
  - { name: app, type: postgres, database: app }
  - { name: old, type: postgres, database: old, enabled: false }
";

#[test]
fn a_monitor_hears_of_what_was_not_proven_for_too_long() {
    let test = Test::new().config(CONFIG);
    let unproven = ["list", "--max-unproven", "8d"];
    test.run_at(NOW, unproven).fails(1).says("app: max-unproven: no whole backup was ever proven").says("restore --drill app");
    let files = Planted::new("app", "20260601_030000Z-aaa1").into(&test.storage());
    Planted::new("old", "20260601_030000Z-aaa2").into(&test.storage());
    let ran = test.run_at(NOW, unproven).fails(1);
    assert!(ran.stdout.contains("aaa1") && !ran.stderr.contains("error: old"), "{}", ran.stderr);

    let proof = |kind: &str| fs::write(files.with_extension(kind), "{}").unwrap();
    proof("drill.20270101_000000Z.ok");
    test.run_at(NOW, unproven).fails(1).says("its only proof is dated in the future: 2027-01-01");
    fs::remove_file(files.with_extension("drill.20270101_000000Z.ok")).unwrap();
    proof("drill.20260604_120000Z.ok");
    test.run_at(NOW, unproven).ok();
    let ran = test.run_at("2026-06-12T12:00:01Z", ["list", "--max-unproven", "8d", "--json"]).fails(1).json();
    assert_eq!(ran["problems"][0]["step"], "max-unproven");
    assert_eq!(ran["problems"][0]["target"], "app");

    // A backup that was proven and then found bad is none that counts.
    proof("verify.20260610_000000Z.bad");
    test.run_at(NOW, unproven).fails(1).says("ever proven");
    proof("verify.20260611_000000Z.ok");
    test.run_at(NOW, unproven).ok();
    // A newer one without a proof takes nothing away; both questions are answered.
    Planted::new("app", "20260612_030000Z-aaa3").into(&test.storage());
    test.run_at(NOW, ["list", "--max-unproven", "8d", "--max-age", "26h"]).ok();
    let ran = test.run_at("2026-07-12T12:00:00Z", ["list", "--max-unproven", "8d", "--max-age", "26h", "--tables"]).fails(1);
    ran.says("app: max-age: ").says("app: max-unproven: the newest proof of a whole backup is 31d");
}

#[test]
fn what_verify_proves_a_moment_ago_counts() {
    let test = Test::new().config(CONFIG);
    Planted::new("app", "20260601_030000Z-aaa1").into(&test.storage());
    test.run_at(NOW, ["list", "--verify", "--max-unproven", "1h"]).ok();
    test.run_at(NOW, ["list", "--max-unproven", "1h"]).ok();
}
