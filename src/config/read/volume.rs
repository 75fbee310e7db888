//! A target of type volume: its keys.

use crate::config::model::{Archiver, Volume, VolumeDrill, VolumePlace};
use crate::config::node::{Node, Value};
use crate::config::walk::{Fields, Walk};

use super::dump::texts;
use super::{containers, optional};

/// The keys of a volume target.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Volume> {
    let place = place(walk, fields);
    let engine = containers::engine(walk, fields);
    let helper_image = optional(fields.get("helper_image"), |node| containers::name(walk, node, "an image's name"));
    let archiver = fields.get("archiver").map_or(Some(Archiver::Full), |node| archiver(walk, node));
    let exclude = patterns(walk, fields, "exclude");
    let allow_changed = patterns(walk, fields, "allow_changed");
    let boolean = |key| fields.get(key).map_or(Some(false), |node| walk.boolean(node));
    let exclude_caches = boolean("exclude_caches");
    let one_file_system = boolean("one_file_system");
    let skip_unreadable = boolean("skip_unreadable");
    let allow_live_database = boolean("allow_live_database");
    let hold = containers::hold(walk, fields);
    let drill = fields.get("drill").map_or(Some(VolumeDrill::default()), |node| drill(walk, node));
    Some(Volume {
        place: place?,
        engine: engine?,
        helper_image: helper_image?,
        archiver: archiver?,
        exclude: exclude?,
        exclude_caches: exclude_caches?,
        one_file_system: one_file_system?,
        allow_changed: allow_changed?,
        skip_unreadable: skip_unreadable?,
        allow_live_database: allow_live_database?,
        hold: hold?,
        drill: drill?,
    })
}

fn place(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<VolumePlace> {
    match (fields.get("path"), fields.get("volume")) {
        (Some(node), None) => walk.path(node, "a directory or a file").map(VolumePlace::Path),
        (None, Some(node)) => containers::name(walk, node, "a volume's name").map(VolumePlace::Named),
        (Some(_), Some(node)) => {
            walk.wrong(node, "given together with `path`", Some("leave one of them out".into()));
            None
        }
        (None, None) => {
            let hint = "write path: /srv/uploads, or volume: NAME for a volume of Docker or Podman";
            walk.wrong(fields.node, "it names neither a path nor a volume", Some(hint.into()));
            None
        }
    }
}

fn archiver(walk: &Walk<'_>, node: &Node) -> Option<Archiver> {
    let word = walk.word(node, "an archiver", &["full", "basic"], &[])?;
    Some(if word == "full" { Archiver::Full } else { Archiver::Basic })
}

/// Patterns as GNU tar's `--exclude` takes them. One that ends in a slash means what its name says.
fn patterns(walk: &Walk<'_>, fields: &Fields<'_>, key: &'static str) -> Option<Vec<String>> {
    let Some(node) = fields.get(key) else { return Some(Vec::new()) };
    let patterns = texts(walk, node, "a list of patterns like \"*.tmp\", cache or /logs", "a pattern")?;
    let Value::List(items) = &node.value else { return None };
    let is_root = |pattern: &String| pattern.split('/').all(|part| part.is_empty() || part == ".");
    let empty: Vec<&Node> = items.iter().zip(&patterns).filter_map(|(item, pattern)| is_root(pattern).then_some(item)).collect();
    for item in &empty {
        walk.wrong(item, "a pattern that is the whole tree leaves nothing", Some("name what is meant: /logs, \"*.tmp\"".into()));
    }
    empty.is_empty().then_some(patterns)
}

fn drill(walk: &Walk<'_>, node: &Node) -> Option<VolumeDrill> {
    let fields = walk.map(node, "a mapping like { hash: true, directory: /mnt/scratch }")?;
    let hash = fields.get("hash").map_or(Some(false), |node| walk.boolean(node));
    let directory = optional(fields.get("directory"), |node| walk.path(node, "a directory"));
    fields.finish();
    Some(VolumeDrill { hash: hash?, directory: directory? })
}

#[cfg(test)]
mod tests;
