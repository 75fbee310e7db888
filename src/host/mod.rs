//! What the machine gives: cancelling, processes, private files, locks, clock and environment.
//! Nothing here knows of backups.

pub mod cancel;
pub mod environment;
pub mod clock;
pub mod files;
pub mod pipe;
pub mod process;
pub mod tree;
pub mod marked;
#[allow(clippy::trivially_copy_pass_by_ref)] // an engine may come to know more of itself than its kind
pub mod engine;
pub mod lock;
pub mod journal;
pub mod signals;
pub mod wake;

use std::sync::Arc;

use crate::observe::Observer;

pub use cancel::Cancel;
pub use clock::Clock;
pub use environment::Env;

/// What every call that can wait, spawn or tell is given.
#[derive(Clone)]
pub struct Context {
    /// Ends every wait.
    pub cancel: Cancel,
    /// The variables we were started with, and those of `--env-file`.
    pub env: Arc<Env>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Takes progress and warnings.
    pub observer: Arc<dyn Observer>,
}

impl Context {
    /// The same under another token: a unit's own, with its timeout, or that of a clean-up.
    #[must_use]
    pub fn with_cancel(&self, cancel: Cancel) -> Self {
        Self { cancel, ..self.clone() }
    }
}

#[cfg(test)]
impl Context {
    /// A silent one with the system's clock and nothing but a `PATH`.
    pub(crate) fn for_tests() -> Self {
        Self {
            cancel: Cancel::new().unwrap(),
            env: Arc::new(Env::from_iter([("PATH", "/usr/local/bin:/usr/bin:/bin")])),
            clock: Arc::new(clock::SystemClock),
            observer: Arc::new(crate::observe::Silent),
        }
    }
}
