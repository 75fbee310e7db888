//! `restore --drill` as text: what would be drilled, what was not begun, and the count at the end.

use super::table::{Paint, Table, visible};
use crate::outcome::{DrillItem, DrillStatus};

/// The plan: which backups would be drilled, and where.
pub(super) fn plan(units: &[DrillItem]) -> String {
    let planned: Vec<&DrillItem> = units.iter().filter(|unit| unit.status == DrillStatus::Planned).collect();
    if planned.is_empty() {
        return String::new();
    }
    let plain = |text: &str| -> (String, Option<Paint>) { (text.to_owned(), None) };
    let mut table = Table::new(&["UNIT", "ID", "STORAGE", "WHERE"], &[]);
    for unit in planned {
        let id = unit.id.map(|id| id.to_string()).unwrap_or_default();
        table.row(vec![plain(&unit.unit), plain(&id), plain(unit.storage.as_deref().unwrap_or_default()), plain(&unit.place)]);
    }
    table.render(false, None)
}

/// The line of a drill that was not told as it ended: it was never begun.
pub(super) fn drilled(unit: &DrillItem) -> String {
    format!("{}: drill {}", visible(&unit.unit), unit.status.word())
}

/// `drill: 3 units passed, 1 failed in 12s`; `None` for a plan.
pub(super) fn summary(units: &[DrillItem], took: &str) -> Option<String> {
    if units.is_empty() || units.iter().any(|unit| unit.status == DrillStatus::Planned) {
        return None;
    }
    let mut parts: Vec<String> = Vec::new();
    for status in [DrillStatus::Passed, DrillStatus::Failed, DrillStatus::Skipped] {
        let count = units.iter().filter(|unit| unit.status == status).count();
        let noun = match (parts.is_empty(), count) {
            (true, 1) => " unit",
            (true, _) => " units",
            _ => "",
        };
        if count > 0 {
            parts.push(format!("{count}{noun} {}", status.word()));
        }
    }
    Some(format!("drill: {} in {took}", parts.join(", ")))
}
