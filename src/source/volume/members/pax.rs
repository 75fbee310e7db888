//! What a pax header says of the member behind it, read as GNU tar reads it (its `xheader.c`) with `LC_ALL=C`.
//! What GNU tar would read in a way that depends on something, or not to the end, is refused.

use super::header::LARGEST_ID;
use super::sparse::Map;
use super::{LONGEST_NAME, TAGS, Wrong};

/// What a pax header says; what it does not say is `None`.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) owners: Owners,
    pub(super) sparse: Option<Sparse>,
}

/// All that may stand in a global header, which speaks for every member behind it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owners {
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
}

/// A sparse file in a pax archive.
#[derive(Debug)]
pub(super) enum Sparse {
    /// Formats 0.0 and 0.1: the map stands in the header.
    Mapped(Map, u64),
    /// Format 1.0: the map stands before the data.
    MapFollows(u64),
}

/// The keys `GNU.sparse.*`.
#[derive(Debug, Default)]
struct Keys {
    name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    real: Option<u64>,
    entries: Option<u64>,
    map: Option<Map>,
    /// An offset of format 0.0 whose length has not come.
    offset: Option<u64>,
}

impl Extended {
    /// Reads the records of a header.
    pub(super) fn read(records: &[u8]) -> Result<Self, Wrong> {
        let mut found = Self::default();
        let mut keys = Keys::default();
        for record in Records(records) {
            let (key, value) = record?;
            found.take(key, value, &mut keys)?;
        }
        // That of a sparse file wins, wherever it stands: the other is for readers that know no sparse files.
        let sparse_path = keys.name.take();
        found.sparse = keys.sparse()?;
        if sparse_path.is_some() {
            if found.sparse.is_none() {
                return Err("a sparse file's name without a sparse file");
            }
            found.path = sparse_path;
        }
        Ok(found)
    }

    fn take(&mut self, key: &[u8], value: &[u8], keys: &mut Keys) -> Result<(), Wrong> {
        match key {
            b"path" => once(&mut self.path, name(value)?),
            b"linkpath" => once(&mut self.link, name(value)?),
            b"size" => once(&mut self.size, decimal(value)?),
            b"uid" | b"gid" => self.owners.take(key, value),
            _ => match key.strip_prefix(b"GNU.") {
                // GNU.dumpdir and GNU.volume.* belong to incremental archives and such of several volumes.
                Some(gnu) => match gnu.strip_prefix(b"sparse.") {
                    Some(sparse) => keys.take(sparse, value),
                    None => Err("a pax header of an incremental archive, or one of several volumes"),
                },
                None => Ok(()),
            },
        }
    }
}

impl Owners {
    /// Reads the records of a global header. It takes the place of one before it.
    pub(super) fn read(records: &[u8]) -> Result<Self, Wrong> {
        let mut found = Self::default();
        for record in Records(records) {
            match record? {
                (key @ (b"uid" | b"gid"), value) => found.take(key, value)?,
                (b"path" | b"linkpath" | b"size", _) => return Err("a global header that gives every member one name or size"),
                (key, _) if key.starts_with(b"GNU.") => return Err("a global header of several volumes, or of a sparse file"),
                _ => {}
            }
        }
        Ok(found)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let id = decimal(value).ok().filter(|id| *id <= LARGEST_ID).ok_or("an owner that is no number")?;
        once(if key == b"uid" { &mut self.uid } else { &mut self.gid }, id)
    }
}

impl Keys {
    /// What they come to.
    fn sparse(self) -> Result<Option<Sparse>, Wrong> {
        match self {
            Keys { major: None, minor: None, real: None, entries: None, map: None, .. } => Ok(None),
            Keys { major: Some(1), minor: Some(0), real: Some(real), entries: None, map: None, .. } => {
                Ok(Some(Sparse::MapFollows(real)))
            }
            Keys { major: None, minor: None, real: Some(real), entries: Some(entries), map: Some(map), offset: None, .. }
                if map.entries() == entries =>
            {
                Ok(Some(Sparse::Mapped(map, real)))
            }
            _ => Err("a sparse file in a format that is unknown, or in two at once"),
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        const UNANNOUNCED: Wrong = "a sparse map before the number of its entries";
        match key {
            b"name" => once(&mut self.name, name(value)?),
            b"major" => once(&mut self.major, decimal(value)?),
            b"minor" => once(&mut self.minor, decimal(value)?),
            b"realsize" | b"size" => once(&mut self.real, decimal(value)?),
            b"numblocks" => once(&mut self.entries, decimal(value)?),
            b"offset" if self.entries.is_some() => once(&mut self.offset, decimal(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or("a sparse map that has a length without an offset")?;
                self.map.get_or_insert_default().push(offset, decimal(value)?)
            }
            b"map" if self.entries.is_some() => once(&mut self.map, map(value)?),
            b"offset" | b"map" => Err(UNANNOUNCED),
            _ => Err("a key of a sparse file that is unknown"),
        }
    }
}

/// The map of format 0.1: `offset,length,offset,length`.
fn map(value: &[u8]) -> Result<Map, Wrong> {
    let mut map = Map::default();
    let mut numbers = value.split(|byte| *byte == b',').map(decimal);
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or("a sparse map of an odd number of values")?;
        map.push(offset?, length?)?;
    }
    Ok(map)
}

/// GNU tar takes the last of several, others the first.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Wrong> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("a pax header that says something twice"),
    }
}

/// A name as it stands: GNU tar would cut it at a NUL, and take an empty one for none.
fn name(value: &[u8]) -> Result<Vec<u8>, Wrong> {
    if value.is_empty() || memchr::memchr(0, value).is_some() {
        return Err("a name that is empty or holds a NUL");
    }
    if value.len() > LONGEST_NAME {
        return Err("a name of more than 64 KiB");
    }
    if loses_characters(value) {
        return Err(TAGS);
    }
    Ok(value.to_vec())
}

/// Whether it is made of ASCII and of Unicode's tag characters alone (U+E0000 to U+E007F). GNU tar takes names through
/// iconv, which under `LC_ALL=C` fails for what is not ASCII, and then they are left as they are; but glibc's drops these
/// silently, so that `.<tag>./x` is `../x`.
fn loses_characters(value: &[u8]) -> bool {
    let mut rest = value;
    let mut found = false;
    while let Some(at) = rest.iter().position(|byte| *byte >= 0x80) {
        match &rest[at..] {
            [0xf3, 0xa0, 0x80 | 0x81, 0x80..=0xbf, behind @ ..] => rest = behind,
            _ => return false,
        }
        found = true;
    }
    found
}

/// A number in decimal digits, of 63 bits.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Wrong> {
    const NONE: Wrong = "a number that is none, or too large";
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return Err(NONE);
    }
    // Nineteen digits are within 64 bits.
    let number = text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    if i64::try_from(number).is_ok() { Ok(number) } else { Err(NONE) }
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The records `LENGTH KEY=VALUE\n` of a header, one behind the other up to its end.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split();
        if record.is_err() {
            self.0 = b"";
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn split(&mut self) -> Result<Record<'a>, Wrong> {
        const NONE: Wrong = "a pax header with a record that is none";
        let blank = memchr::memchr(b' ', self.0).ok_or(NONE)?;
        let length = usize::try_from(decimal(&self.0[..blank])?).map_err(|_| NONE)?;
        let record = self.0.get(blank + 1..length).ok_or(NONE)?;
        let record = record.strip_suffix(b"\n").ok_or(NONE)?;
        let equals = memchr::memchr(b'=', record).ok_or(NONE)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // GNU tar passes over further blanks, and ends a key at a NUL.
        if key.first().is_none_or(u8::is_ascii_whitespace) || memchr::memchr(0, key).is_some() {
            return Err(NONE);
        }
        self.0 = &self.0[length..];
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(records: &[u8]) -> Result<Vec<Record<'_>>, Wrong> {
        Records(records).collect()
    }

    #[test]
    fn records_follow_each_other_to_the_end() {
        let two: &[u8] = b"12 path=a\nb\n29 SCHILY.xattr.user.a==\0\n\xff=\n";
        let [path, xattr]: [Record<'_>; 2] = [(b"path", b"a\nb"), (b"SCHILY.xattr.user.a", b"=\0\n\xff=")];
        assert_eq!(keys(two), Ok(vec![path, xattr]));
        let wrong: [&[u8]; 12] = [
            b"12 path=a\nb\n\0", // GNU tar would silently stop there
            b" 9 path=a\n",
            b"10  path=a\n",
            b"9 path=ab\n",
            b"99 path=a\n",
            b"9 path:a\n\n",
            b"5 =a\n",
            b"-9 path=a\n",
            b"11 pa\0th=a\n",
            b"18446744073709551626 path=a\n",
            b"1 path=a\n",
            b"path=a\n",
        ];
        for records in wrong {
            assert!(keys(records).is_err(), "{:?}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn names_that_tar_would_change_are_found() {
        assert!(loses_characters(".\u{e0041}./x".as_bytes()));
        assert!(loses_characters("\u{e007f}".as_bytes()));
        // Of a flag with tags iconv converts nothing.
        for name in ["a", "é", "\u{1f3f4}\u{e0067}\u{e007f}", "a\u{e0080}", "\u{dffff}"] {
            assert!(!loses_characters(name.as_bytes()), "{name}");
        }
        assert!(!loses_characters(b"a\xf3\xa0\x81"));
    }
}
