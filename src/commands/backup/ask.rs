//! Before a backup of `databases: all`: which databases there are, asked from each server, tried again where
//! that may help. A server that does not answer fails its own target alone.

use crate::commands::backup::{Work, back_off};
use crate::commands::is_interrupted;
use crate::config::model::Target;
use crate::error::Result;
use crate::names::UnitName;
use crate::observe::Event;
use crate::outcome::{BackupItem, Problem, Severity, UnitStatus};
use crate::plan::Answers;
use crate::source::Units;

/// What came of asking.
#[derive(Default)]
pub(super) struct Asked {
    pub answers: Answers,
    /// Of targets whose server gave none, an item each.
    pub items: Vec<BackupItem>,
    pub problems: Vec<Problem>,
}

impl Work<'_> {
    /// Asks the servers of these targets, and tells what is left out.
    pub(super) fn ask(&self, targets: &[&Target]) -> Asked {
        let mut asked = Asked::default();
        for target in targets {
            let unit = UnitName::of_target(&target.name);
            if is_interrupted(self.cx) {
                asked.items.push(BackupItem { status: UnitStatus::Skipped, ..self.item(&unit) });
                continue;
            }
            match self.units_of(target, &unit) {
                Ok(units) => {
                    if !units.left_out.is_empty() {
                        let text = format!("{}: left out: {}", target.name, units.left_out.join("; "));
                        self.cx.observer.event(Event::Note { text });
                    }
                    asked.answers.insert(target.name.clone(), units.units);
                }
                Err(error) => {
                    asked.items.push(self.item(&unit));
                    asked.problems.push(Problem::of(&error.target(&unit), Severity::Failure));
                }
            }
        }
        asked
    }

    /// The units of one target; each attempt has the target's time.
    fn units_of(&self, target: &Target, unit: &UnitName) -> Result<Units> {
        let source = (self.source_of)(target, self.config);
        let mut tries = 0;
        loop {
            let cx = self.cx.with_cancel(self.cx.cancel.child(target.timeout)?);
            match source.units(&cx) {
                Err(error) if error.kind().is_transient() && tries < target.retries && !is_interrupted(self.cx) => {
                    back_off(unit, tries, &error, self.cx)?;
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}
