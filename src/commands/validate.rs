//! `validate`: the configuration offline; with `--connect` also every server and every storage, as a
//! backup would use them. What it finds is a result.

use std::io::Read;

use crate::commands::stores::{Store, remarks_on_size, source_of};
use crate::commands::{Found, is_interrupted, readable};
use crate::config::model::{Config, StorageConfig, Target};
use crate::error::{Error, Kind, Result, from_io};
use crate::host::{Cancel, Context, files};
use crate::names::{Key, RunId, UnitName, hex, prefix_of_run};
use crate::outcome::{CheckItem, Items, Problem, Severity};
use crate::quantity::show_bytes;
use crate::source::Source;
use crate::storage::{ObjectMeta, Storage};

/// What is written, read and deleted in a storage as a test.
const PROBE: &[u8] = b"db-backup-tools was here to see whether it can write; this file may be deleted\n";

/// Checks a configuration that could be read.
pub fn run(config: &Config, connect: bool, cx: &Context) -> Found {
    let mut items = vec![offline(config)];
    let mut problems = Vec::new();
    if connect {
        let targets = config.targets.iter().filter(|target| target.enabled);
        let mut note = |subject: String, result: Result<Vec<String>>| match result {
            Ok(details) => items.push(CheckItem { subject, ok: true, detail: details.join("; "), hint: None }),
            Err(error) => {
                let problem = Problem::of(&error, Severity::Failure);
                items.push(CheckItem::failed(subject, &problem));
                problems.push(problem);
            }
        };
        for storage in &config.storages {
            if !is_interrupted(cx) {
                note(format!("storage {}", storage.name), storage_works(&Store::open(storage, config), config, cx));
            }
        }
        for target in targets {
            if !is_interrupted(cx) {
                for (subject, result) in target_works(target, config, cx) {
                    note(subject, result);
                }
            }
        }
    }
    Found { items: Items::Checks(items), problems }
}

fn offline(config: &Config) -> CheckItem {
    let enabled = config.targets.iter().filter(|target| target.enabled).count();
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let disabled = config.targets.len() - enabled;
    let disabled = if disabled == 0 { String::new() } else { format!(" ({disabled} disabled)") };
    let detail = format!("{}, {}{disabled}", count(config.storages.len(), "storage"), count(config.targets.len(), "target"));
    CheckItem { subject: format!("config {}", config.path.display()), ok: true, detail, hint: None }
}

/// What was looked at, and what was found there.
type Looked = (String, Result<Vec<String>>);

/// A target that is one unit, or one that is several with each of them: all are looked at, whatever one lacks.
fn target_works(target: &Target, config: &Config, cx: &Context) -> Vec<Looked> {
    let source = source_of(target, config);
    let subject = format!("target {}", target.name);
    let storages: Vec<&StorageConfig> = target.storages.iter().filter_map(|name| config.storage(name)).collect();
    let named = |error: Error| error.target(&target.name);
    let units = match source.units(cx) {
        Ok(units) => units,
        Err(error) => return vec![(subject, Err(named(error)))],
    };
    if let [unit] = units.units.as_slice()
        && *unit == UnitName::of_target(&target.name)
    {
        return vec![(subject, unit_works(source.as_ref(), unit, &storages, cx).map_err(named))];
    }
    let mut details = vec![format!("{} units", units.units.len())];
    details.extend((!units.left_out.is_empty()).then(|| format!("left out: {}", units.left_out.join("; "))));
    let mut looked = vec![(subject, Ok(details))];
    for unit in units.units.iter().take_while(|_| !is_interrupted(cx)) {
        let works = unit_works(source.as_ref(), unit, &storages, cx).map_err(|error| error.target(unit));
        looked.push((format!("unit {unit}"), works));
    }
    looked
}

/// Tools, versions, login and privileges. What a backup would fail on, or lack, is a failure here.
fn unit_works(source: &dyn Source, unit: &UnitName, storages: &[&StorageConfig], cx: &Context) -> Result<Vec<String>> {
    let probe = source.probe(unit, cx).and_then(readable)?;
    let server = probe.server_version.map(|version| format!("server {version}, "));
    let mut details = vec![format!("{}{}", server.unwrap_or_default(), probe.way)];
    details.extend(probe.estimated_bytes.map(|bytes| format!("about {}", show_bytes(bytes))));
    details.extend(remarks_on_size(storages.iter().copied(), probe.estimated_bytes));
    details.extend(probe.warnings);
    Ok(details)
}

/// Writes, reads, lists and deletes as a backup and its pruning do. Where nothing is ever deleted, nothing is made
/// that would have to be.
fn storage_works(store: &Store<'_>, config: &Config, cx: &Context) -> Result<Vec<String>> {
    let storage = store.storage.as_ref();
    let tried = || -> Result<Vec<String>> {
        storage.prepare(cx)?;
        // Where a run's objects go, under a name that is none of theirs.
        let directory = prefix_of_run(&config.host.escaped(), RunId::starting(cx.clock.now()));
        let key: Key = format!("{directory}probe-{}", hex(&files::random_bytes::<8>()?))
            .parse()
            .map_err(|error| Error::new(Kind::Internal, "can't name a probe").source(error))?;
        let done = if store.config.prune {
            write_and_delete(storage, key, cx)?;
            "written, read, listed and deleted"
        } else {
            begin_and_give_up(storage, &key, cx)?;
            "listed, an upload begun and given up; as prune is false nothing of a backup was stored, so neither reading nor deleting was tried"
        };
        let mut details = vec![storage.describe(), done.to_owned()];
        details.extend(storage.features(cx)?.notes);
        Ok(details)
    };
    tried().map_err(|error| error.storage(store.name()).step("probe"))
}

fn write_and_delete(storage: &dyn Storage, key: Key, cx: &Context) -> Result<()> {
    let written = storage.put_new(&key, PROBE, cx).and_then(|_| read_back(storage, &key, cx));
    // Deleted whatever came of it, a signal too.
    let clean_up = cx.with_cancel(Cancel::for_clean_up()?);
    let deleted: Result<()> = storage.delete(&[key], &clean_up).into_iter().collect();
    written.and(deleted)
}

fn begin_and_give_up(storage: &dyn Storage, key: &Key, cx: &Context) -> Result<()> {
    let mut upload = storage.upload(key, Some(PROBE.len() as u64), cx)?;
    upload.write(PROBE)?;
    upload.abort()?;
    storage.list(key.as_str(), &mut |_| Ok(()), cx)
}

fn read_back(storage: &dyn Storage, key: &Key, cx: &Context) -> Result<()> {
    let mut bytes = Vec::new();
    let mut reader = storage.read(key, 0, cx)?.take(PROBE.len() as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(|error| from_io(error, Kind::Storage, "can't read the probe back"))?;
    let mut listed = false;
    let mut each = |meta: ObjectMeta| {
        listed |= meta.key == *key;
        Ok(())
    };
    storage.list(key.as_str(), &mut each, cx)?;
    match (bytes == PROBE, listed) {
        (true, true) => Ok(()),
        (false, _) => Err(Error::new(Kind::Storage, "what was read back is not what was written")),
        (_, false) => Err(Error::new(Kind::Storage, "what was written is not listed")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::commands::attempt::tests::{Memory, config_of, held, new_memory};
    use crate::storage::faulty::{Call, Fault};

    fn tried(prune: bool, memory: &Memory) -> Result<Vec<String>> {
        let config = config_of(&format!(
            "{{ version: 1, host: web1, storages: {{ s: {{ type: local, path: /nowhere, prune: {prune} }} }},
                targets: [{{ name: app, type: postgres, database: app }}] }}"
        ));
        let store = Store { config: &config.storages[0], storage: Arc::new(memory.clone()) };
        storage_works(&store, &config, &Context::for_tests())
    }

    fn calls(memory: &Memory) -> [usize; 5] {
        [Call::PutNew, Call::Upload, Call::Commit, Call::List, Call::Delete].map(|call| memory.calls(call))
    }

    #[test]
    fn a_storage_is_tried_as_a_backup_and_its_pruning_use_it() {
        let memory = new_memory();
        assert_eq!(tried(true, &memory).unwrap()[1], "written, read, listed and deleted");
        assert_eq!((calls(&memory), held(&memory)), ([1, 0, 0, 1, 1], (Vec::new(), 0)));
    }

    #[test]
    fn where_nothing_is_ever_deleted_nothing_is_made() {
        let memory = new_memory();
        assert!(tried(false, &memory).unwrap()[1].contains("nothing of a backup was stored"));
        assert_eq!((calls(&memory), held(&memory)), ([0, 1, 0, 1, 0], (Vec::new(), 0)));
        for call in [Call::Prepare, Call::Upload, Call::Write, Call::List] {
            let memory = new_memory();
            memory.fail(call, 1, Fault::Fail(Kind::StorageDenied));
            let error = tried(false, &memory).unwrap_err();
            assert_eq!((error.kind(), error.place().storage.as_deref()), (Kind::StorageDenied, Some("s")), "{call:?}");
        }
    }

    #[test]
    fn a_probe_that_fails_is_deleted_and_one_that_stays_is_told() {
        for call in [Call::Read, Call::List, Call::Delete] {
            let memory = new_memory();
            memory.fail(call, 1, Fault::Fail(Kind::StorageDenied));
            assert_eq!(tried(true, &memory).unwrap_err().kind(), Kind::StorageDenied, "{call:?}");
            assert_eq!(memory.calls(Call::Delete), 1, "{call:?}");
        }
    }
}
