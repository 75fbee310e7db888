//! A storage in memory, for tests: it keeps the contract, and what it holds can be looked at and harmed.
//! It must never hold a real backup.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Key;
use crate::storage::{Features, Leftover, ObjectMeta, Storage, Upload};

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
}

impl State {
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

fn meta(key: &Key, object: &Object) -> ObjectMeta {
    ObjectMeta { key: key.clone(), bytes: Some(object.bytes.len() as u64), modified: Some(object.modified) }
}

impl Storage for Memory {
    fn prepare(&self, cx: &Context) -> Result<()> {
        cx.cancel.check()
    }

    fn features(&self, cx: &Context) -> Result<Features> {
        cx.cancel.check()?;
        Ok(Features { notes: vec!["keeps everything in memory".into()], free_bytes: None })
    }

    fn upload(&self, key: &Key, size_hint: Option<u64>, cx: &Context) -> Result<Box<dyn Upload>> {
        cx.cancel.check()?;
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
        cx.cancel.check()?;
        let object = Object { bytes: bytes.into(), modified: cx.clock.now() };
        self.lock().insert_new(key, object)
    }

    fn read(&self, key: &Key, from: u64, cx: &Context) -> Result<Box<dyn Read + Send>> {
        cx.cancel.check()?;
        let bytes = self.lock().objects.get(key).map(|object| Arc::clone(&object.bytes));
        let bytes = bytes.ok_or_else(|| Error::new(Kind::Missing, format!("{key} is not there")))?;
        if from > bytes.len() as u64 {
            return Err(Error::new(Kind::Damaged, format!("{key} has only {} bytes, {from} were expected", bytes.len())));
        }
        let mut bytes = Cursor::new(bytes);
        bytes.set_position(from);
        Ok(Box::new(MemoryRead { bytes, cx: cx.clone() }))
    }

    fn stat(&self, key: &Key, cx: &Context) -> Result<Option<ObjectMeta>> {
        cx.cancel.check()?;
        Ok(self.lock().objects.get(key).map(|object| meta(key, object)))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
        cx.cancel.check()?;
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
            cx.cancel.check()?;
            self.lock().objects.remove(key);
            Ok(())
        };
        keys.iter().map(delete_one).collect()
    }

    fn leftovers(&self, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
        cx.cancel.check()?;
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
        cx.cancel.check()?;
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
        self.cx.cancel.check()?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<ObjectMeta> {
        self.cx.cancel.check()?;
        let mut state = self.storage.lock();
        if state.pending.remove(&self.handle).is_none() {
            return Err(Error::new(Kind::Missing, format!("the upload of {} was discarded", self.key)));
        }
        let bytes = std::mem::take(&mut self.bytes);
        let object = Object { bytes: bytes.into(), modified: self.cx.clock.now() };
        state.insert_new(&self.key, object)
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
    cx: Context,
}

impl Read for MemoryRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cx.cancel.check()?;
        self.bytes.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    #[test]
    fn it_keeps_the_contract() {
        assert_eq!(conformance::run(&|| Box::new(Memory::new())), Vec::<String>::new());
    }

    #[test]
    fn whatever_goes_wrong_a_backup_is_whole_or_has_failed() {
        let cases = conformance::faults::run(&Memory::new, 1000);
        assert_eq!(conformance::faults::broken(&cases), Vec::<String>::new());
    }
}
