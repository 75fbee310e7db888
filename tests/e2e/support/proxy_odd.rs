//! What the fault proxy changes in a request or an answer that it passes on.

use std::io::{self, BufRead, Write};
use std::net::TcpStream;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::proxy::Fault;
use super::proxy_http::{Body, Flow, Head, pass_body};
use super::s3_request::{Request, send};

/// What a server's clock seems to say: in the `Date` of its answers, and nowhere else.
#[derive(Debug, Clone, Copy, Default)]
pub enum ServerClock {
    #[default]
    Right,
    Ahead(Duration),
    /// It stands still.
    At(DateTime<Utc>),
}

impl ServerClock {
    /// The `Date` of an answer.
    pub fn date(self) -> String {
        let now = match self {
            Self::Right => Utc::now(),
            Self::Ahead(ahead) => Utc::now() + ahead,
            Self::At(at) => at,
        };
        now.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}

/// Passes an answer on with this in it. Whether another may follow on this connection.
pub fn pass_changed(
    fault: &Fault,
    mut answer: Head,
    body: Body,
    server: &mut impl BufRead,
    mut client: &TcpStream,
) -> io::Result<bool> {
    let mut bytes = Vec::new();
    pass_body(server, &mut bytes, body, Flow::default())?;
    match fault {
        Fault::Longer(more) => {
            let length = i64::try_from(bytes.len()).unwrap() + more;
            bytes.resize(usize::try_from(length.max(0)).unwrap(), b'#');
            answer.set("content-length", &bytes.len().to_string());
        }
        Fault::Flip => bytes.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1),
        Fault::Header(name, value) => answer.set(name, value),
        _ => {}
    }
    client.write_all(&answer.bytes())?;
    client.write_all(&bytes)?;
    Ok(!answer.closes())
}

/// Passes a request on less its `If-None-Match`, which is signed for: it is signed anew. The connection ends with it.
pub fn without_condition(port: u16, head: &Head, requests: &mut impl BufRead, mut client: &TcpStream) -> io::Result<()> {
    let mut body = Vec::new();
    pass_body(requests, &mut body, head.request_body(), Flow::default())?;
    let (method, target) = head.method_and_target();
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let leaked = |text: &str| -> &'static str { text.to_owned().leak() };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let ours = |name: &str| ["x-amz-date", "x-amz-content-sha256"].contains(&name);
    let kept = head.headers().into_iter();
    let kept = kept.filter(|(name, _)| name.starts_with("x-amz-") && !ours(name));
    let request = Request {
        method: leaked(method),
        path: plain(path),
        query: pairs.map(|(name, value)| (leaked(name), plain(value))).collect(),
        headers: kept.map(|(name, value)| (leaked(&name), value)).collect(),
        body: &body,
    };
    let answer = send(port, &request)?;
    let lines = answer.head.lines().skip(1).filter(|line| !line.trim().is_empty());
    let lines =
        lines.filter(|line| !["content-length", "transfer-encoding", "connection"].iter().any(|name| line.starts_with(name)));
    let lines = lines.map(str::trim).collect::<Vec<_>>().join("\r\n");
    let length = answer.body.len();
    write!(client, "HTTP/1.1 {} Passed\r\n{lines}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n", answer.status)?;
    client.write_all(&answer.body)
}
