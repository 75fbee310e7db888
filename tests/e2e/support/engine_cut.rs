//! A way to the Docker Engine that ends in the middle of an answer: as when the engine is restarted. Its client takes that for the
//! end of the output, and exits 0.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::engine::Docker;

/// How the engine answers where a connection becomes a program's streams.
const UPGRADED: &[u8] = b"HTTP/1.1 101 ";

/// A socket that leads to the machine's engine, on which answers are cut.
pub struct CutEngine {
    directory: TempDir,
    cut: Arc<Cut>,
}

/// What is cut.
struct Cut {
    what: What,
    /// Bytes that come through before.
    bytes: usize,
    /// Programs' streams so far.
    streams: AtomicUsize,
}

#[derive(Clone, Copy)]
enum What {
    /// Each connection.
    All,
    /// The streams of the program of this number, the first is 0; those of later ones, too, where that is said.
    Program { number: usize, and_later: bool },
}

impl CutEngine {
    /// Each connection brings this many bytes. What engines answer to questions is far smaller than 100 kB.
    pub fn after(docker: &'static Docker, bytes: usize) -> Self {
        Self::new(docker, What::All, bytes)
    }

    /// The program of this number is heard for this many bytes; what it says next is lost, and the connection ends.
    pub fn at_program(docker: &'static Docker, number: usize, bytes: usize) -> Self {
        Self::new(docker, What::Program { number, and_later: false }, bytes)
    }

    /// The same for all programs from this number on.
    pub fn from_program(docker: &'static Docker, number: usize, bytes: usize) -> Self {
        Self::new(docker, What::Program { number, and_later: true }, bytes)
    }

    fn new(docker: &'static Docker, what: What, bytes: usize) -> Self {
        let engine = docker.socket();
        let directory = tempfile::Builder::new().prefix("cut.").tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let cut = Arc::new(Cut { what, bytes, streams: AtomicUsize::new(0) });
        let shared = Arc::clone(&cut);
        // It ends with the test process, and nobody can find it once its directory is gone.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&engine) else { continue };
                let cut = Arc::clone(&shared);
                thread::spawn(move || forward(&client, &server, &cut));
            }
        });
        Self { directory, cut }
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("s").display())
    }

    /// How many programs were run through it.
    pub fn programs(&self) -> usize {
        self.cut.streams.load(Ordering::SeqCst)
    }
}

fn forward(client: &UnixStream, server: &UnixStream, cut: &Cut) {
    thread::scope(|scope| {
        scope.spawn(|| {
            copy(client, server, None);
            // The end of the input alone; its answer is still to come.
            let _ = server.shutdown(Shutdown::Write);
        });
        answer(server, client, cut);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn answer(mut server: &UnixStream, mut client: &UnixStream, cut: &Cut) {
    let What::Program { number, and_later } = cut.what else { return copy(server, client, Some(cut.bytes)) };
    let mut header = Vec::new();
    let mut byte = [0];
    while !header.ends_with(b"\r\n\r\n") {
        match server.read(&mut byte) {
            Ok(1) => header.extend(byte),
            _ => return,
        }
    }
    let is_cut = header.starts_with(UPGRADED) && {
        let mine = cut.streams.fetch_add(1, Ordering::SeqCst);
        mine == number || (and_later && mine > number)
    };
    if client.write_all(&header).is_ok() {
        copy(server, client, is_cut.then_some(cut.bytes));
    }
}

/// Copies until the end, or until more than this many bytes came.
fn copy(mut from: &UnixStream, mut to: &UnixStream, limit: Option<usize>) {
    let mut buffer = [0; 4096];
    let mut left = limit.unwrap_or(usize::MAX);
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) if count > left => {
                let _ = to.write_all(&buffer[..left]);
                break;
            }
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => left -= if limit.is_some() { count } else { 0 },
            Ok(_) => break,
        }
    }
}

impl Docker {
    /// The engine's own socket.
    fn socket(&self) -> PathBuf {
        let host = self.ok(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]);
        host.strip_prefix("unix://").unwrap_or_else(|| panic!("the engine is at {host}, which is no socket here")).into()
    }
}
