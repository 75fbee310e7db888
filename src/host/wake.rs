//! A descriptor that one thread makes readable and another polls, together with its cancel token.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::Cancel;
use crate::error::{Error, Kind, Result};

/// Readable for ever once it is set: nobody reads it.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// One that is not set.
    pub fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::new(Kind::Internal, "can't make a wake-up descriptor").source(error))?;
        Ok(Self(fd))
    }

    /// Ends every wait for it.
    pub fn set(&self) {
        // An eventfd's counter can't be full after one write: this can't fail or block.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it is set, or the time is up, whatever is cancelled.
    pub fn wait_at_most(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let left = || until.saturating_duration_since(Instant::now());
        let wait = |left: Duration| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        // Only a signal's handler ends it early.
        while poll(&mut [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)], Some(&wait(left()))) == Err(Errno::INTR) {}
    }

    /// Waits until it is set, or the token is cancelled (an error).
    pub fn wait(&self, cancel: &Cancel) -> Result<()> {
        cancel.poll(&mut [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)], None).map(|_| ())
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
