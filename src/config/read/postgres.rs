//! A target of type postgres: which database, and the way to it.

use crate::config::model::{Databases, Drill, DumpFilter, Format, Postgres};
use crate::config::node::Node;
use crate::config::secret::{Secret, SecretFrom};
use crate::config::walk::{Fields, Walk};

use super::{optional, secrets};

/// The libpq documentation, "SSL Mode Descriptions".
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// Keys that later versions will know.
const LATER: [&str; 18] = [
    "checks",
    "drill",
    "container",
    "compose",
    "engine",
    "schemas",
    "exclude_schemas",
    "tables",
    "exclude_tables",
    "exclude_table_data",
    "schema_only",
    "no_owner",
    "no_privileges",
    "extra_args",
    "jobs",
    "lock_wait_timeout",
    "stop",
    "pause",
];

/// The keys of a PostgreSQL target.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Postgres> {
    let uri = fields.get("uri");
    let text = |key, what: &str| optional(beside(walk, fields.get(key), uri), |node| walk.text(node, what));
    let host = text("host", "a host name, an address, or a socket's directory");
    let user = text("user", "a role's name");
    let port = beside(walk, fields.get("port"), uri);
    let port = optional(port, |node| walk.number(node, "a port", 1..=65535).and_then(|port| u16::try_from(port).ok()));
    let password = beside(walk, fields.get("password"), uri);
    let password = optional(password, |node| secrets::read(walk, node, "a password", |own| !own.is_empty()));
    let sslmode = beside(walk, fields.get("sslmode"), uri);
    let sslmode = optional(sslmode, |node| walk.word(node, "an sslmode", &SSL_MODES, &[]).map(str::to_owned));
    let uri = optional(uri, |node| address(walk, node));
    let database = optional(fields.get("database"), |node| walk.text(node, "a database's name"));
    let format =
        fields.get("format").map_or(Some("plain"), |node| walk.word(node, "a format", &["plain"], &["custom", "directory"]));
    let client_bin = optional(fields.get("client_bin"), |node| walk.path(node, "a directory of pg_dump and psql"));
    let databases = match fields.get("databases") {
        None => None,
        Some(node) if node.describe().trim_matches('"') == "all" => {
            let exclude = fields.get("exclude_databases").map(|node| texts(walk, node));
            Some(Databases::All { exclude: exclude.unwrap_or_default() })
        }
        Some(node) => Some(Databases::Several(texts(walk, node))),
    };
    let globals = fields.get("globals").is_some_and(|node| walk.boolean(node) == Some(true));
    fields.later(&LATER);
    if let Some(uri) = &uri {
        one_database(walk, fields, uri.as_ref());
    }
    format?;
    Some(Postgres {
        host: host?,
        port: port?,
        user: user?,
        password: password?,
        sslmode: sslmode?,
        uri: uri?,
        databases: databases.unwrap_or(Databases::One(database?)),
        globals,
        format: Format::Plain,
        filter: DumpFilter::default(),
        client_bin: client_bin?,
        jobs: None,
        checks: Vec::new(),
        drill: Drill::default(),
    })
}

fn texts(walk: &Walk<'_>, node: &Node) -> Vec<String> {
    let items = walk.list(node, "a list of names").unwrap_or_default();
    items.iter().filter_map(|item| walk.text(item, "a database's name")).collect()
}

/// The node, which must not stand beside a `uri`.
fn beside<'n>(walk: &Walk<'_>, node: Option<&'n Node>, uri: Option<&Node>) -> Option<&'n Node> {
    if let (Some(node), Some(_)) = (node, uri) {
        walk.wrong(node, "given together with `uri`, which says it too", Some("leave one of them out".into()));
    }
    node
}

/// An address may hold a password: it is not quoted.
fn address(walk: &Walk<'_>, node: &Node) -> Option<Secret> {
    let secret = secrets::read(walk, node, "an address like postgresql://user@host/database", holds_password)?;
    if let SecretFrom::Value(value) = &secret.from
        && !is_address(value)
    {
        let problem = format!("expected an address that begins with postgresql:// or postgres://, found {}", secret.written);
        walk.wrong(node, problem, None);
        return None;
    }
    Some(secret)
}

/// Whether a text begins as libpq's connection addresses do.
fn is_address(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// What is behind `://`, apart: user and hosts, database, parameters.
fn parts(uri: &str) -> (&str, &str, &str) {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    (authority, database, parameters)
}

fn holds_password(uri: &str) -> bool {
    let (authority, _, parameters) = parts(uri);
    let in_user =
        authority.rsplit_once('@').is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, word)| !word.is_empty()));
    in_user || parameters.split('&').any(|parameter| parameter.starts_with("password="))
}

/// The database must be known from one place, and from one alone.
fn one_database(walk: &Walk<'_>, fields: &Fields<'_>, uri: Option<&Secret>) {
    let in_uri = match uri.map(|uri| &uri.from) {
        Some(SecretFrom::Value(value)) => {
            let (_, database, parameters) = parts(value);
            let named = |parameter: &str| parameter.starts_with("dbname=") || parameter.starts_with("service=");
            Some(!database.is_empty() || parameters.split('&').any(named))
        }
        // Read only when it is needed.
        Some(SecretFrom::File(_) | SecretFrom::Command(_)) => None,
        None => Some(false),
    };
    match (fields.get("database"), in_uri) {
        (Some(node), Some(true)) => {
            walk.wrong(node, "given together with a `uri` that names a database", Some("leave one of them out".into()));
        }
        (None, Some(false)) => {
            let set = |name| walk.env().get_os(name).is_some_and(|value| !value.is_empty());
            let later = ["databases", "container", "compose"].iter().any(|key| fields.get(key).is_some());
            if !later && !set("PGDATABASE") && !set("PGSERVICE") {
                let hint = "write database: NAME, or set PGDATABASE or PGSERVICE";
                walk.wrong(fields.node, "it names no database", Some(hint.into()));
            }
        }
        _ => {}
    }
}
