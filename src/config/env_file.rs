//! Reads `--env-file`: KEY=VALUE lines, with comments, blank lines, an optional `export ` and
//! optional quotes. Nothing is expanded, and no value ever stands in a message.

use std::path::Path;

use crate::config::expand::is_name;
use crate::config::mistake::{ConfigError, Mistake};
use crate::error::{Error, Kind};
use crate::host::{Env, files};

/// Adds a file's variables; those that are set already win.
pub fn load(path: &Path, env: &mut Env) -> Result<(), ConfigError> {
    let bytes = files::read_short(path).map_err(|error| {
        let what = format!("can't read the env file {}", path.display());
        ConfigError::Unreadable(
            Error::new(Kind::Config, what).hint("check the path behind --env-file, and its mode").source(error),
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = 1 + good.filter(|byte| **byte == b'\n').count();
        let mistakes = vec![mistake(line, "", "expected UTF-8 text")];
        ConfigError::Mistakes { path: path.to_owned(), mistakes }
    })?;
    let pairs = parse(&text).map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })?;
    for (name, value) in pairs {
        env.set_default(name, value);
    }
    Ok(())
}

/// The variables of a file, in its order.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, Vec<Mistake>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut mistakes = Vec::new();
    for (at, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match pair(line) {
            Ok((name, _)) if pairs.iter().any(|(known, _)| known == name) => {
                mistakes.push(mistake(at + 1, name, "given twice"));
            }
            Ok((name, value)) => pairs.push((name.to_owned(), value.to_owned())),
            Err((name, problem)) => mistakes.push(mistake(at + 1, name, problem)),
        }
    }
    if mistakes.is_empty() { Ok(pairs) } else { Err(mistakes) }
}

/// A line's name and value, or the name (where there is a good one) and what is wrong.
fn pair(line: &str) -> Result<(&str, &str), (&str, &'static str)> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=').ok_or(("", "expected KEY=VALUE, found no `=`"))?;
    let name = name.trim_end();
    if !is_name(name) {
        return Err(("", "expected a name of letters, digits and `_` before the `=`"));
    }
    let value = value.trim();
    if value.contains('\0') {
        return Err((name, "expected text, found a zero byte in it"));
    }
    for quote in ['"', '\''] {
        if let Some(inside) = value.strip_prefix(quote) {
            return inside
                .strip_suffix(quote)
                .map(|inside| (name, inside))
                .ok_or((name, "the quote is not closed at the line's end"));
        }
    }
    Ok((name, value))
}

fn mistake(line: usize, place: &str, problem: &str) -> Mistake {
    Mistake { place: place.to_owned(), line: Some(line), problem: problem.to_owned(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_documented() {
        let text = "\u{feff}# comment\n\nA=1\nexport B = two words \r\nC=\"quoted # $A\"\nD='it''s'\nE=\nF=a=b#c\n  # indented\n";
        let pairs = parse(text).unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let wanted = [("A", "1"), ("B", "two words"), ("C", "quoted # $A"), ("D", "it''s"), ("E", ""), ("F", "a=b#c")];
        assert_eq!(pairs, wanted);
    }

    #[test]
    fn mistakes_name_the_line_and_never_the_value() {
        let text = "A=1\nhunter2\n1B=hunter2\nC=\"hunter2\nA=hunter2\nD='hunter2' x\n=hunter2\nE=hun\0ter2\n";
        let shown: Vec<String> = parse(text).unwrap_err().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        line 2: expected KEY=VALUE, found no `=`
        line 3: expected a name of letters, digits and `_` before the `=`
        C (line 4): the quote is not closed at the line's end
        A (line 5): given twice
        D (line 6): the quote is not closed at the line's end
        line 7: expected a name of letters, digits and `_` before the `=`
        E (line 8): expected text, found a zero byte in it
        ");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "A=file\nB=file\n").unwrap();
        let mut env: Env = [("A", "environment")].into_iter().collect();
        load(&path, &mut env).unwrap();
        assert_eq!((env.get("A"), env.get("B")), (Some("environment"), Some("file")));
    }

    #[test]
    fn a_file_that_is_missing_or_no_text_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        assert!(matches!(load(&path, &mut Env::default()), Err(ConfigError::Unreadable(_))));
        std::fs::write(&path, b"A=1\nB=\xff\n").unwrap();
        let Err(ConfigError::Mistakes { mistakes, .. }) = load(&path, &mut Env::default()) else { panic!("not refused") };
        assert_eq!(mistakes[0].to_string(), "line 2: expected UTF-8 text");
    }
}
