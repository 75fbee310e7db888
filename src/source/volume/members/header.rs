//! One header block of a tar, read as GNU tar reads it (its `list.c`). What GNU tar and busybox's read
//! differently, or what neither of them writes, is refused.

use super::Wrong;

/// What a tar is made of.
pub(super) const BLOCK: usize = 512;

/// The largest size of a file (`off_t`).
const LARGEST: u64 = i64::MAX as u64;
/// The largest id of a user or group that GNU tar takes.
pub(super) const LARGEST_ID: u64 = u32::MAX as u64;

/// By the magic of its header: which extensions it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before there was a magic.
    V7,
    /// `ustar` and a NUL: POSIX, with a prefix before the name, and pax headers.
    Ustar,
    /// `ustar`, two blanks and a NUL: GNU's own, and busybox's.
    Gnu,
}

/// A header whose checksum is right.
#[derive(Clone, Copy)]
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Takes a block for a header; `None` where it is all zeros.
    pub(super) fn read(block: &'a [u8; BLOCK]) -> Result<Option<Self>, Wrong> {
        let (before, rest) = block.split_at(148);
        let (written, after) = rest.split_at(8);
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let plain = sum(before) + sum(after);
        if plain == 0 && sum(written) == 0 {
            return Ok(None);
        }
        let expected = octal(written).ok_or("no header where one must be")?;
        // The checksum's own bytes count as blanks. Some old programs took the others with a sign.
        let blanks = 8 * u64::from(b' ');
        let high = before.iter().chain(after).filter(|byte| **byte >= 0x80).count() as u64;
        if expected != plain + blanks && Some(expected) != (plain + blanks).checked_sub(256 * high) {
            return Err("a header whose checksum is wrong");
        }
        Ok(Some(Self(block)))
    }

    fn field(self, start: usize, length: usize) -> &'a [u8] {
        &self.0[start..start + length]
    }

    /// The letter that says what it is the header of.
    pub(super) fn letter(self) -> u8 {
        self.0[156]
    }

    pub(super) fn dialect(self) -> Dialect {
        match self.field(257, 8) {
            [b'u', b's', b't', b'a', b'r', 0, ..] => Dialect::Ustar,
            b"ustar  \0" => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    /// The bytes behind it that belong to it.
    pub(super) fn size(self) -> Result<u64, Wrong> {
        number(self.field(124, 12)).filter(|size| *size <= LARGEST).ok_or("a size that is no number")
    }

    /// Permissions, without the bits of a file's kind that some programs write beside them.
    pub(super) fn mode(self) -> Result<u32, Wrong> {
        let mode = number(self.field(100, 8)).ok_or("permissions that are no number")?;
        u32::try_from(mode & 0o7777).map_err(|_| "permissions that are no number")
    }

    pub(super) fn uid(self) -> Result<u64, Wrong> {
        number(self.field(108, 8)).filter(|id| *id <= LARGEST_ID).ok_or("a user that is no number")
    }

    pub(super) fn gid(self) -> Result<u64, Wrong> {
        number(self.field(116, 8)).filter(|id| *id <= LARGEST_ID).ok_or("a group that is no number")
    }

    /// The name, behind the prefix where it has one.
    pub(super) fn name(self) -> Vec<u8> {
        let prefix = text(self.field(345, 155));
        let name = text(self.field(0, 100));
        match self.dialect() {
            Dialect::Ustar if !prefix.is_empty() => [prefix, name].join(&b'/'),
            _ => name.to_vec(),
        }
    }

    /// Where a link leads.
    pub(super) fn link(self) -> &'a [u8] {
        text(self.field(157, 100))
    }

    /// The place of the prefix holds what every program reads in the same way. GNU tar looks for a prefix in POSIX
    /// headers only, busybox's in all; and what looks like two times at its end makes it one of star's for GNU tar.
    pub(super) fn has_plain_prefix(self) -> bool {
        let prefix = self.field(345, 155);
        match (self.dialect(), self.letter()) {
            (Dialect::Ustar, _) => is_zero(&prefix[text(prefix).len()..]),
            (Dialect::Gnu, b'S') => is_zero(&prefix[..41]),
            _ => is_zero(prefix),
        }
    }

    /// GNU's sparse map: its first entries, whether blocks with more follow, and the file's size.
    pub(super) fn sparse(self) -> Result<(&'a [u8], bool, u64), Wrong> {
        let real = number(self.field(483, 12)).filter(|size| *size <= LARGEST).ok_or("a size that is no number")?;
        Ok((self.field(386, 4 * 24), self.0[482] != 0, real))
    }
}

/// An entry of GNU's sparse map, offset and length of 12 bytes each; `None` behind the last.
pub(super) fn sparse_entry(entry: &[u8]) -> Result<Option<(u64, u64)>, Wrong> {
    let (offset, length) = entry.split_at(12);
    if length.first() == Some(&0) {
        return Ok(None);
    }
    let place = |field| number(field).filter(|number| *number <= LARGEST).ok_or("a sparse map that is none");
    Ok(Some((place(offset)?, place(length)?)))
}

/// Whether nothing but zeros is there.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

/// A number in octal digits, or in binary where they were too few (GNU's base 256). Below zero there is none here.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        [0x80, digits @ ..] => {
            let (high, low) = digits.split_at(digits.len().saturating_sub(8));
            let low = low.iter().fold(0, |number, digit| (number << 8) | u64::from(*digit));
            is_zero(high).then_some(low)
        }
        _ => octal(field),
    }
}

/// Blanks, octal digits, then a blank or a NUL and whatever; a field of zeros alone is zero too.
fn octal(field: &[u8]) -> Option<u64> {
    if is_zero(field) {
        return Some(0);
    }
    let start = field.iter().position(|byte| *byte != b' ')?;
    let digits = field[start..].iter().take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
    let end = start + digits;
    let ends_well = matches!(field.get(end), None | Some(b' ' | 0));
    let value = field[start..end].iter().fold(0, |number, digit| (number << 3) | u64::from(digit - b'0'));
    (digits > 0 && ends_well).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_tar_writes_them() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(b"\x80\0\0\0\xb2\xd0\x5e\0"), Some(3_000_000_000));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(1 << 33));
        assert_eq!(number(&[0; 12]), Some(0));
        let none: [&[u8]; 9] = [
            b"\xff\xff\xff\xff\xff\xff\xff\xff", // below zero
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",     // over 64 bits
            b"       \0",
            b"        ",
            b"-0000001",
            b"+AAAAAAA", // the base 64 of a few test versions
            b"\x000000644",
            b"\t000644\0",
            b"0000648\0",
        ];
        for field in none {
            assert_eq!(number(field), None, "{field:?}");
        }
    }
}
