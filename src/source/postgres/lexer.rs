//! Takes the text of a plain dump apart as psql does: statements, the rows of `COPY ... FROM
//! stdin`, backslash commands. It must never take a quoted text or a row for a statement, whatever
//! they look like. Memory is bounded: of a long statement only the beginning is kept.
//! Source: PostgreSQL documentation, "Lexical Structure" and "COPY", and psql's own scanner.

use memchr::{memchr, memchr2};

/// The bytes of a statement's beginning that are kept for whoever looks at it.
pub(super) const HEAD: usize = 64 << 10;

/// The line with which `pg_dump` ends what it wrote.
const TRAILER: &[u8] = b"-- PostgreSQL database dump complete";

/// What a piece of the text is. Every byte of the text is told of exactly once, in order.
pub(super) enum Token<'a> {
    /// Part of a statement, of the space and comments around it, or of its end.
    Sql(&'a [u8]),
    /// The statement that the last bytes ended, without comments, its beginning at the most.
    End(Statement<'a>),
    /// Rows of a COPY block, and how many lines end in them; the line `\.` is the last of all.
    Rows(&'a [u8], u64),
    /// The COPY block has ended; its line `\.` is what was told last.
    RowsEnd,
    /// A whole backslash command, with its line end.
    Command(&'a [u8]),
}

/// A statement that has ended.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    /// Its text from its first word on, comments left out; cut at [`HEAD`] bytes.
    pub head: &'a [u8],
    /// Whether that is all of it.
    pub complete: bool,
}

/// Takes tokens. An error ends the reading.
pub(super) trait Visitor {
    /// What it refuses with.
    type Error;
    /// One token.
    fn token(&mut self, token: Token<'_>) -> Result<(), Self::Error>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Sql,
    LineComment,
    BlockComment {
        depth: u32,
    },
    /// Inside '...'; `escapes`: a backslash takes the next character.
    Quote {
        escapes: bool,
    },
    /// Behind a quote that ends the string, unless another follows.
    QuoteEnd {
        escapes: bool,
    },
    Identifier,
    /// `$tag` so far, not yet known to be a quote.
    DollarTag,
    /// Inside $tag$...$tag$.
    Dollar,
    /// The rest of the line behind a COPY statement.
    BeforeRows,
    Rows,
    Command,
}

/// The lexer's state between two pieces of the text.
pub(super) struct Lexer {
    state: State,
    head: Vec<u8>,
    head_complete: bool,
    /// The identifier or number that the last bytes are, for `E'...'` and `foo$bar$`.
    word: Vec<u8>,
    last: u8,
    /// A backslash took the next byte of a quote.
    escaped: bool,
    tag: Vec<u8>,
    /// The text of a comment or command line, or of a row's first bytes.
    line: Vec<u8>,
    line_start: bool,
    /// `standard_conforming_strings` is off: plain quotes have escapes too.
    plain_escapes: bool,
    complete: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            state: State::Sql,
            head: Vec::new(),
            head_complete: true,
            word: Vec::new(),
            last: b'\n',
            escaped: false,
            tag: Vec::new(),
            line: Vec::new(),
            line_start: true,
            plain_escapes: false,
            complete: false,
        }
    }
}

impl Lexer {
    /// Whether the text ended where a whole dump ends: after pg_dump's trailer line, outside of any
    /// statement, quote, comment and COPY block.
    pub(super) fn is_complete(&self) -> bool {
        self.complete && self.state == State::Sql && self.head.is_empty()
    }

    /// Reads on.
    pub(super) fn feed<V: Visitor>(&mut self, mut text: &[u8], visitor: &mut V) -> Result<(), V::Error> {
        while !text.is_empty() {
            let used = match self.state {
                State::Rows => self.rows(text, visitor)?,
                State::BeforeRows => self.before_rows(text, visitor)?,
                State::Command => self.command(text, visitor)?,
                _ => self.sql(text, visitor)?,
            };
            text = &text[used..];
        }
        Ok(())
    }

    /// Reads SQL up to the end of a statement, or to what is no SQL; tells of it once.
    fn sql<V: Visitor>(&mut self, text: &[u8], visitor: &mut V) -> Result<usize, V::Error> {
        let mut at = 0;
        while at < text.len() {
            if self.state == State::Sql && text[at] == b'\\' {
                self.state = State::Command;
                self.line.clear();
                break;
            }
            let skipped = self.skip(&text[at..]);
            if skipped > 0 {
                self.keep(&text[at..at + skipped]);
                at += skipped;
                continue;
            }
            let ended = self.byte(text[at]);
            at += 1;
            if ended {
                visitor.token(Token::Sql(&text[..at]))?;
                self.end_statement(visitor)?;
                return Ok(at);
            }
        }
        if at > 0 {
            visitor.token(Token::Sql(&text[..at]))?;
        }
        Ok(at)
    }

    /// How many bytes mean nothing here: the insides of long quotes are passed at memory speed.
    fn skip(&self, text: &[u8]) -> usize {
        match self.state {
            State::Quote { escapes: true } if !self.escaped => memchr2(b'\'', b'\\', text).unwrap_or(text.len()),
            State::Quote { escapes: false } => memchr(b'\'', text).unwrap_or(text.len()),
            State::Dollar if self.line.is_empty() => memchr(b'$', text).unwrap_or(text.len()),
            _ => 0,
        }
    }

    /// Takes one byte; true when it ends a statement.
    fn byte(&mut self, byte: u8) -> bool {
        match self.state {
            State::Sql => return self.sql_byte(byte),
            State::LineComment => {
                if byte == b'\n' {
                    // Only whole lines count, so that `-- ... complete` in a longer comment is none.
                    if self.line == TRAILER {
                        self.complete = true;
                    }
                    self.state = State::Sql;
                } else if self.line.len() <= TRAILER.len() {
                    self.line.push(byte);
                }
            }
            State::BlockComment { depth } => {
                let depth = match (self.last, byte) {
                    (b'/', b'*') => depth + 1,
                    (b'*', b'/') => depth - 1,
                    _ => {
                        self.last = byte;
                        return false;
                    }
                };
                self.state = if depth == 0 { State::Sql } else { State::BlockComment { depth } };
                // A byte is part of one mark alone: `/*/` is not an end.
                self.last = 0;
                return false;
            }
            State::Quote { escapes } => {
                self.keep(&[byte]);
                if self.escaped {
                    self.escaped = false;
                } else if byte == b'\\' && escapes {
                    self.escaped = true;
                } else if byte == b'\'' {
                    self.state = State::QuoteEnd { escapes };
                }
            }
            State::QuoteEnd { escapes } => {
                if byte == b'\'' {
                    self.keep(&[byte]);
                    self.state = State::Quote { escapes };
                } else {
                    self.state = State::Sql;
                    self.word.clear();
                    return self.sql_byte(byte);
                }
            }
            State::Identifier => {
                self.keep(&[byte]);
                if byte == b'"' {
                    self.state = State::Sql;
                }
            }
            State::DollarTag => return self.tag_byte(byte),
            State::Dollar => self.dollar_byte(byte),
            State::BeforeRows | State::Rows | State::Command => {}
        }
        self.last = byte;
        false
    }

    fn sql_byte(&mut self, byte: u8) -> bool {
        let last = std::mem::replace(&mut self.last, byte);
        match (last, byte) {
            (b'-', b'-') => {
                self.unkeep();
                self.line.clear();
                self.line.extend_from_slice(b"--");
                self.state = State::LineComment;
                return false;
            }
            (b'/', b'*') => {
                self.unkeep();
                self.last = 0;
                self.state = State::BlockComment { depth: 1 };
                return false;
            }
            (_, b';') => return true,
            (_, b'\'') => {
                let escapes = self.plain_escapes || self.word.eq_ignore_ascii_case(b"e");
                self.state = State::Quote { escapes };
                self.escaped = false;
            }
            (_, b'"') => self.state = State::Identifier,
            (_, b'$') if self.word.is_empty() => {
                self.tag.clear();
                self.tag.push(b'$');
                self.state = State::DollarTag;
            }
            _ => {}
        }
        self.keep(&[byte]);
        if is_word(byte) || (byte == b'$' && !self.word.is_empty()) {
            if self.word.len() < 3 {
                self.word.push(byte);
            }
        } else {
            self.word.clear();
        }
        false
    }

    fn tag_byte(&mut self, byte: u8) -> bool {
        let first = self.tag.len() == 1;
        if byte == b'$' {
            self.keep(&[byte]);
            self.tag.push(byte);
            self.line.clear();
            self.state = State::Dollar;
        } else if is_word(byte) && !(first && byte.is_ascii_digit()) && self.tag.len() < 128 {
            self.keep(&[byte]);
            self.tag.push(byte);
        } else {
            // `$1`, or a lone dollar: no quote. What followed the dollar counts as a word.
            self.word.clear();
            self.word.extend_from_slice(&self.tag[1..self.tag.len().min(4)]);
            self.last = b'$';
            self.state = State::Sql;
            return self.sql_byte(byte);
        }
        self.last = byte;
        false
    }

    /// `line` holds the possible end tag so far.
    fn dollar_byte(&mut self, byte: u8) {
        self.keep(&[byte]);
        self.line.push(byte);
        if self.line == self.tag {
            self.line.clear();
            self.word.clear();
            self.state = State::Sql;
        } else if !self.tag.starts_with(&self.line) {
            self.line.clear();
            // The dollar that breaks one tag may begin the right one.
            if byte == b'$' {
                self.line.push(byte);
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let bytes = if self.head.is_empty() { bytes.trim_ascii_start() } else { bytes };
        if bytes.is_empty() {
            return;
        }
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.head_complete &= bytes.len() <= room;
    }

    /// Takes back the byte that turned out to begin a comment.
    fn unkeep(&mut self) {
        if self.head_complete {
            self.head.pop();
            if self.head.trim_ascii().is_empty() {
                self.head.clear();
            }
        }
        // A comment parts words as a space does.
        if !self.head.is_empty() {
            self.keep(b" ");
        }
        self.word.clear();
    }

    fn end_statement<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        let head = std::mem::take(&mut self.head);
        let statement = Statement { head: &head, complete: self.head_complete };
        if let Some(on) = statement.conforming_strings() {
            self.plain_escapes = !on;
        }
        if statement.copy_table().is_some() {
            self.state = State::BeforeRows;
        }
        // Whatever follows the trailer line, that line was not the dump's end.
        self.complete = false;
        let told = visitor.token(Token::End(statement));
        self.head = head;
        self.head.clear();
        self.head_complete = true;
        self.word.clear();
        self.last = b';';
        told
    }

    fn before_rows<V: Visitor>(&mut self, text: &[u8], visitor: &mut V) -> Result<usize, V::Error> {
        let end = memchr(b'\n', text).map_or(text.len(), |at| at + 1);
        visitor.token(Token::Sql(&text[..end]))?;
        if text[end - 1] == b'\n' {
            self.state = State::Rows;
            self.line_start = true;
            self.line.clear();
        }
        Ok(end)
    }

    /// Rows up to the line `\.`; a line's first bytes are gathered where the text is cut within them.
    fn rows<V: Visitor>(&mut self, text: &[u8], visitor: &mut V) -> Result<usize, V::Error> {
        let mut at = 0;
        let mut lines = 0;
        while at < text.len() {
            let end = memchr(b'\n', &text[at..]).map(|end| at + end + 1);
            let line = &text[at..end.unwrap_or(text.len())];
            if self.line_start || !self.line.is_empty() {
                self.line_start = false;
                self.line.extend_from_slice(&line[..line.len().min(5 - self.line.len().min(5))]);
            }
            let Some(end) = end else { break };
            let last = matches!(self.line.as_slice(), b"\\.\n" | b"\\.\r\n");
            self.line.clear();
            self.line_start = true;
            at = end;
            lines += 1;
            if last {
                visitor.token(Token::Rows(&text[..at], lines))?;
                self.state = State::Sql;
                self.last = b'\n';
                visitor.token(Token::RowsEnd)?;
                return Ok(at);
            }
        }
        visitor.token(Token::Rows(text, lines))?;
        Ok(text.len())
    }

    fn command<V: Visitor>(&mut self, text: &[u8], visitor: &mut V) -> Result<usize, V::Error> {
        let end = memchr(b'\n', text).map_or(text.len(), |at| at + 1);
        // A command of ours is short; the rest of a long one is dropped, it is refused anyway.
        let room = HEAD - self.line.len();
        self.line.extend_from_slice(&text[..end.min(room)]);
        if text[end - 1] == b'\n' {
            self.state = State::Sql;
            self.last = b'\n';
            let line = std::mem::take(&mut self.line);
            visitor.token(Token::Command(&line))?;
        }
        Ok(end)
    }
}

impl Statement<'_> {
    /// Its first words in upper case, up to `count` of them.
    pub(super) fn words(&self, count: usize) -> Vec<String> {
        first_words(self.head, count)
    }

    /// The table of a `COPY table ... FROM stdin`, as it stands there.
    pub(super) fn copy_table(&self) -> Option<&[u8]> {
        let rest = strip_word(self.head, b"COPY")?;
        let tail = self.head.trim_ascii_end();
        let from_stdin = tail.len() >= 5 && tail[tail.len() - 5..].eq_ignore_ascii_case(b"stdin");
        let mut quoted = false;
        let end = rest.iter().position(|byte| {
            quoted ^= *byte == b'"';
            !quoted && (byte.is_ascii_whitespace() || *byte == b'(')
        })?;
        (self.complete && from_stdin).then_some(&rest[..end])
    }

    fn conforming_strings(&self) -> Option<bool> {
        let rest = strip_word(strip_word(self.head, b"SET")?, b"standard_conforming_strings")?;
        let value = rest.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase).collect::<Vec<_>>();
        Some(!value.ends_with(b"off") && !value.ends_with(b"false"))
    }
}

/// The text behind a leading word and the space after it.
pub(super) fn strip_word<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let text = text.trim_ascii_start();
    let rest = text.get(word.len()..)?;
    let parted = rest.first().is_none_or(|byte| !is_word(*byte));
    (text[..word.len()].eq_ignore_ascii_case(word) && parted).then(|| rest.trim_ascii_start())
}

/// The first words of a text in upper case: runs of letters, digits and underscores.
pub(super) fn first_words(text: &[u8], count: usize) -> Vec<String> {
    let text = &text[..text.len().min(4096)];
    let words = text.split(|byte| !is_word(*byte)).filter(|word| !word.is_empty());
    words.take(count).map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
