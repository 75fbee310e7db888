//! What a drill asks, and where it restores to.

use globset::Glob;

use crate::config::model::{Check, Databases, Drill, DrillPlace, Server};
use crate::config::node::{Node, Scalar, Value};
use crate::config::walk::{Fields, Walk};

use super::{databases, optional, postgres, secrets};

/// The keys of another server's address.
const OF_SERVER: [&str; 6] = ["host", "port", "user", "password", "sslmode", "client_bin"];

/// `checks:`. `all` are the target's databases, where they could be read.
pub(super) fn checks(walk: &Walk<'_>, fields: &Fields<'_>, all: Option<&Databases>) -> Option<Vec<Check>> {
    let Some(node) = fields.get("checks") else { return Some(Vec::new()) };
    let items = walk.list(node, "a list of checks like { name: users, sql: \"select count(*) > 0 from users\" }")?;
    let mut seen: Vec<String> = Vec::new();
    let checks: Vec<Option<Check>> = items.iter().map(|item| check(walk, item, all, &mut seen)).collect();
    checks.into_iter().collect()
}

/// `seen`: the names before it.
fn check(walk: &Walk<'_>, node: &Node, all: Option<&Databases>, seen: &mut Vec<String>) -> Option<Check> {
    let fields = walk.map(node, "a check like { name: users, sql: \"select count(*) > 0 from users\" }")?;
    let name = fields.need("name", "write a name, for the report").and_then(|node| {
        let name = walk.text(node, "a check's name")?;
        if seen.contains(&name) {
            walk.wrong(node, format!("the name {} is taken by another check", node.describe()), Some("rename one".into()));
        }
        seen.push(name.clone());
        Some(name)
    });
    let sql = fields.need("sql", "write one query").and_then(|node| walk.text(node, "a query"));
    let expect = optional(fields.get("expect"), |node| expected(walk, node));
    let databases = fields.get("databases").map_or(Some(Vec::new()), |node| asked_databases(walk, node, all));
    fields.finish();
    Some(Check { name: name?, sql: sql?, expect: expect?, databases: databases? })
}

/// Any scalar as text; an empty one is what a query without a row returns.
fn expected(walk: &Walk<'_>, node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(Scalar { text, .. }) if text.is_empty() => Some(String::new()),
        _ => walk.text(node, "the expected value"),
    }
}

/// A check that no database is asked would hold for ever.
fn asked_databases(walk: &Walk<'_>, node: &Node, all: Option<&Databases>) -> Option<Vec<String>> {
    let asked = databases::globs(walk, node, "a list of databases' names or globs")?;
    let known: &[String] = match all {
        Some(Databases::One(Some(name))) => std::slice::from_ref(name),
        Some(Databases::Several(names)) => names,
        Some(Databases::One(None) | Databases::All { .. }) | None => return Some(asked),
    };
    let Value::List(items) = &node.value else { return None };
    for (item, asked) in items.iter().zip(&asked) {
        let matcher = Glob::new(asked).ok()?.compile_matcher();
        if !known.iter().any(|name| name == asked || matcher.is_match(name)) {
            let problem = format!("{} is none of the target's databases", item.describe());
            walk.wrong(item, problem, Some("the check would never be asked: correct it, or leave it out".into()));
        }
    }
    Some(asked)
}

/// `drill:`. `in_container`: the target's server lives in one.
pub(super) fn drill(walk: &Walk<'_>, fields: &Fields<'_>, in_container: bool) -> Option<Drill> {
    let usual = || if in_container { DrillPlace::Container } else { DrillPlace::Temporary };
    let Some(node) = fields.get("drill") else { return Some(Drill { place: usual(), allow_outbound: false }) };
    let fields = walk.map(node, "a place like { cluster: temporary }, { server: same } or { host: ... }")?;
    let allow_outbound = fields.get("allow_outbound").map_or(Some(false), |node| walk.boolean(node));
    let cluster = fields.get("cluster").map(|node| walk.word(node, "a cluster", &["temporary"], &[]));
    let same = fields.get("server").map(|node| walk.word(node, "a server", &["same"], &[]));
    let container = fields.get("container").map(|node| container(walk, node, in_container));
    let other = OF_SERVER.map(|key| fields.get(key)).into_iter().flatten().next();
    let place = match (cluster, same, container, other) {
        (None, None, None, None) => Some(usual()),
        (Some(word), None, None, None) => word.map(|_| DrillPlace::Temporary),
        (None, Some(word), None, None) => word.map(|_| DrillPlace::Same),
        (None, None, Some(word), None) => word.map(|()| DrillPlace::Container),
        (None, None, None, Some(_)) => server(walk, &fields).map(|server| DrillPlace::Server(Box::new(server))),
        _ => {
            let hint = "give one of cluster: temporary, container: temporary, server: same, or a host with its port, user, password, sslmode and client_bin";
            walk.wrong(node, "it names several places", Some(hint.into()));
            None
        }
    };
    fields.finish();
    Some(Drill { place: place?, allow_outbound: allow_outbound? })
}

fn container(walk: &Walk<'_>, node: &Node, in_container: bool) -> Option<()> {
    walk.word(node, "a container", &["temporary"], &[])?;
    if !in_container {
        let hint = "write cluster: temporary, or name the target's own with `container:` or `compose:`";
        walk.wrong(node, "the target's server is in no container, whose image a drill could take", Some(hint.into()));
    }
    in_container.then_some(())
}

fn server(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Server> {
    let text = |key, what: &str| optional(fields.get(key), |node| walk.text(node, what));
    let host = fields.need("host", "write the host that a drill restores to, or server: same");
    let host = host.and_then(|node| walk.text(node, "a host name, an address, or a socket's directory"));
    let port = optional(fields.get("port"), |node| postgres::port(walk, node));
    let user = text("user", "a role's name");
    let password = optional(fields.get("password"), |node| secrets::read(walk, node, "a password", |own| !own.is_empty()));
    let sslmode = optional(fields.get("sslmode"), |node| postgres::sslmode(walk, node));
    let client_bin = optional(fields.get("client_bin"), |node| walk.path(node, "a directory of psql and pg_restore"));
    Some(Server { host: Some(host?), port: port?, user: user?, password: password?, sslmode: sslmode?, client_bin: client_bin? })
}
