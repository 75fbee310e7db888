//! There and back: what was backed up and what was restored dump alike, with this program and with stock tools alone.

use std::process::Command;

use crate::forge::{backed_up, databases_of, manifest, target_on};
use crate::support::cluster::{SUPERUSER, quoted};
use crate::support::{Cluster, Database, SHARED, Test, comparable, repository, sample_database};

/// Owner, encoding and locale, as far as a restore promises them.
fn properties(database: &str, cluster: &Cluster) -> String {
    let sql = "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider,
               to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale' FROM pg_database d WHERE datname = current_database()";
    cluster.psql(database, sql)
}

/// What pg_dump says of a database in its own encoding.
fn raw_dump(database: &str, cluster: &Cluster) -> String {
    let mut pg_dump = cluster.client("pg_dump", database);
    let output = pg_dump.env_remove("PGCLIENTENCODING").output().unwrap();
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    // A character a byte: whatever the encoding, equal bytes are equal text.
    comparable(&output.stdout.iter().map(|byte| char::from(*byte)).collect::<String>())
}

/// Equal dumps, or where they differ first.
#[track_caller]
pub fn assert_same(one: &str, other: &str) {
    if one != other {
        let different = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        panic!("the dumps differ first in {different:?}, of {} and {} lines", one.lines().count(), other.lines().count());
    }
}

/// Backs up, restores beside it, and compares.
#[track_caller]
fn comes_back(original: &Database, compression: &str) -> Test {
    let test = backed_up(original, compression);
    let cluster = original.cluster();
    let restored = cluster.adopt(&format!("{} back {compression}", original.name()));
    test.run(["restore", "app", "--to-database", restored.name()]).ok();
    assert_same(&raw_dump(original.name(), cluster), &raw_dump(restored.name(), cluster));
    assert_eq!(properties(original.name(), cluster), properties(restored.name(), cluster));
    test
}

/// The commands of the quickstart, in the directory of the only artifact.
#[track_caller]
fn by_hand(test: &Test, cluster: &Cluster, unpack: &str) -> Database {
    let artifact = manifest(test)["artifact"].clone();
    let recorded = |field: &str| artifact[field].as_str().unwrap().to_owned();
    let restored = cluster.adopt(&format!("by_hand_{}", &recorded("sha256")[..8]));
    let owner = manifest(test)["restore"]["owner"].as_str().unwrap().to_owned();
    let encoding = manifest(test)["restore"]["encoding"].as_str().unwrap().to_owned();
    let locale = manifest(test)["restore"]["locale"].as_str().unwrap().to_owned();
    cluster.psql(
        "postgres",
        &format!(
            "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING '{encoding}' LOCALE '{locale}'",
            quoted(restored.name()),
            quoted(&owner)
        ),
    );
    let script = format!(
        "set -eu; echo '{}  {}' | sha256sum -c; {unpack} {1} | psql -X -q -v ON_ERROR_STOP=1 -o /dev/null",
        recorded("sha256"),
        recorded("name")
    );
    let client = cluster.client("psql", restored.name());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(test.stored_one(".manifest.json").parent().unwrap());
    shell.envs(client.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("PGCLIENTENCODING");
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    restored
}

#[test]
fn the_sample_comes_back_with_each_compression() {
    for compression in ["gzip", "zstd", "none"] {
        comes_back(&sample_database(), compression);
    }
}

#[test]
fn the_sample_comes_back_by_hand_with_stock_tools_alone() {
    let sample = sample_database();
    for (compression, unpack) in [("gzip", "gunzip -c"), ("none", "cat")] {
        let test = backed_up(&sample, compression);
        assert_same(&sample.dump(), &by_hand(&test, &SHARED, unpack).dump());
    }
}

/// A server with a database of awkward contents, and another one that its foreign tables reach.
pub fn awkward(settings: &[&str]) -> (Cluster, Database) {
    let cluster = Cluster::start_with(settings);
    let database = cluster.create_database();
    database.psql(
        "SET standard_conforming_strings = on; CREATE EXTENSION postgres_fdw; CREATE EXTENSION citext; CREATE EXTENSION hstore;",
    );
    cluster.psql("postgres", "CREATE TABLE asked (who text); INSERT INTO asked VALUES ('far')");
    let fill = format!("\\set port {}\n\\set database {}\n", cluster.port(), database.name());
    let script = repository().join("tests/fixtures/awkward.sql");
    database.psql(&format!("{fill}\\o /dev/null\n\\i '{}'", script.display()));
    (cluster, database)
}

/// PostgreSQL does not drop a database that has one.
pub fn drop_subscriptions(cluster: &Cluster) {
    for database in cluster.databases() {
        cluster.psql(
            &database,
            "SELECT format('ALTER SUBSCRIPTION %I SET (slot_name = NONE); DROP SUBSCRIPTION %1$I', subname)
               FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = current_database() \\gexec",
        );
    }
}

#[test]
fn awkward_contents_come_back_and_ask_no_other_server() {
    let (cluster, database) = awkward(&["log_statement=all"]);
    let test = backed_up(&database, "gzip");
    let asked = || cluster.log().matches("FROM public.asked").count();
    let (before, connections) = (asked(), cluster.log().matches("CREATE_REPLICATION_SLOT").count());
    let restored = cluster.adopt("back");
    test.run(["restore", "app", "--to-database", "back"]).ok().says("is not refreshed").says("REFRESH MATERIALIZED VIEW");
    assert_eq!(asked(), before, "the restore asked the other server");
    assert_eq!(cluster.log().matches("CREATE_REPLICATION_SLOT").count(), connections);
    restored.psql("REFRESH MATERIALIZED VIEW \"far; --\".\"copied v\u{e9}\"; REFRESH MATERIALIZED VIEW \"far; --\".of_copied");
    assert_same(&database.dump(), &restored.dump());
    assert_eq!(properties(database.name(), &cluster), properties("back", &cluster));
    assert_eq!(
        restored.psql("SELECT subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid AND datname = 'back'"),
        "f"
    );

    let by_hand = by_hand(&test, &cluster, "gunzip -c");
    assert_same(&database.dump(), &by_hand.dump());
    assert!(asked() > before, "nothing would have been asked in any case");
    drop_subscriptions(&cluster);
}

#[test]
fn awkward_contents_come_back_where_strings_have_escapes() {
    let (cluster, database) = awkward(&["standard_conforming_strings=off", "backslash_quote=on", "escape_string_warning=off"]);
    let test = backed_up(&database, "zstd");
    assert!(database.dump().contains("SET standard_conforming_strings = off;"), "the server's setting is not the dump's");
    let restored = cluster.adopt("back");
    test.run(["restore", "app", "--to-database", "back"]).ok();
    restored.psql("REFRESH MATERIALIZED VIEW \"far; --\".\"copied v\u{e9}\"; REFRESH MATERIALIZED VIEW \"far; --\".of_copied");
    assert_same(&database.dump(), &restored.dump());
    drop_subscriptions(&cluster);
}

#[test]
fn a_failed_restore_of_a_subscription_leaves_no_database_and_the_originals_slot() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    database.psql(
        "CREATE TABLE t (i int); INSERT INTO t VALUES (1);
         CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = 'precious');
         CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'; CREATE INDEX zz ON t (f(i));
         CREATE TABLE zz_t (i int); CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''not today''; END'",
    );
    let test = backed_up(&database, "gzip");
    test.run(["restore", "app", "--to-database", "back"]).fails(1).says("not today");
    assert_eq!(databases_of(&cluster, "back"), [""; 0]);
    assert_eq!(database.psql("SELECT subname, subslotname FROM pg_subscription"), "sub|precious");
    drop_subscriptions(&cluster);
}

#[test]
fn encodings_and_locales_come_back() {
    for (options, text) in [
        ("ENCODING 'LATIN1' LOCALE 'C'", "Stra\u{df}e, \u{e9}t\u{e9}"),
        ("ENCODING 'SQL_ASCII' LOCALE 'C'", "any bytes: \u{fc}"),
        ("ENCODING 'UTF8' LOCALE 'C'", "\u{2713} \u{1f418}"),
        ("ENCODING 'UTF8' LOCALE 'C' LC_CTYPE 'C.UTF-8'", "\u{2713}"),
        ("ENCODING 'UTF8' LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE-u-co-phonebk'", "\u{c4}rger"),
        ("ENCODING 'EUC_JP' LOCALE 'C'", "\u{65e5}\u{672c}\u{8a9e}"),
    ] {
        let database = SHARED.create_from("template0", options);
        database.psql(&format!(
            "CREATE TABLE \"t {text}\" (\"c {text}\" text); INSERT INTO \"t {text}\" VALUES ('{text} \\\\ '), (E'{text}\\n\\\\.');
             CREATE MATERIALIZED VIEW \"v {text}\" AS SELECT * FROM \"t {text}\"; COMMENT ON TABLE \"t {text}\" IS '{text};--'"
        ));
        comes_back(&database, "gzip");
    }
}

#[test]
fn bytes_that_are_no_text_come_back_from_a_database_that_checks_none() {
    let database = SHARED.create_from("template0", "ENCODING 'SQL_ASCII' LOCALE 'C'");
    database.psql(r"CREATE TABLE t (a text); INSERT INTO t VALUES (E'\xff\xfe\\\x80;'), (E'\xe9'), (E'\xe2\x9c')");
    comes_back(&database, "gzip");
}

/// Backs up a database of this name, and restores it under the name: absent, empty, not empty.
#[track_caller]
fn is_only_a_name(name: &str) {
    SHARED.psql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", quoted(name)));
    let database = SHARED.adopt(name);
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (42)");
    let before = database.dump();
    let test = target_on(Test::new(), &SHARED, SUPERUSER, name);
    test.run(["-q", "backup"]).ok();
    database.psql("DROP TABLE t");
    test.run(["restore", "app"]).ok();
    assert_same(&before, &database.dump());
    test.run(["restore", "app"]).fails(2).says("is not empty");
    SHARED.psql("postgres", &format!("DROP DATABASE {}", quoted(name)));
    test.run(["restore", "app", &format!("--to-database={name}")]).ok();
    assert_same(&before, &database.dump());
    let first: String = name.chars().take(20).collect();
    let left = format!(
        "SELECT count(*) FROM pg_database WHERE starts_with(datname, E'{}')",
        first.replace('\\', "\\\\").replace('\'', "''")
    );
    assert_eq!(SHARED.psql("postgres", &left), "1", "{name:?}");
}

#[test]
fn names_that_look_like_something_else_are_only_names() {
    let names =
        ["with space", "it's \"quoted\"", "dbname=postgres", "host=nowhere dbname=x", "postgresql://nobody@nowhere/x", "--help"];
    names.into_iter().for_each(is_only_a_name);
}

#[test]
fn names_of_any_characters_and_of_63_bytes_are_only_names() {
    let (long, longer) = ("x".repeat(63), "\u{e9}".repeat(31));
    let names = ["$HOME; `id` \\! id", "a.b/c\\d%I", "New\nline\tand tab", &long, &longer, "UPPER"];
    names.into_iter().for_each(is_only_a_name);
}

#[test]
fn a_role_that_is_no_superuser_backs_up_and_restores_what_it_owns() {
    let cluster = Cluster::start();
    let password = crate::support::cluster::PASSWORD;
    cluster.psql(
        "postgres",
        &format!("CREATE ROLE shop LOGIN CREATEDB PASSWORD '{password}'; CREATE DATABASE shop OWNER shop TEMPLATE template0"),
    );
    let sample = repository().join("scripts/sample.sql");
    cluster.psql("shop", &format!("SET SESSION AUTHORIZATION shop;\n\\o /dev/null\n\\i '{}'", sample.display()));
    let test = target_on(Test::new(), &cluster, "shop", "shop");
    test.run(["-q", "backup"]).ok();
    test.run(["restore", "app", "--to-database", "back"]).ok();
    assert_same(&cluster.adopt("shop").dump(), &cluster.adopt("back").dump());
    cluster.psql("postgres", "CREATE DATABASE shop OWNER shop TEMPLATE template0");
    test.run(["restore", "app"]).ok();
    assert_eq!(properties("shop", &cluster).split('|').next(), Some("shop"));
    assert_eq!(databases_of(&cluster, "shop"), ["shop"]);
}

#[test]
fn names_that_psql_takes_for_words_of_its_own_come_back() {
    let database = SHARED.create_database();
    database.psql(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FUNCTION \"begin\"() RETURNS int LANGUAGE sql AS 'SELECT 7';
         CREATE FUNCTION span(\"begin\" int, \"end\" int) RETURNS TABLE (\"case\" int) LANGUAGE sql AS 'SELECT $2 - $1';
         CREATE FOREIGN TABLE periods (\"begin\" date, \"end\" date) SERVER far;
         CREATE MATERIALIZED VIEW far_away AS SELECT * FROM periods WITH NO DATA;
         CREATE TABLE t AS SELECT i, 'x' AS \"begin\" FROM generate_series(1, 100) i",
    );
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    let restored = SHARED.adopt(&format!("{}_again", database.name()));
    test.run(["restore", "app", "--to-database", restored.name()]).ok();
    assert_eq!(restored.dump(), database.dump());
    assert_eq!(restored.psql("SELECT public.begin() + count(*) FROM t"), "107");
}

#[test]
fn a_database_that_sets_another_client_encoding_comes_back() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t AS SELECT U&'\\8868\\793A\\30BD' AS text");
    for encoding in ["SJIS", "LATIN1"] {
        database.psql(&format!("ALTER DATABASE {} SET client_encoding = '{encoding}'", database.name()));
        let test = Test::of(&database);
        test.run(["backup"]).ok();
        let restored = SHARED.adopt(&format!("{}_{encoding}", database.name()));
        test.run(["restore", "app", "--to-database", restored.name()]).ok();
        assert_eq!(restored.psql("SELECT text = U&'\\8868\\793A\\30BD' FROM t"), "t");
    }
}
