//! One run a unit at a time: a lock on a file in `state_dir` that dies with the process that holds
//! it. The file stays for ever: to remove it would let two hold the lock.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use rustix::fs::{CWD, FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Context;
use super::files::{create_private_dirs, open_regular_with};
use crate::error::{Error, Kind, Result};
use crate::names::UnitName;
use crate::quantity::show_duration;

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// A unit's lock, held until dropped. No child inherits it.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// What a lock's file says of who holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    since: DateTime<Utc>,
    #[serde(default)]
    command: Vec<String>,
}

/// Takes a unit's lock. Where another process holds it, waits that long, or not at all; then it is
/// an error that says who holds it and since when. The directory is made where it is missing.
pub fn take(state_dir: &Path, unit: &UnitName, wait: Option<Duration>, cx: &Context) -> Result<Lock> {
    let unusable = |error| unusable(state_dir, error);
    let locks = state_dir.join("locks");
    create_private_dirs(&locks).map_err(unusable)?;
    let path = locks.join(format!("{}.lock", unit.escaped()));
    let until = wait.and_then(|wait| Instant::now().checked_add(wait));
    let mut file = open_regular_with(CWD, &path, OFlags::RDWR | OFlags::CREATE).map_err(unusable)?;
    loop {
        cx.cancel.check()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(unusable(error.into())),
        }
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        // A wait that the clock can't count has no end.
        let pause = if wait.is_some() && until.is_none() { RETRY } else { left.min(RETRY) };
        if pause.is_zero() {
            return Err(held(&mut file, wait, cx).target(unit));
        }
        cx.cancel.sleep(pause)?;
    }
    let lock = Lock { file };
    lock.sign(cx).map_err(unusable)?;
    Ok(lock)
}

impl Lock {
    /// Says who holds it. Our words hold no secret: any user can see them in the process list.
    fn sign(&self, cx: &Context) -> io::Result<()> {
        let command = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let holder = Holder { pid: std::process::id(), since: cx.clock.now(), command };
        let text = serde_json::to_vec(&holder)?;
        self.file.set_len(0)?;
        (&self.file).write_all(&text)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // So that nobody takes us for the holder between the next one's lock and its signature.
        let _ = self.file.set_len(0);
        // Closing alone would leave it to a child that was forked and has not yet called exec.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn held(file: &mut File, wait: Option<Duration>, cx: &Context) -> Error {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let holder = read.ok().and_then(|_| serde_json::from_str::<Holder>(&text).ok());
    let by = holder.map_or("another process".to_owned(), |Holder { pid, since, .. }| {
        let span = (cx.clock.now() - since).to_std().unwrap_or_default();
        format!("process {pid} since {} ({})", since.to_rfc3339_opts(SecondsFormat::Secs, true), show_duration(span))
    });
    let (still, hint) = match wait {
        None => ("", "try again when it is done, or let this run wait for it: `--wait 10m`"),
        Some(_) => ("still ", "wait longer with `--wait`, or find out what that process waits for"),
    };
    Error::new(Kind::Locked, format!("its lock is {still}held by {by}")).hint(hint)
}

fn unusable(state_dir: &Path, error: io::Error) -> Error {
    Error::new(Kind::Internal, format!("can't keep a lock in {}", state_dir.display()))
        .hint("set `state_dir:` to a directory on a local disk that this user can write")
        .source(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::host::cancel::Reason;
    use crate::host::clock::SetClock;
    use crate::host::process::Program;

    fn unit(name: &str) -> UnitName {
        UnitName::new(name)
    }

    #[test]
    fn a_held_lock_names_its_holder_and_since_when() {
        let home = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock::at("2026-06-12T03:00:00Z".parse().unwrap()));
        let mut cx = Context::for_tests();
        cx.clock = clock.clone();
        let lock = take(home.path(), &unit("app"), None, &cx).unwrap();
        clock.advance(chrono::Duration::seconds(182));
        let error = take(home.path(), &unit("app"), None, &cx).unwrap_err();
        let pid = std::process::id();
        assert_eq!(error.to_string(), format!("app: its lock is held by process {pid} since 2026-06-12T03:00:00Z (3m 2s)"));
        assert_eq!(error.kind(), Kind::Locked);
        assert!(error.hint_text().unwrap().contains("--wait 10m"));
        drop(lock);
        take(home.path(), &unit("app"), None, &cx).unwrap();
    }

    #[test]
    fn other_units_locks_are_free_and_all_is_private() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("lib/state");
        let cx = Context::for_tests();
        let _first = take(&state, &unit("app"), None, &cx).unwrap();
        let _second = take(&state, &unit("../app2/%"), None, &cx).unwrap();
        for (path, mode) in [("", 0o700), ("locks", 0o700), ("locks/app.lock", 0o600)] {
            let found = std::fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
        assert_eq!(std::fs::read_dir(state.join("locks")).unwrap().count(), 2);
    }

    #[test]
    fn a_wait_takes_the_lock_when_it_is_free() {
        let home = tempfile::tempdir().unwrap();
        let cx = Context::for_tests();
        let lock = take(home.path(), &unit("app"), None, &cx).unwrap();
        let (path, other) = (home.path().to_owned(), cx.clone());
        let waiting = std::thread::spawn(move || take(&path, &unit("app"), Some(Duration::MAX), &other).map(|_| ()));
        drop(lock);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn a_wait_ends_with_its_time_or_its_token() {
        let home = tempfile::tempdir().unwrap();
        let cx = Context::for_tests();
        let _lock = take(home.path(), &unit("app"), None, &cx).unwrap();
        let error = take(home.path(), &unit("app"), Some(Duration::from_millis(1)), &cx).unwrap_err();
        assert!(error.kind() == Kind::Locked && error.to_string().contains("still held"), "{error}");
        let (path, other) = (home.path().to_owned(), cx.clone());
        let waiting = std::thread::spawn(move || take(&path, &unit("app"), Some(Duration::from_secs(3600)), &other).map(|_| ()));
        cx.cancel.cancel(Reason::Signal(15));
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), Kind::Interrupted);
    }

    #[test]
    fn a_lock_dies_with_its_holder_and_its_file_stays() {
        let home = tempfile::tempdir().unwrap();
        let cx = Context::for_tests();
        drop(take(home.path(), &unit("app"), None, &cx).unwrap());
        let file = home.path().join("locks/app.lock");
        let script = r#"exec 9<>"$1"; flock 9; echo '{"pid":1,"since":"20' >&9; echo ready; exec sleep 1000"#;
        let mut child = Program::new("sh").args(["-c", script, "sh"]).arg(&file).spawn_reader(&cx).unwrap();
        child.read_exact(&mut [0; 6]).unwrap();
        let error = take(home.path(), &unit("app"), None, &cx).unwrap_err();
        assert_eq!(error.to_string(), "app: its lock is held by another process");
        child.kill();
        take(home.path(), &unit("app"), None, &cx).unwrap();
        assert!(file.exists());
    }

    #[test]
    fn no_child_inherits_a_lock() {
        let home = tempfile::tempdir().unwrap();
        let cx = Context::for_tests();
        let _lock = take(home.path(), &unit("app"), None, &cx).unwrap();
        let output = Program::new("ls").args(["-l", "/proc/self/fd"]).output(b"", &cx).unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(listed.contains("pipe:") && !listed.contains("app.lock"), "{listed}");
    }

    #[test]
    fn a_state_directory_that_can_not_be_used_says_what_to_set() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let cx = Context::for_tests();
        for state in [home.path().join("file/state"), PathBuf::from("/proc/none")] {
            let error = take(&state, &unit("app"), None, &cx).unwrap_err();
            assert!(error.to_string().contains(&*state.to_string_lossy()), "{error}");
            assert!(error.hint_text().unwrap().contains("`state_dir:`"));
        }
    }
}
