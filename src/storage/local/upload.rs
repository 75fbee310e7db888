//! A file on its way in: written under a hidden name beside its place, synced, renamed where nothing
//! stands, its directory synced. Before the rename nobody sees it; it never replaces anything.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::host::{Context, files};
use crate::names::{Key, hex};
use crate::storage::local::failure::{denied, failed};
use crate::storage::local::{Place, read, sync_and_prune};
use crate::storage::{ObjectMeta, Upload};

/// Between the bytes of two looks at the token.
const BLOCK_BYTES: usize = 1 << 20;
/// Written since the last sync began. It bounds what the sync at the end, which nothing can
/// interrupt, has left to do.
const SYNC_EVERY_BYTES: u64 = 32 << 20;
/// Each loses against one prune that removes an empty directory just then.
const ATTEMPTS: usize = 100;
const MARK: &str = ".tmp-";
const RANDOM_BYTES: usize = 4;

/// The file name that a temporary file's object would have; `None` where it is not one of ours.
pub(super) fn object_of(temporary: &str) -> Option<&str> {
    let (object, random) = temporary.strip_prefix('.')?.rsplit_once(MARK)?;
    let random_is_ours = random.len() == 2 * RANDOM_BYTES && random.bytes().all(|b| b.is_ascii_hexdigit());
    (random_is_ours && !object.is_empty() && !object.starts_with('.')).then_some(object)
}

/// A file on its way in.
pub(super) struct LocalUpload {
    key: Key,
    place: Place,
    temporary: Temporary,
    file: File,
    written: u64,
    behind: WriteBehind,
    cx: Context,
}

impl LocalUpload {
    /// Makes the directories that lack, and the temporary file.
    pub(super) fn begin(root: &Path, key: &Key, place: Place, cx: &Context) -> Result<Self> {
        if fs::symlink_metadata(&place.file).is_ok() {
            return Err(taken(&place.file));
        }
        let (temporary, file) = create(root, key, &place, cx)?;
        Ok(Self { key: key.clone(), place, temporary, file, written: 0, behind: WriteBehind::default(), cx: cx.clone() })
    }

    fn settle(&mut self) -> Result<()> {
        let cannot = |error| failed(error, "can't write", &self.temporary.path);
        self.behind.wait().map_err(cannot)?;
        self.file.sync_all().map_err(cannot)?;
        let found = self.file.metadata().map_err(cannot)?.len();
        if found == self.written { Ok(()) } else { Err(short(&self.temporary.path, found, self.written)) }
    }

    /// The new name, made durable. What fails behind the rename takes the name away again.
    fn publish(&mut self) -> Result<ObjectMeta> {
        files::rename_new(&self.temporary.path, &self.place.file).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken(&self.place.file),
            _ => failed(error, "can't give a name to", &self.place.file)
                .hint_if_none("its directory went away or was closed while it was written: is the disk still there?"),
        })?;
        self.temporary.gone = true;
        self.confirm().inspect_err(|_| {
            let _ = fs::remove_file(&self.place.file);
            let _ = sync_and_prune(&self.place.run_dir);
        })
    }

    fn confirm(&self) -> Result<ObjectMeta> {
        files::sync_dir(&self.place.run_dir).map_err(|error| failed(error, "can't sync", &self.place.run_dir))?;
        let cannot = || Error::new(Kind::Storage, format!("{} is gone right after it was written", self.place.file.display()));
        let meta = read::stat_path(&self.key, &self.place.file)?.ok_or_else(cannot)?;
        match meta.bytes {
            Some(bytes) if bytes != self.written => Err(short(&self.place.file, bytes, self.written)),
            _ => Ok(meta),
        }
    }
}

impl Upload for LocalUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for block in bytes.chunks(BLOCK_BYTES) {
            self.cx.cancel.check()?;
            let cannot = |error| failed(error, "can't write", &self.temporary.path);
            self.file.write_all(block).map_err(cannot)?;
            self.written += block.len() as u64;
            self.behind.wrote(&self.file, block.len() as u64).map_err(cannot)?;
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<ObjectMeta> {
        self.cx.cancel.check()?;
        self.settle()?;
        self.cx.cancel.check()?;
        self.publish()
    }

    fn abort(mut self: Box<Self>) -> Result<()> {
        self.temporary.remove()
    }
}

fn taken(path: &Path) -> Error {
    Error::new(Kind::Exists, format!("{} is there already, and nothing is ever overwritten", path.display()))
}

fn short(path: &Path, found: u64, written: u64) -> Error {
    Error::new(Kind::Storage, format!("{} holds {found} bytes after {written} were written", path.display()))
        .hint("the file system loses data: look into the kernel's log")
}

/// The temporary file, removed when dropped; its run's directory too, when that leaves it empty.
struct Temporary {
    path: PathBuf,
    run_dir: PathBuf,
    gone: bool,
}

impl Temporary {
    fn remove(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.gone, true) {
            return Ok(());
        }
        let removed = match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error, "can't delete", &self.path)),
            _ => Ok(()),
        };
        let _ = fs::remove_dir(&self.run_dir);
        removed
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays is found by the next prune, as a leftover.
        let _ = self.remove();
    }
}

fn create(root: &Path, key: &Key, place: &Place, cx: &Context) -> Result<(Temporary, File)> {
    let mut attempts = 0;
    loop {
        cx.cancel.check()?;
        attempts += 1;
        let random = hex(&files::random_bytes::<RANDOM_BYTES>()?);
        let path = place.run_dir.join(format!(".{}{MARK}{random}", key.file_name()));
        let made = make_dir(&place.host_dir, root)
            .and_then(|()| make_dir(&place.run_dir, &place.host_dir))
            .and_then(|()| files::create_private(&path).map_err(|error| failed(error, "can't make", &path)));
        match made {
            Ok(file) => return Ok((Temporary { path, run_dir: place.run_dir.clone(), gone: false }, file)),
            // A prune took an empty directory away just then, or the name is taken by chance.
            Err(error) if matches!(error.kind(), Kind::Missing | Kind::Exists) && attempts < ATTEMPTS && root.is_dir() => {}
            Err(error) => {
                let _ = fs::remove_dir(&place.run_dir);
                // An absent directory must not be taken for an absent object.
                return Err(if error.kind() == Kind::Missing { error.kind_is(Kind::StorageDenied) } else { error });
            }
        }
    }
}

/// Makes a directory and syncs its parent, also where another made it and may not have synced yet.
/// `Missing` when a prune takes it away meanwhile.
fn make_dir(dir: &Path, parent: &Path) -> Result<()> {
    match files::create_private_dir(dir) {
        // Something was there a moment ago: what it was is seen below, if it still is.
        Err(error) if error.kind() != ErrorKind::NotADirectory => return Err(failed(error, "can't make the directory", dir)),
        _ => {}
    }
    // A listing follows no link: what was stored behind one would never be found.
    let found = fs::symlink_metadata(dir).map_err(|error| failed(error, "can't look at", dir))?;
    if !found.is_dir() {
        return Err(denied(dir, "is no directory, but a file or a link"));
    }
    files::sync_dir(parent).map_err(|error| failed(error, "can't sync", parent))
}

/// Syncs behind the writer's back, so that neither the writer waits nor too much is left to the end.
#[derive(Default)]
struct WriteBehind {
    unsynced_bytes: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

impl WriteBehind {
    fn wrote(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes < SYNC_EVERY_BYTES {
            return Ok(());
        }
        self.wait()?;
        self.unsynced_bytes = 0;
        let file = file.try_clone()?;
        self.syncing = Some(std::thread::Builder::new().name("sync".into()).spawn(move || file.sync_data())?);
        Ok(())
    }

    /// The outcome of the sync under way. The kernel reports an error once: it must not get lost.
    fn wait(&mut self) -> io::Result<()> {
        match self.syncing.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(io::Error::other("the thread that syncs ended early")),
        }
    }
}
