//! What is told of calls on their way, beside the error at their end. The runtime's threads have no log: what the crates
//! below say of requests and their headers gets into none of ours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Dispatch;

use crate::error::Error;
use crate::host::Context;
use crate::observe::{Event, Observer};
use crate::quantity::show_duration;

/// A service in trouble is spoken of this often at most, however many calls are under way; the log has all.
const EVERY: Duration = Duration::from_secs(5);

/// Tells a person and the log.
pub(super) struct Teller {
    observer: Arc<dyn Observer>,
    log: Dispatch,
    last: Mutex<Option<Instant>>,
}

impl Teller {
    /// For the log of this thread.
    pub(super) fn new(cx: &Context) -> Self {
        let log = tracing::dispatcher::get_default(Clone::clone);
        Self { observer: Arc::clone(&cx.observer), log, last: Mutex::new(None) }
    }

    /// A line for the log alone.
    pub(super) fn log(&self, line: &str) {
        tracing::dispatcher::with_default(&self.log, || tracing::debug!("{line}"));
    }

    /// A call failed and is made again.
    pub(super) fn again(&self, error: &Error, how: &str, wait: Duration) {
        let line = format!("{error}; {how} in {}", show_duration(wait));
        self.log(&line);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= EVERY) {
            *last = Some(Instant::now());
            self.observer.event(Event::Note { text: line });
        }
    }
}
