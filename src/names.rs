//! Names of units, runs, backups and stored objects: parsed and printed here and nowhere else.
//!
//! Identity is exact: a stored object belongs to a unit because its parsed name says so, never
//! because a prefix matches. Nothing here touches a disk or a clock.

mod object;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use object::{Key, NameReader, ObjectName, ProofKind, Role, Stem, prefix_of_host, prefix_of_run};

/// Characters of a run's time: `20260612_030000Z`.
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

/// What stands behind the target's name in that of its globals. No target's name and no database's unit
/// holds the colon before a dot, so no database can have it.
const GLOBALS: &str = ":globals";

/// What one artifact holds: a target, one database of a target that names several (`cluster.shop`), or a
/// server's roles and tablespaces (`cluster:globals`). The text before the first dot or colon is the target's name.
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

    /// The unit of a target's roles and tablespaces.
    pub fn of_globals(target: &TargetName) -> Self {
        Self(format!("{}{GLOBALS}", target.0))
    }

    /// What stands before the first dot or colon: the target's name, where it is a unit of ours.
    pub fn target_part(&self) -> &str {
        self.0.split(['.', ':']).next().unwrap_or_default()
    }

    /// The database whose unit this is, where it is of this target and of one that names several.
    pub fn database_of(&self, target: &TargetName) -> Option<&str> {
        self.0.strip_prefix(target.as_str())?.strip_prefix('.').filter(|database| !database.is_empty())
    }

    /// Whether it is of a target's roles and tablespaces.
    pub fn is_globals(&self) -> bool {
        self.0.split_once(GLOBALS).is_some_and(|(target, rest)| rest.is_empty() && !target.contains('.'))
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
///
/// A listing has the same few of them a hundred thousand times: clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Escaped(Arc<str>);

impl Borrow<str> for Escaped {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Escaped {
    fn of(name: &str) -> Self {
        if is_plain(name) {
            return Self(name.into());
        }
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
        Self(out.into())
    }

    /// Takes a directory's or file's name apart; `None` where we would not have written it so.
    pub fn parse(text: &str) -> Option<Self> {
        let candidate = Self(text.into());
        if is_plain(text) {
            return Some(candidate);
        }
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

/// Whether a name stands in files as it is.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_ESCAPED).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
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

impl FromStr for RunId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError(format!("{text:?} is no run's time like 20260612_030000Z"));
        time_of(text.as_bytes()).map(Self).ok_or_else(error)
    }
}

/// `20260612_030000Z`, digit by digit: a listing has hundreds of thousands of them. Only what prints the same is ours.
fn time_of(text: &[u8]) -> Option<DateTime<Utc>> {
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0_u32, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
    };
    if text.len() != TIME_LEN || text[8] != b'_' || text[15] != b'Z' {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(4, 6)?, number(6, 8)?)?;
    Some(date.and_hms_opt(number(9, 11)?, number(11, 13)?, number(13, 15)?)?.and_utc())
}

impl FromStr for Id {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError(format!("{text:?} is no backup's id like 20260612_030000Z-k3f9"));
        Self::read(text.as_bytes()).ok_or_else(error)
    }
}

impl Id {
    fn read(text: &[u8]) -> Option<Self> {
        let (run, random) = text.split_at_checked(TIME_LEN)?;
        let random: [u8; RANDOM_LEN] = random.strip_prefix(b"-")?.try_into().ok()?;
        let known = random.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        known.then_some(Self { run: RunId(time_of(run)?), random })
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
        let (date, time) = (self.0.date_naive(), self.0.time());
        write!(f, "{:04}{:02}{:02}_", date.year(), date.month(), date.day())?;
        write!(f, "{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.short())
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
