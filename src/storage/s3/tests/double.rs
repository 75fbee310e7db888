//! A server for tests that answers as it is told, where no real one can be made to go wrong in that way. What a test does not
//! speak of, it answers like a service that refuses a second write of a key, and that holds nothing but its marker.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::model::{S3Keys, S3Settings};
use crate::config::secret::{Secret, SecretFrom};
use crate::names::Key;
use crate::storage::s3::S3;

/// A key as our artifacts have them.
pub(super) const KEY: &str = "web1/20260612_030000Z/app_20260612_030000Z-k3f9.sql";

/// Of the marker.
pub(super) const MARKER_MD5: &str = "9833c300b7b7e7d9c66af653686f7e3a";

/// A request that came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// By their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Whether it is of this method, and has all of these in its path and query.
    pub(super) fn is(&self, method: &str, parts: &[&str]) -> bool {
        self.method == method && parts.iter().all(|part| self.target.contains(part))
    }
}

/// What it answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Its length is not told, and its end never comes: the connection closes.
    pub(super) open_ended: bool,
    /// Its body comes again and again.
    pub(super) endless: bool,
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>told so</Message></Error>"))
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// XML with this root.
    pub(super) fn xml(root: &str, inner: &str) -> Self {
        Self::new(
            200,
            format!("<?xml version=\"1.0\"?>\n<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{root}>"),
        )
    }

    fn write(&self, to: &mut dyn Write, is_head: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.extend([*name, ": ", value, "\r\n"]);
        }
        if self.open_ended || self.endless {
            head.push_str("transfer-encoding: chunked\r\n");
        } else if !self.headers.iter().any(|(name, _)| *name == "content-length") {
            head.extend(["content-length: ", &self.body.len().to_string(), "\r\n"]);
        }
        write!(to, "{head}\r\n")?;
        let chunk = |to: &mut dyn Write| {
            write!(to, "{:x}\r\n", self.body.len())?;
            to.write_all(&self.body)
        };
        match self {
            _ if is_head => Ok(()),
            Self { endless: true, .. } => loop {
                chunk(to)?;
                to.write_all(b"\r\n")?;
            },
            Self { open_ended: true, .. } => chunk(to),
            _ => to.write_all(&self.body),
        }
    }
}

type Handler = dyn Fn(&Request) -> Option<Answer> + Send + Sync;

/// It runs until it is dropped.
pub(super) struct Server {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    has_ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers as `handler` says, and where that says nothing, as usual.
    pub(super) fn start(handler: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (log, has_ended) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let (noted, ended) = (Arc::clone(&log), Arc::clone(&has_ended));
        let handler: Arc<Handler> = Arc::new(handler);
        let listener = std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (noted, handler) = (Arc::clone(&noted), Arc::clone(&handler));
                std::thread::spawn(move || serve(&stream, &noted, handler.as_ref()));
            }
        });
        Self { port, log, has_ended, listener: Some(listener) }
    }

    /// How often this was asked for.
    pub(super) fn asked(&self, method: &str, parts: &[&str]) -> usize {
        self.log.lock().unwrap().iter().filter(|request| request.is(method, parts)).count()
    }

    /// A bucket there.
    pub(super) fn bucket(&self, change: impl FnOnce(&mut S3Settings)) -> S3 {
        let secret = |value: &str| Secret { written: "***".into(), from: SecretFrom::Value(value.into()) };
        let keys = S3Keys { access_key_id: secret("AKID"), secret_access_key: secret("hunter2"), session_token: None };
        let mut settings = S3Settings {
            bucket: "backups".into(),
            prefix: String::new(),
            region: None,
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            path_style: true,
            keys: Some(keys),
            storage_class: None,
            encryption: None,
            tags: Vec::new(),
            ca_file: None,
            proxy: None,
            part_size: 5 << 20,
            max_parts: 10_000,
            concurrency: NonZeroU32::new(2).unwrap(),
            memory: None,
            timeout: Duration::from_secs(20),
            retries: 2,
        };
        change(&mut settings);
        S3::new(settings, 88 << 20)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listener.take().map(JoinHandle::join);
    }
}

/// [`KEY`].
pub(super) fn key() -> Key {
    KEY.parse().unwrap()
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = read(&mut reader) else { return };
    log.lock().unwrap().push(request.clone());
    let answer = handler(&request).unwrap_or_else(|| usual(&request));
    let _ = answer.write(&mut &*stream, request.method == "HEAD");
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    Some(Request { method, target, headers, body })
}

fn usual(request: &Request) -> Answer {
    match request.method.as_str() {
        "PUT" if request.target.ends_with("/.db-backup-tools") => Answer::error(412, "PreconditionFailed"),
        "HEAD" if request.target.ends_with("/.db-backup-tools") => {
            Answer::new(200, "").header("etag", format!("\"{MARKER_MD5}\""))
        }
        "PUT" => Answer::new(200, "").header("etag", format!("\"{:x}\"", md5::compute(&request.body))),
        "POST" if request.target.ends_with("?uploads") => Answer::xml("InitiateMultipartUploadResult", "<UploadId>u1</UploadId>"),
        "GET" if request.target.contains("uploads") => Answer::xml("ListMultipartUploadsResult", ""),
        "GET" if request.target.contains("list-type") => Answer::xml("ListBucketResult", ""),
        "DELETE" => Answer::new(204, ""),
        _ => Answer::error(404, "NoSuchKey"),
    }
}
