use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::*;
use crate::catalog::stats::Stats;
use crate::host::clock::SetClock;
use crate::names::{Id, UnitName};
use crate::observe::Event;
use crate::outcome::{
    BackupItem, CheckItem, ListItem, PruneDecision, RestoreItem, RestoreStatus, State, StatsItem, TextItem, UnitStatus,
};
use PruneDecision::{Delete, Keep, Pin};

const OK: Verdict = Verdict { code: 0, word: "ok" };
const FAILED: Verdict = Verdict { code: 1, word: "failed" };

/// What was written to a stream, with escapes that can be read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().replace('\u{1b}', "␛")
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fails each write with this error.
struct Broken(i32);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(self.0))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Desk {
    stdout: Written,
    stderr: Written,
    options: ReportOptions,
    env: Env,
}

/// A reporter's surroundings: no terminal, no flag.
fn desk() -> Desk {
    let (stdout, stderr) = (Written::default(), Written::default());
    let options = ReportOptions {
        quiet: false,
        verbose: 0,
        json: false,
        json_log: false,
        dry_run: false,
        stdout: Stream::new(stdout.clone()),
        stderr: Stream::new(stderr.clone()),
        clock: Arc::new(SetClock::at(time("2026-06-12T03:00:41Z"))),
    };
    Desk { stdout, stderr, options, env: Env::default() }
}

/// Both streams after the report of this outcome.
fn shown(desk: Desk, outcome: &Outcome, verdict: Verdict) -> String {
    Reporter::new(desk.options, &desk.env).finish(outcome, verdict).unwrap();
    format!("{}--- stderr\n{}", desk.stdout.text(), desk.stderr.text())
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn outcome(command: &'static str, items: Items) -> Outcome {
    let (started, finished) = (time("2026-06-12T03:00:00Z"), time("2026-06-12T03:00:41Z"));
    Outcome { command, started, finished, signal: None, items, problems: Vec::new() }
}

fn problem(severity: Severity) -> Problem {
    let error = Error::new(Kind::Child, "pg_dump exited with code 1: ERROR:  permission denied\nLINE 1:\tx")
        .target("app")
        .step("dump")
        .hint("grant select, or use another user");
    Problem::of(&error, severity)
}

fn backup(unit: &str, status: UnitStatus) -> BackupItem {
    let stored = status.is_stored();
    BackupItem {
        unit: unit.into(),
        status,
        id: stored.then(|| id("20260612_030000Z-k3f9")),
        run: RunId::starting(time("2026-06-12T03:00:00Z")),
        bytes: if stored { 217_266_404 } else { 0 },
        content_bytes: if stored { 888_827_272 } else { 0 },
        seconds: 40.6,
        copies: Vec::new(),
        storages: vec!["local".into(), "offsite".into()],
        detail: None,
        warnings: Vec::new(),
        doubts: Vec::new(),
        pruned: Vec::new(),
    }
}

fn row(id: &str, started: &str, state: State) -> ListItem {
    ListItem {
        id: id.into(),
        run: id[..16].into(),
        host: "web1".into(),
        unit: "mordor".into(),
        started: time(started),
        bytes: Some(217_266_404),
        storages: vec!["local".into(), "offsite".into()],
        state,
        proven: None,
        label: None,
        pinned: false,
    }
}

fn rows() -> Items {
    Items::Rows(vec![
        ListItem {
            label: Some("before\u{1b}[31m 2.0, the release with the long name".into()),
            pinned: true,
            proven: Some(time("2026-06-10T03:00:00Z")),
            ..row("20260612_000000Z-k3f9", "2026-06-12T00:00:00Z", State::Whole)
        },
        ListItem { bytes: None, ..row("20260611_010000Z-8tq2", "2026-06-11T01:00:00Z", State::Unknown) },
        ListItem { storages: vec!["local".into()], ..row("20260301_030000Z-m0ax", "2026-03-01T03:00:00Z", State::Damaged) },
    ])
}

fn decision(decision: PruneDecision, id: &str, started: &str, reasons: &[&str]) -> PruneItem {
    PruneItem {
        unit: "mordor".into(),
        storage: "local".into(),
        id: id.into(),
        started: time(started),
        bytes: Some(217_266_404),
        decision,
        reasons: reasons.iter().map(|&reason| reason.into()).collect(),
        done: false,
    }
}

fn decisions(done: bool) -> Vec<PruneItem> {
    vec![
        PruneItem { done, ..decision(Delete, "20260301_030000Z-m0ax", "2026-03-01T03:00:00Z", &["no rule keeps it"]) },
        decision(Keep, "20260612_000000Z-k3f9", "2026-06-12T00:00:00Z", &["newest whole backup", "keep_last: 1 of 5"]),
    ]
}

#[test]
fn a_list_shows_the_newest_last_and_nothing_raw() {
    insta::assert_snapshot!(shown(desk(), &outcome("list", rows()), OK), @r"
    ID                     UNIT     AGE       SIZE  STORAGES       STATE          PROVEN  LABEL
    20260301_030000Z-m0ax  mordor  103d  207.2 MiB  local          damaged             -
    20260611_010000Z-8tq2  mordor   26h          -  local,offsite  unknown             -
    20260612_000000Z-k3f9  mordor    3h  207.2 MiB  local,offsite  whole, pinned      2d  before\u{1b}[31m 2.0, the release with the long name
    --- stderr
    ");
}

#[test]
fn a_terminal_gets_colour_and_rows_that_fit() {
    let mut desk = desk();
    desk.options.stdout = desk.options.stdout.terminal(110, &desk.env);
    insta::assert_snapshot!(shown(desk, &outcome("list", rows()), OK), @r"
    ID                     UNIT     AGE       SIZE  STORAGES       STATE          PROVEN  LABEL
    20260301_030000Z-m0ax  mordor  103d  207.2 MiB  local          ␛[31mdamaged␛[0m             -
    20260611_010000Z-8tq2  mordor   26h          -  local,offsite  ␛[33munknown␛[0m             -
    20260612_000000Z-k3f9  mordor    3h  207.2 MiB  local,offsite  ␛[32mwhole, pinned␛[0m      2d  before\u{1b}[31m 2.0, t…
    --- stderr
    ");
}

#[test]
fn no_color_and_a_dumb_terminal_turn_colour_off() {
    for (name, value, color) in
        [("NO_COLOR", "1", false), ("NO_COLOR", "", true), ("TERM", "dumb", false), ("TERM", "xterm", true)]
    {
        let env: Env = [(name, value)].into_iter().collect();
        assert_eq!(Stream::new(Vec::new()).terminal(80, &env).color(), color, "{name}={value}");
    }
}

#[test]
fn rows_of_several_hosts_say_which() {
    let other = ListItem { host: "web2".into(), ..row("20260612_000000Z-k3f9", "2026-06-12T00:00:00Z", State::Incomplete) };
    let items = Items::Rows(vec![row("20260612_030100Z-8tq2", "2026-06-12T03:01:00Z", State::Suspicious), other]);
    insta::assert_snapshot!(shown(desk(), &outcome("list", items), OK), @"
    ID                     HOST  UNIT       AGE       SIZE  STORAGES       STATE       PROVEN  LABEL
    20260612_000000Z-k3f9  web2  mordor      3h  207.2 MiB  local,offsite  incomplete       -
    20260612_030100Z-8tq2  web1  mordor  in 19s  207.2 MiB  local,offsite  suspicious       -
    --- stderr
    ");
}

#[test]
fn an_empty_list_leaves_stdout_empty() {
    insta::assert_snapshot!(shown(desk(), &outcome("list", Items::Rows(Vec::new())), OK), @"
    --- stderr
    list: no backups found
    ");
}

#[test]
fn stats_are_one_row_a_unit_in_the_configs_timezone() {
    let empty = StatsItem { host: "web1".into(), unit: "new".into(), stats: Stats::default() };
    let stats = Stats {
        count: 14,
        bytes: 3_041_729_656,
        average_bytes: 217_266_404,
        oldest: Some(time("2026-05-30T03:00:00Z")),
        newest: Some(time("2026-06-12T02:30:00Z")),
        compression_ratio: Some(4.09),
        growth: Some(0.0712),
    };
    let full = StatsItem { unit: "mordor".into(), stats, ..empty.clone() };
    let desk = desk();
    let mut reporter = Reporter::new(desk.options, &desk.env);
    reporter.set_timezone(Tz::America__Sao_Paulo);
    reporter.finish(&outcome("list", Items::Stats(vec![full, empty])), OK).unwrap();
    insta::assert_snapshot!(desk.stdout.text(), @"
    UNIT    HOST  COUNT    TOTAL    AVERAGE  OLDEST            NEWEST            RATIO  GROWTH
    mordor  web1     14  2.8 GiB  207.2 MiB  2026-05-30 00:00  2026-06-11 23:30   4.1x   +7.1%
    new     web1      0      0 B        0 B  -                 -                     -       -
    ");
}

#[test]
fn a_dry_prune_gives_every_reason_on_stdout() {
    let mut desk = desk();
    desk.options.dry_run = true;
    insta::assert_snapshot!(shown(desk, &outcome("prune", Items::Pruned(decisions(false))), OK), @"
    DECISION  ID                     UNIT    STORAGE   AGE       SIZE  REASONS
    delete    20260301_030000Z-m0ax  mordor  local    103d  207.2 MiB  no rule keeps it
    keep      20260612_000000Z-k3f9  mordor  local      3h  207.2 MiB  newest whole backup; keep_last: 1 of 5
    would delete 1 (207.2 MiB), keep 1
    --- stderr
    ");
}

#[test]
fn a_prune_says_what_it_deleted_and_why() {
    let mut entries = decisions(true);
    entries.push(decision(Delete, "20260201_030000Z-aaaa", "2026-02-01T03:00:00Z", &["no rule keeps it"]));
    insta::assert_snapshot!(shown(desk(), &outcome("prune", Items::Pruned(entries)), OK), @"
    --- stderr
    mordor: deleted 20260301_030000Z-m0ax in local (207.2 MiB): no rule keeps it
    prune: 1 deleted (207.2 MiB), 1 kept, 1 could not be deleted
    ");
    let pinned = vec![PruneItem { done: true, ..decision(Pin, "20260301_030000Z-m0ax", "2026-03-01T03:00:00Z", &[]) }];
    insta::assert_snapshot!(shown(desk(), &outcome("prune", Items::Pruned(pinned)), OK), @"
    --- stderr
    mordor: pinned 20260301_030000Z-m0ax in local (207.2 MiB)
    ");
}

#[test]
fn a_dry_backup_is_a_plan_on_stdout() {
    let unit = BackupItem {
        detail: Some("client 15.18 over TCP to db:5432, about 847.7 MiB to read".into()),
        pruned: decisions(false),
        ..backup("mordor", UnitStatus::Planned)
    };
    let mut desk = desk();
    desk.options.dry_run = true;
    insta::assert_snapshot!(shown(desk, &outcome("backup", Items::Backups(vec![unit])), OK), @"
    UNIT    STORAGES       HOW
    mordor  local,offsite  client 15.18 over TCP to db:5432, about 847.7 MiB to read

    DECISION  ID                     UNIT    STORAGE   AGE       SIZE  REASONS
    delete    20260301_030000Z-m0ax  mordor  local    103d  207.2 MiB  no rule keeps it
    keep      20260612_000000Z-k3f9  mordor  local      3h  207.2 MiB  newest whole backup; keep_last: 1 of 5
    --- stderr
    ");
}

#[test]
fn a_backup_is_one_line_a_unit_and_a_total() {
    let mut units = vec![
        backup("mordor", UnitStatus::Ok),
        backup("shop", UnitStatus::Ok),
        backup("wiki", UnitStatus::Partial),
        backup("app", UnitStatus::Failed),
    ];
    units[0].pruned = decisions(true);
    units[1].warnings = vec!["2 large objects".into()];
    units[1].doubts = vec!["a file changed".into()];
    let mut outcome = outcome("backup", Items::Backups(units));
    outcome.problems = vec![problem(Severity::Failure)];
    insta::assert_snapshot!(shown(desk(), &outcome, FAILED), @"
    --- stderr
    mordor: ok, 207.2 MiB in 40s, 20260612_030000Z-k3f9 in local, offsite
    mordor: deleted 20260301_030000Z-m0ax in local (207.2 MiB): no rule keeps it
    shop: ok, 207.2 MiB in 40s, 20260612_030000Z-k3f9 in local, offsite
    warning: shop: 2 large objects
    wiki: partial, 207.2 MiB in 40s, 20260612_030000Z-k3f9 in local, offsite
    app: failed
    error: app: dump: pg_dump exited with code 1: ERROR:  permission denied
        LINE 1: x
      hint: grant select, or use another user
    backup: 2 units ok (1 in doubt), 1 partial, 1 failed, 621.6 MiB in 41s, 1 deleted by retention (207.2 MiB)
    ");
}

#[test]
fn a_unit_that_was_told_live_is_not_told_again() {
    let desk = desk();
    let reporter = Reporter::new(desk.options, &desk.env);
    let observer = reporter.observer();
    let unit = UnitName::new("mordor");
    observer.event(Event::UnitStarted { unit: unit.clone(), action: "backup", expected_bytes: Some(100) });
    observer.event(Event::Retry { unit: unit.clone(), cause: "connection lost".into(), after: Duration::from_secs(20) });
    observer.event(Event::Warning { target: Some("mordor".into()), text: "2 large objects".into() });
    observer.event(Event::UnitProgress { unit: unit.clone(), bytes: 200 });
    observer.event(Event::UnitFinished { unit, ok: true, summary: "207.2 MiB in 41s, 2 storages".into() });
    observer.event(Event::Note { text: "looking\u{7} on".into() });
    let unit = BackupItem { warnings: vec!["2 large objects".into()], ..backup("mordor", UnitStatus::Ok) };
    reporter.finish(&outcome("backup", Items::Backups(vec![unit])), OK).unwrap();
    insta::assert_snapshot!(desk.stderr.text(), @r"
    mordor: trying again in 20s: connection lost
    warning: mordor: 2 large objects
    mordor: 207.2 MiB in 41s, 2 storages
    looking\u{7} on
    backup: 1 unit ok, 207.2 MiB in 41s
    ");
}

#[test]
fn quiet_is_silent_unless_something_is_wrong() {
    let mut quiet = desk();
    quiet.options.quiet = true;
    let mut outcome = outcome("backup", Items::Backups(vec![backup("mordor", UnitStatus::Ok)]));
    assert_eq!(shown(quiet, &outcome, OK), "--- stderr\n");
    let mut quiet = desk();
    quiet.options.quiet = true;
    outcome.problems = vec![problem(Severity::Notice)];
    insta::assert_snapshot!(shown(quiet, &outcome, OK), @"
    --- stderr
    note: app: dump: pg_dump exited with code 1: ERROR:  permission denied
        LINE 1: x
      hint: grant select, or use another user
    ");
}

#[test]
fn each_severity_has_its_word_and_its_hint() {
    let [failure, partial, notice] = [Severity::Failure, Severity::Partial, Severity::Notice].map(problem);
    let partial = Problem { storage: Some("offsite".into()), step: Some("upload".into()), hint: None, ..partial };
    let notice = Problem { target: None, step: None, cause: "others can read the password in backup.yml".into(), ..notice };
    let mut outcome = outcome("list", Items::Rows(Vec::new()));
    outcome.problems = vec![failure, Problem { cause: "disk full".into(), ..partial }, notice];
    insta::assert_snapshot!(shown(desk(), &outcome, FAILED), @"
    --- stderr
    error: app: dump: pg_dump exited with code 1: ERROR:  permission denied
        LINE 1: x
      hint: grant select, or use another user
    warning: app: storage offsite: upload: disk full
    note: others can read the password in backup.yml
      hint: grant select, or use another user
    ");
    let mut desk = desk();
    desk.options.stderr = desk.options.stderr.terminal(80, &desk.env);
    insta::assert_snapshot!(shown(desk, &outcome, FAILED), @"
    --- stderr
    ␛[31merror␛[0m: app: dump: pg_dump exited with code 1: ERROR:  permission denied
        LINE 1: x
      hint: grant select, or use another user
    ␛[33mwarning␛[0m: app: storage offsite: upload: disk full
    ␛[36mnote␛[0m: others can read the password in backup.yml
      hint: grant select, or use another user
    ");
}

#[test]
fn validate_shows_what_it_looked_at() {
    let check = |subject: &str, ok, detail: &str| CheckItem { subject: subject.into(), ok, detail: detail.into(), hint: None };
    let mut checks = vec![check("target mordor", true, "server 15.18, client 15.18"), check("storage local", true, "")];
    insta::assert_snapshot!(shown(desk(), &outcome("validate", Items::Checks(checks.clone())), OK), @"
    ok    target mordor: server 15.18, client 15.18
    ok    storage local
    --- stderr
    validate: 2 checks ok
    ");
    let error = Error::new(Kind::StorageDenied, "read-only").hint("mount it for writing").storage("offsite");
    let problem = Problem::of(&error, Severity::Failure);
    checks.push(CheckItem::failed("storage offsite", &problem));
    let failed = Outcome { problems: vec![problem], ..outcome("validate", Items::Checks(checks)) };
    insta::assert_snapshot!(shown(desk(), &failed, FAILED), @"
    ok    target mordor: server 15.18, client 15.18
    ok    storage local
    FAIL  storage offsite: read-only
          hint: mount it for writing
    --- stderr
    validate: 1 problem found
    ");
}

#[test]
fn a_restore_says_what_went_where() {
    let done = RestoreItem {
        unit: "mordor".into(),
        id: id("20260612_030000Z-k3f9"),
        storage: "local".into(),
        status: RestoreStatus::Done,
        destination: "database mordor_check".into(),
        bytes: 888_827_272,
        seconds: 83.0,
        warnings: vec!["role app is missing".into()],
        doubts: Vec::new(),
        notes: vec!["to drop it: DROP DATABASE \"mordor_before\";".into()],
    };
    let planned = RestoreItem { status: RestoreStatus::Planned, warnings: Vec::new(), notes: Vec::new(), ..done.clone() };
    insta::assert_snapshot!(shown(desk(), &outcome("restore", Items::Restores(vec![done])), OK), @r#"
    --- stderr
    mordor: restored 20260612_030000Z-k3f9 from local to database mordor_check, 847.7 MiB in 1m 23s
    mordor: to drop it: DROP DATABASE "mordor_before";
    warning: mordor: role app is missing
    "#);
    insta::assert_snapshot!(shown(desk(), &outcome("restore", Items::Restores(vec![planned])), OK), @"
    mordor: would restore 20260612_030000Z-k3f9 from local to database mordor_check
    --- stderr
    ");
}

#[test]
fn generated_text_comes_out_as_it_is() {
    let text = "# a comment\n\tversion: 1\n";
    let items = Items::Text(vec![TextItem { text: text.into() }]);
    assert_eq!(shown(desk(), &outcome("generate", items), OK), format!("{text}--- stderr\n"));
}

#[test]
fn json_is_one_document_with_a_line_end() {
    let mut json = desk();
    json.options.json = true;
    insta::assert_snapshot!(shown(json, &outcome("list", rows()), OK), @r#"
    {"schema":1,"command":"list","exit_code":0,"outcome":"ok","dry_run":false,"started":"2026-06-12T03:00:00Z","finished":"2026-06-12T03:00:41Z","items":[{"id":"20260612_000000Z-k3f9","run":"20260612_000000Z","host":"web1","unit":"mordor","started":"2026-06-12T00:00:00Z","bytes":217266404,"storages":["local","offsite"],"state":"whole","proven":"2026-06-10T03:00:00Z","label":"before\u001b[31m 2.0, the release with the long name","pinned":true},{"id":"20260611_010000Z-8tq2","run":"20260611_010000Z","host":"web1","unit":"mordor","started":"2026-06-11T01:00:00Z","bytes":null,"storages":["local","offsite"],"state":"unknown","proven":null,"label":null,"pinned":false},{"id":"20260301_030000Z-m0ax","run":"20260301_030000Z","host":"web1","unit":"mordor","started":"2026-03-01T03:00:00Z","bytes":217266404,"storages":["local"],"state":"damaged","proven":null,"label":null,"pinned":false}],"problems":[]}
    --- stderr
    "#);
}

#[test]
fn json_is_there_on_errors_too() {
    let mut json = desk();
    json.options.json = true;
    let mut outcome = outcome("backup", Items::Backups(vec![backup("app", UnitStatus::Failed)]));
    outcome.problems = vec![problem(Severity::Failure)];
    insta::assert_snapshot!(shown(json, &outcome, FAILED), @r#"
    {"schema":1,"command":"backup","exit_code":1,"outcome":"failed","dry_run":false,"started":"2026-06-12T03:00:00Z","finished":"2026-06-12T03:00:41Z","items":[{"unit":"app","status":"failed","id":null,"run":"20260612_030000Z","bytes":0,"content_bytes":0,"seconds":40.6,"storages":["local","offsite"],"copies":[],"detail":null,"warnings":[],"doubts":[],"pruned":[]}],"problems":[{"severity":"failure","kind":"child","target":"app","step":"dump","storage":null,"cause":"pg_dump exited with code 1: ERROR:  permission denied\nLINE 1:\tx","hint":"grant select, or use another user"}]}
    --- stderr
    app: failed
    error: app: dump: pg_dump exited with code 1: ERROR:  permission denied
        LINE 1: x
      hint: grant select, or use another user
    backup: 1 unit failed, 0 B in 41s
    "#);
}

#[test]
fn a_signal_is_told() {
    let stopped = Outcome { signal: Some(15), ..outcome("backup", Items::Backups(Vec::new())) };
    insta::assert_snapshot!(shown(desk(), &stopped, Verdict { code: 143, word: "interrupted" }), @"
    --- stderr
    warning: interrupted by signal 15
    ");
}

mod logs;
