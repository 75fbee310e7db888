//! `generate`: the sample configuration. It never overwrites a file unless told to.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::commands::Found;
use crate::config::sample::SAMPLE;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, files};
use crate::observe::Event;
use crate::outcome::{Items, TextItem};

/// `generate`'s options.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Write to this file; none, or `-`: print.
    pub output: Option<PathBuf>,
    /// Overwrite it.
    pub force: bool,
}

/// Prints or writes the sample.
pub fn run(options: &Options, cx: &Context) -> Found {
    let Some(path) = options.output.as_deref().filter(|path| *path != Path::new("-")) else {
        return Found { items: Items::Text(vec![TextItem { text: SAMPLE.to_owned() }]), problems: Vec::new() };
    };
    match write(path, options.force) {
        Ok(()) => {
            let text = format!("written: {}; adapt it, then: db-backup-tools -c {0} validate", path.display());
            cx.observer.event(Event::Note { text });
            Found { items: Items::Text(Vec::new()), problems: Vec::new() }
        }
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
    if !force {
        let mut file = files::create_private(path).map_err(failed)?;
        return file.write_all(SAMPLE.as_bytes()).and_then(|()| file.sync_all()).map_err(failed);
    }
    // The old file stays until the new one is whole.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".backup.yml.").tempfile_in(directory).map_err(failed)?;
    file.write_all(SAMPLE.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    files::sync_dir(directory).map_err(failed)
}
