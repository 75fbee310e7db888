//! Which of the client programs on this machine are used, and psql as a way to ask the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connection::Connection;
use super::diagnosis;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::process::{Program, find_program};

/// Where distributions keep the programs of each version, and what follows the version there.
const VERSIONED: [(&str, &str, &str); 3] =
    [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin"), ("/usr/local", "pgsql-", "bin")];
/// A program that can't say its version in this time won't be waited for.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A version as `--version` says it: `15.18`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub major: u32,
    pub minor: u32,
    pub text: String,
}

impl Version {
    /// Reads `pg_dump (PostgreSQL) 15.18 (Debian ...)`, `18beta1`, and a server's `server_version`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let mut parts = word.split('.');
        let major = number(parts.next()?)?;
        let minor = parts.next().and_then(number).unwrap_or(0);
        Some(Self { major, minor, text: word.to_owned() })
    }
}

/// A program that was found, and its version where it says one.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub path: PathBuf,
    pub version: Option<Version>,
}

impl Client {
    pub(super) fn at(path: PathBuf, cx: &Context) -> Result<Self> {
        let limited = cx.with_cancel(cx.cancel.child(Some(VERSION_LIMIT))?);
        let said = Program::new(&path).arg("--version").env("LC_ALL", "C").output(b"", &limited);
        cx.cancel.check()?;
        let said = said.ok().filter(|said| said.exit.is_success());
        let version = said.and_then(|said| Version::parse(String::from_utf8_lossy(&said.stdout).lines().next()?));
        Ok(Self { path, version })
    }

    /// Whether this psql has the restricted mode (`\restrict`, in the releases of August 2025).
    pub(super) fn has_restricted_mode(&self) -> bool {
        let since = |major| match major {
            13 => 22,
            14 => 19,
            15 => 14,
            16 => 10,
            17 => 6,
            18.. => 0,
            _ => u32::MAX,
        };
        self.version.as_ref().is_some_and(|version| version.minor >= since(version.major))
    }

    /// For messages.
    pub(super) fn version_text(&self) -> Option<String> {
        self.version.as_ref().map(|version| version.text.clone())
    }
}

/// Finds psql: in `client_bin` alone where it is given, else on PATH, else the newest of the versioned directories.
pub(super) fn find_psql(client_bin: Option<&Path>, cx: &Context) -> Result<Client> {
    match candidates("psql", client_bin, cx).into_iter().next() {
        Some(path) => Client::at(path, cx),
        None => Err(not_found("psql", client_bin)),
    }
}

/// Finds the pg_dump that fits a server: one of its own major version, else the next newer, never
/// an older one. One that does not say its version is taken as it is: what it writes will tell.
pub(super) fn find_pg_dump(client_bin: Option<&Path>, server: &Version, cx: &Context) -> Result<Client> {
    let paths = candidates("pg_dump", client_bin, cx);
    if paths.is_empty() {
        return Err(not_found("pg_dump", client_bin));
    }
    let mut found = Vec::new();
    for path in paths {
        let client = Client::at(path, cx)?;
        if client.version.as_ref().is_none_or(|version| version.major == server.major) {
            return Ok(client);
        }
        found.push(client);
    }
    let major = |client: &Client| client.version.as_ref().map_or(0, |version| version.major);
    let newer = found.iter().filter(|client| major(client) > server.major).min_by_key(|client| major(client));
    newer.cloned().ok_or_else(|| {
        let found: Vec<String> = found.iter().filter_map(Client::version_text).collect();
        let cause = format!("the server is version {}, and pg_dump is only found as {}", server.text, found.join(", "));
        let otherwise = if client_bin.is_some() { "correct" } else { "set" };
        let hint = format!("install postgresql-client-{} (its name on Debian), or {otherwise} `client_bin:`", server.major);
        Error::new(Kind::Child, cause).hint(hint).step("programs")
    })
}

fn not_found(program: &str, client_bin: Option<&Path>) -> Error {
    let error = match client_bin {
        Some(directory) => Error::new(Kind::Child, format!("there is no {program} in {} (`client_bin:`)", directory.display()))
            .hint("correct `client_bin:`, or leave it out to use the programs on PATH"),
        None => Error::new(Kind::Child, format!("{program} is not found on PATH nor in the distributions' directories"))
            .hint("install PostgreSQL's client programs (Debian: postgresql-client), or set `client_bin:`; cron's PATH is short"),
    };
    error.step("programs")
}

/// Every place that has the program, the preferred first.
pub(super) fn candidates(program: &str, client_bin: Option<&Path>, cx: &Context) -> Vec<PathBuf> {
    if let Some(directory) = client_bin {
        let path = directory.join(program);
        return if path.is_file() { vec![path] } else { Vec::new() };
    }
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (base, prefix, bin) in VERSIONED {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|version| version.parse().ok());
            let path = entry.path().join(bin).join(program);
            if let Some(version) = version.filter(|_| path.is_file()) {
                versioned.push((version, path));
            }
        }
    }
    versioned.sort_by(|a, b| b.cmp(a));
    find_program(program, cx).into_iter().chain(versioned.into_iter().map(|(_, path)| path)).collect()
}

/// psql on one database, as a way to ask and to tell.
#[derive(Clone)]
pub(super) struct Psql {
    pub client: Client,
    pub connection: Connection,
    /// `application_name` of its sessions.
    pub application: String,
}

impl Psql {
    /// The same on another database of the server.
    pub(super) fn on(&self, database: &str) -> Self {
        Self { connection: self.connection.to_database(database), ..self.clone() }
    }

    /// psql that reads statements from its standard input, and stops at the first error.
    pub(super) fn program(&self) -> Program {
        let program = Program::new(&self.client.path).args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        self.connection.apply(program, &self.application)
    }

    /// Runs statements; what they return comes back as text.
    pub(super) fn run(&self, sql: &str, doing: &str, cx: &Context) -> Result<String> {
        // Names resolve to the system's own, whatever the role's search_path; the answer is UTF-8.
        let script =
            format!("SET search_path = pg_catalog;\nSET standard_conforming_strings = on;\nSET statement_timeout = 0;\n{sql}\n");
        let program = self.program().env("PGCLIENTENCODING", "UTF8");
        let output = program.output(script.as_bytes(), cx)?;
        if output.exit.is_success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
        } else {
            Err(diagnosis::failed(doing, output.exit, &output.stderr_tail))
        }
    }

    /// Runs a query that returns one JSON value.
    pub(super) fn ask<T: serde::de::DeserializeOwned>(&self, sql: &str, doing: &str, cx: &Context) -> Result<T> {
        let text = self.run(sql, doing, cx)?;
        serde_json::from_str(&text)
            .map_err(|error| Error::new(Kind::Database, format!("{doing}: the server's answer is not understood")).source(error))
    }

    /// Ends every session whose application name begins like this, and waits until they are gone.
    /// Killing a client leaves its session alive where it waits for a lock.
    pub(super) fn end_sessions(&self, application: &str, cx: &Context) -> Result<()> {
        let own = quote_literal(application);
        let others = format!("left(application_name, length({own})) = {own} AND pid <> pg_backend_pid()");
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others};
             DO $$ BEGIN FOR i IN 1..100 LOOP
               PERFORM pg_stat_clear_snapshot();
               EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE {others});
               PERFORM pg_sleep(0.05);
             END LOOP; END $$;"
        );
        self.run(&sql, "ending its sessions", cx).map(drop)
    }
}

/// A name as SQL takes it, whatever it holds.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it, whatever it holds and however the server reads backslashes.
pub(super) fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A list of texts as an SQL array.
pub(super) fn quote_array(texts: &[String]) -> String {
    let items: Vec<String> = texts.iter().map(|text| quote_literal(text)).collect();
    format!("ARRAY[{}]::text[]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_say_them() {
        let read = |text| Version::parse(text).map(|version| (version.major, version.minor, version.text));
        assert_eq!(read("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18, "15.18".into())));
        assert_eq!(read("psql (PostgreSQL) 18beta1"), Some((18, 0, "18beta1".into())));
        assert_eq!(read("something else"), None);
    }

    #[test]
    fn names_and_texts_are_quoted_whatever_they_hold() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'"), " E'a\\\\'''");
    }
}
