//! A statement of a dump's text, as the lexer found it, and what it is: its first words, or the table of a COPY.

/// A statement that has ended.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    /// Its text from its first word on, comments left out; cut at [`super::lexer::HEAD`] bytes.
    pub head: &'a [u8],
    /// The same without what is inside of quotes.
    pub bare: &'a [u8],
    /// Bytes of all of its text, comments left out.
    pub length: u64,
    /// Whether a backslash is an escape in its plain quotes.
    pub escapes: bool,
}

/// What a statement of pg_dump's data section says, other than rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Datum {
    /// Where a sequence stands: its qualified name with the quotes that it needs, its last value, and whether that was given out.
    Sequence(Vec<u8>, i64, bool),
    /// There is one more large object.
    LargeObject,
    /// So many bytes of a large object.
    LargeObjectBytes(u64),
}

impl Statement<'_> {
    /// Whether `head` is all of it.
    pub(super) fn is_complete(&self) -> bool {
        self.head.len() as u64 == self.length
    }

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
        (self.is_complete() && rest.is_empty()).then_some(table)
    }

    /// A call as pg_dump writes it, to the letter: those in function bodies, rules and views look otherwise, as the server
    /// writes those.
    pub(super) fn datum(&self) -> Option<Datum> {
        let call = self.head.strip_prefix(b"SELECT pg_catalog.")?;
        let arguments = |name: &[u8]| call.strip_prefix(name).filter(|_| self.is_complete())?.strip_suffix(b")");
        if let Some(arguments) = arguments(b"setval(") {
            let (name, rest) = self.literal(arguments)?;
            let (value, called) = std::str::from_utf8(rest.strip_prefix(b", ")?).ok()?.split_once(", ")?;
            return Some(Datum::Sequence(name, value.parse().ok()?, called.parse().ok()?));
        }
        if let Some(arguments) = arguments(b"lo_create(") {
            let (oid, rest) = self.literal(arguments)?;
            return (rest.is_empty() && oid.iter().all(u8::is_ascii_digit)).then_some(Datum::LargeObject);
        }
        let data: &[u8] = if self.escapes { b"lowrite(0, '\\\\x" } else { b"lowrite(0, '\\x" };
        let digits = call.strip_prefix(data)?;
        // Two digits a byte up to `')`, also where they are more than are kept.
        let before = (self.head.len() - digits.len()) as u64;
        Some(Datum::LargeObjectBytes(self.length.saturating_sub(before + 2) / 2))
    }

    /// What a quoted text says, and what follows it.
    fn literal<'a>(&self, text: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        let text = text.strip_prefix(b"'")?;
        let mut said = Vec::new();
        let mut bytes = text.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            let next = text.get(at + 1);
            match byte {
                b'\'' if next != Some(&b'\'') => return Some((said, &text[at + 1..])),
                b'\\' if self.escapes && next != Some(&b'\\') => return None,
                b'\'' => said.extend(bytes.next().map(|(_, byte)| byte)),
                b'\\' if self.escapes => said.extend(bytes.next().map(|(_, byte)| byte)),
                _ => said.push(*byte),
            }
        }
        None
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
