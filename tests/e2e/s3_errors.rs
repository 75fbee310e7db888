//! What a person is told when an S3 service says no, or is none: what was asked, the service's own words, and what to do.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use insta::internals::SettingsBindDropGuard;

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
        let is_told = |line: &&str| !["list: ", "backup: ", "app: ", "ok "].iter().any(|other| line.starts_with(other));
        writeln!(lines, "== {what}: exit {}", ran.code.unwrap_or(-1)).unwrap();
        for line in ran.stdout.lines().chain(ran.stderr.lines()).filter(is_told) {
            writeln!(lines, "{line}").unwrap();
        }
    }
    lines
}

/// Snapshots that are the same whatever ports, names and times.
pub(crate) fn redacted() -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"127\.0\.0\.1:\d+", "HOST:PORT");
    settings.add_filter(r"test-[0-9a-f-]{18}", "BUCKET");
    settings.add_filter(r"\d{8}_\d{6}Z(-[a-z0-9]{4})?", "ID");
    settings.add_filter(r"\b\d+(\.\d+)? ?m?s\b", "TIME");
    settings.add_filter(r"\b\d{10}\b", "SECONDS");
    settings.add_filter(r"\d+ seconds ago", "SECONDS ago");
    settings.bind_to_scope()
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
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == no such bucket: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: NoSuchBucket (HTTP 404)
      hint: create the bucket BUCKET, or correct `bucket:` or `endpoint:`; it is never made here
    == wrong secret: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: SignatureDoesNotMatch (HTTP 403)
      hint: check `secret_access_key:` and this machine's clock
    ");
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
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs.into_iter().chain([("backup, wrong secret", of_backup)])), @"
    == no such bucket: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: NoSuchBucket (HTTP 404)
      hint: create the bucket BUCKET, or correct `bucket:` or `endpoint:`; it is never made here
    == wrong secret: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: SignatureDoesNotMatch (HTTP 403)
      hint: check `secret_access_key:` and this machine's clock
    == unknown key: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: InvalidAccessKeyId (HTTP 403)
      hint: check `access_key_id:`: the service does not know it
    == backup, wrong secret: exit 1
    error: app: storage offsite: upload: can't write .db-backup-tools to bucket BUCKET at http://HOST:PORT: SignatureDoesNotMatch (HTTP 403)
      hint: check `secret_access_key:` and this machine's clock
    ");
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
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == Initiate: exit 1
    error: app: storage offsite: upload: can't begin the upload of web1/ID/app_ID.sql to bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:PutObject on the bucket BUCKET, or check which key it is
    == Part: exit 1
    error: app: storage offsite: commit: can't write part 1 of web1/ID/app_ID.sql to bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:PutObject on the bucket BUCKET, or check which key it is
    == Complete: exit 1
    error: app: storage offsite: commit: can't complete the upload of web1/ID/app_ID.sql to bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:PutObject on the bucket BUCKET, or check which key it is
    == List: exit 0
    == Abort: exit 1
    warning: what is left of an upload could not be removed, prune will: can't abort the upload of web1/ID/app_ID.sql to bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403) (give the key the permission s3:AbortMultipartUpload on the bucket BUCKET, or check which key it is)
    error: app: storage offsite: commit: can't write part 1 of web1/ID/app_ID.sql to bucket BUCKET at http://HOST:PORT: InvalidRequest: Injected. (HTTP 400)
      hint: look the code up in the service's documentation
    == Get: exit 1
    error: app: storage offsite: can't read web1/ID/app_ID.manifest.json in bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:GetObject (and s3:ListBucket, without which an absent object is forbidden too) on the bucket BUCKET, or check which key it is
    error: app: storage offsite: can't read web1/ID/app_ID.manifest.json in bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:GetObject (and s3:ListBucket, without which an absent object is forbidden too) on the bucket BUCKET, or check which key it is
    == Head: exit 1
    ID                     UNIT  AGE      SIZE  STORAGES  STATE  PROVEN  LABEL
    ID  app    TIME  11.1 MiB  offsite   whole       -
    ID  app    TIME  11.1 MiB  offsite   whole       -
    error: app: storage offsite: read: can't look at web1/ID/app_ID.sql in bucket BUCKET at http://HOST:PORT: the service answered HTTP 403
      hint: give the key the permission s3:GetObject (and s3:ListBucket, without which an absent object is forbidden too) on the bucket BUCKET, or check which key it is
    error: app: storage offsite: read: can't look at web1/ID/app_ID.sql in bucket BUCKET at http://HOST:PORT: the service answered HTTP 403
      hint: give the key the permission s3:GetObject (and s3:ListBucket, without which an absent object is forbidden too) on the bucket BUCKET, or check which key it is
    == Delete: exit 1
    error: app: storage offsite: can't delete web1/ID/app_ID.manifest.json from bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:DeleteObject on the bucket BUCKET, or check which key it is
    prune: 0 deleted, 0 kept, 1 could not be deleted
    == Uploads: exit 3
    warning: storage offsite: list: uploads that never ended are not removed: can't list the uploads of bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
      hint: give the key the permission s3:ListBucketMultipartUploads on the bucket BUCKET, or check which key it is
    prune: 0 deleted, 2 kept
    == Put: exit 1
    FAIL  storage offsite: can't write .db-backup-tools to bucket BUCKET at http://HOST:PORT: AccessDenied: Injected. (HTTP 403)
          hint: give the key the permission s3:PutObject on the bucket BUCKET, or check which key it is
    validate: 1 problem found
    ");
}

#[test]
fn what_a_service_says_and_what_to_do() {
    let Some((_, proxy, test)) = backup_through("storage_class: GLACIER_IR") else { return };
    let xml = |code: &str, more: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Said so.</Message>{more}</Error>")
    };
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
        runs.push((what, test.run(["list"])));
        proxy.heal();
    }
    for (what, fault) in
        [("backup: not S3, 200", page(200)), ("backup: not S3, 404", page(404)), ("backup: busy", plain(503, "SlowDown"))]
    {
        proxy.fail_all(fault);
        runs.push((what, test.run(["backup"])));
        proxy.heal();
    }
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == clock: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: RequestTimeTooSkewed: Said so. (HTTP 403)
      hint: set this machine's clock: it and the service's differ by too much
    == token: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: ExpiredToken: Said so. (HTTP 400)
      hint: get new temporary keys: the session token has expired
    == redirect, with region: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: PermanentRedirect: Said so. (HTTP 301)
      hint: set `region: eu-north-1`: that is where the bucket is
    == redirect, with endpoint: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: PermanentRedirect: Said so. (HTTP 301)
      hint: the bucket is at s3.example.org: correct `region:` or `endpoint:`
    == redirect, with nothing: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: the service answered HTTP 301
      hint: correct `region:` or `endpoint:`: the bucket is somewhere else
    == region in the error: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: AuthorizationHeaderMalformed: Said so. (HTTP 400)
      hint: set `region: eu-west-3`: that is where the bucket is, not us-east-1
    == busy: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: SlowDown: Said so. (HTTP 503)
      hint: the service is in trouble or busy: look at its log, or try again later
    == gateway: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: HTTP 502: <html><h1>Bad Gateway</h1></html>
      hint: the service is in trouble or busy: look at its log, or try again later
    == full: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: InsufficientStorage: Said so. (HTTP 507)
      hint: make room there, or raise the quota
    == quota: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: QuotaExceeded: Said so. (HTTP 403)
      hint: make room there, or raise the quota
    == class: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: InvalidStorageClass: Said so. (HTTP 400)
      hint: check `storage_class:`: the service has no such class
    == not S3, 200: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: its answer is none that an S3 service gives to that
      hint: is there an S3 service at `endpoint:`, and no other web server?
    == not S3, 404: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: HTTP 404: <html><body>It works!</body></html>
      hint: is there an S3 service at `endpoint:`, and no other web server?
    == not S3, 403: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: HTTP 403: <html><body>It works!</body></html>
      hint: is there an S3 service at `endpoint:`, and no other web server?
    == odd code: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://HOST:PORT: IAmATeapot: Said so. (HTTP 418)
      hint: look the code up in the service's documentation
    == backup: not S3, 200: exit 1
    error: app: storage offsite: upload: can't write .db-backup-tools to bucket BUCKET at http://HOST:PORT: its answer is none that an S3 service gives to that
      hint: is there an S3 service at `endpoint:`, and no other web server?
    == backup: not S3, 404: exit 1
    error: app: storage offsite: upload: can't write .db-backup-tools to bucket BUCKET at http://HOST:PORT: HTTP 404: <html><body>It works!</body></html>
      hint: is there an S3 service at `endpoint:`, and no other web server?
    == backup: busy: exit 1
    error: app: storage offsite: upload: can't write .db-backup-tools to bucket BUCKET at http://HOST:PORT: SlowDown: Said so. (HTTP 503)
      hint: the service is in trouble or busy: look at its log, or try again later
    ");
}

#[test]
fn no_way_there() {
    let within = |endpoint: &str, timeout: &str| {
        format!(
            "{{ type: s3, bucket: nightly, endpoint: '{endpoint}', access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}, retries: 0, timeout: {timeout} }}"
        )
    };
    let yaml = |endpoint: &str| within(endpoint, "60s");
    // Its backlog is full, and nobody takes from it: what comes now waits.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let waiting: Vec<_> = (0..200)
        .map_while(|_| TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(200)).ok())
        .collect();
    let mut runs = vec![
        ("no such name", listing(&yaml("http://nowhere.invalid:9")).run(["list"])),
        ("refused", listing(&yaml("http://127.0.0.1:9")).run(["list"])),
        ("no answer to a connection", listing(&within(&format!("http://127.0.0.1:{port}"), "1s")).run(["list"])),
    ];
    drop(waiting);
    if let Some(server) = S3sFs::shared() {
        runs.push(("HTTP where HTTPS was meant", listing(&yaml(&format!("https://127.0.0.1:{}", server.port()))).run(["list"])));
    }
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == no such name: exit 1
    error: storage offsite: list: can't list bucket nightly at http://nowhere.invalid:9: dns error: failed to lookup address information: Name or service not known
      hint: check the host's name in `endpoint:` (or `bucket:` and `region:`), and this machine's DNS
    == refused: exit 1
    error: storage offsite: list: can't list bucket nightly at http://HOST:PORT: tcp connect error: Connection refused (os error 111)
      hint: is the service running, and are host and port in `endpoint:` right?
    == no answer to a connection: exit 1
    error: storage offsite: list: can't list bucket nightly at http://HOST:PORT: tcp connect error: deadline has elapsed
      hint: nothing answers there: check host and port in `endpoint:`, and what firewalls let through
    == HTTP where HTTPS was meant: exit 1
    error: storage offsite: list: can't list bucket nightly at https://HOST:PORT: received corrupt message of type InvalidContentType
      hint: the service speaks plain HTTP there: write http:// in `endpoint:`, if the network between is trusted
    ");
}

#[test]
fn that_a_call_is_made_again_is_told() {
    let storage = |retries: u32| {
        format!(
            "{{ type: s3, bucket: nightly, endpoint: 'http://127.0.0.1:9', access_key_id: {ACCESS_KEY}, \
             secret_access_key: {SECRET_KEY}, retries: {retries} }}"
        )
    };
    let told =
        "can't list bucket nightly at http://127.0.0.1:9: tcp connect error: Connection refused (os error 111); trying again in ";
    let count = |retries, arguments: &[&str]| listing(&storage(retries)).run(arguments).fails(1).stderr.matches(told).count();
    // A person hears of it once in five seconds, the log of each.
    assert_eq!(count(2, &["list"]), 1);
    assert_eq!(count(2, &["list", "-q"]), 0);
    assert_eq!(count(2, &["list", "-v"]), 1 + 2);
    assert_eq!(count(2, &["list", "--log-format", "json"]), 1);
    assert_eq!(count(0, &["list"]), 0);
}
