//! The wall clock, as a value that tests can set.

use std::sync::Mutex;

use chrono::{DateTime, Duration, Utc};

/// Tells the wall-clock time. It may jump: measure spans with `Instant`.
pub trait Clock: Send + Sync {
    /// The time now, in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The system's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one home of the wall clock
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that stands still until it is set, for tests.
#[derive(Debug)]
pub struct SetClock(Mutex<DateTime<Utc>>);

impl SetClock {
    /// A clock that shows this time.
    pub fn at(time: DateTime<Utc>) -> Self {
        Self(Mutex::new(time))
    }

    /// Moves it on, or back.
    pub fn advance(&self, by: Duration) {
        if let Ok(mut time) = self.0.lock() {
            *time += by;
        }
    }
}

impl Clock for SetClock {
    fn now(&self) -> DateTime<Utc> {
        match self.0.lock() {
            Ok(time) => *time,
            Err(poisoned) => *poisoned.into_inner(),
        }
    }
}
