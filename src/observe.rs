//! Progress and warnings go through this trait, so that a terminal, a log and a test can each
//! take them their own way. An observer never fails and never blocks for long.

use std::sync::Mutex;
use std::time::Duration;

use tracing::{Span, dispatcher};

use crate::names::UnitName;

/// Something that happened on the way; the outcome at the end says it all again, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Work on a unit begins: `backup`, `restore`, `verify`.
    UnitStarted {
        /// Which unit.
        unit: UnitName,
        /// What is done with it.
        action: &'static str,
        /// Bytes to expect, where known.
        expected_bytes: Option<u64>,
    },
    /// Bytes that have passed so far.
    UnitProgress {
        /// Which unit.
        unit: UnitName,
        /// Bytes of content read since it began.
        bytes: u64,
    },
    /// Work on a unit ended; `summary` is a clause for a person.
    UnitFinished {
        /// Which unit.
        unit: UnitName,
        /// Whether it went well.
        ok: bool,
        /// For a person: `217.2 MiB in 41 s, 1 storage`.
        summary: String,
    },
    /// A unit's attempt failed and another follows.
    Retry {
        /// Which unit.
        unit: UnitName,
        /// Why.
        cause: String,
        /// The wait before the next attempt.
        after: Duration,
    },
    /// Something a person should know and that is no failure.
    Warning {
        /// The target or unit, where there is one.
        target: Option<String>,
        /// For a person.
        text: String,
    },
    /// Something worth a line at the usual verbosity.
    Note {
        /// For a person.
        text: String,
    },
}

/// Takes events, from any thread.
pub trait Observer: Send + Sync {
    /// One event. Must return quickly, and never panic.
    fn event(&self, event: Event);
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}

/// Keeps every event, for tests.
#[derive(Debug, Default)]
pub struct Recording {
    events: Mutex<Vec<Event>>,
}

impl Recording {
    /// What was seen so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().map(|events| events.clone()).unwrap_or_default()
    }
}

impl Observer for Recording {
    fn event(&self, event: Event) {
        if let Ok(mut events) = self.events.lock() {
            events.push(event);
        }
    }
}

/// Has what another thread logs go where this one's lines go, and name the unit that this one is at work on.
pub fn logged_here<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (log, span) = (dispatcher::get_default(Clone::clone), Span::current());
    move || dispatcher::with_default(&log, || span.in_scope(work))
}
