//! The threads that compress, shared by all units at once. Work comes back through a ticket; work
//! that was lost on the way is an error at its ticket, never a silence.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::compress::Compressor;
use crate::error::{Error, Kind, Result};

/// The most threads. Each has a block of a pipeline in flight, 2 MiB: more would break the bound on
/// memory, and no server's COPY delivers faster than these compress.
const MAX_THREADS: usize = 8;

type Job = Box<dyn FnOnce(&mut Compressor) + Send>;

/// A fixed number of threads. They end when the pool is dropped.
pub struct Pool {
    /// `None` only while the pool is dropped. Not bounded here: who submits has a fixed set of
    /// blocks.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// One thread a processor, within bounds.
    pub fn for_this_machine() -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new(NonZeroUsize::new(processors.min(MAX_THREADS)).unwrap_or(NonZeroUsize::MIN))
    }

    /// Starts the threads.
    pub fn new(threads: NonZeroUsize) -> Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { jobs: Some(jobs), threads: Vec::new() };
        for number in 1..=threads.get() {
            let queue = Arc::clone(&queue);
            let thread = Builder::new().name(format!("compress-{number}")).spawn(move || work(&queue));
            pool.threads.push(thread.map_err(|error| Error::new(Kind::Internal, "can't start a thread").source(error))?);
        }
        Ok(pool)
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Queues work, first come, first served. Never blocks.
    pub(super) fn submit<T: Send + 'static>(&self, work: impl FnOnce(&mut Compressor) -> T + Send + 'static) -> Ticket<T> {
        let (done, ticket) = promise();
        let job = Box::new(move |compressor: &mut Compressor| {
            // Nobody waits any more where the pipeline has failed.
            let _ = done.send(work(compressor));
        });
        if let Some(jobs) = &self.jobs {
            // With no thread left the job is dropped here, and its ticket says so.
            let _ = jobs.send(job);
        }
        ticket
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut compressor = Compressor::default();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic is an error at this job's ticket; the thread goes on for the other units.
        if catch_unwind(AssertUnwindSafe(|| job(&mut compressor))).is_err() {
            compressor = Compressor::default();
        }
    }
}

/// What stands for work that may not be done yet.
pub(super) struct Ticket<T>(Receiver<T>);

impl<T> Ticket<T> {
    /// For work that is done already.
    pub(super) fn done(value: T) -> Self {
        let (done, ticket) = promise();
        // There is room for one, and the ticket is here.
        let _ = done.send(value);
        ticket
    }

    /// Waits for the work. `Internal` when it will never be done.
    pub(super) fn wait(self) -> Result<T> {
        self.0.recv().map_err(|_| Error::new(Kind::Internal, "a compression thread ended early"))
    }
}

fn promise<T>() -> (SyncSender<T>, Ticket<T>) {
    let (done, ticket) = sync_channel(1);
    (done, Ticket(ticket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_is_an_error_and_the_pool_goes_on() {
        let pool = Pool::new(NonZeroUsize::MIN).unwrap();
        let lost = pool.submit(|_| panic!("on purpose"));
        let next = pool.submit(|_| 7);
        let error = lost.wait().map(|(): ()| ()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "a compression thread ended early"));
        assert_eq!(next.wait().unwrap(), 7);
    }

    #[test]
    fn a_dropped_pool_has_done_its_work_and_ended_its_threads() {
        let pool = Pool::new(NonZeroUsize::new(3).unwrap()).unwrap();
        let alive = Arc::new(());
        let tickets: Vec<_> = (0..10)
            .map(|_| {
                pool.submit({
                    let alive = Arc::clone(&alive);
                    move |_| drop(alive)
                })
            })
            .collect();
        drop(pool);
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    }
}
