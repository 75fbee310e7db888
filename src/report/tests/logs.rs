//! Logs, bars, streams that break, and the answers to a command line that can't be read.

use super::*;

#[test]
fn each_line_of_a_json_log_is_an_object() {
    let mut desk = desk();
    desk.options.json_log = true;
    desk.options.stderr = desk.options.stderr.terminal(80, &desk.env);
    let mut outcome =
        outcome("backup", Items::Backups(vec![backup("mordor", UnitStatus::Ok), backup("app", UnitStatus::Failed)]));
    outcome.problems = vec![problem(Severity::Failure)];
    let lines = shown(desk, &outcome, FAILED).replace("--- stderr\n", "");
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object())));
    insta::assert_snapshot!(lines, @r#"
    {"timestamp":"2026-06-12T03:00:41.000Z","level":"INFO","message":"mordor: ok, 207.2 MiB in 40s, 20260612_030000Z-k3f9 in local, offsite","unit":"mordor","target":"db_backup_tools::report"}
    {"timestamp":"2026-06-12T03:00:41.000Z","level":"INFO","message":"app: failed","unit":"app","target":"db_backup_tools::report"}
    {"timestamp":"2026-06-12T03:00:41.000Z","level":"ERROR","message":"pg_dump exited with code 1: ERROR:  permission denied\nLINE 1:\tx","unit":"app","step":"dump","kind":"child","hint":"grant select, or use another user","target":"db_backup_tools::report"}
    {"timestamp":"2026-06-12T03:00:41.000Z","level":"INFO","message":"backup: 1 unit ok, 1 failed, 207.2 MiB in 41s","target":"db_backup_tools::report"}
    "#);
}

#[test]
fn problems_are_told_whatever_rust_log_says() {
    let mut desk = desk();
    desk.options.json_log = true;
    desk.env.set("RUST_LOG", "off");
    let mut outcome = outcome("backup", Items::Backups(Vec::new()));
    outcome.problems = vec![problem(Severity::Failure)];
    assert!(shown(desk, &outcome, FAILED).contains("pg_dump exited with code 1"));
}

#[test]
fn more_is_said_where_it_is_asked_for() {
    let said = |verbose, rust_log: &str| {
        let mut desk = desk();
        desk.options.verbose = verbose;
        desk.env.set("RUST_LOG", rust_log);
        let reporter = Reporter::new(desk.options, &desk.env);
        {
            let _scope = reporter.scope();
            tracing::warn!("w");
            tracing::debug!(unit = "app", "d");
            tracing::trace!("t");
        }
        reporter.finish(&outcome("backup", Items::Backups(Vec::new())), OK).unwrap();
        desk.stderr.text()
    };
    insta::assert_snapshot!(said(0, ""), @"2026-06-12T03:00:41.000Z  WARN db_backup_tools::report::tests::logs: w");
    insta::assert_snapshot!(said(1, ""), @r#"
    2026-06-12T03:00:41.000Z  WARN db_backup_tools::report::tests::logs: w
    2026-06-12T03:00:41.000Z DEBUG db_backup_tools::report::tests::logs: d unit="app"
    2026-06-12T03:00:41.000Z DEBUG db_backup_tools::report: backup: exit code 0, ok
    "#);
    insta::assert_snapshot!(said(0, "trace"), @r#"
    2026-06-12T03:00:41.000Z  WARN db_backup_tools::report::tests::logs: w
    2026-06-12T03:00:41.000Z DEBUG db_backup_tools::report::tests::logs: d unit="app"
    2026-06-12T03:00:41.000Z TRACE db_backup_tools::report::tests::logs: t
    "#);
    assert_eq!(said(0, "not=a=filter"), said(0, ""), "a filter that can't be read is passed over");
}

#[test]
fn a_log_file_holds_the_whole_run_for_us_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut desk = desk();
    desk.options.quiet = true;
    let reporter = Reporter::new(desk.options, &desk.env);
    reporter.observer().event(Event::Note { text: "before the place was known".into() });
    let path = reporter.open_log(directory.path(), RunId::starting(time("2026-06-12T03:00:00Z"))).unwrap();
    let worker = reporter.observer();
    std::thread::spawn(move || worker.event(Event::Note { text: "from another thread".into() })).join().unwrap();
    reporter.finish(&outcome("backup", Items::Backups(vec![backup("mordor", UnitStatus::Ok)])), OK).unwrap();

    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(name, format!("db-backup_20260612_030000Z_{}.log", std::process::id()));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(desk.stderr.text(), "");
    insta::assert_snapshot!(std::fs::read_to_string(path).unwrap(), @r#"
    2026-06-12T03:00:41.000Z  INFO db_backup_tools::report: before the place was known
    2026-06-12T03:00:41.000Z  INFO db_backup_tools::report: from another thread
    2026-06-12T03:00:41.000Z  INFO db_backup_tools::report: mordor: ok, 207.2 MiB in 40s, 20260612_030000Z-k3f9 in local, offsite unit="mordor"
    2026-06-12T03:00:41.000Z  INFO db_backup_tools::report: backup: 1 unit ok, 207.2 MiB in 41s
    2026-06-12T03:00:41.000Z DEBUG db_backup_tools::report: backup: exit code 0, ok
    "#);
}

#[test]
fn a_log_file_that_cannot_be_opened_says_what_to_do() {
    let desk = desk();
    let reporter = Reporter::new(desk.options, &desk.env);
    let run = RunId::starting(time("2026-06-12T03:00:00Z"));
    let error = reporter.open_log(Path::new("/nonexistent"), run).unwrap_err();
    assert_eq!(error.hint_text(), Some("`log_dir:` must be a directory that exists and that we may write to"));
}

#[test]
fn a_log_file_on_a_full_disk_is_told_and_fails_nothing() {
    let desk = desk();
    let reporter = Reporter::new(desk.options, &desk.env);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    reporter.file.begin(full).unwrap();
    reporter.observer().event(Event::Note { text: "on".into() });
    assert!(reporter.finish(&outcome("backup", Items::Backups(Vec::new())), OK).is_ok());
    insta::assert_snapshot!(desk.stderr.text(), @"
    on
    warning: the log file is not whole: No space left on device (os error 28)
    ");
}

/// Lines as a terminal of this width holds them after all that was drawn: enough of one for this.
fn screen(drawn: &str, width: usize) -> Vec<String> {
    let (mut lines, mut at, mut column) = (vec![String::new()], 0, 0);
    let mut rest = drawn.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '␛' => {
                rest.next();
                let mut number = String::new();
                let command = loop {
                    match rest.next() {
                        Some(digit) if digit.is_ascii_digit() => number.push(digit),
                        other => break other,
                    }
                };
                match command {
                    Some('A') => at -= number.parse::<usize>().unwrap(),
                    Some('B') => at += number.parse::<usize>().unwrap(),
                    Some('K') => lines[at].clear(),
                    Some('m' | 'C' | 'D') => {}
                    other => panic!("unknown escape {other:?}"),
                }
            }
            '\r' => column = 0,
            '\n' => {
                (at, column) = (at + 1, 0);
                if at == lines.len() {
                    lines.push(String::new());
                }
            }
            c => {
                if column == width {
                    (at, column) = (at + 1, 0);
                    if at == lines.len() {
                        lines.push(String::new());
                    }
                }
                let mut line: Vec<char> = lines[at].chars().collect();
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                lines[at] = line.into_iter().collect();
                column += 1;
            }
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn no_line_tears_a_bar_and_no_bar_stays() {
    let mut desk = desk();
    desk.env.set("NO_COLOR", "1");
    desk.options.verbose = 1;
    desk.options.stderr = desk.options.stderr.terminal(100, &desk.env);
    let reporter = Reporter::new(desk.options, &desk.env);
    let observer = reporter.observer();
    let units = ["mordor", "shop"].map(UnitName::new);
    for unit in &units {
        observer.event(Event::UnitStarted { unit: unit.clone(), action: "backup", expected_bytes: Some(1 << 30) });
    }
    std::thread::scope(|threads| {
        for unit in &units {
            let observer = reporter.observer();
            threads.spawn(move || {
                for step in 0..200_u64 {
                    observer.event(Event::UnitProgress { unit: unit.clone(), bytes: step << 20 });
                    if step % 20 == 0 {
                        observer.event(Event::Note { text: format!("{} at {step}", unit.as_str()) });
                    }
                }
            });
        }
    });
    assert!(desk.stderr.text().contains("of about 1.00 GiB"), "bars were drawn");
    observer.event(Event::UnitFinished { unit: units[0].clone(), ok: true, summary: "done".into() });
    reporter.finish(&outcome("backup", Items::Backups(Vec::new())), OK).unwrap();

    let mut lines = screen(&desk.stderr.text(), 100);
    lines.retain(|line| !line.contains(" DEBUG "));
    assert_eq!(lines.len(), 21, "{lines:#?}");
    assert_eq!(lines[20], "mordor: done");
    for unit in ["mordor", "shop"] {
        let told: Vec<_> = lines.iter().filter(|line| line.starts_with(&format!("{unit} at "))).cloned().collect();
        assert_eq!(told, (0..10).map(|step| format!("{unit} at {}", step * 20)).collect::<Vec<_>>());
    }
}

#[test]
fn a_terminal_that_hung_up_ends_nothing() {
    let eio = 5;
    let mut desk = desk();
    desk.options.stderr = Stream::new(Broken(eio)).terminal(80, &desk.env);
    let reporter = Reporter::new(desk.options, &desk.env);
    let (observer, unit) = (reporter.observer(), UnitName::new("mordor"));
    observer.event(Event::UnitStarted { unit: unit.clone(), action: "backup", expected_bytes: None });
    observer.event(Event::UnitProgress { unit: unit.clone(), bytes: 1 });
    observer.event(Event::Note { text: "on".into() });
    observer.event(Event::UnitFinished { unit, ok: true, summary: "done".into() });
    assert!(reporter.finish(&outcome("backup", Items::Backups(Vec::new())), OK).is_ok());
}

#[test]
fn the_same_failure_in_two_storages_is_told_twice() {
    let in_storage = |name: &str| Problem { storage: Some(name.into()), ..problem(Severity::Partial) };
    let mut outcome = outcome("backup", Items::Backups(Vec::new()));
    outcome.problems = vec![in_storage("local"), in_storage("offsite")];
    let text = shown(desk(), &outcome, FAILED);
    assert!(text.contains("storage local") && text.contains("storage offsite"), "{text}");
}

#[test]
fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
    let (epipe, enospc) = (32, 28);
    let mut closed = desk();
    closed.options.stdout = Stream::new(Broken(epipe));
    assert_eq!(shown(closed, &outcome("list", rows()), OK), "--- stderr\n");
    let mut full = desk();
    full.options.stdout = Stream::new(Broken(enospc));
    full.options.quiet = true;
    let reporter = Reporter::new(full.options, &full.env);
    assert!(reporter.finish(&outcome("list", rows()), OK).is_err());
    insta::assert_snapshot!(full.stderr.text(), @"
    error: can't write to standard output: No space left on device (os error 28)
      hint: what was done is done; only its report is cut
    ");
}

fn answered(args: &[&str], json: bool, command: &'static str) -> (u8, String) {
    // The parser's own definitions come after this module: a small one stands in for them.
    let parser = clap::Command::new("db-backup-tools")
        .version("0.1.0")
        .arg(clap::Arg::new("json").long("json").action(clap::ArgAction::SetTrue))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(clap::Command::new("backup"));
    let answer = parser.try_get_matches_from(std::iter::once(&"x").chain(args)).unwrap_err();
    let desk = desk();
    let refused = Verdict { code: 2, word: "refused" };
    let call = Usage { command, json, now: time("2026-06-12T03:00:00Z"), refused };
    let code = usage(&answer, &call, &desk.options.stdout, &desk.options.stderr);
    (code, format!("{}--- stderr\n{}", desk.stdout.text(), desk.stderr.text()))
}

#[test]
fn help_and_version_go_to_stdout_with_exit_0() {
    assert_eq!(answered(&["--version"], true, ""), (0, "db-backup-tools 0.1.0\n--- stderr\n".into()));
    let (code, text) = answered(&["backup", "--help"], false, "backup");
    assert!(code == 0 && text.ends_with("--- stderr\n"), "{text}");
}

#[test]
fn a_usage_error_goes_to_stderr_and_into_the_document() {
    let (code, text) = answered(&["backup", "--jsonn"], false, "backup");
    assert_eq!(code, 2);
    insta::assert_snapshot!(text, @"
    --- stderr
    error: unexpected argument '--jsonn' found

    Usage: x backup

    For more information, try '--help'.
    ");
    let (code, text) = answered(&["backup", "--bad", "--json"], true, "backup");
    assert_eq!(code, 2);
    insta::assert_snapshot!(text, @r#"
    {"schema":1,"command":"backup","exit_code":2,"outcome":"refused","dry_run":false,"started":"2026-06-12T03:00:00Z","finished":"2026-06-12T03:00:00Z","items":[],"problems":[{"severity":"failure","kind":"config","target":null,"step":"command line","storage":null,"cause":"unexpected argument '--bad' found","hint":"db-backup-tools --help shows what there is"}]}
    --- stderr
    error: unexpected argument '--bad' found

    Usage: x backup

    For more information, try '--help'.
    "#);
    let (code, text) = answered(&[], true, "");
    assert_eq!((code, text.lines().next().unwrap().contains("no command was given")), (2, true), "{text}");
}
