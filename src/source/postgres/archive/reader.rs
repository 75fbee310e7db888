//! Reads an archive as it passes, in pieces of any size: its head, its table of contents, then the blocks of data.
//! It holds the entries that have data until their blocks come, and of the data nothing. It proves that an
//! archive is whole: there is no mark at an archive's end, so every block that was announced must have come.

use std::collections::HashMap;

use memchr::memchr_iter;

use super::cursor::{Cursor, Stop};
use crate::error::{Error, Kind, Result};

/// No text of a table of contents is longer: a server takes no statement of more than 1 GiB.
pub(super) const LONGEST: usize = 1 << 30;
/// Entries that a hostile count may not make us expect.
const MOST_ENTRIES: u64 = i32::MAX as u64;
/// How the rows of a COPY end.
pub(super) const ROWS_END: &[u8] = b"\\.\n\n\n";

/// `archCustom`, of the ways in which an archive may be laid out.
const CUSTOM: u8 = 1;
/// An entry without data has this in its offset's place (`K_OFFSET_NO_DATA`).
const NO_DATA: u8 = 3;
/// The kinds of blocks (`BLK_DATA`, `BLK_BLOBS`).
const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;
/// The archive versions that are understood, `1.MINOR`: pg_dump 13 to 15, 16, and 17 to 18.
const MINORS: std::ops::RangeInclusive<u8> = 14..=16;

/// An entry of the table of contents. A text that is absent is empty.
#[derive(Debug)]
pub(in super::super) struct Entry<'a> {
    pub id: u32,
    /// A block of data belongs to it.
    pub has_data: bool,
    pub tag: &'a [u8],
    /// `TABLE DATA`, `SEQUENCE SET`, ...
    pub desc: &'a [u8],
    /// What makes it.
    pub defn: &'a [u8],
    /// What drops it; an owner is set with its words.
    pub drop: &'a [u8],
    /// The role that it belongs to.
    pub owner: &'a [u8],
    /// Where in the archive the offset of its data is.
    pub offset_at: u64,
}

/// Takes what an archive holds. An error ends the reading.
pub(in super::super) trait Visitor {
    /// Rows that come whole are told of by `lines` alone: there are many, and each has its length before it.
    const COUNTS: bool = false;
    /// An entry, in order; all of them come before any data.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<()>;
    /// The block of an entry begins at this byte of the archive.
    fn block(&mut self, id: u32, at: u64) -> Result<()>;
    /// The COPY statement whose rows follow.
    fn copy(&mut self, statement: &[u8]) -> Result<()> {
        self.rows(statement)
    }
    /// Part of the rows, up to and with the line `\.` and the two empty ones behind it.
    fn rows(&mut self, text: &[u8]) -> Result<()>;
    /// So many lines more of them, of so many bytes, where that is all that is asked.
    fn lines(&mut self, _lines: u64, _bytes: u64) {}
    /// The rows have ended.
    fn rows_end(&mut self) -> Result<()>;
    /// A large object begins.
    fn large_object(&mut self) {}
    /// So many bytes more of it.
    fn large_object_bytes(&mut self, _count: u64) {}
}

/// Takes nothing: for whoever asks only whether an archive is whole.
impl Visitor for () {
    fn entry(&mut self, _: &Entry<'_>) -> Result<()> {
        Ok(())
    }
    fn block(&mut self, _: u32, _: u64) -> Result<()> {
        Ok(())
    }
    fn rows(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn rows_end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Entries(u64),
    Block,
    /// The length of a piece of rows.
    Rows,
    LargeObject,
    /// The length of a piece of a large object.
    LargeObjectPiece,
    /// So many bytes of a piece.
    Piece(u64, Of),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Rows,
    LargeObject,
}

/// The state between two pieces of an archive.
pub(in super::super) struct Reader {
    state: State,
    minor: u8,
    int_size: usize,
    offset_size: usize,
    /// Bytes before those that are read now.
    passed: u64,
    /// The beginning of something whose end has not come.
    pending: Vec<u8>,
    /// Entries whose blocks have not come, and their COPY statements.
    awaited: HashMap<u32, Box<[u8]>>,
    /// The last eight bytes of the rows, the last one lowest.
    tail: u64,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Head,
            minor: 0,
            int_size: 0,
            offset_size: 0,
            passed: 0,
            pending: Vec::new(),
            awaited: HashMap::new(),
            tail: 0,
        }
    }
}

impl Reader {
    /// Whether the archive may end here: its table of contents has come, and all data that it announces.
    pub(in super::super) fn is_complete(&self) -> bool {
        let is_between = self.state == State::Block || self.state == State::Entries(0);
        is_between && self.pending.is_empty() && self.awaited.is_empty()
    }

    /// Reads on.
    pub(in super::super) fn feed<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<()> {
        if self.pending.is_empty() {
            let used = self.read(bytes, visitor)?;
            self.pending.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let used = self.read(&pending, visitor)?;
        pending.drain(..used);
        self.pending = pending;
        Ok(())
    }

    /// Reads what can be read, and says how much that is.
    fn read<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], visitor) {
                Ok(used) => {
                    at += used;
                    self.passed += used as u64;
                }
                Err(Failed::Piece(Stop::Short)) => break,
                Err(Failed::Piece(Stop::Wrong(what))) => return Err(self.wrong(what)),
                Err(Failed::Refused(error)) => return Err(error),
            }
        }
        Ok(at)
    }

    /// Reads one thing.
    fn step<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<usize, Failed> {
        if V::COUNTS && self.state == State::Rows {
            let used = self.whole_rows(bytes, visitor);
            if used > 0 {
                return Ok(used);
            }
        }
        let mut cursor = Cursor::new(bytes, self.int_size);
        match self.state {
            State::Head => self.head(&mut cursor)?,
            State::Entries(0) => self.state = State::Block,
            State::Entries(left) => {
                self.entry(&mut cursor, visitor)?;
                self.state = State::Entries(left - 1);
            }
            State::Block => self.block(&mut cursor, visitor)?,
            State::Rows => match cursor.count()? {
                0 => self.rows_end(visitor)?,
                length => self.state = State::Piece(length, Of::Rows),
            },
            State::LargeObject if cursor.count()? == 0 => self.state = State::Block,
            State::LargeObject => {
                visitor.large_object();
                self.state = State::LargeObjectPiece;
            }
            State::LargeObjectPiece => {
                self.state = match cursor.count()? {
                    0 => State::LargeObject,
                    length => State::Piece(length, Of::LargeObject),
                }
            }
            State::Piece(left, of) => return Ok(self.piece(bytes, left, of, visitor)?),
        }
        Ok(cursor.at())
    }

    fn head(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Failed> {
        if cursor.take(5)? != b"PGDMP" {
            return Err(Stop::Wrong("a beginning that is not an archive's").into());
        }
        let (major, minor, _) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
        if major != 1 || !MINORS.contains(&minor) {
            return Err(Failed::Refused(unknown(major, minor)));
        }
        let (int_size, offset_size, format) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
        if (int_size, offset_size, format) != (4, 8, CUSTOM) {
            return Err(Stop::Wrong("an archive of another layout than pg_dump -Fc writes").into());
        }
        self.int_size = int_size.into();
        self.offset_size = offset_size.into();
        self.minor = minor;
        cursor.set_int_size(self.int_size);
        // The algorithm since 1.15, before that the level.
        let compression = if minor >= 15 { cursor.byte()?.into() } else { cursor.int()? };
        if compression != 0 {
            return Err(Stop::Wrong("data that pg_dump has compressed").into());
        }
        // The time of seven numbers, the database's name, and the versions of server and pg_dump.
        for _ in 0..7 {
            cursor.int()?;
        }
        cursor.pass_texts(3)?;
        let entries = cursor.count()?;
        if entries > MOST_ENTRIES {
            return Err(Stop::Wrong("more entries than there can be").into());
        }
        self.state = State::Entries(entries);
        Ok(())
    }

    fn entry<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Result<(), Failed> {
        let id = u32::try_from(cursor.int()?).map_err(|_| Stop::Wrong("an entry with no number"))?;
        let has_dumper = cursor.int()? != 0;
        // The object's table and number in the catalog.
        cursor.pass_texts(2)?;
        let tag = cursor.text()?.unwrap_or_default();
        let desc = cursor.text()?.unwrap_or_default();
        cursor.int()?; // the section
        let defn = cursor.text()?.unwrap_or_default();
        let drop = cursor.text()?.unwrap_or_default();
        let copy = cursor.text()?.unwrap_or_default();
        // Namespace, tablespace, table access method; the kind of relation; owner, and whether there are OIDs.
        cursor.pass_texts(3)?;
        if self.minor >= 16 {
            cursor.int()?;
        }
        let owner = cursor.text()?.unwrap_or_default();
        cursor.pass_texts(1)?;
        while cursor.text()?.is_some() {}
        let offset_at = self.passed + cursor.at() as u64;
        let has_data = cursor.byte()? != NO_DATA;
        cursor.take(self.offset_size)?;
        if has_data != has_dumper {
            return Err(Stop::Wrong("an entry that has data and has none").into());
        }
        visitor.entry(&Entry { id, has_data, tag, desc, defn, drop, owner, offset_at })?;
        if has_data && self.awaited.insert(id, copy.into()).is_some() {
            return Err(Stop::Wrong("two entries of one number").into());
        }
        Ok(())
    }

    fn block<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Result<(), Failed> {
        let kind = cursor.byte()?;
        let id = u32::try_from(cursor.int()?).map_err(|_| Stop::Wrong("a block of no entry"))?;
        let Some(copy) = self.awaited.remove(&id) else {
            return Err(Stop::Wrong("a block of data that no entry announces").into());
        };
        visitor.block(id, self.passed)?;
        self.state = match kind {
            ROWS if copy.is_empty() => return Err(Stop::Wrong("rows without the COPY that loads them").into()),
            ROWS => {
                self.tail = 0;
                visitor.copy(&copy)?;
                State::Rows
            }
            LARGE_OBJECTS if copy.is_empty() => State::LargeObject,
            _ => return Err(Stop::Wrong("a block of an unknown kind").into()),
        };
        Ok(())
    }

    fn rows_end<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), Failed> {
        if !self.tail.to_be_bytes().ends_with(ROWS_END) {
            return Err(Stop::Wrong("rows that do not end as a COPY does").into());
        }
        self.state = State::Block;
        Ok(visitor.rows_end()?)
    }

    fn piece<V: Visitor>(&mut self, bytes: &[u8], left: u64, of: Of, visitor: &mut V) -> Result<usize> {
        let used = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let piece = &bytes[..used];
        match of {
            Of::Rows => {
                self.tail = tail(self.tail, piece);
                visitor.rows(piece)?;
            }
            Of::LargeObject => visitor.large_object_bytes(used as u64),
        }
        self.state = match (left - used as u64, of) {
            (0, Of::Rows) => State::Rows,
            (0, Of::LargeObject) => State::LargeObjectPiece,
            (left, of) => State::Piece(left, of),
        };
        Ok(used)
    }

    /// Counts the pieces of rows that are there whole, of which each row is one, and says how many bytes they take.
    fn whole_rows<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> usize {
        let (mut at, mut content, mut not_lines) = (0, 0, 0);
        // A length is a sign, then four bytes, as the head has said.
        while let Some(&[0, a, b, c, d]) = bytes[at..].first_chunk() {
            let length = [a, b, c, d];
            let start = at + 1 + length.len();
            let end = start.saturating_add(u32::from_le_bytes(length) as usize);
            let Some(piece) = bytes.get(start..end).filter(|piece| !piece.is_empty()) else { break };
            self.tail = tail(self.tail, piece);
            content += piece.len() as u64;
            not_lines += length.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
            at = end;
        }
        // In one go, at memory speed: a row by itself is too short for that.
        visitor.lines(memchr_iter(b'\n', &bytes[..at]).count() as u64 - not_lines, content);
        at
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(Kind::Damaged, format!("the archive has {what}, at byte {} or soon behind it", self.passed))
    }
}

enum Failed {
    Piece(Stop),
    Refused(Error),
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Self {
        Self::Piece(stop)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The last bytes, after more of them.
fn tail(before: u64, bytes: &[u8]) -> u64 {
    match bytes.last_chunk() {
        Some(last) => u64::from_be_bytes(*last),
        None => bytes.iter().fold(before, |tail, byte| (tail << 8) | u64::from(*byte)),
    }
}

fn unknown(major: u8, minor: u8) -> Error {
    let cause = format!("the archive is of version {major}.{minor}, which this program can't prove to be whole");
    Error::new(Kind::Child, cause).hint(
        "set `format: plain`, or `client_bin:` to an older pg_dump that still knows the server (13 to 18 are understood); \
         or look for a newer version of this program",
    )
}
