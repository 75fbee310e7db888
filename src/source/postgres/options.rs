//! What of a database is dumped: a filter as arguments of pg_dump, and what a restore of such a dump needs.
//! Each pattern is attached to its option, so that none can become an option of its own.

use super::arrival::Arrival;
use super::client::{quote_array, quote_identifier};
use super::facts::RestoreFacts;
use crate::config::model::DumpFilter;
use crate::error::Result;
use crate::host::Context;

/// The arguments that stand for a filter.
pub(super) fn arguments(filter: &DumpFilter) -> Vec<String> {
    let patterns = [
        ("--schema", &filter.schemas),
        ("--exclude-schema", &filter.exclude_schemas),
        ("--table", &filter.tables),
        ("--exclude-table", &filter.exclude_tables),
        ("--exclude-table-data", &filter.exclude_table_data),
    ];
    let mut arguments: Vec<String> =
        patterns.iter().flat_map(|(option, texts)| texts.iter().map(move |text| format!("{option}={text}"))).collect();
    let flags =
        [("--schema-only", filter.schema_only), ("--no-owner", filter.no_owner), ("--no-privileges", filter.no_privileges)];
    arguments.extend(flags.iter().filter(|(_, given)| *given).map(|(option, _)| (*option).to_owned()));
    // What was named and has vanished is an error, and no smaller dump.
    if names_parts(filter) {
        arguments.push("--strict-names".into());
    }
    arguments.extend(filter.extra_args.iter().cloned());
    arguments
}

/// Whether the dump holds only what is named.
fn names_parts(filter: &DumpFilter) -> bool {
    let named = ["--extension=", "--table-and-children="];
    let in_extra = filter.extra_args.iter().any(|word| named.iter().any(|option| word.starts_with(option)));
    in_extra || !filter.schemas.is_empty() || !filter.tables.is_empty()
}

/// Leaves of the facts about a database what is true of its dump.
pub(super) fn settle(facts: &mut RestoreFacts, filter: &DumpFilter) {
    let extra = |option: &str| filter.extra_args.iter().any(|word| word.starts_with(option));
    let by_table = !filter.tables.is_empty() || extra("--table-and-children=");
    if !by_table {
        facts.schemas.clear();
    }
    // Extensions belong to no schema and no table: pg_dump leaves them out.
    if (by_table || !filter.schemas.is_empty()) && !extra("--extension=") {
        facts.extensions.clear();
    }
    if extra("--no-tablespaces") {
        facts.tablespaces.clear();
    }
    (facts.no_owner, facts.no_privileges) = (filter.no_owner, filter.no_privileges);
}

/// Makes the schemas that a dump of tables does not create, in a new database.
pub(super) fn make_schemas(arrival: &Arrival, cx: &Context) -> Result<()> {
    let schemas = &arrival.facts.schemas;
    if schemas.is_empty() {
        return Ok(());
    }
    let made = arrival.inside().run(&for_each("CREATE SCHEMA", schemas), "making the schemas of the tables", cx);
    made.map(drop).map_err(|error| error.step("scratch"))
}

/// Drops those of them that no table came for.
pub(super) fn drop_empty_schemas(arrival: &Arrival, cx: &Context) -> Result<()> {
    const DOING: &str = "dropping schemas that stayed empty";
    let schemas = &arrival.facts.schemas;
    if schemas.is_empty() {
        return Ok(());
    }
    let session = arrival.inside();
    let empty = format!(
        "SELECT coalesce(json_agg(nspname), '[]') FROM pg_namespace n WHERE nspname = ANY ({}) AND NOT EXISTS (
           SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid);",
        quote_array(schemas)
    );
    let drop_empty = || {
        let empty: Vec<String> = session.ask(&empty, DOING, cx)?;
        session.run(&for_each("DROP SCHEMA", &empty), DOING, cx).map(drop)
    };
    drop_empty().map_err(|error| error.step("load"))
}

fn for_each(command: &str, names: &[String]) -> String {
    names.iter().flat_map(|name| [command.to_owned(), " ".into(), quote_identifier(name), ";\n".into()]).collect()
}

/// Whether the dump may leave out what the database holds: only pg_dump itself knows what its patterns match.
pub(super) fn leaves_out(filter: &DumpFilter) -> bool {
    let DumpFilter { schemas, exclude_schemas, tables, exclude_tables, exclude_table_data, schema_only, extra_args, .. } = filter;
    let patterns = [schemas, exclude_schemas, tables, exclude_tables, exclude_table_data];
    let by_extra = ["--table-and-children=", "--exclude-", "--no-unlogged-table-data", "--no-large-objects", "--no-blobs"];
    let in_extra = extra_args.iter().any(|word| by_extra.iter().any(|option| word.starts_with(option)));
    *schema_only || in_extra || patterns.iter().any(|texts| !texts.is_empty())
}

/// What to say of what a role can't read, where the filter may leave it out.
pub(super) fn doubtful(unreadable: &[String]) -> Option<String> {
    const SHOWN: usize = 5;
    let shown = unreadable.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = unreadable.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!unreadable.is_empty()).then(|| format!("unless the target's filters leave it out, the role can't read {shown}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pattern_is_attached_to_its_option() {
        let filter = DumpFilter {
            tables: vec!["--file=x".into(), "a b.\"C\"".into()],
            exclude_table_data: vec!["log_*".into()],
            no_owner: true,
            extra_args: vec!["--no-comments".into()],
            ..DumpFilter::default()
        };
        let wanted = [
            "--table=--file=x",
            "--table=a b.\"C\"",
            "--exclude-table-data=log_*",
            "--no-owner",
            "--strict-names",
            "--no-comments",
        ];
        assert_eq!(arguments(&filter), wanted);
        assert!(arguments(&DumpFilter::default()).is_empty());
    }

    #[test]
    fn only_a_filter_that_leaves_something_out_does() {
        assert!(!leaves_out(&DumpFilter { no_owner: true, extra_args: vec!["--no-comments".into()], ..DumpFilter::default() }));
        assert!(leaves_out(&DumpFilter { exclude_tables: vec!["x".into()], ..DumpFilter::default() }));
        assert!(leaves_out(&DumpFilter { extra_args: vec!["--exclude-table-and-children=x".into()], ..DumpFilter::default() }));
    }
}
