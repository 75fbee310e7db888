//! `extra_args:`: options of pg_dump that can't change where or how the stream goes. What is not known
//! to be harmless is refused, however it is written.

use crate::config::model::Format;

use self::Verdict::{Harmless, PlainOnly, Refused};

/// An option of pg_dump, of any version from 13 to 18.
struct Known {
    /// Without the dashes.
    long: &'static str,
    short: Option<char>,
    takes_value: bool,
    verdict: Verdict,
}

/// What is thought of an option.
#[derive(Clone, Copy)]
enum Verdict {
    Harmless,
    /// pg_dump says nothing and ignores it in an archive.
    PlainOnly,
    /// Why, and what to do instead.
    Refused(&'static str, &'static str),
}

/// Why a word is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `it is pg_dump's --clean: ...`.
    pub problem: String,
    /// What to do instead.
    pub hint: String,
}

const fn flag(long: &'static str, verdict: Verdict) -> Known {
    Known { long, short: None, takes_value: false, verdict }
}

const fn valued(long: &'static str, verdict: Verdict) -> Known {
    Known { long, short: None, takes_value: true, verdict }
}

impl Known {
    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }
}

const ATTACH: &str = "attach a value with `=`: --option=VALUE";
const LEAVE: &str = "leave it out";
const OUTPUT: Verdict = Refused("the dump goes where the target's `storages:` say", LEAVE);
const SERVER: Verdict =
    Refused("the connection is the target's", "use the keys `host`, `port`, `user`, `password` and `database` of the target");
const PASSWORDS: Verdict = Refused("no prompt is ever waited for", "use the key `password` of the target");
const CREATES: Verdict =
    Refused("a dump that creates or drops what it is loaded into could harm a live database in a restore", LEAVE);
const INSERTS: Verdict = Refused("rows are counted, and restored fast, as COPY alone", LEAVE);
const PARTS: Verdict = Refused("a part of a dump restores to nothing by itself", "use `exclude_table_data` or `schema_only`");
const ARCHIVE: Verdict = Refused("how the stream is written is decided by the target's own keys", "use the key `format`");
const NO_DUMP: Verdict = Refused("it does not make a dump", LEAVE);
const DATA_ONLY: Verdict = Refused("it is for a dump without definitions, which is no backup", LEAVE);
const NO_FILE: Verdict = Refused("pg_dump writes no file here", LEAVE);

/// Patterns as the target's own keys give them.
const fn own(key: &'static str) -> Verdict {
    Refused("the target has a key for it", key)
}

const KNOWN: &[Known] = &[
    // What is left out of the dump, or how its SQL is worded: the stream stays one that is counted and restores.
    flag("no-comments", Harmless),
    flag("no-policies", Harmless),
    flag("no-publications", Harmless),
    flag("no-security-labels", Harmless),
    flag("no-statistics", Harmless),
    flag("no-subscriptions", Harmless),
    flag("no-toast-compression", Harmless),
    flag("no-unlogged-table-data", Harmless),
    flag("no-table-access-method", PlainOnly),
    flag("no-tablespaces", PlainOnly),
    flag("quote-all-identifiers", Harmless),
    flag("load-via-partition-root", Harmless),
    flag("strict-names", Harmless),
    // Large objects beside tables that are named, or none of them.
    flag("large-objects", Harmless).short('b'),
    flag("blobs", Harmless),
    flag("no-large-objects", Harmless).short('B'),
    flag("no-blobs", Harmless),
    // What is dumped, by patterns for which the target has no key.
    valued("extension", Harmless).short('e'),
    valued("exclude-extension", Harmless),
    valued("table-and-children", Harmless),
    valued("exclude-table-and-children", Harmless),
    valued("exclude-table-data-and-children", Harmless),
    // How it waits.
    valued("lock-wait-timeout", Harmless),
    flag("serializable-deferrable", Harmless),
    // For these the target has keys, which are checked and documented.
    valued("schema", own("use the key `schemas`")).short('n'),
    valued("exclude-schema", own("use the key `exclude_schemas`")).short('N'),
    valued("table", own("use the key `tables`")).short('t'),
    valued("exclude-table", own("use the key `exclude_tables`")).short('T'),
    valued("exclude-table-data", own("use the key `exclude_table_data`")),
    flag("schema-only", own("use the key `schema_only`")).short('s'),
    flag("no-data", own("use the key `schema_only`")),
    flag("no-owner", own("use the key `no_owner`")).short('O'),
    flag("no-privileges", own("use the key `no_privileges`")).short('x'),
    flag("no-acl", own("use the key `no_privileges`")),
    // Where the stream goes, and as what.
    valued("file", OUTPUT).short('f'),
    valued("format", ARCHIVE).short('F'),
    valued("jobs", Refused("one stream is dumped", "use the key `jobs`, which is for restores")).short('j'),
    flag("no-synchronized-snapshots", Refused("one stream is dumped", LEAVE)),
    valued("compress", Refused("the stream is compressed here", "use the key `compression`")).short('Z'),
    valued("encoding", Refused("a dump is in its database's own encoding, or not all of it could be written", LEAVE)).short('E'),
    flag("no-sync", NO_FILE),
    valued("sync-method", NO_FILE),
    // Who reads what, and where.
    valued("dbname", SERVER).short('d'),
    valued("host", SERVER).short('h'),
    valued("port", SERVER).short('p'),
    valued("username", SERVER).short('U'),
    valued(
        "role",
        Refused("what a role can read is looked at for the one that logs in", "log in as that role, with the key `user`"),
    ),
    flag("password", PASSWORDS).short('W'),
    flag("no-password", PASSWORDS).short('w'),
    valued("snapshot", Refused("the state of another session's making is not the database's now", LEAVE)),
    flag(
        "enable-row-security",
        Refused(
            "rows that the role may not see would be missing without a word",
            "back up as a role with BYPASSRLS, or as the owner",
        ),
    ),
    valued("include-foreign-data", Refused("a restore would write the rows into another server's tables", LEAVE)),
    valued("filter", Refused("a file can ask for what is refused here", "use the keys `schemas`, `tables` and the like")),
    // What a restore would do.
    flag("clean", CREATES).short('c'),
    flag("create", CREATES).short('C'),
    flag("if-exists", CREATES),
    flag(
        "use-set-session-authorization",
        Refused("only a superuser could restore such a dump", "the standard way, ALTER ... OWNER TO, comes without an option"),
    ),
    valued("restrict-key", Refused("a restore reads the dump under a key of its own", LEAVE)),
    flag("statistics", Refused("a restore into an older server would fail on them", "run ANALYZE after a restore")),
    flag("disable-dollar-quoting", Refused("it serves only servers that are long gone", LEAVE)),
    flag("disable-triggers", DATA_ONLY),
    valued("superuser", DATA_ONLY).short('S'),
    // How rows are written.
    flag("inserts", INSERTS),
    flag("column-inserts", INSERTS),
    flag("attribute-inserts", INSERTS),
    valued("rows-per-insert", INSERTS),
    flag("on-conflict-do-nothing", INSERTS),
    valued("extra-float-digits", Refused("numbers would lose digits", LEAVE)),
    // No whole dump.
    flag("data-only", PARTS).short('a'),
    valued("section", PARTS),
    flag("no-schema", PARTS),
    flag("statistics-only", PARTS),
    flag("sequence-data", Refused("it is for pg_upgrade", LEAVE)),
    flag("binary-upgrade", Refused("it is for pg_upgrade", LEAVE)),
    flag("verbose", Refused("pg_dump's warnings would drown in its chatter", "use -v of db-backup-tools")).short('v'),
    flag("version", NO_DUMP).short('V'),
    flag("help", NO_DUMP).short('?'),
];

/// Whether pg_dump may be given this word; the format decides about what an archive ignores.
pub(super) fn judge(word: &str, format: Format) -> Result<(), Refusal> {
    if let Some(rest) = word.strip_prefix("--") {
        return long(rest, format);
    }
    match word.strip_prefix('-') {
        Some(letters) if !letters.is_empty() => Err(short(letters)),
        _ => refusal("it is no option, and pg_dump would take it for a database's name", ATTACH),
    }
}

fn long(word: &str, format: Format) -> Result<(), Refusal> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let (name, spaced) = name.split_once(char::is_whitespace).map_or((name, false), |(name, _)| (name, true));
    let Some(known) = find(name) else { return Err(unknown(name)) };
    match known.verdict {
        Refused(why, instead) => refusal(&known.told(why), instead),
        PlainOnly if format != Format::Plain => {
            refusal(&known.told("in an archive pg_dump ignores it"), "leave it out, or use format: plain")
        }
        Harmless | PlainOnly if spaced => refusal("each text of the list is one argument, and this one holds a space", ATTACH),
        Harmless | PlainOnly => match (known.takes_value, value) {
            (true, None | Some("")) => refusal(
                &format!("--{} lacks its value", known.long),
                &format!("attach it with `=`, in one word: --{}=VALUE", known.long),
            ),
            (false, Some(_)) => refusal(&format!("--{} takes no value", known.long), &format!("write --{}", known.long)),
            _ => Ok(()),
        },
    }
}

/// pg_dump takes the beginning of an option for the whole, and so must we.
fn unknown(name: &str) -> Refusal {
    let refused = |text: String, hint: String| Refusal { problem: text, hint };
    let mut begun = KNOWN.iter().filter(|known| !name.is_empty() && known.long.starts_with(name));
    match (begun.next(), begun.next()) {
        (None, _) => refused("it is not among the options of pg_dump that are known to be harmless".into(), allowed()),
        (Some(only), None) => match only.verdict {
            Refused(why, instead) => refused(format!("pg_dump takes it for --{}: {why}", only.long), instead.to_owned()),
            Harmless | PlainOnly => refused("it is cut short".into(), format!("write it out: --{}", only.long)),
        },
        (Some(one), Some(two)) => {
            refused(format!("it is cut short, and may mean --{} or --{}", one.long, two.long), "write options out".into())
        }
    }
}

/// The first letter that is refused, as pg_dump reads them: one that takes a value takes the rest.
fn short(letters: &str) -> Refusal {
    let mut first = None;
    for letter in letters.chars() {
        let Some(known) = KNOWN.iter().find(|known| known.short == Some(letter)) else { break };
        if let Refused(why, instead) = known.verdict {
            return Refusal { problem: format!("pg_dump takes -{letter} for --{}: {why}", known.long), hint: instead.into() };
        }
        first = first.or(Some(known));
        if known.takes_value {
            break;
        }
    }
    let problem = "options of one letter are not taken".to_owned();
    match first {
        Some(known) if known.takes_value => Refusal { problem, hint: format!("write it out: --{}=VALUE", known.long) },
        Some(known) => Refusal { problem, hint: format!("write it out: --{}", known.long) },
        None => Refusal { problem, hint: allowed() },
    }
}

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.long == name)
}

impl Known {
    fn is_allowed(&self) -> bool {
        !matches!(self.verdict, Refused(..))
    }

    fn told(&self, why: &str) -> String {
        format!("--{} can't be given: {why}", self.long)
    }
}

fn allowed() -> String {
    let names: Vec<String> = KNOWN.iter().filter(|known| known.is_allowed()).map(|known| format!("--{}", known.long)).collect();
    format!("these can be given: {}", names.join(" "))
}

fn refusal(problem: &str, hint: &str) -> Result<(), Refusal> {
    Err(Refusal { problem: problem.to_owned(), hint: hint.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(word: &str) -> Refusal {
        judge(word, Format::Plain).expect_err(word)
    }

    #[test]
    fn harmless_options_are_taken_as_they_are() {
        for word in ["--no-comments", "--lock-wait-timeout=5s", "--extension=pg_*", "--no-tablespaces", "--extension=a=b c"] {
            assert_eq!(judge(word, Format::Plain), Ok(()), "{word}");
        }
    }

    #[test]
    fn what_an_archive_ignores_is_no_option_of_one() {
        for word in ["--no-tablespaces", "--no-table-access-method"] {
            assert!(judge(word, Format::Custom).unwrap_err().problem.contains("in an archive pg_dump ignores it"), "{word}");
        }
        assert_eq!(judge("--no-comments", Format::Custom), Ok(()));
    }

    #[test]
    fn what_changes_the_stream_is_refused_however_it_is_written() {
        let words = [
            "-C",
            "-c",
            "-Cc",
            "-Fc",
            "-F",
            "-xO",
            "-bC",
            "-j4",
            "-j",
            "-f/tmp/x",
            "-Z0",
            "-dx",
            "-hx",
            "-p1",
            "-Ux",
            "-W",
            "--create",
            "--clean",
            "--cle",
            "--cr",
            "--if-exists",
            "--if",
            "--inserts",
            "--ins",
            "--column-inserts",
            "--col",
            "--rows-per-insert=5",
            "--rows",
            "--include-foreign-data=x",
            "--inc=x",
            "--enable-row-security",
            "--ena",
            "--snapshot=x",
            "--sn=x",
            "--file=x",
            "--fi",
            "--format=c",
            "--form=c",
            "--jobs=4",
            "--jobs 4",
            "--jo",
            "--compress=1",
            "--dbname=x",
            "--host=x",
            "--port=1",
            "--username=x",
            "--password",
            "--role=x",
            "--filter=x",
            "--data-only",
            "--section=data",
            "4",
            "",
            "-",
            "--",
            "--=",
            "=",
            "app",
            "postgresql://x",
            "--lock-wait-timeout",
            "--lock-wait-timeout=",
            "--lock-wait-timeout 5",
            "--no-comments=1",
            "--no-comm",
            "--extension a",
            "-e",
            "-ea",
            "-b",
            "--NO-COMMENTS",
            "--no-comments ",
            "--no_comments",
            "- -no-comments",
            "—clean",
        ];
        let shown: Vec<String> = words
            .iter()
            .map(|word| refused(word))
            .zip(words)
            .map(|(Refusal { problem, hint }, word)| format!("{word}: {problem} ({hint})"))
            .collect();
        insta::assert_snapshot!(shown.join("\n").replace(&allowed(), "THOSE THAT CAN BE GIVEN"));
    }

    /// getopt takes any beginning that is only one option's: it must never be ours to give.
    #[test]
    fn only_whole_names_are_taken() {
        for known in KNOWN {
            for end in 1..known.long.len() {
                let cut = &known.long[..end];
                let is_another = find(cut).is_some_and(Known::is_allowed);
                assert!(is_another || judge(&format!("--{cut}"), Format::Plain).is_err(), "--{cut}");
                assert!(is_another || judge(&format!("--{cut}=x"), Format::Plain).is_err(), "--{cut}=x");
            }
        }
    }

    /// A pg_dump that does not know it yet would take it for the longer one.
    #[test]
    fn none_that_is_taken_is_the_beginning_of_another() {
        for known in KNOWN.iter().filter(|known| known.is_allowed()) {
            let longer = |other: &&Known| other.long != known.long && other.long.starts_with(known.long);
            assert!(KNOWN.iter().find(longer).is_none(), "--{}", known.long);
        }
    }

    #[test]
    fn the_documentation_names_those_that_are_taken() {
        let page = include_str!("../../../docs/configuration.md");
        let words: Vec<&str> = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect();
        for known in KNOWN {
            let (named, wanted) = (words.contains(&format!("--{}", known.long).as_str()), known.is_allowed());
            assert_eq!(named, wanted, "--{}", known.long);
        }
    }

    #[test]
    fn no_option_stands_in_the_table_twice() {
        for (at, known) in KNOWN.iter().enumerate() {
            let twice = |other: &Known| other.long == known.long || (known.short.is_some() && other.short == known.short);
            assert!(!KNOWN[..at].iter().any(twice), "{}", known.long);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_one_that_is_allowed(word in "-{0,3}[a-zA-Z-]{0,12}[= ]?[a-z]{0,4}|\\PC{0,20}") {
            if judge(&word, Format::Custom).is_ok() {
                let name = word.trim_start_matches("--").split('=').next().unwrap_or_default();
                prop_assert!(find(name).is_some_and(Known::is_allowed), "{word}");
            }
        }
    }
}
