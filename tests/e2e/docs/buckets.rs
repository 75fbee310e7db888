//! QUICKSTART.md's section on buckets. Its commands and configurations run on the servers of our tests, with these in
//! place of what the page shows: the server's address for RustFS's (`http://127.0.0.1:9000`) and for Amazon's region, a
//! bucket of the test's own (which the page's own command makes) for `shop-backups` and `our-db-backups`, the server's
//! keys for the page's. The policies are applied to a bucket of Ceph, which refuses what they do not allow.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::commands::Machine;
use super::{Block, page};
use crate::s3::database;
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{self, ACCESS_KEY, Ceph, S3Bucket, SECRET_KEY, Server};
use crate::support::s3_request::Request;
use crate::support::tool::files_below;
use crate::support::{SHARED, Test, repository};

const PAGE: &str = "QUICKSTART.md";

/// Blocks from one heading to another, those that `wanted` names by their info string.
fn between(from: &str, to: &str, wanted: impl Fn(&[&str]) -> bool) -> Vec<Block> {
    let page = page(PAGE);
    let line = |heading: &str| {
        let found = page.text.lines().position(|line| line == heading);
        found.unwrap_or_else(|| panic!("{PAGE} has no {heading:?}")) + 1
    };
    let (from, to) = (line(from), line(to));
    let is_wanted = |block: &Block| (from..to).contains(&block.line) && wanted(&block.info.split(' ').collect::<Vec<_>>());
    let blocks: Vec<_> = page.blocks().into_iter().filter(is_wanted).collect();
    assert!(!blocks.is_empty(), "nothing in lines {from} to {to}");
    blocks
}

/// What everybody does, whatever the storage.
fn is_general(info: &[&str]) -> bool {
    matches!(info, ["sh" | "sql"] | ["yaml", _])
}

fn machine(server: &Server, bucket: &str) -> Machine {
    Machine::new().replacing([
        ("http://127.0.0.1:9000", server.endpoint()),
        ("region: eu-central-1\n", format!("region: {}\n    endpoint: {}\n", s3::REGION, server.endpoint())),
        ("shop-backups", bucket.to_owned()),
        ("our-db-backups", bucket.to_owned()),
        ("shop-key", ACCESS_KEY.to_owned()),
        ("AKIAIOSFODNN7EXAMPLE", ACCESS_KEY.to_owned()),
        ("AKIAI44QH8DHBEXAMPLE", ACCESS_KEY.to_owned()),
        ("change-me-three", SECRET_KEY.to_owned()),
    ])
}

#[test]
fn a_bucket_is_made_filled_and_restored_from_with_the_program_and_by_hand() {
    for server in s3::all() {
        // Never made by the test: the page's own command does.
        let bucket = format!("quick-{}", server.bucket().name());
        let machine = machine(server, &bucket);
        let original = machine.dump("shop");
        let blocks = [
            between("## Set it up", "### 6. Every night", is_general),
            between("## Restore", "### Beside the original", is_general),
            between("### RustFS", "### Amazon S3", |info| matches!(info, ["sh", "s3"] | ["yaml", _, "s3"])),
            between("### 2. Check it", "### 5. Give it its name", |info| matches!(info, ["sh"] | ["sh", "gzip"])),
        ];
        let printed = machine.run(&blocks.concat()).unwrap_or_else(|printed| panic!("{}: {printed}", server.name()));
        assert!(!printed.contains(SECRET_KEY), "{printed}");
        assert!(printed.contains("local, rustfs"), "{printed}");
        for name in ["shop_from_bucket", "shop_by_hand"] {
            assert!(machine.dump(name) == original, "{}: {name} differs from the original", server.name());
        }
    }
}

#[test]
fn what_one_machine_may_only_add_to_another_one_prunes() {
    for server in s3::all() {
        let bucket = server.bucket();
        let machine = machine(server, bucket.name());
        let again = "sleep 1\ncd /etc/db-backup\ndb-backup-tools --env-file env backup shop\n";
        let amazon = |wanted: fn(&[&str]) -> bool| between("### Amazon S3", "## When something refuses", wanted);
        let mut nightly = between("## Set it up", "### 6. Every night", is_general);
        nightly.truncate(nightly.iter().position(|block| block.text.contains("validate --connect")).unwrap());
        nightly.extend(amazon(|info| matches!(info, ["yaml", _, "aws"])));
        let shell = |text: &str| Block { page: PAGE.into(), line: 0, info: "sh".into(), text: text.into() };
        nightly.push(shell(&format!("printf '%s\\n' change-me-three >/etc/db-backup/s3.secret\nexport DB_BACKUP_CONFIG=/etc/db-backup/backup.yml\n{again}{again}")));
        machine.run(&nightly).unwrap_or_else(|printed| panic!("{}: {printed}", server.name()));
        let manifests = || bucket.keys().iter().filter(|key| key.ends_with(".manifest.json")).count();
        assert_eq!(manifests(), 2, "{}", server.name());
        // A day holds both: one of them goes.
        let pruner = amazon(|info| matches!(info, ["yaml", _, "pruner"] | ["crontab", "pruner"]));
        machine.run(&pruner).unwrap_or_else(|printed| panic!("{}: {printed}", server.name()));
        assert_eq!(manifests(), 1, "{}", server.name());
    }
}

/// A JSON document of the page, by the name that it is to be stored under.
fn document(name: &str) -> Value {
    let block = page(PAGE).blocks().into_iter().find(|block| block.info == format!("json {name}"));
    let block = block.unwrap_or_else(|| panic!("{PAGE} shows no {name}"));
    serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Of Amazon's names, on what they are allowed ("Actions, resources, and condition keys for Amazon S3").
const ON_OBJECTS: [&str; 5] =
    ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"];
const ON_BUCKETS: [&str; 2] = ["s3:ListBucket", "s3:ListBucketMultipartUploads"];
const ON_KEYS: [&str; 2] = ["kms:GenerateDataKey", "kms:Decrypt"];

fn actions_of(statement: &Value) -> Vec<String> {
    match &statement["Action"] {
        Value::String(one) => vec![one.clone()],
        many => many.as_array().unwrap().iter().map(|action| action.as_str().unwrap().to_owned()).collect(),
    }
}

/// What a policy of the page allows.
fn allowed(name: &str) -> BTreeSet<String> {
    let statements = document(name)["Statement"].clone();
    statements.as_array().unwrap().iter().flat_map(actions_of).collect()
}

#[test]
fn every_document_is_one_that_amazon_can_read() {
    let names: Vec<String> =
        page(PAGE).blocks().iter().filter_map(|block| Some(block.info.strip_prefix("json ")?.to_owned())).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in &names {
        let document = document(name);
        if name == "lifecycle.json" {
            assert!(document["Rules"][0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"].as_u64() >= Some(2));
            continue;
        }
        let statements = match &document["Statement"] {
            Value::Null => vec![document.clone()],
            statements => statements.as_array().unwrap().clone(),
        };
        assert!(document["Statement"].is_null() || document["Version"] == "2012-10-17", "{name}");
        for statement in statements {
            assert_eq!(statement["Effect"], "Allow", "{name}");
            let resource = statement["Resource"].as_str().unwrap();
            let fitting: &[&str] = match resource {
                "arn:aws:s3:::our-db-backups/*" => &ON_OBJECTS,
                "arn:aws:s3:::our-db-backups" => &ON_BUCKETS,
                key if key.starts_with("arn:aws:kms:") => &ON_KEYS,
                other => panic!("{name}: {other}"),
            };
            for action in actions_of(&statement) {
                assert!(fitting.contains(&action.as_str()), "{name}: {action} is not allowed on {resource}");
            }
        }
    }
    assert!(!allowed("backup-policy.json").contains("s3:DeleteObject"));
    assert!(!allowed("prune-policy.json").contains("s3:PutObject"));
}

/// Has the server refuse everything else in this bucket.
fn allow_only(bucket: &S3Bucket, allowed: &BTreeSet<String>) {
    let others = ON_OBJECTS.iter().chain(&ON_BUCKETS).filter(|action| !allowed.contains(**action));
    let denied: Vec<_> = others.chain(&["s3:DeleteObjectVersion", "s3:PutObjectTagging"]).collect();
    let resources = ["", "/*"].map(|below| format!("arn:aws:s3:::{}{below}", bucket.name()));
    let statement = json!({ "Effect": "Deny", "Principal": "*", "Action": denied, "Resource": resources });
    let policy = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
    let request =
        Request { method: "PUT", query: vec![("policy", String::new())], body: policy.as_bytes(), ..bucket.request("") };
    assert!(matches!(bucket.ask(&request).status, 200 | 204));
}

fn everything() -> BTreeSet<String> {
    ON_OBJECTS.iter().chain(&ON_BUCKETS).map(|action| (*action).to_owned()).collect()
}

/// A test with this bucket as its one storage; some of its uploads have three parts.
fn test_on(database: &crate::support::Database, storage: String) -> Test {
    let cut = r#"[ "$1" = --version ] || [ ! -e {dir}/cut ] || { {real} "$@" | head -c 7000000; exit 1; }; exec {real} "$@""#;
    Test::of(database)
        .fake_bin("pg_dump", cut)
        .storages([("offsite", storage)])
        .target_option("compression: { type: none }")
        .target_option("retries: 0")
}

/// What a nightly run and what watches it do; the first that does not go well.
fn a_night(server: &'static Server, allowed: &BTreeSet<String>) -> Result<(), String> {
    let (database, bucket, proxy) = (database(), server.bucket(), Proxy::before(server));
    allow_only(&bucket, allowed);
    let test = test_on(&database, bucket.through(&proxy).yaml_with("part_size: 5MiB, prune: false"));
    let run = |arguments: &[&str]| {
        let ran = test.run(arguments);
        if ran.code == Some(0) { Ok(()) } else { Err(format!("{arguments:?}: {}{}", ran.stdout, ran.stderr)) }
    };
    run(&["validate", "--connect"])?;
    // Begun twice, as the first answer is lost: the other upload is found and given up.
    proxy.fail(Kind::Initiate, 1, Fault::LostAnswer);
    run(&["backup"])?;
    run(&["list", "--max-age", "26h"])?;
    run(&["list", "--verify"])?;
    let target = SHARED.create_database();
    run(&["restore", "app", "--to-database", target.name()])?;
    run(&["restore", "--drill"])?;
    test.write("cut", "");
    test.run(["backup"]).fails(1);
    allow_only(&bucket, &everything());
    match bucket.uploads().unwrap() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("uploads are left: {left:?}")),
    }
}

#[test]
fn the_policy_for_backups_suffices_and_each_of_its_actions_is_needed() {
    let Some(ceph) = Ceph::shared() else { return };
    let policy = allowed("backup-policy.json");
    a_night(ceph, &policy).unwrap();
    for action in &policy {
        let without: BTreeSet<_> = policy.iter().filter(|other| *other != action).cloned().collect();
        let failed = a_night(ceph, &without).expect_err(action);
        assert!(!failed.contains(SECRET_KEY));
        // The message names what is missing, where a person can still act on it.
        assert!(failed.contains(action) || failed.starts_with("uploads are left"), "{action}: {failed}");
    }
}

#[test]
fn the_policies_for_restores_and_for_pruning_suffice_for_that_alone() {
    let Some(ceph) = Ceph::shared() else { return };
    let (database, bucket) = (database(), ceph.bucket());
    let test = test_on(&database, bucket.yaml_with("part_size: 5MiB")).target_option("retention: { keep_last: 1 }");
    for _ in 0..2 {
        test.run(["backup", "--no-prune"]).ok();
    }
    let keys = bucket.keys();

    allow_only(&bucket, &allowed("restore-policy.json"));
    test.run(["list", "--max-age", "26h"]).ok();
    let target = SHARED.create_database();
    test.run(["restore", "app", "--to-database", target.name()]).ok();
    assert_eq!(target.dump(), database.dump());
    test.run(["restore", "--drill"]).fails(3).says("s3:PutObject");
    test.run(["backup"]).fails(1).says("s3:PutObject");
    test.run(["prune"]).fails(3).says("s3:ListBucketMultipartUploads").says("s3:DeleteObject");
    allow_only(&bucket, &everything());
    assert_eq!(bucket.keys(), keys);

    // What an interrupted run leaves, too young to go.
    let key = keys.iter().find(|key| key.ends_with(".sql")).unwrap().replace(".sql", ".inventory.json");
    let begin = Request { method: "POST", query: vec![("uploads", String::new())], ..bucket.request(&key) };
    bucket.ask(&begin).expect(200);
    let policy = allowed("prune-policy.json");
    for action in &policy {
        // Nothing here is old enough to be given up.
        if action == "s3:AbortMultipartUpload" {
            continue;
        }
        allow_only(&bucket, &policy.iter().filter(|other| *other != action).cloned().collect());
        let ran = test.run(["prune"]);
        assert!(ran.code != Some(0) && ran.stderr.contains(action), "{action}: {:?} {}", ran.code, ran.stderr);
    }
    allow_only(&bucket, &policy);
    test.run(["prune"]).ok();
    test.run(["backup"]).fails(1).says("s3:PutObject");
    allow_only(&bucket, &everything());
    assert_eq!(bucket.keys().iter().filter(|key| key.ends_with(".manifest.json")).count(), 1);
}

#[test]
fn every_error_that_is_explained_is_one_that_is_told() {
    let page = page("docs/storages.md");
    let rows = page.text.lines().skip_while(|line| *line != "## When something fails").filter(|line| line.starts_with("| "));
    let directory = repository().join("src/storage/s3");
    let sources = files_below(&directory).into_iter().map(|file| fs::read_to_string(directory.join(file)).unwrap());
    let sources: String = sources.collect();
    let mut seen = 0;
    for row in rows.skip(1).take_while(|row| row.contains('`')) {
        for said in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            assert!(sources.contains(said), "no source has {said:?}, which docs/storages.md explains");
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen}");
}
