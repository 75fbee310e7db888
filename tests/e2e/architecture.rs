//! The architecture, held by reading the source: modules use only those above them in `src/lib.rs`, what
//! has one home stays there, and files stay of a size that can be read.
//!
//! It reads tokens, not Rust: comments and strings are left out, paths and `use` trees are put together.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::repository;
use crate::support::tool::files_below;

/// A file of `src/`, its path relative to that.
struct Source {
    path: String,
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    line: usize,
    /// An identifier, `::`, or one other character.
    text: String,
}

fn sources() -> Vec<Source> {
    let root = repository().join("src");
    files_below(&root)
        .into_iter()
        .filter(|path| Path::new(path).extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            Source { tokens: tokens(&text), path, text }
        })
        .collect()
}

impl Source {
    /// The module of the library that it belongs to; `main.rs` and `lib.rs` belong to none.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!["main", "lib"].contains(&name)).then_some(name)
    }

    /// Its tokens without what only tests see.
    fn program(&self) -> Vec<Token> {
        if self.path.ends_with("/tests.rs") {
            return Vec::new();
        }
        without_tests(&self.tokens)
    }
}

/// The names after `pub mod` (or `mod`) in a text, in order.
fn modules_in(tokens: &[Token]) -> Vec<&str> {
    tokens.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";").map(|three| three[1].text.as_str()).collect()
}

#[test]
fn modules_use_only_those_above_them() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.path == "lib.rs").unwrap();
    let order = modules_in(&lib.tokens);
    assert!(order.len() > 10, "{order:?}");
    let mut wrong = Vec::new();
    for source in &sources {
        let Some(own) = source.module() else { continue };
        let rank = order.iter().position(|name| *name == own);
        let Some(rank) = rank else {
            wrong.push(format!("src/{} belongs to no module that lib.rs names", source.path));
            continue;
        };
        for (line, path) in paths(&source.tokens) {
            let Some(used) = module_used(&path, own, &order) else { continue };
            match order.iter().position(|name| *name == used) {
                Some(other) if other <= rank => {}
                Some(_) => wrong.push(format!("src/{}:{line}: {own} uses {used}, which stands below it", source.path)),
                None => wrong.push(format!("src/{}:{line}: {own} uses crate::{used}, of lib.rs, below all", source.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What stands right below the crate's root in a path, where the path leads there.
fn module_used<'a>(path: &'a [String], own: &str, order: &[&str]) -> Option<&'a str> {
    match path.first()?.as_str() {
        "crate" => path.get(1).map(String::as_str),
        // Up past the own module: what has a module's name there, and is none of its own, is that module.
        "super" => {
            let name = path.iter().find(|part| *part != "super")?;
            let inner = |end: &str| repository().join(format!("src/{own}/{name}{end}")).exists();
            (order.contains(&name.as_str()) && !inner(".rs") && !inner("")).then_some(name)
        }
        _ => None,
    }
}

#[test]
fn what_has_one_home_stays_there() {
    let mut wrong = Vec::new();
    for source in sources() {
        let program = source.program();
        let within = |home: &str| source.path == format!("{home}.rs") || source.path.starts_with(&format!("{home}/"));
        let mut only = |found: bool, what: &str, line: usize, home: &str| {
            if found {
                wrong.push(format!("src/{}:{line}: {what} belongs into {home}", source.path));
            }
        };
        for (line, path) in paths(&program) {
            let spawns = path.windows(2).any(|two| two[0] == "process" && two[1] == "Command");
            only(spawns && !within("host/process"), "Command", line, "host/process");
            let yaml = path[0] == "serde_yaml";
            only(yaml && !within("config/node/passes"), "serde_yaml", line, "config/node/passes.rs");
        }
        for two in program.windows(2) {
            let prints = ["println", "eprintln", "print", "eprint"].contains(&two[0].text.as_str()) && two[1].text == "!";
            only(prints && !within("report") && source.path != "main.rs", "printing", two[0].line, "report or main.rs");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_of_a_size_that_can_be_read() {
    let limit = |path: &str| match path {
        "main.rs" => 29,
        _ if path.ends_with("/tests.rs") => usize::MAX,
        _ => 500,
    };
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.path.clone(), source.text.lines().count()))
        .filter(|(path, lines)| *lines > limit(path))
        .collect();
    assert!(long.is_empty(), "too long: {long:?}");
}

#[test]
fn the_design_names_every_module() {
    let design = fs::read_to_string(repository().join("docs/design.md")).unwrap();
    // A module's tests are named with it.
    let of_tests = |path: &str| path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let paths = sources().into_iter().map(|source| source.path).filter(|path| !of_tests(path));
    let unnamed: Vec<_> = paths.filter(|path| !is_named(&design, path)).collect();
    assert!(unnamed.is_empty(), "docs/design.md does not name {unnamed:?}");
}

/// Whether the tree in the design has the file: by its path, or by its name in its directory's entry, which
/// goes to the next one.
fn is_named(design: &str, path: &str) -> bool {
    let (directory, file) = path.split_once('/').map_or((None, path), |(directory, rest)| (Some(directory), rest));
    let Some(directory) = directory else { return design.contains(&format!("src/{file}")) };
    let start = format!("src/{directory}/");
    let own = |part: &str| part == "mod" || part == "tests";
    let mut inside = false;
    let mut words = BTreeSet::new();
    for line in design.lines() {
        if line.trim_start().starts_with("src/") || line.trim().is_empty() {
            inside = line.trim_start().starts_with(&start);
        }
        if inside {
            words.extend(line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
        }
    }
    !words.is_empty() && file.trim_end_matches(".rs").split('/').all(|part| own(part) || words.contains(part))
}

/// The tokens without items that stand behind `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let marked = tokens[at..].iter().map(|token| token.text.as_str()).take(MARK.len()).eq(MARK);
        if !marked {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The item ends with its braces, or with a semicolon outside any.
        let mut depth = 0_i32;
        while at < tokens.len() {
            let text = tokens[at].text.as_str();
            depth += i32::from(text == "{") - i32::from(text == "}");
            at += 1;
            if depth == 0 && (text == "}" || text == ";") {
                break;
            }
        }
    }
    kept
}

/// All paths of two parts or more, those in a `use` tree spelt out, each with its line.
fn paths(tokens: &[Token]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(&tokens[at].text) && tokens.get(at + 1).is_some_and(|next| next.text == "::") {
            at = read_path(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path (and the tree in braces it may end in) that begins here. Returns where it ends.
fn read_path(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let line = tokens[at].line;
    loop {
        if text(at) == "{" {
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                at = if is_name(text(at)) || text(at) == "{" { read_path(tokens, at, &path, found) } else { at + 1 };
            }
            return at + 1;
        }
        if !is_name(text(at)) {
            break;
        }
        path.push(text(at).to_owned());
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    if text(at) == "as" {
        at += 2;
    }
    found.push((line, path));
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes a text apart; comments, strings, characters and numbers yield no token that is a name.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some(length) = string(rest) {
            length
        } else {
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = if rest.starts_with("::") { 2 } else { name.max(first.len_utf8()) };
            if !first.is_whitespace() {
                found.push(Token { line, text: rest[..length].to_owned() });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The length of a block comment; they nest.
fn comment(text: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < text.len() {
        let step = match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                2
            }
            Some(b"*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string or character literal, if one begins here.
fn string(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - body.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if !raw[hashes..].starts_with('"') {
            return None;
        }
        let start = prefix + 1 + hashes + 1;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    let quote = body.chars().next().filter(|c| ['"', '\''].contains(c))?;
    if quote == '\'' {
        // A lifetime has no quote behind its first letter.
        let mut inner = body[1..].chars();
        if inner.next()? != '\\' && inner.next()? != '\'' {
            return None;
        }
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

#[test]
fn the_reader_of_source_sees_paths_and_nothing_else() {
    let text = r##"
        // crate::comment::line
        /* crate::comment /* crate::nested */ crate::after */
        use crate::{a::{b, C as D}, e, self as f};
        pub(crate) fn x<'a>(y: &'a str) -> Option<crate::g::H> { crate::i::j("crate::string") }
        const Q: char = '"'; const R: &str = r#"crate::raw " "#; const B: &[u8] = b"crate::bytes\"";
        const S: char = '\''; fn t() { super::super::u(); }
        #[cfg(test)] mod tests { use crate::v::w; fn x() { if true { println!("{{"); } } }
        fn end() { crate::y::z() }
    "##;
    let found = |tokens: &[Token]| paths(tokens).into_iter().map(|(_, path)| path.join("::")).collect::<Vec<_>>();
    let all = tokens(text);
    let expected = ["crate::a::b", "crate::a::C", "crate::e", "crate::self", "crate::g::H", "crate::i::j", "super::super::u"];
    let with_tests: Vec<_> = expected.into_iter().chain(["crate::v::w", "crate::y::z"]).collect();
    let without: Vec<_> = expected.into_iter().chain(["crate::y::z"]).collect();
    assert_eq!(found(&all), with_tests);
    assert_eq!(found(&without_tests(&all)), without);
    assert_eq!(all.iter().find(|token| token.text == "end").unwrap().line, 9);
}

#[test]
fn the_tree_names_a_file_by_its_path_or_in_its_directory() {
    let design =
        "    src/names.rs   identity\n    src/host/   cancel · process (the one home)\n      · private files\n    src/plan.rs\n";
    for (path, named) in [
        ("names.rs", true),
        ("host/mod.rs", true),
        ("host/process/tests.rs", true),
        ("host/files.rs", true),
        ("host/clock.rs", false),
        ("source/mod.rs", false),
        ("other.rs", false),
    ] {
        assert_eq!(is_named(design, path), named, "{path}");
    }
}
