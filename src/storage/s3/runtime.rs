//! The one runtime of async calls, and the way from a thread that may block into it: what runs there is given
//! up as soon as the caller's token is cancelled.

use std::future::Future;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, LazyLock};

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::error::{Error, Kind, Result};
use crate::host::Cancel;
use crate::host::wake::Wake;

/// Signing takes the digests of a part twice: one thread would keep the others' bytes waiting.
const THREADS: usize = 2;

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
        let wake = WakeOnDrop(Arc::clone(&over));
        let task = runtime.spawn(async move {
            let wake = wake;
            let _ = sender.send(work.await);
            drop(wake);
        });
        Ok(Self { result, over, handle: task.abort_handle() })
    }

    /// Waits for its end.
    pub(super) fn wait(self, cancel: &Cancel) -> Result<T> {
        self.over.wait(cancel)?;
        self.result.try_recv().map_err(|error| match error {
            TryRecvError::Empty | TryRecvError::Disconnected => Error::new(Kind::Internal, "a call to S3 broke off"),
        })
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
