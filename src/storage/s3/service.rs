//! What is done with single objects: written once, looked at, and what the service is found to honour.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OnceCell;

use super::call::{Call, What};
use super::client::{Answer, Client, random};
use super::failure::{self, Failure, Place};
use crate::config::model::{S3Encryption, S3Settings};
use crate::error::{Error, Kind, Result};
use crate::host::files;
use crate::names::hex;
use crate::storage::retry::Backoff;

/// Which write of ours an object came from: settles an answer that was lost.
const NONCE: &str = "x-amz-meta-db-backup-nonce";

/// An object that is written again and again to see what the service honours. It stays, so that no right to
/// delete is needed.
const MARKER: &str = ".db-backup-tools";
const MARKER_TEXT: &[u8] = b"db-backup-tools looks here at what this service can do; this object may be deleted\n";

/// So often a new object that is not seen is looked for again at most.
const LOOKS: u32 = 3;

/// A bucket, connected.
pub(super) struct Service {
    pub(super) client: Client,
    pub(super) prefix: String,
    /// Of everything that is written: class, encryption, tags.
    written_with: HeaderMap,
    honours: OnceCell<Honours>,
    /// Looked at where an `ETag` is not what it was expected to be.
    etag_still_md5: OnceCell<bool>,
}

/// What the service was seen to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Honours {
    /// It refuses to write over an object where it is asked to.
    pub(super) if_none_match: bool,
    /// An object's `ETag` is the MD5 of its bytes.
    pub(super) etag_is_md5: bool,
}

/// What a look at an object found.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) bytes: u64,
    pub(super) modified: Option<DateTime<Utc>>,
    pub(super) etag: Option<String>,
    nonce: Option<String>,
}

/// A new nonce.
pub(super) fn nonce() -> Result<String> {
    Ok(hex(&files::random_bytes::<16>()?))
}

impl Service {
    pub(super) fn new(client: Client, settings: &S3Settings) -> Result<Self> {
        let prefix = if settings.prefix.is_empty() { String::new() } else { format!("{}/", settings.prefix) };
        let (honours, etag_still_md5) = (OnceCell::new(), OnceCell::new());
        Ok(Self { client, prefix, written_with: written_with(settings)?, honours, etag_still_md5 })
    }

    /// Headers of an object that is begun or written.
    pub(super) fn headers_for(&self, nonce: &str) -> HeaderMap {
        let mut headers = self.written_with.clone();
        if let Ok(value) = HeaderValue::from_str(nonce) {
            headers.insert(HeaderName::from_static(NONCE), value);
        }
        headers
    }

    /// What the service honours: looked at once.
    pub(super) async fn honours(&self) -> Result<Honours, Failure> {
        self.honours.get_or_try_init(|| self.look()).await.copied()
    }

    /// Writes the marker on itself. Where the condition is honoured nothing is written at all.
    async fn look(&self) -> Result<Honours, Failure> {
        let marker = self.marker();
        let body = Bytes::from_static(MARKER_TEXT);
        let mut headers = self.written_with.clone();
        headers.insert(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        let conditional = Call::new(What::Put, &marker).headers(headers).body(body.clone());
        let mut if_none_match = None;
        // The first may be the one that makes it.
        for _ in 0..2 {
            match self.client.ask(&conditional).await {
                Ok(_) => if_none_match = Some(false),
                Err(failure) if failure.status == Some(412) => {
                    if_none_match = Some(true);
                    break;
                }
                Err(failure) if failure.is_unknown_there() || failure.status == Some(400) => break,
                Err(failure) => return Err(failure),
            }
        }
        if if_none_match.is_none() {
            let plain = Call::new(What::Put, &marker).headers(self.written_with.clone()).body(body);
            self.client.ask(&plain).await?;
        }
        let etag_is_md5 = self.marker_has_md5().await?;
        Ok(Honours { if_none_match: if_none_match.unwrap_or(false), etag_is_md5 })
    }

    /// A look at an object; none where there is none, or no bucket either: a HEAD can't tell them apart.
    pub(super) async fn head(&self, object: &str) -> Result<Option<Head>, Failure> {
        match self.client.ask(&Call::new(What::Head, object)).await {
            Ok(answer) => Ok(Some(self.head_of(object, &answer)?)),
            Err(failure) if failure.status == Some(404) => Ok(None),
            // The answer to a HEAD has no body that would say why: a GET has.
            Err(failure) if failure.code.is_empty() && failure.status.is_some() => {
                let get = self.client.ask(&Call::new(What::Get { first: 0, last: 0 }, object)).await;
                Err(get.err().filter(|told| !told.code.is_empty() && !told.is_absent()).unwrap_or(failure))
            }
            Err(failure) => Err(failure),
        }
    }

    fn head_of(&self, object: &str, answer: &Answer) -> Result<Head, Failure> {
        let bytes = answer.header("content-length").and_then(|text| text.parse().ok());
        let Some(bytes) = bytes else {
            let what = Call::new(What::Head, object).describe(&self.client.place.bucket);
            return Err(failure::of_nonsense(&what, &self.client.place, "it does not say how large the object is"));
        };
        let modified = answer.header("last-modified").and_then(|text| DateTime::parse_from_rfc2822(text).ok());
        Ok(Head {
            bytes,
            modified: modified.map(|time| time.with_timezone(&Utc)),
            etag: answer.header("etag").map(str::to_owned),
            nonce: answer.header(NONCE).map(str::to_owned),
        })
    }

    /// A look at an object; an absent bucket is an error.
    pub(super) async fn stat(&self, object: &str) -> Result<Option<Head>, Failure> {
        if let Some(found) = self.head(object).await? {
            return Ok(Some(found));
        }
        let get = Call::new(What::Get { first: 0, last: 0 }, object);
        match self.client.ask(&get).await {
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) if failure.status != Some(416) => Err(failure),
            // It is there, be it empty: what the look told was out of date.
            _ => self.head_of_new(object).await?.map(Some).ok_or_else(|| {
                let what = get.describe(&self.client.place.bucket);
                failure::of_nonsense(&what, &self.client.place, "it is there for a GET, and not for a HEAD")
            }),
        }
    }

    /// A look at an object that is to be there: a service may show a new one a little later.
    async fn head_of_new(&self, object: &str) -> Result<Option<Head>, Failure> {
        let mut backoff = Backoff::new(self.client.retries.min(LOOKS));
        loop {
            let found = self.head(object).await?;
            if found.is_some() {
                return Ok(found);
            }
            let Some(wait) = backoff.next(None, random()) else { return Ok(None) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Writes an object that is not there yet, in one call.
    pub(super) async fn put_new(&self, object: &str, bytes: Bytes) -> Result<Head, Failure> {
        let honours = self.honours().await?;
        let length = bytes.len() as u64;
        let nonce = nonce().map_err(Failure::lasting)?;
        let mut headers = self.headers_for(&nonce);
        if honours.if_none_match {
            headers.insert(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        } else if self.head(object).await?.is_some() {
            return Err(exists(object));
        }
        let call = Call::new(What::Put, object).headers(headers).body(bytes);
        let answer = match self.client.ask(&call).await {
            Ok(answer) => Some(answer),
            Err(failure) => {
                let failure = if failure.status == Some(412) {
                    Failure { maybe_done: failure.maybe_done, ..exists(object) }
                } else {
                    failure
                };
                let md5 = hex(&md5_of(&call.body));
                self.settle(object, &nonce, length, Some(&md5), failure).await?;
                None
            }
        };
        if let Some(answer) = &answer {
            self.check_etag(&call, answer).await?;
        }
        self.written(object, &nonce, length).await
    }

    /// A write whose answer may have been lost: done, where the object is there and is ours. `md5`: of its bytes, where the
    /// `ETag` may be that.
    pub(super) async fn settle(
        &self,
        object: &str,
        nonce: &str,
        bytes: u64,
        md5: Option<&str>,
        failure: Failure,
    ) -> Result<(), Failure> {
        if !failure.maybe_done {
            return Err(failure);
        }
        // What stands there may be another's, and then is not ours to remove: that is to be known for certain.
        let is_taken = failure.error.kind() == Kind::Exists;
        let found = if is_taken { self.head_of_new(object).await } else { self.head(object).await };
        let is_ours = |head: &Head| match &head.nonce {
            Some(found) => found == nonce,
            // Metadata are not kept.
            None => md5.is_some() && head.etag.as_ref().map(|etag| etag.trim_matches('"')) == md5,
        };
        match found {
            Ok(Some(head)) if is_ours(&head) && head.bytes == bytes => {
                self.client.tell.log(&format!("the answer was lost, and {object} is there: {}", failure.error));
                Ok(())
            }
            Ok(None) if is_taken => Err(self.lost(object, "it is not there")),
            Err(unseen) if is_taken => Err(unseen),
            _ => Err(failure),
        }
    }

    fn lost(&self, object: &str, cause: &str) -> Failure {
        let Place { bucket, endpoint, .. } = &self.client.place;
        let cause = format!("can't find {object} in bucket {bucket} after it was written at {endpoint}: {cause}");
        Failure::lasting(Error::new(Kind::Storage, cause).hint("the service lost what it had taken: look at its log"))
    }

    /// The look at what was written: it is ours, and has its size.
    pub(super) async fn written(&self, object: &str, nonce: &str, bytes: u64) -> Result<Head, Failure> {
        let head = self.head_of_new(object).await?.ok_or_else(|| self.lost(object, "it is not there"))?;
        // Another's: of two at once the later one won, where the service looks and then writes. One may drop metadata.
        if head.nonce.as_deref().is_some_and(|found| found != nonce) {
            return Err(exists(object));
        }
        if head.bytes != bytes {
            return Err(self.lost(object, &format!("it has {} bytes, and {bytes} were written", head.bytes)));
        }
        Ok(head)
    }

    /// What the service says to have stored is what was sent, where its `ETag`s tell.
    pub(super) async fn check_etag(&self, call: &Call, answer: &Answer) -> Result<(), Failure> {
        let is_md5 = self.honours.get().is_some_and(|honours| honours.etag_is_md5);
        let (true, Some(etag), Some(sent)) = (is_md5, answer.header("etag"), &answer.sent_md5) else { return Ok(()) };
        let sent = BASE64.decode(sent).map(|bytes| hex(&bytes)).unwrap_or_default();
        let by_kms = answer.header("x-amz-server-side-encryption").is_some_and(|by| by.starts_with("aws:kms"));
        if by_kms || etag.trim_matches('"').eq_ignore_ascii_case(&sent) || !self.etag_is_still_md5().await {
            return Ok(());
        }
        let what = call.describe(&self.client.place.bucket);
        let failure = failure::of_nonsense(&what, &self.client.place, "what it stored has another checksum than what was sent");
        let error = failure.error.hint("bytes were changed on their way or at the service: look at both");
        Err(Failure { error, ..failure })
    }

    /// Whether they are MD5s of objects that are written now: the marker may be older than a change of how objects are
    /// encrypted. Where that can't be seen, they are.
    async fn etag_is_still_md5(&self) -> bool {
        let look = async {
            let call = Call::new(What::Put, self.marker()).headers(self.written_with.clone());
            self.client.ask(&call.body(Bytes::from_static(MARKER_TEXT))).await?;
            self.marker_has_md5().await
        };
        self.etag_still_md5.get_or_try_init(|| look).await.copied().unwrap_or(true)
    }

    /// Where what is tried stands.
    pub(super) fn marker(&self) -> String {
        format!("{}{MARKER}", self.prefix)
    }

    async fn marker_has_md5(&self) -> Result<bool, Failure> {
        let (head, md5) = (self.head(&self.marker()).await?, hex(&md5_of(MARKER_TEXT)));
        Ok(head.and_then(|head| head.etag).is_some_and(|etag| etag.trim_matches('"') == md5))
    }
}

/// An object that is there already.
pub(super) fn exists(object: &str) -> Failure {
    let error = Error::new(Kind::Exists, format!("{object} is there already, and nothing is ever overwritten"));
    Failure::lasting(error.hint("run it again: each attempt has names of its own"))
}

fn md5_of(bytes: &[u8]) -> [u8; 16] {
    md5::compute(bytes).0
}

fn written_with(settings: &S3Settings) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| -> Result<()> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Error::new(Kind::Config, format!("{value:?} can't be sent to an S3 service as {name}")))?;
        headers.insert(HeaderName::from_static(name), value);
        Ok(())
    };
    if let Some(class) = &settings.storage_class {
        put("x-amz-storage-class", class)?;
    }
    match &settings.encryption {
        Some(S3Encryption::Aes256) => put("x-amz-server-side-encryption", "AES256")?,
        Some(S3Encryption::Kms(key)) => {
            put("x-amz-server-side-encryption", "aws:kms")?;
            key.as_ref().map_or(Ok(()), |key| put("x-amz-server-side-encryption-aws-kms-key-id", key))?;
        }
        None => {}
    }
    if !settings.tags.is_empty() {
        let pairs =
            settings.tags.iter().map(|(name, value)| [name, value].map(|text| s3::signing::uri_encode(text, true)).join("="));
        put("x-amz-tagging", &pairs.collect::<Vec<_>>().join("&"))?;
    }
    Ok(headers)
}

/// Shares a service with what runs beside it.
pub(super) type Shared = Arc<Service>;
