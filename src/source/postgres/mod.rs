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
mod databases;
mod diagnosis;
mod drill;
mod facts;
mod filter;
mod former;
mod globals;
mod inside;
mod lexer;
mod load;
mod options;
mod parallel;
mod programs;
mod properties;
mod replace;
mod row_end;
mod scratch;
mod site;
mod spelling;
mod staged;
mod statement;
mod unpack;

use self::arrival::Arrival;
use self::capture::DumpCapture;
use self::client::{Client, Programs, Psql, Version};
pub use self::cluster::collect as collect_drills;
use self::connection::Connection;
use self::facts::{RestoreFacts, SourceFacts};
use self::inside::Inside;
use self::site::Site;
use std::sync::Arc;

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
    fn connection(&self, unit: &UnitName, site: &Site, cx: &Context) -> Result<Connection> {
        let database = match &self.config.databases {
            _ if unit.is_globals() => Some(MAINTENANCE[0]),
            Databases::One(_) => None,
            Databases::Several(_) | Databases::All { .. } => {
                let unknown = || Error::new(Kind::Internal, format!("{unit} is no database of target {}", self.target));
                Some(unit.database_of(&self.target).ok_or_else(unknown)?)
            }
        };
        Connection::resolve(&self.config, database, site, cx).map_err(|error| error.step("connect"))
    }

    /// psql on the database of a unit, under this application name: the newest, until the server has said its version.
    fn psql(&self, unit: &UnitName, application: String, site: &Site, cx: &Context) -> Result<Psql> {
        let connection = self.connection(unit, site, cx)?;
        let client = Programs::look("psql", site, cx)?.newest()?;
        Ok(Psql { client, connection, application })
    }

    /// Where this target's client programs are. It is asked for once for each thing that is done.
    fn site(&self, cx: &Context) -> Result<Site> {
        match &self.config.container {
            None => Ok(Site::Host(self.config.client_bin.clone())),
            Some(container) => Ok(Site::Inside(Arc::new(Inside::resolve(container, cx)?))),
        }
    }

    /// What a unit's backup needs: its database's facts, psql and pg_dump (or what else dumps it) that fit its server, and
    /// a warning about them.
    fn source_of(&self, mut psql: Psql, dumps: &str, cx: &Context) -> Result<(SourceFacts, Psql, Client, Vec<String>)> {
        let facts = facts::of_source(&psql, cx).map_err(|error| self.named(error).step("connect"))?;
        let server = server_version(&facts.server_version)?;
        let site = psql.client.site.clone();
        let pg_dump = Programs::look(dumps, &site, cx)?.fitting(&server)?;
        if psql.client.version.as_ref().is_none_or(|own| own.major != server.major) {
            psql.client = Programs::look("psql", &site, cx)?.fitting(&server)?;
        }
        let newer = [&pg_dump, &psql.client].into_iter().find_map(|client| client.newer_than(&server));
        let warnings = newer.into_iter().chain(unseen(&facts)).collect();
        Ok((facts, psql, pg_dump, warnings))
    }

    /// psql that fits the target's server, on a database of it that is there whatever becomes of the target's own.
    fn admin(&self, application: String, site: &Site, cx: &Context) -> Result<Psql> {
        let connection =
            Connection::resolve(&self.config, Some(MAINTENANCE[0]), site, cx).map_err(|error| error.step("connect"))?;
        let found = Programs::look("psql", site, cx)?;
        maintenance(&found, &Psql { client: found.newest()?, connection, application }, cx)
    }

    /// An error of a unit's own connection: where the unit is one of several, its database has gone, and not
    /// the config's `database:` is wrong.
    fn named(&self, error: Error) -> Error {
        let cause = error.cause();
        let is_gone = error.kind() == Kind::Database && cause.contains("database \"") && cause.contains("does not exist");
        let hint = match &self.config.databases {
            Databases::All { .. } => {
                "it was dropped or renamed after the server was asked for its databases; the next run will tell"
            }
            Databases::Several(_) => "take it out of `databases:`, or correct its name there",
            Databases::One(_) => return error,
        };
        if is_gone { error.hint(hint) } else { error }
    }

    fn examine(&self, landing: &Landing<'_>, cx: &Context) -> Result<Arrival> {
        if let Destination::Directory(_) | Destination::Volume(_) = landing.to {
            return Err(Error::new(Kind::Refused, "the backup is one of a database, and can't be unpacked into files")
                .hint("restore it with --to-database NAME, or take the dump with --output FILE"));
        }
        let restore = restore_facts(landing.facts)?;
        let site = self.site(cx)?;
        let admin = self.admin(application_of_restore()?, &site, cx)?;
        let wanted = match landing.to {
            Destination::Database(name) => name.clone(),
            _ => self.connection(landing.unit, &site, cx)?.database().to_owned(),
        };
        if wanted.is_empty() || wanted.len() > MAX_NAME_LEN {
            let what = format!("{wanted:?} can't be a database's name: PostgreSQL takes 1 to {MAX_NAME_LEN} bytes");
            return Err(Error::new(Kind::Refused, what).hint("choose a shorter name"));
        }
        self.arrive(admin, &wanted, landing, restore, cx)
    }

    /// Looks at a server, and for what loads the stream there.
    fn arrive(&self, admin: Psql, wanted: &str, landing: &Landing<'_>, facts: RestoreFacts, cx: &Context) -> Result<Arrival> {
        let mut arrival = arrival::examine(admin, wanted, landing, facts, cx)?;
        let wrote = landing.facts.client_version.as_deref().and_then(Version::parse).map_or(0, |version| version.major);
        arrival.options.jobs = arrival.options.jobs.or(self.config.jobs.filter(|_| arrival.format == load::CUSTOM));
        let site = arrival.admin.client.site.clone();
        load::prepare(&mut arrival, &site, wrote, cx)?;
        Ok(arrival)
    }
}

impl Source for Postgres {
    fn units(&self, cx: &Context) -> Result<Units> {
        match &self.config.databases {
            Databases::One(_) | Databases::Several(_) => {
                Ok(Units { units: self.config.known_units(&self.target), left_out: Vec::new() })
            }
            Databases::All { exclude } => {
                let admin = self.admin("db-backup-tools units".into(), &self.site(cx)?, cx)?;
                let (databases, left_out) = databases::databases(&admin, exclude, cx)?;
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
        let site = self.site(cx)?;
        let psql = self.psql(unit, "db-backup-tools probe".into(), &site, cx)?;
        if unit.is_globals() {
            return globals::probe(&self.admin("db-backup-tools probe".into(), &site, cx)?, &site, cx);
        }
        let (facts, psql, pg_dump, mut warnings) = self.source_of(psql, "pg_dump", cx)?;
        let role = psql.connection.user().map_or(String::new(), |user| format!(" as {user}"));
        let mut unreadable = facts::unreadable(&psql, cx).map_err(|error| error.step("privileges"))?;
        if options::leaves_out(&self.config.filter) {
            warnings.extend(options::doubtful(&std::mem::take(&mut unreadable)));
        }
        Ok(Probe {
            server_version: Some(facts.short_version()),
            client_version: pg_dump.version_text(),
            estimated_bytes: facts.bytes,
            way: format!("{}, over {}{role}, database {}", way_of(&pg_dump, &psql), psql.connection.describe(), facts.database),
            unreadable,
            warnings,
        })
    }

    fn capture(&self, unit: &UnitName, id: Id, cx: &Context) -> Result<Box<dyn Capture>> {
        let site = self.site(cx)?;
        let psql = self.psql(unit, application_name(unit, id), &site, cx)?;
        if unit.is_globals() {
            return globals::capture(&maintenance(&Programs::look("psql", &site, cx)?, &psql, cx)?, &site, cx);
        }
        let (facts, psql, pg_dump, warnings) = self.source_of(psql, "pg_dump", cx)?;
        Ok(Box::new(DumpCapture::start(unit, pg_dump, psql, &self.config, facts, warnings, cx)?))
    }

    fn check(&self, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>> {
        match landing.to {
            Destination::Drill => drill::check(self, landing, cx),
            _ if landing.unit.is_globals() => globals::check(self, landing, cx),
            _ => self.examine(landing, cx).map(|arrival| arrival.warnings),
        }
    }

    fn stage(&self, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
        match landing.to {
            Destination::Drill => drill::stage(self, landing, cx),
            _ if landing.unit.is_globals() => globals::stage(self, landing, cx),
            _ => load::into(self.examine(landing, cx)?, cx),
        }
    }
}

/// The same on a database of its server that is there whatever becomes of others, and by the one of these that
/// fits that server.
fn maintenance(found: &Programs, psql: &Psql, cx: &Context) -> Result<Psql> {
    let mut failure = None;
    for database in MAINTENANCE {
        let admin = psql.on(database);
        match admin.run("SHOW server_version;", "connecting", cx) {
            Ok(version) => return Ok(Psql { client: found.fitting(&server_version(&version)?)?, ..admin }),
            Err(error) if error.kind() == Kind::Database => failure = failure.or(Some(error)),
            Err(error) => return Err(error.step("connect")),
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::Database, "no maintenance database answers")).step("connect"))
}

/// Which programs run where, for a person.
fn way_of(dumps: &Client, psql: &Psql) -> String {
    match dumps.site.inside() {
        None => format!("{} and {}", dumps.describe(), psql.client.describe()),
        Some(inside) => format!("{} ({}, {})", inside.way(), dumps.title(), psql.client.title()),
    }
}

/// What a manifest of ours says that a restore needs.
fn restore_facts(facts: &Facts) -> Result<RestoreFacts> {
    if facts.kind != KIND || !["plain", load::CUSTOM, globals::FORMAT].contains(&facts.format.as_str()) {
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

/// What pg_dump leaves out without an error, as the role may not see it.
fn unseen(facts: &SourceFacts) -> impl Iterator<Item = String> {
    facts.unseen.iter().map(|what| format!("only a superuser may read {what}"))
}

fn server_version(text: &str) -> Result<Version> {
    Version::parse(text).ok_or_else(|| Error::new(Kind::Database, format!("the server's version {text:?} is not understood")))
}

/// Names run and unit in the server's list of sessions, within the characters that it keeps.
fn application_name(unit: &UnitName, id: Id) -> String {
    let mut name = format!("db-backup-tools {id} {}", unit.escaped());
    name.truncate(MAX_NAME_LEN);
    name
}
