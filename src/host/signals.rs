//! Signals end the work through the cancel token, so that it is cleaned up; a second one ends the
//! process at once. Nothing else may install a handler.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Cancel;
use super::cancel::Reason;
use crate::error::{Error, Kind, Result};

/// A signal so soon after the first is the same wish: timeout(1) sends its own twice, to the program and to the group.
const SAME_WISH: Duration = Duration::from_millis(250);

/// Watches for SIGINT, SIGTERM and SIGHUP, for as long as the process lives: the first cancels the
/// token, a second SIGINT or SIGTERM ends the process as if nobody watched. A SIGHUP that was
/// ignored when we started (nohup) stays ignored; a SIGCHLD that was does not.
pub fn watch(cancel: &Cancel) -> Result<()> {
    let failed = |error| Error::new(Kind::Internal, "can't watch for signals").source(error);
    let mut watched = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        watched.push(SIGHUP);
    }
    if is_ignored(SIGCHLD) {
        // The kernel would throw away how children ended; any handler stops that.
        flag::register(SIGCHLD, Arc::default()).map_err(failed)?;
    }
    let mut signals = Signals::new(watched).map_err(failed)?;
    let cancel = cancel.clone();
    let run = move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            match first {
                None => {
                    cancel.cancel(Reason::Signal(signal));
                    first = Some(Instant::now());
                }
                // A terminal that closes sends SIGHUP twice, by its shell and by the kernel: that
                // is no second wish.
                Some(first) if signal != SIGHUP && first.elapsed() > SAME_WISH => {
                    let _ = emulate_default_handler(signal);
                }
                Some(_) => {}
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(run).map(drop).map_err(failed)
}

/// Whether the process was started with this signal ignored. Without /proc: no.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use super::*;
    use crate::host::process::{Child, Exit, Program};
    use crate::host::{Context, Env};

    const ROLE: &str = "SIGNALS_TEST_VICTIM";

    /// Not a test of its own: what the others start, as a process that may be signalled.
    #[test]
    fn victim() {
        if Env::of_process().get(ROLE).is_none() {
            return;
        }
        let cancel = Cancel::new().unwrap();
        watch(&cancel).unwrap();
        let run = Program::new("true").output(b"", &Context::for_tests());
        println!("child: {}", run.is_ok_and(|output| output.exit.is_success()));
        println!("ready");
        let _ = cancel.sleep(Duration::from_secs(60));
        println!("{:?}", cancel.reason());
        let _ = Cancel::new().unwrap().sleep(Duration::from_secs(60));
    }

    fn start(cx: &Context, before: &str) -> Child {
        let script = format!(r#"{before} exec "$@""#);
        let words = ["-c", &script, "sh"].map(std::ffi::OsString::from);
        let program = Program::new("sh").args(words).arg(std::env::current_exe().unwrap());
        let program = program.args(["--exact", "host::signals::tests::victim", "--nocapture"]).env(ROLE, "1");
        let mut child = program.spawn_reader(cx).unwrap();
        read_to(&mut child, "child: true\nready");
        child
    }

    fn read_to(child: &mut Child, end: &str) {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(end.as_bytes()) {
            assert_eq!(child.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
    }

    fn send(child: &Child, signal: &str, cx: &Context) {
        let output = Program::new("kill").args(["-s", signal, &child.pid().to_string()]).output(b"", cx).unwrap();
        assert!(output.exit.is_success());
    }

    fn send_until_it_ends(child: &Child, signal: &str, cx: &Context) {
        let stat = format!("/proc/{}/stat", child.pid());
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            send(child, signal, cx);
        }
    }

    #[test]
    fn the_first_signal_cancels_and_the_second_ends_at_once() {
        let cx = Context::for_tests();
        let mut child = start(&cx, "");
        send(&child, "INT", &cx);
        read_to(&mut child, "Some(Signal(2))");
        send_until_it_ends(&child, "TERM", &cx);
        assert_eq!(child.wait().unwrap().exit, Exit::Signal(15));
    }

    #[test]
    fn a_hangup_cancels_and_a_second_one_lets_the_clean_up_go_on() {
        let cx = Context::for_tests();
        let mut child = start(&cx, "");
        send(&child, "HUP", &cx);
        read_to(&mut child, "Some(Signal(1))");
        send(&child, "HUP", &cx);
        send_until_it_ends(&child, "INT", &cx);
        assert_eq!(child.wait().unwrap().exit, Exit::Signal(2));
    }

    #[test]
    fn how_children_end_is_known_though_we_were_started_with_sigchld_ignored() {
        let cx = Context::for_tests();
        let mut child = start(&cx, r#"exec env --ignore-signal=CHLD "$@";"#);
        send(&child, "TERM", &cx);
        read_to(&mut child, "Some(Signal(15))");
    }

    #[test]
    fn a_hangup_that_nohup_ignores_stays_ignored() {
        let cx = Context::for_tests();
        let mut child = start(&cx, "trap '' HUP;");
        send(&child, "HUP", &cx);
        send(&child, "TERM", &cx);
        read_to(&mut child, "Some(Signal(15))");
    }
}
