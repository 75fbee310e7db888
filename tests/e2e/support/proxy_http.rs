//! As much of HTTP/1.1 as the fault proxy takes: heads, and bodies that are passed on as they come.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::time::{Duration, Instant};

/// The lines before a body.
pub struct Head(Vec<String>);

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// After this many bytes.
    Length(u64),
    /// By a chunk of no bytes.
    Chunked,
    /// By the connection's end.
    ToTheEnd,
}

/// How a body is passed on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Bytes a second at most.
    pub rate: Option<u32>,
    /// Only its first half; of one in chunks, half of the first.
    pub half: bool,
}

impl Head {
    /// The next one; `None` where the connection ends before it begins.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if from.read_until(b'\n', &mut line)? == 0 {
                return if lines.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            // Bytes that are no ASCII stay what they are.
            let line: String = line.iter().map(|byte| char::from(*byte)).collect();
            match line.trim_end_matches(['\r', '\n']) {
                "" if lines.is_empty() => {}
                "" => return Ok(Some(Self(lines))),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// As it came, less what was taken.
    pub fn bytes(&self) -> Vec<u8> {
        let text = self.0.join("\r\n") + "\r\n\r\n";
        text.chars().map(|character| u8::try_from(character).unwrap()).collect()
    }

    /// Of a request.
    pub fn method_and_target(&self) -> (&str, &str) {
        let mut words = self.0[0].split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// Of an answer; 0 where there is none.
    pub fn status(&self) -> u16 {
        self.0[0].split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0[1..].iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// A header's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.header(name)
    }

    /// Gives a header this value, whether it was there or not.
    pub fn set(&mut self, name: &str, value: &str) {
        self.take(name);
        self.0.push(format!("{name}: {value}"));
    }

    /// All headers, their names in small letters.
    pub fn headers(&self) -> BTreeMap<String, String> {
        let pairs = self.0[1..].iter().filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
    }

    /// Takes a header away.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let value = self.header(name)?.to_owned();
        self.0.retain(|line| line.split_once(':').is_none_or(|(found, _)| !found.eq_ignore_ascii_case(name)));
        Some(value)
    }

    /// What follows a request's head.
    pub fn request_body(&self) -> Body {
        self.body().unwrap_or(Body::Length(0))
    }

    /// What follows the head of an answer to a request of this method.
    pub fn answer_body(&self, method: &str) -> Body {
        if method == "HEAD" || [204, 304].contains(&self.status()) {
            return Body::Length(0);
        }
        self.body().unwrap_or(Body::ToTheEnd)
    }

    fn body(&self) -> Option<Body> {
        let chunked = self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = || self.header("content-length").and_then(|value| value.parse().ok());
        if chunked { Some(Body::Chunked) } else { length().map(Body::Length) }
    }

    /// Whether the connection is to end with the answer.
    pub fn asks_to_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Whether the connection ends with this answer.
    pub fn closes(&self) -> bool {
        self.asks_to_close() || self.body().is_none() && ![204, 304].contains(&self.status())
    }
}

/// Passes a body on as it comes, with the marks of its chunks.
pub fn pass_body(from: &mut impl BufRead, to: &mut impl Write, body: Body, flow: Flow) -> io::Result<()> {
    match body {
        Body::Length(length) => pass(from, to, if flow.half { length / 2 } else { length }, flow, false),
        Body::ToTheEnd => pass(from, to, u64::MAX, flow, true),
        Body::Chunked => loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let digits = line.trim().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            to.write_all(line.as_bytes())?;
            if flow.half {
                return pass(from, to, size / 2, flow, false);
            }
            if size == 0 {
                return pass_trailers(from, to);
            }
            // With the line end behind it.
            pass(from, to, size + 2, flow, false)?;
        },
    }
}

fn pass_trailers(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        to.write_all(line.as_bytes())?;
        if line.trim().is_empty() {
            return to.flush();
        }
    }
}

fn pass(from: &mut impl Read, to: &mut impl Write, length: u64, flow: Flow, may_end: bool) -> io::Result<()> {
    let (begun, mut passed) = (Instant::now(), 0);
    // At a low rate in steps so small that the other side sees progress.
    let step = flow.rate.map_or(64 * 1024, |rate| (rate as usize / 20).clamp(1, 64 * 1024));
    let mut block = vec![0; step];
    while passed < length {
        let wanted = usize::try_from(length - passed).unwrap_or(step).min(step);
        let count = from.read(&mut block[..wanted])?;
        if count == 0 {
            return if may_end { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        to.write_all(&block[..count])?;
        passed += count as u64;
        if let Some(rate) = flow.rate {
            let due = Duration::from_secs_f64(passed as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    to.flush()
}
