//! The directory that a restore unpacks into: private, beside the place that is wanted or where drills go, and gone with
//! all that is in it unless that was published. What a killed run left is removed by the next one that works there.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::host::marked::{Marked, Sort};
use crate::host::{Cancel, Context, files, tree};
use crate::observe::Event;
use crate::quantity::show_bytes;

/// Those of restores.
pub(super) const RESTORE: Sort = Sort { prefix: ".db-backup-tools-restore-", mark: "db-backup-tools restore" };
/// Those of drills.
pub(super) const DRILL: Sort = Sort { prefix: "db-backup-tools-drill-", mark: "db-backup-tools drill" };
/// What is unpacked is in a directory of its own: it gets the mode that the archive says, and so does not stay private.
const CONTENT: &str = "content";

/// A place to unpack into.
pub(super) struct Scratch {
    directory: Marked,
    is_removed: bool,
    cx: Context,
}

impl Scratch {
    /// Makes one in a directory, and removes there what killed runs left.
    pub(super) fn create(base: &Path, sort: Sort, cx: &Context) -> Result<Self> {
        collect(base, sort, cx)?;
        let directory = Marked::create_in(base, sort, None).map_err(|error| unusable(base).source(error))?;
        let scratch = Self { directory, is_removed: false, cx: cx.clone() };
        scratch.inherit_nothing().map_err(|error| unusable(base).source(error))?;
        std::fs::create_dir(scratch.content()).map_err(|error| unusable(base).source(error))?;
        Ok(scratch)
    }

    /// A default ACL of the directory above would be every file's that is unpacked, beside what the archive says.
    fn inherit_nothing(&self) -> io::Result<()> {
        match rustix::fs::removexattr(self.path(), c"system.posix_acl_default") {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Where the members go.
    pub(super) fn content(&self) -> PathBuf {
        self.directory.path().join(CONTENT)
    }

    /// The whole of it.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Has all that was written to its file system reach the disk. The system tells an error of any file there.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(self.directory.file()).map_err(|errno| {
            Error::new(Kind::StorageDenied, format!("what was unpacked below {} did not reach the disk", self.path().display()))
                .hint("look at the disk: the system's log says what it met")
                .source(std::io::Error::from(errno))
                .step("unpack")
        })
    }

    /// Removes it, however long that takes; once the run is to end, within the time that a clean-up may take.
    pub(super) fn remove(mut self) -> Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> Result<()> {
        self.is_removed = true;
        // What is published is not there any more. The mark goes last: what is left is known as ours.
        let remove = |cancel: &Cancel| tree::remove(&self.content(), cancel).and_then(|()| tree::remove(self.path(), cancel));
        let removed = remove(&self.cx.cancel);
        let removed = if self.cx.cancel.check().is_err() { remove(&Cancel::for_clean_up()?) } else { removed };
        removed.map_err(|error| {
            Error::new(Kind::Internal, format!("{} could not be removed: {}", self.path().display(), error.cause()))
                .hint(format!("remove it by hand, or let the next {} there do it", self.by()))
        })
    }

    fn by(&self) -> &'static str {
        let name = self.path().file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(DRILL.prefix.as_bytes()) { "drill" } else { "restore" }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_removed
            && let Err(error) = self.clear()
        {
            self.cx.observer.event(Event::Warning { target: None, text: error.cause() });
        }
    }
}

fn unusable(base: &Path) -> Error {
    Error::new(Kind::Refused, format!("can't make a directory in {}", base.display()))
        .hint("look at its owner and permissions, or run this as root")
        .step("place")
}

/// Removes what killed runs left, and says so.
fn collect(base: &Path, sort: Sort, cx: &Context) -> Result<()> {
    for left in Marked::abandoned_in(base, sort, files::own_uid()) {
        let path = left.path().to_owned();
        cx.observer.event(Event::Note { text: format!("removing {}, which an interrupted run left", path.display()) });
        let removed = tree::remove(&path.join(CONTENT), &cx.cancel).and_then(|()| tree::remove(&path, &cx.cancel));
        cx.cancel.check()?;
        let text = match removed {
            Ok(()) => format!("{} was removed, which an interrupted run left", path.display()),
            Err(error) => format!("{} is what an interrupted run left, and could not be removed: {error}", path.display()),
        };
        cx.observer.event(Event::Warning { target: None, text });
    }
    Ok(())
}

/// Refuses where a tar of this size can't fit: what it takes on disk is seldom less. Holes count in neither.
pub(super) fn check_space(base: &Path, bytes: u64) -> Result<()> {
    let unreadable = |error| Error::new(Kind::Refused, format!("can't use {}", base.display())).source(error).step("place");
    let free = files::free_bytes(base).map_err(unreadable)?;
    if free >= bytes {
        return Ok(());
    }
    let cause = format!("{} has {} free, and {} are to be unpacked there", base.display(), show_bytes(free), show_bytes(bytes));
    Err(Error::new(Kind::Refused, cause).hint("make room, or restore it to another file system with --to-path DIR").step("place"))
}
