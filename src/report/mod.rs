//! Outcome to text, JSON and log. Results go to standard output, everything else to standard error;
//! nothing here decides what happened, and no other module prints.

mod console;
mod drills;
mod json;
mod log;
mod progress;
mod stream;
mod table;
mod tables;
mod text;
mod usage;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono_tz::Tz;
use tracing::Dispatch;
use tracing::dispatcher::DefaultGuard;

use crate::error::{Error, Kind, Result};
use crate::host::{Clock, Env};
use crate::names::RunId;
use crate::observe::Observer;
use crate::outcome::{
    DrillStatus, Items, Outcome, Problem, PruneDecision, PruneItem, RestoreStatus, Severity, UnitStatus, Verdict,
};
use console::Console;
use log::{Levels, LogFile};
use progress::Speaker;

pub use stream::Stream;
pub use usage::{Usage, usage};

/// What a report needs from the command line and the world.
pub struct ReportOptions {
    /// `-q`: nothing on standard error but problems and warnings.
    pub quiet: bool,
    /// How many `-v`.
    pub verbose: u8,
    /// `--json`: the result is the document.
    pub json: bool,
    /// `--log-format json`: each line on standard error is an object.
    pub json_log: bool,
    /// `--dry-run`: decisions are a result, and nothing was carried out.
    pub dry_run: bool,
    /// For results.
    pub stdout: Stream,
    /// For everything else.
    pub stderr: Stream,
    /// Dates the lines of the logs.
    pub clock: Arc<dyn Clock>,
}

/// Tells people, programs and logs about one run.
pub struct Reporter {
    options: ReportOptions,
    timezone: Tz,
    file: LogFile,
    speaker: Arc<Speaker>,
}

impl Reporter {
    /// `env` is asked for `RUST_LOG`. Times are shown in UTC until [`Reporter::set_timezone`].
    pub fn new(options: ReportOptions, env: &Env) -> Self {
        let bars = !options.quiet && !options.json_log;
        let console = Arc::new(Console::new(options.stderr.clone(), bars));
        let file = LogFile::new();
        let levels =
            Levels { quiet: options.quiet, verbose: options.verbose, json: options.json_log, rust_log: env.get("RUST_LOG") };
        let dispatch = log::dispatch(&levels, &console, &file, &options.clock);
        let speaker = Arc::new(Speaker::new(console, dispatch, options.quiet, options.json_log));
        Self { options, timezone: Tz::UTC, file, speaker }
    }

    /// Takes the run's events.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.speaker.clone()
    }

    /// The config's timezone, once it is known.
    pub fn set_timezone(&mut self, timezone: Tz) {
        self.timezone = timezone;
    }

    /// Opens the run's log file in `log_dir`, with all that was logged so far; gives its path.
    /// A log never fails a run: the caller makes a notice of the error.
    pub fn open_log(&self, log_dir: &Path, run: RunId) -> Result<PathBuf> {
        self.file.open(log_dir, run, std::process::id())
    }

    /// Takes this thread's own tracing events until the guard is dropped. The observer needs none.
    pub fn scope(&self) -> DefaultGuard {
        tracing::dispatcher::set_default(&self.speaker.dispatch)
    }

    /// Where tracing's events go, for a thread's `with_default`, or for `set_global_default` in a
    /// process that does one run.
    pub fn dispatch(&self) -> &Dispatch {
        &self.speaker.dispatch
    }

    /// Prints everything. An error, said already, means that the result could not be written: the
    /// exit code must tell. A reader that closed the pipe is none.
    pub fn finish(&self, outcome: &Outcome, verdict: Verdict) -> Result<()> {
        self.speaker.console.clear();
        let written = self.results(outcome, verdict).and_then(|text| self.print(&text));
        self.remarks(outcome);
        for problem in &outcome.problems {
            if !self.options.json && is_result(problem, &outcome.items) {
                self.speaker.log_problem(problem);
            } else {
                self.speaker.problem(problem);
            }
        }
        if let Err(error) = &written {
            self.speaker.problem(&Problem::of(error, Severity::Failure));
        }
        if let Some(text) = self.file.failure() {
            self.speaker.warning(None, &text);
        }
        if let Some(line) = text::summary(outcome, self.options.dry_run) {
            self.speaker.say(None, &line);
        }
        let Verdict { code, word } = verdict;
        self.speaker.debug(None, &format!("{}: exit code {code}, {word}", outcome.command));
        written
    }

    fn results(&self, outcome: &Outcome, verdict: Verdict) -> Result<String> {
        if self.options.json {
            return json::document(outcome, verdict, self.options.dry_run);
        }
        let look = text::Look {
            now: outcome.finished,
            timezone: self.timezone,
            dry_run: self.options.dry_run,
            color: self.options.stdout.color(),
            width: self.options.stdout.width(),
        };
        Ok(text::results(outcome, &look))
    }

    fn print(&self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match self.options.stdout.put(text.as_bytes()) {
            // `list | head`: the reader has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Error::new(Kind::Internal, "can't write to standard output")
                .source(error)
                .hint("what was done is done; only its report is cut")),
            Ok(()) => Ok(()),
        }
    }

    /// The lines of single items that were not told as they came.
    fn remarks(&self, outcome: &Outcome) {
        let warn = |unit: &str, warnings: &[String]| warnings.iter().for_each(|text| self.speaker.warning(Some(unit), text));
        match &outcome.items {
            Items::Backups(units) => {
                for unit in units {
                    if unit.status != UnitStatus::Planned && !self.speaker.was_finished(&unit.unit) {
                        self.speaker.say(Some(&unit.unit), &text::backed_up(unit));
                    }
                    if !self.options.dry_run {
                        self.pruned(&unit.pruned);
                    }
                    warn(&unit.unit, &unit.warnings);
                }
            }
            Items::Restores(units) => {
                for unit in units {
                    if unit.status != RestoreStatus::Planned && !self.speaker.was_finished(&unit.unit) {
                        self.speaker.say(Some(&unit.unit), &text::restored(unit));
                    }
                    for line in &unit.notes {
                        self.speaker.say(Some(&unit.unit), &text::note(&unit.unit, line));
                    }
                    warn(&unit.unit, &unit.warnings);
                }
            }
            Items::Pruned(entries) if !self.options.dry_run => self.pruned(entries),
            Items::Drills(units) => {
                for unit in units {
                    if unit.status != DrillStatus::Planned && !self.speaker.was_finished(&unit.unit) {
                        self.speaker.say(Some(&unit.unit), &drills::drilled(unit));
                    }
                    warn(&unit.unit, &unit.warnings);
                }
            }
            Items::Pruned(_) | Items::Rows(_) | Items::Stats(_) | Items::Tables(_) | Items::Checks(_) | Items::Text(_) => {}
        }
        let told = |problem: &Problem| problem.kind == Kind::Interrupted;
        if let Some(signal) = outcome.signal
            && !outcome.problems.iter().any(told)
        {
            self.speaker.warning(None, &format!("interrupted by signal {signal}"));
        }
    }

    fn pruned(&self, entries: &[PruneItem]) {
        for entry in entries {
            match text::carried_out(entry) {
                Some(line) if entry.decision == PruneDecision::Keep => self.speaker.debug(Some(&entry.unit), &line),
                Some(line) => self.speaker.say(Some(&entry.unit), &line),
                None => {}
            }
        }
    }
}

/// Whether a problem was printed as a result: what `validate` finds is one.
fn is_result(problem: &Problem, items: &Items) -> bool {
    matches!(items, Items::Checks(checks) if checks.iter().any(|check| !check.ok && check.detail == problem.cause))
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reporter({:?}, {})", self.options.stderr, self.timezone)
    }
}

#[cfg(test)]
mod tests;
