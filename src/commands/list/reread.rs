//! `list --verify`: every byte of every copy is read again, and told as it goes.

use super::{Listing, Row};
use crate::catalog::Seen;
use crate::catalog::backups::Copy;
use crate::catalog::manifest::Manifest;
use crate::commands::stores::Store;
use crate::commands::verify::{self, Verdict};
use crate::commands::{is_interrupted, notice};
use crate::error::{Kind, Result};
use crate::names::{ProofKind, UnitName};
use crate::observe::Event;
use crate::outcome::{Problem, Severity};

impl Listing<'_> {
    /// Reads every copy that has a manifest again. What was found bad before may be found good now.
    pub(super) fn verify(&mut self, row: &mut Row<'_>) {
        for (copy, seen) in &mut row.copies {
            let manifest = match seen {
                Seen::Whole(manifest) | Seen::Suspicious(manifest) | Seen::Damaged(manifest, _) => manifest.clone(),
                Seen::Incomplete { .. } | Seen::Unknown(_) => continue,
            };
            let Some(store) = self.store(&copy.storage) else { continue };
            let by_drill = copy.entry.found_bad().is_some_and(|bad| bad.kind == ProofKind::Drill);
            if is_interrupted(self.cx) {
                break;
            }
            match self.verify_copy(store, copy, &manifest, &row.unit) {
                Ok(Verdict::Deleted) => {
                    let cause = format!("{} was deleted in {} while it was read", row.backup.stem.id, copy.storage);
                    self.problems.push(notice(Some(row.unit.as_str()), cause));
                    *seen = Seen::Incomplete { modified: None };
                }
                Ok(Verdict::Proven(at)) => {
                    row.verified = row.verified.max(Some(at));
                    match seen {
                        // The bytes are as they were written, and what a drill found in them is there still.
                        Seen::Damaged(_, error) if by_drill => {
                            let error = error.copy().target(&row.unit).storage(store.name());
                            self.problems.push(Problem::of(&error, Severity::Partial));
                        }
                        // What tripped a guard stays suspicious.
                        Seen::Suspicious(_) => {}
                        _ => *seen = Seen::Whole(manifest),
                    }
                }
                // Nothing is wrong with the backup; the next look will ask for a proof again.
                Ok(Verdict::NotKept(error)) => {
                    self.problems.push(Problem::of(&error.target(&row.unit), Severity::Partial));
                    if !by_drill {
                        *seen = Seen::Whole(manifest);
                    }
                }
                Err(error) => {
                    let error = error.target(&row.unit);
                    self.problems.push(Problem::of(&error, Severity::Failure));
                    if error.kind() == Kind::Damaged {
                        *seen = Seen::Damaged(manifest, error);
                    }
                }
            }
        }
    }

    /// Reads one copy again, and tells how it goes.
    fn verify_copy(&self, store: &Store<'_>, copy: &Copy, manifest: &Manifest, unit: &UnitName) -> Result<Verdict> {
        let expected_bytes = Some(manifest.content.bytes);
        self.cx.observer.event(Event::UnitStarted { unit: unit.clone(), action: "verify", expected_bytes });
        let result = verify::verify(store, &copy.entry, manifest, unit, self.cx);
        let said = match &result {
            Ok(Verdict::Proven(_) | Verdict::NotKept(_)) => "every byte is as it was written",
            Ok(Verdict::Deleted) => "deleted while it was read",
            Err(_) => "NOT PROVEN",
        };
        let summary = format!("{} in {}: {said}", copy.entry.stem.id, copy.storage);
        self.cx.observer.event(Event::UnitFinished { unit: unit.clone(), ok: result.is_ok(), summary });
        result
    }
}
