//! Round trips through the real programs too, failures on either side, and every sort of damage.

use std::io::Error as IoError;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;
const KINDS: [Compression; 3] = [Compression::Gzip(6), Compression::Zstd(3), Compression::None];
const SILENT: &(dyn Fn(u64) + Sync) = &|_| {};

fn pool() -> Pool {
    Pool::new(NonZeroUsize::new(2).unwrap()).unwrap()
}

/// Bytes that don't compress: xorshift64.
fn random(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = std::iter::repeat_with(&mut next).take(bytes / 8 + 1).flatten().collect();
    content.truncate(bytes);
    content
}

/// Bytes that do.
fn compressible(bytes: usize) -> Vec<u8> {
    let mut content: Vec<u8> = (0..=bytes / 16).flat_map(|row| format!("{row}\t\\N\tsome text\n").into_bytes()).collect();
    content.truncate(bytes);
    content
}

/// Blocks of both sorts, and a short one at the end.
fn mixed() -> Vec<u8> {
    [compressible(MIB), random(MIB), compressible(MIB / 2)].concat()
}

fn digested(bytes: &[u8]) -> Digested {
    let mut meter = Sha256Meter::new();
    meter.update(bytes);
    meter.finish()
}

fn packed(compression: Compression, content: &[u8]) -> (Vec<u8>, Expected) {
    let mut artifact = Vec::new();
    let passed = pack(&mut &content[..], compression, &pool(), &mut artifact, SILENT).unwrap();
    assert_eq!(passed, Passed { content: digested(content), artifact: digested(&artifact) });
    (artifact, Expected { artifact: passed.artifact, content: passed.content })
}

fn unpacked(compression: Compression, mut artifact: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let passed = unpack(&mut artifact, compression, expected, &mut content, SILENT)?;
    assert_eq!(passed, Passed { content: expected.content.clone(), artifact: expected.artifact.clone() });
    Ok(content)
}

/// An input that is a function.
struct ReadBy<F>(F);

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for ReadBy<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.0)(buffer)
    }
}

/// An output that is a function.
struct WriteBy<F>(F);

impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for WriteBy<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Zeros without end that count how many were read.
fn endless(read: &AtomicU64) -> impl Read + Send + '_ {
    ReadBy(|buffer: &mut [u8]| {
        buffer.fill(0);
        read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(buffer.len())
    })
}

fn ours(kind: Kind) -> IoError {
    Error::new(kind, "on purpose").hint("none").into()
}

#[test]
fn content_of_any_size_comes_back() {
    for kind in KINDS {
        for bytes in [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB] {
            for content in [random(bytes), compressible(bytes)] {
                let (artifact, expected) = packed(kind, &content);
                assert!(unpacked(kind, &artifact, &expected).unwrap() == content, "{kind:?} {bytes}");
            }
        }
    }
}

#[test]
fn every_level_comes_back() {
    let content = compressible(MIB + MIB / 2);
    let levels = (1..=9).map(Compression::Gzip).chain([1, 10, 19].map(Compression::Zstd));
    for kind in levels {
        let (artifact, expected) = packed(kind, &content);
        assert!(unpacked(kind, &artifact, &expected).unwrap() == content, "{kind:?}");
    }
}

#[test]
fn progress_counts_content_to_its_end() {
    let content = compressible(2 * MIB + 5);
    let seen = std::sync::Mutex::new(Vec::new());
    let progress = |bytes| seen.lock().unwrap().push(bytes);
    let mut artifact = Vec::new();
    let Passed { content, artifact: whole } =
        pack(&mut &content[..], Compression::default(), &pool(), &mut artifact, &progress).unwrap();
    let expected = Expected { artifact: whole, content };
    unpack(&mut &artifact[..], Compression::default(), &expected, &mut io::sink(), &progress).unwrap();
    let mib = MIB as u64;
    let once = [mib, 2 * mib, 2 * mib + 5];
    assert_eq!(seen.into_inner().unwrap(), [once, once].concat());
}

#[test]
fn many_pipelines_share_one_pool() {
    let pool = pool();
    thread::scope(|scope| {
        for number in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                let kind = [Compression::Gzip(1), Compression::Zstd(3), Compression::Gzip(9), Compression::None][number % 4];
                let content = [compressible(MIB * (number % 3)), random(MIB + number)].concat();
                let mut artifact = Vec::new();
                let passed = pack(&mut &content[..], kind, pool, &mut artifact, SILENT).unwrap();
                let expected = Expected { artifact: passed.artifact, content: passed.content };
                assert!(unpacked(kind, &artifact, &expected).unwrap() == content, "{number}");
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn short_reads_and_writes_and_interruptions_change_nothing(
        bytes in 0..3 * MIB, steps in proptest::collection::vec(0..200_000_usize, 1..20), kind in 0..KINDS.len(),
    ) {
        let (content, kind) = (compressible(bytes), KINDS[kind]);
        let (artifact, expected) = packed(kind, &content);
        let mut chunked = Vec::new();
        // A step of 0 is an interruption, and is followed by a byte.
        let step = |number: &mut usize| {
            *number += 1;
            match steps[*number / 2 % steps.len()] {
                0 if number.is_multiple_of(2) => Err(IoError::from(io::ErrorKind::Interrupted)),
                step => Ok(step.max(1)),
            }
        };
        let (mut left, mut reads, mut writes) = (&content[..], 0, 0);
        let mut input = ReadBy(|buffer: &mut [u8]| { let step = step(&mut reads)?.min(buffer.len()); left.read(&mut buffer[..step]) });
        let mut output = WriteBy(|bytes: &[u8]| { let step = step(&mut writes)?.min(bytes.len()); chunked.write(&bytes[..step]) });
        pack(&mut input, kind, &pool(), &mut output, SILENT).unwrap();
        prop_assert!(chunked == artifact);

        let (mut left, mut reads, mut writes, mut back) = (&artifact[..], 0, 0, Vec::new());
        let mut input = ReadBy(|buffer: &mut [u8]| { let step = step(&mut reads)?.min(buffer.len()); left.read(&mut buffer[..step]) });
        let mut output = WriteBy(|bytes: &[u8]| { let step = step(&mut writes)?.min(bytes.len()); back.write(&bytes[..step]) });
        unpack(&mut input, kind, &expected, &mut output, SILENT).unwrap();
        prop_assert!(back == content);
    }
}

#[test]
fn an_error_of_the_input_comes_out_as_itself() {
    for kind in KINDS {
        let content = mixed();
        let mut input = (&content[..]).chain(ReadBy(|_: &mut [u8]| Err(ours(Kind::Child))));
        let error = pack(&mut input, kind, &pool(), &mut io::sink(), SILENT).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (Kind::Child, Some("none")), "{kind:?}");

        let (artifact, expected) = packed(kind, &content);
        for cut in [0, artifact.len() / 2, artifact.len() - 1] {
            let mut input = (&artifact[..cut]).chain(ReadBy(|_: &mut [u8]| Err(ours(Kind::Storage))));
            let error = unpack(&mut input, kind, &expected, &mut io::sink(), SILENT).unwrap_err();
            assert_eq!((error.kind(), error.hint_text()), (Kind::Storage, Some("none")), "{kind:?} {cut}");
        }
    }
}

#[test]
fn an_error_that_is_not_ours_is_no_damage() {
    let broken = |_: &mut [u8]| Err(IoError::from_raw_os_error(5));
    for kind in KINDS {
        let error = pack(&mut ReadBy(broken), kind, &pool(), &mut io::sink(), SILENT).unwrap_err();
        assert_eq!(error.to_string(), "can't read the input: Input/output error (os error 5)");
        let (_, expected) = packed(kind, b"content");
        let error = unpack(&mut ReadBy(broken), kind, &expected, &mut io::sink(), SILENT).unwrap_err();
        assert_eq!((error.kind(), error.to_string().starts_with("can't read the input")), (Kind::Internal, true));
    }
}

#[test]
fn after_an_error_of_the_output_the_input_is_not_read_on() {
    for kind in KINDS {
        let read = AtomicU64::new(0);
        let mut full = WriteBy(|_: &[u8]| Err(ours(Kind::StorageDenied)));
        let error = pack(&mut endless(&read), kind, &pool(), &mut full, SILENT).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (Kind::StorageDenied, Some("none")), "{kind:?}");
        // No block came back, so there were only those that there are.
        assert!(read.into_inner() <= ((pool().threads() + SPARE_BLOCKS) * MIB) as u64, "{kind:?}");

        let content = compressible(64 * MIB);
        let (artifact, expected) = packed(kind, &content);
        let mut left = &artifact[..];
        let mut input = ReadBy(|buffer: &mut [u8]| (&mut left).take(4096).read(buffer));
        let error = unpack(&mut input, kind, &expected, &mut full, SILENT).unwrap_err();
        assert_eq!(error.kind(), Kind::StorageDenied, "{kind:?}");
        assert!(left.len() > artifact.len() / 2, "{kind:?}: {} of {} bytes left", left.len(), artifact.len());
    }
}

#[test]
fn an_input_that_fails_because_the_output_did_does_not_hide_it() {
    let (failed, noticed) = channel::<()>();
    let mut failed = Some(failed);
    let mut output = WriteBy(|_: &[u8]| {
        drop(failed.take());
        Err(ours(Kind::StorageDenied))
    });
    // The first block, then nothing until the output has failed.
    let mut input = io::repeat(7).take(MIB as u64).chain(ReadBy(move |_: &mut [u8]| {
        let _ = noticed.recv();
        Err(ours(Kind::Child))
    }));
    let error = pack(&mut input, Compression::None, &pool(), &mut output, SILENT).unwrap_err();
    assert_eq!(error.kind(), Kind::StorageDenied);
}

#[test]
fn an_output_that_takes_nothing_or_fails_at_the_flush_is_an_error() {
    struct NoFlush;
    impl Write for NoFlush {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(ours(Kind::StorageDenied))
        }
    }
    let (artifact, expected) = packed(Compression::default(), b"content");
    let outcomes = |output: &mut (dyn Write + Send)| {
        [
            pack(&mut &b"content"[..], Compression::default(), &pool(), output, SILENT).unwrap_err().kind(),
            unpack(&mut &artifact[..], Compression::default(), &expected, output, SILENT).unwrap_err().kind(),
        ]
    };
    assert_eq!(outcomes(&mut NoFlush), [Kind::StorageDenied; 2]);
    assert_eq!(outcomes(&mut WriteBy(|_: &[u8]| Ok(0))), [Kind::Internal; 2]);
}

#[test]
fn a_thread_that_panics_is_an_error_and_never_an_end() {
    let content = mixed();
    for kind in KINDS {
        let (artifact, expected) = packed(kind, &content);
        let panics = ReadBy(|_: &mut [u8]| panic!("on purpose"));
        let error = pack(&mut (&content[..]).chain(panics), kind, &pool(), &mut io::sink(), SILENT).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "the read thread panicked"));

        let mut panics = WriteBy(|_: &[u8]| panic!("on purpose"));
        let read = AtomicU64::new(0);
        let error = pack(&mut endless(&read), kind, &pool(), &mut panics, SILENT).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "the write thread panicked"));
        let error = unpack(&mut &artifact[..], kind, &expected, &mut panics, SILENT).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "the write thread panicked"));
    }
}

#[test]
fn a_level_that_is_none_is_an_error_and_ends_the_reading() {
    let read = AtomicU64::new(0);
    let error = pack(&mut endless(&read), Compression::Gzip(13), &pool(), &mut io::sink(), SILENT).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "gzip has no level 13"));
}

/// Places all over an artifact of this size, the first and last bytes among them.
fn places(bytes: usize) -> impl Iterator<Item = usize> {
    (0..50).map(move |place| place * (bytes - 1) / 49)
}

#[test]
fn a_cut_artifact_is_damaged_wherever_it_is_cut() {
    for kind in KINDS {
        let (artifact, expected) = packed(kind, &mixed());
        // Also right behind the first member, where the rest decompresses without an error.
        let member = packed(kind, &mixed()[..MIB]).0.len();
        for at in places(artifact.len()).chain([member]) {
            let cut = &artifact[..at];
            let error = unpacked(kind, cut, &expected).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{kind:?} {at}");
            assert_eq!(error.to_string(), format!("the artifact ends after {at} of its {} bytes", artifact.len()));

            let forged = Expected { artifact: digested(cut), ..expected.clone() };
            assert_eq!(unpacked(kind, cut, &forged).unwrap_err().kind(), Kind::Damaged, "{kind:?} {at}, forged");
        }
    }
}

#[test]
fn a_flipped_bit_is_damage_wherever_it_is() {
    for kind in KINDS {
        let (mut artifact, expected) = packed(kind, &mixed());
        for (number, at) in places(artifact.len()).enumerate() {
            let bit = 1 << (number % 8);
            artifact[at] ^= bit;
            assert_eq!(unpacked(kind, &artifact, &expected).unwrap_err().kind(), Kind::Damaged, "{kind:?} {at}");
            artifact[at] ^= bit;
        }
        assert!(unpacked(kind, &artifact, &expected).is_ok());
    }
}

#[test]
fn bytes_after_the_end_are_damage() {
    for kind in KINDS {
        let (artifact, expected) = packed(kind, &mixed());
        // RFC 8878, 3.1.2: a skippable frame, which zstd passes over without a word.
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
        for more in [&b"\0"[..], b"garbage", &skippable, &packed(kind, b"").0, &packed(kind, b"more").0] {
            let longer = [&artifact[..], more].concat();
            if !more.is_empty() {
                assert_eq!(unpacked(kind, &longer, &expected).unwrap_err().kind(), Kind::Damaged, "{kind:?} {more:?}");
            }
        }
    }
}

#[test]
fn a_manifest_that_says_something_else_is_damage() {
    for kind in KINDS {
        let (artifact, expected) = packed(kind, b"content");
        let other = Digested { sha256: digested(b"another").sha256, ..expected.content.clone() };
        let content = Expected { content: other.clone(), ..expected.clone() };
        let file = Expected { artifact: Digested { bytes: artifact.len() as u64, ..other }, ..expected.clone() };
        for expected in [content, file] {
            let error = unpacked(kind, &artifact, &expected).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{kind:?}");
            assert!(error.to_string().contains("should have"), "{error}");
        }
        assert_eq!(unpacked(kind, b"", &expected).unwrap_err().kind(), Kind::Damaged, "{kind:?}");
    }
}

#[test]
fn a_bomb_is_stopped_at_the_first_byte_too_many() {
    for kind in [Compression::Gzip(6), Compression::Zstd(3)] {
        let (artifact, mut expected) = packed(kind, &vec![0; 64 * MIB]);
        expected.content.bytes = 3 * MIB as u64;
        let (mut left, mut written) = (&artifact[..], 0);
        let mut input = ReadBy(|buffer: &mut [u8]| (&mut left).take(100).read(buffer));
        let mut output = WriteBy(|bytes: &[u8]| {
            written += bytes.len();
            Ok(bytes.len())
        });
        let error = unpack(&mut input, kind, &expected, &mut output, SILENT).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Damaged, "the content is longer than its 3145728 bytes"));
        assert_eq!(written, 3 * MIB, "{kind:?}");
        assert!(left.len() > artifact.len() / 2, "{kind:?}: {} of {} bytes left", left.len(), artifact.len());
    }
}

#[test]
fn an_artifact_too_long_is_not_read_on() {
    let read = AtomicU64::new(0);
    let expected = Expected { artifact: digested(&[0; 10]), content: digested(&[0; 10]) };
    let error = unpack(&mut endless(&read), Compression::None, &expected, &mut io::sink(), SILENT).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Damaged, "the artifact is longer than its 10 bytes"));
    assert!(read.into_inner() <= MIB as u64);
}

/// Runs a stock tool over an artifact.
#[allow(clippy::disallowed_types, reason = "a test that runs stock tools, not our children")]
fn stock(tool: &[&str], artifact: &[u8]) -> Vec<u8> {
    use std::process::{Command, Stdio};
    let mut command = Command::new(tool[0]);
    let child = command.args(&tool[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{} must be installed for this test: {error}", tool[0]));
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(artifact).unwrap());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{tool:?}");
        output.stdout
    })
}

#[test]
fn stock_tools_read_every_artifact() {
    const PYTHON: &str = "import gzip, shutil, sys; shutil.copyfileobj(gzip.open(sys.stdin.buffer), sys.stdout.buffer)";
    let gzip: &[&[&str]] = &[&["gunzip"], &["zcat"], &["gzip", "-dc"], &["python3", "-c", PYTHON]];
    let zstd: &[&[&str]] = &[&["zstd", "-dc"]];
    for (kind, tools) in [(Compression::Gzip(6), gzip), (Compression::Zstd(3), zstd)] {
        for content in [Vec::new(), compressible(1), mixed()] {
            let (artifact, _) = packed(kind, &content);
            for tool in tools {
                assert!(stock(tool, &artifact) == content, "{tool:?} of {} bytes", content.len());
            }
        }
    }
}

#[test]
fn what_stock_tools_write_is_read_too() {
    let content = mixed();
    let tools: [(_, &[&str]); 2] = [(Compression::Gzip(6), &["gzip", "-c"]), (Compression::Zstd(3), &["zstd", "-c"])];
    for (kind, tool) in tools {
        let artifact = stock(tool, &content);
        let expected = Expected { artifact: digested(&artifact), content: digested(&content) };
        assert!(unpacked(kind, &artifact, &expected).unwrap() == content, "{kind:?}");
    }
}

#[test]
fn an_output_that_stands_still_holds_no_other_pipeline_up() {
    // One thread compresses for all.
    let pool = Pool::new(NonZeroUsize::MIN).unwrap();
    let (go, waits) = channel::<()>();
    let content = compressible(12 * MIB);
    thread::scope(|scope| {
        let (pool, content) = (&pool, &content);
        let stuck = scope.spawn(move || {
            let mut output = WriteBy(move |bytes: &[u8]| {
                // Until the sender is gone.
                let _ = waits.recv();
                Ok(bytes.len())
            });
            pack(&mut &content[..], Compression::Gzip(6), pool, &mut output, SILENT).unwrap()
        });
        for kind in [Compression::None, Compression::Zstd(3), Compression::Gzip(6)] {
            let passed = pack(&mut &content[..], kind, pool, &mut io::sink(), SILENT).unwrap();
            assert_eq!(passed.content, digested(content), "{kind:?}");
        }
        assert!(!stuck.is_finished());
        drop(go);
        assert_eq!(stuck.join().unwrap().content, digested(content));
    });
}
