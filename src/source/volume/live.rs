//! A database at work in a volume: its files, read one after the other while it writes, are no backup of it, though each of them
//! may look well. PostgreSQL's data directory has a `postmaster.pid` beside its `PG_VERSION` as long as the server runs, or where
//! it ended badly. InnoDB's has an `ibdata1` always.

use std::path::Path;

use super::patterns::{Pattern, any_matches};
use crate::config::model::{self, Hold, HoldBy};
use crate::error::{Error, Kind, Result};

const VERSION: &str = "PG_VERSION";
const PID: &str = "postmaster.pid";
const INNODB: &str = "ibdata1";

/// What is looked for, and the directories on the way to the member that passes.
#[derive(Debug, Default)]
pub(super) struct Finding {
    postgres: bool,
    innodb: bool,
    /// Its server is stopped meanwhile, so that a PID file is a leftover.
    stops: bool,
    way: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    /// As in the tar, without a slash at its end.
    path: Vec<u8>,
    version: bool,
    pid: bool,
}

impl Finding {
    /// What a target's backup looks for.
    pub(super) fn of(config: &model::Volume) -> Self {
        let stops = matches!(config.hold, Some(Hold { how: HoldBy::Stop, .. }));
        let looks = !config.allow_live_database;
        Self { postgres: looks, innodb: looks && !stops, stops, way: Vec::new() }
    }

    /// A file passes: `./a/b`.
    pub(super) fn member(&mut self, path: &[u8]) -> Result<()> {
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (directory, name) = (&path[..slash], path[slash..].strip_prefix(b"/").unwrap_or(path));
        if self.innodb && name == INNODB.as_bytes() {
            return Err(self.found(directory, false));
        }
        let (version, pid) = (name == VERSION.as_bytes(), name == PID.as_bytes());
        if !self.postgres || !(version || pid) {
            return Ok(());
        }
        // What is not on the way here is behind us: tar goes into each directory once.
        while self.way.last().is_some_and(|last| !is_within(directory, &last.path)) {
            self.way.pop();
        }
        if self.way.last().is_none_or(|last| last.path != directory) {
            self.way.push(Directory { path: directory.to_vec(), version: false, pid: false });
        }
        let Some(last) = self.way.last_mut() else { return Ok(()) };
        last.version |= version;
        last.pid |= pid;
        if last.version && last.pid { Err(self.found(directory, true)) } else { Ok(()) }
    }

    /// A look at a root directory that can be read from here, so that a large volume is refused at once. Names that match
    /// `exclude` would not come.
    pub(super) fn look(&self, root: &Path, exclude: &[Pattern]) -> Result<()> {
        let is_there = |name: &str| !any_matches(exclude, name.as_bytes()) && root.join(name).symlink_metadata().is_ok();
        if self.innodb && is_there(INNODB) {
            return Err(self.found(b".", false));
        }
        if self.postgres && is_there(VERSION) && is_there(PID) {
            return Err(self.found(b".", true));
        }
        Ok(())
    }

    /// The same before containers were stopped that will be by then.
    pub(super) fn look_beforehand(&self, root: &Path, exclude: &[Pattern]) -> Result<()> {
        if self.stops { Ok(()) } else { self.look(root, exclude) }
    }

    fn found(&self, directory: &[u8], is_postgres: bool) -> Error {
        let directory = String::from_utf8_lossy(directory);
        let place = match directory.strip_prefix("./").unwrap_or(&directory) {
            "." | "" => "its root".to_owned(),
            other => other.to_owned(),
        };
        let (what, kind) = if is_postgres {
            (format!("{VERSION} and {PID}, as a PostgreSQL server has that runs"), "`type: postgres`")
        } else {
            (format!("{INNODB}, as MySQL and MariaDB have"), "its own dump program, from a hook")
        };
        let hint = if self.stops {
            format!("{PID} is there though containers were stopped: is the server's one of them, and did it end well?")
        } else {
            format!(
                "back it up with {kind}, or stop its container meanwhile (`stop:`); `allow_live_database: true` takes the files as they are"
            )
        };
        Error::new(
            Kind::Check,
            format!("a live database is in it: {place} has {what}; files that it writes meanwhile are no backup"),
        )
        .hint(hint)
        .step("live database")
    }
}

/// Whether a path is this directory or below it.
fn is_within(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding { postgres: true, innodb: true, stops: false, way: Vec::new() }
    }

    fn passes(finding: &mut Finding, paths: &[&str]) -> Result<()> {
        paths.iter().try_for_each(|path| finding.member(path.as_bytes()))
    }

    #[test]
    fn the_two_files_are_found_in_one_directory_whatever_comes_between() {
        let live: [&[&str]; 4] = [
            &["./PG_VERSION", "./postmaster.pid"],
            &["./a/postmaster.pid", "./a/base/1/PG_VERSION", "./a/base/5/PG_VERSION", "./a/x", "./a/PG_VERSION"],
            &["./x/PG_VERSION", "./a/b/c", "./a/b/PG_VERSION", "./a/b/postmaster.pid"],
            &["./ibdata1"],
        ];
        for paths in live {
            assert_eq!(passes(&mut finding(), paths).unwrap_err().kind(), Kind::Check, "{paths:?}");
        }
        let idle: [&[&str]; 4] = [
            &["./PG_VERSION", "./a/postmaster.pid", "./ab/PG_VERSION"],
            &["./a/PG_VERSION", "./ab/postmaster.pid"],
            &["./a/postmaster.pid", "./a/base/1/PG_VERSION", "./b/PG_VERSION"],
            &["./xibdata1", "./ibdata1.bak", "./postmaster.pid/x", "./PG_VERSION"],
        ];
        for paths in idle {
            passes(&mut finding(), paths).unwrap();
        }
        let mut stopped = Finding { innodb: false, stops: true, ..finding() };
        passes(&mut stopped, &["./ibdata1"]).unwrap();
        assert!(passes(&mut stopped, &["./PG_VERSION", "./postmaster.pid"]).is_err());
    }

    #[test]
    fn only_the_way_to_a_member_is_remembered() {
        let mut finding = finding();
        for number in 0..1000 {
            finding.member(format!("./a/{number}/PG_VERSION").as_bytes()).unwrap();
            assert!(finding.way.len() <= 2);
        }
    }
}
