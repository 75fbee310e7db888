//! PostgreSQL, through its own client programs: pg_dump writes a unit's stream, psql takes one back.
//! No name and no connection travels as an argument, and no prompt is ever waited for.

mod archive;
mod arrival;
mod capture;
mod census;
mod client;
mod cluster;
mod compare;
mod connection;
mod diagnosis;
mod drill;
mod facts;
mod filter;
mod former;
mod globals;
mod lexer;
mod load;
mod options;
mod properties;
mod replace;
mod row_end;
mod scratch;
mod staged;
mod statement;

use self::arrival::Arrival;
use self::capture::DumpCapture;
use self::client::{Psql, Version};
use self::connection::Connection;
use self::facts::{RestoreFacts, SourceFacts};
use crate::config::model::{self, Databases};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Id, TargetName, UnitName, hex};
use crate::source::{Capture, Destination, Facts, Landing, Probe, Sink, Source, Units};

/// The longest name that PostgreSQL keeps, of a database or a session, in bytes: its NAMEDATALEN - 1
/// (documentation, "Identifiers and Key Words").
const MAX_NAME_LEN: usize = 63;
/// Databases that a server has to ask it about others, the usual first.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// What a manifest's `kind` is for everything here.
const KIND: &str = "postgres";

/// A PostgreSQL target.
pub struct Postgres {
    target: TargetName,
    config: model::Postgres,
}

impl Postgres {
    /// The source of this target.
    pub fn new(target: TargetName, config: model::Postgres) -> Self {
        Self { target, config }
    }

    /// The way to the database of a unit; to the server's maintenance database for one that is none.
    fn connection(&self, unit: &UnitName, cx: &Context) -> Result<Connection> {
        let database = match &self.config.databases {
            _ if unit.is_globals() => Some(MAINTENANCE[0]),
            Databases::One(_) => None,
            Databases::Several(_) | Databases::All { .. } => {
                let unknown = || Error::new(Kind::Internal, format!("{unit} is no database of target {}", self.target));
                Some(unit.database_of(&self.target).ok_or_else(unknown)?)
            }
        };
        Connection::resolve(&self.config, database, cx).map_err(|error| error.step("connect"))
    }

    /// psql on the database of a unit, under this application name.
    fn psql(&self, unit: &UnitName, application: String, cx: &Context) -> Result<Psql> {
        let connection = self.connection(unit, cx)?;
        let client = client::find_psql(self.config.client_bin.as_deref(), cx)?;
        Ok(Psql { client, connection, application })
    }

    /// psql on a database of the target's server that is there whatever becomes of the target's own.
    fn admin(&self, application: String, cx: &Context) -> Result<Psql> {
        let connection = Connection::resolve(&self.config, Some(MAINTENANCE[0]), cx).map_err(|error| error.step("connect"))?;
        let client = client::find_psql(self.config.client_bin.as_deref(), cx)?;
        maintenance(&Psql { client, connection, application }, cx)
    }

    fn examine(&self, landing: &Landing<'_>, cx: &Context) -> Result<Arrival> {
        let restore = restore_facts(landing.facts)?;
        let admin = self.admin(application_of_restore()?, cx)?;
        let wanted = match landing.to {
            Destination::Database(name) => name.clone(),
            _ => self.connection(landing.unit, cx)?.database().to_owned(),
        };
        if wanted.is_empty() || wanted.len() > MAX_NAME_LEN {
            let what = format!("{wanted:?} can't be a database's name: PostgreSQL takes 1 to {MAX_NAME_LEN} bytes");
            return Err(Error::new(Kind::Refused, what).hint("choose a shorter name"));
        }
        arrival::examine(admin, &wanted, landing, restore, cx)
    }
}

impl Source for Postgres {
    fn units(&self, cx: &Context) -> Result<Units> {
        match &self.config.databases {
            Databases::One(_) | Databases::Several(_) => {
                Ok(Units { units: self.config.known_units(&self.target), left_out: Vec::new() })
            }
            Databases::All { exclude } => {
                let admin = self.admin("db-backup-tools units".into(), cx)?;
                let (databases, left_out) = facts::databases(&admin, exclude, cx)?;
                let units = databases.iter().map(|name| UnitName::of_database(&self.target, name));
                Ok(Units { units: units.chain(self.config.known_units(&self.target)).collect(), left_out })
            }
        }
    }

    fn extension(&self, unit: &UnitName) -> &'static str {
        match self.config.format {
            model::Format::Custom if !unit.is_globals() => "dump",
            _ => "sql",
        }
    }

    fn probe(&self, unit: &UnitName, cx: &Context) -> Result<Probe> {
        let psql = self.psql(unit, "db-backup-tools probe".into(), cx)?;
        let facts: SourceFacts = facts::of_source(&psql, cx).map_err(|error| error.step("connect"))?;
        let pg_dump = client::find_pg_dump(self.config.client_bin.as_deref(), &server_version(&facts)?, cx)?;
        let role = psql.connection.user().map_or(String::new(), |user| format!(" as {user}"));
        let version = pg_dump.version_text().unwrap_or_else(|| "of unknown version".into());
        let mut unreadable = facts::unreadable(&psql, cx).map_err(|error| error.step("privileges"))?;
        let mut warnings = newer_client(&pg_dump, &facts);
        if options::leaves_out(&self.config.filter) {
            warnings.extend(options::doubtful(&std::mem::take(&mut unreadable)));
        }
        Ok(Probe {
            server_version: Some(facts.short_version()),
            client_version: pg_dump.version_text(),
            estimated_bytes: facts.bytes,
            way: format!("pg_dump {version} over {}{role}, database {}", psql.connection.describe(), facts.database),
            unreadable,
            warnings,
        })
    }

    fn capture(&self, unit: &UnitName, id: Id, cx: &Context) -> Result<Box<dyn Capture>> {
        let psql = self.psql(unit, application_name(unit, id), cx)?;
        if unit.is_globals() {
            return globals::capture(psql, &self.config, cx);
        }
        let facts = facts::of_source(&psql, cx).map_err(|error| error.step("connect"))?;
        let pg_dump = client::find_pg_dump(self.config.client_bin.as_deref(), &server_version(&facts)?, cx)?;
        let warnings = newer_client(&pg_dump, &facts);
        Ok(Box::new(DumpCapture::start(pg_dump, psql, &self.config, facts, warnings, cx)?))
    }

    fn check(&self, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>> {
        match landing.to {
            Destination::Drill => Ok(Vec::new()),
            Destination::MissingRoles => globals::check_roles(self, landing, cx),
            Destination::Own | Destination::Database(_) => self.examine(landing, cx).map(|arrival| arrival.warnings),
        }
    }

    fn stage(&self, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
        match landing.to {
            Destination::Drill => drill::stage(self, landing, cx),
            Destination::MissingRoles => globals::stage_roles(self, landing, cx),
            Destination::Own | Destination::Database(_) => load::into(self.examine(landing, cx)?, cx),
        }
    }
}

/// The same psql on a database of its server that is there whatever becomes of others.
fn maintenance(psql: &Psql, cx: &Context) -> Result<Psql> {
    let mut failure = None;
    for database in MAINTENANCE {
        let admin = psql.on(database);
        match admin.run("SELECT 1;", "connecting", cx) {
            Ok(_) => return Ok(admin),
            Err(error) if error.kind() == Kind::Database => failure = failure.or(Some(error)),
            Err(error) => return Err(error.step("connect")),
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::Database, "no maintenance database answers")).step("connect"))
}

/// What a manifest of ours says that a restore needs.
fn restore_facts(facts: &Facts) -> Result<RestoreFacts> {
    if facts.kind != KIND || !["plain", "custom", globals::FORMAT].contains(&facts.format.as_str()) {
        let what = format!("the backup is of kind {}, format {}", facts.kind, facts.format);
        return Err(Error::new(Kind::Refused, what).hint("restore it with the version of this program that made it"));
    }
    serde_json::from_value(facts.restore.clone())
        .map_err(|error| Error::new(Kind::Damaged, "the manifest's `restore` can't be read").source(error))
}

/// A name for the sessions of one restore, by which they are ended.
fn application_of_restore() -> Result<String> {
    Ok(format!("db-backup-tools restore {}", hex(&crate::host::files::random_bytes::<8>()?)))
}

fn server_version(facts: &SourceFacts) -> Result<Version> {
    Version::parse(&facts.server_version)
        .ok_or_else(|| Error::new(Kind::Database, format!("the server's version {:?} is not understood", facts.server_version)))
}

fn newer_client(pg_dump: &client::Client, facts: &SourceFacts) -> Vec<String> {
    let server = Version::parse(&facts.server_version).map_or(0, |version| version.major);
    let newer = pg_dump.version.iter().filter(|version| version.major > server);
    let text = |version: &Version| {
        format!(
            "pg_dump {} is newer than the server ({}): an older server may not understand its dump",
            version.text,
            facts.short_version()
        )
    };
    newer.map(text).collect()
}

/// Names run and unit in the server's list of sessions, within the characters that it keeps.
fn application_name(unit: &UnitName, id: Id) -> String {
    let mut name = format!("db-backup-tools {id} {}", unit.escaped());
    name.truncate(MAX_NAME_LEN);
    name
}
