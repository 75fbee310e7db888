//! Backups by the hundred: copies of one that the program itself made of a real database, under other
//! ids, units and hosts. The files are the real ones; their names, and in the manifest host, unit, target,
//! id, run, times and file names, are made to match, as if it had been made then and there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use chrono::{Duration, NaiveDateTime};
use db_backup_tools::names::UnitName;
use serde_json::{Value, json};

use super::{S3Bucket, SHARED, Test};

/// The backup that all others are copies of.
pub struct Seed {
    ending: String,
    /// The artifact's bytes.
    pub artifact: Vec<u8>,
    /// The inventory's bytes.
    pub inventory: Vec<u8>,
    manifest: Value,
}

static SEEDS: LazyLock<[Seed; 3]> = LazyLock::new(|| {
    let made = |table: &str, text: &str, compression: &str| {
        let database = SHARED.create_database();
        database.psql(&format!("CREATE TABLE {table} AS SELECT n AS id, '{text} ' || n AS text FROM generate_series(1, 40) n"));
        let test = Test::of(&database).target_option(&format!("compression: {{ type: {compression} }}"));
        test.run(["backup", "app"]).ok();
        let read = |path: PathBuf| fs::read(path).unwrap();
        let endings = [".sql", ".sql.gz"];
        let ending = endings.into_iter().find(|ending| test.stored().iter().any(|file| file.ends_with(ending))).unwrap();
        Seed {
            ending: ending[1..].to_owned(),
            artifact: read(test.stored_one(ending)),
            inventory: read(test.stored_one(".inventory.json")),
            manifest: serde_json::from_slice(&read(test.stored_one(".manifest.json"))).unwrap(),
        }
    };
    [made("tale", "once upon a time", "gzip"), made("tale", "it was the night", "none"), made("song", "it was a morning", "none")]
});

impl Seed {
    /// The one that copies are made of: 0 is compressed with gzip; 1 and 2 are not, are as long as
    /// each other, and differ.
    pub fn get(number: usize) -> &'static Self {
        &SEEDS[number]
    }
}

/// A backup to be put into a storage: `Planted::new("app", "20260612_030000Z-k3f9").into(&storage)`.
pub struct Planted {
    host: String,
    unit: String,
    id: String,
    label: Option<String>,
    pinned: bool,
    seed: usize,
}

impl Planted {
    /// One of host `web1`.
    pub fn new(unit: &str, id: &str) -> Self {
        Self { host: "web1".into(), unit: unit.into(), id: id.into(), label: None, pinned: false, seed: 0 }
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

    /// A copy of another seed.
    #[must_use]
    pub fn of_seed(mut self, number: usize) -> Self {
        self.seed = number;
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
        for (key, bytes) in self.objects() {
            let path = storage.join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        storage.join(self.stem())
    }

    /// Puts it into a bucket, below a prefix that ends in `/` or is empty. Gives the keys, without that prefix.
    pub fn into_bucket(self, bucket: &S3Bucket, prefix: &str) -> Vec<String> {
        let put = |(key, bytes): (String, Vec<u8>)| {
            bucket.put(&format!("{prefix}{key}"), &bytes);
            key
        };
        self.objects().into_iter().map(put).collect()
    }

    fn run(&self) -> &str {
        self.id.split('-').next().unwrap()
    }

    /// The key of its objects without their endings. A unit's name is escaped as the program does it.
    fn stem(&self) -> String {
        let unit = UnitName::new(self.unit.clone()).escaped();
        format!("{}/{}/{unit}_{}", self.host, self.run(), self.id)
    }

    /// Its objects' keys and bytes, the manifest last.
    pub fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let seed = Seed::get(self.seed);
        let stem = self.stem();
        let name = stem.rsplit('/').next().unwrap();
        let started = NaiveDateTime::parse_from_str(self.run(), "%Y%m%d_%H%M%SZ").unwrap().and_utc();
        let mut manifest = seed.manifest.clone();
        let time = |at: chrono::DateTime<chrono::Utc>| json!(at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        for (field, value) in [
            ("id", json!(self.id)),
            ("run", json!(self.run())),
            ("host", json!(self.host)),
            ("unit", json!(self.unit)),
            ("target", json!(self.unit.split('.').next())),
            ("label", json!(self.label)),
            ("started", time(started)),
            ("finished", time(started + Duration::seconds(2))),
        ] {
            manifest[field] = value;
        }
        manifest["artifact"]["name"] = json!(format!("{name}.{}", seed.ending));
        manifest["inventory"]["name"] = json!(format!("{name}.inventory.json"));
        let object = |ending: &str, bytes: &[u8]| (format!("{stem}.{ending}"), bytes.to_vec());
        let pin = self.pinned.then(|| object("pin", b"{}\n"));
        let data = [object(&seed.ending, &seed.artifact), object("inventory.json", &seed.inventory)];
        let manifest = object("manifest.json", &serde_json::to_vec_pretty(&manifest).unwrap());
        data.into_iter().chain(pin).chain([manifest]).collect()
    }
}
