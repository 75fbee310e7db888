//! How large the parts of an upload are.

use std::num::NonZeroU32;

/// Sizes of an upload's parts.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    base: u64,
    max_parts: u32,
}

impl Parts {
    /// Placeholder until the helper's.
    pub fn plan(part_size: u64, max_parts: u32, _size_hint: Option<u64>) -> Self {
        Self { base: part_size, max_parts }
    }

    /// Bytes of part `number`, the first being 1.
    pub fn size_of(&self, _number: u32) -> u64 {
        self.base
    }

    /// Whether that is more than the first part's.
    pub fn is_grown(&self, _number: u32) -> bool {
        self.max_parts == 0
    }

    /// Parts under way at once.
    pub fn in_flight(&self, budget: u64, concurrency: NonZeroU32) -> usize {
        let fits = usize::try_from(budget / (2 * self.base)).unwrap_or(usize::MAX);
        fits.min(concurrency.get() as usize).max(1)
    }
}
