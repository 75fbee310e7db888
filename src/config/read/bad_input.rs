//! Bad input and what it gets: each case is a text, and the snapshot holds its mistakes.

use std::fmt::Write;

use super::*;

/// Above each case's lines; `@` stands for it.
const STORAGES: &str = "version: 1\nstorages: { local: { type: local, path: /b } }\n";
/// A good start of a target; `%` stands for it.
const TARGET: &str = "version: 1\nstorages: { local: { type: local, path: /b } }\ntargets:\n  - name: app\n    type: postgres\n    database: app\n";

const CASES: &[(&str, &str)] = &[
    ("an empty file", ""),
    ("only comments", "# nothing\n"),
    ("a list", "- a\n"),
    ("a word", "backup"),
    ("not YAML: tabs", "version: 1\nstorages:\n\tlocal: x\n"),
    ("not YAML: a quote left open", "version: 1\nhost: 'web1\n"),
    ("not YAML: indentation", "version: 1\n  host: web1\n"),
    ("several documents", "version: 1\n---\nversion: 1\n"),
    ("a template left in", "version: 1\nhost: {{ host }}\n"),
    ("a tag", "version: !secret x\n"),
    ("nothing but a version", "version: 1\n"),
    ("no version", "storages: { local: { type: local, path: /b } }\ntargets: [ { name: a, type: postgres, database: a } ]\n"),
    ("a newer version", "version: 2\nfuture: x\n"),
    ("a version of words", "@version: 1.0\ntargets: []\n"),
    ("an unknown key", "%    prot: 5432\n"),
    ("an unknown key with no likeness", "%    zzz: 5432\n"),
    ("unknown keys at the top", "@target: []\nstorage: {}\ntargets: [ { name: a, type: postgres, database: a } ]\n"),
    ("a key given twice", "%    port: 5432\n    port: 5433\n"),
    (
        "a storage named twice",
        "version: 1\nstorages:\n  a: { type: local, path: /a }\n  a: { type: local, path: /b }\ntargets: [ { name: a, type: postgres, database: a } ]\n",
    ),
    ("a port of letters", "%    port: abc\n"),
    (
        "ports out of range",
        "%    port: 0\n  - { name: b, type: postgres, database: b, port: 65536 }\n  - { name: c, type: postgres, database: c, port: -1 }\n",
    ),
    (
        "ports that are other numbers",
        "%    port: 1e3\n  - { name: b, type: postgres, database: b, port: 0777 }\n  - { name: c, type: postgres, database: c, port: 54.5 }\n",
    ),
    (
        "wrong types",
        "%    host: [a]\n    port: { a: b }\n    user:\n    enabled: yes\n    storages: local\n    retention: 7\n    compression: gzip\n    timeout: [1h]\n",
    ),
    ("text for mappings and lists", "version: 1\nstorages: local\ndefaults: none\ntargets: app\n"),
    ("a target that is a word", "@targets: [app]\n"),
    ("empty storages and targets", "version: 1\nstorages: {}\ntargets: []\n"),
    ("an unknown type", "@targets: [ { name: a, type: postgre }, { name: b, type: oracle }, { name: c } ]\n"),
    ("a volume without a place", "@targets: [ { name: a, type: volume } ]\n"),
    ("a volume in two places", "@targets: [ { name: a, type: volume, path: /srv, volume: v } ]\n"),
    (
        "a volume's wrong words",
        "@targets: [ { name: a, type: volume, volume: -v, engine: lxc, archiver: zip, helper_image: ' x', exclude: ['/', ''], drill: { hash: maybe } } ]\n",
    ),
    ("stop and pause", "@targets: [ { name: a, type: volume, path: /srv, stop: users, pause: [x] } ]\n"),
    ("stop what is no container", "@targets: [ { name: a, type: volume, path: /srv, stop: web } ]\n"),
    ("stop an option", "@targets: [ { name: a, type: volume, path: /srv, stop: ['--all'] } ]\n"),
    ("pause by a label without one", "@targets: [ { name: a, type: volume, path: /srv, pause: { labels: x } } ]\n"),
    ("hooks without a command", "%    hooks: { timeout: 5s }\n"),
    ("hooks that are wrong", "%    hooks: { before: [], after: '', on_failure: x }\n"),
    ("a container twice", "%    container: db\n    compose: { file: c.yml, service: db }\n"),
    ("a container and this machine's programs", "%    container: db\n    client_bin: /usr/bin\n"),
    ("a service without a file", "%    compose: { service: db }\n"),
    ("an engine for nothing", "%    engine: docker\n"),
    ("a drill in a container for a server that is in none", "%    drill: { container: temporary }\n"),
    ("a container without a database", "@targets: [ { name: a, type: postgres, container: db } ]\n"),
    ("keys of later versions", "%    lock_wait_timeout: 5s\n    guards: []\n"),
    ("a format of a later version", "%    format: directory\n"),
    ("an unknown format", "%    format: plian\n"),
    (
        "names that can't be used",
        "@targets:\n  - { name: a.b, type: postgres, database: a }\n  - { name: '', type: postgres, database: a }\n  - { name: -a, type: postgres, database: a }\n  - { name: a/b, type: postgres, database: a }\n",
    ),
    ("a target without a name", "@targets: [ { type: postgres, database: a } ]\n"),
    ("a name taken twice", "%  - { name: app, type: postgres, database: b }\n"),
    (
        "a storage's name that can't be used",
        "version: 1\nstorages: { a b: { type: local, path: /b } }\ntargets: [ { name: a, type: postgres, database: a } ]\n",
    ),
    (
        "a storage without a path",
        "version: 1\nstorages: { a: { type: local }, b: { path: /b }, c: { type: ftp } }\ntargets: [ { name: a, type: postgres, database: a, storages: [a] } ]\n",
    ),
    ("unknown storages", "%    storages: [locla, offsite, local, local]\n"),
    ("an unknown storage in the defaults", "%defaults: { storages: [ofsite] }\n"),
    ("an empty list of storages", "%    storages: []\n"),
    (
        "no storages chosen of two",
        "version: 1\nstorages: { a: { type: local, path: /a }, b: { type: local, path: /b } }\ntargets: [ { name: a, type: postgres, database: a } ]\n",
    ),
    (
        "two storages in one directory",
        "version: 1\nstorages: { a: { type: local, path: /a/x/.. }, b: { type: local, path: /a/ } }\ntargets: [ { name: a, type: postgres, database: a, storages: [a] } ]\n",
    ),
    (
        "a mount that the path is not in",
        "version: 1\nstorages: { a: { type: local, path: /mnt/a/../b, mount: /mnt/a } }\ntargets: [ { name: a, type: postgres, database: a } ]\n",
    ),
    (
        "a path with a tilde",
        "version: 1\nstorages: { a: { type: local, path: ~/backups } }\ntargets: [ { name: a, type: postgres, database: a } ]\n",
    ),
    ("missing variables", "%    user: ${NO_USER}\n    password: ${NO_PASSWORD:?ask the admin}\n    host: ${EMPTY}\n"),
    ("malformed variables", "%    user: ${\n    host: ${A-b}\n    sslmode: ${}\n"),
    (
        "values of variables are not shown",
        "%    port: ${SECRET}\n    sslmode: ${SECRET}\n    timeout: ${SECRET}\n    enabled: ${SECRET}\n    schedule: ${SECRET}\n",
    ),
    ("a missing secret file", "%    password: { file: /nowhere/at/all }\n"),
    ("a secret file that is a directory", "%    password: { file: / }\n"),
    ("a secret of a wrong form", "%    password: { fil: /x }\n"),
    ("a secret of two forms", "%    password: { file: /x, command: y }\n"),
    ("a secret that is a list", "%    password: [hunter2]\n"),
    (
        "commands that can't be",
        "%    password: { command: [] }\n  - { name: b, type: postgres, database: b, password: { command: '' } }\n  - { name: c, type: postgres, database: c, password: { command: { a: b } } }\n",
    ),
    (
        "an address with its parts",
        "@targets:\n  - name: a\n    type: postgres\n    uri: postgresql://h/d\n    host: h\n    port: 1\n    user: u\n    password: hunter2\n    sslmode: require\n    database: d\n",
    ),
    (
        "an address that is none",
        "@targets: [ { name: a, type: postgres, uri: 'mysql://u:hunter2@h/d' }, { name: b, type: postgres, uri: '${SECRET}' } ]\n",
    ),
    ("no database", "@targets: [ { name: a, type: postgres }, { name: b, type: postgres, uri: postgresql://h/ } ]\n"),
    (
        "databases given twice over",
        "%    databases: [a]\n  - { name: b, type: postgres, uri: postgresql://h/d, databases: all }\n  - { name: c, type: postgres, uri: 'postgresql://h/?dbname=d', databases: [a] }\n",
    ),
    (
        "databases that can't be",
        "@targets:\n  - { name: a, type: postgres, databases: [] }\n  - { name: b, type: postgres, databases: shop }\n  - { name: c, type: postgres, databases: [a, b, a] }\n  - { name: d, type: postgres, databases: { a: b } }\n  - { name: e, type: postgres, databases: ['', 'x', ] }\n  - { name: f, type: postgres, databases: ALL }\n  - { name: g, type: postgres, databases: [ \"a\\0b\", [x] ] }\n  - { name: h, type: postgres, databases: [ häääääääääääääääääääääääääääääääh ] }\n  - { name: i, type: postgres, database: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx }\n  - { name: j, type: postgres, databases: }\n",
    ),
    (
        "databases left out",
        "@targets:\n  - { name: a, type: postgres, databases: [x], exclude_databases: [y] }\n  - { name: b, type: postgres, database: x, exclude_databases: [y] }\n  - { name: c, type: postgres, databases: all, exclude_databases: ['a[', '{b', x, x] }\n  - { name: d, type: postgres, databases: all, exclude_databases: [] }\n  - { name: e, type: postgres, databases: all, exclude_databases: x }\n",
    ),
    (
        "globals and jobs",
        "%    globals: some\n    format: custom\n    jobs: 0\n  - { name: b, type: postgres, database: b, jobs: 2 }\n  - { name: c, type: postgres, database: c, format: custom, jobs: 65 }\n",
    ),
    (
        "filters",
        "%    schemas: app\n    exclude_schemas: []\n    exclude_tables: ['']\n    exclude_table_data: [a, a]\n    schema_only: x\n    no_owner: 1\n    no_privileges: [true]\n    exclude_table: [x]\n",
    ),
    (
        "schemas beside tables",
        "%    schemas: [a]\n    exclude_schemas: [b]\n    tables: [a.b]\n  - { name: b, type: postgres, database: b, schemas: [a], extra_args: ['--table-and-children=x'] }\n",
    ),
    (
        "extra_args",
        "%    extra_args: [--clean, -Fc, '--jobs 4', -j, '4', '--ins', '${SECRET}', --no-comments]\n  - { name: b, type: postgres, database: b, extra_args: --create }\n  - { name: c, type: postgres, database: c, format: custom, extra_args: [--no-tablespaces] }\n  - { name: d, type: postgres, database: d, extra_args: [] }\n",
    ),
    (
        "checks",
        "%    checks:\n      - { name: a, sql: select 1 }\n      - { name: a, sql: select 2, expect: [1] }\n      - { sql: '' }\n      - { name: b }\n      - select 1\n      - { name: c, sql: select 1, expected: 1, databases: [] }\n      - { name: d, sql: select 1, expect: null, databases: [other, 'a[', 'ap*'] }\n  - { name: b, type: postgres, databases: [x, y], checks: [ { name: a, sql: select 1, databases: [x, 'z*'] } ] }\n  - { name: c, type: postgres, databases: all, checks: [] }\n",
    ),
    (
        "drills",
        "%    drill: { cluster: tmp }\n  - { name: b, type: postgres, database: b, drill: { server: other } }\n  - { name: c, type: postgres, database: c, drill: { cluster: temporary, server: same } }\n  - { name: d, type: postgres, database: d, drill: { server: same, host: h, port: 5433 } }\n  - { name: e, type: postgres, database: e, drill: { port: 5433, sslmode: on, allow_outbound: x } }\n  - { name: f, type: postgres, database: f, drill: temporary }\n  - { name: g, type: postgres, database: g, drill: { host: h, databse: x, uri: x } }\n",
    ),
    ("a scalar for a list of a common kind", "%defaults: { storages: local, timeout: soon }\n"),
    ("an unknown sslmode", "%    sslmode: verify_full\n"),
    (
        "compressions",
        "%    compression: { type: lz4 }\n  - { name: b, type: postgres, database: b, compression: { type: gzip, level: 10 } }\n  - { name: c, type: postgres, database: c, compression: { type: zstd, level: 20 } }\n  - { name: d, type: postgres, database: d, compression: { type: none, level: 1 } }\n  - { name: e, type: postgres, database: e, compression: { level: 1 } }\n",
    ),
    ("retention counts", "%    retention: { keep_last: 0, keep_days: -1, keep_daily: all, keep_week: 4 }\n"),
    (
        "durations",
        "%    timeout: 2\n  - { name: b, type: postgres, database: b, timeout: 1h30m }\n  - { name: c, type: postgres, database: c, timeout: 0s }\n",
    ),
    ("retries and parallel", "%    retries: -1\nparallel: 0\n"),
    ("memory", "%memory: 40MiB\n"),
    (
        "cron lines",
        "%    schedule: daily\n  - { name: b, type: postgres, database: b, schedule: 0 3 * * }\n  - { name: c, type: postgres, database: c, schedule: 61 3 * * * }\n  - { name: d, type: postgres, database: d, schedule: '@reboot' }\n  - { name: e, type: postgres, database: e, schedule: 0 0 3 * * * }\n  - { name: f, type: postgres, database: f, schedule: 0 3 L * * }\n",
    ),
    ("a timezone", "%timezone: America/Sao_Paolo\n"),
    ("another timezone", "%timezone: GMT+3 or so\n"),
    ("empty values", "%host: ''\nlog_dir:\n"),
    ("a merge of no mapping", "%    <<: x\n"),
    (
        "a mistake in what is merged",
        "@targets:\n  - &a { name: a, type: postgres, database: a, port: x }\n  - { <<: *a, name: b }\n",
    ),
    (
        "many mistakes come in the file's order",
        "parallel: x\nversion: 1\ntargets:\n  - { name: a, type: postgres, databse: a }\nstorages:\n  a: { type: local, path: '' }\ntimezone: Nowhere\n",
    ),
];

#[test]
fn each_mistake_is_said_with_its_place_and_a_hint() {
    let env: Env = [("SECRET", "hunter2"), ("EMPTY", "")].into_iter().collect();
    let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
    let mut shown = String::new();
    for (name, text) in CASES {
        let text = match (text.strip_prefix('@'), text.strip_prefix('%')) {
            (Some(rest), _) => format!("{STORAGES}{rest}"),
            (_, Some(rest)) => format!("{TARGET}{rest}"),
            _ => (*text).to_owned(),
        };
        let mistakes = read(&text, Path::new("/etc/db-backup/backup.yml"), &env, &facts).expect_err(name);
        writeln!(shown, "# {name}").unwrap();
        for mistake in mistakes {
            writeln!(shown, "{mistake}").unwrap();
        }
        shown.push('\n');
    }
    assert!(!shown.contains("hunter2"));
    insta::assert_snapshot!(shown);
}

#[test]
fn a_machine_without_a_name_needs_one() {
    let facts = HostFacts { host_name: String::new(), is_root: true, home: None };
    let text = format!("{STORAGES}targets: [ {{ name: a, type: postgres, database: a }} ]\n");
    let mistakes = read(&text, Path::new("/c.yml"), &Env::default(), &facts).unwrap_err();
    insta::assert_snapshot!(mistakes[0], @"line 1: this machine has no host name, and `host` is not given (write host: NAME)");
}
