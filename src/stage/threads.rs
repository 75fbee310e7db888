//! The threads of one pipeline, and how they end. A thread that ends early is never taken for an
//! end of data: the end is a message of its own, and a closed channel is a failure.

use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SendError, Sender, channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, Kind, Result, from_io};
use crate::observe::logged_here;

/// What goes from one thread to the next.
pub(super) enum Message<T, E> {
    /// The next piece, in order.
    Next(T),
    /// There is no more, and all went well so far.
    End(E),
}

/// Why a thread ended before its work was done.
#[derive(Debug)]
pub(super) enum Stop {
    /// Its own failure.
    Failed(Error),
    /// A neighbour is gone: that one's end says why.
    Cut,
}

/// How a thread ends.
pub(super) type Ended<T> = std::result::Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<T> From<SendError<T>> for Stop {
    fn from(_: SendError<T>) -> Self {
        Self::Cut
    }
}

impl From<RecvError> for Stop {
    fn from(_: RecvError) -> Self {
        Self::Cut
    }
}

// So that it can pass through a decoder, which is a `Read`.
impl std::error::Error for Stop {}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Cut => f.write_str("a thread ended early"),
        }
    }
}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> Self {
        Self::other(stop)
    }
}

/// Takes a [`Stop`] out of an I/O error again. What was none comes from a decoder: damage.
pub(super) fn stop_or_damage(error: io::Error) -> Stop {
    let damage = |error| Error::new(Kind::Damaged, "the artifact can't be decompressed").source(error);
    error.downcast::<Stop>().unwrap_or_else(|error| damage(error).into())
}

/// Starts one thread of a pipeline. However it ends, `over` is set then.
pub(super) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    over: &'scope AtomicBool,
    work: impl FnOnce() -> Ended<T> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Ended<T>>> {
    let work = logged_here(move || {
        let _set = SetOnDrop(over);
        work()
    });
    let thread = Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
    thread.map_err(|error| Error::new(Kind::Internal, "can't start a thread").source(error))
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for a thread. A panic is a failure like others.
pub(super) fn join<T>(thread: ScopedJoinHandle<'_, Ended<T>>) -> Ended<T> {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    thread.join().unwrap_or_else(|_panic| Err(Error::new(Kind::Internal, format!("the {name} thread panicked")).into()))
}

/// What all threads together came to, the last one of the pipeline first. Where several failed on
/// their own, the one furthest down is the cause: it is what makes those above it stop, and never
/// the other way round.
pub(super) fn settle<T, const N: usize>(last: Ended<T>, upstream: [Ended<()>; N]) -> Result<T> {
    let settled = upstream.into_iter().fold(last, |below, above| match (below, above) {
        (Ok(_) | Err(Stop::Cut), Err(stop)) => Err(stop),
        (below, _) => below,
    });
    settled.map_err(|stop| match stop {
        Stop::Failed(error) => error,
        Stop::Cut => Error::new(Kind::Internal, "a thread ended early"),
    })
}

/// A fixed set of buffers that goes round: the pipeline's memory, and the bound of its queues.
pub(super) fn ring<T: Default>(count: usize) -> (Sender<T>, Receiver<T>) {
    let (back, free) = channel();
    for _ in 0..count {
        // The receiver is here.
        let _ = back.send(T::default());
    }
    (back, free)
}

/// The caller's input: retries what was interrupted, and is not read any more once `over` is set.
/// Its errors are a [`Stop`].
pub(super) struct Input<'a> {
    /// Where the bytes come from.
    pub(super) from: &'a mut (dyn Read + Send),
    /// Set when any thread of the pipeline has ended.
    pub(super) over: &'a AtomicBool,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.over.load(Ordering::Relaxed) {
            match self.from.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Failed(from_io(error, Kind::Internal, "can't read the input")).into()),
                read => return read,
            }
        }
        Err(Stop::Cut.into())
    }
}

/// Fills the buffer to `bytes`, or with what is left until the end.
pub(super) fn fill(input: &mut dyn Read, buffer: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    buffer.resize(bytes, 0);
    let mut filled = 0;
    while filled < bytes {
        match input.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    buffer.truncate(filled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_furthest_down_is_the_cause() {
        let failed = |cause: &str| Err::<(), _>(Stop::Failed(Error::new(Kind::Child, cause)));
        let cut = || Err::<(), _>(Stop::Cut);
        let cause = |last, upstream: [Ended<()>; 2]| settle(last, upstream).map_err(|error| error.to_string());
        assert_eq!(cause(Ok(()), [Ok(()), Ok(())]), Ok(()));
        assert_eq!(cause(failed("a"), [failed("b"), failed("c")]), Err("a".to_owned()));
        assert_eq!(cause(cut(), [failed("b"), failed("c")]), Err("b".to_owned()));
        assert_eq!(cause(cut(), [cut(), failed("c")]), Err("c".to_owned()));
        assert_eq!(cause(Ok(()), [Ok(()), failed("c")]), Err("c".to_owned()));
    }

    #[test]
    fn a_thread_that_ended_early_is_an_error_though_none_failed() {
        for (last, upstream) in [(Err(Stop::Cut), Ok(())), (Ok(()), Err(Stop::Cut))] {
            assert_eq!(settle(last, [upstream]).unwrap_err().kind(), Kind::Internal);
        }
    }
}
