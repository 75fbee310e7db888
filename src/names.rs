//! Names of units, runs, backups and stored objects: parsed and printed here and nowhere else.
//!
//! Identity is exact: a stored object belongs to a unit because its parsed name says so, never
//! because a prefix matches. Nothing here touches a disk or a clock.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How a run's time is written: `20260612_030000Z`.
const TIME_FORMAT: &str = "%Y%m%d_%H%M%SZ";
const TIME_LEN: usize = 16;
/// Characters behind the dash of an [`Id`].
const RANDOM_LEN: usize = 4;
/// The longest escaped unit or host name, in bytes. With an id, the longest suffix
/// (`.drill.TIME.bad`) and a temporary name's decoration it stays under the 255 bytes of a file name.
const MAX_ESCAPED: usize = 190;
const HASH_LEN: usize = 16;

/// Why a text is not the name it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

/// The target's name: letters, digits, `-` and `_`, beginning with a letter or digit.
/// It holds no dot, so that `TARGET.DATABASE` is one unit's name and no other's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

impl TargetName {
    /// The name as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let usable = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() {
            return Err(NameError("it is empty".into()));
        }
        if text.len() > 100 {
            return Err(NameError(format!("it has {} bytes, 100 are the most", text.len())));
        }
        if let Some(bad) = text.chars().find(|c| !usable(*c)) {
            return Err(NameError(format!("{bad:?} can't stand in a name: use letters, digits, '-' and '_'")));
        }
        if !text.starts_with(char::is_alphanumeric) {
            return Err(NameError("it must begin with a letter or a digit".into()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What one artifact holds: a target, or one database of a target that names several
/// (`cluster.shop`). The text before the first dot is the target's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitName(String);

impl UnitName {
    /// The unit of a target that is one unit.
    pub fn of_target(target: &TargetName) -> Self {
        Self(target.0.clone())
    }

    /// The unit of one database of a target that names several.
    pub fn of_database(target: &TargetName, database: &str) -> Self {
        Self(format!("{}.{database}", target.0))
    }

    /// A unit's name as a manifest or a user gives it; it is not checked against any config.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The name as it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in file names and keys.
    pub fn escaped(&self) -> Escaped {
        Escaped::of(&self.0)
    }
}

/// The host of a backup: the first level in every storage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostName(String);

impl HostName {
    /// A host's name; any text that is not empty.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() { Err(NameError("it is empty".into())) } else { Ok(Self(text)) }
    }

    /// The name as it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in file names and keys.
    pub fn escaped(&self) -> Escaped {
        Escaped::of(&self.0)
    }
}

/// A unit's or host's name as it stands in file names and keys: what a file name can't take is
/// written `%XX`; a name that is too long is cut and ends in `~` and a hash of the whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Escaped(String);

impl Escaped {
    fn of(name: &str) -> Self {
        let mut out = String::with_capacity(name.len());
        for (at, byte) in name.bytes().enumerate() {
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0);
            if plain {
                out.push(char::from(byte));
            } else {
                out.push('%');
                out.push_str(&hex(&[byte]).to_ascii_uppercase());
            }
        }
        if out.len() > MAX_ESCAPED {
            let hash = hex(&Sha256::digest(name.as_bytes()));
            let mut keep = MAX_ESCAPED - HASH_LEN - 1;
            // An escape is not cut in two.
            if let Some(percent) = out[keep - 2..keep].find('%') {
                keep = keep - 2 + percent;
            }
            out.truncate(keep);
            out.push('~');
            out.push_str(&hash[..HASH_LEN]);
        }
        Self(out)
    }

    /// Takes a directory's or file's name apart; `None` where we would not have written it so.
    pub fn parse(text: &str) -> Option<Self> {
        let candidate = Self(text.to_owned());
        if text.is_empty() || text.len() > MAX_ESCAPED {
            return None;
        }
        match candidate.unescape() {
            Some(name) => (Self::of(&name) == candidate).then_some(candidate),
            None => candidate.is_cut().then_some(candidate),
        }
    }

    /// The text as it stands in a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name it was made from; `None` where it was cut (the manifest knows it) or is not ours.
    pub fn unescape(&self) -> Option<String> {
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut rest = self.0.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first == b'%' {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            } else {
                bytes.push(first);
                rest = tail;
            }
        }
        let name = String::from_utf8(bytes).ok()?;
        (Self::of(&name) == *self).then_some(name)
    }

    fn is_cut(&self) -> bool {
        self.0.rsplit_once('~').is_some_and(|(_, hash)| {
            hash.len() == HASH_LEN && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }
}

/// One `backup` call, named by its start in UTC, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(DateTime<Utc>);

impl RunId {
    /// The run that starts at this time; what is finer than a second is dropped.
    pub fn starting(at: DateTime<Utc>) -> Self {
        let whole = DateTime::from_timestamp(at.timestamp(), 0);
        Self(whole.unwrap_or(at))
    }

    /// When the run started.
    pub fn time(self) -> DateTime<Utc> {
        self.0
    }
}

/// One backup: its run and four random characters of a-z and 0-9, new at each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id {
    run: RunId,
    random: [u8; RANDOM_LEN],
}

impl Id {
    /// A new id of this run; `entropy` is four random bytes or more.
    pub fn new(run: RunId, entropy: [u8; 8]) -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut number = u64::from_le_bytes(entropy);
        let random = [(); RANDOM_LEN].map(|()| {
            let character = ALPHABET[usize::try_from(number % 36).unwrap_or(0)];
            number /= 36;
            character
        });
        Self { run, random }
    }

    /// The run it belongs to.
    pub fn run(self) -> RunId {
        self.run
    }

    /// The four characters that are enough to type.
    pub fn short(&self) -> &str {
        std::str::from_utf8(&self.random).unwrap_or_default()
    }
}

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

impl FromStr for RunId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError(format!("{text:?} is no run's time like 20260612_030000Z"));
        if text.len() != TIME_LEN {
            return Err(error());
        }
        let time = NaiveDateTime::parse_from_str(text, TIME_FORMAT).map_err(|_| error())?.and_utc();
        let run = Self(time);
        // chrono reads a second of 60 and the like: only what prints the same is ours.
        if run.to_string() == text { Ok(run) } else { Err(error()) }
    }
}

impl FromStr for Id {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError(format!("{text:?} is no backup's id like 20260612_030000Z-k3f9"));
        let (run, random) = text.split_once('-').ok_or_else(error)?;
        let random: [u8; RANDOM_LEN] = random.as_bytes().try_into().map_err(|_| error())?;
        if !random.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(error());
        }
        Ok(Self { run: run.parse().map_err(|_| error())?, random })
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format(TIME_FORMAT))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.short())
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

macro_rules! text_form {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }
    )*};
}
text_form!(TargetName, RunId, Id);

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(unit: &str, role: Role) -> ObjectName {
        let id: Id = "20260612_030000Z-k3f9".parse().unwrap();
        ObjectName { host: Escaped::of("web1"), stem: Stem { unit: Escaped::of(unit), id }, role }
    }

    #[test]
    fn names_read_as_the_layout_shows_them() {
        let key = name("cluster.shop", Role::Artifact("dump.zst".into())).key();
        assert_eq!(key.as_str(), "web1/20260612_030000Z/cluster.shop_20260612_030000Z-k3f9.dump.zst");
    }

    #[test]
    fn a_target_with_a_dot_is_refused() {
        assert!("cluster.shop".parse::<TargetName>().is_err());
        assert!("größe-1_x".parse::<TargetName>().is_ok());
    }

    #[test]
    fn a_name_of_any_length_fits_a_file_name_and_meets_no_other() {
        let long = "é".repeat(300);
        let other = format!("{}x", "é".repeat(299));
        let proof = Role::Proof { kind: ProofKind::Verify, at: "20260612_030000Z".parse().unwrap(), ok: false };
        assert!(name(&long, proof).file_name().len() <= 255 - 14);
        assert_ne!(Escaped::of(&long), Escaped::of(&other));
        assert_eq!(Escaped::parse(Escaped::of(&long).as_str()), Some(Escaped::of(&long)));
    }

    #[test]
    fn keys_that_clients_normalise_are_refused() {
        for bad in ["", "/a", "a/", "a//b", "a/../b", "./a", "a/\n"] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_unit_name_survives_its_key(unit in "\\PC{1,80}|[a-z_.0-9Z-]{1,60}", ok: bool) {
            let at = "20270101_000000Z".parse().unwrap();
            for role in [Role::Manifest, Role::Pin, Role::Artifact("sql.gz".into()), Role::Proof { kind: ProofKind::Drill, at, ok }] {
                let object = name(&unit, role);
                prop_assert!(object.key().as_str().parse::<Key>().is_ok());
                let parsed = ObjectName::parse(&object.key());
                prop_assert_eq!(parsed.as_ref(), Some(&object));
                if !object.stem.unit.is_cut() {
                    prop_assert_eq!(object.stem.unit.unescape(), Some(unit.clone()));
                }
            }
        }

        #[test]
        fn no_text_is_taken_for_a_name_that_prints_otherwise(text in "[a-z0-9_Z./%~-]{1,60}|web1/20260612_030000Z/[a-z_]{0,5}_20260612_030000Z-[a-z0-9]{4}[.][a-z.]{0,12}") {
            if let Ok(key) = text.parse::<Key>() && let Some(object) = ObjectName::parse(&key) {
                prop_assert_eq!(object.key(), key);
            }
        }
    }
}
