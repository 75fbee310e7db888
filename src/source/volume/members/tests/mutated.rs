//! Tars with random harm: read without a panic, and never otherwise than GNU tar reads them.

use super::forge::{Block, link, long, member, padded, pax, tar};
use super::*;

/// A tar with a little of everything.
fn seeds() -> Vec<Vec<u8>> {
    let sparse: [(&str, &[u8]); 4] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"s"), ("GNU.sparse.realsize", b"2000")];
    let mapped: [(&str, &[u8]); 3] = [("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"8,1")];
    let file = || member(b'0', b"file", b"content");
    vec![
        tar(&[
            member(b'5', b"./", b""),
            file(),
            link(b'2', b"soft", b"file"),
            link(b'1', b"hard", b"file"),
            member(b'6', b"f", b""),
        ]),
        tar(&[pax(b'g', &[("uid", b"7")]), pax(b'x', &[("path", b"a/b"), ("mtime", b"1.5")]), file(), file()]),
        tar(&[pax(b'x', &sparse), member(b'0', b"x", &[padded(b"2\n512\n512\n2000\n0\n"), vec![b'd'; 512]].concat()), file()]),
        tar(&[pax(b'x', &mapped), member(b'0', b"x", b"d"), file()]),
        tar(&[
            long(b'L', &[b'n'; 120]),
            Block::new(b'0', b"short", 0).gnu().sealed(),
            Block::new(b'S', b"s", 512).sparse(1024, &[(512, 512)]).sealed(),
            vec![b'd'; 512],
            long(b'K', b"to"),
            Block::new(b'2', b"soft", 0).gnu().sealed(),
        ]),
    ]
}

/// Does some harm, and then sets most checksums right, so that it is not that alone which is seen.
fn harm(tar: &mut Vec<u8>, random: &mut Random) {
    const BYTES: &[u8] = b"\0 /.0127=,\n\xff\x80SLKxg5";
    const FIELDS: [usize; 11] = [0, 124, 135, 156, 157, 257, 263, 345, 386, 482, 483];
    for _ in 0..=random.below(3) {
        let blocks = tar.len() / 512;
        let at = random.below(tar.len());
        let block = random.below(blocks) * 512;
        match random.below(8) {
            0 => tar[at] ^= 1 << random.below(8),
            1 => tar[at] = BYTES[random.below(BYTES.len())],
            2 => {
                let copied = tar[block..block + 512].to_vec();
                let to = random.below(blocks) * 512;
                tar.splice(to..to, copied);
            }
            3 if blocks > 1 => drop(tar.drain(block..block + 512)),
            4 if at > 512 => tar.truncate(at),
            // Into a header's fields rather than anywhere.
            _ => tar[block + FIELDS[random.below(FIELDS.len())] + random.below(4)] = BYTES[random.below(BYTES.len())],
        }
    }
    if random.below(4) == 0 {
        return;
    }
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    for block in tar.chunks_exact_mut(512).filter(|block| block[136..148] == *b"14000000000\0") {
        let sum = 8 * u32::from(b' ') + sum(&block[..148]) + sum(&block[156..]);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn harmed(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let seeds = seeds();
    let mut tar = seeds[random.below(seeds.len())].clone();
    harm(&mut tar, &mut random);
    tar
}

#[test]
fn no_harm_makes_it_panic_or_read_differently_in_pieces() {
    for seed in 0..4000 {
        let tar = harmed(seed);
        let whole = read_in(&tar, usize::MAX);
        for size in [1, 513] {
            let in_pieces = read_in(&tar, size);
            match (&whole, in_pieces) {
                (Ok(whole), Ok(in_pieces)) => assert!(*whole == in_pieces, "seed {seed}"),
                (Err(whole), Err(in_pieces)) => assert_eq!(whole.to_string(), in_pieces.to_string(), "seed {seed}"),
                (whole, in_pieces) => panic!("seed {seed}: {whole:?}, {in_pieces:?}"),
            }
        }
    }
}

#[test]
fn what_is_read_of_a_harmed_tar_is_what_gnu_tar_reads() {
    let mut compared = 0;
    for seed in 10_000..11_000 {
        let tar = harmed(seed);
        let Ok(told) = read_in(&tar, usize::MAX) else { continue };
        // Whether it finds something else amiss, a time for example, is its own matter.
        assert_eq!(listed(&tar).0, lines(&told), "seed {seed}");
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn garbage_is_no_tar() {
    let mut random = Random::new(42);
    for length in [1, 511, 512, 10_240] {
        let garbage: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        assert!(read_in(&garbage, usize::MAX).is_err());
    }
    assert!(read_in(b"", usize::MAX).is_err());
}
