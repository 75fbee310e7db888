//! `list --max-unproven`: whether every enabled unit's newest proof is young enough. What was found bad later, and
//! a proof that is dated in the future, proves nothing.

use chrono::{DateTime, Utc};

use super::{Listing, Row};
use crate::catalog::Seen;
use crate::catalog::stats::{self, TooOld};
use crate::config::model::Target;
use crate::error::{Error, Kind};
use crate::names::RunId;
use crate::outcome::{Problem, Severity, State};
use crate::plan::Names;
use crate::quantity::show_duration;

impl Listing<'_> {
    /// Every selected, enabled unit of the config must have a whole backup that a drill or a verification proved
    /// not longer ago than is allowed.
    pub(super) fn judge_proofs(&mut self, names: &Names, rows: &[Row<'_>]) {
        let Some(max_unproven) = self.options.max_unproven else { return };
        let now = self.cx.clock.now();
        let enabled = self.config.targets.iter().filter(|target| target.enabled).flat_map(Target::units);
        for unit in enabled.filter(|unit| names.matches_unit(unit)) {
            let whole = rows.iter().filter(|row| row.unit == unit && row.state() == State::Whole);
            let proofs: Vec<_> = whole.flat_map(proofs_of).collect();
            let newest = proofs.iter().copied().filter(|at| *at <= now).max();
            let Some(reason) = stats::too_old(newest, max_unproven, now) else { continue };
            let cause = match reason {
                TooOld::Older { age, max_age } => {
                    let (age, allowed) = (show_duration(age), show_duration(max_age));
                    format!("the newest proof of a whole backup is {age} old, {allowed} is allowed")
                }
                TooOld::None | TooOld::Future { .. } => match proofs.iter().max() {
                    Some(at) => format!("its only proof is dated in the future: {}", at.format("%Y-%m-%d %H:%M:%S UTC")),
                    None => "no whole backup was ever proven".to_owned(),
                },
            };
            let error = Error::new(Kind::Check, cause)
                .hint(format!(
                    "prove one: `restore --drill {unit}` restores it and compares, `list --verify {unit}` reads it again"
                ))
                .target(&unit)
                .step("max-unproven");
            self.problems.push(Problem::of(&error, Severity::Failure));
        }
    }
}

/// When its whole copies were proven; of a copy that is not whole, no proof counts.
fn proofs_of(row: &Row<'_>) -> Vec<DateTime<Utc>> {
    let whole = row.copies.iter().filter(|(_, seen)| matches!(seen, Seen::Whole(_)));
    let proofs = whole.flat_map(|(copy, _)| &copy.entry.proofs).filter(|proof| proof.ok).map(|proof| proof.at);
    proofs.chain(row.verified).map(RunId::time).collect()
}
