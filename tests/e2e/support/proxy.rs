//! A proxy before an S3 server that makes chosen requests go wrong: `proxy.fail(Kind::Part, 2, Fault::Reset)`.
//! It passes on what it is not told to spoil, byte by byte, `Host` too, so that signatures hold.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::cluster::HOST;
use super::proxy_http::{Flow, Head, pass_body};
use super::proxy_odd::{self, ServerClock};
use super::s3::Server;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Begins a multipart upload.
    Initiate,
    /// Uploads a part.
    Part,
    /// Makes an object of parts.
    Complete,
    /// Gives a multipart upload up.
    Abort,
    /// Writes an object whole.
    Put,
    /// Reads an object, or a range of it.
    Get,
    /// Looks at an object or a bucket.
    Head,
    /// Lists objects.
    List,
    /// Lists multipart uploads.
    Uploads,
    /// Lists the parts of one.
    Parts,
    /// Deletes one object, or many.
    Delete,
    /// Everything else.
    Other,
}

/// How a request goes wrong. Where the server is not asked, it never hears of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server is not asked; this status comes, with this S3 error code, and the seconds of a `Retry-After`.
    Status(u16, &'static str, Option<u32>),
    /// The server is not asked; the connection is reset.
    Reset,
    /// A part or object on its way in is cut half-way, any other request's answer is, and the connection closed.
    Cut,
    /// The server does it; its answer never comes, and the connection is closed.
    LostAnswer,
    /// The server is not asked; nothing comes, for ever.
    Stall,
    /// As with `Cut`, but the connection stays open and nothing more comes, for ever.
    StallHalfway,
    /// Bodies go this many bytes a second, either way.
    Slow(u32),
    /// The server is not asked; this comes with status 200.
    Body(Vec<u8>),
    /// The server is not asked; this comes: status, headers and body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The server does it; its answer never comes, and the connection stays open for ever.
    StallAnswer,
    /// The answer's body has so many bytes more, or fewer, and its head says so; all else in it stays.
    Longer(i64),
    /// The last byte of the answer's body is another one.
    Flip,
    /// The answer has this header.
    Header(&'static str, &'static str),
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What it is for.
    pub kind: Kind,
    /// `PUT`, ...
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Its headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// What it met.
    pub fault: Option<Fault>,
    /// It met `StallAnswer`, and the server's answer came to its end here.
    pub is_done: bool,
}

/// A running proxy. Dropped, it ends with all of its connections.
pub struct Proxy {
    inner: Arc<Inner>,
    listener: Option<JoinHandle<()>>,
}

struct Inner {
    port: u16,
    server: u16,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    armed: Vec<Armed>,
    calls: Vec<Call>,
    clock: ServerClock,
    ignores_conditions: bool,
    /// Open connections, by a number of their own.
    connections: BTreeMap<usize, Vec<TcpStream>>,
}

/// A request that was noted in the log.
struct Noted {
    at: usize,
    kind: Kind,
    fault: Option<Fault>,
}

struct Armed {
    /// `None`: any.
    kind: Option<Kind>,
    /// Calls still to let pass.
    pass: usize,
    /// Calls still to spoil.
    times: usize,
    fault: Fault,
}

impl Proxy {
    /// One before this server, on a port of its own.
    pub fn before(server: &Server) -> Self {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner { port, server: server.port(), state: Mutex::default(), ended: Condvar::new() });
        let serving = Arc::clone(&inner);
        let listener = std::thread::spawn(move || serving.listen(&listener));
        Self { inner, listener: Some(listener) }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{HOST}:{}", self.inner.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// Makes the `nth` request of this kind from now on (1: the next) go wrong, once.
    pub fn fail(&self, kind: Kind, nth: usize, fault: Fault) {
        self.arm(Some(kind), nth, 1, fault);
    }

    /// The same for `times` requests of this kind, from the `nth` on.
    pub fn fail_times(&self, kind: Kind, nth: usize, times: usize, fault: Fault) {
        self.arm(Some(kind), nth, times, fault);
    }

    /// The same for every request of this kind, from the `nth` on.
    pub fn fail_always(&self, kind: Kind, nth: usize, fault: Fault) {
        self.arm(Some(kind), nth, usize::MAX, fault);
    }

    /// Makes every request of any kind go wrong: a slow link, a server that is down.
    pub fn fail_all(&self, fault: Fault) {
        self.arm(None, 1, usize::MAX, fault);
    }

    fn arm(&self, kind: Option<Kind>, nth: usize, times: usize, fault: Fault) {
        self.inner.lock().armed.push(Armed { kind, pass: nth.saturating_sub(1), times, fault });
    }

    /// All is well from now on.
    pub fn heal(&self) {
        self.inner.lock().armed.clear();
    }

    /// Lets the server's clock seem to be ahead by this: in the `Date` of its answers, and nowhere else.
    pub fn shift_clock(&self, ahead: Duration) {
        self.inner.lock().clock = ServerClock::Ahead(ahead);
    }

    /// Lets the server's clock seem to stand still, likewise: however long a busy machine takes, no second is over.
    pub fn stop_clock(&self, at: DateTime<Utc>) {
        self.inner.lock().clock = ServerClock::At(at);
    }

    /// Makes the server one that takes no notice of `If-None-Match`: such requests are signed anew without it.
    pub fn ignore_conditions(&self) {
        self.inner.lock().ignores_conditions = true;
    }

    /// How many requests of this kind have come, spoiled ones too.
    pub fn calls(&self, kind: Kind) -> usize {
        self.log().iter().filter(|call| call.kind == kind).count()
    }

    /// How many requests were spoiled.
    pub fn spoiled(&self) -> usize {
        self.log().iter().filter(|call| call.fault.is_some()).count()
    }

    /// Every request that has come, in order.
    pub fn log(&self) -> Vec<Call> {
        self.inner.lock().calls.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.inner.lock();
            state.has_ended = true;
            for stream in state.connections.values().flatten() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.inner.ended.notify_all();
        // Wakes the listener.
        let _ = TcpStream::connect((HOST, self.inner.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        std::thread::scope(|scope| {
            for (number, client) in listener.incoming().enumerate() {
                if self.lock().has_ended {
                    return;
                }
                let Ok(client) = client else { continue };
                scope.spawn(move || {
                    // However a connection ends, the client sees it: all of its descriptors close here.
                    let _ = self.serve(number, &client);
                    self.lock().connections.remove(&number);
                });
            }
        });
    }

    /// Notes a stream of a connection, so that the proxy's end is its end.
    fn keep(&self, number: usize, stream: &TcpStream) -> io::Result<()> {
        let mut state = self.lock();
        if state.has_ended {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.connections.entry(number).or_default().push(stream.try_clone()?);
        Ok(())
    }

    fn serve(&self, number: usize, client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        self.keep(number, client)?;
        let mut requests = BufReader::new(client);
        let mut server: Option<BufReader<TcpStream>> = None;
        while let Some(mut head) = Head::read(&mut requests)? {
            if head.take("expect").is_some() {
                (&*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let noted = self.note(&head);
            if self.lock().ignores_conditions && noted.fault.is_none() && head.get("if-none-match").is_some() {
                return proxy_odd::without_condition(self.server, &head, &mut requests, client);
            }
            if self.answers_itself(&head, noted.fault.as_ref(), &mut requests, client)? {
                if head.asks_to_close() {
                    return Ok(());
                }
                continue;
            }
            if server.as_mut().is_none_or(is_closed) {
                let stream = TcpStream::connect((HOST, self.server))?;
                stream.set_nodelay(true)?;
                self.keep(number, &stream)?;
                server = Some(BufReader::new(stream));
            }
            let Some(server) = &mut server else { return Ok(()) };
            if !self.pass(&head, &noted, &mut requests, client, server)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn note(&self, head: &Head) -> Noted {
        let (method, target) = head.method_and_target();
        let kind = classify(method, target);
        let mut state = self.lock();
        let fault = take_fault(&mut state.armed, kind);
        let (method, target, headers) = (method.to_owned(), target.to_owned(), head.headers());
        state.calls.push(Call { kind, method, target, headers, fault: fault.clone(), is_done: false });
        Noted { at: state.calls.len() - 1, kind, fault }
    }

    /// Does what takes no server. Whether it was that, and the next request may come.
    fn answers_itself(
        &self,
        head: &Head,
        fault: Option<&Fault>,
        requests: &mut impl BufRead,
        mut client: &TcpStream,
    ) -> io::Result<bool> {
        let (status, headers, body) = match fault {
            Some(Fault::Status(status, code, retry)) => {
                let retry = retry.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>Injected.</Message></Error>"
                );
                (*status, retry, body.into_bytes())
            }
            Some(Fault::Body(body)) => (200, String::new(), body.clone()),
            Some(Fault::Answer(status, headers, body)) => {
                let headers = headers.iter().fold(String::new(), |text, (name, value)| text + name + ": " + value + "\r\n");
                (*status, headers, body.clone().into_bytes())
            }
            Some(Fault::Reset) => {
                rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Fault::Stall) => {
                self.wait_for_the_end();
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => return Ok(false),
        };
        pass_body(requests, &mut io::sink(), head.request_body(), Flow::default())?;
        let kind = if body.starts_with(b"<?xml") || body.starts_with(b"<Error") { "application/xml" } else { "text/html" };
        let date = self.lock().clock.date();
        write!(
            client,
            "HTTP/1.1 {status} Injected\r\nDate: {date}\r\nContent-Type: {kind}\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )?;
        if head.method_and_target().0 != "HEAD" {
            client.write_all(&body)?;
        }
        Ok(true)
    }

    fn wait_for_the_end(&self) {
        let mut state = self.lock();
        while !state.has_ended {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Passes a request and its answer on. Whether another may follow on this connection.
    fn pass(
        &self,
        head: &Head,
        noted: &Noted,
        requests: &mut impl BufRead,
        mut client: &TcpStream,
        server: &mut BufReader<TcpStream>,
    ) -> io::Result<bool> {
        let fault = noted.fault.as_ref();
        let halves = matches!(fault, Some(Fault::Cut | Fault::StallHalfway));
        let cuts_request = halves && matches!(noted.kind, Kind::Part | Kind::Put);
        let rate = if let Some(Fault::Slow(rate)) = fault { Some(*rate) } else { None };
        if rate.is_some() {
            // Else the kernel takes megabytes at once, and then nothing for long.
            rustix::net::sockopt::set_socket_recv_buffer_size(client, 64 * 1024)?;
        }
        server.get_mut().write_all(&head.bytes())?;
        let flow = Flow { rate, half: cuts_request };
        pass_body(requests, &mut OrNot(server.get_mut()), head.request_body(), flow)?;
        if cuts_request {
            // The server sees the end now; the client's connection may stay open.
            server.get_mut().shutdown(Shutdown::Both)?;
            self.end_halfway(fault);
            return Ok(false);
        }
        let mut answer = Head::read(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        while answer.status() == 100 {
            answer = Head::read(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        let body = answer.answer_body(head.method_and_target().0);
        if fault == Some(&Fault::LostAnswer) {
            pass_body(server, &mut io::sink(), body, Flow::default())?;
            return Ok(false);
        }
        if fault == Some(&Fault::StallAnswer) {
            pass_body(server, &mut io::sink(), body, Flow::default())?;
            self.lock().calls[noted.at].is_done = true;
            self.wait_for_the_end();
            return Ok(false);
        }
        let clock = self.lock().clock;
        if !matches!(clock, ServerClock::Right) {
            answer.set("date", &clock.date());
        }
        if let Some(fault @ (Fault::Longer(_) | Fault::Flip | Fault::Header(..))) = fault {
            return proxy_odd::pass_changed(fault, answer, body, server, client);
        }
        client.write_all(&answer.bytes())?;
        pass_body(server, &mut client, body, Flow { rate, half: halves })?;
        if halves {
            self.end_halfway(fault);
        }
        Ok(!halves && !answer.closes())
    }

    /// What a cut ends with; not at all where it is to stall.
    fn end_halfway(&self, fault: Option<&Fault>) {
        if fault == Some(&Fault::StallHalfway) {
            self.wait_for_the_end();
        }
    }
}

/// A server that has answered before the request's end may take no more: its answer tells.
struct OrNot<'a>(&'a mut TcpStream);

impl Write for OrNot<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a server has closed a connection that was kept open.
fn is_closed(server: &mut BufReader<TcpStream>) -> bool {
    let stream = server.get_ref();
    let would_block = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let open = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0])).is_err_and(would_block);
    stream.set_nonblocking(false).is_err() || !open
}

fn take_fault(armed: &mut Vec<Armed>, kind: Kind) -> Option<Fault> {
    let mut due = None;
    for one in armed.iter_mut().filter(|one| one.kind.is_none_or(|wanted| wanted == kind)) {
        if one.pass > 0 {
            one.pass -= 1;
        } else if due.is_none() {
            one.times = if one.times == usize::MAX { usize::MAX } else { one.times - 1 };
            due = Some(one.fault.clone());
        }
    }
    armed.retain(|one| one.times > 0);
    due
}

fn classify(method: &str, target: &str) -> Kind {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    // `/bucket/key`
    let of_object = path.splitn(3, '/').nth(2).is_some_and(|key| !key.is_empty());
    match method {
        "POST" if has("uploads") => Kind::Initiate,
        "POST" if has("uploadId") => Kind::Complete,
        "POST" if has("delete") => Kind::Delete,
        "PUT" if has("partNumber") => Kind::Part,
        "PUT" if of_object => Kind::Put,
        "DELETE" if has("uploadId") => Kind::Abort,
        "DELETE" if of_object => Kind::Delete,
        "HEAD" => Kind::Head,
        "GET" if has("uploads") => Kind::Uploads,
        "GET" if has("uploadId") => Kind::Parts,
        "GET" if of_object => Kind::Get,
        "GET" if has("list-type") || has("prefix") || query.is_empty() => Kind::List,
        _ => Kind::Other,
    }
}
