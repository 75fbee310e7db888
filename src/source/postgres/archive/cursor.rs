//! The pieces that an archive is made of: numbers, texts and offsets, out of the bytes that are there so far.
//! Source: PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c`, where ReadInt, ReadStr and ReadOffset are.

/// Why a piece can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its end is not there yet.
    Short,
    /// No pg_dump writes this; a clause.
    Wrong(&'static str),
}

pub(super) type Piece<T> = Result<T, Stop>;

/// Reads pieces one after another.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes of a number, without its sign.
    int_size: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], int_size: usize) -> Self {
        Self { bytes, at: 0, int_size }
    }

    /// How long numbers are, once the head has said so.
    pub(super) fn set_int_size(&mut self, int_size: usize) {
        self.int_size = int_size;
    }

    /// Where the next piece begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: usize) -> Piece<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(Stop::Wrong("a length that no memory holds"))?;
        let piece = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(piece)
    }

    pub(super) fn byte(&mut self) -> Piece<u8> {
        self.take(1)?.first().copied().ok_or(Stop::Short)
    }

    /// A number: its sign, then its bytes, the lowest first.
    pub(super) fn int(&mut self) -> Piece<i64> {
        let negative = match self.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Stop::Wrong("a number without a sign")),
        };
        let value = self.take(self.int_size)?.iter().rev().fold(0_i64, |value, byte| (value << 8) | i64::from(*byte));
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    /// A number that is none below zero.
    pub(super) fn count(&mut self) -> Piece<u64> {
        u64::try_from(self.int()?).map_err(|_| Stop::Wrong("a length below zero"))
    }

    /// A text; none is no text at all.
    pub(super) fn text(&mut self) -> Piece<Option<&'a [u8]>> {
        match usize::try_from(self.int()?) {
            Ok(length) if length > super::reader::LONGEST => Err(Stop::Wrong("a text longer than any that pg_dump writes")),
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Passes over texts that nobody here needs.
    pub(super) fn pass_texts(&mut self, count: usize) -> Piece<()> {
        (0..count).try_for_each(|_| self.text().map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_pg_dump_writes_them() {
        let bytes = b"\x00\x05\x00\x00\x00hello\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00";
        let mut cursor = Cursor::new(bytes, 4);
        assert_eq!(cursor.text(), Ok(Some(b"hello".as_slice())));
        assert_eq!(cursor.text(), Ok(None));
        assert_eq!(cursor.count(), Ok(256));
        assert_eq!((cursor.at(), cursor.byte()), (20, Err(Stop::Short)));
        for end in 0..10 {
            assert_eq!(Cursor::new(&bytes[..end], 4).text(), Err(Stop::Short));
        }
        assert!(matches!(Cursor::new(b"\x02\x00\x00\x00\x00", 4).int(), Err(Stop::Wrong(_))));
        assert!(matches!(Cursor::new(b"\x00\xff\xff\xff\x7f", 4).text(), Err(Stop::Wrong(_))));
    }
}
