//! Which databases a target means. They must be known from one place, and from one alone.

use globset::Glob;

use crate::config::model::Databases;
use crate::config::node::{Node, Value};
use crate::config::secret::{Secret, SecretFrom};
use crate::config::walk::{Fields, Walk};

use super::dump::texts;

/// The longest name that PostgreSQL keeps, in bytes (documentation, "Identifiers and Key Words"); it cuts a longer one.
const LONGEST_NAME: usize = 63;

/// `database:`, `databases:` and `exclude_databases:`. `uri` is the address, where there is one that could be read.
#[allow(clippy::option_option)] // absent and wrong are two things
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>, uri: Option<Option<&Secret>>) -> Option<Databases> {
    let (one, several, exclude) = (fields.get("database"), fields.get("databases"), fields.get("exclude_databases"));
    if let (Some(_), Some(node)) = (one, several) {
        walk.wrong(node, "given together with `database`", Some("leave one of them out".into()));
    }
    if let Some(uri) = uri {
        known_once(walk, fields, one, several, uri);
    }
    let databases = match several {
        Some(node) => self::several(walk, node),
        None => one.map_or(Some(None), |node| name(walk, node).map(Some)).map(Databases::One),
    };
    let Some(node) = exclude else { return databases };
    let exclude = globs(walk, node, "a list of globs of databases' names");
    // Where `databases` is wrong, that is said already.
    match databases? {
        Databases::All { .. } => Some(Databases::All { exclude: exclude? }),
        Databases::One(_) | Databases::Several(_) => {
            walk.wrong(node, "only databases: all leaves some out", Some("write databases: all, or leave it out".into()));
            None
        }
    }
}

fn several(walk: &Walk<'_>, node: &Node) -> Option<Databases> {
    let what = "a list of databases' names, or the word all";
    if let Value::Scalar(_) = node.value {
        let text = walk.text(node, what)?;
        if text != "all" {
            walk.expected(node, what, Some("write databases: [NAME, ...], or database: NAME for a single one".into()));
            return None;
        }
        return Some(Databases::All { exclude: Vec::new() });
    }
    let names = texts(walk, node, what, "a database's name")?;
    let Value::List(items) = &node.value else { return None };
    let fit: Vec<bool> = items.iter().zip(&names).map(|(item, name)| fits(walk, item, name)).collect();
    (!fit.contains(&false)).then_some(Databases::Several(names))
}

fn name(walk: &Walk<'_>, node: &Node) -> Option<String> {
    walk.text(node, "a database's name").filter(|name| fits(walk, node, name))
}

fn fits(walk: &Walk<'_>, node: &Node, name: &str) -> bool {
    if name.len() > LONGEST_NAME {
        let problem = format!("expected a database's name, found one of {} bytes: {}", name.len(), node.describe());
        walk.wrong(node, problem, Some(format!("PostgreSQL keeps {LONGEST_NAME} bytes of a name: look at psql -l")));
    }
    name.len() <= LONGEST_NAME
}

/// Globs as NAMEs of the command line are: `*` and `?` stand for any character.
pub(super) fn globs(walk: &Walk<'_>, node: &Node, what: &str) -> Option<Vec<String>> {
    let globs = texts(walk, node, what, "a glob")?;
    let Value::List(items) = &node.value else { return None };
    let broken = items.iter().zip(&globs).filter_map(|(item, glob)| Some((item, Glob::new(glob).err()?)));
    let broken: Vec<_> = broken.collect();
    for (item, error) in &broken {
        let hint = "in a glob, *, ?, [, ] and {, } have a meaning: write \\[ for a literal one";
        walk.wrong(item, format!("{} is no glob: {}", item.describe(), error.kind()), Some(hint.into()));
    }
    broken.is_empty().then_some(globs)
}

fn known_once(walk: &Walk<'_>, fields: &Fields<'_>, one: Option<&Node>, several: Option<&Node>, uri: Option<&Secret>) {
    let in_uri = match uri.map(|uri| &uri.from) {
        Some(SecretFrom::Value(value)) => Some(names_database(value)),
        // Read only when it is needed.
        Some(SecretFrom::File(_) | SecretFrom::Command(_)) => None,
        None => Some(false),
    };
    match (one.or(several), in_uri) {
        (Some(node), Some(true)) => {
            walk.wrong(node, "given together with a `uri` that names a database", Some("leave one of them out".into()));
        }
        (None, Some(false)) => {
            let set = |name| walk.env().get_os(name).is_some_and(|value| !value.is_empty());
            let in_container = ["container", "compose"].iter().any(|key| fields.get(key).is_some());
            if in_container {
                let hint = "write database: NAME or databases: all; this machine's variables do not count in a container";
                walk.wrong(fields.node, "it names no database", Some(hint.into()));
            } else if !set("PGDATABASE") && !set("PGSERVICE") {
                let hint = "write database: NAME or databases: all, or set PGDATABASE or PGSERVICE";
                walk.wrong(fields.node, "it names no database", Some(hint.into()));
            }
        }
        _ => {}
    }
}

fn names_database(uri: &str) -> bool {
    let (_, database, parameters) = super::postgres::parts(uri);
    let named = |parameter: &str| parameter.starts_with("dbname=") || parameter.starts_with("service=");
    !database.is_empty() || parameters.split('&').any(named)
}
