//! How the rows of a COPY block end, across any cut of the text. It must never let a row pass that a
//! server takes for the end of all rows.

/// How a row ends: servers before 18 take `\.` at the end of any row for the end of all rows, and
/// lose what follows. In pg_dump's rows every backslash is doubled.
#[derive(Clone, Copy, Default)]
pub(super) struct RowEnd {
    /// An odd number of backslashes, and then perhaps a dot.
    odd: bool,
    dot: bool,
}

impl RowEnd {
    /// The end after more bytes of the same row.
    pub(super) fn after(self, bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let (before, dot) = match bytes.strip_suffix(b".") {
            Some(before) => (before, true),
            None => (bytes, false),
        };
        let run = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        let goes_on = run == before.len() && !self.dot;
        match (bytes.is_empty(), goes_on) {
            (true, _) => self,
            (false, true) => Self { odd: self.odd ^ (run % 2 == 1), dot },
            (false, false) => Self { odd: run % 2 == 1, dot },
        }
    }

    /// Whether it would be taken for the end of all rows.
    pub(super) fn is_mark(self) -> bool {
        self.odd && self.dot
    }
}
