//! What stands before a member's header and speaks of it: GNU's long names, pax headers. Together with the header they
//! are what the member is.

use super::header::{Dialect, Header, is_zero};
use super::pax::{Extended, Owners, Sparse};
use super::sparse::Map;
use super::{LONGEST_NAME, MemberKind, Wrong};

/// No pax header is longer. Extended attributes stand in it, of 64 KiB at most each.
const LONGEST_PAX: usize = 1 << 20;

/// An extension, by what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    LongName,
    LongLink,
    Pax,
    Global,
}

/// What was said of the next member, and of all that follow.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Extended>,
    global: Owners,
}

/// A member's header with all that was said of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: MemberKind,
    pub(super) bytes: u64,
    pub(super) stored: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) layout: Layout,
    pub(super) extended: bool,
}

/// How its content stands in the tar.
#[derive(Debug)]
pub(super) enum Layout {
    Plain,
    /// Without the holes of this map.
    Mapped(Map),
    /// Likewise, behind the map (pax format 1.0).
    MapFirst,
    /// Likewise; the map begins in the header, and perhaps goes on in blocks behind it (GNU's own format).
    MapInHeader,
}

impl Extension {
    /// Whether a header is an extension's, and how many bytes of it follow.
    pub(super) fn of(header: Header<'_>) -> Result<Option<(Self, usize)>, Wrong> {
        let (which, dialect) = match header.letter() {
            b'L' => (Self::LongName, Dialect::Gnu),
            b'K' => (Self::LongLink, Dialect::Gnu),
            b'x' => (Self::Pax, Dialect::Ustar),
            b'g' => (Self::Global, Dialect::Ustar),
            b'X' => return Err("a header of Solaris' own"),
            _ => return Ok(None),
        };
        if header.dialect() != dialect {
            return Err("an extension of another format than its header's");
        }
        let (longest, too_long) = match which {
            // With the NUL behind it.
            Self::LongName | Self::LongLink => (LONGEST_NAME + 1, "a name of more than 64 KiB"),
            Self::Pax | Self::Global => (LONGEST_PAX, "a pax header of more than 1 MiB"),
        };
        let size = usize::try_from(header.size()?).ok().filter(|size| *size <= longest).ok_or(too_long)?;
        Ok(Some((which, size)))
    }
}

impl Extensions {
    /// Whether something was said of a member that has not come.
    pub(super) fn are_pending(&self) -> bool {
        self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some()
    }

    /// Takes what an extension says. Where there are several for one member, GNU tar takes the last and forgets
    /// the others, and no program writes that.
    pub(super) fn take(&mut self, which: Extension, text: &[u8], padding: &[u8]) -> Result<(), Wrong> {
        const SEVERAL: Wrong = "several extensions of one member";
        let is_pax = matches!(which, Extension::Pax | Extension::Global);
        if self.pax.is_some() || (is_pax && self.are_pending()) {
            return Err(SEVERAL);
        }
        let long = match which {
            Extension::Pax => {
                self.pax = Some(Extended::read(text)?);
                return Ok(());
            }
            Extension::Global => {
                self.global = Owners::read(text)?;
                return Ok(());
            }
            Extension::LongName => &mut self.long_name,
            Extension::LongLink => &mut self.long_link,
        };
        // A NUL stands behind it; GNU tar reads on to one through the padding.
        let name = text.strip_suffix(b"\0").unwrap_or(text);
        if name.is_empty() || memchr::memchr(0, name).is_some() || !is_zero(padding) {
            return Err("a long name that is empty, or holds a NUL");
        }
        if name.len() > LONGEST_NAME {
            return Err("a name of more than 64 KiB");
        }
        if long.replace(name.to_vec()).is_some() { Err(SEVERAL) } else { Ok(()) }
    }

    /// What a member is, by its header and what was said of it.
    pub(super) fn member(&mut self, header: Header<'_>) -> Result<Found, Wrong> {
        let dialect = header.dialect();
        let (long_name, long_link, pax) = (self.long_name.take(), self.long_link.take(), self.pax.take());
        let is_long = long_name.is_some() || long_link.is_some();
        let extended = pax.is_some();
        if (is_long && dialect != Dialect::Gnu) || (extended && dialect != Dialect::Ustar) {
            return Err("an extension of another format than its member's");
        }
        if !header.has_plain_prefix() {
            return Err("a header with something else in its prefix's place");
        }
        let pax = pax.unwrap_or_default();
        let path = pax.path.or(long_name).unwrap_or_else(|| header.name());
        let link = pax.link.or(long_link).unwrap_or_else(|| header.link().to_vec());
        if path.is_empty() {
            return Err("a member without a name");
        }
        let kind = kind(header, &path, pax.sparse.is_some())?;
        let header_size = header.size()?;
        let stored = pax.size.unwrap_or(header_size);
        // Whether content follows these is decided by the header's size, the pax header's, or neither: by each program otherwise.
        if !matches!(kind, MemberKind::File | MemberKind::Other(_)) && stored.max(header_size) > 0 {
            return Err("a link, directory or device with a size");
        }
        let is_link = matches!(kind, MemberKind::HardLink | MemberKind::SymbolicLink);
        if is_link && link.is_empty() {
            return Err("a link that leads nowhere");
        }
        let (layout, bytes) = match pax.sparse {
            Some(Sparse::Mapped(map, real)) => (Layout::Mapped(map), real),
            Some(Sparse::MapFollows(real)) => (Layout::MapFirst, real),
            None if header.letter() == b'S' => (Layout::MapInHeader, header.sparse()?.2),
            None => (Layout::Plain, stored),
        };
        let (uid, gid) = (header.uid()?, header.gid()?);
        let uid = pax.owners.uid.or(self.global.uid).unwrap_or(uid);
        let gid = pax.owners.gid.or(self.global.gid).unwrap_or(gid);
        let link = if is_link { link } else { Vec::new() };
        Ok(Found { path, link, kind, bytes, stored, mode: header.mode()?, uid, gid, layout, extended })
    }
}

/// What GNU tar takes a member for.
fn kind(header: Header<'_>, path: &[u8], is_sparse: bool) -> Result<MemberKind, Wrong> {
    let letter = header.letter();
    // All that is sparse is a file to it, whatever the letter.
    if is_sparse && letter != b'0' {
        return Err("a sparse file that is none");
    }
    Ok(match (letter, path.ends_with(b"/")) {
        // As old programs wrote directories.
        (0 | b'0', true) if !is_sparse => MemberKind::Directory,
        (0 | b'0' | b'7', false) => MemberKind::File,
        (b'S', false) if header.dialect() == Dialect::Gnu => MemberKind::File,
        (0 | b'0' | b'7' | b'S', _) => return Err("a file that can't be one by its name or format"),
        (b'1', _) => MemberKind::HardLink,
        (b'2', _) => MemberKind::SymbolicLink,
        (b'3', _) => MemberKind::CharacterDevice,
        (b'4', _) => MemberKind::BlockDevice,
        (b'5', _) => MemberKind::Directory,
        (b'6', _) => MemberKind::Fifo,
        (letter, _) => MemberKind::Other(letter),
    })
}
