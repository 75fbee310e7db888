//! What pg_dump leaves out of a database and a restore puts back.

use super::arrival::Arrival;
use super::scratch::Scratch;
use crate::error::Result;
use crate::host::Context;

/// Gives a loaded scratch database what its dump could not; what it can't comes back, a clause each.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn put_back(_scratch: &Scratch, _arrival: &Arrival, _cx: &Context) -> Result<Vec<String>> {
    Ok(Vec::new())
}
