//! Backups in S3-compatible storages, on real servers: what an operator does with them.

use std::fs;
use std::io::Read;
use std::sync::Arc;

use db_backup_tools::config::model::S3Settings;
use db_backup_tools::host::Context;
use db_backup_tools::names::Key;
use db_backup_tools::observe::{Event, Recording};
use db_backup_tools::storage::s3::S3;
use db_backup_tools::storage::{Storage, conformance};
use serde_json::json;

use crate::support::s3::{self, ACCESS_KEY, Ceph, S3sFs, SECRET_KEY};
use crate::support::{Database, SHARED, Test};

/// Some 12 MB of dump that no compression makes small.
pub(crate) fn database() -> Database {
    let database = SHARED.create_database();
    database.psql(
        "CREATE TABLE t (id int, word text);
         INSERT INTO t SELECT n, (SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, 30) m)
         FROM generate_series(1, 12000) n",
    );
    database
}

#[test]
fn a_backup_goes_there_and_comes_back() {
    for server in s3::all() {
        let (database, bucket) = (database(), server.bucket());
        let test = Test::of(&database)
            .storages([("offsite", bucket.yaml_with("prefix: fin/ancer, part_size: 5MiB"))])
            .target_option("compression: { type: none }");
        test.run(["backup"]).ok();
        let listed = test.run(["list", "--json"]).ok().json();
        assert_eq!(listed["items"][0]["storages"], json!(["offsite"]), "{}", server.name());
        assert_eq!(listed["items"][0]["state"], "whole");
        test.run(["list", "--verify"]).ok();
        let target = SHARED.create_database();
        test.run(["restore", "app", "--to-database", target.name()]).ok();
        assert_eq!(target.dump(), database.dump(), "{}", server.name());
        let keys = bucket.keys();
        assert!(keys.iter().all(|key| key.starts_with("fin/ancer/")), "{keys:?}");
        assert!(bucket.uploads().is_none_or(|uploads| uploads.is_empty()));
        test.run(["restore", "--drill"]).ok();
        let id = listed["items"][0]["id"].as_str().unwrap();
        test.run(["prune", "--delete", id]).ok();
        assert_eq!(bucket.keys(), ["fin/ancer/.db-backup-tools"], "{}", server.name());
    }
}

#[test]
fn one_pass_feeds_a_directory_and_two_services() {
    let (Some(light), Some(ceph)) = (S3sFs::shared(), Ceph::shared()) else { return };
    let (database, near, far) = (database(), light.bucket(), ceph.bucket());
    let counted = r#"[ "$1" = --version ] || echo run >>{dir}/dumps; exec {real} "$@""#;
    let test = Test::of(&database)
        .fake_bin("pg_dump", counted)
        .storages([
            ("local", "{ type: local, path: '{storage}' }".into()),
            ("near", near.yaml_with("part_size: 5MiB")),
            ("far", far.yaml_with("prefix: a, part_size: 6MiB")),
        ])
        .target_option("compression: { type: none }");
    test.run(["backup"]).ok();
    assert_eq!(fs::read_to_string(test.path("dumps")).unwrap(), "run\n");
    let stored = test.stored();
    assert_eq!(stored.len(), 3, "{stored:?}");
    for name in &stored {
        let local = fs::read(test.storage().join(name)).unwrap();
        assert!(near.get(name).unwrap() == local && far.get(&format!("a/{name}")).unwrap() == local, "{name}");
    }
    let listed = test.run(["list", "--json"]).ok().json();
    assert_eq!(listed["items"][0]["storages"], json!(["local", "near", "far"]));
}

#[test]
fn validate_connect_says_what_the_service_can_do() {
    for server in s3::all() {
        let (database, bucket) = (SHARED.create_database(), server.bucket());
        let test = Test::of(&database).storages([("offsite", bucket.yaml())]);
        let ran = test.run(["validate", "--connect"]).ok().never_shows(SECRET_KEY).never_shows(ACCESS_KEY);
        let said = ran.stdout.lines().find(|line| line.contains("offsite")).unwrap();
        let notes: Vec<&str> = said.split("; ").skip(1).collect();
        let uploads = match server.name() {
            "Ceph" => "unfinished uploads are listed",
            _ => "unfinished uploads can't be listed: have a lifecycle rule of the bucket abort them",
        };
        let expected = [
            "written, read, listed and deleted",
            "a second write of a key is refused by the service",
            "checksums are compared",
            "uploads in parts are begun and given up",
            uploads,
        ];
        assert_eq!(notes, expected, "{}", server.name());
    }
}

#[test]
fn parts_that_are_to_be_larger_are_told_in_the_log() {
    let Some(server) = S3sFs::shared() else { return };
    let (database, bucket) = (database(), server.bucket());
    // Its size on the server is the estimate.
    let yaml = bucket.yaml_with("part_size: 5MiB, max_parts: 2");
    let test = Test::of(&database).storages([("offsite", yaml)]).target_option("compression: { type: none }");
    let ran = test.run(["backup"]).ok().says("it goes up in parts of ").says(" MiB of memory");
    assert!(!ran.stderr.contains("its parts grow"), "{}", ran.stderr);
    test.run(["list", "--verify"]).ok();
}

#[test]
fn a_stream_that_outgrows_its_estimate_gets_larger_parts_and_that_is_told() {
    for server in s3::all() {
        let settings = S3Settings { part_size: 5 << 20, max_parts: 4, ..server.bucket().settings() };
        let observer = Arc::new(Recording::default());
        let cx = Context { observer: observer.clone(), ..conformance::context().unwrap() };
        let storage = S3::new(settings, 88 << 20);
        let key: Key = "web1/20260612_030000Z/app.sql".parse().unwrap();
        let bytes: Vec<u8> = (0..26_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let mut upload = storage.upload(&key, Some(1), &cx).unwrap();
        bytes.chunks(1_000_003).for_each(|block| upload.write(block).unwrap());
        assert_eq!(upload.commit().unwrap().bytes, Some(26 << 20));
        let mut read = Vec::new();
        storage.read(&key, 0, &cx).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes, "{}", server.name());
        let told = |event: &Event| matches!(event, Event::Warning { text, .. } if text.contains("its parts grow to"));
        assert_eq!(observer.events().iter().filter(|event| told(event)).count(), 1, "{:?}", observer.events());
    }
}
