//! A PostgreSQL server of a drill's own: made by initdb, reached by its socket alone, and gone with the drill,
//! however that ends. It loads no library that the data could have it load, and asks no other server. It stands on this
//! machine, or in a container that is thrown away with it.

mod here;
mod home;
mod programs;
mod throwaway;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::here::Here;
pub(super) use self::programs::{ServerPrograms, find_server_programs};
use self::throwaway::Throwaway;
pub use self::throwaway::collect;
use super::client::{Client, Programs, Psql, Version, quote_identifier, quote_literal};
use super::connection::Connection;
use super::facts::RestoreFacts;
use super::site::Site;
use crate::error::{Error, Kind, Result};
use crate::host::engine::{Container, Engine};
use crate::host::process::{Child, Program};
use crate::host::{Cancel, Context};
use crate::observe::Event;

/// The superuser that initdb makes: a name that no dump's role has.
const SUPERUSER: &str = "db_backup_drill";
/// The socket's number; there is no TCP.
const PORT: u16 = 5432;
/// A server that has not started by then won't.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Runs the server until its own input ends, which it does when we do, also by kill -9; then removes all. Where the
/// server ends by itself, its last words are told. It is told to end again and again, as what runs in a shell's
/// background ignores SIGQUIT until it is the server that listens to it; what does not end within 10 s is killed.
const KEEPER: &str = r#"
trap '' INT TERM HUP
exec 3<&0 </dev/null
"$@" >>log 2>&1 3<&- & server=$!
{ read -r _; cd / && told=0
  while kill -QUIT "$server"; do
    told=$((told + 1)); [ "$told" -lt 100 ] || kill -KILL "$server"; sleep 0.1
  done; } <&3 >/dev/null 2>&1 & reader=$!
exec 3<&-
wait "$server"
kill -KILL "$reader" 2>/dev/null
tail -c 2000 log >&2
cd / && rm -rf "$KEPT" "$KEPT_TOO"
"#;

/// What keeps the server from acting outside, and from what a place that is thrown away has no need of.
const SETTINGS: [&str; 20] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "unix_socket_group=",
    "shared_preload_libraries=",
    "session_preload_libraries=",
    "local_preload_libraries=",
    "max_logical_replication_workers=0",
    "max_worker_processes=4",
    "wal_level=minimal",
    "max_wal_senders=0",
    "archive_mode=off",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "ssl=off",
    "huge_pages=off",
    "log_destination=stderr",
    "logging_collector=off",
    "lc_messages=C",
];

/// A container whose image a server is made of.
pub(super) type FoundContainer = (Engine, Container);

/// What a server stands on.
trait Ground: Send {
    /// A program of the server's version, to be given arguments: run as the server's user, in its directory.
    fn program(&self, name: &str) -> Program;

    /// A shell there, likewise.
    fn shell(&self) -> Program;

    /// The path of a program of the server's version.
    fn path(&self, name: &str) -> PathBuf;

    /// The directory of the socket.
    fn socket(&self) -> &Path;

    /// Makes a directory of the server's user. Its path.
    fn create_dir(&self, name: &str, cx: &Context) -> Result<PathBuf>;

    /// A file of the server's directory; empty where there is none.
    fn read(&self, name: &str, cx: &Context) -> Result<String>;

    /// Ends the server, which `keeper` runs, and removes all.
    fn remove(&mut self, keeper: Option<&mut Child>, cx: &Context) -> Result<()>;

    /// What to do where no server can be made there.
    fn otherwise(&self) -> &'static str;
}

/// A running server. Dropped, it is stopped and removed.
pub(super) struct Cluster {
    keeper: Child,
    ground: Box<dyn Ground>,
    psql: Psql,
    version: Version,
    title: String,
    cx: Context,
    stopped: bool,
}

impl Cluster {
    /// Makes one by these programs of this machine, with room for this many bytes of a dump, and starts it.
    pub(super) fn start(
        programs: &ServerPrograms,
        clients: &Site,
        application: String,
        bytes: u64,
        cx: &Context,
    ) -> Result<Self> {
        let psql = programs.bin.join("psql");
        let client = if psql.is_file() {
            Client::at(psql, clients, cx)?
        } else {
            Programs::look("psql", clients, cx)?.fitting(&programs.version)?
        };
        let ground = Here::prepare(programs, bytes, cx)?;
        let title = format!("a temporary server {}", programs.version.text);
        Self::on(Box::new(ground), client, programs.version.clone(), title, application, cx)
    }

    /// The same in a container of its own, of this image.
    pub(super) fn start_in(
        container: &FoundContainer,
        wanted: Option<&Version>,
        application: String,
        state_dir: &Path,
        cx: &Context,
    ) -> Result<Self> {
        collect(state_dir, cx);
        let (ground, version) = Throwaway::prepare(container, wanted, state_dir, cx)?;
        let client = Programs::look("psql", &ground.site(), cx)?.fitting(&version)?;
        let title = format!("a temporary server {} in a container of the image of {}", version.text, container.1.name);
        Self::on(Box::new(ground), client, version, title, application, cx)
    }

    fn on(
        mut ground: Box<dyn Ground>,
        client: Client,
        version: Version,
        title: String,
        application: String,
        cx: &Context,
    ) -> Result<Self> {
        let made = initialise(ground.as_ref(), cx).and_then(|()| spawn(ground.as_ref(), cx));
        let keeper = made.inspect_err(|_| warn_of(ground.remove(None, cx), cx))?;
        let connection = Connection::to_socket(ground.socket(), PORT, SUPERUSER, "postgres");
        let psql = Psql { client, connection, application };
        let mut cluster = Self { keeper, ground, psql, version, title, cx: cx.clone(), stopped: false };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Its version.
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// psql on its maintenance database, as its superuser.
    pub(super) fn psql(&self) -> &Psql {
        &self.psql
    }

    /// For a person: `a temporary server 15.18`.
    pub(super) fn describe(&self) -> String {
        self.title.clone()
    }

    /// Makes what a dump names beside its database: roles that can't log in, and tablespaces.
    pub(super) fn make_placeholders(&self, facts: &RestoreFacts) -> Result<()> {
        let lists = [Some(&facts.roles), Some(&facts.owners), Some(&facts.policy_roles), facts.grant_roles.as_ref()];
        let dumped = lists.into_iter().flatten().flatten().chain([&facts.owner]).map(String::as_str);
        let mut roles: Vec<&str> = dumped.chain(facts.properties.roles()).collect();
        roles.sort_unstable();
        roles.dedup();
        // The names that PostgreSQL keeps for itself are there already.
        roles.retain(|role| !role.is_empty() && !role.starts_with("pg_") && *role != SUPERUSER);
        let mut statements = Vec::new();
        for role in roles {
            // Only a superuser may own some things; an earlier version's manifest does not say who was one.
            let is_superuser = facts.superusers.as_ref().is_none_or(|superusers| superusers.iter().any(|other| other == role));
            let attribute = if is_superuser { " SUPERUSER" } else { "" };
            statements.push(format!("CREATE ROLE {} NOLOGIN{attribute};\n", quote_identifier(role)));
        }
        let tablespaces = facts.tablespaces.iter().filter(|name| !name.starts_with("pg_"));
        for (number, tablespace) in tablespaces.enumerate() {
            let directory = self.ground.create_dir(&format!("tablespace-{number}"), &self.cx)?;
            let location = quote_literal(&directory.to_string_lossy());
            statements.push(format!("CREATE TABLESPACE {} LOCATION {location};\n", quote_identifier(tablespace)));
        }
        let doing = "making the roles and tablespaces that the dump names";
        self.psql.run(&statements.concat(), doing, &self.cx).map(drop).map_err(|error| error.step("place"))
    }

    /// Stops it, and removes all of it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + START_LIMIT;
        // Its eighth line says so (PostgreSQL's source, miscadmin.h).
        let is_ready = |text: &str| text.lines().nth(7).is_some_and(|state| state.trim() == "ready");
        while !is_ready(&self.ground.read("data/postmaster.pid", &self.cx)?) {
            let ended = self.keeper.has_ended();
            if ended || Instant::now() >= until {
                let said = if ended { self.keeper.wait()?.stderr_tail } else { self.ground.read("log", &self.cx)? };
                let said = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
                return Err(Error::new(Kind::Child, format!("{} did not start: {said}", self.title))
                    .hint("drill in a scratch database of the target's server instead: `drill: { server: same }`")
                    .step("place"));
            }
            self.cx.cancel.sleep(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        self.ground.remove(Some(&mut self.keeper), &self.cx)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ended = self.end();
        warn_of(ended, &self.cx);
    }
}

/// Says what could not be removed: the drill's own result stands.
pub(super) fn warn_of(result: Result<()>, cx: &Context) {
    if let Err(error) = result {
        let hint = error.hint_text().unwrap_or_default();
        cx.observer.event(Event::Warning { target: None, text: format!("{error}; {hint}") });
    }
}

fn initialise(ground: &dyn Ground, cx: &Context) -> Result<()> {
    let initdb = ground
        .program("initdb")
        .args(["-D", "data", "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .output(b"", cx)?;
    if initdb.exit.is_success() {
        return Ok(());
    }
    let said = initdb.stderr_tail.trim().replace('\n', " ");
    let cause = format!("{} {}: {said}", ground.path("initdb").display(), initdb.exit.describe());
    Err(Error::new(Kind::Child, cause).hint(ground.otherwise()).step("place"))
}

fn spawn(ground: &dyn Ground, cx: &Context) -> Result<Child> {
    let keeper = ground
        .shell()
        .args(["-c", KEEPER, "sh"])
        .arg(ground.path("postgres"))
        .args(["-D", "data", "-p", &PORT.to_string(), "-k"])
        .arg(ground.socket())
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
    // Its end is waited for when all else is cancelled.
    keeper.spawn_writer(&cx.with_cancel(Cancel::new()?))
}
