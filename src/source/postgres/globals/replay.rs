//! A globals dump replayed on a server of a drill's own: all of its roles, none of its tablespaces, which
//! are directories outside of it.

use std::io::{self, Write};

use super::absent;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::process::Child;
use crate::source::postgres::client::{Psql, quote_literal};
use crate::source::postgres::compare;
use crate::source::postgres::lexer::{Lexer, Token, Visitor};
use crate::source::postgres::scratch::random_word;
use crate::source::{Comparison, Inventory, Published, Sink, Staged};

/// psql at work on a server that is thrown away afterwards.
pub(in crate::source::postgres) struct Replay {
    psql: Child,
    lexer: Lexer,
    gate: Gate,
    admin: Psql,
    cx: Context,
}

#[derive(Default)]
struct Gate {
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Replay {
    /// Starts psql; `admin` is a superuser of a server that nobody else has.
    pub(in crate::source::postgres) fn start(admin: Psql, cx: &Context) -> Result<Self> {
        let psql = admin.program_in_utf8().spawn_writer(cx)?;
        Ok(Self { psql, lexer: Lexer::of_cluster(), gate: Gate::default(), admin, cx: cx.clone() })
    }

    fn pass_on(&mut self) -> Result<()> {
        let written = self.psql.write_all(&self.gate.out);
        self.gate.out.clear();
        written.map_err(|error| crate::error::from_io(error, Kind::Child, "psql took no more of the roles").step("load"))
    }
}

impl Visitor for Gate {
    type Error = Error;

    fn token(&mut self, token: Token<'_>) -> Result<()> {
        match token {
            Token::Sql(bytes) => self.held.extend_from_slice(bytes),
            Token::End(statement) => {
                let words = statement.words(usize::MAX);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                match what(&words) {
                    What::Replayed => self.out.append(&mut self.held),
                    What::LeftOut => self.held.clear(),
                    What::Strange => {
                        let cause = format!(
                            "the dump of roles holds {}, which pg_dumpall does not write",
                            words[..words.len().min(2)].join(" ")
                        );
                        return Err(Error::new(Kind::Check, cause).hint("look into it with `restore --output`").step("load"));
                    }
                }
            }
            // The dump's own \restrict and \unrestrict; nothing else is in such a dump.
            Token::Command(_) => self.held.clear(),
            Token::Rows(..) | Token::RowsEnd | Token::Stray => {
                return Err(Error::new(Kind::Check, "the dump of roles holds text that pg_dumpall does not write").step("load"));
            }
        }
        Ok(())
    }
}

enum What {
    Replayed,
    /// It names a tablespace, or the server's own settings.
    LeftOut,
    Strange,
}

fn what(words: &[&str]) -> What {
    match words {
        ["SET" | "CREATE" | "ALTER" | "COMMENT" | "GRANT" | "REVOKE" | "SECURITY", ..] if words.contains(&"TABLESPACE") => {
            What::LeftOut
        }
        // A parameter of a library that is not loaded there.
        ["GRANT" | "REVOKE", ..] if words.contains(&"PARAMETER") => What::LeftOut,
        // Whosever setting it is: no session there is to load a library.
        ["ALTER", "ROLE", ..] if words.iter().any(|word| word.ends_with("PRELOAD_LIBRARIES")) => What::LeftOut,
        ["CREATE" | "ALTER", "ROLE", ..] | ["COMMENT", "ON", "ROLE", ..] | ["GRANT" | "SET", ..] => What::Replayed,
        ["SECURITY", "LABEL", ..] => What::LeftOut,
        _ => What::Strange,
    }
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lexer.feed(bytes, &mut self.gate).and_then(|()| self.pass_on())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Replay {
    fn finish(mut self: Box<Self>) -> Result<Box<dyn Staged>> {
        if !self.lexer.is_complete() {
            let error = Error::new(Kind::Damaged, "the dump of roles does not end as a whole one does");
            return Err(error.hint("verify the backup, and take another one").step("load"));
        }
        let answer = random_word()?;
        let question = format!("\nSELECT {};\n", quote_literal(&answer));
        self.psql
            .write_all(question.as_bytes())
            .map_err(|error| crate::error::from_io(error, Kind::Child, "psql took no more of the roles").step("load"))?;
        self.psql.close_stdin();
        let finished = self.psql.wait()?;
        let doing = "loading with psql";
        let (exit, said) = self.admin.client.site.ended(doing, &finished).map_err(|error| error.step("load"))?;
        if !exit.is_success() {
            return Err(self.admin.failed(doing, exit, &said).step("load"));
        }
        if !String::from_utf8_lossy(&finished.stdout_tail).lines().any(|line| line == answer) {
            return Err(Error::new(Kind::Damaged, "psql exited with code 0, but did not get to the end of the dump").step("load"));
        }
        Ok(Box::new(Replayed { admin: self.admin, cx: self.cx }))
    }
}

/// A server that has the roles.
struct Replayed {
    admin: Psql,
    cx: Context,
}

impl Staged for Replayed {
    fn compare(&mut self, dumped: &Inventory) -> Result<Comparison> {
        let Some(roles) = &dumped.roles else { return Ok(Comparison::default()) };
        let lost = absent(&self.admin, roles, &self.cx)?;
        let differences = lost.iter().map(|role| format!("role {role} is not there")).collect();
        Ok(Comparison { roles: roles.len() as u64, differences, ..Comparison::default() })
    }

    fn check(&mut self, sql: &str) -> Result<String> {
        compare::first_value(&self.admin, sql, &self.cx)
    }

    fn publish(self: Box<Self>) -> Result<Published> {
        Err(Error::new(Kind::Internal, "a drill's roles are never published"))
    }

    fn discard(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_a_role_loads_is_not_set() {
        let is_left_out = |sql: &str| matches!(what(&sql.split(' ').collect::<Vec<_>>()), What::LeftOut);
        assert!(is_left_out("ALTER ROLE CLERK SET SESSION_PRELOAD_LIBRARIES TO"));
        assert!(is_left_out("ALTER ROLE ALL SET LOCAL_PRELOAD_LIBRARIES TO"));
        assert!(!is_left_out("ALTER ROLE CLERK SET WORK_MEM TO"));
    }
}
