//! A statement of a dump's text, as the lexer found it, and what it is: its first words, or the table of a COPY.

/// A statement that has ended.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    /// Its text from its first word on, comments left out; cut at [`super::lexer::HEAD`] bytes.
    pub head: &'a [u8],
    /// The same without what is inside of quotes.
    pub bare: &'a [u8],
    /// Whether that is all of it.
    pub complete: bool,
}

impl Statement<'_> {
    /// Its first words outside of quotes in upper case, up to `count` of them.
    pub(super) fn words(&self, count: usize) -> Vec<String> {
        let words = self.bare.split(|byte| !is_word(*byte)).filter(|word| !word.is_empty());
        words.take(count).map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).collect()
    }

    /// The table of a `COPY table [(columns)] FROM stdin`, as it stands there; of no other form of COPY.
    pub(super) fn copy_table(&self) -> Option<&[u8]> {
        let rest = strip_word(self.head, b"COPY")?;
        let end = unquoted(rest, |byte| byte.is_ascii_whitespace() || byte == b'(')?;
        let (table, mut rest) = (&rest[..end], rest[end..].trim_ascii_start());
        if rest.starts_with(b"(") {
            let close = unquoted(rest, |byte| byte == b')')?;
            rest = &rest[close + 1..];
        }
        let rest = strip_word(strip_word(rest, b"FROM")?, b"stdin")?;
        (self.complete && rest.is_empty()).then_some(table)
    }

    pub(super) fn conforming_strings(&self) -> Option<bool> {
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

/// Where the first such byte is that is not in a quoted identifier.
fn unquoted(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let mut quoted = false;
    text.iter().position(|byte| {
        quoted ^= *byte == b'"';
        !quoted && wanted(*byte)
    })
}

/// A backslash command without its arguments.
pub(super) fn command_name(line: &[u8]) -> &[u8] {
    line.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
