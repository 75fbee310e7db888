//! The configuration as the rest of the program sees it: checked, with defaults filled in.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;

use crate::config::secret::Secret;
use crate::names::{HostName, TargetName, UnitName};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Retention's day boundaries, and times shown to a person.
    pub timezone: Tz,
    /// The first level in every storage.
    pub host: HostName,
    /// Locks; losing it loses no backup.
    pub state_dir: PathBuf,
    /// A log file for each run is written here.
    pub log_dir: Option<PathBuf>,
    /// Units at work at once.
    pub parallel: NonZeroU32,
    /// In the file's order.
    pub storages: Vec<StorageConfig>,
    /// In the file's order, disabled ones too.
    pub targets: Vec<Target>,
    /// What a person should know and that is no mistake: others can read a literal password.
    pub warnings: Vec<String>,
    /// Variables that passwords and addresses are made of: no child is to inherit them.
    pub secret_variables: Vec<String>,
}

impl Config {
    /// The storage of this name.
    pub fn storage(&self, name: &str) -> Option<&StorageConfig> {
        self.storages.iter().find(|storage| storage.name == name)
    }
}

/// A place for backups.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// Its key under `storages:`.
    pub name: String,
    /// What it is.
    pub kind: StorageKind,
    /// Its own policy, which wins over a target's.
    pub retention: Option<Policy>,
    /// False: it only grows; nothing is ever deleted there.
    pub prune: bool,
}

/// What a storage is.
#[derive(Debug, Clone)]
pub enum StorageKind {
    /// A directory of this machine.
    Local {
        /// The directory; only its last component is ever created.
        path: PathBuf,
        /// A directory that must be a mount point, so that an unmounted disk is an error.
        mount: Option<PathBuf>,
    },
}

/// What the user wants kept.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// False: `backup` leaves it out, unless its very name is given.
    pub enabled: bool,
    /// Names of storages, in order, at least one, each of them known.
    pub storages: Vec<String>,
    /// How its artifacts are compressed.
    pub compression: Compression,
    /// What is kept; empty: everything.
    pub retention: Policy,
    /// The most that one attempt at a unit may take.
    pub timeout: Option<Duration>,
    /// New attempts after a connection or storage error.
    pub retries: u32,
    /// A cron line, checked; nothing here runs by itself.
    pub schedule: Option<String>,
    /// What it is.
    pub kind: TargetKind,
}

impl Target {
    /// The units that are known without asking a server.
    pub fn units(&self) -> Vec<UnitName> {
        match &self.kind {
            TargetKind::Postgres(_) => vec![UnitName::of_target(&self.name)],
        }
    }

    /// The policy that holds for this target in this storage.
    pub fn policy_in<'a>(&'a self, storage: &'a StorageConfig) -> &'a Policy {
        storage.retention.as_ref().unwrap_or(&self.retention)
    }
}

/// What a target is.
#[derive(Debug, Clone)]
pub enum TargetKind {
    /// A PostgreSQL database.
    Postgres(Postgres),
}

/// A PostgreSQL database and the way to it. What is `None` comes from `PG*` variables, a service
/// file or `~/.pgpass`, as libpq does it.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Host name, address, or a socket's directory.
    pub host: Option<String>,
    /// TCP port, or the socket's number.
    pub port: Option<u16>,
    /// Role to log in as.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// `disable`, `prefer`, `require`, `verify-ca`, `verify-full`, ...
    pub sslmode: Option<String>,
    /// A whole `postgresql://` address instead of host, port, user, password and sslmode.
    pub uri: Option<Secret>,
    /// The database; `None`: from `uri:`, the service file or `PGDATABASE`.
    pub database: Option<String>,
    /// What pg_dump writes.
    pub format: Format,
    /// Where alone the client programs are looked for.
    pub client_bin: Option<PathBuf>,
}

/// What pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SQL text.
    Plain,
}

/// How an artifact is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip members; levels 1 to 9.
    Gzip(u32),
    /// zstd frames; levels 1 to 19.
    Zstd(i32),
    /// As it is.
    None,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip(6)
    }
}

/// What retention keeps: the union of what each key keeps. Empty keeps everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest N.
    pub keep_last: Option<u32>,
    /// All that started within N days before the newest whole one.
    pub keep_days: Option<u32>,
    /// The newest of each of the N latest hours that hold one.
    pub keep_hourly: Option<u32>,
    /// Likewise for days, in the config's timezone.
    pub keep_daily: Option<u32>,
    /// Likewise for ISO weeks.
    pub keep_weekly: Option<u32>,
    /// Likewise for months.
    pub keep_monthly: Option<u32>,
    /// Likewise for years.
    pub keep_yearly: Option<u32>,
}

impl Policy {
    /// Whether it says nothing: then nothing is ever deleted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
