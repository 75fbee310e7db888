//! Restores into volumes of a container engine: which engine, who uses the volume, and which way leads into it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::archiver::Tar;
use super::facts::VolumeFacts;
use super::helper::Helper;
use super::hold::{self, Held, Hold};
use super::{inside, swap, unpack};
use crate::config::model::{self, Archiver, HoldBy};
use crate::error::{Error, Kind, Result};
use crate::host::engine::{Container, Engine, EngineKind, State, Volume};
use crate::host::{Cancel, Context, files};
use crate::names::{Id, UnitName};
use crate::observe::Event;
use crate::source::{Landing, StageOptions};

/// What a volume has that a restore made: the backup's id.
const RESTORED: &str = "db-backup-tools.restored";
/// What a volume has that keeps another one's former content: that one's name.
const FORMER: &str = "db-backup-tools.former";
/// Those that use a destination.
const USERS: model::Hold = model::Hold { how: HoldBy::Stop, which: model::Held::Users };

/// A volume that would do.
#[derive(Debug)]
pub(super) struct VolumePlace {
    pub engine: Engine,
    pub name: String,
    pub way: Way,
    /// None: it is to be made.
    pub found: Option<Volume>,
    /// It holds something that is to be kept elsewhere.
    pub is_taken: bool,
}

/// How its files are reached.
#[derive(Debug)]
pub(super) enum Way {
    /// From here, by this tar.
    Here(Tar),
    /// By tar in a container.
    Inside(Helper),
}

/// A volume that was made, and goes again unless it is kept.
pub(super) struct Made {
    engine: Engine,
    name: String,
    /// Where its files are; empty where they are reached by containers alone.
    pub mountpoint: PathBuf,
    is_kept: bool,
    cx: Context,
}

fn refused(cause: impl Into<String>) -> Error {
    Error::new(Kind::Refused, cause).step("place")
}

/// Looks whether a backup could go into the volume of this name.
pub(super) fn examine(name: &str, facts: &VolumeFacts, errand: &Errand, cx: &Context) -> Result<VolumePlace> {
    let (engine, found) = find(name, errand.engine, facts, cx)?;
    let way = way(engine, name, found.as_ref(), errand.helper_image.as_deref(), cx)?;
    let Some(volume) = found else {
        return Ok(VolumePlace { engine, name: name.to_owned(), way, found: None, is_taken: false });
    };
    if errand.options.stop {
        errand.hold(hold::Place::Volume(name), Some(engine.kind())).outlook(cx)?;
    }
    check_users(engine, name, errand.options.stop, cx)?;
    let unreadable = |error| refused(format!("can't read {}", volume.mountpoint.display())).source(error);
    let is_taken = match &way {
        Way::Here(_) => std::fs::read_dir(&volume.mountpoint).map_err(unreadable)?.next().is_some(),
        Way::Inside(helper) => !inside::is_empty(helper, cx)?,
    };
    if is_taken && !errand.options.replace {
        return Err(refused(format!("volume {name} of {} exists and is not empty", engine.kind())).hint(
            "restore it into a new one with --to-volume NEWNAME, or have it make room with --replace: what it holds is kept in another",
        ));
    }
    Ok(VolumePlace { engine, name: name.to_owned(), way, found: Some(volume), is_taken })
}

/// The engine that has the volume; else the one that is to make it.
fn find(name: &str, wanted: Option<EngineKind>, facts: &VolumeFacts, cx: &Context) -> Result<(Engine, Option<Volume>)> {
    let (mut have, mut lack, mut failed) = (Vec::new(), Vec::new(), None);
    for engine in Engine::installed(wanted, cx)? {
        match engine.volume(name, cx) {
            Ok(Some(volume)) => have.push((engine, volume)),
            Ok(None) => lack.push(engine),
            Err(error) => failed = failed.or(Some(error)),
        }
        cx.cancel.check()?;
    }
    let which = || "say which is meant: `engine: docker` in the target";
    match (have.pop(), have.is_empty()) {
        (Some((engine, volume)), true) => return Ok((engine, Some(volume))),
        (Some(_), false) => return Err(refused(format!("both docker and podman have a volume {name}")).hint(which())),
        (None, _) => {}
    }
    let was = |engine: &&Engine| facts.engine.as_deref() == Some(engine.kind().word());
    match (lack.iter().find(was), lack.as_slice(), failed) {
        (Some(engine), ..) | (None, [engine], None) => Ok((*engine, None)),
        (None, _, Some(error)) => Err(error),
        (None, ..) => Err(refused(format!("no engine has a volume {name}, and docker or podman could make it")).hint(which())),
    }
}

/// The way into it: from here where its files can be reached, else by a container.
fn way(engine: Engine, name: &str, found: Option<&Volume>, image: Option<&str>, cx: &Context) -> Result<Way> {
    let why = match out_of_reach(engine, found, cx)? {
        None => match (unpack::full_tar(cx), image) {
            (Ok(tar), _) => return Ok(Way::Here(tar)),
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => error.cause(),
        },
        Some(why) => why,
    };
    let Some(image) = image else {
        return Err(refused(format!("volume {name} of {} can't be written from here: {why}", engine.kind())).hint(
            "run this as root on the engine's machine, or set `helper_image:` in the target to an image with GNU tar that is there",
        ));
    };
    let helper = Helper::find(engine, name, image, Archiver::Full, cx);
    helper.map(Way::Inside).map_err(|error| match error.kind() {
        Kind::Child => error.kind_is(Kind::Refused),
        _ => error,
    })
}

/// Whether a volume is written in place: in a container, as its files can't be reached from here.
pub(super) fn is_inside(name: &str, facts: &VolumeFacts, errand: &Errand, cx: &Context) -> Result<bool> {
    let (engine, found) = find(name, errand.engine, facts, cx)?;
    Ok(out_of_reach(engine, found.as_ref(), cx)?.is_some() || unpack::full_tar(cx).is_err())
}

/// Why its files can't be reached from here, where they can't.
fn out_of_reach(engine: Engine, found: Option<&Volume>, cx: &Context) -> Result<Option<String>> {
    Ok(match found {
        _ if !files::is_root() => Some("only root reaches its files".to_owned()),
        Some(volume) if !volume.is_plain => Some("its files are there only while a container uses it".to_owned()),
        _ if !engine.is_of_this_machine(cx)? => Some(format!("{} runs on another machine", engine.kind())),
        Some(volume) if !volume.mountpoint.is_dir() => Some(format!("{} is not on this machine", volume.mountpoint.display())),
        _ => None,
    })
}

/// Refused while a container that runs has it: it would go on with what it has opened.
pub(super) fn check_users(engine: Engine, name: &str, will_stop: bool, cx: &Context) -> Result<()> {
    let uses = |one: &Container| one.mounts.iter().any(|mount| mount.volume.as_deref() == Some(name));
    let found = engine.containers(&[&format!("volume={name}")], cx)?;
    let mut at_work = found.iter().filter(|one| uses(one) && one.state != State::Stopped);
    // Those that run are stopped by then.
    let Some(one) = at_work.find(|one| !(will_stop && one.state == State::Running)) else { return Ok(()) };
    let (state, hint) = match one.state {
        State::Paused => ("paused", format!("end it first: {} stop {}", engine.kind(), one.name)),
        State::Restarting => ("being started again", format!("end it first: {} stop {}", engine.kind(), one.name)),
        State::Running | State::Stopped => {
            ("running", "stop it, or have it stopped for the restore and started again: --stop".into())
        }
    };
    Err(refused(format!("container {} uses volume {name}, and is {state}", one.name)).hint(hint))
}

impl Made {
    /// Makes a volume for a backup, whose files can be reached from here.
    pub(super) fn for_backup(engine: Engine, name: &str, id: Id, cx: &Context) -> Result<Self> {
        Self::inside(engine, name, id, cx)?.at_its_mountpoint()
    }

    /// Makes a volume for a backup.
    pub(super) fn inside(engine: Engine, name: &str, id: Id, cx: &Context) -> Result<Self> {
        Self::create(engine, name, &format!("{RESTORED}={id}"), cx)
    }

    /// Makes one for what another one holds now, whose files can be reached from here.
    pub(super) fn for_former(engine: Engine, of: &str, now: DateTime<Utc>, cx: &Context) -> Result<Self> {
        Self::for_copy(engine, of, now, cx)?.at_its_mountpoint()
    }

    /// Makes one for what another one holds now.
    pub(super) fn for_copy(engine: Engine, of: &str, now: DateTime<Utc>, cx: &Context) -> Result<Self> {
        let name = format!("{of}_before_{}", now.format("%Y%m%d_%H%M%SZ"));
        if engine.volume(&name, cx)?.is_some() {
            return Err(refused(format!("volume {name} is there already")).hint("try again in a second"));
        }
        Self::create(engine, &name, &format!("{FORMER}={of}"), cx)
    }

    fn create(engine: Engine, name: &str, label: &str, cx: &Context) -> Result<Self> {
        engine.create_volume(name, label, cx).map_err(|error| error.step("place"))?;
        // To make one that is there is no error: then it is another's, and not ours to remove.
        let is_ours = |volume: Volume| {
            label.split_once('=').is_some_and(|(key, value)| volume.labels.get(key).is_some_and(|own| own == value))
        };
        if !engine.volume(name, cx)?.is_some_and(is_ours) {
            return Err(refused(format!("volume {name} of {} was made by another program at this very moment", engine.kind()))
                .hint("find out what makes it, then restore again: with --replace where it holds something"));
        }
        Ok(Self { engine, name: name.to_owned(), mountpoint: PathBuf::new(), is_kept: false, cx: cx.clone() })
    }

    fn at_its_mountpoint(mut self) -> Result<Self> {
        let found = self.engine.volume(&self.name, &self.cx)?;
        let found = found.filter(|volume| volume.is_plain && volume.mountpoint.is_dir());
        self.mountpoint = found.map(|volume| volume.mountpoint).ok_or_else(|| {
            refused(format!("volume {} of {} can't be written from here", self.name, self.engine.kind()))
                .hint("make it first, and set `helper_image:` in the target to an image with GNU tar")
        })?;
        Ok(self)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It stays.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // At a mountpoint, it is filled by one rename: what is in it before that is not ours to remove.
        let is_empty = std::fs::read_dir(&self.mountpoint).map_or(true, |mut entries| entries.next().is_none());
        if self.is_kept || !is_empty {
            return;
        }
        let removed =
            Cancel::for_clean_up().and_then(|cancel| self.engine.remove_volume(&self.name, &self.cx.with_cancel(cancel)));
        if let Err(error) = removed {
            let text = format!("volume {} was made, and could not be removed again: {}", self.name, error.cause());
            self.cx.observer.event(Event::Warning { target: None, text });
        }
    }
}

impl VolumePlace {
    /// For a person.
    pub(super) fn describe(&self) -> String {
        format!("volume {} of {}", self.name, self.engine.kind())
    }

    /// What became of its former content, and the commands for it.
    pub(super) fn notes(&self, mountpoint: &std::path::Path, former: &Made) -> Vec<String> {
        let (kind, name) = (self.engine.kind(), &former.name);
        let after = mountpoint.with_file_name("_data.after");
        let [here, there, after] = [mountpoint, &former.mountpoint, &after].map(swap::quoted);
        vec![
            format!("what was in volume {} is kept in volume {name}", self.name),
            format!("to remove it: {kind} volume rm {name}"),
            format!("to swap back, with its containers stopped: mv {here} {after} && mv {there} {here} && mv {after} {there}"),
        ]
    }
}

/// What became of a volume's content that was copied, and the commands for it.
pub(super) fn notes_of_copy(place: &VolumePlace, image: &str, former: &str) -> Vec<String> {
    let (kind, name) = (place.engine.kind(), &place.name);
    vec![
        format!("what was in volume {name} is kept in volume {former}"),
        format!("to remove it: {kind} volume rm {former}"),
        format!(
            "to copy it back, with its containers stopped: {kind} run --rm -v {former}:/from:ro -v {name}:/to {image} sh -c \
             'find /to -mindepth 1 -maxdepth 1 -exec rm -rf {{}} + && tar -C /from --xattrs --xattrs-include=* -cf - . | \
             tar -C /to --xattrs --xattrs-include=* --numeric-owner -xpf -'"
        ),
    ]
}

/// What of a landing is needed until the end.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub unit: UnitName,
    pub id: Id,
    pub options: StageOptions,
    pub state_dir: PathBuf,
    pub engine: Option<EngineKind>,
    /// An image with GNU tar.
    pub helper_image: Option<String>,
}

impl Errand {
    /// Of this landing.
    pub(super) fn of(landing: &Landing<'_>, config: &model::Volume) -> Self {
        let Landing { unit, id, options, state_dir, .. } = *landing;
        let (engine, helper_image) = (config.engine, config.helper_image.clone());
        Self { unit: unit.clone(), id, options, state_dir: state_dir.to_owned(), engine, helper_image }
    }

    /// What stands still while the place is swapped.
    pub(super) fn hold<'a>(&'a self, place: hold::Place<'a>, engine: Option<EngineKind>) -> Hold<'a> {
        let (unit, state_dir) = (&self.unit, self.state_dir.as_path());
        Hold { wanted: &USERS, place, engine: engine.or(self.engine), unit, state_dir }
    }

    /// Stops who uses the place, where that is wanted.
    pub(super) fn stop(&self, place: hold::Place<'_>, engine: Option<EngineKind>, cx: &Context) -> Result<Option<Held>> {
        if self.options.stop { self.hold(place, engine).begin(cx).map(|begun| begun.held) } else { Ok(None) }
    }
}
