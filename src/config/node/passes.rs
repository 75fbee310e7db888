//! The two passes over the YAML text. Nothing outside this file knows serde_yaml.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use super::{Entry, Node, Scalar, ScalarKind, Value, join, merge};
use crate::config::mistake::Mistake;

/// The most nodes: an alias in an alias in an alias is small in the file and huge in memory.
const MOST_NODES: usize = 100_000;

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Node, Mistake> {
    let pass = Pass::default();
    let shape = ShapeSeed(&pass).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| pass.mistake(&error))?;
    pass.nodes.set(0);
    let seed = NodeSeed { pass: &pass, shape: &shape, place: String::new(), line: None };
    match shape {
        // Nothing at all has no event that could be asked for its text.
        Shape::Nothing => Ok(Node { place: String::new(), line: None, order: 0, value: Value::Nothing }),
        _ => seed.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| pass.mistake(&error)),
    }
}

#[derive(Default)]
struct Pass {
    nodes: Cell<usize>,
    refused: RefCell<Option<String>>,
}

impl Pass {
    fn refuse<E: Error>(&self, why: impl Into<String>) -> E {
        *self.refused.borrow_mut() = Some(why.into());
        E::custom("refused")
    }

    fn count<E: Error>(&self) -> Result<usize, E> {
        let order = self.nodes.get();
        if order >= MOST_NODES {
            return Err(self.refuse(format!("more than {MOST_NODES} values, with aliases counted each time")));
        }
        self.nodes.set(order + 1);
        Ok(order)
    }

    /// serde_yaml's messages name rules and marks, never the text: they hold no secret.
    fn mistake(&self, error: &serde_yaml::Error) -> Mistake {
        let text = error.to_string();
        // Control characters are found before lines are counted.
        let line = error.location().map(|at| at.line()).filter(|_| !text.contains("at position"));
        let (problem, hint) = if let Some(why) = self.refused.take() {
            (why, None)
        } else if text.contains("more than one document") {
            ("expected one document, found several".to_owned(), Some("keep one, and remove the `---` lines"))
        } else if text.contains("recursion limit") {
            ("nested too deep, or an alias holds itself".to_owned(), None)
        } else if text.contains("repetition limit") {
            ("aliases repeat too much".to_owned(), None)
        } else if text.contains("cannot start any token") {
            (format!("not YAML: {text}"), Some("indent with spaces, not tabs; quote a value that begins with @, ` or %"))
        } else {
            (format!("not YAML: {text}"), Some("look at the indentation, the quotes and the brackets around this line"))
        };
        Mistake { place: String::new(), line, problem, hint: hint.map(str::to_owned) }
    }
}

/// What the first pass finds.
enum Shape {
    Nothing,
    Scalar(ScalarKind),
    List(Vec<Shape>),
    Map(Vec<Shape>),
}

struct ShapeSeed<'p>(&'p Pass);

impl<'de> DeserializeSeed<'de> for ShapeSeed<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Shape, D::Error> {
        self.0.count()?;
        from.deserialize_any(self)
    }
}

/// A key's shape is its text's kind; whatever is not a single value is refused.
struct KeySeed<'p>(&'p Pass);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match ShapeSeed(self.0).deserialize(from)? {
            Shape::Nothing | Shape::Scalar(_) => Ok(()),
            Shape::List(_) | Shape::Map(_) => {
                Err(self.0.refuse("expected a key that is text, found a list or a mapping in braces as a key"))
            }
        }
    }
}

impl<'de> Visitor<'de> for ShapeSeed<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Shape, E> {
        Ok(Shape::Nothing)
    }

    fn visit_none<E: Error>(self) -> Result<Shape, E> {
        Ok(Shape::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Bool))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Number))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Number))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Number))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Number))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Scalar(ScalarKind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut shapes = Vec::new();
        while let Some(shape) = items.next_element_seed(ShapeSeed(self.0))? {
            shapes.push(shape);
        }
        Ok(Shape::List(shapes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut shapes = Vec::new();
        while entries.next_key_seed(KeySeed(self.0))?.is_some() {
            shapes.push(entries.next_value_seed(ShapeSeed(self.0))?);
        }
        Ok(Shape::Map(shapes))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Shape, A::Error> {
        Err(self.0.refuse("expected a plain value, found one with a tag (`!...`)"))
    }
}

/// The second pass: a node of a known shape.
struct NodeSeed<'a> {
    pass: &'a Pass,
    shape: &'a Shape,
    place: String,
    /// The key's, where there is one.
    line: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        let kind = match self.shape {
            Shape::List(_) | Shape::Map(_) => return from.deserialize_any(self),
            Shape::Nothing => None,
            Shape::Scalar(kind) => Some(*kind),
        };
        let order = self.pass.count()?;
        let (text, line) = raw(from)?;
        let value = kind.map_or(Value::Nothing, |kind| Value::Scalar(Scalar { text, kind }));
        Ok(Node { place: self.place, line: self.line.or(line), order, value })
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the first pass found")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let order = self.pass.count()?;
        let Shape::List(shapes) = self.shape else { return Err(self.pass.refuse("not a list any more")) };
        let mut nodes: Vec<Node> = Vec::new();
        for (at, shape) in shapes.iter().enumerate() {
            let place = format!("{}[{at}]", self.place);
            nodes.extend(items.next_element_seed(NodeSeed { pass: self.pass, shape, place, line: None })?);
        }
        let line = self.line.or_else(|| nodes.first().and_then(|node| node.line));
        Ok(Node { place: self.place, line, order, value: Value::List(nodes) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let order = self.pass.count()?;
        let Shape::Map(shapes) = self.shape else { return Err(self.pass.refuse("not a mapping any more")) };
        let mut nodes: Vec<Entry> = Vec::new();
        for shape in shapes {
            let Some((key, line)) = entries.next_key_seed(RawSeed)? else { break };
            let place = join(&self.place, &key);
            let node = entries.next_value_seed(NodeSeed { pass: self.pass, shape, place, line })?;
            nodes.push(Entry { key, node });
        }
        let line = self.line.or_else(|| nodes.first().and_then(|entry| entry.node.line));
        let nodes = merge(&self.place, nodes);
        Ok(Node { place: self.place, line, order, value: Value::Map(nodes) })
    }
}

struct RawSeed;

impl<'de> DeserializeSeed<'de> for RawSeed {
    type Value = (String, Option<usize>);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        raw(from)
    }
}

/// A scalar's raw text, and its line.
fn raw<'de, D: Deserializer<'de>>(from: D) -> Result<(String, Option<usize>), D::Error> {
    let mut text = None;
    let outcome = from.deserialize_str(Failing(&mut text));
    match (outcome, text) {
        (Err(error), Some(text)) => Ok((text, line_in(&error.to_string()))),
        (Err(error), None) => Err(error),
        (Ok(()), _) => Err(D::Error::custom("a scalar without text")),
    }
}

/// Takes the text, and fails on purpose: the failure is where serde_yaml puts the mark.
struct Failing<'t>(&'t mut Option<String>);

impl Visitor<'_> for Failing<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        *self.0 = Some(text.to_owned());
        Err(E::custom("here"))
    }
}

/// The error's type is not known here, so its line is read from its text: `... at line 3 column 7`.
/// The very first position of a file has no mark.
fn line_in(message: &str) -> Option<usize> {
    match message.rsplit_once(" at line ") {
        None => Some(1),
        Some((_, mark)) => mark.split(' ').next()?.parse().ok(),
    }
}
