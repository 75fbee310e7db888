//! `storages:`: where backups go.

use std::path::{Component, Path, PathBuf};

use crate::config::model::{StorageConfig, StorageKind};
use crate::config::node::{Entry, Node};
use crate::config::walk::{Fields, Walk};
use crate::names::TargetName;

use super::{common, optional};

/// The storages, and the names of all that are declared, also of those that can't be used.
pub(super) fn read(walk: &Walk<'_>, file: &Fields<'_>) -> (Option<Vec<StorageConfig>>, Vec<String>) {
    let what = "a mapping of storages by name";
    let entries = file.need("storages", "say where backups go: storages: { local: { type: local, path: /mnt/backups } }");
    let Some(entries) = entries.and_then(|node| walk.map(node, what).map(|fields| (node, fields))) else {
        return (None, Vec::new());
    };
    let (node, entries) = (entries.0, entries.1.named());
    if entries.is_empty() {
        walk.wrong(node, "expected one storage or more, found none", None);
    }
    let mut names: Vec<String> = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.key.is_empty()) {
        if !names.contains(&entry.key) {
            names.push(entry.key.clone());
        }
    }
    let storages: Vec<Option<StorageConfig>> = entries.iter().map(|entry| storage(walk, entry)).collect();
    for (at, (entry, own)) in entries.iter().zip(&storages).enumerate() {
        if let Some(other) = storages[..at]
            .iter()
            .flatten()
            .find(|other| own.as_ref().is_some_and(|own| place(own).is_some() && place(own) == place(other)))
        {
            walk.wrong(
                &entry.node,
                format!("the same directory as that of storage {}", other.name),
                Some("give each its own".into()),
            );
        }
    }
    (storages.into_iter().collect(), names)
}

/// The directory of a local one: two storages in one place would prune each other's.
fn place(storage: &StorageConfig) -> Option<PathBuf> {
    match &storage.kind {
        StorageKind::Local { path, .. } => Some(tidy(path)),
        StorageKind::S3(_) => None,
    }
}

fn storage(walk: &Walk<'_>, entry: &Entry) -> Option<StorageConfig> {
    if let Err(reason) = entry.key.parse::<TargetName>() {
        walk.wrong(&entry.node, format!("unusable name of a storage: {reason}"), None);
    }
    let fields = walk.map(&entry.node, "a storage like { type: local, path: /mnt/backups }")?;
    let kind = fields.need("type", "write type: local")?;
    if walk.word(kind, "a storage's type", &["local"], &["s3"]).is_none() {
        fields.twice();
        return None;
    }
    let path = fields.need("path", "write the directory that backups go into").and_then(|node| walk.path(node, "a directory"));
    let mount = optional(fields.get("mount"), |node| mount(walk, node, path.as_deref()));
    let retention = optional(fields.get("retention"), |node| common::retention(walk, node));
    let prune = fields.get("prune").map_or(Some(true), |node| walk.boolean(node));
    fields.finish();
    let kind = StorageKind::Local { path: path?, mount: mount? };
    Some(StorageConfig { name: entry.key.clone(), kind, retention: retention?, prune: prune? })
}

/// The path is compared as written, as the disk may not be mounted now.
fn mount(walk: &Walk<'_>, node: &Node, path: Option<&Path>) -> Option<PathBuf> {
    let mount = walk.path(node, "a mount point")?;
    if path.is_some_and(|path| !tidy(path).starts_with(tidy(&mount))) {
        walk.expected(node, "a directory that `path` is in, or `path` itself", None);
        return None;
    }
    Some(mount)
}

/// Without `.` and `..`, by the text alone.
fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}
