//! Real S3 servers, each started once for all tests and ending with the test process, and buckets on them.
//! What a bucket holds is asked by requests that are made and signed here, so that no mistake of the
//! program's own client can hide itself.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use db_backup_tools::config::model::{S3Keys, S3Settings};
use db_backup_tools::config::secret::{Secret, SecretFrom};

use super::cluster::HOST;
use super::proxy::Proxy;
use super::s3_request::send;
pub use super::s3_request::{Answer, Request};
use super::{LONG, free_port, holds_within};

/// Who asks every server of ours.
pub const ACCESS_KEY: &str = "ONLYFORTESTS";
/// What signs. Long enough to be looked for in what the program prints, with the characters that real ones have.
pub const SECRET_KEY: &str = "only/for+tests/8d31b7e4c2";
/// Any is good for these servers.
pub const REGION: &str = "us-east-1";

static S3S_FS: LazyLock<Option<Server>> = LazyLock::new(|| {
    let program = s3s_fs_program();
    if program.is_file() { Some(Server::start("s3s-fs", |place| s3s_fs(&program, place))) } else { left_out("s3s-fs") }
});

static CEPH: LazyLock<Option<Server>> = LazyLock::new(|| {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |name: &&str| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let wanted = ["ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"];
    if wanted.iter().all(is_here) { Some(Server::start("Ceph", ceph)) } else { left_out("Ceph") }
});

fn s3s_fs_program() -> PathBuf {
    let program = std::env::var_os("DB_BACKUP_S3S_FS").map(PathBuf::from);
    program.unwrap_or_else(|| super::repository().join("target/s3s-fs/bin/s3s-fs"))
}

/// In CI, where everything must be tested, each server has to be there.
fn left_out(name: &str) -> Option<Server> {
    assert!(std::env::var_os("CI").is_none(), "there is no {name} here: scripts/test installs what the tests need");
    None
}

fn shared(found: Option<&'static Server>, name: &str) -> Option<&'static Server> {
    if found.is_none() {
        eprintln!("SKIPPED: there is no {name} here (scripts/test installs it)");
    }
    found
}

/// A light server on a directory.
pub struct S3sFs;

impl S3sFs {
    /// The one that all tests share; `None`, and a word, where there is none: in CI that is a failure.
    pub fn shared() -> Option<&'static Server> {
        shared(S3S_FS.as_ref(), "s3s-fs")
    }

    /// One of a test's own, which may be stopped, killed and started again. It too ends with the test process.
    pub fn own() -> Option<&'static Server> {
        shared(S3S_FS.as_ref(), "s3s-fs")?;
        Some(Box::leak(Box::new(Server::start("s3s-fs", |place| s3s_fs(&s3s_fs_program(), place)))))
    }
}

/// A production-grade server.
pub struct Ceph;

impl Ceph {
    /// The one that all tests share; `None`, and a word, where there is none: in CI that is a failure.
    pub fn shared() -> Option<&'static Server> {
        shared(CEPH.as_ref(), "Ceph")
    }
}

/// Every server that there is here, for what must hold on each.
pub fn all() -> Vec<&'static Server> {
    [S3sFs::shared(), Ceph::shared()].into_iter().flatten().collect()
}

/// Where a server is to stand.
struct Place<'a> {
    directory: &'a Path,
    port: u16,
    monitor: u16,
}

/// A running server.
pub struct Server {
    name: &'static str,
    port: u16,
    directory: PathBuf,
    keeper: Mutex<Child>,
}

/// Runs until its standard input ends, which it does when the test process does, however that comes. A line there is a
/// signal for the server, or `START`, another start on the same port and directory.
const KEEPER: &str = r#"
    trap '' INT TERM HUP
    mkdir "$KEPT/data"
    "$@" "$KEPT/data" </dev/null & server=$!
    while read -r order; do
        case $order in
            START) "$@" "$KEPT/data" </dev/null & server=$! ;;
            KILL) kill -KILL $server; wait $server ;;
            *) kill -$order $server ;;
        esac
    done 2>/dev/null
    kill -KILL $server 2>/dev/null
    wait $server 2>/dev/null
    rm -rf "$KEPT"
"#;

fn s3s_fs(program: &Path, place: &Place) -> Command {
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER, "sh"]).arg(program).args(["--host", HOST, "--port", &place.port.to_string()]);
    keeper.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]).env("KEPT", place.directory);
    keeper
}

fn ceph(place: &Place) -> Command {
    let mut keeper = Command::new(super::repository().join("scripts/test-ceph"));
    keeper.arg(place.directory).args([place.port.to_string(), place.monitor.to_string()]).args([ACCESS_KEY, SECRET_KEY]);
    keeper
}

impl Server {
    fn start(name: &'static str, command: impl Fn(&Place) -> Command) -> Self {
        // Between the look for free ports and their use, another may take one: then others are tried.
        for _ in 0..3 {
            let directory = tempfile::Builder::new().prefix("s3.").tempdir().unwrap().keep();
            let [port, monitor] = free_ports();
            let log = fs::File::create(directory.join("log")).unwrap();
            let mut command = command(&Place { directory: &directory, port, monitor });
            // A group of its own: a Ctrl-C at the terminal is for the tests, whose end it hears of by its input.
            command.env("LC_ALL", "C").current_dir(&directory).process_group(0);
            let keeper = command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            let server = Self { name, port, directory, keeper: Mutex::new(keeper) };
            if server.comes_up() {
                return server;
            }
            let said = ["log", "failed"].map(|file| fs::read_to_string(server.directory.join(file)).unwrap_or_default());
            eprintln!("{name} did not start:\n{}", said.join("\n"));
        }
        panic!("{name} did not start in three attempts: see above");
    }

    /// Whether it answers to our keys: a stranger on its port does not.
    fn comes_up(&self) -> bool {
        let failed = self.directory.join("failed");
        let answers = || send(self.port, &Request::get("/")).is_ok_and(|answer| answer.status == 200);
        holds_within(LONG, || failed.exists() || answers()) && !failed.exists()
    }

    /// To the keeper of [`S3sFs::own`]: a signal's name for the server, or `START`.
    pub fn order(&self, order: &str) {
        writeln!(self.keeper.lock().unwrap().stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    /// For messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{HOST}:{}", self.port)
    }

    /// A new, empty bucket with a name of its own.
    pub fn bucket(&'static self) -> S3Bucket {
        let random = fs::read("/proc/sys/kernel/random/uuid").unwrap();
        let bucket = S3Bucket {
            server: self,
            name: format!("test-{}", &String::from_utf8(random).unwrap()[..18]),
            endpoint: self.endpoint(),
        };
        bucket.ask(&Request { method: "PUT", ..bucket.request("") }).expect(200);
        bucket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(keeper) = self.keeper.get_mut() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_ports() -> [u16; 2] {
    loop {
        let ports = [(); 2].map(|()| free_port());
        if ports[0] != ports[1] {
            return ports;
        }
    }
}

/// A bucket, and the way on which the program is to reach it. It stays when this is dropped.
#[derive(Clone)]
pub struct S3Bucket {
    server: &'static Server,
    name: String,
    endpoint: String,
}

impl S3Bucket {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server that it is on.
    pub fn server(&self) -> &'static Server {
        self.server
    }

    /// The same bucket, reached through this proxy: by the program, not by what looks behind its back.
    #[must_use]
    pub fn through(&self, proxy: &Proxy) -> Self {
        Self { endpoint: proxy.endpoint(), ..self.clone() }
    }

    /// What a storage on it is told; a prefix and the like can be set.
    pub fn settings(&self) -> S3Settings {
        let secret = |value: &str| Secret { written: "***".into(), from: SecretFrom::Value(value.into()) };
        S3Settings {
            bucket: self.name.clone(),
            prefix: String::new(),
            region: Some(REGION.into()),
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            keys: Some(S3Keys { access_key_id: secret(ACCESS_KEY), secret_access_key: secret(SECRET_KEY), session_token: None }),
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
        }
    }

    /// A storage on it for `backup.yml`, on one line: `{ type: s3, ... }`.
    pub fn yaml(&self) -> String {
        self.yaml_with("")
    }

    /// The same with more: `prefix: a/b, retries: 0`.
    pub fn yaml_with(&self, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { ", " };
        format!(
            "{{ type: s3, bucket: {}, endpoint: '{}', region: {REGION}, path_style: true, \
             access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}{comma}{more} }}",
            self.name, self.endpoint
        )
    }

    /// A request for a key of it (empty: for itself), to be filled in and sent by [`S3Bucket::ask`].
    pub fn request(&self, key: &str) -> Request<'static> {
        Request::get(&format!("/{}/{key}", self.name))
    }

    /// The server's own answer, whatever it is; no proxy is in between.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        send(self.server.port, request).unwrap_or_else(|error| panic!("{}: {request:?}: {error}", self.server.name))
    }

    /// The keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        loop {
            let after = keys.last().cloned().unwrap_or_default();
            let query = vec![("list-type", "2".to_owned()), ("start-after", after)];
            let page = self.ask(&Request { query, ..self.request("") }).expect(200);
            keys.extend(page.elements("Key"));
            if page.elements("IsTruncated") != ["true"] {
                keys.sort();
                return keys;
            }
        }
    }

    /// The keys of the multipart uploads under way, sorted; `None` where the server can't tell.
    pub fn uploads(&self) -> Option<Vec<String>> {
        let answer = self.ask(&Request { query: vec![("uploads", String::new())], ..self.request("") });
        if answer.status == 501 {
            return None;
        }
        let mut keys = answer.expect(200).elements("Key");
        keys.sort();
        Some(keys)
    }

    /// Puts an object there, over what may be there.
    #[track_caller]
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.ask(&Request { method: "PUT", body: bytes, ..self.request(key) }).expect(200);
    }

    /// An object's bytes.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self.ask(&self.request(key));
        (answer.status != 404).then(|| answer.expect(200).body)
    }

    /// Takes an object away.
    #[track_caller]
    pub fn remove(&self, key: &str) {
        self.ask(&Request { method: "DELETE", ..self.request(key) }).expect(204);
    }
}
