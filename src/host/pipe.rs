//! Standard output and standard error as pipes that a slow or stopped reader may hold: a write waits
//! for room together with the cancel token, and never long past it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Cancel, Context};
use crate::error::{Error, Kind};

/// What a pipe that is ready takes without blocking (`PIPE_BUF`, pipe(7)).
const ATOMIC: usize = 4096;
/// How long a report may wait for its reader after a cancel, all writes together.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A descriptor whose reader is waited for, but not for ever.
pub struct Pipe<W> {
    to: W,
    cancel: Cancel,
    /// When the last words must be out; set by the first write after the cancel.
    until: Option<Instant>,
}

impl<W: AsFd> Pipe<W> {
    /// Waits end with this token; what is written after its cancel has half a second left.
    pub fn new(to: W, cancel: Cancel) -> Self {
        Self { to, cancel, until: None }
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut ready = [PollFd::from_borrowed_fd(self.to.as_fd(), PollFlags::OUT)];
        if self.cancel.poll(&mut ready, None).is_ok() {
            return Ok(());
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + LAST_WORDS);
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut ready, Some(&left)) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl<W: AsFd> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.to, &bytes[..bytes.len().min(ATOMIC)])) {
                // Somebody else has the pipe too, and made it non-blocking and full.
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the content of a backup to standard output. After a cancel it takes no more.
pub struct StandardOutput {
    pipe: Pipe<io::Stdout>,
}

impl StandardOutput {
    /// Ends its waits with this context's token.
    pub fn new(cx: &Context) -> Self {
        Self { pipe: Pipe::new(io::stdout(), cx.cancel.clone()) }
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pipe.cancel.check()?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::new(Kind::Child, "the reader of standard output went away before the end")
                .hint("look at what the reading program said"),
            _ => Error::new(Kind::Internal, "can't write to standard output").source(error),
        };
        let written = self.pipe.write(bytes);
        // A wait that the token ended is the token's error.
        self.pipe.cancel.check()?;
        written.map_err(|error| failed(error).into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
