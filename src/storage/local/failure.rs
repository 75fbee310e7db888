//! What a failed system call means for a backup: whether it may pass, and what to do. It must name
//! the path, and never guess at success.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::{Error, Kind};

/// An error from a failed call: `can't write PATH: No space left on device`.
pub(super) fn failed(error: io::Error, doing: &str, path: &Path) -> Error {
    let cause = format!("{doing} {}", path.display());
    let (kind, hint) = meaning(&error);
    let error = Error::new(kind, cause).source(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn meaning(error: &io::Error) -> (Kind, Option<String>) {
    let hint = |text: &str| Some(text.to_owned());
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => (Kind::StorageDenied, hint("the disk is full: free some space, or let `prune` delete old backups")),
        Some(Errno::DQUOT) => {
            (Kind::StorageDenied, hint("the disk quota is used up: raise it, or let `prune` delete old backups"))
        }
        Some(Errno::ROFS) => (
            Kind::StorageDenied,
            hint("the file system is read-only: remount it; the kernel's log says why, where a disk error did it"),
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            (Kind::StorageDenied, Some(format!("let user {} read and write there, or run as another user", geteuid().as_raw())))
        }
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR) => {
            (Kind::StorageDenied, hint("something else stands where a backup's file or directory belongs: move it away"))
        }
        Some(Errno::NAMETOOLONG) => (Kind::StorageDenied, None),
        Some(Errno::IO) => (Kind::Storage, hint("the disk may be failing: look into the kernel's log")),
        Some(Errno::NOENT) => (Kind::Missing, None),
        Some(Errno::EXIST) => (Kind::Exists, None),
        Some(_) => (Kind::Storage, None),
        // Not the kernel's word but that of `host::files`: a link or a pipe in a file's place.
        None => match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => {
                (Kind::StorageDenied, hint("links and special files below a storage are not followed: put the file itself there"))
            }
            _ => (Kind::Storage, None),
        },
    }
}

/// A refusal: `PATH is not a directory`.
pub(super) fn denied(path: &Path, what: &str) -> Error {
    Error::new(Kind::StorageDenied, format!("{} {what}", path.display()))
        .hint("links and special files below a storage are not followed: put the real one there")
}

/// There is no storage: not the same as an empty one.
pub(super) fn absent_root(root: &Path) -> Error {
    Error::new(Kind::Missing, format!("the directory {} is not there", root.display()))
        .hint("`backup` makes it; if it held backups, find out where it went: is its disk mounted, is `path:` right?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_kind_and_its_own_remedy() {
        let of = |errno: Errno| failed(errno.into(), "can't write", Path::new("/backups/x"));
        let denied = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::NOTDIR];
        let hints: std::collections::BTreeSet<_> =
            denied.iter().map(|errno| of(*errno).hint_text().unwrap().to_owned()).collect();
        assert_eq!(hints.len(), denied.len());
        assert!(denied.iter().all(|errno| of(*errno).kind() == Kind::StorageDenied));
        let kinds = [Errno::IO, Errno::STALE, Errno::NOENT, Errno::EXIST].map(|errno| of(errno).kind());
        assert_eq!(kinds, [Kind::Storage, Kind::Storage, Kind::Missing, Kind::Exists]);
        assert_eq!(of(Errno::NOSPC).to_string(), "can't write /backups/x: No space left on device (os error 28)");
    }
}
