use super::verdict::Said;
use super::*;
use crate::error::Result;
use crate::host::process::Exit;

const HINT: &str = "the hint";

fn rules(allow_changed: &[&str], skip_unreadable: bool) -> Rules {
    Rules { allow_changed: allow_changed.iter().map(|text| Pattern::parse(text)).collect(), skip_unreadable }
}

/// What these lines of `/usr/bin/tar` come to; the file `gone` is not there any more.
fn judged_by(rules: Rules, lines: &str, exit: Exit) -> Result<Said> {
    let mut messages = Messages::of("tar", rules);
    for line in lines.lines().map(str::trim) {
        let line = if line.starts_with("tar: ") { format!("/usr/bin/{line}") } else { line.to_owned() };
        messages.hear(line.as_bytes(), |name| name != b"gone");
    }
    messages.judge(exit, HINT)
}

/// Warnings and doubts, a line each; or the failure.
fn said_by(rules: Rules, lines: &str, exit: Exit) -> String {
    let lines_of = |sort: &str, texts: &[String]| texts.iter().fold(String::new(), |all, text| all + sort + ": " + text + "\n");
    match judged_by(rules, lines, exit) {
        Ok(said) => lines_of("warning", &said.warnings) + &lines_of("doubt", &said.doubts),
        Err(error) => format!("failed: {error} ({})", error.hint_text().unwrap_or_default()),
    }
}

fn said(lines: &str, code: i32) -> String {
    said_by(Rules::default(), lines, Exit::Code(code))
}

#[test]
fn what_is_listed_says_nothing() {
    assert_eq!(said("./\n./a/\n./tar: x: socket ignored\n./a/b", 0), "");
}

#[test]
fn what_vanished_is_a_warning_with_its_name() {
    let lines = r"./
        tar: ./a b: File removed before we read it
        tar: ./x\: y\303\251\\: File removed before we read it
        tar: ./nl\n\377: File removed before we read it";
    let old = r"tar: ./d: Cannot stat: No such file or directory
        tar: ./e: Cannot open: No such file or directory
        tar: Exiting with failure status due to previous errors";
    insta::assert_snapshot!(said(lines, 1), @r"warning: 3 files vanished while the tree was read, and the backup has no copy: a b, x: yé\, nl\n\377");
    insta::assert_snapshot!(said(old, 2), @r"warning: 2 files vanished while the tree was read, and the backup has no copy: d, e");
}

#[test]
fn a_file_that_changed_is_a_doubt_unless_that_is_allowed_and_a_directory_a_warning() {
    let lines = r"./
        ./db/
        ./db/data
        tar: ./db/data: file changed as we read it
        tar: ./db: file changed as we read it
        ./logs/
        ./logs/a.log
        tar: ./logs/a.log: file changed as we read it
        ./gone
        tar: ./gone: file changed as we read it
        ./b:c
        tar: ./b\:c: File shrank by 1048576 bytes; padding with zeros
        ./d
        tar: ./d: File shrank by 1 byte; padding with zeros
        ./x: y/
        ./x: y/z
        tar: ./x\: y: file changed as we read it
        tar: .: file changed as we read it";
    insta::assert_snapshot!(said(lines, 1), @r"
    warning: 1 file went away while being read; the backup has what was read: gone
    warning: 3 directories changed while being read; what came or was moved there may be missing: db, x: y, .
    doubt: 2 files changed while being read; the copy may be neither the old content nor the new one: db/data, logs/a.log
    doubt: 2 files shrank while being read; the copy ends in zeros: b:c (by 1048576 bytes), d (by 1 byte)
    ");
    insta::assert_snapshot!(said_by(rules(&["/logs", "b:c", "data", "d"], false), lines, Exit::Code(1)), @r"
    warning: 1 file went away while being read; the backup has what was read: gone
    warning: 3 directories changed while being read; what came or was moved there may be missing: db, x: y, .
    warning: 4 files changed while being read, which allow_changed allows: db/data, logs/a.log, b:c (by 1048576 bytes), d (by 1 byte)
    ");
}

#[test]
fn what_could_not_be_read_is_a_failure_unless_that_is_allowed() {
    let lines = r"tar: ./a: Cannot open: Permission denied
        tar: ./b/c: Cannot savedir: Input/output error
        tar: Exiting with failure status due to previous errors";
    insta::assert_snapshot!(said(lines, 2), @r"failed: tar could not read 2 files: a (Permission denied), b/c (Input/output error) (the hint)");
    insta::assert_snapshot!(said_by(rules(&[], true), lines, Exit::Code(2)), @r"warning: 2 files could not be read, and the backup has no copy (skip_unreadable): a (Permission denied), b/c (Input/output error)");
    let cut = r"tar: ./disk.img: Read error at byte 4096, while reading 512 bytes: Input/output error
        tar: ./e: Cannot seek to 512: Invalid argument
        tar: Exiting with failure status due to previous errors";
    insta::assert_snapshot!(said(cut, 2), @r"failed: tar could not read 2 files to the end: disk.img (Read error at byte 4096, while reading 512 bytes: Input/output error), e (Cannot seek to 512: Invalid argument) (look at the disk and the kernel's log; `skip_unreadable: true` backs up what can be read, and says so each time)");
    insta::assert_snapshot!(said_by(rules(&[], true), cut, Exit::Code(2)), @r"doubt: 2 files could not be read to the end; the copy has zeros instead (skip_unreadable): disk.img (Read error at byte 4096, while reading 512 bytes: Input/output error), e (Cannot seek to 512: Invalid argument)");
}

#[test]
fn the_root_can_not_be_passed_over() {
    for line in [
        "tar: .: Cannot open: Permission denied",
        "tar: /srv/x: Cannot open: No such file or directory",
        "tar: .: Cannot stat: No such file or directory",
    ] {
        assert!(judged_by(rules(&["*"], true), line, Exit::Code(2)).is_err(), "{line}");
    }
}

#[test]
fn what_a_tar_can_not_hold_and_what_was_wanted() {
    let lines = r"tar: ./s: socket ignored
        tar: ./mnt/: file is on a different filesystem; not dumped
        tar: ./cache/: contains a cache directory tag CACHEDIR.TAG; contents not dumped
        WARNING: The requested image's platform (linux/amd64) does not match";
    insta::assert_snapshot!(said(lines, 0), @r"
    warning: 1 file left out, as a tar holds no sockets: s
    warning: the container engine says: WARNING: The requested image's platform (linux/amd64) does not match
    ");
    assert!(said("tar: ./odd: Unknown file type; file ignored", 2).starts_with("warning: "));
}

#[test]
fn attributes_that_could_not_be_read_are_a_doubt() {
    insta::assert_snapshot!(said("tar: data: Warning: Cannot flistxattr: Input/output error", 0), @r"doubt: 1 file with extended attributes or an ACL that could not be read, and that the backup lacks: data (flistxattr: Input/output error)");
}

#[test]
fn what_is_not_known_is_a_doubt_or_explains_a_failure() {
    insta::assert_snapshot!(said("tar: ./x: Something new", 0), @r"doubt: tar says what this program does not know: ./x: Something new");
    insta::assert_snapshot!(said("tar: ./x: Something new\ntar: ./y: File removed before we read it", 2), @r"failed: tar exited with code 2: ./x: Something new ()");
    insta::assert_snapshot!(said("docker: Error response from daemon: no such image", 125), @r"failed: tar exited with code 125: docker: Error response from daemon: no such image ()");
    for lines in ["", "tar: Exiting with failure status due to previous errors", "tar: ./s: socket ignored"] {
        for code in [1, 2, 3, 137] {
            assert!(judged_by(rules(&["*"], true), lines, Exit::Code(code)).is_err(), "{code}: {lines}");
        }
    }
    let vanished = "tar: ./y: File removed before we read it";
    assert!(judged_by(rules(&["*"], true), vanished, Exit::Signal(9)).is_err());
}

#[test]
fn busyboxs_words_are_known() {
    let lines = r"tar: can't open './a: b': Permission denied
        tar: ./s: socket ignored
        tar: can't open './c': No such file or directory
        tar: ./d: No such file or directory
        tar: error exit delayed from previous errors";
    insta::assert_snapshot!(said(lines, 1), @r"failed: tar could not read 1 file: a: b (Permission denied) (the hint)");
    insta::assert_snapshot!(said_by(rules(&[], true), lines, Exit::Code(1)), @r"
    warning: 2 files vanished while the tree was read, and the backup has no copy: c, d
    warning: 1 file could not be read, and the backup has no copy (skip_unreadable): a: b (Permission denied)
    warning: 1 file left out, as a tar holds no sockets: s
    ");
}

#[test]
fn of_a_million_names_the_first_are_told() {
    let mut messages = Messages::of("tar", Rules::default());
    for number in 0..1_000_000 {
        messages.hear(format!("tar: ./{number}: File removed before we read it").as_bytes(), |_| true);
    }
    messages.hear(format!("tar: ./{}: socket ignored", "x".repeat(4000)).as_bytes(), |_| true);
    let said = messages.judge(Exit::Code(1), HINT).unwrap();
    assert!(
        said.warnings[0].contains("1000000 files vanished")
            && said.warnings[0].contains(": 0, 1, 2, ")
            && said.warnings[0].ends_with("18, 19 and 999980 more")
    );
    assert!(said.warnings[1].len() < 400 && said.warnings[1].ends_with("xxx..."));
}
