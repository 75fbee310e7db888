//! Where a backup's objects stand in a storage, and what each of them is for: told from their keys alone.

use std::fmt;
use std::str::FromStr;

use super::{Escaped, Id, NameError, RANDOM_LEN, RunId, TIME_LEN};

/// The common beginning of all objects of one backup: `UNIT_ID`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stem {
    /// The unit, as it stands in file names.
    pub unit: Escaped,
    /// The backup.
    pub id: Id,
}

/// What an object beside an artifact is for; the artifact is what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The commit mark.
    Manifest,
    /// What was counted as the stream passed.
    Inventory,
    /// Kept whatever the policy says.
    Pin,
    /// Tripped a guard.
    Suspect,
    /// A suspicious one that a person has accepted.
    Accept,
    /// The outcome of a drill or a verification that ended at this time.
    Proof {
        /// A drill, or a verification.
        kind: ProofKind,
        /// When it ended.
        at: RunId,
        /// Whether it held.
        ok: bool,
    },
    /// The artifact: its file extension, `sql.gz`.
    Artifact(String),
}

/// What looked at a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProofKind {
    /// Every byte was read again and its digest compared.
    Verify,
    /// It was restored into a scratch place and compared.
    Drill,
}

impl Role {
    fn suffix(&self) -> String {
        match self {
            Self::Manifest => "manifest.json".into(),
            Self::Inventory => "inventory.json".into(),
            Self::Pin => "pin".into(),
            Self::Suspect => "suspect".into(),
            Self::Accept => "accept".into(),
            Self::Proof { kind, at, ok } => {
                let kind = match kind {
                    ProofKind::Verify => "verify",
                    ProofKind::Drill => "drill",
                };
                format!("{kind}.{at}.{}", if *ok { "ok" } else { "bad" })
            }
            Self::Artifact(extension) => extension.clone(),
        }
    }

    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "manifest.json" => Self::Manifest,
            "inventory.json" => Self::Inventory,
            "pin" => Self::Pin,
            "suspect" => Self::Suspect,
            "accept" => Self::Accept,
            _ => match suffix.split_once('.') {
                Some(("verify", rest)) => Self::proof(ProofKind::Verify, rest)?,
                Some(("drill", rest)) => Self::proof(ProofKind::Drill, rest)?,
                _ => {
                    let plain =
                        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                    suffix.split('.').all(plain).then(|| Self::Artifact(suffix.to_owned()))?
                }
            },
        })
    }

    fn proof(kind: ProofKind, rest: &str) -> Option<Self> {
        let (at, verdict) = rest.split_once('.')?;
        let ok = match verdict {
            "ok" => true,
            "bad" => false,
            _ => return None,
        };
        Some(Self::Proof { kind, at: at.parse().ok()?, ok })
    }
}

/// A stored object of ours: `HOST/RUN/STEM.SUFFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// The host, as it stands in keys.
    pub host: Escaped,
    /// Which backup it belongs to.
    pub stem: Stem,
    /// What it is for.
    pub role: Role,
}

impl ObjectName {
    /// Where it stands in a storage.
    pub fn key(&self) -> Key {
        Key(format!("{}{}", prefix_of_run(&self.host, self.stem.id.run), self.file_name()))
    }

    /// The last component of its key.
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.stem, self.role.suffix())
    }

    /// Takes a key apart; `None` where it is no name that we would write.
    pub fn parse(key: &Key) -> Option<Self> {
        let mut parts = key.as_str().split('/');
        let (host, run, file) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let host = Escaped::parse(host)?;
        let run: RunId = run.parse().ok()?;
        // The id is found from its fixed form, as a unit's name may hold dots and underscores itself.
        let id_len = TIME_LEN + 1 + RANDOM_LEN;
        let (at, id) = file.match_indices('_').rev().find_map(|(at, _)| {
            let id: Id = file.get(at + 1..at + 1 + id_len)?.parse().ok()?;
            file[at + 1 + id_len..].starts_with('.').then_some((at, id))
        })?;
        let role = Role::parse(file.get(at + 1 + id_len + 1..)?)?;
        let unit = Escaped::parse(&file[..at])?;
        (id.run == run).then_some(Self { host, stem: Stem { unit, id }, role })
    }

    /// The same backup's object of another role.
    #[must_use]
    pub fn sibling(&self, role: Role) -> Self {
        Self { role, ..self.clone() }
    }
}

/// What every key of a host begins with: `web1/`.
pub fn prefix_of_host(host: &Escaped) -> String {
    format!("{}/", host.as_str())
}

/// What every key of a host's run begins with: `web1/20260612_030000Z/`.
pub fn prefix_of_run(host: &Escaped, run: RunId) -> String {
    format!("{}/{run}/", host.as_str())
}

/// A place in a storage: components joined by `/`, none of them empty, `.` or `..`, none over
/// 255 bytes, no control character. S3 clients normalise what is not so, and one key then
/// overwrites another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for Key {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        for part in text.split('/') {
            if part.is_empty() || part == "." || part == ".." {
                return Err(NameError(format!("{text:?} is no key: {part:?} can't be a part of one")));
            }
            if part.len() > 255 || part.chars().any(char::is_control) {
                return Err(NameError(format!("{text:?} is no key: a part is too long or holds a control character")));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.unit, self.id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
