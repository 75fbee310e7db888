//! One attempt against storages and a source that fail in ways that no disk does on demand: at each
//! call, a backup is whole where it is listed, and elsewhere nothing of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::catalog::{self, Seen};
use crate::config::read::{self, HostFacts};
use crate::host::Env;
use crate::observe::Recording;
use crate::source::{Capture, Facts, Landing, Probe, Sink, TableCount, Units};
use crate::storage::Storage;
use crate::storage::faulty::{Call, Fault, Faulty};
use crate::storage::memory::Memory;

const CONFIG: &str = "
version: 1
host: web1
storages:
  first: { type: local, path: /nowhere/first }
  second: { type: local, path: /nowhere/second }
targets:
  - { name: app, type: postgres, database: app, storages: [first, second], compression: { type: none } }
";
/// More than two of the pipeline's blocks.
const DUMP: &[u8] = &[b'x'; (5 << 20) / 2];

/// Gives [`DUMP`], and ends as it is told.
struct Fake {
    fails: bool,
}

struct FakeCapture {
    text: Cursor<&'static [u8]>,
    fails: bool,
}

type Faults = Faulty<Memory>;

fn storages() -> [Faults; 2] {
    [Faulty::new(Memory::new()), Faulty::new(Memory::new())]
}

impl Read for FakeCapture {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer)
    }
}

impl Capture for FakeCapture {
    fn finish(self: Box<Self>) -> Result<CaptureInfo> {
        if self.fails {
            return Err(Error::new(Kind::Child, "the child exited with code 1"));
        }
        let table = TableCount { schema: "public".into(), name: "t".into(), rows: 1, bytes: 2 };
        let facts = Facts {
            kind: "fake".into(),
            database: None,
            format: "plain".into(),
            server_version: None,
            client_version: None,
            restore: serde_json::json!({}),
        };
        Ok(CaptureInfo {
            facts,
            inventory: Inventory { schema: 1, tables: vec![table], ..Inventory::default() },
            warnings: Vec::new(),
        })
    }
}

impl Source for Fake {
    fn units(&self, _: &Context) -> Result<Units> {
        Ok(Units { units: vec![UnitName::new("app")], left_out: Vec::new() })
    }
    fn extension(&self, _: &UnitName) -> &'static str {
        "sql"
    }
    fn probe(&self, _: &UnitName, _: &Context) -> Result<Probe> {
        Ok(Probe::default())
    }
    fn capture(&self, _: &UnitName, _: Id, _: &Context) -> Result<Box<dyn Capture>> {
        Ok(Box::new(FakeCapture { text: Cursor::new(DUMP), fails: self.fails }))
    }
    fn check(&self, _: &Landing<'_>, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn stage(&self, _: &Landing<'_>, _: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::new(Kind::Internal, "not here"))
    }
}

fn id() -> Id {
    "20260612_030000Z-k3f9".parse().unwrap()
}

/// One attempt into both storages, pinned.
fn attempt(storages: [&Faults; 2], source_fails: bool, cx: &Context) -> Result<Attempt> {
    let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
    let config = read::read(CONFIG, Path::new("backup.yml"), &Env::default(), &facts).unwrap();
    let pool = Pool::new(std::num::NonZeroUsize::MIN).unwrap();
    let unit = UnitName::new("app");
    let source = Fake { fails: source_fails };
    let job = Job {
        config: &config,
        target: &config.targets[0],
        unit: &unit,
        source: &source,
        pool: &pool,
        units_found: None,
        label: None,
        pin: true,
    };
    let stores: Vec<Store<'_>> = config
        .storages
        .iter()
        .zip(storages)
        .map(|(config, storage)| Store { config, storage: Box::new(storage.clone()) })
        .collect();
    run(&job, &stores.iter().collect::<Vec<_>>(), id(), cx)
}

/// What a storage holds: the end of each name, and how many uploads never committed.
fn held(storage: &Faults) -> (Vec<String>, usize) {
    let cx = Context::for_tests();
    let (mut names, mut leftovers) = (Vec::new(), 0);
    let mut each = |meta: ObjectMeta| {
        names.push(meta.key.file_name().split_once('.').unwrap().1.to_owned());
        Ok(())
    };
    storage.inner().list("", &mut each, &cx).unwrap();
    let mut count = |_| {
        leftovers += 1;
        Ok(())
    };
    storage.inner().leftovers(&mut count, &cx).unwrap();
    (names, leftovers)
}

fn whole() -> (Vec<String>, usize) {
    (["inventory.json", "manifest.json", "pin", "sql"].map(str::to_owned).into(), 0)
}

fn nothing() -> (Vec<String>, usize) {
    (Vec::new(), 0)
}

#[test]
fn a_storage_that_fails_at_any_call_keeps_nothing_and_leaves_the_other_alone() {
    let calls = [
        (Call::Prepare, 1),
        (Call::Upload, 1),
        (Call::Write, 1),
        (Call::Write, 2),
        (Call::Write, 3),
        (Call::Commit, 1),
        (Call::PutNew, 1),
        (Call::PutNew, 2),
        (Call::PutNew, 3),
        (Call::Stat, 1),
    ];
    let faults = [Fault::Fail(Kind::StorageDenied), Fault::Fail(Kind::Storage), Fault::Short, Fault::LostResponse];
    let mut met = BTreeMap::new();
    for (call, nth) in calls {
        for fault in faults.into_iter().filter(|fault| call.can(*fault)) {
            for failing in [0, 1] {
                let storages = storages();
                storages[failing].fail(call, nth, fault);
                let attempt = attempt([&storages[0], &storages[1]], false, &Context::for_tests()).unwrap();
                let names = ["first", "second"];
                let what = format!("{call:?} {nth} {fault:?} of {}", names[failing]);
                assert_eq!(attempt.committed, [names[1 - failing]], "{what}");
                assert_eq!(attempt.failed.len(), 1, "{what}");
                assert_eq!(attempt.failed[0].place().storage.as_deref(), Some(names[failing]), "{what}");
                // Nobody can end an upload whose beginning was not heard of; prune finds it.
                let left = usize::from((call, fault) == (Call::Upload, Fault::LostResponse));
                assert_eq!(held(&storages[failing]), (Vec::new(), left), "{what}");
                assert_eq!(held(&storages[1 - failing]), whole(), "{what}");
                *met.entry(format!("{call:?}")).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(met.len(), 6, "{met:?}");
}

#[test]
fn a_source_that_fails_at_its_end_leaves_nothing_anywhere() {
    let storages = storages();
    let error = attempt([&storages[0], &storages[1]], true, &Context::for_tests()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.place().step.as_deref()), (Kind::Child, Some("dump")));
    assert_eq!(storages.map(|storage| (held(&storage), storage.calls(Call::Commit))), [(nothing(), 0), (nothing(), 0)]);
}

#[test]
fn where_the_source_fails_too_the_storages_failure_is_told() {
    let storages = storages();
    storages[0].fail(Call::Write, 1, Fault::Fail(Kind::StorageDenied));
    let observer = Arc::new(Recording::default());
    let cx = Context { observer: observer.clone(), ..Context::for_tests() };
    attempt([&storages[0], &storages[1]], true, &cx).map(drop).unwrap_err();
    let told =
        observer.events().iter().any(|event| matches!(event, Event::Warning { text, .. } if text.contains("storage first")));
    assert!(told, "{:?}", observer.events());
}

#[test]
fn what_stood_there_before_us_is_never_removed() {
    for role in [Role::Artifact("sql".into()), Role::Inventory, Role::Pin, Role::Manifest] {
        let storages = storages();
        let stem = Stem { unit: UnitName::new("app").escaped(), id: id() };
        let key = ObjectName { host: crate::names::HostName::new("web1").unwrap().escaped(), stem, role }.key();
        let cx = Context::for_tests();
        storages[0].inner().set(&key, b"another's", cx.clock.now());
        let attempt = attempt([&storages[0], &storages[1]], false, &cx).unwrap();
        assert_eq!(attempt.failed[0].kind(), Kind::Exists, "{key}");
        assert_eq!(storages[0].inner().get(&key).as_deref(), Some(&b"another's"[..]), "{key}");
        assert_eq!(held(&storages[0]).0.len(), 1, "{key}: {:?}", held(&storages[0]));
        assert_eq!(held(&storages[1]), whole());
    }
}

#[test]
fn a_removal_that_fails_anywhere_leaves_no_manifest_without_its_artifact() {
    for nth in 1..=4 {
        let storages = storages();
        storages[0].fail(Call::Stat, 1, Fault::Fail(Kind::Storage));
        storages[0].fail(Call::Delete, nth, Fault::Fail(Kind::Storage));
        let attempt = attempt([&storages[0], &storages[1]], false, &Context::for_tests()).unwrap();
        assert_eq!(attempt.failed.len(), 1);
        // The order: manifest, artifact, what stands beside it.
        let left = ["manifest.json", "sql", "inventory.json", "pin"];
        let (names, _) = held(&storages[0]);
        let expected: Vec<&str> = left[nth - 1..].to_vec();
        assert!(names.len() == expected.len() && expected.iter().all(|name| names.iter().any(|held| held == name)), "{names:?}");
    }
}

#[test]
fn a_cancel_while_a_storage_hangs_ends_the_attempt_and_leaves_nothing() {
    for (call, nth) in [(Call::Upload, 1), (Call::Write, 1), (Call::Commit, 1), (Call::PutNew, 3)] {
        let storages = storages();
        storages[1].fail(call, nth, Fault::Hang);
        let cx = Context::for_tests();
        let outcome = std::thread::scope(|scope| {
            let attempt = scope.spawn(|| attempt([&storages[0], &storages[1]], false, &cx));
            while !storages[1].is_hanging() {
                std::thread::yield_now();
            }
            cx.cancel.cancel(Reason::Signal(15));
            attempt.join().unwrap()
        });
        match outcome {
            Err(error) => assert_eq!(error.kind(), Kind::Interrupted, "{call:?}"),
            Ok(attempt) => assert!(attempt.failed.iter().all(|error| error.kind() == Kind::Interrupted), "{call:?}"),
        }
        assert_eq!(held(&storages[1]), nothing(), "{call:?}");
    }
}

/// What `list` and `latest` would make of a storage: whether the one backup counts as whole, and then
/// that its bytes are those of the dump.
fn is_listed_as_whole(storage: &Faults) -> bool {
    let cx = Context::for_tests();
    let storage = storage.inner();
    let entries = catalog::scan(storage, None, &cx).unwrap();
    assert!(entries.len() <= 1, "{entries:?}");
    let Some(entry) = entries.first() else { return false };
    let manifest = match catalog::look(storage, entry, &cx).unwrap() {
        Seen::Whole(manifest) => manifest,
        Seen::Incomplete { .. } => return false,
        other => panic!("neither whole nor incomplete: {other:?}"),
    };
    let stored = |key: &Key| storage.get(key).unwrap();
    assert!(stored(&entry.artifact_of(&manifest).unwrap().key()) == DUMP);
    assert!(catalog::inventory::read(storage, entry, &manifest, &cx).unwrap().is_some());
    assert!(entry.pinned);
    true
}

/// The same attempt, ended by a signal as soon as something hangs.
fn attempt_until_it_hangs(storages: [&Faults; 2]) -> Result<Attempt> {
    let cx = Context::for_tests();
    std::thread::scope(|scope| {
        let attempt = scope.spawn(|| attempt(storages, false, &cx));
        while !attempt.is_finished() {
            if storages[0].is_hanging() {
                cx.cancel.cancel(Reason::Signal(15));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        attempt.join().unwrap()
    })
}

#[test]
fn whatever_goes_wrong_a_backup_is_whole_or_has_failed() {
    let mut met = BTreeSet::new();
    for call in Call::ALL {
        for fault in Fault::ALL.into_iter().filter(|fault| call.can(*fault)) {
            for nth in 1..=4 {
                let storages = storages();
                storages[0].fail(call, nth, fault);
                let outcome = attempt_until_it_hangs([&storages[0], &storages[1]]);
                let what = format!("{call:?} {nth} {fault:?}: {:?}", outcome.as_ref().map(|attempt| &attempt.failed));
                let done = |name: &str| outcome.as_ref().is_ok_and(|attempt| attempt.committed.iter().any(|done| done == name));
                assert_eq!(is_listed_as_whole(&storages[0]), done("first"), "{what}");
                assert_eq!(is_listed_as_whole(&storages[1]), done("second"), "{what}");
                let is_met = storages[0].met() > 0;
                assert_eq!(done("first"), !is_met, "{what}");
                assert_eq!(done("second"), !(is_met && fault == Fault::Hang), "{what}");
                if !is_met {
                    break;
                }
                met.insert(call);
            }
        }
    }
    assert_eq!(met, BTreeSet::from([Call::Prepare, Call::Upload, Call::Write, Call::Commit, Call::PutNew, Call::Stat]));
}

#[test]
fn a_removal_that_goes_wrong_leaves_a_whole_backup_or_none() {
    for fault in [Fault::Fail(Kind::Storage), Fault::LostResponse] {
        for nth in 1..=4 {
            let storages = storages();
            storages[0].fail(Call::Stat, 1, Fault::Fail(Kind::Storage));
            storages[0].fail(Call::Delete, nth, fault);
            let attempt = attempt([&storages[0], &storages[1]], false, &Context::for_tests()).unwrap();
            assert_eq!((attempt.failed.len(), storages[0].met()), (1, 2));
            let stays = nth == 1 && fault != Fault::LostResponse;
            assert_eq!(is_listed_as_whole(&storages[0]), stays, "{fault:?} {nth}");
            assert!(is_listed_as_whole(&storages[1]));
        }
    }
}
