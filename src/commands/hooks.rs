//! A target's own commands around the backup of a unit: `before` the source is begun, `on_error` where it was not stored as it
//! ought to be, `after` however it ended. They run once for a unit, not for each attempt, and tell what they say to the log.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::model::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::host::cancel::{CLEAN_UP, Reason};
use crate::host::process::{Child, Program};
use crate::host::{Cancel, Context};
use crate::names::RunId;
use crate::outcome::{BackupItem, UnitStatus};
use crate::plan::PlannedUnit;
use crate::quantity::show_duration;

/// Of what a hook says, this many bytes of the beginning and of the end are logged.
const LOGGED: usize = 16 << 10;
/// The longest line that is logged or told as one.
const LINE: usize = 1 << 10;

/// The hooks of one unit; none of them may be given.
pub(super) struct Hooks<'a> {
    wanted: Option<&'a model::Hooks>,
    unit: &'a PlannedUnit<'a>,
    config: &'a Config,
    run: RunId,
    begun: Instant,
    cx: &'a Context,
}

/// What is known of a backup when it is over, and what names it.
#[derive(Default)]
struct Facts {
    outcome: &'static str,
    id: String,
    bytes: String,
    storages: String,
    error: String,
    seconds: String,
}

impl<'a> Hooks<'a> {
    /// Those of a unit's target.
    pub(super) fn of(unit: &'a PlannedUnit<'a>, config: &'a Config, run: RunId, cx: &'a Context) -> Self {
        Self { wanted: unit.target.hooks.as_ref(), unit, config, run, begun: Instant::now(), cx }
    }

    /// Runs `before`. An error is the unit's: nothing of it is to be read.
    pub(super) fn before(&self) -> Result<()> {
        let Some(words) = self.wanted.and_then(|hooks| hooks.before.as_deref()) else { return Ok(()) };
        self.run("before", words, &Facts::default())
    }

    /// Runs `on_error`, where there was one, and `after`. What fails of them comes back.
    pub(super) fn afterwards(&self, item: &BackupItem, failed: &[Error]) -> Vec<Error> {
        let Some(hooks) = self.wanted else { return Vec::new() };
        let facts = self.facts(item, failed);
        let on_error = hooks.on_error.as_deref().filter(|_| facts.outcome != "ok");
        let wanted = [("on_error", on_error), ("after", hooks.after.as_deref())];
        let wanted = wanted.into_iter().filter_map(|(name, words)| Some((name, words?)));
        wanted.filter_map(|(name, words)| self.run(name, words, &facts).err()).collect()
    }

    fn facts(&self, item: &BackupItem, failed: &[Error]) -> Facts {
        let outcome = match item.status {
            _ if !failed.is_empty() && failed.iter().any(|error| error.kind() == Kind::Interrupted) => "interrupted",
            UnitStatus::Ok if item.doubts.is_empty() => "ok",
            UnitStatus::Ok | UnitStatus::Partial => "partial",
            _ => "failed",
        };
        let first = failed.first().map(ToString::to_string).or_else(|| item.doubts.first().cloned());
        Facts {
            outcome,
            id: item.id.map(|id| id.to_string()).unwrap_or_default(),
            bytes: item.bytes.to_string(),
            storages: item.storages.join(","),
            error: first.unwrap_or_default(),
            seconds: format!("{:.1}", self.begun.elapsed().as_secs_f64()),
        }
    }

    fn run(&self, name: &'static str, words: &[String], facts: &Facts) -> Result<()> {
        let step = format!("hook {name}");
        // What was begun is seen through: a signal leaves it the time of a clean-up.
        let sees_through = name != "before";
        let limit = self.wanted.map_or(Duration::ZERO, |hooks| hooks.timeout);
        let limit_now = || if self.cx.cancel.check().is_err() { limit.min(CLEAN_UP) } else { limit };
        self.run_within(name, words, facts, limit, sees_through).map_err(|error| match error.kind() {
            Kind::Timeout => error
                .restated(format!("not done within {}, and ended with all that it started", show_duration(limit_now())))
                .kind_is(Kind::Child)
                .hint("raise `timeout` of the target's `hooks`, or find out what it waits for")
                .step(step),
            _ => error.step(step),
        })
    }

    fn run_within(&self, name: &'static str, words: &[String], facts: &Facts, limit: Duration, sees_through: bool) -> Result<()> {
        let program = self.program(name, words, facts)?;
        // Begun although a signal came: what it undoes must not stay as it is.
        let cancelled = sees_through && self.cx.cancel.check().is_err();
        let cancel = if cancelled { clean_up(limit)? } else { self.cx.cancel.child(Some(limit))? };
        let mut child = program.spawn_reader(&self.cx.with_cancel(cancel.clone()))?;
        let mut said = Said::new(self.unit.unit.as_str(), name);
        let mut ended = said.take(&mut child, &cancel);
        if sees_through && !cancelled && ended.is_err() && matches!(cancel.reason(), Some(Reason::Signal(_))) {
            let more = clean_up(limit)?;
            child.go_on_under(more.clone());
            ended = said.take(&mut child, &more);
        }
        let finished = ended.and_then(|()| child.wait());
        let last = said.finish();
        let exit = finished?.exit;
        if exit.is_success() {
            return Ok(());
        }
        let why = if last.is_empty() { String::new() } else { format!(": {last}") };
        Err(Error::new(Kind::Child, format!("{} {}{why}", shown(words), exit.describe()))
            .hint("its output is in the log; run it by hand in the configuration's directory"))
    }

    /// The command, in the configuration's directory, with what it may want to know. Both of its outputs are one.
    fn program(&self, name: &str, words: &[String], facts: &Facts) -> Result<Program> {
        let path = std::path::absolute(&self.config.path)
            .map_err(|error| Error::new(Kind::Internal, "can't tell where the configuration is").source(error))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut words = words.iter();
        let first = words.next().map(PathBuf::from).unwrap_or_default();
        // A path is meant from where it runs.
        let first = if first.components().count() > 1 { directory.join(first) } else { first };
        let unit = self.unit;
        let variables = [
            ("HOOK", name),
            ("TARGET", unit.target.name.as_str()),
            ("UNIT", unit.unit.as_str()),
            ("HOST", self.config.host.as_str()),
            ("RUN", &self.run.to_string()),
            ("OUTCOME", facts.outcome),
            ("ID", &facts.id),
            ("BYTES", &facts.bytes),
            ("STORAGES", &facts.storages),
            ("ERROR", &facts.error),
            ("SECONDS", &facts.seconds),
        ];
        let program = Program::new("sh").args(["-c", r#"exec "$@" 2>&1"#, "sh"]).arg(first).args(words).directory(directory);
        let program = program.env("DB_BACKUP_CONFIG", &path);
        Ok(variables.iter().fold(program, |program, (name, value)| program.env(format!("DB_BACKUP_{name}"), value)))
    }
}

/// A clean-up's time, or the hook's own where that is less.
fn clean_up(limit: Duration) -> Result<Cancel> {
    Cancel::for_clean_up()?.child(Some(limit))
}

/// A command, for a message: a text for a shell is told as that.
fn shown(words: &[String]) -> String {
    match words {
        [shell, flag, _] if shell == "sh" && flag == "-c" => "the command".to_owned(),
        [first, ..] => first.clone(),
        [] => String::new(),
    }
}

/// What a hook says, on its way into the log: its beginning as it comes, its end when it is over.
struct Said<'a> {
    unit: &'a str,
    hook: &'static str,
    /// The line that has not ended.
    line: Vec<u8>,
    last: String,
    logged: usize,
    later: VecDeque<String>,
    later_bytes: usize,
    left_out: usize,
}

impl<'a> Said<'a> {
    fn new(unit: &'a str, hook: &'static str) -> Self {
        let (line, last, later) = (Vec::new(), String::new(), VecDeque::new());
        Self { unit, hook, line, last, logged: 0, later, later_bytes: 0, left_out: 0 }
    }

    /// Takes all until the end. A process that it left behind and that keeps its output open is no failure.
    fn take(&mut self, child: &mut Child, cancel: &Cancel) -> Result<()> {
        let mut buffer = [0; 8 << 10];
        loop {
            match child.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    for byte in &buffer[..count] {
                        self.push(*byte);
                    }
                }
                Err(_) => return cancel.check(),
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if byte != b'\n' {
            self.line.push(byte);
        }
        if byte == b'\n' || self.line.len() >= LINE {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        self.last.clone_from(&line);
        if self.logged + line.len() <= LOGGED && self.later.is_empty() {
            self.logged += line.len();
            self.log(&line);
            return;
        }
        self.later_bytes += line.len();
        self.later.push_back(line);
        while self.later_bytes > LOGGED {
            let Some(first) = self.later.pop_front() else { break };
            self.later_bytes -= first.len();
            self.left_out += first.len();
        }
    }

    /// Its last line.
    fn finish(mut self) -> String {
        self.end_line();
        if self.left_out > 0 {
            self.log(&format!("[{} bytes left out]", self.left_out));
        }
        for line in &self.later {
            self.log(line);
        }
        self.last
    }

    fn log(&self, line: &str) {
        tracing::info!(unit = self.unit, "hook {}: {line}", self.hook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_that_is_said_the_beginning_and_the_end_stay() {
        let mut said = Said::new("app", "before");
        for number in 0..100_000 {
            format!("line {number}\n").bytes().for_each(|byte| said.push(byte));
        }
        assert!(said.logged <= LOGGED && said.later_bytes <= LOGGED && said.left_out > 900_000);
        assert_eq!(said.later.back().unwrap(), "line 99999");
        assert_eq!(said.finish(), "line 99999");
        let mut said = Said::new("app", "before");
        for _ in 0..1 << 20 {
            said.push(b'x');
        }
        assert!(said.line.len() < LINE && said.finish().len() <= LINE);
    }
}
