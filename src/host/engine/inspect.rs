//! What an engine says of its containers, volumes and images.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Engine, EngineKind};
use crate::error::{Error, Kind, Result};
use crate::host::Context;

/// What an engine's client says of a thing that it does not have. Not of a file: that is the engine's own socket, and who takes a
/// container for gone because its engine is, never starts it again.
const ABSENT: [&str; 5] = ["no such container", "no such volume", "no such image", "no such object", "image not known"];

/// How long a stop lets a container end by itself where nothing else is said, for Docker and Podman alike.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A container as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its whole id.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// What it does.
    pub state: State,
    /// The id of its image.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its variables, as its image and whoever made it set them. They may hold secrets.
    pub environment: BTreeMap<String, String>,
    /// What is mounted in it.
    pub mounts: Vec<Mount>,
    /// It is removed when it stops.
    pub goes_when_stopped: bool,
    /// How long a stop lets it end by itself.
    pub stop_timeout: Duration,
    /// What it exited with, when it did last.
    pub exit_code: i64,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It is being started again by its engine, or was about to.
    Restarting,
    /// Anything else: created, exited, dead.
    Stopped,
}

/// Something that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name, where it is one.
    pub volume: Option<String>,
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Whether the container may write.
    pub writable: bool,
}

/// A volume as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where its files are, as the engine says it.
    pub mountpoint: PathBuf,
    /// Its files are at the mountpoint whether a container uses it or not. Those of a volume with options of the
    /// driver, or of another driver, are there only while it is mounted; else there is an empty directory.
    pub is_plain: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    id: String,
    name: String,
    image: String,
    state: RawState,
    config: RawConfig,
    #[serde(default)]
    host_config: RawHostConfig,
    #[serde(default)]
    mounts: Option<Vec<RawMount>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    status: String,
    #[serde(default)]
    exit_code: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawHostConfig {
    #[serde(default)]
    auto_remove: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    stop_timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMount {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: PathBuf,
    #[serde(default, rename = "RW")]
    rw: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawVolume {
    name: String,
    driver: String,
    #[serde(default)]
    mountpoint: PathBuf,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Engine {
    /// The container of this name or id.
    pub fn container(&self, name: &str, cx: &Context) -> Result<Option<Container>> {
        Ok(self.inspect::<RawContainer>(&["container", "inspect", name], cx)?.into_iter().next().map(Container::from))
    }

    /// All containers that these filters meet, as `ps --filter` takes them, stopped ones too.
    pub fn containers(&self, filters: &[&str], cx: &Context) -> Result<Vec<Container>> {
        let flags = filters.iter().flat_map(|filter| ["--filter", filter]);
        let output = self.ask_soon(["ps", "--all", "--quiet", "--no-trunc"].into_iter().chain(flags), cx)?;
        if !output.exit.is_success() {
            return Err(self.failed(&output));
        }
        let ids = String::from_utf8_lossy(&output.stdout).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.inspect::<RawContainer>(&[&["container", "inspect"], ids.as_slice()].concat(), cx)?;
        if all.len() == ids.len() {
            return Ok(all.into_iter().map(Container::from).collect());
        }
        let mut found = Vec::new();
        // One by one: a container that has gone meanwhile is no failure of the others.
        for id in ids {
            found.extend(self.container(id, cx)?);
        }
        Ok(found)
    }

    /// The names of all containers, stopped ones too.
    pub fn container_names(&self, cx: &Context) -> Result<Vec<String>> {
        let output = self.ask_soon(["ps", "--all", "--format", "{{.Names}}"], cx)?;
        if !output.exit.is_success() {
            return Err(self.failed(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// The volume of this name.
    pub fn volume(&self, name: &str, cx: &Context) -> Result<Option<Volume>> {
        Ok(self.inspect::<RawVolume>(&["volume", "inspect", name], cx)?.into_iter().next().map(Volume::from))
    }

    /// The id of an image of this name that is on this machine.
    pub fn image(&self, name: &str, cx: &Context) -> Result<Option<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct RawImage {
            id: String,
        }
        Ok(self.inspect::<RawImage>(&["image", "inspect", name], cx)?.into_iter().next().map(|image| image.id))
    }

    /// Whether what it calls a path is the same path here: not that of an engine on another machine, or in a virtual one.
    pub fn is_of_this_machine(&self, cx: &Context) -> Result<bool> {
        let name = match self.kind() {
            EngineKind::Docker => "{{.Name}}",
            EngineKind::Podman => "{{.Host.Hostname}}",
        };
        let output = self.ask_soon(["info", "--format", name], cx)?;
        if !output.exit.is_success() {
            return Err(self.failed(&output));
        }
        let here = rustix::system::uname();
        Ok(String::from_utf8_lossy(&output.stdout).trim().as_bytes() == here.nodename().to_bytes())
    }

    /// What an `inspect` prints; nothing where the engine does not have it.
    fn inspect<T: serde::de::DeserializeOwned>(self, args: &[&str], cx: &Context) -> Result<Vec<T>> {
        let output = self.ask_soon(args.iter().copied(), cx)?;
        if !output.exit.is_success() {
            return if is_absence(&output.stderr_tail) { Ok(Vec::new()) } else { Err(self.failed(&output)) };
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let cause = format!("what `{} {}` prints is not understood", self.kind(), args.join(" "));
            Error::new(Kind::Child, cause).source(error).step("engine")
        })
    }
}

fn is_absence(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ABSENT.iter().any(|words| said.contains(words))
}

impl From<RawContainer> for Container {
    fn from(raw: RawContainer) -> Self {
        let state = match raw.state.status.as_str() {
            "running" => State::Running,
            "paused" => State::Paused,
            "restarting" => State::Restarting,
            _ => State::Stopped,
        };
        let variables = raw.config.env.unwrap_or_default();
        let mounts = raw.mounts.unwrap_or_default().into_iter().map(|mount| Mount {
            volume: (mount.kind == "volume" && !mount.name.is_empty()).then_some(mount.name),
            source: mount.source,
            writable: mount.rw,
        });
        Self {
            id: raw.id,
            name: raw.name.trim_start_matches('/').to_owned(),
            state,
            image: raw.image,
            labels: raw.config.labels.unwrap_or_default(),
            environment: variables
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            mounts: mounts.collect(),
            goes_when_stopped: raw.host_config.auto_remove,
            stop_timeout: raw.config.stop_timeout.map_or(STOP_TIMEOUT, Duration::from_secs),
            exit_code: raw.state.exit_code,
        }
    }
}

impl From<RawVolume> for Volume {
    fn from(raw: RawVolume) -> Self {
        let is_plain = raw.driver == "local" && raw.options.unwrap_or_default().is_empty() && raw.mountpoint.is_absolute();
        Self { name: raw.name, mountpoint: raw.mountpoint, is_plain, labels: raw.labels.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Docker 20.10 and 28, Podman 4.3; the last two of newer clients whose engine is down.
    #[test]
    fn an_engine_that_is_down_is_not_taken_for_a_thing_that_is_gone() {
        let gone = [
            "Error response from daemon: No such container: nope",
            "Error: No such container: nope",
            "Error: No such object: nope",
            "Error response from daemon: get nope: no such volume",
            "Error response from daemon: no such image: nope: No such image: nope:latest",
            "Error: inspecting object: no such container nope",
            "Error: inspecting object: nope: image not known",
        ];
        assert!(gone.iter().all(|said| is_absence(said)));
        let down = [
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the daemon is \
             running: dial unix /var/run/docker.sock: connect: no such file or directory",
            "Error: creating runtime static files directory: mkdir /run/x: no such file or directory",
        ];
        assert!(!down.iter().any(|said| is_absence(said)));
    }
}
