//! How large the parts of an upload are, known before its stream is: a plan from an estimate, with room for
//! a wrong one. Pure.

use std::num::NonZeroU32;

const MIB: u64 = 1 << 20;
/// The limits of Amazon S3 ("Amazon S3 multipart upload limits").
const LARGEST_PART: u64 = 5 << 30;
const LARGEST_OBJECT: u64 = 5 << 40;
/// How often the size doubles in the parts that are kept for a stream that outgrew its estimate.
const DOUBLINGS: u32 = 8;

/// What the program takes of the machine's memory besides the parts of its uploads, in bytes.
pub const PROGRAM_MEMORY: u64 = 40 * MIB;

/// The sizes of an upload's parts. All are equal, as some services demand, but for the last sixteenth of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    base: u64,
    max_parts: u32,
}

impl Parts {
    /// Parts of `part_size` bytes; or, where a tenth more than the estimated size would not fit into the equal ones,
    /// of the fewest whole MiB with which it does, as far as a part may be as large.
    pub fn plan(part_size: u64, max_parts: u32, size_hint: Option<u64>) -> Self {
        let planned = Self { base: part_size, max_parts };
        let hint = size_hint.unwrap_or(0);
        let needed = hint.saturating_add(hint / 10).min(LARGEST_OBJECT);
        let equal = u64::from(planned.equal());
        if part_size.saturating_mul(equal) >= needed {
            return planned;
        }
        let base = needed.div_ceil(equal).next_multiple_of(MIB).min(LARGEST_PART);
        Self { base: base.max(part_size), max_parts }
    }

    /// The size of an equal part in bytes.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The size of a part in bytes, counted from 1; the last one of an upload may be smaller.
    pub fn size_of(&self, n: u32) -> u64 {
        let grown = n.min(self.max_parts).saturating_sub(self.equal());
        if grown == 0 {
            return self.base;
        }
        let doublings = (grown * DOUBLINGS).div_ceil(self.max_parts - self.equal());
        (self.base << doublings).min(LARGEST_PART).max(self.base)
    }

    /// The most bytes that all parts hold together, and that an object can have.
    pub fn capacity(&self) -> u64 {
        let equal = self.base.saturating_mul(u64::from(self.equal().min(self.max_parts)));
        let grown = (self.equal() + 1..=self.max_parts).map(|n| self.size_of(n));
        grown.fold(equal, u64::saturating_add).min(LARGEST_OBJECT)
    }

    /// Whether a part is larger than those before: the stream has outgrown its estimate.
    pub fn is_grown(&self, n: u32) -> bool {
        self.size_of(n) > self.base
    }

    /// How many parts as large as part `n` may be under way at once with `budget` bytes for them: as much again is kept for
    /// the part that is being filled and for what a call takes besides.
    pub fn in_flight(&self, n: u32, budget: u64, concurrency: NonZeroU32) -> usize {
        let most = u64::from(concurrency.get());
        let affordable = budget.checked_div(self.size_of(n).saturating_mul(2)).unwrap_or(most);
        usize::try_from(affordable.clamp(1, most)).unwrap_or(1)
    }

    /// What a process with one such upload takes of the machine's memory at least, in bytes.
    pub fn memory_needed(&self) -> u64 {
        PROGRAM_MEMORY.saturating_add(self.base.saturating_mul(2))
    }

    /// How many parts are equal: at least one.
    fn equal(&self) -> u32 {
        let most = u64::from(self.max_parts);
        u32::try_from(most * 15 / 16).unwrap_or(self.max_parts).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    fn base(part_size: u64, max_parts: u32, hint: u64) -> u64 {
        let parts = Parts::plan(part_size, max_parts, Some(hint));
        assert!(parts.capacity() >= hint.min(LARGEST_OBJECT), "{hint} in {parts:?}");
        parts.base() / MIB
    }

    #[test]
    fn parts_are_as_large_as_the_estimate_needs() {
        let unknown = Parts::plan(8 * MIB, 10_000, None);
        assert_eq!((unknown.base(), unknown.size_of(9375), unknown.size_of(9376)), (8 * MIB, 8 * MIB, 16 * MIB));
        assert_eq!((unknown.size_of(10_000), unknown.is_grown(9375), unknown.is_grown(9376)), (2048 * MIB, false, true));
        // Without any estimate, 73 GiB go up in equal parts, and 386 GiB in all.
        assert_eq!(unknown.capacity() / GIB, 386);
        assert_eq!(base(8 * MIB, 10_000, 0), 8);
        assert_eq!(base(8 * MIB, 10_000, 66 * GIB), 8);
        assert_eq!(base(8 * MIB, 10_000, 67 * GIB), 9);
        assert_eq!(base(8 * MIB, 1000, 100 * GIB), 121);
        assert_eq!(base(8 * MIB, 10_000, TIB), 124);
        assert_eq!(base(8 * MIB, 10_000, 5 * TIB), 560);
        assert_eq!(base(8 * MIB, 10_000, u64::MAX), 560);
        assert_eq!(base(64 * MIB, 10_000, GIB), 64);
        assert_eq!(base(5 * MIB + 1, 10, GIB), 126);
    }

    #[test]
    fn a_service_of_few_parts_takes_what_they_hold() {
        for (max_parts, largest) in [(1, 5 * GIB), (2, 10 * GIB), (10, 50 * GIB), (100, 500 * GIB), (10_000, 5 * TIB)] {
            assert_eq!(Parts::plan(8 * MIB, max_parts, Some(5 * TIB)).capacity(), largest, "{max_parts}");
        }
        let one = Parts::plan(8 * MIB, 1, None);
        assert_eq!((one.capacity(), one.is_grown(1)), (8 * MIB, false));
        let two = Parts::plan(8 * MIB, 2, None);
        assert_eq!((two.size_of(1), two.size_of(2)), (8 * MIB, 2 * GIB));
    }

    #[test]
    fn memory_sets_how_many_are_under_way() {
        let four = NonZeroU32::new(4).unwrap();
        let in_flight = |part_size, budget| Parts::plan(part_size, 10_000, None).in_flight(1, budget, four);
        assert_eq!([88, 63, 32, 16, 8, 0].map(|mib| in_flight(8 * MIB, mib * MIB)), [4, 3, 2, 1, 1, 1]);
        assert_eq!(in_flight(5 * GIB, 88 * MIB), 1);
        assert_eq!(Parts::plan(8 * MIB, 10_000, None).memory_needed(), 56 * MIB);
        assert_eq!(Parts::plan(8 * MIB, 1000, Some(100 * GIB)).memory_needed(), 282 * MIB);
    }

    proptest! {
        #[test]
        fn a_plan_holds_its_estimate_within_the_service_s_limits(
            part_size in 5 * MIB..=5 * GIB,
            max_parts in 1..=10_000_u32,
            hint in prop::option::of(0..=6 * TIB),
        ) {
            let parts = Parts::plan(part_size, max_parts, hint);
            let mut total = 0_u64;
            let mut before = 0;
            for n in 1..=max_parts {
                let size = parts.size_of(n);
                prop_assert!((part_size..=LARGEST_PART).contains(&size) && size >= before, "{n}: {size} after {before}");
                prop_assert_eq!(parts.is_grown(n), size > parts.size_of(1));
                total += size;
                before = size;
            }
            prop_assert_eq!(parts.capacity(), total.min(LARGEST_OBJECT));
            let equal = parts.base() * u64::from(parts.equal());
            let needed = hint.map_or(0, |hint| hint + hint / 10).min(LARGEST_OBJECT);
            prop_assert!(equal >= needed || parts.base() == LARGEST_PART);
            // No larger than that.
            let smaller = (parts.base() - MIB) * u64::from(parts.equal());
            prop_assert!(parts.base() == part_size || smaller < needed);
        }

        #[test]
        fn no_numbers_panic_the_plan(part_size: u64, max_parts: u32, hint: u64, n: u32, budget: u64) {
            let parts = Parts::plan(part_size % (1 << 50), max_parts % 1_000_000, Some(hint));
            prop_assert!(parts.in_flight(1, budget, NonZeroU32::MIN) == 1);
            let _ = (parts.size_of(n), parts.capacity(), parts.memory_needed());
        }
    }
}
