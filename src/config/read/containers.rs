//! Containers: the one that a database lives in, those that stand still while a volume is read, and whose they are.

use crate::config::model::{Container, ContainerName, Held, Hold, HoldBy};
use crate::config::node::{Node, Value};
use crate::config::walk::{Fields, Walk};
use crate::host::engine::EngineKind;

use super::dump::texts;
use super::optional;

/// What would make no sense beside a container: its socket is the way.
const OF_THIS_MACHINE: [&str; 2] = ["client_bin", "uri"];

/// `container:` or `compose:`, with `engine:`.
#[allow(clippy::option_option)] // absent and wrong are two things
pub(super) fn of_database(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Option<Container>> {
    let (name, service) = (fields.get("container"), fields.get("compose"));
    let engine = engine(walk, fields);
    if name.is_none() && service.is_none() {
        if let Some(node) = fields.get("engine") {
            walk.wrong(node, "no container is named", Some("write container: NAME, or leave `engine` out".into()));
            return None;
        }
        return Some(None);
    }
    for key in OF_THIS_MACHINE {
        if let Some(node) = fields.get(key) {
            walk.wrong(node, "given together with a container, whose own programs are run", Some("leave it out".into()));
        }
    }
    let which = match (name, service) {
        (Some(_), Some(node)) => {
            walk.wrong(node, "given together with `container`", Some("leave one of them out".into()));
            None
        }
        (Some(node), None) => container_name(walk, node).map(ContainerName::Name),
        (None, node) => node.and_then(|node| self::service(walk, node)),
    };
    Some(Some(Container { which: which?, engine: engine? }))
}

/// `engine:`.
#[allow(clippy::option_option)]
pub(super) fn engine(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Option<EngineKind>> {
    optional(fields.get("engine"), |node| {
        let word = walk.word(node, "a container engine", &["docker", "podman"], &[])?;
        Some(if word == "docker" { EngineKind::Docker } else { EngineKind::Podman })
    })
}

fn service(walk: &Walk<'_>, node: &Node) -> Option<ContainerName> {
    let fields = walk.map(node, "a service like { file: /srv/app/compose.yml, service: db }")?;
    let file = fields.need("file", "write the Compose file that the project is run by");
    let file = file.and_then(|node| walk.path(node, "a Compose file"));
    let service = fields.need("service", "write the service's name in it").and_then(|node| walk.text(node, "a service's name"));
    fields.finish();
    Some(ContainerName::Service { file: file?, service: service? })
}

/// A container's, volume's or image's name. One that begins with a dash would be an option of the engine's.
pub(super) fn name(walk: &Walk<'_>, node: &Node, what: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-/:@".contains(c);
    walk.parsed(node, what, |text| {
        let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good);
        fits.then(|| text.to_owned())
    })
}

fn container_name(walk: &Walk<'_>, node: &Node) -> Option<String> {
    name(walk, node, "a container's name")
}

/// `stop:` or `pause:`.
#[allow(clippy::option_option)]
pub(super) fn hold(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Option<Hold>> {
    match (fields.get("stop"), fields.get("pause")) {
        (None, None) => Some(None),
        (Some(node), None) => held(walk, node).map(|which| Some(Hold { how: HoldBy::Stop, which })),
        (None, Some(node)) => held(walk, node).map(|which| Some(Hold { how: HoldBy::Pause, which })),
        (Some(_), Some(node)) => {
            walk.wrong(node, "given together with `stop`", Some("leave one of them out".into()));
            None
        }
    }
}

fn held(walk: &Walk<'_>, node: &Node) -> Option<Held> {
    let what = "a list of containers, the word users, or { label: KEY=VALUE }";
    match &node.value {
        Value::List(items) => {
            let names = texts(walk, node, what, "a container's name")?;
            let good: Vec<bool> = items.iter().map(|item| container_name(walk, item).is_some()).collect();
            (!good.contains(&false)).then_some(Held::Named(names))
        }
        Value::Map(_) => {
            let fields = walk.map(node, what)?;
            let label = fields.need("label", "write label: KEY or label: KEY=VALUE");
            let label = label.and_then(|node| walk.text(node, "a label like KEY or KEY=VALUE"));
            fields.finish();
            label.map(Held::Label)
        }
        _ => {
            let text = walk.text(node, what)?;
            if text != "users" {
                walk.expected(node, what, Some("write [NAME, ...], also for a single one".into()));
            }
            (text == "users").then_some(Held::Users)
        }
    }
}
