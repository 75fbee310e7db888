//! Walks the nodes: notes each key that was asked for, reads values as what they should be, and
//! gathers every mistake in the file's order. It knows no key's meaning.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::expand::{Expanded, expand};
use crate::config::mistake::{Mistake, nearest};
use crate::config::node::{Entry, Node, Scalar, Value};
use crate::host::Env;
use crate::quantity::{parse_bytes, parse_duration};

/// Gathers mistakes on the way through a file.
pub(super) struct Walk<'a> {
    env: &'a Env,
    /// The directory that relative paths are relative to.
    dir: &'a Path,
    mistakes: RefCell<Vec<(usize, Mistake)>>,
    literal_secrets: RefCell<Vec<String>>,
    secret_variables: RefCell<BTreeSet<String>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(env: &'a Env, dir: &'a Path) -> Self {
        Self { env, dir, mistakes: RefCell::default(), literal_secrets: RefCell::default(), secret_variables: RefCell::default() }
    }

    pub(super) fn env(&self) -> &Env {
        self.env
    }

    /// Notes that a secret stands in the file itself.
    pub(super) fn literal_secret(&self, node: &Node) {
        self.literal_secrets.borrow_mut().push(node.place.clone());
    }

    /// The places of secrets that stand in the file itself.
    pub(super) fn literal_secrets(&self) -> Vec<String> {
        self.literal_secrets.borrow().clone()
    }

    /// Notes that a secret is made of these variables.
    pub(super) fn of_secret(&self, variables: Vec<String>) {
        self.secret_variables.borrow_mut().extend(variables);
    }

    /// The variables that secrets are made of.
    pub(super) fn secret_variables(&self) -> Vec<String> {
        self.secret_variables.borrow().iter().cloned().collect()
    }

    /// All that is wrong, in the file's order.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(order, _)| *order);
        mistakes.into_iter().map(|(_, mistake)| mistake).collect()
    }

    /// Notes a mistake.
    pub(super) fn wrong(&self, node: &Node, problem: impl Into<String>, hint: Option<String>) {
        let mistake = Mistake { place: node.place.clone(), line: node.line, problem: problem.into(), hint };
        self.mistakes.borrow_mut().push((node.order, mistake));
    }

    /// Notes that something else was expected here; the value is quoted as it was written.
    pub(super) fn expected(&self, node: &Node, what: &str, hint: Option<String>) {
        self.wrong(node, format!("expected {what}, found {}", node.describe()), hint);
    }

    /// A mapping.
    pub(super) fn map<'n>(&'n self, node: &'n Node, what: &str) -> Option<Fields<'n>> {
        if let Value::Map(entries) = &node.value {
            return Some(Fields { walk: self, node, entries, asked: RefCell::default() });
        }
        self.expected(node, what, None);
        None
    }

    /// A list of one or more.
    pub(super) fn list<'n>(&self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.wrong(node, format!("expected {what}, found an empty list"), None);
                None
            }
            Value::List(items) => Some(items),
            _ => {
                self.expected(node, what, None);
                None
            }
        }
    }

    /// A scalar's raw text, whatever YAML takes it for.
    pub(super) fn raw<'n>(&self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar(Scalar { text, .. }) => Some(text),
            Value::Nothing => {
                self.expected(node, what, Some("leave the key out, or quote the value".into()));
                None
            }
            _ => {
                self.expected(node, what, None);
                None
            }
        }
    }

    /// A scalar with its variables expanded; not empty, and such as an environment can hold.
    pub(super) fn expanded(&self, node: &Node, what: &str) -> Option<Expanded> {
        let raw = self.raw(node, what)?;
        match expand(raw, self.env) {
            Ok(out) if out.value.is_empty() => {
                let found =
                    if out.from_variable { format!("{}, which is empty", node.describe()) } else { "an empty one".into() };
                self.wrong(node, format!("expected {what}, found {found}"), None);
                None
            }
            Ok(out) if out.value.contains('\0') => {
                self.wrong(node, format!("expected {what}, found a zero byte in it"), None);
                None
            }
            Ok(out) => Some(out),
            Err(bad) => {
                for variable in bad {
                    self.wrong(node, variable.problem, Some(variable.hint));
                }
                None
            }
        }
    }

    /// Text.
    pub(super) fn text(&self, node: &Node, what: &str) -> Option<String> {
        self.expanded(node, what).map(|out| out.value)
    }

    /// A value that `read` takes; its error is not shown, as it may quote what was expanded.
    pub(super) fn parsed<T>(&self, node: &Node, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let out = self.expanded(node, what)?;
        let value = read(&out.value);
        if value.is_none() {
            let hint = out.from_variable.then(|| "look at what the variable holds".to_owned());
            self.expected(node, what, hint);
        }
        value
    }

    /// A whole number in decimal digits.
    pub(super) fn number(&self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let what = format!("{what} from {} to {}", range.start(), range.end());
        self.parsed(node, &what, |text| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            text.parse().ok().filter(|number| plain && range.contains(number))
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, node: &Node) -> Option<bool> {
        self.parsed(node, "true or false", |text| text.to_ascii_lowercase().parse().ok())
    }

    /// A span of time that is longer than nothing.
    pub(super) fn duration(&self, node: &Node) -> Option<Duration> {
        let read = |text: &str| parse_duration(text).ok().filter(|span| !span.is_zero());
        self.parsed(node, "a duration like 90s, 2h or 7d", read)
    }

    /// A size in bytes. `what` says the range too.
    pub(super) fn bytes(&self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.parsed(node, what, |text| parse_bytes(text).ok().filter(|bytes| range.contains(bytes)))
    }

    /// One of these words. `later` are those that a later version will know.
    pub(super) fn word(&self, node: &Node, what: &str, known: &[&'static str], later: &[&str]) -> Option<&'static str> {
        let what = format!("{what} ({})", known.join(", "));
        let out = self.expanded(node, &what)?;
        let found = known.iter().find(|word| **word == out.value).copied();
        if found.is_none() {
            if later.contains(&out.value.as_str()) {
                self.wrong(node, format!("{} is not supported by this version: expected {what}", node.describe()), None);
            } else {
                let near = nearest(&out.value, known.iter().copied().chain(later.iter().copied()));
                let hint = match near {
                    _ if out.from_variable => Some("look at what the variable holds".to_owned()),
                    near => near.map(|word| format!("did you mean {word}?")),
                };
                self.expected(node, &what, hint);
            }
        }
        found
    }

    /// A path; a relative one is relative to the file's directory.
    pub(super) fn path(&self, node: &Node, what: &str) -> Option<PathBuf> {
        let text = self.text(node, what)?;
        if text == "~" || text.starts_with("~/") {
            self.expected(node, what, Some("`~` means nothing here: write ${HOME}".into()));
            return None;
        }
        Some(self.dir.join(text))
    }
}

/// A mapping's entries, and which of them were asked for.
pub(super) struct Fields<'n> {
    walk: &'n Walk<'n>,
    /// The mapping.
    pub(super) node: &'n Node,
    entries: &'n [Entry],
    asked: RefCell<Vec<&'static str>>,
}

impl<'n> Fields<'n> {
    /// The value of a key that may be there.
    pub(super) fn get(&self, key: &'static str) -> Option<&'n Node> {
        self.asked.borrow_mut().push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &'static str, hint: &str) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let what = if self.node.place.is_empty() { "the file" } else { "it" };
            self.walk.wrong(self.node, format!("{what} lacks the key `{key}`"), Some(hint.to_owned()));
        }
        found
    }

    /// Keys that a later version will know.
    pub(super) fn later(&self, keys: &[&'static str]) {
        for key in keys {
            if let Some(node) = self.get(key) {
                self.walk.wrong(node, format!("`{key}` is not supported by this version"), Some("leave it out".into()));
            }
        }
    }

    /// The entries of a mapping whose keys are the user's own names.
    pub(super) fn named(self) -> &'n [Entry] {
        self.twice();
        self.entries
    }

    /// Notes keys that were never asked for, and those given twice.
    pub(super) fn finish(self) {
        self.twice();
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|entry| !asked.contains(&entry.key.as_str())) {
            let hint = match entry.key.as_str() {
                "<<" => Some("`<<` takes a mapping, or a list of them, once".to_owned()),
                key => nearest(key, asked.iter().copied()).map(|near| format!("did you mean `{near}`?")),
            };
            self.walk.wrong(&entry.node, "unknown key", hint);
        }
    }

    /// Notes keys given twice, where it is not known which keys there can be.
    pub(super) fn twice(&self) {
        for (at, entry) in self.entries.iter().enumerate() {
            if let Some(first) = self.entries[..at].iter().find(|earlier| earlier.key == entry.key) {
                let before = first.node.line.map_or(String::new(), |line| format!(", first in line {line}"));
                self.walk.wrong(&entry.node, format!("given twice{before}"), Some("keep one of them".into()));
            }
        }
    }
}
