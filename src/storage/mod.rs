//! Where artifacts and manifests live: the trait that every storage keeps, and its words.
//! A storage knows keys and bytes; it knows no unit, no manifest and no retention.

pub mod local;
pub mod retry;
pub mod s3;
pub mod memory;
pub mod faulty;
pub mod conformance;

use std::io::Read;

use chrono::{DateTime, Utc};

use crate::error::{Kind, Result, from_io};
use crate::host::Context;
use crate::names::Key;

/// A place for objects. Nothing is ever overwritten, and nothing is visible under its key before
/// it is whole and durable. All calls may be made from several threads at once, and end within a
/// second of the context's cancel. Keys have three parts, HOST/RUN/FILE, none with a leading dot;
/// FILE leaves 14 of a file name's 255 bytes free. `conformance` holds all of it.
pub trait Storage: Send + Sync {
    /// Makes the place ready for a first upload, and fails where it can't be: a missing parent,
    /// an unmounted disk. May be called again at any time.
    fn prepare(&self, cx: &Context) -> Result<()>;

    /// What this storage can do, from a look and not from a guess.
    fn features(&self, cx: &Context) -> Result<Features>;

    /// Begins an object. `size_hint`: about how many bytes may come, which is no promise and no limit: it is the
    /// source's size on its disk, where that is known, before any compression. `Exists` when the key is taken, here or at the latest at the commit.
    fn upload(&self, key: &Key, size_hint: Option<u64>, cx: &Context) -> Result<Box<dyn Upload>>;

    /// Writes a small object whole. `Exists` when the key is taken.
    fn put_new(&self, key: &Key, bytes: &[u8], cx: &Context) -> Result<ObjectMeta>;

    /// Reads an object from `from` on (a byte offset). `Missing` when there is none, and only then:
    /// an absent place has another kind; `Damaged` when it ends before `from`. The reader's errors
    /// carry ours; an end of file before the object's end is an error, never an end.
    fn read(&self, key: &Key, from: u64, cx: &Context) -> Result<Box<dyn Read + Send>>;

    /// A look at one object; `None` when there is none. Its size is always known.
    fn stat(&self, key: &Key, cx: &Context) -> Result<Option<ObjectMeta>>;

    /// Small objects whole, or the first `most` bytes of each: what [`Storage::read`] from its start would give. Each key's
    /// own outcome, in their order. A look at the place is made once for all of them.
    fn read_small(&self, keys: &[Key], most: u64, cx: &Context) -> Vec<Result<Vec<u8>>> {
        keys.iter().map(|key| read_to_end(self.read(key, 0, cx)?, key, most)).collect()
    }

    /// How many such calls at once are quicker than one after another.
    fn at_once(&self) -> usize {
        1
    }

    /// What [`Storage::stat`] says of each key, in their order. A look at the place is made once for all of them.
    fn stat_many(&self, keys: &[Key], cx: &Context) -> Vec<Result<Option<ObjectMeta>>> {
        keys.iter().map(|key| self.stat(key, cx)).collect()
    }

    /// Every object whose key begins with `prefix`, which may end anywhere in a key's text (empty:
    /// all), in no promised order. A place that is absent is an error (`Missing`) and not an empty
    /// list. An error of `each` ends it.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()>;

    /// Deletes in this order, stopping at nothing: each key's own outcome. A key that is gone
    /// already is a success.
    fn delete(&self, keys: &[Key], cx: &Context) -> Vec<Result<()>>;

    /// Uploads that never committed.
    fn leftovers(&self, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()>;

    /// Removes one of them.
    fn discard(&self, leftover: &Leftover, cx: &Context) -> Result<()>;

    /// The time by the storage's own clock, which its `modified` times are to be compared with.
    fn now(&self, cx: &Context) -> Result<DateTime<Utc>>;

    /// What and where it is, for a person; without secrets: `directory /mnt/backups`.
    fn describe(&self) -> String;
}

/// What a reader gives to its end, or the first `most` bytes.
fn read_to_end(reader: Box<dyn Read + Send>, key: &Key, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = reader.take(most).read_to_end(&mut bytes);
    read.map_err(|error| from_io(error, Kind::Storage, format!("can't read {key}")))?;
    Ok(bytes)
}

/// An object on its way in. Dropped without a commit, it is aborted.
pub trait Upload: Send {
    /// Takes all of the bytes, or fails.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes it durable, then visible. After an error nothing is visible.
    fn commit(self: Box<Self>) -> Result<ObjectMeta>;

    /// Gives its space back.
    fn abort(self: Box<Self>) -> Result<()>;
}

/// What a storage says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Where it is.
    pub key: Key,
    /// Its size; a listing may leave it out where it costs a call of its own.
    pub bytes: Option<u64>,
    /// Its last change, by the storage's own clock; likewise.
    pub modified: Option<DateTime<Utc>>,
}

/// An upload that never committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The key it would have had.
    pub key: Key,
    /// The storage's own name for it.
    pub handle: String,
    /// Bytes it takes, where known.
    pub bytes: Option<u64>,
    /// Its last change, by the storage's own clock.
    pub modified: DateTime<Utc>,
}

/// What a storage can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// For a person, one each: `commits by renameat2`, `12.3 GiB free`.
    pub notes: Vec<String>,
    /// Bytes that can still be written, where known.
    pub free_bytes: Option<u64>,
}
