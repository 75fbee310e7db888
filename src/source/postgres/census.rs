//! Counts what a plain dump holds as it passes, and knows whether it was whole. It asks the server
//! nothing.

use std::collections::HashMap;
use std::convert::Infallible;

use super::lexer::{Lexer, Token, Visitor};
use crate::source::{Inventory, TableCount};

/// The line `\.` that ends a COPY block.
const ROWS_END_BYTES: u64 = 3;

/// The census of one dump.
#[derive(Default)]
pub(super) struct Census {
    lexer: Lexer,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    tables: Vec<TableCount>,
    /// Where a table stands in `tables`: one that is loaded in several blocks adds up.
    places: HashMap<(String, String), usize>,
    current: Option<usize>,
}

impl Census {
    /// Takes the next bytes of the dump.
    pub(super) fn feed(&mut self, text: &[u8]) {
        let Ok(()) = self.lexer.feed(text, &mut self.tally);
    }

    /// Whether the dump ended as a whole one does.
    pub(super) fn is_complete(&self) -> bool {
        self.lexer.is_complete()
    }

    /// What was counted.
    pub(super) fn inventory(self) -> Inventory {
        Inventory { schema: 1, tables: self.tally.tables, ..Inventory::default() }
    }
}

impl Visitor for Tally {
    type Error = Infallible;

    fn token(&mut self, token: Token<'_>) -> Result<(), Infallible> {
        match token {
            Token::End(statement) => {
                self.current = statement.copy_table().map(|table| self.place_of(split_name(table)));
            }
            Token::Rows(bytes, lines) => {
                if let Some(table) = self.current.and_then(|at| self.tables.get_mut(at)) {
                    table.rows += lines;
                    table.bytes += bytes.len() as u64;
                }
            }
            Token::RowsEnd => {
                if let Some(table) = self.current.take().and_then(|at| self.tables.get_mut(at)) {
                    table.rows -= 1;
                    table.bytes -= ROWS_END_BYTES;
                }
            }
            Token::Sql(_) | Token::Command(_) | Token::Stray => {}
        }
        Ok(())
    }
}

impl Tally {
    fn place_of(&mut self, (schema, name): (String, String)) -> usize {
        let tables = &mut self.tables;
        *self.places.entry((schema.clone(), name.clone())).or_insert_with(|| {
            tables.push(TableCount { schema, name, rows: 0, bytes: 0 });
            tables.len() - 1
        })
    }
}

/// One name as SQL writes it, unquoted as in the catalogs.
pub(super) fn identifier(text: &[u8]) -> String {
    let mut parts = parts(text);
    String::from_utf8_lossy(&parts.swap_remove(0)).into_owned()
}

/// `public."My ""own"" table"` to its schema and name, unquoted as in pg_class.
fn split_name(text: &[u8]) -> (String, String) {
    let mut names = parts(text).into_iter().map(|part| String::from_utf8_lossy(&part).into_owned());
    match (names.next(), names.next()) {
        (Some(schema), Some(name)) => (schema, name),
        (Some(name), None) => (String::new(), name),
        _ => (String::new(), String::new()),
    }
}

/// A name's parts, at least one, each without its quotes.
fn parts(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut quoted = false;
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
                parts.last_mut().into_iter().for_each(|part| part.push(b'"'));
            }
            b'"' => quoted = !quoted,
            b'.' if !quoted => parts.push(Vec::new()),
            _ => parts.last_mut().into_iter().for_each(|part| part.push(byte)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUMP: &str = r#"--
-- PostgreSQL database dump
--

\restrict abc

SET standard_conforming_strings = on;
CREATE FUNCTION public.f() RETURNS text LANGUAGE plpgsql AS $_$
begin -- it's
  return 'COPY public.no FROM stdin;
\.
'; end; $_$;
/* COPY public.no FROM stdin; /* nested */ ' */
COMMENT ON TABLE public.a IS 'it''s; COPY public.no FROM stdin;
\';
COMMENT ON TABLE public.a IS E'it\'s; COPY public.no FROM stdin;
';
COPY public.a (id, "from stdin") FROM stdin;
1	COPY public.no FROM stdin;
2	\\.
3	$$ ' -- PostgreSQL database dump complete
\.


COPY "My ""odd"" schema"."ta.b(le" (id) FROM stdin;
\.

COPY public.a (id) FROM stdin;
4	x
\.

--
-- PostgreSQL database dump complete
--

\unrestrict abc

"#;

    fn count(table: &TableCount) -> (&str, &str, u64, u64) {
        (&table.schema, &table.name, table.rows, table.bytes)
    }

    #[test]
    fn only_real_rows_are_counted() {
        let mut census = Census::default();
        census.feed(DUMP.as_bytes());
        assert!(census.is_complete());
        let inventory = census.inventory();
        let tables: Vec<_> = inventory.tables.iter().map(count).collect();
        assert_eq!(tables, [("public", "a", 4, 29 + 6 + 44 + 4), ("My \"odd\" schema", "ta.b(le", 0, 0)]);
    }

    #[test]
    fn a_dump_that_is_cut_anywhere_is_not_whole() {
        let trailer = "-- PostgreSQL database dump complete\n";
        let whole_from = DUMP.find(&format!("\n{trailer}")).unwrap() + 1 + trailer.len();
        for end in 0..whole_from {
            let mut census = Census::default();
            census.feed(&DUMP.as_bytes()[..end]);
            assert!(!census.is_complete(), "cut at {end}: {:?}", &DUMP[..end]);
        }
    }

    #[test]
    fn a_statement_behind_the_trailer_makes_it_none() {
        let mut census = Census::default();
        census.feed(DUMP.as_bytes());
        census.feed(b"SELECT 1;\n");
        assert!(!census.is_complete());
    }

    proptest! {
        #[test]
        fn where_the_text_is_cut_into_pieces_changes_nothing(cuts in proptest::collection::vec(1_usize..40, 1..60)) {
            let mut census = Census::default();
            let mut rest = DUMP.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                census.feed(piece);
                rest = tail;
                if rest.is_empty() { break; }
            }
            prop_assert!(census.is_complete());
            let mut whole = Census::default();
            whole.feed(DUMP.as_bytes());
            prop_assert_eq!(census.inventory(), whole.inventory());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(\\\\\\.|COPY a FROM stdin;|\\$[a-z]?\\$|[-'\"/*;\\\\ E\n$a1]){0,60}") {
            let mut census = Census::default();
            census.feed(text.as_bytes());
            let _ = census.is_complete();
        }
    }
}
