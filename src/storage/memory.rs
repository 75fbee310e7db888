//! A storage in memory: a test double, for what a disk won't do on demand. It can fail the nth call
//! of a kind, cut bytes, lose a response, or hang. It must never hold a real backup.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Key;
use crate::storage::{Features, Leftover, ObjectMeta, Storage, Upload};

/// A call that can be made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`Storage::prepare`].
    Prepare,
    /// [`Storage::upload`].
    Upload,
    /// [`Upload::write`].
    Write,
    /// [`Upload::commit`].
    Commit,
    /// [`Storage::put_new`].
    PutNew,
    /// [`Storage::read`].
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
}

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this kind and does nothing.
    Fail(Kind),
    /// A write or put keeps half of its bytes and says nothing; a read fails half-way.
    Cut,
    /// A commit, put or delete is done, and then fails with `Connection`.
    LostResponse,
    /// It waits until it is cancelled.
    Hang,
}

/// Objects in memory. Clones share them, so that a test can look at, and harm, what it gave away.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    pending: BTreeMap<u64, (Key, Object)>,
    next_handle: u64,
    /// Armed faults: the calls still to let pass.
    faults: Vec<(Call, usize, Fault)>,
    calls: BTreeMap<Call, usize>,
    size_hints: Vec<Option<u64>>,
}

struct Object {
    bytes: Arc<[u8]>,
    modified: DateTime<Utc>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the `nth` call of this kind from now on (1: the next) go wrong, once.
    pub fn fail(&self, call: Call, nth: usize, fault: Fault) {
        self.lock().faults.push((call, nth.saturating_sub(1), fault));
    }

    /// How many calls of this kind there were, failed ones too.
    pub fn calls(&self, call: Call) -> usize {
        self.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// What each upload was told to expect.
    pub fn size_hints(&self) -> Vec<Option<u64>> {
        self.lock().size_hints.clone()
    }

    /// An object's bytes.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        self.lock().objects.get(key).map(|object| object.bytes.to_vec())
    }

    /// Puts an object there behind everybody's back, over what may be there.
    pub fn set(&self, key: &Key, bytes: &[u8], modified: DateTime<Utc>) {
        self.lock().objects.insert(key.clone(), Object { bytes: bytes.into(), modified });
    }

    /// Takes an object away behind everybody's back.
    pub fn remove(&self, key: &Key) {
        self.lock().objects.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves the map as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; a `Fail` or `Hang` armed for it is the error, another fault comes back.
    fn enter(&self, call: Call, cx: &Context) -> Result<Option<Fault>> {
        cx.cancel.check()?;
        let fault = self.lock().take_fault(call);
        match fault {
            Some(Fault::Fail(kind)) => Err(Error::new(kind, format!("an injected failure of {call:?}"))),
            Some(Fault::Hang) => loop {
                cx.cancel.sleep(Duration::from_secs(3600))?;
            },
            other => Ok(other),
        }
    }
}

impl State {
    fn take_fault(&mut self, call: Call) -> Option<Fault> {
        *self.calls.entry(call).or_default() += 1;
        let mut due = None;
        for (at, (armed, left, _)) in self.faults.iter_mut().enumerate() {
            if *armed == call && *left > 0 {
                *left -= 1;
            } else if *armed == call && due.is_none() {
                due = Some(at);
            }
        }
        due.map(|at| self.faults.remove(at).2)
    }

    fn insert_new(&mut self, key: &Key, object: Object) -> Result<ObjectMeta> {
        if self.objects.contains_key(key) {
            return Err(exists(key));
        }
        let meta = meta(key, &object);
        self.objects.insert(key.clone(), object);
        Ok(meta)
    }
}

fn exists(key: &Key) -> Error {
    Error::new(Kind::Exists, format!("{key} is there already, and nothing is ever overwritten"))
}

fn lost() -> Error {
    Error::new(Kind::Connection, "an injected loss of the response")
}

fn meta(key: &Key, object: &Object) -> ObjectMeta {
    ObjectMeta { key: key.clone(), bytes: Some(object.bytes.len() as u64), modified: Some(object.modified) }
}

fn cut(bytes: &[u8], fault: Option<Fault>) -> &[u8] {
    if fault == Some(Fault::Cut) { &bytes[..bytes.len() / 2] } else { bytes }
}

impl Storage for Memory {
    fn prepare(&self, cx: &Context) -> Result<()> {
        self.enter(Call::Prepare, cx).map(|_| ())
    }

    fn features(&self, cx: &Context) -> Result<Features> {
        cx.cancel.check()?;
        Ok(Features { notes: vec!["keeps everything in memory".into()], free_bytes: None })
    }

    fn upload(&self, key: &Key, size_hint: Option<u64>, cx: &Context) -> Result<Box<dyn Upload>> {
        self.enter(Call::Upload, cx)?;
        let mut state = self.lock();
        state.size_hints.push(size_hint);
        if state.objects.contains_key(key) {
            return Err(exists(key));
        }
        let handle = state.next_handle;
        state.next_handle += 1;
        state.pending.insert(handle, (key.clone(), Object { bytes: [].into(), modified: cx.clock.now() }));
        Ok(Box::new(MemoryUpload { storage: self.clone(), key: key.clone(), handle, bytes: Vec::new(), cx: cx.clone() }))
    }

    fn put_new(&self, key: &Key, bytes: &[u8], cx: &Context) -> Result<ObjectMeta> {
        let fault = self.enter(Call::PutNew, cx)?;
        let object = Object { bytes: cut(bytes, fault).into(), modified: cx.clock.now() };
        let meta = self.lock().insert_new(key, object)?;
        if fault == Some(Fault::LostResponse) { Err(lost()) } else { Ok(meta) }
    }

    fn read(&self, key: &Key, from: u64, cx: &Context) -> Result<Box<dyn Read + Send>> {
        let fault = self.enter(Call::Read, cx)?;
        let bytes = self.lock().objects.get(key).map(|object| Arc::clone(&object.bytes));
        let bytes = bytes.ok_or_else(|| Error::new(Kind::Missing, format!("{key} is not there")))?;
        if from > bytes.len() as u64 {
            return Err(Error::new(Kind::Damaged, format!("{key} has only {} bytes, {from} were expected", bytes.len())));
        }
        let fails_at = (fault == Some(Fault::Cut)).then_some(bytes.len() / 2);
        let mut bytes = Cursor::new(bytes);
        bytes.set_position(from);
        Ok(Box::new(MemoryRead { bytes, fails_at, cx: cx.clone() }))
    }

    fn stat(&self, key: &Key, cx: &Context) -> Result<Option<ObjectMeta>> {
        self.enter(Call::Stat, cx)?;
        Ok(self.lock().objects.get(key).map(|object| meta(key, object)))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
        self.enter(Call::List, cx)?;
        // Collected first: the caller may call us from `each`.
        let found: Vec<_> = {
            let state = self.lock();
            let of_prefix = state.objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
            of_prefix.map(|(key, object)| meta(key, object)).collect()
        };
        found.into_iter().try_for_each(each)
    }

    fn delete(&self, keys: &[Key], cx: &Context) -> Vec<Result<()>> {
        let delete_one = |key| {
            let fault = self.enter(Call::Delete, cx)?;
            self.lock().objects.remove(key);
            if fault == Some(Fault::LostResponse) { Err(lost()) } else { Ok(()) }
        };
        keys.iter().map(delete_one).collect()
    }

    fn leftovers(&self, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
        self.enter(Call::Leftovers, cx)?;
        let found: Vec<_> = {
            let state = self.lock();
            let leftover = |(handle, (key, object)): (&u64, &(Key, Object))| Leftover {
                key: key.clone(),
                handle: handle.to_string(),
                bytes: Some(object.bytes.len() as u64),
                modified: object.modified,
            };
            state.pending.iter().map(leftover).collect()
        };
        found.into_iter().try_for_each(each)
    }

    fn discard(&self, leftover: &Leftover, cx: &Context) -> Result<()> {
        self.enter(Call::Discard, cx)?;
        let handle: u64 =
            leftover.handle.parse().map_err(|error| Error::new(Kind::Internal, "no handle of ours").source(error))?;
        self.lock().pending.remove(&handle);
        Ok(())
    }

    fn now(&self, cx: &Context) -> Result<DateTime<Utc>> {
        Ok(cx.clock.now())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

struct MemoryUpload {
    storage: Memory,
    key: Key,
    handle: u64,
    bytes: Vec<u8>,
    cx: Context,
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let fault = self.storage.enter(Call::Write, &self.cx)?;
        self.bytes.extend_from_slice(cut(bytes, fault));
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<ObjectMeta> {
        let fault = self.storage.enter(Call::Commit, &self.cx)?;
        let mut state = self.storage.lock();
        if state.pending.remove(&self.handle).is_none() {
            return Err(Error::new(Kind::Missing, format!("the upload of {} was discarded", self.key)));
        }
        let bytes = std::mem::take(&mut self.bytes);
        let object = Object { bytes: cut(&bytes, fault).into(), modified: self.cx.clock.now() };
        let meta = state.insert_new(&self.key, object)?;
        if fault == Some(Fault::LostResponse) { Err(lost()) } else { Ok(meta) }
    }

    fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.storage.lock().pending.remove(&self.handle);
    }
}

struct MemoryRead {
    bytes: Cursor<Arc<[u8]>>,
    fails_at: Option<usize>,
    cx: Context,
}

impl Read for MemoryRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cx.cancel.check()?;
        let mut room = buffer.len();
        if let Some(end) = self.fails_at {
            room = room.min(end.saturating_sub(usize::try_from(self.bytes.position()).unwrap_or(usize::MAX)));
            if room == 0 && !buffer.is_empty() {
                return Err(Error::new(Kind::Storage, "an injected failure half-way through a read").into());
            }
        }
        self.bytes.read(&mut buffer[..room])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn it_keeps_the_contract() {
        assert_eq!(conformance::run(&|| Box::new(Memory::new())), Vec::<String>::new());
    }

    #[test]
    fn only_the_nth_call_fails() {
        let (storage, cx) = (Memory::new(), conformance::context().unwrap());
        storage.fail(Call::Stat, 2, Fault::Fail(Kind::Storage));
        let kinds: Vec<_> = (0..3).map(|_| storage.stat(&key("h/r/f"), &cx).map_err(|error| error.kind())).collect();
        assert_eq!(kinds, [Ok(None), Err(Kind::Storage), Ok(None)]);
        assert_eq!(storage.calls(Call::Stat), 3);
    }

    #[test]
    fn a_lost_response_leaves_the_object_there() {
        let (storage, cx) = (Memory::new(), conformance::context().unwrap());
        storage.fail(Call::Commit, 1, Fault::LostResponse);
        let mut upload = storage.upload(&key("h/r/f"), None, &cx).unwrap();
        upload.write(b"whole").unwrap();
        assert_eq!(upload.commit().unwrap_err().kind(), Kind::Connection);
        assert_eq!(storage.get(&key("h/r/f")).unwrap(), b"whole");
    }

    #[test]
    fn a_cut_read_is_an_error_and_no_end() {
        let (storage, cx) = (Memory::new(), conformance::context().unwrap());
        storage.put_new(&key("h/r/f"), b"0123456789", &cx).unwrap();
        storage.fail(Call::Read, 1, Fault::Cut);
        let mut bytes = Vec::new();
        assert!(storage.read(&key("h/r/f"), 0, &cx).unwrap().read_to_end(&mut bytes).is_err());
        assert_eq!(bytes, b"01234");
    }

    #[test]
    fn a_hang_ends_with_the_cancel() {
        let (storage, cx) = (Memory::new(), conformance::context().unwrap());
        storage.fail(Call::List, 1, Fault::Hang);
        cx.cancel.cancel(crate::host::cancel::Reason::Abandoned);
        assert_eq!(storage.list("", &mut |_| Ok(()), &cx).unwrap_err().kind(), Kind::Interrupted);
    }
}
