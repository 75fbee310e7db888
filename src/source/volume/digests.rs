//! Digests of what files hold: of the archive's as it passes, and of those that were unpacked from it. They wait in a file
//! without a name, as a volume may hold millions.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, chmodat, open, seek, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::guard::shown;
use super::members::{Member, MemberKind, Visitor};
use crate::error::{Error, Kind, Result};
use crate::host::{Context, files};

/// Names of files that differ, which a message shows.
const SHOWN: usize = 20;
/// What is read at once.
const BLOCK: usize = 1 << 18;
/// How much is passed over where it is zeros.
const PART: u64 = 1 << 16;

/// The digests of an archive's files, in their order.
pub(super) struct Digests {
    spool: BufWriter<File>,
    /// That of the file which passes.
    current: Option<Content>,
    path: Vec<u8>,
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub files: u64,
    /// One clause each.
    pub differences: Vec<String>,
}

impl Digests {
    /// None yet; they are kept on this directory's file system.
    pub(super) fn begin(directory: &Path) -> Result<Self> {
        let spool = tempfile::tempfile_in(directory).map_err(|error| spool_failed(&error))?;
        Ok(Self { spool: BufWriter::new(spool), current: None, path: Vec::new() })
    }

    /// Reads every file of them again, below this directory.
    pub(super) fn compare(self, root: &Path, cx: &Context) -> Result<Compared> {
        let mut spool = self.spool.into_inner().map_err(|error| spool_failed(error.error()))?;
        spool.rewind().map_err(|error| spool_failed(&error))?;
        let mut spool = BufReader::new(spool);
        let (mut compared, mut differ) = (Compared::default(), 0_usize);
        let mut block = vec![0; BLOCK];
        let unpacked = Unpacked::open(root)?;
        while let Some(archived) = Entry::read(&mut spool).map_err(|error| spool_failed(&error))? {
            compared.files += 1;
            let name = archived.name();
            let difference = match digest_of(unpacked.file(&archived.path), &mut block, cx)? {
                Ok((digest, bytes)) if digest == archived.digest && bytes == archived.bytes => continue,
                Ok(_) => format!("{name} holds something else than was archived"),
                // What is there instead, or not at all, is the archive's fault; that it can't be read is this machine's.
                Err(error) if is_not_there(&error) => format!("{name} is not there: {error}"),
                Err(error) => {
                    return Err(Error::new(Kind::Internal, format!("{name}, which was unpacked, can't be read"))
                        .hint(
                            "look at the disk where drills unpack: `drill: { directory: ... }` of the target, else `state_dir:`",
                        )
                        .source(error)
                        .step("digests"));
                }
            };
            differ += 1;
            if differ <= SHOWN {
                compared.differences.push(difference);
            }
        }
        if differ > SHOWN {
            compared.differences.push(format!("{} more files hold something else than was archived", differ - SHOWN));
        }
        Ok(compared)
    }
}

impl Visitor for Digests {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        self.current = (member.kind == MemberKind::File).then(Content::default);
        self.path.clear();
        self.path.extend_from_slice(member.path);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.data(bytes);
        }
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.hole(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let (digest, bytes) = current.finish();
        let entry = Entry { digest, bytes, path: std::mem::take(&mut self.path) };
        entry.write(&mut self.spool).map_err(|error| spool_failed(&error))
    }
}

/// The digest of a file's content: of the parts of it that are not all zeros, each behind its place. So it is the same however
/// the content comes, and a hole of terabytes takes no time.
#[derive(Default)]
struct Content {
    digest: Sha256,
    /// How much has come.
    bytes: u64,
    /// The part that is being gathered; nothing while all of it was zeros.
    part: Vec<u8>,
}

impl Content {
    /// Bytes of the part that are still to come.
    fn room(&self) -> u64 {
        PART - self.bytes % PART
    }

    fn data(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(usize::try_from(self.room()).map_or(rest.len(), |room| room.min(rest.len())));
            if !self.part.is_empty() || piece.iter().any(|byte| *byte != 0) {
                self.part.resize(usize::try_from(self.bytes % PART).unwrap_or(0), 0);
                self.part.extend_from_slice(piece);
            }
            self.came(piece.len() as u64);
            rest = behind;
        }
    }

    fn hole(&mut self, bytes: u64) {
        let within = bytes.min(self.room());
        self.came(within);
        // Parts that are holes as a whole leave no trace.
        self.bytes += bytes - within;
    }

    /// So much more has come of the part, which may be whole by it.
    fn came(&mut self, bytes: u64) {
        let whole = bytes == self.room();
        self.bytes += bytes;
        if whole {
            self.end_part(self.bytes - PART);
        }
    }

    fn end_part(&mut self, began: u64) {
        if self.part.is_empty() {
            return;
        }
        self.part.resize(usize::try_from(self.bytes - began).unwrap_or(0), 0);
        self.digest.update(began.to_le_bytes());
        self.digest.update(&self.part);
        self.part.clear();
    }

    fn finish(mut self) -> ([u8; 32], u64) {
        self.end_part(self.bytes - self.bytes % PART);
        (self.digest.finalize().into(), self.bytes)
    }
}

struct Entry {
    digest: [u8; 32],
    bytes: u64,
    path: Vec<u8>,
}

impl Entry {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.digest)?;
        to.write_all(&self.bytes.to_le_bytes())?;
        to.write_all(&(self.path.len() as u64).to_le_bytes())?;
        to.write_all(&self.path)
    }

    /// `None` at the end.
    fn read(from: &mut BufReader<File>) -> io::Result<Option<Self>> {
        use std::io::BufRead as _;
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (mut digest, mut bytes, mut length) = ([0; 32], [0; 8], [0; 8]);
        from.read_exact(&mut digest)?;
        from.read_exact(&mut bytes)?;
        from.read_exact(&mut length)?;
        let mut path = Vec::new();
        from.take(u64::from_le_bytes(length)).read_to_end(&mut path)?;
        Ok(Some(Self { digest, bytes: u64::from_le_bytes(bytes), path }))
    }

    fn name(&self) -> String {
        shown(&self.path)
    }
}

fn spool_failed(error: &io::Error) -> Error {
    Error::new(Kind::Internal, format!("the files' digests can't be kept: {error}"))
        .hint("make room where drills unpack: `drill: { directory: ... }` of the target, else `state_dir:`")
        .step("digests")
}

/// Whether nothing of the name is there, or no regular file.
fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput)
}

/// A file's digest and length. The outer error is a cancel.
fn digest_of(file: io::Result<File>, block: &mut [u8], cx: &Context) -> Result<io::Result<([u8; 32], u64)>> {
    let mut file = match file {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let mut content = Content::default();
    loop {
        cx.cancel.check()?;
        match read_on(&mut file, &mut content, block) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(content.finish())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Reads more of a file, or passes over a hole. False at its end.
fn read_on(file: &mut File, content: &mut Content, block: &mut [u8]) -> io::Result<bool> {
    let at = content.bytes;
    let data = match seek(&*file, SeekFrom::Data(at)) {
        Ok(data) => data.max(at),
        // There is no more data, or the file system knows no holes.
        Err(Errno::NXIO) => file.metadata()?.len().max(at),
        Err(_) => at,
    };
    content.hole(data - at);
    file.seek(io::SeekFrom::Start(data))?;
    let count = file.read(block)?;
    content.data(&block[..count]);
    Ok(count > 0)
}

/// The directory that was unpacked into. No path is given to the system whole: with the directory's own it may be too long.
struct Unpacked<'a> {
    root: &'a Path,
    top: OwnedFd,
}

impl<'a> Unpacked<'a> {
    fn open(root: &'a Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(root, flags, Mode::empty()) {
            Ok(top) => Ok(Self { root, top }),
            Err(errno) => Err(Error::new(Kind::Internal, format!("can't open {}", root.display()))
                .source(io::Error::from(errno))
                .step("digests")),
        }
    }

    /// Opens one that its owner may have closed to itself, as may the directories above: they are a drill's own.
    fn file(&self, path: &[u8]) -> io::Result<File> {
        let path = Path::new(OsStr::from_bytes(path));
        match files::open_regular_below(&self.top, path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
                above.reverse();
                above.iter().try_for_each(|directory| self.unclose(directory))?;
                chmodat(&self.top, path, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
                files::open_regular_below(&self.top, path)
            }
            opened => opened,
        }
    }

    fn unclose(&self, directory: &Path) -> io::Result<()> {
        // What is closed can't be reached by itself.
        if matches!(directory.as_os_str().as_bytes(), b"" | b".") {
            return self.unclose_root();
        }
        let found = statat(&self.top, directory, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_uid == files::own_uid() && !Mode::from_raw_mode(found.st_mode).contains(Mode::RUSR | Mode::XUSR) {
            chmodat(&self.top, directory, Mode::RWXU, AtFlags::empty())?;
        }
        Ok(())
    }

    fn unclose_root(&self) -> io::Result<()> {
        let found = std::fs::symlink_metadata(self.root)?;
        if found.uid() == files::own_uid() && found.mode() & 0o500 != 0o500 {
            std::fs::set_permissions(self.root, std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[(&[u8], u64)]) -> ([u8; 32], u64) {
        let mut content = Content::default();
        for (data, hole) in pieces {
            content.data(data);
            content.hole(*hole);
        }
        content.finish()
    }

    #[test]
    fn a_digest_is_of_the_content_however_it_comes() {
        let mut whole = vec![0_u8; 300_000];
        whole[100_000..100_003].copy_from_slice(b"abc");
        whole[200_000] = b'd';
        let expected = of(&[(&whole, 0)]);
        assert_eq!(expected.1, 300_000);
        for size in [1, 7, 4096, 65_535, 65_536, 65_537, 250_000] {
            let pieces: Vec<(&[u8], u64)> = whole.chunks(size).map(|piece| (piece, 0)).collect();
            assert_eq!(of(&pieces), expected, "{size}");
        }
        assert_eq!(of(&[(b"", 100_000), (b"abc", 99_997), (b"d", 99_999)]), expected);
        assert_eq!(of(&[(&whole[..65_537], 34_463), (b"abc", 0), (&whole[100_003..], 0)]), expected);
        // Every other content has another one.
        let others: [&[(&[u8], u64)]; 6] = [
            &[(b"", 100_000), (b"abc", 99_997), (b"d", 100_000)],
            &[(b"", 100_001), (b"abc", 99_996), (b"d", 99_999)],
            &[(b"", 100_000 + PART), (b"abc", 99_997), (b"d", 99_999 - PART)],
            &[(b"", 100_000), (b"abd", 99_997), (b"d", 99_999)],
            &[(b"", 100_000), (b"abc", 199_997)],
            &[(b"", 300_000)],
        ];
        for other in others {
            assert_ne!(of(other), expected);
        }
    }

    #[test]
    fn a_sparse_files_digest_is_that_of_its_content() {
        use std::os::unix::fs::FileExt as _;
        let home = tempfile::tempdir().unwrap();
        let file = File::create(home.path().join("file")).unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"data", 5_000_000_000).unwrap();
        let unpacked = Unpacked::open(home.path()).unwrap();
        let found = digest_of(unpacked.file(b"./file"), &mut vec![0; BLOCK], &Context::for_tests()).unwrap().unwrap();
        assert_eq!(found, of(&[(b"", 5_000_000_000), (b"data", (1 << 40) - 5_000_000_004)]));
    }
}
