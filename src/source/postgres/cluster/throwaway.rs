//! A container that is thrown away, as what a drill's own server stands on: of the image that the target's container has, without
//! a network, its data in a volume without a name. It lives as long as the input of its first process, which ends when we do; a
//! locked file in `state_dir` says that we live, and what is left of a run that does not is removed by the next.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FoundContainer, Ground, warn_of};
use crate::error::{Error, Kind, Result, from_io};
use crate::host::engine::{Engine, EngineKind};
use crate::host::process::{Child, Program};
use crate::host::{Cancel, Context, files};
use crate::names::hex;
use crate::observe::Event;
use crate::source::postgres::client::Version;
use crate::source::postgres::inside::Inside;
use crate::source::postgres::site::Site;

/// On the container; its value is the drill's own.
const LABEL: &str = "db-backup-tools.drill";
/// How the name of the file begins that says of a container that its run lives, and how it ends.
const LOCK: (&str, &str) = ("drill-", ".lock");
/// Where the server's files are in the container: a volume of their own.
const DIRECTORY: &str = "/db-backup-tools-drill";
/// The first process of the container: makes the directory fit for any user, says who can be the server's, and waits for the
/// end of its input.
const FIRST: &str = r#"
chmod 1777 "$1" || exit
if id -u postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
read -r _
"#;
const OTHERWISE: &str = "look into the image, or drill with programs of this machine: `drill: { cluster: temporary }`";

/// A running container without a server yet.
pub(super) struct Throwaway {
    engine: Engine,
    name: String,
    /// The engine's client. Its input is the container's life.
    life: Child,
    /// Locked as long as we live.
    lock: Option<(PathBuf, File)>,
    inside: Arc<Inside>,
    bin: PathBuf,
    cx: Context,
}

impl Throwaway {
    /// Starts one of the image of this container, and finds the programs for a dump of this version in it.
    pub(super) fn prepare(
        (engine, model): &FoundContainer,
        wanted: Option<&Version>,
        state_dir: &Path,
        cx: &Context,
    ) -> Result<(Self, Version)> {
        let drill = hex(&files::random_bytes::<8>()?);
        let lock = Some(lock(state_dir, &drill, *engine)?);
        let name = format!("db-backup-tools-drill-{drill}");
        let life = run(*engine, &name, &drill, &model.image).spawn_session(cx)?;
        let inside = Arc::new(Inside::own(*engine, name.clone(), name.clone(), "0".to_owned())?);
        let mut ground = Self { engine: *engine, name, life, lock, inside, bin: PathBuf::new(), cx: cx.clone() };
        let version = ground.settle(&model.name, wanted, cx);
        let version = version.map_err(|error| error.step("place").hint_if_none(OTHERWISE))?;
        Ok((ground, version))
    }

    /// Waits until it runs, and looks for programs.
    fn settle(&mut self, like: &str, wanted: Option<&Version>, cx: &Context) -> Result<Version> {
        let user = self.first_line()?;
        let inside = Inside::own(self.engine, self.name.clone(), self.name.clone(), user)?;
        let found = inside.look("postgres", cx)?.into_iter().filter_map(|(path, version)| Some((path, version?)));
        let fits = |version: &Version| wanted.is_none_or(|wanted| version.major >= wanted.major);
        let found: Vec<(PathBuf, Version)> = found.collect();
        let Some((path, version)) = found.iter().filter(|(_, version)| fits(version)).min_by_key(|(_, version)| version.major)
        else {
            let versions: Vec<&str> = found.iter().map(|(_, version)| version.text.as_str()).collect();
            let of = wanted.map_or("unknown", |wanted| wanted.text.as_str());
            let cause = format!("the dump is of version {of}, and the image of container {like} has {}", versions.join(", "));
            return Err(
                Error::new(Kind::Child, cause).hint("drill with programs of this machine: `drill: { cluster: temporary }`")
            );
        };
        path.parent().unwrap_or(Path::new("/")).clone_into(&mut self.bin);
        self.inside = Arc::new(inside);
        Ok(version.clone())
    }

    fn first_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            let read = self.life.read(&mut byte).map_err(|error| from_io(error, Kind::Child, "starting a container"))?;
            match (read, byte[0]) {
                (0, _) => break,
                (_, b'\n') => return Ok(String::from_utf8_lossy(&line).trim().to_owned()),
                (_, byte) => line.push(byte),
            }
        }
        let ended = self.life.wait()?;
        Err(self.engine.complaint(ended.exit, &ended.stderr_tail))
    }

    /// Where its client programs are.
    pub(super) fn site(&self) -> Site {
        Site::Inside(Arc::clone(&self.inside))
    }

    fn run(&self, path: &Path) -> Program {
        self.inside.bare(path)
    }
}

impl Ground for Throwaway {
    fn program(&self, name: &str) -> Program {
        self.run(&self.path(name))
    }

    fn shell(&self) -> Program {
        self.run(Path::new("sh"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    fn socket(&self) -> &Path {
        Path::new(DIRECTORY)
    }

    fn create_dir(&self, name: &str, cx: &Context) -> Result<PathBuf> {
        let path = Path::new(DIRECTORY).join(name);
        let made = self.run(Path::new("mkdir")).args(["-m", "0700"]).arg(&path).output(b"", cx)?;
        if made.exit.is_success() {
            return Ok(path);
        }
        Err(self.inside.failed("making a directory for a tablespace", made.exit, &made.stderr_tail).step("place"))
    }

    fn read(&self, name: &str, cx: &Context) -> Result<String> {
        let read = self.run(Path::new("cat")).arg(name).output(b"", cx)?;
        Ok(String::from_utf8_lossy(&read.stdout).into_owned())
    }

    fn remove(&mut self, keeper: Option<&mut Child>, cx: &Context) -> Result<()> {
        let cx = cx.with_cancel(Cancel::for_clean_up()?);
        // Nothing in it is worth an orderly end.
        let removed = remove(self.engine, &self.name, &cx);
        keeper.into_iter().chain([&mut self.life]).for_each(Child::kill);
        removed?;
        self.lock.take().map_or(Ok(()), |(path, _)| drop_lock(&path))
    }

    fn otherwise(&self) -> &'static str {
        OTHERWISE
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let cx = self.cx.clone();
            warn_of(self.remove(None, &cx), &cx);
        }
    }
}

/// The client that runs the container's first process.
fn run(engine: Engine, name: &str, drill: &str, image: &str) -> Program {
    let label = format!("{LABEL}={drill}");
    let program = engine.program().args(["run", "--rm", "--interactive", "--pull=never", "--network=none", "--no-healthcheck"]);
    // As root, and in memory that queries of several processes share, as on a machine.
    let program = program.args(["--user", "0", "--shm-size", "1g", "--name", name, "--label", &label]);
    let program = program.args(["--volume", DIRECTORY, "--workdir", DIRECTORY, "--entrypoint", "sh", image]);
    program.args(["-c", FIRST, "sh", DIRECTORY])
}

/// Removes a container, with its volumes. One that is gone already is none of the errors.
fn remove(engine: Engine, name: &str, cx: &Context) -> Result<()> {
    match engine.run(["rm", "--force", "--volumes", name], cx) {
        Err(error) if engine.container(name, cx)?.is_some() => {
            Err(error.hint_if_none(format!("remove it by hand: {} rm --force --volumes {name}", engine.kind())))
        }
        _ => Ok(()),
    }
}

fn lock(state_dir: &Path, drill: &str, engine: Engine) -> Result<(PathBuf, File)> {
    let path = state_dir.join(format!("{}{drill}{}", LOCK.0, LOCK.1));
    let made = || {
        files::create_private_dirs(state_dir)?;
        let mut file = files::create_private(&path)?;
        // Locked before it is known as ours by what it holds.
        files::try_lock(&file)?;
        writeln!(file, "{}", engine.kind())?;
        Ok(file)
    };
    let file = made().map_err(|error: std::io::Error| {
        Error::new(Kind::Internal, format!("can't make a lock in {}", state_dir.display()))
            .hint("set `state_dir:` to a directory that can be written")
            .source(error)
            .step("place")
    })?;
    Ok((path, file))
}

fn drop_lock(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(Kind::Internal, format!("{} could not be removed", path.display()))
                .hint("remove it by hand")
                .source(error))
        }
        _ => Ok(()),
    }
}

/// Removes the containers that killed runs left, and says so. Where there were none, no engine is asked.
pub fn collect(state_dir: &Path, cx: &Context) {
    for entry in std::fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let drill = name.to_str().and_then(|name| name.strip_prefix(LOCK.0)?.strip_suffix(LOCK.1));
        if let Some((drill, (engine, _lock))) = drill.and_then(|drill| Some((drill, abandoned(&entry.path())?))) {
            let removed = collect_one(engine, drill, cx).and_then(|()| drop_lock(&entry.path()));
            if let Err(error) = removed
                && cx.cancel.check().is_ok()
            {
                let text = format!("a container that an interrupted drill left could not be removed: {error}");
                cx.observer.event(Event::Warning { target: None, text });
            }
        }
    }
}

fn collect_one(engine: Engine, drill: &str, cx: &Context) -> Result<()> {
    for container in engine.containers(&[&format!("label={LABEL}={drill}")], cx)? {
        remove(engine, &container.id, cx)?;
        let text = format!("container {} was removed, which an interrupted drill left", container.name);
        cx.observer.event(Event::Warning { target: None, text });
    }
    Ok(())
}

/// The engine and the lock of a drill whose run is gone.
fn abandoned(path: &Path) -> Option<(Engine, File)> {
    let mut file = files::open_regular(path).ok()?;
    let mut text = String::new();
    (&mut file).take(100).read_to_string(&mut text).ok()?;
    let kind = [EngineKind::Docker, EngineKind::Podman].into_iter().find(|kind| kind.word() == text.trim_end())?;
    files::try_lock(&file).ok()?.then_some((Engine::of(kind), file))
}
