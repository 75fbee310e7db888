//! Uploads that are broken off: by kill -9, by a signal. What stays of them is never listed, and goes in time.

use std::time::Duration;

use crate::s3_faults::{DATABASE, with_options};
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{self, Ceph, S3Bucket, Server};
use crate::support::s3_request::Request;
use crate::support::{Ran, SHARED, Signal, Test, eventually};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Far longer than an end should take, and far shorter than a service's silence is waited for.
const SOON: Duration = Duration::from_secs(30);

/// A backup of three parts through a proxy; a service that hangs is waited for.
fn through(server: &'static Server, options: &str) -> (S3Bucket, Proxy, Test) {
    with_options(server, &format!("part_size: 5MiB, concurrency: 1, {options}"))
}

/// Whether a request of this kind is being spoiled.
fn is_met(proxy: &Proxy, kind: Kind) -> bool {
    proxy.log().iter().any(|call| call.kind == kind && call.fault.is_some())
}

/// Starts a backup, and kills it when a request of this kind has met its fault.
fn killed(proxy: &Proxy, test: &Test, kind: Kind, nth: usize, fault: Fault) {
    proxy.fail(kind, nth, fault);
    let running = test.spawn(["backup"]);
    eventually("the request is under way", || is_met(proxy, kind));
    running.kill(Signal::KILL);
    assert_eq!(running.wait().signal, Some(9));
    proxy.heal();
}

fn items(ran: &Ran) -> Vec<String> {
    let text = |item: &serde_json::Value| item["state"].as_str().or(item["decision"].as_str()).unwrap().to_owned();
    ran.json()["items"].as_array().unwrap().iter().map(text).collect()
}

/// The keys of a backup's objects: not that of the service's trial.
fn ours(bucket: &S3Bucket) -> Vec<String> {
    bucket.keys().into_iter().filter(|key| !key.starts_with(".db-backup-tools")).collect()
}

#[test]
fn an_upload_that_was_killed_is_never_listed_and_goes_after_a_day() {
    let Some(server) = Ceph::shared() else { return };
    let (bucket, proxy, test) = through(server, "prefix: fin");
    killed(&proxy, &test, Kind::Part, 2, Fault::Stall);
    let left = bucket.uploads().unwrap();
    assert!(left.len() == 1 && left[0].starts_with("fin/web1/"), "{left:?}");
    // A neighbour's, of the same name, and one of no name of ours.
    for key in [left[0].replacen("fin/", "financer/", 1), left[0].replacen("fin/", "fin/ancer/", 1), "fin/big.iso".into()] {
        let begin = s3_begin(&bucket, &key);
        assert!(!begin.is_empty());
    }
    assert_eq!(items(&test.run(["list", "--json"]).ok()), [] as [&str; 0]);
    assert_eq!(items(&test.run(["list", "--json", "--all"]).ok()), ["incomplete"]);
    let under_way = |ran: Ran| ran.json()["items"].to_string().contains("young enough to be under way");
    assert!(under_way(test.run(["prune", "--json"]).ok()));
    proxy.shift_clock(Duration::from_secs(23 * 3600 + 3000));
    assert!(under_way(test.run(["prune", "--json"]).ok()));
    assert_eq!(bucket.uploads().unwrap().len(), 4);
    // It keeps no later backup from being one; a nightly run does not collect.
    proxy.shift_clock(DAY * 2);
    test.run(["backup"]).ok();
    let (uploads, calls) = (bucket.uploads().unwrap().len(), proxy.calls(Kind::Abort));
    assert_eq!((uploads, calls), (4, 0));
    let dry = test.run(["prune", "--json", "--dry-run"]).ok();
    assert!(dry.stdout.contains("it never became whole") && bucket.uploads().unwrap().len() == 4, "{}", dry.stdout);
    test.run(["prune"]).ok();
    let now = bucket.uploads().unwrap();
    assert!(now.len() == 3 && !now.contains(&left[0]), "{now:?}");
    assert_eq!(items(&test.run(["list", "--json", "--all"]).ok()), ["whole"]);
    test.run(["list", "--verify"]).ok();
}

/// Begins an upload as another would; its id.
fn s3_begin(bucket: &S3Bucket, key: &str) -> String {
    let begin = Request { method: "POST", query: vec![("uploads", String::new())], ..bucket.request(key) };
    bucket.ask(&begin).expect(200).elements("UploadId").remove(0)
}

/// A backup that takes longer than a day is under way as long as parts come.
#[test]
fn the_newest_part_of_an_upload_counts_and_not_its_beginning() {
    let Some(server) = Ceph::shared() else { return };
    let (bucket, proxy, test) = through(server, "");
    killed(&proxy, &test, Kind::Part, 2, Fault::Stall);
    let key = bucket.uploads().unwrap().remove(0);
    let answer = bucket.ask(&Request { query: vec![("uploads", String::new())], ..bucket.request("") });
    let (id, begun) = (answer.elements("UploadId").remove(0), answer.elements("Initiated").remove(0));
    let begun: chrono::DateTime<chrono::Utc> = begun.parse().unwrap();
    eventually("some seconds later", || chrono::Utc::now() - begun > chrono::TimeDelta::seconds(10));
    let part = vec![b'x'; 5 << 20];
    let query = vec![("partNumber", "3".to_owned()), ("uploadId", id)];
    let later = Request { method: "PUT", query, body: &part, ..bucket.request(&key) };
    bucket.ask(&later).expect(200);
    let came = chrono::Utc::now();
    // A day after its beginning, and some seconds less after the part.
    proxy.stop_clock(begun + DAY + Duration::from_secs(1));
    test.run(["prune"]).ok();
    assert_eq!(bucket.uploads().unwrap(), [key]);
    // A day after the part, too.
    proxy.stop_clock(came + DAY + Duration::from_secs(2));
    test.run(["prune"]).ok();
    assert!(bucket.uploads().unwrap().is_empty());
}

#[test]
fn an_artifact_without_its_manifest_is_never_listed_and_goes_after_a_day() {
    for server in s3::all() {
        let (bucket, proxy, test) = through(server, "");
        // The trial of the service is over by then: what comes second is the manifest.
        test.run(["backup"]).ok();
        killed(&proxy, &test, Kind::Put, 3, Fault::Stall);
        let left = ours(&bucket);
        assert_eq!(left.len(), 5, "{}: {left:?}", server.name());
        assert_eq!(items(&test.run(["list", "--json"]).ok()), ["whole"]);
        assert_eq!(items(&test.run(["list", "--json", "--all"]).ok()), ["whole", "incomplete"]);
        test.run(["prune"]).ok();
        assert_eq!(ours(&bucket), left, "{}", server.name());
        proxy.shift_clock(DAY + Duration::from_secs(60));
        test.run(["prune"]).ok();
        assert_eq!((ours(&bucket).len(), items(&test.run(["list", "--json", "--all"]).ok())), (3, vec!["whole".to_owned()]));
        test.run(["list", "--verify"]).ok();
    }
}

/// When the signal comes, of a request whose answer never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The request is on its way: what the service makes of it may come after the clean-up.
    Heard,
    /// The service has done it.
    Done,
}

impl Moment {
    fn has_come(self, proxy: &Proxy) -> bool {
        proxy.log().iter().any(|call| call.fault.is_some() && (self == Self::Heard || call.is_done))
    }
}

/// Whatever an S3 service keeps the program waiting with, a signal ends it soon and leaves nothing.
#[test]
fn a_signal_ends_a_backup_at_every_call() {
    let faults = [
        (Fault::Stall, Moment::Heard),
        (Fault::StallHalfway, Moment::Heard),
        (Fault::StallAnswer, Moment::Heard),
        (Fault::StallAnswer, Moment::Done),
    ];
    for server in s3::all() {
        for (kind, nth) in
            [(Kind::List, 1), (Kind::Initiate, 1), (Kind::Part, 2), (Kind::Head, 2), (Kind::Complete, 1), (Kind::Put, 3)]
        {
            for (fault, moment) in &faults {
                signal_at(server, (kind, nth), fault, *moment);
            }
        }
    }
}

fn signal_at(server: &'static Server, (kind, nth): (Kind, usize), fault: &Fault, moment: Moment) {
    let (bucket, proxy, test) = through(server, "");
    let what = format!("{}: {kind:?} {fault:?} {moment:?}", server.name());
    test.run(["backup"]).ok();
    let before = ours(&bucket);
    // Of a Put the third is the manifest, after the trial of the service and the inventory.
    proxy.fail(kind, nth, fault.clone());
    let mut running = test.spawn(["backup"]);
    eventually(&what, || moment.has_come(&proxy));
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON), "{what}: {}", running.stderr_so_far());
    running.wait().fails(143);
    proxy.heal();
    let listed = items(&test.run(["list", "--json"]));
    assert_eq!(listed.iter().filter(|state| *state == "whole").count(), 1, "{what}: {listed:?}");
    // A service that is still at work on what it was given may make an upload, an incomplete object, or a manifest
    // without its artifact after the clean-up: it goes as such.
    // s3s-fs begins to answer a completion before it is done.
    let is_given = *fault == Fault::StallAnswer || (kind == Kind::Complete && *fault == Fault::StallHalfway);
    if is_given && moment == Moment::Heard {
        return;
    }
    assert!(bucket.uploads().is_none_or(|uploads| uploads.is_empty()), "{what}: {:?}", bucket.uploads());
    assert_eq!(listed, ["whole"], "{what}");
    assert_eq!(ours(&bucket), before, "{what}");
    assert_eq!(items(&test.run(["list", "--json", "--all"]).ok()), ["whole"], "{what}");
}

#[test]
fn a_signal_ends_a_restore_and_a_listing() {
    let Some(server) = Ceph::shared() else { return };
    let (_, proxy, test) = through(server, "");
    test.run(["backup"]).ok();
    let target = SHARED.create_database();
    let restore = ["restore", "app", "--to-database", target.name()];
    let cases: [(&[&str], Kind, usize); 5] = [
        (&restore, Kind::Get, 3),
        (&restore, Kind::List, 1),
        (&["list"], Kind::List, 1),
        (&["list", "--verify"], Kind::Get, 3),
        (&["prune"], Kind::Uploads, 1),
    ];
    for (command, kind, nth) in cases {
        for fault in [Fault::Stall, Fault::StallHalfway] {
            let before = proxy.spoiled();
            proxy.fail(kind, nth, fault.clone());
            let mut running = test.spawn(command);
            eventually("the request is under way", || proxy.spoiled() > before);
            running.kill(Signal::TERM);
            assert!(running.ends_within(SOON), "{command:?} {kind:?} {fault:?}: {}", running.stderr_so_far());
            running.wait().fails(143);
            proxy.heal();
        }
    }
    // The database that was there is as it was: another restore goes into it.
    test.run(restore).ok();
    assert_eq!(target.dump(), DATABASE.dump());
}
