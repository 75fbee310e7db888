//! Makes tars by hand, right ones and such as no program writes.

pub(in crate::source::volume) const BLOCK: usize = 512;

/// One header block.
pub(in crate::source::volume) struct Block([u8; BLOCK]);

impl Block {
    /// That of a POSIX member.
    pub(in crate::source::volume) fn new(letter: u8, name: &[u8], size: u64) -> Self {
        let mode = if letter == b'5' { b"0000755\0" } else { b"0000644\0" };
        let mut block = Self([0; BLOCK]).put(0, &name[..name.len().min(100)]).put(100, mode);
        block = block
            .put(108, b"0001750\0")
            .put(116, b"0001751\0")
            .put(124, format!("{size:011o}\0").as_bytes())
            .put(136, b"14000000000\0");
        block.put(156, &[letter]).put(257, b"ustar\x0000")
    }

    /// With these bytes at a place.
    pub(in crate::source::volume) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With a link's target.
    pub(in crate::source::volume) fn link(self, target: &[u8]) -> Self {
        self.put(157, target)
    }

    /// In GNU's own format.
    pub(in crate::source::volume) fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }

    /// A sparse file of GNU's own format: its length, and where its data stands.
    pub(in crate::source::volume) fn sparse(self, length: u64, entries: &[(u64, u64)]) -> Self {
        let number = |number| format!("{number:011o}\0");
        let map: String = entries.iter().map(|(offset, length)| number(offset) + &number(length)).collect();
        self.gnu().put(386, map.as_bytes()).put(483, number(&length).as_bytes())
    }

    /// Its bytes, with their checksum.
    pub(in crate::source::volume) fn sealed(self) -> Vec<u8> {
        let block = self.put(148, b"        ");
        let sum: u32 = block.0.iter().map(|byte| u32::from(*byte)).sum();
        block.put(148, format!("{sum:06o}\0 ").as_bytes()).0.to_vec()
    }
}

/// Content up to the end of a block.
pub(in crate::source::volume) fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(BLOCK), 0);
    padded
}

/// A POSIX member with this content.
pub(in crate::source::volume) fn member(letter: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    [Block::new(letter, name, content.len() as u64).sealed(), padded(content)].concat()
}

/// A link.
pub(in crate::source::volume) fn link(letter: u8, name: &[u8], target: &[u8]) -> Vec<u8> {
    Block::new(letter, name, 0).link(target).sealed()
}

/// GNU's long name (`L`) or link (`K`).
pub(in crate::source::volume) fn long(letter: u8, name: &[u8]) -> Vec<u8> {
    let text = [name, b"\0"].concat();
    [Block::new(letter, b"././@LongLink", text.len() as u64).gnu().sealed(), padded(&text)].concat()
}

/// A pax header (`x` or `g`) of these keys and values.
pub(in crate::source::volume) fn pax(letter: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key.as_bytes(), value)).collect();
    member(letter, b"PaxHeaders/x", &text)
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// A whole tar of these parts.
pub(in crate::source::volume) fn tar(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 2 * BLOCK]].concat()
}
