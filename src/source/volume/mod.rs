//! Directories and volumes, through tar: one stream of members `./...`, whichever tar makes it.

mod archiver;
mod capture;
mod census;
mod compare;
mod digests;
mod estimate;
mod facts;
mod guard;
mod helper;
mod hold;
mod inside;
mod into_volume;
mod landing;
mod live;
#[allow(dead_code)] // it says of a member all that a header says
mod members;
mod messages;
mod own;
mod patterns;
mod place;
mod scratch;
mod staged;
mod swap;
mod unpack;

use std::path::PathBuf;

use self::capture::TarCapture;
use self::hold::{Hold, Place, Still};
use self::live::Finding;
use self::patterns::Pattern;
use self::place::{Root, Way};
use crate::config::model::{self, VolumePlace};
use crate::error::Result;
use crate::host::Context;
use crate::names::{Id, TargetName, UnitName};
use crate::source::{Capture, Destination, Landing, Look, Probe, Sink, Source, Units};

pub use self::own::OwnPlace;

/// What a manifest's `kind` is for everything here.
pub const KIND: &str = "volume";
/// What its stream is.
const FORMAT: &str = "tar";

/// A volume target.
pub struct Volume {
    target: TargetName,
    config: model::Volume,
    state_dir: PathBuf,
    own: Vec<OwnPlace>,
}

impl Volume {
    /// The source of this target, which keeps what it must undo later in `state_dir`.
    pub fn new(target: TargetName, config: model::Volume, state_dir: PathBuf) -> Self {
        Self { target, config, state_dir, own: Vec::new() }
    }

    /// One that knows where this program's own directories are, which no backup of it holds.
    #[must_use]
    pub fn beside(mut self, own: Vec<OwnPlace>) -> Self {
        self.own = own;
        self
    }

    /// The configuration for what was found, which leaves out what is this program's own; and what to say of that.
    fn without_own(&self, way: &Way) -> Result<(model::Volume, Vec<String>)> {
        let mut config = self.config.clone();
        let Some(tree) = way.root().and_then(Root::tree) else { return Ok((config, Vec::new())) };
        let (patterns, warnings) = own::left_out(&self.own, tree, &Pattern::all(&config.exclude))?;
        config.exclude.extend(patterns);
        Ok((config, warnings))
    }

    /// A source for backups whose target the config does not have, or no more: they can be unpacked there.
    pub fn without_target(target: TargetName, to: &Destination, state_dir: PathBuf) -> Self {
        let place = match to {
            Destination::Volume(name) => model::VolumePlace::Named(name.clone()),
            Destination::Directory(path) => model::VolumePlace::Path(path.clone()),
            Destination::Own | Destination::Database(_) | Destination::Drill => model::VolumePlace::Path(PathBuf::new()),
        };
        Self::new(target, model::Volume::of(place), state_dir)
    }

    /// What is to stand still, where anything is.
    fn hold<T>(&self, unit: &UnitName, way: &Way, then: impl FnOnce(&Hold<'_>) -> Result<T>) -> Result<Option<T>> {
        let Some(wanted) = &self.config.hold else { return Ok(None) };
        let place = match &self.config.place {
            VolumePlace::Named(name) => Place::Volume(name),
            VolumePlace::Path(path) => Place::Path(path),
        };
        let of_volume = match way {
            Way::Host(_, root) => root.engine,
            Way::Container(helper) => Some(helper.engine),
        };
        let engine = self.config.engine.or(of_volume.map(|engine| engine.kind()));
        then(&Hold { wanted, place, engine, unit, state_dir: &self.state_dir }).map(Some)
    }
}

impl Source for Volume {
    fn units(&self, _cx: &Context) -> Result<Units> {
        Ok(Units { units: vec![UnitName::of_target(&self.target)], left_out: Vec::new() })
    }

    fn extension(&self, _unit: &UnitName) -> &'static str {
        FORMAT
    }

    fn probe(&self, unit: &UnitName, cx: &Context) -> Result<Probe> {
        let way = Way::find(&self.config, cx)?;
        let (config, left_out) = self.without_own(&way)?;
        let exclude = Pattern::all(&config.exclude);
        if let Some(tree) = way.root().and_then(Root::tree) {
            Finding::of(&config).look_beforehand(tree, &exclude)?;
        }
        let held = self.hold(unit, &way, |hold| hold.outlook(cx))?;
        Ok(Probe {
            server_version: None,
            client_version: Some(way.tar().version.clone()),
            estimated_bytes: estimate::bytes(&way, &config, &exclude, cx)?,
            way: held.map_or_else(|| way.describe(), |held| format!("{}; {held}", way.describe())),
            unreadable: Vec::new(),
            warnings: way.warning().into_iter().chain(left_out).collect(),
        })
    }

    fn capture(&self, unit: &UnitName, _id: Id, cx: &Context) -> Result<Box<dyn Capture>> {
        let way = Way::find(&self.config, cx)?;
        let (config, left_out) = self.without_own(&way)?;
        let exclude = Pattern::all(&config.exclude);
        // Before anything stands still: it may take a while.
        let estimated_bytes = estimate::bytes(&way, &config, &exclude, cx)?;
        let begun = self.hold(unit, &way, |hold| hold.begin(cx))?.unwrap_or_default();
        if let Some(tree) = way.root().and_then(Root::tree) {
            Finding::of(&config).look(tree, &exclude)?;
        }
        let capture = TarCapture::start(way, &config, left_out, estimated_bytes, cx)?;
        Ok(Box::new(Still::new(Box::new(capture), begun)))
    }

    fn check(&self, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>> {
        staged::check(self, landing, cx)
    }

    fn look_first(&self, landing: &Landing<'_>, cx: &Context) -> Result<Option<Box<dyn Look>>> {
        staged::look_first(self, landing, cx)
    }

    fn stage(&self, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
        staged::stage(self, landing, cx)
    }
}
