//! A container with a volume in it, mounted read-only, and a tar that reads it. Its image is one of this machine: nothing is ever
//! pulled in a backup. It has no network, its output goes into no log, and it ends when we do, however we end.

use std::ffi::OsString;

use super::archiver::{TRIAL, Tar, first_line, gnu_version, lacks, poor};
use crate::config::model::Archiver;
use crate::error::{Error, Kind, Result};
use crate::host::engine::{Engine, leashed};
use crate::host::process::{Output, Program};
use crate::host::{Cancel, Context, files};
use crate::names::hex;

/// Where the volume is in it.
pub(super) const MOUNTPOINT: &str = "/db-backup-tools";
/// On every container that we make to read or write volumes.
pub(super) const LABEL: &str = "db-backup-tools=helper";

/// How a volume is read in a container.
#[derive(Debug, Clone)]
pub(super) struct Helper {
    pub(super) engine: Engine,
    pub(super) volume: String,
    pub(super) image: String,
    pub(super) tar: Tar,
}

/// A container of ours, which goes with it.
pub(super) struct Running {
    engine: Engine,
    name: String,
    /// It has ended by itself, and its engine has removed it.
    pub(super) ended: bool,
    cx: Context,
}

impl Helper {
    /// Looks whether its image is there, and asks the tar in it what it can.
    pub(super) fn find(engine: Engine, volume: &str, image: &str, wanted: Archiver, cx: &Context) -> Result<Self> {
        if engine.image(image, cx)?.is_none() {
            return Err(Error::new(Kind::Child, format!("the image {image} is not on this machine, and a backup pulls none"))
                .hint(format!("fetch it once: {} pull {image}", engine.kind()))
                .step("engine"));
        }
        let ask = |words: &[&str]| ask(engine, image, words, cx);
        let said = ask(&["tar", "--version"])?;
        let which = format!("tar in the image {image}");
        let is_basic = wanted == Archiver::Basic;
        let basic = |version: String| Tar { path: "tar".into(), version, is_full: false };
        let tar = match gnu_version(&said) {
            Some(version) => match lacks(&ask(&[&["tar"], TRIAL.as_slice()].concat())?) {
                None => Tar { path: "tar".into(), version, is_full: true },
                Some(_) if is_basic => basic(format!("GNU {version}")),
                Some(lack) => return Err(poor(&which, &lack).step("engine")),
            },
            None if matches!(said.exit.code(), Some(126 | 127)) => {
                return Err(Error::new(Kind::Child, format!("there is no {which}: {}", first_line(&said)))
                    .hint("set `helper_image:` to an image with GNU tar that is on this machine, like debian:stable-slim")
                    .step("engine"));
            }
            None if is_basic => basic(first_line(&said)),
            None => return Err(poor(&which, &format!("is not GNU tar ({})", first_line(&said))).step("engine")),
        };
        Ok(Self { engine, volume: volume.to_owned(), image: image.to_owned(), tar })
    }

    pub(super) fn describe(&self) -> String {
        let Self { engine, volume, image, tar } = self;
        format!("{} in a container of image {image}, on volume {volume} of {}", tar.describe(), engine.kind())
    }

    /// The program that reads the volume, with tar's own words, and its container.
    pub(super) fn program(&self, words: Vec<OsString>, cx: &Context) -> Result<(Program, Running)> {
        // One that is absent would be made.
        if self.engine.volume(&self.volume, cx)?.is_none() {
            return Err(
                Error::new(Kind::Child, format!("{} has no volume {} any more", self.engine.kind(), self.volume)).step("engine")
            );
        }
        let (program, running) = self.container("ro", cx)?;
        Ok((leashed(program).arg("tar").args(words).args(["-C", MOUNTPOINT, "."]), running))
    }

    /// A container with the volume, mounted like this: `ro`. Its program's words are to be added.
    pub(super) fn container(&self, mode: &str, cx: &Context) -> Result<(Program, Running)> {
        let name = format!("db-backup-tools-{}", hex(&files::random_bytes::<8>()?));
        let volume = format!("{}:{MOUNTPOINT}:{mode}", self.volume);
        let running = Running { engine: self.engine, name: name.clone(), ended: false, cx: cx.clone() };
        Ok((run(self.engine, &name).args(["--volume", volume.as_str(), self.image.as_str()]), running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(cancel) = Cancel::for_clean_up() else { return };
        let cx = self.cx.with_cancel(cancel);
        if let Err(error) = self.engine.run(["rm", "--force", "--volumes", self.name.as_str()], &cx) {
            // It removes itself when its program ends, which it may have done already.
            tracing::debug!(%error, name = self.name, "a helper container could not be removed");
        }
    }
}

/// `docker run` as far as all of our containers have it in common; behind it come more options, the image, and its program.
fn run(engine: Engine, name: &str) -> Program {
    let program = engine.program().args(["run", "--rm", "--interactive", "--name", name, "--label", LABEL, "--pull", "never"]);
    // What it writes to its stdout would be kept in the engine's log else: the whole volume.
    let program = program.args(["--network", "none", "--log-driver", "none", "--user", "0:0", "--security-opt", "label=disable"]);
    program.args(["--env", "LC_ALL=C", "--env", "TAR_OPTIONS=", "--entrypoint", ""])
}

/// Runs a few words in a container of an image that sees no volume; by its shell, as later: some shells have a tar of their own.
fn ask(engine: Engine, image: &str, words: &[&str], cx: &Context) -> Result<Output> {
    let name = format!("db-backup-tools-{}", hex(&files::random_bytes::<8>()?));
    let mut running = Running { engine, name: name.clone(), ended: false, cx: cx.clone() };
    let output = run(engine, &name).arg(image).args(["sh", "-c", "\"$@\"", "sh"]).args(words).output(b"", cx)?;
    if output.exit.code() == Some(125) {
        return Err(Error::new(
            Kind::Child,
            format!("{} can't run a container of image {image}: {}", engine.kind(), output.stderr_tail.trim()),
        )
        .step("engine"));
    }
    running.ended = true;
    Ok(output)
}
