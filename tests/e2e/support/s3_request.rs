//! One S3 request at a time, made and signed by hand (AWS Signature Version 4).

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use chrono::Utc;
use sha2::{Digest, Sha256};

use super::cluster::HOST;
use super::s3::{ACCESS_KEY, REGION, SECRET_KEY};

/// What is asked of a server.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `GET`, ...
    pub method: &'static str,
    /// Not encoded: `/bucket/a key`.
    pub path: String,
    /// Not encoded, in any order.
    pub query: Vec<(&'static str, String)>,
    /// More headers, in any order: `x-amz-bypass-governance-retention`. They are signed.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: &'a [u8],
}

impl Request<'static> {
    /// One without query, headers and body.
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), query: Vec::new(), headers: Vec::new(), body: &[] }
    }
}

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    /// 200, ...
    pub status: u16,
    /// The head as it came.
    pub head: String,
    /// What followed it.
    pub body: Vec<u8>,
}

impl Answer {
    /// It must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(self.status == status, "not {status}:\n{}\n{}", self.head, self.text());
        self
    }

    /// The body, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The texts of all XML elements of this name.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let (text, begin, end) = (self.text(), format!("<{name}>"), format!("</{name}>"));
        let found = text.split(&begin).skip(1).filter_map(|rest| rest.split_once(&end));
        found.map(|(text, _)| quick_xml::escape::unescape(text).unwrap().into_owned()).collect()
    }
}

/// Sends it to the server on this port of 127.0.0.1, by a connection of its own.
pub fn send(port: u16, request: &Request) -> io::Result<Answer> {
    let mut stream = TcpStream::connect((HOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(signed_head(port, request).as_bytes())?;
    // A server that refuses it may not read it to its end; its answer says why.
    let _ = stream.write_all(request.body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| io::Error::other(head.clone()))?;
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&body)? } else { body };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    if request.method != "HEAD" && length.is_some_and(|length: usize| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer { status, head, body })
}

fn unchunked(mut body: &[u8]) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = std::str::from_utf8(&body[..end]).map_err(io::Error::other)?;
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let rest = &body[end + 2..];
        whole.extend_from_slice(rest.get(..size).ok_or(io::ErrorKind::UnexpectedEof)?);
        if size == 0 {
            return Ok(whole);
        }
        body = rest.get(size + 2..).ok_or(io::ErrorKind::UnexpectedEof)?;
    }
}

fn signed_head(port: u16, request: &Request) -> String {
    let now = Utc::now();
    let (day, time) = (now.format("%Y%m%d").to_string(), now.format("%Y%m%dT%H%M%SZ").to_string());
    let digest = hex(&Sha256::digest(request.body));
    let mut headers =
        vec![("host", format!("{HOST}:{port}")), ("x-amz-content-sha256", digest.clone()), ("x-amz-date", time.clone())];
    headers.extend(request.headers.iter().cloned());
    headers.sort();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let path = encoded(&request.path, "/");
    let mut query: Vec<_> = request.query.iter().map(|(name, value)| format!("{name}={}", encoded(value, ""))).collect();
    query.sort();
    let query = query.join("&");
    let mut lines = String::new();
    for (name, value) in &headers {
        writeln!(lines, "{name}:{value}").unwrap();
    }
    let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{digest}", request.method);
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let first = format!("AWS4{SECRET_KEY}").into_bytes();
    let key = [day.as_str(), REGION, "s3", "aws4_request"].iter().fold(first, |key, part| hmac(&key, part.as_bytes()));
    let signature = hex(&hmac(&key, to_sign.as_bytes()));
    let mut head = format!("{} {path}?{query} HTTP/1.1\r\n", request.method);
    for (name, value) in &headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    let credential = format!("Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}");
    let length = request.body.len();
    format!("{head}authorization: AWS4-HMAC-SHA256 {credential}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
}

/// RFC 2104, with keys of at most a block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn encoded(text: &str, kept: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte) {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
    }
    encoded
}
