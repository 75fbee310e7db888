//! A target of type volume: a tree in the test's directory, its backup, and what came of it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Test;

impl Test {
    /// With a configuration of one target `files`, of type volume, and one storage `local`. `place` is `path: {dir}/tree`, or
    /// `volume: NAME`, and more lines may follow it.
    pub fn of_volume(place: &str) -> Self {
        let place = place.lines().fold(String::new(), |text, line| text + "    " + line.trim() + "\n");
        let text = format!(
            "version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\n\
             targets:\n  - name: files\n    type: volume\n{place}"
        );
        Self::new().config(&text)
    }

    /// The same with the directory `tree`, which a shell script fills that runs in it. These lines follow its `path:`.
    #[track_caller]
    pub fn of_tree(script: &str, lines: &str) -> Self {
        let test = Self::of_volume(&format!("path: {{dir}}/tree\n{lines}"));
        fs::create_dir(test.path("tree")).unwrap();
        test.in_tree(script);
        test
    }

    /// Runs a shell script in the directory `tree`.
    #[track_caller]
    pub fn in_tree(&self, script: &str) {
        let ended = Command::new("sh").args(["-ec", script]).current_dir(self.path("tree")).status().unwrap();
        assert!(ended.success(), "{script}");
    }

    /// Puts a shell script in place of tar, first in the program's PATH; `{real}` is the machine's tar.
    #[must_use]
    pub fn fake_tar(self, script: &str) -> Self {
        self.script("bin/tar", &script.replace("{real}", real_tar().to_str().unwrap()));
        self
    }

    /// Has the machine's tar run in a way in which, once it has written 100,000 bytes, it waits until a shell script has run in
    /// the tree: it is in the midst of the first file by then that is much larger.
    #[must_use]
    pub fn meanwhile(self, script: &str) -> Self {
        let script = format!(
            "case \"$*\" in *--file=-*) ;; *) exec {{real}} \"$@\" ;; esac\n\
             mkfifo {{bin}}/pipe\n\
             {{real}} \"$@\" >{{bin}}/pipe & pid=$!\n\
             {{ head -c 100000; (cd {{dir}}/tree && {script}) >&2; cat; }} <{{bin}}/pipe\n\
             wait $pid"
        );
        self.fake_tar(&script)
    }

    /// The files and links in the only artifact in the storage, as tar lists them, sorted; quoted as `ls -b` does.
    #[track_caller]
    pub fn archived(&self) -> Vec<String> {
        let listed = tar_of(&self.stored_one(".tar.gz"), &["--list", "--quoting-style=escape"]);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// tar's own comparison of the only artifact with the tree must find nothing.
    #[track_caller]
    pub fn artifact_is_the_tree(&self) {
        tar_of(&self.stored_one(".tar.gz"), &["--compare", "--directory", self.path("tree").to_str().unwrap()]);
    }
}

/// Runs tar on an artifact that gunzip unpacks: what it prints. It must end well.
#[track_caller]
pub fn tar_of(artifact: &std::path::Path, words: &[&str]) -> String {
    let script = r#"gunzip -c "$0" | LC_ALL=C tar --file=- --warning=no-timestamp "$@""#;
    let ran = Command::new("sh").args(["-c", script]).arg(artifact).args(words).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && stderr.is_empty(), "tar {words:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// The machine's own.
pub fn real_tar() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join("tar")).find(|file| file.is_file()).unwrap()
}
