//! Every kind of call to an S3 service that goes wrong in every way, between the real program and a real server:
//! each ends in a backup that verifies, or in a clear failure with nothing listed and no upload left.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::s3::database;
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{ACCESS_KEY, Ceph, S3Bucket, S3sFs, SECRET_KEY, Server};
use crate::support::{Database, Test};

pub(crate) static DATABASE: LazyLock<Database> = LazyLock::new(database);

/// Calls that a backup of three parts makes. The first three leave an upload behind, which Ceph shows and s3s-fs does not.
const CALLS: [Kind; 6] = [Kind::Initiate, Kind::Part, Kind::Complete, Kind::Put, Kind::Head, Kind::List];

/// A backup through a proxy, in three parts.
fn through(server: &'static Server, options: &str) -> (S3Bucket, Proxy, Test) {
    with_options(server, &format!("part_size: 5MiB, {options}"))
}

/// One into a bucket behind a proxy, whose calls alone are made again.
pub(crate) fn with_options(server: &'static Server, options: &str) -> (S3Bucket, Proxy, Test) {
    let bucket = server.bucket();
    let proxy = Proxy::before(server);
    let yaml = bucket.through(&proxy).yaml_with(options);
    let test = Test::of(&DATABASE)
        .storages([("offsite", yaml)])
        .target_option("compression: { type: none }")
        .target_option("retries: 0");
    (bucket, proxy, test)
}

/// The same configuration in another file, `hasty.yml`, with other options of its storage: what a silence is to end has a short
/// `timeout:` there. All else is run with `backup.yml`, as a busy machine may be silent for a while itself.
pub(crate) fn hasty(test: &Test, options: &str, instead: &str) -> [&'static str; 2] {
    let config = std::fs::read_to_string(test.path("backup.yml")).unwrap();
    assert!(config.contains(options), "{config}");
    test.write("hasty.yml", &config.replace(options, instead));
    ["-c", "hasty.yml"]
}

/// What came of a backup: it verifies, or nothing is left of it.
#[track_caller]
fn outcome(what: &str, bucket: &S3Bucket, proxy: &Proxy, test: &Test) -> &'static str {
    let ran = test.run(["backup"]).never_shows(SECRET_KEY);
    proxy.heal();
    let items = test.run(["list", "--json", "--all"]).ok().json()["items"].as_array().unwrap().len();
    // A listing that fails keeps the pruning from its work, and not the backup from being one.
    let is_stored = matches!(ran.code, Some(0 | 3));
    if is_stored {
        assert_eq!(items, 1, "{what}: {}", ran.stderr);
        test.run(["list", "--verify"]).ok();
    } else {
        assert_eq!((ran.code, items), (Some(1), 0), "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains("storage offsite") && ran.stderr.contains("hint: "), "{what}: {}", ran.stderr);
        let ours: Vec<String> = bucket.keys().into_iter().filter(|key| !key.starts_with(".db-backup-tools")).collect();
        assert!(ours.is_empty(), "{what}: {ours:?}");
    }
    assert!(bucket.uploads().is_none_or(|uploads| uploads.is_empty()), "{what}: {:?}", bucket.uploads());
    if is_stored { "whole" } else { "failed" }
}

/// Each fault at each call: once, which tries again mend, and for ever, which nothing does.
fn every_fault(server: &'static Server, calls: &[Kind]) -> String {
    let faults: [(&str, Fault); 7] = [
        ("503", Fault::Status(503, "SlowDown", None)),
        ("500", Fault::Status(500, "InternalError", None)),
        ("reset", Fault::Reset),
        ("cut", Fault::Cut),
        ("answer lost", Fault::LostAnswer),
        ("stall", Fault::Stall),
        ("nonsense", Fault::Body(b"<html>Sign in</html>".to_vec())),
    ];
    let cases: Vec<_> = calls.iter().flat_map(|call| faults.iter().map(move |fault| (*call, fault))).collect();
    // Most of the time is waiting.
    let next = AtomicUsize::new(0);
    let work = || {
        let take = || cases.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take).map(|(call, (name, fault))| line_of(server, *call, name, fault)).collect::<Vec<_>>()
    };
    let mut lines: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let place = |line: &String| cases.iter().position(|(call, (name, _))| line.starts_with(&format!("{call:?}: {name}:")));
    lines.sort_by_key(place);
    lines.join("\n")
}

fn line_of(server: &'static Server, call: Kind, name: &str, fault: &Fault) -> String {
    let mut line = format!("{call:?}: {name}:");
    for (often, times) in [("once", 1), ("always", usize::MAX)] {
        // Only a silence is to be waited for. What mends it may be kept waiting by a busy machine as well.
        let options = match (fault, often) {
            (Fault::Stall, "once") => "retries: 3, timeout: 3s",
            (Fault::Stall, _) => "retries: 1, timeout: 3s",
            _ => "retries: 1",
        };
        let (bucket, proxy, test) = through(server, options);
        // Not the first: that one may be of a probe.
        let nth = if call == Kind::Part { 2 } else { 1 };
        proxy.fail_times(call, nth, times, fault.clone());
        write!(line, " {often} {}", outcome(&format!("{call:?} {name} {often}"), &bucket, &proxy, &test)).unwrap();
    }
    line
}

#[test]
fn every_fault_of_an_upload_ends_whole_or_with_nothing_on_ceph() {
    let Some(server) = Ceph::shared() else { return };
    insta::assert_snapshot!(every_fault(server, &CALLS[..3]), @r"
    Initiate: 503: once whole always failed
    Initiate: 500: once whole always failed
    Initiate: reset: once whole always failed
    Initiate: cut: once whole always failed
    Initiate: answer lost: once whole always failed
    Initiate: stall: once whole always failed
    Initiate: nonsense: once whole always failed
    Part: 503: once whole always failed
    Part: 500: once whole always failed
    Part: reset: once whole always failed
    Part: cut: once whole always failed
    Part: answer lost: once whole always failed
    Part: stall: once whole always failed
    Part: nonsense: once whole always failed
    Complete: 503: once whole always failed
    Complete: 500: once whole always failed
    Complete: reset: once whole always failed
    Complete: cut: once whole always whole
    Complete: answer lost: once whole always whole
    Complete: stall: once whole always failed
    Complete: nonsense: once whole always failed
    ");
}

#[test]
fn every_fault_ends_whole_or_with_nothing_on_s3s_fs() {
    let Some(server) = S3sFs::shared() else { return };
    insta::assert_snapshot!(every_fault(server, &CALLS), @r"
    Initiate: 503: once whole always failed
    Initiate: 500: once whole always failed
    Initiate: reset: once whole always failed
    Initiate: cut: once whole always failed
    Initiate: answer lost: once whole always failed
    Initiate: stall: once whole always failed
    Initiate: nonsense: once whole always failed
    Part: 503: once whole always failed
    Part: 500: once whole always failed
    Part: reset: once whole always failed
    Part: cut: once whole always failed
    Part: answer lost: once whole always failed
    Part: stall: once whole always failed
    Part: nonsense: once whole always failed
    Complete: 503: once whole always failed
    Complete: 500: once whole always failed
    Complete: reset: once whole always failed
    Complete: cut: once whole always whole
    Complete: answer lost: once whole always whole
    Complete: stall: once whole always failed
    Complete: nonsense: once whole always failed
    Put: 503: once whole always failed
    Put: 500: once whole always failed
    Put: reset: once whole always failed
    Put: cut: once whole always failed
    Put: answer lost: once whole always failed
    Put: stall: once whole always failed
    Put: nonsense: once whole always failed
    Head: 503: once whole always failed
    Head: 500: once whole always failed
    Head: reset: once whole always failed
    Head: cut: once whole always whole
    Head: answer lost: once whole always failed
    Head: stall: once whole always failed
    Head: nonsense: once whole always failed
    List: 503: once whole always whole
    List: 500: once whole always whole
    List: reset: once whole always whole
    List: cut: once whole always whole
    List: answer lost: once whole always whole
    List: stall: once whole always whole
    List: nonsense: once whole always whole
    ");
}

#[test]
fn what_no_try_mends_is_tried_once() {
    let Some(server) = S3sFs::shared() else { return };
    for (status, code) in [(403, "AccessDenied"), (404, "NoSuchBucket"), (400, "InvalidRequest")] {
        let (bucket, proxy, test) = through(server, "retries: 3");
        proxy.fail_always(Kind::Put, 1, Fault::Status(status, code, None));
        assert_eq!(outcome(code, &bucket, &proxy, &test), "failed");
        assert_eq!(proxy.calls(Kind::Put), if status == 400 { 2 } else { 1 }, "{code}");
    }
}

#[test]
fn where_uploads_can_not_be_listed_backups_are_pruned_all_the_same() {
    let Some(server) = S3sFs::shared() else { return };
    let (_bucket, proxy, test) = through(server, "retries: 0, retention: { keep_last: 1 }");
    for _ in 0..2 {
        test.run(["backup", "--no-prune"]).ok();
    }
    proxy.fail_always(Kind::Uploads, 1, Fault::Status(403, "AccessDenied", None));
    let pruned = test.run(["prune"]).never_shows(SECRET_KEY);
    assert_eq!(pruned.code, Some(3), "{}", pruned.stderr);
    assert!(pruned.stderr.contains("storage offsite: list: uploads that never ended are not removed"), "{}", pruned.stderr);
    assert!(pruned.stderr.contains("s3:ListBucketMultipartUploads"), "{}", pruned.stderr);
    assert_eq!(test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_service_that_asks_to_wait_is_waited_for() {
    let Some(server) = S3sFs::shared() else { return };
    let (bucket, proxy, test) = through(server, "retries: 1");
    proxy.fail(Kind::Put, 1, Fault::Status(429, "SlowDown", Some(3)));
    let begun = std::time::Instant::now();
    assert_eq!(outcome("429", &bucket, &proxy, &test), "whole");
    assert!(begun.elapsed() > Duration::from_secs(3));
}

#[test]
fn a_slow_line_is_no_silence() {
    let Some(server) = S3sFs::shared() else { return };
    // 12 MB at 1 MB a second take twice as long as the timeout. What fits into the buffers of a connection is not seen to
    // move, so that it can't be much shorter.
    let (bucket, proxy, test) = with_options(server, "retries: 0, timeout: 6s, part_size: 16MiB");
    proxy.fail_always(Kind::Put, 1, Fault::Slow(1 << 20));
    assert_eq!(outcome("slow", &bucket, &proxy, &test), "whole");
}

#[test]
fn a_service_that_repeats_the_keys_is_not_quoted_with_them() {
    let Some(server) = S3sFs::shared() else { return };
    let (_bucket, proxy, test) = through(server, "retries: 0");
    let body = format!("<Error><Code>AccessDenied</Code><Message>{ACCESS_KEY} may not, says {SECRET_KEY}</Message></Error>");
    proxy.fail_always(Kind::Put, 1, Fault::Answer(403, Vec::new(), body));
    test.run(["backup", "-vv"])
        .fails(1)
        .says("AccessDenied: *** may not, says ***")
        .never_shows(ACCESS_KEY)
        .never_shows(SECRET_KEY);
}
