//! `scripts/quickstart`, with the program that is being tested.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, kill_process, kill_process_group};

use crate::support::{Signal, eventually, repository};

fn quickstart(temporary: &Path) -> Command {
    // The server's user has to reach its directory in it.
    fs::set_permissions(temporary, fs::Permissions::from_mode(0o711)).unwrap();
    let mut command = Command::new("env");
    // Where the tests themselves run in the background, no shell could hear of it.
    command.arg("--default-signal=INT").arg(repository().join("scripts/quickstart"));
    command.env("DB_BACKUP_BIN", env!("CARGO_BIN_EXE_db-backup-tools")).env("TMPDIR", temporary).stdin(Stdio::null());
    // A group of its own: no signal to it reaches the tests.
    command.process_group(0);
    command
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn the_demonstration_undoes_the_harm_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = quickstart(temporary.path()).output().unwrap();
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
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let temporary = tempfile::tempdir().unwrap();
        let mut script = quickstart(temporary.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server_runs = || {
            let demos = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path());
            demos.map(|demo| demo.join("server/data/postmaster.pid")).any(|file| file.exists())
        };
        eventually("its server runs", server_runs);
        let script_itself = Pid::from_child(&script);
        // A terminal's Ctrl-C is for the whole group.
        let end = if signal == Signal::INT { kill_process_group } else { kill_process };
        end(script_itself, signal).unwrap();
        assert_eq!(script.wait().unwrap().code(), code, "{signal:?}");
        eventually("its directory is gone", || is_empty(temporary.path()));
    }
}
