//! A target of type postgres: its keys, and the way to its server.

use crate::config::model::Postgres;
use crate::config::node::Node;
use crate::config::secret::{Secret, SecretFrom};
use crate::config::walk::{Fields, Walk};

use super::{containers, databases, drills, dump, optional, secrets};

/// The libpq documentation, "SSL Mode Descriptions".
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// Keys that later versions will know.
const LATER: [&str; 1] = ["lock_wait_timeout"];

/// The keys of a PostgreSQL target.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Postgres> {
    let uri = fields.get("uri");
    let text = |key, what: &str| optional(beside(walk, fields.get(key), uri), |node| walk.text(node, what));
    let host = text("host", "a host name, an address, or a socket's directory");
    let user = text("user", "a role's name");
    let port = optional(beside(walk, fields.get("port"), uri), |node| self::port(walk, node));
    let password = beside(walk, fields.get("password"), uri);
    let password = optional(password, |node| secrets::read(walk, node, "a password", |own| !own.is_empty()));
    let sslmode = optional(beside(walk, fields.get("sslmode"), uri), |node| self::sslmode(walk, node));
    let uri = optional(uri, |node| address(walk, node));
    let databases = databases::read(walk, fields, uri.as_ref().map(Option::as_ref));
    let globals = fields.get("globals").map_or(Some(false), |node| walk.boolean(node));
    let format = dump::format(walk, fields);
    let jobs = dump::jobs(walk, fields, format);
    let filter = dump::filter(walk, fields, format);
    let client_bin = optional(fields.get("client_bin"), |node| walk.path(node, "a directory of pg_dump and psql"));
    let container = containers::of_database(walk, fields);
    let checks = drills::checks(walk, fields, databases.as_ref());
    let drill = drills::drill(walk, fields, matches!(container, Some(Some(_))));
    fields.later(&LATER);
    Some(Postgres {
        host: host?,
        port: port?,
        user: user?,
        password: password?,
        sslmode: sslmode?,
        uri: uri?,
        databases: databases?,
        globals: globals?,
        format: format?,
        filter: filter?,
        client_bin: client_bin?,
        container: container?,
        jobs: jobs?,
        checks: checks?,
        drill: drill?,
    })
}

pub(super) fn port(walk: &Walk<'_>, node: &Node) -> Option<u16> {
    walk.number(node, "a port", 1..=65535).and_then(|port| u16::try_from(port).ok())
}

pub(super) fn sslmode(walk: &Walk<'_>, node: &Node) -> Option<String> {
    walk.word(node, "an sslmode", &SSL_MODES, &[]).map(str::to_owned)
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
pub(super) fn parts(uri: &str) -> (&str, &str, &str) {
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
