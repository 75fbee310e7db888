//! What a command that was killed left to be undone: containers that it had stopped. Commands that change something start
//! them before all else; others tell. What could not be started by the command itself is told at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::SecondsFormat;

use crate::commands::{is_interrupted, notice};
use crate::config::model::Config;
use crate::error::{Error, Kind};
use crate::host::Context;
use crate::host::engine::{Engine, Member, Remedy, Resumed, UnderWay, Way};
use crate::host::journal::{Journal, Orphan, Undo, names};
use crate::observe::Event;
use crate::outcome::{Problem, Severity};
use crate::source::postgres;

/// What is done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are started.
    Undo,
    /// They are told.
    Tell,
}

/// What was found before a command, or after it.
#[derive(Debug, Default)]
pub struct Left {
    /// For its outcome.
    pub problems: Vec<Problem>,
    told: Vec<PathBuf>,
}

/// Before a command does anything.
pub fn before(config: &Config, mode: Mode, cx: &Context) -> Left {
    if mode == Mode::Undo && !is_interrupted(cx) {
        postgres::collect_drills(&config.state_dir, cx);
    }
    let journal = Journal::new(&config.state_dir);
    let mut left = Left::default();
    let orphans = match journal.orphans(cx) {
        Ok(orphans) => orphans,
        // Whoever may not look there has none of its own there.
        Err(_) if mode == Mode::Tell || is_interrupted(cx) => return left,
        Err(error) => {
            left.problems.push(Problem::of(&error, Severity::Partial));
            return left;
        }
    };
    left.problems.extend(orphans.unreadable.iter().map(|error| Problem::of(error, weight(mode))));
    for orphan in orphans.found {
        match mode {
            Mode::Tell => {
                left.told.push(orphan.record.path().to_owned());
                left.problems.push(remark(format!("{}; the next backup, restore or prune does it", standing(&orphan.undo)), cx));
            }
            Mode::Undo if is_interrupted(cx) => {}
            Mode::Undo => undo(&journal, orphan, &mut left, cx),
        }
    }
    left
}

/// After a command that may have made containers stand still: those of its own that do not go on.
pub fn after(config: &Config, before: &Left, cx: &Context) -> Vec<Problem> {
    // A signal that ended the command must not keep this from being told.
    let Ok(cancel) = crate::host::Cancel::for_clean_up() else { return Vec::new() };
    let cx = &cx.with_cancel(cancel);
    let Ok(orphans) = Journal::new(&config.state_dir).orphans(cx) else { return Vec::new() };
    let is_new = |orphan: &&Orphan| !before.told.iter().any(|told| told == orphan.record.path());
    let own = orphans.found.iter().filter(|orphan| orphan.undo.pid == std::process::id()).filter(is_new);
    own.map(|orphan| {
        let undo = &orphan.undo;
        let each = undo.containers.iter().map(|one| match &one.failure {
            Some(why) => format!("{}: {why}", one.name),
            None => one.name.clone(),
        });
        let cause = format!(
            "{} for a backup, and not {}: {}",
            undo.action.deed(),
            undo.action.done(),
            each.collect::<Vec<_>>().join("; ")
        );
        let error =
            Error::new(Kind::Child, cause).target(&undo.unit).step("containers").hint(by_hand(undo, orphan.record.path()));
        Problem::of(&error, Severity::Partial)
    })
    .collect()
}

fn undo(journal: &Journal, orphan: Orphan, left: &mut Left, cx: &Context) {
    let Orphan { record, undo } = orphan;
    left.told.push(record.path().to_owned());
    let members: Vec<&str> = undo.containers.iter().map(|one| one.name.as_str()).collect();
    let claims = match journal.claim_now(undo.engine, &members, cx) {
        Ok(claims) => claims,
        Err(error) => {
            let why = if error.kind() == Kind::Locked { "a run that is under way holds them".to_owned() } else { error.cause() };
            left.problems.push(remark(format!("{}, and stay so for now: {why}", standing(&undo)), cx));
            return;
        }
    };
    let begun = (cx.clock.now() - undo.since).to_std().unwrap_or_default();
    let stop = UnderWay { begun, patience: Duration::MAX };
    let resumed = Engine::of(undo.engine).resume(undo.action, &undo.containers, Some(stop), cx);
    let by_itself = format!("not {} any more", undo.action.deed());
    let words = |way: &Way| match way {
        Way::Again => Some(undo.action.done()),
        Way::ByItself(_) => Some(by_itself.as_str()),
        Way::Gone => Some("gone"),
        Way::Failed(_) => None,
    };
    for words_now in [undo.action.done(), &by_itself, "gone"] {
        let some: Vec<&Member> = resumed.iter().filter(|one| words(&one.way) == Some(words_now)).map(|one| &one.member).collect();
        if !some.is_empty() {
            left.problems.push(remark(format!("{}: {words_now}", standing_of(&some, &undo)), cx));
        }
    }
    let mut path = record.path().to_owned();
    match journal.settle(record, &undo, &resumed) {
        // What could not be started has a record of its own by now.
        Ok(rest) => path = rest.unwrap_or(path),
        Err(error) => left.problems.push(Problem::of(&error, Severity::Partial)),
    }
    left.problems.extend(resumed.iter().filter_map(|one| failure(one, &undo, &path)));
    left.told.push(path);
    drop(claims);
}

fn failure(one: &Resumed, undo: &Undo, path: &Path) -> Option<Problem> {
    let Way::Failed(error) = &one.way else { return None };
    let what = format!("{} could not be {}: {}", standing_of(&[&one.member], undo), undo.action.done(), error.cause());
    Some(Problem::of(&error.restated(what).step("containers").hint_if_none(by_hand(undo, path)), Severity::Partial))
}

/// What a person can do who does not want to wait.
fn by_hand(undo: &Undo, path: &Path) -> String {
    let Undo { engine, action, containers, .. } = undo;
    let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    let verb = if *action == Remedy::Start { "start" } else { "unpause" };
    format!(
        "{engine} {verb} {}; the next backup, restore or prune tries it again, unless {} is removed",
        names.join(" "),
        path.display()
    )
}

fn standing(undo: &Undo) -> String {
    standing_of(&undo.containers.iter().collect::<Vec<_>>(), undo)
}

fn standing_of(members: &[&Member], undo: &Undo) -> String {
    let since = undo.since.to_rfc3339_opts(SecondsFormat::Secs, true);
    let verb = if members.len() == 1 { "was" } else { "were" };
    let how = if undo.containers.iter().any(|one| one.failure.is_some()) { "" } else { " that was killed" };
    format!(
        "{} {verb} left {} by a run of {since} (process {}, {}){how}",
        names(members.iter().copied()),
        undo.action.deed(),
        undo.pid,
        undo.unit
    )
}

/// Said at once, and kept.
fn remark(text: String, cx: &Context) -> Problem {
    cx.observer.event(Event::Warning { target: None, text: text.clone() });
    notice(None, text)
}

fn weight(mode: Mode) -> Severity {
    if mode == Mode::Undo { Severity::Partial } else { Severity::Notice }
}
