//! One backup by its id, instead of the policy: pinned, unpinned or deleted in every storage that
//! holds it. It must never delete what is pinned, nor in a storage that only grows.

use crate::catalog::resolve::{self, When};
use crate::catalog::{Entry, MARK};
use crate::commands::prune::{Done, Options, delete};
use crate::commands::stores::{self, Store, UnitNames};
use crate::config::model::Config;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, lock};
use crate::names::Role;
use crate::outcome::{Problem, PruneDecision, PruneItem, Severity};

/// What is done to one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It stays whatever the policy says.
    Pin,
    /// The policy holds for it again.
    Unpin,
    /// It goes.
    Delete,
}

impl Action {
    /// How its result is told.
    fn told(self) -> (PruneDecision, &'static str) {
        match self {
            Self::Pin => (PruneDecision::Pin, "pinned"),
            Self::Unpin => (PruneDecision::Unpin, "no longer pinned"),
            Self::Delete => (PruneDecision::Delete, "asked for by id"),
        }
    }
}

/// Does this to one backup, in every storage that holds it.
pub(super) fn run(config: &Config, options: &Options, action: Action, when: &When, cx: &Context) -> Result<Done> {
    let when = id_alone(when)?;
    let stores = stores::open_named(config, &options.storages)?;
    let mut held: Vec<(&Store<'_>, Entry)> = Vec::new();
    for store in &stores {
        held.extend(store.scan(Some(&config.host.escaped()), cx)?.into_iter().map(|entry| (store, entry)));
    }
    let now = cx.clock.now();
    let (store, found) = resolve::resolve(&held, |(_, entry)| entry.stem.id, &when, config.timezone, now)?;
    let stem = found.stem.clone();
    let unit = UnitNames::new(config).of_entry(found, store, cx);
    let _lock = if options.dry_run { None } else { Some(lock::take(&config.state_dir, &unit, None, cx)?) };
    let (decision, reason) = action.told();
    let (mut items, mut problems) = Done::default();
    for (store, entry) in held.iter().filter(|(_, entry)| entry.stem == stem) {
        let outcome = act(store, entry, action, options.dry_run, cx);
        items.push(PruneItem {
            unit: unit.to_string(),
            storage: store.name().to_owned(),
            id: stem.id.to_string(),
            started: stem.id.run().time(),
            bytes: None,
            decision,
            reasons: vec![reason.to_owned()],
            done: outcome.is_ok() && !options.dry_run,
        });
        if let Err(error) = outcome {
            problems.push(Problem::of(&error.target(&unit).storage(store.name()), Severity::Failure));
        }
    }
    Ok((items, problems))
}

/// Where no age is meant, `100d` can only be the end of an id.
fn id_alone(when: &When) -> Result<When> {
    match when {
        When::Id(_) => Ok(when.clone()),
        When::Age { text, .. } if text.len() == 4 => Ok(When::Id(text.clone())),
        _ => {
            let error = Error::new(Kind::Config, "a backup is pinned, unpinned or deleted by its id");
            Err(error.hint("`list` shows the ids"))
        }
    }
}

fn act(store: &Store<'_>, entry: &Entry, action: Action, dry_run: bool, cx: &Context) -> Result<()> {
    let refuse = |cause: &str, hint: &str| Err(Error::new(Kind::Refused, cause).hint(hint));
    match action {
        Action::Delete if entry.pinned => return refuse("it is pinned", "take the pin off first: prune --unpin ID"),
        Action::Delete if !store.config.prune => return refuse("the storage has prune: false", "name another with --storage"),
        Action::Pin if !entry.has_manifest => {
            return refuse("it is incomplete: there is nothing to keep", "`list --all` shows why");
        }
        _ if dry_run => return Ok(()),
        _ => {}
    }
    let pin = entry.object(Role::Pin).key();
    match action {
        Action::Pin if entry.pinned => Ok(()),
        Action::Pin => store.storage.put_new(&pin, MARK, cx).map(drop),
        Action::Unpin => store.storage.delete(&[pin], cx).into_iter().collect(),
        Action::Delete => delete(store, &[entry], cx).into_iter().collect(),
    }
}
