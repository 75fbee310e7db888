//! What a call that failed means: whether another try may help, and what to tell a person.

use std::error::Error as _;
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;

use crate::error::{Error, Kind};
use crate::storage::retry::retry_after;

/// The longest text of a service that is shown, in characters.
const SHOWN: usize = 300;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened, for a person.
    pub(super) error: Error,
    /// Another try may go better.
    pub(super) passes: bool,
    /// The wait that the service asks for.
    pub(super) after: Option<Duration>,
    /// The service may have done what was asked, in this try or an earlier one.
    pub(super) maybe_done: bool,
    /// The HTTP status, where there was an answer.
    pub(super) status: Option<u16>,
    /// The service's own code: `NoSuchKey`.
    pub(super) code: String,
}

/// Of which bucket, and where: what every message says.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) bucket: String,
    /// With its scheme, without a secret.
    pub(super) endpoint: String,
    pub(super) region: String,
    /// Through which proxy, without its password, and where that is set.
    pub(super) proxy: Option<String>,
}

/// The XML of an error.
#[derive(Deserialize, Default)]
struct Said {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
    #[serde(rename = "Region", default)]
    region: String,
    #[serde(rename = "Endpoint", default)]
    endpoint: String,
}

/// Code and message of an error's body; both empty where it is none.
fn said(body: &[u8]) -> Said {
    let text = String::from_utf8_lossy(body);
    let is_error = text.trim_start().trim_start_matches("<?xml").contains("<Error");
    if !is_error {
        return Said::default();
    }
    quick_xml::de::from_str(&text).unwrap_or_default()
}

/// Whether a body is an S3 error, whatever the status: a Complete that takes long has sent its 200 already.
pub(super) fn is_error_body(body: &[u8]) -> bool {
    !said(body).code.is_empty()
}

impl Failure {
    /// What no try makes better.
    pub(super) fn lasting(error: Error) -> Self {
        Self { error, passes: false, after: None, maybe_done: false, status: None, code: String::new() }
    }

    /// What may pass: no answer, or one that broke off.
    pub(super) fn passing(error: Error) -> Self {
        Self { passes: true, maybe_done: true, ..Self::lasting(error) }
    }

    /// The service has no such object, or upload. Without a code it is another that says so: what stands before a service
    /// that is away.
    pub(super) fn is_absent(&self) -> bool {
        self.status == Some(404) && !matches!(self.code.as_str(), "" | "NoSuchBucket")
    }

    /// The service does not know what was asked for.
    pub(super) fn is_unknown_there(&self) -> bool {
        matches!(self.status, Some(501 | 405)) || self.code == "NotImplemented"
    }
}

/// An answer that is an error.
pub(super) fn of_answer(what: &str, place: &Place, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    let said = said(body);
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let passes = match (status, said.code.as_str()) {
        (_, "NotImplemented") => false,
        (_, "RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable" | "OperationAborted")
        | (200..=299 | 408 | 409 | 425 | 429 | 500 | 502 | 503 | 504, _) => true,
        _ => false,
    };
    let kind = match (status, said.code.as_str()) {
        _ if passes => Kind::Storage,
        (412, _) => Kind::Exists,
        (404, code) if !code.is_empty() => Kind::Missing,
        _ => Kind::StorageDenied,
    };
    let region =
        header("x-amz-bucket-region").map(str::to_owned).or_else(|| (!said.region.is_empty()).then(|| said.region.clone()));
    let words = words_of(status, &said, body);
    let error = Error::new(kind, format!("can't {what} at {}: {words}", place.endpoint));
    let hint = hint_for(status, &said, region.as_deref(), what, place, body);
    let other = if passes {
        "the service is in trouble or busy: look at its log, or try again later"
    } else {
        "look the code up in the service's documentation"
    };
    let hint = hint.unwrap_or_else(|| other.to_owned());
    Failure {
        error: error.hint(hint),
        passes,
        after: header("retry-after").and_then(|text| retry_after(text, header("date"))),
        maybe_done: passes,
        status: Some(status),
        code: said.code,
    }
}

fn words_of(status: u16, said: &Said, body: &[u8]) -> String {
    let shown = |text: &str| -> String {
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
    };
    if !said.code.is_empty() {
        let message = if said.message.is_empty() { String::new() } else { format!(": {}", shown(&said.message)) };
        return format!("{}{message} (HTTP {status})", shown(&said.code));
    }
    let text = shown(&String::from_utf8_lossy(body));
    if status == 407 {
        return "the proxy answered HTTP 407".to_owned();
    }
    if text.is_empty() { format!("the service answered HTTP {status}") } else { format!("HTTP {status}: {text}") }
}

/// What to do about it.
fn hint_for(status: u16, said: &Said, region: Option<&str>, what: &str, place: &Place, body: &[u8]) -> Option<String> {
    let bucket = &place.bucket;
    Some(match (said.code.as_str(), status) {
        ("NoSuchBucket", _) => format!("create the bucket {bucket}, or correct `bucket:` or `endpoint:`; it is never made here"),
        ("SignatureDoesNotMatch", _) => "check `secret_access_key:` and this machine's clock".into(),
        ("InvalidAccessKeyId", _) => "check `access_key_id:`: the service does not know it".into(),
        ("RequestTimeTooSkewed", _) => "set this machine's clock: it and the service's differ by too much".into(),
        ("ExpiredToken" | "TokenRefreshRequired", _) => "get new temporary keys: the session token has expired".into(),
        ("InvalidToken", _) => "check `session_token:`".into(),
        ("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => match region {
            Some(region) => format!("set `region: {region}`: that is where the bucket is, not {}", place.region),
            None => format!("check `region:`: it is {} now", place.region),
        },
        ("PermanentRedirect" | "TemporaryRedirect", _) | (_, 301 | 302 | 307 | 308) => match (region, said.endpoint.as_str()) {
            (Some(region), _) => format!("set `region: {region}`: that is where the bucket is"),
            (None, "") => "correct `region:` or `endpoint:`: the bucket is somewhere else".into(),
            (None, endpoint) => format!("the bucket is at {endpoint}: correct `region:` or `endpoint:`"),
        },
        ("", 407) => hint_of_proxy(place),
        ("", 403) if !is_xml(body) => "is there an S3 service at `endpoint:`, and no other web server?".into(),
        ("AccessDenied" | "AllAccessDisabled" | "", 403) => {
            format!("give the key the permission {} on the bucket {bucket}, or check which key it is", permission_for(what))
        }
        ("KMS.NotFoundException" | "KMS.DisabledException", _) => "check `kms_key_id:`".into(),
        ("InvalidStorageClass", _) => "check `storage_class:`: the service has no such class".into(),
        ("EntityTooLarge", _) => "lower `part_size:`".into(),
        ("InvalidPart" | "EntityTooSmall", _) => "the service wants other parts: set `part_size:` to what it documents".into(),
        ("QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage", _) | (_, 507) => {
            "make room there, or raise the quota".into()
        }
        ("InvalidObjectState", _) => "the object is archived: restore it at the service first".into(),
        ("", 400) if String::from_utf8_lossy(body).to_ascii_lowercase().contains("https") => {
            "the service speaks HTTPS there: write https:// in `endpoint:`".into()
        }
        ("", 401..=404) => "is there an S3 service at `endpoint:`, and no other web server?".into(),
        _ => return None,
    })
}

/// Of a body that says something; an answer to a HEAD has none.
fn is_xml(body: &[u8]) -> bool {
    let text = body.trim_ascii_start();
    text.is_empty() || text.starts_with(b"<?xml")
}

fn hint_of_proxy(place: &Place) -> String {
    match &place.proxy {
        Some(proxy) => format!("look at the proxy, {proxy}: its address, user and password, and whether it reaches the service"),
        None => "is there an S3 service at `endpoint:`, and no proxy?".to_owned(),
    }
}

/// The permission of AWS's names that a call needs; other services follow them.
fn permission_for(what: &str) -> &'static str {
    let is = |word: &str| what.starts_with(word);
    match () {
        () if is("list the uploads") => "s3:ListBucketMultipartUploads",
        () if is("list the parts") => "s3:ListMultipartUploadParts",
        () if is("list") => "s3:ListBucket",
        () if is("delete") => "s3:DeleteObject",
        () if is("abort") => "s3:AbortMultipartUpload",
        () if is("read") || is("look at") => "s3:GetObject (and s3:ListBucket, without which an absent object is forbidden too)",
        () => "s3:PutObject",
    }
}

/// No answer came, or not all of one. `has_answered`: another call had one.
pub(super) fn of_transport(what: &str, place: &Place, has_answered: bool, error: &reqwest::Error) -> Failure {
    let mut chain: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !chain.contains(&text) && !text.starts_with("client error (") {
            chain.push(text);
        }
        source = cause.source();
    }
    let cause = if chain.is_empty() { "the connection failed".to_owned() } else { chain.join(": ") };
    let (lasts, hint) = hint_of_transport(&cause, error.is_connect(), has_answered, place);
    let error = Error::new(Kind::Connection, format!("can't {what} at {}: {cause}", place.endpoint)).hint(hint);
    if lasts { Failure::lasting(error.kind_is(Kind::StorageDenied)) } else { Failure::passing(error) }
}

/// Whether it stays so, and what to do.
fn hint_of_transport(cause: &str, is_connect: bool, has_answered: bool, place: &Place) -> (bool, String) {
    let lower = cause.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (lasts, hint) = match () {
        () if has(&["notvalidforname", "not valid for name"]) => {
            (true, "the service's certificate is for another name: correct `endpoint:`")
        }
        () if has(&["certificate expired", "certificate not valid yet", "certificate has expired"]) => {
            (true, "renew the service's certificate, or set this machine's clock")
        }
        () if has(&["certificate"]) => {
            (true, "the service's certificate is not trusted: give its authority's with `ca_file:`, or correct `endpoint:`")
        }
        () if has(&["invalidcontenttype", "corrupt message", "invalid content type"]) => {
            (true, "the service speaks plain HTTP there: write http:// in `endpoint:`, if the network between is trusted")
        }
        () if has(&["invalid http version"]) => {
            (true, "what is there does not speak HTTP: if it is HTTPS, write https:// in `endpoint:`")
        }
        () if has(&["proxy auth"]) => return (true, hint_of_proxy(place)),
        () if is_connect && place.proxy.is_some() => return (false, hint_of_proxy(place)),
        () if has(&["lookup address", "name or service not known", "failed to resolve", "dns error"]) => {
            (false, "check the host's name in `endpoint:` (or `bucket:` and `region:`), and this machine's DNS")
        }
        () if has(&["connection refused"]) => (false, "is the service running, and are host and port in `endpoint:` right?"),
        () if is_connect && has(&["deadline has elapsed", "timed out"]) => {
            (false, "nothing answers there: check host and port in `endpoint:`, and what firewalls let through")
        }
        () if !has_answered && place.endpoint.starts_with("http:") && has(&["connection reset", "connection closed"]) => {
            (false, "does the service speak HTTPS there? Then write https:// in `endpoint:`; else look at its log")
        }
        () => (false, "look at the network between, and at the service's log"),
    };
    (lasts, hint.to_owned())
}

/// The service said nothing for too long.
pub(super) fn of_silence(what: &str, place: &Place, limit: Duration) -> Failure {
    let cause = format!("can't {what} at {}: nothing moved for {}", place.endpoint, crate::quantity::show_duration(limit));
    Failure::passing(Error::new(Kind::Connection, cause).hint("look at the service, or raise `timeout:` of the storage"))
}

/// An answer that is none of S3's, or broke off.
pub(super) fn of_nonsense(what: &str, place: &Place, cause: &str) -> Failure {
    let cause = format!("can't {what} at {}: {cause}", place.endpoint);
    Failure::passing(Error::new(Kind::Storage, cause).hint("is there an S3 service at `endpoint:`, and no other web server?"))
}

/// A key of a batch that was not deleted.
pub(super) fn of_key(key: &str, place: &Place, code: &str, message: &str) -> Error {
    let said = Said { code: code.to_owned(), message: message.to_owned(), ..Said::default() };
    let what = format!("delete {key} from bucket {}", place.bucket);
    let words = if code.is_empty() { message.to_owned() } else { format!("{code}: {message}") };
    let kind = if matches!(code, "" | "InternalError" | "SlowDown" | "ServiceUnavailable") {
        Kind::Storage
    } else {
        Kind::StorageDenied
    };
    let error = Error::new(kind, format!("can't {what} at {}: {words}", place.endpoint));
    match hint_for(if code == "AccessDenied" { 403 } else { 0 }, &said, None, &what, place, b"") {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
