//! `restore`: one unit's backup into a fresh place, or its content into a file. The wanted name
//! appears only when every digest, every exit code and the end of the stream are proven.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::catalog::backups::{self, Backup};
use crate::catalog::manifest::Manifest;
use crate::catalog::resolve::{self, When};
use crate::catalog::{self, Entry, Seen};
use crate::commands::stores::{self, Store, UnitNames, name_in_files, source_of};
use crate::commands::{Found, named_host, notice, verify, warn};
use crate::config::mistake::nearest;
use crate::config::model::{Config, Target};
use crate::error::{Error, Kind, Result};
use crate::host::pipe::StandardOutput;
use crate::host::{Context, files, lock};
use crate::names::{Escaped, UnitName};
use crate::observe::Event;
use crate::outcome::{Items, Problem, RestoreItem, RestoreStatus, Severity};
use crate::plan::{self, Names};
use crate::quantity::{show_bytes, show_duration};
use crate::source::{Destination, StageOptions};

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

/// A backup that was chosen, and the copy that is read.
struct Choice<'a> {
    unit: UnitName,
    store: &'a Store<'a>,
    entry: Entry,
    manifest: Box<Manifest>,
    warnings: Vec<String>,
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
    let stores = open_stores(config, &names, options)?;
    let choice = choose(config, &stores, &names, options, cx)?;
    let mut item = RestoreItem {
        unit: choice.unit.to_string(),
        id: choice.manifest.id,
        storage: choice.store.name().to_owned(),
        status: RestoreStatus::Planned,
        destination: String::new(),
        bytes: choice.manifest.content.bytes,
        seconds: 0.0,
        warnings: choice.warnings.clone(),
    };
    let unit = choice.unit.clone();
    if !options.dry_run {
        let expected_bytes = Some(choice.manifest.content.bytes);
        cx.observer.event(Event::UnitStarted { unit: unit.clone(), action: "restore", expected_bytes });
    }
    let done = match &options.to {
        To::Place(destination) => into_place(config, &choice, destination, options, &mut item, cx),
        To::File(path) => into_file(&choice, path, options.dry_run, cx),
        To::Stdout => read_into(&choice, &mut StandardOutput::new(cx), cx).map(|()| "standard output".to_owned()),
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

/// The target's own storages where there is a target, else all; `--from` names one.
fn open_stores<'a>(config: &'a Config, names: &Names, options: &Options) -> Result<Vec<Store<'a>>> {
    if let Some(from) = &options.from {
        return stores::open_named(config, std::slice::from_ref(from));
    }
    let unit = config.targets.iter().flat_map(Target::units).find(|unit| names.matches_unit(unit));
    let target = unit.and_then(|unit| plan::target_of(config, &unit));
    stores::open_named(config, target.map_or(&[], |target| target.storages.as_slice()))
}

fn choose<'a>(config: &Config, stores: &'a [Store<'a>], names: &Names, options: &Options, cx: &Context) -> Result<Choice<'a>> {
    let host = named_host(options.host.as_deref())?;
    let own = host.as_ref().unwrap_or(&config.host).escaped();
    let mut backups = scan(stores, Some(&own), cx)?;
    let mut units = UnitNames::new(config);
    let mut is_wanted = |backup: &Backup| names.matches_unit(&units.of_backup(backup, stores, cx));
    if host.is_none() && !backups.iter().any(&mut is_wanted) {
        backups = scan(stores, None, cx)?;
    }
    backups.retain(is_wanted);
    let one_of = |what: &str, mut found: Vec<Escaped>, hint: &str| -> Result<()> {
        found.sort();
        found.dedup();
        if found.len() < 2 {
            return Ok(());
        }
        let listed: Vec<String> = found.iter().map(|name| name_in_files(name).to_string()).collect();
        Err(Error::new(Kind::Config, format!("{} is of several {what}: {}", options.name, listed.join(", "))).hint(hint))
    };
    one_of("hosts", backups.iter().map(|backup| backup.host.clone()).collect(), "say which with --host")?;
    one_of("units", backups.iter().map(|backup| backup.stem.unit.clone()).collect(), "name one of them")?;
    if backups.is_empty() {
        return Err(nothing_found(config, stores, options, cx));
    }
    pick(config, stores, backups, &options.at, cx)
}

fn scan(stores: &[Store<'_>], host: Option<&Escaped>, cx: &Context) -> Result<Vec<Backup>> {
    let mut listings = Vec::new();
    for store in stores {
        let entries = store.scan(host, cx).map_err(|error| {
            let others = stores.iter().map(Store::name).filter(|name| *name != store.name()).collect::<Vec<_>>().join(", ");
            match others.as_str() {
                "" => error,
                _ => error.hint(format!("the newest backup may be there; to go on without it: --from NAME (of: {others})")),
            }
        })?;
        listings.push((store.name().to_owned(), entries));
    }
    Ok(backups::merge(listings))
}

fn nothing_found(config: &Config, stores: &[Store<'_>], options: &Options, cx: &Context) -> Error {
    let host = options.host.clone().unwrap_or_else(|| config.host.to_string());
    let entries = stores.iter().filter_map(|store| store.scan(None, cx).ok()).flatten();
    let mut known: Vec<String> = entries.map(|entry| name_in_files(&entry.stem.unit).to_string()).collect();
    known.sort();
    known.dedup();
    let hint = if known.is_empty() {
        "the storages hold no backup at all".into()
    } else {
        let near = nearest(&options.name, known.iter().map(String::as_str)).map(|near| format!("did you mean {near}? "));
        format!("{}there are backups of: {}", near.unwrap_or_default(), known.join(", "))
    };
    Error::new(Kind::NotFound, format!("there is no backup of {} for host {host}", options.name)).hint(hint)
}

/// Finds the backup that is meant. What turns out not to be whole drops out, and is told; what is
/// unknown stops, as it may be the one that is wanted.
fn pick<'a>(config: &Config, stores: &'a [Store<'a>], mut backups: Vec<Backup>, when: &When, cx: &Context) -> Result<Choice<'a>> {
    let mut warnings: Vec<String> = Vec::new();
    let mut newest_damage = None;
    backups.retain(|backup| backup.copies.iter().any(|copy| copy.entry.has_manifest));
    loop {
        cx.cancel.check()?;
        let chosen = match resolve::resolve(&backups, |backup| backup.stem.id, when, config.timezone, cx.clock.now()) {
            Ok(chosen) => chosen.clone(),
            // Where none is left, the damage is the news, not that nothing matches.
            Err(error) => return Err(newest_damage.unwrap_or(error)),
        };
        match first_whole(stores, &chosen, when, &mut warnings, cx) {
            Ok((store, entry, manifest)) => {
                let unit = manifest.unit.clone();
                for text in &warnings {
                    warn(cx, unit.as_str(), text);
                }
                return Ok(Choice { unit, store, entry, manifest, warnings });
            }
            Err(error) if error.kind() == Kind::Damaged && !when.is_id() => {
                backups.retain(|backup| backup.stem != chosen.stem);
                newest_damage = newest_damage.or(Some(error));
            }
            Err(error) => {
                return Err(error.hint_if_none("choose another backup with --at, or another copy with --from"));
            }
        }
    }
}

/// The first copy of a backup that is whole. Where none is: why; an unknown copy outweighs a damaged
/// one, as it may be good.
fn first_whole<'a>(
    stores: &'a [Store<'a>],
    backup: &Backup,
    when: &When,
    warnings: &mut Vec<String>,
    cx: &Context,
) -> Result<(&'a Store<'a>, Entry, Box<Manifest>)> {
    let mut failure: Option<Error> = None;
    for copy in &backup.copies {
        let Some(store) = stores::named(stores, &copy.storage) else { continue };
        match catalog::look(store.storage.as_ref(), &copy.entry, cx).unwrap_or_else(Seen::Unknown) {
            Seen::Whole(manifest) => return Ok((store, copy.entry.clone(), manifest)),
            Seen::Suspicious(manifest) if when.is_id() => return Ok((store, copy.entry.clone(), manifest)),
            other => {
                let error = not_whole(other).storage(store.name()).step("read");
                warnings.push(format!("{} in {} is passed over: {}", backup.stem.id, store.name(), error.cause()));
                if failure.as_ref().is_none_or(|failure| failure.kind() == Kind::Damaged) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::Internal, format!("{} has no copy", backup.stem.id))))
}

fn not_whole(seen: Seen) -> Error {
    match seen {
        Seen::Damaged(_, error) => error.kind_is(Kind::Damaged),
        Seen::Unknown(error) => error.kind_is(Kind::Missing),
        Seen::Incomplete { .. } => Error::new(Kind::Damaged, "this copy is incomplete"),
        Seen::Suspicious(_) => Error::new(Kind::Damaged, "it is suspicious").hint("name it by its id to restore it all the same"),
        Seen::Whole(_) => Error::new(Kind::Internal, "a whole backup was passed over"),
    }
}

/// Reads the chosen copy through to its proven end.
fn read_into(choice: &Choice<'_>, output: &mut (dyn Write + Send), cx: &Context) -> Result<()> {
    verify::read_through(choice.store, &choice.entry, &choice.manifest, &choice.unit, output, cx).map(drop)
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
    let facts = &choice.manifest.facts;
    let warnings = source.check(facts, to, options.stage, cx)?;
    for text in &warnings {
        warn(cx, choice.unit.as_str(), text);
    }
    item.warnings.extend(warnings);
    let wanted = describe(target, to);
    if options.dry_run {
        return Ok(wanted);
    }
    let _lock = lock::take(&config.state_dir, &choice.unit, options.wait, cx)?;
    let mut sink = source.stage(facts, to, options.stage, cx)?;
    read_into(choice, &mut sink, cx)?;
    let staged = sink.finish()?;
    cx.cancel.check()?;
    let published = staged.publish()?;
    for text in &published.warnings {
        warn(cx, choice.unit.as_str(), text);
    }
    item.warnings.extend(published.warnings);
    Ok(published.place)
}

fn describe(target: &Target, to: &Destination) -> String {
    match to {
        Destination::Own => format!("the own place of target {}", target.name),
        Destination::Database(name) => format!("database {name}"),
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
