//! Outcome to exit code: one table, published in `docs/exit-codes.md`. Nothing else in the program
//! decides on a code, and nothing that failed comes out as 0.

use crate::error::Kind;
use crate::outcome::{DrillItem, DrillStatus, Items, Outcome, RestoreStatus, Severity, UnitStatus, Verdict};

/// A usage error: found by the command line's parser, before there is an outcome.
pub const USAGE: Verdict = Verdict { code: 2, word: "refused" };

/// The exit code and its word: the first row that applies.
pub fn verdict(outcome: &Outcome) -> Verdict {
    let code = code(outcome);
    Verdict { code, word: word(code) }
}

/// The exit code: the first row that applies.
pub fn code(outcome: &Outcome) -> u8 {
    let failed = |kinds: &[Kind]| {
        outcome.problems.iter().any(|problem| problem.severity == Severity::Failure && kinds.contains(&problem.kind))
    };
    let any = |severity| outcome.problems.iter().any(|problem| problem.severity == severity);
    let (done, broken, in_part) = look(&outcome.items);
    if let Some(signal) = outcome.signal {
        return of_signal(signal);
    }
    // 2 and 4 promise that nothing was done: where something was, the same failure weighs as 1.
    match () {
        () if failed(&[Kind::Locked]) => 75,
        () if failed(&[Kind::Config, Kind::Refused]) && !done => 2,
        () if failed(&[Kind::NotFound]) && !done => 4,
        () if any(Severity::Failure) || broken => 1,
        () if any(Severity::Partial) || in_part => 3,
        () => 0,
    }
}

/// The word for a code, in the JSON document's `outcome`.
pub fn word(code: u8) -> &'static str {
    match code {
        0 => "ok",
        2 => "refused",
        3 => "partial",
        4 => "not_found",
        75 => "locked",
        128.. => "interrupted",
        _ => "failed",
    }
}

/// The code when the result could not be written to standard output: a reader that got less than
/// all must not see success. What outranks 1 stays.
pub fn unwritten(code: u8) -> u8 {
    if matches!(code, 0 | 3) { 1 } else { code }
}

fn of_signal(signal: i32) -> u8 {
    let signal = u8::try_from(signal).unwrap_or(127).clamp(1, 127);
    128 + signal
}

/// What the items themselves say: whether anything was done, failed, or was done in part. A failed
/// unit whose problem got lost must not come out as 0.
fn look(items: &Items) -> (bool, bool, bool) {
    match items {
        Items::Backups(units) => {
            let has = |wanted| units.iter().any(|unit| unit.status == wanted);
            (units.iter().any(|unit| unit.status.is_stored()), has(UnitStatus::Failed), has(UnitStatus::Partial))
        }
        Items::Restores(units) => (units.iter().any(|unit| unit.status == RestoreStatus::Done), false, false),
        Items::Drills(units) => {
            // A drill that was begun is something done, however it ended: 2 would say that the call was wrong.
            let begun = |unit: &DrillItem| unit.id.is_some() && unit.status != DrillStatus::Planned;
            (units.iter().any(begun), units.iter().any(|unit| unit.status == DrillStatus::Failed), false)
        }
        Items::Pruned(entries) => (entries.iter().any(|entry| entry.done), false, false),
        Items::Checks(checks) => (false, checks.iter().any(|check| !check.ok), false),
        Items::Rows(_) | Items::Stats(_) | Items::Tables(_) | Items::Text(_) => (false, false, false),
    }
}

#[cfg(test)]
mod tests;
