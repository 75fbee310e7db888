//! What is in a directory that was unpacked, held against what was counted as it was archived.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use crate::error::Result;
use crate::host::{Context, tree};
use crate::source::{Comparison, FileCounts, Inventory};

/// Counts what is there, as a tar counts it, and compares.
pub(super) fn compare(root: &Path, is_file: bool, archived: &Inventory, cx: &Context) -> Result<Comparison> {
    let Some(archived) = &archived.files else { return Ok(Comparison::default()) };
    let mut counted = Counted::default();
    tree::walk(root, &cx.cancel, &mut |found| counted.add(found)).map_err(|error| error.step("compare"))?;
    let mut there = counted.counts();
    // The directory around a single file is ours.
    there.directories -= u64::from(is_file);
    Ok(Comparison {
        files: there.files + there.directories + there.links + there.others,
        tree: Some(there),
        differences: differences(&there, archived),
        ..Comparison::default()
    })
}

fn differences(there: &FileCounts, archived: &FileCounts) -> Vec<String> {
    let held = [
        ("files", there.files, archived.files),
        ("directories", there.directories, archived.directories),
        ("links", there.links, archived.links),
        ("FIFOs and devices", there.others, archived.others),
        ("bytes in files", there.bytes, archived.bytes),
    ];
    let differ = held.into_iter().filter(|(_, there, archived)| there != archived);
    differ.map(|(what, there, archived)| format!("there are {there} {what}, and {archived} were archived")).collect()
}

/// What a walk has met, by the number of names that each has.
#[derive(Default)]
struct Counted {
    directories: u64,
    symbolic_links: u64,
    /// Names of files and their bytes. All names of a file are in the tree, as it is new: with `n` names it is met `n` times.
    files: BTreeMap<u64, (u64, u128)>,
    others: BTreeMap<u64, u64>,
}

impl Counted {
    fn add(&mut self, found: &Stat) {
        #[allow(clippy::useless_conversion)] // 32 bits on some machines
        let names = u64::try_from(found.st_nlink).unwrap_or(1).max(1);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => self.directories += 1,
            FileType::Symlink => self.symbolic_links += 1,
            FileType::RegularFile => {
                let (met, bytes) = self.files.entry(names).or_default();
                *met += 1;
                *bytes += u128::try_from(found.st_size).unwrap_or(0);
            }
            _ => *self.others.entry(names).or_default() += 1,
        }
    }

    fn counts(&self) -> FileCounts {
        let files: u64 = self.files.iter().map(|(names, (met, _))| met / names).sum();
        let bytes: u128 = self.files.iter().map(|(names, (_, bytes))| bytes / u128::from(*names)).sum();
        let others: u64 = self.others.iter().map(|(names, met)| met / names).sum();
        let met = self.files.values().map(|(met, _)| met).chain(self.others.values()).sum::<u64>();
        FileCounts {
            files,
            directories: self.directories,
            links: self.symbolic_links + (met - files - others),
            others,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_links_and_bytes_are_counted_as_tar_counts_them() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        fs::create_dir_all(root.join("empty")).unwrap();
        fs::write(root.join("one"), "12345").unwrap();
        fs::write(root.join("two"), "123").unwrap();
        for name in ["two again", "empty/two once more"] {
            fs::hard_link(root.join("two"), root.join(name)).unwrap();
        }
        symlink("/nowhere", root.join("link")).unwrap();
        fs::hard_link(root.join("link"), root.join("link again")).unwrap();
        let archived = FileCounts { files: 2, directories: 2, links: 4, others: 0, bytes: 8 };
        let inventory = Inventory { files: Some(archived), ..Inventory::default() };
        let cx = Context::for_tests();
        let compared = compare(&root, false, &inventory, &cx).unwrap();
        assert_eq!((compared.tree, compared.files, compared.differences.len()), (Some(archived), 8, 0));
        fs::remove_file(root.join("two again")).unwrap();
        let compared = compare(&root, false, &inventory, &cx).unwrap();
        assert_eq!(compared.differences, ["there are 3 links, and 4 were archived"]);
    }
}
