//! The map of a sparse file: where its data stands, everything else being holes. It is kept in a few bytes an
//! entry, as all of it comes before the data.

use super::Wrong;
use super::header::BLOCK;
use super::pax::decimal;

/// The bytes that a map may take here: some eight million pieces of data.
const LARGEST: usize = 32 << 20;
/// No digits of a 63-bit number are more.
const DIGITS: usize = 19;

/// Each entry is the length of a hole, then that of the data behind it; both in groups of seven bits, lowest first, where
/// the highest bit says that another follows.
#[derive(Debug, Default)]
pub(super) struct Map {
    coded: Vec<u8>,
    entries: u64,
    /// Where the last entry ends.
    end: u64,
    /// Bytes of data in all.
    data: u64,
    /// The last data ended within a block: none may follow, as programs differ on where that would begin.
    uneven: bool,
    /// An entry without data has gone back to here: tar cuts the file there (it grew while it was read).
    cut: Option<u64>,
}

impl Map {
    /// Adds an entry. They come in order.
    pub(super) fn push(&mut self, offset: u64, length: u64) -> Result<(), Wrong> {
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or("a sparse map that leads past any file's end")?;
        if self.cut.is_some() || (self.uneven && length > 0) || (offset < self.end && length > 0) {
            return Err("a sparse map that is out of order");
        }
        self.entries += 1;
        if offset < self.end {
            self.cut = Some(offset);
            return Ok(());
        }
        self.code(offset - self.end);
        self.code(length);
        if self.coded.len() > LARGEST {
            return Err("a sparse map of more pieces than this program keeps (some eight million)");
        }
        self.end = end;
        self.data += length;
        self.uneven |= !length.is_multiple_of(BLOCK as u64);
        Ok(())
    }

    fn code(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.coded.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.coded.push(number.to_le_bytes()[0]);
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the last entry ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes of data it tells of, as they stand in the tar without the holes.
    pub(super) fn data(&self) -> u64 {
        self.data
    }

    /// The holes and data of the file, in order.
    pub(super) fn pieces(self) -> Pieces {
        let logical = self.cut.unwrap_or(self.end);
        Pieces { coded: self.coded, at: 0, logical }
    }
}

/// The entries of a map that are still to come.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    coded: Vec<u8>,
    at: usize,
    /// How much of the file they still come to: what is beyond is not part of it.
    logical: u64,
}

/// A hole and the data behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// Zeros that do not stand in the tar.
    pub(super) hole: u64,
    /// Bytes that stand there,
    pub(super) stored: u64,
    /// and so many of them, from the first, belong to the file.
    pub(super) kept: u64,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.at >= self.coded.len() {
            return None;
        }
        let (hole, stored) = (self.number(), self.number());
        let hole = hole.min(self.logical);
        let kept = stored.min(self.logical - hole);
        self.logical -= hole + kept;
        Some(Piece { hole, stored, kept })
    }
}

impl Pieces {
    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some(byte) = self.coded.get(self.at) {
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if *byte < 0x80 {
                break;
            }
        }
        number
    }
}

/// Reads the map of format 1.0, which stands before the data: the number of entries, then offset and length of each, in
/// decimal digits with a line end behind each, up to the end of a block.
#[derive(Debug, Default)]
pub(super) struct MapText {
    map: Map,
    digits: Vec<u8>,
    /// The number of entries, when it is known.
    announced: Option<u64>,
    offset: Option<u64>,
}

impl MapText {
    /// Reads a block, and gives the map when it ends there.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Option<Map>, Wrong> {
        let mut rest = block;
        while !rest.is_empty() {
            let line_end = memchr::memchr(b'\n', rest);
            let (digits, behind) = rest.split_at(line_end.unwrap_or(rest.len()));
            if self.digits.len() + digits.len() > DIGITS {
                return Err("a sparse map with a number that is too long");
            }
            self.digits.extend_from_slice(digits);
            if line_end.is_none() {
                return Ok(None);
            }
            rest = &behind[1..];
            self.number()?;
            if self.announced == Some(self.map.entries()) && self.offset.is_none() {
                return Ok(Some(std::mem::take(&mut self.map)));
            }
        }
        Ok(None)
    }

    fn number(&mut self) -> Result<(), Wrong> {
        let number = decimal(&self.digits)?;
        self.digits.clear();
        match (self.announced, self.offset.take()) {
            (None, _) => self.announced = Some(number),
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => self.map.push(offset, number)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(u64, u64)]) -> Result<Map, Wrong> {
        let mut map = Map::default();
        entries.iter().try_for_each(|(offset, length)| map.push(*offset, *length)).map(|()| map)
    }

    fn piece(hole: u64, stored: u64, kept: u64) -> Piece {
        Piece { hole, stored, kept }
    }

    #[test]
    fn a_map_gives_back_its_entries() {
        let of_two = map(&[(0, 512), (1 << 40, 1024), ((1 << 41) + 7, 0)]).unwrap();
        assert_eq!((of_two.entries(), of_two.data(), of_two.end()), (3, 1536, (1 << 41) + 7));
        let last = (1 << 41) + 7 - (1 << 40) - 1024;
        assert_eq!(
            of_two.pieces().collect::<Vec<_>>(),
            [piece(0, 512, 512), piece((1 << 40) - 512, 1024, 1024), piece(last, 0, 0)]
        );
    }

    #[test]
    fn a_file_that_grew_is_cut_where_tar_cuts_it() {
        let grown = map(&[(0, 1024), (4096, 1024), (700, 0)]).unwrap();
        assert_eq!(grown.pieces().collect::<Vec<_>>(), [piece(0, 1024, 700), piece(0, 1024, 0)]);
    }

    #[test]
    fn a_map_that_programs_read_differently_is_none() {
        assert!(map(&[(512, 512), (0, 512)]).is_err());
        assert!(map(&[(0, 512), (0, 0), (512, 0)]).is_err());
        assert!(map(&[(0, 100), (512, 512)]).is_err());
        assert!(map(&[(u64::MAX, 1)]).is_err());
        assert!(map(&[(i64::MAX as u64, 1)]).is_err());
    }

    #[test]
    fn a_map_of_too_many_pieces_is_refused() {
        let mut map = Map::default();
        let refused = (0_u64..).find_map(|at| map.push(at << 20, 1 << 19).err().map(|_| at)).unwrap();
        assert!(refused > 5_000_000, "{refused}");
    }

    #[test]
    fn the_text_of_a_map_is_read_over_blocks() {
        let text = b"2\n0\n512\n4096\n1000\n\0\0\0\0";
        for cut in 0..text.len() - 4 {
            let mut reader = MapText::default();
            let before = reader.read(&text[..cut]).unwrap();
            assert!(before.is_none());
            let map = reader.read(&text[cut..]).unwrap().unwrap();
            assert_eq!(map.pieces().collect::<Vec<_>>(), [piece(0, 512, 512), piece(3584, 1000, 1000)]);
        }
        for wrong in ["\n", "-1\n", " 1\n", "1\n0\n\n", "1\n0x\n", "1\n99999999999999999999\n"] {
            assert!(MapText::default().read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(MapText::default().read(b"0\n").unwrap().unwrap().entries(), 0);
    }
}
