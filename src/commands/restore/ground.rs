//! Which directories a restore of files must leave alone: those of the storages and our own.

use std::path::Path;

use crate::config::model::{Config, StorageKind};
use crate::error::{Error, Kind, Result};
use crate::host::files;

/// `Refused` for a place that holds a storage or the locks, or is within one.
pub(super) fn check(config: &Config, place: &Path) -> Result<()> {
    let wanted = files::real_path(place);
    let storages = config.storages.iter().filter_map(|storage| match &storage.kind {
        StorageKind::Local { path, .. } => Some((format!("storage {}", storage.name), path.as_path())),
        StorageKind::S3(_) => None,
    });
    for (what, path) in storages.chain([("`state_dir:`".to_owned(), config.state_dir.as_path())]) {
        let own = files::real_path(path);
        let how = if own.starts_with(&wanted) {
            "holds"
        } else if wanted.starts_with(&own) {
            "is within"
        } else {
            continue;
        };
        return Err(Error::new(Kind::Refused, format!("{} {how} {}, the place of {what}", place.display(), path.display()))
            .hint("restore it elsewhere with --to-path DIR")
            .step("place"));
    }
    Ok(())
}
