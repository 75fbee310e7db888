//! Many objects at once: listed page by page, deleted in batches, and uploads that never ended.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::answers::{self, Begun, DeleteError, Deleted, Listed, Page, PartsPage, UnderWay, UploadsPage};
use super::call::{Call, What, upload_for_query};
use super::client::wait_after;
use super::failure::{self, Failure};
use super::service::{Service, Shared};
use crate::error::{Error, Kind, Result};
use crate::storage::retry::Backoff;

/// The most keys of one call.
pub(super) const BATCH: usize = 1000;

/// The code of an answer that came and could not be read.
const UNREADABLE: &str = "unreadable";

/// Where a listing goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    token: Option<String>,
    after: Option<String>,
}

/// A page of a listing, and where the next one begins.
pub(super) async fn page(service: &Service, prefix: &str, from: Cursor) -> Result<(Vec<Listed>, Option<Cursor>), Failure> {
    let ask = |encoded| {
        let Cursor { token, after } = from.clone();
        Call::new(What::List { prefix: prefix.to_owned(), token, after, most: BATCH, encoded }, "")
    };
    let mut call = ask(false);
    let mut page: Result<Page, Failure> = parsed(service, &call).await;
    // Somebody's key that XML can't hold. Not the first way: a service may say that keys are encoded which are not.
    if page.as_ref().is_err_and(|failure| failure.code == UNREADABLE) {
        call = ask(true);
        page = parsed(service, &call).await;
    }
    let page = page?;
    let mut listed = page.contents;
    decode(page.encoding_type.as_deref(), listed.iter_mut().map(|object| &mut object.key));
    if !page.is_truncated {
        return Ok((listed, None));
    }
    let next = match page.next_continuation_token.filter(|token| !token.is_empty()) {
        Some(token) => Cursor { token: Some(token), after: None },
        None => Cursor { token: None, after: listed.last().map(|object| object.key.clone()) },
    };
    // A page that leads to itself would never end.
    if next == from || next == Cursor::default() {
        let what = call.describe(&service.client.place.bucket);
        return Err(failure::of_nonsense(&what, &service.client.place, "its pages do not go on"));
    }
    Ok((listed, Some(next)))
}

async fn parsed<T: for<'a> serde::Deserialize<'a>>(service: &Service, call: &Call) -> Result<T, Failure> {
    let answer = service.client.ask(call).await?;
    answers::parse(&answer.body).map_err(|cause| {
        let failure = failure::of_nonsense(&call.describe(&service.client.place.bucket), &service.client.place, &cause);
        Failure { maybe_done: answer.again, code: UNREADABLE.to_owned(), ..failure }
    })
}

/// Keys of an answer are encoded where it says so.
fn decode<'a>(encoding: Option<&str>, keys: impl Iterator<Item = &'a mut String>) {
    if encoding != Some("url") {
        return;
    }
    for key in keys {
        // As in a form: a plus is a space.
        let plain = key.replace('+', " ");
        *key = percent_encoding::percent_decode_str(&plain).decode_utf8_lossy().into_owned();
    }
}

/// Deletes; each key's own outcome, in their order. What the service was too busy for is asked of it again.
pub(super) async fn delete(service: &Service, keys: &[String]) -> Vec<Result<(), Error>> {
    let client = &service.client;
    let mut outcomes = delete_once(service, keys).await;
    let mut backoff = Backoff::new(client.retries);
    while let Some(busy) = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).find(|failure| failure.passes) {
        let Some(wait) = wait_after(busy, &mut backoff) else { break };
        client.tell.again(&busy.error, "trying again", wait);
        tokio::time::sleep(wait).await;
        let passes = |outcome: &Result<(), Failure>| outcome.as_ref().is_err_and(|failure| failure.passes);
        let (at, left): (Vec<usize>, Vec<String>) =
            (0..).zip(keys).filter(|(at, _)| passes(&outcomes[*at])).map(|(at, key)| (at, key.clone())).unzip();
        for (at, outcome) in at.into_iter().zip(delete_once(service, &left).await) {
            outcomes[at] = outcome;
        }
    }
    outcomes.into_iter().map(|outcome| outcome.map_err(|failure| failure.error)).collect()
}

/// One call for all of them. A failure of the call itself has been tried again already: it lasts.
async fn delete_once(service: &Service, keys: &[String]) -> Vec<Result<(), Failure>> {
    let call = Call::new(What::Delete(keys.to_vec()), "");
    let deleted: Deleted = match parsed(service, &call).await {
        Ok(deleted) => deleted,
        // Some services have no call for many.
        Err(failure) if failure.is_unknown_there() => return one_by_one(service, keys).await,
        Err(failure) => return keys.iter().map(|_| Err(Failure::lasting(failure.error.copy()))).collect(),
    };
    let gone: BTreeSet<&str> = deleted.deleted.iter().map(|object| object.key.as_str()).collect();
    let failed: BTreeMap<&str, &DeleteError> = deleted.error.iter().map(|error| (error.key.as_str(), error)).collect();
    let mut outcomes = Vec::new();
    for key in keys {
        outcomes.push(match failed.get(key.as_str()) {
            Some(error) if error.code != "NoSuchKey" => {
                let error = failure::of_key(key, &service.client.place, &error.code, &error.message);
                Err(Failure { passes: error.kind().is_transient(), ..Failure::lasting(error) })
            }
            None if !gone.contains(key.as_str()) => gone_unsaid(service, key).await,
            _ => Ok(()),
        });
    }
    outcomes
}

/// Some services speak of failures alone.
async fn gone_unsaid(service: &Service, key: &str) -> Result<(), Failure> {
    match service.stat(key).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => {
            let cause = "the service did not say that it is gone, and it is not";
            Err(Failure::lasting(failure::of_key(key, &service.client.place, "", cause)))
        }
        Err(failure) => Err(Failure::lasting(failure.error)),
    }
}

async fn one_by_one(service: &Service, keys: &[String]) -> Vec<Result<(), Failure>> {
    let mut outcomes = Vec::new();
    for key in keys {
        outcomes.push(match service.client.ask(&Call::new(What::DeleteOne, key)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_absent() => Ok(()),
            Err(failure) => Err(Failure::lasting(failure.error)),
        });
    }
    outcomes
}

/// An upload that has not ended.
pub(super) struct Pending {
    pub(super) object: String,
    pub(super) id: String,
    pub(super) bytes: u64,
    /// When its newest part came, or it began.
    pub(super) modified: DateTime<Utc>,
}

/// A page of the uploads under way, without a look at their parts, and where the next one begins.
async fn uploads_page(
    service: &Service,
    prefix: &str,
    from: Option<(String, Option<String>)>,
) -> Result<(Vec<UnderWay>, Option<(String, Option<String>)>), Failure> {
    let (key, upload) = from.clone().map_or((None, None), |(key, upload)| (Some(key), upload));
    let call = Call::new(What::ListUploads { prefix: prefix.to_owned(), key, upload }, "");
    let mut page: UploadsPage = parsed(service, &call).await?;
    let next = page.next_key_marker.take().filter(|key| page.is_truncated && !key.is_empty());
    let next = next.map(|key| (key, page.next_upload_id_marker.take().filter(|id| !id.is_empty())));
    if page.is_truncated && (next.is_none() || next == from) {
        let what = call.describe(&service.client.place.bucket);
        return Err(failure::of_nonsense(&what, &service.client.place, "its pages do not go on"));
    }
    decode(page.encoding_type.as_deref(), page.uploads.iter_mut().map(|upload| &mut upload.key));
    Ok((page.uploads, next))
}

/// The uploads under way below a prefix whose objects `is_ours` takes; none where the service can't tell.
pub(super) async fn pending(service: &Service, prefix: &str, is_ours: impl Fn(&str) -> bool) -> Result<Vec<Pending>, Failure> {
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let (uploads, next) = match uploads_page(service, prefix, from).await {
            Err(failure) if failure.is_unknown_there() => return Ok(found),
            other => other?,
        };
        for upload in uploads.into_iter().filter(|upload| upload.key.starts_with(prefix) && is_ours(&upload.key)) {
            found.extend(with_parts(service, upload).await?);
        }
        from = next;
        if from.is_none() {
            return Ok(found);
        }
    }
}

/// What has come of it; none where it has ended since, or nobody tells its age: that one is not ours to judge.
async fn with_parts(service: &Service, upload: UnderWay) -> Result<Option<Pending>, Failure> {
    let Some(begun) = answers::time(upload.initiated.as_ref()) else { return Ok(None) };
    let (mut bytes, mut modified, mut after) = (0_u64, begun, None);
    loop {
        let call = Call::new(What::ListParts { upload: upload.upload_id.clone(), after }, &upload.key);
        let page: PartsPage = match parsed(service, &call).await {
            Err(failure) if failure.is_absent() => return Ok(None),
            other => other?,
        };
        for part in &page.parts {
            bytes = bytes.saturating_add(part.size.unwrap_or(0));
            let Some(came) = answers::time(part.last_modified.as_ref()) else { return Ok(None) };
            modified = modified.max(came);
        }
        if !page.is_truncated {
            return Ok(Some(Pending { object: upload.key, id: upload.upload_id, bytes, modified }));
        }
        let next = page.next_part_number_marker.and_then(|marker| marker.trim().parse().ok());
        // The newest may be on a page that does not come.
        if next.is_none() || next <= after {
            let what = call.describe(&service.client.place.bucket);
            return Err(failure::of_nonsense(&what, &service.client.place, "its pages do not go on"));
        }
        after = next;
    }
}

/// The ids of the uploads of one object, as they stand in a query.
pub(super) async fn uploads_of(service: &Shared, object: &str) -> Result<Vec<String>, Failure> {
    let (uploads, _) = uploads_page(service, object, None).await?;
    let own = uploads.into_iter().filter(|upload| upload.key == object);
    Ok(own.map(|upload| upload_for_query(&upload.upload_id)).collect())
}

/// Begins an upload, and gives it up: both are rights of their own.
pub(super) async fn begin_and_abort(service: &Service, object: &str) -> Result<(), Failure> {
    let begun: Begun = parsed(service, &Call::new(What::Initiate, object).headers(service.headers_for("probe"))).await?;
    abort(service, object, &upload_for_query(&begun.upload_id)).await
}

/// Aborts an upload; one that is gone is aborted. `id` as it stands in a query.
pub(super) async fn abort(service: &Service, object: &str, id: &str) -> Result<(), Failure> {
    match service.client.ask(&Call::new(What::Abort { upload: id.to_owned() }, object)).await {
        Err(failure) if !failure.is_absent() => Err(failure),
        _ => Ok(()),
    }
}

/// An error that is about the whole place where one object was asked for.
pub(super) fn of_object(failure: Failure) -> Error {
    let absent_place = failure.code == "NoSuchBucket";
    if absent_place { failure.error.kind_is(Kind::StorageDenied) } else { failure.error }
}
