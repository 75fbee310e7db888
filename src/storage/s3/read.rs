//! Reading an object: in ranges of a fixed size, the next one fetched while one is read, each checked for its
//! status and length, and taken up again where it was cut. An end of file is the object's end, nothing else.

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::call::{Call, What};
use super::client::{LONGEST_ANSWER, wait_after};
use super::failure::{self, Failure};
use super::runtime::Task;
use super::service::{Head, Shared};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::storage::retry::Backoff;

/// Bytes of one range.
const RANGE: u64 = 8 << 20;

/// Ranges under way or waiting, beside the one that is read.
const AHEAD: usize = 2;

/// So many bytes of progress make up for the tries before.
const PROGRESS: usize = 64 << 10;

/// An object's bytes from an offset on.
pub(super) struct S3Read {
    service: Shared,
    object: String,
    head: Head,
    cx: Context,
    /// Where the next range begins.
    next: u64,
    ahead: VecDeque<Task<Result<Bytes, Failure>>>,
    current: Bytes,
    /// It gives nothing more: what was to come is lost, and no end of the object.
    has_failed: bool,
}

impl S3Read {
    pub(super) fn new(service: Shared, object: String, head: Head, from: u64, cx: &Context) -> Self {
        let (ahead, current) = (VecDeque::new(), Bytes::new());
        Self { service, object, head, cx: cx.clone(), next: from, ahead, current, has_failed: false }
    }

    /// The next range; none at the object's end.
    fn next_range(&mut self) -> Result<Option<Bytes>> {
        self.fetch_ahead()?;
        let Some(range) = self.ahead.pop_front() else { return Ok(None) };
        range.wait(&self.cx.cancel)?.map(Some).map_err(|failure| failure.error)
    }

    fn fetch_ahead(&mut self) -> Result<()> {
        while self.ahead.len() < AHEAD && self.next < self.head.bytes {
            let first = self.next;
            let last = (first + RANGE).min(self.head.bytes) - 1;
            let (service, object, head) = (self.service.clone(), self.object.clone(), self.head.clone());
            self.ahead.push_back(Task::start(async move { range(&service, &object, &head, first, last).await })?);
            self.next = last + 1;
        }
        Ok(())
    }
}

impl Read for S3Read {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cx.cancel.check()?;
        if self.has_failed {
            return Err(Error::new(Kind::Storage, format!("{} could not be read to its end", self.object)).into());
        }
        if self.current.is_empty() {
            self.has_failed = true;
            let range = self.next_range()?;
            self.has_failed = false;
            let Some(range) = range else { return Ok(0) };
            self.current = range;
        }
        let taken = self.current.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.current.split_to(taken));
        Ok(taken)
    }
}

/// A small object's bytes, or the first `most` of them, in one call and without a look before. `None` where the answer is not
/// plainly all of it: then [`S3Read`] finds out what it is.
pub(super) async fn small(service: &Shared, object: &str, most: u64) -> Result<Option<Vec<u8>>, Failure> {
    // A longer answer would be taken for that of something else, and asked for again and again.
    let asked = most.min(LONGEST_ANSWER as u64);
    let call = Call::new(What::Get { first: 0, last: asked.saturating_sub(1) }, object);
    match service.client.ask(&call).await {
        Ok(answer) => {
            let (bytes, range) = (answer.body.len() as u64, answer.header("content-range"));
            let is_whole = |range: &str| {
                let of = range.strip_prefix(&format!("bytes 0-{}/", bytes.saturating_sub(1))).and_then(|of| of.parse().ok());
                of.is_some_and(|of: u64| bytes == of.min(most))
            };
            let is_whole = answer.status == 206 && bytes > 0 && range.is_some_and(|range| is_whole(range.trim()));
            Ok(is_whole.then_some(answer.body))
        }
        Err(failure) if failure.is_absent() || failure.status == Some(416) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The bytes from `first` to `last`, all of them, in as many calls as it takes.
async fn range(service: &Shared, object: &str, head: &Head, first: u64, last: u64) -> Result<Bytes, Failure> {
    let length = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
    let mut bytes: Vec<u8> = Vec::with_capacity(length);
    let mut headers = HeaderMap::new();
    // A weak one is equal to none.
    let etag = head.etag.as_ref().filter(|etag| !etag.starts_with("W/"));
    if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        headers.insert(http::header::IF_MATCH, etag);
    }
    let client = &service.client;
    let mut backoff = Backoff::new(client.retries);
    loop {
        let before = bytes.len();
        let at = first + before as u64;
        let call = Call::new(What::Get { first: at, last }, object).headers(headers.clone());
        let mut take = |piece: Bytes| {
            bytes.extend_from_slice(&piece);
            bytes.len() <= length
        };
        let check = |status, headers: &HeaderMap| check_range(status, headers, at, last, head.bytes);
        let failure = match client.stream(&call, &check, &mut take).await {
            // All of it came, be the answer's end lost.
            _ if bytes.len() == length => return Ok(bytes.into()),
            Ok(_) => {
                let cause = format!("it ended {} bytes early", length.saturating_sub(bytes.len()));
                failure::of_nonsense(&call.describe(&client.place.bucket), &client.place, &cause)
            }
            Err(failure) if failure.status == Some(412) => {
                let error = Error::new(Kind::Storage, format!("{object} changed while it was read"));
                let hint = "no backup is ever written over here: see who else writes to the bucket, and run it again";
                return Err(Failure::lasting(error.hint(hint)));
            }
            Err(failure) => {
                // More than was asked for: none of it can be trusted.
                if bytes.len() > length {
                    bytes.truncate(before);
                }
                failure
            }
        };
        if bytes.len() - before >= PROGRESS {
            backoff.progressed(client.retries);
        }
        let Some(wait) = wait_after(&failure, &mut backoff) else { return Err(failure) };
        client.tell.again(&failure.error, &format!("going on at byte {}", first + bytes.len() as u64), wait);
        tokio::time::sleep(wait).await;
    }
}

/// A service that does not know ranges answers with the whole object, and 200.
fn check_range(status: u16, headers: &HeaderMap, first: u64, last: u64, of: u64) -> Result<(), String> {
    let whole = status == 200 && first == 0 && last + 1 == of;
    if status != 206 && !whole {
        return Err(format!("it answered HTTP {status} to a request for a range"));
    }
    match headers.get(http::header::CONTENT_RANGE).and_then(|value| value.to_str().ok()) {
        Some(range) if range.trim() != format!("bytes {first}-{last}/{of}") => Err(format!("it sent another range: {range}")),
        None if status == 206 => Err("it does not say which range it sent".into()),
        _ => Ok(()),
    }
}
