//! What of a dump's text may reach psql. Nothing dumped acts outside the place it is restored to:
//! statements that would are refused, before the semicolon that would run them is passed on.

use super::lexer::{HEAD, Lexer, Token, Visitor};
use super::statement::{Statement, command_name, strip_word};
use crate::error::{Error, Kind, Result};

/// What is left out of a dump's text.
#[derive(Debug, Clone, Default)]
pub(super) struct Omit {
    /// `ALTER ... OWNER TO`.
    pub owners: bool,
    /// `GRANT`, `REVOKE`, `ALTER DEFAULT PRIVILEGES`.
    pub privileges: bool,
    /// Materialized views whose refresh would query another server, as the dump writes their names.
    pub refreshes: Vec<String>,
}

/// Passes a plain dump's text on.
pub(super) struct Filter {
    lexer: Lexer,
    gate: Gate,
}

struct Gate {
    omit: Omit,
    /// What is known to be harmless so far.
    out: Vec<u8>,
    /// The statement under way, until it is known whether it is left out.
    held: Vec<u8>,
    /// The statement's beginning is passed on already.
    passing: bool,
    omitted_refreshes: Vec<String>,
}

impl Filter {
    /// A filter at the beginning of a dump.
    pub(super) fn new(omit: Omit) -> Self {
        let gate = Gate { omit, out: Vec::new(), held: Vec::new(), passing: false, omitted_refreshes: Vec::new() };
        Self { lexer: Lexer::default(), gate }
    }

    /// Takes the next bytes of the dump; what may go on is in [`Filter::take`].
    pub(super) fn feed(&mut self, text: &[u8]) -> Result<()> {
        self.lexer.feed(text, &mut self.gate)
    }

    /// What may go on to psql now.
    pub(super) fn take(&mut self) -> &mut Vec<u8> {
        &mut self.gate.out
    }

    /// After the last byte: what is behind the last statement may go on too.
    pub(super) fn finish(&mut self) {
        self.gate.pass(b"");
    }

    /// Whether the dump ended as a whole one does.
    pub(super) fn is_complete(&self) -> bool {
        self.lexer.is_complete()
    }

    /// The refreshes that were left out.
    pub(super) fn omitted_refreshes(&self) -> &[String] {
        &self.gate.omitted_refreshes
    }
}

impl Visitor for Gate {
    type Error = Error;

    fn token(&mut self, token: Token<'_>) -> Result<()> {
        match token {
            Token::Sql(bytes) => {
                self.held.extend_from_slice(bytes);
                // Too long for any statement that is left out: only its end is waited for.
                if self.held.len() > 2 * HEAD {
                    let keep = self.held.len() - 1;
                    self.out.extend(self.held.drain(..keep));
                    self.passing = true;
                }
            }
            Token::End(statement) => self.end(statement)?,
            Token::Rows(bytes, _) => self.pass(bytes),
            Token::RowsEnd => {}
            Token::Command(line) => {
                // The dump's own pair; ours is around the whole.
                let name = command_name(line);
                if !matches!(name, b"\\restrict" | b"\\unrestrict") {
                    return Err(refused(&format!("the psql command {}", String::from_utf8_lossy(name))));
                }
                self.pass(b"\n");
            }
            Token::Stray => return Err(refused("text that psql reads otherwise than it looks")),
        }
        Ok(())
    }
}

impl Gate {
    fn pass(&mut self, bytes: &[u8]) {
        self.out.append(&mut self.held);
        self.out.extend_from_slice(bytes);
    }

    fn end(&mut self, statement: Statement<'_>) -> Result<()> {
        let words = statement.words(usize::MAX);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        judge(&words, statement)?;
        let leave_out = self.is_left_out(&words, statement);
        if leave_out && !self.passing {
            // Its line ends stay, so that psql's line numbers are near the dump's.
            let lines = memchr::memchr_iter(b'\n', &self.held).count();
            self.held.clear();
            self.out.extend(std::iter::repeat_n(b'\n', lines));
        } else if leave_out {
            return Err(Error::new(Kind::Damaged, "a statement about owners or privileges is longer than any pg_dump writes"));
        }
        self.passing = false;
        self.pass(b"");
        Ok(())
    }

    fn is_left_out(&mut self, words: &[&str], statement: Statement<'_>) -> bool {
        match words {
            // The session's authorization changes around a grant by another role than the owner.
            ["ALTER", "DEFAULT", "PRIVILEGES", ..]
            | ["GRANT" | "REVOKE", ..]
            | ["SET" | "RESET", "SESSION", "AUTHORIZATION", ..] => self.omit.privileges,
            ["ALTER", ..] => self.omit.owners && is_owner_change(statement),
            ["REFRESH", "MATERIALIZED", "VIEW", ..] => {
                let name = [b"REFRESH".as_slice(), b"MATERIALIZED", b"VIEW"]
                    .iter()
                    .try_fold(statement.head, |text, word| strip_word(text, word));
                let name = name.unwrap_or_default().trim_ascii_end();
                let view = self.omit.refreshes.iter().find(|view| is_same_name(view.as_bytes(), name));
                self.omitted_refreshes.extend(view.cloned());
                view.is_some()
            }
            _ => false,
        }
    }
}

/// Whether two names are equal. The dump's are in its own encoding and ours in UTF-8, so what is not ASCII
/// counts as equal: a refresh too many left out is told, and one too few asks another server.
fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    let parts = |name: &[u8]| -> Vec<Vec<u8>> {
        name.split(|byte| !byte.is_ascii()).filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
    };
    one == other || (!one.is_ascii() && !other.is_ascii() && parts(one) == parts(other))
}

/// `ALTER <what> <name> OWNER TO <role>`, whatever the name holds.
fn is_owner_change(statement: Statement<'_>) -> bool {
    const MARK: &[u8] = b" OWNER TO ";
    let Some(at) = memchr::memmem::rfind(statement.head, MARK) else { return false };
    let role = statement.head[at + MARK.len()..].trim_ascii();
    let quoted = role.len() > 1 && role.starts_with(b"\"") && role.ends_with(b"\"");
    // Inside a quoted role every quote is doubled; a lone one means that the mark stood in a name.
    let inner = if quoted { &role[1..role.len() - 1] } else { role };
    let inner = String::from_utf8_lossy(inner).replace("\"\"", "");
    !inner.contains('"') && (quoted || !inner.contains(char::is_whitespace)) && statement.is_complete()
}

/// Objects that belong to the whole server.
const SHARED: [&str; 7] = ["DATABASE", "SYSTEM", "ROLE", "USER", "GROUP", "TABLESPACE", "PARAMETER"];

/// Refuses what would act outside the database that is being restored, and what pg_dump never writes
/// and would change how psql reads the text.
fn judge(words: &[&str], statement: Statement<'_>) -> Result<()> {
    let outside = match words {
        ["CREATE" | "DROP" | "ALTER", "USER", "MAPPING", ..] => false,
        ["CREATE" | "DROP" | "ALTER", what, ..] if SHARED.contains(what) => true,
        ["DO" | "RESET" | "DISCARD" | "ROLLBACK" | "ABORT", ..] => words != ["RESET", "SESSION", "AUTHORIZATION"],
        ["DROP", "SUBSCRIPTION", ..] | ["IMPORT", "FOREIGN", ..] => true,
        ["COMMENT" | "SECURITY" | "GRANT" | "REVOKE", ..] => {
            // A grant on nothing is one of membership in a role.
            let on = words.iter().position(|word| *word == "ON");
            on.is_none_or(|on| words.get(on + 1).is_none_or(|what| SHARED.contains(what)))
        }
        ["SET", ..] => !is_plain_setting(words, statement),
        ["SELECT", ..] if words.contains(&"SET_CONFIG") => !is_plain_setting(words, statement),
        // A subscription that is made without connecting stays off; every other way reaches its publisher.
        ["CREATE", "SUBSCRIPTION", ..] => memchr::memmem::find(statement.bare, b"connect = false").is_none(),
        ["ALTER", "SUBSCRIPTION", ..] => !is_owner_change(statement),
        ["COPY", ..] => statement.copy_table().is_none(),
        _ => false,
    };
    if outside { Err(refused(&words[..words.len().min(2)].join(" "))) } else { Ok(()) }
}

/// Whether a setting leaves psql's reading of the text as the lexer's.
fn is_plain_setting(words: &[&str], statement: Statement<'_>) -> bool {
    const STRINGS: &str = "STANDARD_CONFORMING_STRINGS";
    /// Encodings with characters whose last byte looks like a backslash (PostgreSQL documentation, "Character
    /// Set Support": those that no server has). No dump is in one, as no database is.
    const UNSAFE: [&str; 12] =
        ["SJIS", "SHIFTJIS", "MSKANJI", "932", "BIG5", "950", "GBK", "936", "UHC", "949", "GB18030", "JOHAB"];
    let text: String =
        String::from_utf8_lossy(statement.head).chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let text = text.to_ascii_uppercase();
    let encoding = text.contains("CLIENT_ENCODING") || words.contains(&"NAMES");
    match words {
        ["SET", STRINGS, "ON" | "OFF"] => true,
        _ if text.contains(STRINGS) => false,
        _ => !(encoding && UNSAFE.iter().any(|name| text.replace('_', "").contains(name))),
    }
}

fn refused(what: &str) -> Error {
    let why = "which acts outside the database it is restored to, or is nothing that pg_dump writes";
    Error::new(Kind::Check, format!("the dump holds {what}, {why}"))
        .hint("this is no dump of ours: look into it with `restore --output`, and load it by hand if you trust it")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAILER: &str = "--\n-- PostgreSQL database dump complete\n--\n";

    fn filtered(text: &str, omit: Omit) -> Result<String> {
        let mut filter = Filter::new(omit);
        filter.feed(text.as_bytes())?;
        filter.finish();
        Ok(String::from_utf8(std::mem::take(filter.take())).unwrap())
    }

    #[test]
    fn what_acts_outside_never_reaches_its_semicolon() {
        let bad = [
            "DROP DATABASE x;",
            "drop /* c */ database x;",
            "-- c\nCREATE\nDATABASE x;",
            "ALTER SYSTEM SET a = 1;",
            "ALTER ROLE postgres SUPERUSER;",
            "CREATE USER x;",
            "DROP TABLESPACE x;",
            "COPY t TO PROGRAM 'rm';",
            "COPY t FROM '/etc/passwd';",
            "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p;",
            "DROP SUBSCRIPTION s;",
            "CREATE SUBSCRIPTION s CONNECTION 'host=x application_name=''connect = false'' x' PUBLICATION p;",
            "COPY t FROM PROGRAM 'rm' WHERE stdin;",
            "COPY t TO PROGRAM 'rm' WITH (HEADER) /* FROM stdin */;",
            "GRANT admin TO app;",
            "REVOKE SELECT ON DATABASE x FROM y;",
            "COMMENT ON ROLE admin IS 'x';",
            "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c;",
            "DO $$ x $$;",
            "SET standard_conforming_strings TO DEFAULT;",
            "SELECT set_config('standard_conforming_strings', 'off', false);",
            "SET client_encoding = 'SHIFT_JIS_2004';",
            "RESET ALL;",
            // A string goes on behind a line end with its escapes: the quote is closed at the semicolon.
            "SELECT E'a' -- c\n\n 'b\\''; DROP DATABASE x; --'\n",
            "SET standard_conforming_strings = off;SELECT B'\\'; DROP DATABASE x; --'\n",
            "COPY t FROM stdin; DROP DATABASE x;\n\\.\n",
            "ALTER SUBSCRIPTION s ENABLE;",
            "\\connect x\n",
            "SELECT 'DROP DATABASE x' \\gexec\n",
            "\\! rm -rf /\n",
        ];
        for text in bad {
            let mut filter = Filter::new(Omit::default());
            assert_eq!(filter.feed(text.as_bytes()).unwrap_err().kind(), Kind::Check, "{text}");
            let mut passed = String::from_utf8_lossy(filter.take()).into_owned();
            for harmless in ["SET standard_conforming_strings = off;", "COPY t FROM stdin;", "'b\\'';", "B'\\';"] {
                passed = passed.replacen(harmless, "", 1);
            }
            assert!(!passed.contains(';'), "{text}");
        }
    }

    #[test]
    fn text_that_is_read_otherwise_than_it_looks_is_refused() {
        let bad = [
            "-- c\rDROP DATABASE x;\n",
            "SELECT 1\0 '\n; DROP DATABASE x; --'\n;",
            "COPY public.t (a) FROM stdin;\nab\0cd\nef\n\\.\n",
            "COPY public.t (a) FROM stdin;\nab\\.\nlost\n\\.\n",
            "COPY public.t (a) FROM stdin;\nab\\\\\\.\nlost\n\\.\n",
        ];
        for text in bad {
            assert!(filtered(text, Omit::default()).is_err(), "{text:?}");
            // However it is cut into pieces.
            let mut filter = Filter::new(Omit::default());
            let refused = text.as_bytes().chunks(1).any(|byte| filter.feed(byte).is_err());
            assert!(refused, "{text:?}");
        }
        let good = "COPY public.t (a) FROM stdin;\nab\\\\.\n\\\\.\n.\n\\.\n";
        assert_eq!(filtered(good, Omit::default()).unwrap(), good);
    }

    #[test]
    fn what_only_looks_like_it_is_passed_on() {
        let text = "SELECT 'DROP DATABASE x;';\nCOPY public.t (a) FROM stdin;\nDROP DATABASE x;\n\\\\connect x\n\\.\n\
            CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ ; DROP DATABASE x; $$;\n\
            CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false, slot_name = 's');\n\
            ALTER SUBSCRIPTION s OWNER TO me;\nCREATE USER MAPPING FOR me SERVER s;\nALTER TABLE \"DROP DATABASE\" ADD a int;\n\
            GRANT SELECT(\"ON DATABASE\") ON TABLE public.\"ON ROLE\" TO app;\nCOMMENT ON COLUMN t.\"ROLE\" IS 'x';\n\
            SET SESSION AUTHORIZATION app;\nRESET SESSION AUTHORIZATION;\nSET standard_conforming_strings = on;\n\
            SET client_encoding = 'EUC_JIS_2004';\nSELECT pg_catalog.set_config('search_path', '', false);\n\
            COPY public.\"a FROM stdin; (b\" (\"x) FROM stdin\", stdin) FROM stdin;\n\\.\n";
        assert_eq!(filtered(text, Omit::default()).unwrap(), text);
    }

    #[test]
    fn the_dumps_own_token_is_taken_out() {
        let text = format!("\\restrict abc\n\nSELECT 1;\n{TRAILER}\n\\unrestrict abc\n");
        let mut filter = Filter::new(Omit::default());
        filter.feed(text.as_bytes()).unwrap();
        assert!(filter.is_complete());
        assert!(!String::from_utf8_lossy(filter.take()).contains("abc"));
    }

    #[test]
    fn owners_and_privileges_are_left_out_on_request_alone() {
        let owner = "ALTER TABLE public.\"a OWNER TO b\" OWNER TO \"we\"\"ird role\";\n";
        let grant = "GRANT SELECT ON TABLE public.a TO app;\nALTER DEFAULT PRIVILEGES FOR ROLE a GRANT ALL ON TABLES TO b;\n";
        let other = "ALTER TABLE public.a ADD CONSTRAINT \" OWNER TO x\" CHECK (true);\nALTER TABLE public.b RENAME TO \" OWNER TO y\";\n";
        let text = format!("{owner}{grant}{other}");
        let without = |owners, privileges| filtered(&text, Omit { owners, privileges, refreshes: Vec::new() }).unwrap();
        assert_eq!(without(false, false), text);
        assert!(!without(true, false).contains("ird role") && without(true, false).contains(grant));
        assert!(without(false, true).contains(owner) && !without(false, true).contains("app"));
        assert!(without(true, true).ends_with(other));
    }

    #[test]
    fn a_refresh_that_asks_another_server_is_left_out_and_told() {
        let text = "REFRESH MATERIALIZED VIEW public.far;\nREFRESH MATERIALIZED VIEW public.near;\n";
        let mut filter = Filter::new(Omit { refreshes: vec!["public.far".into()], ..Omit::default() });
        filter.feed(text.as_bytes()).unwrap();
        assert_eq!(filter.omitted_refreshes(), ["public.far"]);
        assert_eq!(String::from_utf8_lossy(filter.take()).trim(), "REFRESH MATERIALIZED VIEW public.near;");
    }

    #[test]
    fn a_long_statement_takes_no_more_memory_than_a_short_one() {
        let mut filter = Filter::new(Omit::default());
        filter.feed(b"SELECT '").unwrap();
        for _ in 0..64 {
            filter.feed(&vec![b'x'; 1 << 16]).unwrap();
            filter.take().clear();
            assert!(filter.gate.held.capacity() <= 8 * HEAD);
        }
        filter.feed(b"';").unwrap();
        assert!(filter.take().ends_with(b"';"));
    }
}
