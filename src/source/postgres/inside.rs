//! Client programs in a container, run there by its engine. The container is looked up once for each thing that is done and is
//! known by its id from then on: another of the same name is another server.

mod compose;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::diagnosis;
use super::programs::Version;
use super::scratch::random_word;
use super::site::{Variables, with};
use crate::config::model::{self, ContainerName};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::engine::{Container, Engine, State, Stdin, leash_said, leashed_as, told_as};
use crate::host::process::{Exit, Program};

/// Prints every program of these names that may be used, and behind each what it says of its version: what PATH has, then what
/// is in the directories where distributions keep each version's. Debian's wrapper starts one of those.
const LOOK: &str = r#"
end=$1; shift
dirs=$(IFS=:; for dir in $PATH; do echo "$dir"; done
       ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql*/bin /opt/bitnami/postgresql/bin 2>/dev/null)
for dir in $dirs; do
    for name; do
        [ -f "$dir/$name" ] && [ -x "$dir/$name" ] || continue
        case $(readlink -f "$dir/$name" 2>/dev/null) in */pg_wrapper) continue ;; esac
        echo "at $dir/$name"
        "$dir/$name" --version 2>/dev/null </dev/null
    done
done
echo "$end"
"#;
/// All programs that are ever looked for: one look is enough for one thing that is done.
const PROGRAMS: [&str; 5] = ["psql", "pg_dump", "pg_dumpall", "pg_restore", "postgres"];
/// Above it, a program's exit code says which signal killed it: a shell's habit, and the engines'.
const SIGNALLED: i32 = 128;
/// How an engine's client begins what it says itself.
const ENGINES_OWN: [&str; 4] = ["Error response from daemon:", "OCI runtime exec failed", "Error: ", "Cannot connect to the"];
/// How it begins when its connection breaks in the middle, where it says so at all.
const BROKEN: [&str; 6] = ["error during connect", "unexpected EOF", "read unix ", "write unix ", "read tcp ", "write tcp "];

/// A container, as a place to run programs in.
pub(super) struct Inside {
    engine: Engine,
    id: String,
    name: String,
    /// Who runs programs there; `None`: as its image has it.
    user: Option<String>,
    settings: Variables,
    found: OnceLock<Vec<(PathBuf, Option<Version>)>>,
    /// What says that something came to its end there. The engine's client exits with code 0 where its own connection is cut.
    token: String,
}

impl Inside {
    /// The container that a target names, which must run.
    pub(super) fn resolve(wanted: &model::Container, cx: &Context) -> Result<Self> {
        let (engine, container) = find(wanted, cx).map_err(|error| error.step("container"))?;
        must_run(engine, &container)?;
        let mut settings = Variables::new();
        let of_container = |name: &str| container.environment.get(name).filter(|value| !value.is_empty()).cloned();
        for name in super::connection::variable_names() {
            settings.extend(of_container(name).map(|value| (name, value)));
        }
        // Its programs run as root, whose name libpq would take.
        settings.entry("PGUSER").or_insert_with(|| of_container("POSTGRES_USER").unwrap_or_else(|| "postgres".into()));
        Ok(Self {
            engine,
            id: container.id,
            name: container.name,
            user: None,
            settings,
            found: OnceLock::new(),
            token: random_word()?,
        })
    }

    /// One of our own, in which programs run as this user.
    pub(super) fn own(engine: Engine, id: String, name: String, user: String) -> Result<Self> {
        let (settings, found) = (Variables::new(), OnceLock::new());
        Ok(Self { engine, id, name, user: Some(user), settings, found, token: random_word()? })
    }

    /// What its variables say of the way to its server.
    pub(super) fn settings(&self) -> Variables {
        self.settings.clone()
    }

    /// A program in it, to be given arguments.
    pub(super) fn bare(&self, path: &Path) -> Program {
        self.client(&Variables::new()).arg(path)
    }

    fn client(&self, variables: &Variables) -> Program {
        let names: Vec<&str> = variables.keys().copied().chain(["LC_ALL"]).collect();
        with(self.engine.exec(&self.id, self.user.as_deref(), &names, Stdin::Data), variables)
    }

    /// The same with these variables, and with a word at the end of its stderr on how it ended, see [`Inside::ended`].
    pub(super) fn program(&self, path: &Path, stdin: Stdin, variables: &Variables) -> Program {
        let client = self.client(variables);
        let program = match stdin {
            Stdin::Data => told_as(&self.token, client),
            Stdin::Leash => leashed_as(&self.token, client),
        };
        program.arg(path)
    }

    /// How a program ended, and what it said.
    pub(super) fn ended(&self, doing: &str, exit: Exit, stderr: &str) -> Result<(Exit, String)> {
        match leash_said(&self.token, stderr) {
            (Some(code), said) => Ok((Self::exit(Exit::Code(code)), said)),
            (None, _) if exit.is_success() => Err(self.cut(doing)),
            (None, said) => Ok((exit, said)),
        }
    }

    /// The error for what the engine's client ended well, and did not come to its end.
    pub(super) fn cut(&self, doing: &str) -> Error {
        let kind = self.engine.kind();
        Error::new(
            Kind::Connection,
            format!("{doing} in container {}: the connection to the engine broke before the end", self.name),
        )
        .hint(format!("was {kind} itself stopped or started again? its log says so"))
    }

    /// What psql is told at the end of its input to print at the end of its output.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The programs of this name, the preferred first, and their versions.
    pub(super) fn look(&self, program: &str, cx: &Context) -> Result<Vec<(PathBuf, Option<Version>)>> {
        let all = if let Some(all) = self.found.get() {
            all
        } else {
            let found = self.look_for_all(program, cx)?;
            self.found.get_or_init(|| found)
        };
        let found: Vec<_> =
            all.iter().filter(|(path, _)| path.file_name().is_some_and(|name| name == program)).cloned().collect();
        if found.is_empty() {
            return Err(Error::new(Kind::Child, format!("container {} has no {program}", self.name))
                .hint(format!("is it the database's? look at the containers and their images: {} ps", self.engine.kind()))
                .step("programs"));
        }
        Ok(found)
    }

    fn look_for_all(&self, program: &str, cx: &Context) -> Result<Vec<(PathBuf, Option<Version>)>> {
        let shell = self.bare(Path::new("sh"));
        let said = self.engine.answer(&shell.args(["-c", LOOK, "sh", &self.token]).args(PROGRAMS), cx)?;
        let text = String::from_utf8_lossy(&said.stdout);
        if !said.exit.is_success() {
            // Some engines tell it where the program's output would be.
            let is_elsewhere = said.stderr_tail.trim().is_empty() && !text.starts_with("at ");
            let why = if is_elsewhere { text.as_ref() } else { &said.stderr_tail };
            return Err(self.look_failed(program, said.exit, why).step("programs"));
        }
        if text.lines().last() != Some(&self.token) {
            return Err(self.cut("looking for programs").step("programs"));
        }
        let mut found: Vec<(PathBuf, Option<Version>)> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix("at "), found.last_mut()) {
                (Some(path), _) => found.push((path.into(), None)),
                (None, Some((_, version))) if version.is_none() => *version = Version::parse(line),
                _ => {}
            }
        }
        Ok(found)
    }

    fn look_failed(&self, program: &str, exit: Exit, said: &str) -> Error {
        if matches!(exit, Exit::Code(126 | 127)) {
            let cause = format!("container {} has no shell, with which {program} would be found and run in it", self.name);
            return Error::new(Kind::Child, cause)
                .hint(format!("is it the database's? look at the containers and their images: {} ps", self.engine.kind()));
        }
        self.failed(&format!("looking for {program}"), exit, said)
    }

    /// How a program in it ended: by a signal, where its code says so.
    pub(super) fn exit(exit: Exit) -> Exit {
        match exit {
            Exit::Code(code) if (SIGNALLED + 1..SIGNALLED + 65).contains(&code) => Exit::Signal(code - SIGNALLED),
            other => other,
        }
    }

    /// An error for a program in it that ended badly, or could not be run.
    pub(super) fn failed(&self, doing: &str, exit: Exit, stderr: &str) -> Error {
        let (code, said) = leash_said(&self.token, stderr);
        let (exit, stderr) = (code.map_or(exit, Exit::Code), said.as_str());
        // A program that said how it ended was heard to its end.
        let broken = |line: &str| BROKEN.iter().any(|words| line.starts_with(words));
        // An engine whose client is gone may say of a program that it could not be run.
        let is_cut = stderr.lines().map(str::trim).any(broken) || (exit == Exit::Code(126) && stderr.trim().is_empty());
        if code.is_none() && is_cut {
            return self.cut(doing);
        }
        let engines = stderr.lines().map(str::trim).find(|line| ENGINES_OWN.iter().any(|own| line.starts_with(own)));
        let kind = self.engine.kind();
        let Some(line) = engines else {
            let exit = Self::exit(exit);
            let mut error = diagnosis::failed(doing, exit, stderr);
            if code.is_none() && matches!(exit, Exit::Signal(_)) {
                // With all that ran there: a new attempt may find it started again.
                error = error.kind_is(Kind::Connection);
            }
            return match exit {
                Exit::Signal(_) => error.hint_if_none(format!(
                    "was container {} stopped or started again? {kind} ps tells since when it runs, and {kind} inspect whether \
                     its memory ran out (OOMKilled)",
                    self.name
                )),
                Exit::Code(_) => error,
            };
        };
        let said = line.replace(&self.id, &self.name);
        // Nothing of it is the program's, or what it reads.
        Error::new(Kind::Connection, format!("{doing} in container {}: {said}", self.name))
            .hint(format!("look whether the container runs, and since when: {kind} ps --all"))
    }

    /// For messages: `container db`.
    pub(super) fn describe(&self) -> String {
        format!("container {}", self.name)
    }

    /// For messages: `docker exec into db`.
    pub(super) fn way(&self) -> String {
        format!("{} exec into {}", self.engine.kind(), self.name)
    }

    /// How a person runs a program there.
    pub(super) fn by_hand(&self, path: &Path) -> String {
        format!("{} exec -i {} {}", self.engine.kind(), self.name, path.display())
    }
}

/// Without its variables: a password may be among them.
impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inside({} {})", self.engine.kind(), self.name)
    }
}

/// The container that a target names, running or not; of a service's, rather one that runs.
pub(super) fn find(wanted: &model::Container, cx: &Context) -> Result<(Engine, Container)> {
    match &wanted.which {
        ContainerName::Name(name) => Engine::with_container(wanted.engine, name, cx),
        ContainerName::Service { file, service } => compose::find(wanted.engine, file, service, cx),
    }
}

fn must_run(engine: Engine, container: &Container) -> Result<()> {
    let (name, kind) = (&container.name, engine.kind());
    let (is, hint) = match container.state {
        State::Running => return Ok(()),
        State::Paused => ("is paused", format!("let it go on: {kind} unpause {name}")),
        State::Restarting => ("is being restarted again and again", format!("look why it ends: {kind} logs {name}")),
        State::Stopped => ("is not running", format!("start it: {kind} start {name}; why it ended: {kind} logs {name}")),
    };
    // Like a server that is down: a new attempt may find it.
    Err(Error::new(Kind::Connection, format!("container {name} {is}")).hint(hint).step("container"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::engine::EngineKind;

    fn inside() -> Inside {
        Inside::own(Engine::of(EngineKind::Docker), "f46f2af8".into(), "db".into(), "postgres".into()).unwrap()
    }

    #[test]
    fn a_program_has_ended_when_it_was_said_in_the_container() {
        let inside = inside();
        let said = |code: &str| format!("pg_dump: warning: odd\n{} ended in {code}\n", inside.token());
        let ended = |exit, stderr: &str| inside.ended("pg_dump", exit, stderr).map_err(|error| error.kind());
        let told = "pg_dump: warning: odd".to_owned();
        assert_eq!(ended(Exit::Code(0), &said("0")), Ok((Exit::Code(0), told.clone())));
        assert_eq!(ended(Exit::Code(1), &said("1")), Ok((Exit::Code(1), told.clone())));
        // Its client lost the connection to the engine, and exited with code 0.
        assert_eq!(ended(Exit::Code(0), "pg_dump: warning: odd"), Err(Kind::Connection));
        assert_eq!(ended(Exit::Code(0), &said("137")), Ok((Exit::Signal(9), told.clone())));
        assert_eq!(ended(Exit::Code(137), &told), Ok((Exit::Code(137), told)));
    }

    #[test]
    fn what_an_engine_says_is_no_word_of_the_program() {
        let inside = inside();
        let stopped = "Error response from daemon: Container f46f2af8 is not running\n";
        let error = inside.failed("pg_dump", Exit::Code(1), stopped);
        assert_eq!(error.to_string(), "pg_dump in container db: Error response from daemon: Container db is not running");
        assert!(error.kind() == Kind::Connection && error.hint_text().unwrap().contains("docker ps --all"));
        let killed = inside.failed("pg_dump", Exit::Code(137), "");
        assert!(killed.to_string().starts_with("pg_dump was killed by signal 9"), "{killed}");
        assert!(killed.kind() == Kind::Connection && killed.hint_text().unwrap().contains("OOMKilled"));
        let own = inside.failed("pg_dump", Exit::Code(1), &format!("pg_dump: error: no\n{} ended in 1", inside.token()));
        assert_eq!(own.to_string(), "pg_dump exited with code 1: no");
    }
}
