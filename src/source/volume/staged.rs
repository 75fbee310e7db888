//! What was unpacked, until it has its place or is thrown away.

use super::compare;
use super::digests::Digests;
use super::facts::VolumeFacts;
use super::hold::{self, Held};
use super::into_volume::{self, Errand, Made, VolumePlace, Way};
use super::landing::{Arrival, Found, PathPlace, Place};
use super::scratch::{self, Scratch};
use super::unpack::{Looked, Unpacked, Unpacking, host_tar};
use super::{Volume, inside, landing, swap};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::source::{Comparison, Inventory, Landing, Look, Published, Sink, Staged};

/// Begins to unpack into a scratch directory of this machine.
fn begin(volume: &Volume, arrival: Arrival, bytes: u64, cx: &Context) -> Result<Box<dyn Sink>> {
    let mut made = None;
    let (base, sort) = match &arrival.to {
        Place::Path(place) => (place.base().to_owned(), scratch::RESTORE),
        Place::Drill(base) => (base.clone(), scratch::DRILL),
        Place::Volume(place) => {
            let mountpoint = if let Some(found) = &place.found {
                &found.mountpoint
            } else {
                let made = made.insert(Made::for_backup(place.engine, &place.name, arrival.errand.id, cx)?);
                scratch::check_space(&made.mountpoint, bytes)?;
                &made.mountpoint
            };
            // Beside its files: in the engine's own directory of it.
            (mountpoint.parent().unwrap_or(mountpoint).to_owned(), scratch::RESTORE)
        }
    };
    let scratch = Scratch::create(&base, sort, cx)?;
    let is_drill = matches!(arrival.to, Place::Drill(_));
    let digests = (is_drill && volume.config.drill.hash).then(|| Digests::begin(scratch.path())).transpose()?;
    let tar = host_tar(&arrival.tar, &scratch.content(), arrival.owners);
    let unpacking = Unpacking::start(&tar, digests, cx)?;
    Ok(Box::new(TreeSink { unpacking, scratch, made, arrival, cx: cx.clone() }))
}

/// Unpacks into the scratch directory. The fields are dropped in this order: tar ends before its directory goes.
struct TreeSink {
    unpacking: Unpacking,
    scratch: Scratch,
    made: Option<Made>,
    arrival: Arrival,
    cx: Context,
}

impl std::io::Write for TreeSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.unpacking.feed(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for TreeSink {
    fn finish(self: Box<Self>) -> Result<Box<dyn Staged>> {
        let Self { unpacking, scratch, made, arrival, cx } = *self;
        let Unpacked { digests, doubts } = unpacking.finish()?;
        if !matches!(arrival.to, Place::Drill(_)) {
            scratch.sync()?;
        }
        Ok(Box::new(StagedTree { scratch, made, arrival, digests, doubts, cx }))
    }
}

struct StagedTree {
    scratch: Scratch,
    /// The volume that it goes into, where that was made for it.
    made: Option<Made>,
    arrival: Arrival,
    digests: Option<Digests>,
    doubts: Vec<String>,
    cx: Context,
}

impl Staged for StagedTree {
    fn compare(&mut self, archived: &Inventory) -> Result<Comparison> {
        let root = self.scratch.content();
        let mut comparison = compare::compare(&root, self.arrival.facts.file.is_some(), archived, &self.cx)?;
        if let Some(digests) = self.digests.take() {
            let compared = digests.compare(&root, &self.cx)?;
            comparison.digests = compared.files;
            comparison.differences.extend(compared.differences);
        }
        Ok(comparison)
    }

    fn check(&mut self, _sql: &str) -> Result<String> {
        Err(Error::new(Kind::Config, "files can't be asked by SQL"))
    }

    fn place(&self) -> String {
        match &self.arrival.to {
            Place::Path(place) => place.path.display().to_string(),
            Place::Volume(place) => place.describe(),
            Place::Drill(base) => format!("a scratch directory in {}", base.display()),
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.doubts.clone()
    }

    fn publish(self: Box<Self>) -> Result<Published> {
        let Self { scratch, made, arrival, mut doubts, cx, .. } = *self;
        let (place, (notes, doubt)) = match &arrival.to {
            Place::Path(place) => {
                let what = if place.is_file { "file" } else { "directory" };
                (format!("{what} {}", place.path.display()), publish(&scratch, &arrival, place, &cx)?)
            }
            Place::Volume(place) => (place.describe(), publish_volume(&scratch, made, &arrival.errand, place, &cx)?),
            Place::Drill(_) => return Err(Error::new(Kind::Internal, "a drill is never published")),
        };
        doubts.extend(doubt);
        // It has its place: what is left to do is clean-up.
        let warnings = scratch.remove().err().map(|error| error.cause()).into_iter().collect();
        Ok(Published { place, warnings, doubts, notes })
    }

    fn discard(self: Box<Self>) -> Result<()> {
        self.scratch.remove()
    }
}

/// What else a person needs to know of what has its place, and what puts it in doubt: who ran again too early goes on with what
/// was there before.
type Remarks = (Vec<String>, Option<String>);

/// Gives it its place.
fn publish(scratch: &Scratch, arrival: &Arrival, place: &PathPlace, cx: &Context) -> Result<Remarks> {
    let content = scratch.content();
    let from = match arrival.facts.file.as_deref() {
        Some(name) if place.is_file => content.join(name),
        _ => content,
    };
    if place.is_file && !std::fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
        let cause =
            format!("the backup is of a single file, and {} is not in it", from.file_name().unwrap_or_default().display());
        return Err(Error::new(Kind::Damaged, cause).step("publish"));
    }
    let held = arrival.errand.stop(hold::Place::Path(&place.path), None, cx)?;
    // What was there at the look beforehand may be another thing by now.
    let is_there = std::fs::symlink_metadata(&place.path).is_ok();
    let mut notes = Vec::new();
    match place.found {
        Found::MountPoint => swap::publish_inside(&from, &place.path)?,
        Found::Taken if is_there => {
            let now = cx.clock.now();
            let former = swap::beside(&place.path, "before", now);
            swap::publish_instead(&from, &place.path, &former)?;
            notes = swap::notes(&place.path, &former, now);
        }
        Found::Taken | Found::Free => swap::publish_new(&from, &place.path)?,
    }
    Ok((notes, held.and_then(Held::release)))
}

/// Makes it a volume's content.
fn publish_volume(scratch: &Scratch, made: Option<Made>, errand: &Errand, place: &VolumePlace, cx: &Context) -> Result<Remarks> {
    let content = scratch.content();
    if let Some(made) = made {
        swap::publish_new(&content, &made.mountpoint)?;
        made.keep();
        return Ok((Vec::new(), None));
    }
    let Some(found) = &place.found else { return Err(Error::new(Kind::Internal, "there is no volume to restore to")) };
    let former = place.is_taken.then(|| Made::for_former(place.engine, &place.name, cx.clock.now(), cx)).transpose()?;
    let held = errand.stop(hold::Place::Volume(&place.name), Some(place.engine.kind()), cx)?;
    // Somebody may have started one meanwhile.
    into_volume::check_users(place.engine, &place.name, false, cx)?;
    let mut notes = Vec::new();
    if let Some(former) = former {
        swap::publish_instead(&content, &found.mountpoint, &former.mountpoint)?;
        notes = place.notes(&found.mountpoint, &former);
        former.keep();
    } else {
        swap::publish_new(&content, &found.mountpoint)?;
    }
    Ok((notes, held.and_then(Held::release)))
}

/// What reads a stream through that is to be written in place.
pub(super) fn look_first(volume: &Volume, landing: &Landing<'_>, cx: &Context) -> Result<Option<Box<dyn Look>>> {
    let is_inside = match landing::volume_of(volume, landing.to) {
        Some(name) => {
            let (facts, errand) = (VolumeFacts::of(landing.facts)?, Errand::of(landing, &volume.config));
            into_volume::is_inside(name, &facts, &errand, cx)?
        }
        None => false,
    };
    Ok(is_inside.then(|| Box::new(Looked::new(None)) as Box<dyn Look>))
}

/// The look beforehand, and what it has to say.
pub(super) fn check(volume: &Volume, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>> {
    landing::examine(volume, landing, cx).map(|arrival| arrival.warnings)
}

/// The same, and then the beginning.
pub(super) fn stage(volume: &Volume, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
    let arrival = landing::examine(volume, landing, cx)?;
    if let Place::Volume(place) = &arrival.to
        && let Way::Inside(helper) = &place.way
    {
        return inside::begin(place, helper, &arrival, cx);
    }
    begin(volume, arrival, landing.bytes, cx)
}
