//! What a `backup` leaves in its storages: names, modes, the manifest's and the inventory's every
//! field; which targets and storages it takes; and the options that go with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries, quoted};
use crate::support::tool::files_below;
use crate::support::{Database, Ran, SHARED, Test, eventually, sample_database};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What a stock tool makes of a file.
fn by_hand(program: &str, arguments: &[&str], file: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn sha256sum(file: &Path) -> String {
    String::from_utf8(by_hand("sha256sum", &[], file)).unwrap()[..64].to_owned()
}

/// The `id` of a run's only unit.
#[track_caller]
fn id_of(ran: &Ran) -> String {
    ran.json()["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no id in {}", ran.stdout)).to_owned()
}

fn items(ran: &Ran) -> Vec<Value> {
    ran.json()["items"].as_array().unwrap().clone()
}

/// A configuration's target on the shared server.
fn target(name: &str, database: &str, more: &str) -> String {
    let port = SHARED.port();
    format!(
        "  - name: {name}\n    type: postgres\n    host: {HOST}\n    port: {port}\n    user: {SUPERUSER}\n    \
         password: ${{DB_PASSWORD}}\n    database: {database}\n{more}"
    )
}

/// A test with these storages (`name: path`) and targets.
fn configured(storages: &[(&str, &str)], targets: &[String]) -> Test {
    let line = |(name, path): &(&str, &str)| format!("  {name}: {{ type: local, path: '{path}' }}\n");
    let storages = storages.iter().map(line).collect::<Vec<_>>().concat();
    let text = format!("version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n{storages}targets:\n{}", targets.concat());
    Test::new().env("DB_PASSWORD", PASSWORD).config(&text)
}

fn small_database() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (id int, word text); INSERT INTO t SELECT n, 'word ' || n FROM generate_series(1, 1000) n");
    database
}

#[test]
fn a_backup_is_three_files_named_for_their_unit_run_and_id() {
    let database = small_database();
    for (compression, ending) in
        [("{ type: gzip, level: 6 }", "sql.gz"), ("{ type: zstd, level: 3 }", "sql.zst"), ("{ type: none }", "sql")]
    {
        let test = Test::of(&database).target_option(&format!("compression: {compression}"));
        let ran = test.run(["backup", "--json"]).ok();
        let id = id_of(&ran);
        let run = &id[..16];
        assert_eq!(items(&ran)[0]["run"], run);
        let names = ["inventory.json", "manifest.json", ending].map(|ending| format!("web1/{run}/app_{id}.{ending}"));
        assert_eq!(test.stored(), names, "{compression}");
    }
}

#[test]
fn files_are_0600_and_directories_0700_whatever_the_umask() {
    let database = small_database();
    for umask in ["000", "077"] {
        let shell = format!("umask {umask}; exec \"$@\"");
        let test = Test::of(&database).under(["sh", "-c", &shell, "sh"]);
        fs::remove_dir(test.storage()).unwrap();
        fs::remove_dir(test.path("state")).unwrap();
        test.run(["backup"]).ok();
        let mut directory = test.stored_one(".manifest.json");
        for name in test.stored() {
            assert_eq!(mode(&test.storage().join(&name)), 0o600, "{umask} {name}");
        }
        while directory.pop() && directory != test.path("") {
            assert_eq!(mode(&directory), 0o700, "{umask} {}", directory.display());
            if directory == test.storage() {
                break;
            }
        }
        assert_eq!(mode(&test.path("state")), 0o700);
        assert_eq!(mode(&test.path("state/locks/app.lock")), 0o600);
    }
}

#[test]
fn a_manifest_says_all_about_its_artifact() {
    let database = sample_database();
    let test = Test::of(&database);
    let ran = test.run(["backup", "--label", "before the move", "--json"]).ok();
    let id = id_of(&ran);
    let artifact = test.stored_one(".sql.gz");
    let inventory = test.stored_one(".inventory.json");
    let content = by_hand("gunzip", &["-c"], &artifact);
    fs::write(test.path("content"), &content).unwrap();
    let mut manifest = read_json(&test.stored_one(".manifest.json"));
    let server = SHARED.psql("postgres", "SHOW server_version");
    let version = server.split(' ').next().unwrap();
    let client = String::from_utf8(SHARED.client("pg_dump", "postgres").arg("--version").output().unwrap().stdout).unwrap();
    let rows: u64 = counted(&database).values().sum();

    let (started, finished) = (manifest["started"].take(), manifest["finished"].take());
    let restore = manifest["restore"].take();
    assert_eq!(
        manifest,
        json!({
            "schema": 1, "id": id, "run": id[..16], "host": "web1", "unit": "app", "target": "app",
            "kind": "postgres", "database": database.name(), "format": "plain",
            "tool": concat!("db-backup-tools ", env!("CARGO_PKG_VERSION")),
            "server_version": version, "client_version": client.split(' ').nth(2).unwrap().trim_end(),
            "started": null, "finished": null,
            "artifact": { "name": artifact.file_name().unwrap().to_str().unwrap(),
                          "bytes": fs::metadata(&artifact).unwrap().len(), "sha256": sha256sum(&artifact) },
            "content": { "bytes": content.len(), "sha256": sha256sum(&test.path("content")) },
            "compression": { "type": "gzip", "level": 6 }, "encryption": null,
            "label": "before the move", "warnings": [], "restore": null,
            "inventory": { "name": inventory.file_name().unwrap().to_str().unwrap(), "sha256": sha256sum(&inventory),
                           "tables": counted(&database).len(), "rows": rows },
        })
    );
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    assert!(started.as_str().unwrap().ends_with('Z') && time(&started) <= time(&finished), "{started} {finished}");
    assert_eq!(time(&started).format("%Y%m%d_%H%M%SZ").to_string(), id[..16]);
    assert_eq!(restore["owner"], SUPERUSER);
    assert_eq!((&restore["encoding"], &restore["locale"]), (&json!("UTF8"), &json!("C.UTF-8")));
    assert!(restore["roles"].as_array().unwrap().contains(&json!(SUPERUSER)), "{restore}");
    assert_eq!((&restore["tablespaces"], &restore["extensions"]), (&json!([]), &json!([])));
}

/// Rows of each table with data of its own, by the server's count. Partitioned tables hold none, and
/// a dump has none of an unlogged one's or a foreign one's.
fn counted(database: &Database) -> BTreeMap<String, u64> {
    let names = database.psql(
        "SELECT format('%I.%I', n.nspname, c.relname) || ';' || n.nspname || '/' || c.relname
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind = 'r' AND c.oid >= 16384 ORDER BY 1",
    );
    let count = |line: &str| {
        let (sql, name) = line.split_once(';').unwrap();
        (name.to_owned(), database.psql(&format!("SELECT count(*) FROM ONLY {sql}")).parse().unwrap())
    };
    names.lines().map(count).collect()
}

#[test]
fn an_inventory_counts_each_tables_rows_as_the_server_does() {
    let database = sample_database();
    let test = Test::of(&database);
    test.run(["backup"]).ok();
    let inventory = read_json(&test.stored_one(".inventory.json"));
    assert_eq!(inventory["schema"], 1);
    let tables = inventory["tables"].as_array().unwrap();
    let name = |table: &Value| format!("{}/{}", table["schema"].as_str().unwrap(), table["name"].as_str().unwrap());
    let found: BTreeMap<String, u64> = tables.iter().map(|table| (name(table), table["rows"].as_u64().unwrap())).collect();
    assert_eq!(found, counted(&database));
    assert!(tables.iter().all(|table| table["bytes"].as_u64().unwrap() >= table["rows"].as_u64().unwrap()), "{inventory}");
}

#[test]
fn stock_tools_read_each_compression_and_find_the_same_dump() {
    let database = sample_database();
    let dump = database.dump();
    let readers: [(&str, &str, &[&str], &str); 3] =
        [("gzip", "gunzip", &["-c"], ".sql.gz"), ("zstd", "zstd", &["-d", "-c"], ".sql.zst"), ("none", "cat", &[], ".sql")];
    for (compression, program, arguments, ending) in readers {
        let test = Test::of(&database).target_option(&format!("compression: {{ type: {compression} }}"));
        test.run(["backup"]).ok();
        let read = String::from_utf8(by_hand(program, arguments, &test.stored_one(ending))).unwrap();
        assert!(crate::support::comparable(&read) == dump, "{compression}: {program} reads another dump than pg_dump writes");
    }
}

// FIELD: "Several databases in one run".
#[test]
fn targets_are_chosen_by_name_or_glob_and_a_wrong_name_begins_nothing() {
    let database = small_database();
    let targets: Vec<String> = ["app", "app2", "shop", "web"].map(|name| target(name, database.name(), "")).into();
    let backed_up = |arguments: &[&str]| {
        let test = configured(&[("local", "{storage}")], &targets);
        let ran = test.run([&["backup", "--json"], arguments].concat()).ok();
        let units: Vec<String> = items(&ran).iter().map(|item| item["unit"].as_str().unwrap().to_owned()).collect();
        assert_eq!(test.stored().iter().filter(|name| name.ends_with(".manifest.json")).count(), units.len());
        units.join(" ")
    };
    assert_eq!(backed_up(&[]), "app app2 shop web");
    assert_eq!(backed_up(&["app"]), "app");
    assert_eq!(backed_up(&["app*", "-n", "web"]), "app app2 web");
    let test = configured(&[("local", "{storage}")], &targets);
    test.run(["backup", "app", "shopp"]).fails(4).says("shopp").says("did you mean shop?");
    assert!(test.stored().is_empty());
}

// FIELD: "an unknown database `type` skipped with a warning", and exit 0 on failure: one that fails is
// never passed over, and the others go on.
#[test]
fn one_target_that_fails_leaves_the_others_alone() {
    let database = small_database();
    let targets =
        [target("first", database.name(), ""), target("broken", "no_such_database", ""), target("last", database.name(), "")];
    let test = configured(&[("local", "{storage}")], &targets);
    let ran = test.run(["backup", "--json"]).fails(1).says("broken: connect: ").says("hint: check `database:`");
    let statuses: Vec<String> = items(&ran).iter().map(|item| item["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(statuses, ["ok", "failed", "ok"]);
    let listed = items(&test.run(["list", "--json", "--all"]).ok());
    let units: Vec<&str> = listed.iter().map(|item| item["unit"].as_str().unwrap()).collect();
    assert_eq!(units, ["first", "last"]);
    assert!(!test.stored().iter().any(|name| name.contains("broken")));
}

/// Backups of one second have no order among them: waits for the next.
fn next_second() {
    let now = || chrono::Utc::now().timestamp();
    let begun = now();
    eventually("the next second", || now() != begun);
}

#[test]
fn a_label_and_a_pin_are_listed_and_a_pin_holds_against_the_policy() {
    let database = small_database();
    let test = Test::of(&database).target_option("retention: { keep_last: 1 }");
    let pinned = id_of(&test.run(["backup", "--pin", "--label", "before 2.0", "--json"]).ok());
    next_second();
    let gone = id_of(&test.run(["backup", "--json"]).ok());
    next_second();
    let newest = id_of(&test.run(["backup", "--json"]).ok());
    let listed = items(&test.run(["list", "--json"]).ok());
    let rows: Vec<_> = listed.iter().map(|row| (&row["id"], &row["label"], &row["pinned"])).collect();
    assert_eq!(rows.len(), 2, "{gone} is gone");
    assert!(rows.contains(&(&json!(pinned), &json!("before 2.0"), &json!(true))), "{rows:?}");
    assert!(rows.contains(&(&json!(newest), &json!(null), &json!(false))), "{rows:?}");
    let table = test.run(["list"]).ok().stdout;
    assert!(table.contains("before 2.0") && table.contains("whole, pinned"), "{table}");
    assert_eq!(mode(&test.stored_one(".pin")), 0o600);
}

#[test]
fn a_dry_run_shows_the_plan_and_touches_nothing() {
    let database = small_database();
    let test = Test::of(&database).top_option("log_dir: '{dir}/logs'");
    fs::remove_dir(test.storage()).unwrap();
    fs::remove_dir(test.path("state")).unwrap();
    let before = files_below(&test.path(""));
    let ran = test.run(["backup", "--dry-run"]).ok();
    assert!(ran.stdout.contains("app") && ran.stdout.contains("local") && ran.stdout.contains(database.name()), "{}", ran.stdout);
    assert!(!test.storage().exists() && !test.path("state").exists() && !test.path("logs").exists());
    let ran_files = |name: &String| name.starts_with(".ran/");
    assert_eq!(files_below(&test.path("")).into_iter().filter(|name| !ran_files(name)).collect::<Vec<_>>(), {
        let mut before = before;
        before.retain(|name| !ran_files(name));
        before
    });
}

#[test]
fn a_dry_run_finds_what_the_backup_would_fail_on() {
    let database = small_database();
    let role = format!("poor_{}", database.name());
    database.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"));
    let test = Test::of(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &config.replace(&format!("user: {SUPERUSER}"), &format!("user: {role}")));
    let said = [test.run(["backup", "--dry-run"]), test.run(["backup"])];
    database.psql(&format!("DROP ROLE {role}"));
    let [dry, wet] = said.map(|ran| ran.fails(1));
    dry.says("app: privileges: ").says("public.t").says("hint: GRANT pg_read_all_data");
    wet.says("app: dump: ").says("permission denied for table t").says("hint: ").never_shows(PASSWORD);
    assert!(test.stored().is_empty());
}

#[test]
fn no_prune_deletes_nothing_and_one_without_it_what_the_policy_says() {
    let database = small_database();
    let test = Test::of(&database).target_option("retention: { keep_last: 1 }");
    let manifests = || test.stored().iter().filter(|name| name.ends_with(".manifest.json")).count();
    test.run(["backup"]).ok();
    test.run(["backup", "--no-prune"]).ok();
    assert_eq!(manifests(), 2);
    test.run(["backup"]).ok().says("deleted");
    assert_eq!((manifests(), test.stored().len()), (1, 3));
}

#[test]
fn a_disabled_target_is_backed_up_by_its_very_name_alone() {
    let database = small_database();
    let targets = [target("on", database.name(), ""), target("off", database.name(), "    enabled: false\n")];
    let test = configured(&[("local", "{storage}")], &targets);
    let units = |ran: Ran| items(&ran.ok()).iter().map(|item| item["unit"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(units(test.run(["backup", "--json"])), ["on"]);
    assert_eq!(units(test.run(["backup", "--json", "o*"]).says("off: disabled")), ["on"]);
    assert_eq!(units(test.run(["backup", "--json", "off"])), ["off"]);
}

#[test]
fn parallel_units_are_dumped_at_once_and_told_in_the_configs_order() {
    let database = small_database();
    let targets: Vec<String> = ["one", "two"].map(|name| target(name, database.name(), "")).into();
    // Each waits until the other has begun.
    let meets = r#"[ "$1" = --version ] && exec {real} --version
echo run >>{dir}/begun; while [ -d {dir} ] && [ $(wc -l <{dir}/begun) -lt 2 ]; do sleep 0.05; done; exec {real} "$@""#;
    let test = configured(&[("local", "{storage}")], &targets).fake_bin("pg_dump", meets);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &format!("parallel: 2\n{config}"));
    let units: Vec<_> = items(&test.run(["backup", "--json"]).ok()).iter().map(|item| item["unit"].clone()).collect();
    assert_eq!(units, ["one", "two"]);
}

#[test]
fn a_run_of_many_units_asks_each_program_for_its_version_once() {
    let database = small_database();
    let place = format!("    client_bin: '{}'\n", binaries().display());
    let targets: Vec<String> = ["one", "two", "three"].map(|name| target(name, database.name(), &place)).into();
    let traced = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", "calls"];
    let test = configured(&[("local", "{storage}")], &targets).under(traced);
    test.run(["backup"]).ok();
    let calls = fs::read_to_string(test.path("calls")).unwrap();
    let count = |words: &str| calls.lines().filter(|line| line.contains(words)).count();
    // Beside that, a question and a dump for each unit.
    assert_eq!(["\"--version\"", "ON_ERROR_STOP", "--format=plain"].map(count), [2, 3, 3], "{calls}");
}

// FIELD: "37 GB of memory", "20 GB of temporary files never deleted".
#[test]
fn a_large_dump_takes_little_memory_and_no_temporary_file() {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE t (word text); INSERT INTO t VALUES ('the only row')");
    // 200 MB of rows that hardly compress in place of the only one; then it looks at us, its parent.
    let large = r#"[ "$1" = --version ] && exec {real} --version
{real} "$@" >{dir}/whole
sed '/^COPY /q' {dir}/whole
head -c 150000000 /dev/urandom | base64
sed -n '/^COPY /,$p' {dir}/whole | tail -n +2
grep VmHWM /proc/$PPID/status >{dir}/peak; ls -A {dir}/tmp >{dir}/temporary"#;
    let test = Test::of(&database).fake_bin("pg_dump", large);
    let ran = test.run(["backup", "--json"]).ok();
    assert!(items(&ran)[0]["content_bytes"].as_u64().unwrap() > 200_000_000);
    let peak = fs::read_to_string(test.path("peak")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 48 << 10, "{peak}");
    assert_eq!(fs::read_to_string(test.path("temporary")).unwrap(), "");
}

// FIELD: "Side effects ... a leftover file that blocks every later run".
#[test]
fn a_leftover_of_an_earlier_run_blocks_no_later_one() {
    let database = small_database();
    let test = Test::of(&database);
    let run = test.storage().join("web1/20260101_000000Z");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join(".app_20260101_000000Z-aaaa.sql.gz.tmp-01234567"), "half").unwrap();
    fs::write(run.join("app_20260101_000000Z-bbbb.sql.gz"), "half").unwrap();
    fs::create_dir_all(test.path("state/locks")).unwrap();
    fs::write(test.path("state/locks/app.lock"), r#"{"pid":1,"since":"2026-01-01T00:00:00Z"}"#).unwrap();
    test.run(["backup"]).ok();
    assert_eq!(items(&test.run(["list", "--json"]).ok()).len(), 1);
}

// FIELD: "Versions. pg_dump older than the server".
#[test]
fn a_pg_dump_older_than_the_server_is_refused_before_it_runs() {
    let database = small_database();
    let script = r#"[ "$1" = --version ] && { echo 'pg_dump (PostgreSQL) 9.6.24'; exit; }; touch {dir}/ran; exec {real} "$@""#;
    let test = Test::of(&database).target_option("client_bin: '{bin}'").fake_bin("pg_dump", script);
    test.run(["backup"]).fails(1).says("there is no pg_dump of version").says("hint: install postgresql-client-");
    assert!(!test.path("ran").exists() && test.stored().is_empty());
}

// FIELD: "shell injection". A name is a name, also where libpq would read a connection string.
#[test]
fn a_databases_name_is_never_read_as_anything_else() {
    for name in ["dbname=postgres", "$(touch pwned); 'x\" y", "postgresql://elsewhere/x", "-Fc"] {
        let name = format!("{name} {}", SHARED.create_database().name());
        SHARED.psql("postgres", &format!("CREATE DATABASE {}", quoted(&name)));
        let database = SHARED.adopt(&name);
        let test = Test::of(&database);
        let config = fs::read_to_string(test.path("backup.yml")).unwrap();
        let yaml = format!("database: '{}'", name.replace('\'', "''"));
        test.write("backup.yml", &config.replace(&format!("database: {name}"), &yaml));
        test.run(["backup"]).ok();
        let manifest = read_json(&test.stored_one(".manifest.json"));
        assert_eq!(manifest["database"], name);
        assert!(!test.path("pwned").exists());
    }
}

// FIELD: "Secrets. A password on argv, then printed in the error".
#[test]
fn the_password_is_in_no_childs_arguments_and_in_nothing_that_is_stored_or_said() {
    let database = small_database();
    let script = r#"printf '%s\n' "$0" "$@" >>{dir}/arguments; exec {real} "$@""#;
    let test = Test::of(&database).fake_bin("pg_dump", script).fake_bin("psql", script).top_option("log_dir: '{dir}/logs'");
    fs::create_dir(test.path("logs")).unwrap();
    let ran = test.run(["-vv", "backup", "--json"]).ok().never_shows(PASSWORD);
    assert!(!ran.stdout.is_empty() && fs::read_to_string(test.path("arguments")).unwrap().contains("pg_dump"));
    let holds = |path: &Path| fs::read(path).unwrap().windows(PASSWORD.len()).any(|bytes| bytes == PASSWORD.as_bytes());
    for directory in ["storage", "state", "logs", "tmp"] {
        for name in files_below(&test.path(directory)) {
            assert!(!holds(&test.path(directory).join(&name)), "{directory}/{name} holds the password");
        }
    }
    assert!(!holds(&test.path("arguments")));
}
