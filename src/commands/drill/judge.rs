//! What a drill's findings mean: what held, what did not, and whether that is the backup's fault.

use crate::config::model::{Check, Target};
use crate::error::{Error, Kind, Result};
use crate::names::UnitName;
use crate::outcome::QuestionItem;
use crate::plan::Names;
use crate::source::Comparison;

/// Differences that a message names; the JSON document has them all.
const SHOWN: usize = 20;

/// What the place of a drill lacks or lost, in what PostgreSQL's programs say of a failed load, in lower case.
/// Everything else that a server says about a statement is about the dump.
const SURROUNDINGS: [&str; 33] = [
    // Class 53, insufficient resources, and the system's own words for it.
    "no space left on device",
    "disk full",
    "disk quota exceeded",
    "could not extend file",
    "could not write to file",
    "could not fsync file",
    "input/output error",
    "out of memory",
    "out of shared memory",
    "could not resize shared memory segment",
    "too many clients",
    "remaining connection slots",
    "configuration limit exceeded",
    // Class 57, somebody ended it.
    "canceling statement",
    "terminating connection",
    "server closed the connection",
    "connection to server",
    "the database system is",
    "cannot execute",
    // What is not installed there, or is of another version.
    "extension control file",
    "extension \"",
    "could not load library",
    "could not access file",
    "could not find function",
    "unrecognized configuration parameter",
    "invalid locale",
    "could not open collator",
    "tablespace \"",
    "permission denied",
    "must be superuser",
    "must be owner of",
    "only superuser",
    "invalid value for parameter",
];

/// Whether a failed drill says that the backup is bad: it was not what was written, it did not load, or it holds
/// other things than were dumped. Not for a check that did not hold, and not where the drill could not run.
///
/// A damaged inventory is no bad backup either: a restore needs none. The drill fails, as it proves nothing.
pub(super) fn is_backups_fault(error: &Error) -> bool {
    let step = error.place().step.as_deref();
    match error.kind() {
        Kind::Damaged => step != Some("inventory"),
        // What no dump of ours holds.
        Kind::Check => step == Some("load"),
        Kind::Child if step == Some("load") => {
            let said = error.cause().to_ascii_lowercase();
            // psql's code for a statement that failed; pg_restore quotes the server, or what it can't read.
            let is_statement = said.contains("exited with code 3:") || said.contains("error:");
            let is_archive =
                ["unexpected end of file", "end of file", "unexpected block id", "magic string", "unexpected section"]
                    .iter()
                    .any(|text| said.contains(text));
            let is_missing_role = said.contains("role \"") && said.contains("does not exist");
            (is_statement || is_archive)
                && !is_missing_role
                && !said.contains("was killed by")
                && !SURROUNDINGS.iter().any(|text| said.contains(text))
        }
        _ => false,
    }
}

/// What differs from what was dumped, as one failure.
pub(in crate::commands) fn differences(compared: &Comparison) -> Option<Error> {
    let differences = &compared.differences;
    let shown = differences.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = match differences.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (!differences.is_empty()).then(|| {
        Error::new(Kind::Damaged, format!("what was restored is not what was dumped: {shown}{more}"))
            .hint("the backup counts as damaged now: restore another one (list shows them), take a new one, and drill that")
            .step("compare")
    })
}

/// Nothing was held against anything: that must not look like a proof.
pub(super) fn nothing_compared(is_volume: bool) -> Error {
    if is_volume {
        return Error::new(Kind::Check, "nothing was compared: the backup has no inventory of its files")
            .hint("take a new backup, and drill that")
            .step("compare");
    }
    Error::new(Kind::Check, "nothing was compared: the dump holds no table with data, no sequence and no large object")
        .hint("say by `checks:` in the target what the restored database must answer")
        .step("compare")
}

/// The checks that are put to this unit.
pub(in crate::commands) fn asked<'a>(target: &'a Target, unit: &UnitName, database: Option<&str>) -> Result<Vec<&'a Check>> {
    let mut asked = Vec::new();
    // Roles and tablespaces are no database that could be asked.
    for check in target.checks().iter().filter(|_| !unit.is_globals()) {
        let database = database.or_else(|| unit.database_of(&target.name)).unwrap_or_default();
        if Names::new(&check.databases)?.matches_text(database) {
            asked.push(check);
        }
    }
    Ok(asked)
}

/// What came of a question, and why it did not hold, where it did not. An error is one that ended the drill.
pub(in crate::commands) fn answered(check: &Check, answer: Result<String>) -> Result<(QuestionItem, Option<Error>)> {
    let expected = check.expect.clone().unwrap_or_else(|| "true".to_owned());
    let question =
        |ok, found: &str| QuestionItem { name: check.name.clone(), ok, expected: expected.clone(), found: found.to_owned() };
    let failure = |what: String, hint: &str| Some(Error::new(Kind::Check, what).hint(hint).step("check"));
    Ok(match answer {
        Ok(found) if holds(&expected, &found) => (question(true, &found), None),
        Ok(found) => {
            let what = format!("check {:?} does not hold: expected {expected:?}, found {found:?}", check.name);
            let hint = "the backup is as it was dumped, and stays whole: was the data wrong by then, or is the check?";
            (question(false, &found), failure(what, hint))
        }
        Err(error) if matches!(error.kind(), Kind::Interrupted | Kind::Timeout | Kind::Connection) => {
            return Err(error.step("check"));
        }
        Err(error) => {
            let cause = error.cause();
            let what = format!("check {:?} could not be asked: {cause}", check.name);
            let hint = "try its `sql:` with psql on the live database: it is one query, and may change nothing";
            (question(false, &format!("error: {cause}")), failure(what, hint))
        }
    })
}

/// psql writes a true boolean `t`.
fn holds(expected: &str, found: &str) -> bool {
    expected == found || matches!((expected, found), ("true", "t") | ("false", "f"))
}

#[cfg(test)]
mod tests;
