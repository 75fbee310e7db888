//! The manifest: the small JSON beside an artifact that says all about it, and whose presence says
//! that it is whole. Versioned; unknown fields are kept; no path in it is ever trusted.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::config::model::Compression;
use crate::error::{Error, Kind, Result};
use crate::names::{HostName, Id, RunId, TargetName, UnitName};
use crate::source::{Facts, FileCounts};

/// The version that we write, and the newest that we read.
pub const SCHEMA: u32 = 1;

/// What to do about a manifest of a later version.
const UPGRADE: &str = "a newer db-backup-tools wrote it: upgrade this one to read it";

/// All about one backup. `docs/storage-layout.md` defines every field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Stored")]
pub struct Manifest {
    /// The format's version.
    pub schema: u32,
    /// The backup.
    pub id: Id,
    /// Its run.
    pub run: RunId,
    /// Whose it is.
    pub host: HostName,
    /// What it holds.
    pub unit: UnitName,
    /// The target of the unit.
    pub target: TargetName,
    /// kind, database, format, versions, restore.
    pub facts: Facts,
    /// The program that made it: `db-backup-tools 0.1.0`.
    pub tool: String,
    /// When the attempt started.
    pub started: DateTime<Utc>,
    /// When its bytes were all there.
    pub finished: DateTime<Utc>,
    /// The file beside it.
    pub artifact: ArtifactFacts,
    /// What comes out of it.
    pub content: ContentFacts,
    /// How it is compressed.
    pub compression: CompressionFacts,
    /// How it is encrypted; not yet.
    pub encryption: Option<Value>,
    /// The user's own words.
    pub label: Option<String>,
    /// All units that the target's `databases: all` was when it ran; none where the config names them.
    pub units_found: Option<Vec<UnitName>>,
    /// What a person should know of it.
    pub warnings: Vec<String>,
    /// The inventory beside it.
    pub inventory: Option<InventoryFacts>,
    /// Fields of a later minor change, kept as they are.
    pub other: Map<String, Value>,
}

impl Manifest {
    /// Reads a manifest's bytes. A newer schema, and a compression or encryption of a later version, is told
    /// apart from damage: its kind is `Check`, that of everything else `Damaged`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        // The way of all that is well: read once. The number is held against what we know all the same.
        let manifest: Self = match serde_json::from_slice(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return Err(Self::check_schema(bytes).err().unwrap_or_else(|| unreadable(&error))),
        };
        Self::check_number(&Value::from(manifest.schema))?;
        manifest.check().map_err(|cause| damaged(&cause))?;
        // To read it as what it is not would find it bad, and a bad one does not count in retention.
        manifest.compression.parse()?;
        match &manifest.encryption {
            Some(_) => Err(Error::new(Kind::Check, "its encryption is not known to this version").hint(UPGRADE)),
            None => Ok(manifest),
        }
    }

    /// Of a newer schema nothing but its number can be relied upon.
    fn check_schema(bytes: &[u8]) -> Result<()> {
        Self::check_number(&serde_json::from_slice::<SchemaAlone>(bytes).map_err(|error| unreadable(&error))?.schema)
    }

    fn check_number(schema: &Value) -> Result<()> {
        match schema.as_u64() {
            Some(newer) if newer > u64::from(SCHEMA) => {
                Err(Error::new(Kind::Check, format!("the manifest has schema {newer}, {SCHEMA} is the newest known here"))
                    .hint(UPGRADE))
            }
            Some(1..) => Ok(()),
            _ => Err(damaged(&format!("its schema is {schema} and no version number"))),
        }
    }

    /// Writes it as it stands beside its artifact. Fails where [`Manifest::parse`] would refuse it.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let internal = |cause: &str| Error::new(Kind::Internal, format!("refused to write a manifest: {cause}"));
        self.check().map_err(|cause| internal(&cause))?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| internal(&error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let digest = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let inventory = self.inventory.as_ref().map(|inventory| ("inventory", &inventory.sha256));
        let digests = [("artifact", &self.artifact.sha256), ("content", &self.content.sha256)];
        if let Some((of, _)) = digests.into_iter().chain(inventory).find(|(_, text)| !digest(text)) {
            return Err(format!("{of}.sha256 is not 64 lower-case hexadecimal digits"));
        }
        if self.run != self.id.run() {
            return Err(format!("its id {} is not of its run {}", self.id, self.run));
        }
        Ok(())
    }
}

fn unreadable(error: &serde_json::Error) -> Error {
    damaged(&error.to_string())
}

fn damaged(cause: &str) -> Error {
    Error::new(Kind::Damaged, format!("the manifest can't be read: {cause}"))
}

/// As it stands in the file, with every known field by its name: what is flattened is read twice.
#[derive(Deserialize)]
struct Stored {
    schema: u32,
    id: Id,
    run: RunId,
    host: HostName,
    unit: UnitName,
    target: TargetName,
    kind: String,
    #[serde(default)]
    database: Option<String>,
    format: String,
    #[serde(default)]
    server_version: Option<String>,
    #[serde(default)]
    client_version: Option<String>,
    #[serde(default)]
    restore: Value,
    tool: String,
    started: DateTime<Utc>,
    finished: DateTime<Utc>,
    artifact: ArtifactFacts,
    content: ContentFacts,
    compression: CompressionFacts,
    encryption: Option<Value>,
    label: Option<String>,
    #[serde(default)]
    units_found: Option<Vec<UnitName>>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    inventory: Option<InventoryFacts>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl From<Stored> for Manifest {
    fn from(stored: Stored) -> Self {
        Self {
            schema: stored.schema,
            id: stored.id,
            run: stored.run,
            host: stored.host,
            unit: stored.unit,
            target: stored.target,
            facts: Facts {
                kind: stored.kind,
                database: stored.database,
                format: stored.format,
                server_version: stored.server_version,
                client_version: stored.client_version,
                restore: stored.restore,
            },
            tool: stored.tool,
            started: stored.started,
            finished: stored.finished,
            artifact: stored.artifact,
            content: stored.content,
            compression: stored.compression,
            encryption: stored.encryption,
            label: stored.label,
            units_found: stored.units_found,
            warnings: stored.warnings,
            inventory: stored.inventory,
            other: stored.other,
        }
    }
}

#[derive(Deserialize)]
struct SchemaAlone {
    #[serde(default)]
    schema: Value,
}

/// In the order in which people read it; a flattened struct would scatter it.
#[derive(Serialize)]
struct Written<'a> {
    schema: u32,
    id: Id,
    run: RunId,
    host: &'a HostName,
    unit: &'a UnitName,
    target: &'a TargetName,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: &'a Option<String>,
    format: &'a str,
    tool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_version: &'a Option<String>,
    started: DateTime<Utc>,
    finished: DateTime<Utc>,
    artifact: &'a ArtifactFacts,
    content: &'a ContentFacts,
    compression: &'a CompressionFacts,
    encryption: &'a Option<Value>,
    label: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    units_found: &'a Option<Vec<UnitName>>,
    warnings: &'a [String],
    restore: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    inventory: &'a Option<InventoryFacts>,
    #[serde(flatten)]
    other: &'a Map<String, Value>,
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let facts = &self.facts;
        let written = Written {
            schema: self.schema,
            id: self.id,
            run: self.run,
            host: &self.host,
            unit: &self.unit,
            target: &self.target,
            kind: &facts.kind,
            database: &facts.database,
            format: &facts.format,
            tool: &self.tool,
            server_version: &facts.server_version,
            client_version: &facts.client_version,
            started: self.started,
            finished: self.finished,
            artifact: &self.artifact,
            content: &self.content,
            compression: &self.compression,
            encryption: &self.encryption,
            label: &self.label,
            units_found: &self.units_found,
            warnings: &self.warnings,
            restore: &facts.restore,
            inventory: &self.inventory,
            other: &self.other,
        };
        written.serialize(serializer)
    }
}

/// The stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFacts {
    /// Its file name, for a person; the key comes from the manifest's own.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest, 64 hexadecimal digits.
    pub sha256: String,
}

/// The stream before compression and encryption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFacts {
    /// Its size.
    pub bytes: u64,
    /// Its digest, 64 hexadecimal digits.
    pub sha256: String,
}

/// How an artifact is compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionFacts {
    /// `gzip`, `zstd`, `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The level, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
}

impl CompressionFacts {
    /// What a manifest says of this compression.
    pub fn of(compression: Compression) -> Self {
        let (kind, level) = match compression {
            Compression::Gzip(level) => ("gzip", i32::try_from(level).ok()),
            Compression::Zstd(level) => ("zstd", Some(level)),
            Compression::None => ("none", None),
        };
        Self { kind: kind.to_owned(), level }
    }

    /// How to unpack what a manifest says this of; the level makes no difference there.
    pub fn parse(&self) -> Result<Compression> {
        let known = [Compression::Gzip(6), Compression::Zstd(3), Compression::None];
        known.into_iter().find(|compression| Self::of(*compression).kind == self.kind).ok_or_else(|| {
            Error::new(Kind::Check, format!("its compression {:?} is not known to this version", self.kind)).hint(UPGRADE)
        })
    }
}

/// The inventory beside an artifact, and its totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryFacts {
    /// Its file name.
    pub name: String,
    /// Its digest.
    pub sha256: String,
    /// Tables with data, in a database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// Their rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Files, directories, links and bytes, in a volume's.
    #[serde(flatten)]
    pub files: Option<FileCounts>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(schema: u32) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/manifests/v{schema}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("schema {schema} has no fixture {path}: {error}"))
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(&fixture(SCHEMA)).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    #[test]
    fn every_schema_ever_written_has_a_fixture_and_is_read() {
        for schema in 1..=SCHEMA {
            assert_eq!(Manifest::parse(&fixture(schema)).unwrap().schema, schema);
        }
    }

    #[test]
    fn a_manifest_is_written_as_the_layout_shows_it() {
        let bytes = fixture(SCHEMA);
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!(manifest.facts.server_version.as_deref(), Some("15.18"));
        assert_eq!(manifest.facts.restore["owner"], "admin");
        assert!(manifest.other.is_empty());
        assert_eq!(String::from_utf8(manifest.to_json().unwrap()).unwrap(), String::from_utf8(bytes).unwrap());
    }

    #[test]
    fn fields_that_we_do_not_know_are_kept() {
        let manifest = Manifest::parse(&changed(|value| value["colour"] = json!({ "of": [1, null] }))).unwrap();
        let again = Manifest::parse(&manifest.to_json().unwrap()).unwrap();
        assert_eq!(again.other["colour"], json!({ "of": [1, null] }));
        assert_eq!(again, manifest);
    }

    #[test]
    fn a_newer_schema_asks_for_an_upgrade_whatever_else_it_holds() {
        let error = Manifest::parse(br#"{"schema": 2, "id": {"new": "form"}}"#).unwrap_err();
        assert_eq!(error.kind(), Kind::Check);
        assert_eq!(error.cause(), "the manifest has schema 2, 1 is the newest known here");
        assert!(error.hint_text().unwrap().contains("upgrade"));
    }

    #[test]
    fn a_way_of_packing_that_is_not_known_asks_for_an_upgrade_and_is_no_damage() {
        for (field, value) in [("compression", json!({ "type": "xz" })), ("encryption", json!({ "type": "age" }))] {
            let error = Manifest::parse(&changed(|manifest| manifest[field] = value)).unwrap_err();
            assert_eq!(error.kind(), Kind::Check, "{error}");
            assert!(error.to_string().contains(field) && error.hint_text().unwrap().contains("upgrade"), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_manifest_is_damage() {
        let mut cut = fixture(SCHEMA);
        cut.truncate(cut.len() / 2);
        let twice = [fixture(SCHEMA), fixture(SCHEMA)].concat();
        let damaged: Vec<Vec<u8>> = vec![
            vec![],
            vec![0; 4096],
            cut,
            twice,
            b"{}".to_vec(),
            b"[]".to_vec(),
            b"{\"schema\": 1}".to_vec(),
            changed(|value| value["schema"] = json!(0)),
            changed(|value| value["schema"] = json!("1")),
            changed(|value| value["schema"] = json!(-1)),
            changed(|value| value["run"] = json!("20260612_030001Z")),
            changed(|value| value["id"] = json!("20260612_030000Z-../x")),
            changed(|value| value["artifact"]["sha256"] = json!("abc")),
            changed(|value| value["content"]["sha256"] = json!("G".repeat(64))),
            changed(|value| value["inventory"]["sha256"] = json!("A".repeat(64))),
            changed(|value| value["artifact"]["bytes"] = json!(-1)),
        ];
        for bytes in damaged {
            let error = Manifest::parse(&bytes).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{error} {}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn each_compression_is_found_again_by_its_word() {
        let of = |compression| {
            let facts = CompressionFacts::of(compression);
            (serde_json::to_string(&facts).unwrap(), facts.parse().unwrap())
        };
        assert_eq!(of(Compression::Gzip(9)), (r#"{"type":"gzip","level":9}"#.into(), Compression::Gzip(6)));
        assert_eq!(of(Compression::Zstd(19)), (r#"{"type":"zstd","level":19}"#.into(), Compression::Zstd(3)));
        assert_eq!(of(Compression::None), (r#"{"type":"none"}"#.into(), Compression::None));
        let newer = CompressionFacts { kind: "xz".into(), level: None }.parse().unwrap_err();
        assert_eq!(newer.to_string(), "its compression \"xz\" is not known to this version");
    }

    #[test]
    fn what_would_not_be_read_is_not_written() {
        let mut manifest = Manifest::parse(&fixture(SCHEMA)).unwrap();
        manifest.content.sha256.clear();
        assert_eq!(manifest.to_json().unwrap_err().kind(), Kind::Internal);
    }
}
