//! Opens what the configuration names: storages and sources. A new kind of either is added here,
//! and nowhere else in the commands.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::backups::Backup;
use crate::catalog::{self, Entry, Seen, Survey};
use crate::config::model::{Config, StorageConfig, StorageKind, Target, TargetKind};
use crate::error::Result;
use crate::host::Context;
use crate::names::{Escaped, UnitName};
use crate::plan;
use crate::source::Source;
use crate::source::postgres::Postgres;
use crate::storage::Storage;
use crate::storage::local::Local;
use crate::storage::s3::S3;

/// A storage of the configuration, opened. Clones share it, with what it knows and the connections that it holds.
#[derive(Clone)]
pub(super) struct Store<'a> {
    pub config: &'a StorageConfig,
    pub storage: Arc<dyn Storage>,
}

impl<'a> Store<'a> {
    /// Opens one; nothing is touched yet.
    pub(super) fn open(config: &'a StorageConfig) -> Self {
        let storage: Arc<dyn Storage> = match &config.kind {
            StorageKind::Local { path, mount } => Arc::new(Local::new(path.clone(), mount.clone())),
            StorageKind::S3(settings) => Arc::new(S3::new(settings.as_ref().clone(), 88 << 20)),
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
    Ok(plan::storages(config, names)?.into_iter().map(Store::open).collect())
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
pub(super) fn source_of(target: &Target) -> Box<dyn Source> {
    match &target.kind {
        TargetKind::Postgres(postgres) => Box::new(Postgres::new(target.name.clone(), postgres.as_ref().clone())),
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

    /// The unit of a name in files. One that was cut and that nothing knows is shown as it stands there.
    pub(super) fn of(&self, unit: &Escaped) -> UnitName {
        self.known.get(unit).cloned().unwrap_or_else(|| name_in_files(unit))
    }
}

/// A name as a person wrote it; one that was cut as it stands in files.
pub(super) fn name_in_files(escaped: &Escaped) -> UnitName {
    UnitName::new(escaped.unescape().unwrap_or_else(|| escaped.to_string()))
}
