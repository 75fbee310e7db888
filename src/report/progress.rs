//! The observer of a run: events become lines for people, bars on a terminal, and log events. It
//! remembers what it said, so that the report at the end does not say it twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tracing::{Dispatch, Level};

use super::console::{Console, lock};
use super::log::REPORT;
use super::table::{prose, visible};
use super::text;
use crate::observe::{Event, Observer};
use crate::outcome::{Problem, Severity};
use crate::quantity::show_duration;

/// What a log event says beside its message.
#[derive(Debug, Clone, Copy, Default)]
struct Fields<'a> {
    unit: Option<&'a str>,
    storage: Option<&'a str>,
    step: Option<&'a str>,
    kind: Option<&'a str>,
    hint: Option<&'a str>,
}

// A macro, as a tracing event's level is a part of its call site.
macro_rules! emit {
    ($level:expr, $fields:expr, $message:expr) => {
        tracing::event!(
            target: REPORT,
            // They say it themselves.
            parent: None,
            $level,
            unit = $fields.unit,
            storage = $fields.storage,
            step = $fields.step,
            kind = $fields.kind,
            hint = $fields.hint,
            "{}",
            $message
        )
    };
}

/// Says things once, to everybody who listens.
pub(super) struct Speaker {
    pub(super) console: Arc<Console>,
    pub(super) dispatch: Dispatch,
    pub(super) quiet: bool,
    /// Standard error is for objects: lines for people stay away from it.
    pub(super) json_log: bool,
    finished: Mutex<HashSet<String>>,
    warned: Mutex<HashSet<(Option<String>, String)>>,
}

impl Speaker {
    pub(super) fn new(console: Arc<Console>, dispatch: Dispatch, quiet: bool, json_log: bool) -> Self {
        Self { console, dispatch, quiet, json_log, finished: Mutex::default(), warned: Mutex::default() }
    }

    /// A line at the usual verbosity.
    pub(super) fn say(&self, unit: Option<&str>, line: &str) {
        self.log(Level::INFO, Fields { unit, ..Fields::default() }, line);
        if !self.quiet {
            self.put(line);
        }
    }

    /// A problem; never held back, but for a notice that was said as a warning already.
    pub(super) fn problem(&self, problem: &Problem) {
        if problem.severity == Severity::Notice && !self.is_news(problem.target.as_deref(), &problem.cause) {
            return;
        }
        self.log_problem(problem);
        self.put(&text::problem(problem, self.console.color()));
    }

    /// A problem for the logs alone: people have seen it among the results.
    pub(super) fn log_problem(&self, problem: &Problem) {
        let level = if problem.severity == Severity::Failure { Level::ERROR } else { Level::WARN };
        let kind = serde_json::to_value(problem.kind).ok();
        let fields = Fields {
            unit: problem.target.as_deref(),
            storage: problem.storage.as_deref(),
            step: problem.step.as_deref(),
            kind: kind.as_ref().and_then(serde_json::Value::as_str),
            hint: problem.hint.as_deref(),
        };
        self.log(level, fields, &problem.cause);
    }

    /// A warning; never held back, and said once.
    pub(super) fn warning(&self, target: Option<&str>, text: &str) {
        if self.is_news(target, text) {
            self.log(Level::WARN, Fields { unit: target, ..Fields::default() }, text);
            self.put(&text::warning(target, text, self.console.color()));
        }
    }

    /// A line for the logs alone.
    pub(super) fn debug(&self, unit: Option<&str>, line: &str) {
        self.log(Level::DEBUG, Fields { unit, ..Fields::default() }, line);
    }

    /// Whether a unit's end was told as it came.
    pub(super) fn was_finished(&self, unit: &str) -> bool {
        lock(&self.finished).contains(unit)
    }

    fn is_news(&self, target: Option<&str>, text: &str) -> bool {
        lock(&self.warned).insert((target.map(str::to_owned), text.to_owned()))
    }

    fn put(&self, line: &str) {
        if !self.json_log {
            self.console.put(format!("{line}\n").as_bytes());
        }
    }

    fn log(&self, level: Level, fields: Fields<'_>, message: &str) {
        // Events come from any thread, and a test runs several reports at once: each has its own.
        tracing::dispatcher::with_default(&self.dispatch, || match level {
            Level::ERROR => emit!(Level::ERROR, fields, message),
            Level::WARN => emit!(Level::WARN, fields, message),
            Level::INFO => emit!(Level::INFO, fields, message),
            _ => emit!(Level::DEBUG, fields, message),
        });
    }
}

impl Observer for Speaker {
    fn event(&self, event: Event) {
        match event {
            Event::UnitStarted { unit, action, expected_bytes } => {
                self.debug(Some(unit.as_str()), &format!("{}: {action} begins", visible(unit.as_str())));
                self.console.begin(unit.as_str(), expected_bytes);
            }
            Event::UnitProgress { unit, bytes } => self.console.advance(unit.as_str(), bytes),
            Event::UnitFinished { unit, ok, summary } => {
                self.console.end(unit.as_str());
                let line = match (ok, summary.as_str()) {
                    (true, _) => prose(&summary),
                    // Its problem says why, at the end.
                    (false, "") => "failed".to_owned(),
                    (false, _) => format!("failed: {}", prose(&summary)),
                };
                self.say(Some(unit.as_str()), &format!("{}: {line}", visible(unit.as_str())));
                lock(&self.finished).insert(unit.as_str().to_owned());
            }
            Event::Retry { unit, cause, after } => {
                let again = format!("{}: trying again in {}: {}", visible(unit.as_str()), show_duration(after), prose(&cause));
                self.say(Some(unit.as_str()), &again);
            }
            Event::Warning { target, text } => self.warning(target.as_deref(), &text),
            Event::Note { text } => self.say(None, &prose(&text)),
        }
    }
}
