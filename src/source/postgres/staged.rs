//! A restored database under its scratch name: held against what was dumped, then given the wanted
//! name, or dropped.

use super::arrival::Arrival;
use super::client::{Psql, quote_identifier};
use super::compare;
use super::facts;
use super::replace;
use super::scratch::{Scratch, scratch_name};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::Cancel;
use crate::source::{Comparison, Inventory, Published, Staged};

/// A loaded scratch database.
pub(super) struct StagedDatabase {
    pub scratch: Scratch,
    pub arrival: Arrival,
    /// What was left out of the load.
    pub warnings: Vec<String>,
    pub cx: Context,
}

impl Staged for StagedDatabase {
    fn compare(&mut self, dumped: &Inventory) -> Result<Comparison> {
        compare::compare(&self.arrival.inside(), dumped, &self.cx)
    }

    fn check(&mut self, sql: &str) -> Result<String> {
        compare::first_value(&self.arrival.inside(), sql, &self.cx)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn publish(self: Box<Self>) -> Result<Published> {
        let Self { mut scratch, arrival, mut warnings, cx } = *self;
        let mut notes = Vec::new();
        let Arrival { admin, wanted, replaces_empty, .. } = &arrival;
        if let Some(live) = &arrival.live {
            notes = replace::swap(&mut scratch, live, &arrival, &cx)?.notes;
        } else {
            let former = if *replaces_empty { Some(scratch_name(wanted)?) } else { None };
            let make_room = former.as_deref().map(|former| rename(wanted, former)).unwrap_or_default();
            scratch.publish(wanted, &make_room, &arrival.facts.properties, admin, &cx)?;
            if let Some(former) = former {
                // It is published: what is left to do is clean-up, whoever interrupts now.
                let cx = cx.with_cancel(Cancel::for_clean_up()?);
                warnings.extend(drop_former(admin, &former, wanted, &cx));
            }
        }
        Ok(Published { place: format!("database {wanted}"), warnings, doubts: Vec::new(), notes })
    }

    fn discard(self: Box<Self>) -> Result<()> {
        self.scratch.discard()
    }
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {};\n", quote_identifier(from), quote_identifier(to))
}

/// The empty database that had the name: dropped only when nothing came into it in the meantime. A
/// warning says that it is kept.
fn drop_former(admin: &Psql, former: &str, wanted: &str, cx: &Context) -> Option<String> {
    let dropped = match facts::contents(&admin.on(former), cx) {
        Ok(objects) if objects.is_empty() => {
            admin.run(&format!("DROP DATABASE {};", quote_identifier(former)), "dropping the empty database", cx).map(drop)
        }
        Ok(_) => Err(Error::new(Kind::Refused, "something was created in it during the restore")),
        Err(error) => Err(error),
    };
    dropped.err().map(|error| format!("the database that was {wanted} before is kept as {former}: {error}"))
}
