//! This machine, as what a drill's own server stands on: a private directory, and programs of the machine's.

use std::path::{Path, PathBuf};

use super::home::{self, Home};
use super::{Ground, PORT, ServerPrograms};
use crate::error::{Error, Kind, Result};
use crate::host::process::{Child, Program};
use crate::host::{Cancel, Context, files};

/// The directories of a server, and whom it runs as.
pub(super) struct Here {
    home: Home,
    /// Where the socket is, when the home's path is too long for one.
    socket_home: Option<Home>,
    user: Option<(u32, u32)>,
    bin: PathBuf,
}

impl Here {
    /// Makes the directories, with room for this many bytes of a dump, and removes what killed runs left.
    pub(super) fn prepare(programs: &ServerPrograms, bytes: u64, cx: &Context) -> Result<Self> {
        let user = server_user()?;
        home::collect(user, cx)?;
        let home = Home::create(user, bytes, cx)?;
        let here = home.takes_socket(&format!(".s.PGSQL.{PORT}"));
        let socket_home = if here { None } else { Some(Home::for_socket(user)?) };
        Ok(Self { home, socket_home, user, bin: programs.bin.clone() })
    }

    fn run(&self, path: PathBuf) -> Program {
        let program = Program::new(path).without_env_prefix("PG").env("LC_ALL", "C").directory(self.home.path());
        self.user.map_or(program.clone(), |(uid, gid)| program.user(uid, gid))
    }
}

impl Ground for Here {
    fn program(&self, name: &str) -> Program {
        self.run(self.path(name))
    }

    fn shell(&self) -> Program {
        self.run("sh".into()).env("KEPT", self.home.path()).env("KEPT_TOO", self.socket())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    fn socket(&self) -> &Path {
        self.socket_home.as_ref().unwrap_or(&self.home).path()
    }

    fn create_dir(&self, name: &str, _cx: &Context) -> Result<PathBuf> {
        self.home.create_dir(name, self.user)
    }

    fn read(&self, name: &str, _cx: &Context) -> Result<String> {
        Ok(std::fs::read_to_string(self.home.path().join(name)).unwrap_or_default())
    }

    fn remove(&mut self, keeper: Option<&mut Child>, cx: &Context) -> Result<()> {
        if let Some(keeper) = keeper {
            keeper.close_stdin();
            // It removes the directories too; what it left, we do.
            if keeper.wait_under(Cancel::for_clean_up()?).is_err() {
                keeper.kill();
            }
            home::stop_server_in(&self.home.path().join("data"), self.user, cx)?;
        }
        self.home.remove()?;
        self.socket_home.as_ref().map_or(Ok(()), Home::remove)
    }

    fn otherwise(&self) -> &'static str {
        "its user must be able to run it, and to write in TMPDIR (else /var/tmp); or `drill: { server: same }`"
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
