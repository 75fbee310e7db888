//! How what was unpacked gets the wanted name: by renames alone, none of which replaces anything but an empty directory. What
//! had the name before is kept beside it.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::{
    AtFlags, CWD, RenameFlags, Timespec, Timestamps, XattrFlags, getxattr, listxattr, removexattr, renameat, renameat_with,
    setxattr, utimensat,
};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::host::files;

/// The directory that the check of an ext file system keeps at its root.
pub(super) const LOST_AND_FOUND: &str = "lost+found";
/// No name is longer (NAME_MAX).
const MAX_NAME_LEN: usize = 255;
/// No extended attribute, and no list of their names, is longer (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const LONGEST_ATTRIBUTE: usize = 64 << 10;

/// Gives a directory or a file a name that is free, or an empty directory's, in one step.
pub(super) fn publish_new(from: &Path, to: &Path) -> Result<()> {
    let is_directory = from.is_dir();
    let moved = moving(from, || {
        if is_directory {
            // A rename of a directory replaces nothing but an empty one (rename(2)).
            renameat(CWD, from, CWD, to).map_err(io::Error::from)
        } else {
            files::rename_new(from, to)
        }
    });
    moved.map_err(|error| not_published(to, error))?;
    synced(to)
}

/// Gives it the name that another has, which gets the name `former`, where nothing or an empty directory is.
pub(super) fn publish_instead(from: &Path, to: &Path, former: &Path) -> Result<()> {
    // It waits under the former one's name: so from the moment of the exchange each is where it is looked for,
    // and nothing that removes a scratch place can meet what was there before.
    publish_new(from, former)?;
    match renameat_with(CWD, former, CWD, to, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => two_renames(from, to, former)?,
        Err(errno) => {
            let error = not_published(to, errno.into());
            return Err(match publish_new(former, from) {
                Ok(()) => error,
                Err(_) => error.hint(format!("{} is what was restored; nothing else has changed", former.display())),
            });
        }
    }
    synced(to)
}

/// The same where the file system can't exchange names. Between the two, nothing has the wanted one.
fn two_renames(from: &Path, to: &Path, former: &Path) -> Result<()> {
    publish_new(former, from)?;
    let is_directory = to.is_dir();
    let free = |path: &Path| {
        if is_directory { renameat(CWD, path, CWD, former).map_err(Into::into) } else { files::rename_new(path, former) }
    };
    moving(to, || free(to)).map_err(|error| not_published(to, error))?;
    publish_new(from, to).map_err(|error| match renameat_with(CWD, former, CWD, to, RenameFlags::empty()) {
        Ok(()) => error,
        Err(_) => error.hint(format!("what had its name before is {}: rename it back", former.display())),
    })
}

/// Moves all that is in a directory into one that is empty, and gives that one its mode, owner, times and attributes. For a mount
/// point, which can't be renamed. Not one step: what was moved is moved back where one can't be.
pub(super) fn publish_inside(from: &Path, to: &Path) -> Result<()> {
    let mut moved: Vec<PathBuf> = Vec::new();
    let done = move_all(from, to, &mut moved).and_then(|()| take_after(from, to));
    if let Err(error) = done {
        let failed = not_published(to, error);
        let back = moved.iter().rev().try_for_each(|path| {
            let Some(name) = path.file_name() else { return Ok(()) };
            moving(path, || renameat_with(CWD, path, CWD, from.join(name), RenameFlags::NOREPLACE).map_err(Into::into))
        });
        return Err(match back {
            Ok(()) => failed,
            Err(_) => failed.hint(format!("{} holds a part of what was restored now: empty it, and restore again", to.display())),
        });
    }
    synced(&to.join("."))
}

fn move_all(from: &Path, to: &Path, moved: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let is_there_already = entry.file_name() == LOST_AND_FOUND && new.is_dir() && std::fs::remove_dir(&old).is_ok();
        if is_there_already {
            continue;
        }
        moving(&old, || match renameat_with(CWD, &old, CWD, &new, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if old.is_dir() && !old.is_symlink() => {
                renameat(CWD, &old, CWD, &new).map_err(Into::into)
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => files::rename_new(&old, &new),
            result => result.map_err(Into::into),
        })?;
        moved.push(new);
    }
    Ok(())
}

/// Mode, owner and times of one directory for another.
fn take_after(from: &Path, to: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(from)?;
    let there = std::fs::symlink_metadata(to)?;
    if (found.uid(), found.gid()) != (there.uid(), there.gid()) {
        chown(to, Some(found.uid()), Some(found.gid()))?;
    }
    take_attributes(from, to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(found.mode() & 0o7777))?;
    set_times(to, &found)
}

/// Extended attributes, ACLs among them, and none but these.
fn take_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let names = attributes(from)?;
    for name in attributes(to)?.iter().filter(|name| !names.contains(name)) {
        // What the system keeps of its own, a security label, is not ours to take away.
        let _ = removexattr(to, name.as_c_str());
    }
    for name in &names {
        let mut value = vec![0; LONGEST_ATTRIBUTE];
        let count = getxattr(from, name.as_c_str(), &mut value[..])?;
        let mut there = vec![0; LONGEST_ATTRIBUTE];
        // A label of the system's own may not be ours to set, and is the same where it says the same.
        if getxattr(to, name.as_c_str(), &mut there[..]).is_ok_and(|length| there[..length] == value[..count]) {
            continue;
        }
        setxattr(to, name.as_c_str(), &value[..count], XattrFlags::empty())?;
    }
    Ok(())
}

/// The names of those that a file has.
fn attributes(path: &Path) -> io::Result<Vec<CString>> {
    let mut names = vec![0; LONGEST_ATTRIBUTE];
    let count = match listxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        count => count?,
    };
    Ok(names[..count]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

fn set_times(path: &Path, like: &std::fs::Metadata) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: like.atime(), tv_nsec: like.atime_nsec() },
        last_modification: Timespec { tv_sec: like.mtime(), tv_nsec: like.mtime_nsec() },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Renames something that its owner may have closed to changes: a directory that comes into another one is changed, as
/// its `..` is.
fn moving(path: &Path, rename: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, fchmod, open};
    let found = std::fs::symlink_metadata(path)?;
    let closed = found.is_dir() && found.mode() & 0o200 == 0 && !files::is_root();
    if !closed {
        return rename();
    }
    // By a descriptor, as the name changes.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(found.mode() & 0o7777 | 0o700))?;
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let renamed = rename();
    fchmod(&directory, Mode::from_raw_mode(found.mode()))?;
    renamed
}

fn synced(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    files::sync_dir(directory).map_err(|error| {
        Error::new(Kind::StorageDenied, format!("{} is restored, but its name may not have reached the disk", path.display()))
            .hint("look at the disk: the system's log says what it met")
            .source(error)
            .step("publish")
    })
}

fn not_published(to: &Path, error: io::Error) -> Error {
    let place = to.display();
    let (kind, cause, hint) = match Errno::from_io_error(&error) {
        Some(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => (
            Kind::Refused,
            format!("{place} is not absent or empty any more: something was written there meanwhile"),
            "find out what writes there, and stop it; then restore again".to_owned(),
        ),
        Some(Errno::XDEV | Errno::BUSY) => (
            Kind::Refused,
            format!("{place} can't be renamed: it is in use as a mount point, or of a lower layer of an overlay"),
            format!("move what is in {place} away by hand (mv), then restore again"),
        ),
        _ => (
            Kind::Internal,
            format!("can't give what was restored the name {place}"),
            "look at its owner and permissions".to_owned(),
        ),
    };
    Error::new(kind, cause).hint(hint).source(error).step("publish")
}

/// What is called like this from now on: `uploads.before-20261121_030000Z`.
pub(super) fn beside(place: &Path, word: &str, now: DateTime<Utc>) -> PathBuf {
    let ending = format!(".{word}-{}", now.format("%Y%m%d_%H%M%SZ"));
    let name = place.file_name().unwrap_or_default().as_encoded_bytes();
    let name = &name[..name.len().min(MAX_NAME_LEN - ending.len())];
    let name = [name, ending.as_bytes()].concat();
    place.with_file_name(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name))
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// The commands of a person who wants the former one gone, or back.
pub(super) fn notes(place: &Path, former: &Path, now: DateTime<Utc>) -> Vec<String> {
    let after = beside(place, "after", now);
    let [to, old, new] = [place, former, &after].map(quoted);
    vec![
        format!("what was {} is kept as {}", place.display(), former.display()),
        format!("to remove it: rm -r {old}"),
        format!("to swap back: mv {to} {new} && mv {old} {to}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_one_is_named_after_the_time() {
        let now = "2026-11-21T03:00:00Z".parse().unwrap();
        let place = Path::new("/srv/it's");
        let former = beside(place, "before", now);
        assert_eq!(former, Path::new("/srv/it's.before-20261121_030000Z"));
        assert_eq!(beside(Path::new(&format!("/{}", "x".repeat(255))), "before", now).as_os_str().len(), 256);
        insta::assert_snapshot!(notes(place, &former, now).join("\n"), @r"
        what was /srv/it's is kept as /srv/it's.before-20261121_030000Z
        to remove it: rm -r '/srv/it'\''s.before-20261121_030000Z'
        to swap back: mv '/srv/it'\''s' '/srv/it'\''s.after-20261121_030000Z' && mv '/srv/it'\''s.before-20261121_030000Z' '/srv/it'\''s'
        ");
    }

    #[test]
    fn names_are_swapped_and_nothing_is_lost() {
        let home = tempfile::tempdir().unwrap();
        let [new, live, former] = ["new", "live", "former"].map(|name| home.path().join(name));
        let fill = |path: &Path, text: &str| {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("file"), text).unwrap();
        };
        let text = |path: &Path| std::fs::read_to_string(path.join("file")).unwrap();
        fill(&live, "old");
        for publish in [publish_instead, two_renames_from_the_start] {
            fill(&new, "new");
            publish(&new, &live, &former).unwrap();
            assert_eq!((text(&live), text(&former), new.exists()), ("new".into(), "old".into(), false));
            std::fs::remove_dir_all(&live).unwrap();
            publish_new(&former, &live).unwrap();
        }
        fill(&new, "new");
        let error = publish_new(&new, &live).unwrap_err();
        assert_eq!((error.kind(), text(&live), text(&new)), (Kind::Refused, "old".into(), "new".into()));
    }

    fn two_renames_from_the_start(from: &Path, to: &Path, former: &Path) -> Result<()> {
        publish_new(from, former)?;
        two_renames(from, to, former)
    }

    #[test]
    fn what_is_moved_into_a_directory_brings_its_mode_time_and_attributes() {
        let home = tempfile::tempdir().unwrap();
        let (new, mount) = (home.path().join("new"), home.path().join("mount"));
        std::fs::create_dir_all(mount.join(LOST_AND_FOUND)).unwrap();
        std::fs::create_dir_all(new.join(LOST_AND_FOUND)).unwrap();
        std::fs::create_dir(new.join("closed")).unwrap();
        std::fs::set_permissions(new.join("closed"), std::fs::Permissions::from_mode(0o555)).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o2750)).unwrap();
        for (directory, name) in [(&new, c"user.kept"), (&mount, c"user.former")] {
            setxattr(directory, name, b"value", XattrFlags::empty()).unwrap();
        }
        let before = std::fs::metadata(&new).unwrap();
        publish_inside(&new, &mount).unwrap();
        let after = std::fs::metadata(&mount).unwrap();
        assert_eq!((after.mode(), std::fs::metadata(mount.join("closed")).unwrap().mode()), (before.mode(), 0o40555));
        assert_eq!(attributes(&mount).unwrap(), [c"user.kept".to_owned()]);
        assert!(mount.join(LOST_AND_FOUND).exists());
    }
}
