//! The one place where calls are made: rust-s3 makes and signs the request, a client of ours sends it, since rust-s3's
//! own has no private CA and no idle timeout, and drops the headers of an error. Every status is checked here, and
//! every call is tried again here.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Method};
use http_body::{Body, Frame, SizeHint};
use s3::command::HttpMethod;
use s3::request::Request as _;
use s3::request::tokio_backend::ReqwestRequest;
use tokio::runtime::Handle;

use super::answers;
use super::call::{Call, Expected, What};
use super::credentials::Signing;
use super::failure::{self, Failure, Place};
use super::sign;
use super::tell::Teller;
use crate::error::{Error, Kind};
use crate::host::clock::Clock;
use crate::host::files;
use crate::storage::retry::Backoff;

/// The longest answer that is no object's bytes: a page of a listing has a thousand keys of a kilobyte.
pub(super) const LONGEST_ANSWER: usize = 16 << 20;

/// A longer body is signed beside the runtime's threads.
const SIGNED_AT_ONCE: usize = 64 << 20;

/// A client for one bucket.
pub(super) struct Client {
    pub(super) http: reqwest::Client,
    pub(super) signing: Signing,
    pub(super) place: Place,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tell: Teller,
    /// How far the service's clock is ahead of ours, from its latest answer.
    pub(super) ahead: Mutex<Option<TimeDelta>>,
}

/// What a call came to.
pub(super) struct Answer {
    /// 200 to 299.
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// An earlier try failed without our knowing what it did.
    pub(super) again: bool,
    /// The MD5 of what was sent, in base64, of a write.
    pub(super) sent_md5: Option<String>,
}

/// Short: a body may be long, and anybody's.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer {{ status: {}, body: {} bytes }}", self.status, self.body.len())
    }
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// When something last moved, so that a call is given up for silence alone and never for its length.
struct Progress {
    begun: Instant,
    last: AtomicU64,
}

impl Progress {
    fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), last: AtomicU64::new(0) })
    }

    fn moved(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// What is left of `limit` since something moved.
    fn left(&self, limit: Duration) -> Duration {
        (Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit).saturating_sub(self.begun.elapsed())
    }
}

/// A body that tells how far it got. Its bytes are shared between the tries.
struct Watched {
    bytes: Bytes,
    progress: Arc<Progress>,
}

/// So much is handed on at once: little enough to be seen moving on a slow line.
const PIECE: usize = 64 << 10;

impl Body for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.progress.moved();
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let piece = PIECE.min(self.bytes.len());
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// Waits for `work` as long as something moves.
async fn while_moving<T>(progress: &Progress, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(progress.left(limit), work.as_mut()).await {
            Ok(out) => return Some(out),
            Err(_) if progress.left(limit).is_zero() => return None,
            Err(_) => {}
        }
    }
}

impl Client {
    /// Makes a call, again where that may help. The failure of the last try comes back.
    pub(super) async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let mut backoff = Backoff::new(self.retries);
        let mut again = false;
        loop {
            match self.once(call).await {
                Ok(answer) => return Ok(Answer { again, ..answer }),
                Err(mut failure) => {
                    failure.maybe_done |= again;
                    let Some(wait) = wait_after(&failure, &mut backoff) else { return Err(failure) };
                    again |= failure.maybe_done;
                    self.tell.again(&failure.error, "trying again", wait);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// One try; the answer's body is read whole.
    async fn once(&self, call: &Call) -> Result<Answer, Failure> {
        let mut body = Vec::new();
        let mut take = |piece: Bytes| {
            body.extend_from_slice(&piece);
            body.len() <= LONGEST_ANSWER
        };
        let mut answer = self.stream(call, &|_, _| Ok(()), &mut take).await?;
        answer.body = body;
        // A Complete that takes long begins with 200 and tells its failure in the body.
        if failure::is_error_body(&answer.body) {
            let what = call.describe(&self.place.bucket);
            let body = self.signing.hide(&answer.body).await;
            return Err(failure::of_answer(&what, &self.place, answer.status, &answer.headers, &body));
        }
        let is_fit = match call.what.answer() {
            Expected::Root(root) => answers::is(&answer.body, root),
            Expected::ETag => answer.header("etag").is_some(),
            Expected::Anything => true,
        };
        if !is_fit {
            let what = call.describe(&self.place.bucket);
            return Err(failure::of_nonsense(&what, &self.place, "its answer is none that an S3 service gives to that"));
        }
        Ok(answer)
    }

    /// One try. The body of an answer that is no error goes to `take`, which ends it by saying false, after `check`
    /// has said of status and headers that they are those of what was asked for.
    pub(super) async fn stream(
        &self,
        call: &Call,
        check: &(dyn Fn(u16, &HeaderMap) -> Result<(), String> + Sync),
        take: &mut (dyn FnMut(Bytes) -> bool + Send),
    ) -> Result<Answer, Failure> {
        let what = call.describe(&self.place.bucket);
        let progress = Progress::new();
        let (request, sent_md5) = self.request(call, &progress).await?;
        let silence = || failure::of_silence(&what, &self.place, self.timeout);
        let broken = |error: reqwest::Error| failure::of_transport(&what, &self.place, self.has_answered(), &error);
        let sent = while_moving(&progress, self.timeout, self.http.execute(request)).await.ok_or_else(silence)?;
        let mut response = sent.map_err(broken)?;
        progress.moved();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        self.note_clock(&headers);
        let is_error = !(200..300).contains(&status);
        if !is_error {
            check(status, &headers).map_err(|cause| failure::of_nonsense(&what, &self.place, &cause))?;
        }
        let mut error_body = Vec::new();
        loop {
            let piece = while_moving(&progress, self.timeout, response.chunk()).await.ok_or_else(silence)?;
            progress.moved();
            match piece {
                Ok(Some(piece)) if is_error => {
                    error_body.extend_from_slice(&piece);
                    if error_body.len() > LONGEST_ANSWER {
                        break;
                    }
                }
                Ok(Some(piece)) => {
                    if !take(piece) {
                        return Err(failure::of_nonsense(&what, &self.place, "it answered more than was asked for"));
                    }
                }
                Ok(None) => break,
                // What was told of an error is enough.
                Err(_) if is_error => break,
                Err(error) => return Err(broken(error)),
            }
        }
        if is_error {
            let body = self.signing.hide(&error_body).await;
            return Err(failure::of_answer(&what, &self.place, status, &headers, &body));
        }
        Ok(Answer { status, headers, body: Vec::new(), again: false, sent_md5 })
    }

    /// Makes and signs it.
    async fn request(&self, call: &Call, progress: &Arc<Progress>) -> Result<(reqwest::Request, Option<String>), Failure> {
        let internal = |error: &dyn std::fmt::Display| {
            Failure::lasting(Error::new(Kind::Internal, format!("can't make a request: {error}")))
        };
        let bucket = self.signing.bucket(&self.tell).await?;
        let mut bucket = bucket.with_extra_headers(call.headers.clone()).map_err(|error| internal(&error))?;
        let query = call.query();
        if !query.is_empty() {
            let query = query.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            bucket = bucket.with_extra_query(query).map_err(|error| internal(&error))?;
        }
        let signed = ReqwestRequest::new(&bucket, &call.object, call.command()).await.map_err(|error| internal(&error))?;
        let headers = if call.body.len() > SIGNED_AT_ONCE {
            // Its digests take seconds, in which other calls would seem to be silent, and clean-ups wait.
            tokio::task::block_in_place(|| Handle::current().block_on(sign::headers(&signed)))
        } else {
            sign::headers(&signed).await
        };
        let headers = headers.map_err(|error| internal(&error))?;
        let url = signed.url().map_err(|error| internal(&error))?;
        let method = match signed.command.http_verb() {
            HttpMethod::Head => Method::HEAD,
            HttpMethod::Get => Method::GET,
            HttpMethod::Put => Method::PUT,
            HttpMethod::Post => Method::POST,
            HttpMethod::Delete => Method::DELETE,
        };
        let body = match call.what {
            What::Put | What::UploadPart { .. } => call.body.clone(),
            _ => signed.request_body().map_err(|error| internal(&error))?.into(),
        };
        let md5 = headers.get("content-md5").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut request = self.http.request(method.clone(), url).headers(headers);
        if matches!(method, Method::PUT | Method::POST) {
            request = request.body(reqwest::Body::wrap(Watched { bytes: body, progress: Arc::clone(progress) }));
        }
        Ok((request.build().map_err(|error| internal(&error))?, md5))
    }

    fn has_answered(&self) -> bool {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn note_clock(&self, headers: &HeaderMap) {
        let date = headers.get("date").and_then(|value| value.to_str().ok());
        if let Some(date) = date.and_then(|text| DateTime::parse_from_rfc2822(text).ok()) {
            let ahead = date.with_timezone(&Utc) - self.clock.now();
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }
}

/// The wait before another try; none where there is to be none.
pub(super) fn wait_after(failure: &Failure, backoff: &mut Backoff) -> Option<Duration> {
    failure.passes.then(|| backoff.next(failure.after, random())).flatten()
}

/// From 0 to 1.
pub(super) fn random() -> f64 {
    files::random_bytes::<4>().map_or(0.5, |bytes| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
