//! An archive on its way back, several objects at once: into a file first, as pg_restore must seek in it. Only when
//! it is proven whole, and nothing in it acts outside, pg_restore loads it into the scratch database.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::archive::Judge;
use super::arrival::Arrival;
use super::client::quote_identifier;
use super::filter::Omit;
use super::load::loaded;
use super::options;
use super::scratch::Scratch;
use crate::error::{Error, Kind, Result};
use crate::host::engine::Stdin;
use crate::host::{Context, files};
use crate::quantity::show_bytes;
use crate::source::{Sink, Staged};

/// The first pg_restore that sets `transaction_timeout`, which older servers do not know.
const TRANSACTION_TIMEOUT: u32 = 17;
/// How a spool's directory in `state_dir` begins.
const PREFIX: &str = "spool-";
/// The list of what is to be loaded, in that directory.
const LIST: &str = "list";

/// Decides whether several objects are loaded at once, and refuses where there is no room for the spool.
pub(super) fn decide(arrival: &mut Arrival) -> Result<()> {
    // One after another needs no spool.
    arrival.options.jobs = arrival.options.jobs.filter(|jobs| jobs.get() > 1);
    if arrival.options.jobs.is_none() {
        return Ok(());
    }
    if let Some(inside) = arrival.pg_restore.as_ref().and_then(|client| client.site.inside()) {
        arrival.warnings.push(no_file_in(&inside.describe()));
        arrival.options.jobs = None;
        return Ok(());
    }
    let version = arrival.pg_restore.as_ref().and_then(|client| client.version.as_ref());
    if let Some(version) =
        version.filter(|version| version.major >= TRANSACTION_TIMEOUT && arrival.server_major < TRANSACTION_TIMEOUT)
    {
        arrival.warnings.push(format!(
            "--jobs has no effect: pg_restore {} can't load into server version {} by itself; it is loaded one object after another",
            version.text, arrival.server_major
        ));
        arrival.options.jobs = None;
        return Ok(());
    }
    check_room(&arrival.state_dir, arrival.bytes)
}

/// What is said where pg_restore runs in a container.
pub(super) fn no_file_in(container: &str) -> String {
    format!(
        "--jobs has no effect: pg_restore would need the archive as a file in {container}; it is loaded one object after another"
    )
}

fn check_room(state_dir: &Path, bytes: u64) -> Result<()> {
    // It is made with the first lock: what its parent has free counts until then.
    let there = state_dir.ancestors().find(|path| path.is_dir()).unwrap_or(state_dir);
    let free = files::free_bytes(there).map_err(|error| spool_failed(state_dir, error))?;
    if free >= bytes {
        return Ok(());
    }
    let cause = format!(
        "to load several objects at once the archive must be in a file first: it has {}, and {} has {} free",
        show_bytes(bytes),
        state_dir.display(),
        show_bytes(free)
    );
    Err(Error::new(Kind::Refused, cause)
        .hint("free some space, set `state_dir:` to another disk, or restore with --jobs 1")
        .step("spool"))
}

/// An archive in a file that has no name any more: whatever ends us, nothing of it is left.
pub(super) struct Spool {
    file: File,
    directory: TempDir,
    judge: Judge,
    jobs: NonZeroU32,
    arrival: Arrival,
    cx: Context,
}

impl Spool {
    /// Makes the file. The scratch database is made when all of it is there.
    pub(super) fn start(arrival: Arrival, jobs: NonZeroU32, cx: &Context) -> Result<Self> {
        check_room(&arrival.state_dir, arrival.bytes)?;
        let failed = |error| spool_failed(&arrival.state_dir, error);
        let directory = files::private_dir_in(&arrival.state_dir, PREFIX).map_err(failed)?;
        let path = directory.path().join("archive");
        let file = files::create_private(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        // Owners and privileges are left out by pg_restore.
        let judge = Judge::new(Omit { owners: false, privileges: false, ..arrival.omit.clone() });
        Ok(Self { file, directory, judge, jobs, arrival, cx: cx.clone() })
    }

    fn pass_on(&mut self, bytes: &[u8]) -> Result<()> {
        self.judge.feed(bytes).map_err(|error| error.step("load"))?;
        self.file.write_all(bytes).map_err(|error| spool_failed(&self.arrival.state_dir, error))
    }

    /// Writes down where each block of data is, and what is to be loaded.
    fn complete(&self) -> Result<()> {
        if !self.judge.is_complete() {
            return Err(Error::new(Kind::Damaged, "the archive does not end as a whole one does")
                .hint("verify the backup, and take another one")
                .step("load"));
        }
        let write = || -> io::Result<()> {
            // Each job would read the file from its beginning to find its data.
            self.judge.offsets().try_for_each(|(place, offset)| self.file.write_all_at(&offset, place))?;
            files::create_private(&self.directory.path().join(LIST))?.write_all(self.judge.list().as_bytes())
        };
        write().map_err(|error| spool_failed(&self.arrival.state_dir, error))
    }

    fn load(&self) -> Result<()> {
        let Arrival { facts, omit, pg_restore, .. } = &self.arrival;
        let pg_restore = pg_restore.as_ref().ok_or_else(|| Error::new(Kind::Internal, "no pg_restore was looked for"))?;
        let session = self.arrival.inside();
        let connection = match &facts.money_locale {
            Some(locale) => session.connection.with_setting("lc_monetary", locale),
            None => session.connection.clone(),
        };
        // An empty name stands for PGDATABASE. The archive is its stdin, which each job opens anew.
        let program = pg_restore
            .program(Stdin::Data, &connection.variables(&session.application))
            .args(["--dbname=", "--no-password", "--exit-on-error", "--use-list=list"])
            .arg(format!("--jobs={}", self.jobs))
            .args(omit.owners.then_some("--no-owner"))
            .args(omit.privileges.then_some("--no-privileges"))
            .arg("/dev/stdin")
            .directory(self.directory.path());
        let file = self.file.try_clone().map_err(|error| spool_failed(&self.arrival.state_dir, error))?;
        let finished = program.spawn_on(file, &self.cx)?.wait()?;
        if !finished.exit.is_success() {
            return Err(pg_restore.site.failed("loading with pg_restore", finished.exit, &finished.stderr_tail));
        }
        let owner = self.judge.public_owner().filter(|owner| !owner.is_empty() && !omit.owners);
        let Some(owner) = owner else { return Ok(()) };
        let sql = format!("ALTER SCHEMA public OWNER TO {};", quote_identifier(owner));
        session.run(&sql, "giving the schema public its owner", &self.cx).map(drop)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass_on(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Spool {
    fn finish(self: Box<Self>) -> Result<Box<dyn Staged>> {
        self.complete()?;
        let scratch = Scratch::create(&self.arrival, &self.cx)?;
        options::make_schemas(&self.arrival, &self.cx)?;
        self.load().map_err(|error| error.step("load"))?;
        let Self { arrival, judge, cx, .. } = *self;
        loaded(scratch, arrival, judge.omitted_refreshes(), cx)
    }
}

fn spool_failed(state_dir: &Path, error: io::Error) -> Error {
    Error::new(Kind::Internal, format!("can't write the archive to a file in {}", state_dir.display()))
        .hint("look at the space and the permissions there, set `state_dir:` to another disk, or restore with --jobs 1")
        .source(error)
        .step("spool")
}
