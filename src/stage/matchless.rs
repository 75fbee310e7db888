//! Blocks in which deflate's search for repetitions finds none: hex digits of random bytes (`bytea`, digests, UUIDs) and what
//! is compressed already. libdeflate takes most of its time for just those, 1.15 s for 100 MB of a dump's `bytea` at level 6, and
//! makes 50.87 MB of them; Huffman codes alone make 51.25 MB in 0.43 s, and what has no pattern at all is stored in 0.05 s, both with
//! 0.07 s for the question whether there is truly none.

use libdeflater::Compressor;
use zlib_rs::{DeflateConfig, ReturnCode, Strategy, compress_slice};

use super::sample::Sample;
use crate::error::{Error, Kind, Result};

/// The search is worth its time where it makes a sample smaller than this part of what Huffman codes alone make of it. One piece of
/// text among seven without a match gives 0.95.
const WORTH: f64 = 0.985;

/// Bytes of a dynamic block's own tables and of a member's frame, about.
const TABLES_BYTES: f64 = 100.0;

/// zlib's windows and memory at their largest, with a gzip frame around.
const GZIP_WINDOW: i32 = 15 + 16;
const MOST_MEMORY: i32 = 9;

/// How far back deflate looks.
const REACH: usize = 32 << 10;

/// How a block without repetitions is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Each byte by its Huffman code.
    Literals,
    /// As it is.
    Stored,
}

/// How to write this block without a search, if a search at the compressor's level gains nothing in a sample of it.
pub(super) fn way_of(content: &[u8], gzip: &mut Compressor, sample: &mut Sample) -> Option<Way> {
    let Sample { bytes, packed } = sample.take(content)?;
    let coded = entropy_bytes(bytes) + TABLES_BYTES;
    packed.resize(gzip.gzip_compress_bound(bytes.len()), 0);
    // An error shows again where the whole block is compressed.
    let matched = gzip.gzip_compress(bytes, packed).ok()? as f64;
    let plain = bytes.len() as f64;
    if matched < WORTH * coded.min(plain) {
        return None;
    }
    // Last, as it looks at all of the block.
    if repeats(content) {
        return None;
    }
    Some(if coded < WORTH * plain { Way::Literals } else { Way::Stored })
}

/// Whether a search would find enough that is further away than a sample's pieces are long: a row's image before and after a
/// change. Looked at are the places, one in 64, that their own bytes choose, so that of two copies both have the same.
fn repeats(content: &[u8]) -> bool {
    const BYTES: usize = 16;
    let mut met = [0; 2048];
    let (mut chosen, mut again) = (0_u32, 0_u32);
    for (at, bytes) in content.windows(BYTES).enumerate() {
        let Some(first) = bytes.first_chunk() else { break };
        let hash = u64::from_le_bytes(*first).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = usize::try_from(hash >> 47).ok().and_then(|slot| met.get_mut(slot));
        let Some(slot) = slot else { continue };
        chosen += 1;
        let before = std::mem::replace(slot, at);
        again += u32::from(before < at && at - before <= REACH && content[before..][..BYTES] == *bytes);
    }
    f64::from(again) > (1.0 - WORTH) * f64::from(chosen)
}

/// What an ideal code of single bytes makes of these.
fn entropy_bytes(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    let bits = |count: u32| f64::from(count) * (total / f64::from(count)).log2();
    counts.into_iter().filter(|count| *count > 0).map(bits).sum::<f64>() / 8.0
}

/// Writes the block as one gzip member: how many bytes of `packed` that takes. There has to be room for all of the content in
/// stored blocks.
pub(super) fn write(way: Way, content: &[u8], packed: &mut [u8]) -> Result<usize> {
    let config = DeflateConfig {
        level: match way {
            Way::Stored => 0,
            Way::Literals => 1,
        },
        strategy: Strategy::HuffmanOnly,
        window_bits: GZIP_WINDOW,
        mem_level: MOST_MEMORY,
        ..DeflateConfig::default()
    };
    match compress_slice(packed, content, config) {
        (written, ReturnCode::Ok) => Ok(written.len()),
        (_, code) => Err(Error::new(Kind::Internal, format!("zlib can't write a block: {code:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const BLOCK: usize = 1 << 20;

    /// Bytes without a pattern, the same each time.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56
        };
        (0..bytes).map(|_| u8::try_from(next()).unwrap()).collect()
    }

    /// As COPY writes rows of a number and a `bytea`.
    fn hex_rows(bytes: usize) -> Vec<u8> {
        let digits = b"0123456789abcdef";
        let mut rows = Vec::new();
        for (number, row) in noise(bytes).chunks(128).enumerate() {
            rows.extend_from_slice(format!("{number}\t\\\\x").as_bytes());
            rows.extend(row.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]));
            rows.push(b'\n');
        }
        rows.truncate(bytes);
        rows
    }

    fn prose(bytes: usize) -> Vec<u8> {
        let line = |number: usize| {
            format!("Order {number} of customer {} was sent from store {} and paid.\n", number % 1009, number % 31)
        };
        let mut text = (0..bytes / 40).map(line).collect::<Vec<_>>().concat();
        text.truncate(bytes);
        text.into_bytes()
    }

    fn look(content: &[u8]) -> Option<Way> {
        let mut gzip = Compressor::new(libdeflater::CompressionLvl::new(6).unwrap());
        way_of(content, &mut gzip, &mut Sample::default())
    }

    #[test]
    fn noise_is_stored_its_hex_digits_are_coded_and_text_is_searched() {
        assert_eq!(look(&noise(BLOCK)), Some(Way::Stored));
        assert_eq!(look(&hex_rows(BLOCK)), Some(Way::Literals));
        assert_eq!(look(&prose(BLOCK)), None);
        assert_eq!(look(&vec![0; BLOCK]), None);
    }

    #[test]
    fn a_block_is_searched_where_an_eighth_of_it_gains_by_that() {
        for (mut block, at) in [(noise(BLOCK), 0), (noise(BLOCK), 3), (hex_rows(BLOCK), 5), (hex_rows(BLOCK), 7)] {
            let eighth = BLOCK / 8;
            block[at * eighth..][..eighth].copy_from_slice(&prose(eighth));
            assert_eq!(look(&block), None, "{at}");
        }
    }

    #[test]
    fn a_block_is_searched_for_what_is_longer_than_a_piece_of_its_sample() {
        let twice = |of: fn(usize) -> Vec<u8>, bytes: usize| {
            let all = of(BLOCK / 2);
            all.chunks(bytes).flat_map(|one| [one, one]).collect::<Vec<_>>().concat()
        };
        for bytes in [5_000, 16_000, 31_000] {
            assert_eq!([look(&twice(noise, bytes)), look(&twice(hex_rows, bytes))], [None; 2], "{bytes}");
        }
        // Too far away for deflate.
        assert_eq!(look(&twice(noise, 60_000)), Some(Way::Stored));
    }

    #[test]
    fn a_small_block_is_searched() {
        assert_eq!([look(&[]), look(&noise(1)), look(&noise(100_000))], [None; 3]);
    }

    fn written(way: Way, content: &[u8], gzip: &mut Compressor) -> Vec<u8> {
        let mut packed = vec![7; gzip.gzip_compress_bound(content.len())];
        let bytes = write(way, content, &mut packed).unwrap();
        packed.truncate(bytes);
        packed
    }

    #[test]
    fn what_is_written_comes_back_and_is_not_larger_than_a_search_makes_it() {
        let mut gzip = Compressor::new(libdeflater::CompressionLvl::new(6).unwrap());
        let contents = [noise(BLOCK), noise(BLOCK - 1), noise(1), hex_rows(BLOCK), Vec::new()];
        for (content, way) in contents.iter().flat_map(|content| [(content, Way::Stored), (content, Way::Literals)]) {
            let (packed, mut back) = (written(way, content, &mut gzip), Vec::new());
            flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut back).unwrap();
            assert!(back == *content, "{way:?} {}", content.len());
            assert_eq!(packed[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "a time");
            let mut searched = vec![0; gzip.gzip_compress_bound(content.len())];
            let bytes = gzip.gzip_compress(content, &mut searched).unwrap();
            let is_wrong_way = way == Way::Stored && content.first().is_some_and(u8::is_ascii_digit);
            assert!(is_wrong_way || packed.len() <= bytes + bytes / 50 + 100, "{way:?}: {} and {bytes}", packed.len());
        }
    }
}
