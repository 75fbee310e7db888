use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::config::mistake::Mistake;
use crate::config::model::{Config, Policy, S3Encryption, S3Keys, S3Settings, StorageKind};
use crate::config::read::{HostFacts, read, read_file, read_noting};
use crate::config::secret::{Secret, SecretFrom};
use crate::host::Env;

/// A certificate of an authority that nobody trusts.
pub(super) const CERTIFICATE: &str = include_str!("tests/ca.pem");

pub(super) fn facts() -> HostFacts {
    HostFacts { host_name: "web1".into(), is_root: true, home: None }
}

pub(super) fn env() -> Env {
    [("KEY_ID", "AKIDHUNTER2"), ("KEY", "hunter2+key"), ("BUCKET", "nightly"), ("BAD", "hunter2 "), ("EMPTY", "")]
        .into_iter()
        .chain([("AWS_ACCESS_KEY_ID", "AKIDHUNTER2"), ("AWS_SECRET_ACCESS_KEY", "hunter2")])
        .collect()
}

pub(super) fn text(storages: &str) -> String {
    let target = "targets: [ { name: app, type: postgres, database: app, storages: [a] } ]";
    format!("version: 1\nstorages:\n{storages}\n{target}\n")
}

pub(super) fn read_storages(storages: &str) -> Result<Config, Vec<Mistake>> {
    read(&text(storages), Path::new("/etc/db-backup/backup.yml"), &env(), &facts())
}

/// The settings of a bucket called nightly with these keys besides.
fn with(keys: &str) -> S3Settings {
    settings(&good(&format!("  a: {{ type: s3, bucket: nightly{}{keys} }}", if keys.is_empty() { "" } else { ", " })))
}

pub(super) fn good(storages: &str) -> Config {
    read_storages(storages).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

fn settings(config: &Config) -> S3Settings {
    let StorageKind::S3(settings) = &config.storages[0].kind else { panic!("not S3") };
    settings.as_ref().clone()
}

pub(super) fn shown(mistakes: &[Mistake]) -> String {
    mistakes.iter().fold(String::new(), |mut all, mistake| {
        writeln!(all, "{mistake}").unwrap();
        all
    })
}

fn value(written: &str, value: &str) -> Secret {
    Secret { written: written.into(), from: SecretFrom::Value(value.into()) }
}

#[test]
fn every_key_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), CERTIFICATE).unwrap();
    std::fs::write(dir.path().join("secret"), "x\n").unwrap();
    let config = "  a:
    type: s3
    bucket: ${BUCKET}
    prefix: /financer/Ä b/
    region: garage
    endpoint: HTTPS://S3.example.org:443/gate/
    path_style: false
    access_key_id: ${KEY_ID}
    secret_access_key: { file: secret }
    session_token: { command: [vault, token] }
    storage_class: STANDARD_IA
    server_side_encryption: aws:kms
    kms_key_id: alias/backup
    tags: { purpose: backup, year: 2026 }
    ca_file: ca.pem
    proxy: http://u:${KEY}@proxy:3128
    part_size: 16MiB
    max_parts: 1000
    concurrency: 2
    memory: 64MiB
    timeout: 2m
    retries: 0
    retention: { keep_daily: 30 }
    prune: false";
    let read = read(&format!("memory: 256MiB\n{}", text(config)), &dir.path().join("backup.yml"), &env(), &facts());
    let config = read.unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)));
    assert_eq!((config.memory, config.storages[0].prune), (256 << 20, false));
    assert_eq!(config.storages[0].retention, Some(Policy { keep_daily: Some(30), ..Policy::default() }));
    let expected = S3Settings {
        bucket: "nightly".into(),
        prefix: "financer/Ä b".into(),
        region: Some("garage".into()),
        endpoint: Some("https://s3.example.org/gate".into()),
        path_style: false,
        keys: Some(S3Keys {
            access_key_id: value("${KEY_ID}", "AKIDHUNTER2"),
            secret_access_key: Secret { written: "{ file: secret }".into(), from: SecretFrom::File(dir.path().join("secret")) },
            session_token: Some(Secret {
                written: "{ command: vault ... }".into(),
                from: SecretFrom::Command(["vault", "token"].map(str::to_owned).into()),
            }),
        }),
        storage_class: Some("STANDARD_IA".into()),
        encryption: Some(S3Encryption::Kms(Some("alias/backup".into()))),
        tags: [("purpose", "backup"), ("year", "2026")].map(|(key, value)| (key.into(), value.into())).into(),
        ca_file: Some(dir.path().join("ca.pem")),
        proxy: Some(value("***${KEY}***", "http://u:hunter2+key@proxy:3128")),
        part_size: 16 << 20,
        max_parts: 1000,
        concurrency: 2.try_into().unwrap(),
        memory: Some(64 << 20),
        timeout: Duration::from_secs(120),
        retries: 0,
    };
    assert_eq!(settings(&config), expected);
}

#[test]
fn defaults_are_as_documented() {
    let expected = S3Settings {
        bucket: "nightly".into(),
        prefix: String::new(),
        region: None,
        endpoint: None,
        path_style: false,
        keys: None,
        storage_class: None,
        encryption: None,
        tags: Vec::new(),
        ca_file: None,
        proxy: None,
        part_size: 8 << 20,
        max_parts: 10_000,
        concurrency: 4.try_into().unwrap(),
        memory: None,
        timeout: Duration::from_secs(60),
        retries: 5,
    };
    assert_eq!(with(""), expected);
    let config = good("  a: { type: s3, bucket: nightly }");
    assert_eq!((config.memory, config.storages[0].prune, config.storages[0].retention), (128 << 20, true, None));
    assert!(with("endpoint: http://127.0.0.1:9000").path_style);
}

#[test]
fn addresses_are_kept_as_the_client_needs_them() {
    for (written, kept) in [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://rustfs:9000///", "http://rustfs:9000"),
        ("http://Nightly:80", "http://nightly"),
        ("'http://[::1]:9000'", "http://[::1]:9000"),
        ("https://minio.example.org:80/a/b", "https://minio.example.org:80/a/b"),
        // A service of the bucket's name is none that repeats it.
        ("https://nightly.example.org", "https://nightly.example.org"),
        ("https://account.r2.cloudflarestorage.com", "https://account.r2.cloudflarestorage.com"),
    ] {
        assert_eq!(with(&format!("endpoint: {written}")).endpoint.as_deref(), Some(kept));
    }
    for (written, kept) in [("a/b", "a/b"), ("/a", "a"), ("//", ""), ("a.b/..c", "a.b/..c"), ("'a b+c%'", "a b+c%")] {
        assert_eq!(with(&format!("prefix: {written}")).prefix, kept);
    }
    for proxy in ["'http://proxy:3128'", "'https://u:p%2Fw@[::1]'", "{ command: echo }"] {
        assert!(with(&format!("proxy: {proxy}")).proxy.is_some());
    }
    assert!(with("storage_class: cold_pool").storage_class.is_some());
    assert_eq!(with("server_side_encryption: AES256").encryption, Some(S3Encryption::Aes256));
    assert_eq!(with("server_side_encryption: aws:kms").encryption, Some(S3Encryption::Kms(None)));
}

#[test]
fn buckets_of_all_ages_are_taken() {
    for name in ["abc", "my-bucket.2", "123"] {
        assert_eq!(settings(&good(&format!("  a: {{ type: s3, bucket: {name}, path_style: true }}"))).bucket, name);
    }
    // What can't stand in a host's name stands in the path.
    for name in ["Old_Bucket", "UPPER", "tenant.name"] {
        assert!(settings(&good(&format!("  a: {{ type: s3, bucket: {name} }}"))).path_style);
        assert!(settings(&good(&format!("  a: {{ type: s3, bucket: {name}, endpoint: 'http://h' }}"))).path_style);
    }
    let plain = "  a: { type: s3, bucket: tenant.name, endpoint: 'http://h', path_style: false }";
    assert!(!settings(&good(plain)).path_style);
}

#[test]
fn nothing_shows_a_key() {
    let config = good(
        "  a: { type: s3, bucket: nightly, access_key_id: AKIDHUNTER2, secret_access_key: hunter2, session_token: hunter2x, proxy: 'http://u:hunter2@p' }
  b: { type: s3, bucket: nightly2, access_key_id: '${KEY_ID}', secret_access_key: '${KEY}', proxy: 'http://u:${KEY_ID}@p' }",
    );
    let shown = format!("{config:?} {config:#?}");
    assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
    assert_eq!(config.secret_variables, ["KEY", "KEY_ID"]);
}

#[test]
fn variables_of_the_usual_chain_stay_where_a_storage_needs_them() {
    let named = "  a: { type: s3, bucket: nightly, access_key_id: '${AWS_ACCESS_KEY_ID}', secret_access_key: '${AWS_SECRET_ACCESS_KEY}' }";
    assert_eq!(good(named).secret_variables, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    let other = format!("{named}\n  b: {{ type: s3, bucket: other, proxy: 'http://u:${{KEY}}@p' }}");
    assert_eq!(good(&other).secret_variables, ["KEY"]);
}

#[test]
fn others_who_can_read_a_literal_key_are_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.yml");
    let warned = |keys: &str| {
        std::fs::write(&path, text(&format!("  a: {{ type: s3, bucket: nightly, {keys} }}"))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        read_file(&path, &env(), &facts()).unwrap().warnings.concat().replace(dir.path().to_str().unwrap(), "DIR")
    };
    insta::assert_snapshot!(warned("access_key_id: AKID, secret_access_key: hunter2, session_token: x, proxy: 'http://u:p@h'"), @"DIR/backup.yml (mode 644) can be read by others and holds a password or key (storages.a.secret_access_key, storages.a.session_token, storages.a.proxy): chmod 600 it, or take it from a variable, a file or a command");
    // An id alone gives nothing away, nor does a proxy without a user.
    assert_eq!(warned("access_key_id: AKID, secret_access_key: '${KEY}', proxy: 'http://proxy:3128'"), "");
    let noted = read_noting(&text("  a: { type: s3, bucket: nightly }"), &path, &env(), &facts()).unwrap();
    assert!(noted.literal_secrets.is_empty());
}
