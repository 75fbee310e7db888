//! What is wrong in a file that a person wrote, and where. A value is quoted as it was written,
//! never as expanded, and a secret is not quoted at all.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Kind};

/// The longest quoted value, in characters.
const QUOTE: usize = 60;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The path in the file, `targets[1].port`; empty where it is the file as a whole.
    pub place: String,
    /// Counted from 1, where it can be had.
    pub line: Option<usize>,
    /// What was expected, and what was found.
    pub problem: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.place.as_str(), self.line) {
            ("", None) => {}
            ("", Some(line)) => write!(f, "line {line}: ")?,
            (place, None) => write!(f, "{place}: ")?,
            (place, Some(line)) => write!(f, "{place} (line {line}): ")?,
        }
        f.write_str(&self.problem)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be found or read.
    Unreadable(Error),
    /// It was read, and this is wrong with it, in the file's order; at least one.
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Vec<Mistake>,
    },
}

impl ConfigError {
    /// One error for each mistake: `backup.yml: targets[1].port (line 14): expected ...`.
    pub fn into_errors(self) -> Vec<Error> {
        match self {
            Self::Unreadable(error) => vec![error],
            Self::Mistakes { path, mistakes } => mistakes
                .into_iter()
                .map(|mut mistake| {
                    let hint = mistake.hint.take();
                    let error = Error::new(Kind::Config, format!("{}: {mistake}", path.display()));
                    match hint {
                        Some(hint) => error.hint(hint),
                        None => error,
                    }
                })
                .collect(),
        }
    }
}

/// A text in quotes, its control characters escaped, cut where it is long.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Names for a person: `a, b and c`.
pub(crate) fn enumerate<'a>(words: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}
