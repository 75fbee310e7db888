//! Patterns of names in a volume (`exclude:`, `allow_changed:`), with the meaning that GNU tar's `--exclude` gives them for
//! names relative to the volume's root: `*` and `?` match any byte, a slash too, a pattern matches from the beginning of a name
//! or from behind any slash, and a directory that matches means all below it. In addition a slash at the end says nothing, and
//! one at the beginning means the root alone. `docs/volumes.md` shows them.

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// It matches from the beginning of a name alone.
    anchored: bool,
    glob: String,
}

impl Pattern {
    /// As it stands in the configuration.
    pub(super) fn parse(text: &str) -> Self {
        let glob = text.trim_end_matches('/');
        let anchored = |glob: &str| glob.starts_with('/') || glob.starts_with("./");
        let is_anchored = anchored(glob);
        let mut glob = glob;
        while anchored(glob) {
            glob = glob.trim_start_matches("./").trim_start_matches('/');
        }
        Self { anchored: is_anchored, glob: glob.to_owned() }
    }

    /// Those of a list.
    pub(super) fn all(texts: &[String]) -> Vec<Self> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// The same for a tar that is given `--anchored`, or knows no anchors at all, and whose names begin with `./`. Given as it is,
    /// a pattern like `.*` would match that beginning: the root, and with it everything.
    pub(super) fn for_tar(&self) -> String {
        format!("{}/{}", if self.anchored { '.' } else { '*' }, self.glob)
    }

    /// Whether it means this name, relative to the root and without a slash at its end.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let glob = self.glob.as_bytes();
        let slashes = || name.iter().enumerate().filter_map(|(at, byte)| (*byte == b'/').then_some(at));
        let mut starts = std::iter::once(0).chain(slashes().map(|at| at + 1));
        starts.any(|start| {
            let mut ends = slashes().filter(|end| *end > start).chain([name.len()]);
            (start == 0 || !self.anchored) && ends.any(|end| fits(glob, &name[start..end]))
        })
    }
}

/// Whether any of them means this name.
pub(super) fn any_matches(patterns: &[Pattern], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

/// Whether a glob is a whole text, as fnmatch(3) has it without flags and in the C locale.
fn fits(glob: &[u8], text: &[u8]) -> bool {
    let (mut glob_at, mut text_at) = (0, 0);
    // Behind the last star, and how much of the text it has taken: it may always take more.
    let mut star = None;
    loop {
        if glob.get(glob_at) == Some(&b'*') {
            glob_at += 1;
            star = Some((glob_at, text_at));
            continue;
        }
        match (text.get(text_at), one(&glob[glob_at..])) {
            (None, None) => return glob_at == glob.len(),
            (Some(byte), Some((element, length))) if element.takes(*byte) => {
                glob_at += length;
                text_at += 1;
            }
            _ => match star {
                Some((behind, taken)) if taken < text.len() => {
                    (glob_at, text_at) = (behind, taken + 1);
                    star = Some((behind, taken + 1));
                }
                _ => return false,
            },
        }
    }
}

/// What takes one byte.
enum Element<'a> {
    Any,
    Byte(u8),
    /// What is between the brackets.
    Set {
        negated: bool,
        members: &'a [u8],
    },
    Nothing,
}

/// The first element of a glob, and its length; none at its end.
fn one(glob: &[u8]) -> Option<(Element<'_>, usize)> {
    Some(match glob {
        [] => return None,
        [b'?', ..] => (Element::Any, 1),
        [b'\\', byte, ..] => (Element::Byte(*byte), 2),
        // fnmatch fails on a backslash that escapes nothing.
        [b'\\'] => (Element::Nothing, 1),
        [b'[', rest @ ..] => set(rest).unwrap_or((Element::Byte(b'['), 1)),
        [byte, ..] => (Element::Byte(*byte), 1),
    })
}

/// A set without its opening bracket. None where nothing closes it: then the bracket means itself.
fn set(rest: &[u8]) -> Option<(Element<'_>, usize)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let mut at = start;
    loop {
        match rest.get(at)? {
            b']' if at > start => {
                let members = &rest[start..at];
                return Some((Element::Set { negated, members }, at + 2));
            }
            b'\\' => at += 2,
            b'[' if rest.get(at + 1) == Some(&b':') => at += class(&rest[at..]).map_or(1, |(_, length)| length),
            _ => at += 1,
        }
    }
}

/// A class like `[:digit:]` at the beginning of these bytes: its name, and its length.
fn class(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let name = bytes.strip_prefix(b"[:")?;
    let length = name.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    name[length..].starts_with(b":]").then_some((&name[..length], length + 4))
}

impl Element<'_> {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Byte(own) => *own == byte,
            Self::Set { negated, members } => holds(members, byte) != *negated,
            Self::Nothing => false,
        }
    }
}

/// Whether a set's members hold a byte.
fn holds(members: &[u8], byte: u8) -> bool {
    let mut rest = members;
    while !rest.is_empty() {
        if let Some((name, length)) = class(rest) {
            if is_in(name, byte) {
                return true;
            }
            rest = &rest[length..];
            continue;
        }
        let (first, behind) = member(rest);
        match behind {
            [b'-', beyond @ ..] if !beyond.is_empty() => {
                let (last, behind) = member(beyond);
                if (first..=last).contains(&byte) {
                    return true;
                }
                rest = behind;
            }
            _ => {
                if first == byte {
                    return true;
                }
                rest = behind;
            }
        }
    }
    false
}

/// The first member of a set, and what is behind it.
fn member(rest: &[u8]) -> (u8, &[u8]) {
    match rest {
        [b'\\', byte, behind @ ..] | [byte, behind @ ..] => (*byte, behind),
        [] => (0, rest),
    }
}

/// Whether a byte is in this class of the C locale.
fn is_in(class: &[u8], byte: u8) -> bool {
    match class {
        b"alpha" => byte.is_ascii_alphabetic(),
        b"digit" => byte.is_ascii_digit(),
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"upper" => byte.is_ascii_uppercase(),
        b"lower" => byte.is_ascii_lowercase(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"blank" => byte == b' ' || byte == b'\t',
        b"punct" => byte.is_ascii_punctuation(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"graph" => byte.is_ascii_graphic(),
        b"cntrl" => byte.is_ascii_control(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
