//! What all that tar said comes to, with the way in which it ended: whether the backup is whole, what a person should know of
//! it, and what puts it in doubt. An exit code that nothing explains is a failure, whatever the stream looks like.

use super::{Messages, Names};
use crate::error::{Error, Kind, Result};
use crate::host::process::Exit;

/// What there is to say of a stream that is whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::source::volume) struct Said {
    /// What a person should know.
    pub(in crate::source::volume) warnings: Vec<String>,
    /// What may not be as it was.
    pub(in crate::source::volume) doubts: Vec<String>,
}

impl Messages {
    /// Judges them by tar's end. `unreadable_hint` is what to do about files that could not be read. A failure that nothing
    /// is known of has no hint.
    pub(in crate::source::volume) fn judge(self, exit: Exit, unreadable_hint: &str) -> Result<Said> {
        let skips = self.rules.skip_unreadable;
        if !skips && !self.unreadable.is_empty() {
            let cause = format!("tar could not read {}: {}", self.unreadable.counted("file", "files"), self.unreadable.listed());
            return Err(Error::new(Kind::Child, cause).hint(unreadable_hint));
        }
        if !skips && !self.broken.is_empty() {
            let cause =
                format!("tar could not read {} to the end: {}", self.broken.counted("file", "files"), self.broken.listed());
            return Err(Error::new(Kind::Child, cause).hint(
                "look at the disk and the kernel's log; `skip_unreadable: true` backs up what can be read, and says so each time",
            ));
        }
        let is_explained = match exit {
            Exit::Code(0) => true,
            Exit::Code(1) => self.may_differ(),
            Exit::Code(2) => self.unexplained.is_empty() && self.may_fail(),
            Exit::Code(_) | Exit::Signal(_) => false,
        };
        if is_explained { Ok(self.said()) } else { Err(self.failure(exit)) }
    }

    /// Whether something explains tar's "some files differ".
    fn may_differ(&self) -> bool {
        [&self.vanished, &self.gone, &self.changed, &self.allowed, &self.directories, &self.shrank]
            .iter()
            .any(|names| !names.is_empty())
            // busybox's only code for a failure.
            || self.may_fail()
    }

    /// Whether something that is allowed explains tar's failure.
    fn may_fail(&self) -> bool {
        self.unknown_kind || [&self.vanished, &self.unreadable, &self.broken].iter().any(|names| !names.is_empty())
    }

    fn failure(&self, exit: Exit) -> Error {
        let said = if self.unexplained.is_empty() { String::new() } else { format!(": {}", self.unexplained.first.join("; ")) };
        let error = Error::new(Kind::Child, format!("tar {}{said}", exit.describe()));
        match exit {
            Exit::Signal(_) | Exit::Code(129..) => {
                error.hint("find out who sent the signal: where memory ran out, the kernel's log says so")
            }
            Exit::Code(_) => error,
        }
    }

    fn said(self) -> Said {
        let warnings = [
            self.vanished.sentence("vanished while the tree was read, and the backup has no copy"),
            self.gone.sentence("went away while being read; the backup has what was read"),
            self.directories.of(
                "directory",
                "directories",
                "changed while being read; what came or was moved there may be missing",
            ),
            self.allowed.sentence("changed while being read, which allow_changed allows"),
            self.unreadable.sentence("could not be read, and the backup has no copy (skip_unreadable)"),
            self.ignored.sentence("left out, as a tar holds no sockets"),
            self.engine.quoted("the container engine says"),
        ];
        let doubts = [
            self.changed.sentence("changed while being read; the copy may be neither the old content nor the new one"),
            self.shrank.sentence("shrank while being read; the copy ends in zeros"),
            self.broken.sentence("could not be read to the end; the copy has zeros instead (skip_unreadable)"),
            self.attributes.sentence("with extended attributes or an ACL that could not be read, and that the backup lacks"),
            self.unexplained.quoted("tar says what this program does not know"),
        ];
        Said { warnings: warnings.into_iter().flatten().collect(), doubts: doubts.into_iter().flatten().collect() }
    }
}

impl Names {
    /// `3 files changed: a, b, c`, or `4731 files changed: a, ... and 4711 more`.
    fn sentence(&self, text: &str) -> Option<String> {
        self.of("file", "files", text)
    }

    fn of(&self, one: &str, many: &str, text: &str) -> Option<String> {
        (!self.is_empty()).then(|| format!("{} {text}: {}", self.counted(one, many), self.listed()))
    }

    /// What was said in other words than ours.
    fn quoted(&self, by: &str) -> Option<String> {
        (!self.is_empty()).then(|| format!("{by}: {}", self.listed()))
    }

    fn counted(&self, one: &str, many: &str) -> String {
        format!("{} {}", self.count, if self.count == 1 { one } else { many })
    }

    fn listed(&self) -> String {
        let more = self.count - self.first.len() as u64;
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{more}", self.first.join(", "))
    }
}
