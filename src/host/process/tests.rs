use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::from_io;
use crate::host::Env;
use crate::host::cancel::Reason;

fn sh(script: &str) -> Program {
    Program::new("sh").arg("-c").arg(script)
}

/// Reads up to the end of the line.
fn line(child: &mut Child) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while child.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Whether this process is gone, or dead and waiting for init.
fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn kind(error: io::Error) -> Kind {
    from_io(error, Kind::Internal, "not ours").kind()
}

#[test]
fn fifty_megabytes_pass_both_ways_without_a_deadlock() {
    let cx = Context::for_tests();
    let input: Vec<u8> = (0..50_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let output = Program::new("cat").output(&input, &cx).unwrap();
    assert!(output.stdout == input && output.exit.is_success());
}

#[test]
fn a_writers_output_is_collected_and_its_end_kept() {
    let cx = Context::for_tests();
    let mut child = sh("cat; echo last").spawn_writer(&cx).unwrap();
    child.write_all(&vec![b'x'; 3_000_000]).unwrap();
    let finished = child.wait().unwrap();
    assert_eq!(finished.stdout_tail.len(), 64 << 10);
    assert!(finished.stdout_tail.ends_with(b"xlast\n") && finished.exit.is_success());
}

#[test]
fn output_beyond_the_limit_is_an_error() {
    let cx = Context::for_tests();
    let error = Program::new("yes").limit(100_000).output(b"", &cx).unwrap_err();
    assert_eq!(error.to_string(), "yes writes more than 100000 bytes");
}

#[test]
fn a_program_that_closes_its_stdout_still_gets_all_of_its_input() {
    let cx = Context::for_tests();
    let output = sh("exec >&-; wc -c >&2").output(&vec![0; 3_000_000], &cx).unwrap();
    assert_eq!(output.stderr_tail.trim(), "3000000");
}

#[test]
fn a_program_that_reads_no_input_is_judged_by_its_exit() {
    let cx = Context::for_tests();
    let output = sh("exec <&-; echo no; exit 4").output(&vec![0; 3_000_000], &cx).unwrap();
    assert_eq!((output.stdout.as_slice(), output.exit), (b"no\n".as_slice(), Exit::Code(4)));
}

#[test]
fn a_read_ends_with_the_token_though_a_grandchild_holds_the_pipe() {
    let cx = Context::for_tests();
    let mut child = sh("sleep 1000 & echo $!; wait").spawn_reader(&cx).unwrap();
    let grandchild = line(&mut child);
    let cancel = cx.cancel.clone();
    let other = std::thread::spawn(move || cancel.cancel(Reason::Signal(15)));
    assert_eq!(kind(child.read(&mut [0]).unwrap_err()), Kind::Interrupted);
    other.join().unwrap();
    assert!(!is_gone(&grandchild));
    child.kill();
    assert!(is_gone(&grandchild));
}

#[test]
fn a_write_ends_with_the_token_though_the_child_never_reads() {
    let cx = Context::for_tests();
    let cx = cx.with_cancel(cx.cancel.child(Some(Duration::from_millis(300))).unwrap());
    let mut child = Program::new("sleep").arg("1000").spawn_writer(&cx).unwrap();
    assert_eq!(kind(child.write_all(&vec![0; 8 << 20]).unwrap_err()), Kind::Timeout);
    assert_eq!(child.wait().unwrap_err().kind(), Kind::Timeout);
}

#[test]
fn a_silent_grandchild_behind_an_ended_child_is_an_error() {
    let cx = Context::for_tests();
    let mut child = sh("sleep 1000 & echo $!").spawn_reader(&cx).unwrap();
    child.hold_for(Duration::from_millis(50));
    let grandchild = line(&mut child);
    let error = from_io(child.read(&mut [0]).unwrap_err(), Kind::Internal, "not ours");
    assert_eq!(error.to_string(), "sh has ended, but a process that it started holds its pipe and is silent");
    drop(child);
    assert!(is_gone(&grandchild));
}

#[test]
fn a_grandchild_that_chats_on_stderr_does_not_hold_up_a_read() {
    let cx = Context::for_tests();
    let mut child = sh("yes 3>&1 >&2 & exit 0").spawn_reader(&cx).unwrap();
    child.hold_for(Duration::from_millis(50));
    assert_eq!(kind(child.read(&mut [0]).unwrap_err()), Kind::Child);
}

#[test]
fn a_grandchild_does_not_hold_up_a_wait_and_the_childs_own_words_are_kept() {
    let cx = Context::for_tests();
    let mut child = sh("sleep 1000 & echo $!; echo why >&2; exit 3").spawn_writer(&cx).unwrap();
    let finished = child.wait().unwrap();
    assert_eq!((finished.exit, finished.stderr_tail.as_str()), (Exit::Code(3), "why\n"));
    // It is no child of ours any more: only this test knows it.
    let grandchild = String::from_utf8(finished.stdout_tail).unwrap();
    assert!(Program::new("kill").arg(grandchild.trim()).output(b"", &cx).unwrap().exit.is_success());
}

#[test]
fn a_grandchild_that_goes_on_writing_is_read_to_its_end() {
    let cx = Context::for_tests();
    let mut child = sh("(head -c 5000000 /dev/zero; echo end) & exit 0").spawn_reader(&cx).unwrap();
    let mut all = Vec::new();
    child.read_to_end(&mut all).unwrap();
    assert!(all.len() == 5_000_004 && all.ends_with(b"end\n"));
    assert!(child.wait().unwrap().exit.is_success());
}

#[test]
fn a_killed_child_is_no_success_and_its_signal_is_named() {
    let cx = Context::for_tests();
    let output = sh("echo half; kill -9 $$").output(b"", &cx).unwrap();
    assert!(!output.exit.is_success());
    assert_eq!(output.exit.describe(), "was killed by signal 9 (SIGKILL; the out-of-memory killer?)");
    assert_eq!(Exit::Signal(15).describe(), "was killed by signal 15 (SIGTERM)");
    assert_eq!(Exit::Code(3).describe(), "exited with code 3");
}

#[test]
fn a_write_to_a_dead_child_is_a_broken_pipe_and_wait_says_why() {
    let cx = Context::for_tests();
    let mut child = sh("echo no such role >&2; exit 3").spawn_writer(&cx).unwrap();
    let error = child.write_all(&vec![0; 8 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(kind(error), Kind::Child);
    for _ in 0..2 {
        let finished = child.wait().unwrap();
        assert_eq!((finished.exit, finished.stderr_tail.as_str()), (Exit::Code(3), "no such role\n"));
    }
}

#[test]
fn ten_megabytes_of_stderr_block_nothing_and_leave_their_beginning_and_end() {
    let cx = Context::for_tests();
    let script = "echo first >&2; head -c 10000000 /dev/zero | tr '\\0' x >&2; echo last >&2; echo out";
    let mut child = sh(script).spawn_reader(&cx).unwrap();
    assert_eq!(line(&mut child), "out");
    let said = child.wait().unwrap().stderr_tail;
    assert!(said.starts_with("first\n") && said.ends_with("xlast\n") && said.contains("bytes left out"));
    assert!(said.len() < 17_000);
}

#[test]
fn a_child_may_clean_up_when_it_is_killed() {
    let cx = Context::for_tests();
    // The grandchild says it: a subshell that has not yet called exec may lose the signal.
    let script = "trap 'echo bye >&2; exit 7' TERM; sh -c 'echo ready; exec sleep 1000' & wait";
    let mut child = sh(script).spawn_reader(&cx).unwrap();
    assert_eq!(line(&mut child), "ready");
    child.kill();
    let finished = child.wait().unwrap();
    assert_eq!((finished.exit, finished.stderr_tail.as_str()), (Exit::Code(7), "bye\n"));
}

#[test]
fn a_child_that_ignores_sigterm_or_is_stopped_is_killed_all_the_same() {
    let cx = Context::for_tests();
    for script in ["trap '' TERM; echo ready; while :; do sleep 1; done", "echo ready; kill -STOP $$"] {
        let mut child = sh(script).spawn_reader(&cx).unwrap();
        assert_eq!(line(&mut child), "ready");
        child.kill();
        assert!(matches!(child.wait().unwrap().exit, Exit::Signal(9 | 15)), "{script}");
    }
}

#[test]
fn a_dropped_child_leaves_neither_process_nor_zombie() {
    let cx = Context::for_tests();
    let mut child = sh("sleep 1000 & echo $!; wait").spawn_reader(&cx).unwrap();
    let (pid, grandchild) = (child.pid(), line(&mut child));
    drop(child);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(is_gone(&grandchild));
}

#[test]
fn a_child_gets_exactly_the_environment_it_is_given() {
    let mut cx = Context::for_tests();
    let mut env = Env::from_iter([("PATH", "/usr/bin:/bin"), ("PGPASSWORD", "hunter2")]);
    env.set("LANG", "C");
    cx.env = Arc::new(env);
    let program = Program::new("env").without_env_prefix("PG").env("PGHOST", "db");
    let output = program.output(b"", &cx).unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LANG=C", "PATH=/usr/bin:/bin", "PGHOST=db"]);
}

#[test]
fn debug_shows_no_value_of_the_environment() {
    let program = Program::new("psql").arg("-X").env("PGPASSWORD", "hunter2");
    let shown = format!("{program:?}");
    assert!(!shown.contains("hunter2") && shown.contains("PGPASSWORD=...") && shown.contains("-X"), "{shown}");
}

#[test]
fn a_child_has_a_process_group_of_its_own_and_the_directory_it_is_given() {
    let cx = Context::for_tests();
    let mut child = sh("pwd; cut -d ' ' -f 5 /proc/$$/stat").directory("/usr").spawn_reader(&cx).unwrap();
    assert_eq!(line(&mut child), "/usr");
    assert_eq!(line(&mut child), child.pid().to_string());
}

#[test]
fn a_program_that_is_not_there_is_named_with_what_to_do() {
    let cx = Context::for_tests();
    let missing = Program::new("pg_dumpp").output(b"", &cx).unwrap_err();
    assert_eq!(missing.to_string(), "can't run pg_dumpp: it is in no directory of PATH (/usr/local/bin:/usr/bin:/bin)");
    assert!(missing.hint_text().unwrap().contains("install it"));
    let missing = Program::new("/nowhere/pg_dump").output(b"", &cx).unwrap_err();
    assert_eq!(missing.to_string(), "can't run /nowhere/pg_dump: No such file or directory (os error 2)");
    assert_eq!(missing.kind(), Kind::Child);
}

#[test]
fn a_program_that_can_not_run_is_told_from_one_that_is_not_there() {
    let cx = Context::for_tests();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tool");
    std::fs::write(&file, "#!/nowhere/interpreter\n").unwrap();
    let error = Program::new(&file).output(b"", &cx).unwrap_err();
    assert!(error.hint_text().unwrap().contains("make it executable"), "{error:?}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Program::new(&file).output(b"", &cx).unwrap_err();
    assert!(error.hint_text().unwrap().contains("interpreter"), "{error:?}");
    let error = Program::new("true").directory("/nowhere").output(b"", &cx).unwrap_err();
    assert!(error.to_string().starts_with("can't run true in /nowhere: "), "{error}");
}

#[test]
fn programs_are_found_in_the_given_path_alone() {
    let mut cx = Context::for_tests();
    assert!(find_programs("sh", &cx).first().is_some_and(|path| path.is_absolute()));
    cx.env = Arc::new(Env::from_iter([("PATH", "/nowhere:")]));
    assert!(find_programs("sh", &cx).is_empty());
    assert!(sh("true").output(b"", &cx).is_err());
}

#[test]
fn a_kernel_without_pidfds_is_no_hindrance() {
    let cx = Context::for_tests();
    let mut child = sh("cat; exit 3").spawn_writer(&cx).unwrap();
    child.forget_pidfd();
    child.write_all(b"text").unwrap();
    let finished = child.wait().unwrap();
    assert_eq!((finished.exit, finished.stdout_tail.as_slice()), (Exit::Code(3), b"text".as_slice()));
    let mut child = sh("sleep 1000 & echo $!; wait").spawn_reader(&cx).unwrap();
    child.forget_pidfd();
    let grandchild = line(&mut child);
    child.kill();
    assert!(is_gone(&grandchild));
}

#[test]
fn a_read_into_nothing_is_no_end_of_file() {
    let cx = Context::for_tests();
    let mut child = sh("echo text").spawn_reader(&cx).unwrap();
    assert_eq!(child.read(&mut []).unwrap(), 0);
    assert_eq!(line(&mut child), "text");
}

#[test]
fn nothing_starts_once_the_token_is_cancelled() {
    let cx = Context::for_tests();
    cx.cancel.cancel(Reason::Signal(2));
    assert_eq!(sh("true").spawn_reader(&cx).unwrap_err().kind(), Kind::Interrupted);
}

#[test]
fn a_child_of_another_user_is_in_no_group_of_ours() {
    let cx = Context::for_tests();
    if !crate::host::files::is_root() {
        let refused = sh("true").user(0, 0).output(b"", &cx).unwrap_err();
        assert!(refused.to_string().contains("can't run sh"), "{refused}");
        return;
    }
    let output = sh("id -u; id -G").user(65534, 65533).output(b"", &cx).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "65534\n65533\n");
}

#[test]
fn a_session_answers_and_can_be_waited_for_after_a_cancel() {
    let cx = Context::for_tests();
    let mut child = sh("read -r word; echo got $word; read -r _; exit 7").spawn_session(&cx).unwrap();
    child.write_all(b"it\n").unwrap();
    assert_eq!(line(&mut child), "got it");
    cx.cancel.cancel(Reason::Signal(2));
    assert_eq!(kind(child.read(&mut [0]).unwrap_err()), Kind::Interrupted);
    let cancel = crate::host::Cancel::for_clean_up().unwrap();
    assert_eq!(child.wait_under(cancel).unwrap().exit, Exit::Code(7));
}

#[test]
fn every_line_of_stderr_is_heard_though_only_a_part_is_kept() {
    let cx = Context::for_tests();
    let heard = Arc::new(std::sync::Mutex::new((0_u32, Vec::new())));
    let to = heard.clone();
    let listener = Box::new(move |line: &[u8]| {
        let (count, last) = &mut *to.lock().unwrap();
        *count += 1;
        *last = line.to_vec();
    });
    // More than both pipes hold: it goes on only as both are taken.
    let script = "seq 500000 >&2; printf end >&2; head -c 3000000 /dev/zero";
    let mut child = sh(script).spawn_reader_heard_by(listener, &cx).unwrap();
    let read = io::copy(&mut child, &mut io::sink()).unwrap();
    let finished = child.wait().unwrap();
    assert!(finished.exit.is_success() && finished.stderr_tail.contains("bytes left out"));
    assert_eq!((read, heard.lock().unwrap().clone()), (3_000_000, (500_001, b"end".to_vec())));
}
