//! A directory as a storage: `ROOT/HOST/RUN/FILE`. A file gets its name when its bytes are on the
//! disk, and never another's; no symbolic link below the root is followed.

mod failure;
mod read;
mod upload;
mod walk;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::{Access, Mode, OFlags, access, open};

use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::files;
use crate::names::Key;
use crate::quantity::show_bytes;
use crate::storage::{Features, Leftover, ObjectMeta, Storage, Upload};
use failure::{absent_root, denied, failed};

/// A directory of this machine.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
    mount: Option<PathBuf>,
}

/// Where a key stands.
#[derive(Debug, Clone)]
struct Place {
    host_dir: PathBuf,
    run_dir: PathBuf,
    file: PathBuf,
}

impl Local {
    /// The storage at `path`. `mount` must be a mount point whenever anything is read or written, so
    /// that an unmounted disk is an error and not an empty storage.
    pub fn new(path: PathBuf, mount: Option<PathBuf>) -> Self {
        Self { root: path, mount }
    }

    fn place(&self, key: &Key) -> Result<Place> {
        let [host, run, file] = parts(key)?;
        let host_dir = self.root.join(host);
        let run_dir = host_dir.join(run);
        Ok(Place { file: run_dir.join(file), host_dir, run_dir })
    }

    /// Looks at the place once, and then does this with each key: below the directory that was looked at, whatever is
    /// mounted there meanwhile.
    fn for_each<T>(&self, keys: &[Key], cx: &Context, one: impl Fn(BorrowedFd<'_>, &Key) -> Result<T>) -> Vec<Result<T>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = || open(&self.root, flags, Mode::empty()).map_err(|error| failed(error.into(), "can't look at", &self.root));
        let root = match self.enter_for_object(cx).and_then(|()| root()) {
            Ok(root) => root,
            Err(error) => return keys.iter().map(|_| Err(error.copy())).collect(),
        };
        let checked = |key| {
            cx.cancel.check()?;
            parts(key)?;
            one(root.as_fd(), key)
        };
        keys.iter().map(checked).collect()
    }

    fn check_mount(&self) -> Result<()> {
        let Some(mount) = &self.mount else { return Ok(()) };
        match files::is_mount_point(mount) {
            Ok(true) => Ok(()),
            // Of a kind that stays, whatever the cause: without its disk this storage holds nothing.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed(error, "can't look at the mount point", mount).kind_is(Kind::StorageDenied))
            }
            _ => Err(Error::new(Kind::StorageDenied, format!("{} is not a mount point: is the disk mounted?", mount.display()))
                .hint("mount the disk, or correct `mount:` in the configuration")),
        }
    }

    /// What every call but `prepare` begins with. An absent root is never an empty storage.
    fn enter(&self, cx: &Context) -> Result<()> {
        cx.cancel.check()?;
        self.check_mount()?;
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(denied(&self.root, "is not a directory")),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(absent_root(&self.root)),
            Err(error) => Err(failed(error, "can't look at", &self.root)),
        }
    }

    /// The same for a single object: there the absent root must not look like an absent object.
    fn enter_for_object(&self, cx: &Context) -> Result<()> {
        self.enter(cx).map_err(|error| if error.kind() == Kind::Missing { error.kind_is(Kind::StorageDenied) } else { error })
    }

    fn parent(&self) -> &Path {
        self.root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

/// Host, run and file. A key of another form, or one that a listing would pass over, is never written.
fn parts(key: &Key) -> Result<[&str; 3]> {
    let mut parts = key.as_str().split('/');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(host), Some(run), Some(file), None] if ![host, run, file].iter().any(|part| part.starts_with('.')) => {
            Ok([host, run, file])
        }
        _ => Err(Error::new(Kind::Internal, format!("{key} is no key of the form HOST/RUN/FILE without leading dots"))),
    }
}

impl Storage for Local {
    fn prepare(&self, cx: &Context) -> Result<()> {
        cx.cancel.check()?;
        self.check_mount()?;
        match files::create_private_dir(&self.root) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let hint = format!("create it, or correct `path:`; only {} itself is made here", self.root.display());
                let cause = format!("can't make {}: {} is not there", self.root.display(), self.parent().display());
                return Err(Error::new(Kind::StorageDenied, cause).hint(hint));
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                let cause = format!("{} is no directory, and no link to one", self.root.display());
                return Err(Error::new(Kind::StorageDenied, cause).hint("correct `path:`, or what stands there"));
            }
            Err(error) => return Err(failed(error, "can't make the directory", &self.root)),
        }
        // Without this the first upload would find it out, after the dump has begun.
        access(&self.root, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| failed(error.into(), "can't write to", &self.root))
    }

    fn features(&self, cx: &Context) -> Result<Features> {
        self.enter(cx)?;
        let free = files::free_bytes(&self.root).map_err(|error| failed(error, "can't ask for the free space of", &self.root))?;
        let mut notes = vec![format!("{} free", show_bytes(free))];
        notes.extend(self.mount.as_ref().map(|mount| format!("{} is mounted", mount.display())));
        Ok(Features { notes, free_bytes: Some(free) })
    }

    fn upload(&self, key: &Key, _size_hint: Option<u64>, cx: &Context) -> Result<Box<dyn Upload>> {
        self.enter_for_object(cx)?;
        Ok(Box::new(upload::LocalUpload::begin(&self.root, key, self.place(key)?, cx)?))
    }

    fn put_new(&self, key: &Key, bytes: &[u8], cx: &Context) -> Result<ObjectMeta> {
        let mut upload = self.upload(key, Some(bytes.len() as u64), cx)?;
        upload.write(bytes)?;
        upload.commit()
    }

    fn read(&self, key: &Key, from: u64, cx: &Context) -> Result<Box<dyn Read + Send>> {
        self.enter_for_object(cx)?;
        Ok(Box::new(read::LocalRead::open(&self.place(key)?.file, from, cx)?))
    }

    fn stat(&self, key: &Key, cx: &Context) -> Result<Option<ObjectMeta>> {
        self.stat_many(std::slice::from_ref(key), cx).remove(0)
    }

    fn read_small(&self, keys: &[Key], most: u64, cx: &Context) -> Vec<Result<Vec<u8>>> {
        self.for_each(keys, cx, |root, key| read::small(root, key, most, &|| self.root.join(key.as_str())))
    }

    fn at_once(&self) -> usize {
        std::thread::available_parallelism().map_or(1, NonZero::get)
    }

    fn stat_many(&self, keys: &[Key], cx: &Context) -> Vec<Result<Option<ObjectMeta>>> {
        self.for_each(keys, cx, |root, key| read::stat(root, key, &|| self.root.join(key.as_str())))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta) -> Result<()>, cx: &Context) -> Result<()> {
        self.enter(cx)?;
        walk::objects(&self.root, prefix, each, cx)
    }

    fn delete(&self, keys: &[Key], cx: &Context) -> Vec<Result<()>> {
        let mut touched = BTreeMap::new();
        let mut delete_one = |key| {
            self.enter_for_object(cx)?;
            let place = self.place(key)?;
            match fs::remove_file(&place.file) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error, "can't delete", &place.file)),
                _ => {
                    touched.insert(place.run_dir.clone(), Ok(()));
                    Ok(place.run_dir)
                }
            }
        };
        let removed: Vec<Result<PathBuf>> = keys.iter().map(&mut delete_one).collect();
        for (dir, outcome) in &mut touched {
            *outcome = sync_and_prune(dir);
        }
        // A sync that failed is not tried again: the kernel may say yes to the second.
        let settled = |dir: PathBuf| match touched.get(&dir) {
            Some(Err(error)) => Err(error.copy()),
            _ => Ok(()),
        };
        removed.into_iter().map(|outcome| outcome.and_then(settled)).collect()
    }

    fn leftovers(&self, each: &mut dyn FnMut(Leftover) -> Result<()>, cx: &Context) -> Result<()> {
        self.enter(cx)?;
        walk::leftovers(&self.root, each, cx)
    }

    fn discard(&self, leftover: &Leftover, cx: &Context) -> Result<()> {
        self.enter_for_object(cx)?;
        let place = self.place(&leftover.key)?;
        if upload::object_of(&leftover.handle) != Some(leftover.key.file_name()) {
            return Err(Error::new(Kind::Internal, format!("{leftover:?} is not a leftover of ours")));
        }
        let file = place.run_dir.join(&leftover.handle);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error, "can't delete", &file)),
            _ => sync_and_prune(&place.run_dir),
        }
    }

    fn now(&self, cx: &Context) -> Result<DateTime<Utc>> {
        Ok(cx.clock.now())
    }

    fn describe(&self) -> String {
        format!("directory {}", self.root.display())
    }
}

/// Makes a directory's removals durable, and removes it when it is empty. An upload that loses its
/// run's directory to this makes it again.
fn sync_and_prune(dir: &Path) -> Result<()> {
    match files::sync_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error, "can't sync", dir)),
        _ => {}
    }
    let _ = fs::remove_dir(dir);
    Ok(())
}

#[cfg(test)]
mod tests;
