//! Backups by the hundred: copies of one that the program itself made of a real database, under other
//! ids, units and hosts. The files are the real ones; their names, and in the manifest host, unit, target,
//! id, run, times and file names, are made to match, as if it had been made then and there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use chrono::{Duration, NaiveDateTime};
use serde_json::{Value, json};

use super::{SHARED, Test};

/// The backup that all others are copies of.
pub struct Seed {
    /// The artifact's bytes.
    pub artifact: Vec<u8>,
    /// The inventory's bytes.
    pub inventory: Vec<u8>,
    manifest: Value,
}

/// What a restore of any copy gives.
pub static CONTENT: LazyLock<String> = LazyLock::new(|| {
    let test = Test::new().config(CONFIG);
    Planted::new("app", "20260612_030000Z-seed").into(&test.storage());
    test.run(["restore", "app", "--output", "-"]).ok().stdout
});

const CONFIG: &str = "
version: 1
host: web1
state_dir: {state}
storages:
  local: { type: local, path: '{storage}' }
targets:
  - { name: app, type: postgres, database: app }
";

static SEED: LazyLock<Seed> = LazyLock::new(|| {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE tale (id int, text text); INSERT INTO tale SELECT n, 'once upon a time ' || n FROM generate_series(1, 40) n");
    let test = Test::of(&database);
    test.run(["backup", "app"]).ok();
    let read = |ending: &str| fs::read(test.stored_one(ending)).unwrap();
    Seed {
        artifact: read(".sql.gz"),
        inventory: read(".inventory.json"),
        manifest: serde_json::from_slice(&read(".manifest.json")).unwrap(),
    }
});

impl Seed {
    /// The one that the process made.
    pub fn get() -> &'static Self {
        &SEED
    }
}

/// A backup to be put into a storage: `Planted::new("app", "20260612_030000Z-k3f9").into(&storage)`.
pub struct Planted {
    host: String,
    unit: String,
    id: String,
    label: Option<String>,
    pinned: bool,
}

impl Planted {
    /// One of host `web1`.
    pub fn new(unit: &str, id: &str) -> Self {
        Self { host: "web1".into(), unit: unit.into(), id: id.into(), label: None, pinned: false }
    }

    /// Of another host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// With the user's own words.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Pinned.
    #[must_use]
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Writes it. Gives the path of its files without their extensions.
    pub fn into(self, storage: &Path) -> PathBuf {
        let seed = Seed::get();
        let run = self.id.split('-').next().unwrap();
        let directory = storage.join(&self.host).join(run);
        fs::create_dir_all(&directory).unwrap();
        let name = format!("{}_{}", self.unit, self.id);
        let started = NaiveDateTime::parse_from_str(run, "%Y%m%d_%H%M%SZ").unwrap().and_utc();
        let mut manifest = seed.manifest.clone();
        let time = |at: chrono::DateTime<chrono::Utc>| json!(at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        for (field, value) in [
            ("id", json!(self.id)),
            ("run", json!(run)),
            ("host", json!(self.host)),
            ("unit", json!(self.unit)),
            ("target", json!(self.unit.split('.').next())),
            ("label", json!(self.label)),
            ("started", time(started)),
            ("finished", time(started + Duration::seconds(2))),
        ] {
            manifest[field] = value;
        }
        manifest["artifact"]["name"] = json!(format!("{name}.sql.gz"));
        manifest["inventory"]["name"] = json!(format!("{name}.inventory.json"));
        let write = |ending: &str, bytes: &[u8]| {
            let path = directory.join(format!("{name}.{ending}"));
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("sql.gz", &seed.artifact);
        write("inventory.json", &seed.inventory);
        if self.pinned {
            write("pin", b"{}\n");
        }
        write("manifest.json", &serde_json::to_vec_pretty(&manifest).unwrap());
        directory.join(name)
    }
}
