//! The rows of a COPY block, at memory speed: this is what most of a dump's bytes are. Lines are only counted, unless
//! one has what may be the end of the block; looked at one by one is only the one that the text is cut in.

use memchr::{memchr, memchr_iter, memmem, memrchr};

use super::{Lexer, State, Token, Visitor};

/// The line that ends a block. No row of pg_dump's ends in it either, as each of its backslashes is doubled.
const MARK: &[u8] = b"\\.";

/// A line that has ended.
enum Line {
    Row,
    /// A row that some servers take for the end of the block.
    Marked,
    /// The end of the block.
    Last,
}

impl Lexer {
    /// Rows up to the line `\.`.
    pub(super) fn rows<V: Visitor>(&mut self, text: &[u8], visitor: &mut V) -> Result<usize, V::Error> {
        let (mut at, mut lines) = (0, 0);
        if !self.line_start {
            at = memchr(b'\n', text).map_or(text.len(), |end| end + 1);
            lines = 1;
            match self.part_of_row(&text[..at]) {
                None => lines = 0,
                Some(Line::Row) => {}
                Some(Line::Marked) => self.tell_stray(visitor)?,
                Some(Line::Last) => return self.end_rows(&text[..at], lines, visitor),
            }
        }
        let whole = memrchr(b'\n', &text[at..]).map_or(&text[at..at], |end| &text[at..=at + end]);
        if let Some(end) = self.block_end(whole, visitor)? {
            lines += count_lines(&whole[..end]);
            return self.end_rows(&text[..at + end], lines, visitor);
        }
        lines += count_lines(whole);
        self.part_of_row(&text[at + whole.len()..]);
        visitor.token(Token::Rows(text, lines))?;
        Ok(text.len())
    }

    /// Takes what is there of a row that the text is cut in; what it was when it ends there.
    fn part_of_row(&mut self, part: &[u8]) -> Option<Line> {
        if part.is_empty() {
            return None;
        }
        self.line_start = false;
        // Enough to know the end of the block from a row.
        let room = 5_usize.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        self.row_end = self.row_end.after(part.strip_suffix(b"\n").unwrap_or(part));
        if !part.ends_with(b"\n") {
            return None;
        }
        let is_last = matches!(self.line.as_slice(), b"\\.\n" | b"\\.\r\n");
        self.line.clear();
        self.line_start = true;
        let is_marked = std::mem::take(&mut self.row_end).is_mark();
        Some(match () {
            () if is_last => Line::Last,
            () if is_marked => Line::Marked,
            () => Line::Row,
        })
    }

    /// Where the block ends in these whole lines, behind its last line. Tells of rows that end likewise.
    fn block_end<V: Visitor>(&mut self, lines: &[u8], visitor: &mut V) -> Result<Option<usize>, V::Error> {
        for at in memmem::find_iter(lines, MARK) {
            let behind = &lines[at + MARK.len()..];
            let line_end = if behind.starts_with(b"\r\n") { 2 } else { 1 };
            if !behind.starts_with(b"\n") && line_end == 1 {
                continue;
            }
            let run = lines[..=at].iter().rev().take_while(|byte| **byte == b'\\').count();
            if run == 1 && (at == 0 || lines[at - 1] == b'\n') {
                return Ok(Some(at + MARK.len() + line_end));
            }
            if run % 2 == 1 {
                self.tell_stray(visitor)?;
            }
        }
        Ok(None)
    }

    fn end_rows<V: Visitor>(&mut self, text: &[u8], lines: u64, visitor: &mut V) -> Result<usize, V::Error> {
        visitor.token(Token::Rows(text, lines))?;
        self.state = State::Sql;
        self.last = b'\n';
        visitor.token(Token::RowsEnd)?;
        Ok(text.len())
    }
}

fn count_lines(text: &[u8]) -> u64 {
    memchr_iter(b'\n', text).count() as u64
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use proptest::prelude::*;

    #[derive(Default, Debug, PartialEq)]
    struct Told {
        rows: u64,
        bytes: usize,
        strays: u64,
        ends: u64,
    }

    impl Visitor for Told {
        type Error = Infallible;
        fn token(&mut self, token: Token<'_>) -> Result<(), Infallible> {
            match token {
                Token::Rows(text, lines) => {
                    self.rows += lines;
                    self.bytes += text.len();
                }
                Token::RowsEnd => self.ends += 1,
                Token::Stray => self.strays += 1,
                _ => {}
            }
            Ok(())
        }
    }

    fn told(pieces: &[&[u8]]) -> Told {
        let (mut lexer, mut told) = (Lexer::default(), Told::default());
        let begin: &[u8] = b"COPY a FROM stdin;\n";
        let Ok(()) = lexer.feed(begin, &mut told);
        for piece in pieces {
            let Ok(()) = lexer.feed(piece, &mut told);
        }
        told
    }

    /// Line by line, as slow as can be.
    fn expected(text: &[u8]) -> Told {
        let mut told = Told::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            told.bytes += line.len();
            let Some(row) = line.strip_suffix(b"\n") else { break };
            told.rows += 1;
            let row = row.strip_suffix(b"\r").unwrap_or(row);
            if row == MARK {
                told.ends = 1;
                break;
            }
            let backslashes = row.strip_suffix(b".").unwrap_or_default().iter().rev().take_while(|byte| **byte == b'\\');
            told.strays += backslashes.count() as u64 % 2;
        }
        told
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_plain_slow_reader(text in "(\\\\|\\.|\r\n|\n|\\\\\\.|\n\\\\\\.\r?\n|x){0,60}", cut in 0_usize..100) {
            let text = text.as_bytes();
            let block = &text[..expected(text).bytes];
            prop_assert_eq!(told(&[block]), expected(text));
            let (first, second) = block.split_at(cut.min(block.len()));
            prop_assert_eq!(told(&[first, second]), expected(text));
            let bytes: Vec<&[u8]> = block.chunks(1).collect();
            prop_assert_eq!(told(&bytes), expected(text));
        }
    }
}
