//! A server's roles and tablespaces: `pg_dumpall --globals-only`, and the way back of roles alone. A plain replay
//! would hand logins and passwords back, so only the roles that are absent are made, and they can't log in.

mod replay;

use std::convert::Infallible;
use std::io::{self, Read, Write};

use serde::Deserialize;

use super::census::identifier;
use super::client::{CLIENT_ENCODING, Client, Programs, Psql, quote_array, quote_identifier};
use super::facts::RestoreFacts;
use super::lexer::{Lexer, Token, Visitor};
use super::site::Site;
use super::statement::strip_word;
use super::{KIND, Postgres, application_of_restore, diagnosis, restore_facts};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::engine::Stdin;
use crate::host::process::{Child, Exit};
use crate::source::{Capture, CaptureInfo, Comparison, Facts, Inventory, Landing, Probe, Published, Sink, Staged};

pub(super) use replay::Replay;

/// What a manifest's `format` is for them.
pub(super) const FORMAT: &str = "globals";

/// What the server says of them.
#[derive(Debug, Deserialize)]
struct ServerFacts {
    server_version: String,
    roles: Vec<String>,
    tablespaces: Vec<String>,
    /// Passwords are a superuser's to read.
    sees_passwords: bool,
}

impl ServerFacts {
    /// Without the distribution's words.
    fn short_version(&self) -> Option<String> {
        self.server_version.split_whitespace().next().map(str::to_owned)
    }
}

const QUESTION: &str = "SELECT json_build_object(
  'server_version', current_setting('server_version'),
  'roles', (SELECT coalesce(json_agg(rolname ORDER BY oid), '[]') FROM pg_roles WHERE rolname !~ '^pg_'),
  'tablespaces', (SELECT coalesce(json_agg(spcname ORDER BY oid), '[]') FROM pg_tablespace WHERE spcname !~ '^pg_'),
  'sees_passwords', has_table_privilege('pg_catalog.pg_authid', 'SELECT'));";

/// Asks the server, and finds the program.
fn look(psql: &Psql, site: &Site, cx: &Context) -> Result<(ServerFacts, Client, Vec<String>)> {
    let facts: ServerFacts =
        psql.ask(QUESTION, "asking the server about its roles", cx).map_err(|error| error.step("connect"))?;
    let version = super::server_version(&facts.server_version)?;
    let client = Programs::look("pg_dumpall", site, cx)?.fitting(&version)?;
    let mut warnings: Vec<String> = client.newer_than(&version).into_iter().collect();
    if !facts.sees_passwords {
        warnings.push(
            "roles are dumped without their passwords, which only a superuser or a member of pg_read_all_data may read"
                .to_owned(),
        );
    }
    Ok((facts, client, warnings))
}

/// What a backup would do.
pub(super) fn probe(psql: &Psql, site: &Site, cx: &Context) -> Result<Probe> {
    let (facts, client, warnings) = look(psql, site, cx)?;
    let version = client.version_text();
    let way = match client.site.inside() {
        None => format!("pg_dumpall {} over {}", version.as_deref().unwrap_or_default(), psql.connection.describe()),
        Some(inside) => format!("{} ({}), over {}", inside.way(), client.title(), psql.connection.describe()),
    };
    Ok(Probe { server_version: facts.short_version(), client_version: version, way, warnings, ..Probe::default() })
}

/// Starts pg_dumpall.
pub(super) fn capture(psql: &Psql, site: &Site, cx: &Context) -> Result<Box<dyn Capture>> {
    let (facts, client, warnings) = look(psql, site, cx)?;
    let without = (!facts.sees_passwords).then_some("--no-role-passwords");
    let mut variables = psql.variables();
    variables.insert(CLIENT_ENCODING, "UTF8".to_owned());
    let program = client.program(Stdin::Leash, &variables).args(["--globals-only", "--no-password"]).args(without);
    let child = program.spawn_reader(cx)?;
    Ok(Box::new(GlobalsCapture { child, reader: RoleReader::default(), facts, client, warnings }))
}

/// A running pg_dumpall.
struct GlobalsCapture {
    child: Child,
    reader: RoleReader,
    facts: ServerFacts,
    client: Client,
    warnings: Vec<String>,
}

impl Read for GlobalsCapture {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.child.read(buffer)?;
        self.reader.feed(&buffer[..count]);
        Ok(count)
    }
}

impl Capture for GlobalsCapture {
    fn finish(mut self: Box<Self>) -> Result<CaptureInfo> {
        let finished = self.child.wait()?;
        let (exit, said) = self.client.site.ended("pg_dumpall", &finished)?;
        if !exit.is_success() {
            let way_out = match exit {
                Exit::Code(_) => format!("run {} --globals-only by hand, as this user", self.client.by_hand()),
                Exit::Signal(_) => "find out who sent the signal: where memory ran out, the kernel's log says so".to_owned(),
            };
            return Err(self.client.site.failed("pg_dumpall", exit, &said).hint_if_none(way_out));
        }
        if !self.reader.lexer.is_complete() {
            return Err(Error::new(
                Kind::Child,
                "pg_dumpall exited with code 0, but what it wrote does not end as a whole dump does",
            )
            .hint(format!("is {} the real pg_dumpall? run it by hand and look at its last lines", self.client.by_hand())));
        }
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(diagnosis::warnings(&said));
        let restore = RestoreFacts {
            roles: std::mem::take(&mut self.facts.roles),
            tablespaces: std::mem::take(&mut self.facts.tablespaces),
            ..RestoreFacts::default()
        };
        let facts = Facts {
            kind: KIND.into(),
            database: None,
            format: FORMAT.into(),
            server_version: self.facts.short_version(),
            client_version: self.client.version_text(),
            restore: serde_json::to_value(&restore)
                .map_err(|error| Error::new(Kind::Internal, "can't write down the server's facts").source(error))?,
        };
        let inventory = Inventory { schema: 1, roles: Some(self.reader.roles.0), ..Inventory::default() };
        Ok(CaptureInfo { facts, inventory, warnings, doubts: Vec::new() })
    }
}

/// Finds the roles that a globals dump makes, and its end.
struct RoleReader {
    lexer: Lexer,
    roles: Roles,
}

#[derive(Default)]
struct Roles(Vec<String>);

impl Default for RoleReader {
    fn default() -> Self {
        Self { lexer: Lexer::of_cluster(), roles: Roles::default() }
    }
}

impl RoleReader {
    fn feed(&mut self, text: &[u8]) {
        let Ok(()) = self.lexer.feed(text, &mut self.roles);
    }
}

impl Visitor for Roles {
    type Error = Infallible;

    fn token(&mut self, token: Token<'_>) -> std::result::Result<(), Infallible> {
        if let Token::End(statement) = token {
            let name = strip_word(statement.head, b"CREATE").and_then(|rest| strip_word(rest, b"ROLE"));
            self.0.extend(name.map(|name| identifier(name.trim_ascii_end())));
        }
        Ok(())
    }
}

/// The roles that a server lacks, of those that a manifest names.
fn missing(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<(Psql, Vec<String>)> {
    if !landing.options.missing_roles {
        return Err(Error::new(Kind::Refused, "a server's roles and tablespaces are not restored over what is there")
            .hint("--missing-roles creates the roles that are absent, without login or password; --output FILE gives the SQL to look into")
            .step("examine"));
    }
    let admin = source.admin(application_of_restore()?, &source.site(cx)?, cx)?;
    let roles = absent(&admin, &restore_facts(landing.facts)?.roles, cx)?;
    Ok((admin, roles))
}

/// Those of these roles that a server does not have.
pub(super) fn absent(admin: &Psql, roles: &[String], cx: &Context) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT coalesce(json_agg(x ORDER BY x), '[]') FROM unnest({}) x WHERE x NOT IN (SELECT rolname FROM pg_roles);",
        quote_array(roles)
    );
    admin.ask(&sql, "asking the server for its roles", cx).map_err(|error| error.step("examine"))
}

/// Makes roles that can't log in, all or none.
pub(super) fn create(admin: &Psql, roles: &[String], cx: &Context) -> Result<()> {
    let statement = |role: &String| ["CREATE ROLE ", &quote_identifier(role), " NOLOGIN;\n"].concat();
    let statements: String = roles.iter().map(statement).collect();
    let made = admin.run(&format!("BEGIN;\n{statements}COMMIT;"), "creating roles", cx);
    made.map(drop).map_err(|error| error.step("roles").hint_if_none("the role that restores needs CREATEROLE"))
}

/// Names for a person, quoted.
pub(super) fn listed(roles: &[String]) -> String {
    roles.iter().map(|role| quote_identifier(role)).collect::<Vec<_>>().join(", ")
}

fn counted(roles: usize) -> String {
    if roles == 1 { "1 role".to_owned() } else { format!("{roles} roles") }
}

/// Looks which roles would be made, and changes nothing.
pub(super) fn check(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>> {
    let (_, roles) = missing(source, landing, cx)?;
    Ok(vec![match roles.as_slice() {
        [] => "the server has all roles: nothing is to be made".to_owned(),
        _ => format!("roles that the server lacks, to be made without login or password: {}", listed(&roles)),
    }])
}

/// Takes a globals stream, and makes the roles that the server lacks.
pub(super) fn stage(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
    let (admin, _) = missing(source, landing, cx)?;
    Ok(Box::new(RoleSink { reader: RoleReader::default(), admin, cx: cx.clone() }))
}

/// Reads a globals stream to its end before anything is made.
struct RoleSink {
    reader: RoleReader,
    admin: Psql,
    cx: Context,
}

impl Write for RoleSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for RoleSink {
    fn finish(self: Box<Self>) -> Result<Box<dyn Staged>> {
        if !self.reader.lexer.is_complete() {
            return Err(Error::new(Kind::Damaged, "the dump of roles does not end as a whole one does")
                .hint("verify the backup, and take another one")
                .step("load"));
        }
        let missing = absent(&self.admin, &self.reader.roles.0, &self.cx)?;
        Ok(Box::new(StagedRoles { missing, admin: self.admin, cx: self.cx }))
    }
}

/// Roles that are still to be made.
struct StagedRoles {
    missing: Vec<String>,
    admin: Psql,
    cx: Context,
}

impl Staged for StagedRoles {
    fn compare(&mut self, _dumped: &Inventory) -> Result<Comparison> {
        Ok(Comparison::default())
    }

    fn check(&mut self, sql: &str) -> Result<String> {
        super::compare::first_value(&self.admin, sql, &self.cx)
    }

    fn publish(self: Box<Self>) -> Result<Published> {
        create(&self.admin, &self.missing, &self.cx)?;
        let server = format!("the server over {}", self.admin.describe());
        let (place, notes) = match self.missing.as_slice() {
            [] => (format!("{server} (it has all of the roles: nothing was made)"), Vec::new()),
            made => {
                let note =
                    format!("made without login or password: {}; --output has their attributes and memberships", listed(made));
                (format!("{server} ({} made)", counted(made.len())), vec![note])
            }
        };
        Ok(Published { place, warnings: Vec::new(), doubts: Vec::new(), notes })
    }

    fn discard(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
