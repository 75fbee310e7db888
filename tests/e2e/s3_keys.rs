//! Whose keys sign: those of the configuration, or of the usual chain, renewed before they expire. And what else is sent
//! with what is written.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use chrono::{SecondsFormat, TimeDelta, Utc};

use crate::s3_errors::{listing, redacted, told};
use crate::s3_faults::DATABASE;
use crate::support::Test;
use crate::support::proxy::{Fault, Kind, Proxy};
use crate::support::s3::{ACCESS_KEY, Ceph, Request, S3Bucket, S3sFs, SECRET_KEY};
use crate::support::tool::files_below;
use crate::support::ways::{Listener, web};

/// Of temporary keys; no server of ours minds it.
const TOKEN: &str = "only+for/tests/token/5f1c==";

/// A storage that leaves its keys to the chain.
fn without_keys(bucket: &S3Bucket, more: &str) -> String {
    let endpoint = bucket.settings().endpoint.unwrap();
    format!("{{ type: s3, bucket: {}, endpoint: '{endpoint}', retries: 0{more} }}", bucket.name())
}

#[test]
fn keys_of_the_configuration() {
    let Some(server) = S3sFs::shared() else { return };
    let bucket = server.bucket();
    let with =
        |id: &str, secret: &str| listing(&without_keys(&bucket, &format!(", access_key_id: {id}, secret_access_key: {secret}")));
    with(ACCESS_KEY, SECRET_KEY).run(["list"]).ok();
    let test = with("'${KEY_ID}'", "'${SECRET}'").env("KEY_ID", ACCESS_KEY).env("SECRET", SECRET_KEY);
    test.run(["list"]).ok();
    let by_files = with("{ file: id }", "{ file: secret }");
    let by_files = by_files.file("id", &format!("{ACCESS_KEY}\n")).file("secret", &format!("{SECRET_KEY}\n"));
    by_files.run(["list"]).ok();
    with(ACCESS_KEY, &format!("{{ command: 'echo {SECRET_KEY}' }}")).run(["list"]).ok();
    with(ACCESS_KEY, "{ command: [cat, secret] }").file("secret", SECRET_KEY).run(["list"]).ok();
    let runs = [
        ("a command that fails", with(ACCESS_KEY, "{ command: [sh, -c, 'echo the vault is closed >&2; exit 3'] }").run(["list"])),
        ("a command that says nothing", with(ACCESS_KEY, "{ command: 'true' }").run(["list"])),
        ("a command that is not there", with(ACCESS_KEY, "{ command: no-such-vault }").run(["list"])),
        ("a file that is not there", with(ACCESS_KEY, "{ file: none }").run(["list"])),
        ("a variable that is not set", with(ACCESS_KEY, "'${SECRET}'").run(["list"])),
        ("an id alone", listing(&without_keys(&bucket, &format!(", access_key_id: {ACCESS_KEY}"))).run(["list"])),
    ];
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @r#"
    == a command that fails: exit 2
    error: storage offsite: list: the secret { command: sh ... } exited with code 3: the vault is closed
      hint: check where the configuration takes it from
    == a command that says nothing: exit 2
    error: storage offsite: list: the secret { command: true ... } is empty
      hint: check where the configuration takes it from
    == a command that is not there: exit 2
    error: storage offsite: list: the secret { command: no-such-vault ... } exited with code 127: /usr/bin/sh: 1: no-such-vault: not found
      hint: check where the configuration takes it from
    == a file that is not there: exit 2
    error: backup.yml: storages.offsite.secret_access_key.file (line 5): the secret file "none" can't be read: No such file or directory (os error 2)
      hint: check the path and its mode
    == a variable that is not set: exit 2
    error: backup.yml: storages.offsite.secret_access_key (line 5): the variable SECRET is not set
      hint: set it, put it into an --env-file, or give a default: ${SECRET:-...}
    == an id alone: exit 2
    error: backup.yml: storages.offsite.access_key_id (line 5): given without `secret_access_key`
      hint: give both, or neither: then they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role
    "#);
}

#[test]
fn keys_of_the_environment_and_of_a_file() {
    let Some(server) = S3sFs::shared() else { return };
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let chain = || listing(&without_keys(&bucket.through(&proxy), ""));
    let token_sent = || proxy.log().last().and_then(|call| call.headers.get("x-amz-security-token").cloned());
    let of_environment = chain().env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    // One that is set and empty is none.
    let of_environment = of_environment.env("AWS_SESSION_TOKEN", "");
    of_environment.run(["list"]).ok();
    assert_eq!(token_sent(), None);
    of_environment.env("AWS_SESSION_TOKEN", TOKEN).run(["list"]).ok();
    assert_eq!(token_sent().as_deref(), Some(TOKEN));
    // And from --env-file.
    let variables = format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n");
    chain().file("vars", &variables).run(["list", "--env-file", "vars"]).ok();
    let profile =
        |name: &str, secret: &str| format!("[{name}]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n");
    let of_file = profile("default", SECRET_KEY) + &profile("other", "wrong/secret");
    let at_home = chain();
    fs::create_dir(at_home.path(".aws")).unwrap();
    let at_home = at_home.file(".aws/credentials", &of_file);
    at_home.run(["list"]).ok();
    at_home.env("AWS_PROFILE", "other").run(["list"]).fails(1).says("SignatureDoesNotMatch");
    let elsewhere = chain().file("keys", &(profile("night", SECRET_KEY) + &format!("aws_session_token = {TOKEN}\n")));
    let elsewhere = elsewhere.env("AWS_SHARED_CREDENTIALS_FILE", "keys").env("AWS_PROFILE", "night");
    elsewhere.run(["list"]).ok();
    assert_eq!(token_sent().as_deref(), Some(TOKEN));
    // The configuration's are first.
    let named = listing(&bucket.yaml()).env("AWS_ACCESS_KEY_ID", "NOBODY").env("AWS_SECRET_ACCESS_KEY", "wrong/secret");
    named.run(["list"]).ok();
}

#[test]
fn without_keys_anywhere_it_says_where_it_looked() {
    let Some(server) = S3sFs::shared() else { return };
    let bucket = server.bucket();
    let chain = || listing(&without_keys(&bucket, ""));
    let damaged = format!("[default]\naws_access_key_id\n{SECRET_KEY}\n");
    let half = "[default]\naws_access_key_id = X\n";
    let container = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let tests = [
        ("nothing", chain()),
        ("one variable", chain().env("AWS_ACCESS_KEY_ID", ACCESS_KEY)),
        ("no such profile", chain().file("keys", half).env("AWS_SHARED_CREDENTIALS_FILE", "keys").env("AWS_PROFILE", "night")),
        ("half a profile", chain().file("keys", half).env("AWS_SHARED_CREDENTIALS_FILE", "keys")),
        ("a damaged file", chain().file("keys", &damaged).env("AWS_SHARED_CREDENTIALS_FILE", "keys")),
        ("a container that does not answer", chain().env(container, "http://127.0.0.1:9/")),
        (
            "a web identity without its file",
            chain().env("AWS_ROLE_ARN", "arn:aws:iam::1:role/x").env("AWS_WEB_IDENTITY_TOKEN_FILE", "none"),
        ),
        (
            "roles of --env-file",
            chain().file(".env", &format!("{container}=http://127.0.0.1:9/\nAWS_ROLE_ARN=arn:aws:iam::1:role/x\n")),
        ),
    ];
    let runs = tests.map(|(what, test)| {
        let ran = test.run(["list", "--env-file", if test.path(".env").exists() { ".env" } else { "/dev/null" }]);
        (what, crate::support::Ran { stderr: ran.stderr.replace(test.path("").to_str().unwrap(), "DIR/"), ..ran })
    });
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == nothing: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; there is no DIR/.aws/credentials; no web identity (AWS_ROLE_ARN is not set); no container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set); no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == one variable: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; there is no DIR/.aws/credentials; no web identity (AWS_ROLE_ARN is not set); no container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set); no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == no such profile: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; keys has no profile [night]; no web identity (AWS_ROLE_ARN is not set); no container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set); no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == half a profile: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; the profile [default] in keys has not both keys; no web identity (AWS_ROLE_ARN is not set); no container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set); no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == a damaged file: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; keys can't be read as a credentials file; no web identity (AWS_ROLE_ARN is not set); no container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set); no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == a container that does not answer: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; there is no DIR/.aws/credentials; no web identity (AWS_ROLE_ARN is not set); the container's role: container credentials request failed; no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == a web identity without its file: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; there is no DIR/.aws/credentials; the web identity: io: No such file or directory (os error 2); no container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set); no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    == roles of --env-file: exit 2
    error: storage offsite: list: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; there is no DIR/.aws/credentials; the web identity: AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE count in the process's own environment alone; the container's role: AWS_CONTAINER_CREDENTIALS_FULL_URI counts in the process's own environment alone; no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    ");
}

/// A container's service, whose keys hold for so many seconds; those after the first `good` answers are refused.
fn container(seconds: i64, good: usize) -> (Listener, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let listener = web(move |head| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let is_ours = head.headers().get("authorization").is_some_and(|word| word == "let me in");
        if number > good || !is_ours {
            return (500, "{}".into());
        }
        let expires = (Utc::now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Secs, true);
        let keys = serde_json::json!({
            "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": format!("{TOKEN}{number}"), "Expiration": expires,
        });
        (200, keys.to_string())
    });
    (listener, count)
}

/// A backup of three parts that takes some seconds: at so many bytes a second.
fn slow_backup(service: &Listener, rate: u32) -> Option<(S3Bucket, Proxy, Test)> {
    let server = S3sFs::shared()?;
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let storage = without_keys(&bucket.through(&proxy), ", part_size: 5MiB, concurrency: 1");
    proxy.fail_always(Kind::Part, 1, Fault::Slow(rate));
    let test = Test::of(&DATABASE)
        .storages([("offsite", storage)])
        .target_option("compression: { type: none }")
        .target_option("retries: 0")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/keys", service.address()))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in");
    Some((bucket, proxy, test))
}

fn tokens(proxy: &Proxy) -> BTreeSet<String> {
    proxy.log().iter().filter_map(|call| call.headers.get("x-amz-security-token").cloned()).collect()
}

#[test]
fn a_containers_keys_are_renewed_before_they_expire() {
    let (service, asked) = container(4, usize::MAX);
    let Some((_, proxy, test)) = slow_backup(&service, 2 << 20) else { return };
    test.run(["backup", "-vvv"]).ok().never_shows(TOKEN).never_shows(SECRET_KEY).never_shows("let me in");
    let tokens = tokens(&proxy);
    assert!(tokens.len() >= 2, "{tokens:?}");
    assert_eq!(asked.load(Ordering::SeqCst), tokens.len());
    test.run(["list", "--verify"]).ok();
}

#[test]
fn keys_that_always_end_soon_are_not_fetched_at_each_call() {
    let (service, asked) = container(-5, usize::MAX);
    let Some((_, proxy, test)) = slow_backup(&service, 2 << 20) else { return };
    let begun = Instant::now();
    test.run(["backup"]).ok();
    let most = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let asked = asked.load(Ordering::SeqCst);
    assert!((2..=most).contains(&asked), "{asked} times in {most} s, for {} calls", proxy.log().len());
}

#[test]
fn keys_that_can_not_be_renewed_are_used_while_they_hold() {
    // The first part takes so long that the keys still hold for some moments, if they are fetched at its beginning; they hold long
    // enough for a busy machine to come to it.
    let (service, _asked) = container(8, 1);
    let Some((bucket, _proxy, test)) = slow_backup(&service, 800_000) else { return };
    let ran = test.run(["backup"]).fails(1).says("can't renew the access keys").never_shows(TOKEN);
    let of_end: Vec<&str> =
        ran.stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("  hint: ")).collect();
    let directory = test.path("").display().to_string();
    let _redacted = redacted();
    insta::assert_snapshot!(of_end.join("\n").replace(&directory, "DIR/"), @"
    error: app: storage offsite: commit: can't renew the access keys: there are no access keys: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; there is no DIR/.aws/credentials; no web identity (AWS_ROLE_ARN is not set); the container's role: unexpected status code: 500; no instance's role (this is no EC2 machine)
      hint: give `access_key_id:` and `secret_access_key:`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    ");
    assert!(bucket.keys().iter().all(|key| key == ".db-backup-tools"));
}

#[test]
fn what_objects_are_written_with_is_sent_with_those_that_take_it() {
    let Some(server) = S3sFs::shared() else { return };
    let sent = |options: &str| {
        let (bucket, proxy) = (server.bucket(), Proxy::before(server));
        let storage = bucket.through(&proxy).yaml_with(&format!("part_size: 5MiB, {options}"));
        let test = Test::of(&DATABASE).storages([("offsite", storage)]).target_option("compression: { type: none }");
        test.run(["backup"]).ok();
        let mut lines = BTreeSet::new();
        for call in proxy.log() {
            let named = |name: &&String| name.starts_with("x-amz-") && !name.ends_with("-date") && !name.ends_with("-sha256");
            let headers: Vec<String> =
                call.headers.keys().filter(named).map(|name| format!("{name}: {}", call.headers[name])).collect();
            let headers = headers.iter().filter(|line| !line.contains("-nonce")).cloned().collect::<Vec<_>>().join(", ");
            lines.insert(format!("{:?}: {headers}\n", call.kind));
        }
        lines.into_iter().collect::<String>()
    };
    let all = "storage_class: STANDARD, server_side_encryption: aws:kms, kms_key_id: 'alias/night', session_token: only-a-token, \
               tags: { purpose: backup, 'a&b=c d': 'é+%' }";
    insta::assert_snapshot!(sent(all), @"
    Complete: x-amz-security-token: only-a-token
    Head: x-amz-security-token: only-a-token
    Initiate: x-amz-security-token: only-a-token, x-amz-server-side-encryption: aws:kms, x-amz-server-side-encryption-aws-kms-key-id: alias/night, x-amz-storage-class: STANDARD, x-amz-tagging: purpose=backup&a%26b%3Dc%20d=%C3%A9%2B%25
    List: x-amz-security-token: only-a-token
    Part: x-amz-security-token: only-a-token
    Put: x-amz-security-token: only-a-token, x-amz-server-side-encryption: aws:kms, x-amz-server-side-encryption-aws-kms-key-id: alias/night, x-amz-storage-class: STANDARD, x-amz-tagging: purpose=backup&a%26b%3Dc%20d=%C3%A9%2B%25
    ");
    insta::assert_snapshot!(sent("server_side_encryption: AES256"), @"
    Complete: 
    Head: 
    Initiate: x-amz-server-side-encryption: AES256
    List: 
    Part: 
    Put: x-amz-server-side-encryption: AES256
    ");
}

#[test]
fn tags_arrive_as_they_are_written() {
    let Some(server) = Ceph::shared() else { return };
    let bucket = server.bucket();
    let tags = "tags: { purpose: backup, 'a=b c': 'd+e/f', 'Größe': '日本 @:._-' }, part_size: 5MiB";
    let test = Test::of(&DATABASE).storages([("offsite", bucket.yaml_with(tags))]).target_option("compression: { type: none }");
    test.run(["backup"]).ok();
    let keys = bucket.keys();
    assert!(keys.len() >= 3, "{keys:?}");
    // Ceph 16 drops the tags of what is uploaded in parts, though they are sent.
    for key in keys.iter().filter(|key| !key.ends_with(".sql")) {
        let answer = bucket.ask(&Request { query: vec![("tagging", String::new())], ..bucket.request(key) }).expect(200);
        let pairs: BTreeSet<_> = answer.elements("Key").into_iter().zip(answer.elements("Value")).collect();
        let wanted = [("purpose", "backup"), ("a=b c", "d+e/f"), ("Größe", "日本 @:._-")];
        assert_eq!(pairs, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), "{key}");
    }
}

#[test]
fn keys_show_nowhere() {
    let Some(server) = S3sFs::shared() else { return };
    let (bucket, proxy) = (server.bucket(), Proxy::before(server));
    let storage = bucket.through(&proxy).yaml_with(&format!("retries: 1, session_token: '{TOKEN}'"));
    let test = Test::of(&DATABASE).storages([("offsite", storage)]).top_option("log_dir: logs").target_option("retries: 0");
    let test = test.env("RUST_LOG", "trace");
    fs::create_dir(test.path("logs")).unwrap();
    for fault in
        [None, Some(Fault::Reset), Some(Fault::Status(403, "AccessDenied", None)), Some(Fault::Status(503, "SlowDown", None))]
    {
        proxy.heal();
        if let Some(fault) = &fault {
            proxy.fail_all(fault.clone());
        }
        for command in [
            &["backup", "-vvv"][..],
            &["backup", "--log-format", "json", "-vvv"],
            &["list", "--json", "-vvv"],
            &["list", "--verify", "-v"],
            &["validate", "--connect", "-vvv", "--json"],
            &["prune", "-vvv"],
        ] {
            let ran = test.run(command);
            assert_eq!(ran.code == Some(0), fault.is_none(), "{command:?} {fault:?}: {}", ran.stderr);
            for secret in [SECRET_KEY, ACCESS_KEY, TOKEN, "AWS4-HMAC-SHA256", "Signature="] {
                ran.clone().never_shows(secret);
            }
        }
    }
    let logs = files_below(&test.path("logs"));
    assert!(logs.len() >= 8, "{logs:?}");
    for file in logs {
        let text = fs::read_to_string(test.path("logs").join(&file)).unwrap();
        for secret in [SECRET_KEY, ACCESS_KEY, TOKEN, "AWS4-HMAC-SHA256", "Signature="] {
            assert!(!text.contains(secret), "{file}: {text}");
        }
    }
}
