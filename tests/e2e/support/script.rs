//! The project's own scripts, with the program that is being tested.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, kill_process, kill_process_group};

use super::{Signal, eventually, repository};

/// `scripts/NAME`, whose temporary files go into this directory.
pub fn script(name: &str, temporary: &Path) -> Command {
    // The server's user has to reach its directory in it.
    fs::set_permissions(temporary, fs::Permissions::from_mode(0o711)).unwrap();
    let mut command = Command::new("env");
    // Where the tests themselves run in the background, no shell could hear of it.
    command.arg("--default-signal=INT").arg(repository().join("scripts").join(name));
    command.env("DB_BACKUP_BIN", env!("CARGO_BIN_EXE_db-backup-tools")).env("TMPDIR", temporary).stdin(Stdio::null());
    // A group of its own: no signal to it reaches the tests.
    command.process_group(0);
    command
}

/// Whether nothing is left of a script.
pub fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Ends a script in each way as soon as this file is in its directory, which then has to go.
pub fn ended_early_leaves_nothing(start: impl Fn(&Path) -> Command, file: &str) {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let temporary = tempfile::tempdir().unwrap();
        let mut script = start(temporary.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it is at work", || {
            let mut own = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path());
            own.any(|directory| directory.join(file).exists())
        });
        let script_itself = Pid::from_child(&script);
        // A terminal's Ctrl-C is for the whole group.
        let end = if signal == Signal::INT { kill_process_group } else { kill_process };
        end(script_itself, signal).unwrap();
        assert_eq!(script.wait().unwrap().code(), code, "{signal:?}");
        eventually("its directory is gone", || is_empty(temporary.path()));
    }
}
