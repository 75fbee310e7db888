//! Whole runs of one unit over storages in memory: what each holds, what each was asked, what is told.

use std::sync::Arc;

use super::*;
use crate::commands::attempt::tests::{Fake, Memory, config_of, held, new_memory};
use crate::error::Kind;
use crate::storage::faulty::{Call, Fault};

const CONFIG: &str = "
version: 1
host: web1
state_dir: STATE
storages:
  first: { type: local, path: /nowhere/first }
  second: { type: local, path: /nowhere/second }
  third: { type: local, path: /nowhere/third }
targets:
  - { name: app, type: postgres, database: app, storages: [first, second, third], compression: { type: none }, retries: 0 }
";

/// A configuration's runs over three storages that outlive them.
struct Night {
    config: Config,
    memories: [Memory; 3],
    cx: Context,
    _state: tempfile::TempDir,
}

impl Night {
    fn new(change: impl Fn(String) -> String) -> Self {
        let state = tempfile::tempdir().unwrap();
        let text = change(CONFIG.replace("STATE", state.path().to_str().unwrap()));
        let memories = [new_memory(), new_memory(), new_memory()];
        Self { config: config_of(&text), memories, cx: Context::for_tests(), _state: state }
    }

    /// One `backup`.
    fn run(&self) -> (BackupItem, Vec<Problem>) {
        let options = Options::default();
        let stores = self.config.storages.iter().zip(&self.memories);
        let stores = stores.map(|(config, memory)| Store { config, storage: Arc::new(memory.clone()) });
        let work = Work {
            config: &self.config,
            options: &options,
            run: RunId::starting(self.cx.clock.now()),
            pool: Pool::new(std::num::NonZeroUsize::MIN).unwrap(),
            stores: stores.collect(),
            source_of: |_, _| Box::new(Fake::default()),
            cx: &self.cx,
        };
        let answers = plan::Answers::default();
        let plan = plan::backup(&self.config, &[], &[], &answers).unwrap();
        work.unit(&plan.units[0])
    }

    /// An old backup of the unit in every storage, which a policy of one would delete.
    fn with_an_old_one(self) -> Self {
        self.run();
        assert_eq!(self.memories.each_ref().map(|memory| held(memory).0.len()), [3, 3, 3]);
        self
    }
}

const KEEP_ONE: &str = "retries: 0, retention: { keep_last: 1 }";

#[test]
fn one_that_fails_anywhere_leaves_the_unit_partial_and_the_next_run_unhindered() {
    let calls = [
        (Call::Prepare, 1),
        (Call::Upload, 1),
        (Call::Write, 1),
        (Call::Commit, 1),
        (Call::PutNew, 1),
        // The manifest, whose like goes last.
        (Call::PutNew, 2),
        (Call::Stat, 1),
    ];
    for (call, nth) in calls {
        let night = Night::new(|text| text);
        night.memories[1].fail(call, nth, Fault::Fail(Kind::Storage));
        // Not even what it left can be removed.
        night.memories[1].fail(Call::Delete, 1, Fault::Fail(Kind::Storage));
        let (item, problems) = night.run();
        let what = format!("{call:?} {nth}: {problems:?}");
        assert_eq!(
            (item.status, item.storages.as_slice()),
            (UnitStatus::Partial, &["first".to_owned(), "third".into()][..]),
            "{what}"
        );
        assert_eq!(problems.len(), 1, "{what}");
        let place = (problems[0].severity, problems[0].target.as_deref(), problems[0].storage.as_deref());
        assert_eq!(place, (Severity::Partial, Some("app"), Some("second")), "{what}");
        for other in [0, 2] {
            assert_eq!(held(&night.memories[other]).0.len(), 3, "{what}");
        }
        let before = held(&night.memories[1]).0.len();
        let (item, problems) = night.run();
        assert_eq!((item.status, item.storages.len(), problems.len()), (UnitStatus::Ok, 3, 0), "{what} {problems:?}");
        assert_eq!(held(&night.memories[1]).0.len(), before + 3, "{what}");
    }
}

#[test]
fn an_attempt_for_one_storage_is_under_a_new_id_and_asks_nothing_of_the_others() {
    let night = Night::new(|text| text.replace("retries: 0", "retries: 1"));
    night.memories[1].fail(Call::Commit, 1, Fault::Fail(Kind::Connection));
    let (item, problems) = night.run();
    assert_eq!((item.status, problems.len()), (UnitStatus::Ok, 0));
    let ids: Vec<_> = item.copies.iter().map(|copy| (copy.storage.as_str(), copy.id == item.copies[0].id)).collect();
    assert_eq!(ids, [("first", true), ("third", true), ("second", false)]);
    assert!(item.copies.iter().all(|copy| copy.id.run() == item.run));
    assert_eq!(night.memories.each_ref().map(|memory| memory.calls(Call::Upload)), [1, 2, 1]);
}

#[test]
fn what_one_attempts_copy_is_in_doubt_for_is_told_whatever_the_next_one_says() {
    let night = Night::new(|text| text);
    let (mut item, _) = night.run();
    for (storage, doubts, warnings) in [("first", vec!["a shrank"], vec![]), ("second", vec![], vec!["b is gone"])] {
        let texts = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        let id = item.id.unwrap();
        let (doubts, warnings) = (texts(doubts), texts(warnings));
        note(Attempt { id, committed: vec![storage.into()], failed: Vec::new(), passed: None, warnings, doubts }, &mut item);
    }
    assert_eq!((item.doubts, item.warnings), (vec!["a shrank".to_owned()], vec!["b is gone".to_owned()]));
}

#[test]
fn a_failure_that_no_new_attempt_can_help_is_not_tried_again() {
    let night = Night::new(|text| text.replace("retries: 0", "retries: 5"));
    night.memories[2].fail(Call::Upload, 1, Fault::Fail(Kind::StorageDenied));
    let (item, problems) = night.run();
    assert_eq!((item.status, problems.len(), problems[0].kind), (UnitStatus::Partial, 1, Kind::StorageDenied));
    assert_eq!(night.memories.each_ref().map(|memory| memory.calls(Call::Upload)), [1, 1, 1]);
}

#[test]
fn where_a_storage_only_grows_a_night_deletes_nothing_and_asks_for_nothing_that_it_would() {
    let only_grows = |text: String| {
        text.replace("path: /nowhere/second", "path: /nowhere/second, prune: false").replace("retries: 0", KEEP_ONE)
    };
    let night = Night::new(only_grows).with_an_old_one();
    let asked = |call| night.memories.each_ref().map(|memory| memory.calls(call));
    let before = [asked(Call::Read), asked(Call::Leftovers)];
    let (item, problems) = night.run();
    assert_eq!([asked(Call::Read)[1], asked(Call::Leftovers)[1]], before.map(|calls| calls[1]));
    assert_eq!((asked(Call::Delete)[1], asked(Call::Discard)[1]), (0, 0));
    assert_eq!((item.status, problems.len()), (UnitStatus::Ok, 0), "{problems:?}");
    assert_eq!(night.memories.each_ref().map(|memory| held(memory).0.len()), [3, 6, 3]);
    assert!(asked(Call::Delete)[0] > 0 && item.pruned.len() == 2);
}

#[test]
fn a_failed_upload_stays_where_nothing_is_ever_deleted() {
    let night = Night::new(|text| text.replace("path: /nowhere/second", "path: /nowhere/second, prune: false"));
    night.memories[1].fail(Call::PutNew, 2, Fault::Fail(Kind::StorageDenied));
    let (item, _) = night.run();
    assert_eq!((item.status, night.memories[1].calls(Call::Delete)), (UnitStatus::Partial, 0));
    assert_eq!(held(&night.memories[1]).0, ["inventory.json", "sql"]);
}

#[test]
fn a_storage_that_may_not_be_listed_takes_a_backup_all_the_same() {
    let night = Night::new(|text| text);
    night.memories[0].fail(Call::List, 1, Fault::Fail(Kind::StorageDenied));
    let (item, problems) = night.run();
    assert_eq!((item.status, problems.len()), (UnitStatus::Ok, 0));
    // No policy: nothing to list for. Once for the run's name.
    assert_eq!(night.memories[0].calls(Call::List), 1);
}

#[test]
fn a_storages_own_policy_is_its_alone() {
    let own = |text: String| {
        let text = text.replace("path: /nowhere/first", "path: /nowhere/first, retention: { keep_last: 2 }");
        text.replace("retries: 0", KEEP_ONE)
    };
    let night = Night::new(own).with_an_old_one();
    night.run();
    night.run();
    assert_eq!(night.memories.each_ref().map(|memory| held(memory).0.len()), [6, 3, 3]);
}
