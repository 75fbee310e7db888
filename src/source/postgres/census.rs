//! Counts what a plain dump holds as it passes, and knows whether it was whole. It asks the server
//! nothing.

use std::collections::HashMap;
use std::convert::Infallible;

use super::lexer::{Lexer, Token, Visitor};
use super::statement::Datum;
use crate::source::{Inventory, LargeObjects, SequenceState, TableCount};

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
    /// Where a table stands in `tables`, by its name as the dump has it: one that is loaded in several blocks adds up.
    places: HashMap<Vec<u8>, usize>,
    current: Option<usize>,
    sequences: Vec<SequenceState>,
    large_objects: LargeObjects,
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
        let Tally { tables, sequences, large_objects, .. } = self.tally;
        Inventory { schema: 1, tables, sequences: Some(sequences), large_objects: Some(large_objects), roles: None }
    }
}

impl Visitor for Tally {
    type Error = Infallible;

    fn token(&mut self, token: Token<'_>) -> Result<(), Infallible> {
        match token {
            Token::End(statement) => {
                self.current = statement.copy_table().map(|table| self.place_of(table));
                statement.datum().into_iter().for_each(|datum| self.add(datum));
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
    fn place_of(&mut self, table: &[u8]) -> usize {
        if let Some(at) = self.places.get(table) {
            return *at;
        }
        let (schema, name) = split_name(table);
        self.tables.push(TableCount { schema, name, rows: 0, bytes: 0 });
        self.places.insert(table.to_vec(), self.tables.len() - 1);
        self.tables.len() - 1
    }

    fn add(&mut self, datum: Datum) {
        match datum {
            Datum::Sequence(sequence, last_value, is_called) => {
                let (schema, name) = split_name(&sequence);
                self.sequences.push(SequenceState { schema, name, last_value, is_called });
            }
            Datum::LargeObject => self.large_objects.count += 1,
            Datum::LargeObjectBytes(bytes) => self.large_objects.bytes += bytes,
        }
    }
}

/// `public."My ""own"" table"` to its schema and name, unquoted as in pg_class.
fn split_name(text: &[u8]) -> (String, String) {
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
    let mut names = parts.into_iter().map(|part| String::from_utf8_lossy(&part).into_owned());
    match (names.next(), names.next()) {
        (Some(schema), Some(name)) => (schema, name),
        (Some(name), None) => (String::new(), name),
        _ => (String::new(), String::new()),
    }
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
'; perform pg_catalog.setval('public.no', 1, true);
SELECT pg_catalog.setval('public.no', 1, true);
SELECT pg_catalog.lo_create('1');
end; $_$;
CREATE FUNCTION public.g() RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC
 SELECT setval('public.no'::regclass, (1)::bigint, true) AS setval;
 SELECT lo_create((1)::oid) AS lo_create;
END;
/* SELECT pg_catalog.lo_create('1');
SELECT pg_catalog.setval('public.no', 1, true); */
-- SELECT pg_catalog.setval('public.no', 1, true);
/* COPY public.no FROM stdin; /* nested */ ' */
COMMENT ON TABLE public.a IS 'it''s; COPY public.no FROM stdin;
\';
COMMENT ON TABLE public.a IS '
SELECT pg_catalog.setval(''public.no'', 1, true);
SELECT pg_catalog.lo_create(''1'');
SELECT pg_catalog.lowrite(0, ''\x00'');';
COMMENT ON TABLE public.a IS E'it\'s; COPY public.no FROM stdin;
';
COPY public.a (id, "from stdin") FROM stdin;
1	COPY public.no FROM stdin;
2	\\.
SELECT pg_catalog.setval('public.no', 1, true);
SELECT pg_catalog.lo_create('1');
3	$$ ' -- PostgreSQL database dump complete
\.


COPY "My ""odd"" schema"."ta.b(le" (id) FROM stdin;
\.

COPY public.a (id) FROM stdin;
4	x
\.

SELECT pg_catalog.lo_create('16385');
SELECT pg_catalog.lo_create('16386');
SELECT pg_catalog.setval('public.a_id_seq', 4, true);
SELECT pg_catalog.setval('"we''''ird \ "".s"."a""b''c'', 1, true); --"', -9223372036854775808, false);
BEGIN;
SELECT pg_catalog.lo_open('16385', 131072);
SELECT pg_catalog.lowrite(0, '\x00ff10');
SELECT pg_catalog.lowrite(0, '\x01');
SELECT pg_catalog.lo_close(0);
COMMIT;

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
        assert_eq!(tables, [("public", "a", 6, 29 + 6 + 48 + 34 + 44 + 4), ("My \"odd\" schema", "ta.b(le", 0, 0)]);
    }

    fn states(inventory: &Inventory) -> Vec<(&str, &str, i64, bool)> {
        let sequences = inventory.sequences.as_ref().unwrap().iter();
        sequences.map(|state| (state.schema.as_str(), state.name.as_str(), state.last_value, state.is_called)).collect()
    }

    #[test]
    fn sequences_and_large_objects_are_those_that_the_dump_sets() {
        let mut census = Census::default();
        census.feed(DUMP.as_bytes());
        let inventory = census.inventory();
        let weird = ("we''ird \\ \".s", "a\"b'c', 1, true); --", i64::MIN, false);
        assert_eq!(states(&inventory), [("public", "a_id_seq", 4, true), weird]);
        assert_eq!(inventory.large_objects, Some(LargeObjects { count: 2, bytes: 4 }));
    }

    #[test]
    fn strings_with_escapes_are_read_as_the_dump_sets_them() {
        let mut census = Census::default();
        census.feed(
            br#"SET standard_conforming_strings = off;
            SELECT pg_catalog.setval('public."a\\b''c"', 7, false);
            SELECT pg_catalog.lowrite(0, '\\x00ff');"#,
        );
        let inventory = census.inventory();
        assert_eq!(states(&inventory), [("public", "a\\b'c", 7, false)]);
        assert_eq!(inventory.large_objects, Some(LargeObjects { count: 0, bytes: 2 }));
    }

    #[test]
    fn a_write_that_is_longer_than_what_is_kept_counts_whole() {
        let mut census = Census::default();
        let text = format!("SELECT pg_catalog.lowrite(0, '\\x{}');\n", "00".repeat(1 << 20));
        text.as_bytes().chunks(4099).for_each(|piece| census.feed(piece));
        assert_eq!(census.inventory().large_objects, Some(LargeObjects { count: 0, bytes: 1 << 20 }));
    }

    #[test]
    fn a_dump_that_holds_nothing_has_counted_nothing() {
        let inventory = Census::default().inventory();
        assert_eq!((inventory.sequences, inventory.large_objects), (Some(Vec::new()), Some(LargeObjects::default())));
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
