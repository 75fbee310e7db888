//! The one runtime of async calls, and the way from a thread that may block into it: what runs there is given
//! up as soon as the caller's token is cancelled.

use std::future::Future;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::error::{Error, Kind, Result};
use crate::host::Cancel;
use crate::host::wake::Wake;

/// Signing takes the digests of a part twice: one thread would keep the others' bytes waiting.
const THREADS: usize = 2;

/// What is given up ends at its next wait; only the digests of a large part keep it.
const STOP: Duration = Duration::from_millis(500);

static RUNTIME: LazyLock<std::io::Result<Runtime>> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(THREADS).thread_name("s3").enable_all().build());

/// Something under way. Dropped, it is given up.
pub(super) struct Task<T> {
    result: Receiver<T>,
    over: Arc<Wake>,
    handle: AbortHandle,
}

/// Wakes its caller also when the work panics.
struct WakeOnDrop(Arc<Wake>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl<T: Send + 'static> Task<T> {
    /// Begins it.
    pub(super) fn start(work: impl Future<Output = T> + Send + 'static) -> Result<Self> {
        let runtime = RUNTIME
            .as_ref()
            .map_err(|error| Error::new(Kind::Internal, format!("can't start the threads that speak to S3: {error}")))?;
        let (sender, result) = channel();
        let over = Arc::new(Wake::new()?);
        // In this order they are dropped, also where the task never begins.
        let held = (work, WakeOnDrop(Arc::clone(&over)));
        let task = runtime.spawn(async move {
            let (work, wake) = held;
            let _ = sender.send(work.await);
            drop(wake);
        });
        Ok(Self { result, over, handle: task.abort_handle() })
    }

    /// Waits for its end. When it comes back with an error, nothing of it goes on: what follows may undo what it did.
    pub(super) fn wait(self, cancel: &Cancel) -> Result<T> {
        if let Err(cancelled) = self.over.wait(cancel) {
            self.stop();
            return Err(cancelled);
        }
        self.result.try_recv().map_err(|error| match error {
            TryRecvError::Empty | TryRecvError::Disconnected => Error::new(Kind::Internal, "a call to S3 broke off"),
        })
    }

    /// Gives it up, and waits until nothing of it goes on.
    pub(super) fn stop(self) {
        self.handle.abort();
        self.over.wait_at_most(STOP);
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Runs it to its end, or until the token is cancelled.
pub(super) fn block<T: Send + 'static>(cancel: &Cancel, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    cancel.check()?;
    Task::start(work)?.wait(cancel)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::host::cancel::Reason;

    struct Ended(Arc<AtomicBool>);

    impl Drop for Ended {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(50));
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Work that does not end, and the flag that it sets when it is gone.
    fn endless() -> (Arc<AtomicBool>, impl Future<Output = ()> + Send) {
        let gone = Arc::<AtomicBool>::default();
        let ended = Ended(Arc::clone(&gone));
        (gone, async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        })
    }

    #[test]
    fn what_is_given_up_does_not_go_on() {
        let (gone, work) = endless();
        Task::start(work).unwrap().stop();
        assert!(gone.load(Ordering::Relaxed));
        let (gone, work) = endless();
        let cancel = Cancel::new().unwrap();
        let task = Task::start(work).unwrap();
        cancel.cancel(Reason::Signal(15));
        assert_eq!(task.wait(&cancel).unwrap_err().kind(), Kind::Interrupted);
        assert!(gone.load(Ordering::Relaxed));
    }

    #[test]
    fn work_that_panics_wakes_its_caller() {
        let cancel = Cancel::new().unwrap();
        let error = block(&cancel, async { assert!(std::hint::black_box(false), "on purpose") }).unwrap_err();
        assert_eq!(error.to_string(), "a call to S3 broke off");
    }
}
