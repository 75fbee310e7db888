//! Where a backup's objects stand in a storage, and what each of them is for: told from their keys alone.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use super::{Escaped, Id, NameError, RANDOM_LEN, RunId, TIME_LEN};

/// Characters of an id: `20260612_030000Z-k3f9`.
const ID_LEN: usize = TIME_LEN + 1 + RANDOM_LEN;

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
        NameReader::default().read(key)
    }

    /// The same backup's object of another role.
    #[must_use]
    pub fn sibling(&self, role: Role) -> Self {
        Self { role, ..self.clone() }
    }
}

/// Takes the keys of a listing apart, one after another. It keeps what neighbours have in common, their directory and
/// the names of their units, so that a hundred thousand backups share a few texts.
#[derive(Debug, Default)]
pub struct NameReader {
    /// The last `HOST/RUN`, and what it says, if it is one.
    directory: String,
    run: Option<(Escaped, RunId)>,
    units: HashSet<Escaped>,
}

impl NameReader {
    /// What [`ObjectName::parse`] says of this key.
    pub fn read(&mut self, key: &Key) -> Option<ObjectName> {
        let (directory, file) = key.as_str().rsplit_once('/')?;
        if self.directory != directory {
            directory.clone_into(&mut self.directory);
            self.run = directory.split_once('/').and_then(|(host, run)| Some((Escaped::parse(host)?, run.parse().ok()?)));
        }
        let (host, run) = self.run.as_ref()?;
        // The id is found from its fixed form, as a unit's name may hold dots and underscores itself.
        let id_at = |at: usize| {
            let id = file.as_bytes().get(at + 1..at + 1 + ID_LEN)?;
            Some((at, Id::read(id).filter(|_| file[at + 1 + ID_LEN..].starts_with('.'))?))
        };
        let (at, id) = file.match_indices('_').rev().find_map(|(at, _)| id_at(at))?;
        let role = Role::parse(file.get(at + 1 + ID_LEN + 1..)?)?;
        if id.run != *run {
            return None;
        }
        let unit = &file[..at];
        let unit = if let Some(known) = self.units.get(unit) {
            known.clone()
        } else {
            let unit = Escaped::parse(unit)?;
            self.units.insert(unit.clone());
            unit
        };
        Some(ObjectName { host: host.clone(), stem: Stem { unit, id }, role })
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
            let control = if part.is_ascii() {
                part.bytes().any(|byte| byte.is_ascii_control())
            } else {
                part.chars().any(char::is_control)
            };
            if part.len() > 255 || control {
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
