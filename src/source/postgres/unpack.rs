//! An archive on its way back, one object after another: pg_restore, which has no connection, turns it into text,
//! and that goes the way of a plain dump's, through the filter into psql.

use std::io::{self, Read as _, Write};

use super::archive::Reader;
use super::arrival::Arrival;
use super::load::TextSink;
use super::site::{Site, Variables};
use crate::error::{Error, Kind, Result, from_io};
use crate::host::Context;
use crate::host::engine::Stdin;
use crate::host::process::{Child, Exit};
use crate::source::{Sink, Staged};

/// What pg_restore does, for messages.
const DOING: &str = "reading the archive with pg_restore";
/// What is read of pg_restore's text at once.
const TEXT_BYTES: usize = 256 << 10;

/// pg_restore at work, and psql behind it.
pub(super) struct Unpack {
    // Dropped in this order: psql's input has not ended when it is killed.
    pg_restore: Child,
    site: Site,
    text: Box<TextSink>,
    /// Knows whether the archive was whole, whatever pg_restore thinks of it.
    reader: Reader,
    buffer: Vec<u8>,
}

impl Unpack {
    /// Makes the scratch database, and starts both programs.
    pub(super) fn start(arrival: Arrival, cx: &Context) -> Result<Self> {
        let pg_restore = arrival.pg_restore.as_ref().ok_or_else(|| Error::new(Kind::Internal, "no pg_restore was looked for"))?;
        let site = pg_restore.site.clone();
        let program = pg_restore.program(Stdin::Data, &Variables::new()).arg("--file=-");
        let text = Box::new(TextSink::start(arrival, cx)?);
        let pg_restore = program.spawn_filter(cx)?;
        Ok(Self { pg_restore, site, text, reader: Reader::default(), buffer: vec![0; TEXT_BYTES] })
    }

    fn pass_on(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.reader.feed(bytes, &mut ()).map_err(damaged)?;
        while !bytes.is_empty() {
            match self.pg_restore.shift(bytes, &mut self.buffer) {
                Ok((given, taken)) => {
                    bytes = &bytes[given..];
                    self.text.write_all(&self.buffer[..taken]).map_err(load_failed)?;
                }
                Err(error) => return Err(self.ended_early(error)),
            }
        }
        Ok(())
    }

    /// Why pg_restore took no more: what it said, where it ended; else the error itself.
    fn ended_early(&mut self, error: Error) -> Error {
        if error.kind() != Kind::Child {
            return error;
        }
        match self.pg_restore.wait().and_then(|finished| self.site.ended(DOING, &finished)) {
            Ok((exit, _)) if exit.is_success() => {
                damaged(Error::new(Kind::Damaged, "pg_restore exited with code 0 before the end of the archive"))
            }
            Ok((exit, said)) => failed(&self.site, exit, &said),
            Err(other) => other,
        }
    }

    /// Takes the rest of the text, and looks how pg_restore ended.
    fn end(&mut self) -> Result<()> {
        if !self.reader.is_complete() {
            return Err(damaged(Error::new(Kind::Damaged, "the archive does not end as a whole one does")));
        }
        self.pg_restore.close_stdin();
        loop {
            let read = self.pg_restore.read(&mut self.buffer);
            match read.map_err(|error| from_io(error, Kind::Child, "can't read what pg_restore writes"))? {
                0 => break,
                count => self.text.write_all(&self.buffer[..count]).map_err(load_failed)?,
            }
        }
        let (exit, said) = self.site.ended(DOING, &self.pg_restore.wait()?)?;
        if exit.is_success() { Ok(()) } else { Err(failed(&self.site, exit, &said)) }
    }
}

impl Write for Unpack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass_on(bytes).map_err(|error| error.step("load"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Unpack {
    fn finish(mut self: Box<Self>) -> Result<Box<dyn Staged>> {
        self.end().map_err(|error| error.step("load"))?;
        let Self { text, .. } = *self;
        text.finish()
    }
}

fn damaged(error: Error) -> Error {
    error.hint_if_none("verify the backup, and take another one")
}

fn load_failed(error: io::Error) -> Error {
    from_io(error, Kind::Child, "psql took no more of the dump")
}

fn failed(site: &Site, exit: Exit, stderr: &str) -> Error {
    site.failed(DOING, exit, stderr)
        .hint_if_none("look into it with `restore --output` and `pg_restore --list`; verify the backup")
}
