//! `scripts/quickstart`, with the program that is being tested.

use crate::support::script::{ended_early_leaves_nothing, is_empty, script};

#[test]
fn the_demonstration_undoes_the_harm_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = script("quickstart", temporary.path()).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{stdout}\n---\n{stderr}");
    for shown in [
        "$ db-backup-tools generate",
        "validate --connect",
        "list",
        "restore shop --drill",
        "restore shop --to-database",
        "prune --dry-run",
    ] {
        assert!(stdout.contains(shown), "{shown} is missing in\n{stdout}");
    }
    assert!(stderr.contains("shop: drill passed: "), "{stderr}");
    assert!(stdout.contains("YES: shop_restored is what shop was before the harm."), "{stdout}");
    assert!(stdout.trim_end().ends_with("restores, also by hand with stock tools alone."), "{stdout}");
    assert!(is_empty(temporary.path()));
}

#[test]
fn a_demonstration_that_is_ended_early_leaves_nothing() {
    ended_early_leaves_nothing(|temporary| script("quickstart", temporary), "server/data/postmaster.pid");
}
