//! `restore`: one unit's backup into a fresh place, or its content into a file. The wanted name
//! appears only when every digest, every exit code and the end of the stream are proven.

mod ground;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::catalog;
use crate::catalog::resolve::When;
use crate::commands::choose::{self, Choice, Wanted, read_into};
use crate::commands::drill::judge;
use crate::commands::stores::source_for;
use crate::commands::{Found, notice, warn};
use crate::config::model::{Config, Target, TargetKind, VolumePlace};
use crate::error::{Error, Kind, Result};
use crate::host::pipe::StandardOutput;
use crate::host::{Context, files, lock};
use crate::observe::Event;
use crate::outcome::{Items, Problem, RestoreItem, RestoreStatus, Severity};
use crate::plan::{self, Names};
use crate::quantity::{show_bytes, show_duration};
use crate::source::{Destination, Landing, StageOptions, Staged, volume};

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
            let mut problems: Vec<Problem> = item.warnings.iter().map(|text| notice(Some(&item.unit), text.as_str())).collect();
            problems.extend(item.doubts.iter().map(|text| doubt(&item.unit, text)));
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
        doubts: Vec::new(),
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

/// Something that may not be as it was.
fn doubt(unit: &str, text: &str) -> Problem {
    Problem::of(&Error::new(Kind::Check, text).step("unpack").target(unit), Severity::Partial)
}

fn into_place(
    config: &Config,
    choice: &Choice<'_>,
    to: &Destination,
    options: &Options,
    item: &mut RestoreItem,
    cx: &Context,
) -> Result<String> {
    let source = source_for(&choice.manifest, to, config).ok_or_else(|| no_target(choice))?;
    let target = plan::target_of(config, &choice.unit);
    if let Some(path) = place_of_files(target, to) {
        ground::check(config, path)?;
    }
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
        let kept = match options.stage.replace {
            true if is_volume(choice) => "; what is there would stay beside it, under another name",
            true => "; a database that is there would stay as NAME_before_...",
            false => "",
        };
        return Ok(describe(choice, to) + kept);
    }
    let _lock = lock::take(&config.state_dir, &choice.unit, options.wait, cx)?;
    if let Some(mut look) = source.look_first(&landing, cx)? {
        let text = format!("{}: reading the whole backup first, as it is written in place", choice.unit);
        cx.observer.event(Event::Note { text });
        read_into(choice, &mut look, cx)?;
        look.finish()?;
    }
    let mut sink = source.stage(&landing, cx)?;
    read_into(choice, &mut sink, cx)?;
    let mut staged = sink.finish()?;
    cx.cancel.check()?;
    // To count files costs little.
    if is_volume(choice) || (options.stage.replace && !choice.unit.is_globals()) {
        prove(choice, target, staged.as_mut(), item, cx)?;
    }
    let published = staged.publish()?;
    for text in &published.warnings {
        warn(cx, choice.unit.as_str(), text);
    }
    item.warnings.extend(published.warnings);
    item.doubts = published.doubts;
    item.notes = published.notes;
    Ok(published.place)
}

/// Holds what is to take a live one's place against what was dumped, and asks it the target's own questions.
fn prove(
    choice: &Choice<'_>,
    target: Option<&Target>,
    staged: &mut dyn Staged,
    item: &mut RestoreItem,
    cx: &Context,
) -> Result<()> {
    let (what, hint) = if is_volume(choice) {
        ("nothing was put in place", "choose another backup with --at, or take the plain tar with --output FILE and look")
    } else {
        (
            "nothing is replaced",
            "restore it beside the live one with --to-database NEWNAME and look, or choose another backup with --at",
        )
    };
    let not_swapped = |error: Error| error.restated(format!("{what}: {}", error.cause())).hint(hint);
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
    let Some(target) = target.filter(|_| !is_volume(choice)) else { return Ok(()) };
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

fn is_volume(choice: &Choice<'_>) -> bool {
    choice.manifest.facts.kind == volume::KIND
}

fn no_target(choice: &Choice<'_>) -> Error {
    let unit = &choice.unit;
    let (cause, hint) = if is_volume(choice) {
        (
            format!("the config has no volume target {unit}, so nothing says where its own place is"),
            "say where it goes: --to-path DIR or --to-volume NAME; or take the tar with --output FILE",
        )
    } else {
        (
            format!("the config has no target {unit}, so there is no server to restore to"),
            "add the target to the config, or take the dump alone with --output FILE",
        )
    };
    Error::new(Kind::Config, cause).hint(hint)
}

/// The directory or file that is written, where one is.
fn place_of_files<'a>(target: Option<&'a Target>, to: &'a Destination) -> Option<&'a Path> {
    match (to, target.map(|target| &target.kind)) {
        (Destination::Directory(path), _) => Some(path),
        (Destination::Own, Some(TargetKind::Volume(volume))) => match &volume.place {
            VolumePlace::Path(path) => Some(path),
            VolumePlace::Named(_) => None,
        },
        _ => None,
    }
}

fn describe(choice: &Choice<'_>, to: &Destination) -> String {
    match to {
        Destination::Own => format!("its own place, by target {}", choice.manifest.target),
        Destination::Database(name) => format!("database {name}"),
        Destination::Directory(path) => format!("directory {}", path.display()),
        Destination::Volume(name) => format!("volume {name}"),
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
