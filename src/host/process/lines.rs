//! A stream as lines, given to whoever listens as they come, in bounded memory.

/// Takes one line at a time, without its end.
pub type Listener = Box<dyn FnMut(&[u8]) + Send>;

/// What is kept of a line that has not ended: of a longer one, the listener gets this beginning.
const LONGEST: usize = 128 << 10;

/// Cuts a stream into lines.
pub(super) struct Lines {
    listener: Listener,
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener, begun: Vec::new() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if ends && self.begun.is_empty() {
                (self.listener)(&text[..text.len().min(LONGEST)]);
                continue;
            }
            let room = LONGEST - self.begun.len();
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line();
            }
        }
    }

    /// The stream has ended: a last line that has no end is one, too.
    pub(super) fn finish(&mut self) {
        if !self.begun.is_empty() {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        (self.listener)(&self.begun);
        self.begun.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = heard.clone();
        let mut lines = Lines::new(Box::new(move |line| to.lock().unwrap().push(line.to_vec())));
        for chunk in chunks {
            lines.push(chunk);
        }
        lines.finish();
        heard.lock().unwrap().clone()
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        let text = b"one\n\ntwo\xff\r\nlast";
        let wanted: [&[u8]; 4] = [b"one", b"", b"two\xff\r", b"last"];
        for cut in 0..=text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]), wanted, "{cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(&bytes), wanted);
        assert_eq!(lines(&[b"a\n", b""]), [b"a"]);
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let long = vec![b'x'; LONGEST - 1];
        let heard = lines(&[&long, b"yz", b"z\nb\n"]);
        assert_eq!((heard[0].len(), heard[0].last(), heard[1].as_slice()), (LONGEST, Some(&b'y'), b"b".as_slice()));
        let whole = [vec![b'x'; 2 * LONGEST], b"\n".to_vec()].concat();
        assert_eq!(lines(&[&whole])[0].len(), LONGEST);
    }
}
