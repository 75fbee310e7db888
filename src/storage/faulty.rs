//! A storage whose nth call goes wrong, for tests: what no disk and no server does on demand. It wraps
//! any storage, and where nothing is armed it does as that one does. It must never hold a real backup.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Key;
use crate::storage::{Features, Leftover, ObjectMeta, Storage, Upload};

/// A call that can be made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`Storage::prepare`].
    Prepare,
    /// [`Storage::features`].
    Features,
    /// [`Storage::upload`].
    Upload,
    /// [`Upload::write`].
    Write,
    /// [`Upload::commit`].
    Commit,
    /// [`Upload::abort`].
    Abort,
    /// [`Storage::put_new`].
    PutNew,
    /// [`Storage::read`], with the reader that it gives.
    Read,
    /// [`Storage::stat`].
    Stat,
    /// [`Storage::list`].
    List,
    /// [`Storage::delete`], each key being a call.
    Delete,
    /// [`Storage::leftovers`].
    Leftovers,
    /// [`Storage::discard`].
    Discard,
    /// [`Storage::now`].
    Now,
}

impl Call {
    /// Every one of them.
    pub const ALL: [Self; 14] = [
        Self::Prepare,
        Self::Features,
        Self::Upload,
        Self::Write,
        Self::Commit,
        Self::Abort,
        Self::PutNew,
        Self::Read,
        Self::Stat,
        Self::List,
        Self::Delete,
        Self::Leftovers,
        Self::Discard,
        Self::Now,
    ];

    /// Whether this call can go wrong in this way; elsewhere the fault is never met.
    pub fn can(self, fault: Fault) -> bool {
        match fault {
            Fault::Fail(_) | Fault::Hang => true,
            Fault::Short => matches!(self, Self::Write | Self::PutNew | Self::Read),
            Fault::EndsEarly => self == Self::Read,
            Fault::LostResponse => self.changes(),
            Fault::Stale => self == Self::List,
        }
    }

    fn changes(self) -> bool {
        !matches!(self, Self::Features | Self::Read | Self::Stat | Self::List | Self::Leftovers | Self::Now)
    }
}

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this kind, and nothing is done.
    Fail(Kind),
    /// A write or put keeps half of its bytes and says nothing; a read fails half-way through the object.
    Short,
    /// A read ends half-way through the object, as if that were its end. No storage may do that; who
    /// knows an object's size or digest must notice it.
    EndsEarly,
    /// It is done, and then fails with `Connection`. An upload that was begun is nobody's then.
    LostResponse,
    /// A listing lacks the newest object, and still has all that were deleted.
    Stale,
    /// It waits until it is cancelled; a read does so half-way.
    Hang,
}

impl Fault {
    /// One of each.
    pub const ALL: [Self; 6] =
        [Self::Fail(Kind::Storage), Self::Short, Self::EndsEarly, Self::LostResponse, Self::Stale, Self::Hang];
}

/// A storage, and the faults to come. Clones are the same one.
pub struct Faulty<S> {
    storage: Arc<S>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Armed faults: the calls still to let pass.
    armed: Vec<(Call, usize, Fault)>,
    calls: BTreeMap<Call, usize>,
    met: usize,
    hanging: bool,
    newest: Option<Key>,
    deleted: Vec<ObjectMeta>,
}

impl<S> Clone for Faulty<S> {
    fn clone(&self) -> Self {
        Self { storage: Arc::clone(&self.storage), state: Arc::clone(&self.state) }
    }
}

impl<S: Storage> Faulty<S> {
    /// This storage, without a fault so far.
    pub fn new(storage: S) -> Self {
        Self { storage: Arc::new(storage), state: Arc::default() }
    }

    /// Makes the `nth` call of this kind from now on (1: the next) go wrong, once.
    pub fn fail(&self, call: Call, nth: usize, fault: Fault) {
        self.lock().armed.push((call, nth.saturating_sub(1), fault));
    }

    /// Forgets the faults that were not met yet.
    pub fn heal(&self) {
        self.lock().armed.clear();
    }

    /// How many calls of this kind there were, failed ones too.
    pub fn calls(&self, call: Call) -> usize {
        self.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many faults were met.
    pub fn met(&self) -> usize {
        self.lock().met
    }

    /// Whether a call hangs just now.
    pub fn is_hanging(&self) -> bool {
        self.lock().hanging
    }

    /// What is behind it, which has no faults and counts no calls.
    pub fn inner(&self) -> &S {
        &self.storage
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts a call and meets what is armed for it; a fault that it can't do at its beginning comes back.
    fn enter(&self, call: Call, cx: &Context) -> Result<Option<Fault>> {
        cx.cancel.check()?;
        let fault = self.lock().take(call);
        match fault {
            Some(Fault::Fail(kind)) => Err(Error::new(kind, format!("an injected failure of {call:?}"))),
            Some(Fault::Hang) if call != Call::Read => Err(hang(&self.state, cx)),
            other => Ok(other),
        }
    }

    /// A call that has no result of its own to spoil.
    fn whole<T>(&self, call: Call, cx: &Context, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let fault = self.enter(call, cx)?;
        let done = work()?;
        if fault == Some(Fault::LostResponse) { Err(lost()) } else { Ok(done) }
    }

    fn made(&self, made: Result<ObjectMeta>, fault: Option<Fault>) -> Result<ObjectMeta> {
        let meta = made?;
        self.lock().newest = Some(meta.key.clone());
        if fault == Some(Fault::LostResponse) { Err(lost()) } else { Ok(meta) }
    }

    fn delete_one(&self, key: &Key, cx: &Context) -> Result<()> {
        self.whole(Call::Delete, cx, || {
            let before = self.storage.stat(key, cx)?;
            self.storage.delete(std::slice::from_ref(key), cx).into_iter().collect::<Result<()>>()?;
            self.lock().deleted.extend(before);
            Ok(())
        })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A test that panicked elsewhere leaves it as it was.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the cancel, which is the error.
fn hang(state: &Mutex<State>, cx: &Context) -> Error {
    lock(state).hanging = true;
    loop {
        if let Err(error) = cx.cancel.sleep(Duration::from_secs(3600)) {
            lock(state).hanging = false;
            return error;
        }
    }
}

fn lost() -> Error {
    Error::new(Kind::Connection, "an injected loss of the response")
}

fn half(bytes: &[u8], fault: Option<Fault>) -> &[u8] {
    if fault == Some(Fault::Short) { &bytes[..bytes.len() / 2] } else { bytes }
}

impl State {
    fn take(&mut self, call: Call) -> Option<Fault> {
        *self.calls.entry(call).or_default() += 1;
        let mut due = None;
        for (at, (armed, left, fault)) in self.armed.iter_mut().enumerate() {
            if *armed == call && *left > 0 {
                *left -= 1;
            } else if *armed == call && due.is_none() && call.can(*fault) {
                due = Some(at);
            }
        }
        self.met += usize::from(due.is_some());
        due.map(|at| self.armed.remove(at).2)
    }
}

impl<S: Storage + 'static> Storage for Faulty<S> {
    fn prepare(&self, cx: &Context) -> Result<()> {
        self.whole(Call::Prepare, cx, || self.storage.prepare(cx))
    }

    fn features(&self, cx: &Context) -> Result<Features> {
        self.whole(Call::Features, cx, || self.storage.features(cx))
    }

    fn upload(&self, key: &Key, size_hint: Option<u64>, cx: &Context) -> Result<Box<dyn Upload>> {
        let fault = self.enter(Call::Upload, cx)?;
        let upload = self.storage.upload(key, size_hint, cx)?;
        if fault == Some(Fault::LostResponse) {
            // Begun, and nobody knows of it: not even a drop ends it.
            std::mem::forget(upload);
            return Err(lost());
        }
        Ok(Box::new(FaultyUpload { upload, storage: self.clone(), cx: cx.clone() }))
    }

    fn put_new(&self, key: &Key, bytes: &[u8], cx: &Context) -> Result<ObjectMeta> {
        let fault = self.enter(Call::PutNew, cx)?;
        self.made(self.storage.put_new(key, half(bytes, fault), cx), fault)
    }

    fn read(&self, key: &Key, from: u64, cx: &Context) -> Result<Box<dyn Read + Send>> {
        let fault = self.enter(Call::Read, cx)?;
        let reader = self.storage.read(key, from, cx)?;
        let Some(fault) = fault else { return Ok(reader) };
        let bytes = self.storage.stat(key, cx)?.and_then(|meta| meta.bytes).unwrap_or(0);
        let reader = reader.take((bytes / 2).saturating_sub(from));
        Ok(Box::new(FaultyRead { reader, fault, state: Arc::clone(&self.state), cx: cx.clone() }))
    }

    fn stat(&self, key: &Key, cx: &Context) -> Result<Option<ObjectMeta>> {
        self.whole(Call::Stat, cx, || self.storage.stat(key, cx))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
        if self.enter(Call::List, cx)? != Some(Fault::Stale) {
            return self.storage.list(prefix, each, cx);
        }
        let (newest, deleted) = {
            let state = self.lock();
            (state.newest.clone(), state.deleted.clone())
        };
        let is_newest = |meta: &ObjectMeta| newest.as_ref() == Some(&meta.key);
        self.storage.list(prefix, &mut |meta| if is_newest(&meta) { Ok(()) } else { each(meta) }, cx)?;
        deleted.into_iter().filter(|meta| meta.key.as_str().starts_with(prefix)).try_for_each(each)
    }

    fn delete(&self, keys: &[Key], cx: &Context) -> Vec<Result<()>> {
        keys.iter().map(|key| self.delete_one(key, cx)).collect()
    }

    fn leftovers(&self, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
        self.whole(Call::Leftovers, cx, || self.storage.leftovers(each, cx))
    }

    fn discard(&self, leftover: &Leftover, cx: &Context) -> Result<()> {
        self.whole(Call::Discard, cx, || self.storage.discard(leftover, cx))
    }

    fn now(&self, cx: &Context) -> Result<DateTime<Utc>> {
        self.whole(Call::Now, cx, || self.storage.now(cx))
    }

    fn describe(&self) -> String {
        format!("{}, with faults", self.storage.describe())
    }
}

struct FaultyUpload<S> {
    upload: Box<dyn Upload>,
    storage: Faulty<S>,
    cx: Context,
}

impl<S: Storage> Upload for FaultyUpload<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let fault = self.storage.enter(Call::Write, &self.cx)?;
        self.upload.write(half(bytes, fault))?;
        if fault == Some(Fault::LostResponse) { Err(lost()) } else { Ok(()) }
    }

    fn commit(self: Box<Self>) -> Result<ObjectMeta> {
        let fault = self.storage.enter(Call::Commit, &self.cx)?;
        let Self { upload, storage, .. } = *self;
        storage.made(upload.commit(), fault)
    }

    fn abort(self: Box<Self>) -> Result<()> {
        let Self { upload, storage, cx } = *self;
        storage.whole(Call::Abort, &cx, || upload.abort())
    }
}

/// The first half of an object, and what its fault makes of the rest.
struct FaultyRead {
    reader: io::Take<Box<dyn Read + Send>>,
    fault: Fault,
    state: Arc<Mutex<State>>,
    cx: Context,
}

impl Read for FaultyRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer)? {
            0 if !buffer.is_empty() => match self.fault {
                Fault::EndsEarly => Ok(0),
                Fault::Hang => Err(hang(&self.state, &self.cx).into()),
                _ => Err(Error::new(Kind::Storage, "an injected failure half-way through a read").into()),
            },
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests;
