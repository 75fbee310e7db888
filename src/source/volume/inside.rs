//! Restores into a volume that can't be reached from here: by tar in a container that has it mounted. There is no scratch place
//! that could be swapped for it, so it is written in place; the whole stream was read and judged before, and what the volume held
//! is copied into another one.

use std::io::{self, Read as _, Write};

use super::archiver::Tar;
use super::helper::{Helper, MOUNTPOINT, Running};
use super::hold::{self, Held};
use super::into_volume::{self, Errand, Made, VolumePlace};
use super::landing::{Arrival, Owners};
use super::unpack::{self, Unpacked, Unpacking};
use crate::config::model;
use crate::error::{Error, Kind, Result};
use crate::host::engine::told_as;
use crate::host::{Cancel, Context, files};
use crate::names::hex;
use crate::observe::Event;
use crate::source::{Comparison, Inventory, Published, Sink, Staged};

/// Bytes that are copied at once.
const BLOCK: usize = 1 << 20;

/// Whether nothing is in a volume.
pub(super) fn is_empty(helper: &Helper, cx: &Context) -> Result<bool> {
    // Of a pipe, the last one's exit alone counts: one that can't look has seen nothing.
    let line = format!("ls -A {MOUNTPOINT} >/dev/null && ls -A {MOUNTPOINT} | head -n 1");
    Ok(run(helper, "ro", &line, cx)?.is_empty())
}

/// Runs a shell's line in a container with the volume. What it printed.
fn run(helper: &Helper, mode: &str, line: &str, cx: &Context) -> Result<Vec<u8>> {
    let (program, mut running) = helper.container(mode, cx)?;
    // Where the connection is cut, nothing is what is read last.
    let last_word = hex(&files::random_bytes::<8>()?);
    let mut output = program.args(["sh", "-c", &format!("{{ {line}; }} && echo {last_word}")]).output(b"", cx)?;
    running.ended = true;
    if output.exit.is_success() {
        let said = output.stdout.strip_suffix(format!("{last_word}\n").as_bytes()).map(<[u8]>::len);
        let cut = || {
            Error::new(Kind::Child, format!("the connection to {} ended before a container did", helper.engine.kind()))
                .hint("look whether the engine was restarted, and try again")
                .step("engine")
        };
        output.stdout.truncate(said.ok_or_else(cut)?);
        return Ok(output.stdout);
    }
    let cause = format!("a container of image {} {}: {}", helper.image, output.exit.describe(), output.stderr_tail.trim());
    Err(Error::new(Kind::Child, cause).step("engine"))
}

/// tar in a container, ready to be given what it unpacks.
fn unpacking(helper: &Helper, owners: Owners, cx: &Context) -> Result<(Unpacking, Running)> {
    let (program, running) = helper.container("rw", cx)?;
    let token = hex(&files::random_bytes::<8>()?);
    let tar = told_as(&token, program).arg("tar").args(unpack::options(owners));
    let tar = tar.arg(format!("--directory={MOUNTPOINT}"));
    Ok((Unpacking::start(&tar, None, cx)?.told_as(token), running))
}

/// Makes room, and begins.
pub(super) fn begin(place: &VolumePlace, helper: &Helper, arrival: &Arrival, cx: &Context) -> Result<Box<dyn Sink>> {
    let errand = &arrival.errand;
    let made = match place.found {
        Some(_) => None,
        None => Some(Made::inside(place.engine, &place.name, errand.id, cx)?),
    };
    let held = errand.stop(hold::Place::Volume(&place.name), Some(place.engine.kind()), cx)?;
    into_volume::check_users(place.engine, &place.name, false, cx)?;
    let (former, doubts) = match place.is_taken.then(|| copied(place, helper, errand, cx)).transpose()? {
        Some((former, doubts)) => (Some(former), doubts),
        None => (None, Vec::new()),
    };
    let notes = former.as_deref().map(|former| into_volume::notes_of_copy(place, &helper.image, former)).unwrap_or_default();
    // One that was made for it goes again, where it fails.
    let is_whole = made.is_some();
    let state = State { name: place.name.clone(), place: place.describe(), former, is_whole, cx: cx.clone() };
    if place.is_taken {
        let line = format!("find {MOUNTPOINT} -mindepth 1 -maxdepth 1 -exec rm -rf {{}} + && [ -z \"$(ls -A {MOUNTPOINT})\" ]");
        run(helper, "rw", &line, cx).map_err(|error| state.incomplete(&error))?;
    }
    let (unpacking, container) = unpacking(helper, arrival.owners, cx)?;
    Ok(Box::new(InsideSink { container, unpacking, state, doubts, notes, made, held }))
}

/// Copies what a volume holds into a new one. Its name comes back, and what tar said of the copy.
fn copied(place: &VolumePlace, helper: &Helper, errand: &Errand, cx: &Context) -> Result<(String, Vec<String>)> {
    let former = Made::for_copy(place.engine, &place.name, cx.clock.now(), cx)?;
    let text = format!("{}: copying what volume {} holds into volume {}", errand.unit, place.name, former.name());
    cx.observer.event(Event::Note { text });
    let from = model::Volume::of(model::VolumePlace::Named(place.name.clone()));
    let (reader, mut reading) = helper.program(Tar::words(&helper.tar, &from, &[]), cx)?;
    let mut reader = reader.spawn_reader(cx)?;
    let (mut unpacking, mut writing) =
        unpacking(&Helper { volume: former.name().to_owned(), ..helper.clone() }, Owners::Same, cx)?;
    let mut block = vec![0; BLOCK];
    let said = |error| crate::error::from_io(error, Kind::Child, "can't read the volume");
    loop {
        match reader.read(&mut block) {
            Ok(0) => break,
            Ok(count) => unpacking.feed(&block[..count])?,
            Err(error) => return Err(said(error)),
        }
    }
    let read = reader.wait()?;
    if !read.exit.is_success() {
        let cause = format!("what volume {} holds could not be copied: tar {}", place.name, read.exit.describe());
        return Err(Error::new(Kind::Child, format!("{cause}: {}", read.stderr_tail.lines().last().unwrap_or_default()))
            .hint("nothing was changed; empty the volume by hand, or restore into a new one with --to-volume NEWNAME")
            .step("place"));
    }
    reading.ended = true;
    let Unpacked { doubts, .. } = unpacking.finish()?;
    writing.ended = true;
    let name = former.name().to_owned();
    former.keep();
    let doubts = doubts.into_iter().map(|text| format!("the copy of what was there, in volume {name}: {text}")).collect();
    Ok((name, doubts))
}

/// A volume that is written.
struct State {
    name: String,
    place: String,
    /// The volume that holds what it held.
    former: Option<String>,
    is_whole: bool,
    cx: Context,
}

impl State {
    fn what_next(&self) -> String {
        match &self.former {
            Some(former) => format!("restore again with --replace; what it held before is in volume {former}"),
            None => "restore again with --replace".into(),
        }
    }

    fn incomplete(&self, error: &Error) -> Error {
        if self.is_whole {
            return error.copy();
        }
        error.restated(format!("volume {} is incomplete now: {}", self.name, error.cause())).hint(self.what_next())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if !self.is_whole {
            let text = format!("volume {} is incomplete: {}", self.name, self.what_next());
            self.cx.observer.event(Event::Warning { target: None, text });
        }
    }
}

/// Unpacks into the volume. The container goes first, then its client, and a volume that was made for it before those who use it go on.
struct InsideSink {
    container: Running,
    unpacking: Unpacking,
    state: State,
    /// Of the copy of what was there.
    doubts: Vec<String>,
    notes: Vec<String>,
    made: Option<Made>,
    held: Option<Held>,
}

impl Write for InsideSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unpacking.feed(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for InsideSink {
    fn finish(self: Box<Self>) -> Result<Box<dyn Staged>> {
        let Self { mut container, unpacking, mut state, mut doubts, notes, made, held } = *self;
        let finished = unpacking.finish();
        container.ended = finished.is_ok();
        doubts.extend(finished.map_err(|error| state.incomplete(&error))?.doubts);
        state.is_whole = true;
        Ok(Box::new(InPlace { place: std::mem::take(&mut state.place), doubts, notes, made, held }))
    }
}

/// It is where it belongs already.
struct InPlace {
    place: String,
    doubts: Vec<String>,
    notes: Vec<String>,
    made: Option<Made>,
    held: Option<Held>,
}

impl Staged for InPlace {
    fn compare(&mut self, _archived: &Inventory) -> Result<Comparison> {
        // tar has said that all is there, and nothing could be put back any more.
        Ok(Comparison::default())
    }

    fn check(&mut self, _sql: &str) -> Result<String> {
        Err(Error::new(Kind::Config, "files can't be asked by SQL"))
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn publish(self: Box<Self>) -> Result<Published> {
        let Self { place, mut doubts, notes, made, held } = *self;
        if let Some(made) = made {
            made.keep();
        }
        doubts.extend(held.and_then(Held::release));
        Ok(Published { place, warnings: Vec::new(), doubts, notes })
    }

    fn discard(self: Box<Self>) -> Result<()> {
        Cancel::for_clean_up().map(drop)
    }
}
