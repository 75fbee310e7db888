//! One token for every wait: a signal, a unit's timeout and a clean-up's limit all end it the
//! same way. Its wake-up descriptor is polled together with whatever is waited for, so a wait
//! ends at once and not at the next look.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wake::Wake;
use crate::error::{Error, Kind, Result};

/// How long a clean-up after a cancel may take.
pub const CLEAN_UP: Duration = Duration::from_secs(30);

/// Why a token was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// This signal came.
    Signal(i32),
    /// This much time was given, and is up.
    TimeUp(Duration),
    /// The work is not wanted any more: a sibling failed.
    Abandoned,
}

/// A token that every call which can wait takes. Clones are the same token; a child ends with its
/// parent, or earlier.
#[derive(Clone)]
pub struct Cancel(Arc<Inner>);

struct Inner {
    own: OnceLock<Reason>,
    wake: Wake,
    deadline: Option<(Instant, Duration)>,
    parent: Option<Cancel>,
}

impl Cancel {
    /// A token with no parent and no deadline.
    pub fn new() -> Result<Self> {
        Self::build(None, None)
    }

    /// A token of its own for cleaning up after a cancel: it ends after [`CLEAN_UP`] alone.
    pub fn for_clean_up() -> Result<Self> {
        Self::build(Some(CLEAN_UP), None)
    }

    /// A token that ends with this one, or when `limit` has passed.
    pub fn child(&self, limit: Option<Duration>) -> Result<Self> {
        Self::build(limit, Some(self.clone()))
    }

    fn build(limit: Option<Duration>, parent: Option<Cancel>) -> Result<Self> {
        let wake = Wake::new()?;
        // A limit too long for the clock is no limit.
        let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Ok(Self(Arc::new(Inner { own: OnceLock::new(), wake, deadline, parent })))
    }

    /// Ends every wait on this token and its children. The first reason stays.
    pub fn cancel(&self, reason: Reason) {
        if self.0.own.set(reason).is_ok() {
            self.0.wake.set();
        }
    }

    /// Why it is cancelled, if it is.
    pub fn reason(&self) -> Option<Reason> {
        let up = |(at, limit): (Instant, Duration)| (Instant::now() >= at).then_some(Reason::TimeUp(limit));
        // The parent first: a signal outranks the timeout that it made us miss.
        let inherited = self.0.parent.as_ref().and_then(Self::reason);
        inherited.or_else(|| self.0.own.get().copied()).or_else(|| self.0.deadline.and_then(up))
    }

    /// An error, if it is cancelled.
    pub fn check(&self) -> Result<()> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(reason.into()),
        }
    }

    /// Waits this long, or until cancelled.
    pub fn sleep(&self, span: Duration) -> Result<()> {
        self.poll(&mut [], Some(span)).map(|_| ())
    }

    /// Waits until one of the descriptors is ready (true), or the time is up (false), or the token is
    /// cancelled (an error). The descriptors' `revents` are those of `poll(2)`.
    pub fn poll<'fd>(&'fd self, fds: &mut [PollFd<'fd>], limit: Option<Duration>) -> Result<bool> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            self.check()?;
            let now = Instant::now();
            let wait = [until, self.deadline()].into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
            let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() });
            let mut all = fds.to_vec();
            let mut token = Some(self);
            while let Some(current) = token {
                all.push(PollFd::from_borrowed_fd(current.0.wake.as_fd(), PollFlags::IN));
                token = current.0.parent.as_ref();
            }
            match poll(&mut all, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::new(Kind::Internal, "poll failed").source(error)),
            }
            self.check()?;
            let mut ready = false;
            for (ours, polled) in fds.iter_mut().zip(&all) {
                ours.clear_revents();
                if !polled.revents().is_empty() {
                    *ours = polled.clone();
                    ready = true;
                }
            }
            if ready {
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let inherited = self.0.parent.as_ref().and_then(Self::deadline);
        [inherited, self.0.deadline.map(|(at, _)| at)].into_iter().flatten().min()
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({:?})", self.reason())
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Signal(signal) => Self::new(Kind::Interrupted, format!("interrupted by signal {signal}")),
            Reason::TimeUp(limit) => Self::new(Kind::Timeout, format!("not done within {limit:?}"))
                .hint("raise the target's `timeout:`, or find out what it waits for"),
            Reason::Abandoned => Self::new(Kind::Interrupted, "given up, as another part failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_wait_ends_with_its_parents_cancel() {
        let parent = Cancel::new().unwrap();
        let child = parent.child(Some(Duration::from_secs(3600))).unwrap();
        let waiting = std::thread::spawn(move || child.sleep(Duration::from_secs(3600)));
        parent.cancel(Reason::Signal(15));
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), Kind::Interrupted);
    }

    #[test]
    fn a_deadline_ends_a_wait_and_leaves_the_parent() {
        let parent = Cancel::new().unwrap();
        let child = parent.child(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(child.sleep(Duration::from_secs(3600)).unwrap_err().kind(), Kind::Timeout);
        assert!(parent.check().is_ok());
    }
}
