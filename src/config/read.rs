//! Reads a configuration: finds the file, walks its nodes, and gives back a checked
//! configuration or every mistake. It connects to nothing and changes nothing.

mod common;
mod containers;
mod databases;
mod drills;
mod dump;
mod extra_args;
mod hooks;
mod postgres;
mod s3;
mod secrets;
mod storages;
mod targets;
mod volume;

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono_tz::Tz;

use crate::config::mistake::{ConfigError, Mistake, nearest};
use crate::config::model::{Config, StorageConfig, StorageKind};
use crate::config::node::{Node, Value};
use crate::config::walk::{Fields, Walk};
use crate::error::{Error, Kind, Result};
use crate::host::{Env, files};
use crate::names::HostName;

/// Names the file when `-c` does not.
const VARIABLE: &str = "DB_BACKUP_CONFIG";
/// Where it is looked for when neither does.
const PLACES: [&str; 2] = ["backup.yml", "/etc/db-backup/backup.yml"];
const GENERATE: &str = "begin with: db-backup-tools generate -o backup.yml";
/// Keys of the whole file that later versions will know.
const LATER: [&str; 2] = ["encryption", "notifications"];

/// What a default may come from, so that reading depends on nothing else.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The machine's host name.
    pub host_name: String,
    /// Whether we run as root.
    pub is_root: bool,
    /// Our home directory by the system's records, for where HOME is not set.
    pub home: Option<PathBuf>,
}

/// The configuration file: `-c`, else `$DB_BACKUP_CONFIG`, `./backup.yml`, `/etc/db-backup/backup.yml`.
/// One that is there and can't be opened is taken, so that reading it fails, and is not passed over.
pub fn find(explicit: Option<&Path>, env: &Env) -> Result<PathBuf> {
    let named = explicit.map(Path::to_owned).or_else(|| env.get_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
    named.map_or_else(|| find_in(&PLACES.map(PathBuf::from)), Ok)
}

fn find_in(places: &[PathBuf]) -> Result<PathBuf> {
    for place in places {
        // The link itself: one that leads nowhere is there, and can't be opened.
        match std::fs::symlink_metadata(place) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            _ => return Ok(place.clone()),
        }
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let cause = format!("no configuration: neither -c nor {VARIABLE} names one, and there is no {}", places.join(" and no "));
    Err(Error::new(Kind::Config, cause).hint(GENERATE))
}

/// Reads and checks a file. A literal password that others can read is a warning.
pub fn read_file(path: &Path, env: &Env, facts: &HostFacts) -> Result<Config, ConfigError> {
    let unreadable = |error: std::io::Error| {
        let cause = format!("can't read the configuration {}", path.display());
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => GENERATE,
            _ => "check the path and who may read it",
        };
        ConfigError::Unreadable(Error::new(Kind::Config, cause).hint(hint).source(error))
    };
    let wrong = |mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes };
    let bytes = files::read_short(path).map_err(unreadable)?;
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    let text = String::from_utf8(bytes).map_err(|error| wrong(vec![not_utf8(&error)]))?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let Reading { mut config, literal_secrets } = read_noting(&text, &absolute, env, facts).map_err(wrong)?;
    if mode & 0o077 != 0 && !literal_secrets.is_empty() {
        config.warnings.push(format!(
            "{} (mode {:o}) can be read by others and holds a password or key ({}): chmod 600 it, or take it from a variable, a file or a command",
            path.display(),
            mode & 0o777,
            literal_secrets.join(", ")
        ));
    }
    path.clone_into(&mut config.path);
    Ok(config)
}

/// Reads and checks a text. `path` is what relative paths are relative to the directory of; secret
/// files are looked at, and nothing else.
pub fn read(text: &str, path: &Path, env: &Env, facts: &HostFacts) -> Result<Config, Vec<Mistake>> {
    read_noting(text, path, env, facts).map(|reading| reading.config)
}

/// What was read, and the places of the passwords that stand in the text itself.
#[derive(Debug)]
struct Reading {
    config: Config,
    literal_secrets: Vec<String>,
}

fn read_noting(text: &str, path: &Path, env: &Env, facts: &HostFacts) -> Result<Reading, Vec<Mistake>> {
    let root = Node::read(text).map_err(|mistake| vec![mistake])?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let walk = Walk::new(env, dir);
    let config = file(&walk, &root, path, facts);
    let literal_secrets = walk.literal_secrets();
    let mistakes = walk.into_mistakes();
    match config {
        Some(config) if mistakes.is_empty() => Ok(Reading { config, literal_secrets }),
        // Each `None` on the way has left a mistake; should one not have, this is still no success.
        _ if mistakes.is_empty() => Err(vec![Mistake {
            place: String::new(),
            line: None,
            problem: "the configuration can't be used, and the reason got lost".into(),
            hint: Some("this is a mistake of ours: please report it".into()),
        }]),
        _ => Err(mistakes),
    }
}

fn file(walk: &Walk<'_>, root: &Node, path: &Path, facts: &HostFacts) -> Option<Config> {
    if matches!(root.value, Value::Nothing) {
        walk.wrong(root, "the file is empty", Some(GENERATE.into()));
        return None;
    }
    let fields = walk.map(root, "a mapping with version, storages and targets")?;
    version(walk, &fields)?;
    let timezone = fields.get("timezone").map_or(Some(Tz::UTC), |node| timezone(walk, node));
    let host = host(walk, &fields, facts);
    let state_dir = state_dir(walk, &fields, facts);
    let log_dir = optional(fields.get("log_dir"), |node| walk.path(node, "a directory"));
    let parallel = fields.get("parallel").map_or(Some(1), |node| walk.number(node, "a number", 1..=64));
    let memory = fields.get("memory").map_or(Some(128 << 20), |node| s3::memory(walk, node));
    let (storages, names) = storages::read(walk, &fields);
    let defaults = common::defaults(walk, &fields, &names);
    let targets = targets::read(walk, &fields, &defaults, &names);
    fields.later(&LATER);
    fields.finish();
    let secret_variables = secret_variables(walk, storages.as_deref().unwrap_or_default());
    Some(Config {
        path: path.to_owned(),
        timezone: timezone?,
        host: host?,
        state_dir: state_dir?,
        log_dir: log_dir?,
        parallel: NonZeroU32::new(parallel?)?,
        memory: memory?,
        storages: storages?,
        targets: targets?,
        warnings: Vec::new(),
        secret_variables,
    })
}

/// Variables that secrets are made of; not those of the usual chain, where a storage takes its keys from that.
fn secret_variables(walk: &Walk<'_>, storages: &[StorageConfig]) -> Vec<String> {
    let by_chain = storages.iter().any(|storage| matches!(&storage.kind, StorageKind::S3(settings) if settings.keys.is_none()));
    let mut variables = walk.secret_variables();
    variables.retain(|name| !(by_chain && name.starts_with("AWS_")));
    variables
}

/// A key that may be absent: `None` where it is there and wrong.
#[allow(clippy::option_option)] // absent and wrong are two things
fn optional<T>(node: Option<&Node>, read: impl FnOnce(&Node) -> Option<T>) -> Option<Option<T>> {
    node.map_or(Some(None), |node| read(node).map(Some))
}

/// `None` ends the reading: the file of another version can't be judged.
fn version(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<()> {
    let Some(node) = fields.need("version", "begin the file with `version: 1`") else { return Some(()) };
    match walk.expanded(node, "version 1").map(|out| out.value).as_deref() {
        Some("1") | None => Some(()),
        Some(other) => {
            let newer = other.parse::<u64>().is_ok_and(|number| number > 1);
            let hint = if newer { "the file is for a newer db-backup-tools" } else { "write `version: 1`" };
            walk.expected(node, "version 1", Some(hint.into()));
            (!newer).then_some(())
        }
    }
}

fn timezone(walk: &Walk<'_>, node: &Node) -> Option<Tz> {
    let what = "a timezone like UTC or America/Sao_Paulo";
    let text = walk.text(node, what)?;
    let found = text.parse().ok();
    if found.is_none() {
        let near = nearest(&text, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        walk.expected(node, what, near.map(|zone| format!("did you mean {zone}?")));
    }
    found
}

fn host(walk: &Walk<'_>, fields: &Fields<'_>, facts: &HostFacts) -> Option<HostName> {
    let text = match fields.get("host") {
        Some(node) => walk.text(node, "a host's name")?,
        None => facts.host_name.clone(),
    };
    let name = HostName::new(text).ok();
    if name.is_none() {
        walk.wrong(fields.node, "this machine has no host name, and `host` is not given", Some("write host: NAME".into()));
    }
    name
}

/// The default is root's own, or the user's by the XDG Base Directory Specification.
fn state_dir(walk: &Walk<'_>, fields: &Fields<'_>, facts: &HostFacts) -> Option<PathBuf> {
    if let Some(node) = fields.get("state_dir") {
        return walk.path(node, "a directory");
    }
    if facts.is_root {
        return Some("/var/lib/db-backup".into());
    }
    let absolute = |name: &str| walk.env().get_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| {
        let home = absolute("HOME").or_else(|| facts.home.clone().filter(|home| home.is_absolute()));
        home.map(|home| home.join(".local/state"))
    });
    if base.is_none() {
        let problem = "`state_dir` is not given, and neither XDG_STATE_HOME nor HOME says where to keep it";
        walk.wrong(fields.node, problem, Some("write state_dir: DIRECTORY".into()));
    }
    base.map(|base| base.join("db-backup"))
}

fn not_utf8(error: &std::string::FromUtf8Error) -> Mistake {
    let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
    let line = 1 + good.filter(|byte| **byte == b'\n').count();
    let hint = Some("save the file as UTF-8".into());
    Mistake { place: String::new(), line: Some(line), problem: "expected UTF-8 text".into(), hint }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod bad_input;
