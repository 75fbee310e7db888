//! The walk over host, run and file: three levels, no call per file, so that a hundred thousand
//! backups are listed in a moment. What can't be read is an error and never an empty place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, Builder};

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, openat, statat};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Escaped, Key, RunId};
use crate::storage::local::failure::{denied, failed};
use crate::storage::local::read::modified;
use crate::storage::local::upload::object_of;
use crate::storage::{Leftover, ObjectMeta};

/// What one call of a directory's listing may fill: more than the names of a run take.
const BUFFER_BYTES: usize = 32 << 10;

/// Keys that go from the thread that walks to the one that takes them at a time, and how many such heaps may wait.
const HEAP: usize = 1 << 10;
const HEAPS: usize = 4;

/// Every file whose key begins with `prefix`, and is not one on its way in. The walk has a thread of its own: what the kernel
/// takes to open and read directories, and what is made of their names, is about the same. A run's own files are too few for that.
pub(super) fn objects(root: &Path, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
    let mut each = |key| each(ObjectMeta { key, bytes: None, modified: None });
    if prefix.matches('/').count() > 1 {
        return walk(root, prefix, &mut |file| key_of(file, prefix).map_or(Ok(()), &mut each), cx);
    }
    thread::scope(|scope| {
        let (heaps, found) = sync_channel(HEAPS);
        let walker = Builder::new().name("list".to_owned()).spawn_scoped(scope, move || walk_keys(root, prefix, &heaps, cx));
        let walker = walker.map_err(|error| Error::new(Kind::Internal, "can't start a thread").source(error))?;
        found.iter().flatten().try_for_each(&mut each)?;
        // That no more comes is no end: what the walk came to is.
        walker.join().unwrap_or_else(|_panic| Err(Error::new(Kind::Internal, "the list thread panicked")))
    })
}

fn walk_keys(root: &Path, prefix: &str, heaps: &SyncSender<Vec<Key>>, cx: &Context) -> Result<()> {
    // Who takes them has failed, and says why.
    let unheard = |_| Error::new(Kind::Internal, "nobody takes what is listed");
    let mut heap = Vec::with_capacity(HEAP);
    let mut visit = |file: &Found<'_>| {
        heap.extend(key_of(file, prefix));
        if heap.len() < HEAP {
            return Ok(());
        }
        heaps.send(std::mem::replace(&mut heap, Vec::with_capacity(HEAP))).map_err(unheard)
    };
    walk(root, prefix, &mut visit, cx)?;
    heaps.send(heap).map_err(unheard)
}

/// A key that can't be one of ours is passed over, like any other foreign thing.
fn key_of(file: &Found<'_>, prefix: &str) -> Option<Key> {
    let is_meant = file.text.starts_with(prefix) && !file.name.starts_with('.');
    file.text.parse().ok().filter(|_| is_meant)
}

/// Every file on its way in, or left there.
pub(super) fn leftovers(root: &Path, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
    let mut visit = |file: &Found<'_>| {
        let directory = file.text.strip_suffix(file.name).unwrap_or_default();
        let Some(key) = object_of(file.name).and_then(|object| format!("{directory}{object}").parse::<Key>().ok()) else {
            return Ok(());
        };
        let found = match stat_of(file.dir, file.name) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => found,
            // None of ours, or it was committed or removed meanwhile.
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error.into(), "can't look at", &root.join(file.text))),
        };
        // A time that no calendar has is taken for one to come: that keeps the file.
        let modified = modified(&found).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let bytes = u64::try_from(found.st_size).ok();
        each(Leftover { key, handle: file.name.to_owned(), bytes, modified })
    };
    walk(root, "", &mut visit, cx)
}

/// A file that the walk met.
struct Found<'a> {
    /// Its path below the root.
    text: &'a str,
    /// Its name.
    name: &'a str,
    /// The directory that it is in.
    dir: BorrowedFd<'a>,
}

type Visit<'a> = &'a mut dyn FnMut(&Found<'_>) -> Result<()>;

fn walk(root: &Path, prefix: &str, visit: Visit<'_>, cx: &Context) -> Result<()> {
    // The root was seen a moment ago: one that is gone now is an error.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let hosts = openat(CWD, root, flags, Mode::empty()).map_err(|error| failed(error.into(), "can't list", root))?;
    let mut walk = Walk { root, prefix, visit, cx, files: Vec::with_capacity(BUFFER_BYTES), text: String::new() };
    for_each(root, hosts.as_fd(), &mut Vec::with_capacity(BUFFER_BYTES), cx, &mut |host, kind| {
        let below = format!("{host}/");
        let path = || root.join(host);
        refuse_stand_in(path, kind, !prefix.is_empty() && prefix.starts_with(&below))?;
        if !walk.is_candidate(host, kind, &below) {
            return Ok(());
        }
        let ours = Escaped::parse(host).is_some();
        match open(hosts.as_fd(), host, path, ours)? {
            Some(runs) => walk.host(&runs, &below, ours),
            None => Ok(()),
        }
    })
}

/// What the levels of a walk share.
struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    visit: Visit<'a>,
    cx: &'a Context,
    /// For the listing of a run's files.
    files: Vec<u8>,
    /// The path of what is looked at, below the root.
    text: String,
}

impl Walk<'_> {
    fn host(&mut self, runs: &OwnedFd, at: &str, host_is_ours: bool) -> Result<()> {
        let (dir, cx) = (self.root.join(at), self.cx);
        for_each(&dir, runs.as_fd(), &mut Vec::with_capacity(BUFFER_BYTES), cx, &mut |run, kind| {
            let ours = host_is_ours && run.parse::<RunId>().is_ok();
            let path = || dir.join(run);
            refuse_stand_in(path, kind, ours)?;
            let mut below = std::mem::take(&mut self.text);
            below.clear();
            below.extend([at, run, "/"]);
            if self.is_candidate(run, kind, &below)
                && let Some(files) = open(runs.as_fd(), run, path, ours)?
            {
                self.run(&files, &mut below)?;
            }
            self.text = below;
            Ok(())
        })
    }

    /// `text` is the run's own path, with its slash.
    fn run(&mut self, files: &OwnedFd, text: &mut String) -> Result<()> {
        let length = text.len();
        let dir = self.root.join(&text);
        for_each(&dir, files.as_fd(), &mut self.files, self.cx, &mut |name, kind| {
            if kind.is_dir() {
                return Ok(());
            }
            text.truncate(length);
            text.push_str(name);
            (self.visit)(&Found { text, name, dir: files.as_fd() })
        })
    }

    /// Whether a directory can hold what is asked for. A link to a directory is none.
    fn is_candidate(&self, name: &str, kind: FileType, below: &str) -> bool {
        kind.is_dir() && !name.starts_with('.') && (below.starts_with(self.prefix) || self.prefix.starts_with(below))
    }
}

/// A link or a file where a directory of ours belongs: to pass it over would hide its backups.
fn refuse_stand_in(path: impl Fn() -> PathBuf, kind: FileType, ours: bool) -> Result<()> {
    match kind {
        kind if kind.is_dir() || !ours => Ok(()),
        kind if kind.is_symlink() => Err(denied(&path(), "is a symbolic link, not a directory")),
        _ => Err(denied(&path(), "is a file, not a directory")),
    }
}

/// `None`: it is gone meanwhile, or it is private and by its name not ours, like `lost+found`.
fn open(above: BorrowedFd<'_>, name: &str, path: impl Fn() -> PathBuf, ours: bool) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(above, name, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::ACCESS | Errno::PERM) if !ours => Ok(None),
        Err(error) => Err(failed(error.into(), "can't list", &path())),
    }
}

/// Takes a name and what the directory itself says that it is.
type Take<'a> = &'a mut dyn FnMut(&str, FileType) -> Result<()>;

fn for_each(dir: &Path, opened: BorrowedFd<'_>, buffer: &mut Vec<u8>, cx: &Context, take: Take<'_>) -> Result<()> {
    cx.cancel.check()?;
    let mut entries = RawDir::new(opened, buffer.spare_capacity_mut());
    let mut number = 0_u32;
    while let Some(entry) = entries.next() {
        number += 1;
        if number.is_multiple_of(1024) {
            cx.cancel.check()?;
        }
        let entry = entry.map_err(|error| failed(error.into(), "can't list", dir))?;
        // A name that is not UTF-8 is no key.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Only where a file system gives no types, and a look is needed.
            FileType::Unknown => match stat_of(opened, name) {
                Ok(found) => FileType::from_raw_mode(found.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error.into(), "can't look at", &dir.join(name))),
            },
            kind => kind,
        };
        take(name, kind)?;
    }
    Ok(())
}

fn stat_of(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Stat> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}
