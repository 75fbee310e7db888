//! Counts what an archive holds, as the same is counted in a plain dump.

use memchr::memchr_iter;

use super::reader::{Entry, ROWS_END, Reader, Visitor};
use crate::error::Result;
use crate::source::postgres::census::Census;
use crate::source::postgres::spelling::Spelling;
use crate::source::{Inventory, LargeObjects};

/// The census of one archive.
#[derive(Default)]
pub(in super::super) struct Tally {
    reader: Reader,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    census: Census,
    large_objects: LargeObjects,
    /// Of the rows under way, with the end of all rows.
    lines: u64,
    bytes: u64,
}

impl Tally {
    /// Takes the next bytes of the archive. Fails on what no archive holds, or none of a known version.
    pub(in super::super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.feed(bytes, &mut self.counts)
    }

    /// Whether the archive ended as a whole one does.
    pub(in super::super) fn is_complete(&self) -> bool {
        self.reader.is_complete()
    }

    /// The names in it, in the database's encoding.
    pub(in super::super) fn names(&self) -> Vec<&[u8]> {
        self.counts.census.names()
    }

    /// What was counted.
    pub(in super::super) fn inventory(self, spelling: &Spelling) -> Inventory {
        let Counts { census, large_objects, .. } = self.counts;
        Inventory { large_objects: Some(large_objects), ..census.inventory(spelling) }
    }
}

impl Visitor for Counts {
    const COUNTS: bool = true;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        // How strings are to be read, and where sequences stand.
        if matches!(entry.desc, b"STDSTRINGS" | b"SEQUENCE SET") {
            self.census.feed(entry.defn);
        }
        Ok(())
    }

    fn block(&mut self, _: u32, _: u64) -> Result<()> {
        Ok(())
    }

    fn copy(&mut self, statement: &[u8]) -> Result<()> {
        self.census.feed(statement);
        Ok(())
    }

    fn rows(&mut self, text: &[u8]) -> Result<()> {
        self.lines(count_lines(text), text.len() as u64);
        Ok(())
    }

    fn lines(&mut self, lines: u64, bytes: u64) {
        self.lines += lines;
        self.bytes += bytes;
    }

    fn rows_end(&mut self) -> Result<()> {
        let (lines, bytes) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.bytes));
        // They end as the reader has seen.
        self.census.add_rows(lines.saturating_sub(count_lines(ROWS_END)), bytes.saturating_sub(ROWS_END.len() as u64));
        self.census.feed(ROWS_END);
        Ok(())
    }

    fn large_object(&mut self) {
        self.large_objects.count += 1;
    }

    fn large_object_bytes(&mut self, count: u64) {
        self.large_objects.bytes += count;
    }
}

fn count_lines(text: &[u8]) -> u64 {
    memchr_iter(b'\n', text).count() as u64
}
