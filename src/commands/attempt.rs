//! One attempt at one unit: a single pass of its source into all of its storages. The order of
//! commit is fixed: the stream's end, the child's exit, the stream's own end mark, every thread, then
//! storage by storage the upload, the side objects, the manifest, and one more look.

use std::io;

use chrono::{DateTime, Utc};

use crate::catalog::MARK;
use crate::catalog::manifest::{ArtifactFacts, CompressionFacts, ContentFacts, InventoryFacts, Manifest, SCHEMA};
use crate::commands::stores::Store;
use crate::config::model::{Compression, Config, Target};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::{Cancel, Reason};
use crate::names::{Id, Key, ObjectName, Role, RunId, Stem, UnitName};
use crate::observe::{Event, logged_here};
use crate::source::{CaptureInfo, Inventory, Source};
use crate::stage::digest::{Digested, Sha256Meter};
use crate::stage::pipeline::{self, Passed};
use crate::stage::pool::Pool;
use crate::storage::{ObjectMeta, Upload};

/// What an attempt works on.
pub(super) struct Job<'a> {
    pub config: &'a Config,
    pub target: &'a Target,
    pub unit: &'a UnitName,
    pub source: &'a dyn Source,
    pub pool: &'a Pool,
    /// All units of its target, where the server was asked for them.
    pub units_found: Option<&'a [UnitName]>,
    pub label: Option<&'a str>,
    pub pin: bool,
}

/// What an attempt came to.
pub(super) struct Attempt {
    pub id: Id,
    pub committed: Vec<String>,
    /// Each names its storage.
    pub failed: Vec<Error>,
    /// What passed; none when no storage took it.
    pub passed: Option<Passed>,
    pub warnings: Vec<String>,
    /// What puts the data in doubt.
    pub doubts: Vec<String>,
}

/// One storage's part of the pass.
struct Lane<'a> {
    store: &'a Store<'a>,
    upload: Option<Box<dyn Upload>>,
    error: Option<Error>,
}

/// The artifact's way into every storage. One that fails drops out alone; when none is left, the pass ends.
struct Fanout<'a> {
    lanes: Vec<Lane<'a>>,
    /// Ends a source that is silent when nobody listens any more.
    source: Cancel,
}

impl io::Write for Fanout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for lane in &mut self.lanes {
            if let Some(Err(error)) = lane.upload.as_mut().map(|upload| upload.write(bytes)) {
                lane.fail(error);
                // Where the time ran out in this one, or a signal came, the others are not to blame.
                self.source.check()?;
            }
        }
        if self.lanes.iter().any(|lane| lane.upload.is_some()) {
            return Ok(bytes.len());
        }
        self.source.cancel(Reason::Abandoned);
        Err(Error::new(Kind::Storage, "no storage takes any more of it").into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Lane<'a> {
    /// One whose storage is ready for an upload, or has failed already.
    fn prepared(store: &'a Store<'a>, cx: &Context) -> Self {
        let mut lane = Self { store, upload: None, error: None };
        if let Err(error) = store.storage.prepare(cx) {
            lane.fail(error);
        }
        lane
    }

    fn open(&mut self, key: &Key, size_hint: Option<u64>, cx: &Context) {
        if self.error.is_some() {
            return;
        }
        match self.store.storage.upload(key, size_hint, cx) {
            Ok(upload) => self.upload = Some(upload),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: Error) {
        self.upload = None;
        self.error = Some(error.storage(self.store.name()).step("upload"));
    }
}

/// Backs up one unit once. An error is the source's or the pipeline's; a storage's is in the result.
pub(super) fn run(job: &Job<'_>, stores: &[&Store<'_>], id: Id, cx: &Context) -> Result<Attempt> {
    let stem = Stem { unit: job.unit.escaped(), id };
    let artifact = ObjectName { host: job.config.host.escaped(), stem, role: Role::Artifact(extension(job)) };
    let started = RunId::starting(cx.clock.now()).time();
    let lanes = stores.iter().map(|store| Lane::prepared(store, cx)).collect();
    let mut fanout = Fanout { lanes, source: cx.cancel.child(None)? };
    let (passed, info) = match pass(job, &artifact, &mut fanout, cx) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(fanout.into_attempt(id)),
        Err(error) => {
            fanout.tell_failures(job.unit, cx);
            return Err(error);
        }
    };
    let files = Files::of(job, artifact, started, &passed, &info, cx)?;
    let mut attempt =
        Attempt { id, committed: Vec::new(), failed: Vec::new(), passed: None, warnings: info.warnings, doubts: info.doubts };
    for (name, outcome) in commit_all(fanout.lanes, &files, &passed.artifact, cx) {
        match outcome {
            Ok(()) => attempt.committed.push(name),
            Err(error) => attempt.failed.push(error),
        }
    }
    attempt.passed = Some(passed);
    Ok(attempt)
}

impl Fanout<'_> {
    /// Whether every storage has dropped out. A signal or the timeout is nothing that they did, and an error.
    fn is_abandoned(&self, cx: &Context) -> Result<bool> {
        let none_left = self.lanes.iter().all(|lane| lane.error.is_some());
        if none_left {
            cx.cancel.check().map_err(|error| error.step("dump"))?;
        }
        Ok(none_left)
    }

    fn into_attempt(self, id: Id) -> Attempt {
        let failed = self.lanes.into_iter().filter_map(|lane| lane.error).collect();
        Attempt { id, committed: Vec::new(), failed, passed: None, warnings: Vec::new(), doubts: Vec::new() }
    }

    /// Where the source's failure is the attempt's, those of storages are not lost.
    fn tell_failures(&self, unit: &UnitName, cx: &Context) {
        for error in self.lanes.iter().filter_map(|lane| lane.error.as_ref()) {
            cx.observer.event(Event::Warning { target: Some(unit.to_string()), text: error.to_string() });
        }
    }
}

/// The one pass of the source; none when every storage dropped out of it. The source begins before the uploads
/// do, as it knows how much is to be expected, and after all storages had to be ready.
fn pass(job: &Job<'_>, artifact: &ObjectName, fanout: &mut Fanout<'_>, cx: &Context) -> Result<Option<(Passed, CaptureInfo)>> {
    if fanout.is_abandoned(cx)? {
        return Ok(None);
    }
    let mut capture = job.source.capture(job.unit, artifact.stem.id, &cx.with_cancel(fanout.source.clone()))?;
    let (key, size_hint) = (artifact.key(), capture.estimated_bytes());
    fanout.lanes.iter_mut().for_each(|lane| lane.open(&key, size_hint, cx));
    if fanout.is_abandoned(cx)? {
        return Ok(None);
    }
    let progress = |bytes| cx.observer.event(Event::UnitProgress { unit: job.unit.clone(), bytes });
    let packed = pipeline::pack(&mut capture, job.target.compression, job.pool, fanout, &progress);
    let passed = match packed {
        Ok(passed) => passed,
        Err(_) if fanout.is_abandoned(cx)? => return Ok(None),
        Err(error) => return Err(error.step("dump")),
    };
    let info = capture.finish().map_err(|error| error.step("dump"))?;
    Ok(Some((passed, info)))
}

/// What is written beside the artifact.
struct Files {
    artifact: ObjectName,
    inventory: Vec<u8>,
    manifest: Vec<u8>,
    pin: bool,
}

impl Files {
    /// Those of a stream that has ended well.
    fn of(
        job: &Job<'_>,
        artifact: ObjectName,
        started: DateTime<Utc>,
        passed: &Passed,
        info: &CaptureInfo,
        cx: &Context,
    ) -> Result<Self> {
        let inventory = write_inventory(&artifact, &info.inventory)?;
        let id = artifact.stem.id;
        let manifest = Manifest {
            schema: SCHEMA,
            id,
            run: id.run(),
            host: job.config.host.clone(),
            unit: job.unit.clone(),
            target: job.target.name.clone(),
            facts: info.facts.clone(),
            tool: concat!("db-backup-tools ", env!("CARGO_PKG_VERSION")).to_owned(),
            started,
            finished: RunId::starting(cx.clock.now()).time(),
            artifact: ArtifactFacts {
                name: artifact.file_name(),
                bytes: passed.artifact.bytes,
                sha256: passed.artifact.sha256.clone(),
            },
            content: ContentFacts { bytes: passed.content.bytes, sha256: passed.content.sha256.clone() },
            compression: CompressionFacts::of(job.target.compression),
            encryption: None,
            label: job.label.map(str::to_owned),
            units_found: job.units_found.map(<[UnitName]>::to_vec),
            warnings: info.warnings.iter().chain(&info.doubts).cloned().collect(),
            inventory: Some(inventory.facts),
            other: serde_json::Map::new(),
        };
        Ok(Self { artifact, inventory: inventory.json, manifest: manifest.to_json()?, pin: job.pin })
    }
}

/// Commits every storage's upload, all at once: none waits for a slow sibling, nor hangs with one. In the lanes' order.
fn commit_all(mut lanes: Vec<Lane<'_>>, files: &Files, artifact: &Digested, cx: &Context) -> Vec<(String, Result<()>)> {
    let Some(last) = lanes.pop() else { return Vec::new() };
    std::thread::scope(|scope| {
        let mut begun = Vec::new();
        for lane in lanes {
            let name = lane.store.name().to_owned();
            begun.push((name, scope.spawn(logged_here(|| commit(lane, files, artifact, cx)))));
        }
        let of_last = (last.store.name().to_owned(), commit(last, files, artifact, cx));
        let ended = begun.into_iter().map(|(name, thread)| {
            let panicked = |_| Err(Error::new(Kind::Internal, "its commit panicked").storage(&name).step("commit"));
            let outcome = thread.join().unwrap_or_else(panicked);
            (name, outcome)
        });
        ended.chain([of_last]).collect()
    })
}

/// Commits one storage's upload, its side objects and its manifest, in this order.
fn commit(lane: Lane<'_>, files: &Files, artifact: &Digested, cx: &Context) -> Result<()> {
    let upload = match (lane.upload, lane.error) {
        (Some(upload), _) => upload,
        (None, error) => {
            let lost = || Error::new(Kind::Internal, "an upload was lost").storage(lane.store.name());
            return Err(error.unwrap_or_else(lost));
        }
    };
    let store = lane.store;
    let mut made = Vec::new();
    let committed = commit_objects(store, upload, files, artifact, &mut made, cx);
    committed.map_err(|error| {
        remove(store, &made, cx);
        error.storage(store.name()).step("commit")
    })
}

/// `made` gets every object that may be ours by now, in the order in which they are to be removed.
fn commit_objects(
    store: &Store<'_>,
    upload: Box<dyn Upload>,
    files: &Files,
    artifact: &Digested,
    made: &mut Vec<Key>,
    cx: &Context,
) -> Result<()> {
    let mut note = |role: Role, outcome: Result<ObjectMeta>| {
        // What stood there before us is another's. Whatever else failed may have left something.
        if !matches!(&outcome, Err(error) if error.kind() == Kind::Exists) {
            let at = if role == Role::Manifest { 0 } else { made.len() };
            made.insert(at, files.artifact.sibling(role).key());
        }
        outcome
    };
    let meta = note(files.artifact.role.clone(), upload.commit())?;
    check_size(&meta.key, Some(&meta), artifact.bytes)?;
    let pin = files.pin.then_some((Role::Pin, MARK));
    let beside = [Some((Role::Inventory, files.inventory.as_slice())), pin, Some((Role::Manifest, &files.manifest))];
    for (role, bytes) in beside.into_iter().flatten() {
        let key = files.artifact.sibling(role.clone()).key();
        let meta = note(role, store.storage.put_new(&key, bytes, cx))?;
        check_size(&key, Some(&meta), bytes.len() as u64)?;
    }
    let key = files.artifact.key();
    check_size(&key, store.storage.stat(&key, cx)?.as_ref(), artifact.bytes)
}

/// Gives back the space of a backup that did not get its manifest, or that failed the last look. An
/// object that can't be removed keeps those behind it: never a manifest without its artifact. Where nothing is ever
/// deleted, all of it stays.
fn remove(store: &Store<'_>, made: &[Key], cx: &Context) {
    if made.is_empty() {
        return;
    }
    if !store.config.prune {
        let shown = if made.iter().any(is_manifest) {
            "its manifest may be there: `list --verify` tells whether it is whole"
        } else {
            "`list --all` shows it as incomplete"
        };
        let text = format!("what is left of the failed upload stays, as the storage has prune: false; {shown}");
        cx.observer.event(Event::Warning { target: Some(store.name().to_owned()), text });
        return;
    }
    let Ok(cancel) = Cancel::for_clean_up() else { return };
    let cx = cx.with_cancel(cancel);
    let delete = |key: &Key| -> Result<()> { store.storage.delete(std::slice::from_ref(key), &cx).into_iter().collect() };
    // A service may take what it was given after it heard that it is to go: a manifest is looked for once more.
    let come_late = || match made.first().filter(|key| is_manifest(key)) {
        Some(manifest) if store.storage.stat(manifest, &cx)?.is_some() => delete(manifest),
        _ => Ok(()),
    };
    let removed = made.iter().try_for_each(delete).and_then(|()| come_late());
    if let Err::<(), Error>(error) = removed {
        let text = format!("what is left of the failed upload could not be removed, prune will: {error}");
        cx.observer.event(Event::Warning { target: Some(store.name().to_owned()), text });
    }
}

fn is_manifest(key: &Key) -> bool {
    ObjectName::parse(key).is_some_and(|name| name.role == Role::Manifest)
}

fn check_size(key: &Key, seen: Option<&ObjectMeta>, expected: u64) -> Result<()> {
    let name = key.file_name();
    match seen.map(|meta| meta.bytes) {
        Some(Some(bytes)) if bytes == expected => Ok(()),
        Some(Some(bytes)) => Err(Error::new(Kind::Storage, format!("{name} has {bytes} bytes, and {expected} were written"))),
        Some(None) => Err(Error::new(Kind::Storage, format!("the storage does not say the size of {name}"))),
        None => Err(Error::new(Kind::Storage, format!("{name} is not there after its commit"))),
    }
}

struct WrittenInventory {
    json: Vec<u8>,
    facts: InventoryFacts,
}

fn write_inventory(artifact: &ObjectName, inventory: &Inventory) -> Result<WrittenInventory> {
    let mut json = serde_json::to_vec_pretty(inventory)
        .map_err(|error| Error::new(Kind::Internal, "can't write down the inventory").source(error))?;
    json.push(b'\n');
    let mut meter = Sha256Meter::new();
    meter.update(&json);
    let facts = InventoryFacts {
        name: artifact.sibling(Role::Inventory).file_name(),
        sha256: meter.finish().sha256,
        tables: inventory.files.is_none().then_some(inventory.tables.len() as u64),
        rows: inventory.files.is_none().then(|| inventory.tables.iter().map(|table| table.rows).sum()),
        files: inventory.files,
    };
    Ok(WrittenInventory { json, facts })
}

fn extension(job: &Job<'_>) -> String {
    let compressed = match job.target.compression {
        Compression::Gzip(_) => ".gz",
        Compression::Zstd(_) => ".zst",
        Compression::None => "",
    };
    format!("{}{compressed}", job.source.extension(job.unit))
}

#[cfg(test)]
pub(super) mod tests;
