//! The configuration as the rest of the program sees it: checked, with defaults filled in.

mod volume;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;

use crate::config::secret::Secret;
use crate::names::{HostName, TargetName, UnitName};

pub use volume::{Archiver, Container, ContainerName, Held, Hold, HoldBy, Hooks, Volume, VolumeDrill, VolumePlace};

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
    /// What uploads may take of the machine's memory, all of them together, in bytes, with what the program takes besides.
    pub memory: u64,
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
    /// A bucket of an S3-compatible service.
    S3(Box<S3Settings>),
}

/// A bucket, the way to it, and how its objects are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Its name.
    pub bucket: String,
    /// What stands before every key, without a slash at either end; empty: nothing.
    pub prefix: String,
    /// `None`: `AWS_REGION`, `AWS_DEFAULT_REGION`, or us-east-1.
    pub region: Option<String>,
    /// `http://HOST:PORT` or `https://HOST`, without a slash at its end; `None`: AWS, by the region.
    pub endpoint: Option<String>,
    /// The bucket stands in the path and not in the host's name.
    pub path_style: bool,
    /// `None`: the usual chain (environment, credentials file, web identity, container, instance).
    pub keys: Option<S3Keys>,
    /// `STANDARD_IA`, ...
    pub storage_class: Option<String>,
    /// What the service is to encrypt with.
    pub encryption: Option<S3Encryption>,
    /// Tags of every object.
    pub tags: Vec<(String, String)>,
    /// Certificates of a private authority, PEM, trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://[USER:PASSWORD@]HOST:PORT`; `None`: as the usual variables say.
    pub proxy: Option<Secret>,
    /// Bytes of a part, where the size of a stream does not need larger ones.
    pub part_size: u64,
    /// The most parts that the service takes.
    pub max_parts: u32,
    /// The most parts under way at once, as far as `memory` allows.
    pub concurrency: NonZeroU32,
    /// What this storage may take of the machine's memory, in bytes; `None`: its share of the program's.
    pub memory: Option<u64>,
    /// How long a call may make no progress.
    pub timeout: Duration,
    /// New tries of one call, after an error that may pass.
    pub retries: u32,
}

/// Access keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// Who asks.
    pub access_key_id: Secret,
    /// What signs.
    pub secret_access_key: Secret,
    /// Of temporary keys.
    pub session_token: Option<Secret>,
}

/// What the service encrypts an object with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Encryption {
    /// Keys of the storage service's own.
    Aes256,
    /// A key of its key service; `None`: the account's own for it.
    Kms(Option<String>),
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
    /// The user's own commands around it.
    pub hooks: Option<Hooks>,
    /// What it is.
    pub kind: TargetKind,
}

impl Target {
    /// The units that are known without asking a server.
    pub fn units(&self) -> Vec<UnitName> {
        match &self.kind {
            TargetKind::Postgres(postgres) => postgres.known_units(&self.name),
            TargetKind::Volume(_) => vec![UnitName::of_target(&self.name)],
        }
    }

    /// Whether its server must be asked for its units.
    pub fn asks_for_units(&self) -> bool {
        match &self.kind {
            TargetKind::Postgres(postgres) => matches!(postgres.databases, Databases::All { .. }),
            TargetKind::Volume(_) => false,
        }
    }

    /// Whether a stored unit of this name is its own. Exactly its own: a stored unit `app.db` is none of a
    /// target `app` that is one database.
    pub fn owns(&self, unit: &UnitName) -> bool {
        self.units().contains(unit) || (self.asks_for_units() && unit.database_of(&self.name).is_some())
    }

    /// What a drill asks of the restored unit.
    pub fn checks(&self) -> &[Check] {
        match &self.kind {
            TargetKind::Postgres(postgres) => &postgres.checks,
            TargetKind::Volume(_) => &[],
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
    /// A PostgreSQL server's databases.
    Postgres(Box<Postgres>),
    /// A directory, a file or a volume.
    Volume(Box<Volume>),
}

/// A question that a drill puts to what it restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// For a person.
    pub name: String,
    /// One query.
    pub sql: String,
    /// What its first value must be as text; `None`: true.
    pub expect: Option<String>,
    /// The units that are asked, by database name or glob; empty: all of the target's.
    pub databases: Vec<String>,
}

/// A PostgreSQL server's databases and the way to them. What is `None` comes from `PG*` variables, a service
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
    /// Which databases.
    pub databases: Databases,
    /// Roles and tablespaces too, as a unit of their own.
    pub globals: bool,
    /// What pg_dump writes.
    pub format: Format,
    /// What of a database is dumped.
    pub filter: DumpFilter,
    /// Where alone the client programs are looked for.
    pub client_bin: Option<PathBuf>,
    /// The container that the server lives in, and its client programs are run in.
    pub container: Option<Container>,
    /// Objects that a restore of a custom archive loads at once.
    pub jobs: Option<NonZeroU32>,
    /// What a drill asks.
    pub checks: Vec<Check>,
    /// Where a drill restores to.
    pub drill: Drill,
}

impl Postgres {
    /// The units that are known without asking the server.
    pub fn known_units(&self, target: &TargetName) -> Vec<UnitName> {
        let mut units = match &self.databases {
            Databases::One(_) => vec![UnitName::of_target(target)],
            Databases::Several(names) => names.iter().map(|name| UnitName::of_database(target, name)).collect(),
            Databases::All { .. } => Vec::new(),
        };
        units.extend(self.globals.then(|| UnitName::of_globals(target)));
        units
    }
}

/// Which databases of a server are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// One, which is the target's one unit; `None`: from `uri:`, the service file or `PGDATABASE`.
    One(Option<String>),
    /// These, each a unit of its own.
    Several(Vec<String>),
    /// All that the server has and that allow connections, each a unit of its own.
    All {
        /// Globs of names that are left out.
        exclude: Vec<String>,
    },
}

/// What of a database is dumped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpFilter {
    /// `--schema`
    pub schemas: Vec<String>,
    /// `--exclude-schema`
    pub exclude_schemas: Vec<String>,
    /// `--table`
    pub tables: Vec<String>,
    /// `--exclude-table`
    pub exclude_tables: Vec<String>,
    /// `--exclude-table-data`
    pub exclude_table_data: Vec<String>,
    /// `--schema-only`
    pub schema_only: bool,
    /// `--no-owner`
    pub no_owner: bool,
    /// `--no-privileges`
    pub no_privileges: bool,
    /// Other options of pg_dump, each checked against those that can't change where or how the stream goes.
    pub extra_args: Vec<String>,
}

/// Where a drill restores to.
#[derive(Debug, Clone, Default)]
pub struct Drill {
    /// Which server.
    pub place: DrillPlace,
    /// Contents that act outside of the database are restored on a server all the same.
    pub allow_outbound: bool,
}

/// The server of a drill.
#[derive(Debug, Clone, Default)]
pub enum DrillPlace {
    /// One of its own, made for the drill and gone after it.
    #[default]
    Temporary,
    /// The same in a container of its own, of the image that the target's container has.
    Container,
    /// The target's own server.
    Same,
    /// Another server.
    Server(Box<Server>),
}

/// The way to another server than the target's.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Host name, address, or a socket's directory.
    pub host: Option<String>,
    /// TCP port, or the socket's number.
    pub port: Option<u16>,
    /// Role to log in as.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// As a target's.
    pub sslmode: Option<String>,
    /// Where alone the client programs are looked for.
    pub client_bin: Option<PathBuf>,
}

/// What pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SQL text.
    Plain,
    /// pg_dump's own archive, not compressed by it.
    Custom,
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
