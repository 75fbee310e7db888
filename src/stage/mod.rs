//! What changes or measures bytes on their way: blocks, compression, digests. Bytes only: it knows
//! no source and no storage.

pub mod digest;
pub mod pool;
pub mod compress;
pub mod decompress;
pub mod pipeline;
