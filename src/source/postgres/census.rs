//! Counts what a plain dump holds as it passes, and knows whether it was whole. It asks the server
//! nothing.

use std::collections::HashMap;
use std::convert::Infallible;

use super::lexer::{Lexer, Token, Visitor};
use super::spelling::Spelling;
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
    tables: Vec<Counted>,
    /// Where a table stands in `tables`: one that is loaded in several blocks adds up.
    places: HashMap<Vec<u8>, usize>,
    current: Option<usize>,
    /// With their names as the dump has them.
    sequences: Vec<(Vec<u8>, i64, bool)>,
    large_objects: LargeObjects,
}

/// The rows of a table.
struct Counted {
    /// Its name as the dump has it.
    name: Vec<u8>,
    rows: u64,
    bytes: u64,
}

impl Census {
    /// Takes the next bytes of the dump.
    pub(super) fn feed(&mut self, text: &[u8]) {
        let Ok(()) = self.lexer.feed(text, &mut self.tally);
    }

    /// Counts rows that somebody else has read, of the table whose COPY was fed last.
    pub(super) fn add_rows(&mut self, rows: u64, bytes: u64) {
        if let Some(table) = self.tally.current.and_then(|at| self.tally.tables.get_mut(at)) {
            table.rows += rows;
            table.bytes += bytes;
        }
    }

    /// Whether the dump ended as a whole one does.
    pub(super) fn is_complete(&self) -> bool {
        self.lexer.is_complete()
    }

    /// The qualified names of all that was counted, as the dump has them.
    pub(super) fn names(&self) -> Vec<&[u8]> {
        let tables = self.tally.tables.iter().map(|table| &table.name);
        tables.chain(self.tally.sequences.iter().map(|(name, ..)| name)).map(Vec::as_slice).collect()
    }

    /// What was counted.
    pub(super) fn inventory(self, spelling: &Spelling) -> Inventory {
        let Tally { tables, sequences, large_objects, .. } = self.tally;
        let table = |Counted { name, rows, bytes }| {
            let (schema, name) = split_name(&spelling.text(&name));
            TableCount { schema, name, rows, bytes }
        };
        let sequence = |(name, last_value, is_called): (Vec<u8>, i64, bool)| {
            let (schema, name) = split_name(&spelling.text(&name));
            SequenceState { schema, name, last_value, is_called }
        };
        Inventory {
            schema: 1,
            tables: tables.into_iter().map(table).collect(),
            sequences: Some(sequences.into_iter().map(sequence).collect()),
            large_objects: Some(large_objects),
            roles: None,
            files: None,
        }
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
        self.tables.push(Counted { name: table.to_vec(), rows: 0, bytes: 0 });
        self.places.insert(table.to_vec(), self.tables.len() - 1);
        self.tables.len() - 1
    }

    fn add(&mut self, datum: Datum) {
        match datum {
            Datum::Sequence(name, last_value, is_called) => self.sequences.push((name, last_value, is_called)),
            Datum::LargeObject => self.large_objects.count += 1,
            Datum::LargeObjectBytes(bytes) => self.large_objects.bytes += bytes,
        }
    }
}

/// One name as SQL writes it, unquoted as in the catalogs.
pub(super) fn identifier(text: &[u8]) -> String {
    split_name(&String::from_utf8_lossy(text)).1
}

/// `public."My ""own"" table"` to its schema and name, unquoted as in pg_class.
fn split_name(text: &str) -> (String, String) {
    let (mut schema, mut name) = (None, String::new());
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => name.extend(chars.next()),
            '"' => quoted = !quoted,
            '.' if !quoted && schema.is_none() => schema = Some(std::mem::take(&mut name)),
            _ => name.push(c),
        }
    }
    (schema.unwrap_or_default(), name)
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
        let inventory = census.inventory(&Spelling::default());
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
        let inventory = census.inventory(&Spelling::default());
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
        let inventory = census.inventory(&Spelling::default());
        assert_eq!(states(&inventory), [("public", "a\\b'c", 7, false)]);
        assert_eq!(inventory.large_objects, Some(LargeObjects { count: 0, bytes: 2 }));
    }

    #[test]
    fn a_write_that_is_longer_than_what_is_kept_counts_whole() {
        let mut census = Census::default();
        let text = format!("SELECT pg_catalog.lowrite(0, '\\x{}');\n", "00".repeat(1 << 20));
        text.as_bytes().chunks(4099).for_each(|piece| census.feed(piece));
        assert_eq!(census.inventory(&Spelling::default()).large_objects, Some(LargeObjects { count: 0, bytes: 1 << 20 }));
    }

    #[test]
    fn a_dump_that_holds_nothing_has_counted_nothing() {
        let inventory = Census::default().inventory(&Spelling::default());
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
            prop_assert_eq!(census.inventory(&Spelling::default()), whole.inventory(&Spelling::default()));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(\\\\\\.|COPY a FROM stdin;|\\$[a-z]?\\$|[-'\"/*;\\\\ E\n$a1]){0,60}") {
            let mut census = Census::default();
            census.feed(text.as_bytes());
            let _ = census.is_complete();
        }
    }
}
