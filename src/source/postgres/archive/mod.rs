//! pg_dump's own archive (`-Fc`), read as it passes: what it holds, and whether it is whole.

mod cursor;
mod judge;
mod reader;
mod tally;
#[cfg(test)]
mod tests;

pub(super) use judge::Judge;
pub(super) use reader::Reader;
pub(super) use tally::Tally;
