//! The walk over host, run and file: three levels, no call per file, so that a hundred thousand
//! backups are listed in a moment. What can't be read is an error and never an empty place.

use std::fs::{self, DirEntry, FileType, ReadDir};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::host::Context;
use crate::names::{Escaped, Key, RunId};
use crate::storage::local::failure::{denied, failed};
use crate::storage::local::read::modified;
use crate::storage::local::upload::object_of;
use crate::storage::{Leftover, ObjectMeta};

/// Every file whose key begins with `prefix`, and is not one on its way in.
pub(super) fn objects(root: &Path, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
    let mut visit = |text: &str, name: &str, _: &DirEntry| {
        // A key that can't be one of ours is passed over, like any other foreign thing.
        match text.parse::<Key>() {
            Ok(key) if text.starts_with(prefix) && !name.starts_with('.') => {
                each(ObjectMeta { key, bytes: None, modified: None })
            }
            _ => Ok(()),
        }
    };
    walk(root, prefix, &mut visit, cx)
}

/// Every file on its way in, or left there.
pub(super) fn leftovers(root: &Path, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
    let mut visit = |text: &str, name: &str, entry: &DirEntry| {
        let directory = text.strip_suffix(name).unwrap_or_default();
        let Some(key) = object_of(name).and_then(|object| format!("{directory}{object}").parse::<Key>().ok()) else {
            return Ok(());
        };
        let found = match entry.metadata() {
            Ok(found) if found.is_file() => found,
            Ok(_) => return Ok(()),
            // It was committed or removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error, "can't look at", &entry.path())),
        };
        // A time that no calendar has is taken for one to come: that keeps the file.
        let modified = modified(&found).unwrap_or(DateTime::<Utc>::MAX_UTC);
        each(Leftover { key, handle: name.to_owned(), bytes: Some(found.len()), modified })
    };
    walk(root, "", &mut visit, cx)
}

/// Takes a file's path below the root, its name, and its entry.
type Visit<'a> = &'a mut dyn FnMut(&str, &str, &DirEntry) -> Result<()>;

fn walk(root: &Path, prefix: &str, visit: Visit<'_>, cx: &Context) -> Result<()> {
    // The root was seen a moment ago: one that is gone now is an error.
    let hosts = fs::read_dir(root).map_err(|error| failed(error, "can't list", root))?;
    for_each(root, hosts, cx, &mut |host, kind, entry| {
        let below = format!("{host}/");
        refuse_stand_in(&entry.path(), kind, !prefix.is_empty() && prefix.starts_with(&below))?;
        if !is_candidate(host, kind, &below, prefix) {
            return Ok(());
        }
        walk_host(&entry.path(), &below, Escaped::parse(host).is_some(), prefix, visit, cx)
    })
}

fn walk_host(dir: &Path, at: &str, ours: bool, prefix: &str, visit: Visit<'_>, cx: &Context) -> Result<()> {
    let Some(runs) = open(dir, ours)? else { return Ok(()) };
    for_each(dir, runs, cx, &mut |run, kind, entry| {
        let below = format!("{at}{run}/");
        refuse_stand_in(&entry.path(), kind, ours && run.parse::<RunId>().is_ok())?;
        if !is_candidate(run, kind, &below, prefix) {
            return Ok(());
        }
        let path = entry.path();
        let Some(files) = open(&path, ours && run.parse::<RunId>().is_ok())? else { return Ok(()) };
        for_each(&path, files, cx, &mut |name, kind, entry| {
            if kind.is_dir() { Ok(()) } else { visit(&format!("{below}{name}"), name, entry) }
        })
    })
}

/// Whether a directory can hold what is asked for. A link to a directory is none.
fn is_candidate(name: &str, kind: FileType, below: &str, prefix: &str) -> bool {
    kind.is_dir() && !name.starts_with('.') && (below.starts_with(prefix) || prefix.starts_with(below))
}

/// A link or a file where a directory of ours belongs: to pass it over would hide its backups.
fn refuse_stand_in(path: &Path, kind: FileType, ours: bool) -> Result<()> {
    match kind {
        kind if kind.is_dir() || !ours => Ok(()),
        kind if kind.is_symlink() => Err(denied(path, "is a symbolic link, not a directory")),
        _ => Err(denied(path, "is a file, not a directory")),
    }
}

/// `None`: it is gone meanwhile, or it is private and by its name not ours, like `lost+found`.
fn open(dir: &Path, ours: bool) -> Result<Option<ReadDir>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !ours => Ok(None),
        Err(error) => Err(failed(error, "can't list", dir)),
    }
}

/// Takes a name and what the directory itself says that it is.
type Take<'a> = &'a mut dyn FnMut(&str, FileType, &DirEntry) -> Result<()>;

fn for_each(dir: &Path, entries: ReadDir, cx: &Context, take: Take<'_>) -> Result<()> {
    cx.cancel.check()?;
    for (number, entry) in entries.enumerate() {
        if number % 1024 == 1023 {
            cx.cancel.check()?;
        }
        let entry = entry.map_err(|error| failed(error, "can't list", dir))?;
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            // Only where a file system gives no types, and a look is needed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error, "can't look at", &PathBuf::from(entry.file_name()))),
        };
        // A name that is not UTF-8 is no key.
        if let Some(name) = entry.file_name().to_str() {
            take(name, kind, &entry)?;
        }
    }
    Ok(())
}
