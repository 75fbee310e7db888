//! A server's roles and tablespaces: `pg_dumpall --globals-only`, and the way back of roles alone.

use super::Postgres;
use super::client::Psql;
use crate::config::model;
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::source::{Capture, Landing, Sink};

/// What a manifest's `format` is for them.
pub(super) const FORMAT: &str = "globals";

/// Starts pg_dumpall.
pub(super) fn capture(_psql: Psql, _config: &model::Postgres, _cx: &Context) -> Result<Box<dyn Capture>> {
    Err(Error::new(Kind::Internal, "not yet"))
}

/// Looks which roles would be made, and changes nothing.
pub(super) fn check_roles(_source: &Postgres, _landing: &Landing<'_>, _cx: &Context) -> Result<Vec<String>> {
    Err(Error::new(Kind::Internal, "not yet"))
}

/// Takes a globals stream, and makes the roles that the server lacks.
pub(super) fn stage_roles(_source: &Postgres, _landing: &Landing<'_>, _cx: &Context) -> Result<Box<dyn Sink>> {
    Err(Error::new(Kind::Internal, "not yet"))
}
