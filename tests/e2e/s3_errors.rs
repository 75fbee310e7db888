//! What a person is told when an S3 service says no, or is none: what was asked, the service's own words, and what to do.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::s3_faults::DATABASE;
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{ACCESS_KEY, Ceph, S3Bucket, S3sFs, SECRET_KEY};
use crate::support::{Ran, Test};

/// A storage `offsite`, and a target that nobody connects to.
pub(crate) fn listing(storage: &str) -> Test {
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages:\n  offsite: {storage}\n\
         targets: [{{ name: app, type: postgres, database: app }}]\n"
    ))
}

/// What runs told, with what differs from run to run left out; no key is in it.
#[track_caller]
pub(crate) fn told<'a>(runs: impl IntoIterator<Item = (&'a str, Ran)>) -> String {
    let mut lines = String::new();
    for (what, ran) in runs {
        let ran = ran.never_shows(SECRET_KEY).never_shows(ACCESS_KEY);
        let of_summary = |line: &&str| !line.starts_with("list: ") && !line.starts_with("backup: ") && !line.starts_with("app: failed");
        let said: Vec<&str> = ran.stderr.lines().filter(of_summary).collect();
        writeln!(lines, "== {what}: exit {}\n{}{}", ran.code.unwrap_or(-1), ran.stdout, said.join("\n")).unwrap();
    }
    lines
}

/// Snapshots that are the same whatever ports, names and times.
pub(crate) fn redacted(assert: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"127\.0\.0\.1:\d+", "HOST:PORT");
    settings.add_filter(r"test-[0-9a-f-]{18}", "BUCKET");
    settings.add_filter(r"\d{8}_\d{6}Z(-[a-z0-9]{4})?", "ID");
    settings.add_filter(r"\d+(\.\d+)? m?s\b", "TIME");
    settings.add_filter(r"\b\d{10}\b", "SECONDS");
    settings.add_filter(r"\d+ seconds ago", "SECONDS ago");
    settings.bind(assert);
}

/// A backup in parts through a proxy, tried once.
fn backup_through(options: &str) -> Option<(S3Bucket, Proxy, Test)> {
    let server = S3sFs::shared()?;
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let storage = bucket.through(&proxy).yaml_with(&format!("retries: 0, part_size: 5MiB, {options}"));
    let test = Test::of(&DATABASE).storages([("offsite", storage)]);
    Some((bucket, proxy, test.target_option("compression: { type: none }").target_option("retries: 0")))
}

#[test]
fn wrong_keys_and_buckets() {
    let mut runs = Vec::new();
    if let Some(server) = S3sFs::shared() {
        let bucket = server.bucket();
        let yaml = bucket.yaml();
        runs.push(("no such bucket", listing(&yaml.replace(bucket.name(), "test-00000000-0000-0000")).run(["list"])));
        runs.push(("wrong secret", listing(&yaml.replace(SECRET_KEY, "wrong/secret")).run(["list"]).never_shows("wrong/secret")));
    }
    redacted(|| insta::assert_snapshot!(told(runs), @""));
}

#[test]
fn wrong_keys_and_buckets_on_ceph() {
    let Some(server) = Ceph::shared() else { return };
    let bucket = server.bucket();
    let yaml = bucket.yaml();
    let wrong = [
        ("no such bucket", bucket.name(), "test-00000000-0000-0000"),
        ("wrong secret", SECRET_KEY, "wrong/secret"),
        ("unknown key", ACCESS_KEY, "NOBODYSKEY"),
    ];
    let runs = wrong.map(|(what, right, wrong)| (what, listing(&yaml.replace(right, wrong)).run(["list"])));
    let of_backup = Test::of(&DATABASE).storages([("offsite", yaml.replace(SECRET_KEY, "wrong/secret"))]).run(["backup"]);
    redacted(|| insta::assert_snapshot!(told(runs.into_iter().chain([("backup, wrong secret", of_backup)])), @""));
}

#[test]
fn each_permission_that_lacks_is_named() {
    let Some((bucket, proxy, test)) = backup_through("") else { return };
    let denied = || Fault::Status(403, "AccessDenied", None);
    let mut runs = Vec::new();
    for (what, kind) in [("Initiate", Kind::Initiate), ("Part", Kind::Part), ("Complete", Kind::Complete), ("List", Kind::List)] {
        proxy.fail_always(kind, 1, denied());
        runs.push((what, test.run(["backup"])));
        proxy.heal();
    }
    // A part fails, and its upload can't be aborted.
    proxy.fail_always(Kind::Part, 1, Fault::Status(400, "InvalidRequest", None));
    proxy.fail_always(Kind::Abort, 1, denied());
    runs.push(("Abort", test.run(["backup"])));
    proxy.heal();
    test.run(["backup"]).ok();
    for (what, kind, command) in [
        ("Get", Kind::Get, ["list", "--verify"].as_slice()),
        ("Head", Kind::Head, &["list", "--verify"]),
        ("Delete", Kind::Delete, &["prune", "--delete", "latest"]),
        ("Uploads", Kind::Uploads, &["prune"]),
        ("Put", Kind::Put, &["validate", "--connect"]),
    ] {
        let id = test.run(["list", "--json"]).json()["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        proxy.fail_always(kind, 1, denied());
        runs.push((what, test.run(command.iter().map(|word| if *word == "latest" { id.as_str() } else { word }))));
        proxy.heal();
    }
    drop(bucket);
    redacted(|| insta::assert_snapshot!(told(runs), @""));
}

#[test]
fn what_a_service_says_and_what_to_do() {
    let Some((_, proxy, test)) = backup_through("storage_class: GLACIER_IR") else { return };
    let xml = |code: &str, more: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Said so.</Message>{more}</Error>");
    let plain = |status, code: &str| Fault::Answer(status, Vec::new(), xml(code, ""));
    let elsewhere = || vec![("x-amz-bucket-region", "eu-north-1".to_owned())];
    let page = |status| Fault::Answer(status, Vec::new(), "<html><body>It works!</body></html>".into());
    let faults = [
        ("clock", plain(403, "RequestTimeTooSkewed")),
        ("token", plain(400, "ExpiredToken")),
        ("redirect, with region", Fault::Answer(301, elsewhere(), xml("PermanentRedirect", ""))),
        ("redirect, with endpoint", Fault::Answer(301, vec![], xml("PermanentRedirect", "<Endpoint>s3.example.org</Endpoint>"))),
        ("redirect, with nothing", Fault::Answer(301, vec![], String::new())),
        ("region in the error", Fault::Answer(400, vec![], xml("AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"))),
        ("busy", plain(503, "SlowDown")),
        ("gateway", Fault::Answer(502, vec![], "<html><h1>Bad Gateway</h1></html>".into())),
        ("full", plain(507, "InsufficientStorage")),
        ("quota", plain(403, "QuotaExceeded")),
        ("class", plain(400, "InvalidStorageClass")),
        ("not S3, 200", page(200)),
        ("not S3, 404", page(404)),
        ("not S3, 403", page(403)),
        ("odd code", plain(418, "IAmATeapot")),
    ];
    let mut runs = Vec::new();
    for (what, fault) in faults {
        proxy.fail_all(fault);
        runs.push((what, test.run(["backup"])));
        runs.push((what, test.run(["list"])));
        proxy.heal();
    }
    redacted(|| insta::assert_snapshot!(told(runs), @""));
}

#[test]
fn no_way_there() {
    let yaml = |endpoint: &str| format!("{{ type: s3, bucket: nightly, endpoint: '{endpoint}', access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}, retries: 0, timeout: 1s }}");
    // Its backlog is full, and nobody takes from it: what comes now waits.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let waiting: Vec<_> = (0..200).map_while(|_| TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(200)).ok()).collect();
    let mut runs = vec![
        ("no such name", listing(&yaml("http://nowhere.invalid:9")).run(["list"])),
        ("refused", listing(&yaml("http://127.0.0.1:9")).run(["list"])),
        ("no answer to a connection", listing(&yaml(&format!("http://127.0.0.1:{port}"))).run(["list"])),
    ];
    drop(waiting);
    if let Some(server) = S3sFs::shared() {
        runs.push(("HTTP where HTTPS was meant", listing(&yaml(&format!("https://127.0.0.1:{}", server.port()))).run(["list"])));
    }
    redacted(|| insta::assert_snapshot!(told(runs), @""));
}
