//! Volumes and directories, and what stands still while one is read.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::engine::EngineKind;

/// A directory, a file or a volume, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where the files are.
    pub place: VolumePlace,
    /// Whose volumes and containers are meant; `None`: the one that has them.
    pub engine: Option<EngineKind>,
    /// An image with GNU tar, for volumes that can't be read from outside.
    pub helper_image: Option<String>,
    /// What the tar that reads it must be able to keep.
    pub archiver: Archiver,
    /// Patterns of what is left out, as GNU tar's `--exclude` takes them.
    pub exclude: Vec<String>,
    /// Directories with a CACHEDIR.TAG are left out, but for the tag.
    pub exclude_caches: bool,
    /// What is mounted below is left out.
    pub one_file_system: bool,
    /// Patterns of files that may change while they are read.
    pub allow_changed: Vec<String>,
    /// What can't be read is a warning.
    pub skip_unreadable: bool,
    /// A database's directory is read as it stands.
    pub allow_live_database: bool,
    /// What stands still meanwhile.
    pub hold: Option<Hold>,
    /// How a drill goes.
    pub drill: VolumeDrill,
}

impl Volume {
    /// One of which nothing but its place is said.
    pub fn of(place: VolumePlace) -> Self {
        Self {
            place,
            engine: None,
            helper_image: None,
            archiver: Archiver::default(),
            exclude: Vec::new(),
            exclude_caches: false,
            one_file_system: false,
            allow_changed: Vec::new(),
            skip_unreadable: false,
            allow_live_database: false,
            hold: None,
            drill: VolumeDrill::default(),
        }
    }
}

/// Where a volume's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumePlace {
    /// A directory or a file of this machine.
    Path(PathBuf),
    /// A volume of a container engine.
    Named(String),
}

/// What the tar that reads a volume must be able to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Archiver {
    /// Everything: GNU tar.
    #[default]
    Full,
    /// Names, contents, modes, owners, links and times in whole seconds: any tar.
    Basic,
}

/// Containers that stand still while a volume is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// How.
    pub how: HoldBy,
    /// Which.
    pub which: Held,
}

/// How containers are made to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldBy {
    /// They are stopped, and started again.
    Stop,
    /// Their processes are frozen, and go on.
    Pause,
}

/// Which containers are made to stand still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// These, by name or id.
    Named(Vec<String>),
    /// All that have the volume, or the path, mounted.
    Users,
    /// All with this label: `KEY` or `KEY=VALUE`.
    Label(String),
}

/// How a volume's drill goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeDrill {
    /// Every file's digest is compared with the archive's.
    pub hash: bool,
    /// Where it is unpacked; `None`: under `state_dir`.
    pub directory: Option<PathBuf>,
}

/// Commands of a user's around a unit's backup; each is a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Before it; its failure is the unit's.
    pub before: Option<Vec<String>>,
    /// After it, however it ended, where `before` had begun.
    pub after: Option<Vec<String>>,
    /// After one that failed, before `after`.
    pub on_error: Option<Vec<String>>,
    /// The most that each may take.
    pub timeout: Duration,
}

/// The container that a database lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Which.
    pub which: ContainerName,
    /// Whose; `None`: the engine that has it.
    pub engine: Option<EngineKind>,
}

/// What a container is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerName {
    /// Its name or id.
    Name(String),
    /// The one of this service of a Compose project.
    Service {
        /// The project's file.
        file: PathBuf,
        /// The service in it.
        service: String,
    },
}
