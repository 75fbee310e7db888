//! Turns one block into one gzip member or zstd frame, whole in itself. Blocks know nothing of
//! each other, so that they can be made in any order and any stock tool reads them in a row.

use libdeflater::CompressionLvl;
use zstd::zstd_safe::compress_bound;

use super::matchless;
use super::sample::Sample;
use crate::config::model::Compression;
use crate::error::{Error, Kind, Result};

/// For each of gzip's levels, from 1 on, the fastest of libdeflate's that makes about as much as gzip of what is backed up: dumps of
/// numbers, of JSON and of text, programs, manuals, sources. At gzip's 6, of 24 MiB each: 6.5, 1.5, 9.5, 17.1 and 4.2 MB by `gzip -6`,
/// 5.8, 1.5, 9.4, 17.1 and 4.3 MB by libdeflate's 5, in four fifths of the time that its 6 takes. The worst seen is a text of few
/// words in random order: 15.8 MB against 14.2.
const LIBDEFLATE_LEVELS: [i32; 9] = [1, 1, 2, 3, 5, 5, 6, 8, 9];

/// A thread's own compressors, made when first needed and kept for the next block.
#[derive(Default)]
pub struct Compressor {
    gzip: Option<(u32, libdeflater::Compressor)>,
    zstd: Option<(i32, Zstd)>,
    sample: Sample,
}

impl Compressor {
    /// Puts into `packed`, in the place of what it held, what `content` becomes; an empty content
    /// becomes an empty member or frame.
    pub fn compress(&mut self, compression: Compression, content: &[u8], packed: &mut Vec<u8>) -> Result<()> {
        match compression {
            Compression::Gzip(level) => self.gzip(level, content, packed),
            Compression::Zstd(level) => self.zstd(level, content, packed),
            Compression::None => {
                packed.clear();
                packed.extend_from_slice(content);
                Ok(())
            }
        }
    }

    fn gzip(&mut self, level: u32, content: &[u8], packed: &mut Vec<u8>) -> Result<()> {
        let gzip = match &mut self.gzip {
            Some((made_for, gzip)) if *made_for == level => gzip,
            slot => {
                let known = (level as usize).checked_sub(1).and_then(|at| LIBDEFLATE_LEVELS.get(at));
                let known = known.and_then(|level| CompressionLvl::new(*level).ok());
                let known = known.ok_or_else(|| Error::new(Kind::Internal, format!("gzip has no level {level}")))?;
                &mut slot.insert((level, libdeflater::Compressor::new(known))).1
            }
        };
        packed.resize(gzip.gzip_compress_bound(content.len()), 0);
        let bytes = match matchless::way_of(content, gzip, &mut self.sample) {
            Some(way) => matchless::write(way, content, packed)?,
            None => gzip.gzip_compress(content, packed).map_err(|error| failed("gzip").source(error))?,
        };
        packed.truncate(bytes);
        Ok(())
    }

    fn zstd(&mut self, level: i32, content: &[u8], packed: &mut Vec<u8>) -> Result<()> {
        let zstd = match &mut self.zstd {
            Some((made_for, zstd)) if *made_for == level => zstd,
            slot => &mut slot.insert((level, Zstd::new(level)?)).1,
        };
        let zstd = zstd.for_block(content, &mut self.sample);
        packed.clear();
        packed.reserve(compress_bound(content.len()));
        zstd.compress_to_buffer(content, packed).map_err(|error| failed("zstd").source(error))?;
        Ok(())
    }
}

/// zstd's level 1 for the blocks of which it makes no more than the level that was asked for, and that level for all others. Short
/// numbers are such: of 48 MiB of COPY rows level 1 makes 9.1 MB in 0.06 s, level 3 12.9 MB in 0.15 s; and hex digits: 25.7 MB in 0.04 s,
/// 26.4 MB in 0.23 s.
struct Zstd {
    asked_for: zstd::bulk::Compressor<'static>,
    fast: Option<zstd::bulk::Compressor<'static>>,
}

impl Zstd {
    fn new(level: i32) -> Result<Self> {
        let compressor = |level| {
            let mut zstd = zstd::bulk::Compressor::new(level)?;
            // The content's size is in a frame's header without being asked for.
            zstd.include_checksum(true)?;
            Ok(zstd)
        };
        let made = |zstd: std::io::Result<_>| zstd.map_err(|error| failed("zstd").source(error));
        let fast = if level > 1 { Some(made(compressor(1))?) } else { None };
        Ok(Self { asked_for: made(compressor(level))?, fast })
    }

    /// The one for this block, by a sample of it.
    fn for_block(&mut self, content: &[u8], sample: &mut Sample) -> &mut zstd::bulk::Compressor<'static> {
        let Self { asked_for, fast: Some(fast) } = self else { return &mut self.asked_for };
        let Some(Sample { bytes, packed }) = sample.take(content) else { return asked_for };
        let mut packed_by = |zstd: &mut zstd::bulk::Compressor<'static>| {
            packed.clear();
            packed.reserve(compress_bound(bytes.len()));
            zstd.compress_to_buffer(bytes, packed).ok()
        };
        // An error shows again where the whole block is compressed.
        match (packed_by(fast), packed_by(asked_for)) {
            (Some(quick), Some(slow)) if quick <= slow => fast,
            _ => asked_for,
        }
    }
}

fn failed(library: &str) -> Error {
    Error::new(Kind::Internal, format!("{library} can't compress a block"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_always_becomes_the_same_bytes() {
        for compression in [Compression::Gzip(1), Compression::Gzip(9), Compression::Zstd(1), Compression::Zstd(19)] {
            let (mut compressor, mut first, mut again) = (Compressor::default(), Vec::new(), vec![7; 3]);
            compressor.compress(compression, b"content", &mut first).unwrap();
            compressor.compress(Compression::Gzip(6), b"another", &mut again).unwrap();
            compressor.compress(compression, b"content", &mut again).unwrap();
            assert_eq!(first, again, "{compression:?}");
        }
    }

    #[test]
    fn no_compression_leaves_the_content_as_it_is() {
        let mut packed = vec![7; 3];
        Compressor::default().compress(Compression::None, b"content", &mut packed).unwrap();
        assert_eq!(packed, b"content");
    }

    #[test]
    fn a_gzip_member_names_no_time() {
        let mut packed = Vec::new();
        Compressor::default().compress(Compression::Gzip(6), b"content", &mut packed).unwrap();
        assert_eq!(packed[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_zstd_frame_names_its_size_and_carries_a_checksum() {
        let mut packed = Vec::new();
        Compressor::default().compress(Compression::Zstd(3), b"content", &mut packed).unwrap();
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&packed).unwrap(), Some(7));
        // RFC 8878, 3.1.1.1.1: the checksum flag.
        assert_eq!(packed[4] & 0b100, 0b100);
    }

    #[test]
    fn a_block_gets_the_level_that_makes_less_of_its_sample() {
        let numbers: Vec<u8> =
            (0..60_000).flat_map(|row| format!("{row}\t{}\t{}.25\n", row % 997, row * 7919 % 1_000_003).into_bytes()).collect();
        let note =
            |row| format!("Order {row} of customer {} was sent from store {} and paid at once. ", row % 1009, row % 31).repeat(5);
        let prose: Vec<u8> = (0..4000).flat_map(|row| note(row).into_bytes()).collect();
        for (content, is_fast) in [(numbers, true), (prose, false)] {
            let by_level = [1, 3].map(|level| {
                let mut zstd = zstd::bulk::Compressor::new(level).unwrap();
                zstd.include_checksum(true).unwrap();
                zstd.compress(&content).unwrap()
            });
            let mut packed = Vec::new();
            Compressor::default().compress(Compression::Zstd(3), &content, &mut packed).unwrap();
            assert!(
                packed == by_level[usize::from(!is_fast)],
                "{is_fast}: {} of {:?}",
                packed.len(),
                by_level.each_ref().map(Vec::len)
            );
            assert_eq!(by_level[0].len() < by_level[1].len(), is_fast);
        }
    }

    #[test]
    fn a_level_that_is_none_is_an_error() {
        for level in [0, 10] {
            let error = Compressor::default().compress(Compression::Gzip(level), b"", &mut Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), format!("gzip has no level {level}"));
        }
    }
}
