//! Containers of a test's own, which may be stopped, paused and started again, and go with their guard.

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Pid;
use serde_json::Value;

use super::cluster::{comparable, feed};
use super::engine::{Docker, Volume, text_of};
use super::eventually;

/// A PostgreSQL container that tests share, each with databases of its own.
static POSTGRES: LazyLock<Option<Container>> = LazyLock::new(|| Docker::shared().map(Docker::postgres_container));

/// A container to be.
#[must_use]
pub struct NewContainer {
    docker: &'static Docker,
    image: String,
    name: String,
    options: Vec<String>,
    command: Vec<String>,
    user: Option<String>,
    database: Option<String>,
}

impl NewContainer {
    pub(super) fn new(docker: &'static Docker, image: &str) -> Self {
        let options = vec!["--label".into(), docker.label()];
        let image = image.to_owned();
        Self { docker, image, name: docker.unique("box"), options, command: Vec::new(), user: None, database: None }
    }

    /// Its name will be unique and end in this.
    pub fn name(mut self, name: &str) -> Self {
        self.name = self.docker.unique(name);
        self
    }

    /// Mounts a volume at a path; `:ro` behind it is understood.
    pub fn volume(self, volume: &Volume, path: &str) -> Self {
        let mount = format!("{}:{path}", volume.name());
        self.option(&["--volume", &mount])
    }

    /// Mounts a file or directory of the machine: `"/srv/uploads:/data:ro"`.
    pub fn bind(self, mount: &str) -> Self {
        self.option(&["--volume", mount])
    }

    /// A variable in it.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        match name {
            "POSTGRES_USER" => self.user = Some(value.to_owned()),
            "POSTGRES_DB" => self.database = Some(value.to_owned()),
            _ => {}
        }
        self.option(&["--env", &format!("{name}={value}")])
    }

    /// `NAME=VALUE` or `NAME`.
    pub fn label(self, label: &str) -> Self {
        self.option(&["--label", label])
    }

    /// The labels with which Compose marks a service's container.
    pub fn compose_labels(self, project: &str, service: &str, config_files: &str, working_directory: &str) -> Self {
        let labels = [
            ("project", project),
            ("service", service),
            ("project.config_files", config_files),
            ("project.working_dir", working_directory),
            ("container-number", "1"),
            ("oneoff", "False"),
        ];
        labels.into_iter().fold(self, |new, (name, value)| new.label(&format!("com.docker.compose.{name}={value}")))
    }

    /// Any other options of `docker run`: `["--network", "none"]`.
    pub fn option(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// What it runs, instead of what its image does: that waits to be stopped, or is a server.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Container {
        self.make(&["run", "--detach"])
    }

    /// Makes it without starting it.
    #[track_caller]
    pub fn create(self) -> Container {
        self.make(&["create"])
    }

    #[track_caller]
    fn make(self, verb: &[&str]) -> Container {
        // What stops PostgreSQL without waiting for its clients, as in the official image: no import can set that.
        let stop = if self.image.contains("/postgres:") { &["--stop-signal", "INT"][..] } else { &[] };
        let mut command = self.docker.command(verb);
        command.args(["--name", &self.name]).args(stop).args(&self.options).arg(&self.image).args(&self.command);
        text_of(&command.output().unwrap(), &command);
        let user = self.user.unwrap_or_else(|| "postgres".into());
        let database = self.database.unwrap_or_else(|| user.clone());
        Container { docker: self.docker, name: self.name, user, database }
    }
}

/// A container, running or not. Dropped, it is removed with its anonymous volumes.
pub struct Container {
    docker: &'static Docker,
    name: String,
    user: String,
    database: String,
}

impl Container {
    pub(super) fn adopt(docker: &'static Docker, name: String) -> Self {
        Self { docker, name, user: "postgres".into(), database: "postgres".into() }
    }

    /// The shared one with a PostgreSQL server; none where there is no engine.
    pub fn postgres() -> Option<&'static Self> {
        POSTGRES.as_ref()
    }

    /// The same, with a server in it whose superuser and first database are called so.
    #[must_use]
    pub fn with_server_of(mut self, name: &str) -> Self {
        (self.user, self.database) = (name.to_owned(), name.to_owned());
        self
    }

    /// A new database in it with a name of its own, made by this SQL.
    #[track_caller]
    pub fn new_database(&self, sql: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{:04}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.psql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        self.psql_in(&name, sql);
        name
    }

    /// The databases of the server in it whose names begin so.
    #[track_caller]
    pub fn databases_like(&self, beginning: &str) -> Vec<String> {
        let names = self.psql(&format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{beginning}') ORDER BY 1"));
        super::engine::lines(&names)
    }

    /// All that pg_dump knows of a database in it, see [`super::Database::dump`].
    #[track_caller]
    pub fn dump(&self, database: &str) -> String {
        comparable(&(self.exec(["pg_dump", "-U", &self.user, "-d", database]) + "\n"))
    }

    /// Its name: unique.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, whole.
    #[track_caller]
    pub fn id(&self) -> String {
        self.look("{{.Id}}")
    }

    /// Whether there is one of its name.
    pub fn exists(&self) -> bool {
        self.docker.raw(["container", "inspect", &self.name]).status.success()
    }

    /// `created`, `running`, `paused`, `exited` ...
    #[track_caller]
    pub fn state(&self) -> String {
        self.look("{{.State.Status}}")
    }

    /// Whether it is running, and not paused.
    #[track_caller]
    pub fn is_running(&self) -> bool {
        self.state() == "running"
    }

    /// When it was last started, as the engine writes it: it changes with each start.
    #[track_caller]
    pub fn started_at(&self) -> String {
        self.look("{{.State.StartedAt}}")
    }

    /// One thing that the engine knows of it, by a Go template.
    #[track_caller]
    pub fn look(&self, template: &str) -> String {
        self.docker.ok(["container", "inspect", "--format", template, &self.name])
    }

    /// All that the engine knows of it.
    #[track_caller]
    pub fn inspect(&self) -> Value {
        serde_json::from_str::<Value>(&self.look("{{json .}}")).unwrap()
    }

    /// What its process has printed.
    pub fn logs(&self) -> String {
        let output = self.docker.raw(["logs", &self.name]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Runs a program in it that must end well. What it printed, without the last line's end.
    #[track_caller]
    pub fn exec<I: IntoIterator<Item: AsRef<OsStr>>>(&self, command: I) -> String {
        let mut command = self.exec_command(command);
        text_of(&command.output().unwrap(), &command)
    }

    /// The same, where it may fail.
    pub fn try_exec<I: IntoIterator<Item: AsRef<OsStr>>>(&self, command: I) -> Output {
        self.exec_command(command).output().unwrap()
    }

    fn exec_command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, command: I) -> Command {
        let mut docker = self.docker.command(["exec", &self.name]);
        docker.args(command);
        docker
    }

    /// Runs a program in it to its end, with this as its input.
    pub fn feed<I: IntoIterator<Item: AsRef<OsStr>>>(&self, command: I, input: &[u8]) -> Output {
        feed(self.docker.command(["exec", "-i", &self.name]).args(command), input)
    }

    /// The command lines of the processes in it, as the engine's machine sees them: one a line.
    #[track_caller]
    pub fn processes(&self) -> Vec<String> {
        super::engine::lines(&self.docker.ok(["top", &self.name, "-o", "pid,args"])).split_off(1)
    }

    /// Stops it, as `docker stop` does.
    #[track_caller]
    pub fn stop(&self) {
        self.docker.ok(["stop", &self.name]);
    }

    /// Starts it again.
    #[track_caller]
    pub fn start(&self) {
        self.docker.ok(["start", &self.name]);
    }

    /// Freezes its processes.
    #[track_caller]
    pub fn pause(&self) {
        self.docker.ok(["pause", &self.name]);
    }

    /// Lets them go on.
    #[track_caller]
    pub fn unpause(&self) {
        self.docker.ok(["unpause", &self.name]);
    }

    /// Waits until the PostgreSQL server in it is the lasting one, not that which only makes databases: that one has no TCP.
    #[track_caller]
    pub fn ready(self) -> Self {
        self.wait_ready();
        self
    }

    /// See [`Container::ready`].
    #[track_caller]
    pub fn wait_ready(&self) {
        let probe = ["pg_isready", "-q", "-h", "127.0.0.1", "-U", &self.user, "-d", &self.database];
        eventually(&format!("the server in {} is ready\n{}", self.name, self.logs()), || {
            assert_ne!(self.state(), "exited", "the server in {} ended:\n{}", self.name, self.logs());
            self.try_exec(probe).status.success()
        });
    }

    /// The superuser of the server in it.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database that the server in it was started with.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The engine's client on this machine that runs a program in a container of this name or id with this among its words.
    #[track_caller]
    pub fn client_in(container: &str, word: &str) -> Pid {
        let is_client = |line: &[u8]| {
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words[0].ends_with(b"docker") && [container.as_bytes(), word.as_bytes()].iter().all(|wanted| words.contains(wanted))
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let found = processes.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| is_client(&line)));
        let numbers: Vec<i32> = found.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        Pid::from_raw(numbers[0]).unwrap()
    }

    /// Runs SQL in its own database and returns what it prints: a row a line, columns with `|` between.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in(&self.database, sql)
    }

    /// The same in another database.
    #[track_caller]
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let psql = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", &self.user, "-d", database];
        let output = self.feed(psql, sql.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql in {}: {stderr}\nfor: {sql}", self.name);
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A test that fails is telling something else already.
        let _ = self.docker.raw(["rm", "--force", "--volumes", &self.name]);
    }
}
