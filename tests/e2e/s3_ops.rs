//! A bucket as those who run it know it: years of runs, neighbours whose names begin like ours, odd names, a
//! storage that only grows.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use db_backup_tools::names::Key;
use db_backup_tools::storage::Storage as _;
use db_backup_tools::storage::conformance::context;
use db_backup_tools::storage::s3::S3;
use serde_json::json;

use crate::s3::database;
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{self, S3Bucket};
use crate::support::{Ceph, Planted, Ran, S3sFs, Seed, Signal, Test, eventually};

pub(crate) const NOW: &str = "2026-06-12T12:00:00Z";

/// Of a bucket on one server nobody asks for the other's: they are asked side by side.
fn on_each_server(check: impl Fn(S3Bucket) + Sync) {
    std::thread::scope(|scope| {
        for server in s3::all() {
            scope.spawn(|| check(server.bucket()));
        }
    });
}

/// On the one that answers small requests at once.
fn on_ceph(check: impl Fn(S3Bucket)) {
    if let Some(server) = Ceph::shared() {
        check(server.bucket());
    }
}

/// Several hands at once: a server takes its time for each.
fn at_once<T: Send + Sync>(work: &[T], each: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for piece in work.chunks(work.len().div_ceil(8)) {
            scope.spawn(|| piece.iter().for_each(&each));
        }
    });
}

/// Targets `app`, `app2` and `cl` with databases of these names, all in a storage `offsite`.
pub(crate) fn test(storage: &str, databases: &[&str], options: &str) -> Test {
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n  offsite: {storage}\ndefaults: {{ storages: [offsite]{options} }}\n\
         targets:\n  - {{ name: app, type: postgres, database: app }}\n  - {{ name: app2, type: postgres, database: app2 }}\n  \
         - {{ name: cl, type: postgres, databases: {} }}\n",
        json!(if databases.is_empty() { &["x"] } else { databases })
    ))
}

fn items(ran: &Ran) -> usize {
    ran.json()["items"].as_array().unwrap().len()
}

/// The ids of so many runs, an hour between them, oldest first; the last is an hour before [`NOW`].
fn ids(count: usize) -> Vec<String> {
    let now: DateTime<Utc> = NOW.parse().unwrap();
    let ago = |hours: usize| (now - TimeDelta::hours(i64::try_from(hours).unwrap())).format("%Y%m%d_%H%M%SZ");
    (1..=count).rev().map(|hours| format!("{}-{hours:04}", ago(hours))).collect()
}

/// More runs than any page of a listing or batch of deletes holds.
#[test]
fn more_runs_than_a_page_holds_are_listed_and_pruned() {
    Seed::get(0);
    on_ceph(|bucket| {
        let name = bucket.server().name();
        let ids = ids(1050);
        // Neighbours: a prefix that begins like ours, one within it, the same without one, another host's, another unit's.
        let neighbours = ["financer/", "fin/ancer/", "fi/", "", "fin/fin/", "fin/web1/"];
        let mut foreign: BTreeSet<String> = neighbours
            .iter()
            .flat_map(|prefix| {
                Planted::new("app", &ids[0]).into_bucket(&bucket, prefix).into_iter().map(move |key| format!("{prefix}{key}"))
            })
            .collect();
        for other in [Planted::new("app", &ids[0]).host("web11"), Planted::new("app2", &ids[1]), Planted::new("app-a", &ids[1])] {
            foreign.extend(other.into_bucket(&bucket, "fin/").into_iter().map(|key| format!("fin/{key}")));
        }
        let stray = format!("fin/web1/{}/app.sql.gz", &ids[0][..16]);
        for key in ["fin/readme", "fin/web1/notes", "fin-ancer", "financer.txt", stray.as_str()] {
            bucket.put(key, b"not ours");
            foreign.insert(key.to_owned());
        }
        at_once(&ids, |id| drop(Planted::new("app", id).into_bucket(&bucket, "fin/")));
        let storage = bucket.yaml_with("prefix: fin");
        let test = test(&storage, &[], ", retention: { keep_last: 3 }");
        let listed = test.run_at(NOW, ["list", "--json", "app"]).ok();
        assert_eq!(items(&listed), 1050, "{name}");
        let foreign_told = test.run_at(NOW, ["list", "--all", "--limit", "1"]).ok();
        foreign_told.says(&format!("files that are not named as ours: 1, the first is web1/{}/app.sql.gz", &ids[0][..16]));
        let pruned = test.run_at(NOW, ["prune", "--json", "app"]).ok();
        let deleted = pruned.json()["items"].as_array().unwrap().iter().filter(|item| item["decision"] == "delete").count();
        assert_eq!(deleted, 1047, "{name}");
        let keys: BTreeSet<String> = bucket.keys().into_iter().collect();
        let kept: Vec<&String> = keys.difference(&foreign).collect();
        assert!(
            kept.len() == 9 && kept.iter().all(|key| ids[1047..].iter().any(|id| key.contains(id.as_str()))),
            "{name}: {kept:?}"
        );
        assert!(foreign.is_subset(&keys), "{name}: {:?}", foreign.difference(&keys));
        assert_eq!(items(&test.run_at(NOW, ["list", "--json", "app"]).ok()), 3, "{name}");
    });
}

/// Twenty backups that were waited for are no twenty faults.
#[test]
fn what_is_done_with_many_and_interrupted_is_told_once() {
    on_each_server(|bucket| {
        let (name, proxy) = (bucket.server().name(), Proxy::before(bucket.server()));
        for id in ids(20) {
            Planted::new("app", &id).into_bucket(&bucket, "");
        }
        let test = test(&bucket.through(&proxy).yaml(), &[], ", retention: { keep_last: 3 }");
        let (list, prune): (&[&str], &[&str]) = (&["list", "app"], &["prune", "app"]);
        for (command, kind) in
            [(list, Kind::Get), (prune, Kind::Get), (&["prune", "--dry-run"], Kind::Get), (prune, Kind::Delete)]
        {
            proxy.fail_always(kind, 1, Fault::Stall);
            let (before, running) = (proxy.spoiled(), test.spawn(command));
            eventually("the service is waited for", || proxy.spoiled() > before);
            running.kill(Signal::TERM);
            let ran = running.wait().fails(143);
            proxy.heal();
            assert_eq!(ran.stderr.matches("interrupted").count(), 1, "{name} {command:?}: {ran:?}");
            assert!(!ran.stdout.contains("unknown") && !ran.stderr.contains("nothing is pruned"), "{name} {command:?}: {ran:?}");
        }
        assert_eq!(items(&test.run_at(NOW, ["list", "--json"]).ok()), 20, "{name}");
    });
}

/// What the listing has told, presence and sizes, is not asked for again.
#[test]
fn a_list_asks_for_each_manifest_once_and_for_nothing_else() {
    on_each_server(|bucket| {
        let (name, proxy) = (bucket.server().name(), Proxy::before(bucket.server()));
        for id in ids(20) {
            Planted::new("app", &id).into_bucket(&bucket, "");
        }
        let test = test(&bucket.through(&proxy).yaml(), &[], "");
        assert_eq!(items(&test.run_at(NOW, ["list", "--json"]).ok()), 20, "{name}");
        assert_eq!((proxy.calls(Kind::Get), proxy.calls(Kind::Head)), (20, 0), "{name}");
        // Another size than its manifest says is asked for again before it is told.
        let manifest = bucket.keys().into_iter().find(|key| key.ends_with("manifest.json")).unwrap();
        let artifact = manifest.replace("manifest.json", "sql.gz");
        bucket.remove(&artifact);
        bucket.put(&artifact, b"short");
        test.run_at(NOW, ["list", "--json"]).fails(3).says("has 5 bytes, its manifest says");
        assert_eq!((proxy.calls(Kind::Get), proxy.calls(Kind::Head)), (40, 1), "{name}");
    });
}

#[test]
fn more_keys_than_a_batch_holds_are_deleted() {
    on_each_server(|bucket| {
        let keys: Vec<Key> = (0..1003).map(|number| format!("web1/20260612_030000Z/a {number}+%").parse().unwrap()).collect();
        at_once(&keys, |key| bucket.put(&format!("fin/{key}"), b""));
        bucket.put("financer", b"");
        let proxy = Proxy::before(bucket.server());
        let mut settings = bucket.through(&proxy).settings();
        settings.prefix = "fin".into();
        let (storage, cx) = (S3::new(settings, 64 << 20), context().unwrap());
        let mut listed = Vec::new();
        let mut each = |object: db_backup_tools::storage::ObjectMeta| {
            listed.push(object.key);
            Ok(())
        };
        storage.list("web1/", &mut each, &cx).unwrap();
        assert_eq!((listed.len(), proxy.calls(Kind::List)), (1003, 2), "{}", bucket.server().name());
        assert!(storage.delete(&keys, &cx).into_iter().all(|outcome| outcome.is_ok()));
        assert_eq!((bucket.keys(), proxy.calls(Kind::Delete)), (vec!["financer".to_owned()], 2), "{}", bucket.server().name());
    });
}

const DATABASES: [&str; 9] = ["my db", "a+b", "100%", "%41", "o'neil \"q\"", "größe", "x&y=z?#", "a/b", "数据 <1>"];

#[test]
fn odd_names_of_units_and_prefixes_are_ours_and_nobody_elses() {
    on_each_server(|bucket| {
        let name = bucket.server().name();
        let prefix = "fin ance/a+b%41/größe";
        for database in DATABASES {
            for id in ["20260610_030000Z-aaaa", "20260611_030000Z-bbbb"] {
                Planted::new(&format!("cl.{database}"), id).into_bucket(&bucket, &format!("{prefix}/"));
            }
        }
        // What these names would be, read wrongly.
        for prefix in ["fin ance/a b%41/größe/", "fin ance/a+bA/größe/", "fin%20ance/a+b%41/größe/"] {
            Planted::new("cl.my db", "20260609_030000Z-cccc").into_bucket(&bucket, prefix);
        }
        let test = test(&bucket.yaml_with(&format!("prefix: '{prefix}'")), &DATABASES, ", retention: { keep_last: 1 }");
        let listed = test.run_at(NOW, ["list", "--json"]).ok().json();
        let units: BTreeSet<&str> =
            listed["items"].as_array().unwrap().iter().map(|item| item["unit"].as_str().unwrap()).collect();
        assert_eq!(units, DATABASES.map(|database| format!("cl.{database}")).iter().map(String::as_str).collect(), "{name}");
        test.run_at(NOW, ["list", "--verify"]).ok();
        let before = bucket.keys().len();
        test.run_at(NOW, ["prune"]).ok();
        let listed = test.run_at(NOW, ["list", "--json"]).ok().json();
        let left: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert_eq!(left, ["20260611_030000Z-bbbb"; 9], "{name}");
        // Of each pruned one manifest, artifact, inventory and the proof.
        assert_eq!(bucket.keys().len(), before - 9 * 4, "{name}");
        for database in DATABASES {
            let restored = test.run(["restore", &format!("cl.{database}"), "--output", "-"]).ok();
            assert!(restored.stdout.contains("once upon a time 40"), "{name}: {database}");
        }
    });
}

/// A nightly run needs no right to delete there, nor to look for leftovers; a policy of its own changes nothing.
#[test]
fn a_storage_that_only_grows_is_never_asked_to_delete() {
    for server in s3::all() {
        let (database, bucket, proxy) = (database(), server.bucket(), Proxy::before(server));
        let grows = bucket.through(&proxy).yaml_with("part_size: 5MiB, prune: false, retention: { keep_last: 1 }");
        let test = Test::of(&database)
            .storages([("local", "{ type: local, path: '{storage}', retention: { keep_last: 1 } }".into()), ("grows", grows)])
            .target_option("compression: { type: none }")
            .target_option("retention: { keep_last: 2 }");
        for _ in 0..3 {
            test.run(["backup"]).ok();
        }
        let asked = || [Kind::Delete, Kind::Abort, Kind::Uploads, Kind::Parts, Kind::Other].map(|kind| proxy.calls(kind));
        assert_eq!(asked(), [0; 5], "{}", server.name());
        assert!(proxy.calls(Kind::Part) >= 9 && proxy.calls(Kind::Complete) == 3);
        let held = |storage: &str| items(&test.run(["list", "--json", "--storage", storage]).ok());
        assert_eq!([held("local"), held("grows")], [1, 3]);
        // A person who prunes is told why it stays, and nothing is asked either.
        let told = test.run(["prune", "--json"]).ok().json();
        assert!(told["items"].as_array().unwrap().iter().all(|item| item["decision"] == "keep"), "{told}");
        assert_eq!(asked(), [0; 5], "{}", server.name());
    }
}

/// What the program looks at a service with is none of its backups, and no stranger's file.
#[test]
fn the_object_that_services_are_tried_with_is_never_shown_nor_deleted() {
    for server in s3::all() {
        for prefix in ["", "a/b"] {
            let (database, bucket) = (database(), server.bucket());
            let below = if prefix.is_empty() { String::new() } else { format!("prefix: {prefix}") };
            let test = Test::of(&database)
                .storages([("offsite", bucket.yaml_with(&below))])
                .target_option("retention: { keep_last: 1 }");
            test.run(["backup"]).ok();
            test.run(["backup"]).ok();
            let marker = if prefix.is_empty() { ".db-backup-tools".to_owned() } else { format!("{prefix}/.db-backup-tools") };
            let count = |keys: Vec<String>| (keys.contains(&marker), keys.len());
            assert_eq!(count(bucket.keys()), (true, 4), "{}: {:?}", server.name(), bucket.keys());
            for command in
                [&["list", "--all", "--json"][..], &["prune", "--json"], &["list", "--host", "web2", "--all", "--json"]]
            {
                let ran = test.run(command).ok();
                assert!(!ran.stdout.contains(".db-backup-tools") && !ran.stderr.contains("not named as ours"), "{ran:?}");
                assert_eq!(ran.json()["problems"].as_array().unwrap().len(), 0, "{ran:?}");
            }
            assert_eq!(count(bucket.keys()), (true, 4));
        }
    }
}

/// A listing of a bucket that grows, with a page that fails: once it goes on, for ever it is a failure and shows nothing.
#[test]
fn a_page_that_fails_in_the_middle_is_no_shorter_listing() {
    let Some(server) = S3sFs::shared() else { return };
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let ids = ids(400);
    at_once(&ids, |id| drop(Planted::new("app", id).into_bucket(&bucket, "")));
    let storage = bucket.through(&proxy).yaml_with("retries: 1");
    let test = test(&storage, &[], ", retention: { keep_last: 3 }");
    for fault in [Fault::Cut, Fault::Reset, Fault::Status(503, "SlowDown", None)] {
        proxy.fail(Kind::List, 2, fault.clone());
        assert_eq!(items(&test.run_at(NOW, ["list", "--json", "app"]).ok()), 400, "{fault:?}");
        proxy.fail_always(Kind::List, 2, fault.clone());
        let ran = test.run_at(NOW, ["list", "--json", "app"]).fails(1).says("storage offsite").says("hint: ");
        assert_eq!(items(&ran), 0, "{fault:?}");
        let before = bucket.keys().len();
        test.run_at(NOW, ["prune"]).fails(1).says("storage offsite").says("hint: ");
        assert_eq!(bucket.keys().len(), before, "{fault:?}");
        proxy.heal();
    }
}
