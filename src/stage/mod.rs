//! What changes or measures bytes on their way: blocks, compression, digests. Bytes only: it knows
//! no source and no storage.

pub mod digest;
mod sample;
mod matchless;
pub mod compress;
pub mod decompress;
pub mod pool;
mod threads;
pub mod pipeline;

/// Bytes of content in one gzip member or zstd frame; the last one may hold fewer.
pub const BLOCK_BYTES: usize = 1 << 20;
