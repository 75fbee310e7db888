//! A value that must not be shown. It is kept as the user wrote it and read when it is needed.

use std::fmt;
use std::path::PathBuf;

/// A password or the like; `Debug` and messages show what the user wrote, never the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// How the user wrote it: `${PG_PASSWORD}`, `{ file: /run/secrets/pg }`; a literal shows as `***`.
    pub written: String,
    /// Where the value comes from.
    pub from: SecretFrom,
}

/// Where a secret's value comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// The value, with variables expanded.
    Value(String),
    /// A file's content, less one trailing newline.
    File(PathBuf),
    /// What a command prints, less one trailing newline. The first is the program.
    Command(Vec<String>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.written)
    }
}
