//! Private files and directories, and what a file system says of itself. Nothing here overwrites
//! a file, follows a symbolic link to one, or waits for a pipe that somebody put in its place.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, fstat, linkat, mkdir, open, openat, renameat_with, statvfs};
use rustix::io::Errno;
use tempfile::TempDir;

use super::Context;
use crate::error::{Error, Kind, Result};

/// What marks a directory as ours in `$TMPDIR`.
const TEMP_PREFIX: &str = "db-backup-tools-";

/// Makes one directory with mode 0700, whatever the umask, and syncs its parent. One that is there
/// already stays as it is; its parent must be there.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    match mkdir(path, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) if path.is_dir() => return Ok(()),
        Err(Errno::EXIST) => return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is there, but it is no directory")),
        Err(error) => return Err(error.into()),
    }
    if std::fs::symlink_metadata(path)?.mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    sync_dir(parent(path))
}

/// Makes a directory and those above it that are missing, private.
pub fn create_private_dirs(path: &Path) -> io::Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    for above in path.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        if above.is_dir() {
            break;
        }
        missing.push(above.to_owned());
    }
    missing.iter().rev().try_for_each(|path| create_private_dir(path))
}

/// Makes sure that names made in or removed from a directory survive a power cut.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some network file systems can't, and say so like this: there is nothing to be done.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOTSUP)) => Ok(()),
        result => result,
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file a name that must be free; `AlreadyExists` where it is not. Sync its directory after.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_new(from, to),
        result => Ok(result?),
    }
}

/// The same where the file system knows no such rename (NFS): a link never replaces.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    let inode = |path: &Path| std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        // A server whose answer got lost is asked again, and then finds its own link.
        Err(Errno::EXIST) if inode(from).is_some() && inode(from) == inode(to) => {}
        result => result?,
    }
    // The new name is there: an old one that stays is a leftover, no failure.
    let _ = std::fs::remove_file(from);
    Ok(())
}

/// Makes a file with mode 0600, open for writing and reading. `AlreadyExists` where anything has
/// that name, be it a dangling link.
pub fn create_private(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// What changes when a file is written to, or another takes its place: device, inode, bytes, and the times of its last changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileState {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The state of a program's file, by links too; none where it is no ELF executable but a script, or can't be looked at.
pub fn state_of_executable(path: &Path) -> Option<FileState> {
    const ELF: [u8; 4] = *b"\x7fELF";
    let mut file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).map(File::from).ok()?;
    let mut magic = [0; ELF.len()];
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    file.read_exact(&mut magic).ok()?;
    (magic == ELF).then(|| FileState {
        file: (found.dev(), found.ino()),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// Reads a whole file of a person's, of whatever kind it is: a pipe, too. One that is longer than any
/// such file, as a device in its place is, is an error.
pub fn read_short(path: &Path) -> io::Result<Vec<u8>> {
    const LONGEST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {} MiB", LONGEST >> 20)));
    }
    Ok(bytes)
}

/// Opens a regular file for reading. A link, a pipe or a device in its place is an error, at once.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_with(CWD, path, OFlags::RDONLY)
}

/// The same below an open directory: the path may then be as long as a path can be.
pub fn open_regular_below(top: impl AsFd, path: &Path) -> io::Result<File> {
    open_regular_with(top, path, OFlags::RDONLY)
}

/// The same, with the bytes that it has.
pub fn open_sized_below(top: impl AsFd, path: &Path) -> io::Result<(File, u64)> {
    open_sized_with(top, path, OFlags::RDONLY)
}

/// The same with other flags: for a lock's file.
pub(super) fn open_regular_with(top: impl AsFd, path: &Path, flags: OFlags) -> io::Result<File> {
    open_sized_with(top, path, flags).map(|(file, _)| file)
}

fn open_sized_with(top: impl AsFd, path: &Path, flags: OFlags) -> io::Result<(File, u64)> {
    // Without NONBLOCK a FIFO would wait for its other end.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let no_file = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let file = match openat(top, path, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::LOOP) => return no_file("it is a symbolic link, not a regular file"),
        Err(Errno::NXIO) => return no_file("it is not a regular file"),
        file => file?,
    };
    let found = fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return no_file("it is not a regular file");
    }
    Ok((file.into(), u64::try_from(found.st_size).unwrap_or(0)))
}

/// A path without links, as far as it is there.
pub fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match known {
        Some((above, real)) => match absolute.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => absolute,
    }
}

/// A directory with mode 0700 below `base`, with a name of its own, that removes itself when dropped.
pub fn private_dir_in(base: &Path, prefix: &str) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix(prefix).permissions(std::fs::Permissions::from_mode(0o700)).tempdir_in(base)
}

/// A directory with mode 0700 under `$TMPDIR` (or `/tmp`) that removes itself when dropped.
pub fn private_temp_dir(cx: &Context) -> Result<TempDir> {
    let base = cx.env.get_os("TMPDIR").filter(|base| !base.is_empty()).map_or(PathBuf::from("/tmp"), PathBuf::from);
    private_dir_in(&base, TEMP_PREFIX).map_err(|error| {
        Error::new(Kind::Internal, format!("can't make a temporary directory in {}", base.display()))
            .hint("set TMPDIR to a directory that can be written")
            .source(error)
    })
}

/// Whether a file system is mounted at this directory: a disk, a bind mount, or an automount that
/// has its disk by now. A subvolume that merely counts as a device of its own is no mount.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    // To open it is what makes an automounter mount it.
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = path.canonicalize()?;
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => Ok(mounts.lines().any(|line| is_mount_at(line, &path))),
        Err(_) if path.parent().is_none() => Ok(true),
        Err(_) => Ok(path.metadata()?.dev() != parent(&path).metadata()?.dev()),
    }
}

/// Whether a line of `/proc/self/mountinfo` (see proc(5)) says that something is mounted here.
fn is_mount_at(line: &str, path: &Path) -> bool {
    let Some((about, kind)) = line.split_once(" - ") else { return false };
    let Some(place) = about.split(' ').nth(4) else { return false };
    // An automount point is listed without its disk too.
    !kind.starts_with("autofs ") && unescape_octal(place) == path.as_os_str().as_encoded_bytes()
}

/// `\040` and the like, as proc(5) writes blanks, tabs, line ends and backslashes.
fn unescape_octal(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Bytes that we may still write to the file system of this path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Random bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::new(Kind::Internal, "can't read /dev/urandom").source(error))?;
    Ok(bytes)
}

/// Whether we run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Our user's number.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether we are a member of this group.
pub fn is_own_group(gid: u32) -> bool {
    let own = rustix::process::getegid().as_raw() == gid;
    own || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid))
}

/// Our home directory as `/etc/passwd` has it.
pub fn home() -> Option<PathBuf> {
    let fields = user_with(2, &own_uid().to_string())?;
    fields.get(5).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The numbers of a user and of its group, as `/etc/passwd` has them.
pub fn user_ids(name: &str) -> Option<(u32, u32)> {
    let fields = user_with(0, name)?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

/// The line of `/etc/passwd` that has this in this field.
fn user_with(field: usize, value: &str) -> Option<Vec<String>> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let lines = users.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    lines.into_iter().find(|fields| fields.get(field).is_some_and(|found| found == value))
}

/// Takes the lock on an open file, if nobody has it: it goes with the file, or with us.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The machine's name, as `uname -n` prints it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Env;
    use crate::host::process::Program;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_private_directory_is_made_once_and_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state");
        create_private_dir(&path).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(create_private_dir(&home.path().join("a/b")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(home.path().join("file"), "").unwrap();
        assert_eq!(create_private_dir(&home.path().join("file")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_rename_never_replaces_not_even_by_a_link() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        for rename in [rename_new, link_new] {
            std::fs::write(&from, "new").unwrap();
            std::fs::write(&to, "old").unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "old");
            std::fs::remove_file(&to).unwrap();
            rename(&from, &to).unwrap();
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "new");
            assert!(!from.exists());
            std::fs::remove_file(&to).unwrap();
        }
    }

    #[test]
    fn a_link_that_is_ours_already_is_a_success() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        std::fs::write(&from, "new").unwrap();
        std::fs::hard_link(&from, &to).unwrap();
        link_new(&from, &to).unwrap();
        assert!(!from.exists() && to.exists());
    }

    #[test]
    fn a_private_file_is_new_and_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        create_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(create_private(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path().join("elsewhere"), &link).unwrap();
        assert_eq!(create_private(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!home.path().join("elsewhere").exists());
    }

    #[test]
    fn a_pipe_a_link_or_a_directory_is_no_regular_file() {
        let cx = Context::for_tests();
        let home = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| home.path().join(name));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(Program::new("mkfifo").arg(&pipe).output(b"", &cx).unwrap().exit.is_success());
        assert!(open_regular(&file).is_ok());
        for path in [&link, &pipe, home.path()] {
            assert_eq!(open_regular(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
        assert_eq!(open_regular(&home.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_temporary_directory_is_private_stands_in_tmpdir_and_goes_again() {
        let home = tempfile::tempdir().unwrap();
        let mut cx = Context::for_tests();
        let mut env = (*cx.env).clone();
        env.set("TMPDIR", home.path());
        cx.env = std::sync::Arc::new(env.clone());
        let made = private_temp_dir(&cx).unwrap();
        let path = made.path().to_owned();
        assert!(path.starts_with(home.path()) && mode(&path) == 0o700);
        drop(made);
        assert!(!path.exists());
        env.set("TMPDIR", "/nowhere");
        cx.env = std::sync::Arc::new(env);
        assert!(private_temp_dir(&cx).unwrap_err().hint_text().unwrap().contains("TMPDIR"));
    }

    #[test]
    fn mount_points_are_told_from_directories() {
        let home = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(is_mount_point(Path::new("/")).unwrap());
        assert!(!is_mount_point(home.path()).unwrap());
        assert!(is_mount_point(&home.path().join("none")).is_err());
    }

    #[test]
    fn a_mount_is_read_as_the_kernel_writes_it() {
        let line = r"36 35 98:0 /sub /mnt/my\040disk rw,noatime master:1 - ext4 /dev/sda rw";
        assert!(is_mount_at(line, Path::new("/mnt/my disk")));
        assert!(!is_mount_at(line, Path::new("/mnt")));
        assert!(!is_mount_at("36 35 0:44 / /mnt rw - autofs systemd-1 rw", Path::new("/mnt")));
    }

    #[test]
    fn a_bind_mount_of_the_same_device_counts() {
        let cx = Context::for_tests();
        let home = tempfile::tempdir().unwrap();
        let (disk, place) = (home.path().join("disk"), home.path().join("place"));
        std::fs::create_dir(&disk).unwrap();
        std::fs::create_dir(&place).unwrap();
        let mounted = Program::new("mount").arg("--bind").arg(&disk).arg(&place).output(b"", &cx).unwrap();
        if !mounted.exit.is_success() {
            let why = &mounted.stderr_tail;
            assert_ne!(Env::of_process().get("CI"), Some("true"), "CI=true allows no test to be left out: {why}");
            eprintln!("SKIPPED, as nothing can be mounted here (it takes root): {why}");
            return;
        }
        let found = is_mount_point(&place);
        assert!(Program::new("umount").arg(&place).output(b"", &cx).unwrap().exit.is_success());
        assert!(found.unwrap());
        assert!(!is_mount_point(&place).unwrap());
    }

    #[test]
    fn the_host_tells_about_itself() {
        let home = tempfile::tempdir().unwrap();
        assert!(free_bytes(home.path()).unwrap() > 0);
        assert_ne!(random_bytes::<16>().unwrap(), random_bytes::<16>().unwrap());
        assert!(!host_name().is_empty());
        assert_eq!(user_ids("root"), Some((0, 0)));
        assert_eq!(user_ids("nobody here"), None);
    }
}
