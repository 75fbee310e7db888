//! The `--json` document: one object, on one line, whatever happened. Within a schema number fields
//! are only added.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::outcome::{Items, Outcome, Problem, Verdict};

/// The version that we write.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    command: &'a str,
    exit_code: u8,
    outcome: &'a str,
    dry_run: bool,
    started: String,
    finished: String,
    items: &'a Items,
    problems: &'a [Problem],
}

/// The document, with a line end.
pub(super) fn document(outcome: &Outcome, verdict: Verdict, dry_run: bool) -> Result<String> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let document = Document {
        schema: SCHEMA,
        command: outcome.command,
        exit_code: verdict.code,
        outcome: verdict.word,
        dry_run,
        started: time(outcome.started),
        finished: time(outcome.finished),
        items: &outcome.items,
        problems: &outcome.problems,
    };
    let text = serde_json::to_string(&document);
    text.map(|text| text + "\n").map_err(|error| Error::new(Kind::Internal, "can't write the result as JSON").source(error))
}
