//! Where a drill restores to: a server of its own, the target's, or another.

use super::Postgres;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::source::{Landing, Sink};

/// Makes the scratch place of a drill.
pub(super) fn stage(_source: &Postgres, _landing: &Landing<'_>, _cx: &Context) -> Result<Box<dyn Sink>> {
    Err(Error::new(Kind::Internal, "not yet"))
}
