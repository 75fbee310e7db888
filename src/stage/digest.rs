//! Counts and digests bytes as they pass, and holds them against what was promised. It never
//! changes a byte, and never lets one pass that was not promised.

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// A stream's size and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Its size.
    pub bytes: u64,
    /// Its digest, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Measures a stream piece by piece.
#[derive(Clone, Default)]
pub struct Sha256Meter {
    bytes: u64,
    sha256: Sha256,
}

impl Sha256Meter {
    /// Nothing has passed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.sha256.update(piece);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All that passed.
    pub fn finish(self) -> Digested {
        Digested { bytes: self.bytes, sha256: format!("{:x}", self.sha256.finalize()) }
    }
}

/// Measures a stream that should be a known one. The first difference is `Damaged`.
pub(super) struct Check<'a> {
    what: &'static str,
    expected: &'a Digested,
    meter: Sha256Meter,
}

impl<'a> Check<'a> {
    /// `what` names the stream in messages: `artifact`.
    pub(super) fn new(what: &'static str, expected: &'a Digested) -> Self {
        Self { what, expected, meter: Sha256Meter::new() }
    }

    /// Takes the next piece; fails at the first byte too many.
    pub(super) fn update(&mut self, piece: &[u8]) -> Result<()> {
        self.meter.update(piece);
        let Self { what, expected, .. } = self;
        if self.meter.bytes() > expected.bytes {
            return Err(Error::new(Kind::Damaged, format!("the {what} is longer than its {} bytes", expected.bytes)));
        }
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.meter.bytes()
    }

    /// Fails if there were fewer bytes than expected.
    pub(super) fn ends_here(&self) -> Result<()> {
        let (what, bytes, expected) = (self.what, self.meter.bytes(), self.expected.bytes);
        if bytes == expected {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, format!("the {what} ends after {bytes} of its {expected} bytes")))
    }

    /// Fails unless all that passed is what was expected.
    pub(super) fn finish(self) -> Result<Digested> {
        self.ends_here()?;
        let (what, expected, found) = (self.what, self.expected, self.meter.finish());
        if found == *expected {
            return Ok(found);
        }
        let cause = format!("the {what} has the sha256 {}, and should have {}", found.sha256, expected.sha256);
        Err(Error::new(Kind::Damaged, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_stream_in_pieces_has_the_digest_of_the_whole() {
        let mut meter = Sha256Meter::new();
        for piece in [&b"a"[..], b"", b"bc"] {
            meter.update(piece);
        }
        assert_eq!(meter.finish(), Digested { bytes: 3, sha256: ABC.to_owned() });
    }

    #[test]
    fn each_difference_from_what_was_promised_is_damage() {
        let expected = Digested { bytes: 3, sha256: ABC.to_owned() };
        let check = |pieces: &[&[u8]]| {
            let mut check = Check::new("content", &expected);
            pieces.iter().try_for_each(|piece| check.update(piece))?;
            check.finish()
        };
        assert_eq!(check(&[b"ab", b"c"]).unwrap(), expected);
        let message = |pieces: &[&[u8]]| {
            let error = check(pieces).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged);
            error.to_string()
        };
        assert_eq!(message(&[b"ab"]), "the content ends after 2 of its 3 bytes");
        assert_eq!(message(&[b"ab", b"cd"]), "the content is longer than its 3 bytes");
        assert!(message(&[b"abd"]).ends_with(ABC));
    }
}
