//! Artifacts that somebody has forged: nothing in a dump's text acts outside the place it is restored to.

use std::sync::LazyLock;

use crate::forge::{artifact, backed_up, content_of, databases_of, forge, pack};
use crate::support::{Database, SHARED};

static ORIGINAL: LazyLock<Database> = LazyLock::new(|| {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (stdin bool); INSERT INTO t VALUES (true); CREATE TABLE u (i int); INSERT INTO u VALUES (1);");
    database
});

/// Puts this text into the middle of a dump, restores it, and looks at what is there afterwards. In the
/// text `{other}` is another database, `{role}` a role that is not there, `{file}` a file that is not there.
#[track_caller]
fn is_refused(number: &str, attack: &str) {
    let other = SHARED.create_database();
    other.psql("CREATE TABLE precious (i int)");
    let role = format!("evil_{}", other.name());
    let file = SHARED.socket_directory().join(format!("{role}.file"));
    let filled =
        |text: &str| text.replace("{other}", other.name()).replace("{role}", &role).replace("{file}", file.to_str().unwrap());
    let test = backed_up(&ORIGINAL, "gzip");
    let content = String::from_utf8(content_of("gzip", &artifact(&test))).unwrap();
    let (before, after) = content.split_at(content.find("\nCOPY public.u ").unwrap() + 1);
    forge(&test, &pack("gzip", format!("{before}{}\n{after}", filled(attack)).as_bytes()));
    let name = format!("hostile_{number}_{}", other.name());
    let ran = test.run(["restore", "app", "--to-database", &name]).fails(1);
    assert_eq!(databases_of(&SHARED, &name), [""; 0], "{attack}: {}", ran.stderr);
    assert_eq!(other.psql("SELECT count(*) FROM precious"), "0", "{attack}");
    assert_eq!(SHARED.psql("postgres", &format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'")), "0", "{attack}");
    assert!(!file.exists(), "{attack}");
    assert!(!SHARED.databases().contains(&format!("{role}_made")), "{attack}");
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, '{name}')");
    assert_eq!(SHARED.psql("postgres", &sessions), "0", "{attack}");
}

#[test]
fn a_dump_can_not_go_to_another_database() {
    for attack in [
        "\\connect {other}\nDROP TABLE precious;",
        "\\c {other}",
        "SELECT 1\n\\connect {other}\n;DROP TABLE precious;",
        "\\unrestrict x\n\\connect {other}\nDROP TABLE precious;",
    ] {
        is_refused("connect", attack);
    }
}

#[test]
fn a_dump_can_not_start_a_program() {
    for attack in [
        "\\! touch {file}",
        "SELECT 'x' \\g | touch {file}",
        "\\o {file}",
        "\\copy public.t to '{file}'",
        "SELECT 'DROP DATABASE {other};' \\gexec",
        "COPY public.t TO PROGRAM 'touch {file}';",
        "COPY public.t FROM PROGRAM 'touch {file}' WHERE stdin;\n\\.",
        "COPY public.t TO '{file}';",
    ] {
        is_refused("program", attack);
    }
}

#[test]
fn a_dump_can_not_make_or_drop_what_is_the_servers() {
    for attack in [
        "DROP DATABASE {other};",
        "drop/* */database {other} with (force);",
        "CREATE DATABASE {role}_made;",
        "ALTER DATABASE {other} RENAME TO {role}_made;",
        "ALTER SYSTEM SET work_mem = '5MB';",
        "CREATE ROLE {role} SUPERUSER;",
        "CREATE USER {role};",
        "GRANT pg_execute_server_program TO PUBLIC;",
        "DO $$ BEGIN CREATE ROLE {role}; END $$;",
    ] {
        is_refused("server", attack);
    }
}

#[test]
fn a_dump_can_not_hide_a_statement_from_us() {
    for attack in [
        // Behind the rows' beginning, on its own line; in strings that are read in two ways.
        "COPY public.u FROM stdin; DROP DATABASE {other};\n1\n\\.",
        "SELECT E'a'\n'b\\'' ; DROP DATABASE {other}; --'",
        "SET standard_conforming_strings = off;\nCREATE TABLE IF NOT EXISTS public.u (a bit DEFAULT B'\\'); DROP DATABASE {other}; --'",
        "SELECT set_config('standard_conforming_strings', 'off', false);\nSELECT 'a\\'' ; DROP DATABASE {other}; --'",
        "SET client_encoding = 'SJIS';\nSELECT E'\u{1}\\'; DROP DATABASE {other}; --'",
        // Rows that psql takes for none.
        "CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS 'SELECT 1';\nCOPY public.u FROM stdin;\nDROP DATABASE {other};\n\\.",
        // A transaction that is never committed.
        "BEGIN;",
    ] {
        is_refused("hidden", attack);
    }
}
