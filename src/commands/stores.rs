//! Opens what the configuration names: storages and sources. A new kind of either is added here,
//! and nowhere else in the commands.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::backups::Backup;
use crate::catalog::manifest::Manifest;
use crate::catalog::{self, Entry, Seen, Survey};
use crate::config::model::{Config, S3Settings, StorageConfig, StorageKind, Target, TargetKind};
use crate::error::Result;
use crate::host::Context;
use crate::names::{Escaped, UnitName};
use crate::plan;
use crate::quantity::show_bytes;
use crate::source::postgres::Postgres;
use crate::source::volume::{self, OwnPlace, Volume};
use crate::source::{Destination, Source};
use crate::storage::Storage;
use crate::storage::local::Local;
use crate::storage::s3::S3;
use crate::storage::s3::sizing::{PROGRAM_MEMORY, Parts};

/// A storage of the configuration, opened. Clones share it, with what it knows and the connections that it holds.
#[derive(Clone)]
pub(super) struct Store<'a> {
    pub config: &'a StorageConfig,
    pub storage: Arc<dyn Storage>,
}

impl<'a> Store<'a> {
    /// Opens one of the configuration; nothing is touched yet.
    pub(super) fn open(config: &'a StorageConfig, whole: &Config) -> Self {
        let storage: Arc<dyn Storage> = match &config.kind {
            StorageKind::Local { path, mount } => Arc::new(Local::new(path.clone(), mount.clone())),
            StorageKind::S3(settings) => Arc::new(S3::new(settings.as_ref().clone(), budget(whole, settings))),
        };
        Self { config, storage }
    }

    /// Its name in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// What its listing says of a host, or of all.
    pub(super) fn scan(&self, host: Option<&Escaped>, cx: &Context) -> Result<Vec<Entry>> {
        self.survey(host, cx).map(|survey| survey.entries)
    }

    /// The same, and how many files were passed over as none of ours.
    pub(super) fn survey(&self, host: Option<&Escaped>, cx: &Context) -> Result<Survey> {
        catalog::survey(self.storage.as_ref(), host, cx).map_err(|error| error.storage(self.name()).step("list"))
    }
}

/// Opens the storages of these names, all of the configuration when none is named.
pub(super) fn open_named<'a>(config: &'a Config, names: &[String]) -> Result<Vec<Store<'a>>> {
    Ok(plan::storages(config, names)?.into_iter().map(|storage| Store::open(storage, config)).collect())
}

/// The bytes that the buffers of one upload to an S3 storage may take. What the file's `memory` leaves besides the program
/// is shared by all such storages and all units at work; a storage's own is shared by the units alone.
fn budget(config: &Config, storage: &S3Settings) -> u64 {
    let storages = config.storages.iter().filter(|storage| matches!(storage.kind, StorageKind::S3(_))).count();
    let (memory, storages) = storage.memory.map_or((config.memory, storages), |own| (own, 1));
    let uploads = u64::from(config.parallel.get()) * u64::try_from(storages.max(1)).unwrap_or(u64::MAX);
    memory.saturating_sub(PROGRAM_MEMORY) / uploads
}

/// What an upload of about this size takes more of than a storage's settings say, a line for each storage of which that is so.
pub(super) fn remarks_on_size<'c>(
    storages: impl IntoIterator<Item = &'c StorageConfig>,
    estimated_bytes: Option<u64>,
) -> Vec<String> {
    storages.into_iter().filter_map(|storage| remark_on_size(storage, estimated_bytes?)).collect()
}

fn remark_on_size(storage: &StorageConfig, bytes: u64) -> Option<String> {
    let StorageKind::S3(settings) = &storage.kind else { return None };
    let parts = Parts::plan(settings.part_size, settings.max_parts, Some(bytes));
    if parts.capacity() < bytes {
        let most = show_bytes(parts.capacity());
        return Some(format!("storage {}: takes at most {most} of one backup", storage.name));
    }
    (parts.base() > settings.part_size).then(|| {
        let (size, memory) = (show_bytes(parts.base()), show_bytes(parts.memory_needed()));
        format!("storage {}: parts of {size}, about {memory} of memory", storage.name)
    })
}

/// Those of these names, in the order in which they were opened.
pub(super) fn among<'a>(stores: &[Store<'a>], names: &[String]) -> Vec<Store<'a>> {
    stores.iter().filter(|store| names.contains(&store.config.name)).cloned().collect()
}

/// The storage of this name, where it is one of these.
pub(super) fn named<'s, 'a>(stores: &'s [Store<'a>], name: &str) -> Option<&'s Store<'a>> {
    stores.iter().find(|store| store.name() == name)
}

/// The source of a target.
pub(super) fn source_of(target: &Target, whole: &Config) -> Box<dyn Source> {
    let name = target.name.clone();
    match &target.kind {
        TargetKind::Postgres(postgres) => Box::new(Postgres::new(name, postgres.as_ref().clone())),
        TargetKind::Volume(volume) => {
            let own = OwnPlace::all(whole, &target.storages);
            Box::new(Volume::new(name, volume.as_ref().clone(), whole.state_dir.clone()).beside(own))
        }
    }
}

/// The source that takes a backup back: its target's, where the config has one of its kind. Files need none, to be unpacked
/// in a place that is named.
pub(super) fn source_for(manifest: &Manifest, to: &Destination, config: &Config) -> Option<Box<dyn Source>> {
    let is_volume = manifest.facts.kind == volume::KIND;
    let target = plan::target_of(config, &manifest.unit);
    let fits = |target: &&Target| !is_volume || matches!(target.kind, TargetKind::Volume(_));
    match (target.filter(fits), to) {
        (Some(target), _) => Some(source_of(target, config)),
        (None, Destination::Directory(_) | Destination::Volume(_)) if is_volume => {
            Some(Box::new(Volume::without_target(manifest.target.clone(), to, config.state_dir.clone())))
        }
        (None, _) => None,
    }
}

/// The names of stored units. What stands in a file's name says it, but for one that was too long
/// and was cut: that is known by the config, or by a manifest.
pub(super) struct UnitNames {
    known: BTreeMap<Escaped, UnitName>,
}

impl UnitNames {
    /// Knows the config's units.
    pub(super) fn new(config: &Config) -> Self {
        let units = config.targets.iter().flat_map(Target::units);
        Self { known: units.map(|unit| (unit.escaped(), unit)).collect() }
    }

    /// The unit of an entry; its manifest is read where nothing else knows.
    pub(super) fn of_entry(&mut self, entry: &Entry, store: &Store<'_>, cx: &Context) -> UnitName {
        let unit = &entry.stem.unit;
        if !self.known.contains_key(unit) && unit.unescape().is_none() && entry.has_manifest {
            let seen = catalog::look(store.storage.as_ref(), entry, cx);
            if let Ok(Seen::Whole(manifest) | Seen::Suspicious(manifest) | Seen::Damaged(manifest, _)) = seen {
                self.known.insert(unit.clone(), manifest.unit);
            }
        }
        self.of(unit)
    }

    /// The unit of a backup, of which these storages hold something.
    pub(super) fn of_backup(&mut self, backup: &Backup, stores: &[Store<'_>], cx: &Context) -> UnitName {
        let copy = backup.copies.iter().find(|copy| copy.entry.has_manifest);
        match copy.and_then(|copy| Some((copy, named(stores, &copy.storage)?))) {
            Some((copy, store)) => self.of_entry(&copy.entry, store, cx),
            None => self.of(&backup.stem.unit),
        }
    }

    /// The unit of all entries of this name in files, each with its storage.
    pub(super) fn of_entries<'e>(
        &mut self,
        unit: &Escaped,
        mut entries: impl Iterator<Item = (&'e Entry, &'e Store<'e>)>,
        cx: &Context,
    ) -> UnitName {
        while unit.unescape().is_none() && !self.known.contains_key(unit) {
            let Some((entry, store)) = entries.next() else { break };
            self.of_entry(entry, store, cx);
        }
        self.of(unit)
    }

    /// What these storages hold of each unit, oldest first.
    pub(super) fn group<'b>(
        mut self,
        backups: &'b [Backup],
        stores: &'b [Store<'b>],
        cx: &Context,
    ) -> BTreeMap<UnitName, Vec<&'b Backup>> {
        let mut by_name: HashMap<&Escaped, Vec<&Backup>> = HashMap::new();
        for backup in backups {
            by_name.entry(&backup.stem.unit).or_default().push(backup);
        }
        let mut units: BTreeMap<UnitName, Vec<&Backup>> = BTreeMap::new();
        for (unit, mut held) in by_name {
            let copies = held.iter().flat_map(|backup| &backup.copies).filter(|copy| copy.entry.has_manifest);
            let entries = copies.filter_map(|copy| Some((&copy.entry, named(stores, &copy.storage)?)));
            let of_unit = units.entry(self.of_entries(unit, entries, cx)).or_default();
            of_unit.append(&mut held);
            // Two names in files can be shown as one.
            of_unit.sort_by(|a, b| (a.stem.id, &a.stem.unit, &a.host).cmp(&(b.stem.id, &b.stem.unit, &b.host)));
        }
        units
    }

    /// The unit of a name in files. One that was cut and that nothing knows is shown as it stands there.
    pub(super) fn of(&self, unit: &Escaped) -> UnitName {
        self.known.get(unit).cloned().unwrap_or_else(|| name_in_files(unit))
    }
}

/// A name as a person wrote it; one that was cut as it stands in files.
pub(super) fn name_in_files(escaped: &Escaped) -> UnitName {
    UnitName::new(escaped.unescape().unwrap_or_else(|| escaped.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::{HostFacts, read};
    use crate::host::Env;

    const MIB: u64 = 1 << 20;

    fn config(top: &str, storages: &str) -> Config {
        let text = format!(
            "version: 1\n{top}\nstorages: {{ {storages} }}\ntargets: [ {{ name: x, type: postgres, database: x, storages: [a] }} ]"
        );
        let facts = HostFacts { host_name: "web1".into(), is_root: true, home: None };
        read(&text, Path::new("/c.yml"), &Env::default(), &facts).unwrap()
    }

    fn budgets(top: &str, storages: &str) -> Vec<u64> {
        let config = config(top, storages);
        let kinds = config.storages.iter().map(|storage| &storage.kind);
        kinds
            .filter_map(|kind| if let StorageKind::S3(settings) = kind { Some(budget(&config, settings) / MIB) } else { None })
            .collect()
    }

    #[test]
    fn memory_is_shared_by_all_uploads_at_once() {
        let (a, b) = ("a: { type: s3, bucket: one }", "b: { type: s3, bucket: two }");
        let local = "c: { type: local, path: /c }";
        assert_eq!(budgets("", a), [88]);
        assert_eq!(budgets("", &format!("{a}, {local}")), [88]);
        assert_eq!(budgets("", &format!("{a}, {b}, {local}")), [44, 44]);
        assert_eq!(budgets("memory: 1GiB\nparallel: 3", &format!("{a}, {b}")), [164, 164]);
        let own = "b: { type: s3, bucket: two, memory: 72MiB }";
        assert_eq!(budgets("parallel: 2", &format!("{a}, {own}")), [22, 16]);
        assert_eq!(budgets("memory: 48MiB\nparallel: 64", a), [0]);
    }

    #[test]
    fn what_a_size_takes_more_of_is_said() {
        let config = config(
            "",
            "a: { type: s3, bucket: one }, few: { type: s3, bucket: two, max_parts: 1000 }, ten: { type: s3, bucket: ten, max_parts: 10 }, l: { type: local, path: /l }",
        );
        let remarks = |gib: u64| remarks_on_size(&config.storages, Some(gib << 30)).join("\n");
        assert_eq!((remarks(0), remarks_on_size(&config.storages, None)), (String::new(), Vec::new()));
        insta::assert_snapshot!(remarks(100), @r"
        storage a: parts of 13.0 MiB, about 66.0 MiB of memory
        storage few: parts of 121.0 MiB, about 282.0 MiB of memory
        storage ten: takes at most 50.0 GiB of one backup
        ");
    }
}
