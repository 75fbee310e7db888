//! A drill in one clause, as it is told when it ends.

use std::time::Duration;

use crate::outcome::{DrillItem, DrillStatus};
use crate::quantity::{show_bytes, show_duration};
use crate::source::FileCounts;

/// `drill passed: 20261121_101036Z-o0ua restored in 1.1s into ..., 12 tables, 26000 rows and 1 check compared`.
pub(super) fn clause(item: &DrillItem) -> String {
    let id = item.id.map(|id| id.to_string()).unwrap_or_default();
    // A problem says why.
    let (begin, end) = match item.status {
        DrillStatus::Passed => (format!("drill passed: {id}"), ""),
        _ => (format!("drill of {id}"), ", and not all of it held"),
    };
    if item.place.is_empty() {
        return begin;
    }
    let took = show_duration(Duration::try_from_secs_f64(item.restore_seconds).unwrap_or_default());
    format!("{begin} restored in {took} into {}{}{end}", item.place, compared(item))
}

/// `, 12 tables, 26000 rows, 3 sequences and 1 check compared`, `, 120 files, 8 directories, 4.0 MiB and 120 digests compared`.
fn compared(item: &DrillItem) -> String {
    let found = item.compared.clone().unwrap_or_default();
    let asked = u64::try_from(item.checks.len()).unwrap_or(u64::MAX);
    let rows = if found.tables > 0 { Some(counted(found.rows, "row")) } else { None };
    let many = |count: u64, noun: &str| (count > 0).then(|| counted(count, noun));
    let tree = found.tree.iter().flat_map(files).collect::<Vec<_>>();
    let parts = [
        many(found.tables, "table"),
        rows,
        many(found.sequences, "sequence"),
        many(found.large_objects, "large object"),
        many(found.roles, "role"),
        many(found.digests, "digest"),
        many(asked, "check"),
    ];
    let parts: Vec<String> = tree.into_iter().chain(parts.into_iter().flatten()).collect();
    let empty = if found.empty { ", empty, as it was dumped" } else { "" };
    match parts.as_slice() {
        [] => empty.to_owned(),
        [one] => format!("{empty}, {one} compared"),
        [first @ .., last] => format!("{empty}, {} and {last} compared", first.join(", ")),
    }
}

/// Files, even where there are none, and what else there is.
fn files(found: &FileCounts) -> Vec<String> {
    let directories = match found.directories {
        1 => "1 directory".to_owned(),
        count => format!("{count} directories"),
    };
    let many = |count: u64, noun: &str| (count > 0).then(|| counted(count, noun));
    let more = [many(found.links, "link"), many(found.others, "other"), (found.bytes > 0).then(|| show_bytes(found.bytes))];
    [counted(found.files, "file"), directories].into_iter().chain(more.into_iter().flatten()).collect()
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::QuestionItem;
    use crate::source::Comparison;

    fn item(status: DrillStatus, compared: Option<Comparison>) -> DrillItem {
        DrillItem {
            unit: "shop".into(),
            id: Some("20261121_101036Z-o0ua".parse().unwrap()),
            storage: Some("local".into()),
            status,
            place: "a temporary server 15.18".into(),
            bytes: 1,
            restore_seconds: 1.1,
            seconds: 3.0,
            compared,
            checks: vec![QuestionItem { name: "users".into(), ok: true, expected: "true".into(), found: "t".into() }],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_drill_is_told_in_one_clause() {
        let all = Comparison { tables: 12, rows: 26000, sequences: 3, large_objects: 2, ..Comparison::default() };
        let counts = FileCounts { files: 120, directories: 1, links: 2, others: 0, bytes: 4 << 20 };
        let files = Comparison { files: 123, tree: Some(counts), digests: 120, ..Comparison::default() };
        let nothing_there = Comparison { empty: true, ..Comparison::default() };
        let mut early = item(DrillStatus::Failed, None);
        early.place.clear();
        let told = [
            item(DrillStatus::Passed, Some(all.clone())),
            item(DrillStatus::Passed, Some(nothing_there)),
            item(DrillStatus::Passed, Some(files)),
            item(DrillStatus::Failed, Some(all)),
            early,
        ];
        insta::assert_snapshot!(told.map(|item| clause(&item)).join("\n"), @r"
        drill passed: 20261121_101036Z-o0ua restored in 1.1s into a temporary server 15.18, 12 tables, 26000 rows, 3 sequences, 2 large objects and 1 check compared
        drill passed: 20261121_101036Z-o0ua restored in 1.1s into a temporary server 15.18, empty, as it was dumped, 1 check compared
        drill passed: 20261121_101036Z-o0ua restored in 1.1s into a temporary server 15.18, 120 files, 1 directory, 2 links, 4.0 MiB, 120 digests and 1 check compared
        drill of 20261121_101036Z-o0ua restored in 1.1s into a temporary server 15.18, 12 tables, 26000 rows, 3 sequences, 2 large objects and 1 check compared, and not all of it held
        drill of 20261121_101036Z-o0ua
        ");
    }
}
