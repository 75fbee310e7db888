//! What of a database is dumped, and how: format, filters, pg_dump's other options.

use std::num::NonZeroU32;

use crate::config::model::{DumpFilter, Format};
use crate::config::node::Node;
use crate::config::walk::{Fields, Walk};

use super::{extra_args, optional};

/// `format:`; where it is wrong, what is checked by it is checked as for plain.
pub(super) fn format(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Format> {
    let Some(node) = fields.get("format") else { return Some(Format::Plain) };
    match walk.word(node, "a format", &["plain", "custom"], &["directory"])? {
        "custom" => Some(Format::Custom),
        _ => Some(Format::Plain),
    }
}

/// `jobs:`, which only an archive can be loaded with.
#[allow(clippy::option_option)] // absent and wrong are two things
pub(super) fn jobs(walk: &Walk<'_>, fields: &Fields<'_>, format: Option<Format>) -> Option<Option<NonZeroU32>> {
    let node = fields.get("jobs");
    if let (Some(node), Some(Format::Plain)) = (node, format) {
        walk.wrong(node, "a plain dump is loaded by one job", Some("write format: custom, or leave it out".into()));
    }
    optional(node, |node| walk.number(node, "a number", 1..=64).and_then(NonZeroU32::new))
}

/// What of a database is dumped.
pub(super) fn filter(walk: &Walk<'_>, fields: &Fields<'_>, format: Option<Format>) -> Option<DumpFilter> {
    let patterns = |key, what| fields.get(key).map_or(Some(Vec::new()), |node| texts(walk, node, what));
    let yes = |key| fields.get(key).map_or(Some(false), |node| walk.boolean(node));
    let schemas = patterns("schemas", "a list of schemas' patterns");
    let exclude_schemas = patterns("exclude_schemas", "a list of schemas' patterns");
    let tables = patterns("tables", "a list of tables' patterns");
    let exclude_tables = patterns("exclude_tables", "a list of tables' patterns");
    let exclude_table_data = patterns("exclude_table_data", "a list of tables' patterns");
    let (schema_only, no_owner, no_privileges) = (yes("schema_only"), yes("no_owner"), yes("no_privileges"));
    let extra_args = fields.get("extra_args").map_or(Some(Vec::new()), |node| options(walk, node, format));
    // pg_dump documentation, `--table`: the switches for schemas have no effect beside it.
    let by_table =
        fields.get("tables").is_some() || extra_args.iter().flatten().any(|word| word.starts_with("--table-and-children="));
    for key in ["schemas", "exclude_schemas"] {
        if let (Some(node), true) = (fields.get(key), by_table) {
            walk.wrong(node, "pg_dump ignores it where tables are named", Some("write tables: [\"schema.table\"]".into()));
        }
    }
    Some(DumpFilter {
        schemas: schemas?,
        exclude_schemas: exclude_schemas?,
        tables: tables?,
        exclude_tables: exclude_tables?,
        exclude_table_data: exclude_table_data?,
        schema_only: schema_only?,
        no_owner: no_owner?,
        no_privileges: no_privileges?,
        extra_args: extra_args?,
    })
}

/// A list of texts, none of them twice.
pub(super) fn texts(walk: &Walk<'_>, node: &Node, what: &str) -> Option<Vec<String>> {
    let items = walk.list(node, what)?;
    let mut texts: Vec<Option<String>> = Vec::new();
    for item in items {
        let text = walk.text(item, "text");
        if text.is_some() && texts.contains(&text) {
            walk.wrong(item, format!("{} is given twice", item.describe()), Some("keep one of them".into()));
        }
        texts.push(text);
    }
    texts.into_iter().collect()
}

fn options(walk: &Walk<'_>, node: &Node, format: Option<Format>) -> Option<Vec<String>> {
    let items = walk.list(node, "a list of pg_dump's options, each a text like \"--no-comments\"")?;
    let words = items.iter().map(|item| {
        let word = walk.text(item, "an option of pg_dump")?;
        match extra_args::judge(&word, format.unwrap_or(Format::Plain)) {
            Ok(()) => Some(word),
            Err(refusal) => {
                walk.wrong(item, format!("refused {}: {}", item.describe(), refusal.problem), Some(refusal.hint));
                None
            }
        }
    });
    // All are looked at, so that every mistake shows.
    words.collect::<Vec<_>>().into_iter().collect()
}
