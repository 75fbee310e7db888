//! Opens what the configuration names: storages and sources. A new kind of either is added here,
//! and nowhere else in the commands.

use crate::catalog::{self, Entry};
use crate::config::model::{Config, StorageConfig, StorageKind, Target, TargetKind};
use crate::error::Result;
use crate::host::Context;
use crate::names::Escaped;
use crate::plan;
use crate::source::Source;
use crate::source::postgres::Postgres;
use crate::storage::Storage;
use crate::storage::local::Local;

/// A storage of the configuration, opened.
pub(super) struct Store<'a> {
    pub config: &'a StorageConfig,
    pub storage: Box<dyn Storage>,
}

impl<'a> Store<'a> {
    /// Opens one; nothing is touched yet.
    pub(super) fn open(config: &'a StorageConfig) -> Self {
        let storage: Box<dyn Storage> = match &config.kind {
            StorageKind::Local { path, mount } => Box::new(Local::new(path.clone(), mount.clone())),
        };
        Self { config, storage }
    }

    /// Its name in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// What its listing says of a host, or of all.
    pub(super) fn scan(&self, host: Option<&Escaped>, cx: &Context) -> Result<Vec<Entry>> {
        catalog::scan(self.storage.as_ref(), host, cx).map_err(|error| error.storage(self.name()).step("list"))
    }
}

/// Opens the storages of these names, all of the configuration when none is named.
pub(super) fn open_named<'a>(config: &'a Config, names: &[String]) -> Result<Vec<Store<'a>>> {
    Ok(plan::storages(config, names)?.into_iter().map(Store::open).collect())
}

/// The source of a target.
pub(super) fn source_of(target: &Target) -> Box<dyn Source> {
    match &target.kind {
        TargetKind::Postgres(postgres) => Box::new(Postgres::new(target.name.clone(), postgres.clone())),
    }
}
