//! What a call of the program is: configuration found and judged, options where they may stand, results
//! on stdout and all else on stderr, and every exit code from the real binary.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::messages::{prints, target};
use crate::support::{Database, SHARED, Signal, Test, eventually, repository};

const MISTAKEN: &str = "version: 1
storages:
  local: { type: local, path: '{storage}', compresion: gzip }
targets:
  - name: app
    type: postgres
    port: 99999
    database: ${NO_SUCH_VARIABLE}
  - name: app
    type: postgrs
";

fn small() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE people (id int, name text); INSERT INTO people VALUES (1, 'Ada')");
    database
}

#[test]
fn every_mistake_is_told_once_with_its_place() {
    let test = Test::new().config(MISTAKEN);
    prints(&test, ["validate"], 2, "mistakes_validate");
    prints(&test, ["backup"], 2, "mistakes_backup");
    assert!(!test.path("state/locks").exists());
}

#[test]
fn mistakes_as_json_are_items_and_problems() {
    let test = Test::new().config(MISTAKEN);
    for command in ["validate", "backup", "list", "prune"] {
        let json = test.run(["--json", command]).fails(2).json();
        assert_eq!((&json["command"], &json["exit_code"], &json["outcome"]), (&command.into(), &2.into(), &"refused".into()));
        let problems = json["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 5, "{json:#}");
        for problem in problems {
            assert_eq!(problem["kind"], "config");
            for key in ["target", "step", "storage", "cause", "hint"] {
                assert!(problem.get(key).is_some(), "{key} in {problem}");
            }
        }
        assert!(problems.iter().any(|problem| problem["cause"].as_str().unwrap().contains("targets[0].port (line 7)")));
        assert_eq!(json["items"].as_array().unwrap().len(), if command == "validate" { 5 } else { 0 });
    }
}

#[test]
fn a_config_that_is_not_there_is_refused() {
    let test = Test::new();
    test.run(["backup"]).fails(2).says("no configuration").says("generate -o backup.yml");
    let ran = test.run(["validate", "-c", "other.yml"]).fails(2).says("can't read the configuration other.yml");
    assert_eq!(ran.stdout, "");
    test.run(["--env-file", "nothing", "list"]).fails(2).says("can't read the env file nothing");
}

#[test]
fn the_sample_is_printed_written_once_and_valid() {
    let test = Test::new();
    let sample = fs::read_to_string(repository().join("backup.example.yml")).unwrap();
    let ran = test.run(["generate"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (sample.as_str(), ""));
    let ran = test.run(["generate", "-o", "new.yml"]).ok().says("new.yml");
    assert_eq!(ran.stdout, "");
    assert_eq!(fs::read_to_string(test.path("new.yml")).unwrap(), sample);
    assert_eq!(fs::metadata(test.path("new.yml")).unwrap().permissions().mode() & 0o777, 0o600);
    test.run(["-c", "new.yml", "validate"]).ok();
    for empty in [Test::new(), Test::new().unprivileged()] {
        fs::write(empty.path("backup.yml"), &sample).unwrap();
        empty.under(["env", "-i"]).run(["validate"]).ok();
    }
    test.write("new.yml", "mine");
    test.run(["generate", "-o", "new.yml"]).fails(2).says("--force");
    assert_eq!(fs::read_to_string(test.path("new.yml")).unwrap(), "mine");
    test.run(["generate", "-o", "new.yml", "--force"]).ok();
    assert_eq!(fs::read_to_string(test.path("new.yml")).unwrap(), sample);
    test.run(["generate", "-o", "absent/new.yml"]).fails(2).says("can't write absent/new.yml");
    let left: Vec<_> = fs::read_dir(test.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".backup.yml.")), "{left:?}");
}

#[test]
fn the_config_is_the_one_named_first() {
    let of_host = |host: &str| {
        format!(
            "version: 1\nhost: {host}\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
             targets: [{{ name: {host}, type: postgres, database: app }}]\n"
        )
    };
    let test = Test::new().file("backup.yml", &of_host("current")).file("b.yml", &of_host("variable"));
    let test = test.file("c.yml", &of_host("option"));
    test.run(["list", "current"]).ok();
    let test = test.env("DB_BACKUP_CONFIG", "b.yml");
    test.run(["list", "variable"]).ok();
    test.run(["list", "current"]).fails(4);
    test.run(["-c", "c.yml", "list", "option"]).ok();
    test.run(["list", "option", "--config", "c.yml"]).ok();
    test.run(["list", "variable", "-c", "c.yml"]).fails(4);
}

#[test]
fn a_password_that_others_can_read_is_a_warning() {
    let test = target(&["host: h", "user: u", "password: hunter2-literal", "database: d"]);
    let ran = test.run(["validate"]).ok().never_shows("hunter2-literal");
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    fs::set_permissions(test.path("backup.yml"), Permissions::from_mode(0o644)).unwrap();
    for arguments in [["validate"].as_slice(), &["-q", "list"]] {
        let ran = test.run(arguments).ok().says("warning: backup.yml (mode 644) can be read by others");
        let ran = ran.says("targets[0].password").never_shows("hunter2-literal");
        assert_eq!(ran.stderr.matches("can be read by others").count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn global_options_stand_before_and_after_the_command() {
    let database = small();
    let test = Test::of(&database).file("vars", "DB_PASSWORD=x\n");
    fs::rename(test.path("backup.yml"), test.path("other.yml")).unwrap();
    let global = ["-c", "other.yml", "--env-file", "vars", "-q", "--log-format", "json", "--json"];
    let before: Vec<&str> = global.into_iter().chain(["backup", "app"]).collect();
    let after: Vec<&str> = ["backup", "app"].into_iter().chain(global).collect();
    for arguments in [before, after] {
        let ran = test.run(arguments).ok();
        assert_eq!(ran.json()["items"][0]["status"], "ok");
        assert_eq!(ran.stderr, "");
    }
    test.run(["-q", "list", "-v"]).fails(2).says("--quiet and --verbose");
    test.run(["list", "--no-such-option"]).fails(2).says("--no-such-option");
    let json = test.run(["list", "--limit", "many", "--json"]).fails(2).json();
    assert_eq!((&json["command"], &json["problems"][0]["kind"]), (&"list".into(), &"config".into()));
}

#[test]
fn names_are_taken_by_place_and_by_option() {
    let database = small();
    let test = Test::of(&database);
    test.run(["backup", "app", "-n", "ap*", "--name", "app"]).ok();
    test.run(["list", "-n", "app"]).ok();
    test.run(["restore", "-n", "app", "--output", "a.sql"]).ok();
    test.run(["restore", "ap?", "--output", "b.sql"]).ok();
    assert_eq!(fs::read(test.path("a.sql")).unwrap(), fs::read(test.path("b.sql")).unwrap());
    test.run(["restore", "app", "-n", "app", "--output", "c.sql"]).fails(2);
    test.run(["restore", "--output", "c.sql"]).fails(2).says("NAME");
    test.run(["list", "app", "-n", "missing"]).fails(4);
    assert!(!test.path("c.sql").exists());
}

#[test]
fn list_as_json_has_the_documented_fields() {
    let database = small();
    let test = Test::of(&database);
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"], Value::Array(vec![]));
    test.run(["backup", "--label", "before 2.0", "--pin"]).ok();
    let json = test.run(["list", "--json"]).ok().json();
    assert_eq!((&json["schema"], &json["exit_code"], &json["outcome"]), (&1.into(), &0.into(), &"ok".into()));
    let mut item = json["items"][0].clone();
    for (name, value) in [("id", "ID"), ("run", "RUN"), ("started", "TIME")] {
        assert!(item[name].as_str().unwrap().len() >= 16, "{item}");
        item[name] = value.into();
    }
    assert_eq!(item["bytes"], fs::metadata(test.stored_one(".sql.gz")).unwrap().len());
    item["bytes"] = 0.into();
    let expected = serde_json::json!({
        "id": "ID", "run": "RUN", "host": "web1", "unit": "app", "started": "TIME", "bytes": 0, "storages": ["local"],
        "state": "whole", "proven": null, "label": "before 2.0", "pinned": true
    });
    assert_eq!(item, expected);
    for time in ["started", "finished"] {
        assert!(json[time].as_str().is_some_and(|time| time.ends_with('Z')), "{json}");
    }
}

#[test]
fn quiet_is_silent_until_something_is_wrong() {
    let database = small();
    let test = Test::of(&database);
    for arguments in [["-q", "backup"].as_slice(), &["-q", "prune"], &["-q", "restore", "app", "--output", "x.sql"]] {
        let ran = test.run(arguments).ok();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{arguments:?}");
    }
    let ran = test.run(["-q", "list"]).ok();
    assert!(ran.stdout.contains("whole") && ran.stderr.is_empty());
    database.psql("DROP TABLE people");
    let broken = target(&["host: 127.0.0.1", "port: 1", "database: app"]).run(["-q", "backup"]).fails(1);
    assert_eq!(broken.stdout, "");
    assert!(broken.stderr.starts_with("error: app: connect: "), "{}", broken.stderr);
}

#[test]
fn logs_as_json_are_an_object_a_line() {
    let down = target(&["host: 127.0.0.1", "port: 1", "database: app"]);
    let database = small();
    let up = Test::of(&database);
    for (test, arguments) in [
        (&up, ["--log-format", "json", "-vv", "backup"].as_slice()),
        (&up, &["--log-format", "json", "list"]),
        (&up, &["--log-format", "json", "list", "nothing"]),
        (&down, &["--log-format", "json", "backup"]),
        (&down, &["--log-format", "json", "-q", "backup"]),
        (&down, &["--log-format", "json", "validate", "--connect"]),
    ] {
        let ran = test.run(arguments);
        for line in ran.stderr.lines() {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"));
            assert!(object["timestamp"].is_string() && object["level"].is_string(), "{line}");
        }
        assert_eq!(ran.code != Some(0), ran.stderr.contains("\"ERROR\""), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn only_a_terminal_gets_colour() {
    let database = small();
    let test = Test::of(&database);
    for arguments in [["backup"].as_slice(), &["list"], &["validate", "--connect"], &["list", "nothing"], &["--help"]] {
        let ran = test.run(arguments);
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{arguments:?}");
    }
    // `script` runs it on a terminal of its own.
    let terminal = || Test::of(&database).under(["sh", "-c", r#"exec script -qec "$*" /dev/null"#, "sh"]);
    let colourful = terminal().env("TERM", "xterm").run(["validate"]).ok();
    assert!(colourful.stdout.contains('\u{1b}'), "{}", colourful.stdout);
    let plain = terminal().env("TERM", "xterm").env("NO_COLOR", "1").run(["validate"]).ok();
    assert!(!plain.stdout.contains('\u{1b}'), "{}", plain.stdout);
}

#[test]
fn a_run_s_log_file_is_ours_alone() {
    let database = small();
    let test = Test::of(&database).top_option("log_dir: logs");
    fs::create_dir(test.path("logs")).unwrap();
    test.run(["-q", "backup"]).ok();
    let files = crate::support::tool::files_below(&test.path("logs"));
    assert_eq!(files.len(), 1, "{files:?}");
    let path = test.path("logs").join(&files[0]);
    let log = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(log.contains("app") && log.contains("backup: 1 unit ok"), "{log}");
    assert!(!log.contains(crate::support::cluster::PASSWORD));
    // A log never fails a run.
    fs::remove_dir_all(test.path("logs")).unwrap();
    test.run(["backup"]).ok().says("can't write the log file");
}

/// The program in a shell's line, `$0`, so that its streams go where the shell sends them.
fn in_shell(line: &'static str, test: Test) -> Test {
    test.under(["sh", "-c", line])
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let line = r#"{ "$0" "$@"; echo $? >code; } | head -c 1 >/dev/null"#;
    let test = in_shell(line, Test::new());
    for arguments in [["generate"].as_slice(), &["--help"], &["restore", "--help"]] {
        let ran = test.run(arguments).ok();
        assert_eq!(ran.stderr, "", "{arguments:?}");
        assert_eq!(fs::read_to_string(test.path("code")).unwrap(), "0\n", "{arguments:?}");
    }
    // And one that has gone before the first byte.
    let gone = r#"{ trap '' PIPE; while echo 2>/dev/null; do :; done; "$0" "$@"; echo $? >code; } | true"#;
    let gone = in_shell(gone, Test::new());
    assert_eq!(gone.run(["generate"]).ok().stderr, "");
    assert_eq!(fs::read_to_string(gone.path("code")).unwrap(), "0\n");
}

#[test]
fn a_result_that_can_t_be_written_is_an_error() {
    let database = small();
    let test = in_shell(r#""$0" "$@" >/dev/full"#, Test::of(&database));
    test.run(["generate"]).fails(1).says("can't write to standard output");
    test.run(["backup", "--json"]).fails(1).says("can't write to standard output");
    test.run(["list"]).fails(1).says("No space left on device");
    test.run(["list", "nothing", "--json"]).fails(4).says("can't write to standard output");
    in_shell(r#""$0" "$@" 2>/dev/full"#, Test::of(&database)).run(["backup"]).ok();
    // And with neither stream at all.
    let closed = in_shell(r#""$0" "$@" >&- 2>&-"#, Test::of(&database));
    closed.run(["backup"]).ok();
}

#[test]
fn every_exit_code_is_seen() {
    let database = small();
    let waits = "case $1 in --version) ;; *) touch {dir}/dumping; while [ ! -e {dir}/go ]; do sleep 0.02; done ;; esac\n\
                 exec {real} \"$@\"";
    let codes = |test: &Test, arguments: &[&str]| test.run(arguments.iter().chain(&["--json"])).json()["exit_code"].clone();
    let test = Test::of(&database);
    assert_eq!(codes(&test, &["backup"]), 0);
    assert_eq!(codes(&test, &["list", "--max-age", "1h"]), 0);
    assert_eq!(codes(&test, &["backup", "nothing"]), 4);
    assert_eq!(codes(&test, &["backup", "--limit", "1"]), 2);
    assert_eq!(codes(&test, &["restore", "app", "--to-database", database.name()]), 2);
    test.run(["restore", "app", "--to-database", database.name()]).fails(2);
    fs::remove_file(test.stored_one(".sql.gz")).unwrap();
    assert_eq!(codes(&test, &["list"]), 3);
    assert_eq!(codes(&test, &["list", "--max-age", "1h"]), 1);
    test.run(["list", "--max-age", "1h"]).fails(1);
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let test = Test::of(&database).fake_bin("pg_dump", waits);
        let running = test.spawn(["backup", "--json"]);
        eventually("it dumps", || test.path("dumping").exists());
        assert_eq!(codes(&test, &["backup"]), 75);
        running.kill(signal);
        let ran = running.wait().fails(code);
        assert_eq!((&ran.json()["exit_code"], &ran.json()["outcome"]), (&code.into(), &"interrupted".into()));
        assert_eq!(test.stored(), [""; 0]);
    }
}

#[test]
fn partial_is_when_one_storage_of_two_has_it() {
    let database = small();
    let test = Test::of(&database);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let second = "storages:\n  second: { type: local, path: '{dir}/absent/second' }\n";
    let config =
        config.replace("storages:\n", second).replace("type: postgres\n", "type: postgres\n    storages: [local, second]\n");
    test.write("backup.yml", &config);
    let json = test.run(["backup", "--json"]).fails(3).json();
    assert_eq!((&json["outcome"], &json["items"][0]["status"]), (&"partial".into(), &"partial".into()));
    assert_eq!((&json["problems"][0]["storage"], &json["problems"][0]["target"]), (&"second".into(), &"app".into()));
}

#[test]
fn help_reads_the_same_short_and_long_and_names_every_command() {
    let test = Test::new();
    let help = test.run(["--help"]).ok();
    assert_eq!(help.stdout, test.run(["-h"]).ok().stdout);
    for command in ["generate", "validate", "backup", "list", "restore", "prune"] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{}", help.stdout);
        let own = test.run([command, "--help"]).ok();
        assert!(own.stdout.contains("Usage: db-backup-tools") && own.stderr.is_empty(), "{}", own.stdout);
    }
    test.run([""; 0]).fails(2).says("Usage: db-backup-tools");
    assert!(test.run(["--version"]).ok().stdout.starts_with("db-backup-tools "));
}

#[test]
fn a_device_in_a_files_place_is_refused_before_it_fills_the_memory() {
    let test = Test::new();
    test.run(["-c", "/dev/zero", "validate"]).fails(2).says("can't read the configuration /dev/zero: it is longer than 16 MiB");
    test.run(["--env-file", "/dev/zero", "validate"])
        .fails(2)
        .says("can't read the env file /dev/zero: it is longer than 16 MiB");
}
