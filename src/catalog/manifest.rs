//! The manifest: the small JSON beside an artifact that says all about it, and whose presence says
//! that it is whole. Versioned; unknown fields are kept; no path in it is ever trusted.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::names::{HostName, Id, RunId, TargetName, UnitName};
use crate::source::Facts;

/// The version that we write, and the newest that we read.
pub const SCHEMA: u32 = 1;

/// All about one backup. `docs/storage-layout.md` defines every field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version.
    pub schema: u32,
    /// The backup.
    pub id: Id,
    /// Its run.
    pub run: RunId,
    /// Whose it is.
    pub host: HostName,
    /// What it holds.
    pub unit: UnitName,
    /// The target of the unit.
    pub target: TargetName,
    /// kind, database, format, versions, restore.
    #[serde(flatten)]
    pub facts: Facts,
    /// The program that made it: `db-backup-tools 0.1.0`.
    pub tool: String,
    /// When the attempt started.
    pub started: DateTime<Utc>,
    /// When its bytes were all there.
    pub finished: DateTime<Utc>,
    /// The file beside it.
    pub artifact: ArtifactFacts,
    /// What comes out of it.
    pub content: ContentFacts,
    /// How it is compressed.
    pub compression: CompressionFacts,
    /// How it is encrypted; not yet.
    pub encryption: Option<serde_json::Value>,
    /// The user's own words.
    pub label: Option<String>,
    /// What a person should know of it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The inventory beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<InventoryFacts>,
    /// Fields of a later minor change, kept as they are.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// The stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFacts {
    /// Its file name, for a person; the key comes from the manifest's own.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest, 64 hexadecimal digits.
    pub sha256: String,
}

/// The stream before compression and encryption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFacts {
    /// Its size.
    pub bytes: u64,
    /// Its digest, 64 hexadecimal digits.
    pub sha256: String,
}

/// How an artifact is compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionFacts {
    /// `gzip`, `zstd`, `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The level, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
}

/// The inventory beside an artifact, and its totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryFacts {
    /// Its file name.
    pub name: String,
    /// Its digest.
    pub sha256: String,
    /// Tables with data.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
}
