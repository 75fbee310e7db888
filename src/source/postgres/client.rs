//! psql as a way to ask the server and to tell it.

use super::connection::Connection;
pub(super) use super::programs::{Client, Programs, Version};
use super::site::Variables;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::engine::Stdin;
use crate::host::process::{Exit, Output, Program};

/// What a client's text is in.
pub(super) const CLIENT_ENCODING: &str = "PGCLIENTENCODING";
/// psql's exit code where a statement failed and ON_ERROR_STOP is set; a lost connection has another (psql's page).
const STATEMENT_FAILED: i32 = 3;

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
        self.program_with(&self.variables())
    }

    /// The same whose text is UTF-8, both ways.
    pub(super) fn program_in_utf8(&self) -> Program {
        let mut variables = self.variables();
        variables.insert(CLIENT_ENCODING, "UTF8".to_owned());
        self.program_with(&variables)
    }

    fn program_with(&self, variables: &Variables) -> Program {
        let arguments = ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"];
        self.client.program(Stdin::Data, variables).args(arguments)
    }

    /// For a person: `TCP to db:5432`, `the default socket, port 5432, in container db`.
    pub(super) fn describe(&self) -> String {
        let inside = self.client.site.inside().map_or(String::new(), |inside| format!(", in {}", inside.describe()));
        self.connection.describe() + &inside
    }

    /// What leads any client program here.
    pub(super) fn variables(&self) -> Variables {
        self.connection.variables(&self.application)
    }

    /// An error for psql that ended badly.
    pub(super) fn failed(&self, doing: &str, exit: Exit, stderr: &str) -> Error {
        self.client.site.failed(doing, exit, stderr)
    }

    /// Runs statements; what they return comes back as text.
    pub(super) fn run(&self, sql: &str, doing: &str, cx: &Context) -> Result<String> {
        let output = self.execute(sql, doing, cx)?;
        if output.exit.is_success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
        } else {
            Err(self.failed(doing, output.exit, &output.stderr_tail))
        }
    }

    /// Runs statements that the server may refuse: why it did, or nothing where it did them. Whatever else goes wrong is
    /// the error.
    pub(super) fn refusal(&self, sql: &str, doing: &str, cx: &Context) -> Result<Option<Error>> {
        let output = self.execute(sql, doing, cx)?;
        if output.exit.is_success() {
            return Ok(None);
        }
        let error = self.failed(doing, output.exit, &output.stderr_tail);
        let is_refusal = output.exit == Exit::Code(STATEMENT_FAILED) && error.kind() != Kind::Connection;
        if is_refusal { Ok(Some(error)) } else { Err(error) }
    }

    fn execute(&self, sql: &str, doing: &str, cx: &Context) -> Result<Output> {
        // Names resolve to the system's own, whatever the role's search_path; the answer is UTF-8.
        let mut script =
            format!("SET search_path = pg_catalog;\nSET standard_conforming_strings = on;\nSET statement_timeout = 0;\n{sql}\n");
        let Some(inside) = self.client.site.inside() else {
            return self.program_in_utf8().output(script.as_bytes(), cx);
        };
        // There an exit code of 0 alone says nothing.
        script.extend(["\\echo ", inside.token(), "\n"]);
        let mut output = self.program_in_utf8().output(script.as_bytes(), cx)?;
        if output.exit.is_success() {
            let end = format!("{}\n", inside.token());
            let length = output.stdout.strip_suffix(end.as_bytes()).map(<[u8]>::len).ok_or_else(|| inside.cut(doing))?;
            output.stdout.truncate(length);
        }
        Ok(output)
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
    fn names_and_texts_are_quoted_whatever_they_hold() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'"), " E'a\\\\'''");
    }
}
