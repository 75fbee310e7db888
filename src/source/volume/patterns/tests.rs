use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::*;
use crate::error::Result;
use crate::host::Context;
use crate::host::process::Program;
use crate::source::volume::members::{Member, Members, Visitor};

/// Names of files; their directories come of themselves.
const TREE: [&[u8]; 31] = [
    b"x.tmp",
    b"a.txt",
    b".hidden",
    b"-x",
    b"--exclude=a.txt",
    b"star*",
    b"[ab]",
    b"[x",
    b"back\\slash",
    b"new\nline.tmp",
    b"\xff\xfe.tmp",
    "h\u{e9}llo".as_bytes(),
    b"cache/one",
    b"cache/deep/two.tmp",
    b"sub/cache/three",
    b"sub/logs/a.log",
    b"sub/x.tmp",
    b"sub/.hidden/b",
    b"sub/a.txt.bak",
    b"logs/a.log",
    b"logs/b.log",
    b"logs/old/c.log",
    b"a/b/c/d",
    b"ab/c",
    b"b",
    b"b1/f7",
    b"B2/F9",
    b"cachex",
    b"xcache",
    b"node_modules/m/index.js",
    b"sub/node_modules/m/node_modules/n/index.js",
];

const PATTERNS: [&str; 56] = [
    "*.tmp",
    "cache",
    "cach?",
    "*cache",
    "cache*",
    "logs",
    "logs/*",
    "sub/logs",
    "sub/*",
    "*/logs",
    "?/b",
    "a/b",
    "a/*/c",
    "a*c",
    "a*d",
    ".*",
    ".hidden",
    "*",
    "?",
    "??",
    "-*",
    "-x",
    "--exclude=a.txt",
    "star\\*",
    "star*",
    "[ab]",
    "\\[ab\\]",
    "[[]ab]",
    "[x",
    "[!a]",
    "[^a]",
    "[a-c]",
    "[]ab]",
    "b[0-9]",
    "[bB][0-9]",
    "[[:alpha:]][[:digit:]]",
    "[[:upper:]]*",
    "[[:lower:][:digit:]]?",
    "[a\\]x]",
    "back\\\\slash",
    "back*slash",
    "*\n*",
    "h?llo",
    "h??llo",
    "h\u{e9}llo",
    "*.log",
    "old",
    "node_modules",
    "node_modules/m",
    "m/node_modules",
    "b*",
    "*/*/*",
    "a.txt",
    "[!.]*",
    "**",
    "a.*",
];

fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in TREE {
        let path = directory.path().join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    directory
}

#[derive(Default)]
struct Listed(BTreeSet<Vec<u8>>);

impl Visitor for Listed {
    fn member(&mut self, member: &Member<'_>) -> Result<()> {
        let name = member.path.strip_prefix(b"./").unwrap_or(member.path);
        self.0.insert(name.strip_suffix(b"/").unwrap_or(name).to_vec());
        Ok(())
    }
}

/// The names in a tar but for the root, relative to it.
fn listed(tar: &Program, cx: &Context) -> BTreeSet<Vec<u8>> {
    let made = tar.output(b"", cx).unwrap();
    assert!(made.exit.is_success(), "{}", made.stderr_tail);
    let mut names = Listed::default();
    Members::default().feed(&made.stdout, &mut names).unwrap();
    names.0.remove(b"".as_slice());
    names.0
}

/// What tar makes with the words that we give it.
fn ours(root: &Path, pattern: &Pattern, cx: &Context) -> BTreeSet<Vec<u8>> {
    let tar = Program::new("tar").args(["--create", "--file=-", "--anchored"]).env("LC_ALL", "C");
    listed(&tar.arg(format!("--exclude={}", pattern.for_tar())).arg("--directory").arg(root).arg("."), cx)
}

/// What a plain tar makes with the user's pattern, when it is given the names in the root.
fn plain(root: &Path, text: &str, cx: &Context) -> BTreeSet<Vec<u8>> {
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_vec());
    let names: Vec<Vec<u8>> = names.chain([b"none".to_vec()]).collect();
    fs::write(root.join("none"), "").unwrap();
    let listing = tempfile::NamedTempFile::new().unwrap();
    fs::write(listing.path(), names.join(&0)).unwrap();
    let tar = Program::new("tar").args(["--create", "--file=-", "--null", "--verbatim-files-from"]).env("LC_ALL", "C");
    let tar = tar.arg(format!("--exclude={text}")).arg("--directory").arg(root).arg("--files-from").arg(listing.path());
    let mut found = listed(&tar, cx);
    fs::remove_file(root.join("none")).unwrap();
    found.remove(b"none".as_slice());
    found
}

#[test]
fn a_pattern_means_what_it_means_for_tar() {
    let (cx, root) = (Context::for_tests(), tree());
    let all = ours(root.path(), &Pattern::parse("no such name"), &cx);
    assert!(all.len() > TREE.len());
    for text in PATTERNS {
        let pattern = Pattern::parse(text);
        let kept = ours(root.path(), &pattern, &cx);
        let show =
            |names: &BTreeSet<Vec<u8>>| names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>();
        assert_eq!(show(&kept), show(&plain(root.path(), text, &cx)), "{text:?}: ours, and tar's own");
        let matched = all.iter().filter(|name| !pattern.matches(name)).cloned().collect();
        assert_eq!(show(&matched), show(&kept), "{text:?}: our matcher's, and tar's");
    }
}

#[test]
fn a_slash_at_the_end_says_nothing_and_one_at_the_beginning_means_the_root() {
    let (cx, root) = (Context::for_tests(), tree());
    let kept = |text: &str| ours(root.path(), &Pattern::parse(text), &cx);
    assert_eq!(kept("cache/"), kept("cache"));
    let anchored = [
        ("/logs", "sub/logs/a.log", "logs/a.log"),
        ("./logs/", "sub/logs/a.log", "logs/a.log"),
        ("/*.tmp", "a.txt", "sub/x.tmp"),
    ];
    for (text, stays, goes) in anchored {
        let pattern = Pattern::parse(text);
        let kept = kept(text);
        assert!(kept.contains(stays.as_bytes()) && !kept.contains(goes.as_bytes()), "{text}");
        assert!(!pattern.matches(stays.as_bytes()) && pattern.matches(goes.as_bytes()), "{text}");
    }
}

#[test]
fn a_star_is_not_tried_for_ever() {
    let name = [b'a'; 4000];
    let glob = "*a".repeat(60) + "b";
    assert!(!Pattern::parse(&glob).matches(&name));
}
