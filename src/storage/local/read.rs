//! Reading and looking at one file. It follows no link, waits for no pipe, and never takes a file
//! that was cut for one that has ended.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

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
        let mut file = files::open_regular(path).map_err(cannot)?;
        let bytes = file.metadata().map_err(cannot)?.len();
        let Some(left) = bytes.checked_sub(from) else {
            return Err(Error::new(Kind::Damaged, format!("{} has only {bytes} bytes, {from} were expected", path.display())));
        };
        file.seek(SeekFrom::Start(from)).map_err(cannot)?;
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
            let cause = format!("{} was cut while it was read: {} bytes are gone", self.path.display(), self.left);
            return Err(Error::new(Kind::Damaged, cause).into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// A look at a file; `None` when there is none.
pub(super) fn stat(key: &Key, path: &Path) -> Result<Option<ObjectMeta>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {
            Ok(Some(ObjectMeta { key: key.clone(), bytes: Some(found.len()), modified: modified(&found) }))
        }
        Ok(found) if found.is_symlink() => Err(denied(path, "is a symbolic link, not a regular file")),
        Ok(_) => Err(denied(path, "is not a regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error, "can't look at", path)),
    }
}

/// A file's last change; `None` where no calendar has it.
pub(super) fn modified(found: &Metadata) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0))
}
