//! A sample of a block, by which the way to compress all of it is chosen. The same block always has the same one.

/// Pieces of a block that make its sample.
const PIECES: usize = 8;

/// Bytes of a piece: together 32 KiB, as far back as deflate looks.
const PIECE_BYTES: usize = 4 << 10;

/// Smaller blocks are not worth the question.
const SMALLEST: usize = 4 * PIECES * PIECE_BYTES;

/// Buffers that are used again and again.
#[derive(Default)]
pub(super) struct Sample {
    /// The pieces.
    pub(super) bytes: Vec<u8>,
    /// What a try makes of them.
    pub(super) packed: Vec<u8>,
}

impl Sample {
    /// Takes one of this block, evenly over it; none of a block that is too small.
    pub(super) fn take(&mut self, content: &[u8]) -> Option<&mut Self> {
        if content.len() < SMALLEST {
            return None;
        }
        let step = (content.len() - PIECE_BYTES) / (PIECES - 1);
        self.bytes.clear();
        for piece in 0..PIECES {
            self.bytes.extend_from_slice(&content[piece * step..][..PIECE_BYTES]);
        }
        Some(self)
    }
}
