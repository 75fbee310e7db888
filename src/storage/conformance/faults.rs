//! What a backup comes to, over any storage, while its calls go wrong. A script does what an attempt, a look and a
//! prune do with a storage, and each call fails in each way, the first, the second and the third time: what says
//! done is there as it was written, and after an error nothing is taken for whole.

use std::time::{Duration, Instant};

use super::{context, ensure, key, leftovers, listed, read};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::cancel::{Cancel, Reason};
use crate::names::Key;
use crate::storage::faulty::{Call, Fault, Faulty};
use crate::storage::{ObjectMeta, Storage};

const INVENTORY: &[u8] = b"{\"tables\": 1}\n";
const MANIFEST: &[u8] = b"{\"whole\": true}\n";
const WRITES: usize = 3;
const TURNS: std::ops::RangeInclusive<usize> = 1..=3;
/// The contract's word for it: a call ends within a second of the cancel.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// What a case came to, where the contract held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The fault was met, and nothing came of it.
    Well,
    /// The fault was met and made an error, and nothing was taken for whole that was not.
    Failed,
    /// There were not so many calls of this kind.
    NotMet,
}

/// A call, a turn and a fault as text, and what came of it: an error is a broken contract.
pub type Outcome = (String, Result<Ending>);

/// Runs all cases, each over a new, empty storage from `make`. `block_bytes` is what one write of an artifact takes, of
/// which there are three: where a storage sends parts, let them be more than one.
pub fn run<S: Storage + 'static>(make: &dyn Fn() -> S, block_bytes: usize) -> Vec<Outcome> {
    let artifact: Vec<u8> = (0..WRITES * block_bytes).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[4]).collect();
    let mut outcomes = Vec::new();
    for call in Call::ALL {
        for fault in Fault::ALL.into_iter().filter(|fault| call.can(*fault)) {
            for nth in TURNS {
                let script = Script { storage: Faulty::new(make()), artifact: &artifact, block_bytes };
                outcomes.push((format!("{call:?} {nth} {fault:?}"), script.run(call, nth, fault)));
            }
        }
    }
    outcomes
}

/// What did not hold, a line each.
pub fn broken(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().filter_map(|(case, outcome)| Some(format!("{case}: {:?}", outcome.as_ref().err()?))).collect()
}

/// The objects of one backup.
struct Backup {
    artifact: Key,
    inventory: Key,
    manifest: Key,
}

impl Backup {
    fn of(run: &str) -> Result<Self> {
        let of = |suffix| key(&format!("web1/{run}/app.{suffix}"));
        Ok(Self { artifact: of("sql.gz")?, inventory: of("inventory.json")?, manifest: of("manifest.json")? })
    }

    /// In the order in which they are deleted.
    fn keys(&self) -> [&Key; 3] {
        [&self.manifest, &self.artifact, &self.inventory]
    }
}

struct Script<'a, S> {
    storage: Faulty<S>,
    artifact: &'a [u8],
    block_bytes: usize,
}

impl<S: Storage + 'static> Script<'_, S> {
    fn run(&self, call: Call, nth: usize, fault: Fault) -> Result<Ending> {
        let backup = Backup::of("r1")?;
        // It is no storage's first backup: that place may be absent when `prepare` fails.
        self.storage.inner().prepare(&context()?)?;
        self.storage.fail(call, nth, fault);
        let backed_up = self.until_it_hangs(|cx| self.back_up(&backup, cx))?;
        if backed_up.is_err() {
            self.clean_up(&backup)?;
        }
        self.ensure_whole(&backup, backed_up.is_ok(), "after the backup")?;
        let looked = match &backed_up {
            Ok(()) => self.until_it_hangs(|cx| self.look(&backup, cx))?,
            Err(_) => Ok(()),
        };
        self.ensure_whole(&backup, backed_up.is_ok(), "after a look")?;
        let left = self.until_it_hangs(|cx| self.leave_behind(cx))?;
        let pruned = self.until_it_hangs(|cx| self.prune(&backup, cx))?;
        // It may have stopped anywhere, but not where a manifest has lost what it speaks of.
        self.is_whole(&backup)?;
        let ending = match self.storage.met() {
            0 => Ending::NotMet,
            _ if [backed_up, looked, left, pruned].iter().all(Result::is_ok) => Ending::Well,
            _ => Ending::Failed,
        };
        self.once_more(&backup)?;
        // A storage that shows no leftovers has none to discard.
        let must_be_met = nth == 1 && call != Call::Discard;
        ensure(!must_be_met || ending != Ending::NotMet, || "the script makes no such call".into())?;
        ensure(fault != Fault::EndsEarly || ending != Ending::Well, || "a cut read was taken for whole".into())?;
        Ok(ending)
    }

    /// Runs a part of it. Where a call hangs, a signal comes, and it must end.
    fn until_it_hangs(&self, part: impl Fn(&Context) -> Result<()> + Sync) -> Result<Result<()>> {
        let cx = context()?;
        std::thread::scope(|scope| {
            let running = scope.spawn(|| part(&cx));
            while !running.is_finished() && !self.storage.is_hanging() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let cancelled = self.storage.is_hanging().then(Instant::now);
            if cancelled.is_some() {
                cx.cancel.cancel(Reason::Signal(15));
            }
            let outcome = running.join().map_err(|_| Error::new(Kind::Internal, "it panicked"))?;
            let Some(since) = cancelled.map(|at| at.elapsed()) else { return Ok(outcome) };
            ensure(since < CANCEL_LIMIT, || format!("it ended {since:?} after the cancel"))?;
            Ok(outcome)
        })
    }

    /// What an attempt does with a storage, in its order.
    fn back_up(&self, backup: &Backup, cx: &Context) -> Result<()> {
        let storage = &self.storage;
        storage.prepare(cx)?;
        let mut upload = storage.upload(&backup.artifact, None, cx)?;
        for block in self.artifact.chunks(self.block_bytes) {
            upload.write(block)?;
        }
        check_size(Some(upload.commit()?), self.artifact)?;
        check_size(Some(storage.put_new(&backup.inventory, INVENTORY, cx)?), INVENTORY)?;
        check_size(Some(storage.put_new(&backup.manifest, MANIFEST, cx)?), MANIFEST)?;
        check_size(storage.stat(&backup.artifact, cx)?, self.artifact)
    }

    /// And what it does when that failed.
    fn clean_up(&self, backup: &Backup) -> Result<()> {
        let cx = context()?.with_cancel(Cancel::for_clean_up()?);
        backup.keys().into_iter().try_for_each(|key| self.delete(key, &cx))
    }

    fn delete(&self, key: &Key, cx: &Context) -> Result<()> {
        self.storage.delete(std::slice::from_ref(key), cx).into_iter().collect()
    }

    /// Lists and reads a backup that is there.
    fn look(&self, backup: &Backup, cx: &Context) -> Result<()> {
        self.storage.features(cx)?;
        let found = listed(&self.storage, "web1/", cx)?;
        for (key, expected) in backup.keys().into_iter().zip([MANIFEST, self.artifact, INVENTORY]) {
            ensure(found.iter().any(|found| found == key.as_str()), || format!("{key} is not listed"))?;
            check_size(self.storage.stat(key, cx)?, expected)?;
            ensure(read(&self.storage, key, 0, cx)? == expected, || format!("{key} reads otherwise"))?;
        }
        Ok(())
    }

    /// One upload that is given up, and one of a process that is killed.
    fn leave_behind(&self, cx: &Context) -> Result<()> {
        self.storage.prepare(cx)?;
        let mut given_up = self.storage.upload(&key("web1/r3/app.sql.gz")?, None, cx)?;
        given_up.write(&self.artifact[..self.block_bytes])?;
        given_up.abort()?;
        let mut killed = self.storage.upload(&key("web1/r4/app.sql.gz")?, None, cx)?;
        killed.write(&self.artifact[..self.block_bytes])?;
        std::mem::forget(killed);
        Ok(())
    }

    /// Removes a backup, what is left of one, and uploads that never committed.
    fn prune(&self, backup: &Backup, cx: &Context) -> Result<()> {
        self.storage.now(cx)?;
        let found = listed(&self.storage, "web1/", cx)?;
        let is_listed = |key: &Key| found.iter().any(|found| found == key.as_str());
        // The second look: what the listing did not show may be whole.
        if is_listed(&backup.manifest) || self.storage.stat(&backup.manifest, cx)?.is_none() {
            backup.keys().into_iter().filter(|key| is_listed(key)).try_for_each(|key| self.delete(key, cx))?;
        }
        leftovers(&self.storage, cx)?.iter().try_for_each(|leftover| self.storage.discard(leftover, cx))
    }

    /// Without a fault all of it can be removed, and a new backup is whole.
    fn once_more(&self, backup: &Backup) -> Result<()> {
        self.storage.heal();
        let (cx, second) = (context()?, Backup::of("r2")?);
        self.prune(backup, &cx)?;
        super::ensure_empty(self.storage.inner(), "after a prune without faults", &cx)?;
        self.back_up(&second, &cx)?;
        self.ensure_whole(&second, true, "after a second try")
    }

    fn ensure_whole(&self, backup: &Backup, expected: bool, when: &str) -> Result<()> {
        let is_whole = self.is_whole(backup)?;
        ensure(is_whole == expected, || format!("{when} it is {}", if is_whole { "whole" } else { "not whole" }))
    }

    /// Whether the manifest is listed, asked behind the faults' back: then all must be there as it was written.
    fn is_whole(&self, backup: &Backup) -> Result<bool> {
        let (storage, cx) = (self.storage.inner(), context()?);
        if !listed(storage, "web1/", &cx)?.iter().any(|found| found == backup.manifest.as_str()) {
            return Ok(false);
        }
        for (key, expected) in backup.keys().into_iter().zip([MANIFEST, self.artifact, INVENTORY]) {
            let found = read(storage, key, 0, &cx);
            ensure(found.as_ref().is_ok_and(|found| found == expected), || {
                format!("the manifest is listed, and {key} is not as it was written: {:?}", found.map(|bytes| bytes.len()))
            })?;
        }
        Ok(true)
    }
}

fn check_size(meta: Option<ObjectMeta>, expected: &[u8]) -> Result<()> {
    let bytes = meta.and_then(|meta| meta.bytes);
    ensure(bytes == Some(expected.len() as u64), || format!("{bytes:?} bytes, and {} were written", expected.len()))
}
