//! Where a volume's files are, and which way leads there: a path of this machine, a volume's mountpoint where it can be read from
//! here, or a container with the volume in it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::archiver::Tar;
use super::helper::Helper;
use crate::config::model::{self, VolumePlace};
use crate::error::{Error, Kind, Result};
use crate::host::engine::{Engine, EngineKind, Volume};
use crate::host::{Context, files};

/// The way to a target's files, and the tar that goes it.
pub(super) enum Way {
    /// On this machine.
    Host(Tar, Root),
    /// In a container.
    Container(Helper),
}

/// What is read on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    /// The directory whose members' names are relative to it.
    pub(super) directory: PathBuf,
    /// The one file in it that is meant, instead of all.
    pub(super) file: Option<OsString>,
    /// For a person: `/srv/uploads`, `volume app_data of docker, at its mountpoint`.
    shown: String,
    /// The volume's engine, where it is one.
    pub(super) engine: Option<Engine>,
}

impl Way {
    /// Finds it. Nothing is started but short questions.
    pub(super) fn find(config: &model::Volume, cx: &Context) -> Result<Self> {
        let way = match &config.place {
            VolumePlace::Path(path) => Self::Host(Tar::of_host(config.archiver, cx)?, Root::of_path(path)?),
            VolumePlace::Named(name) => {
                let (engine, volume) = Engine::with_volume(config.engine, name, cx)?;
                Self::to_volume(engine, &volume, config, cx)?
            }
        };
        way.tar().check_options(config)?;
        Ok(way)
    }

    fn to_volume(engine: Engine, volume: &Volume, config: &model::Volume, cx: &Context) -> Result<Self> {
        let outside = match readable_here(engine, volume, cx)? {
            Err(why) => why,
            Ok(_) if has_other_owners(engine) && config.helper_image.is_some() => {
                "in containers its files have other owners".into()
            }
            Ok(root) => match (Tar::of_host(config.archiver, cx), &config.helper_image) {
                (Ok(tar), _) => return Ok(Self::Host(tar, root)),
                (Err(error), None) => return Err(error),
                (Err(error), Some(_)) => error.cause(),
            },
        };
        tracing::debug!(volume = volume.name, outside, "it is read in a container");
        let Some(image) = &config.helper_image else {
            return Err(Error::new(Kind::Child, format!("{engine} volume {} can't be read from here: {outside}", volume.name, engine = engine.kind()))
                .hint("set `helper_image:` to an image with GNU tar that is on this machine, like debian:stable-slim, or run this as root")
                .step("engine"));
        };
        Helper::find(engine, &volume.name, image, config.archiver, cx).map(Self::Container)
    }

    pub(super) fn tar(&self) -> &Tar {
        match self {
            Self::Host(tar, _) => tar,
            Self::Container(helper) => &helper.tar,
        }
    }

    /// What a person should know of it.
    pub(super) fn warning(&self) -> Option<String> {
        let shifted = "the owners of its files are those that this machine has, as an ordinary user's Podman gives containers others:                        into a volume, restore them with --no-owner; `helper_image:` reads them as containers see them";
        let is_shifted = self.root().and_then(|root| root.engine).is_some_and(has_other_owners);
        self.tar().warning().or_else(|| is_shifted.then(|| shifted.to_owned()))
    }

    /// The manifest's `archiver`.
    pub(super) fn archiver(&self) -> String {
        let tar = self.tar().describe();
        match self {
            Self::Host(..) => format!("{tar} on the host"),
            Self::Container(helper) => format!("{tar} in a container of image {}", helper.image),
        }
    }

    /// For a person: `GNU tar 1.34 on /srv/uploads`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Host(tar, root) => format!("{} on {}", tar.describe(), root.shown),
            Self::Container(helper) => helper.describe(),
        }
    }

    /// What can be looked at from here.
    pub(super) fn root(&self) -> Option<&Root> {
        if let Self::Host(_, root) = self { Some(root) } else { None }
    }
}

impl Root {
    fn of_path(path: &Path) -> Result<Self> {
        let wrong =
            |what: &str, hint: &str| Error::new(Kind::Child, format!("{} {what}", path.display())).hint(hint).step("path");
        let look = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => wrong("is not there", "correct `path:`; is it a file system that is not mounted?"),
            _ => wrong("can't be looked at", "run this as a user that may read it").source(error),
        };
        // A link in place of the directory is followed, and none below it.
        let kind = fs::metadata(path).map_err(look)?.file_type();
        let shown = path.display().to_string();
        if kind.is_dir() {
            fs::read_dir(path).map_err(look)?;
            return Ok(Self { directory: path.to_owned(), file: None, shown, engine: None });
        }
        if !kind.is_file() {
            return Err(wrong("is neither a directory nor a file", "name what holds the data"));
        }
        if path.is_symlink() {
            return Err(wrong("is a symbolic link to a file", "name the file itself"));
        }
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                Ok(Self { directory: parent.to_owned(), file: Some(name.to_owned()), shown, engine: None })
            }
            _ => Err(wrong("has no name", "name what holds the data")),
        }
    }

    /// The directory that is read, where it is not one file.
    pub(super) fn tree(&self) -> Option<&Path> {
        self.file.is_none().then_some(self.directory.as_path())
    }

    /// tar's last words: where it reads, and what.
    pub(super) fn words(&self) -> [OsString; 3] {
        let member = self.file.as_ref().map_or_else(|| ".".into(), |name| Path::new(".").join(name).into());
        ["-C".into(), self.directory.clone().into(), member]
    }

    /// Whether a member of this name, relative to the root, is there.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.directory.join(std::ffi::OsStr::from_bytes(name)).symlink_metadata().is_ok()
    }
}

/// Whether files have other owners in its containers than on this machine: those of a user namespace.
fn has_other_owners(engine: Engine) -> bool {
    engine.kind() == EngineKind::Podman && !files::is_root()
}

/// A volume's mountpoint, where its files are there for us to read; or why not.
fn readable_here(engine: Engine, volume: &Volume, cx: &Context) -> Result<Result<Root, String>> {
    if !volume.is_plain {
        return Ok(Err(
            "its files are at its mountpoint only while a container uses it (a driver of its own, or driver options)".into(),
        ));
    }
    let mountpoint = volume.mountpoint.display();
    if let Err(error) = fs::read_dir(&volume.mountpoint) {
        return Ok(Err(format!("{mountpoint}: {error}")));
    }
    // The same path on another machine is another directory.
    if !engine.is_of_this_machine(cx)? {
        return Ok(Err(format!("{} runs on another machine", engine.kind())));
    }
    let shown = format!("volume {} of {}, at its mountpoint", volume.name, engine.kind());
    Ok(Ok(Root { directory: volume.mountpoint.clone(), file: None, shown, engine: Some(engine) }))
}
