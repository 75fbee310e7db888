//! Refuses what a hostile tar could do outside of the place it is unpacked in, before tar sees it: names that lead out,
//! and whatever stands behind a symbolic link that the tar itself has laid. It keeps of the links' names their hashes,
//! of everything else nothing.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use super::members::{Member, MemberKind, Visitor};
use crate::error::{Error, Kind, Result};

#[cfg(test)]
mod tests;

/// No more of a name is shown than a path of a system call has.
const LONGEST_SHOWN: usize = 4096;

/// Which tar unpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Gnu,
    /// It takes a member's name from its header, whatever a pax header says.
    Busybox,
}

/// A visitor that lets only those members pass that stay within the destination.
pub(super) struct Guard {
    reader: Reader,
    links: Links,
}

impl Guard {
    /// For a tar that this program unpacks, into an empty directory.
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, links: Links { keys: [RandomState::new(), RandomState::new()], names: HashSet::new() } }
    }

    /// Why a member is refused.
    fn judge(&mut self, member: &Member<'_>) -> Result<(), String> {
        if member.extended && self.reader == Reader::Busybox {
            return Err("has a pax header, which this tar does not read".into());
        }
        if let MemberKind::Other(letter) = member.kind {
            return Err(format!("is of a kind that no backup has ({:?})", char::from(letter)));
        }
        let way = self.links.way(member.path).map_err(|why| format!("has a name that {why}"))?;
        // The destination itself is there already, and a directory.
        if way.is_top && member.kind != MemberKind::Directory {
            return Err("would take the place of the destination itself".into());
        }
        if way.is_link {
            return Err("would take the place of a symbolic link that came before".into());
        }
        let mut is_link = member.kind == MemberKind::SymbolicLink;
        if member.kind == MemberKind::HardLink {
            let target = self.links.way(member.link);
            let target = target.map_err(|why| format!("is a hard link to {}, which {why}", shown(member.link)))?;
            if target.is_top {
                return Err("is a hard link to the destination itself".into());
            }
            // Another name of a link leads where that one does.
            is_link = target.is_link;
        }
        if is_link {
            self.links.names.insert(way.hash);
        }
        Ok(())
    }
}

impl Visitor for Guard {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        self.judge(member).map_err(|why| {
            Error::new(Kind::Damaged, format!("the archive's member {} {why}", shown(member.path)))
                .hint("the archive was not made by this program, or was changed since: nothing of it was left at the destination")
        })
    }
}

/// The names of the links so far, hashed with keys that no one who makes a tar can know.
struct Links {
    keys: [RandomState; 2],
    names: HashSet<u128>,
}

/// Where a name leads.
struct Way {
    hash: u128,
    /// To one of the links.
    is_link: bool,
    /// To where all names begin: `.`.
    is_top: bool,
}

impl Links {
    /// Goes a name's way, and says why where it may not be gone.
    fn way(&self, name: &[u8]) -> Result<Way, &'static str> {
        if name.is_empty() {
            return Err("is empty");
        }
        if name.starts_with(b"/") {
            return Err("begins at the root");
        }
        let mut hashers: [DefaultHasher; 2] = [self.keys[0].build_hasher(), self.keys[1].build_hasher()];
        let mut way = Way { hash: 0, is_link: false, is_top: true };
        for component in name.split(|byte| *byte == b'/').filter(|component| !matches!(*component, b"" | b".")) {
            if component == b".." {
                return Err("leads upwards (..)");
            }
            if way.is_link {
                return Err("leads through a symbolic link of the archive");
            }
            for hasher in &mut hashers {
                hasher.write(component);
                hasher.write_u8(b'/');
            }
            way.hash = (u128::from(hashers[0].finish()) << 64) | u128::from(hashers[1].finish());
            way.is_link = self.names.contains(&way.hash);
            way.is_top = false;
        }
        Ok(way)
    }
}

/// A name for a message: what could steer a terminal, or is no UTF-8, as `\n` or `\ooo`.
pub(super) fn shown(name: &[u8]) -> String {
    let (name, rest) = name.split_at(name.len().min(LONGEST_SHOWN));
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                '\\' => text.push_str("\\\\"),
                _ if is_invisible(character) => octal(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => text.push(character),
            }
        }
        octal(&mut text, chunk.invalid());
    }
    if !rest.is_empty() {
        text.push('…');
    }
    text
}

fn octal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(text, "\\{byte:03o}");
    }
}

/// Control characters, and those that turn the writing's direction or have no width.
fn is_invisible(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    );
    character.is_control() || is_format
}
