//! A directory and a bucket that hold the same: what the night, the lists and a restore make of a bucket that fails, and
//! what write-once means where another's object stands already.

use std::sync::LazyLock;

use db_backup_tools::error::Kind as ErrorKind;
use db_backup_tools::names::Key;
use db_backup_tools::storage::Storage as _;
use db_backup_tools::storage::conformance::context;
use db_backup_tools::storage::s3::S3;
use serde_json::json;

use crate::s3::database;
use crate::s3_faults::hasty;
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{self, S3Bucket, Server};
use crate::support::{Database, S3sFs, SHARED, Test};

static DATABASE: LazyLock<Database> = LazyLock::new(database);

/// Of the storage that is to fail.
const PATIENT: &str = "retries: 1";

/// The same storages for a run in which one of them is silent for ever.
fn in_silence(test: &Test) -> [&'static str; 2] {
    hasty(test, PATIENT, "retries: 1, timeout: 1s")
}

fn two(database: &Database, server: &'static Server) -> (S3Bucket, Proxy, Test) {
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let yaml = bucket.through(&proxy).yaml_with(&format!("part_size: 5MiB, {PATIENT}"));
    let test = Test::of(database)
        .storages([("local", "{ type: local, path: '{storage}' }".into()), ("offsite", yaml)])
        .target_option("compression: { type: none }")
        .target_option("retries: 0");
    (bucket, proxy, test)
}

#[test]
fn a_bucket_that_fails_at_any_point_leaves_its_sibling_whole_and_the_next_night_fills_both() {
    let denied = || Fault::Status(403, "AccessDenied", None);
    for server in s3::all() {
        for (point, kind, nth, fault) in [
            ("from the start", None, 1, Fault::Reset),
            ("from the start, in silence", None, 1, Fault::Stall),
            ("at the beginning", Some(Kind::Initiate), 1, denied()),
            ("in the middle", Some(Kind::Part), 2, Fault::Reset),
            ("in the middle, in silence", Some(Kind::Part), 2, Fault::Stall),
            ("at the commit", Some(Kind::Complete), 1, Fault::Status(503, "SlowDown", None)),
            ("at the inventory", Some(Kind::Put), 1, Fault::Reset),
            ("at the manifest", Some(Kind::Put), 2, Fault::Cut),
            ("at the manifest, denied", Some(Kind::Put), 2, denied()),
        ] {
            let what = format!("{}: {point}", server.name());
            let (bucket, proxy, test) = two(&DATABASE, server);
            // The service has been tried by then: the Puts are those of a backup alone, behind one more trial.
            test.run(["backup"]).ok();
            let trials = usize::from(kind == Some(Kind::Put));
            match kind {
                Some(kind) => proxy.fail_always(kind, nth + trials, fault),
                None => proxy.fail_all(fault),
            }
            let ran = test
                .run(in_silence(&test).iter().chain(&["backup", "--json"]))
                .fails(3)
                .says("app: storage offsite: ")
                .says("hint: ");
            assert_eq!(ran.json()["items"][0]["storages"], json!(["local"]), "{what}");
            proxy.heal();
            test.run(["list", "--verify"]).fails(3).says("app: storage offsite: behind: ");
            assert!(bucket.uploads().is_none_or(|uploads| uploads.is_empty()), "{what}");
            assert_eq!(
                test.run(["list", "--json", "--all", "--storage", "offsite"]).ok().json()["items"].as_array().unwrap().len(),
                1
            );
            test.run(["backup"]).ok();
            let newest = test.run(["list", "--json"]).ok().json()["items"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(newest["storages"], json!(["local", "offsite"]), "{what}");
        }
    }
}

#[test]
fn the_newest_may_be_in_a_bucket_that_can_not_be_listed() {
    for server in s3::all() {
        let database = SHARED.create_database();
        database.psql("CREATE TABLE t (word text); INSERT INTO t VALUES ('the former')");
        let (_, proxy, test) = two(&database, server);
        test.run(["backup"]).ok();
        // What both hold is read from the first.
        let read = proxy.calls(Kind::Get);
        assert!(test.run(["restore", "app", "--output", "-"]).ok().stdout.contains("the former"));
        assert_eq!(proxy.calls(Kind::Get), read);
        database.psql("UPDATE t SET word = 'the newest'");
        test.run(["backup", "--storage", "offsite"]).ok();
        assert!(test.run(["restore", "app", "--output", "-"]).ok().stdout.contains("the newest"));
        assert!(test.run(["restore", "app", "--output", "-", "--from", "local"]).ok().stdout.contains("the former"));
        for fault in [Fault::Status(403, "AccessDenied", None), Fault::Reset, Fault::Stall] {
            proxy.fail_all(fault);
            let [option, file] = in_silence(&test);
            let ran = test.run([option, file, "restore", "app", "--output", "-"]).fails(1).says("storage offsite: ");
            assert_eq!(ran.says("the newest backup may be there; to go on without it: --from NAME (of: local)").stdout, "");
            assert!(test.run(["restore", "app", "--output", "-", "--from", "local"]).ok().stdout.contains("the former"));
            let listed = test.run([option, file, "list", "--json"]).fails(1).says("storage offsite: ");
            assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
            proxy.heal();
        }
    }
}

const KEY: &str = "web1/20260612_030000Z/app_20260612_030000Z-aaaa.sql";

/// Whether the service refuses to write over an object, or knows no such condition and is looked at before each write.
#[test]
fn an_object_that_is_there_is_never_overwritten() {
    for server in s3::all() {
        for knows in [true, false] {
            let what = format!("{}, {}", server.name(), if knows { "as it is" } else { "without conditions" });
            let (bucket, proxy) = (server.bucket(), Proxy::before(server));
            if !knows {
                proxy.ignore_conditions();
            }
            let mut settings = bucket.through(&proxy).settings();
            settings.part_size = 5 << 20;
            let (storage, cx, key) = (S3::new(settings, 64 << 20), context().unwrap(), KEY.parse::<Key>().unwrap());
            bucket.put(KEY, b"another's");
            storage.prepare(&cx).unwrap();
            let looks = proxy.calls(Kind::Head);
            assert_eq!(storage.put_new(&key, b"ours", &cx).unwrap_err().kind(), ErrorKind::Exists, "{what}");
            assert_eq!(proxy.calls(Kind::Head) - looks, usize::from(!knows), "{what}");
            for bytes in [100, 11 << 20] {
                let mut upload = storage.upload(&key, None, &cx).unwrap();
                upload.write(&vec![7; bytes]).unwrap();
                assert_eq!(upload.commit().unwrap_err().kind(), ErrorKind::Exists, "{what}: {bytes}");
            }
            // One that comes while we write.
            bucket.remove(KEY);
            let mut upload = storage.upload(&key, None, &cx).unwrap();
            upload.write(&vec![7; 11 << 20]).unwrap();
            bucket.put(KEY, b"another's");
            assert_eq!(upload.commit().unwrap_err().kind(), ErrorKind::Exists, "{what}");
            assert_eq!(bucket.get(KEY).unwrap(), b"another's", "{what}");
            assert!(bucket.uploads().is_none_or(|uploads| uploads.is_empty()), "{what}: {:?}", bucket.uploads());
        }
    }
}

#[test]
fn where_conditions_are_ignored_each_write_is_preceded_by_a_look() {
    let Some(server) = S3sFs::shared() else { return };
    let (_, proxy, test) = two(&DATABASE, server);
    proxy.ignore_conditions();
    test.run(["backup"]).ok();
    let log = proxy.log();
    let ours = |target: &str| target.contains("/web1/");
    let writes = log.iter().enumerate().filter(|(_, call)| matches!(call.kind, Kind::Put | Kind::Complete) && ours(&call.target));
    let mut count = 0;
    for (at, write) in writes {
        let object = write.target.split('?').next().unwrap();
        assert!(log[..at].iter().any(|call| call.kind == Kind::Head && call.target == object), "no look before {write:?}");
        count += 1;
    }
    assert_eq!(count, 3);
    test.run(["list", "--verify"]).ok();
}
