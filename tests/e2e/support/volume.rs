//! Docker volumes of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cluster::feed;
use super::engine::{Docker, text_of};
use super::is_root;

/// A volume. Dropped, it is removed: what uses it must be dropped before.
pub struct Volume {
    docker: &'static Docker,
    name: String,
}

impl Volume {
    #[track_caller]
    pub(super) fn create(docker: &'static Docker, name: String, options: &[&str]) -> Self {
        let label = docker.label();
        let options = options.iter().flat_map(|option| ["--opt", option]);
        docker.ok(["volume", "create", "--label", &label].into_iter().chain(options).chain([name.as_str()]));
        Self { docker, name }
    }

    pub(super) fn adopt(docker: &'static Docker, name: String) -> Self {
        Self { docker, name }
    }

    /// Its name: unique.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is one of its name.
    pub fn exists(&self) -> bool {
        self.docker.raw(["volume", "inspect", &self.name]).status.success()
    }

    /// Where it is on the machine, which only root may enter.
    #[track_caller]
    pub fn mountpoint(&self) -> PathBuf {
        self.docker.ok(["volume", "inspect", "--format", "{{.Mountpoint}}", &self.name]).into()
    }

    /// Has files made in it: in its own directory by root, else in one whose content a container then unpacks into it.
    #[track_caller]
    pub fn fill(&self, make: impl FnOnce(&Path)) {
        if is_root() && self.docker.ok(["volume", "inspect", "--format", "{{json .Options}}", &self.name]) == "null" {
            return make(&self.mountpoint());
        }
        let directory = tempfile::Builder::new().prefix("fill.").tempdir().unwrap();
        make(directory.path());
        let tar = ["-c", "--xattrs", "--acls", "--sparse", "--numeric-owner", "."];
        let packed = Command::new("tar").arg("-C").arg(directory.path()).args(tar).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let mut command = self.helper(&["tar", "-x", "-p", "--xattrs", "--acls", "--numeric-owner", "-C", "/volume"]);
        let said = feed(&mut command, &packed.stdout);
        text_of(&said, &command);
    }

    /// Runs a shell script in a container with the volume at `/volume`, where it starts. What it printed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let mut command = self.helper(&["sh", "-e", "-c", script]);
        text_of(&command.stdin(Stdio::null()).output().unwrap(), &command)
    }

    /// A container of the helper image with the volume at `/volume`, which goes when it ends.
    fn helper(&self, words: &[&str]) -> Command {
        let (label, mount) = (self.docker.label(), format!("{}:/volume", self.name));
        let run = ["run", "--rm", "-i", "--network", "none", "--label", &label, "-v", &mount, "-w", "/volume"];
        self.docker.command(run.into_iter().chain([self.docker.with_tar()]).chain(words.iter().copied()))
    }

    /// Removes it now.
    #[track_caller]
    pub fn remove(&self) {
        self.docker.ok(["volume", "rm", &self.name]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A test that fails is telling something else already.
        let _ = self.docker.raw(["volume", "rm", "--force", &self.name]);
    }
}
