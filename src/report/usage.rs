//! What is answered when the command line does not give a command to run: help and version, and
//! usage errors, as JSON too where that was asked for.

use chrono::{DateTime, Utc};

use super::json;
use super::stream::Stream;
use crate::error::{Error, Kind};
use crate::outcome::{Items, Outcome, Problem, Severity, Verdict};

/// What is known of a call whose arguments could not be read.
pub struct Usage {
    /// The command it named; empty where it named none.
    pub command: &'static str,
    /// Whether the JSON document was asked for.
    pub json: bool,
    /// The time now.
    pub now: DateTime<Utc>,
    /// The verdict on a usage error.
    pub refused: Verdict,
}

/// Prints the parser's answer, and gives the exit code: 0 for help and version.
pub fn usage(answer: &clap::Error, call: &Usage, stdout: &Stream, stderr: &Stream) -> u8 {
    let is_error = answer.exit_code() != 0;
    let stream = if answer.use_stderr() { stderr } else { stdout };
    let text = answer.render();
    let text = if stream.color() { text.ansi().to_string() } else { text.to_string() };
    let mut written = stream.put(text.as_bytes());
    if is_error && call.json {
        written = written.and(stdout.put(document(answer, call).as_bytes()));
    }
    match written {
        Err(error) if !is_error && error.kind() != std::io::ErrorKind::BrokenPipe => 1,
        _ if is_error => call.refused.code,
        _ => 0,
    }
}

fn document(answer: &clap::Error, call: &Usage) -> String {
    let text = answer.render().to_string();
    // With no argument at all the parser answers with its help, whose first line says nothing of it.
    let missing = answer.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let cause = if missing { "no command was given" } else { text.lines().next().unwrap_or_default() };
    let error = Error::new(Kind::Config, cause.strip_prefix("error: ").unwrap_or(cause))
        .step("command line")
        .hint("db-backup-tools --help shows what there is");
    let outcome = Outcome {
        command: call.command,
        started: call.now,
        finished: call.now,
        signal: None,
        items: Items::Text(Vec::new()),
        problems: vec![Problem::of(&error, Severity::Failure)],
    };
    json::document(&outcome, call.refused, false).unwrap_or_default()
}
