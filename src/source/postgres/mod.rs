//! PostgreSQL, through its own client programs: pg_dump writes a unit's stream, psql takes one back.
//! No name and no connection travels as an argument, and no prompt is ever waited for.

mod capture;
mod census;
mod client;
mod connection;
mod diagnosis;
mod facts;
mod filter;
mod lexer;
mod restore;
mod row_end;
mod scratch;
mod statement;

use self::capture::PlainCapture;
use self::client::{Psql, Version};
use self::connection::Connection;
use self::facts::{RestoreFacts, SourceFacts};
use self::restore::{Arrival, PlainSink};
use crate::config::model;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::names::{Id, TargetName, UnitName, hex};
use crate::source::{Capture, Destination, Facts, Probe, Sink, Source, StageOptions};

/// The longest name that PostgreSQL keeps, of a database or a session, in bytes: its NAMEDATALEN - 1
/// (documentation, "Identifiers and Key Words").
const MAX_NAME_LEN: usize = 63;
/// Databases that a server has to ask it about others, the usual first.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

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

    /// psql on the target's database, under this application name.
    fn psql(&self, application: String, cx: &Context) -> Result<Psql> {
        let connection = Connection::resolve(&self.config, cx).map_err(|error| error.step("connect"))?;
        let client = client::find_psql(self.config.client_bin.as_deref(), cx)?;
        Ok(Psql { client, connection, application })
    }

    /// psql on a database of the server that is there whatever becomes of the target's own.
    fn admin(&self, cx: &Context) -> Result<Psql> {
        let application = format!("db-backup-tools restore {}", hex(&crate::host::files::random_bytes::<8>()?));
        let psql = self.psql(application, cx)?;
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

    fn examine(&self, facts: &Facts, to: &Destination, options: StageOptions, cx: &Context) -> Result<Arrival> {
        if facts.kind != "postgres" || facts.format != "plain" {
            let what = format!("the backup is of kind {}, format {}", facts.kind, facts.format);
            return Err(Error::new(Kind::Refused, what).hint("restore it with the version of this program that made it"));
        }
        let restore: RestoreFacts = serde_json::from_value(facts.restore.clone())
            .map_err(|error| Error::new(Kind::Damaged, "the manifest's `restore` can't be read").source(error))?;
        let admin = self.admin(cx)?;
        let wanted = match to {
            Destination::Own => Connection::resolve(&self.config, cx)?.database().to_owned(),
            Destination::Database(name) => name.clone(),
        };
        if wanted.is_empty() || wanted.len() > MAX_NAME_LEN {
            let what = format!("{wanted:?} can't be a database's name: PostgreSQL takes 1 to {MAX_NAME_LEN} bytes");
            return Err(Error::new(Kind::Refused, what).hint("choose a shorter name"));
        }
        restore::examine(admin, &wanted, facts.server_version.as_deref(), restore, options, cx)
    }
}

impl Source for Postgres {
    fn units(&self, _cx: &Context) -> Result<Vec<UnitName>> {
        Ok(vec![UnitName::of_target(&self.target)])
    }

    fn extension(&self) -> &'static str {
        "sql"
    }

    fn probe(&self, _unit: &UnitName, cx: &Context) -> Result<Probe> {
        let psql = self.psql("db-backup-tools probe".into(), cx)?;
        let facts: SourceFacts = facts::of_source(&psql, cx).map_err(|error| error.step("connect"))?;
        let pg_dump = client::find_pg_dump(self.config.client_bin.as_deref(), &server_version(&facts)?, cx)?;
        let role = psql.connection.user().map_or(String::new(), |user| format!(" as {user}"));
        let version = pg_dump.version_text().unwrap_or_else(|| "of unknown version".into());
        let unreadable = facts::unreadable(&psql, cx).map_err(|error| error.step("privileges"))?;
        Ok(Probe {
            server_version: Some(facts.short_version()),
            client_version: pg_dump.version_text(),
            estimated_bytes: facts.bytes,
            way: format!("pg_dump {version} over {}{role}, database {}", psql.connection.describe(), facts.database),
            unreadable,
            warnings: newer_client(&pg_dump, &facts),
        })
    }

    fn capture(&self, unit: &UnitName, id: Id, cx: &Context) -> Result<Box<dyn Capture>> {
        let psql = self.psql(application_name(unit, id), cx)?;
        let facts = facts::of_source(&psql, cx).map_err(|error| error.step("connect"))?;
        let pg_dump = client::find_pg_dump(self.config.client_bin.as_deref(), &server_version(&facts)?, cx)?;
        let warnings = newer_client(&pg_dump, &facts);
        Ok(Box::new(PlainCapture::start(pg_dump, psql, facts, warnings, cx)?))
    }

    fn check(&self, facts: &Facts, to: &Destination, options: StageOptions, cx: &Context) -> Result<Vec<String>> {
        self.examine(facts, to, options, cx).map(|arrival| arrival.warnings)
    }

    fn stage(&self, facts: &Facts, to: &Destination, options: StageOptions, cx: &Context) -> Result<Box<dyn Sink>> {
        let arrival = self.examine(facts, to, options, cx)?;
        Ok(Box::new(PlainSink::start(arrival, cx)?))
    }
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
