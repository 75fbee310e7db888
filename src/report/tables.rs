//! What backups hold, as tables for people. Names come from databases, and hold whatever their owners like.

use super::table::{Table, visible};
use super::text::{Look, bytes, plain};
use crate::outcome::{TableItem, TablesItem};
use crate::quantity::show_bytes;
use crate::source::FileCounts;

/// A table for each unit, with a line before it that says of which backup, and its sums.
pub(super) fn tables(units: &[TablesItem], look: &Look) -> String {
    units.iter().map(|unit| of_unit(unit, look)).collect::<Vec<_>>().join("\n")
}

fn of_unit(unit: &TablesItem, look: &Look) -> String {
    let since = match &unit.before {
        Some(before) => format!("growth since {before}"),
        None => "no whole backup before it to count growth from".to_owned(),
    };
    let mut text = format!("{}: {}, {since}\n", visible(&unit.unit), visible(&unit.id));
    if let Some(files) = &unit.files {
        return text + &format!("a volume, without tables: {}\n", of_volume(files, unit.files_before.as_ref()));
    }
    let (there, gone): (Vec<_>, Vec<_>) = unit.tables.iter().partition(|table| table.rows.is_some());
    if !unit.tables.is_empty() {
        let mut shown = Table::new(&["SCHEMA.TABLE", "ROWS", "BYTES", "GROWTH"], &["ROWS", "BYTES", "GROWTH"]);
        for table in &unit.tables {
            let rows = plain(table.rows.map(|rows| rows.to_string()).unwrap_or_default());
            shown.row(vec![plain(name(table)), rows, bytes(table.bytes), plain(growth(table, unit.before.is_some()))]);
        }
        text += &shown.render(look.color, None);
    }
    let sum = |of: fn(&TableItem) -> Option<u64>| there.iter().filter_map(|table| of(table)).fold(0, u64::saturating_add);
    let mut parts = Vec::new();
    // Globals hold no tables; nothing else can hold roles.
    if unit.roles.is_none() || !unit.tables.is_empty() {
        let rows = sum(|table| table.rows);
        parts.push(format!(
            "{}, {}, {}",
            many(there.len() as u64, "table"),
            many(rows, "row"),
            show_bytes(sum(|table| table.bytes))
        ));
        if unit.before.is_some() {
            let before = unit.tables.iter().filter_map(|table| table.rows_before).fold(0, u64::saturating_add);
            parts.push(format!("growth {}", change(rows, before)));
        }
    }
    if !gone.is_empty() {
        parts.push(format!("{} gone", many(gone.len() as u64, "table")));
    }
    parts.extend(unit.sequences.map(|count| many(count, "sequence")));
    parts.extend(unit.large_objects.map(|count| match unit.large_object_bytes {
        Some(bytes) if count > 0 => format!("{}, {}", many(count, "large object"), show_bytes(bytes)),
        _ => many(count, "large object"),
    }));
    parts.extend(unit.roles.map(|count| many(count, "role")));
    text + &format!("total: {}\n", parts.join("; "))
}

fn of_volume(files: &FileCounts, before: Option<&FileCounts>) -> String {
    let FileCounts { files: regular, directories, links, others, bytes } = *files;
    let directories = format!("{directories} director{}", if directories == 1 { "y" } else { "ies" });
    let counts = format!("{}, {directories}, {}, {}", many(regular, "file"), many(links, "link"), many(others, "other"));
    let growth = before
        .map(|before| format!("; growth {} in files, {} in bytes", change(regular, before.files), change(bytes, before.bytes)));
    format!("{counts}, {}{}", show_bytes(bytes), growth.unwrap_or_default())
}

/// As SQL has it, so that a dot in a name parts nothing.
fn name(table: &TableItem) -> String {
    let part = |name: &str| {
        let starts_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if starts_plain && name.chars().all(is_plain) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    format!("{}.{}", part(&table.schema), part(&table.name))
}

fn growth(table: &TableItem, has_before: bool) -> String {
    match (table.rows, table.rows_before) {
        (Some(rows), Some(before)) => change(rows, before),
        (Some(_), None) if has_before => "new".to_owned(),
        (None, _) => "gone".to_owned(),
        (Some(_), None) => "-".to_owned(),
    }
}

/// `+123 (+4.1%)`; of nothing there is no percentage.
fn change(rows: u64, before: u64) -> String {
    let difference = i128::from(rows) - i128::from(before);
    match (difference, before) {
        (0, _) => "0".to_owned(),
        (_, 0) => format!("{difference:+}"),
        _ => format!("{difference:+} ({:+.1}%)", (rows as f64 / before as f64 - 1.0) * 100.0),
    }
}

fn many(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_sql_has_it() {
        let shown = |schema: &str, name_: &str| {
            name(&TableItem { schema: schema.into(), name: name_.into(), rows: None, bytes: None, rows_before: None })
        };
        assert_eq!(shown("public", "events_2"), "public.events_2");
        assert_eq!(shown("a.b", "c"), "\"a.b\".c");
        assert_eq!(shown("Sales", "2x\"y"), "\"Sales\".\"2x\"\"y\"");
    }

    #[test]
    fn growth_has_a_percentage_where_there_was_something() {
        assert_eq!(change(3123, 3000), "+123 (+4.1%)");
        assert_eq!(change(1, 2), "-1 (-50.0%)");
        assert_eq!(change(5, 0), "+5");
        assert_eq!(change(7, 7), "0");
        assert_eq!(change(u64::MAX, 0), format!("+{}", u64::MAX));
    }
}
