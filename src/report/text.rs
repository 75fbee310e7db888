//! An outcome as text for people: results for standard output, remarks for standard error. Pure: it
//! takes the time from the outcome and writes nowhere.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::drills;
use super::table::{Paint, Table, paint, prose, visible};
use super::tables::tables;
use crate::outcome::{
    BackupItem, CheckItem, Items, ListItem, Outcome, Problem, PruneDecision, PruneItem, RestoreItem, RestoreStatus, Severity,
    State, StatsItem, UnitStatus,
};
use crate::quantity::{show_bytes, show_duration};

/// How it is to be shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Ages count from here.
    pub(super) now: DateTime<Utc>,
    /// Times are shown in this.
    pub(super) timezone: Tz,
    /// Decisions were shown and not carried out.
    pub(super) dry_run: bool,
    /// Colours are wanted.
    pub(super) color: bool,
    /// Columns of the terminal.
    pub(super) width: Option<usize>,
}

/// What belongs on standard output.
pub(super) fn results(outcome: &Outcome, look: &Look) -> String {
    match &outcome.items {
        Items::Rows(rows) => list(rows, look),
        Items::Stats(rows) => stats(rows, look),
        Items::Checks(checks) => checks.iter().map(|one| check(one, look)).collect(),
        Items::Text(texts) => texts.iter().map(|one| one.text.as_str()).collect(),
        Items::Backups(units) => plan(units, look),
        Items::Restores(units) => {
            units.iter().filter(|unit| unit.status == RestoreStatus::Planned).map(|unit| restored(unit) + "\n").collect()
        }
        Items::Pruned(entries) if look.dry_run => decisions(entries, look) + &summary_of_plan(entries),
        Items::Pruned(_) => String::new(),
        Items::Drills(units) => drills::plan(units),
        Items::Tables(units) => tables(units, look),
    }
}

/// How long ago: `40s`, `12m`, `26h`, `3d`; `in 2h` for a time to come.
pub(super) fn age(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds();
    let shown = match seconds.unsigned_abs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        // Freshness is a matter of hours: 26h says more than 1d.
        seconds @ 3600..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    };
    if seconds < 0 { format!("in {shown}") } else { shown }
}

pub(super) fn plain(text: impl Into<String>) -> (String, Option<Paint>) {
    (text.into(), None)
}

pub(super) fn bytes(bytes: Option<u64>) -> (String, Option<Paint>) {
    plain(bytes.map(show_bytes).unwrap_or_default())
}

fn list(rows: &[ListItem], look: &Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let hosts = rows.iter().any(|row| row.host != rows[0].host);
    let mut headers = vec!["ID", "UNIT", "AGE", "SIZE", "STORAGES", "STATE", "PROVEN", "LABEL"];
    if hosts {
        headers.insert(1, "HOST");
    }
    let mut table = Table::new(&headers, &["AGE", "SIZE", "PROVEN"]);
    let mut sorted: Vec<&ListItem> = rows.iter().collect();
    sorted.sort_by_key(|row| row.started);
    for row in sorted {
        let mut cells = vec![
            plain(&row.id),
            plain(&row.unit),
            plain(age(look.now, row.started)),
            bytes(row.bytes),
            plain(row.storages.join(",")),
            state(row),
            plain(row.proven.map(|at| age(look.now, at)).unwrap_or_default()),
            plain(row.label.clone().unwrap_or_default()),
        ];
        if hosts {
            cells.insert(1, plain(&row.host));
        }
        table.row(cells);
    }
    table.render(look.color, look.width)
}

fn state(row: &ListItem) -> (String, Option<Paint>) {
    let (word, paint) = match row.state {
        State::Whole => ("whole", Paint::Green),
        State::Incomplete => ("incomplete", Paint::Yellow),
        State::Unknown => ("unknown", Paint::Yellow),
        State::Damaged => ("damaged", Paint::Red),
        State::Suspicious => ("suspicious", Paint::Yellow),
    };
    (format!("{word}{}", if row.pinned { ", pinned" } else { "" }), Some(paint))
}

fn stats(rows: &[StatsItem], look: &Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let headers = ["UNIT", "HOST", "COUNT", "TOTAL", "AVERAGE", "OLDEST", "NEWEST", "RATIO", "GROWTH"];
    let mut table = Table::new(&headers, &["COUNT", "TOTAL", "AVERAGE", "RATIO", "GROWTH"]);
    let when = |at: Option<DateTime<Utc>>| {
        plain(at.map(|at| at.with_timezone(&look.timezone).format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default())
    };
    for StatsItem { host, unit, stats } in rows {
        let growth = stats.growth.map(|growth| format!("{:+.1}%", growth * 100.0)).unwrap_or_default();
        table.row(vec![
            plain(unit),
            plain(host),
            plain(stats.count.to_string()),
            bytes(Some(stats.bytes)),
            bytes(Some(stats.average_bytes)),
            when(stats.oldest),
            when(stats.newest),
            plain(stats.compression_ratio.map(|ratio| format!("{ratio:.1}x")).unwrap_or_default()),
            // The last column's empty cells stay empty.
            plain(if growth.is_empty() { "-".into() } else { growth }),
        ]);
    }
    table.render(look.color, None)
}

fn check(check: &CheckItem, look: &Look) -> String {
    let (word, color_of) = if check.ok { ("ok  ", Paint::Green) } else { ("FAIL", Paint::Red) };
    let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", prose(&check.detail)) };
    let hint = check.hint.as_deref().map(|hint| format!("      hint: {}\n", prose(hint))).unwrap_or_default();
    format!("{}  {}{detail}\n{hint}", paint(word, color_of, look.color), visible(&check.subject))
}

fn plan(units: &[BackupItem], look: &Look) -> String {
    let planned: Vec<&BackupItem> = units.iter().filter(|unit| unit.status == UnitStatus::Planned).collect();
    if planned.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["UNIT", "STORAGES", "HOW"], &[]);
    for unit in &planned {
        table.row(vec![plain(&unit.unit), plain(unit.storages.join(",")), plain(unit.detail.clone().unwrap_or_default())]);
    }
    let pruned: Vec<PruneItem> = planned.iter().flat_map(|unit| unit.pruned.clone()).collect();
    let pruned = if pruned.is_empty() { String::new() } else { format!("\n{}", decisions(&pruned, look)) };
    table.render(look.color, None) + &pruned
}

fn decisions(entries: &[PruneItem], look: &Look) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let headers = ["DECISION", "ID", "UNIT", "STORAGE", "AGE", "SIZE", "REASONS"];
    let mut table = Table::new(&headers, &["AGE", "SIZE"]);
    for entry in entries {
        let color_of = if entry.decision == PruneDecision::Delete { Paint::Red } else { Paint::Green };
        table.row(vec![
            (entry.decision.word().to_owned(), Some(color_of)),
            plain(&entry.id),
            plain(&entry.unit),
            plain(&entry.storage),
            plain(age(look.now, entry.started)),
            bytes(entry.bytes),
            plain(entry.reasons.join("; ")),
        ]);
    }
    table.render(look.color, None)
}

fn summary_of_plan(entries: &[PruneItem]) -> String {
    let (delete, keep): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.decision == PruneDecision::Delete);
    format!("would delete {}{}, keep {}\n", delete.len(), size_of(&delete), keep.len())
}

/// ` (207.2 MiB)`; nothing for no entries.
fn size_of(entries: &[&PruneItem]) -> String {
    let total = entries.iter().filter_map(|entry| entry.bytes).fold(0, u64::saturating_add);
    if entries.is_empty() { String::new() } else { format!(" ({})", show_bytes(total)) }
}

fn seconds(seconds: f64) -> String {
    show_duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// The line of a unit that was backed up, or was not.
pub(super) fn backed_up(unit: &BackupItem) -> String {
    let name = visible(&unit.unit);
    let detail = unit.detail.as_deref().map(|detail| format!(": {}", prose(detail))).unwrap_or_default();
    match unit.id {
        Some(id) if unit.status.is_stored() => {
            let (size, took, storages) = (show_bytes(unit.bytes), seconds(unit.seconds), visible(&unit.storages.join(", ")));
            format!("{name}: {}, {size} in {took}, {id} in {storages}", unit.status.word())
        }
        _ => format!("{name}: {}{detail}", unit.status.word()),
    }
}

/// The line of a unit that was restored, or would be.
pub(super) fn restored(unit: &RestoreItem) -> String {
    let (name, from, to) = (visible(&unit.unit), visible(&unit.storage), visible(&unit.destination));
    match unit.status {
        RestoreStatus::Done => {
            let (size, took) = (show_bytes(unit.bytes), seconds(unit.seconds));
            format!("{name}: restored {} from {from} to {to}, {size} in {took}", unit.id)
        }
        RestoreStatus::Planned => format!("{name}: would restore {} from {from} to {to}", unit.id),
    }
}

/// A line about a unit, the end of which can be copied as it stands.
pub(super) fn note(unit: &str, text: &str) -> String {
    format!("{}: {}", visible(unit), visible(text))
}

/// The line of a decision that was carried out; `None` where it was not.
pub(super) fn carried_out(entry: &PruneItem) -> Option<String> {
    let word = match (entry.decision, entry.done) {
        (PruneDecision::Delete, true) => "deleted",
        (PruneDecision::Pin, true) => "pinned",
        (PruneDecision::Unpin, true) => "unpinned",
        (PruneDecision::Keep, _) => "kept",
        (PruneDecision::Delete | PruneDecision::Pin | PruneDecision::Unpin, false) => return None,
    };
    let size = entry.bytes.map(|bytes| format!(" ({})", show_bytes(bytes))).unwrap_or_default();
    let reasons = if entry.reasons.is_empty() { String::new() } else { format!(": {}", prose(&entry.reasons.join("; "))) };
    Some(format!("{}: {word} {} in {}{size}{reasons}", visible(&entry.unit), visible(&entry.id), visible(&entry.storage)))
}

/// The last line of a command that worked on things; `None` where there is nothing to sum up.
pub(super) fn summary(outcome: &Outcome, dry_run: bool) -> Option<String> {
    let took = show_duration((outcome.finished - outcome.started).to_std().unwrap_or_default());
    match &outcome.items {
        Items::Backups(units) if !units.is_empty() && units.iter().all(|unit| unit.status != UnitStatus::Planned) => {
            let bytes = units.iter().map(|unit| unit.bytes).fold(0, u64::saturating_add);
            let deleted: Vec<_> = units.iter().flat_map(|unit| &unit.pruned).filter(|entry| is_deleted(entry)).collect();
            let deleted = match deleted.len() {
                0 => String::new(),
                count => format!(", {count} deleted by retention{}", size_of(&deleted)),
            };
            Some(format!("backup: {}, {} in {took}{deleted}", counts(units), show_bytes(bytes)))
        }
        Items::Drills(units) => drills::summary(units, &took),
        Items::Pruned(entries) if entries.is_empty() && !outcome.problems.is_empty() => None,
        Items::Pruned(entries)
            if !dry_run && !entries.iter().any(|entry| matches!(entry.decision, PruneDecision::Pin | PruneDecision::Unpin)) =>
        {
            let deleted: Vec<_> = entries.iter().filter(|entry| is_deleted(entry)).collect();
            let left = entries.iter().filter(|entry| entry.decision == PruneDecision::Delete && !entry.done).count();
            let left = if left == 0 { String::new() } else { format!(", {left} could not be deleted") };
            let kept = entries.iter().filter(|entry| entry.decision == PruneDecision::Keep).count();
            Some(format!("prune: {} deleted{}, {kept} kept{left}", deleted.len(), size_of(&deleted)))
        }
        Items::Checks(checks) => {
            let failed = checks.iter().filter(|check| !check.ok).count();
            let mistakes = outcome.problems.iter().filter(|problem| problem.severity == Severity::Failure).count();
            Some(match (checks.len(), failed.max(mistakes)) {
                (_, 1) => "validate: 1 problem found".into(),
                (_, 2..) => format!("validate: {} problems found", failed.max(mistakes)),
                (0, _) => "validate: no mistake found".into(),
                (1, _) => "validate: 1 check ok".into(),
                (all, _) => format!("validate: {all} checks ok"),
            })
        }
        Items::Rows(rows) if rows.is_empty() && outcome.problems.is_empty() => Some("list: no backups found".into()),
        Items::Stats(rows) if rows.is_empty() && outcome.problems.is_empty() => Some("list: no backups found".into()),
        Items::Tables(units) if units.is_empty() && outcome.problems.is_empty() => Some("list: no backups found".into()),
        _ => None,
    }
}

fn is_deleted(entry: &PruneItem) -> bool {
    entry.decision == PruneDecision::Delete && entry.done
}

/// `3 units ok (1 in doubt), 1 failed`.
fn counts(units: &[BackupItem]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for status in [UnitStatus::Ok, UnitStatus::Partial, UnitStatus::Failed, UnitStatus::Skipped] {
        let count = units.iter().filter(|unit| unit.status == status).count();
        if count > 0 {
            let noun = match (parts.is_empty(), count) {
                (true, 1) => " unit",
                (true, _) => " units",
                _ => "",
            };
            let doubted = units.iter().filter(|unit| unit.status == status && !unit.doubts.is_empty()).count();
            let doubted = if doubted > 0 { format!(" ({doubted} in doubt)") } else { String::new() };
            parts.push(format!("{count}{noun} {}{doubted}", status.word()));
        }
    }
    parts.join(", ")
}

/// A problem and, on a line of its own, what to do next.
pub(super) fn problem(problem: &Problem, color: bool) -> String {
    let (word, color_of) = match problem.severity {
        Severity::Failure => ("error", Paint::Red),
        Severity::Partial => ("warning", Paint::Yellow),
        Severity::Notice => ("note", Paint::Cyan),
    };
    let storage = problem.storage.as_ref().map(|name| format!("storage {name}"));
    let parts = [problem.target.clone(), storage, problem.step.clone()];
    let place: String = parts.iter().flatten().flat_map(|part| [visible(part), ": ".into()]).collect();
    let hint = problem.hint.as_deref().map(|hint| format!("\n  hint: {}", prose(hint))).unwrap_or_default();
    format!("{}: {place}{}{hint}", paint(word, color_of, color), prose(&problem.cause))
}

/// A warning about a target that is no problem of its own.
pub(super) fn warning(target: Option<&str>, text: &str, color: bool) -> String {
    let target = target.map(|target| format!("{}: ", visible(target))).unwrap_or_default();
    format!("{}: {target}{}", paint("warning", Paint::Yellow, color), prose(text))
}
