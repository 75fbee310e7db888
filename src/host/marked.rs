//! Directories of ours that a killed run leaves behind: private, and known as ours by a file in them, whose lock we hold as
//! long as we live. What has the file and not the lock is nobody's any more.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::files;

/// The file by which a directory is known as ours, and whose lock says that its run lives.
const MARK_FILE: &str = "db-backup-tools.lock";

/// What kind of directory: how its name begins, and what its mark does.
#[derive(Debug, Clone, Copy)]
pub struct Sort {
    /// How its name begins; random characters follow.
    pub prefix: &'static str,
    /// How the text of its mark begins.
    pub mark: &'static str,
}

/// A private directory of this run. It stays where it is until somebody removes it.
#[derive(Debug)]
pub struct Marked {
    path: PathBuf,
    /// Locked.
    mark: File,
}

impl Marked {
    /// Makes one; of this user, where one is given.
    pub fn create_in(base: &Path, sort: Sort, user: Option<(u32, u32)>) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix(sort.prefix).permissions(Permissions::from_mode(0o700)).tempdir_in(base)?;
        let mut mark = files::create_private(&made.path().join(MARK_FILE))?;
        // Locked before it is known as ours by what it holds.
        files::try_lock(&mark)?;
        writeln!(mark, "{}, made by process {}", sort.mark, std::process::id())?;
        if let Some((uid, gid)) = user {
            chown(made.path(), Some(uid), Some(gid))?;
        }
        Ok(Self { path: made.keep(), mark })
    }

    /// Those in a directory that this user's killed runs left; they are ours from now on.
    pub fn abandoned_in(base: &Path, sort: Sort, uid: u32) -> impl Iterator<Item = Self> {
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
        let named = entries.filter(move |entry| entry.file_name().as_encoded_bytes().starts_with(sort.prefix.as_bytes()));
        named.filter_map(move |entry| Self::abandoned(entry.path(), sort, uid))
    }

    fn abandoned(path: PathBuf, sort: Sort, uid: u32) -> Option<Self> {
        let found = std::fs::symlink_metadata(&path).ok()?;
        if !found.is_dir() || found.uid() != uid {
            return None;
        }
        let mut mark = files::open_regular(&path.join(MARK_FILE)).ok()?;
        let mut text = String::new();
        (&mut mark).take(200).read_to_string(&mut text).ok()?;
        (text.starts_with(sort.mark) && files::try_lock(&mark).ok()?).then_some(Self { path, mark })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An open file in it: of its file system.
    pub fn file(&self) -> &File {
        &self.mark
    }
}
