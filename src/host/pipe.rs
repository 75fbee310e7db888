//! Standard output as a pipe that a slow or stopped reader may hold: a write waits for room together
//! with the cancel token, and never past it.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::Context;
use crate::error::{Error, Kind};

/// What a pipe that is ready takes without blocking (`PIPE_BUF`, pipe(7)).
const ATOMIC: usize = 4096;

/// Writes the content of a backup to standard output.
pub struct StandardOutput {
    cx: Context,
}

impl StandardOutput {
    /// Ends its waits with this context's token.
    pub fn new(cx: &Context) -> Self {
        Self { cx: cx.clone() }
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        let written = loop {
            let mut ready = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::OUT)];
            self.cx.cancel.poll(&mut ready, None)?;
            match rustix::io::retry_on_intr(|| rustix::io::write(stdout.as_fd(), &bytes[..bytes.len().min(ATOMIC)])) {
                // Somebody else has the pipe too, and made it non-blocking and full.
                Err(rustix::io::Errno::AGAIN) => {}
                other => break other,
            }
        };
        match written {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::PIPE) => {
                Err(Error::new(Kind::Child, "the reader of standard output went away before the end")
                    .hint("look at what the reading program said")
                    .into())
            }
            Err(error) => Err(Error::new(Kind::Internal, "can't write to standard output").source(error).into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
