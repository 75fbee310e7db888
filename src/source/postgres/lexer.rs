//! Takes the text of a plain dump apart as psql does: statements, the rows of `COPY ... FROM
//! stdin`, backslash commands. It must never take a quoted text or a row for a statement, whatever
//! they look like. Memory is bounded: of a long statement only the beginning is kept.
//! Source: PostgreSQL documentation, "Lexical Structure" and "COPY", and psql's own scanner.

use super::row_end::RowEnd;
use memchr::{memchr, memchr2};

use super::statement::{Statement, command_name, is_word};

/// The bytes of a statement's beginning that are kept for whoever looks at it.
pub(super) const HEAD: usize = 256 << 10;

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
    /// Text that psql or a server reads otherwise than it looks, and that no pg_dump writes: a statement
    /// on the line of a COPY, a NUL, a row that ends like all rows do.
    Stray,
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
    /// The statement's whole length so far, of which `head` is the beginning.
    length: u64,
    bare: Vec<u8>,
    /// The identifier or number that the last bytes are, for `E'...'` and `foo$bar$`.
    word: Vec<u8>,
    last: u8,
    /// What was last is a string, and perhaps space and comments: another quote on a later line continues
    /// it, with its escapes, as the server reads it. psql takes it for a new one: where the two differ, it cuts
    /// the statement inside a string, and the server refuses that.
    continues: Option<Continues>,
    /// A backslash took the next byte of a quote.
    escaped: bool,
    tag: Vec<u8>,
    /// The text of a comment or command line, or of a row's first bytes.
    line: Vec<u8>,
    line_start: bool,
    /// `standard_conforming_strings` is off: plain quotes have escapes too.
    plain_escapes: bool,
    complete: bool,
    /// The end of the row so far.
    row_end: RowEnd,
    /// Bytes came that no pg_dump writes, and that others read differently.
    stray: bool,
    /// The dump's own `\restrict` is still to be met by its `\unrestrict`.
    restricted: bool,
}

/// Behind a string (PostgreSQL documentation, "String Constants").
#[derive(Clone, Copy)]
struct Continues {
    escapes: bool,
    /// A line has ended since.
    on_later_line: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            state: State::Sql,
            head: Vec::new(),
            length: 0,
            bare: Vec::new(),
            word: Vec::new(),
            continues: None,
            last: b'\n',
            escaped: false,
            tag: Vec::new(),
            line: Vec::new(),
            line_start: true,
            plain_escapes: false,
            complete: false,
            row_end: RowEnd::default(),
            stray: false,
            restricted: false,
        }
    }
}

impl Lexer {
    /// Whether the text ended where a whole dump ends: after pg_dump's trailer line and the end of its
    /// restricted mode, outside of any statement, quote, comment and COPY block.
    pub(super) fn is_complete(&self) -> bool {
        self.complete && !self.restricted && !self.stray && self.state == State::Sql && self.head.is_empty()
    }

    /// Reads on.
    pub(super) fn feed<V: Visitor>(&mut self, mut text: &[u8], visitor: &mut V) -> Result<(), V::Error> {
        // psql takes a line as a C string: behind a NUL it reads on in the next one.
        if memchr(0, text).is_some() {
            self.tell_stray(visitor)?;
        }
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

    fn tell_stray<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        self.stray = true;
        visitor.token(Token::Stray)
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
            State::DollarTag => return self.tag_byte(byte),
            State::QuoteEnd { escapes } if byte != b'\'' => {
                self.state = State::Sql;
                self.word.clear();
                self.continues = Some(Continues { escapes, on_later_line: false });
                return self.sql_byte(byte);
            }
            State::BlockComment { depth } => {
                self.block_comment_byte(depth, byte);
                return false;
            }
            State::LineComment => self.line_comment_byte(byte),
            State::Quote { escapes } => self.quote_byte(escapes, byte),
            State::QuoteEnd { escapes } => {
                self.keep(&[byte]);
                self.state = State::Quote { escapes };
            }
            State::Identifier => {
                self.keep(&[byte]);
                if byte == b'"' {
                    self.state = State::Sql;
                }
            }
            State::Dollar => self.dollar_byte(byte),
            State::BeforeRows | State::Rows | State::Command => {}
        }
        self.last = byte;
        false
    }

    fn line_comment_byte(&mut self, byte: u8) {
        // psql ends a comment at either.
        if matches!(byte, b'\n' | b'\r') {
            // Only whole lines count, so that `-- ... complete` in a longer comment is none.
            if self.line == TRAILER {
                self.complete = true;
            }
            self.state = State::Sql;
        } else if self.line.len() <= TRAILER.len() {
            self.line.push(byte);
        }
    }

    fn block_comment_byte(&mut self, depth: u32, byte: u8) {
        let depth = match (self.last, byte) {
            (b'/', b'*') => depth + 1,
            (b'*', b'/') => depth - 1,
            _ => {
                self.last = byte;
                return;
            }
        };
        self.state = if depth == 0 { State::Sql } else { State::BlockComment { depth } };
        // A byte is part of one mark alone: `/*/` is not an end.
        self.last = 0;
    }

    fn quote_byte(&mut self, escapes: bool, byte: u8) {
        self.keep(&[byte]);
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' && escapes {
            self.escaped = true;
        } else if byte == b'\'' {
            self.state = State::QuoteEnd { escapes };
        }
    }

    fn sql_byte(&mut self, byte: u8) -> bool {
        let last = std::mem::replace(&mut self.last, byte);
        let continues = self.continues.take();
        match (last, byte) {
            (b'-', b'-') => {
                self.unkeep();
                self.line.clear();
                self.line.extend_from_slice(b"--");
                self.state = State::LineComment;
                // The comment's own line end is not seen by what follows.
                self.continues = continues.map(|before| Continues { on_later_line: true, ..before });
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
                self.state = State::Quote { escapes: self.has_escapes(continues.filter(|_| last != b'-')) };
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
        // A dash may begin a comment; alone it is an operator, and the string is not continued.
        let between = (byte.is_ascii_whitespace() && last != b'-') || byte == b'-';
        self.continues = continues
            .filter(|_| between)
            .map(|before| Continues { on_later_line: before.on_later_line || matches!(byte, b'\n' | b'\r'), ..before });
        self.keep(&[byte]);
        self.keep_bare(byte);
        self.keep_word(byte);
        false
    }

    /// Whether the quote that begins here takes backslashes as escapes.
    fn has_escapes(&self, continues: Option<Continues>) -> bool {
        if let Some(before) = continues.filter(|before| before.on_later_line) {
            return before.escapes;
        }
        let bits = [b"b", b"x"].iter().any(|prefix| self.word.eq_ignore_ascii_case(*prefix));
        (self.plain_escapes && !bits) || self.word.eq_ignore_ascii_case(b"e")
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
        self.length += bytes.len() as u64;
    }

    fn keep_bare(&mut self, byte: u8) {
        let is_leading_space = self.bare.is_empty() && byte.is_ascii_whitespace();
        if self.bare.len() < HEAD && !is_leading_space {
            self.bare.push(byte);
        }
    }

    fn keep_word(&mut self, byte: u8) {
        if !is_word(byte) && (byte != b'$' || self.word.is_empty()) {
            self.word.clear();
        } else if self.word.len() < 3 {
            self.word.push(byte);
        }
    }

    /// Takes back the byte that turned out to begin a comment.
    fn unkeep(&mut self) {
        self.length = self.length.saturating_sub(1);
        if self.length < self.head.len() as u64 {
            self.head.pop();
            if self.head.trim_ascii().is_empty() {
                self.head.clear();
                self.length = 0;
            }
        }
        if self.bare.len() < HEAD {
            self.bare.pop();
        }
        // A comment parts words as a space does.
        if !self.head.is_empty() {
            self.keep(b" ");
        }
        self.keep_bare(b' ');
        self.word.clear();
    }

    fn end_statement<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        let (head, bare) = (std::mem::take(&mut self.head), std::mem::take(&mut self.bare));
        let statement = Statement { head: &head, bare: &bare, length: self.length, escapes: self.plain_escapes };
        if let Some(on) = statement.conforming_strings() {
            self.plain_escapes = !on;
        }
        if statement.copy_table().is_some() {
            self.state = State::BeforeRows;
        }
        // Whatever follows the trailer line, that line was not the dump's end.
        self.complete = false;
        let told = visitor.token(Token::End(statement));
        (self.head, self.bare) = (head, bare);
        self.head.clear();
        self.bare.clear();
        self.length = 0;
        self.word.clear();
        self.continues = None;
        self.last = b';';
        told
    }

    fn before_rows<V: Visitor>(&mut self, text: &[u8], visitor: &mut V) -> Result<usize, V::Error> {
        let end = memchr(b'\n', text).map_or(text.len(), |at| at + 1);
        if !text[..end].trim_ascii().is_empty() {
            self.tell_stray(visitor)?;
        }
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
            self.row_end = self.row_end.after(line.strip_suffix(b"\n").unwrap_or(line));
            let Some(end) = end else { break };
            let last = matches!(self.line.as_slice(), b"\\.\n" | b"\\.\r\n");
            self.line.clear();
            self.line_start = true;
            at = end;
            lines += 1;
            if std::mem::take(&mut self.row_end).is_mark() && !last {
                self.tell_stray(visitor)?;
            }
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
            match command_name(&line) {
                b"\\restrict" => self.restricted = true,
                b"\\unrestrict" => self.restricted = false,
                _ => {}
            }
            visitor.token(Token::Command(&line))?;
        }
        Ok(end)
    }
}
