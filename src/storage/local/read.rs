//! Reading and looking at one file. It follows no link, waits for no pipe, and never takes a file
//! that was cut for one that has ended.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::files;
use crate::names::Key;
use crate::storage::ObjectMeta;
use crate::storage::local::failure::{denied, failed};

/// A file's bytes, as many as it had when it was opened.
pub(super) struct LocalRead {
    file: File,
    path: PathBuf,
    left: u64,
    cx: Context,
}

impl LocalRead {
    /// Opens a file at this byte offset.
    pub(super) fn open(path: &Path, from: u64, cx: &Context) -> Result<Self> {
        let cannot = |error| failed(error, "can't read", path);
        let (mut file, bytes) = files::open_sized_below(CWD, path).map_err(cannot)?;
        let Some(left) = bytes.checked_sub(from) else {
            return Err(Error::new(Kind::Damaged, format!("{} has only {bytes} bytes, {from} were expected", path.display())));
        };
        if from > 0 {
            file.seek(SeekFrom::Start(from)).map_err(cannot)?;
        }
        Ok(Self { file, path: path.to_owned(), left, cx: cx.clone() })
    }
}

impl Read for LocalRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cx.cancel.check()?;
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if room == 0 {
            return Ok(0);
        }
        let read = match self.file.read(&mut buffer[..room]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            other => other.map_err(|error| failed(error, "can't read", &self.path))?,
        };
        if read == 0 {
            return Err(cut(&self.path, self.left).into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn cut(path: &Path, bytes: u64) -> Error {
    Error::new(Kind::Damaged, format!("{} was cut while it was read: {bytes} bytes are gone", path.display()))
}

/// The whole of a small file below an open directory, or its first `most` bytes. `path` is where it is, for a person.
pub(super) fn small(top: BorrowedFd<'_>, key: &Key, most: u64, path: &dyn Fn() -> PathBuf) -> Result<Vec<u8>> {
    let cannot = |error| failed(error, "can't read", &path());
    let (mut file, bytes) = files::open_sized_below(top, Path::new(key.as_str())).map_err(cannot)?;
    let wanted = usize::try_from(bytes.min(most)).unwrap_or(usize::MAX);
    let mut read = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match file.read(&mut read[filled..]) {
            Ok(0) => return Err(cut(&path(), bytes - filled as u64)),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot(error)),
        }
    }
    Ok(read)
}

/// A look at a file below an open directory; `None` when there is none. `path` is where it is, for a person.
pub(super) fn stat(top: BorrowedFd<'_>, key: &Key, path: &dyn Fn() -> PathBuf) -> Result<Option<ObjectMeta>> {
    stat_at(top, Path::new(key.as_str()), key, path)
}

/// The same of a file at this path.
pub(super) fn stat_path(key: &Key, path: &Path) -> Result<Option<ObjectMeta>> {
    stat_at(CWD, path, key, &|| path.to_owned())
}

fn stat_at(top: BorrowedFd<'_>, below: &Path, key: &Key, path: &dyn Fn() -> PathBuf) -> Result<Option<ObjectMeta>> {
    let found = match statat(top, below, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error.into(), "can't look at", &path())),
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let bytes = u64::try_from(found.st_size).ok();
            Ok(Some(ObjectMeta { key: key.clone(), bytes, modified: modified(&found) }))
        }
        FileType::Symlink => Err(denied(&path(), "is a symbolic link, not a regular file")),
        _ => Err(denied(&path(), "is not a regular file")),
    }
}

/// A file's last change; `None` where no calendar has it.
pub(super) fn modified(found: &Stat) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0))
}
