//! `restore`: one unit's backup into a fresh place, or its content into a file. The wanted name
//! appears only when every digest, every exit code and the end of the stream are proven.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::catalog;
use crate::catalog::resolve::When;
use crate::commands::choose::{self, Choice, Wanted, read_into};
use crate::commands::drill::judge;
use crate::commands::stores::source_of;
use crate::commands::{Found, notice, warn};
use crate::config::model::{Config, Target};
use crate::error::{Error, Kind, Result};
use crate::host::pipe::StandardOutput;
use crate::host::{Context, files, lock};
use crate::observe::Event;
use crate::outcome::{Items, Problem, RestoreItem, RestoreStatus, Severity};
use crate::plan::{self, Names};
use crate::quantity::{show_bytes, show_duration};
use crate::source::{Destination, Landing, StageOptions, Staged};

/// `restore`'s options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The unit.
    pub name: String,
    /// Which backup.
    pub at: When,
    /// Only this storage.
    pub from: Option<String>,
    /// Whose; none: our own, or the only host that has it.
    pub host: Option<String>,
    /// Where to.
    pub to: To,
    /// How.
    pub stage: StageOptions,
    /// How long to wait for another run's lock.
    pub wait: Option<Duration>,
    /// Look, and do nothing.
    pub dry_run: bool,
}

/// Where a restore goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Into a database or the like, through the target's source.
    Place(Destination),
    /// The content into a file that is not there yet.
    File(PathBuf),
    /// The content to standard output.
    Stdout,
}

/// Restores what is asked for.
pub fn run(config: &Config, options: &Options, cx: &Context) -> Found {
    match restore(config, options, cx) {
        Ok(item) => {
            let problems = item.warnings.iter().map(|text| notice(Some(&item.unit), text.as_str())).collect();
            Found { items: Items::Restores(vec![item]), problems }
        }
        Err(error) => {
            let problem = Problem::of(&error.target(&options.name), Severity::Failure);
            Found { items: Items::Restores(Vec::new()), problems: vec![problem] }
        }
    }
}

fn restore(config: &Config, options: &Options, cx: &Context) -> Result<RestoreItem> {
    let begun = Instant::now();
    let names = Names::new(std::slice::from_ref(&options.name))?;
    let wanted = Wanted { name: &options.name, at: &options.at, from: options.from.as_deref(), host: options.host.as_deref() };
    let stores = choose::open_stores(config, &names, &wanted)?;
    let choice = choose::choose(config, &stores, &names, &wanted, cx)?;
    let mut item = RestoreItem {
        unit: choice.unit.to_string(),
        id: choice.manifest.id,
        storage: choice.store.name().to_owned(),
        status: RestoreStatus::Planned,
        destination: String::new(),
        bytes: choice.manifest.content.bytes,
        seconds: 0.0,
        warnings: choice.warnings.clone(),
        notes: Vec::new(),
    };
    let unit = choice.unit.clone();
    if !options.dry_run {
        let expected_bytes = Some(choice.manifest.content.bytes);
        cx.observer.event(Event::UnitStarted { unit: unit.clone(), action: "restore", expected_bytes });
    }
    let done = match &options.to {
        To::Place(destination) => into_place(config, &choice, destination, options, &mut item, cx),
        To::File(path) => into_file(&choice, path, options.dry_run, cx),
        To::Stdout => read_into(&choice, &mut StandardOutput::new(cx), cx).map(|_| "standard output".to_owned()),
    };
    if !options.dry_run {
        let took = begun.elapsed();
        let summary = match &done {
            Ok(destination) => {
                format!("{} ({}) restored to {destination} in {}", item.id, show_bytes(item.bytes), show_duration(took))
            }
            // A problem says why.
            Err(_) => String::new(),
        };
        cx.observer.event(Event::UnitFinished { unit, ok: done.is_ok(), summary });
        item.status = RestoreStatus::Done;
        item.seconds = took.as_secs_f64();
    }
    item.destination = done?;
    Ok(item)
}

fn into_place(
    config: &Config,
    choice: &Choice<'_>,
    to: &Destination,
    options: &Options,
    item: &mut RestoreItem,
    cx: &Context,
) -> Result<String> {
    let target = plan::target_of(config, &choice.unit).ok_or_else(|| {
        Error::new(Kind::Config, format!("the config has no target {}, so there is no server to restore to", choice.unit))
            .hint("add the target to the config, or take the dump alone with --output FILE")
    })?;
    let source = source_of(target);
    let landing = Landing {
        unit: &choice.unit,
        id: choice.manifest.id,
        facts: &choice.manifest.facts,
        bytes: choice.manifest.content.bytes,
        to,
        options: options.stage,
        state_dir: &config.state_dir,
    };
    let warnings = source.check(&landing, cx)?;
    for text in &warnings {
        warn(cx, choice.unit.as_str(), text);
    }
    item.warnings.extend(warnings);
    if options.dry_run {
        let kept = if options.stage.replace { "; a database that is there would stay as NAME_before_..." } else { "" };
        return Ok(describe(target, to) + kept);
    }
    let _lock = lock::take(&config.state_dir, &choice.unit, options.wait, cx)?;
    let mut sink = source.stage(&landing, cx)?;
    read_into(choice, &mut sink, cx)?;
    let mut staged = sink.finish()?;
    cx.cancel.check()?;
    if options.stage.replace && !choice.unit.is_globals() {
        prove(choice, target, staged.as_mut(), item, cx)?;
    }
    let published = staged.publish()?;
    for text in &published.warnings {
        warn(cx, choice.unit.as_str(), text);
    }
    item.warnings.extend(published.warnings);
    item.notes = published.notes;
    Ok(published.place)
}

/// Holds what is to take a live one's place against what was dumped, and asks it the target's own questions.
fn prove(choice: &Choice<'_>, target: &Target, staged: &mut dyn Staged, item: &mut RestoreItem, cx: &Context) -> Result<()> {
    let not_swapped = |error: Error| {
        let what = format!("nothing is replaced: {}", error.cause());
        error
            .restated(what)
            .hint("restore it beside the live one with --to-database NEWNAME and look, or choose another backup with --at")
    };
    match catalog::inventory::read(choice.store.storage.as_ref(), &choice.entry, &choice.manifest, cx) {
        Ok(Some(inventory)) => {
            if let Some(error) = judge::differences(&staged.compare(&inventory)?) {
                return Err(not_swapped(error));
            }
        }
        Ok(None) => passed_over(choice, "the backup has no inventory: what was restored is compared with nothing", item, cx),
        Err(error) => {
            cx.cancel.check()?;
            let text = format!("what was restored is compared with nothing: {}", error.cause());
            passed_over(choice, &text, item, cx);
        }
    }
    for check in judge::asked(target, &choice.unit, choice.manifest.facts.database.as_deref())? {
        let (_, failure) = judge::answered(check, staged.check(&check.sql))?;
        if let Some(error) = failure {
            return Err(not_swapped(error));
        }
        cx.cancel.check()?;
    }
    Ok(())
}

fn passed_over(choice: &Choice<'_>, text: &str, item: &mut RestoreItem, cx: &Context) {
    warn(cx, choice.unit.as_str(), text);
    item.warnings.push(text.to_owned());
}

fn describe(target: &Target, to: &Destination) -> String {
    match to {
        Destination::Own => format!("its own place, by target {}", target.name),
        Destination::Database(name) => format!("database {name}"),
        Destination::Drill => "a scratch place".to_owned(),
    }
}

/// The content into a new file: under a temporary name until it is proven.
fn into_file(choice: &Choice<'_>, path: &Path, dry_run: bool, cx: &Context) -> Result<String> {
    let refused = |kind, cause: String, hint: &str| Error::new(kind, cause).hint(hint.to_owned()).step("output");
    let taken = || refused(Kind::Refused, format!("{} exists", path.display()), "choose another name, or remove it first");
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(taken());
    }
    let is_named = path.file_name().is_some();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !is_named || !directory.is_dir() {
        let cause = format!("{} can't be written: its directory is not there", path.display());
        return Err(refused(Kind::Refused, cause, "make the directory first"));
    }
    let done = format!("file {}", path.display());
    if dry_run {
        return Ok(done);
    }
    let failed = |error: std::io::Error| {
        refused(
            Kind::StorageDenied,
            format!("can't write {}", path.display()),
            "check the directory's permissions and free space",
        )
        .source(error)
    };
    let mut file = tempfile::Builder::new().prefix(".db-backup-tools.").tempfile_in(directory).map_err(failed)?;
    // The pipeline knows nothing of files: what the disk says is told as the disk's.
    let mut writer = FileWriter { file: file.as_file_mut(), failed: &failed };
    read_into(choice, &mut writer, cx)?;
    file.as_file().sync_all().map_err(failed)?;
    files::rename_new(file.path(), path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => taken(),
        _ => failed(error),
    })?;
    // The name is the restored file's now: nothing is left to remove.
    let _ = file.into_temp_path().keep();
    files::sync_dir(directory).map_err(failed)?;
    Ok(done)
}

struct FileWriter<'a, F> {
    file: &'a mut std::fs::File,
    failed: &'a F,
}

impl<F: Fn(std::io::Error) -> Error> Write for FileWriter<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes).map_err(|error| (self.failed)(error).into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
