//! Passwords and addresses with passwords: `${VAR}`, a literal, `{ file: }` or `{ command: }`.

use std::fs::File;
use std::path::Path;

use crate::config::node::{Node, Value};
use crate::config::secret::{Secret, SecretFrom};
use crate::config::walk::{Fields, Walk};

/// What a command may be.
const COMMAND: &str = "a command: text for sh, or a list of a program and its arguments";

/// A secret, with its file looked at now, so that it does not fail at night. `tells`: whether what
/// of a value stands in the configuration gives the secret away.
pub(super) fn read(walk: &Walk<'_>, node: &Node, what: &str, tells: fn(&str) -> bool) -> Option<Secret> {
    let forms = format!("{what}: text, {{ file: PATH }} or {{ command: ... }}");
    if let Value::Map(_) = node.value {
        let fields = walk.map(node, &forms)?;
        let secret = indirect(walk, &fields, &forms);
        fields.finish();
        return secret;
    }
    let out = walk.expanded(node, &forms)?;
    if tells(&out.own) {
        walk.literal_secret(node);
    }
    walk.of_secret(out.variables);
    let written = if out.from_variable { out.masked } else { "***".to_owned() };
    Some(Secret { written, from: SecretFrom::Value(out.value) })
}

fn indirect(walk: &Walk<'_>, fields: &Fields<'_>, forms: &str) -> Option<Secret> {
    match (fields.get("file"), fields.get("command")) {
        (Some(node), None) => {
            let path = walk.path(node, "a file")?;
            readable(walk, node, &path, "the secret file")?;
            let written = format!("{{ file: {} }}", walk.raw(node, "a file")?);
            Some(Secret { written, from: SecretFrom::File(path) })
        }
        (None, Some(node)) => command(walk, node),
        _ => {
            walk.expected(fields.node, forms, Some("give one of file and command".into()));
            None
        }
    }
}

/// Whether a file that the configuration names can be read. `what`: `the secret file`.
pub(super) fn readable(walk: &Walk<'_>, node: &Node, path: &Path, what: &str) -> Option<()> {
    // Asked first: to open a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map(|found| found.is_file());
    let why = match kind.and_then(|is_file| if is_file { File::open(path).map(|_| true) } else { Ok(false) }) {
        Ok(true) => return Some(()),
        Ok(false) => "it is not a regular file".to_owned(),
        Err(error) => error.to_string(),
    };
    walk.wrong(node, format!("{what} {} can't be read: {why}", node.describe()), Some("check the path and its mode".into()));
    None
}

/// A secret that a command prints.
fn command(walk: &Walk<'_>, node: &Node) -> Option<Secret> {
    let words = command_words(walk, node)?;
    // The program's name says which command it is; the rest may hold what others must not see, and
    // so may an assignment before it.
    let written = match &node.value {
        Value::List(items) => items.first().and_then(|first| walk.raw(first, "a program")),
        _ => walk.raw(node, COMMAND).and_then(|text| text.split_whitespace().find(|word| !word.contains('='))),
    };
    let written = format!("{{ command: {} ... }}", written.unwrap_or_default());
    Some(Secret { written, from: SecretFrom::Command(words) })
}

/// A program and its arguments. A text goes to `sh` as it is, which expands variables itself: a variable's value must
/// never become a command. A list is a program with its arguments, each expanded.
pub(super) fn command_words(walk: &Walk<'_>, node: &Node) -> Option<Vec<String>> {
    if let Value::List(_) = node.value {
        let words: Vec<Option<String>> =
            walk.list(node, COMMAND)?.iter().map(|word| walk.text(word, "a word of the command")).collect();
        return words.into_iter().collect();
    }
    let text = walk.raw(node, COMMAND)?;
    if text.trim().is_empty() || text.contains('\0') {
        walk.expected(node, COMMAND, None);
        return None;
    }
    Some(vec!["sh".into(), "-c".into(), text.to_owned()])
}
