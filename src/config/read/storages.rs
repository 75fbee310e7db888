//! `storages:`: where backups go.

use std::path::{Component, Path, PathBuf};

use crate::config::model::{StorageConfig, StorageKind};
use crate::config::node::{Entry, Node};
use crate::config::walk::{Fields, Walk};
use crate::names::TargetName;

use super::{common, optional, s3};

/// The keys that a storage of another type does not have.
const LOCAL: [&str; 2] = ["path", "mount"];

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
        let Some(own) = own else { continue };
        if let Some((other, what)) = storages[..at].iter().flatten().find_map(|other| Some((other, same_place(own, other)?))) {
            let problem = format!("the same {what} of storage {}", other.name);
            walk.wrong(&entry.node, problem, Some("give each its own".into()));
        }
    }
    (storages.into_iter().collect(), names)
}

/// What two storages have in common that would let each prune the other's backups.
fn same_place(one: &StorageConfig, other: &StorageConfig) -> Option<&'static str> {
    match (&one.kind, &other.kind) {
        (StorageKind::Local { path: own, .. }, StorageKind::Local { path, .. }) => {
            (tidy(own) == tidy(path)).then_some("directory as that")
        }
        (StorageKind::S3(own), StorageKind::S3(settings)) => {
            s3::same_place(own, settings).then_some("endpoint, bucket and prefix as those")
        }
        _ => None,
    }
}

fn storage(walk: &Walk<'_>, entry: &Entry) -> Option<StorageConfig> {
    if let Err(reason) = entry.key.parse::<TargetName>() {
        walk.wrong(&entry.node, format!("unusable name of a storage: {reason}"), None);
    }
    let fields = walk.map(&entry.node, "a storage like { type: local, path: /mnt/backups }")?;
    let kind = fields.need("type", "write type: local or type: s3");
    let Some(kind) = kind.and_then(|kind| walk.word(kind, "a storage's type", &["local", "s3"], &[])) else {
        fields.twice();
        return None;
    };
    let kind = if kind == "s3" {
        let settings = s3::read(walk, &fields);
        foreign(walk, &fields, &LOCAL, "local", "leave it out; a place in the bucket is its `prefix`");
        settings.map(|settings| StorageKind::S3(Box::new(settings)))
    } else {
        let local = local(walk, &fields);
        foreign(walk, &fields, &s3::OWN, "s3", "write type: s3, or leave it out");
        local
    };
    let retention = optional(fields.get("retention"), |node| common::retention(walk, node));
    let prune = fields.get("prune").map_or(Some(true), |node| walk.boolean(node));
    fields.finish();
    Some(StorageConfig { name: entry.key.clone(), kind: kind?, retention: retention?, prune: prune? })
}

fn local(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<StorageKind> {
    let path = fields.need("path", "write the directory that backups go into").and_then(|node| walk.path(node, "a directory"));
    let mount = optional(fields.get("mount"), |node| mount(walk, node, path.as_deref()));
    Some(StorageKind::Local { path: path?, mount: mount? })
}

/// Notes keys that are another type's.
fn foreign(walk: &Walk<'_>, fields: &Fields<'_>, keys: &[&'static str], kind: &str, hint: &str) {
    for key in keys {
        if let Some(node) = fields.get(key) {
            walk.wrong(node, format!("`{key}` is for a storage of type: {kind}"), Some(hint.to_owned()));
        }
    }
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
