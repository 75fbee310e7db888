//! `generate`: the sample configuration. It never overwrites a file unless told to.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::commands::Found;
use crate::config::sample::SAMPLE;
use crate::error::{Error, Kind, Result};
use crate::host::files;
use crate::outcome::{Items, TextItem};

/// `generate`'s options.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Write to this file; none: print.
    pub output: Option<PathBuf>,
    /// Overwrite it.
    pub force: bool,
}

/// Prints or writes the sample.
pub fn run(options: &Options) -> Found {
    let Some(path) = &options.output else {
        return Found { items: Items::Text(vec![TextItem { text: SAMPLE.to_owned() }]), problems: Vec::new() };
    };
    match write(path, options.force) {
        Ok(()) => Found { items: Items::Text(Vec::new()), problems: Vec::new() },
        Err(error) => Found::failure(Items::Text(Vec::new()), &error),
    }
}

/// Passwords will come into this file, so nobody else may read it.
fn write(path: &Path, force: bool) -> Result<()> {
    let failed = |error: std::io::Error| {
        let there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let hint =
            if there { "choose another name, or overwrite it with --force" } else { "check the directory and its permissions" };
        let kind = if there { Kind::Refused } else { Kind::Config };
        Error::new(kind, format!("can't write {}", path.display())).hint(hint).source(error)
    };
    if force {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let mut file = files::create_private(path).map_err(failed)?;
    file.write_all(SAMPLE.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
