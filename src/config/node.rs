//! The one home of serde_yaml: turns YAML text into nodes that keep each scalar's raw text, each
//! mapping's entries in order with those given twice, and each node's place and line. It gives a
//! value no meaning, and expands no variable.
//!
//! serde_yaml shows no marks and turns `1e5` into a number, so the text is read twice: the first
//! pass finds the shape, the second asks for each scalar as text. It asks with a visitor that
//! always fails: the failure is caught, and carries the scalar's line.

mod passes;

use crate::config::mistake::{Mistake, quote};

/// A value in the file, and where it stands. No `Debug`: it may be a secret.
#[derive(Clone)]
pub struct Node {
    /// The path from the root: `targets[1].port`.
    pub place: String,
    /// Of its key, or of its own text, counted from 1.
    pub line: Option<usize>,
    /// Grows along the file.
    pub order: usize,
    /// What stands there.
    pub value: Value,
}

/// What stands in a place.
#[derive(Clone)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Nothing,
    /// A single value.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, its merge keys resolved.
    Map(Vec<Entry>),
}

/// A single value as it was written, less its quotes.
#[derive(Clone)]
pub struct Scalar {
    /// The text: `0777`, `1e5` and `yes` stay what they are.
    pub text: String,
    /// What YAML takes it for. What was quoted is text.
    pub kind: ScalarKind,
}

/// What YAML takes a scalar for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScalarKind {
    /// `true` or `false`, not quoted.
    Bool,
    /// A number, not quoted.
    Number,
    /// Everything else.
    Text,
}

/// A key and its value.
#[derive(Clone)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// The value; its place and line are the entry's.
    pub node: Node,
}

impl Node {
    /// Reads one document; what is not YAML, or is too deep or too large, is one mistake.
    pub fn read(text: &str) -> Result<Self, Mistake> {
        passes::read(text)
    }

    /// What stands here, for a message: `"abc"`, `a list`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Nothing => "nothing".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Scalar(Scalar { text, kind: ScalarKind::Text }) => quote(text),
            Value::Scalar(Scalar { text, .. }) => text.clone(),
        }
    }

    /// Moves it, with all below it, to another place.
    fn move_to(&mut self, place: String) {
        match &mut self.value {
            Value::Nothing | Value::Scalar(_) => {}
            Value::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    item.move_to(format!("{place}[{at}]"));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    entry.node.move_to(join(&place, &entry.key));
                }
            }
        }
        self.place = place;
    }
}

/// The place of a key in a mapping.
fn join(place: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.len() <= 60 && key.chars().all(|c| c.is_alphanumeric() || "_-<".contains(c));
    let key = if plain { key.to_owned() } else { quote(key) };
    if place.is_empty() { key } else { format!("{place}.{key}") }
}

/// Resolves `<<`: what the mapping has itself wins, then what is merged first. A `<<` that is
/// given twice or merges no mapping is left where it is, to be found as an unknown key.
fn merge(place: &str, mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut merge_keys = entries.iter().enumerate().filter(|(_, entry)| entry.key == "<<");
    let (Some((at, entry)), None) = (merge_keys.next(), merge_keys.next()) else { return entries };
    let sources: Option<Vec<&[Entry]>> = match &entry.node.value {
        Value::Map(source) => Some(vec![source]),
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Map(source) => Some(source.as_slice()),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    let Some(sources) = sources else { return entries };
    let mut taken: Vec<Entry> = Vec::new();
    for candidate in sources.into_iter().flatten() {
        if !entries.iter().chain(&taken).any(|entry| entry.key == candidate.key) {
            let mut candidate = candidate.clone();
            candidate.node.move_to(join(place, &candidate.key));
            taken.push(candidate);
        }
    }
    entries.splice(at..=at, taken);
    entries
}

#[cfg(test)]
mod tests;
