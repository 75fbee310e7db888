//! A PostgreSQL server of a drill's own: made by initdb, reached by its socket alone, and gone with the drill,
//! however that ends. It loads no library that the data could have it load, and asks no other server.

mod home;
mod programs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::home::Home;
pub(super) use self::programs::{ServerPrograms, find_server_programs};
use super::client::{Client, Programs, Psql, quote_identifier, quote_literal};
use super::connection::Connection;
use super::facts::RestoreFacts;
use crate::error::{Error, Kind, Result};
use crate::host::process::{Child, Program};
use crate::host::{Cancel, Context, files};
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

/// A running server. Dropped, it is stopped and removed.
pub(super) struct Cluster {
    keeper: Child,
    home: Home,
    /// Where the socket is, when the home's path is too long for one.
    socket_home: Option<Home>,
    user: Option<(u32, u32)>,
    psql: Psql,
    version: String,
    cx: Context,
    stopped: bool,
}

impl Cluster {
    /// Makes one by these programs, with room for this many bytes of a dump, and starts it.
    pub(super) fn start(
        programs: &ServerPrograms,
        client_bin: Option<&Path>,
        application: String,
        bytes: u64,
        cx: &Context,
    ) -> Result<Self> {
        let user = server_user()?;
        home::collect(user, cx)?;
        let psql = programs.bin.join("psql");
        let client = if psql.is_file() {
            Client::at(psql, cx)?
        } else {
            Programs::look("psql", client_bin, cx)?.fitting(&programs.version)?
        };
        let home = Home::create(user, bytes, cx)?;
        let here = home.takes_socket(&format!(".s.PGSQL.{PORT}"));
        let socket_home = if here { None } else { Some(Home::for_socket(user)?) };
        let made = initialise(programs, &home, user, cx).and_then(|()| {
            let socket = socket_home.as_ref().unwrap_or(&home).path();
            let connection = Connection::to_socket(socket, PORT, SUPERUSER, "postgres");
            let keeper = spawn(programs, &home, socket_home.as_ref(), user, cx)?;
            Ok((keeper, Psql { client, connection, application }))
        });
        let (keeper, psql) = made.inspect_err(|_| {
            for home in [Some(&home), socket_home.as_ref()].into_iter().flatten() {
                warn_of(home.remove(), cx);
            }
        })?;
        let version = programs.version.text.clone();
        let mut cluster = Self { keeper, home, socket_home, user, psql, version, cx: cx.clone(), stopped: false };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// psql on its maintenance database, as its superuser.
    pub(super) fn psql(&self) -> &Psql {
        &self.psql
    }

    /// For a person: `a temporary server 15.18`.
    pub(super) fn describe(&self) -> String {
        format!("a temporary server {}", self.version)
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
            let directory = self.home.create_dir(&format!("tablespace-{number}"), self.user)?;
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
        let pid_file = self.home.path().join("data/postmaster.pid");
        // Its eighth line says so (PostgreSQL's source, miscadmin.h).
        let is_ready = || {
            let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
            text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
        };
        let until = Instant::now() + START_LIMIT;
        while !is_ready() {
            let ended = self.keeper.has_ended();
            if ended || Instant::now() >= until {
                let said = if ended { self.keeper.wait()?.stderr_tail } else { self.log() };
                let said = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
                return Err(Error::new(Kind::Child, format!("the temporary server {} did not start: {said}", self.version))
                    .hint("drill in a scratch database of the target's server instead: `drill: { server: same }`")
                    .step("place"));
            }
            self.cx.cancel.sleep(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        self.keeper.close_stdin();
        // It removes the directories too; what it left, we do.
        let ended = self.keeper.wait_under(Cancel::for_clean_up()?);
        if ended.is_err() {
            self.keeper.kill();
        }
        home::stop_server_in(&self.home.path().join("data"), self.user, &self.cx)?;
        self.home.remove()?;
        self.socket_home.as_ref().map_or(Ok(()), Home::remove)
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

/// Whom the server runs as: PostgreSQL refuses root.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !files::is_root() {
        return Ok(None);
    }
    files::user_ids("postgres").or_else(|| files::user_ids("nobody")).map(Some).ok_or_else(|| {
        Error::new(Kind::Child, "a server does not run as root, and there is neither a user postgres nor nobody")
            .hint("run the drill as an ordinary user")
            .step("place")
    })
}

/// A program of the server's, in its home and as its user, with nothing of libpq's variables.
fn program(path: PathBuf, home: &Home, user: Option<(u32, u32)>) -> Program {
    let program = Program::new(path).without_env_prefix("PG").env("LC_ALL", "C").directory(home.path());
    user.map_or(program.clone(), |(uid, gid)| program.user(uid, gid))
}

fn initialise(programs: &ServerPrograms, home: &Home, user: Option<(u32, u32)>, cx: &Context) -> Result<()> {
    let initdb = program(programs.bin.join("initdb"), home, user)
        .args(["-D", "data", "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .output(b"", cx)?;
    if initdb.exit.is_success() {
        return Ok(());
    }
    let said = initdb.stderr_tail.trim().replace('\n', " ");
    let cause = format!("{} {}: {said}", programs.bin.join("initdb").display(), initdb.exit.describe());
    let hint = "its user must be able to run it, and to write in TMPDIR (else /var/tmp); or `drill: { server: same }`";
    Err(Error::new(Kind::Child, cause).hint(hint).step("place"))
}

fn spawn(
    programs: &ServerPrograms,
    home: &Home,
    socket_home: Option<&Home>,
    user: Option<(u32, u32)>,
    cx: &Context,
) -> Result<Child> {
    let socket = socket_home.unwrap_or(home).path();
    let keeper = program("sh".into(), home, user)
        .args(["-c", KEEPER, "sh"])
        .arg(programs.bin.join("postgres"))
        .args(["-D", "data", "-p", &PORT.to_string(), "-k"])
        .arg(socket)
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
        .env("KEPT", home.path())
        .env("KEPT_TOO", socket);
    // Its end is waited for when all else is cancelled.
    keeper.spawn_writer(&cx.with_cancel(Cancel::new()?))
}
