//! The commands: where sources, stages, storages and the catalog meet. Each takes the configuration
//! and its own options, and returns what it found as data; none prints, and none ends the process.

mod stores;
mod attempt;
mod choose;
mod expected;
mod hooks;
mod verify;
pub mod undo;
pub mod generate;
pub mod validate;
pub mod prune;
pub mod backup;
pub mod list;
pub mod restore;
pub mod drill;

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Reason;
use crate::names::HostName;
use crate::observe::Event;
use crate::outcome::{Items, Problem, Severity};
use crate::source::Probe;

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

/// An error where a look at a source found something that its backup could not read.
fn readable(probe: Probe) -> Result<Probe> {
    if probe.unreadable.is_empty() {
        return Ok(probe);
    }
    let shown = probe.unreadable.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = probe.unreadable.len().saturating_sub(5);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    Err(Error::new(Kind::Database, format!("the role can't read everything: {shown}{more}"))
        .step("privileges")
        .hint("GRANT pg_read_all_data TO the role (server 14 and later), ALTER ROLE ... BYPASSRLS, or back up as the owner"))
}

/// The host that `--host` names, where it names one.
fn named_host(host: Option<&str>) -> Result<Option<HostName>> {
    let host = host.map(HostName::new).transpose();
    host.map_err(|error| Error::new(Kind::Config, format!("--host: {error}")))
}

/// Whether a signal ended it: then nothing more is begun.
fn is_interrupted(cx: &Context) -> bool {
    matches!(cx.cancel.reason(), Some(Reason::Signal(_)))
}
