//! A bucket of an S3-compatible service, through rust-s3. Async is a private matter of this module: every
//! call runs on a runtime of its own, and is given up as soon as the context is cancelled.

mod answers;
mod call;
mod client;
mod connect;
mod credentials;
mod failure;
mod objects;
mod read;
mod runtime;
mod service;
mod sign;
pub mod sizing;
mod tell;
#[cfg(test)]
mod tests;
mod upload;

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use self::failure::Failure;
use self::objects::{BATCH, Cursor, of_object};
use self::runtime::{Task, block};
use self::service::{Head, Shared};
use self::sizing::Parts;
use crate::config::model::S3Settings;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::Key;
use crate::observe::Event;
use crate::quantity::show_bytes;
use crate::storage::{Features, Leftover, ObjectMeta, Storage, Upload, read_to_end};

/// Small calls that are made at once: what they wait for is the way there.
const CALLS_AT_ONCE: usize = 8;
/// Looks under way at once of each thread that looks at many: sixteen together, which a small service takes.
const STATS_AT_ONCE: usize = 2;

/// A bucket, or what stands below a prefix in it.
pub struct S3 {
    settings: S3Settings,
    budget: u64,
    /// Made at the first call, and again after one that failed.
    service: Mutex<Option<Shared>>,
}

impl S3 {
    /// What the settings say; nothing is asked, and no secret read yet. `budget`: bytes of memory that the
    /// buffers of one upload may take; one part at least is always under way.
    pub fn new(settings: S3Settings, budget: u64) -> Self {
        Self { settings, budget, service: Mutex::new(None) }
    }

    fn service(&self, cx: &Context) -> Result<Shared> {
        cx.cancel.check()?;
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = service.as_ref() {
            return Ok(service.clone());
        }
        let connected = connect::connect(&self.settings, cx)?;
        Ok(service.insert(connected).clone())
    }

    /// Runs calls to their end, or until the context is cancelled.
    fn run<T: Send + 'static, F>(&self, cx: &Context, calls: impl FnOnce(Shared) -> F) -> Result<Result<T, Failure>>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        block(&cx.cancel, calls(self.service(cx)?))
    }

    fn object(&self, key: &Key) -> String {
        if self.settings.prefix.is_empty() { key.to_string() } else { format!("{}/{key}", self.settings.prefix) }
    }
}

/// The key of an object; none where it is not below the prefix, or can't be one of ours.
fn key_of(prefix: &str, object: &str) -> Option<Key> {
    let below = match prefix {
        "" => object,
        prefix => object.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    let key: Key = below.parse().ok()?;
    let parts: Vec<&str> = below.split('/').collect();
    (parts.len() == 3 && parts.iter().all(|part| !part.starts_with('.'))).then_some(key)
}

impl Storage for S3 {
    fn prepare(&self, cx: &Context) -> Result<()> {
        self.run(cx, |service| async move { service.honours().await })?.map_err(of_object).map(drop)
    }

    fn features(&self, cx: &Context) -> Result<Features> {
        let notes = self.run(cx, |service| async move { connect::features(&service).await })?.map_err(of_object)?;
        Ok(Features { notes, free_bytes: None })
    }

    fn upload(&self, key: &Key, size_hint: Option<u64>, cx: &Context) -> Result<Box<dyn Upload>> {
        let parts = Parts::plan(self.settings.part_size, self.settings.max_parts, size_hint);
        let S3Settings { max_parts, concurrency, .. } = self.settings;
        let plan = upload::Plan { parts, max_parts, concurrency, budget: self.budget };
        if parts.base() > self.settings.part_size {
            let (size, memory) = (show_bytes(parts.base()), show_bytes(parts.memory_needed()));
            let text = format!(
                "{}: as large as it may be, it goes up in parts of {size}, which takes about {memory} of memory",
                self.object(key)
            );
            cx.observer.event(Event::Note { text });
        }
        Ok(Box::new(upload::S3Upload::new(self.service(cx)?, key, self.object(key), plan, cx)?))
    }

    fn put_new(&self, key: &Key, bytes: &[u8], cx: &Context) -> Result<ObjectMeta> {
        let (object, bytes) = (self.object(key), Bytes::copy_from_slice(bytes));
        let head = self.run(cx, |service| async move { service.put_new(&object, bytes).await })?.map_err(of_object)?;
        Ok(ObjectMeta { key: key.clone(), bytes: Some(head.bytes), modified: head.modified })
    }

    fn read(&self, key: &Key, from: u64, cx: &Context) -> Result<Box<dyn Read + Send>> {
        let (service, object) = (self.service(cx)?, self.object(key));
        let looked_at = object.clone();
        let head = self.run(cx, |service| async move { service.stat(&looked_at).await })?.map_err(of_object)?;
        let head = head.ok_or_else(|| Error::new(Kind::Missing, format!("{object} is not in {}", self.describe())))?;
        if from > head.bytes {
            let cause = format!("{object} has only {} bytes, {from} were expected", head.bytes);
            return Err(Error::new(Kind::Damaged, cause));
        }
        Ok(Box::new(read::S3Read::new(service, object, head, from, cx)))
    }

    fn read_small(&self, keys: &[Key], most: u64, cx: &Context) -> Vec<Result<Vec<u8>>> {
        let one = |key| {
            let object = self.object(key);
            match self.run(cx, |service| async move { read::small(&service, &object, most).await })?.map_err(of_object)? {
                Some(bytes) => Ok(bytes),
                // With all its looks and words: for what is absent or empty, and services that know no ranges.
                None => read_to_end(self.read(key, 0, cx)?, key, most),
            }
        };
        keys.iter().map(one).collect()
    }

    fn at_once(&self) -> usize {
        CALLS_AT_ONCE
    }

    fn stat(&self, key: &Key, cx: &Context) -> Result<Option<ObjectMeta>> {
        self.stat_many(std::slice::from_ref(key), cx).remove(0)
    }

    fn stat_many(&self, keys: &[Key], cx: &Context) -> Vec<Result<Option<ObjectMeta>>> {
        let start = |key| {
            let (service, object) = (self.service(cx)?, self.object(key));
            Task::start(async move { service.stat(&object).await })
        };
        let mut outcomes = Vec::with_capacity(keys.len());
        for some in keys.chunks(STATS_AT_ONCE) {
            let asked: Vec<_> = some.iter().map(start).collect();
            for (key, task) in some.iter().zip(asked) {
                let head = task.and_then(|task| task.wait(&cx.cancel)?.map_err(of_object));
                let meta = |head: Head| ObjectMeta { key: key.clone(), bytes: Some(head.bytes), modified: head.modified };
                outcomes.push(head.map(|head| head.map(meta)));
            }
        }
        outcomes
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = self.run(cx, |service| {
                let prefix = format!("{}{prefix}", service.prefix);
                async move { objects::page(&service, &prefix, cursor).await }
            })?;
            let (listed, next) = page.map_err(|failure| failure.error)?;
            for object in listed {
                // What else is in the bucket is none of ours.
                let key = key_of(&self.settings.prefix, &object.key).filter(|key| key.as_str().starts_with(prefix));
                let Some(key) = key else { continue };
                each(ObjectMeta { key, bytes: object.size, modified: answers::time(object.last_modified.as_ref()) })?;
            }
            from = next;
        }
        Ok(())
    }

    fn delete(&self, keys: &[Key], cx: &Context) -> Vec<Result<()>> {
        let mut outcomes = Vec::new();
        for batch in keys.chunks(BATCH) {
            let objects: Vec<String> = batch.iter().map(|key| self.object(key)).collect();
            match self.run(cx, |service| async move { Ok(objects::delete(&service, &objects).await) }) {
                Ok(Ok(own)) => outcomes.extend(own),
                Ok(Err(failure)) => outcomes.extend(batch.iter().map(|_| Err(failure.error.copy()))),
                Err(error) => outcomes.extend(batch.iter().map(|_| Err(error.copy()))),
            }
        }
        outcomes
    }

    fn leftovers(&self, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
        let prefix = self.settings.prefix.clone();
        let pending = self.run(cx, |service| async move {
            objects::pending(&service, &service.prefix, |object| key_of(&prefix, object).is_some()).await
        })?;
        for upload in pending.map_err(|failure| failure.error)? {
            let Some(key) = key_of(&self.settings.prefix, &upload.object) else { continue };
            each(Leftover { key, handle: upload.id, bytes: Some(upload.bytes), modified: upload.modified })?;
        }
        Ok(())
    }

    fn discard(&self, leftover: &Leftover, cx: &Context) -> Result<()> {
        let (object, id) = (self.object(&leftover.key), call::upload_for_query(&leftover.handle));
        self.run(cx, |service| async move { objects::abort(&service, &object, &id).await })?.map_err(of_object)
    }

    fn now(&self, cx: &Context) -> Result<DateTime<Utc>> {
        let ahead = |service: &Shared| *service.client.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let service = self.service(cx)?;
        if ahead(&service).is_none() {
            self.run(cx, |service| async move { service.stat(&format!("{}now", service.prefix)).await })?.map_err(of_object)?;
        }
        Ok(cx.clock.now() + ahead(&service).unwrap_or(TimeDelta::zero()))
    }

    fn describe(&self) -> String {
        let place = connect::endpoint_for_people(&self.settings);
        match self.settings.prefix.as_str() {
            "" => format!("bucket {} at {place}", self.settings.bucket),
            prefix => format!("bucket {}, below {prefix}/, at {place}", self.settings.bucket),
        }
    }
}
