use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::{
    Compression, Databases, Drill, DrillPlace, DumpFilter, Format, Policy, Postgres, StorageKind, TargetKind,
};
use crate::config::secret::SecretFrom;

fn facts() -> HostFacts {
    HostFacts { host_name: "web1".into(), is_root: true, home: None }
}

fn env() -> Env {
    [("PORT", "6000"), ("OFF", "false"), ("PW", "0123"), ("XDG_STATE_HOME", "/home/u/state")].into_iter().collect()
}

fn good(text: &str) -> Config {
    read(text, Path::new("/etc/db-backup/backup.yml"), &env(), &facts()).unwrap_or_else(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        panic!("{}", mistakes.join("\n"))
    })
}

/// The smallest configuration, with these lines in its target.
fn with_target(lines: &str) -> Config {
    good(&target_text(lines))
}

fn literal_secrets(lines: &str) -> Vec<String> {
    read_noting(&target_text(lines), Path::new("/c.yml"), &env(), &facts()).unwrap().literal_secrets
}

fn target_text(lines: &str) -> String {
    format!(
        "version: 1\nstorages: {{ local: {{ type: local, path: /b }} }}\ntargets:\n  - name: app\n    type: postgres\n{}",
        lines.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    )
}

fn named(postgres: &Postgres) -> Option<&str> {
    match &postgres.databases {
        Databases::One(name) => name.as_deref(),
        _ => None,
    }
}

fn postgres(config: &Config) -> &Postgres {
    let TargetKind::Postgres(postgres) = &config.targets[0].kind else { panic!("{config:?}") };
    postgres
}

fn value(secret: Option<&crate::config::secret::Secret>) -> Option<&str> {
    match secret.map(|secret| &secret.from) {
        Some(SecretFrom::Value(value)) => Some(value),
        _ => None,
    }
}

#[test]
fn every_key_is_read() {
    let config = good(
        r#"
version: 1
timezone: America/Sao_Paulo
host: db1
state_dir: state
log_dir: /var/log/backups
parallel: 3
memory: 1GiB
storages:
  local: { type: local, path: /mnt/backups/x, mount: /mnt/backups, retention: { keep_days: 3 }, prune: false }
  second: { type: local, path: ../second }
defaults:
  storages: [local]
  compression: { type: zstd, level: 19 }
  retention: { keep_last: 1, keep_days: 2, keep_hourly: 3, keep_daily: 4, keep_weekly: 5, keep_monthly: 6, keep_yearly: 7 }
  timeout: 2h
  retries: 0
targets:
  - name: app
    type: postgres
    enabled: ${OFF}
    host: db
    port: ${PORT}
    user: u
    password: 12345
    sslmode: verify-full
    database: 0777
    format: plain
    client_bin: /usr/lib/postgresql/15/bin
    schedule: "30 3 * * mon-fri"
    storages: [second, local]
    compression: { type: none }
    retention: { keep_last: 9 }
    timeout: 90s
    retries: 7
  - { name: other, type: postgres, uri: "postgresql://u:p@h/d" }
"#,
    );
    assert_eq!(config.timezone, chrono_tz::America::Sao_Paulo);
    assert_eq!((config.host.as_str(), config.parallel.get(), config.memory), ("db1", 3, 1 << 30));
    assert_eq!(config.state_dir, Path::new("/etc/db-backup/state"));
    assert_eq!(config.log_dir.as_deref(), Some(Path::new("/var/log/backups")));
    let StorageKind::Local { path, mount } = &config.storages[0].kind else { panic!("not local") };
    assert_eq!((path.as_path(), mount.as_deref()), (Path::new("/mnt/backups/x"), Some(Path::new("/mnt/backups"))));
    assert_eq!(config.storages[0].retention, Some(Policy { keep_days: Some(3), ..Policy::default() }));
    assert_eq!((config.storages[0].prune, config.storages[1].prune), (false, true));
    let app = &config.targets[0];
    assert_eq!((app.name.as_str(), app.enabled, app.retries), ("app", false, 7));
    assert_eq!(app.storages, ["second", "local"]);
    assert_eq!((app.compression, app.timeout), (Compression::None, Some(Duration::from_secs(90))));
    assert_eq!(app.retention, Policy { keep_last: Some(9), ..Policy::default() });
    assert_eq!(app.schedule.as_deref(), Some("30 3 * * mon-fri"));
    let db = postgres(&config);
    assert_eq!((db.host.as_deref(), db.port, db.user.as_deref()), (Some("db"), Some(6000), Some("u")));
    assert_eq!((value(db.password.as_ref()), named(db)), (Some("12345"), Some("0777")));
    assert_eq!((db.sslmode.as_deref(), db.format), (Some("verify-full"), Format::Plain));
    assert_eq!(db.client_bin.as_deref(), Some(Path::new("/usr/lib/postgresql/15/bin")));
    let other = &config.targets[1];
    assert_eq!((other.compression, other.retries), (Compression::Zstd(19), 0));
    assert_eq!((other.timeout, other.storages.as_slice()), (Some(Duration::from_secs(7200)), ["local".to_owned()].as_slice()));
    assert_eq!(other.retention.keep_yearly, Some(7));
}

#[test]
fn defaults_are_as_documented() {
    let config = with_target("database: app");
    assert_eq!((config.timezone, config.host.as_str(), config.parallel.get(), config.memory), (Tz::UTC, "web1", 1, 128 << 20));
    assert_eq!((config.state_dir.as_path(), config.log_dir.as_deref()), (Path::new("/var/lib/db-backup"), None));
    let app = &config.targets[0];
    assert_eq!((app.compression, app.retries, app.timeout, app.enabled), (Compression::Gzip(6), 2, None, true));
    assert!(app.retention.is_empty() && config.storages[0].retention.is_none());
    assert_eq!(app.storages, ["local"]);
}

#[test]
fn the_state_of_a_plain_user_is_at_home() {
    let text = "version: 1\nstorages: { a: { type: local, path: b } }\ntargets: [ { name: x, type: postgres, database: x } ]\n";
    let read_in = |env: Env| read(text, Path::new("/c.yml"), &env, &HostFacts { is_root: false, ..facts() });
    assert_eq!(read_in(env()).unwrap().state_dir, Path::new("/home/u/state/db-backup"));
    let home = read_in([("HOME", "/home/u"), ("XDG_STATE_HOME", "relative")].into_iter().collect()).unwrap();
    assert_eq!(home.state_dir, Path::new("/home/u/.local/state/db-backup"));
    assert!(read_in(Env::default()).is_err());
}

#[test]
fn secrets_are_kept_as_written() {
    let cases = [
        ("password: ${PW}", "${PW}", "0123", false),
        ("password: hunter2", "***", "hunter2", true),
        ("password: \"00 12\"", "***", "00 12", true),
        ("password: x${PW}", "***${PW}", "x0123", true),
        ("password: ${NONE:-hunter2}", "${NONE:-***}", "hunter2", true),
        ("password: pa$$word", "***", "pa$$word", true),
        ("password: \"$\"", "***", "$", true),
        ("password: $${PW}", "***", "${PW}", true),
    ];
    for (line, written, wanted, literal) in cases {
        let config = with_target(&format!("database: app\n{line}"));
        let secret = postgres(&config).password.as_ref().unwrap();
        assert_eq!((secret.written.as_str(), value(Some(secret))), (written, Some(wanted)), "{line}");
        assert_eq!(!literal_secrets(&format!("database: app\n{line}")).is_empty(), literal, "{line}");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

#[test]
fn secrets_come_from_files_and_commands() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "x\n").unwrap();
    let file = dir.path().join("pw");
    let config = with_target(&format!("database: app\npassword: {{ file: {} }}", file.display()));
    assert!(postgres(&config).password.as_ref().unwrap().from == SecretFrom::File(file));
    let config = with_target("database: app\npassword: { command: 'pass show ${UNSET} hunter2' }");
    let secret = postgres(&config).password.as_ref().unwrap();
    assert!(secret.from == SecretFrom::Command(["sh", "-c", "pass show ${UNSET} hunter2"].map(str::to_owned).into()));
    assert_eq!(secret.written, "{ command: pass ... }");
    let config = with_target("database: app\npassword: { command: TOKEN=hunter2 vault read }");
    assert!(format!("{config:?}").contains("{ command: vault ... }") && !format!("{config:?}").contains("hunter2"));
    let config = with_target("database: app\npassword: { command: [pass, '${PW}'] }");
    let secret = postgres(&config).password.as_ref().unwrap();
    assert!(secret.from == SecretFrom::Command(["pass", "0123"].map(str::to_owned).into()));
}

#[test]
fn an_address_may_bring_the_database_or_leave_it_out() {
    for uri in [
        "postgresql://h/d",
        "postgres:///d",
        "postgresql://h?dbname=d",
        "postgresql://?service=s",
        "postgres://u:${PW}@h:1/d?a=b",
    ] {
        assert_eq!(postgres(&with_target(&format!("uri: {uri}"))).databases, Databases::One(None), "{uri}");
    }
    let config = with_target("uri: postgresql://u@h\ndatabase: d");
    assert_eq!(named(postgres(&config)), Some("d"));
    assert!(literal_secrets("uri: postgresql://u@h/d").is_empty());
    assert!(literal_secrets("uri: postgres://u:${PW}@h:1/d").is_empty());
    for uri in ["postgresql://u:pw@h/d", "postgresql://u:${NONE:-pw}@h/d", "postgresql://h/d?password=pw"] {
        assert_eq!(literal_secrets(&format!("uri: {uri}")), ["targets[0].uri"]);
    }
}

fn databases(lines: &str) -> Databases {
    postgres(&with_target(lines)).databases.clone()
}

#[test]
fn one_database_or_several_or_all() {
    let several = |names: &[&str]| Databases::Several(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(
        databases("databases: [a, 'dbname=x', 'pöstgresql://x', ..]"),
        several(&["a", "dbname=x", "pöstgresql://x", ".."])
    );
    // A database of that name.
    assert_eq!(databases("databases: [all]"), several(&["all"]));
    assert_eq!(databases("databases: all"), Databases::All { exclude: Vec::new() });
    assert_eq!(
        databases("databases: all\nexclude_databases: ['t_*', \"a\\\\[b\"]"),
        Databases::All { exclude: ["t_*", "a\\[b"].map(str::to_owned).into() }
    );
    assert_eq!(databases("uri: postgresql://u@h/\ndatabases: all"), Databases::All { exclude: Vec::new() });
    assert_eq!(databases(&format!("databases: [{}]", "x".repeat(63))), several(&[&"x".repeat(63)]));
}

#[test]
fn what_is_dumped_and_how_is_read() {
    let config = with_target(
        "database: app
globals: true
format: custom
jobs: 4
schemas: [app, 'audit_*']
exclude_schemas: [tmp]
exclude_tables: [app.\"Odd name\"]
exclude_table_data: [app.log]
schema_only: ${OFF}
no_owner: true
no_privileges: true
extra_args: [--no-comments, --lock-wait-timeout=5s]",
    );
    let db = postgres(&config);
    assert_eq!((db.globals, db.format, db.jobs.map(NonZeroU32::get)), (true, Format::Custom, Some(4)));
    let filter = &db.filter;
    assert_eq!(
        (filter.schemas.as_slice(), filter.exclude_schemas.as_slice()),
        (["app".to_owned(), "audit_*".into()].as_slice(), ["tmp".to_owned()].as_slice())
    );
    assert_eq!((filter.exclude_tables[0].as_str(), filter.exclude_table_data[0].as_str()), ("app.\"Odd name\"", "app.log"));
    assert_eq!((filter.schema_only, filter.no_owner, filter.no_privileges), (false, true, true));
    assert_eq!(filter.extra_args, ["--no-comments", "--lock-wait-timeout=5s"]);
    let plain = with_target("database: app\ntables: [a, b.c]");
    assert_eq!(postgres(&plain).filter, DumpFilter { tables: vec!["a".into(), "b.c".into()], ..DumpFilter::default() });
}

#[test]
fn what_a_drill_asks_is_read() {
    let config = with_target(
        "databases: [a, b]
checks:
  - { name: users, sql: 'select count(*) > 0 from users' }
  - { name: version, sql: select v from version, expect: 0017, databases: [a, 'b*'] }
  - { name: none, sql: select 1 where false, expect: '' }
  - { name: truth, sql: select true, expect: true }",
    );
    let checks = config.targets[0].checks();
    let expected: Vec<_> = checks.iter().map(|check| check.expect.as_deref()).collect();
    assert_eq!(expected, [None, Some("0017"), Some(""), Some("true")]);
    assert_eq!((checks[0].name.as_str(), checks[0].sql.as_str()), ("users", "select count(*) > 0 from users"));
    assert_eq!((checks[0].databases.len(), checks[1].databases.as_slice()), (0, ["a".to_owned(), "b*".into()].as_slice()));
}

#[test]
fn the_place_of_a_drill_is_read() {
    let place = |lines: &str| postgres(&with_target(&format!("database: app\n{lines}"))).drill.clone();
    for (line, outbound) in
        [("", false), ("drill: {}", false), ("drill: { cluster: temporary }", false), ("drill: { allow_outbound: true }", true)]
    {
        let drill = place(line);
        assert!(matches!(drill.place, DrillPlace::Temporary) && drill.allow_outbound == outbound, "{line}");
    }
    assert!(matches!(
        place("drill: { server: same, allow_outbound: true }"),
        Drill { place: DrillPlace::Same, allow_outbound: true }
    ));
    let drill = place("drill: { host: h, port: 5433, user: u, password: '${PW}', sslmode: require, client_bin: bin }");
    let DrillPlace::Server(server) = drill.place else { panic!("{drill:?}") };
    assert_eq!((server.host.as_deref(), server.port, server.user.as_deref()), (Some("h"), Some(5433), Some("u")));
    assert_eq!((value(server.password.as_ref()), server.sslmode.as_deref()), (Some("0123"), Some("require")));
    assert_eq!(server.client_bin.as_deref(), Some(Path::new("/etc/db-backup/bin")));
}

#[test]
fn the_database_may_come_from_the_environment() {
    let text = "version: 1\nstorages: { a: { type: local, path: b } }\ntargets: [ { name: x, type: postgres } ]\n";
    for name in ["PGDATABASE", "PGSERVICE"] {
        let env: Env = [(name, "x")].into_iter().collect();
        assert!(read(text, Path::new("/c.yml"), &env, &facts()).is_ok());
    }
}

#[test]
fn what_stands_still_and_which_commands_run_is_read() {
    use crate::config::model::{Held, HoldBy, Hooks};
    let hold = |lines: &str| {
        let config = good(&format!(
            "version: 1\nstorages: {{ local: {{ type: local, path: /b }} }}\ntargets: [ {{ name: app, type: volume, path: /srv, {lines} }} ]"
        ));
        let TargetKind::Volume(volume) = &config.targets[0].kind else { panic!("{config:?}") };
        volume.hold.clone().map(|hold| (hold.how, hold.which))
    };
    let named = |names: &[&str]| Held::Named(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(hold("enabled: true"), None);
    assert_eq!(hold("stop: [web, shop-db-1]"), Some((HoldBy::Stop, named(&["web", "shop-db-1"]))));
    assert_eq!(hold("stop: users"), Some((HoldBy::Stop, Held::Users)));
    assert_eq!(hold("pause: users"), Some((HoldBy::Pause, Held::Users)));
    let label = Held::Label("com.docker.compose.project=shop".into());
    assert_eq!(hold("pause: { label: com.docker.compose.project=shop }"), Some((HoldBy::Pause, label)));
    let hooks = |lines: &str| with_target(&format!("database: app\nhooks: {{ {lines} }}")).targets.remove(0).hooks.unwrap();
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    // A text is a shell's, which expands variables itself; a list is a program's words.
    assert_eq!(
        hooks("before: 'app freeze $PORT', after: [app, thaw, '${PORT}'], timeout: 90s"),
        Hooks {
            before: words(&["sh", "-c", "app freeze $PORT"]),
            after: words(&["app", "thaw", "6000"]),
            on_error: None,
            timeout: Duration::from_secs(90)
        }
    );
    let only = hooks("on_error: page");
    assert_eq!(
        (only.before, only.after, only.on_error, only.timeout),
        (None, None, words(&["sh", "-c", "page"]), Duration::from_secs(600))
    );
    assert!(with_target("database: app").targets[0].hooks.is_none());
}

#[test]
fn targets_share_by_anchors_and_merge_keys() {
    let config = good(
        "version: 1
storages: { a: { type: local, path: b } }
targets:
  - &db { name: one, type: postgres, host: db, database: one }
  - { <<: *db, name: two, database: two }
",
    );
    let TargetKind::Postgres(two) = &config.targets[1].kind else { panic!("{config:?}") };
    assert_eq!((config.targets[1].name.as_str(), two.host.as_deref(), named(two)), ("two", Some("db"), Some("two")));
}

#[test]
fn all_usual_cron_lines_are_taken() {
    for line in ["0 3 * * *", "*/5 0-6,22 1 jan,JUL sun", "@daily", "@hourly", "  15  4 * * 7 "] {
        let config = with_target(&format!("database: app\nschedule: {line:?}"));
        assert_eq!(config.targets[0].schedule.as_deref(), Some(line.trim()));
    }
}

#[test]
fn others_who_can_read_a_literal_password_are_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.yml");
    let text = |password: &str| {
        format!(
            "version: 1\nstorages: {{ a: {{ type: local, path: b }} }}\ntargets: [ {{ name: x, type: postgres, database: x, password: \"{password}\" }} ]\n"
        )
    };
    let warnings = |password: &str, mode| {
        std::fs::write(&path, text(password)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read_file(&path, &env(), &facts()).unwrap().warnings
    };
    assert!(warnings("hunter2", 0o600).is_empty());
    assert!(warnings("${PW}", 0o644).is_empty());
    let warned = warnings("hunter2", 0o640);
    assert!(warned[0].contains("chmod 600") && !warned[0].contains("hunter2"), "{warned:?}");
}

#[test]
fn a_file_that_is_not_there_says_how_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.yml");
    let error = read_file(&path, &env(), &facts()).unwrap_err().into_errors().remove(0);
    assert_eq!((error.kind(), error.hint_text()), (Kind::Config, Some(GENERATE)));
    std::fs::write(&path, b"version: 1\nhost: \xff\n").unwrap();
    let error = read_file(&path, &env(), &facts()).unwrap_err().into_errors().remove(0);
    assert!(error.to_string().ends_with("backup.yml: line 2: expected UTF-8 text"), "{error}");
}

#[test]
fn the_file_is_found_in_the_documented_order() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.yml"), dir.path().join("second.yml"));
    let named: Env = [(VARIABLE, "/from/variable")].into_iter().collect();
    assert_eq!(find(Some(Path::new("/given")), &named).unwrap(), Path::new("/given"));
    assert_eq!(find(None, &named).unwrap(), Path::new("/from/variable"));
    let places = [first.clone(), second.clone()];
    assert_eq!(find_in(&places).unwrap_err().hint_text(), Some(GENERATE));
    std::fs::write(&second, "").unwrap();
    assert_eq!(find_in(&places).unwrap(), second);
    std::os::unix::fs::symlink("/nowhere/at/all", &first).unwrap();
    assert_eq!(find_in(&places).unwrap(), first);
}

/// Pieces of good configurations, so that random texts get further than the first character.
const PIECES: &str = "(version: 1\n|storages:\n|targets:\n|  - |    |  |name: |type: |postgres\n|local\n|s3\n|bucket: |prefix: |endpoint: |proxy: |tags: |ca_file: |access_key_id: |secret_access_key: |part_size: |http://|a: |\\{|\\}|\\[|\\]|, |<<: |&a |\\*a |\\$\\{|:-|'|\"|uri: |password: |port: |schedule: |databases: |exclude_databases: |extra_args: |checks: |drill: |tables: |server: |name: |sql: |all\n|--no-|@|0|1e5|~|#|\n|x){0,40}";

proptest! {
    #[test]
    fn no_text_panics_the_reader(text in "\\PC{0,60}|[\\x00-\\x7f]{0,60}") {
        let _ = read(&text, Path::new("/c.yml"), &env(), &facts());
    }

    #[test]
    fn no_mixture_of_good_pieces_panics_the_reader(text in PIECES) {
        if let Err(mistakes) = read(&text, Path::new("/c.yml"), &env(), &facts()) {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.iter().all(|mistake| !mistake.problem.contains("got lost")), "{text}");
        }
    }

    #[test]
    fn no_value_panics_the_reader(value in "\\PC{0,30}|[*/0-9A-Z@,# L+?-]{0,20}") {
        let quoted = format!("{value:?}");
        for key in ["schedule", "uri", "port", "password", "timeout", "name", "enabled", "format", "databases", "jobs"] {
            let text = format!("version: 1\nstorages: {{ a: {{ type: local, path: b }} }}\ntargets: [ {{ type: postgres, {key}: {quoted} }} ]");
            let _ = read(&text, Path::new("/c.yml"), &env(), &facts());
        }
        for key in ["bucket", "prefix", "endpoint", "proxy", "storage_class", "part_size", "secret_access_key"] {
            let text = format!("version: 1\nstorages: {{ a: {{ type: s3, bucket: abc, {key}: {quoted} }} }}\ntargets: []");
            let _ = read(&text, Path::new("/c.yml"), &env(), &facts());
        }
    }
}
