//! A running child and its pipes. Every call that can wait polls all pipes together with the
//! child's end and the cancel token, so that no full pipe and no grandchild can hold it up.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Pid;

use super::Exit;
use super::group::Group;
use super::lines::{Lines, Listener};
use super::tail::Tail;
use crate::error::{Error, Kind, Result};
use crate::host::{Cancel, Context};

/// What a pipe to or from a child holds at best: less waking up on both sides.
const PIPE_BYTES: usize = 1 << 20;
/// What is kept of a child's stderr: its beginning and its end.
const STDERR_FIRST: usize = 4 << 10;
const STDERR_LAST: usize = 12 << 10;
/// What is kept of a collected stdout.
const STDOUT_LAST: usize = 64 << 10;
/// How long a group may clean up between SIGTERM and SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long a pipe may stay silent when the child has ended and a grandchild holds it open.
const HOLD_GRACE: Duration = Duration::from_secs(5);
/// How often a child's end is looked for where the kernel has no pidfds.
const LOOK: Duration = Duration::from_millis(20);

/// A running child: reads its stdout or writes its stdin. Dropped, it is killed with its whole
/// process group, and reaped.
///
/// An end of file says nothing about how the child ended, and no more does a write that was taken:
/// [`Child::wait`] does. Errors of `read` and `write` hold one of ours (see [`crate::error::from_io`]).
pub struct Child {
    name: String,
    cancel: Cancel,
    group: Group,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    said: Said,
    /// What was written to stdout and nobody read.
    collected: Tail,
    /// Stdout is taken in passing, not by `read`.
    collects: bool,
    /// The child has ended: how long we still wait for a byte from, or room in, a pipe that a
    /// grandchild may hold.
    held_until: Option<Instant>,
    hold_grace: Duration,
    finished: Option<Finished>,
}

/// What a child writes to its stderr: kept in part, and told whole to who listens.
struct Said {
    kept: Tail,
    heard: Option<Lines>,
}

impl Said {
    fn push(&mut self, bytes: &[u8]) {
        self.kept.push(bytes);
        if let Some(lines) = &mut self.heard {
            lines.push(bytes);
        }
    }
}

/// How a child ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// The beginning and the end of its stderr, 16 KiB at most.
    pub stderr_tail: String,
    /// The end of what it wrote to its stdout and nobody read, 64 KiB at most.
    pub stdout_tail: Vec<u8>,
}

impl Child {
    #[allow(clippy::disallowed_types)] // spawned by process/mod.rs
    fn new(mut child: std::process::Child, name: String, cx: &Context, collects: bool) -> Self {
        Self {
            name,
            cancel: cx.cancel.clone(),
            group: Group::of(Pid::from_child(&child)),
            stdin: child.stdin.take().map(|pipe| ready(pipe.into())),
            stdout: child.stdout.take().map(|pipe| ready(pipe.into())),
            stderr: child.stderr.take().map(|pipe| ready(pipe.into())),
            said: Said { kept: Tail::new(STDERR_FIRST, STDERR_LAST), heard: None },
            collected: Tail::new(0, STDOUT_LAST),
            collects,
            held_until: None,
            hold_grace: HOLD_GRACE,
            finished: None,
        }
    }

    #[allow(clippy::disallowed_types)]
    pub(super) fn reader(child: std::process::Child, name: String, cx: &Context) -> Self {
        Self::new(child, name, cx, false)
    }

    #[allow(clippy::disallowed_types)]
    pub(super) fn writer(child: std::process::Child, name: String, cx: &Context) -> Self {
        Self::new(child, name, cx, true)
    }

    /// Has each line of its stderr told as it comes, at the latest before [`Child::wait`] returns.
    pub(super) fn heard_by(mut self, listener: Listener) -> Self {
        self.said.heard = Some(Lines::new(listener));
        self
    }

    /// Its process number, which is its group's too.
    pub fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// Whether it has ended; how, [`Child::wait`] says.
    pub fn has_ended(&mut self) -> bool {
        self.finished.is_some() || self.group.has_ended()
    }

    /// Tells it that nothing more comes. To end a child that must not act on a stream that was cut,
    /// [`Child::kill`] it instead.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes its stdin, waits for it to end, and takes the rest of what it wrote: what nobody read
    /// of its stdout goes to `stdout_tail`. A grandchild that holds a pipe is not waited for. Fails
    /// when cancelled, and leaves it running then. Called again, it says the same again.
    pub fn wait(&mut self) -> Result<Finished> {
        if let Some(finished) = &self.finished {
            return Ok(finished.clone());
        }
        self.close_stdin();
        self.collects = true;
        while !self.group.has_ended() {
            self.pause(Until::Ended)?;
        }
        self.finish()
    }

    /// The same under another token, which is its own from now on: that of a clean-up.
    pub fn wait_under(&mut self, cancel: Cancel) -> Result<Finished> {
        self.go_on_under(cancel);
        self.wait()
    }

    /// Has every wait on it end with another token from now on.
    pub fn go_on_under(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// Ends its whole process group: SIGTERM, then after 2 s, or as soon as all have ended, SIGKILL.
    /// Its stdin stays open until then, so that it can't take the end for a good one.
    pub fn kill(&mut self) {
        let Self { group, stdout, stderr, said, collected, .. } = self;
        group.end_all(KILL_GRACE, || {
            if let Some(stdout) = stdout {
                drain(stdout, |bytes| collected.push(bytes));
            }
            if let Some(stderr) = stderr {
                drain(stderr, |bytes| said.push(bytes));
            }
        });
        if group.reaped().is_some() {
            // Nobody needs to know more than that it was reaped.
            let _ = self.finish();
        }
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
    }

    #[cfg(test)]
    pub(super) fn hold_for(&mut self, grace: Duration) {
        self.hold_grace = grace;
    }

    #[cfg(test)]
    pub(super) fn forget_pidfd(&mut self) {
        self.group.forget_pidfd();
    }

    /// Gives it all of `input` and takes all of its stdout, both at once.
    pub(super) fn exchange(&mut self, mut input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.give(input) {
                Ok(Some(count)) => input = &input[count..],
                Ok(None) => {}
                // It has read enough. Whether that is well, its exit says.
                Err(_) => input = &[],
            }
            if input.is_empty() {
                self.close_stdin();
            }
            match self.take(&mut buffer)? {
                Some(0) if input.is_empty() => return Ok(output),
                Some(count @ 1..) if output.len() + count > limit => {
                    return Err(Error::new(Kind::Child, format!("{} writes more than {limit} bytes", self.name)));
                }
                Some(count @ 1..) => output.extend_from_slice(&buffer[..count]),
                Some(_) | None => self.pause(Until::Moved)?,
            }
            self.cancel.check()?;
        }
    }

    /// For one that turns a stream into another: gives it what it takes of `input`, takes what its stdout holds, and
    /// waits until either moved. How many bytes were given, and taken; none taken says nothing about its end.
    pub fn shift(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize)> {
        let broken = |error| crate::error::from_io(error, Kind::Child, "can't write to a child");
        loop {
            self.cancel.check()?;
            let given = self.give(input).map_err(broken)?;
            match (given, self.take(output)?) {
                // Where its stdout has ended, it takes input still, or says by a closed stdin that it does not.
                (None, None | Some(0)) => self.pause(Until::Moved)?,
                (given, taken) => return Ok((given.unwrap_or(0), taken.unwrap_or(0))),
            }
        }
    }

    /// What stdout holds right now: `None` is nothing yet, 0 its end.
    fn take(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(stdout) = &self.stdout else { return Ok(Some(0)) };
        let result = retry(|| rustix::io::read(stdout, &mut *buffer));
        match result {
            Ok(0) => self.stdout = None,
            Ok(_) => self.moved(),
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => {
                return Err(
                    Error::new(Kind::Child, format!("can't read what {} writes", self.name)).source(io::Error::from(error))
                );
            }
        }
        Ok(Some(result.unwrap_or(0)))
    }

    /// Writes what stdin takes right now: `None` is nothing.
    fn give(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let closed = |name: &str| {
            let error = Error::new(Kind::Child, format!("{name} has stopped reading its input"));
            Err(io::Error::new(io::ErrorKind::BrokenPipe, error))
        };
        let Some(stdin) = &self.stdin else { return closed(&self.name) };
        match retry(|| rustix::io::write(stdin, bytes)) {
            Ok(count) => {
                self.moved();
                Ok(Some(count))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::PIPE) => closed(&self.name),
            Err(error) => {
                Err(Error::new(Kind::Child, format!("can't write to {}", self.name)).source(io::Error::from(error)).into())
            }
        }
    }

    fn moved(&mut self) {
        if let Some(until) = &mut self.held_until {
            *until = Instant::now() + self.hold_grace;
        }
    }

    /// Waits until something may have changed, and takes stderr (and a collected stdout) in passing.
    fn pause(&mut self, wanted: Until) -> Result<()> {
        let limit = match self.held_until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) if wanted == Until::Moved => return Err(self.held()),
            Some(left) => Some(left),
            None => self.group.is_unpollable().then_some(LOOK),
        };
        let stdin = self.stdin.as_ref().filter(|_| wanted == Until::Moved).map(AsFd::as_fd);
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|pipe| pipe.as_ref().map(AsFd::as_fd));
        let watched = [stdin, stdout, stderr, self.group.end()];
        let flags = [PollFlags::OUT, PollFlags::IN, PollFlags::IN, PollFlags::IN];
        let fds = watched.iter().zip(flags).filter_map(|(fd, flags)| Some(PollFd::from_borrowed_fd((*fd)?, flags)));
        let mut fds: Vec<_> = fds.collect();
        self.cancel.poll(&mut fds, limit)?;
        let mut polled = fds.iter().map(|fd| !fd.revents().is_empty());
        // A system call for each of the others, every time, would be as many as the data's own.
        let [_, stdout, stderr, end] = watched.map(|fd| fd.is_some() && polled.next() == Some(true));
        self.drain_unread(stdout, stderr);
        let may_have_ended = end || self.group.end().is_none();
        if may_have_ended && self.group.has_ended() && self.held_until.is_none() {
            self.held_until = Some(Instant::now() + self.hold_grace);
        }
        Ok(())
    }

    /// A grandchild has the pipe, does nothing with it, and may do so for ever.
    fn held(&self) -> Error {
        Error::new(Kind::Child, format!("{} has ended, but a process that it started holds its pipe and is silent", self.name))
            .hint("a program behind it was left in the background: look for it in the process list")
    }

    /// Tries until bytes have moved, or the token is cancelled.
    fn until_moved(&mut self, mut moved: impl FnMut(&mut Self) -> io::Result<Option<usize>>) -> io::Result<usize> {
        loop {
            self.cancel.check()?;
            if let Some(count) = moved(self)? {
                return Ok(count);
            }
            self.pause(Until::Moved)?;
        }
    }

    fn drain_unread(&mut self, stdout_is_ready: bool, stderr_is_ready: bool) {
        if let (true, Some(stderr)) = (stderr_is_ready, &self.stderr)
            && drain(stderr, |bytes| self.said.push(bytes)) == Drained::ToItsEnd
        {
            self.stderr = None;
        }
        if let (true, Some(stdout)) = (self.collects && stdout_is_ready, &self.stdout)
            && drain(stdout, |bytes| self.collected.push(bytes)) == Drained::ToItsEnd
        {
            self.stdout = None;
        }
    }

    /// After its end: all that it wrote itself is in the pipes by now.
    fn finish(&mut self) -> Result<Finished> {
        self.drain_unread(true, true);
        let exit = self.group.reap()?;
        (self.stdout, self.stderr) = (None, None);
        if let Some(lines) = &mut self.said.heard {
            lines.finish();
        }
        let finished = Finished { exit, stderr_tail: self.said.kept.text(), stdout_tail: self.collected.last() };
        self.finished = Some(finished.clone());
        Ok(finished)
    }
}

/// What a pause waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// A pipe took or gave something; a silence after the child's end is an error.
    Moved,
    /// The child has ended.
    Ended,
}

#[derive(PartialEq, Eq)]
enum Drained {
    ForNow,
    ToItsEnd,
}

/// Takes what a pipe holds right now, and no more than it can hold: a grandchild may write for ever.
fn drain(pipe: &OwnedFd, mut take: impl FnMut(&[u8])) -> Drained {
    let mut buffer = [0; 16 << 10];
    let mut left = PIPE_BYTES;
    while left > 0 {
        match retry(|| rustix::io::read(pipe, &mut buffer)) {
            Ok(count @ 1..) => {
                take(&buffer[..count]);
                left = left.saturating_sub(count);
            }
            Err(Errno::AGAIN) => return Drained::ForNow,
            Ok(_) | Err(_) => return Drained::ToItsEnd,
        }
    }
    Drained::ForNow
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}

/// Our end of a pipe: never blocks, and is as large as we may make it.
fn ready(pipe: OwnedFd) -> OwnedFd {
    // A pipe takes this always; were it not to, reads would block until the child ends.
    let _ = rustix::io::ioctl_fionbio(&pipe, true);
    let _ = fcntl_setpipe_size(&pipe, PIPE_BYTES);
    pipe
}

impl Read for Child {
    /// Blocks until there are bytes, stdout ends (0), or the token is cancelled (an error).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.collects {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this child's output is collected"));
        }
        // Its 0 would be taken for the end.
        if buffer.is_empty() {
            return Ok(0);
        }
        self.until_moved(|child| Ok(child.take(buffer)?))
    }
}

impl Write for Child {
    /// Blocks until it takes bytes, or the token is cancelled (an error). A child that reads no
    /// more is a `BrokenPipe`: why it does not, [`Child::wait`] says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.until_moved(|child| child.give(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({} {})", self.name, self.pid())
    }
}
