//! This program's own directories, where a target's tree holds them: a backup into a storage that is within its tree would hold all
//! backups before it, and grow without end.

use std::path::{Path, PathBuf};

use super::patterns::{Pattern, any_matches};
use crate::config::model::{Config, StorageKind};
use crate::error::{Error, Kind, Result};
use crate::host::files;

/// One of them.
#[derive(Debug, Clone)]
pub struct OwnPlace {
    /// For a person: `storage local`.
    what: String,
    path: PathBuf,
    is_storage: bool,
}

impl OwnPlace {
    /// Those of a configuration, for a target that goes to these storages.
    pub fn all(config: &Config, storages: &[String]) -> Vec<Self> {
        let stores = config.storages.iter().filter(|storage| storages.contains(&storage.name));
        let stores = stores.filter_map(|storage| match &storage.kind {
            StorageKind::Local { path, .. } => {
                Some(Self { what: format!("storage {}", storage.name), path: path.clone(), is_storage: true })
            }
            StorageKind::S3(_) => None,
        });
        // Locks, and what a run must undo later: restored, it would be done to what is there by then.
        stores.chain([Self { what: "state_dir".into(), path: config.state_dir.clone(), is_storage: false }]).collect()
    }
}

/// What a backup leaves out of a tree: patterns as `exclude:` has them, and what to say of it. Nothing is said of what these patterns
/// leave out already.
pub(super) fn left_out(own: &[OwnPlace], tree: &Path, exclude: &[Pattern]) -> Result<(Vec<String>, Vec<String>)> {
    let tree = files::real_path(tree);
    let (mut patterns, mut warnings) = (Vec::new(), Vec::new());
    for place in own {
        let real = files::real_path(&place.path);
        if place.is_storage && tree.starts_with(&real) {
            let cause =
                format!("{} is in {}, which its backups go into: each would hold all before it", tree.display(), place.what);
            return Err(Error::new(Kind::Config, cause)
                .hint("have it go to another storage (`storages:` of the target), or correct `path:`")
                .step("path"));
        }
        let Some(below) = real.strip_prefix(&tree).ok().filter(|below| !below.as_os_str().is_empty()) else { continue };
        let Some(text) = below.to_str() else {
            return Err(
                Error::new(Kind::Config, format!("{} is in the tree, under a name that is no UTF-8", place.what)).step("path")
            );
        };
        if !any_matches(exclude, text.as_bytes()) {
            warnings.push(format!("{text} is left out: it is this program's own ({})", place.what));
        }
        patterns.push(format!("/{}", literal(text)));
    }
    Ok((patterns, warnings))
}

/// A name as a pattern that means it alone.
fn literal(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_left_out_by_its_real_path_alone() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().canonicalize().unwrap().join("tree");
        std::fs::create_dir_all(tree.join("a*[b\\")).unwrap();
        std::os::unix::fs::symlink(&tree, home.path().join("link")).unwrap();
        // It is not there yet, and its target is given by a link.
        let path = home.path().join("link/a*[b\\/new");
        let of = |path: &Path, tree: &str, exclude: &[&str]| {
            let exclude: Vec<_> = exclude.iter().map(|text| Pattern::parse(text)).collect();
            let own = OwnPlace { what: "storage local".into(), path: path.to_owned(), is_storage: true };
            left_out(&[own], &home.path().join(tree), &exclude)
        };
        let (patterns, warnings) = of(&path, "link", &[]).unwrap();
        assert_eq!(patterns, [r"/a\*\[b\\/new"]);
        let pattern = Pattern::parse(&patterns[0]);
        assert!(pattern.matches(br"a*[b\/new/x") && !pattern.matches(br"axb\/new") && !pattern.matches(br"x/a*[b\/new"));
        assert_eq!(warnings, [r"a*[b\/new is left out: it is this program's own (storage local)"]);
        assert_eq!(of(&path, "link", &["a*"]).unwrap().1, [""; 0]);
        assert_eq!(of(&home.path().join("treex"), "tree", &[]).unwrap(), (vec![], vec![]));
        for tree in ["tree", "link", "tree/a*[b\\"] {
            assert!(of(&home.path().join("tree"), tree, &[]).is_err(), "{tree}");
        }
    }
}
