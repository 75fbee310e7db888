//! What a command found, as data: reports and the exit code are made from this and nothing else.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use crate::catalog::stats::Stats;
use crate::error::{Error, Kind};
use crate::names::{Id, RunId};
use crate::source::{Comparison, FileCounts};

/// How much a problem weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Said, and no more: it moves no exit code.
    Notice,
    /// Something was done in part, or data is in doubt: exit 3.
    Partial,
    /// A unit failed or a check did not hold; its kind decides the code.
    Failure,
}

/// The exit code, and the word for it. `exit` alone makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The process's exit code.
    pub code: u8,
    /// The JSON document's `outcome`.
    pub word: &'static str,
}

/// Something that went wrong, or nearly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How much it weighs.
    pub severity: Severity,
    /// What sort it is.
    pub kind: Kind,
    /// The target or unit.
    pub target: Option<String>,
    /// The step.
    pub step: Option<String>,
    /// The storage.
    pub storage: Option<String>,
    /// What happened and why.
    pub cause: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of this weight, from an error.
    pub fn of(error: &Error, severity: Severity) -> Self {
        let place = error.place().clone();
        Self {
            severity,
            kind: error.kind(),
            target: place.target,
            step: place.step,
            storage: place.storage,
            cause: error.cause(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// What one call of a command found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// `backup`, `list`, ...
    pub command: &'static str,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// What was found or done.
    pub items: Items,
    /// What went wrong.
    pub problems: Vec<Problem>,
}

/// What was found or done, by command.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Items {
    /// `backup`.
    Backups(Vec<BackupItem>),
    /// `list`.
    Rows(Vec<ListItem>),
    /// `list --stats`.
    Stats(Vec<StatsItem>),
    /// `prune`, and what `backup` pruned.
    Pruned(Vec<PruneItem>),
    /// `restore`.
    Restores(Vec<RestoreItem>),
    /// `restore --drill`.
    Drills(Vec<DrillItem>),
    /// `list --tables`.
    Tables(Vec<TablesItem>),
    /// `validate`.
    Checks(Vec<CheckItem>),
    /// `generate`: text for standard output.
    Text(Vec<TextItem>),
}

/// How a unit of a `backup` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitStatus {
    /// Every storage has it.
    Ok,
    /// Some of its storages have it.
    Partial,
    /// None has it.
    Failed,
    /// It was looked at, and nothing was done.
    Planned,
    /// It was never begun, as the run was interrupted.
    Skipped,
}

impl UnitStatus {
    /// As it is shown, and as it stands in the JSON document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Planned => "planned",
            Self::Skipped => "skipped",
        }
    }

    /// Whether any storage has it.
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Ok | Self::Partial)
    }
}

/// A unit of a `backup`.
#[derive(Debug, Clone, Serialize)]
pub struct BackupItem {
    /// The unit.
    pub unit: String,
    /// How it ended.
    pub status: UnitStatus,
    /// The backup; none where it failed before it had one.
    pub id: Option<Id>,
    /// Its run.
    pub run: RunId,
    /// Bytes stored.
    pub bytes: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The storages that hold it.
    pub storages: Vec<String>,
    /// What each of them holds: a storage that a second attempt served has another id.
    pub copies: Vec<CopyItem>,
    /// For a person, of a plan: which way it goes, estimated size.
    pub detail: Option<String>,
    /// What a person should know of it.
    pub warnings: Vec<String>,
    /// What puts its data in doubt, though it is whole as a stream.
    pub doubts: Vec<String>,
    /// What retention decided after it.
    pub pruned: Vec<PruneItem>,
}

/// What one storage holds of a unit after a `backup`.
#[derive(Debug, Clone, Serialize)]
pub struct CopyItem {
    /// The storage.
    pub storage: String,
    /// The backup there.
    pub id: Id,
    /// Bytes stored.
    pub bytes: u64,
}

/// The state of a stored backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Listed, there at its size, and not found bad.
    Whole,
    /// An artifact or upload without a manifest.
    Incomplete,
    /// Its manifest can't be read, or is of a newer version.
    Unknown,
    /// Missing, of the wrong size, or found bad by a verification or drill.
    Damaged,
    /// It tripped a guard.
    Suspicious,
}

/// A row of `list`.
#[derive(Debug, Clone, Serialize)]
pub struct ListItem {
    /// The backup.
    pub id: String,
    /// Its run.
    pub run: String,
    /// Whose it is.
    pub host: String,
    /// What it holds.
    pub unit: String,
    /// When it started.
    pub started: DateTime<Utc>,
    /// Bytes stored; none where it can't be known.
    pub bytes: Option<u64>,
    /// The storages that hold it.
    pub storages: Vec<String>,
    /// How it is.
    pub state: State,
    /// When it was last proven by a verification or drill that held.
    pub proven: Option<DateTime<Utc>>,
    /// The user's own words.
    pub label: Option<String>,
    /// Whether it is kept whatever the policy says.
    pub pinned: bool,
}

/// A unit's row of `list --stats`.
#[derive(Debug, Clone, Serialize)]
pub struct StatsItem {
    /// Whose.
    pub host: String,
    /// The unit.
    pub unit: String,
    /// The numbers of its whole backups, each counted once.
    #[serde(flatten)]
    pub stats: Stats,
}

/// What `prune` does with a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneDecision {
    /// It stays.
    Keep,
    /// It goes.
    Delete,
    /// By id: it stays whatever the policy says.
    Pin,
    /// By id: the policy holds for it again.
    Unpin,
}

impl PruneDecision {
    /// As it is shown, and as it stands in the JSON document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Delete => "delete",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
        }
    }
}

/// What `prune` decided of one backup in one storage.
#[derive(Debug, Clone, Serialize)]
pub struct PruneItem {
    /// The unit.
    pub unit: String,
    /// The storage.
    pub storage: String,
    /// The backup.
    pub id: String,
    /// When it started.
    pub started: DateTime<Utc>,
    /// Bytes that it takes.
    pub bytes: Option<u64>,
    /// What is done with it.
    pub decision: PruneDecision,
    /// Every reason.
    pub reasons: Vec<String>,
    /// Whether it was carried out.
    pub done: bool,
}

/// How far a `restore` went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStatus {
    /// It is restored.
    Done,
    /// It was looked at, and nothing was done.
    Planned,
}

impl RestoreStatus {
    /// As it stands in the JSON document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Planned => "planned",
        }
    }
}

macro_rules! serialised_as_its_word {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    )*};
}
serialised_as_its_word!(UnitStatus, PruneDecision, RestoreStatus, DrillStatus);

/// A unit of a `restore`.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreItem {
    /// The unit.
    pub unit: String,
    /// The backup.
    pub id: Id,
    /// The storage it was read from.
    pub storage: String,
    /// How far it went.
    pub status: RestoreStatus,
    /// Where it went: `database app_restored`.
    pub destination: String,
    /// Bytes of content.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What may not be as it was, one clause each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// What else is to be known of it, a line each: the former database, and the commands for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillStatus {
    /// It restored, and everything compared was equal.
    Passed,
    /// It did not, or it could not run.
    Failed,
    /// It was looked at, and nothing was done.
    Planned,
    /// It was never begun, as the run was interrupted.
    Skipped,
}

impl DrillStatus {
    /// As it is shown, and as it stands in the JSON document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Planned => "planned",
            Self::Skipped => "skipped",
        }
    }
}

/// A unit of a `restore --drill`.
#[derive(Debug, Clone, Serialize)]
pub struct DrillItem {
    /// The unit.
    pub unit: String,
    /// The backup; none where none was found.
    pub id: Option<Id>,
    /// The storage it was read from.
    pub storage: Option<String>,
    /// How it ended.
    pub status: DrillStatus,
    /// Where it was restored to: `a temporary server 15.18`.
    pub place: String,
    /// Bytes of content.
    pub bytes: u64,
    /// How long the restore itself took, in seconds: the recovery time to expect.
    pub restore_seconds: f64,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// What was compared, and what differed; none where it did not get so far.
    pub compared: Option<Comparison>,
    /// The target's own questions.
    pub checks: Vec<QuestionItem>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A question that a drill asked.
#[derive(Debug, Clone, Serialize)]
pub struct QuestionItem {
    /// Its name.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What was wanted.
    pub expected: String,
    /// What came.
    pub found: String,
}

/// A unit of `list --tables`.
#[derive(Debug, Clone, Serialize)]
pub struct TablesItem {
    /// The unit.
    pub unit: String,
    /// The backup.
    pub id: String,
    /// The one before it, which growth is counted from.
    pub before: Option<String>,
    /// Its tables.
    pub tables: Vec<TableItem>,
    /// Sequences, where they were counted.
    pub sequences: Option<u64>,
    /// Large objects, where they were counted.
    pub large_objects: Option<u64>,
    /// Bytes of their data.
    pub large_object_bytes: Option<u64>,
    /// Roles, in that of a server's globals.
    pub roles: Option<u64>,
    /// Files and directories, in that of a volume, which has no tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FileCounts>,
    /// Those of the one before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_before: Option<FileCounts>,
}

/// A table of `list --tables`.
#[derive(Debug, Clone, Serialize)]
pub struct TableItem {
    /// As in pg_namespace.
    pub schema: String,
    /// As in pg_class.
    pub name: String,
    /// Rows; none where it is gone since the backup before.
    pub rows: Option<u64>,
    /// Bytes of its data in the stream.
    pub bytes: Option<u64>,
    /// Rows in the backup before; none where it was not there, or there is none.
    pub rows_before: Option<u64>,
}

/// Something that `validate` looked at.
#[derive(Debug, Clone, Serialize)]
pub struct CheckItem {
    /// `target mordor`, `storage local`.
    pub subject: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// For a person.
    pub detail: String,
    /// What to do next, where it is not.
    pub hint: Option<String>,
}

impl CheckItem {
    /// A check that did not hold, as its problem says it.
    pub fn failed(subject: impl Into<String>, problem: &Problem) -> Self {
        Self { subject: subject.into(), ok: false, detail: problem.cause.clone(), hint: problem.hint.clone() }
    }
}

/// Text that is the result.
#[derive(Debug, Clone, Serialize)]
pub struct TextItem {
    /// The text.
    pub text: String,
}
