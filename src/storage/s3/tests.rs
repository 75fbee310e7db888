//! What a service may answer that no real one can be made to answer at will.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::double::{Answer, KEY, Request, Server};
use crate::error::{Kind, Result};
use crate::host::Context;
use crate::names::Key;
use crate::storage::{Leftover, Storage};

fn cx() -> Context {
    Context::for_tests()
}

fn keys(n: usize) -> Vec<Key> {
    (0..n).map(|n| format!("web1/20260612_030000Z/{n}").parse().unwrap()).collect()
}

fn kinds(outcomes: &[Result<()>]) -> Vec<Option<Kind>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(crate::error::Error::kind)).collect()
}

// Deleting.

#[test]
fn outcomes_of_a_batch_may_come_in_any_order() {
    let server = Server::start(|request| {
        let gone = |n: usize| format!("<Deleted><Key>web1/20260612_030000Z/{n}</Key></Deleted>");
        let denied = "<Error><Key>web1/20260612_030000Z/1</Key><Code>AccessDenied</Code><Message>no</Message></Error>";
        request.is("POST", &["?delete"]).then(|| Answer::xml("DeleteResult", &format!("{}{denied}{}", gone(0), gone(2))))
    });
    let outcomes = server.bucket(|_| ()).delete(&keys(3), &cx());
    assert_eq!(kinds(&outcomes), [None, Some(Kind::StorageDenied), None], "{outcomes:?}");
}

#[test]
fn a_key_that_the_service_was_too_busy_for_is_deleted_in_another_call() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let nth = calls.fetch_add(usize::from(request.is("POST", &["?delete"])), Ordering::Relaxed);
        let busy = "<Deleted><Key>web1/20260612_030000Z/0</Key></Deleted>
            <Error><Key>web1/20260612_030000Z/1</Key><Code>SlowDown</Code><Message>later</Message></Error>";
        let done = "<Deleted><Key>web1/20260612_030000Z/1</Key></Deleted>";
        let is_fit = nth == 0 || !String::from_utf8_lossy(&request.body).contains("030000Z/0");
        assert!(is_fit, "what is gone is not asked for again");
        request.is("POST", &["?delete"]).then(|| Answer::xml("DeleteResult", if nth == 0 { busy } else { done }))
    });
    let outcomes = server.bucket(|_| ()).delete(&keys(2), &cx());
    assert_eq!((kinds(&outcomes), server.asked("POST", &["?delete"])), (vec![None, None], 2), "{outcomes:?}");
}

#[test]
fn what_a_service_does_not_say_of_a_key_is_looked_at() {
    let server = Server::start(|request| match request {
        _ if request.is("POST", &["?delete"]) => Some(Answer::xml("DeleteResult", "")),
        _ if request.is("HEAD", &["030000Z/1"]) => Some(Answer::new(200, "x").header("etag", "\"e\"")),
        _ => None,
    });
    let outcomes = server.bucket(|_| ()).delete(&keys(2), &cx());
    assert_eq!(kinds(&outcomes), [None, Some(Kind::Storage)], "{outcomes:?}");
}

// Listing.

/// What a listing gives, or its failure.
fn listed(server: &Server) -> Result<Vec<String>> {
    let mut found = Vec::new();
    server.bucket(|_| ()).list("web1/", &mut |meta| Ok(found.push(meta.key.to_string())), &cx())?;
    Ok(found)
}

#[test]
fn a_listing_that_leads_to_itself_ends() {
    let more = "<IsTruncated>true</IsTruncated>";
    let object = format!("<Contents><Key>{KEY}</Key><Size>1</Size></Contents>");
    let token = |token: &str| format!("{more}{object}<NextContinuationToken>{token}</NextContinuationToken>");
    for page in [more.to_owned(), format!("{more}{object}"), token("t"), token("")] {
        let server = Server::start({
            let page = page.clone();
            move |request| request.is("GET", &["list-type"]).then(|| Answer::xml("ListBucketResult", &page))
        });
        assert_eq!(listed(&server).unwrap_err().kind(), Kind::Storage, "{page}");
        assert!(server.asked("GET", &["list-type"]) <= 2, "{page}");
    }
}

// Leftovers.

const OLD: &str = "<Initiated>2026-06-01T00:00:00Z</Initiated>";

/// A server with these uploads; the answer to a question for the parts of one is the second's.
fn with_uploads(uploads: &str, parts: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    let uploads = uploads.to_owned();
    Server::start(move |request| match request.is("GET", &["uploads"]) {
        true => Some(Answer::xml("ListMultipartUploadsResult", &uploads)),
        false => request.is("GET", &["uploadId"]).then(|| parts(request)),
    })
}

fn leftovers(server: &Server) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    server.bucket(|_| ()).leftovers(&mut |leftover| Ok(found.push(leftover)), &cx())?;
    Ok(found)
}

#[test]
fn the_parts_of_others_uploads_are_not_asked_for() {
    let other = |n| format!("<Upload><Key>video/{n}</Key><UploadId>{n}</UploadId>{OLD}</Upload>");
    let ours = format!("<Upload><Key>{KEY}</Key><UploadId>u1</UploadId>{OLD}</Upload>");
    let uploads = format!("{}{ours}", (0..50).map(other).collect::<String>());
    let server = with_uploads(&uploads, |_| Answer::xml("ListPartsResult", ""));
    let found = leftovers(&server).unwrap();
    assert_eq!((found.len(), server.asked("GET", &["uploadId"])), (1, 1));
}

#[test]
fn an_upload_whose_newest_part_nobody_tells_is_not_taken_for_an_old_one() {
    let ours = format!("<Upload><Key>{KEY}</Key><UploadId>u1</UploadId>{OLD}</Upload>");
    let first = "<Part><Size>5</Size><LastModified>2026-06-01T00:00:01Z</LastModified></Part><IsTruncated>true</IsTruncated>";
    for marker in ["", "<NextPartNumberMarker>soon</NextPartNumberMarker>", "<NextPartNumberMarker>1</NextPartNumberMarker>"] {
        let page = format!("{first}{marker}");
        let server = with_uploads(&ours, move |_| Answer::xml("ListPartsResult", &page));
        assert_eq!(leftovers(&server).unwrap_err().kind(), Kind::Storage, "{marker}");
    }
    let server = with_uploads(&ours, |_| Answer::xml("ListPartsResult", "<Part><Size>5</Size></Part>"));
    assert_eq!(leftovers(&server).unwrap(), []);
}
