//! What the tests on S3 rely on.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::proxy::{Call, Fault, Kind, Proxy};
use super::s3::{self, S3Bucket};
use super::s3_request::{Answer, Request, send};
use super::{LONG, S3sFs, Test, eventually, holds_within};

#[test]
fn a_bucket_holds_what_is_put_there() {
    for server in s3::all() {
        let (bucket, other) = (server.bucket(), server.bucket());
        assert!(bucket.keys().is_empty() && bucket.name() != other.name());
        let keys = ["a b/c+d", "a/%41", "a/b", "größe/~x", "x&y=z/<1>"];
        for key in keys {
            bucket.put(key, key.as_bytes());
        }
        assert_eq!(bucket.keys(), keys, "{}", server.name());
        for key in keys {
            assert_eq!(bucket.get(key).unwrap(), key.as_bytes(), "{}", server.name());
        }
        bucket.remove("a/b");
        assert_eq!((bucket.get("a/b"), bucket.keys().len()), (None, 4));
        assert!(other.keys().is_empty());
    }
}

#[test]
fn more_than_a_page_of_keys_is_listed() {
    for server in s3::all() {
        let bucket = server.bucket();
        for number in 0..1003 {
            bucket.put(&format!("run/{number:04}"), b"");
        }
        assert_eq!(bucket.keys().len(), 1003, "{}", server.name());
    }
}

#[test]
fn uploads_under_way_are_told_where_the_server_can() {
    for server in s3::all() {
        let bucket = server.bucket();
        let begin = Request { method: "POST", query: vec![("uploads", String::new())], ..bucket.request("a/b") };
        bucket.ask(&begin).expect(200);
        let expected = (server.name() == "Ceph").then(|| vec!["a/b".to_owned()]);
        assert_eq!(bucket.uploads(), expected, "{}", server.name());
        assert!(bucket.keys().is_empty());
    }
}

#[test]
fn a_wrong_signature_is_refused() {
    for server in s3::all() {
        let bucket = server.bucket();
        let odd = Request { headers: vec![("x-amz-date", "20200101T000000Z".into())], ..bucket.request("a") };
        let status = send(server.port(), &odd).unwrap().status;
        assert!([400, 403].contains(&status), "{}: {status}", server.name());
    }
}

const VICTIM: &str = "DB_BACKUP_TEST_S3_VICTIM";

/// Not a test by itself: the process that the next one kills.
#[test]
fn a_process_with_s3_servers_that_waits_to_be_killed() {
    let Some(file) = std::env::var_os(VICTIM) else { return };
    let places = s3::all().into_iter().map(|server| format!("{} {}\n", server.port(), server.directory().display()));
    fs::write(&file, places.collect::<String>() + "end\n").unwrap();
    eventually("it is killed", || false);
}

#[test]
fn a_killed_test_process_leaves_no_s3_server() {
    let test = Test::new();
    let file = test.path("place");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::s3_tests::a_process_with_s3_servers_that_waits_to_be_killed"])
        .env(VICTIM, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let places = || fs::read_to_string(&file).unwrap_or_default();
    // One of them takes its time to start.
    assert!(holds_within(LONG, || places().ends_with("end\n")), "its servers don't run");
    victim.kill().unwrap();
    victim.wait().unwrap();
    for place in places().lines().filter(|line| *line != "end") {
        let (port, directory) = place.split_once(' ').unwrap();
        let port: u16 = port.parse().unwrap();
        eventually("a server is gone", || TcpStream::connect(("127.0.0.1", port)).is_err());
        eventually("its directory is gone", || !Path::new(directory).exists());
    }
}

/// A bucket with one object of 1 MB, `a/b`, and a proxy before it.
fn proxied() -> Option<(S3Bucket, Proxy)> {
    let bucket = S3sFs::shared()?.bucket();
    bucket.put("a/b", &vec![7; 1_000_000]);
    let proxy = Proxy::before(bucket.server());
    Some((bucket, proxy))
}

fn try_get(proxy: &Proxy, bucket: &S3Bucket) -> std::io::Result<Answer> {
    send(proxy.port(), &bucket.request("a/b"))
}

fn try_put(proxy: &Proxy, bucket: &S3Bucket, key: &str) -> std::io::Result<Answer> {
    send(proxy.port(), &Request { method: "PUT", body: &vec![8; 500_000], ..bucket.request(key) })
}

#[test]
fn a_proxy_passes_on_what_it_is_not_told_to_spoil() {
    for server in s3::all() {
        let (bucket, proxy) = (server.bucket(), Proxy::before(server));
        assert_eq!(try_put(&proxy, &bucket, "a/b").unwrap().status, 200);
        assert_eq!(try_get(&proxy, &bucket).unwrap().body, vec![8; 500_000]);
        let head = Request { method: "HEAD", ..bucket.request("a/b") };
        let head = send(proxy.port(), &head).unwrap();
        assert!(head.status == 200 && head.head.contains("content-length: 500000") && head.body.is_empty());
        let list = Request { query: vec![("list-type", "2".into())], ..bucket.request("") };
        assert_eq!(send(proxy.port(), &list).unwrap().elements("Key"), ["a/b"]);
        let kinds: Vec<_> = proxy.log().iter().map(|call| call.kind).collect();
        assert_eq!(kinds, [Kind::Put, Kind::Get, Kind::Head, Kind::List]);
    }
}

#[test]
fn a_proxy_keeps_connections_open() {
    let Some((_, proxy)) = proxied() else { return };
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").unwrap();
        let mut block = [0; 4096];
        let count = stream.read(&mut block).unwrap();
        // Not signed.
        assert!(block[..count].starts_with(b"HTTP/1.1 403 "));
        while !String::from_utf8_lossy(&block).contains("</Error>") && stream.read(&mut block).unwrap() > 0 {}
    }
    assert_eq!(proxy.calls(Kind::List), 3);
}

#[test]
fn requests_are_told_apart() {
    let Some((bucket, proxy)) = proxied() else { return };
    let asked = [
        ("POST", "a", "uploads", Kind::Initiate),
        ("PUT", "a", "partNumber", Kind::Part),
        ("POST", "a", "uploadId", Kind::Complete),
        ("DELETE", "a", "uploadId", Kind::Abort),
        ("GET", "", "uploads", Kind::Uploads),
        ("GET", "a", "uploadId", Kind::Parts),
        ("POST", "", "delete", Kind::Delete),
        ("DELETE", "a", "x-id", Kind::Delete),
        ("GET", "", "location", Kind::Other),
        ("HEAD", "", "x-id", Kind::Head),
    ];
    for (method, key, query, kind) in asked {
        let _ = send(proxy.port(), &Request { method, query: vec![(query, "1".into())], ..bucket.request(key) });
        let Some(Call { kind: found, method: named, .. }) = proxy.log().pop() else { panic!("no call") };
        assert_eq!((found, named.as_str()), (kind, method), "{query}");
    }
}

#[test]
fn a_fault_meets_the_request_it_is_armed_for() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail(Kind::Get, 2, Fault::Status(503, "SlowDown", Some(3)));
    proxy.fail_times(Kind::Put, 1, 2, Fault::Status(500, "InternalError", None));
    let status = |answer: std::io::Result<Answer>| answer.unwrap().status;
    assert_eq!(status(try_get(&proxy, &bucket)), 200);
    let refused = try_get(&proxy, &bucket).unwrap();
    assert!(refused.head.contains("retry-after: 3\r\n"), "{}", refused.head);
    assert_eq!((refused.status, refused.elements("Code")), (503, vec!["SlowDown".to_owned()]));
    assert_eq!(status(try_get(&proxy, &bucket)), 200);
    let puts = [(); 3].map(|()| status(try_put(&proxy, &bucket, "c")));
    assert_eq!((puts, proxy.spoiled()), ([500, 500, 200], 3));
    proxy.fail_all(Fault::Status(503, "SlowDown", None));
    assert_eq!([status(try_get(&proxy, &bucket)), status(try_put(&proxy, &bucket, "d"))], [503, 503]);
    proxy.heal();
    assert_eq!(status(try_get(&proxy, &bucket)), 200);
    assert_eq!(bucket.keys(), ["a/b", "c"]);
}

#[test]
fn a_reset_is_one_and_the_server_never_hears_of_the_request() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail_all(Fault::Reset);
    assert_eq!(try_get(&proxy, &bucket).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(try_put(&proxy, &bucket, "c").is_err());
    assert_eq!(bucket.keys(), ["a/b"]);
}

#[test]
fn a_cut_ends_a_body_half_way() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail_all(Fault::Cut);
    assert_eq!(try_get(&proxy, &bucket).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(try_put(&proxy, &bucket, "c").is_err());
    assert_eq!(bucket.keys(), ["a/b"]);
}

#[test]
fn a_lost_answer_is_of_work_that_was_done() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail_all(Fault::LostAnswer);
    assert!(try_put(&proxy, &bucket, "c").is_err());
    assert_eq!(bucket.keys(), ["a/b", "c"]);
}

#[test]
fn a_wrong_body_comes_as_it_was_given() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail(Kind::Get, 1, Fault::Body(b"<html>Sign in".to_vec()));
    let answer = try_get(&proxy, &bucket).unwrap().expect(200);
    assert!(answer.head.contains("text/html") && answer.text() == "<html>Sign in");
}

#[test]
fn a_stalled_request_ends_with_the_proxy_and_not_before() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail(Kind::Get, 1, Fault::Stall);
    proxy.fail(Kind::Get, 1, Fault::StallHalfway);
    let port = proxy.port();
    let waiting = [(); 2].map(|()| {
        let bucket = bucket.clone();
        std::thread::spawn(move || send(port, &bucket.request("a/b")))
    });
    eventually("both have come", || proxy.calls(Kind::Get) == 2);
    assert!(waiting.iter().all(|thread| !thread.is_finished()));
    drop(proxy);
    for thread in waiting {
        assert!(thread.join().unwrap().is_err());
    }
}

#[test]
fn a_slow_link_is_slow() {
    let Some((bucket, proxy)) = proxied() else { return };
    proxy.fail_all(Fault::Slow(1_000_000));
    let begun = Instant::now();
    assert_eq!(try_get(&proxy, &bucket).unwrap().body.len(), 1_000_000);
    assert_eq!(try_put(&proxy, &bucket, "c").unwrap().status, 200);
    // Never faster; how much slower is the machine's affair.
    assert!(begun.elapsed().as_secs_f64() > 1.3);
}
