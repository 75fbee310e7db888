//! Judges an archive that pg_restore is to load by itself: every statement of it is held to the rules for a dump's
//! text, each one alone, as pg_restore sends each alone. What pg_restore would not load, or must not, is not listed.

use std::collections::HashMap;

use super::reader::{Entry, Reader, Visitor};
use crate::error::{Error, Kind, Result};
use crate::source::postgres::filter::{Filter, Omit};

/// One archive's judge.
pub(in super::super) struct Judge {
    reader: Reader,
    court: Court,
}

struct Court {
    filter: Filter,
    /// Numbers of the entries that are to be loaded, in order.
    list: Vec<u32>,
    /// Where the offset of an entry's data is, until the data comes.
    offsets: HashMap<u32, u64>,
    /// Offsets to be written: where, and what.
    found: Vec<(u64, u64)>,
    says_strings: bool,
    /// Whose the schema `public` is to be, where the archive makes that: every database has it already.
    public_owner: Option<String>,
}

impl Judge {
    /// A judge of an archive from which this is left out.
    pub(in super::super) fn new(omit: Omit) -> Self {
        let court = Court {
            filter: Filter::new(omit),
            list: Vec::new(),
            offsets: HashMap::new(),
            found: Vec::new(),
            says_strings: false,
            public_owner: None,
        };
        Self { reader: Reader::default(), court }
    }

    /// Takes the next bytes of the archive. Fails on what must not be loaded.
    pub(in super::super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.feed(bytes, &mut self.court)
    }

    /// Whether the archive is whole, and may be loaded.
    pub(in super::super) fn is_complete(&self) -> bool {
        self.reader.is_complete() && self.court.says_strings
    }

    /// The entries that are to be loaded, as pg_restore's `--use-list` takes them.
    pub(in super::super) fn list(&self) -> String {
        self.court.list.iter().flat_map(|id| [id.to_string(), ";\n".to_owned()]).collect()
    }

    /// The offsets of data that a pg_dump into a pipe could not write: where each belongs, and its nine bytes.
    pub(in super::super) fn offsets(&self) -> impl Iterator<Item = (u64, [u8; 9])> {
        /// `K_OFFSET_POS_SET`.
        const KNOWN: u8 = 2;
        self.court.found.iter().map(|(place, offset)| {
            let mut bytes = [KNOWN; 9];
            bytes[1..].copy_from_slice(&offset.to_le_bytes());
            (*place, bytes)
        })
    }

    /// Whose the schema `public` is to be, which pg_restore is not to make.
    pub(in super::super) fn public_owner(&self) -> Option<&str> {
        self.court.public_owner.as_deref()
    }

    /// The refreshes that are left out.
    pub(in super::super) fn omitted_refreshes(&self) -> &[String] {
        self.court.filter.omitted_refreshes()
    }
}

impl Court {
    /// Holds a text to the rules: whole statements, comments at the most between them. Whether any of it may be loaded.
    fn hear(&mut self, text: &[u8]) -> Result<bool> {
        self.filter.feed(text)?;
        self.filter.feed(b"\n")?;
        let passed = !self.filter.take().trim_ascii().is_empty();
        self.filter.take().clear();
        if self.filter.is_between_statements() { Ok(passed) } else { Err(refused("a statement that does not end in its entry")) }
    }

    /// What pg_restore makes of the words that drop an object, to set its owner.
    fn hear_owner(&mut self, entry: &Entry<'_>) -> Result<()> {
        let Some(object) = entry.drop.strip_prefix(b"DROP ") else { return Ok(()) };
        let object = object.strip_suffix(b"\n").unwrap_or(object);
        let object = object.strip_suffix(b";").unwrap_or(object);
        self.hear(&[b"ALTER ", object, b" OWNER TO someone;"].concat()).map(drop)
    }

    fn hear_strings(&mut self, defn: &[u8]) -> Result<()> {
        let setting: &[u8] = match defn {
            b"SET standard_conforming_strings = 'on';\n" => b"SET standard_conforming_strings = on;",
            b"SET standard_conforming_strings = 'off';\n" => b"SET standard_conforming_strings = off;",
            _ => return Err(refused("an unknown way to read strings")),
        };
        // Behind others it would say how these were to be read.
        if std::mem::replace(&mut self.says_strings, true) || !self.list.is_empty() {
            return Err(refused("its way to read strings in the wrong place"));
        }
        self.hear(setting).map(drop)
    }
}

impl Visitor for Court {
    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        if entry.has_data {
            self.offsets.insert(entry.id, entry.offset_at);
        }
        let is_number = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        match entry.desc {
            b"STDSTRINGS" => return self.hear_strings(entry.defn),
            b"ENCODING" | b"SEARCHPATH" => return self.hear(entry.defn).map(drop),
            // A restore into a database of another name leaves them out.
            b"DATABASE" | b"DATABASE PROPERTIES" => return Ok(()),
            b"ACL" | b"COMMENT" | b"SECURITY LABEL" if entry.tag.starts_with(b"DATABASE ") => return Ok(()),
            // pg_restore makes statements of these numbers.
            b"BLOB METADATA" if entry.defn.split(|byte| *byte == b'\n').all(is_number) => {}
            b"BLOB METADATA" => return Err(refused("a large object without a number")),
            b"BLOB" if !is_number(entry.tag) => return Err(refused("a large object without a number")),
            // ... and takes these apart, to say each of every object.
            b"ACL" if entry.tag.starts_with(b"LARGE OBJECTS ") => {
                entry.defn.split(|byte| *byte == b'\n').try_for_each(|line| self.hear(line).map(drop))?;
            }
            _ => {
                let before = self.filter.omitted_refreshes().len();
                let is_loaded = self.hear(entry.defn)?;
                self.hear_owner(entry)?;
                if entry.desc == b"SCHEMA" && !is_loaded {
                    self.public_owner = std::str::from_utf8(entry.owner).ok().map(str::to_owned);
                    return Ok(());
                }
                if self.filter.omitted_refreshes().len() > before {
                    return Ok(());
                }
            }
        }
        self.list.push(entry.id);
        Ok(())
    }

    fn block(&mut self, id: u32, at: u64) -> Result<()> {
        self.found.extend(self.offsets.remove(&id).map(|place| (place, at)));
        Ok(())
    }

    fn rows(&mut self, text: &[u8]) -> Result<()> {
        self.filter.feed(text)?;
        self.filter.take().clear();
        Ok(())
    }

    fn rows_end(&mut self) -> Result<()> {
        if self.filter.is_between_statements() { Ok(()) } else { Err(refused("rows that do not end as a COPY does")) }
    }
}

fn refused(what: &str) -> Error {
    Error::new(Kind::Check, format!("the archive holds {what}, which no pg_dump writes"))
        .hint("this is no dump of ours: look into it with `restore --output`, and load it by hand if you trust it")
}
