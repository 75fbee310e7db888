//! An object on its way in: one call where it is smaller than a part, else a multipart upload driven here, with a
//! few parts under way at once. Nothing is visible before the commit; what is given up is aborted.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU32;

use bytes::Bytes;
use http::HeaderValue;

use super::answers::{self, Begun};
use super::call::{Call, What, upload_for_query};
use super::failure::{self, Failure};
use super::objects;
use super::runtime::{Task, block};
use super::service::{self, Head, Shared, exists};
use super::sizing::Parts;
use crate::error::{Error, Kind, Result};
use crate::host::{Cancel, Context};
use crate::names::Key;
use crate::observe::Event;
use crate::quantity::show_bytes;
use crate::storage::{ObjectMeta, Upload};

/// How large parts are, and how many are under way at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) parts: Parts,
    pub(super) max_parts: u32,
    pub(super) concurrency: NonZeroU32,
    /// Bytes of memory for all that is under way.
    pub(super) budget: u64,
}

/// An upload.
pub(super) struct S3Upload {
    service: Shared,
    key: Key,
    object: String,
    plan: Plan,
    cx: Context,
    nonce: String,
    /// The part that is being filled.
    filling: Vec<u8>,
    bytes: u64,
    multipart: Option<Multipart>,
    /// An answer to its beginning was lost: more may have begun than is known here.
    maybe_more: bool,
    /// Nothing to abort: committed, or aborted already.
    over: bool,
}

/// What has begun at the service.
struct Multipart {
    /// As it stands in a query.
    id: String,
    /// Number of the part that is being filled.
    number: u32,
    under_way: VecDeque<Task<Result<(u32, String), Failure>>>,
    done: Vec<(u32, String)>,
}

impl S3Upload {
    pub(super) fn new(service: Shared, key: &Key, object: String, plan: Plan, cx: &Context) -> Result<Self> {
        Ok(Self {
            service,
            key: key.clone(),
            object,
            plan,
            cx: cx.clone(),
            nonce: service::nonce()?,
            filling: Vec::new(),
            bytes: 0,
            multipart: None,
            maybe_more: false,
            over: false,
        })
    }

    /// Bytes that the part which is being filled takes.
    fn part_size(&self) -> usize {
        let number = self.multipart.as_ref().map_or(1, |multipart| multipart.number);
        usize::try_from(self.plan.parts.size_of(number)).unwrap_or(usize::MAX)
    }

    /// Sends the part that is full, as soon as there is room for it under way.
    fn send(&mut self) -> Result<()> {
        if self.multipart.is_none() {
            self.multipart = Some(self.begin()?);
        }
        let part = Bytes::from(mem::take(&mut self.filling));
        let (service, object, max, cancel) = (self.service.clone(), self.object.clone(), self.plan.max_parts, &self.cx.cancel);
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        let number = multipart.number;
        if number > max {
            let cause = format!("{object} needs more than {max} parts, all that `max_parts:` allows");
            return Err(Error::new(Kind::StorageDenied, cause).hint(format!(
                "{} of it were taken: raise `part_size:` of the storage, so that its parts are enough",
                show_bytes(self.bytes)
            )));
        }
        while multipart.under_way.len() >= self.plan.parts.in_flight(number, self.plan.budget, self.plan.concurrency) {
            multipart.wait_for_one(cancel)?;
        }
        let upload = multipart.id.clone();
        multipart.under_way.push_back(Task::start(async move { send_part(&service, &object, number, upload, part).await })?);
        multipart.number += 1;
        self.tell_growth(number + 1);
        Ok(())
    }

    fn tell_growth(&self, number: u32) {
        let parts = &self.plan.parts;
        if parts.is_grown(number) && parts.size_of(number) > parts.size_of(number - 1) {
            let text = format!(
                "{}: {} so far, more than was expected: its parts grow to {} each",
                self.object,
                show_bytes(self.bytes),
                show_bytes(parts.size_of(number))
            );
            self.cx.observer.event(Event::Warning { target: None, text });
        }
    }

    fn begin(&mut self) -> Result<Multipart> {
        let (service, call) =
            (self.service.clone(), Call::new(What::Initiate, &self.object).headers(self.service.headers_for(&self.nonce)));
        let begun = block(&self.cx.cancel, async move {
            let answer = service.client.ask(&call).await?;
            answers::parse::<Begun>(&answer.body)
                .map_err(|cause| {
                    failure::of_nonsense(&call.describe(&service.client.place.bucket), &service.client.place, &cause)
                })
                .map(|begun| (begun, answer.again))
        });
        // Until it is known that none is: a call that was given up may have been heard.
        self.maybe_more = true;
        let (begun, again) = begun?.map_err(|failure| {
            self.maybe_more = failure.maybe_done;
            failure.error
        })?;
        self.maybe_more = again;
        let id = upload_for_query(&begun.upload_id);
        Ok(Multipart { id, number: 1, under_way: VecDeque::new(), done: Vec::new() })
    }

    fn finish(&mut self) -> Result<Head> {
        let (service, object, nonce, bytes) = (self.service.clone(), self.object.clone(), self.nonce.clone(), self.bytes);
        if self.multipart.is_none() {
            let body = Bytes::from(mem::take(&mut self.filling));
            return block(&self.cx.cancel, async move { service.put_new(&object, body).await })?.map_err(|failure| failure.error);
        }
        if !self.filling.is_empty() {
            self.send()?;
        }
        let Some(multipart) = &mut self.multipart else { return Err(Error::new(Kind::Internal, "an upload was lost")) };
        while !multipart.under_way.is_empty() {
            multipart.wait_for_one(&self.cx.cancel)?;
        }
        let (upload, parts, maybe_more) = (multipart.id.clone(), mem::take(&mut multipart.done), self.maybe_more);
        let completed = block(&self.cx.cancel, async move {
            let head = complete(&service, &object, upload, parts, &nonce, bytes).await?;
            if maybe_more {
                // What can't be removed now, prune will.
                let _ = abort_all(&service, &object).await;
            }
            Ok::<Head, Failure>(head)
        });
        completed?.map_err(|failure| failure.error)
    }

    /// Takes back what has begun, under a token of its own: it must end though the caller's is cancelled.
    fn give_up(&mut self) -> Result<()> {
        self.over = true;
        if self.multipart.is_none() && !self.maybe_more {
            return Ok(());
        }
        let id = self.multipart.take().map(Multipart::stop);
        let (service, object, maybe_more) = (self.service.clone(), self.object.clone(), self.maybe_more);
        let aborted = block(&Cancel::for_clean_up()?, async move {
            let known = match id {
                Some(id) => objects::abort(&service, &object, &id).await,
                None => Ok(()),
            };
            let others = abort_all(&service, &object).await;
            // Of one that is known there may be parts still: where it can be seen, it is aborted once more.
            known.and(if maybe_more { others } else { Ok(()) })
        });
        aborted?.map_err(|failure| failure.error)
    }
}

impl Multipart {
    /// Gives up the parts under way: one that comes after the abort would stay. Its id.
    fn stop(self) -> String {
        self.under_way.into_iter().for_each(Task::stop);
        self.id
    }

    /// Waits for the oldest part.
    fn wait_for_one(&mut self, cancel: &Cancel) -> Result<()> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(()) };
        self.done.push(oldest.wait(cancel)?.map_err(|failure| failure.error)?);
        Ok(())
    }
}

/// Room for `more` bytes of a part of `size`, and never for more than that: a vector left to itself takes up to twice as much.
fn make_room(filling: &mut Vec<u8>, more: usize, size: usize) -> Result<()> {
    let needed = filling.len().saturating_add(more);
    if needed <= filling.capacity() {
        return Ok(());
    }
    let room = filling.capacity().saturating_mul(2).clamp(needed, size.max(needed));
    filling.try_reserve_exact(room - filling.len()).map_err(|error| {
        let size = show_bytes(u64::try_from(size).unwrap_or(u64::MAX));
        let error = Error::new(Kind::Internal, format!("there is no memory for a part of {size}")).source(error);
        error.hint("give the machine more memory, or lower `part_size:` where it is set")
    })
}

async fn send_part(service: &Shared, object: &str, number: u32, upload: String, part: Bytes) -> Result<(u32, String), Failure> {
    let call = Call::new(What::UploadPart { number, upload }, object).body(part);
    let answer = service.client.ask(&call).await?;
    service.check_etag(&call, &answer).await?;
    let Some(etag) = answer.header("etag") else {
        let what = call.describe(&service.client.place.bucket);
        return Err(failure::of_nonsense(&what, &service.client.place, "its answer has no ETag"));
    };
    Ok((number, etag.to_owned()))
}

/// Makes an object of the parts. Written once: looked at before, and asked of the service besides, where it knows that.
async fn complete(
    service: &Shared,
    object: &str,
    upload: String,
    parts: Vec<(u32, String)>,
    nonce: &str,
    bytes: u64,
) -> Result<Head, Failure> {
    match service.head(object).await {
        Ok(Some(_)) => return Err(exists(object)),
        // Without the right to list, an absent object is forbidden.
        Err(failure) if failure.status != Some(403) => return Err(failure),
        _ => {}
    }
    let mut call = Call::new(What::Complete { upload, parts }, object);
    if service.honours().await?.if_none_match {
        call.headers.insert(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let mut outcome = service.client.ask(&call).await;
    if !call.headers.is_empty() && outcome.as_ref().is_err_and(Failure::is_unknown_there) {
        call.headers.clear();
        outcome = service.client.ask(&call).await;
    }
    if let Err(failure) = outcome {
        let failure =
            if failure.status == Some(412) { Failure { maybe_done: failure.maybe_done, ..exists(object) } } else { failure };
        service.settle(object, nonce, bytes, None, failure).await?;
    }
    service.written(object, nonce, bytes).await
}

/// Aborts every upload of an object: its key is ours alone.
async fn abort_all(service: &Shared, object: &str) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for other in objects::uploads_of(service, object).await? {
        outcome = outcome.and(objects::abort(service, object, &other).await);
    }
    outcome
}

impl Upload for S3Upload {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.cx.cancel.check()?;
        while !bytes.is_empty() {
            let size = self.part_size();
            if self.filling.len() >= size {
                self.send()?;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(size - self.filling.len()));
            make_room(&mut self.filling, now.len(), size)?;
            self.filling.extend_from_slice(now);
            self.bytes += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<ObjectMeta> {
        self.cx.cancel.check()?;
        let head = self.finish()?;
        self.over = true;
        Ok(ObjectMeta { key: self.key.clone(), bytes: Some(head.bytes), modified: head.modified })
    }

    fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up()
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        if !self.over
            && let Err(error) = self.give_up()
        {
            let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let text = format!("what is left of an upload could not be removed, prune will: {error}{hint}");
            self.cx.observer.event(Event::Warning { target: None, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_no_more_memory_than_its_size() {
        let (size, piece) = (9 << 20, vec![0; 700 << 10]);
        let mut filling = Vec::new();
        while filling.len() < size {
            let now = piece.len().min(size - filling.len());
            make_room(&mut filling, now, size).unwrap();
            filling.extend_from_slice(&piece[..now]);
            assert!(filling.capacity() <= size && filling.capacity() <= (2 * filling.len()));
        }
        assert_eq!(filling.capacity(), size);
        assert!(make_room(&mut filling, usize::MAX, usize::MAX).unwrap_err().hint_text().is_some());
    }
}
