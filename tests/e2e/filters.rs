//! Filters and `extra_args:`: what they leave of a dump, that it comes back, and what of them is refused.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::support::cluster::{HOST, PASSWORD, binaries};
use crate::support::{Cluster, Database, Ran, SHARED, Test};

/// Two schemas beside public, with tables of two owners.
fn shop() -> Database {
    let database = SHARED.create_database();
    database.psql(
        "CREATE TABLE public.notes (n int); INSERT INTO public.notes SELECT generate_series(1, 3);
         CREATE SCHEMA app;
         CREATE TABLE app.users (id int PRIMARY KEY, name text); INSERT INTO app.users VALUES (1, 'ann'), (2, 'bob');
         COMMENT ON TABLE app.users IS 'who they are';
         CREATE TABLE app.log (line text); INSERT INTO app.log VALUES ('began');
         CREATE TABLE app.\"Odd.name\" (i int); INSERT INTO app.\"Odd.name\" VALUES (7);
         GRANT SELECT ON app.users TO PUBLIC;
         CREATE SCHEMA audit;
         CREATE TABLE audit.events (at int); INSERT INTO audit.events VALUES (1), (2)",
    );
    database
}

/// A backup with these lines in its target.
#[track_caller]
fn backed_up(database: &Database, lines: &[&str]) -> Test {
    let test = lines.iter().fold(Test::of(database), |test, line| test.target_option(line));
    test.run(["backup"]).ok();
    test
}

/// Its dump, less what is no statement.
#[track_caller]
fn dumped(test: &Test) -> String {
    test.run(["restore", "app", "--output", "-"]).ok().stdout
}

/// What of the sample is in a dump: tables, those of them with rows, and words for the rest.
fn contents(dump: &str) -> String {
    let mut found: Vec<String> = Vec::new();
    let name_of = |rest: &str| rest.split(" (").next().unwrap_or_default().to_owned();
    for line in dump.lines() {
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            found.push(name_of(rest));
        } else if let Some(rest) = line.strip_prefix("COPY ") {
            found.push(format!("+{}", name_of(rest)));
        }
    }
    let words =
        [("OWNER TO", "owners"), ("GRANT SELECT ON TABLE app.users", "grants"), ("COMMENT ON TABLE app.users", "comments")];
    found.extend(words.iter().filter(|(text, _)| dump.contains(text)).map(|(_, word)| (*word).to_owned()));
    found.sort();
    found.join(" ")
}

#[test]
fn a_dump_holds_what_its_filters_leave() {
    let database = shop();
    let cases: [&[&str]; 13] = [
        &["globals: false"],
        &["schemas: [app]"],
        &["schemas: ['a*']", "exclude_tables: ['app.\"Odd.name\"', '*.log']"],
        &["exclude_schemas: [app, audit]"],
        &["tables: [app.users, notes]"],
        &["tables: ['app.\"Odd.name\"']"],
        &["exclude_tables: [log]", "exclude_table_data: ['audit.*']"],
        &["exclude_tables: [app.*]", "exclude_table_data: ['*.events', notes]"],
        &["schema_only: true"],
        &["no_owner: true"],
        &["no_privileges: true"],
        &["extra_args: [--no-comments]"],
        &["extra_args: [--lock-wait-timeout=60s, --quote-all-identifiers, --no-tablespaces, --no-blobs, --strict-names]"],
    ];
    let mut shown = String::new();
    for lines in cases {
        let found = contents(&dumped(&backed_up(&database, lines)));
        writeln!(shown, "{}\n    {found}", lines.join(", ")).unwrap();
    }
    insta::assert_snapshot!(shown);
}

/// pg_dump documentation, `--table`: it dumps no schema, and `--schema=public` one that every database has.
#[test]
fn what_filters_leave_comes_back() {
    let database = shop();
    let rows = "SELECT count(*) FROM app.users";
    database.psql("CREATE SCHEMA \"we$$ird'\\\"; CREATE TABLE \"we$$ird'\\\".t (i int)");
    let schemas = "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE oid >= 16384";
    let cases: [(&[&str], &str, &str); 8] = [
        (&["schemas: [public]"], "SELECT count(*) FROM notes", "3"),
        (&["schemas: [app]"], "SELECT count(*) FROM pg_namespace WHERE nspname IN ('public', 'audit')", "1"),
        (&["tables: [app.users]"], rows, "2"),
        (&["tables: [app.users, 'we*.t']"], schemas, "app we$$ird'\\"),
        (&["tables: [notes]", "schema_only: true"], schemas, ""),
        (&["tables: [notes, 'app.\"Odd.name\"']"], "SELECT i FROM app.\"Odd.name\"", "7"),
        (&["exclude_table_data: ['*.users']", "no_owner: true", "no_privileges: true"], rows, "0"),
        (&["schema_only: true"], rows, "0"),
    ];
    for (lines, question, answer) in cases {
        let test = backed_up(&database, lines);
        let copy = SHARED.adopt(&format!("{}_copy", database.name()));
        let ran = test.run(["restore", "app", "--to-database", copy.name()]);
        assert_eq!(ran.code, Some(0), "{lines:?}: {}", ran.stderr);
        assert_eq!(copy.psql(question), answer, "{lines:?}");
    }
}

#[test]
fn what_was_named_and_is_gone_fails_the_backup() {
    let database = shop();
    for (line, what) in [
        ("tables: [app.users, app.gone]", "no matching tables were found for pattern \"app.gone\""),
        ("schemas: [app, gone]", "no matching schemas were found for pattern \"gone\""),
        ("extra_args: ['--extension=gone']", "no matching extensions were found for pattern \"gone\""),
    ] {
        let test = Test::of(&database).target_option(line);
        test.run(["backup"]).fails(1).says(what);
        assert!(test.stored().is_empty(), "{line}: {:?}", test.stored());
    }
}

#[test]
fn no_pattern_becomes_an_option_or_runs() {
    let database = shop();
    for pattern in ["--file={dir}/written", "-Fc", "x\"; DROP TABLE app.users; --", "$(touch {dir}/written)", "' OR true --"] {
        let test = Test::of(&database).target_option(&format!("exclude_tables: ['{}']", pattern.replace('\'', "''")));
        let ran = test.run(["backup"]);
        assert!(!test.path("written").exists(), "{pattern}");
        assert!(ran.code == Some(1) || contents(&dumped(&test)).contains("+app.users"), "{pattern}: {}", ran.stderr);
    }
    assert_eq!(database.psql("SELECT count(*) FROM app.users"), "2");
}

fn validated(extra_args: &str) -> Ran {
    let text = format!(
        "version: 1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets: [ {{ name: app, type: postgres, database: app, extra_args: [{extra_args}] }} ]\n"
    );
    Test::new().config(&text).run(["validate"])
}

#[test]
fn options_that_change_the_stream_are_refused_by_validate() {
    for word in ["--create", "-Cc", "--cle", "--ins", "-xO", "--jobs=4", "-j, 4", "--include-foreign-data=x", "-f, x"] {
        let ran = validated(word).fails(2);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("targets[0].extra_args[0]"), "{word}: {said}");
    }
    validated("--no-comments, --lock-wait-timeout=5s").ok();
}

/// A new version's option would else be one that nobody has thought about.
#[test]
fn every_option_of_pg_dump_is_decided_on() {
    let help = Command::new(binaries().join("pg_dump")).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let words = help.split(|c: char| c.is_whitespace() || c == ',').filter(|word| word.starts_with("--"));
    let words: Vec<String> =
        words.map(|word| word.split(['=', '[']).next().unwrap_or_default().to_owned()).filter(|word| word.len() > 2).collect();
    assert!(words.len() > 50, "{words:?}");
    for word in &words {
        let ran = validated(word);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.contains("known to be harmless"), "{word}: {said}");
    }
}

#[test]
fn what_a_role_can_not_read_is_a_warning_where_filters_may_leave_it_out() {
    let server = Cluster::start();
    let database = server.create_database();
    database.psql(&format!(
        "CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
         CREATE TABLE open (i int); INSERT INTO open VALUES (1); GRANT SELECT ON open TO reader;
         CREATE TABLE closed (i int)"
    ));
    let target = |line: &str| {
        Test::new().env("DB_PASSWORD", PASSWORD).config(&format!(
            "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
             targets:\n  - name: app\n    type: postgres\n    host: {HOST}\n    port: {}\n    user: reader\n    \
             password: ${{DB_PASSWORD}}\n    database: {}\n    {line}\n",
            server.port(),
            database.name()
        ))
    };
    let told = "unless the target's filters leave it out, the role can't read table public.closed: no SELECT";
    let test = target("exclude_tables: [closed]");
    for command in [["validate", "--connect"], ["backup", "--dry-run"]] {
        let ran = test.run(command).ok();
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(told), "{command:?}: {}{}", ran.stdout, ran.stderr);
        let plain = target("globals: false").run(command).fails(1);
        let said = format!("{}{}", plain.stdout, plain.stderr);
        assert!(said.contains("the role can't read everything: table public.closed"), "{command:?}: {said}");
    }
    test.run(["backup"]).ok();
    // A filter that does not leave it out still fails, in the backup itself.
    target("exclude_tables: [other]").run(["backup"]).fails(1).says("permission denied for table closed");
}

/// Owners and grants that a dump leaves out need no roles in a restore.
#[test]
fn a_dump_without_owners_and_privileges_needs_no_roles() {
    let [from, to] = [Cluster::start(), Cluster::start()];
    let database = from.create_database();
    database.psql(
        "CREATE ROLE maker; CREATE ROLE reader; CREATE TABLE t (i int); ALTER TABLE t OWNER TO maker; GRANT SELECT ON t TO reader;
         GRANT ALL ON DATABASE current TO maker"
            .replace("DATABASE current", &format!("DATABASE {}", database.name()))
            .as_str(),
    );
    from.psql("postgres", &format!("ALTER DATABASE {} OWNER TO maker", database.name()));
    let test = Test::of(&database).target_option("no_owner: true").target_option("no_privileges: true");
    test.run(["backup"]).ok();
    let there = to.adopt(database.name());
    Test::of(&there)
        .env("X", "")
        .config(&fs::read_to_string(test.path("backup.yml")).unwrap().replace(&from.port().to_string(), &to.port().to_string()))
        .env("DB_PASSWORD", PASSWORD)
        .run(["restore", "app"])
        .ok();
    assert_eq!(there.psql("SELECT relowner::regrole, relacl FROM pg_class WHERE relname = 't'"), "admin|");
}
