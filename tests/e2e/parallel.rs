//! `parallel:`: several units at once, each of them whole, told apart in every line, and ended by itself.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, binaries};
use crate::support::tool::files_below;
use crate::support::{Database, Ran, Running, SHARED, Signal, Test, comparable, eventually};

/// Far longer than an end should take, and far shorter than what is waited for here.
const SOON: Duration = Duration::from_secs(20);
const UNITS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

fn database(rows: u32) -> Database {
    let database = SHARED.create_database();
    database.psql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, word text); INSERT INTO t SELECT n, md5({rows} || '-' || n) FROM generate_series(1, {rows}) n"
    ));
    database
}

fn target(name: &str, database: &Database) -> Value {
    json!({ "name": name, "type": "postgres", "host": HOST, "port": SHARED.port(), "user": SUPERUSER, "password": PASSWORD,
            "database": database.name() })
}

/// A configuration of these targets, so many of them at once.
fn at_once(parallel: usize, targets: &[Value]) -> Test {
    let config = json!({
        "version": 1, "host": "web1", "state_dir": "{state}", "parallel": parallel, "log_dir": "{dir}/logs",
        "storages": { "local": { "type": "local", "path": "{storage}" } }, "targets": targets,
    });
    let test = Test::new();
    fs::create_dir(test.path("logs")).unwrap();
    test.config(&config.to_string())
}

/// The same database as so many units.
fn copies(database: &Database, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| target(name, database)).collect()
}

/// In the place of pg_dump: notes that it runs, dumps half a line, and waits until the test lets it go on.
const WAITS: &str = "[ \"$1\" = --version ] && exec {real} --version
echo $$ >>{dir}/begun; while [ -d {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done; exec {real} \"$@\"";

fn begun(test: &Test) -> Vec<String> {
    fs::read_to_string(test.path("begun")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// With its dumps begun, so many of them.
fn begin(test: &Test, arguments: &[&str], count: usize) -> Running {
    let running = test.spawn(["backup"].iter().chain(arguments));
    eventually("they are dumped", || begun(test).len() == count);
    running
}

fn told(ran: &Ran, fields: [&str; 2]) -> Vec<String> {
    let word = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let json = ran.json();
    let items = json["items"].as_array().unwrap();
    items.iter().map(|item| fields.map(|field| word(item, field)).join(" ").trim_end().to_owned()).collect()
}

#[test]
fn databases_and_volumes_at_once_are_all_whole_and_come_back_equal() {
    let databases = [database(40_000), database(3), database(9_000)];
    let [large, small, other] = databases.each_ref().map(Database::name);
    let cluster = json!({ "name": "cluster", "type": "postgres", "host": HOST, "port": SHARED.port(), "user": SUPERUSER,
                          "password": PASSWORD, "client_bin": binaries(), "databases": [large, small] });
    let mut last = target("last", &databases[2]);
    last["compression"] = json!({ "type": "none" });
    let volume = |name: &str| json!({ "name": name, "type": "volume", "path": format!("{{dir}}/{name}") });
    let mut custom = target("custom", &databases[0]);
    custom["format"] = json!("custom");
    custom["compression"] = json!({ "type": "zstd", "level": 3 });
    let test = at_once(4, &[volume("files"), cluster, custom, volume("more"), last]);
    for (name, count) in [("files", 200), ("more", 20)] {
        fs::create_dir(test.path(name)).unwrap();
        for number in 0..count {
            fs::write(test.path(name).join(format!("{number}.txt")), format!("{name} {number}\n").repeat(number * 50)).unwrap();
        }
    }
    let ran = test.run(["backup", "--json"]).ok();
    let of_cluster = [large, small].map(|name| format!("cluster.{name} ok"));
    assert_eq!(told(&ran, ["unit", "status"]), ["files ok", &of_cluster[0], &of_cluster[1], "custom ok", "more ok", "last ok"]);
    let seen = test.run(["list", "--verify", "--json"]).ok();
    assert_eq!(told(&seen, ["state", "unit"]).iter().filter(|row| row.starts_with("whole ")).count(), 6, "{}", seen.stdout);
    let units = [format!("cluster.{large}"), format!("cluster.{small}"), "custom".into(), "last".into()];
    let originals = [&databases[0], &databases[1], &databases[0], &databases[2]];
    for (number, (unit, original)) in units.iter().zip(originals).enumerate() {
        let wanted = format!("{other}_back_{number}");
        test.run(["restore", unit, "--to-database", &wanted]).ok();
        let back = SHARED.adopt(&wanted);
        assert_eq!(comparable(&back.dump()), comparable(&original.dump()), "{unit}");
    }
    for name in ["files", "more"] {
        let (from, to) = (test.path(name), test.path(&format!("{name}-back")));
        test.run(["restore".as_ref(), name.as_ref(), "--to-path".as_ref(), to.as_os_str()]).ok();
        assert!(Command::new("diff").arg("-r").args([from, to]).status().unwrap().success());
    }
}

/// A hook that says a hundred lines, each with its unit in the middle.
fn talkative(mut target: Value) -> Value {
    let script = "n=100; while [ $n -gt 0 ]; do echo \"line $n of $DB_BACKUP_UNIT ends here\"; n=$((n - 1)); done";
    target["hooks"] = json!({ "before": script, "after": script });
    target
}

fn log_of(test: &Test) -> String {
    let [file] = files_below(&test.path("logs")).try_into().unwrap();
    let text = fs::read_to_string(test.path("logs").join(&file)).unwrap();
    fs::remove_file(test.path("logs").join(file)).unwrap();
    text
}

/// What one of the lines is of; the call's own lines are of none.
fn units_in(line: &str) -> BTreeSet<&str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| UNITS.iter().copied().find(|unit| *unit == word)).collect()
}

#[test]
fn every_line_is_whole_and_names_its_unit() {
    let database = database(5);
    let mut targets = copies(&database, &UNITS[..3]);
    targets.push(json!({ "name": "four", "type": "volume", "path": "{dir}/bin" }));
    let targets: Vec<Value> = targets.into_iter().map(talkative).collect();
    let spoken = |text: &str| text.lines().filter(|line| line.contains("ends here")).count();
    for verbose in ["-v", "-vv"] {
        let test = at_once(4, &targets);
        let ran = test.run([verbose, "backup"]).ok();
        for text in [ran.stderr.as_str(), &log_of(&test)] {
            assert_eq!(spoken(text), 4 * 200, "{text}");
            for line in text.lines() {
                assert_eq!(line.matches("line ").count(), line.matches("ends here").count(), "{line}");
                let of_the_call =
                    ["backup: 4 units ok", "backup: exit code", "log file path"].iter().any(|words| line.contains(words));
                assert_eq!(units_in(line).len(), usize::from(!of_the_call), "{line}");
            }
        }
        let ran = test.run([verbose, "--log-format", "json", "backup"]).ok();
        for text in [ran.stderr.as_str(), &log_of(&test)] {
            assert_eq!(spoken(text), 4 * 200, "{text}");
            for line in text.lines() {
                let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                let message = object["message"].as_str().unwrap();
                let of_the_call = message.starts_with("backup: ") || message == "log file";
                let unit = object["unit"].as_str().or(object["span"]["unit"].as_str());
                assert_eq!(unit.is_none(), of_the_call, "{line}");
                assert!(unit.is_none_or(|unit| units_in(line) == BTreeSet::from([unit])), "{line}");
            }
        }
        let ran = test.run(["backup", "--json"]).ok();
        assert_eq!(told(&ran, ["unit", "status"]), ["one ok", "two ok", "three ok", "four ok"]);
    }
}

/// Of the terminal: more than any line here has.
const COLUMNS: usize = 600;

/// The lines that a terminal shows in the end, from what was written to it: bars are drawn with a few sequences alone.
fn shown(written: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut rest = written;
    while let Some(sign) = rest.chars().next() {
        rest = &rest[sign.len_utf8()..];
        match sign {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let sequence = rest.strip_prefix('[').unwrap_or_else(|| panic!("no such sequence: {rest:?}"));
                let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                let count = sequence[..end].parse().unwrap_or(1);
                match &sequence[end..=end] {
                    "A" => row = row.checked_sub(count).expect("not above the first line"),
                    "B" => row += count,
                    "C" => column += count,
                    "D" => column = column.saturating_sub(count),
                    "K" => lines[row].clear(),
                    "m" => {}
                    other => panic!("no such sequence: {other:?}"),
                }
                rest = &sequence[end + 1..];
            }
            sign => {
                // A bar fills its line: the next one begins on the next by itself.
                if column == COLUMNS {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), String::new());
                }
                let line = &mut lines[row];
                let mut signs: Vec<char> = line.chars().collect();
                signs.resize(signs.len().max(column + 1), ' ');
                signs[column] = sign;
                *line = signs.into_iter().collect();
                column += 1;
            }
        }
        if lines.len() <= row {
            lines.resize(row + 1, String::new());
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn on_a_terminal_bars_and_lines_of_several_units_stay_apart() {
    let database = database(5);
    let targets: Vec<Value> = copies(&database, &UNITS).into_iter().map(talkative).collect();
    // Long enough for its bar to be drawn a few times.
    let slow = "[ \"$1\" = --version ] && exec {real} --version
            {real} \"$@\" >{dir}/tmp/$$; for n in 1 2 3 4 5 6; do head -c 60 {dir}/tmp/$$; sleep 0.1; done
            tail -c +361 {dir}/tmp/$$; rm {dir}/tmp/$$";
    let test = at_once(4, &targets).fake_bin("pg_dump", slow).env("NO_COLOR", "1").env("TERM", "xterm");
    let on_terminal = format!(r#"exec script -qec "stty cols {COLUMNS} -onlcr; $*" /dev/null"#);
    let test = test.under(["sh", "-c", &on_terminal, "sh"]);
    let ran = test.run(["-v", "backup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    // What is at the line's beginning goes on where the last one ended, as the terminal does not add the return.
    let lines = shown(&ran.stdout.replace('\n', "\r\n"));
    let text = lines.join("\n");
    assert!(ran.stdout.contains("\u{1b}[2K") && UNITS.iter().all(|unit| ran.stdout.contains(&format!("{unit}  "))), "no bars");
    for line in lines.iter().filter(|line| !line.is_empty()) {
        assert_eq!(line.matches("line ").count(), line.matches("ends here").count(), "{text}");
        let of_the_call = ["backup: 6 units ok", "backup: exit code", "log file path"].iter().any(|words| line.contains(words));
        assert_eq!(units_in(line).len(), usize::from(!of_the_call), "{line}\n{text}");
    }
    assert_eq!(text.matches("ends here").count(), 6 * 200, "{text}");
    assert!(!text.contains("B/s"), "a bar was left:\n{text}");
}

#[test]
fn a_unit_that_fails_or_runs_out_of_time_leaves_the_others() {
    let database = database(5);
    let mut targets = copies(&database, &UNITS);
    targets[1]["database"] = json!("not_there");
    targets[2]["timeout"] = json!("2s");
    targets[2]["retries"] = json!(0);
    targets[2]["format"] = json!("custom");
    targets[4]["hooks"] = json!({ "before": "exit 3", "on_error": "echo $DB_BACKUP_UNIT >>{dir}/on_error" });
    let hangs = "case \"$*\" in --version) exec {real} --version ;; *=custom*) echo $$ >>{dir}/begun; exec sleep 1000 ;; esac
        exec {real} \"$@\"";
    let test = at_once(4, &targets).fake_bin("pg_dump", hangs);
    let ran = test.run(["backup", "--json"]).fails(1);
    assert_eq!(told(&ran, ["unit", "status"]), ["one ok", "two failed", "three failed", "four ok", "five failed", "six ok"]);
    let problems = ran.json()["problems"].clone();
    let of: Vec<&str> = problems.as_array().unwrap().iter().map(|problem| problem["target"].as_str().unwrap()).collect();
    assert_eq!(of, ["two", "three", "five"], "in the plan's order: {problems}");
    let stored = test.stored();
    assert!(stored.len() == 9 && stored.iter().all(|file| !file.contains("/.")), "{stored:?}");
    assert_eq!(fs::read_to_string(test.path("on_error")).unwrap(), "five\n");
    assert!(begun(&test).iter().all(|pid| !lives(pid)));
}

fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_signal_ends_all_of_them_soon_and_leaves_nothing() {
    let database = database(5);
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let stubborn = WAITS.replace("echo", "trap '' TERM INT; echo '-- half'; echo");
        let test = at_once(4, &copies(&database, &UNITS)).fake_bin("pg_dump", &stubborn);
        let mut running = begin(&test, &["--json"], 4);
        running.kill(signal);
        assert!(running.ends_within(SOON));
        let ran = running.wait().fails(code);
        let ended = ["one failed", "two failed", "three failed", "four failed", "five skipped", "six skipped"];
        assert_eq!(told(&ran, ["unit", "status"]), ended);
        assert!(begun(&test).len() == 4 && begun(&test).iter().all(|pid| !lives(pid)));
        assert_eq!((test.stored(), files_below(&test.path("tmp"))), (Vec::new(), Vec::new()));
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert_eq!(database.psql(sessions), "0");
        // No lock is left.
        fs::write(test.path("go"), "").unwrap();
        test.run(["backup"]).ok().says("backup: 6 units ok");
    }
}

/// How many threads of the program compress.
fn compressing(running: &Running) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid().as_raw_nonzero())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("compress-")).count()
}

#[test]
fn the_threads_that_compress_are_as_many_for_several_units_as_for_one() {
    let database = database(5);
    let counts = [1, 4].map(|parallel| {
        let test = at_once(parallel, &copies(&database, &UNITS)).fake_bin("pg_dump", WAITS);
        let running = begin(&test, &[], parallel);
        let count = compressing(&running);
        fs::write(test.path("go"), "").unwrap();
        running.wait().ok();
        count
    });
    assert!(counts[0] > 0 && counts[0] == counts[1], "{counts:?}");
}
