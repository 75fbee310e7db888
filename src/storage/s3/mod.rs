//! A bucket of an S3-compatible service, through rust-s3. Async is a private matter of this module: every
//! call runs on a runtime of its own, and is given up as soon as the context is cancelled.

pub mod sizing;

use std::io::Read;

use chrono::{DateTime, Utc};

use crate::config::model::S3Settings;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Key;
use crate::storage::{Features, Leftover, ObjectMeta, Storage, Upload};

/// A bucket, or what stands below a prefix in it.
pub struct S3 {
    settings: S3Settings,
    budget: u64,
}

impl S3 {
    /// What the settings say; nothing is asked, and no secret read yet. `budget`: bytes of memory that the
    /// buffers of one upload may take; one part at least is always under way.
    pub fn new(settings: S3Settings, budget: u64) -> Self {
        Self { settings, budget }
    }

    fn not_yet<T>(&self) -> Result<T> {
        Err(Error::new(Kind::Internal, format!("not yet: {} {}", self.describe(), self.budget)))
    }
}

impl Storage for S3 {
    fn prepare(&self, _cx: &Context) -> Result<()> {
        self.not_yet()
    }
    fn features(&self, _cx: &Context) -> Result<Features> {
        self.not_yet()
    }
    fn upload(&self, _key: &Key, _size_hint: Option<u64>, _cx: &Context) -> Result<Box<dyn Upload>> {
        self.not_yet()
    }
    fn put_new(&self, _key: &Key, _bytes: &[u8], _cx: &Context) -> Result<ObjectMeta> {
        self.not_yet()
    }
    fn read(&self, _key: &Key, _from: u64, _cx: &Context) -> Result<Box<dyn Read + Send>> {
        self.not_yet()
    }
    fn stat(&self, _key: &Key, _cx: &Context) -> Result<Option<ObjectMeta>> {
        self.not_yet()
    }
    fn list(&self, _prefix: &str, _each: &mut dyn FnMut(ObjectMeta) -> Result<()>, _cx: &Context) -> Result<()> {
        self.not_yet()
    }
    fn delete(&self, keys: &[Key], _cx: &Context) -> Vec<Result<()>> {
        keys.iter().map(|_| self.not_yet()).collect()
    }
    fn leftovers(&self, _each: &mut dyn FnMut(Leftover) -> Result<()>, _cx: &Context) -> Result<()> {
        self.not_yet()
    }
    fn discard(&self, _leftover: &Leftover, _cx: &Context) -> Result<()> {
        self.not_yet()
    }
    fn now(&self, _cx: &Context) -> Result<DateTime<Utc>> {
        self.not_yet()
    }
    fn describe(&self) -> String {
        format!("bucket {}", self.settings.bucket)
    }
}
