//! What tar says while it reads a volume, and what that means for the backup. It is read line by line as it comes, in bounded
//! memory: there may be a million of them. The texts are those of GNU tar (its `create.c`, `misc.c` and `paxerror.c`), under
//! `LC_ALL=C`, `--quoting-style=escape` and `--verbose`, which lists each member before what is said of it; and those of busybox.

mod verdict;

use super::patterns::{Pattern, any_matches};

/// How many names of each sort are kept.
const SHOWN: usize = 20;
/// No name that is shown is longer.
const LONGEST_SHOWN: usize = 300;

/// Names of one sort: how many, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    count: u64,
    first: Vec<String>,
}

impl Names {
    fn push(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            let mut name = name();
            if let Some((at, _)) = name.char_indices().nth(LONGEST_SHOWN) {
                name.truncate(at);
                name.push_str("...");
            }
            self.first.push(name);
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What a user allows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// Files that may change while they are read.
    pub(super) allow_changed: Vec<Pattern>,
    /// What can't be read is a warning.
    pub(super) skip_unreadable: bool,
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// What tar's messages begin with, behind the directories of its path: `tar`.
    program: String,
    rules: Rules,
    /// The last member that was listed, without `./`, quoted as tar does.
    last: Vec<u8>,
    vanished: Names,
    /// They changed, and are gone now.
    gone: Names,
    changed: Names,
    allowed: Names,
    /// Entries came or went.
    directories: Names,
    shrank: Names,
    unreadable: Names,
    /// The rest of their content is zeros.
    broken: Names,
    ignored: Names,
    attributes: Names,
    unexplained: Names,
    /// Warnings of the container engine's client.
    engine: Names,
    /// tar is bound to exit with 2 for one of those that it ignored.
    unknown_kind: bool,
}

impl Messages {
    /// Nothing said so far, by a tar of this name.
    pub(super) fn of(program: &str, rules: Rules) -> Self {
        Self { program: program.to_owned(), rules, ..Self::default() }
    }

    /// Takes a line. `exists` says whether a changed file is still there, where that can be seen.
    pub(super) fn hear(&mut self, line: &[u8], exists: impl Fn(&[u8]) -> bool) {
        if let Some(name) = line.strip_prefix(b"./") {
            self.last.clear();
            self.last.extend_from_slice(name);
            return;
        }
        let whole = String::from_utf8_lossy(line);
        let own = whole.split_once(": ").filter(|(path, _)| path.rsplit('/').next() == Some(&self.program));
        let Some((_, said)) = own else {
            if whole.starts_with("WARNING: ") {
                self.engine.push(|| whole.into_owned());
            } else if !whole.trim().is_empty() {
                self.unexplained.push(|| whole.into_owned());
            }
            return;
        };
        if !self.known(said, &exists) {
            self.unexplained.push(|| said.to_owned());
        }
    }

    /// Takes what tar said, if it is known.
    fn known(&mut self, said: &str, exists: &impl Fn(&[u8]) -> bool) -> bool {
        if is_of_no_account(said) {
            return true;
        }
        if let Some(name) = cant_open(said) {
            match name {
                Refused::Vanished(name) => self.vanished.push(|| show(name)),
                Refused::Unreadable(name, reason) => self.unreadable.push(|| format!("{} ({reason})", show(name))),
            }
            return true;
        }
        let Some((name, text)) = split_name(said) else { return false };
        if text.starts_with("Warning: Cannot ") {
            // The name alone, without its directory.
            self.attributes.push(|| format!("{} ({})", show(name), text.trim_start_matches("Warning: Cannot ")));
            return true;
        }
        let Some(name) = name.strip_prefix("./") else { return name == "." && self.of_the_root(text) };
        self.of_a_member(name, text, exists)
    }

    fn of_the_root(&mut self, text: &str) -> bool {
        if text == "file changed as we read it" {
            self.directories.push(|| ".".into());
            return true;
        }
        false
    }

    fn of_a_member(&mut self, name: &str, text: &str, exists: &impl Fn(&[u8]) -> bool) -> bool {
        let shown = || show(name);
        match text {
            "File removed before we read it" | "No such file or directory" => self.vanished.push(shown),
            "file changed as we read it" => self.changed(name, exists),
            "socket ignored" | "door ignored" => self.ignored.push(shown),
            "Unknown file type; file ignored" => {
                self.ignored.push(shown);
                self.unknown_kind = true;
            }
            // Wanted, with one_file_system and exclude_caches.
            "file is on a different filesystem; not dumped" => tracing::debug!(name, "not on the same file system"),
            _ if text.starts_with("contains a cache directory tag ") => tracing::debug!(name, "a cache"),
            _ if text.starts_with("File shrank by ") => self.shrank(name, text),
            _ if text.starts_with("Cannot ") || text.starts_with("Read error at byte ") => self.failed(name, text),
            _ => return false,
        }
        true
    }

    fn changed(&mut self, name: &str, exists: &impl Fn(&[u8]) -> bool) {
        let raw = unquoted(name);
        // It is said of a directory behind all that is in it. A list quotes no colons.
        let last = unquoted(&String::from_utf8_lossy(&self.last));
        let names = if last.strip_prefix(raw.as_slice()).is_some_and(|rest| rest.starts_with(b"/")) {
            &mut self.directories
        } else if any_matches(&self.rules.allow_changed, &raw) {
            &mut self.allowed
        } else if exists(&raw) {
            &mut self.changed
        } else {
            &mut self.gone
        };
        names.push(|| show(name));
    }

    fn shrank(&mut self, name: &str, text: &str) {
        let allowed = any_matches(&self.rules.allow_changed, &unquoted(name));
        let names = if allowed { &mut self.allowed } else { &mut self.shrank };
        let how_much = text.trim_start_matches("File shrank ").split(';').next().unwrap_or_default();
        names.push(|| format!("{} ({how_much})", show(name)));
    }

    fn failed(&mut self, name: &str, text: &str) {
        let call = text.strip_prefix("Cannot ").and_then(|rest| rest.split_once(": "));
        match call {
            Some(("open" | "stat" | "readlink", "No such file or directory")) => self.vanished.push(|| show(name)),
            Some(("open" | "stat" | "savedir" | "readlink", reason)) => {
                self.unreadable.push(|| format!("{} ({reason})", show(name)));
            }
            _ => self.broken.push(|| format!("{} ({text})", show(name))),
        }
    }
}

/// A message's name, and what is said of it. In a name that tar quotes, a colon has a backslash before it.
fn split_name(said: &str) -> Option<(&str, &str)> {
    let is_plain = |at: usize| said[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0;
    let (at, _) = said.match_indices(": ").find(|(at, _)| is_plain(*at))?;
    Some((&said[..at], &said[at + 2..]))
}

/// What has been said in other words already, or says nothing.
fn is_of_no_account(said: &str) -> bool {
    let last = ["Exiting with failure status due to previous errors", "Error is not recoverable: exiting now"];
    last.contains(&said) || said == "error exit delayed from previous errors"
}

/// What busybox's tar could not open.
enum Refused<'a> {
    Vanished(&'a str),
    Unreadable(&'a str, &'a str),
}

/// busybox's `can't open './NAME': REASON`.
fn cant_open(said: &str) -> Option<Refused<'_>> {
    let (name, reason) = said.strip_prefix("can't open './")?.rsplit_once("': ")?;
    Some(match reason {
        "No such file or directory" => Refused::Vanished(name),
        _ => Refused::Unreadable(name, reason),
    })
}

/// A name for a person: as it is where it can be shown, else as tar quotes it.
fn show(quoted: &str) -> String {
    let raw = unquoted(quoted);
    match String::from_utf8(raw) {
        Ok(text) if !text.contains(char::is_control) => text,
        _ => quoted.to_owned(),
    }
}

/// A name's own bytes, of one that is quoted with `--quoting-style=escape`.
fn unquoted(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        let (byte, length) = match (first, behind) {
            (b'\\', [digit @ b'0'..=b'3', b, c, ..]) if is_octal(*b) && is_octal(*c) => {
                ((digit - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), 3)
            }
            (b'\\', [letter, ..]) => (escaped(*letter), 1),
            (byte, _) => (*byte, 0),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

fn is_octal(byte: u8) -> bool {
    (b'0'..=b'7').contains(&byte)
}

fn escaped(letter: u8) -> u8 {
    match letter {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        other => other,
    }
}

#[cfg(test)]
mod tests;
