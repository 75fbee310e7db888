//! What gzip's many readers make of an artifact whose blocks are written in different ways: searched for repetitions, coded byte by
//! byte, stored.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::Test;

/// Megabytes of each kind, so that whole blocks are of one.
const TREE: &str = r#"
python3 - <<'PYTHON'
import random
dice = random.Random(7)
open("1 noise", "wb").write(dice.randbytes(5 << 20))
open("2 digits", "w").write("\n".join(f"{line}\t\\\\x{dice.randbytes(64).hex()}" for line in range(40000)))
open("3 prose", "w").write("\n".join(f"Order {line} of customer {line % 1009} was paid at once." for line in range(100000)))
open("4 nothing", "wb").truncate(3 << 20)
PYTHON
"#;

const PYTHON: &str = "import gzip, shutil, sys; shutil.copyfileobj(gzip.open(sys.argv[1]), sys.stdout.buffer)";

fn read_by(program: &[&str], artifact: &Path) -> Vec<u8> {
    let read = Command::new(program[0]).args(&program[1..]).arg(artifact).output().unwrap();
    assert!(read.status.success() && read.stderr.is_empty(), "{program:?}: {}", String::from_utf8_lossy(&read.stderr));
    read.stdout
}

/// What `gzip -6` makes of it.
fn gzip_bytes(content: &[u8]) -> usize {
    let mut gzip = Command::new("gzip").args(["-6", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(content).unwrap());
        gzip.wait_with_output().unwrap().stdout.len()
    })
}

#[test]
fn every_reader_finds_the_same_content_in_blocks_of_each_kind() {
    let test = Test::of_tree(TREE, "");
    test.run(["backup"]).ok();
    test.artifact_is_the_tree();
    let artifact = test.stored_one(".tar.gz");
    let content = read_by(&["gunzip", "-c"], &artifact);
    for program in [&["zcat"][..], &["gzip", "-dc"], &["pigz", "-dc"], &["python3", "-c", PYTHON], &["busybox", "zcat"]] {
        assert!(read_by(program, &artifact) == content, "{program:?} finds something else than gunzip");
    }
    let (ours, theirs) = (artifact.metadata().unwrap().len(), gzip_bytes(&content) as u64);
    assert!(ours <= theirs, "{ours} bytes, and gzip -6 makes {theirs}");
    test.run(["restore", "files", "--to-path", test.path("back").to_str().unwrap()]).ok();
    let compared = Command::new("diff").args(["-r", "tree", "back"]).current_dir(test.path("")).status().unwrap();
    assert!(compared.success());
}
