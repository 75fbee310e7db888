//! One attempt against storages and a source that fail in ways that no disk does on demand: at each
//! call, a backup is whole where it is listed, and elsewhere nothing of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::catalog::{self, Seen};
use crate::config::read::{self, HostFacts};
use crate::host::Env;
use crate::observe::Recording;
use crate::source::{Capture, Facts, Landing, Probe, Sink, TableCount, Units};
use crate::storage::Storage;
use crate::storage::faulty::{Call, Fault, Faulty};
use crate::storage::memory;

const CONFIG: &str = "
version: 1
host: web1
storages:
  first: { type: local, path: /nowhere/first }
  second: { type: local, path: /nowhere/second }
targets:
  - { name: app, type: postgres, database: app, storages: [first, second], compression: { type: none } }
";
const DUMP: &str = "all that there is\n";
/// What [`Fake`] says of its size.
const ESTIMATE: u64 = 12_345;

/// Gives [`DUMP`], or as many zeros, and ends as it is told. Clones count together.
#[derive(Clone, Default)]
pub(in crate::commands) struct Fake {
    pub fails: bool,
    /// Bytes of zeros instead of the text.
    pub zeros: u64,
    /// How often it was begun.
    pub begun: Arc<AtomicU64>,
    /// Bytes that were taken from it.
    pub given: Arc<AtomicU64>,
}

struct FakeCapture {
    text: Box<dyn Read + Send>,
    of: Fake,
}

impl Read for FakeCapture {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.text.read(buffer)?;
        self.of.given.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }
}

impl Capture for FakeCapture {
    fn estimated_bytes(&self) -> Option<u64> {
        Some(ESTIMATE)
    }
    fn finish(self: Box<Self>) -> Result<CaptureInfo> {
        if self.of.fails {
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
            doubts: Vec::new(),
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
        self.begun.fetch_add(1, Ordering::SeqCst);
        let text: Box<dyn Read + Send> = match self.zeros {
            0 => Box::new(Cursor::new(DUMP)),
            bytes => Box::new(io::repeat(0).take(bytes)),
        };
        Ok(Box::new(FakeCapture { text, of: self.clone() }))
    }
    fn check(&self, _: &Landing<'_>, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn stage(&self, _: &Landing<'_>, _: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::new(Kind::Internal, "not here"))
    }
}

/// A storage that can be made to fail.
pub(in crate::commands) type Memory = Faulty<memory::Memory>;

pub(in crate::commands) fn new_memory() -> Memory {
    Faulty::new(memory::Memory::new())
}

fn id() -> Id {
    "20260612_030000Z-k3f9".parse().unwrap()
}

/// A configuration as it is read.
pub(in crate::commands) fn config_of(text: &str) -> Config {
    let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
    read::read(text, Path::new("backup.yml"), &Env::default(), &facts).unwrap()
}

/// One attempt into both storages, pinned.
fn attempt(memories: [&Memory; 2], source_fails: bool, cx: &Context) -> Result<Attempt> {
    attempt_of(CONFIG, &Fake { fails: source_fails, ..Fake::default() }, memories, cx)
}

fn attempt_of(config: &str, source: &Fake, memories: [&Memory; 2], cx: &Context) -> Result<Attempt> {
    let config = config_of(config);
    let pool = Pool::new(std::num::NonZeroUsize::MIN).unwrap();
    let unit = UnitName::new("app");
    let job = Job {
        config: &config,
        target: &config.targets[0],
        unit: &unit,
        source,
        pool: &pool,
        units_found: None,
        label: None,
        pin: true,
    };
    let stores: Vec<Store<'_>> = config
        .storages
        .iter()
        .zip(memories)
        .map(|(config, memory)| Store { config, storage: Arc::new(memory.clone()) })
        .collect();
    run(&job, &stores.iter().collect::<Vec<_>>(), id(), cx)
}

/// What a storage holds: the end of each name, and how many uploads never committed.
pub(in crate::commands) fn held(memory: &Memory) -> (Vec<String>, usize) {
    let cx = Context::for_tests();
    let (mut names, mut leftovers) = (Vec::new(), 0);
    let mut each = |meta: ObjectMeta| {
        names.push(meta.key.file_name().split_once('.').unwrap().1.to_owned());
        Ok(())
    };
    memory.list("", &mut each, &cx).unwrap();
    let mut count = |_| {
        leftovers += 1;
        Ok(())
    };
    memory.leftovers(&mut count, &cx).unwrap();
    (names, leftovers)
}

pub(in crate::commands) fn whole() -> (Vec<String>, usize) {
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
        (Call::Commit, 1),
        (Call::PutNew, 1),
        (Call::PutNew, 2),
        (Call::PutNew, 3),
        (Call::Stat, 1),
    ];
    let faults = [Fault::Fail(Kind::StorageDenied), Fault::Fail(Kind::Storage), Fault::Short, Fault::LostResponse];
    let mut met = BTreeMap::new();
    for (call, nth) in calls {
        for fault in faults {
            // What the double can't do at this call is no fault at all.
            let possible = match fault {
                Fault::Short => matches!(call, Call::Write | Call::PutNew),
                Fault::LostResponse => matches!(call, Call::Commit | Call::PutNew),
                _ => true,
            };
            if !possible {
                continue;
            }
            for failing in [0, 1] {
                let memories = [new_memory(), new_memory()];
                memories[failing].fail(call, nth, fault);
                let attempt = attempt([&memories[0], &memories[1]], false, &Context::for_tests()).unwrap();
                let names = ["first", "second"];
                let what = format!("{call:?} {nth} {fault:?} of {}", names[failing]);
                assert_eq!(attempt.committed, [names[1 - failing]], "{what}");
                assert_eq!(attempt.failed.len(), 1, "{what}");
                assert_eq!(attempt.failed[0].place().storage.as_deref(), Some(names[failing]), "{what}");
                assert_eq!(held(&memories[failing]), nothing(), "{what}");
                assert_eq!(held(&memories[1 - failing]), whole(), "{what}");
                *met.entry(format!("{call:?}")).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(met.len(), 6, "{met:?}");
}

#[test]
fn a_source_that_fails_at_its_end_leaves_nothing_anywhere() {
    let memories = [new_memory(), new_memory()];
    let error = attempt([&memories[0], &memories[1]], true, &Context::for_tests()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.place().step.as_deref()), (Kind::Child, Some("dump")));
    assert_eq!(memories.map(|memory| (held(&memory), memory.calls(Call::Commit))), [(nothing(), 0), (nothing(), 0)]);
}

#[test]
fn where_the_source_fails_too_the_storages_failure_is_told() {
    let memories = [new_memory(), new_memory()];
    memories[0].fail(Call::Write, 1, Fault::Fail(Kind::StorageDenied));
    let observer = Arc::new(Recording::default());
    let cx = Context { observer: observer.clone(), ..Context::for_tests() };
    attempt([&memories[0], &memories[1]], true, &cx).map(drop).unwrap_err();
    let told =
        observer.events().iter().any(|event| matches!(event, Event::Warning { text, .. } if text.contains("storage first")));
    assert!(told, "{:?}", observer.events());
}

#[test]
fn what_stood_there_before_us_is_never_removed() {
    for role in [Role::Artifact("sql".into()), Role::Inventory, Role::Pin, Role::Manifest] {
        let memories = [new_memory(), new_memory()];
        let stem = Stem { unit: UnitName::new("app").escaped(), id: id() };
        let key = ObjectName { host: crate::names::HostName::new("web1").unwrap().escaped(), stem, role }.key();
        let cx = Context::for_tests();
        memories[0].inner().set(&key, b"another's", cx.clock.now());
        let attempt = attempt([&memories[0], &memories[1]], false, &cx).unwrap();
        assert_eq!(attempt.failed[0].kind(), Kind::Exists, "{key}");
        assert_eq!(memories[0].inner().get(&key).as_deref(), Some(&b"another's"[..]), "{key}");
        assert_eq!(held(&memories[0]).0.len(), 1, "{key}: {:?}", held(&memories[0]));
        assert_eq!(held(&memories[1]), whole());
    }
}

#[test]
fn a_removal_that_fails_anywhere_leaves_no_manifest_without_its_artifact() {
    for nth in 1..=4 {
        let memories = [new_memory(), new_memory()];
        memories[0].fail(Call::Stat, 1, Fault::Fail(Kind::Storage));
        memories[0].fail(Call::Delete, nth, Fault::Fail(Kind::Storage));
        let attempt = attempt([&memories[0], &memories[1]], false, &Context::for_tests()).unwrap();
        assert_eq!(attempt.failed.len(), 1);
        // The order: manifest, artifact, what stands beside it.
        let left = ["manifest.json", "sql", "inventory.json", "pin"];
        let (names, _) = held(&memories[0]);
        let expected: Vec<&str> = left[nth - 1..].to_vec();
        assert!(names.len() == expected.len() && expected.iter().all(|name| names.iter().any(|held| held == name)), "{names:?}");
    }
}

#[test]
fn a_cancel_while_a_storage_hangs_ends_the_attempt_and_leaves_nothing() {
    for (call, nth) in [(Call::Upload, 1), (Call::Write, 1), (Call::Commit, 1), (Call::PutNew, 3)] {
        let memories = [new_memory(), new_memory()];
        memories[1].fail(call, nth, Fault::Hang);
        let cx = Context::for_tests();
        let outcome = std::thread::scope(|scope| {
            let attempt = scope.spawn(|| attempt([&memories[0], &memories[1]], false, &cx));
            while memories[1].calls(call) < nth {
                std::thread::yield_now();
            }
            cx.cancel.cancel(Reason::Signal(15));
            attempt.join().unwrap()
        });
        match outcome {
            Err(error) => assert_eq!(error.kind(), Kind::Interrupted, "{call:?}"),
            Ok(attempt) => assert!(attempt.failed.iter().all(|error| error.kind() == Kind::Interrupted), "{call:?}"),
        }
        assert_eq!(held(&memories[1]), nothing(), "{call:?}");
    }
}

#[test]
fn every_upload_is_told_how_much_the_source_holds() {
    let memories = [new_memory(), new_memory()];
    attempt([&memories[0], &memories[1]], false, &Context::for_tests()).unwrap();
    assert_eq!(memories.map(|memory| memory.inner().size_hints()), [[Some(ESTIMATE)], [Some(ESTIMATE)]]);
}

#[test]
fn a_source_begins_only_where_a_storage_is_ready_and_ends_where_no_upload_begins() {
    for (call, begun) in [(Call::Prepare, 0), (Call::Upload, 1)] {
        let (memories, source) = ([new_memory(), new_memory()], Fake::default());
        for memory in &memories {
            memory.fail(call, 1, Fault::Fail(Kind::StorageDenied));
        }
        let attempt = attempt_of(CONFIG, &source, [&memories[0], &memories[1]], &Context::for_tests()).unwrap();
        assert_eq!((attempt.failed.len(), attempt.committed.len()), (2, 0), "{call:?}");
        assert_eq!((source.begun.load(Ordering::SeqCst), source.given.load(Ordering::SeqCst)), (begun, 0), "{call:?}");
    }
}

// A storage whose commit never ends must not keep the others from theirs.
#[test]
fn a_storage_that_hangs_at_its_commit_holds_no_sibling_up() {
    for hanging in [0, 1] {
        let memories = [new_memory(), new_memory()];
        memories[hanging].fail(Call::Commit, 1, Fault::Hang);
        let cx = Context::for_tests();
        let attempt = std::thread::scope(|scope| {
            let attempt = scope.spawn(|| attempt([&memories[0], &memories[1]], false, &cx));
            while held(&memories[1 - hanging]) != whole() {
                std::thread::yield_now();
            }
            // Its last look at the artifact is behind the manifest.
            while memories[1 - hanging].calls(Call::Stat) == 0 {
                std::thread::yield_now();
            }
            cx.cancel.cancel(Reason::Signal(15));
            attempt.join().unwrap().unwrap()
        });
        assert_eq!(attempt.committed, [["first", "second"][1 - hanging]]);
        assert_eq!(attempt.failed[0].kind(), Kind::Interrupted);
        assert_eq!((held(&memories[hanging]), held(&memories[1 - hanging])), (nothing(), whole()));
    }
}

#[test]
fn a_storage_that_hangs_ends_with_the_time_limit_and_is_the_one_that_is_named() {
    let memories = [new_memory(), new_memory()];
    memories[0].fail(Call::Write, 1, Fault::Hang);
    let observer = Arc::new(Recording::default());
    let cx = Context { observer: observer.clone(), ..Context::for_tests() };
    let cx = cx.with_cancel(cx.cancel.child(Some(Duration::from_secs(2))).unwrap());
    let error = attempt([&memories[0], &memories[1]], false, &cx).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    let told: Vec<String> = observer
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Warning { text, .. } => Some(text),
            _ => None,
        })
        .collect();
    assert!(told.len() == 1 && told[0].contains("storage first: upload: "), "{told:?}");
    assert_eq!(memories.map(|memory| held(&memory)), [nothing(), nothing()]);
}

// A storage that takes nothing more must stop the source, and not fill the memory.
#[test]
fn a_slow_storage_slows_the_source_down() {
    let memories = [new_memory(), new_memory()];
    memories[1].fail(Call::Write, 2, Fault::Hang);
    let source = Fake { zeros: 8 << 30, ..Fake::default() };
    let cx = Context::for_tests();
    let cx = cx.with_cancel(cx.cancel.child(Some(Duration::from_secs(1))).unwrap());
    attempt_of(CONFIG, &source, [&memories[0], &memories[1]], &cx).map(drop).unwrap_err();
    let given = source.given.load(Ordering::SeqCst);
    assert!(given > 0 && given <= 64 << 20, "{given} bytes were read ahead");
}

#[test]
fn where_nothing_is_ever_deleted_not_even_a_failed_upload_is_and_that_is_told() {
    let config = CONFIG.replace("path: /nowhere/first", "path: /nowhere/first, prune: false");
    for (call, nth, says) in [(Call::PutNew, 1, "`list --all` shows it"), (Call::Stat, 1, "`list --verify` tells")] {
        let memories = [new_memory(), new_memory()];
        memories[0].fail(call, nth, Fault::Fail(Kind::StorageDenied));
        let observer = Arc::new(Recording::default());
        let cx = Context { observer: observer.clone(), ..Context::for_tests() };
        let attempt = attempt_of(&config, &Fake::default(), [&memories[0], &memories[1]], &cx).unwrap();
        assert_eq!((attempt.committed, attempt.failed.len()), (vec!["second".to_owned()], 1));
        assert_eq!(memories[0].calls(Call::Delete), 0);
        let (left, uploads) = held(&memories[0]);
        assert!(left.iter().any(|name| name == "sql") && uploads == 0, "{left:?}");
        let told =
            |event: &Event| matches!(event, Event::Warning { text, .. } if text.contains("prune: false") && text.contains(says));
        assert!(observer.events().iter().any(told), "{:?}", observer.events());
    }
}

/// What `list` and `latest` would make of a storage: whether the one backup counts as whole, and then
/// that its bytes are those of the dump.
fn is_listed_as_whole(storage: &Memory) -> bool {
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
    assert!(stored(&entry.artifact_of(&manifest).unwrap().key()) == DUMP.as_bytes());
    assert!(catalog::inventory::read(storage, entry, &manifest, &cx).unwrap().is_some());
    assert!(entry.pinned);
    true
}

/// The same attempt, ended by a signal as soon as something hangs.
fn attempt_until_it_hangs(storages: [&Memory; 2]) -> Result<Attempt> {
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
                let storages = [new_memory(), new_memory()];
                storages[0].fail(call, nth, fault);
                let outcome = attempt_until_it_hangs([&storages[0], &storages[1]]);
                let what = format!("{call:?} {nth} {fault:?}: {:?}", outcome.as_ref().map(|attempt| &attempt.failed));
                let done = |name: &str| outcome.as_ref().is_ok_and(|attempt| attempt.committed.iter().any(|done| done == name));
                assert_eq!(is_listed_as_whole(&storages[0]), done("first"), "{what}");
                assert_eq!(is_listed_as_whole(&storages[1]), done("second"), "{what}");
                let is_met = storages[0].met() > 0;
                assert_eq!(done("first"), !is_met, "{what}");
                // What ends the hang ends the other as well, where it has not committed by then.
                assert!(done("second") || is_met && fault == Fault::Hang, "{what}");
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
            let storages = [new_memory(), new_memory()];
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
