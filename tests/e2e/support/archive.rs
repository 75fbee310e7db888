//! Backups of files whose tar a test made, by GNU tar or by hand: `Archive::of(&directory).put(&test, "uploads")`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Test;

/// The backup's run.
const RUN: &str = "20260612_030000Z";

/// A tar, and what a manifest says of it.
pub struct Archive {
    tar: Vec<u8>,
    restore: Value,
    /// Files, directories, links, others, bytes.
    counts: Option<[u64; 5]>,
}

impl Archive {
    /// Of a directory, as GNU tar makes it.
    pub fn of(directory: &Path) -> Self {
        let tar = Command::new("tar")
            .args(["--create", "--file=-", "--format=posix", "--sparse", "--numeric-owner"])
            .args(["--xattrs", "--xattrs-include=*", "--pax-option=delete=atime,delete=ctime", "--directory"])
            .arg(directory)
            .arg(".")
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        Self::of_tar(tar.stdout)
    }

    /// Of a single file.
    pub fn of_file(file: &Path) -> Self {
        let name = file.file_name().unwrap().to_str().unwrap();
        let tar = Command::new("tar")
            .args(["--create", "--file=-", "--format=posix", "--directory"])
            .arg(file.parent().unwrap())
            .arg(format!("./{name}"))
            .output()
            .unwrap();
        assert!(tar.status.success());
        let mut archive = Self::of_tar(tar.stdout);
        archive.restore["file"] = json!(name);
        archive
    }

    /// Of these bytes.
    pub fn of_tar(tar: Vec<u8>) -> Self {
        let own = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let restore = json!({ "archiver": "GNU tar 1.34 on the host", "path": "/srv/uploads", "owners": [own] });
        Self { tar, restore, counts: None }
    }

    /// Whose its files are: `["0:0", "33:33"]`.
    #[must_use]
    pub fn owners(mut self, owners: &[&str]) -> Self {
        self.restore["owners"] = json!(owners);
        self
    }

    /// What was counted as it was archived: files, directories, links, others, bytes.
    #[must_use]
    pub fn counted(mut self, counts: [u64; 5]) -> Self {
        self.counts = Some(counts);
        self
    }

    /// Puts it into a test's storage, as the newest backup of this unit. Its id comes back.
    pub fn put(self, test: &Test, unit: &str) -> String {
        let id = format!("{RUN}-t3st");
        let directory = test.storage().join("web1").join(RUN);
        fs::create_dir_all(&directory).unwrap();
        let stem = format!("{unit}_{id}");
        let digest = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
        let facts = json!({ "bytes": self.tar.len(), "sha256": digest(&self.tar) });
        let mut artifact = facts.clone();
        artifact["name"] = json!(format!("{stem}.tar"));
        let mut manifest = json!({
            "schema": 1, "id": id, "run": RUN, "host": "web1", "unit": unit, "target": unit, "kind": "volume", "format": "tar",
            "tool": "db-backup-tools 0.1.0", "started": "2026-06-12T03:00:00Z", "finished": "2026-06-12T03:00:02Z",
            "artifact": artifact, "content": facts, "compression": { "type": "none" },
            "encryption": null, "label": null, "warnings": [], "restore": self.restore,
        });
        if let Some([files, directories, links, others, bytes]) = self.counts {
            let counts = json!({ "files": files, "directories": directories, "links": links, "others": others, "bytes": bytes });
            let inventory = serde_json::to_vec(&json!({ "schema": 1, "tables": [], "files": counts })).unwrap();
            manifest["inventory"] =
                json!({ "name": format!("{stem}.inventory.json"), "sha256": digest(&inventory), "tables": 0, "rows": 0 });
            fs::write(directory.join(format!("{stem}.inventory.json")), inventory).unwrap();
        }
        fs::write(directory.join(format!("{stem}.tar")), self.tar).unwrap();
        fs::write(directory.join(format!("{stem}.manifest.json")), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
        // For a test that runs the program as somebody else.
        fs::set_permissions(test.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        id
    }
}

/// A test whose config has a target `uploads`: the directory `live`, which is not there yet.
pub fn with_uploads() -> Test {
    uploads_with("")
}

/// The same with more of the target: `, drill: { hash: true }`.
pub fn uploads_with(more: &str) -> Test {
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets: [ {{ name: uploads, type: volume, path: '{{dir}}/live'{more} }} ]\n"
    ))
}

/// Makes a directory with one of each kind of file that an ordinary user may make: 4 files in 9 bytes and a hole of a
/// megabyte, 4 directories, 3 links, a FIFO.
pub fn small_tree(root: &Path) {
    let script = r#"
        mkdir -p "$1/empty" "$1/closed" "$1/dir" && cd "$1"
        printf 'hello' >file; chmod 4751 file; ln file dir/again; ln -s ../file dir/link; ln -s /etc/passwd absolute
        printf 'x' >"$(printf 'two\nlines')"; printf 'abc' >closed/inside; mkfifo pipe
        truncate -s 1M sparse
        setfattr -n user.origin -v here file 2>/dev/null || :
        touch -d '2020-02-03 04:05:06.123456789' file dir/link empty -h
        chmod 0555 closed; chmod 1770 dir; touch -d '2019-01-01 00:00:00.5' dir .; chmod 0751 .
    "#;
    let made = Command::new("sh").args(["-euc", script, "sh"]).arg(root).status().unwrap();
    assert!(made.success());
}

/// What [`small_tree`] comes to: files, directories, links, others, bytes.
pub const SMALL_TREE: [u64; 5] = [4, 4, 3, 1, 9 + (1 << 20)];

/// Whether tar and rsync find one directory like another: names, kinds, contents, modes, owners, times, links, attributes.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    assert_same_but(one, other, &[]);
}

/// The same, except for these (rsync's patterns), which are not looked at.
#[track_caller]
pub fn assert_same_but(one: &Path, other: &Path, patterns: &[&str]) {
    let slash = |path: &Path| format!("{}/", path.display());
    let rsync = Command::new("rsync")
        .args(["--archive", "--hard-links", "--acls", "--xattrs", "--checksum", "--delete", "--dry-run", "--itemize-changes"])
        .args(["--numeric-ids", "--specials", "--devices", "--modify-window=-1"])
        .args(patterns.iter().map(|pattern| format!("--exclude={pattern}")))
        .args([slash(one), slash(other)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&rsync.stdout).into_owned() + &String::from_utf8_lossy(&rsync.stderr);
    assert!(rsync.status.success() && said.is_empty(), "{} and {} differ:\n{said}", one.display(), other.display());
}
