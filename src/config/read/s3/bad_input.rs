//! Bad input of S3 storages, and what is said of it.

use std::fmt::Write;

use super::tests::{CERTIFICATE, env, facts, good, read_storages, shown, text};
use crate::config::read::read;

/// What each of these storages gets, under its lines.
fn mistakes_of(cases: &[&str]) -> String {
    let mut all = String::new();
    for case in cases {
        let mistakes = read_storages(case).expect_err(case);
        writeln!(all, "{}\n{}", case.trim_start(), shown(&mistakes)).unwrap();
    }
    all
}

/// The same of a bucket called nightly with these keys besides.
fn mistakes_with(cases: &[&str]) -> String {
    let mut all = String::new();
    for case in cases {
        let mistakes = read_storages(&format!("  a: {{ type: s3, bucket: nightly, {case} }}")).expect_err(case);
        let said = shown(&mistakes).replace(" (line 3)", "");
        assert!(!said.contains("hunter2"), "{said}");
        writeln!(all, "{case}\n{said}").unwrap();
    }
    all
}

#[test]
fn a_wrong_place_is_said() {
    insta::assert_snapshot!(mistakes_of(&[
        "  a: { type: s3 }",
        "  a: { type: s3, bucket: ab }",
        "  a: { type: s3, bucket: s3://nightly/x }",
        "  a: { type: s3, bucket: nightly/x }",
        "  a: { type: s3, bucket: a..b }",
        "  a: { type: s3, bucket: '${BAD}' }",
        "  a: { type: s3, bucket: '${EMPTY}' }",
        "  a: { type: s3, bucket: Old_Bucket, path_style: false }",
        "  a: { type: s3, bucket: tenant.name, path_style: false }",
        "  a: { type: s3, bucket: tenant.name, endpoint: 'https://h', path_style: false }",
    ]), @r#"
    a: { type: s3 }
    storages.a (line 3): it lacks the key `bucket` (write the bucket's name)

    a: { type: s3, bucket: ab }
    storages.a.bucket (line 3): expected a bucket's name of 3 to 63 letters, digits, -, . and _, found "ab"

    a: { type: s3, bucket: s3://nightly/x }
    storages.a.bucket (line 3): expected a bucket's name of 3 to 63 letters, digits, -, . and _, found "s3://nightly/x" (write the name alone, and what follows it into `prefix`)

    a: { type: s3, bucket: nightly/x }
    storages.a.bucket (line 3): expected a bucket's name of 3 to 63 letters, digits, -, . and _, found "nightly/x" (write the name alone, and what follows it into `prefix`)

    a: { type: s3, bucket: a..b }
    storages.a.bucket (line 3): expected a bucket's name of 3 to 63 letters, digits, -, . and _, found "a..b"

    a: { type: s3, bucket: '${BAD}' }
    storages.a.bucket (line 3): expected a bucket's name of 3 to 63 letters, digits, -, . and _, found "${BAD}" (look at what the variable holds)

    a: { type: s3, bucket: '${EMPTY}' }
    storages.a.bucket (line 3): expected a bucket's name of 3 to 63 letters, digits, -, . and _, found "${EMPTY}", which is empty

    a: { type: s3, bucket: Old_Bucket, path_style: false }
    storages.a.path_style (line 3): a host's name can't hold this bucket's capitals or `_` (write path_style: true)

    a: { type: s3, bucket: tenant.name, path_style: false }
    storages.a.path_style (line 3): over https, no certificate is for a bucket's name with a dot in it (write path_style: true)

    a: { type: s3, bucket: tenant.name, endpoint: 'https://h', path_style: false }
    storages.a.path_style (line 3): over https, no certificate is for a bucket's name with a dot in it (write path_style: true)
    "#);
    insta::assert_snapshot!(mistakes_with(&[
        "prefix: a//b",
        "prefix: ../b",
        "prefix: \"a\\tb\"",
        "prefix: '${EMPTY}'",
        &format!("prefix: {}", "abcdefghi/".repeat(50)),
        "region: 'eu central'",
        "endpoint: 'http://127.0.0.1:9000', path_style: false",
        "path_style: auto",
    ]), @r#"
    prefix: a//b
    storages.a.prefix: expected a prefix whose parts between slashes are neither empty nor `.` nor `..`, hold no control characters and have at most 255 bytes, found "a//b"

    prefix: ../b
    storages.a.prefix: expected a prefix whose parts between slashes are neither empty nor `.` nor `..`, hold no control characters and have at most 255 bytes, found "../b"

    prefix: "a\tb"
    storages.a.prefix: expected a prefix whose parts between slashes are neither empty nor `.` nor `..`, hold no control characters and have at most 255 bytes, found "a\tb"

    prefix: '${EMPTY}'
    storages.a.prefix: expected a prefix like backups/web1, found "${EMPTY}", which is empty

    prefix: abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/abcdefghi/
    storages.a.prefix: expected a prefix of at most 480 bytes, found one of 499

    region: 'eu central'
    storages.a.region: expected a region's name like eu-central-1, found "eu central"

    endpoint: 'http://127.0.0.1:9000', path_style: false
    storages.a.path_style: the endpoint is an IP address, before which no bucket can stand (write path_style: true)

    path_style: auto
    storages.a.path_style: expected true or false, found "auto"
    "#);
}

#[test]
fn a_wrong_endpoint_is_said_without_quoting_it() {
    insta::assert_snapshot!(mistakes_with(&[
        "endpoint: minio:9000",
        "endpoint: ftp://minio",
        "endpoint: https://",
        "endpoint: https://AKID:hunter2@minio",
        "endpoint: https://minio/?key=hunter2",
        "endpoint: https://minio:0",
        "endpoint: https://minio:hunter2",
        "endpoint: 'https://mi nio'",
        "endpoint: 'https://[::1'",
        "endpoint: https://minio/a/../b",
        "endpoint: https://minio/nightly/",
        "endpoint: https://nightly.s3.eu-central-1.amazonaws.com",
        "endpoint: https://nightly.account.r2.cloudflarestorage.com",
        "endpoint: [a]",
    ]), @r"
    endpoint: minio:9000
    storages.a.endpoint: unusable endpoint: it begins with neither http:// nor https:// (write https://HOST or http://HOST:PORT)

    endpoint: ftp://minio
    storages.a.endpoint: unusable endpoint: it begins with neither http:// nor https:// (write https://HOST or http://HOST:PORT)

    endpoint: https://
    storages.a.endpoint: unusable endpoint: it names no host (write https://HOST or http://HOST:PORT)

    endpoint: https://AKID:hunter2@minio
    storages.a.endpoint: unusable endpoint: it holds a user (keys go into access_key_id and secret_access_key)

    endpoint: https://minio/?key=hunter2
    storages.a.endpoint: unusable endpoint: it has a query or a fragment (write https://HOST or http://HOST:PORT)

    endpoint: https://minio:0
    storages.a.endpoint: unusable endpoint: its port is no number from 1 to 65535 (write https://HOST or http://HOST:PORT)

    endpoint: https://minio:hunter2
    storages.a.endpoint: unusable endpoint: its port is no number from 1 to 65535 (write https://HOST or http://HOST:PORT)

    endpoint: 'https://mi nio'
    storages.a.endpoint: unusable endpoint: what stands for the host is no host's name (write https://HOST or http://HOST:PORT)

    endpoint: 'https://[::1'
    storages.a.endpoint: unusable endpoint: what stands for the host is no host's name (write https://HOST or http://HOST:PORT)

    endpoint: https://minio/a/../b
    storages.a.endpoint: unusable endpoint: its path has an empty part, or one that is `.` or `..` (write https://HOST or http://HOST:PORT)

    endpoint: https://minio/nightly/
    storages.a.endpoint: unusable endpoint: it names the bucket (leave that out: `bucket` says it)

    endpoint: https://nightly.s3.eu-central-1.amazonaws.com
    storages.a.endpoint: unusable endpoint: it names the bucket (leave that out: `bucket` says it)

    endpoint: https://nightly.account.r2.cloudflarestorage.com
    storages.a.endpoint: unusable endpoint: it names the bucket (leave that out: `bucket` says it)

    endpoint: [a]
    storages.a.endpoint: expected an address like https://s3.example.org, found a list
    ");
}

#[test]
fn wrong_keys_are_said_without_showing_them() {
    insta::assert_snapshot!(mistakes_with(&[
        "access_key_id: AKID",
        "secret_access_key: hunter2",
        "session_token: hunter2",
        "access_key_id: AKID, secret_access_key: 'hunter2 '",
        "access_key_id: '${KEY_ID}', secret_access_key: '${BAD}'",
        "access_key_id: '${KEY_ID}', secret_access_key: '${NO_KEY}'",
        "access_key_id: '${KEY_ID}', secret_access_key: { file: /nowhere/at/all }",
        "access_key: AKID, secret_key: hunter2",
        "proxy: 'proxy:3128'",
        "proxy: 'http://u:hunter2/x@h'",
        "proxy: 'http://u:hunter2@h/x'",
        "proxy: 'socks5://h'",
    ]), @r#"
    access_key_id: AKID
    storages.a.access_key_id: given without `secret_access_key` (give both, or neither: then they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role)

    secret_access_key: hunter2
    storages.a.secret_access_key: given without `access_key_id` (give both, or neither: then they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role)

    session_token: hunter2
    storages.a.session_token: given without `access_key_id` and `secret_access_key` (give both, or neither: then they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role)

    access_key_id: AKID, secret_access_key: 'hunter2 '
    storages.a.secret_access_key: expected a secret key, found *** with white space or other characters that no key has (look for a line break at its end)

    access_key_id: '${KEY_ID}', secret_access_key: '${BAD}'
    storages.a.secret_access_key: expected a secret key, found ${BAD} with white space or other characters that no key has (look for a line break at its end)

    access_key_id: '${KEY_ID}', secret_access_key: '${NO_KEY}'
    storages.a.secret_access_key: the variable NO_KEY is not set (set it, put it into an --env-file, or give a default: ${NO_KEY:-...})

    access_key_id: '${KEY_ID}', secret_access_key: { file: /nowhere/at/all }
    storages.a.secret_access_key.file: the secret file "/nowhere/at/all" can't be read: No such file or directory (os error 2) (check the path and its mode)

    access_key: AKID, secret_key: hunter2
    storages.a.access_key: unknown key (did you mean `access_key_id`?)
    storages.a.secret_key: unknown key (did you mean `secret_access_key`?)

    proxy: 'proxy:3128'
    storages.a.proxy: unusable proxy: it begins with neither http:// nor https:// (write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %2F for / in a password, %40 for @ and so on)

    proxy: 'http://u:hunter2/x@h'
    storages.a.proxy: unusable proxy: its port is no number from 1 to 65535 (write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %2F for / in a password, %40 for @ and so on)

    proxy: 'http://u:hunter2@h/x'
    storages.a.proxy: unusable proxy: it has a path (write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %2F for / in a password, %40 for @ and so on)

    proxy: 'socks5://h'
    storages.a.proxy: unusable proxy: it begins with neither http:// nor https:// (write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %2F for / in a password, %40 for @ and so on)
    "#);
}

#[test]
fn other_wrong_values_are_said() {
    insta::assert_snapshot!(mistakes_with(&[
        "storage_class: standard_ia",
        "storage_class: Deep-Archive",
        "storage_class: 'A B'",
        "server_side_encryption: aes256",
        "server_side_encryption: aws:kms:dsse",
        "server_side_encryption: AES256, kms_key_id: x",
        "kms_key_id: x",
        "tags: [a]",
        "tags: {}",
        "tags: { a: 1, a: 2 }",
        "tags: { a: [1], '': x, 'aws:x': y, \"b\\tc\": z }",
        &format!("tags: {{ {}: x, y: {} }}", "k".repeat(129), "v".repeat(257)),
        "tags: { a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1, k: 1 }",
        "part_size: 4MiB",
        "part_size: 6GiB",
        "part_size: 8",
        "part_size: big",
        "max_parts: 0",
        "max_parts: 10001",
        "concurrency: 0",
        "concurrency: 65",
        "memory: 47MiB",
        "timeout: 60",
        "timeout: 0s",
        "retries: 101",
        "part-size: 8MiB",
        "sse: AES256",
        "path: /mnt/backups, mount: /mnt",
    ]), @r#"
    storage_class: standard_ia
    storages.a.storage_class: expected a storage class like STANDARD_IA, found "standard_ia" (did you mean STANDARD_IA?)

    storage_class: Deep-Archive
    storages.a.storage_class: expected a storage class like STANDARD_IA, found "Deep-Archive" (backups there could not be read without a thaw first: use GLACIER_IR)

    storage_class: 'A B'
    storages.a.storage_class: expected a storage class like STANDARD_IA, found "A B" (its name has letters, digits and _)

    server_side_encryption: aes256
    storages.a.server_side_encryption: expected an encryption by the service (AES256, aws:kms), found "aes256" (did you mean AES256?)

    server_side_encryption: aws:kms:dsse
    storages.a.server_side_encryption: "aws:kms:dsse" is not supported by this version: expected an encryption by the service (AES256, aws:kms)

    server_side_encryption: AES256, kms_key_id: x
    storages.a.kms_key_id: AES256 takes no key of yours (write server_side_encryption: aws:kms, or leave the key out)

    kms_key_id: x
    storages.a.kms_key_id: given without `server_side_encryption` (write server_side_encryption: aws:kms, or leave the key out)

    tags: [a]
    storages.a.tags: expected a mapping of tags like { purpose: backup }, found a list

    tags: {}
    storages.a.tags: expected one tag or more, found none (leave the key out)

    tags: { a: 1, a: 2 }
    storages.a.tags.a: given twice, first in line 3 (keep one of them)

    tags: { a: [1], '': x, 'aws:x': y, "b\tc": z }
    storages.a.tags.a: expected a tag's value, found a list
    storages.a.tags."": unusable name of a tag (no control characters, and aws: is Amazon's own)
    storages.a.tags."aws:x": unusable name of a tag (no control characters, and aws: is Amazon's own)
    storages.a.tags."b\tc": unusable name of a tag (no control characters, and aws: is Amazon's own)

    tags: { kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk: x, y: vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv }
    storages.a.tags."kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"...: expected a tag's name of at most 128 characters, found one of 129
    storages.a.tags.y: expected a tag's value of at most 256 characters, found one of 257

    tags: { a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1, k: 1 }
    storages.a.tags: expected at most 10 tags, found 11 (S3 takes no more for an object)

    part_size: 4MiB
    storages.a.part_size: expected a size from 5MiB to 5GiB, like 16MiB, found "4MiB"

    part_size: 6GiB
    storages.a.part_size: expected a size from 5MiB to 5GiB, like 16MiB, found "6GiB"

    part_size: 8
    storages.a.part_size: expected a size from 5MiB to 5GiB, like 16MiB, found 8

    part_size: big
    storages.a.part_size: expected a size from 5MiB to 5GiB, like 16MiB, found "big"

    max_parts: 0
    storages.a.max_parts: expected a number from 1 to 10000, found 0

    max_parts: 10001
    storages.a.max_parts: expected a number from 1 to 10000, found 10001

    concurrency: 0
    storages.a.concurrency: expected a number from 1 to 64, found 0

    concurrency: 65
    storages.a.concurrency: expected a number from 1 to 64, found 65

    memory: 47MiB
    storages.a.memory: expected a size of at least 48MiB, like 128MiB, found "47MiB"

    timeout: 60
    storages.a.timeout: expected a duration like 90s, 2h or 7d, found 60

    timeout: 0s
    storages.a.timeout: expected a duration like 90s, 2h or 7d, found "0s"

    retries: 101
    storages.a.retries: expected a number from 0 to 100, found 101

    part-size: 8MiB
    storages.a.part-size: unknown key (did you mean `part_size`?)

    sse: AES256
    storages.a.sse: unknown key

    path: /mnt/backups, mount: /mnt
    storages.a.path: `path` is for a storage of type: local (leave it out; a place in the bucket is its `prefix`)
    storages.a.mount: `mount` is for a storage of type: local (leave it out; a place in the bucket is its `prefix`)
    "#);
}

#[test]
fn what_two_storages_may_not_share_is_said() {
    insta::assert_snapshot!(mistakes_of(&[
        "  a: { type: s3, bucket: nightly }\n  b: { type: s3, bucket: nightly, region: eu-central-1, prefix: / }",
        "  a: { type: s3, bucket: nightly }\n  b: { type: s3, bucket: nightly, endpoint: https://s3.eu-central-1.amazonaws.com }",
        "  a: { type: s3, bucket: nightly, endpoint: 'http://h:80', prefix: x }\n  b: { type: s3, bucket: nightly, endpoint: 'http://H/', prefix: /x/ }",
        "  a: { type: local, path: /a, bucket: nightly, regoin: x }\n  b: { bucket: nightly }\n  c: { type: s4 }",
    ]), @r#"
    a: { type: s3, bucket: nightly }
      b: { type: s3, bucket: nightly, region: eu-central-1, prefix: / }
    storages.b (line 4): the same endpoint, bucket and prefix as those of storage a (give each its own)

    a: { type: s3, bucket: nightly }
      b: { type: s3, bucket: nightly, endpoint: https://s3.eu-central-1.amazonaws.com }
    storages.b (line 4): the same endpoint, bucket and prefix as those of storage a (give each its own)

    a: { type: s3, bucket: nightly, endpoint: 'http://h:80', prefix: x }
      b: { type: s3, bucket: nightly, endpoint: 'http://H/', prefix: /x/ }
    storages.b (line 4): the same endpoint, bucket and prefix as those of storage a (give each its own)

    a: { type: local, path: /a, bucket: nightly, regoin: x }
      b: { bucket: nightly }
      c: { type: s4 }
    storages.a.bucket (line 3): `bucket` is for a storage of type: s3 (write type: s3, or leave it out)
    storages.a.regoin (line 3): unknown key (did you mean `region`?)
    storages.b (line 4): it lacks the key `type` (write type: local or type: s3)
    storages.c.type (line 5): expected a storage's type (local, s3), found "s4"
    "#);
    for other in ["bucket: nightly, prefix: x", "bucket: nightly2", "bucket: nightly, endpoint: 'http://h'"] {
        good(&format!("  a: {{ type: s3, bucket: nightly }}\n  b: {{ type: s3, {other} }}"));
    }
}

#[test]
fn a_file_of_certificates_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let said = |content: &str| {
        std::fs::write(dir.path().join("ca.pem"), content).unwrap();
        let storage = text("  a: { type: s3, bucket: nightly, ca_file: ca.pem }");
        read(&storage, &dir.path().join("backup.yml"), &env(), &facts()).map(|_| ()).map_err(|mistakes| shown(&mistakes))
    };
    assert_eq!((said(CERTIFICATE), said(&format!("# ours\n{CERTIFICATE}{CERTIFICATE}"))), (Ok(()), Ok(())));
    let cut: Vec<&str> = CERTIFICATE.lines().take(4).chain(["-----END CERTIFICATE-----\n"]).collect();
    let cut = cut.join("\n");
    let key = "-----BEGIN PUBLIC KEY-----\naHVudGVyMg==\n-----END PUBLIC KEY-----\n";
    let all: Vec<String> = ["", key, &cut, &CERTIFICATE[..200]].map(|content| said(content).unwrap_err()).into();
    insta::assert_snapshot!(all.concat(), @r#"
    storages.a.ca_file (line 3): the certificate file "ca.pem" can't be used: it holds no PEM certificate (it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----)
    storages.a.ca_file (line 3): the certificate file "ca.pem" can't be used: it holds no PEM certificate (it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----)
    storages.a.ca_file (line 3): the certificate file "ca.pem" can't be used: a certificate in it is damaged (it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----)
    storages.a.ca_file (line 3): the certificate file "ca.pem" can't be used: its PEM text is damaged (it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----)
    "#);
    insta::assert_snapshot!(mistakes_with(&["ca_file: /nowhere/at/all.pem", "ca_file: /"]), @r#"
    ca_file: /nowhere/at/all.pem
    storages.a.ca_file: the certificate file "/nowhere/at/all.pem" can't be read: No such file or directory (os error 2) (check the path and its mode)

    ca_file: /
    storages.a.ca_file: the certificate file "/" can't be read: it is not a regular file (check the path and its mode)
    "#);
}
