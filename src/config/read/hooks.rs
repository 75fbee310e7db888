//! `hooks:`: the user's own commands around a unit's backup.

use std::time::Duration;

use crate::config::model::Hooks;
use crate::config::node::Node;
use crate::config::walk::Walk;

use super::optional;
use super::secrets::command_words;

/// The most that a hook may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Its keys, at least one of which is a command.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Hooks> {
    let fields = walk.map(node, "commands like { before: \"...\", after: \"...\", on_error: \"...\" }")?;
    let command = |key| optional(fields.get(key), |node| command_words(walk, node));
    let (before, after, on_error) = (command("before"), command("after"), command("on_error"));
    let timeout = fields.get("timeout").map_or(Some(TIMEOUT), |node| walk.duration(node));
    if [&before, &after, &on_error].iter().all(|command| matches!(command, Some(None))) {
        walk.wrong(node, "it names no command", Some("give at least one of before, after and on_error".into()));
    }
    fields.finish();
    Some(Hooks { before: before?, after: after?, on_error: on_error?, timeout: timeout? })
}
