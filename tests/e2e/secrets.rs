//! Secrets stay secret: in no argument of any child, in nothing that is printed, logged or stored. What the
//! children get is looked at from within them.

use std::fs;

use crate::support::cluster::PASSWORD;
use crate::support::tool::files_below;
use crate::support::{Database, SHARED, Test};

/// Notes the arguments of every process above it and its own, and its environment, then does its work.
const SPY: &str = r#"
p=$$
while [ "$p" -gt 1 ]; do
  tr '\0' ' ' <"/proc/$p/cmdline" >>{dir}/argv; echo >>{dir}/argv
  p=$(sed 's/.*) . \([0-9]*\) .*/\1/' "/proc/$p/stat")
done
env >>{dir}/env
exec {real} "$@""#;

/// Another target's, which this one's children have no business with.
const OTHER: &str = "other-targets-secret-55d";

fn small() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE people (id int); INSERT INTO people VALUES (1)");
    database
}

fn config(database: &Database, connection: &str) -> String {
    let port = database.cluster().port();
    let connection = connection.replace("{port}", &port.to_string()).replace("{db}", database.name());
    format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nlog_dir: logs\n\
         storages: {{ local: {{ type: local, path: '{{storage}}' }} }}\ntargets:\n  - name: app\n    type: postgres\n\
         \x20   retries: 0\n{connection}\n  - {{ name: other, type: postgres, enabled: false, database: x, password: '${{OTHER}}' }}\n"
    )
}

const BY_PARTS: &str = "    host: 127.0.0.1\n    port: {port}\n    user: admin\n    database: {db}\n    password: ";

#[track_caller]
fn shows_nothing(database: &Database, connection: &str) {
    let test = Test::new().config(&config(database, connection)).env("OTHER", OTHER);
    let test = test.fake_bin("pg_dump", SPY).fake_bin("psql", SPY).file("secret", &format!("{PASSWORD}\n"));
    let uri = format!("postgresql://admin:{PASSWORD}@127.0.0.1:{}/{}", database.cluster().port(), database.name());
    // Only what the config names: the rest of an env file is the user's business.
    let variables = [("${PW}", format!("PW={PASSWORD}\n")), ("${URL}", format!("URL={uri}\n"))];
    let variables: String = variables.into_iter().filter(|(name, _)| connection.contains(name)).map(|(_, line)| line).collect();
    let test = test.file("vars", &variables);
    fs::create_dir(test.path("logs")).unwrap();
    let commands: [&[&str]; 5] = [
        &["validate", "--connect", "-vv"],
        &["backup", "-vv", "--json"],
        &["backup", "--log-format", "json", "-vv"],
        &["restore", "app", "--to-database", "no_such_db_after_all", "--dry-run", "-vv"],
        &["list", "--verify", "-vv", "--json"],
    ];
    for command in commands {
        let ran = test.run(command.iter().chain(&["--env-file", "vars"])).ok();
        ran.never_shows(PASSWORD).never_shows(OTHER).never_shows("postgresql://");
    }
    // One that fails tells no more: the dump ends in the middle, of a table that is gone.
    database.psql("ALTER TABLE people RENAME TO gone");
    let broken = test.fake_bin("pg_dump", &format!("case $1 in --version) ;; *) echo boom >&2; exit 3 ;; esac\n{SPY}"));
    let ran = broken.run(["backup", "-vv", "--env-file", "vars"]).fails(1).says("boom");
    ran.never_shows(PASSWORD).never_shows(OTHER).never_shows("postgresql://");
    database.psql("ALTER TABLE gone RENAME TO people");

    let argv = fs::read_to_string(broken.path("argv")).unwrap();
    assert!(argv.contains("pg_dump") && argv.contains("--format=plain") && argv.contains("psql"), "{argv}");
    assert!(!argv.contains(PASSWORD) && !argv.contains(OTHER) && !argv.contains("postgresql://"), "{argv}");
    assert!(!argv.contains(database.name()), "a database's name in an argument can be a connection string: {argv}");
    let env = fs::read_to_string(broken.path("env")).unwrap();
    assert!(env.contains(&format!("PGPASSWORD={PASSWORD}")) && !env.contains(OTHER), "{env}");
    for line in env.lines().filter(|line| line.contains(PASSWORD)) {
        assert!(line.starts_with("PGPASSWORD="), "{line}");
    }
    for directory in ["logs", "storage", "state", "tmp"] {
        for file in files_below(&broken.path(directory)) {
            let content = String::from_utf8_lossy(&fs::read(broken.path(directory).join(&file)).unwrap()).into_owned();
            assert!(
                !content.contains(PASSWORD) && !content.contains(OTHER) && !content.contains("postgresql://"),
                "{file}: {content}"
            );
        }
    }
    assert!(files_below(&broken.path("logs")).len() >= 4);
}

#[test]
fn a_literal_password_shows_nowhere() {
    shows_nothing(&small(), &format!("{BY_PARTS}'{PASSWORD}'"));
}

#[test]
fn a_password_from_a_variable_shows_nowhere() {
    shows_nothing(&small(), &format!("{BY_PARTS}${{PW}}"));
}

#[test]
fn a_password_from_a_file_or_command_shows_nowhere() {
    shows_nothing(&small(), &format!("{BY_PARTS}{{ file: secret }}"));
    shows_nothing(&small(), &format!("{BY_PARTS}{{ command: 'cat secret' }}"));
}

#[test]
fn an_address_shows_nowhere() {
    shows_nothing(&small(), "    uri: ${URL}");
    shows_nothing(&small(), "    uri: 'postgresql://admin:${PW}@127.0.0.1:{port}/{db}'");
}
