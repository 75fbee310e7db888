//! Ways to an S3 server, and what stands there in place of one: TLS with an authority of its own, an HTTP proxy, a small web
//! server. Each listens on a free port of 127.0.0.1 and ends when it is dropped.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::cluster::HOST;
use super::proxy_http::{Flow, Head, pass_body};

/// What takes connections, each on a thread of its own, until it is dropped.
pub struct Listener {
    port: u16,
    has_ended: Arc<AtomicBool>,
}

impl Listener {
    /// A connection that fails is only closed.
    pub fn start(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (has_ended, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let ended = Arc::clone(&has_ended);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(client));
            }
        });
        Self { port, has_ended }
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("{HOST}:{}", self.port)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect((HOST, self.port));
    }
}

/// A web server: each request's path and headers make a JSON answer.
pub fn web(answer: impl Fn(&Head) -> (u16, String) + Send + Sync + 'static) -> Listener {
    Listener::start(move |client| {
        let mut requests = BufReader::new(&client);
        while let Some(head) = Head::read(&mut requests)? {
            pass_body(&mut requests, &mut io::sink(), head.request_body(), Flow::default())?;
            let (status, body) = answer(&head);
            let head =
                format!("HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            (&client).write_all((head + &body).as_bytes())?;
        }
        Ok(())
    })
}

/// An HTTP proxy that leads to one port of this machine, whatever host is asked for.
pub struct Forward {
    listener: Listener,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Forward {
    /// `user` as `USER:PASSWORD` in base64, where it wants one.
    pub fn to(port: u16, user: Option<&'static str>) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let listener = Listener::start(move |client| forward(&client, port, user, &log));
        Self { listener, asked }
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// Of each request that was let through its method and the service asked for: `GET http://storage.test:9`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn forward(client: &TcpStream, port: u16, user: Option<&str>, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut requests = BufReader::new(client);
    while let Some(mut head) = Head::read(&mut requests)? {
        let given = head.take("proxy-authorization");
        if user.is_some_and(|user| given != Some(format!("Basic {user}"))) {
            pass_body(&mut requests, &mut io::sink(), head.request_body(), Flow::default())?;
            let refused = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
            (&mut &*client).write_all(refused.as_bytes())?;
            continue;
        }
        let (method, target) = head.method_and_target();
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut server = TcpStream::connect((HOST, port))?;
        if method == "CONNECT" {
            log.lock().unwrap().push(format!("CONNECT {target}"));
            (&mut &*client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            return both_ways(client, &server);
        }
        let Some((service, path)) = target.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
            return Err(io::Error::other("no request for a proxy"));
        };
        log.lock().unwrap().push(format!("{method} http://{service}"));
        let passed = String::from_utf8_lossy(&head.bytes()).replacen(&target, &format!("/{path}"), 1);
        server.write_all(passed.as_bytes())?;
        pass_body(&mut requests, &mut server, head.request_body(), Flow::default())?;
        let mut answers = BufReader::new(server);
        let answer = Head::read(&mut answers)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        (&mut &*client).write_all(&answer.bytes())?;
        pass_body(&mut answers, &mut &*client, answer.answer_body(&method), Flow::default())?;
        if answer.closes() {
            return Ok(());
        }
    }
    Ok(())
}

fn both_ways(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*server, &mut &*client);
            let _ = client.shutdown(Shutdown::Both);
        });
        let copied = io::copy(&mut &*client, &mut &*server).map(drop);
        let _ = server.shutdown(Shutdown::Both);
        copied
    })
}

/// TLS before a port of this machine, by a certificate of an authority that nobody knows.
pub struct Tls {
    child: Child,
    _out: BufReader<ChildStdout>,
    port: u16,
    authority: PathBuf,
}

/// Takes TLS off and passes on. Ends with its standard input.
const FORWARDER: &str = r#"
import os, socket, ssl, sys, threading
port, certificate, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def copy(source, sink):
    try:
        while block := source.recv(65536):
            sink.sendall(block)
    except OSError:
        pass
    for end in source, sink:
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError:
        client.close()
        return
    server = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=copy, args=(server, client), daemon=True).start()
    copy(client, server)
def until_the_end():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=until_the_end, daemon=True).start()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

impl Tls {
    /// Its files go into this directory. `names` as in a certificate: `IP:127.0.0.1,DNS:storage.test`; `days` that it holds.
    pub fn before(port: u16, directory: &Path, names: &str, days: u32) -> Self {
        let file = |name: &str| directory.join(name);
        let path = |name: &str| file(name).to_str().unwrap().to_owned();
        let openssl = |arguments: &[&str]| {
            let made = Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl");
            assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
        };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        std::fs::write(file("names"), format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=Tests", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&authority[..], &key].concat());
        openssl(&[&["req", "-new", "-subj", "/CN=storage", "-keyout", "own.key", "-out", "own.csr"][..], &key].concat());
        let days = days.to_string();
        openssl(&[
            "x509",
            "-req",
            "-in",
            "own.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            &days,
            "-extfile",
            "names",
            "-out",
            "own.pem",
        ]);
        let mut child = Command::new("python3")
            .args(["-c", FORWARDER, &port.to_string(), &path("own.pem"), &path("own.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        Self { child, _out: out, port: line.trim().parse().unwrap(), authority: file("ca.pem") }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
