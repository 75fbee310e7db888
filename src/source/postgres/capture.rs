//! A dump on its way: pg_dump's stdout, counted as it passes. It is whole only when pg_dump exited 0, and
//! a plain one's text ends in its trailer line, or an archive has all the data that it announces.

use std::io::{self, Read};

use super::archive::Tally;
use super::census::Census;
use super::client::{CLIENT_ENCODING, Client, Psql};
use super::diagnosis;
use super::facts::SourceFacts;
use super::load::CUSTOM;
use super::options;
use super::spelling::Spelling;
use crate::config::model::{self, Format};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Cancel;
use crate::host::engine::Stdin;
use crate::host::process::{Child, Exit};
use crate::names::UnitName;
use crate::observe::Event;
use crate::source::{Capture, CaptureInfo, Facts, Inventory};

/// Counts a stream of one format as it passes, and knows whether it was whole.
enum Reading {
    Plain(Census),
    Custom(Tally),
}

impl Reading {
    fn of(format: Format) -> Self {
        match format {
            Format::Plain => Self::Plain(Census::default()),
            Format::Custom => Self::Custom(Tally::default()),
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Plain(census) => census.feed(bytes),
            Self::Custom(tally) => return tally.feed(bytes),
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Plain(census) => census.is_complete(),
            Self::Custom(tally) => tally.is_complete(),
        }
    }

    /// The names in it that are to be spelled.
    fn names(&self) -> Vec<&[u8]> {
        match self {
            Self::Plain(census) => census.names(),
            Self::Custom(tally) => tally.names(),
        }
    }

    fn inventory(self, spelling: &Spelling) -> Inventory {
        match self {
            Self::Plain(census) => census.inventory(spelling),
            Self::Custom(tally) => tally.inventory(spelling),
        }
    }

    /// As pg_dump and the manifest call it.
    fn format(&self) -> &'static str {
        match self {
            Self::Plain(_) => "plain",
            Self::Custom(_) => CUSTOM,
        }
    }
}

/// A running pg_dump.
pub(super) struct DumpCapture {
    child: Child,
    reading: Reading,
    bytes: u64,
    facts: SourceFacts,
    pg_dump: Client,
    warnings: Vec<String>,
    /// Asks the same server, to end the dump's session.
    psql: Psql,
    cx: Context,
    unit: UnitName,
    ended: bool,
}

impl DumpCapture {
    /// Starts pg_dump. Its session bears the application name of `psql`.
    pub(super) fn start(
        unit: &UnitName,
        pg_dump: Client,
        psql: Psql,
        config: &model::Postgres,
        mut facts: SourceFacts,
        warnings: Vec<String>,
        cx: &Context,
    ) -> Result<Self> {
        options::settle(&mut facts.restore, &config.filter);
        let quote_all = facts.quote_all.then_some("--quote-all-identifiers");
        let reading = Reading::of(config.format);
        let format = format!("--format={}", reading.format());
        // Compressed by us: then it can be counted, and many threads compress.
        let uncompressed = (config.format == Format::Custom).then_some("--compress=0");
        // In the database's own encoding, whatever client_encoding it or the role sets: in some that only clients
        // have, a dump can't be taken apart, and in a smaller one not all of it can be written.
        let mut variables = psql.variables();
        variables.insert(CLIENT_ENCODING, facts.restore.encoding.clone());
        let program = pg_dump.program(Stdin::Leash, &variables).args([format.as_str(), "--no-password"]).args(uncompressed);
        let program = program.args(quote_all).args(options::arguments(&config.filter));
        let child = program.spawn_reader(cx)?;
        Ok(Self { child, reading, bytes: 0, facts, pg_dump, warnings, psql, cx: cx.clone(), unit: unit.clone(), ended: false })
    }

    /// What to do about an end that nothing is known of.
    fn way_out(&self, exit: Exit) -> String {
        match exit {
            Exit::Code(_) => format!("run {} by hand, as this user, on the same database", self.pg_dump.by_hand()),
            Exit::Signal(_) => "find out who sent the signal: where memory ran out, the kernel's log says so".to_owned(),
        }
    }

    /// What was counted. A name that can't be read is no reason to lose the backup.
    fn inventory(&mut self, warnings: &mut Vec<String>) -> Result<Inventory> {
        let reading = std::mem::replace(&mut self.reading, Reading::of(Format::Plain));
        let encoding = &self.facts.restore.encoding;
        let spelling = match Spelling::ask(&self.psql, encoding, reading.names(), &self.cx) {
            Err(error) if error.kind() != Kind::Interrupted => {
                warnings.push(format!("names of tables stand in the inventory with signs that are not their own, so a drill can't find those: {error}"));
                Spelling::default()
            }
            asked => asked?,
        };
        Ok(reading.inventory(&spelling))
    }

    fn check_whole(&self) -> Result<()> {
        if self.reading.is_complete() {
            return Ok(());
        }
        let cause = if self.bytes == 0 {
            "pg_dump exited with code 0 and wrote nothing".to_owned()
        } else {
            format!("pg_dump exited with code 0, but the {} bytes that it wrote do not end as a whole dump does", self.bytes)
        };
        Err(Error::new(Kind::Child, cause)
            .hint(format!("is {} the real pg_dump? run it by hand and look at its last lines", self.pg_dump.by_hand())))
    }
}

impl Read for DumpCapture {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.child.read(buffer)?;
        if let Err(error) = self.reading.feed(&buffer[..count]) {
            let by_hand = self.pg_dump.by_hand();
            return Err(error.hint_if_none(format!("is {by_hand} the real pg_dump? run it by hand on the same database")).into());
        }
        self.bytes += count as u64;
        Ok(count)
    }
}

impl Capture for DumpCapture {
    /// The whole database's, also where only a part of it is dumped.
    fn estimated_bytes(&self) -> Option<u64> {
        self.facts.bytes
    }

    fn finish(mut self: Box<Self>) -> Result<CaptureInfo> {
        let finished = self.child.wait()?;
        // One that a signal killed could not end its session.
        let (exit, said) = self.pg_dump.site.ended("pg_dump", &finished)?;
        self.ended = matches!(exit, Exit::Code(_));
        if !exit.is_success() {
            let error = self.pg_dump.site.failed("pg_dump", exit, &said);
            return Err(error.hint_if_none(self.way_out(exit)));
        }
        self.check_whole()?;
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(diagnosis::warnings(&said));
        let facts = Facts {
            kind: "postgres".into(),
            database: Some(self.facts.database.clone()),
            format: self.reading.format().into(),
            server_version: Some(self.facts.short_version()),
            client_version: self.pg_dump.version_text(),
            restore: serde_json::to_value(&self.facts.restore)
                .map_err(|error| Error::new(Kind::Internal, "can't write down the database's facts").source(error))?,
        };
        let inventory = self.inventory(&mut warnings)?;
        Ok(CaptureInfo { facts, inventory, warnings, doubts: Vec::new() })
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
                self.cx.observer.event(Event::Warning { target: Some(self.unit.to_string()), text });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// For scripts/bench-inventory, which gives the dump's file and holds what comes out against a backup's time.
    #[test]
    #[ignore = "measures, and judges nothing"]
    #[allow(clippy::disallowed_methods, clippy::print_stdout)]
    fn seconds_that_counting_takes() {
        let mut dump = std::fs::File::open(std::env::var_os("CENSUS_DUMP").unwrap()).unwrap();
        let format = std::env::var("CENSUS_FORMAT").unwrap();
        let mut reading = Reading::of(if format == CUSTOM { Format::Custom } else { Format::Plain });
        let mut buffer = vec![0; 64 << 10];
        let mut taken = Duration::ZERO;
        loop {
            let count = dump.read(&mut buffer).unwrap();
            let begun = Instant::now();
            reading.feed(&buffer[..count]).unwrap();
            taken += begun.elapsed();
            if count == 0 {
                break;
            }
        }
        assert!(reading.is_complete());
        println!("\ncensus: {:.4} s", taken.as_secs_f64());
    }
}
