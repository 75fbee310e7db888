//! Tars made by real programs and by hand, read by us and by them.

pub(in crate::source::volume) mod forge;
mod forged;
mod mutated;
mod real;

use std::path::Path;
use std::process::{Output, Stdio};

use super::*;

/// What was told of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    path: Vec<u8>,
    kind: MemberKind,
    link: Vec<u8>,
    bytes: u64,
    stored: u64,
    mode: u32,
    owner: (u64, u64),
    sparse: bool,
    extended: bool,
    pieces: Vec<Part>,
    ended: bool,
}

/// What a file's content is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Data(Vec<u8>),
    Hole(u64),
}

impl Told {
    /// Its length by what came.
    fn length(&self) -> u64 {
        let lengths = self.pieces.iter().map(|part| match part {
            Part::Data(bytes) => bytes.len() as u64,
            Part::Hole(bytes) => *bytes,
        });
        lengths.sum()
    }
}

/// Keeps all that it is told.
#[derive(Debug, Default)]
pub(super) struct Recorder(Vec<Told>);

impl Recorder {
    fn current(&mut self) -> &mut Told {
        self.0.last_mut().filter(|told| !told.ended).expect("content of no member")
    }
}

impl Visitor for Recorder {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        assert!(self.0.last().is_none_or(|told| told.ended), "a member within another");
        self.0.push(Told {
            path: member.path.to_vec(),
            kind: member.kind,
            link: member.link.to_vec(),
            bytes: member.bytes,
            stored: member.stored,
            mode: member.mode,
            owner: (member.uid, member.gid),
            sparse: member.sparse,
            extended: member.extended,
            pieces: Vec::new(),
            ended: false,
        });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        assert!(!bytes.is_empty());
        match self.current().pieces.last_mut() {
            Some(Part::Data(before)) => before.extend_from_slice(bytes),
            _ => self.current().pieces.push(Part::Data(bytes.to_vec())),
        }
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> Result<()> {
        assert!(bytes > 0);
        self.current().pieces.push(Part::Hole(bytes));
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.current().ended = true;
        Ok(())
    }
}

/// Reads a tar in pieces of this size; it must be whole.
pub(super) fn read_in(tar: &[u8], size: usize) -> Result<Vec<Told>> {
    let (mut members, mut recorder) = (Members::default(), Recorder::default());
    for piece in tar.chunks(size) {
        members.feed(piece, &mut recorder)?;
    }
    if !members.is_complete() {
        return Err(Error::new(Kind::Damaged, "no end"));
    }
    Ok(recorder.0)
}

/// Reads a tar that is right, in all sorts of pieces.
pub(super) fn read(tar: &[u8]) -> Vec<Told> {
    let told = read_in(tar, usize::MAX).unwrap();
    for size in [1, 7, 511, 512, 513, 64 << 10] {
        assert!(read_in(tar, size).unwrap() == told, "in pieces of {size} bytes");
    }
    told
}

/// Why a tar is not read.
pub(super) fn refused(tar: &[u8]) -> String {
    let error = read_in(tar, usize::MAX).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    error.to_string()
}

/// Runs a program in a directory, as a backup would, with this on its standard input.
#[allow(clippy::disallowed_types, reason = "a test that runs stock tools, not our children")]
pub(in crate::source::volume) fn run(directory: &Path, program: &str, arguments: &[&str], input: &[u8]) -> Output {
    use std::io::Write as _;
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(directory).env("LC_ALL", "C").env_remove("TAR_OPTIONS");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program may end before it has read all.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    })
}

/// The tar that a program writes to its standard output.
pub(in crate::source::volume) fn made(directory: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = run(directory, program, arguments, b"");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The names of a tar as GNU tar lists them, a line end behind each, and whether it found nothing amiss.
pub(super) fn listed(tar: &[u8]) -> (Vec<u8>, bool) {
    let output = run(Path::new("/"), "tar", &["-t", "-f", "-", "--quoting-style=literal"], tar);
    (output.stdout, output.status.success())
}

/// The same by what was told.
pub(super) fn lines(told: &[Told]) -> Vec<u8> {
    told.iter().flat_map(|told| [&told.path, &b"\n"[..]].concat()).collect()
}

/// Numbers that look random, the same ones at every run (xorshift).
pub(in crate::source::volume) struct Random(u64);

impl Random {
    pub(in crate::source::volume) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(in crate::source::volume) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(in crate::source::volume) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}
