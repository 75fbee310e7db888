//! The look at where a backup is to go, before anything is made there.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::archiver::Tar;
use super::facts::VolumeFacts;
use super::into_volume::{self, Errand, VolumePlace, Way};
use super::{Volume, hold, scratch, swap, unpack};
use crate::config::model;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, files};
use crate::source::{Destination, Landing, StageOptions};

/// Where a backup goes, as it was found.
#[derive(Debug)]
pub(super) struct Arrival {
    pub facts: VolumeFacts,
    /// What unpacks it on this machine.
    pub tar: Tar,
    pub to: Place,
    pub owners: Owners,
    pub errand: Errand,
    /// What a person should know of it.
    pub warnings: Vec<String>,
}

/// Whose the files will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// As they were.
    Same,
    /// All of them ours.
    Own,
}

/// A place that would do.
#[derive(Debug)]
pub(super) enum Place {
    /// A directory or a file of this machine.
    Path(PathPlace),
    /// A volume of a container engine.
    Volume(VolumePlace),
    /// A scratch directory of a drill, in this one.
    Drill(PathBuf),
}

/// A path that would do.
#[derive(Debug)]
pub(super) struct PathPlace {
    /// Its name, in a directory that is there, without links on the way.
    pub path: PathBuf,
    pub found: Found,
    /// The backup is of a single file, and this is that file's place.
    pub is_file: bool,
}

/// What was found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or an empty directory.
    Free,
    /// An empty directory that can't be renamed.
    MountPoint,
    /// Something that is to be kept under another name.
    Taken,
}

impl PathPlace {
    /// The directory that the scratch one is made in.
    pub(super) fn base(&self) -> &Path {
        match self.found {
            Found::MountPoint => &self.path,
            Found::Free | Found::Taken => self.path.parent().unwrap_or(Path::new("/")),
        }
    }
}

/// Looks where a stream would go. `Refused` where it must not, or can't.
pub(super) fn examine(volume: &Volume, landing: &Landing<'_>, cx: &Context) -> Result<Arrival> {
    let facts = VolumeFacts::of(landing.facts)?;
    check_file_name(&facts)?;
    if *landing.to != Destination::Drill {
        check_options(landing.options)?;
    }
    let errand = Errand::of(landing, &volume.config);
    let replace = landing.options.replace;
    let to = match (landing.to, &volume.config.place) {
        (Destination::Drill, _) => Place::Drill(drill_base(volume)?),
        (Destination::Directory(path), _) => Place::Path(examine_path(path, false, replace)?),
        (Destination::Own, model::VolumePlace::Path(path)) => Place::Path(examine_path(path, facts.file.is_some(), replace)?),
        (Destination::Volume(name), _) | (Destination::Own, model::VolumePlace::Named(name)) => {
            Place::Volume(into_volume::examine(name, &facts, &errand, cx)?)
        }
        (Destination::Database(_), _) => {
            return Err(refused("the backup is one of files, and can't be restored into a database")
                .hint("restore it with --to-path DIR or --to-volume NAME, or take the tar with --output FILE"));
        }
    };
    let mut warnings = Vec::new();
    let (tar, owners) = match &to {
        Place::Drill(_) => (unpack::full_tar(cx)?, drills_owners(&facts, &mut warnings)),
        Place::Path(_) => (unpack::full_tar(cx)?, owners(&facts, landing.options)?),
        Place::Volume(VolumePlace { way: Way::Here(tar), .. }) => (tar.clone(), owners(&facts, landing.options)?),
        // It is root there.
        Place::Volume(VolumePlace { way: Way::Inside(helper), .. }) => {
            (helper.tar.clone(), if landing.options.no_owner { Owners::Own } else { Owners::Same })
        }
    };
    if let Place::Path(place) = &to {
        warnings.extend(left_with_the_former(place, &errand, cx));
    }
    let base = match &to {
        Place::Path(place) => Some(place.base()),
        Place::Volume(VolumePlace { way: Way::Here(_), found, .. }) => found.as_ref().map(|volume| volume.mountpoint.as_path()),
        Place::Volume(_) => None,
        Place::Drill(base) => Some(existing(base)),
    };
    if let Some(base) = base {
        scratch::check_space(base, landing.bytes)?;
    }
    Ok(Arrival { facts, tar, to, owners, errand, warnings })
}

/// A container goes on with the directory that it was started with, whatever has its name meanwhile.
fn left_with_the_former(place: &PathPlace, errand: &Errand, cx: &Context) -> Option<String> {
    if errand.options.stop || place.found == Found::MountPoint || !place.path.exists() {
        return None;
    }
    let names = errand.hold(hold::Place::Path(&place.path), None).at_work(cx);
    (!names.is_empty()).then(|| {
        let (names, path) = (names.join(", "), place.path.display());
        format!(
            "containers that run have {path} mounted, and go on with what it is now until they are started again: {names}; \
             --stop does both"
        )
    })
}

/// The volume that a backup goes into, where it goes into one.
pub(super) fn volume_of<'a>(volume: &'a Volume, to: &'a Destination) -> Option<&'a str> {
    match (to, &volume.config.place) {
        (Destination::Volume(name), _) | (Destination::Own, model::VolumePlace::Named(name)) => Some(name),
        _ => None,
    }
}

fn refused(cause: impl Into<String>) -> Error {
    Error::new(Kind::Refused, cause).step("place")
}

/// Options that are databases' alone.
fn check_options(options: StageOptions) -> Result<()> {
    let given = [
        ("--no-privileges", options.no_privileges),
        ("--missing-roles", options.missing_roles),
        ("--disconnect", options.disconnect),
        ("--jobs", options.jobs.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => {
            let cause = format!("{option} is for databases, and the backup is one of files");
            Err(Error::new(Kind::Refused, cause).hint(format!("leave {option} out")))
        }
        None => Ok(()),
    }
}

/// A manifest's path is never trusted: a single file's name is a name.
fn check_file_name(facts: &VolumeFacts) -> Result<()> {
    let is_name = |name: &str| !name.contains(['/', '\0']) && !["", ".", ".."].contains(&name);
    match facts.file.as_deref().filter(|name| !is_name(name)) {
        Some(name) => {
            Err(Error::new(Kind::Damaged, format!("the manifest names a single file {name:?}, which is no file's name")))
        }
        None => Ok(()),
    }
}

/// Whether all files may be given to whom they belonged.
fn can_give(facts: &VolumeFacts) -> bool {
    let may_have = |owner: &String| {
        let Some((uid, gid)) = owner.split_once(':') else { return false };
        let gid = gid.parse().ok();
        uid.parse() == Ok(files::own_uid()) && gid.is_some_and(files::is_own_group)
    };
    files::is_root() || facts.owners.as_ref().is_some_and(|owners| owners.iter().all(may_have))
}

fn owners(facts: &VolumeFacts, options: StageOptions) -> Result<Owners> {
    if options.no_owner {
        return Ok(Owners::Own);
    }
    if can_give(facts) {
        return Ok(Owners::Same);
    }
    let whose = match &facts.owners {
        Some(owners) => format!("of {}", owners.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")),
        None => "of many".to_owned(),
    };
    Err(refused(format!("the files are {whose} (UID:GID), and only root may give them back to others"))
        .hint("run it as root, or have everything belong to you: --no-owner"))
}

fn drills_owners(facts: &VolumeFacts, warnings: &mut Vec<String>) -> Owners {
    if can_give(facts) {
        return Owners::Same;
    }
    warnings.push("the files' owners were not tried: only root may give files to others".to_owned());
    Owners::Own
}

/// Where drills unpack.
fn drill_base(volume: &Volume) -> Result<PathBuf> {
    match &volume.config.drill.directory {
        None => Ok(volume.state_dir.clone()),
        Some(path) if path.is_dir() => Ok(path.clone()),
        Some(path) => Err(refused(format!("{}, where drills of it unpack, is no directory that is there", path.display()))
            .hint("make it, or correct `drill: { directory: ... }` of the target")),
    }
}

/// The nearest directory above that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|above| above.is_dir()).unwrap_or(path)
}

fn examine_path(wanted: &Path, is_file: bool, replace: bool) -> Result<PathPlace> {
    let path = settled(wanted)?;
    let shown = path.display();
    let is_a = if is_file { "a file" } else { "a directory" };
    let place = |found| Ok(PathPlace { path: path.clone(), found, is_file });
    let found = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return place(Found::Free),
        found => found.map_err(|error| refused(format!("can't look at {shown}")).source(error))?,
    };
    if found.is_symlink() {
        let real = path.canonicalize().map_or("what it leads to".into(), |real| real.display().to_string());
        return Err(refused(format!("{shown} is a symbolic link")).hint(format!("name the place itself: --to-path {real}")));
    }
    if (is_file && !found.is_file()) || (!is_file && !found.is_dir()) {
        return Err(refused(format!("{shown} is there, and is not {is_a}, as the backup is"))
            .hint("restore it beside it with --to-path NEWDIR, or move that away first"));
    }
    let cant_read = |error| refused(format!("can't read {shown}")).source(error).hint("run it as root, or as its owner");
    let is_mount = found.is_dir() && files::is_mount_point(&path).map_err(cant_read)?;
    let is_empty = found.is_dir() && is_empty(&path, is_mount).map_err(cant_read)?;
    match (is_empty, is_mount) {
        (true, true) => place(Found::MountPoint),
        (true, false) => place(Found::Free),
        (false, true) if replace => {
            Err(refused(format!("{shown} is a mount point, which can't be swapped for another directory"))
                .hint("restore it with --to-path into a directory below it, or empty it first: then it is filled"))
        }
        (false, false) if replace => place(Found::Taken),
        (false, _) if is_file => Err(refused(format!("{shown} exists")).hint(
            "restore it beside it with --to-path NEWDIR, or have it make room with --replace: it is kept under another name",
        )),
        (false, _) => Err(refused(format!("{shown} exists and is not empty")).hint(
            "restore it beside it with --to-path NEWDIR, or have it make room with --replace: it is kept under another name",
        )),
    }
}

/// A place by the real path of the directory that it is in, which must be there.
fn settled(wanted: &Path) -> Result<PathBuf> {
    let absolute =
        std::path::absolute(wanted).map_err(|error| refused(format!("{} is no path", wanted.display())).source(error))?;
    let name: Option<&OsStr> = absolute.file_name();
    let (Some(parent), Some(name)) = (absolute.parent(), name) else {
        return Err(refused(format!("{} can't be restored to as a whole", wanted.display())).hint("name a directory below it"));
    };
    let parent_is = |error: io::Error| {
        refused(format!("{} is not there, or can't be reached", parent.display()))
            .source(error)
            .hint(format!("make it first: mkdir -p {}", swap::quoted(parent)))
    };
    Ok(parent.canonicalize().map_err(parent_is)?.join(name))
}

/// Whether nothing is in a directory, but for what each ext file system has at its root.
fn is_empty(path: &Path, is_mount: bool) -> io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        if !(is_mount && entry?.file_name() == swap::LOST_AND_FOUND) {
            return Ok(false);
        }
    }
    Ok(true)
}
