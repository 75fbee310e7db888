//! Tars that somebody has forged: nothing of them acts outside of the place that they are unpacked in.

use std::fs;

use crate::support::Test;
use crate::support::archive::{Archive, with_uploads};

/// A member's header and content.
fn member(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    let ids = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
    put(108, format!("{:07o}\0", ids[0]).as_bytes());
    put(116, format!("{:07o}\0", ids[1]).as_bytes());
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"14000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut whole = [&block, content].concat();
    whole.resize(whole.len().next_multiple_of(512), 0);
    whole
}

/// A tar of these members, with its end mark.
fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [&members.concat(), [0; 1024].as_slice()].concat()
}

/// Restores and drills a tar that holds these behind a harmless beginning: each time nothing is left of it.
#[track_caller]
fn is_refused(members: &[Vec<u8>], says: &str) {
    let test = with_uploads();
    fs::create_dir(test.path("outside")).unwrap();
    fs::write(test.path("outside/precious"), "old").unwrap();
    let beginning = [member(b'5', "./", "", b""), member(b'0', "./first", "", b"harmless")];
    Archive::of_tar(tar(&[&beginning, members].concat())).counted([1, 1, 0, 0, 8]).put(&test, "uploads");
    test.run(["restore", "uploads", "--to-path", "live/"]).fails(1).says(says);
    nothing_is_left(&test);
    // In place of something, too.
    fs::create_dir(test.path("live")).unwrap();
    fs::write(test.path("live/kept"), "").unwrap();
    test.run(["restore", "uploads", "--replace"]).fails(1).says(says);
    assert!(test.path("live/kept").exists());
    fs::remove_dir_all(test.path("live")).unwrap();
    test.run(["restore", "--drill"]).fails(1).says(says);
    nothing_is_left(&test);
    assert_eq!(
        fs::read_dir(test.path("state")).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "locks").count(),
        0
    );
    // No tar of ours is one: it is a bad backup.
    assert!(test.run(["list"]).fails(3).stdout.contains("damaged"));
}

#[track_caller]
fn nothing_is_left(test: &Test) {
    assert_eq!(fs::read_to_string(test.path("outside/precious")).unwrap(), "old");
    assert_eq!(fs::read_dir(test.path("outside")).unwrap().count(), 1);
    let names = fs::read_dir(test.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names
        .filter(|name| ![".ran", "backup.yml", "bin", "outside", "state", "storage", "tmp"].contains(&name.as_str()))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn names_that_lead_out_are_refused() {
    let file = |name: &str| member(b'0', name, "", b"evil");
    is_refused(&[file("../outside/precious")], "leads upwards");
    is_refused(&[file("./a/../../outside/precious")], "leads upwards");
    is_refused(&[file("/outside/precious")], "begins at the root");
    is_refused(&[member(b'5', "./..", "", b"")], "leads upwards");
}

#[test]
fn nothing_is_written_through_a_link() {
    let link = |name: &str, to: &str| member(b'2', name, to, b"");
    let file = |name: &str| member(b'0', name, "", b"evil");
    is_refused(&[link("./way", "../outside"), file("./way/precious")], "through a symbolic link");
    is_refused(&[link("./way", "../outside/precious"), file("./way")], "take the place of a symbolic link");
    is_refused(&[link("./way", "../outside"), member(b'5', "./way/", "", b"")], "symbolic link");
    is_refused(&[link("./a", "../outside"), member(b'1', "./b", "./a", b""), file("./b/precious")], "through a symbolic link");
}

#[test]
fn hard_links_that_lead_out_are_refused() {
    let link = |name: &str, to: &str| member(b'1', name, to, b"");
    is_refused(&[link("./a", "../outside/precious")], "leads upwards");
    is_refused(&[link("./a", "/etc/passwd")], "begins at the root");
    is_refused(&[member(b'2', "./way", "../outside", b""), link("./a", "./way/precious")], "through a symbolic link");
}

#[test]
fn what_no_backup_holds_is_refused() {
    is_refused(&[member(b'M', "./x", "", b"evil")], "of a kind that no backup has");
    is_refused(&[member(b'V', "x", "", b"")], "of a kind that no backup has");
    is_refused(&[member(b'2', "./", "../outside", b"")], "");
    is_refused(&[vec![b'x'; 512]], "no header where one must be");
}

#[test]
fn a_link_that_leads_out_stays_a_link() {
    let test = with_uploads();
    let members =
        [member(b'5', "./", "", b""), member(b'2', "./out", "../../../etc/passwd", b""), member(b'2', "./abs", "/etc", b"")];
    Archive::of_tar(tar(&members)).counted([0, 1, 2, 0, 0]).put(&test, "uploads");
    test.run(["restore", "uploads"]).ok();
    assert_eq!(fs::read_link(test.path("live/out")).unwrap().to_str(), Some("../../../etc/passwd"));
    assert_eq!(fs::read_link(test.path("live/abs")).unwrap().to_str(), Some("/etc"));
}
