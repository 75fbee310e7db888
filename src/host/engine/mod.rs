//! Container engines, by their own command lines: docker and podman. What stands in an argument is never a secret:
//! variables go by name alone, and their values by the environment of the engine's client.

mod inspect;
mod standstill;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Context;
use super::process::{Exit, Output, Program, find_programs};
use crate::error::{Error, Kind, Result};

pub use inspect::{Container, Mount, State, Volume};
pub use standstill::{Member, Remedy, Resumed, UnderWay, Unhalted, Way};

/// An engine that does not answer a question in this time won't be waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How that is told.
const SILENT: &str = "did not answer within";
/// Runs a program until it ends by itself, or until the script's own input does: then it is told to end, and after 5 s
/// killed. So nothing that is run inside outlives the engine's client, whose end ends that input. Each process is waited for by
/// its parent: one left behind would become a child of the container's first process, and a PostgreSQL server that is the first
/// takes a stranger's violent end for a crash of its own, and ends all sessions.
const LEASH: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- & child=$!
{ read -r _
  trap '' TERM
  kill -TERM "$child"; left=50
  while kill -0 "$child" && [ "$left" -gt 0 ]; do sleep 0.1 || { sleep 5; left=1; }; left=$((left - 1)); done
  kill -KILL "$child"; } <&3 >/dev/null 2>&1 & watch=$!
exec 3<&-
wait "$child"; code=$?
{ kill -TERM "$watch"; wait "$watch"; } 2>/dev/null
[ "$0" = sh ] || echo "$0 ended in $code" >&2
exit "$code"
"#;

/// Runs a program, and says how it ended.
const TELL: &str = r#""$@"; code=$?; echo "$0 ended in $code" >&2; exit "$code""#;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Docker Engine, by `docker`.
    Docker,
    /// Podman, by `podman`.
    Podman,
}

impl EngineKind {
    /// Its client's name, and its word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a program in a container is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// It is given input, whose end it sees by itself.
    Data,
    /// It is given none, and ends when we do: to be read with [`Program::spawn_reader`].
    Leash,
}

/// A container engine that is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    kind: EngineKind,
}

impl Engine {
    /// The engines whose clients are on this machine; the one that is wanted, or all. None is an error.
    pub fn installed(wanted: Option<EngineKind>, cx: &Context) -> Result<Vec<Self>> {
        let known = [EngineKind::Docker, EngineKind::Podman].into_iter();
        let asked: Vec<EngineKind> = known.filter(|kind| wanted.is_none_or(|wanted| wanted == *kind)).collect();
        let is_here = |kind: &EngineKind| !find_programs(kind.word(), cx).is_empty();
        let found: Vec<Self> = asked.iter().copied().filter(is_here).map(|kind| Self { kind }).collect();
        if found.is_empty() {
            let names = asked.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(" nor ");
            let neither = if asked.len() > 1 { "neither " } else { "no " };
            return Err(Error::new(Kind::Child, format!("there is {neither}{names} in a directory of PATH"))
                .hint("install the engine's client, or add its directory to PATH; cron's PATH is shorter than a shell's")
                .step("engine"));
        }
        Ok(found)
    }

    /// The engine of this kind, without a look whether it is there.
    pub fn of(kind: EngineKind) -> Self {
        Self { kind }
    }

    /// Which it is.
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Its client, to be given arguments.
    pub fn program(&self) -> Program {
        Program::new(self.kind.word())
    }

    /// The container of this name or id, and its engine. None of any engine is `NotFound`.
    pub fn with_container(wanted: Option<EngineKind>, name: &str, cx: &Context) -> Result<(Self, Container)> {
        let absent = |engines: &[Self]| {
            Error::new(Kind::Child, lacking(engines, "container", name))
                .hint("look at the names in `docker ps --all`; Compose's are PROJECT-SERVICE-1, or use `compose: { file, service }`")
                .step("engine")
        };
        Self::only_one(wanted, "container", name, |engine| engine.container(name, cx), absent, cx)
    }

    /// The volume of this name, and its engine. None of any engine is an error.
    pub fn with_volume(wanted: Option<EngineKind>, name: &str, cx: &Context) -> Result<(Self, Volume)> {
        let absent = |engines: &[Self]| {
            Error::new(Kind::Child, lacking(engines, "volume", name))
                .hint("look at the names in `docker volume ls`: Compose puts its project's name and `_` before each")
                .step("engine")
        };
        Self::only_one(wanted, "volume", name, |engine| engine.volume(name, cx), absent, cx)
    }

    fn only_one<T>(
        wanted: Option<EngineKind>,
        what: &str,
        name: &str,
        look: impl Fn(&Self) -> Result<Option<T>>,
        absent: impl Fn(&[Self]) -> Error,
        cx: &Context,
    ) -> Result<(Self, T)> {
        let engines = Self::installed(wanted, cx)?;
        let (mut found, mut failed) = (Vec::new(), None);
        for engine in &engines {
            match look(engine) {
                Ok(seen) => found.extend(seen.map(|seen| (*engine, seen))),
                Err(error) => failed = failed.or(Some(error)),
            }
            cx.cancel.check()?;
        }
        match (found.pop(), found.is_empty(), failed) {
            (Some(one), true, _) => Ok(one),
            (Some(_), false, _) => Err(Error::new(Kind::Config, format!("both docker and podman have a {what} {name}"))
                .hint("say which is meant: `engine: docker`")
                .step("engine")),
            (None, _, Some(error)) => Err(error),
            (None, _, None) => Err(absent(&engines)),
        }
    }

    /// Runs its client on these words; what it printed. An exit that is no success is an error.
    pub fn run<A: Into<std::ffi::OsString>>(&self, args: impl IntoIterator<Item = A>, cx: &Context) -> Result<Vec<u8>> {
        let output = self.ask(args, cx)?;
        if output.exit.is_success() { Ok(output.stdout) } else { Err(self.failed(&output)) }
    }

    /// Runs its client on these words, for a question that is answered soon.
    fn ask<A: Into<std::ffi::OsString>>(self, args: impl IntoIterator<Item = A>, cx: &Context) -> Result<Output> {
        self.program().args(args).env("LC_ALL", "C").output(b"", cx)
    }

    /// The same, not waited for longer than an answer may take.
    fn ask_soon<A: Into<std::ffi::OsString>>(self, args: impl IntoIterator<Item = A>, cx: &Context) -> Result<Output> {
        self.answer(&self.program().args(args).env("LC_ALL", "C"), cx)
    }

    /// Runs what is made of its client, and does not wait for it longer than an answer may take.
    pub fn answer(&self, program: &Program, cx: &Context) -> Result<Output> {
        let limited = cx.with_cancel(cx.cancel.child(Some(ANSWER_LIMIT))?);
        program.output(b"", &limited).map_err(|error| {
            if cx.cancel.check().is_err() || error.kind() != Kind::Timeout {
                return error;
            }
            Error::new(Kind::Connection, format!("{} {SILENT} {} s", self.kind, ANSWER_LIMIT.as_secs()))
                .hint(format!("look whether the engine works: {} ps", self.kind))
                .step("engine")
        })
    }

    /// Whether an error of one of its questions is that nobody is there to answer: none of its containers runs then.
    pub fn is_down(error: &Error) -> bool {
        error.kind() == Kind::Connection && !error.cause().contains(SILENT)
    }

    /// What its client said when it failed, and what to do about it.
    fn failed(self, output: &Output) -> Error {
        self.complaint(output.exit, &output.stderr_tail)
    }

    /// The same of one that was read or written to.
    pub fn complaint(self, exit: Exit, stderr: &str) -> Error {
        let said = stderr.trim();
        // The last is its word about where to find help.
        let telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("See '");
        let last = said.lines().rev().find(telling).unwrap_or("it said nothing").trim();
        let cause = format!("{} {}: {last}", self.kind, exit.describe());
        let unreachable = [
            "Cannot connect to the",
            "failed to connect to the docker API",
            "Is the docker daemon running",
            "connection refused",
            "error during connect",
        ];
        let denied = ["permission denied while trying to connect", "dial unix /var/run/docker.sock: connect: permission denied"];
        let error = if denied.iter().any(|words| said.contains(words)) {
            Error::new(Kind::Child, cause).hint("run it as root, or as a member of the group docker, which is as powerful")
        } else if unreachable.iter().any(|words| said.contains(words)) {
            Error::new(Kind::Connection, cause).hint(format!("start the engine, and look at it with: {} ps", self.kind))
        } else {
            Error::new(Kind::Child, cause)
        };
        error.step("engine")
    }

    /// A program in a running container, whose words are to be added as arguments. Of the variables that it is given, these go
    /// on into the container.
    pub fn exec(&self, container: &str, user: Option<&str>, variables: &[&str], stdin: Stdin) -> Program {
        let mut program = self.program().args(["exec", "-i"]);
        if let Some(user) = user {
            program = program.args(["--user", user]);
        }
        program = variables.iter().fold(program, |program, name| program.args(["--env", name]));
        let program = program.arg(container);
        match stdin {
            Stdin::Data => program,
            Stdin::Leash => leashed(program),
        }
    }

    /// Makes a volume, with this label.
    pub fn create_volume(&self, name: &str, label: &str, cx: &Context) -> Result<()> {
        self.run(["volume", "create", "--label", label, name], cx).map(drop)
    }

    /// Removes a volume.
    pub fn remove_volume(&self, name: &str, cx: &Context) -> Result<()> {
        self.run(["volume", "rm", name], cx).map(drop)
    }
}

/// Has a program's words run on a leash: a shell in the container runs them, and ends them when its input ends.
pub fn leashed(program: Program) -> Program {
    leashed_as("sh", program)
}

/// The same under a name of its own, by which [`leash_said`] finds in its stderr how the program ended: an engine's client whose
/// connection is cut, or that is sent a signal, exits with code 0 whatever becomes of the program.
pub fn leashed_as(name: &str, program: Program) -> Program {
    program.args(["sh", "-c", LEASH, name]).keeps_stdin()
}

/// Has a program's words run under a shell in the container that says how it ended, likewise, and leaves it its input.
pub fn told_as(name: &str, program: Program) -> Program {
    program.args(["sh", "-c", TELL, name])
}

/// What the leash of this name said at the end of the program's stderr, and the rest of that.
pub fn leash_said(name: &str, stderr: &str) -> (Option<i32>, String) {
    let word = format!("{name} ended in ");
    let code = stderr.lines().rev().find_map(|line| line.strip_prefix(&word)?.trim().parse().ok());
    let others: Vec<&str> = stderr.lines().filter(|line| !line.starts_with(&word)).collect();
    (code, others.join("\n"))
}

fn lacking(engines: &[Engine], what: &str, name: &str) -> String {
    match engines.iter().map(|engine| engine.kind.word()).collect::<Vec<_>>().as_slice() {
        [one] => format!("{one} has no {what} {name}"),
        several => format!("neither {} has a {what} {name}", several.join(" nor ")),
    }
}
