//! The program under strace: what it does to files, in which order, and its death before any one of these steps.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;

use super::{Ran, Signal, Test};

/// Calls that change files. The question mark: not every machine has each of them.
const CALLS: &str = "?openat,?open,?write,?ftruncate,?fsync,?fdatasync,?renameat2,?renameat,?rename,?linkat,?link,?mkdirat,?mkdir,\
                     ?unlinkat,?unlink,?rmdir,?chmod,?fchmod,?fchmodat";
const PLAIN: &str = "exec \"$@\"\n";

/// A test whose program runs under strace where it is asked to.
pub struct Traced(Test);

/// A call that changes something in the test's directory: the how manieth of its name, and its text.
#[derive(Debug, Clone)]
pub struct Step {
    pub call: String,
    pub number: usize,
    pub text: String,
}

impl Deref for Traced {
    type Target = Test;

    fn deref(&self) -> &Test {
        &self.0
    }
}

impl Traced {
    /// This test's program.
    pub fn new(test: Test) -> Self {
        Self(test.file("wrap", PLAIN).under(["sh", "wrap"]))
    }

    /// Runs the program to a good end, and returns what its main thread did to the test's files.
    /// `the_order_of_a_backup` shows that no other thread does more than to write an artifact's bytes. Of several
    /// storages it commits the last one; the others' commits go on beside it, each in a thread that does the same.
    #[track_caller]
    pub fn steps<const N: usize>(&self, arguments: [&str; N]) -> Vec<Step> {
        self.run_under(&format!("strace -y -s 0 -o trace -e trace={CALLS}"), arguments).ok();
        let directory = self.path("").to_str().unwrap().to_owned();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut steps = Vec::new();
        for line in fs::read_to_string(self.path("trace")).unwrap().lines() {
            let Some((call, text)) = line.split_once('(').filter(|(call, _)| is_name(call)) else { continue };
            let number = numbers.entry(call.to_owned()).or_default();
            *number += 1;
            if text.contains(&directory) && (!call.starts_with("open") || text.contains("O_CREAT")) {
                let text = text.replace(&directory, "");
                steps.push(Step { call: call.to_owned(), number: *number, text });
            }
        }
        assert!(!steps.is_empty(), "strace has seen nothing");
        steps
    }

    /// Runs the program, and kills it right before this step.
    #[track_caller]
    pub fn killed_before<const N: usize>(&self, step: &Step, arguments: [&str; N]) {
        let Step { call, number, .. } = step;
        let wrapper = format!("strace -o trace -e trace={call} -e inject={call}:signal=KILL:when={number}");
        let ran = self.run_under(&wrapper, arguments);
        assert_eq!(ran.signal, Some(Signal::KILL.as_raw()), "it was to be killed before {step:?}: {ran:?}");
    }

    /// Runs the program to a good end, and returns what all its threads and children did, in order, and
    /// whole: a line for each call where it ended. Each begins with the thread's number.
    #[track_caller]
    pub fn order<const N: usize>(&self, arguments: [&str; N]) -> Vec<String> {
        self.run_under(&format!("strace -f --seccomp-bpf -y -o trace -e trace=execve,waitid,{CALLS}"), arguments).ok();
        let mut begun: BTreeMap<String, String> = BTreeMap::new();
        let mut lines = Vec::new();
        for line in fs::read_to_string(self.path("trace")).unwrap().lines() {
            let (thread, text) = line.split_once(' ').unwrap();
            let text = text.trim_start();
            if let Some(beginning) = text.strip_suffix(" <unfinished ...>") {
                begun.insert(thread.to_owned(), beginning.to_owned());
            } else if let Some((_, end)) = text.split_once(" resumed>").filter(|_| text.starts_with("<... ")) {
                lines.push(format!("{thread} {}{end}", begun.remove(thread).unwrap_or_default()));
            } else {
                lines.push(format!("{thread} {text}"));
            }
        }
        lines
    }

    /// Runs the program under another one, this once.
    #[track_caller]
    pub fn run_under<const N: usize>(&self, wrapper: &str, arguments: [&str; N]) -> Ran {
        self.write("wrap", &format!("exec {wrapper} \"$@\"\n"));
        let ran = self.run(arguments);
        self.write("wrap", PLAIN);
        ran
    }
}

/// Two workers: half of a run is waiting for other processes.
pub fn for_each_step(steps: &[Step], check: impl Fn(&Step) + Sync) {
    std::thread::scope(|scope| {
        for half in 0..2 {
            let check = &check;
            scope.spawn(move || steps.iter().skip(half).step_by(2).for_each(check));
        }
    });
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
