//! Whole trees of files: looked through and removed, whatever stands in them. No symbolic link is followed, and no
//! path is given to the system whole: trees that tar unpacks may have longer ones than it takes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::{Cancel, files};
use crate::error::{Error, Kind, Result};

/// Calls `each` for a directory and for all that is in it, with what the system says of it. Directories that their owner
/// closed are opened meanwhile.
pub fn walk(root: &Path, cancel: &Cancel, each: &mut dyn FnMut(&Stat)) -> Result<()> {
    let failed = |errno: Errno| cannot("look through", root, errno);
    let found = statat(CWD, root, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let mut opened = Opened::default();
    opened.open(CWD, root.as_os_str().as_bytes(), &found).map_err(failed)?;
    let walked = openat(CWD, root, DIRECTORY, Mode::empty()).map_err(failed).and_then(|top| {
        each(&found);
        let mut inside = Opened::default();
        let walked = walk_below(&top, cancel, &mut inside, each).map_err(|error| match error {
            Stopped::Cancelled(error) => error,
            Stopped::Failed(errno) => failed(errno),
        });
        walked.and(inside.close(top).map_err(failed))
    });
    walked.and(opened.close(CWD).map_err(failed))
}

enum Stopped {
    Cancelled(Error),
    Failed(Errno),
}

impl From<Errno> for Stopped {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

fn walk_below(top: &OwnedFd, cancel: &Cancel, opened: &mut Opened, each: &mut dyn FnMut(&Stat)) -> Result<(), Stopped> {
    let mut pending = vec![CString::from(c".")];
    while let Some(directory) = pending.pop() {
        let inside = openat(top, &directory, DIRECTORY, Mode::empty())?;
        for name in names(&inside)? {
            cancel.check().map_err(Stopped::Cancelled)?;
            let found = statat(&inside, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            each(&found);
            if is_directory(&found) {
                let path = join(&directory, &name);
                opened.open(top, path.as_bytes(), &found)?;
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// Directories that were closed to their owner, and are open for a while.
#[derive(Default)]
struct Opened(Vec<(CString, Mode)>);

impl Opened {
    fn open(&mut self, above: impl AsFd, path: &[u8], found: &Stat) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(found.st_mode);
        if mode.contains(Mode::RWXU) || files::is_root() {
            return Ok(());
        }
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        chmodat(above, &path, mode | Mode::RWXU, AtFlags::empty())?;
        self.0.push((path, mode));
        Ok(())
    }

    /// The deepest first, as those below can't be reached afterwards.
    fn close(self, above: impl AsFd) -> rustix::io::Result<()> {
        self.0.into_iter().rev().try_for_each(|(path, mode)| chmodat(&above, &path, mode, AtFlags::empty()))
    }
}

/// Removes a directory and all that is in it. What is not there any more is none of an error.
pub fn remove(root: &Path, cancel: &Cancel) -> Result<()> {
    let failed = |errno: Errno| cannot("remove", root, errno);
    let top = match open_root(root) {
        Err(Errno::NOENT) => return Ok(()),
        top => top.map_err(failed)?,
    };
    let mut pending = vec![CString::from(c".")];
    while let Some(directory) = pending.last() {
        let opened = open_below(&top, directory).map_err(failed)?;
        let mut deeper = Vec::new();
        for name in names(&opened).map_err(failed)? {
            cancel.check()?;
            match unlink_in(&opened, &name) {
                Ok(()) | Err(Errno::NOENT) => {}
                // What POSIX says of a directory, and what Linux says.
                Err(Errno::PERM | Errno::ISDIR) if is_directory_at(&opened, &name) => deeper.push(join(directory, &name)),
                Err(error) => return Err(failed(error)),
            }
        }
        if deeper.is_empty() {
            let directory = pending.pop().unwrap_or_default();
            if directory.as_c_str() != c"." {
                remove_empty(&top, &directory).map_err(failed)?;
            }
        }
        pending.extend(deeper);
    }
    drop(top);
    match std::fs::remove_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new(Kind::Internal, format!("can't remove {}", root.display())).source(error))
        }
        _ => Ok(()),
    }
}

fn cannot(what: &str, root: &Path, errno: Errno) -> Error {
    Error::new(Kind::Internal, format!("can't {what} {}", root.display())).source(io::Error::from(errno))
}

fn is_directory(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
}

fn is_directory_at(parent: &OwnedFd, name: &CStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| is_directory(&found))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_root(root: &Path) -> rustix::io::Result<OwnedFd> {
    match openat(CWD, root, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(CWD, root, Mode::RWXU, AtFlags::empty())?;
            openat(CWD, root, DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
}

/// Opens a directory for all that its owner may do.
fn open_below(top: &OwnedFd, directory: &CStr) -> rustix::io::Result<OwnedFd> {
    match openat(top, directory, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // The directory above is open by now: it was read.
            chmodat(top, directory, Mode::RWXU, AtFlags::empty())?;
            openat(top, directory, DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
}

/// Removes an entry, of a directory that was closed to changes too.
fn unlink_in(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(parent, Mode::RWXU)?;
            unlinkat(parent, name, AtFlags::empty())
        }
        result => result,
    }
}

fn remove_empty(top: &OwnedFd, directory: &CStr) -> rustix::io::Result<()> {
    let removed = || match unlinkat(top, directory, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    };
    match removed() {
        Err(Errno::ACCESS) => {
            let above = CString::new([directory.to_bytes(), b"/.."].concat()).unwrap_or_default();
            chmodat(top, &above, Mode::RWXU, AtFlags::empty())?;
            removed()
        }
        result => result,
    }
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            found.push(entry.file_name().to_owned());
        }
    }
    Ok(found)
}

fn join(directory: &CStr, name: &CStr) -> CString {
    // Neither holds a NUL.
    CString::new([directory.to_bytes(), b"/", name.to_bytes()].concat()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::host::cancel::Reason;

    #[test]
    fn a_tree_goes_whole_and_nothing_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let (tree, precious) = (home.path().join("tree"), home.path().join("precious"));
        fs::create_dir_all(tree.join("a/closed/below")).unwrap();
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "").unwrap();
        symlink(&precious, tree.join("a/link")).unwrap();
        fs::write(tree.join("a/closed/below/file"), "").unwrap();
        for (path, mode) in [("a/closed/below", 0o000), ("a/closed", 0o500), ("a", 0o555), ("", 0o555)] {
            fs::set_permissions(tree.join(path), Permissions::from_mode(mode)).unwrap();
        }
        let cancel = Cancel::new().unwrap();
        let mut seen = 0;
        walk(&tree, &cancel, &mut |_| seen += 1).unwrap();
        assert_eq!(seen, 6);
        assert_eq!(fs::metadata(tree.join("a/closed")).unwrap().permissions().mode() & 0o777, 0o500);
        remove(&tree, &cancel).unwrap();
        remove(&tree, &cancel).unwrap();
        assert!(!tree.exists() && precious.join("file").exists());
    }

    #[test]
    fn a_removal_ends_with_its_token() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        let cancel = Cancel::new().unwrap();
        cancel.cancel(Reason::Signal(15));
        assert_eq!(remove(home.path(), &cancel).unwrap_err().kind(), Kind::Interrupted);
        assert!(home.path().join("file").exists());
    }
}
