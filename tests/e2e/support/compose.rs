//! Compose projects on the machine's Docker Engine, brought up by the real Compose.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use super::engine::{Container, Docker, on_this_machine, program, text_of};

/// `docker compose` where the client has it, else `docker-compose`.
static PROGRAM: LazyLock<Option<&[&str]>> = LazyLock::new(|| {
    let plugin = Command::new("docker").args(["compose", "version"]).stdin(Stdio::null()).output();
    if plugin.is_ok_and(|output| output.status.success()) {
        return Some(&["docker", "compose"]);
    }
    program("docker-compose").map(|_| &["docker-compose"][..])
});

/// A project that is up. Dropped, it goes with its networks and volumes.
pub struct Compose {
    docker: &'static Docker,
    program: &'static [&'static str],
    project: String,
    file: PathBuf,
}

impl Compose {
    /// Brings up what a file says, as a project with a name of its own; `None`, and a word, where there is no engine or no Compose:
    /// in CI that is a failure where there is an engine.
    #[track_caller]
    pub fn up(file: &Path) -> Option<Self> {
        // All that Compose makes bears its label, and nothing of ours.
        Self::up_as(&Docker::shared()?.unique("project"), file)
    }

    /// The same as a project of this name, which must be unique.
    #[track_caller]
    pub fn up_as(project: &str, file: &Path) -> Option<Self> {
        let docker = Docker::shared()?;
        let Some(program) = *PROGRAM else {
            assert!(std::env::var_os("CI").is_none(), "there is no Compose here: scripts/test installs what the tests need");
            eprintln!("SKIPPED: there is no Compose here (scripts/test installs it)");
            return None;
        };
        docker.keep(&format!("com.docker.compose.project={project}"));
        let compose = Self { docker, program, project: project.to_owned(), file: file.to_owned() };
        compose.ok(["up", "--detach"]);
        Some(compose)
    }

    /// What it is called as on a command line: `docker compose`.
    pub fn words(&self) -> String {
        self.program.join(" ")
    }

    /// Its name.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Runs a command of Compose for the project, which may fail.
    pub fn raw<const N: usize>(&self, arguments: [&str; N]) -> Output {
        self.command(&arguments).output().unwrap()
    }

    /// Runs a command of Compose for the project that must not fail. What it printed.
    #[track_caller]
    pub fn ok<const N: usize>(&self, arguments: [&str; N]) -> String {
        let mut command = self.command(&arguments);
        text_of(&command.output().unwrap(), &command)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = on_this_machine(Command::new(self.program[0]));
        command.args(&self.program[1..]).args(["-p", &self.project, "-f"]).arg(&self.file).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// The running container of a service: its name is not ours to know.
    #[track_caller]
    pub fn container(&self, service: &str) -> Container {
        let [project, service] = [("project", self.project.as_str()), ("service", service)]
            .map(|(name, value)| format!("label=com.docker.compose.{name}={value}"));
        let names = self.docker.ok(["ps", "--filter", &project, "--filter", &service, "--format", "{{.Names}}"]);
        self.docker.adopt_container(names.lines().next().unwrap_or_else(|| panic!("no container with {service} runs")))
    }

    /// The name of a volume that the file names so.
    pub fn volume(&self, name: &str) -> String {
        format!("{}_{name}", self.project)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        // A test that fails is telling something else already.
        let _ = self.raw(["down", "--volumes", "--timeout", "1"]);
    }
}
