//! A dump's text on its way back: into a scratch database by psql, in restricted mode under our own
//! token. psql's exit code proves nothing, so a query follows the last statement, and its random
//! answer must come back; on any failure psql is killed before its input ends.

use std::io::{self, Write};

use super::arrival::Arrival;
use super::client::{Programs, Psql, Version, quote_literal};
use super::filter::Filter;
use super::globals;
use super::options;
use super::parallel::{self, Spool};
use super::properties;
use super::scratch::{Scratch, random_word};
use super::site::Site;
use super::staged::StagedDatabase;
use super::unpack::Unpack;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::process::Child;
use crate::source::{Sink, Staged};

/// What psql does, for messages.
const DOING: &str = "loading with psql";
/// A manifest's format of an archive.
pub(super) const CUSTOM: &str = "custom";

/// Finds what a stream of this format needs, and decides whether several objects are loaded at once; changes nothing.
/// `wrote` is the major version of the pg_dump that wrote it, 0 where it is not known.
pub(super) fn prepare(arrival: &mut Arrival, site: &Site, wrote: u32, cx: &Context) -> Result<()> {
    if arrival.format != CUSTOM {
        if arrival.options.jobs.is_some() {
            let text =
                "--jobs has no effect: a plain dump is loaded in its own order (`format: custom` can be loaded in parallel)";
            arrival.warnings.push(text.to_owned());
        }
        return Ok(());
    }
    let (server, by) = (Version::of_major(arrival.server_major), Version::of_major(wrote));
    arrival.pg_restore = Some(Programs::look("pg_restore", site, cx)?.fitting_archive(&server, Some(&by))?);
    parallel::decide(arrival)
}

/// Makes a scratch database, and what loads a stream into it.
pub(super) fn into(arrival: Arrival, cx: &Context) -> Result<Box<dyn Sink>> {
    if !arrival.make_roles.is_empty() {
        globals::create(&arrival.admin, &arrival.make_roles, cx)?;
    }
    match (arrival.format.as_str(), arrival.options.jobs) {
        (CUSTOM, Some(jobs)) => Ok(Box::new(Spool::start(arrival, jobs, cx)?)),
        (CUSTOM, None) => Ok(Box::new(Unpack::start(arrival, cx)?)),
        _ => Ok(Box::new(TextSink::start(arrival, cx)?)),
    }
}

/// psql at work on a scratch database.
pub(super) struct TextSink {
    // Dropped in this order: the child ends before its database goes.
    psql: Child,
    scratch: Scratch,
    filter: Filter,
    arrival: Arrival,
    cx: Context,
}

impl TextSink {
    /// Makes the scratch database and starts psql on it.
    pub(super) fn start(arrival: Arrival, cx: &Context) -> Result<Self> {
        let scratch = Scratch::create(&arrival, cx)?;
        options::make_schemas(&arrival, cx)?;
        let session = arrival.inside();
        let mut psql = session.program().spawn_writer(cx)?;
        // The filter reads strings so until the dump says otherwise; the server's own default may differ.
        let mut preamble = "SET standard_conforming_strings = on;\n".to_owned();
        let money = arrival.facts.money_locale.iter().map(|locale| format!("SET lc_monetary = {};\n", quote_literal(locale)));
        preamble.extend(money);
        if session.client.has_restricted_mode() {
            preamble.insert_str(0, &format!("\\restrict {}\n", random_word()?));
        } else {
            // The filter lets no backslash command through in any case.
            tracing::debug!("this psql has no restricted mode");
        }
        psql.write_all(preamble.as_bytes()).map_err(|error| load_failed(&session, &mut psql, error))?;
        let filter = Filter::new(arrival.omit.clone());
        Ok(Self { psql, scratch, filter, arrival, cx: cx.clone() })
    }

    fn pass_on(&mut self) -> Result<()> {
        let text = self.filter.take();
        let written = self.psql.write_all(text);
        text.clear();
        written.map_err(|error| load_failed(&self.arrival.admin, &mut self.psql, error))
    }

    /// Asks for a random answer behind the last statement, and ends psql.
    fn prove(&mut self) -> Result<()> {
        let (one, two) = (random_word()?, random_word()?);
        // Nothing comes back inside of a transaction that psql's end would undo.
        let question = format!(
            "\nSELECT {} || {} WHERE pg_catalog.txid_current_if_assigned() IS NULL;\n",
            quote_literal(&one),
            quote_literal(&two)
        );
        self.psql.write_all(question.as_bytes()).map_err(|error| load_failed(&self.arrival.admin, &mut self.psql, error))?;
        self.psql.close_stdin();
        let finished = self.psql.wait()?;
        let (exit, said) = self.arrival.admin.client.site.ended(DOING, &finished)?;
        if !exit.is_success() {
            return Err(self.arrival.admin.failed(DOING, exit, &said));
        }
        let said = String::from_utf8_lossy(&finished.stdout_tail);
        if said.lines().last() != Some(format!("{one}{two}").as_str()) {
            // What it said of its end may come before what it said before.
            if let Some(inside) = self.arrival.admin.client.site.inside() {
                return Err(inside.cut(DOING));
            }
            return Err(Error::new(Kind::Damaged, "psql exited with code 0, but did not get to the end of the dump")
                .hint("the dump is cut inside a statement: verify the backup, and take another one"));
        }
        Ok(())
    }
}

impl Write for TextSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.filter.feed(bytes).and_then(|()| self.pass_on()).map_err(|error| error.step("load"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for TextSink {
    fn finish(mut self: Box<Self>) -> Result<Box<dyn Staged>> {
        let whole = if self.filter.is_complete() {
            self.filter.finish();
            self.pass_on().and_then(|()| self.prove())
        } else {
            Err(Error::new(Kind::Damaged, "the dump does not end as a whole one does")
                .hint("verify the backup, and take another one"))
        };
        whole.map_err(|error| error.step("load"))?;
        let Self { scratch, arrival, cx, filter, .. } = *self;
        loaded(scratch, arrival, filter.omitted_refreshes(), cx)
    }
}

/// A scratch database into which everything is loaded, but for these refreshes.
pub(super) fn loaded(mut scratch: Scratch, arrival: Arrival, left_out: &[String], cx: Context) -> Result<Box<dyn Staged>> {
    let told =
        |view: &String| format!("{view} is not refreshed, as it would query another server: REFRESH MATERIALIZED VIEW {view};");
    let mut warnings: Vec<String> = left_out.iter().map(told).collect();
    options::drop_empty_schemas(&arrival, &cx)?;
    let put_back = properties::put_back(&scratch, &arrival, &cx)?;
    warnings.extend(put_back.left_out);
    scratch.defer(put_back.deferred);
    Ok(Box::new(StagedDatabase { scratch, arrival, warnings, cx }))
}

/// Why psql took no more: what it said, where it ended; else the write's own error.
fn load_failed(by: &Psql, psql: &mut Child, error: io::Error) -> Error {
    let error = crate::error::from_io(error, Kind::Child, "psql took no more of the dump");
    // Only where it has ended: waiting would end its input, and what came so far would be applied.
    if error.kind() != Kind::Child {
        return error.step("load");
    }
    match psql.wait().and_then(|finished| by.client.site.ended(DOING, &finished)) {
        Ok((exit, said)) if !exit.is_success() => by.failed(DOING, exit, &said).step("load"),
        Ok(_) => error.step("load"),
        Err(other) => other.step("load"),
    }
}
