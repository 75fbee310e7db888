//! What a unit held, counted as it passed: the paper that a restored place is held against.

use serde::{Deserialize, Serialize};

/// What a unit held, counted as it passed. A part that is `None` was not counted, and is compared with nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The format's version.
    pub schema: u32,
    /// Tables with data, in the stream's order.
    #[serde(default)]
    pub tables: Vec<TableCount>,
    /// Sequences and where they stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Vec<SequenceState>>,
    /// Large objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<LargeObjects>,
    /// Roles, in that of a server's globals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// Files and directories, in that of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileCounts>,
}

/// One table of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCount {
    /// As in pg_namespace, unquoted.
    pub schema: String,
    /// As in pg_class, unquoted.
    pub name: String,
    /// Rows of its data.
    pub rows: u64,
    /// Bytes of its data in the stream.
    pub bytes: u64,
}

/// One sequence of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    /// As in pg_namespace, unquoted.
    pub schema: String,
    /// As in pg_class, unquoted.
    pub name: String,
    /// Its last value.
    pub last_value: i64,
    /// Whether that value was given out already.
    pub is_called: bool,
}

/// The large objects of an inventory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many.
    pub count: u64,
    /// Bytes of their data.
    pub bytes: u64,
}

/// The files of an inventory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// Regular files; one with several names is one.
    pub files: u64,
    /// Directories, the root among them.
    pub directories: u64,
    /// Symbolic links, and further names of files.
    pub links: u64,
    /// FIFOs and devices.
    pub others: u64,
    /// Bytes of the files' contents, holes too.
    pub bytes: u64,
}

/// What was compared, and what differed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Tables compared.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Sequences compared.
    pub sequences: u64,
    /// Large objects compared.
    pub large_objects: u64,
    /// Roles compared.
    pub roles: u64,
    /// Files, directories, links and others compared.
    pub files: u64,
    /// The same, each kind by itself, and the files' bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<FileCounts>,
    /// Files whose digests were compared.
    pub digests: u64,
    /// Nothing was there that could hold data, neither when it was dumped nor now: that is compared, too.
    pub empty: bool,
    /// One clause each: `public.orders has 24999 rows, 25000 were dumped`.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Whether there was nothing that could be compared: that proves nothing.
    pub fn is_empty(&self) -> bool {
        !self.empty && self.tables + self.sequences + self.large_objects + self.roles + self.files == 0
    }
}
