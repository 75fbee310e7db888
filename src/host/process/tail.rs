//! What a child said, in bounded memory: its beginning and its end. It never grows with what is
//! said.

use std::collections::VecDeque;

/// The first and the last bytes of a stream.
#[derive(Debug)]
pub(super) struct Tail {
    first: Vec<u8>,
    first_limit: usize,
    last: VecDeque<u8>,
    last_limit: usize,
    left_out: u64,
}

impl Tail {
    /// Keeps this many bytes of the beginning, and this many of the end.
    pub(super) fn new(first_limit: usize, last_limit: usize) -> Self {
        Self { first: Vec::new(), first_limit, last: VecDeque::new(), last_limit, left_out: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.first_limit - self.first.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.first.extend_from_slice(first);
        let skip = rest.len().saturating_sub(self.last_limit);
        self.last.extend(&rest[skip..]);
        let over = self.last.len().saturating_sub(self.last_limit);
        self.last.drain(..over);
        self.left_out += (skip + over) as u64;
    }

    /// What is kept of the end; of all, where the beginning is not kept apart.
    pub(super) fn last(&self) -> Vec<u8> {
        self.last.iter().copied().collect()
    }

    /// What is kept, for a person.
    pub(super) fn text(&self) -> String {
        let last = self.last();
        if self.left_out == 0 {
            return String::from_utf8_lossy(&[self.first.as_slice(), &last].concat()).into_owned();
        }
        let (first, last) = (String::from_utf8_lossy(&self.first), String::from_utf8_lossy(&last));
        format!("{first}\n[{} bytes left out]\n{last}", self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_kept_and_what_is_missing_is_said() {
        let mut tail = Tail::new(4, 6);
        for chunk in ["ab", "cdef", "ghij", "k"] {
            tail.push(chunk.as_bytes());
        }
        assert_eq!(tail.text(), "abcd\n[1 bytes left out]\nfghijk");
        tail.push(b"0123456789");
        assert_eq!(tail.text(), "abcd\n[11 bytes left out]\n456789");
    }

    #[test]
    fn a_character_on_the_border_is_not_broken_where_nothing_is_missing() {
        let mut tail = Tail::new(3, 6);
        tail.push("abé€".as_bytes());
        assert_eq!(tail.text(), "abé€");
    }
}
