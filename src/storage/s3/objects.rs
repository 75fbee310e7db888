//! Many objects at once: listed page by page, deleted in batches, and uploads that never ended.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::answers::{self, Deleted, Listed, Page, PartsPage, UnderWay, UploadsPage};
use super::call::{Call, What, upload_for_query};
use super::failure::{self, Failure};
use super::service::{Service, Shared};
use crate::error::{Error, Kind, Result};

/// The most keys of one call.
pub(super) const BATCH: usize = 1000;

/// The code of an answer that came and could not be read.
const UNREADABLE: &str = "unreadable";

/// Where a listing goes on.
#[derive(Debug, Clone, Default)]
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
    if next.token.is_none() && next.after.is_none() || next.token.is_some() && next.token == from.token {
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

/// Deletes; each key's own outcome, in their order.
pub(super) async fn delete(service: &Service, keys: &[String]) -> Vec<Result<(), Error>> {
    let call = Call::new(What::Delete(keys.to_vec()), "");
    let deleted: Deleted = match parsed(service, &call).await {
        Ok(deleted) => deleted,
        // Some services have no call for many.
        Err(failure) if failure.is_unknown_there() => return one_by_one(service, keys).await,
        Err(failure) => return keys.iter().map(|_| Err(failure.error.copy())).collect(),
    };
    let gone: BTreeSet<&str> = deleted.deleted.iter().map(|object| object.key.as_str()).collect();
    let outcome = |key: &String| {
        let failed = deleted.error.iter().find(|error| error.key == *key && error.code != "NoSuchKey");
        match failed {
            None if gone.contains(key.as_str()) || deleted.error.iter().any(|error| error.key == *key) => Ok(()),
            None => Err(failure::of_key(key, &service.client.place, "", "the service did not say that it is gone")),
            Some(error) => Err(failure::of_key(key, &service.client.place, &error.code, &error.message)),
        }
    };
    keys.iter().map(outcome).collect()
}

async fn one_by_one(service: &Service, keys: &[String]) -> Vec<Result<(), Error>> {
    let mut outcomes = Vec::new();
    for key in keys {
        outcomes.push(match service.client.ask(&Call::new(What::DeleteOne, key)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_absent() => Ok(()),
            Err(failure) => Err(failure.error),
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

/// All uploads under way below a prefix; none where the service can't tell.
pub(super) async fn pending(service: &Service, prefix: &str) -> Result<Vec<Pending>, Failure> {
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let (uploads, next) = match uploads_page(service, prefix, from).await {
            Err(failure) if failure.is_unknown_there() => return Ok(found),
            other => other?,
        };
        for upload in uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)) {
            found.extend(with_parts(service, upload).await?);
        }
        from = next;
        if from.is_none() {
            return Ok(found);
        }
    }
}

/// What has come of it; none where it has ended since.
async fn with_parts(service: &Service, upload: UnderWay) -> Result<Option<Pending>, Failure> {
    let begun = answers::time(upload.initiated.as_ref());
    let (mut bytes, mut newest, mut after) = (0, begun, None);
    loop {
        let call = Call::new(What::ListParts { upload: upload.upload_id.clone(), after }, &upload.key);
        let page: PartsPage = match parsed(service, &call).await {
            Err(failure) if failure.is_absent() => return Ok(None),
            other => other?,
        };
        bytes += page.parts.iter().filter_map(|part| part.size).sum::<u64>();
        newest = newest.max(page.parts.iter().filter_map(|part| answers::time(part.last_modified.as_ref())).max());
        let next = page.next_part_number_marker.and_then(|marker| marker.parse().ok()).filter(|_| page.is_truncated);
        if next.is_none() || next == after {
            break;
        }
        after = next;
    }
    // One whose age nobody tells is not ours to judge.
    Ok(newest.map(|modified| Pending { object: upload.key, id: upload.upload_id, bytes, modified }))
}

/// The ids of the uploads of one object, as they stand in a query.
pub(super) async fn uploads_of(service: &Shared, object: &str) -> Result<Vec<String>, Failure> {
    let (uploads, _) = uploads_page(service, object, None).await?;
    let own = uploads.into_iter().filter(|upload| upload.key == object);
    Ok(own.map(|upload| upload_for_query(&upload.upload_id)).collect())
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
