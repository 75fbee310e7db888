//! Podman with a store of the test process's own, so that it meets nothing of the machine's. It has no daemon, and volumes need
//! none of its privileges.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, OnceLock};

use super::engine::{image, program, random, text_of};
use super::{Test, is_root};

static PODMAN: LazyLock<Result<Podman, String>> = LazyLock::new(Podman::find);

/// Runs until its standard input ends, which it does when the test process does, however that comes.
const KEEPER: &str = r#"
    trap '' INT TERM HUP
    read -r _
    podman rm --all --force --time 0
    # As an ordinary user, some of its files are another's, and a process of podman's waits for more to do.
    podman unshare rm -rf "$KEPT/store"
    podman system migrate
    rm -rf "$KEPT"
"#;

/// A podman that answers, and where its things are.
pub struct Podman {
    client: PathBuf,
    directory: PathBuf,
    with_tar: OnceLock<String>,
    postgres: OnceLock<String>,
    /// It ends with the process, when its input does.
    _keeper: Child,
}

impl Podman {
    /// The machine's, with an empty store; `None`, and a word, where there is none. In CI, that is a failure for root.
    pub fn shared() -> Option<&'static Self> {
        match &*PODMAN {
            Ok(podman) => Some(podman),
            Err(why) => {
                eprintln!("SKIPPED: {why}");
                None
            }
        }
    }

    fn find() -> Result<Self, String> {
        let found = Self::try_new();
        assert!(
            found.is_ok() || !is_root() || std::env::var_os("CI").is_none(),
            "{}: scripts/test installs what the tests need",
            found.err().unwrap_or_default()
        );
        found
    }

    fn try_new() -> Result<Self, String> {
        let client = program("podman").ok_or("there is no podman here (scripts/test installs it)")?;
        let directory = tempfile::Builder::new().prefix("podman.").tempdir().unwrap().keep();
        fs::create_dir(directory.join("runtime")).unwrap();
        let place = |name: &str| directory.join(name).display().to_string();
        // An ordinary user's store is named by another key.
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\nrootless_storage_path = \"{}\"\n",
            place("run"),
            place("store"),
            place("store")
        );
        fs::write(directory.join("storage.conf"), storage).unwrap();
        // Its own limits are higher than what a process in a container may set, where the tests run in one.
        let containers = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        fs::write(directory.join("containers.conf"), containers).unwrap();
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER]).env("KEPT", &directory).envs(environment(&directory));
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: a Ctrl-C at the terminal is for the tests, whose end it hears of by its input.
        let podman = Self {
            client,
            with_tar: OnceLock::new(),
            postgres: OnceLock::new(),
            _keeper: keeper.process_group(0).spawn().unwrap(),
            directory,
        };
        let probe = podman.raw(["volume", "ls"]);
        let said = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
        if probe.status.success() { Ok(podman) } else { Err(format!("podman does not work for this user: {said}")) }
    }

    /// Has a test's program meet the same store.
    #[must_use]
    pub fn for_program(&self, test: Test) -> Test {
        environment(&self.directory).into_iter().fold(test, |test, (name, path)| test.env(name, path))
    }

    /// The helper image, as docker's: see [`super::Docker::with_tar`].
    pub fn with_tar(&self) -> &str {
        self.with_tar.get_or_init(|| image("podman", &["tar"], environment(&self.directory)))
    }

    /// A PostgreSQL server, as docker's: see [`super::Docker::postgres`].
    pub fn postgres(&self) -> &str {
        let binaries = super::cluster::binaries().to_str().unwrap();
        self.postgres.get_or_init(|| image("podman", &["postgres", binaries], environment(&self.directory)))
    }

    /// A new, empty volume with a name of its own.
    #[track_caller]
    pub fn volume(&'static self, name: &str) -> PodmanVolume {
        let name = format!("dbt-{}-{name}", random());
        self.ok(["volume", "create", &name]);
        PodmanVolume { podman: self, name }
    }

    /// Runs a podman command, which may fail.
    pub fn raw<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a podman command that must not fail. What it printed, without the last line's end.
    #[track_caller]
    pub fn ok<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> String {
        let mut command = self.command(arguments);
        text_of(&command.output().unwrap(), &command)
    }

    fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        let mut command = Command::new(&self.client);
        command.args(arguments).envs(environment(&self.directory)).stdin(Stdio::null());
        command
    }
}

fn environment(directory: &Path) -> [(&'static str, PathBuf); 3] {
    [
        ("CONTAINERS_STORAGE_CONF", directory.join("storage.conf")),
        ("CONTAINERS_CONF", directory.join("containers.conf")),
        ("XDG_RUNTIME_DIR", directory.join("runtime")),
    ]
}

/// A volume. Dropped, it is removed.
pub struct PodmanVolume {
    podman: &'static Podman,
    name: String,
}

impl PodmanVolume {
    /// Its name: unique.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is; its owner may enter it.
    #[track_caller]
    pub fn mountpoint(&self) -> PathBuf {
        self.podman.ok(["volume", "inspect", "--format", "{{.Mountpoint}}", &self.name]).into()
    }
}

impl Drop for PodmanVolume {
    fn drop(&mut self) {
        // A test that fails is telling something else already.
        let _ = self.podman.raw(["volume", "rm", "--force", &self.name]);
    }
}
