//! The machine's own Docker Engine, with images of this machine's own files: nothing is pulled. What a test makes on it bears
//! the label of the test process, and goes with its guard, or with the process, however that ends.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use super::cluster;
pub use super::container::{Container, NewContainer};
pub use super::volume::Volume;

/// On every object that a test makes; its value is the test process's own.
pub const PROCESS_LABEL: &str = "db-backup-tools.test.process";

static DOCKER: LazyLock<Result<Docker, String>> = LazyLock::new(Docker::find);

/// Runs until its standard input ends, which it does when the test process does, however that comes. Then it removes all that
/// bears a label which a line of the input has named.
const KEEPER: &str = r#"
    trap '' INT TERM HUP
    set --
    while read -r label; do set -- "$@" "$label"; done
    for label; do
        # Twice: a container may have been under way when the process was killed.
        for attempt in 1 2; do
            docker ps -aq --no-trunc --filter "label=$label" | xargs -r docker rm -f -v
            docker volume ls -q --filter "label=$label" | xargs -r docker volume rm -f
            docker network ls -q --no-trunc --filter "label=$label" | xargs -r docker network rm
        done
    done
"#;

/// An engine that answers.
pub struct Docker {
    client: PathBuf,
    /// The value of [`PROCESS_LABEL`] here.
    process: String,
    made: AtomicU32,
    keeper: Mutex<Keeper>,
    busybox: LazyLock<String>,
    with_tar: LazyLock<String>,
    postgres: LazyLock<String>,
}

/// Its process, and what names labels to it.
struct Keeper {
    _process: Child,
    stdin: ChildStdin,
}

impl Docker {
    /// The machine's; `None`, and a word, where there is none, or not for this user. In CI one that is installed must answer.
    pub fn shared() -> Option<&'static Self> {
        match &*DOCKER {
            Ok(docker) => Some(docker),
            Err(why) => {
                eprintln!("SKIPPED: {why}");
                None
            }
        }
    }

    fn find() -> Result<Self, String> {
        let client = program("docker").ok_or("there is no docker here")?;
        let mut info = on_this_machine(Command::new(&client));
        let info = info.args(["info", "--format", "{{.ServerVersion}}"]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&info.stderr).trim().to_owned();
        // Older clients report an engine that they can't reach in their output, and end well.
        let version = String::from_utf8_lossy(&info.stdout).trim().to_owned();
        if info.status.success() && version.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(Self::new(client));
        }
        let not_ours = said.contains("permission denied") || std::env::var_os("DOCKER_HOST").is_some();
        assert!(not_ours || std::env::var_os("CI").is_none(), "there is a docker here, and no engine answers it: {said}");
        Err(format!("no Docker Engine answers this user: {said}"))
    }

    fn new(client: PathBuf) -> Self {
        let mut keeper = on_this_machine(Command::new("/bin/sh"));
        keeper.args(["-c", KEEPER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: a Ctrl-C at the terminal is for the tests, whose end it hears of by its input.
        let mut keeper = keeper.process_group(0).spawn().unwrap();
        let stdin = keeper.stdin.take().unwrap();
        let docker = Self {
            client,
            process: random(),
            made: AtomicU32::new(1),
            keeper: Mutex::new(Keeper { _process: keeper, stdin }),
            busybox: LazyLock::new(|| docker_image(&["busybox"])),
            with_tar: LazyLock::new(|| docker_image(&["tar"])),
            postgres: LazyLock::new(|| docker_image(&["postgres", cluster::binaries().to_str().unwrap()])),
        };
        docker.keep(&docker.label());
        docker
    }

    /// `NAME=VALUE`: the label of all that this process makes. What bears it goes with the process.
    pub fn label(&self) -> String {
        format!("{PROCESS_LABEL}={}", self.process)
    }

    /// Has all that bears this label removed when the process ends: what a program makes that knows nothing of ours.
    pub fn keep(&self, label: &str) {
        writeln!(self.keeper.lock().unwrap().stdin, "{label}").unwrap();
    }

    /// A name that nothing else has: `dbt-RANDOM-NUMBER-NAME`.
    pub fn unique(&self, name: &str) -> String {
        format!("dbt-{}-{}-{name}", self.process, self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Static busybox with its commands: what runs, holds a volume, and has no GNU tar.
    pub fn busybox(&self) -> &str {
        &self.busybox
    }

    /// The same with this machine's GNU tar: a helper image.
    pub fn with_tar(&self) -> &str {
        &self.with_tar
    }

    /// A PostgreSQL server of this machine's own version with its clients. It takes `POSTGRES_PASSWORD`, `POSTGRES_USER`,
    /// `POSTGRES_DB` and the like, starts, and lets in whom the official image lets in.
    pub fn postgres(&self) -> &str {
        &self.postgres
    }

    /// Begins a container of this image: `docker.run(docker.busybox()).volume(&volume, "/data").start()`.
    pub fn run(&'static self, image: &str) -> NewContainer {
        NewContainer::new(self, image)
    }

    /// A PostgreSQL container, ready, with the superuser `postgres`.
    #[track_caller]
    pub fn postgres_container(&'static self) -> Container {
        self.run(self.postgres()).name("db").env("POSTGRES_PASSWORD", cluster::PASSWORD).start().ready()
    }

    /// A new, empty volume with a name of its own.
    #[track_caller]
    pub fn volume(&'static self, name: &str) -> Volume {
        self.volume_with_options(name, &[])
    }

    /// The same with options of its driver: `["type=none", "o=bind", "device=/srv/data"]`.
    #[track_caller]
    pub fn volume_with_options(&'static self, name: &str, options: &[&str]) -> Volume {
        Volume::create(self, self.unique(name), options)
    }

    /// A guard for a volume that something else made or will make: it is removed at the end.
    pub fn adopt_volume(&'static self, name: &str) -> Volume {
        Volume::adopt(self, name.to_owned())
    }

    /// A guard for a container that something else made or will make: it is removed at the end.
    pub fn adopt_container(&'static self, name: &str) -> Container {
        Container::adopt(self, name.to_owned())
    }

    /// A docker command, ready to run, with nothing on its standard input.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        let mut command = on_this_machine(Command::new(&self.client));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a docker command, which may fail.
    pub fn raw<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a docker command that must not fail. What it printed, without the last line's end.
    #[track_caller]
    pub fn ok<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> String {
        let mut command = self.command(arguments);
        text_of(&command.output().unwrap(), &command)
    }

    /// The names of the containers that bear this label, stopped ones too, sorted.
    #[track_caller]
    pub fn containers_with(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let mut names = lines(&self.ok(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]));
        names.sort();
        names
    }

    /// The names of the volumes that bear this label, sorted.
    #[track_caller]
    pub fn volumes_with(&self, label: &str) -> Vec<String> {
        lines(&self.ok(["volume", "ls", "-q", "--filter", &format!("label={label}")]))
    }
}

/// Has docker clients ask the engine that the program under test asks: it knows neither this user's contexts nor variables.
pub(super) fn on_this_machine(mut command: Command) -> Command {
    command.env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "default");
    command
}

/// What a program printed that must have ended well, without the last line's end.
#[track_caller]
pub(super) fn text_of(output: &Output, command: &Command) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended in {}: {stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
}

/// The lines of a text, as what owns itself.
pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Where a program is.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Eight characters that no two calls share.
pub(super) fn random() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap()[..8].to_owned()
}

fn docker_image(arguments: &[&str]) -> String {
    image("docker", arguments, [])
}

/// Builds an image for this engine, where it has none of its content. Its name.
pub(super) fn image<const N: usize>(engine: &str, arguments: &[&str], environment: [(&str, PathBuf); N]) -> String {
    let mut command = on_this_machine(Command::new(super::repository().join("scripts/test-image")));
    command.args(arguments).env("ENGINE", engine).envs(environment).stdin(Stdio::null());
    text_of(&command.output().unwrap(), &command)
}
