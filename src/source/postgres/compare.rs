//! A restored database held against the inventory of its dump.

use super::client::Psql;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::source::{Comparison, Inventory};

/// Counts in a restored database what was counted when it was dumped.
pub(super) fn compare(_psql: &Psql, _dumped: &Inventory, _cx: &Context) -> Result<Comparison> {
    Err(Error::new(Kind::Internal, "not yet"))
}

/// The first value of the first row of a user's query.
pub(super) fn first_value(_psql: &Psql, _sql: &str, _cx: &Context) -> Result<String> {
    Err(Error::new(Kind::Internal, "not yet"))
}
