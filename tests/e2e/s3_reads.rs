//! A bad network while a backup is read, and a service that goes away and comes back: what is restored is all of it,
//! or the command fails.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use crate::s3_faults::{DATABASE, hasty, with_options};
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{self, S3Bucket, SECRET_KEY, Server};
use crate::support::{Ran, S3sFs, SHARED, Test, eventually};

/// A backup of three parts and two ranges behind a proxy.
fn backed_up(server: &'static Server, options: &str) -> (S3Bucket, Proxy, Test) {
    let (bucket, proxy, test) = with_options(server, &format!("part_size: 5MiB, {options}"));
    test.run(["backup"]).ok();
    (bucket, proxy, test)
}

fn faults() -> [(&'static str, Fault); 11] {
    [
        ("cut", Fault::Cut),
        ("reset", Fault::Reset),
        ("answer lost", Fault::LostAnswer),
        ("stall", Fault::Stall),
        ("stall half-way", Fault::StallHalfway),
        ("503", Fault::Status(503, "SlowDown", None)),
        ("another body", Fault::Body(b"<html>Sign in</html>".to_vec())),
        ("another range", Fault::Header("Content-Range", "bytes 1-2/3")),
        ("too short", Fault::Longer(-1)),
        ("too long", Fault::Longer(1)),
        ("another byte", Fault::Flip),
    ]
}

/// Of the storage, where nothing is silent.
const PATIENT: &str = "retries: 1";

/// The options with which a read is run that meets this fault: what mends it may be kept waiting by a busy machine as well.
fn reading(test: &Test, fault: &Fault, times: usize) -> [&'static str; 2] {
    let silent = matches!(fault, Fault::Stall | Fault::StallHalfway);
    let options = match (silent, times) {
        (false, _) => PATIENT,
        (true, 1) => "retries: 3, timeout: 2s",
        (true, _) => "retries: 1, timeout: 2s",
    };
    hasty(test, PATIENT, options)
}

/// What came of it, in a word: it is equal, or a failure with a remedy, and never a "done" with less.
#[track_caller]
fn restored(what: &str, test: &Test, options: &[&str]) -> &'static str {
    let target = SHARED.create_database();
    let command = ["restore", "app", "--to-database", target.name()];
    let ran = test.run(options.iter().chain(&command)).never_shows(SECRET_KEY);
    if ran.code == Some(0) {
        assert!(target.dump() == DATABASE.dump(), "{what}: not equal");
        return "whole";
    }
    failed(what, &ran);
    assert_eq!(target.psql("SELECT count(*) FROM pg_class WHERE relname = 't'"), "0", "{what}");
    "failed"
}

/// The same of a file.
#[track_caller]
fn written(what: &str, test: &Test, options: &[&str]) -> &'static str {
    let file = test.path("dump.sql");
    let command = ["restore", "app", "--output", file.to_str().unwrap()];
    let ran = test.run(options.iter().chain(&command)).never_shows(SECRET_KEY);
    if ran.code == Some(0) {
        assert!(fs::read_to_string(&file).unwrap().contains("PostgreSQL database dump complete"), "{what}");
        fs::remove_file(&file).unwrap();
        return "whole";
    }
    failed(what, &ran);
    assert!(!file.exists(), "{what}");
    "failed"
}

#[track_caller]
fn failed(what: &str, ran: &Ran) {
    assert!(ran.code == Some(1) && ran.stderr.contains("offsite") && ran.stderr.contains("hint: "), "{what}: {ran:?}");
}

#[test]
fn whatever_spoils_a_read_the_restore_is_whole_or_failed() {
    let Some(server) = S3sFs::shared() else { return };
    let mut table = String::new();
    {
        let (_, proxy, test) = backed_up(server, PATIENT);
        for (name, fault) in faults() {
            // The first is of the manifest, the third of the artifact's second range.
            for (nth, times) in [(1, 1), (1, usize::MAX), (3, 1), (3, usize::MAX)] {
                let often = if times == 1 { "once" } else { "always" };
                let what = format!("{}: {name}, {often} from the {nth}.", server.name());
                proxy.fail_times(Kind::Get, nth, times, fault.clone());
                let spoiled = proxy.spoiled();
                let options = reading(&test, &fault, times);
                let outcome = if nth == 1 { written(&what, &test, &options) } else { restored(&what, &test, &options) };
                assert!(proxy.spoiled() > spoiled, "{what}: never met");
                proxy.heal();
                writeln!(table, "{what} {outcome}").unwrap();
                let mends = !matches!(fault, Fault::Flip | Fault::Body(_));
                assert!(!(mends && times == 1) || outcome == "whole", "{what}");
                assert!(times == 1 || outcome == "failed", "{what}");
            }
        }
    }
    println!("{table}");
}

#[test]
fn whatever_spoils_a_read_no_backup_is_verified_by_it_nor_condemned() {
    let Some(server) = S3sFs::shared() else { return };
    let (_, proxy, test) = backed_up(server, PATIENT);
    for (name, fault) in faults() {
        if fault == Fault::Flip {
            continue;
        }
        for (nth, times) in [(3, 1), (3, usize::MAX)] {
            proxy.fail_times(Kind::Get, nth, times, fault.clone());
            let ran = test.run(reading(&test, &fault, times).iter().chain(&["list", "--verify"]));
            proxy.heal();
            if ran.code != Some(0) {
                failed(name, &ran);
            }
            assert!(times == 1 || ran.code == Some(1), "{name}: {ran:?}");
            // A network's fault is nothing that the backup is to blame for.
            assert!(test.run(["list", "--json"]).ok().stdout.contains("\"whole\""), "{name}: {ran:?}");
        }
    }
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_no_restore() {
    for server in s3::all() {
        let (bucket, proxy, test) = backed_up(server, PATIENT);
        let key = bucket.keys().into_iter().find(|key| key.ends_with(".sql")).unwrap();
        let mut other = bucket.get(&key).unwrap();
        // In either range: which of the two is asked for first, nobody knows.
        for at in [1000, other.len() - 1000] {
            other[at] ^= 1;
        }
        // One range of it waits until another object stands there.
        let target = SHARED.create_database();
        proxy.fail(Kind::Get, 3, Fault::Stall);
        let [option, file] = hasty(&test, PATIENT, "retries: 1, timeout: 5s");
        let running = test.spawn([option, file, "restore", "app", "--to-database", target.name()]);
        eventually("a range is waited for", || proxy.spoiled() > 0);
        bucket.put(&key, &other);
        let ran = running.wait();
        failed(server.name(), &ran);
        if server.name() == "Ceph" {
            ran.says("changed while it was read");
        }
        assert_eq!(target.psql("SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
    }
}

/// A server of the test's own, and a backup with these options that is in the middle of its parts.
fn in_the_middle(options: &str, then: impl FnOnce(&Server)) -> Option<(S3Bucket, Proxy, Test, Ran)> {
    let server = S3sFs::own()?;
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let yaml = bucket.through(&proxy).yaml_with(&format!("part_size: 5MiB, concurrency: 1, {PATIENT}"));
    let test = Test::of(&DATABASE)
        .storages([("offsite", yaml)])
        .target_option("compression: { type: none }")
        .target_option("retries: 0");
    let [option, file] = hasty(&test, PATIENT, options);
    // So slow that it is met in its middle; and where a busy machine takes its time for that, so are those that follow.
    proxy.fail_always(Kind::Part, 2, Fault::Slow(1 << 20));
    let running = test.spawn([option, file, "backup"]);
    eventually("the second part is under way", || proxy.calls(Kind::Part) >= 2);
    then(server);
    proxy.heal();
    let ran = running.wait();
    Some((bucket, proxy, test, ran))
}

#[track_caller]
fn whole_or_nothing(test: &Test, ran: &Ran) -> bool {
    let listed = test.run(["list", "--json", "--all"]).ok().json()["items"].as_array().unwrap().clone();
    if ran.code == Some(0) {
        assert_eq!(listed.len(), 1, "{ran:?}");
        test.run(["list", "--verify"]).ok();
        return true;
    }
    failed("killed", ran);
    assert!(listed.is_empty(), "{listed:?}");
    false
}

#[test]
fn a_service_that_is_killed_and_comes_back_costs_no_backup() {
    let away = |server: &Server| {
        server.order("KILL");
        std::thread::sleep(Duration::from_secs(2));
        server.order("START");
    };
    let Some((_, _proxy, test, ran)) = in_the_middle("retries: 5", away) else { return };
    assert!(whole_or_nothing(&test, &ran), "{ran:?}");
}

#[test]
fn a_service_that_is_killed_for_good_is_a_clear_failure() {
    let mut begun = Instant::now();
    let kill = |server: &Server| {
        begun = Instant::now();
        server.order("KILL");
    };
    let Some((bucket, _proxy, test, ran)) = in_the_middle(PATIENT, kill) else { return };
    failed("killed", &ran);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    test.run(["list"]).fails(1).says("offsite").says("hint: ");
    bucket.server().order("START");
    eventually("it is back", || test.run(["list"]).code == Some(0));
    assert!(bucket.keys().iter().all(|key| key == ".db-backup-tools"), "{:?}", bucket.keys());
    test.run(["backup"]).ok();
}

#[test]
fn a_service_that_stands_still_is_noticed_in_time() {
    let mut begun = Instant::now();
    let stop = |server: &Server| {
        begun = Instant::now();
        server.order("STOP");
    };
    let Some((bucket, _proxy, test, ran)) = in_the_middle("retries: 1, timeout: 5s", stop) else { return };
    failed("stopped", &ran);
    assert!(ran.stderr.contains("nothing moved for"), "{ran:?}");
    // Two tries, and a clean-up that the service does not answer either.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    bucket.server().order("CONT");
    assert!(!whole_or_nothing(&test, &ran));
    test.run(["backup"]).ok();
}
