//! A plain dump on its way: pg_dump's stdout, counted as it passes. The dump is whole only when
//! pg_dump exited 0 and its text ends in its trailer line.

use std::io::{self, Read};

use super::census::Census;
use super::client::{Client, Psql};
use super::diagnosis;
use super::facts::SourceFacts;
use super::options;
use crate::config::model::{self, Format};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Cancel;
use crate::host::process::{Child, Exit, Program};
use crate::observe::Event;
use crate::source::{Capture, CaptureInfo, Facts};

/// A running pg_dump.
pub(super) struct DumpCapture {
    child: Child,
    census: Census,
    bytes: u64,
    facts: SourceFacts,
    pg_dump: Client,
    warnings: Vec<String>,
    /// Asks the same server, to end the dump's session.
    psql: Psql,
    cx: Context,
    ended: bool,
}

impl DumpCapture {
    /// Starts pg_dump. Its session bears the application name of `psql`.
    pub(super) fn start(
        pg_dump: Client,
        psql: Psql,
        config: &model::Postgres,
        facts: SourceFacts,
        warnings: Vec<String>,
        cx: &Context,
    ) -> Result<Self> {
        if config.format != Format::Plain {
            return Err(Error::new(Kind::Internal, "not yet"));
        }
        let quote_all = facts.quote_all.then_some("--quote-all-identifiers");
        let program = Program::new(&pg_dump.path).args(["--format=plain", "--no-password"]).args(quote_all);
        let program = program.args(options::arguments(&config.filter));
        // In the database's own encoding, whatever client_encoding it or the role sets: in some that only clients
        // have, a dump can't be taken apart, and in a smaller one not all of it can be written.
        let program = psql.connection.apply(program, &psql.application).env("PGCLIENTENCODING", facts.restore.encoding.as_str());
        let child = program.spawn_reader(cx)?;
        Ok(Self { child, census: Census::default(), bytes: 0, facts, pg_dump, warnings, psql, cx: cx.clone(), ended: false })
    }

    /// What to do about an end that nothing is known of.
    fn way_out(&self, exit: Exit) -> String {
        match exit {
            Exit::Code(_) => format!("run {} by hand, as this user, on the same database", self.pg_dump.path.display()),
            Exit::Signal(_) => "find out who sent the signal: where memory ran out, the kernel's log says so".to_owned(),
        }
    }

    fn check_whole(&self) -> Result<()> {
        if self.census.is_complete() {
            return Ok(());
        }
        let cause = if self.bytes == 0 {
            "pg_dump exited with code 0 and wrote nothing".to_owned()
        } else {
            format!("pg_dump exited with code 0, but the {} bytes that it wrote do not end as a whole dump does", self.bytes)
        };
        Err(Error::new(Kind::Child, cause)
            .hint(format!("is {} the real pg_dump? run it by hand and look at its last lines", self.pg_dump.path.display())))
    }
}

impl Read for DumpCapture {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.child.read(buffer)?;
        self.census.feed(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl Capture for DumpCapture {
    fn finish(mut self: Box<Self>) -> Result<CaptureInfo> {
        let finished = self.child.wait()?;
        // One that a signal killed could not end its session.
        self.ended = matches!(finished.exit, Exit::Code(_));
        if !finished.exit.is_success() {
            let error = diagnosis::failed("pg_dump", finished.exit, &finished.stderr_tail);
            return Err(error.hint_if_none(self.way_out(finished.exit)));
        }
        self.check_whole()?;
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(diagnosis::warnings(&finished.stderr_tail));
        let facts = Facts {
            kind: "postgres".into(),
            database: Some(self.facts.database.clone()),
            format: "plain".into(),
            server_version: Some(self.facts.short_version()),
            client_version: self.pg_dump.version_text(),
            restore: serde_json::to_value(&self.facts.restore)
                .map_err(|error| Error::new(Kind::Internal, "can't write down the database's facts").source(error))?,
        };
        Ok(CaptureInfo { facts, inventory: std::mem::take(&mut self.census).inventory(), warnings })
    }
}

impl Drop for DumpCapture {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.child.kill();
        // A session that waits for a lock does not notice that its client is gone.
        let ended = Cancel::for_clean_up()
            .and_then(|cancel| self.psql.end_sessions(&self.psql.application, &self.cx.with_cancel(cancel)));
        if let Err(error) = ended {
            tracing::debug!(%error, "the dump's session could not be ended");
            if error.kind() != Kind::Connection {
                let text = format!("the server session of pg_dump may still be there: {error}");
                self.cx.observer.event(Event::Warning { target: Some(self.facts.database.clone()), text });
            }
        }
    }
}
