//! Where a drill restores to: a server of its own, the target's, or another.

use super::scratch::random_word;
use super::{Postgres, application_of_restore, arrival, load, restore_facts};
use crate::error::Result;
use crate::host::Context;
use crate::source::{Landing, Sink};

/// Makes the scratch place of a drill.
pub(super) fn stage(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
    let facts = restore_facts(landing.facts)?;
    let admin = source.admin(application_of_restore()?, cx)?;
    let name = format!("drill_{}", random_word()?);
    load::into(arrival::examine(admin, &name, landing, facts, cx)?, cx)
}
