//! Counts a volume's members as they pass, and finds a database that may be at work in them. It remembers the directories on the
//! way to the member that passes, and no others.

use std::collections::BTreeSet;

use super::guard::shown;
use super::live::Finding;
use super::members::{Member, MemberKind, Visitor};
use crate::error::{Error, Kind, Result};
use crate::source::FileCounts;

/// Of how many owners the ids are kept.
const OWNERS: usize = 64;

/// No call of the system takes a longer path. tar reads what is deeper, and then can't unpack it.
const LONGEST_PATH: usize = 4095;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Census {
    counts: FileCounts,
    owners: BTreeSet<(u64, u64)>,
    members: u64,
    finding: Finding,
}

impl Census {
    /// One that fails at a database which this allows not.
    pub(super) fn of(finding: Finding) -> Self {
        Self { finding, ..Self::default() }
    }

    pub(super) fn counts(&self) -> FileCounts {
        self.counts
    }

    /// How many members there were.
    pub(super) fn members(&self) -> u64 {
        self.members
    }

    /// Whose they are, `UID:GID`, in order; none where there are very many.
    pub(super) fn owners(&self) -> Option<Vec<String>> {
        let shown = || self.owners.iter().map(|(uid, gid)| format!("{uid}:{gid}")).collect();
        (self.owners.len() <= OWNERS).then(shown)
    }
}

impl Visitor for Census {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        self.members += 1;
        if member.path.len() > LONGEST_PATH {
            return Err(too_deep(member.path));
        }
        if self.owners.len() <= OWNERS {
            self.owners.insert((member.uid, member.gid));
        }
        let count = match member.kind {
            MemberKind::File => &mut self.counts.files,
            MemberKind::Directory => &mut self.counts.directories,
            MemberKind::HardLink | MemberKind::SymbolicLink => &mut self.counts.links,
            _ => &mut self.counts.others,
        };
        *count += 1;
        if member.kind == MemberKind::Directory { Ok(()) } else { self.finding.member(member.path) }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.counts.bytes += bytes.len() as u64;
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> Result<()> {
        self.counts.bytes += bytes;
        Ok(())
    }
}

fn too_deep(path: &[u8]) -> Error {
    let bytes = path.len();
    let begin = shown(&path[..path.len().min(100)]);
    Error::new(Kind::Child, format!("a path of {bytes} bytes can't be restored by any tar, which begins with {begin}"))
        .hint(format!(
            "no path may have more than {LONGEST_PATH} bytes: move what is there further up, or leave it out by `exclude:`"
        ))
        .step("archive")
}
