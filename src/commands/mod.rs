//! The commands: where sources, stages, storages and the catalog meet. Each takes the configuration
//! and its own options, and returns what it found as data; none prints, and none ends the process.

mod stores;
mod attempt;
mod verify;
pub mod generate;
pub mod validate;
pub mod prune;
pub mod backup;
pub mod list;
pub mod restore;

use crate::error::{Error, Kind};
use crate::host::Context;
use crate::host::cancel::Reason;
use crate::observe::Event;
use crate::outcome::{Items, Problem, Severity};

/// What a command found.
#[derive(Debug)]
pub struct Found {
    /// What was found or done.
    pub items: Items,
    /// What went wrong.
    pub problems: Vec<Problem>,
}

impl Found {
    /// Nothing but a failure.
    pub fn failure(items: Items, error: &Error) -> Self {
        Self { items, problems: vec![Problem::of(error, Severity::Failure)] }
    }
}

/// Something a person should know and that moves no exit code.
pub(crate) fn notice(target: Option<&str>, cause: impl Into<String>) -> Problem {
    let error = Error::new(Kind::Check, cause);
    let error = match target {
        Some(target) => error.target(target),
        None => error,
    };
    Problem::of(&error, Severity::Notice)
}

/// Tells the observer a warning that is a problem at the end as well.
fn warn(cx: &Context, target: &str, text: &str) {
    cx.observer.event(Event::Warning { target: Some(target.to_owned()), text: text.to_owned() });
}

/// Whether a signal ended it: then nothing more is begun.
fn is_interrupted(cx: &Context) -> bool {
    matches!(cx.cancel.reason(), Some(Reason::Signal(_)))
}
