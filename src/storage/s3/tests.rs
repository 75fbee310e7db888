//! What a service may answer that no real one can be made to answer at will.

mod double;

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::double::{Answer, KEY, Request, Server, key};
use crate::error::{Kind, Result, from_io};
use crate::host::Context;
use crate::names::Key;
use crate::storage::{Leftover, Storage};

fn cx() -> Context {
    Context::for_tests()
}

fn keys(n: usize) -> Vec<Key> {
    (0..n).map(|n| format!("web1/20260612_030000Z/{n}").parse().unwrap()).collect()
}

#[allow(clippy::unnecessary_wraps)] // as callers of storages have it
fn note<T>(found: &mut Vec<T>, one: T) -> Result<()> {
    found.push(one);
    Ok(())
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
    server.bucket(|_| ()).list("web1/", &mut |meta| note(&mut found, meta.key.to_string()), &cx())?;
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
    Server::start(move |request| {
        if request.is("GET", &["uploads"]) {
            return Some(Answer::xml("ListMultipartUploadsResult", &uploads));
        }
        request.is("GET", &["uploadId"]).then(|| parts(request))
    })
}

fn leftovers(server: &Server) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    server.bucket(|_| ()).leftovers(&mut |leftover| note(&mut found, leftover), &cx())?;
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

// Reading.

const BYTES: &[u8] = b"CREATE TABLE users (id int);\n";

/// Of an object of [`BYTES`], which is answered by `get`.
fn with_object(get: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.method.as_str() {
        "HEAD" if request.is("HEAD", &[KEY]) => Some(Answer::new(200, BYTES).header("etag", "\"e\"")),
        "GET" if request.is("GET", &[KEY]) => Some(get(request)),
        _ => None,
    })
}

fn ranged(body: &[u8], first: usize) -> Answer {
    let range = format!("bytes {first}-{}/{}", BYTES.len() - 1, BYTES.len());
    Answer { status: 206, ..Answer::new(206, body) }.header("content-range", range)
}

fn read(server: &Server) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = server.bucket(|_| ()).read(&key(), 0, &cx())?;
    reader.read_to_end(&mut bytes).map_err(|error| from_io(error, Kind::Internal, ""))?;
    Ok(bytes)
}

#[test]
fn a_range_that_came_whole_is_whole_though_its_answer_never_ended() {
    let server = with_object(|_| Answer { open_ended: true, ..ranged(BYTES, 0) });
    assert_eq!(read(&server).unwrap(), BYTES);
    assert_eq!(server.asked("GET", &[KEY]), 1);
}

#[test]
fn a_range_that_was_cut_is_taken_up_where_it_was() {
    let calls = AtomicUsize::new(0);
    let server = with_object(move |request| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            return Answer { open_ended: true, ..ranged(&BYTES[..7], 0) };
        }
        assert_eq!(request.headers["range"], format!("bytes=7-{}", BYTES.len() - 1));
        ranged(&BYTES[7..], 7)
    });
    assert_eq!(read(&server).unwrap(), BYTES);
}

#[test]
fn after_an_error_a_reader_gives_nothing_more() {
    let server = with_object(|_| Answer::error(403, "AccessDenied"));
    let mut reader = server.bucket(|_| ()).read(&key(), 0, &cx()).unwrap();
    let mut buffer = [0; 8];
    for _ in 0..2 {
        assert!(reader.read(&mut buffer).is_err());
    }
}

#[test]
fn a_weak_etag_is_no_condition_of_a_read() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Some(Answer::new(200, BYTES).header("etag", "W/\"e\"")),
        _ if request.headers.contains_key("if-match") => Some(Answer::error(412, "PreconditionFailed")),
        _ => Some(ranged(BYTES, 0)),
    });
    assert_eq!(read(&server).unwrap(), BYTES);
}

#[test]
fn of_an_object_that_is_longer_than_any_small_one_its_beginning_is_read() {
    let most = (16 << 20) + 1;
    let server = Server::start(move |request| {
        let all = vec![b' '; most + 1];
        let Some(range) = request.headers.get("range") else { return Some(Answer::new(200, all).header("etag", "\"e\"")) };
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let range = format!("bytes {first}-{last}/{}", all.len());
        Some(Answer::new(206, &all[first..=last]).header("content-range", range))
    });
    let read = server.bucket(|_| ()).read_small(&[key()], most as u64, &cx()).remove(0);
    assert_eq!(read.unwrap().len(), most);
}

// Looking.

#[test]
fn an_object_is_absent_where_an_s3_service_says_so() {
    let stat = |server: &Server| server.bucket(|_| ()).stat(&key(), &cx());
    let absent = Server::start(|_| None);
    assert_eq!(stat(&absent).unwrap(), None);
    // What stands before a service that is away may say so, too.
    let page = Server::start(|_| Some(Answer::new(404, "default backend - 404")));
    assert_eq!(stat(&page).unwrap_err().kind(), Kind::StorageDenied);
    assert_eq!(read(&page).unwrap_err().kind(), Kind::StorageDenied);
    let bucket = page.bucket(|_| ());
    let leftover = Leftover { key: key(), handle: "u1".into(), bytes: None, modified: chrono::DateTime::default() };
    assert!(bucket.discard(&leftover, &cx()).is_err());
}

#[test]
fn an_object_that_is_not_seen_at_the_first_look_is_looked_at_again() {
    let heads = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" if heads.fetch_add(1, Ordering::Relaxed) == 0 => Some(Answer::error(404, "")),
        "HEAD" => Some(Answer::new(200, BYTES).header("etag", "\"e\"")),
        _ => Some(ranged(&BYTES[..1], 0)),
    });
    let found = server.bucket(|_| ()).stat(&key(), &cx()).unwrap();
    assert_eq!(found.and_then(|meta| meta.bytes), Some(BYTES.len() as u64));
}

// Writing.

#[test]
fn a_write_that_is_not_seen_at_once_is_looked_at_again() {
    let (heads, nonce) = (AtomicUsize::new(0), Mutex::new(None));
    let server = Server::start(move |request| {
        let mut nonce = nonce.lock().unwrap();
        if request.is("PUT", &[KEY]) {
            *nonce = request.headers.get(NONCE).cloned();
        }
        (request.is("HEAD", &[KEY]) && heads.fetch_add(1, Ordering::Relaxed) > 0)
            .then(|| Answer::new(200, BYTES).header("etag", "\"e\"").header(NONCE, nonce.clone().unwrap()))
    });
    let bucket = server.bucket(|_| ());
    assert_eq!(bucket.put_new(&key(), BYTES, &cx()).unwrap().bytes, Some(BYTES.len() as u64));
}

const NONCE: &str = "x-amz-meta-db-backup-nonce";

/// Its first write's answer is lost, and the second finds what that made; the look at it is answered by `head`.
fn with_a_lost_answer(head: impl Fn() -> Answer + Send + Sync + 'static) -> Server {
    let puts = AtomicUsize::new(0);
    Server::start(move |request| match request.method.as_str() {
        "PUT" if request.is("PUT", &[KEY]) => Some(match puts.fetch_add(1, Ordering::Relaxed) {
            0 => Answer::error(503, "SlowDown"),
            _ => Answer::error(412, "PreconditionFailed"),
        }),
        "HEAD" if request.is("HEAD", &[KEY]) => Some(head()),
        _ => None,
    })
}

#[test]
fn whose_object_it_is_that_stands_there_is_not_guessed() {
    let put = |server: &Server| server.bucket(|_| ()).put_new(&key(), BYTES, &cx()).unwrap_err().kind();
    let anothers = with_a_lost_answer(|| Answer::new(200, BYTES).header("etag", "\"e\"").header(NONCE, "another"));
    assert_eq!(put(&anothers), Kind::Exists);
    // It may be ours, and is to be removed.
    let away = with_a_lost_answer(|| Answer::error(503, ""));
    assert_eq!(put(&away), Kind::Storage);
}

#[test]
fn bytes_that_are_there_after_a_lost_answer_are_ours_where_metadata_are_not_kept() {
    let md5 = format!("\"{:x}\"", md5::compute(BYTES));
    let server = with_a_lost_answer(move || Answer::new(200, BYTES).header("etag", md5.clone()));
    assert!(server.bucket(|_| ()).put_new(&key(), BYTES, &cx()).is_ok());
}

#[test]
fn etags_that_are_no_checksums_any_more_are_not_compared() {
    let encrypted = |request: &Request| {
        let etag = format!("\"{:x}\"", md5::compute([b"secret".as_slice(), &request.body].concat()));
        Answer::new(200, "").header("etag", etag)
    };
    let (nonce, marked) = (Mutex::new(None), Mutex::new(None::<String>));
    let server = Server::start(move |request| {
        let mut marked = marked.lock().unwrap();
        match request.method.as_str() {
            "PUT" if request.is("PUT", &[KEY]) => {
                *nonce.lock().unwrap() = request.headers.get(NONCE).cloned();
                Some(encrypted(request))
            }
            "PUT" if !request.headers.contains_key("if-none-match") => {
                *marked = Some("\"other\"".into());
                Some(encrypted(request))
            }
            "HEAD" if request.is("HEAD", &[KEY]) => {
                let nonce = nonce.lock().unwrap().clone()?;
                Some(Answer::new(200, BYTES).header("etag", "\"e\"").header(NONCE, nonce))
            }
            "HEAD" => marked.clone().map(|etag| Answer::new(200, "").header("etag", etag)),
            _ => None,
        }
    });
    assert_eq!(server.bucket(|_| ()).put_new(&key(), BYTES, &cx()).unwrap().bytes, Some(BYTES.len() as u64));
}

#[test]
fn bytes_that_were_stored_otherwise_are_told() {
    let server = Server::start(|request| {
        request.is("PUT", &[KEY]).then(|| Answer::new(200, "").header("etag", "\"00000000000000000000000000000000\""))
    });
    let error = server.bucket(|_| ()).put_new(&key(), BYTES, &cx()).unwrap_err();
    assert!(error.to_string().contains("another checksum"), "{error}");
}

// Uploading.

/// An upload of two parts that failed: what its abort comes to.
fn given_up(server: &Server) -> Result<()> {
    let bucket = server.bucket(|settings| settings.retries = 0);
    let mut upload = bucket.upload(&key(), None, &cx()).unwrap();
    assert!(upload.write(&vec![0; 11 << 20]).is_err());
    upload.abort()
}

#[test]
fn an_upload_that_may_have_begun_and_can_not_be_seen_is_told() {
    let server = |listing: fn() -> Answer| {
        Server::start(move |request| match request {
            _ if request.is("POST", &["?uploads"]) => Some(Answer::error(503, "SlowDown")),
            _ => request.is("GET", &["uploads"]).then(listing),
        })
    };
    for unseen in [|| Answer::error(403, "AccessDenied"), || Answer::error(503, "SlowDown")] {
        let error = given_up(&server(unseen)).unwrap_err();
        assert!(error.to_string().contains("can't list the uploads"), "{error}");
    }
    let seen = server(|| {
        Answer::xml("ListMultipartUploadsResult", &format!("<Upload><Key>{KEY}</Key><UploadId>u1</UploadId></Upload>"))
    });
    given_up(&seen).unwrap();
    assert_eq!(seen.asked("DELETE", &["uploadId=u1"]), 1);
}

#[test]
fn an_upload_that_is_known_is_aborted_also_where_none_are_listed() {
    let server = Server::start(|request| match request {
        _ if request.is("PUT", &["partNumber"]) => Some(Answer::error(403, "AccessDenied")),
        _ => request.is("GET", &["uploads"]).then(|| Answer::error(403, "AccessDenied")),
    });
    let bucket = server.bucket(|_| ());
    let mut upload = bucket.upload(&key(), None, &cx()).unwrap();
    upload.write(&vec![0; 11 << 20]).unwrap();
    assert_eq!(upload.commit().unwrap_err().kind(), Kind::StorageDenied);
    assert_eq!(server.asked("DELETE", &["uploadId=u1"]), 1);
}

#[test]
fn an_error_without_an_end_is_one() {
    let server = Server::start(|_| Some(Answer { endless: true, ..Answer::new(403, vec![b'x'; 1 << 20]) }));
    assert_eq!(server.bucket(|_| ()).list("", &mut |_| Ok(()), &cx()).unwrap_err().kind(), Kind::StorageDenied);
}
