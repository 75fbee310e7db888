//! Ways to an S3 service: TLS with an authority of its own, proxies.

use std::path::PathBuf;

use crate::s3_errors::{listing, redacted, told};
use crate::s3_faults::DATABASE;
use crate::support::s3::{ACCESS_KEY, S3Bucket, S3sFs, SECRET_KEY};
use crate::support::ways::{Forward, Tls};
use crate::support::{Test, eventually};

/// A storage on a bucket by another way.
fn at(bucket: &S3Bucket, endpoint: &str, more: &str) -> String {
    format!(
        "{{ type: s3, bucket: {}, endpoint: '{endpoint}', access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}, \
         retries: 0, timeout: 20s{more} }}",
        bucket.name()
    )
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    (directory, path)
}

#[test]
fn an_authority_of_its_own_is_trusted_by_its_file() {
    let Some(server) = S3sFs::shared() else { return };
    let (bucket, (_directory, path)) = (server.bucket(), directory());
    let tls = Tls::before(server.port(), &path, "IP:127.0.0.1", 2);
    let endpoint = format!("https://127.0.0.1:{}", tls.port());
    let ca_file = format!(", ca_file: '{}'", tls.authority().display());
    let test = Test::of(&DATABASE).storages([("offsite", at(&bucket, &endpoint, &ca_file))]);
    test.run(["backup"]).ok();
    test.run(["list", "--verify"]).ok();
    assert!(!bucket.keys().is_empty());
    // The usual variable of OpenSSL's, in place of the system's certificates.
    listing(&at(&bucket, &endpoint, "")).env("SSL_CERT_FILE", tls.authority()).run(["list"]).ok();
    let no_ca = Test::new();
    no_ca.write("empty.pem", "");
    no_ca.write("no.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    let ca_at = |name: &str| at(&bucket, &endpoint, &format!(", ca_file: '{}'", no_ca.path(name).display()));
    // How it ends the connection, is up to it.
    let plain = listing(&at(&bucket, &format!("http://127.0.0.1:{}", tls.port()), "")).run(["list"]).fails(1);
    plain.says("hint: does the service speak HTTPS there? Then write https:// in `endpoint:`");
    let runs = [
        ("not trusted", listing(&at(&bucket, &endpoint, "")).run(["list"])),
        ("ca_file without certificates", listing(&ca_at("empty.pem")).run(["list"])),
        ("ca_file of nonsense", listing(&ca_at("no.pem")).run(["list"])),
        ("ca_file that is not there", listing(&ca_at("none.pem")).run(["list"])),
    ];
    let directory = no_ca.path("").display().to_string();
    let text = told(runs).replace(&directory, "DIR/");
    let _redacted = redacted();
    insta::assert_snapshot!(text, @r#"
    == not trusted: exit 1
    error: storage offsite: list: can't list bucket BUCKET at https://HOST:PORT: invalid peer certificate: UnknownIssuer
      hint: the service's certificate is not trusted: give its authority's with `ca_file:`, or correct `endpoint:`
    == ca_file without certificates: exit 2
    error: backup.yml: storages.offsite.ca_file (line 5): the certificate file "DIR/empty.pem" can't be used: it holds no PEM certificate
      hint: it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----
    == ca_file of nonsense: exit 2
    error: backup.yml: storages.offsite.ca_file (line 5): the certificate file "DIR/no.pem" can't be used: a certificate in it is damaged
      hint: it must hold the authority's certificate, with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----
    == ca_file that is not there: exit 2
    error: backup.yml: storages.offsite.ca_file (line 5): the certificate file "DIR/none.pem" can't be read: No such file or directory (os error 2)
      hint: check the path and its mode
    "#);
}

#[test]
fn a_certificate_for_another_name_or_out_of_date_is_told_of() {
    let Some(server) = S3sFs::shared() else { return };
    let bucket = server.bucket();
    let mut runs = Vec::new();
    for (what, names, days) in [("another name", "DNS:storage.test", 2), ("expired", "IP:127.0.0.1", 0)] {
        let (_directory, path) = directory();
        let tls = Tls::before(server.port(), &path, names, days);
        let ca_file = format!(", ca_file: '{}'", tls.authority().display());
        let test = listing(&at(&bucket, &format!("https://127.0.0.1:{}", tls.port()), &ca_file));
        // One that holds for no day holds for the rest of a second.
        eventually(what, || test.run(["list"]).code == Some(1));
        runs.push((what, test.run(["list"])));
    }
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @r#"
    == another name: exit 1
    error: storage offsite: list: can't list bucket BUCKET at https://HOST:PORT: invalid peer certificate: certificate not valid for name "127.0.0.1"; certificate is only valid for DnsName("storage.test")
      hint: the service's certificate is for another name: correct `endpoint:`
    == expired: exit 1
    error: storage offsite: list: can't list bucket BUCKET at https://HOST:PORT: invalid peer certificate: certificate expired: verification time SECONDS (UNIX), but certificate is not valid after SECONDS (SECONDS ago)
      hint: renew the service's certificate, or set this machine's clock
    "#);
}

const USER: &str = "dXNlcjpodW50ZXIy"; // user:hunter2

#[test]
fn a_proxy_of_the_settings_is_gone_through() {
    let Some(server) = S3sFs::shared() else { return };
    let bucket = server.bucket();
    let proxy = Forward::to(server.port(), Some(USER));
    let through = |written: &str| at(&bucket, "http://storage.test:9", &format!(", proxy: '{written}'"));
    let right = through(&format!("http://user:hunter2@{}", proxy.address()));
    let test = Test::of(&DATABASE).storages([("offsite", right)]);
    test.run(["backup", "-vvv"]).ok().never_shows("hunter2").never_shows(USER);
    test.run(["list", "--verify"]).ok();
    let asked = proxy.asked();
    assert!(asked.len() > 5 && asked.iter().all(|asked| asked.ends_with(" http://storage.test:9")), "{asked:?}");
    // Said in so many words, it is gone through for this machine too.
    let here = at(&bucket, &server.endpoint(), &format!(", proxy: 'http://user:hunter2@{}'", proxy.address()));
    listing(&here).run(["list"]).ok();
    assert!(proxy.asked().len() > asked.len());
    let runs = [
        ("wrong password", listing(&through(&format!("http://user:hunter3@{}", proxy.address()))).run(["list"])),
        ("no proxy there", listing(&through("http://user:hunter3@127.0.0.1:9")).run(["list"])),
        ("no such proxy", listing(&through("http://user:hunter3@nowhere.invalid:9")).run(["list"])),
    ]
    .map(|(what, ran)| (what, ran.never_shows("hunter3")));
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == wrong password: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: the proxy answered HTTP 407
      hint: look at the proxy, http://HOST:PORT (`proxy:`): its address, user and password, and whether it reaches the service
    == no proxy there: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: tcp connect error: Connection refused (os error 111)
      hint: look at the proxy, http://HOST:PORT (`proxy:`): its address, user and password, and whether it reaches the service
    == no such proxy: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: dns error: failed to lookup address information: Name or service not known
      hint: look at the proxy, http://nowhere.invalid:9 (`proxy:`): its address, user and password, and whether it reaches the service
    ");
}

#[test]
fn https_goes_through_a_tunnel() {
    let Some(server) = S3sFs::shared() else { return };
    let (bucket, (_directory, path)) = (server.bucket(), directory());
    let tls = Tls::before(server.port(), &path, "DNS:storage.test", 2);
    let (proxy, strict) = (Forward::to(tls.port(), None), Forward::to(tls.port(), Some(USER)));
    let storage = |proxy: &str| {
        let more = format!(", ca_file: '{}'{proxy}", tls.authority().display());
        at(&bucket, "https://storage.test:9", &more)
    };
    Test::of(&DATABASE)
        .storages([("offsite", storage(""))])
        .env("HTTPS_PROXY", format!("http://{}", proxy.address()))
        .run(["backup"])
        .ok();
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked == "CONNECT storage.test:9"), "{asked:?}");
    listing(&storage(&format!(", proxy: 'http://user:hunter2@{}'", strict.address()))).run(["list"]).ok();
    assert!(!strict.asked().is_empty());
    let wrong =
        listing(&storage(&format!(", proxy: 'http://user:hunter3@{}'", strict.address()))).run(["list"]).never_shows("hunter3");
    let _redacted = redacted();
    insta::assert_snapshot!(told([("wrong password", wrong)]), @"
    == wrong password: exit 1
    error: storage offsite: list: can't list bucket BUCKET at https://storage.test:9: tunnel error: proxy authorization required
      hint: look at the proxy, http://HOST:PORT (`proxy:`): its address, user and password, and whether it reaches the service
    ");
}

#[test]
fn proxies_of_the_environment_are_for_other_machines() {
    let Some(server) = S3sFs::shared() else { return };
    let bucket = server.bucket();
    let proxy = Forward::to(server.port(), None);
    let far = || listing(&at(&bucket, "http://storage.test:9", ""));
    let near = listing(&at(&bucket, &server.endpoint(), ""));
    let address = proxy.address();
    for (name, value) in
        [("http_proxy", format!("http://{address}")), ("ALL_PROXY", address.clone()), ("all_proxy", format!("http://{address}/"))]
    {
        let before = proxy.asked().len();
        far().env(name, &value).run(["list"]).ok();
        assert!(proxy.asked().len() > before, "{name}");
    }
    let before = proxy.asked().len();
    near.env("http_proxy", &address).env("ALL_PROXY", &address).run(["list"]).ok();
    let unreachable = [
        // Of a web server's child, it is a client's header.
        ("HTTP_PROXY", far().env("HTTP_PROXY", &address)),
        ("HTTPS_PROXY of an http: endpoint", far().env("HTTPS_PROXY", &address)),
        ("NO_PROXY", far().env("http_proxy", &address).env("NO_PROXY", "example.org,storage.test")),
        ("NO_PROXY of a domain", far().env("http_proxy", &address).env("no_proxy", ".test")),
        ("no address", far().env("http_proxy", "socks5://user:hunter2@x")),
    ];
    let runs = unreachable.map(|(what, test)| (what, test.run(["list"]).never_shows("hunter2")));
    assert_eq!(proxy.asked().len(), before);
    let _redacted = redacted();
    insta::assert_snapshot!(told(runs), @"
    == HTTP_PROXY: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: dns error: failed to lookup address information: Name or service not known
      hint: check the host's name in `endpoint:` (or `bucket:` and `region:`), and this machine's DNS
    == HTTPS_PROXY of an http: endpoint: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: dns error: failed to lookup address information: Name or service not known
      hint: check the host's name in `endpoint:` (or `bucket:` and `region:`), and this machine's DNS
    == NO_PROXY: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: dns error: failed to lookup address information: Name or service not known
      hint: look at the proxy, http://HOST:PORT (the variable http_proxy, unless NO_PROXY names the service): its address, user and password, and whether it reaches the service
    == NO_PROXY of a domain: exit 1
    error: storage offsite: list: can't list bucket BUCKET at http://storage.test:9: dns error: failed to lookup address information: Name or service not known
      hint: look at the proxy, http://HOST:PORT (the variable http_proxy, unless NO_PROXY names the service): its address, user and password, and whether it reaches the service
    == no address: exit 2
    error: storage offsite: list: the proxy of the variable http_proxy is no address that can be used
      hint: write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT
    ");
}
