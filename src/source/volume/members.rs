//! Follows a tar as it passes, in pieces of any size: its members, what files hold, and whether it ends as a tar does.
//! It must never read a member otherwise than GNU tar does, or a hostile one would get past whoever looks here: what GNU
//! tar and busybox's may read differently, and neither of them writes, is refused. It holds one header at a time, and one
//! sparse file's map.

mod extensions;
mod header;
mod pax;
mod sparse;
#[cfg(test)]
pub(super) mod tests;

use extensions::{Extension, Extensions, Found, Layout};
use header::{BLOCK, Header, is_zero, sparse_entry};
use sparse::{Map, MapText, Pieces};

use crate::error::{Error, Kind, Result};

/// No name is longer: a path that a system call takes has 4 KiB.
const LONGEST_NAME: usize = 64 << 10;

/// What a tar has that it must not have.
type Wrong = &'static str;

/// GNU tar 1.34 pads a sparse file that shrank to within a block with one block too many, where tar then takes the
/// tar to end, with exit code 0.
const LONE_ZEROS: Wrong = "one block of zeros, at which tar stops, and then more";

/// GNU tar would unpack it under another name, which could lead anywhere.
const TAGS: Wrong = "a name with invisible characters (Unicode's tags) that tar would leave out";

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberKind {
    /// A regular file, sparse ones too.
    File,
    /// Another name of a member that came before.
    HardLink,
    SymbolicLink,
    Directory,
    Fifo,
    CharacterDevice,
    BlockDevice,
    /// Whatever has this letter: a volume's label, a part of a file from another volume, an incremental archive's
    /// directory, or something unknown, which GNU tar unpacks as a file.
    Other(u8),
}

/// A member, as its header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// Its name as it stands there, never empty.
    pub(super) path: &'a [u8],
    pub(super) kind: MemberKind,
    /// What a link leads to; of others, nothing.
    pub(super) link: &'a [u8],
    /// A file's length, holes included. Where a sparse file changed while it was read, tar may make one of another
    /// length: what then comes as data and holes, and that alone, is what tar makes.
    pub(super) bytes: u64,
    /// What follows in the tar that belongs to it, without padding.
    pub(super) stored: u64,
    /// Permissions, with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) sparse: bool,
    /// A pax header speaks for it. busybox's tar would not look at that.
    pub(super) extended: bool,
}

/// Takes what a tar holds. An error ends the reading.
pub(super) trait Visitor {
    /// A member, as soon as its header has come, and before tar can have acted on it.
    fn member(&mut self, member: &Member<'_>) -> Result<()>;
    /// More of a regular file's content.
    fn data(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
    /// So many zeros more of it, which don't stand in the tar.
    fn hole(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }
    /// The member, of whatever kind, has ended.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A header, or the first block of the end mark.
    Header,
    /// The second.
    Mark,
    /// What stands behind a header of extensions: so many bytes.
    Extension(Extension, usize),
    /// A block with more of a sparse map in GNU's format.
    MapBlock,
    /// A block of a sparse map in pax format 1.0.
    MapText,
    /// So many bytes of content, and so many that belong to nobody.
    Content { kept: u64, passed: u64 },
    /// Zeros behind the end mark.
    End,
    /// Nothing: an error was found.
    Failed,
}

/// The state between two pieces of a tar.
pub(super) struct Members {
    state: State,
    /// Bytes before those that are read now.
    passed: u64,
    /// Where what is read now began.
    began: u64,
    /// The beginning of something that is read in one.
    pending: Vec<u8>,
    extensions: Extensions,
    /// Bytes of a sparse file that have not come: of its map, while that comes, and of its data.
    stored: u64,
    /// A sparse file's length as its header has it.
    real: u64,
    map: Map,
    map_text: MapText,
    pieces: Pieces,
}

impl Default for Members {
    fn default() -> Self {
        Self {
            state: State::Header,
            passed: 0,
            began: 0,
            pending: Vec::new(),
            extensions: Extensions::default(),
            stored: 0,
            real: 0,
            map: Map::default(),
            map_text: MapText::default(),
            pieces: Pieces::default(),
        }
    }
}

impl Members {
    /// Whether the end mark has come: two blocks of zeros. tar itself takes any end between two members for one.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Reads on. `Damaged` where it is no tar, or one that is read in more than one way.
    pub(super) fn feed(&mut self, bytes: &[u8], visitor: &mut impl Visitor) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.pending.is_empty() {
                self.began = self.passed;
            }
            match self.step(rest, visitor) {
                Ok(used) => {
                    rest = &rest[used..];
                    self.passed += used as u64;
                }
                Err(failed) => {
                    self.state = State::Failed;
                    return Err(failed.error(self.began));
                }
            }
        }
        Ok(())
    }

    /// Reads one thing or a part of it, and says how many bytes that took.
    fn step(&mut self, bytes: &[u8], visitor: &mut impl Visitor) -> Result<usize, Failed> {
        let wanted = match self.state {
            State::Content { kept, passed } => return self.content(bytes, kept, passed, visitor),
            State::End if is_zero(bytes) => return Ok(bytes.len()),
            State::End => return Err("something behind its end".into()),
            State::Failed => return Err("nothing that could be read on behind an error".into()),
            State::Extension(_, size) => size.next_multiple_of(BLOCK),
            State::Header | State::Mark | State::MapBlock | State::MapText => BLOCK,
        };
        if self.pending.is_empty() && bytes.len() >= wanted {
            self.unit(&bytes[..wanted], visitor)?;
            return Ok(wanted);
        }
        let used = bytes.len().min(wanted - self.pending.len());
        self.pending.extend_from_slice(&bytes[..used]);
        if self.pending.len() == wanted {
            let unit = std::mem::take(&mut self.pending);
            self.unit(&unit, visitor)?;
        }
        Ok(used)
    }

    /// Reads what has come whole.
    fn unit(&mut self, unit: &[u8], visitor: &mut impl Visitor) -> Result<(), Failed> {
        match self.state {
            State::Extension(which, size) => {
                let (text, padding) = unit.split_at(size);
                self.extensions.take(which, text, padding)?;
                self.state = State::Header;
            }
            State::Mark if is_zero(unit) => self.state = State::End,
            State::Mark => return Err(LONE_ZEROS.into()),
            State::MapBlock => {
                let (entries, more) = unit.split_at(21 * 24);
                self.map_entries(entries, more.first() != Some(&0), visitor)?;
            }
            State::MapText => {
                self.stored = self.stored.checked_sub(BLOCK as u64).ok_or("a sparse map without an end")?;
                if let Some(map) = self.map_text.read(unit)? {
                    self.mapped(map, visitor)?;
                }
            }
            _ => {
                let block = unit.first_chunk().ok_or("no header where one must be")?;
                self.header(block, visitor)?;
            }
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8; BLOCK], visitor: &mut impl Visitor) -> Result<(), Failed> {
        let Some(header) = Header::read(block)? else {
            if self.extensions.are_pending() {
                return Err("an extension of a member that does not come".into());
            }
            self.state = State::Mark;
            return Ok(());
        };
        match Extension::of(header)? {
            Some((which, 0)) => Ok(self.extensions.take(which, b"", b"")?),
            Some((which, size)) => {
                self.state = State::Extension(which, size);
                Ok(())
            }
            None => {
                let found = self.extensions.member(header)?;
                visitor.member(&found.member())?;
                self.begin_content(header, found, visitor)
            }
        }
    }

    fn begin_content(&mut self, header: Header<'_>, found: Found, visitor: &mut impl Visitor) -> Result<(), Failed> {
        self.stored = found.stored;
        self.real = found.bytes;
        match found.layout {
            Layout::Mapped(map) => return self.mapped(map, visitor),
            Layout::MapFirst => {
                self.map_text = MapText::default();
                self.state = State::MapText;
                return Ok(());
            }
            Layout::MapInHeader => {
                let (entries, more, _) = header.sparse()?;
                self.map = Map::default();
                return self.map_entries(entries, more, visitor);
            }
            Layout::Plain => {}
        }
        if found.stored == 0 {
            return self.next_piece(visitor);
        }
        let kept = if found.kind == MemberKind::File { found.stored } else { 0 };
        self.state = State::content(kept, found.stored);
        Ok(())
    }

    /// Adds entries of a sparse map in GNU's format; behind them `more` follow, or the data.
    fn map_entries(&mut self, entries: &[u8], more: bool, visitor: &mut impl Visitor) -> Result<(), Failed> {
        for entry in entries.chunks_exact(24) {
            match sparse_entry(entry)? {
                Some((offset, length)) => self.map.push(offset, length)?,
                // GNU tar would not read the announced ones.
                None if more => return Err("a sparse map with a gap".into()),
                None => break,
            }
        }
        if more {
            self.state = State::MapBlock;
            return Ok(());
        }
        let map = std::mem::take(&mut self.map);
        if map.end() > self.real {
            return Err("a sparse map that leads past its file's end".into());
        }
        self.mapped(map, visitor)
    }

    /// The map of a sparse file has come whole, and its data follows.
    fn mapped(&mut self, map: Map, visitor: &mut impl Visitor) -> Result<(), Failed> {
        if map.entries() == 0 || map.data() != self.stored {
            return Err("a sparse map that does not fit its data".into());
        }
        self.pieces = map.pieces();
        self.next_piece(visitor)
    }

    /// Goes on to the next data of a sparse file, or ends the member.
    fn next_piece(&mut self, visitor: &mut impl Visitor) -> Result<(), Failed> {
        for piece in self.pieces.by_ref() {
            if piece.hole > 0 {
                visitor.hole(piece.hole)?;
            }
            if piece.stored > 0 {
                self.state = State::content(piece.kept, piece.stored);
                return Ok(());
            }
        }
        self.state = State::Header;
        Ok(visitor.end()?)
    }

    fn content(&mut self, bytes: &[u8], kept: u64, passed: u64, visitor: &mut impl Visitor) -> Result<usize, Failed> {
        let at_most = |left: u64| usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (used, kept, passed) = if kept > 0 {
            let used = at_most(kept);
            visitor.data(&bytes[..used])?;
            (used, kept - used as u64, passed)
        } else {
            let used = at_most(passed);
            (used, 0, passed - used as u64)
        };
        self.state = State::Content { kept, passed };
        if kept == 0 && passed == 0 {
            self.next_piece(visitor)?;
        }
        Ok(used)
    }
}

impl State {
    /// Content of which so many bytes are kept, and padding.
    fn content(kept: u64, stored: u64) -> Self {
        Self::Content { kept, passed: stored.next_multiple_of(BLOCK as u64) - kept }
    }
}

impl Found {
    fn member(&self) -> Member<'_> {
        let Self { path, link, kind, bytes, stored, mode, uid, gid, layout, extended } = self;
        Member {
            path,
            kind: *kind,
            link,
            bytes: *bytes,
            stored: *stored,
            mode: *mode,
            uid: *uid,
            gid: *gid,
            sparse: !matches!(layout, Layout::Plain),
            extended: *extended,
        }
    }
}

enum Failed {
    Wrong(Wrong),
    Refused(Error),
}

impl Failed {
    fn error(self, at: u64) -> Error {
        let what = match self {
            Self::Refused(error) => return error,
            Self::Wrong(what) => what,
        };
        let error = Error::new(Kind::Damaged, format!("the tar has {what}, at byte {at}"));
        match what {
            LONE_ZEROS => error.hint(
                "GNU tar writes this where a sparse file shrinks while it is read, and all that follows would be lost: \
                 back up again, with what writes there stopped",
            ),
            TAGS => error.hint(
                "find it with: find . | LC_ALL=C grep --text --perl-regexp '\\xf3\\xa0[\\x80\\x81]'; rename it, or leave it out by `exclude:`",
            ),
            _ => error,
        }
    }
}

impl From<Wrong> for Failed {
    fn from(what: Wrong) -> Self {
        Self::Wrong(what)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}
