//! A restored database held against the inventory of its dump: each table counted by itself, as pg_dump
//! read it, and what it counted for a partitioned table against all of that table's partitions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::Psql;
use super::scratch::random_word;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::source::{Comparison, Inventory, LargeObjects, SequenceState};

/// What is there. Relations below 16384 are the server's own.
const RELATIONS: &str = "
WITH RECURSIVE up AS (
  SELECT i.inhrelid AS leaf, i.inhparent AS above FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition
  UNION
  SELECT up.leaf, i.inhparent FROM up JOIN pg_class c ON c.oid = up.above AND c.relispartition JOIN pg_inherits i ON i.inhrelid = up.above
),
above AS (SELECT leaf, json_agg(above::bigint) AS above FROM up GROUP BY leaf)
SELECT coalesce(json_agg(json_build_object(
  'oid', c.oid::bigint, 'kind', c.relkind,
  'schema', n.nspname, 'name', c.relname,
  'above', coalesce(above.above, '[]'),
  'of_extension', EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)), '[]') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN above ON above.leaf = c.oid
 WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't';";

/// A line for each table, each sequence, and the large objects. The server quotes the names, and psql sends
/// what it quoted as it is: a name may hold anything.
const COUNTS: &str = r"
SET row_security = off;
SELECT format('SELECT ''t'', %s, count(*) FROM ONLY %I.%I', c.oid, n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind = 'r' AND c.relpersistence <> 't' \gexec
SELECT format('SELECT ''s'', %s, last_value, is_called FROM %I.%I', c.oid, n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind = 'S' AND c.relpersistence <> 't' \gexec
SELECT 'o', count(*) FROM pg_largeobject_metadata;
SELECT 'SELECT ''b'', coalesce(sum(length(data)), 0) FROM pg_largeobject' WHERE has_table_privilege('pg_largeobject', 'SELECT') \gexec
";

/// Counts in a restored database what was counted when it was dumped.
pub(super) fn compare(psql: &Psql, dumped: &Inventory, cx: &Context) -> Result<Comparison> {
    let look = || -> Result<Place> {
        let relations: Vec<Listed> = psql.ask(RELATIONS, "looking at what was restored", cx)?;
        let counts = psql.run(COUNTS, "counting what was restored", cx)?;
        Place::new(relations, &counts)
    };
    let place = look().map_err(|error| error.step("compare"))?;
    Ok(place.compare(dumped))
}

/// The first value of the first row of a user's query.
pub(super) fn first_value(psql: &Psql, sql: &str, cx: &Context) -> Result<String> {
    // What stands between dollar quotes is text to psql, and \gexec sends it to the server as it is: psql acts
    // on no backslash command or variable in it. The database's own settings hold for it, as for its users.
    let quote = format!("$check_{}$", random_word()?);
    let script = format!(
        "\\pset fieldsep_zero on\n\\pset recordsep_zero on\nRESET search_path;\nRESET standard_conforming_strings;\n\
         SET default_transaction_read_only = on;\nSELECT {quote}{sql}\n{quote} \\gexec"
    );
    let said = psql.run(&script, "asking", cx)?;
    Ok(said.split('\0').next().unwrap_or_default().to_owned())
}

/// As the server says it.
#[derive(Debug, Deserialize)]
struct Listed {
    oid: u64,
    kind: RelationKind,
    schema: String,
    name: String,
    above: Vec<u64>,
    of_extension: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum RelationKind {
    #[serde(rename = "r")]
    Table,
    #[serde(rename = "p")]
    Partitioned,
    #[serde(rename = "S")]
    Sequence,
}

/// Schema and name, as an inventory has them.
type Name = (String, String);

/// A relation that is there.
#[derive(Debug)]
struct Relation {
    oid: u64,
    kind: RelationKind,
    name: Name,
    /// The partitioned tables that it is a part of.
    above: Vec<u64>,
    /// It came with an extension: a dump has what its script says is the user's, or nothing.
    of_extension: bool,
}

/// What a restored database holds.
#[derive(Debug, Default)]
struct Place {
    relations: Vec<Relation>,
    /// Rows, by table.
    rows: BTreeMap<u64, u64>,
    /// Last value, and whether it was given out, by sequence.
    sequences: BTreeMap<u64, (i64, bool)>,
    large_objects: u64,
    /// None where the role may not read them.
    large_object_bytes: Option<u64>,
}

impl Place {
    fn new(listed: Vec<Listed>, counts: &str) -> Result<Self> {
        let not_understood =
            |what: &str| Error::new(Kind::Database, format!("counting what was restored: {what:?} is not understood"));
        let relation = |Listed { oid, kind, schema, name, above, of_extension }: Listed| Relation {
            oid,
            kind,
            name: (schema, name),
            above,
            of_extension,
        };
        let mut place = Self { relations: listed.into_iter().map(relation).collect(), ..Self::default() };
        for line in counts.lines() {
            place.note(line).ok_or_else(|| not_understood(line))?;
        }
        let is_counted = |relation: &&Relation| match relation.kind {
            RelationKind::Table => place.rows.contains_key(&relation.oid),
            RelationKind::Sequence => place.sequences.contains_key(&relation.oid),
            RelationKind::Partitioned => true,
        };
        match place.relations.iter().find(|relation| !is_counted(relation)) {
            Some(lost) => Err(Error::new(Kind::Database, format!("{} was not counted", shown(&lost.name)))),
            None => Ok(place),
        }
    }

    fn note(&mut self, line: &str) -> Option<()> {
        let parts: Vec<&str> = line.split('|').collect();
        match parts[..] {
            ["t", oid, rows] => drop(self.rows.insert(oid.parse().ok()?, rows.parse().ok()?)),
            ["s", oid, last, called] => drop(self.sequences.insert(oid.parse().ok()?, (last.parse().ok()?, called == "t"))),
            ["o", count] => self.large_objects = count.parse().ok()?,
            ["b", bytes] => self.large_object_bytes = Some(bytes.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    fn of_kind(&self, kind: RelationKind) -> impl Iterator<Item = &Relation> {
        self.relations.iter().filter(move |relation| relation.kind == kind)
    }

    fn compare(&self, dumped: &Inventory) -> Comparison {
        let mut comparison = Comparison { empty: self.is_empty() && holds_nothing(dumped), ..Comparison::default() };
        self.compare_tables(dumped, &mut comparison);
        if let Some(sequences) = &dumped.sequences {
            self.compare_sequences(sequences, &mut comparison);
        }
        if let Some(large_objects) = dumped.large_objects {
            self.compare_large_objects(large_objects, &mut comparison);
        }
        comparison
    }

    /// Whether nothing of a user's is there that could hold data.
    fn is_empty(&self) -> bool {
        let holds = |relation: &Relation| relation.kind != RelationKind::Partitioned && !relation.of_extension;
        !self.relations.iter().any(holds) && self.large_objects == 0
    }

    fn compare_tables(&self, dumped: &Inventory, comparison: &mut Comparison) {
        // Names that the dump's encoding made the same add up.
        let mut expected: BTreeMap<Name, u64> = BTreeMap::new();
        for table in &dumped.tables {
            *expected.entry((table.schema.clone(), table.name.clone())).or_default() += table.rows;
        }
        let names: BTreeMap<u64, &Name> = self.relations.iter().map(|relation| (relation.oid, &relation.name)).collect();
        let mut found: BTreeMap<&Name, (u64, bool)> = BTreeMap::new();
        for relation in self.of_kind(RelationKind::Partitioned).filter(|relation| expected.contains_key(&relation.name)) {
            found.insert(&relation.name, (0, relation.of_extension));
        }
        let mut strangers = Vec::new();
        for table in self.of_kind(RelationKind::Table) {
            let rows = self.rows.get(&table.oid).copied().unwrap_or_default();
            // What pg_dump loads through the root is counted for the root, whose own rows are its partitions'.
            let above = || table.above.iter().filter_map(|oid| names.get(oid).copied()).find(|name| expected.contains_key(*name));
            let counted_as = if expected.contains_key(&table.name) { Some(&table.name) } else { above() };
            match counted_as {
                Some(name) => {
                    let entry = found.entry(name).or_insert((0, table.of_extension));
                    entry.0 += rows;
                }
                None if rows > 0 && !table.of_extension => {
                    strangers.push(format!("{} has {}, none were dumped", shown(&table.name), count(rows)));
                }
                None => {}
            }
        }
        for (name, dumped) in &expected {
            match found.get(name) {
                None => comparison.differences.push(format!("{} is missing, {} were dumped", shown(name), count(*dumped))),
                Some((rows, of_extension)) => {
                    comparison.tables += 1;
                    comparison.rows += rows;
                    // An extension's script brings rows of its own, which no dump holds.
                    if rows < dumped || (rows > dumped && !of_extension) {
                        comparison.differences.push(format!("{} has {}, {dumped} were dumped", shown(name), count(*rows)));
                    }
                }
            }
        }
        strangers.sort();
        comparison.differences.append(&mut strangers);
    }

    fn compare_sequences(&self, dumped: &[SequenceState], comparison: &mut Comparison) {
        let state = |relation: &Relation| self.sequences.get(&relation.oid).copied().unwrap_or_default();
        let there: BTreeMap<&Name, (i64, bool)> =
            self.of_kind(RelationKind::Sequence).map(|sequence| (&sequence.name, state(sequence))).collect();
        let expected: BTreeMap<Name, (i64, bool)> = dumped
            .iter()
            .map(|state| ((state.schema.clone(), state.name.clone()), (state.last_value, state.is_called)))
            .collect();
        for (name, dumped) in &expected {
            match there.get(name) {
                None => comparison.differences.push(format!("sequence {} is missing", shown(name))),
                Some(found) => {
                    comparison.sequences += 1;
                    if found != dumped {
                        let difference =
                            format!("sequence {} {}, when dumped it {}", shown(name), stands(*found), stood(*dumped));
                        comparison.differences.push(difference);
                    }
                }
            }
        }
        for sequence in self.of_kind(RelationKind::Sequence).filter(|sequence| !sequence.of_extension) {
            // One that was never used is as its definition made it.
            if !expected.contains_key(&sequence.name) && state(sequence).1 {
                let difference = format!("sequence {} {}, it was not dumped", shown(&sequence.name), stands(state(sequence)));
                comparison.differences.push(difference);
            }
        }
    }

    fn compare_large_objects(&self, dumped: LargeObjects, comparison: &mut Comparison) {
        comparison.large_objects = self.large_objects;
        if self.large_objects != dumped.count {
            let difference = format!("there are {} large objects, {} were dumped", self.large_objects, dumped.count);
            comparison.differences.push(difference);
        } else if let Some(bytes) = self.large_object_bytes.filter(|bytes| *bytes != dumped.bytes) {
            comparison.differences.push(format!("the large objects hold {bytes} bytes, {} were dumped", dumped.bytes));
        }
    }
}

fn holds_nothing(dumped: &Inventory) -> bool {
    dumped.tables.is_empty()
        && dumped.sequences.as_ref().is_none_or(Vec::is_empty)
        && dumped.large_objects.is_none_or(|large_objects| large_objects.count == 0)
}

fn shown((schema, name): &Name) -> String {
    format!("{schema}.{name}")
}

fn count(rows: u64) -> String {
    format!("{rows} row{}", if rows == 1 { "" } else { "s" })
}

fn stands((last_value, is_called): (i64, bool)) -> String {
    format!("stands at {last_value}{}", if is_called { "" } else { ", not yet given out" })
}

fn stood(state: (i64, bool)) -> String {
    stands(state).replacen("stands", "stood", 1)
}

#[cfg(test)]
mod tests;
