//! Variables inside values: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, and `$${` for a
//! literal `${`. A `$` without a brace stays as it is. What a variable holds is never read again.

use crate::host::Env;

/// How deep a default may hold another variable.
const DEEPEST: usize = 8;

/// A value after expansion.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The text to use.
    pub value: String,
    /// The text to show where the value is a secret: what is literal is `***`.
    pub masked: String,
    /// Whether anything came from a variable or its default.
    pub from_variable: bool,
    /// What of it stands in the file, defaults too: all that a reader of the file could learn.
    pub own: String,
    /// The variables that it names, those in defaults too.
    pub variables: Vec<String>,
}

/// Why a value can't be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadVariable {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// Expands all variables; every mistake is found.
pub(super) fn expand(text: &str, env: &Env) -> Result<Expanded, Vec<BadVariable>> {
    let mut work = Work { env, bad: Vec::new() };
    let out = work.expand(text, 0);
    if work.bad.is_empty() { Ok(out) } else { Err(work.bad) }
}

struct Work<'a> {
    env: &'a Env,
    bad: Vec<BadVariable>,
}

impl Work<'_> {
    fn expand(&mut self, text: &str, depth: usize) -> Expanded {
        let mut out = Expanded::default();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.literal(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$${") {
                out.literal("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let Some(end) = closing(after) else {
                    self.malformed("`${` without its `}`".into());
                    return out;
                };
                self.variable(&after[..end], &mut out, depth);
                rest = &after[end + 1..];
            } else {
                out.literal("$");
                rest = &rest[1..];
            }
        }
        out.literal(rest);
        out
    }

    /// `inside` is what stands between the braces.
    fn variable(&mut self, inside: &str, out: &mut Expanded, depth: usize) {
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
        let (name, rest) = inside.split_at(end);
        if !is_name(name) || depth >= DEEPEST {
            return self.malformed(if depth >= DEEPEST {
                "defaults nested too deep".into()
            } else {
                "`${` without a name".into()
            });
        }
        out.from_variable = true;
        out.variables.push(name.to_owned());
        let set = self.env.get_os(name);
        if set.is_some_and(|value| value.to_str().is_none()) {
            let problem = format!("the variable {name} is not UTF-8");
            return self.bad.push(BadVariable { problem, hint: "set it to text".into() });
        }
        let set = self.env.get(name);
        let full = set.filter(|value| !value.is_empty());
        if rest.is_empty() {
            out.masked.extend(["${", name, "}"]);
            match set {
                Some(value) => out.value.push_str(value),
                None => self.missing(name, format!("the variable {name} is not set")),
            }
        } else if let Some(default) = rest.strip_prefix(":-") {
            let default = self.default(default, full.is_none(), depth);
            out.masked.extend(["${", name, ":-", &default.masked, "}"]);
            out.own.push_str(&default.own);
            out.variables.extend(default.variables);
            out.value.push_str(full.unwrap_or(&default.value));
        } else if let Some(message) = rest.strip_prefix(":?") {
            out.masked.extend(["${", name, "}"]);
            match full {
                Some(value) => out.value.push_str(value),
                None => self.missing(name, format!("the variable {name} is not set: {message}")),
            }
        } else {
            // Without the name: this may be a password that holds a `${` by chance.
            self.malformed("`${NAME` followed by what can't be there".into());
        }
    }

    /// A default that is not used may name what is not set.
    fn default(&mut self, text: &str, used: bool, depth: usize) -> Expanded {
        let before = self.bad.len();
        let out = self.expand(text, depth + 1);
        if !used {
            self.bad.truncate(before);
        }
        out
    }

    fn missing(&mut self, name: &str, problem: String) {
        let hint = format!("set it, put it into an --env-file, or give a default: ${{{name}:-...}}");
        self.bad.push(BadVariable { problem, hint });
    }

    fn malformed(&mut self, problem: String) {
        let hint = "write ${NAME}, ${NAME:-default} or ${NAME:?message}; for a literal ${ write $${".into();
        self.bad.push(BadVariable { problem, hint });
    }
}

impl Expanded {
    fn literal(&mut self, text: &str) {
        if !text.is_empty() {
            self.value.push_str(text);
            self.own.push_str(text);
            if !self.masked.ends_with("***") {
                self.masked.push_str("***");
            }
        }
    }
}

/// Where the brace closes that is open already.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 1 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Whether this can be a variable's name.
pub(super) fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        [("A", "1"), ("EMPTY", ""), ("TRICK", "${A}")].into_iter().collect()
    }

    #[test]
    fn values_are_expanded_as_documented() {
        let cases = [
            ("plain", "plain", "***"),
            ("${A}", "1", "${A}"),
            ("x${A}y", "x1y", "***${A}***"),
            ("$A $ $5", "$A $ $5", "***"),
            ("$${A}", "${A}", "***"),
            ("pa$$word$", "pa$$word$", "***"),
            ("${TRICK}", "${A}", "${TRICK}"),
            ("${EMPTY}", "", "${EMPTY}"),
            ("${EMPTY:-d}", "d", "${EMPTY:-***}"),
            ("${NONE:-d}", "d", "${NONE:-***}"),
            ("${NONE:-}", "", "${NONE:-}"),
            ("${NONE:-${A}}z", "1z", "${NONE:-${A}}***"),
            ("${A:-${NONE}}", "1", "${A:-${NONE}}"),
            ("${A:?needed}", "1", "${A}"),
        ];
        for (text, value, masked) in cases {
            let out = expand(text, &env()).unwrap();
            assert_eq!((out.value.as_str(), out.masked.as_str()), (value, masked), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_said() {
        for bad in ["${NONE}", "${NONE:?why}", "${EMPTY:?why}", "${", "${}", "${1A}", "${A-b}", "${A", "${A }", "${N:-${M}}"] {
            assert!(expand(bad, &env()).is_err(), "{bad}");
        }
        assert_eq!(expand("${X} ${Y}", &env()).unwrap_err().len(), 2);
        assert!(expand(&"${A:-".repeat(100_000), &env()).is_err());
        assert!(expand(&format!("{}{}", "${N:-".repeat(5000), "}".repeat(5000)), &env()).is_err());
    }
}
