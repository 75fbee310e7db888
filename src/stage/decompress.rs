//! Reads what comes out of an artifact of any number of gzip members or zstd frames. Bytes that
//! belong to none of them are an error, and so is an artifact without any.

use std::io::{BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::config::model::Compression;
use crate::error::{Error, Kind, Result};

/// Bytes asked of the artifact at a time.
const READ_BYTES: usize = 1 << 18;

/// The largest window a frame may ask for, as a power of two: RFC 8878 (3.1.1.1.2) wants readers to
/// take 8 MiB; our frames need 1. Without a limit, a forged frame could ask for 128 MiB.
const WINDOW_LOG: u32 = 23;

/// The content of `artifact`. Errors of `artifact` come through unchanged; all others mean damage.
pub fn decompress<'a>(compression: Compression, artifact: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let buffered = BufReader::with_capacity(READ_BYTES, artifact);
    Ok(match compression {
        Compression::Gzip(_) => Box::new(MultiGzDecoder::new(buffered)),
        Compression::Zstd(_) => {
            let failed = |error| Error::new(Kind::Internal, "zstd can't start to decompress").source(error);
            let mut frames = zstd::Decoder::with_buffer(buffered).map_err(failed)?;
            frames.window_log_max(WINDOW_LOG).map_err(failed)?;
            Box::new(frames)
        }
        Compression::None => Box::new(buffered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::compress::Compressor;

    const KINDS: [Compression; 2] = [Compression::Gzip(6), Compression::Zstd(3)];

    fn packed(compression: Compression, content: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        Compressor::default().compress(compression, content, &mut packed).unwrap();
        packed
    }

    fn unpacked(compression: Compression, artifact: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut content = Vec::new();
        decompress(compression, artifact).unwrap().read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn members_in_a_row_are_one_content() {
        for kind in KINDS {
            let artifact = [packed(kind, b"one, "), packed(kind, b""), packed(kind, b"two")].concat();
            assert_eq!(unpacked(kind, &artifact).unwrap(), b"one, two", "{kind:?}");
        }
    }

    #[test]
    fn bytes_after_the_last_member_are_never_ignored() {
        for kind in KINDS {
            for garbage in [&b"\0"[..], &[0; 512], b"x", b"\x1f", b"\x1f\x8b", b"\x28\xb5", b"garbage after the end"] {
                let artifact = [&packed(kind, b"content"), garbage].concat();
                assert!(unpacked(kind, &artifact).is_err(), "{kind:?} {garbage:?}");
            }
        }
    }

    #[test]
    fn an_artifact_without_any_member_is_no_empty_content() {
        for kind in KINDS {
            assert!(unpacked(kind, b"").is_err(), "{kind:?}");
            assert_eq!(unpacked(kind, &packed(kind, b"")).unwrap(), b"", "{kind:?}");
        }
    }

    #[test]
    fn a_frame_can_not_ask_for_much_memory() {
        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        std::io::copy(&mut std::io::repeat(0).take(1 << 20), &mut wide).unwrap();
        let error = unpacked(Compression::Zstd(3), &wide.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
