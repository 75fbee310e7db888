//! About how much a tree will come to, by a walk that ends early in a large one.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::patterns::{Pattern, any_matches};
use super::place::Way;
use crate::config::model;
use crate::error::Result;
use crate::host::Context;

/// No more entries are looked at: a disk that turns answers some hundred a second.
const ENTRIES: usize = 100_000;
/// tar's own, for each member: a header, and two blocks of a POSIX one.
const MEMBER: u64 = 1536;

/// Bytes that are to be expected; none of a tree with too many entries, or of one that can't be seen from here.
pub(super) fn bytes(way: &Way, config: &model::Volume, exclude: &[Pattern], cx: &Context) -> Result<Option<u64>> {
    let Some(root) = way.root() else { return Ok(None) };
    let start = root.file.as_ref().map_or_else(|| root.directory.clone(), |name| root.directory.join(name));
    let Ok(of_root) = fs::metadata(&start) else { return Ok(None) };
    let mut sum = MEMBER + stored(&of_root);
    let mut left = ENTRIES;
    let mut directories = if of_root.is_dir() { vec![start.clone()] } else { Vec::new() };
    while let Some(directory) = directories.pop() {
        cx.cancel.check()?;
        // What is not readable, or gone, will be told by tar.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if is_excluded(&start, &path, exclude) {
                continue;
            }
            sum += MEMBER + stored(&metadata);
            if metadata.is_dir() && !(config.one_file_system && metadata.dev() != of_root.dev()) {
                directories.push(path);
            }
        }
    }
    Ok(Some(sum))
}

fn is_excluded(root: &Path, path: &Path, exclude: &[Pattern]) -> bool {
    path.strip_prefix(root).is_ok_and(|name| any_matches(exclude, name.as_os_str().as_bytes()))
}

/// A regular file's content without its holes.
fn stored(metadata: &fs::Metadata) -> u64 {
    if metadata.is_file() { metadata.len().min(metadata.blocks() * 512) } else { 0 }
}
