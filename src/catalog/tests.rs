use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::backups::merge;
use super::*;
use crate::host::Context;
use crate::names::{Id, UnitName};
use crate::storage::Storage;
use crate::storage::faulty::{Call, Fault, Faulty};
use crate::storage::local::Local;
use crate::storage::memory::Memory;

const ARTIFACT: &[u8] = b"what pg_dump wrote, compressed";

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn object(unit: &str, text: &str, role: Role) -> ObjectName {
    let host = crate::names::HostName::new("web1").unwrap().escaped();
    ObjectName { host, stem: Stem { unit: UnitName::new(unit).escaped(), id: id(text) }, role }
}

fn artifact() -> Role {
    Role::Artifact("sql.gz".into())
}

fn proof(kind: ProofKind, at: &str, ok: bool) -> Role {
    Role::Proof { kind, at: at.parse().unwrap(), ok }
}

fn manifest_of(unit: &str, text: &str) -> Value {
    let name = object(unit, text, artifact()).file_name();
    json!({
        "schema": 1, "id": text, "run": id(text).run().to_string(), "host": "web1", "unit": unit, "target": "app",
        "kind": "postgres", "database": unit, "format": "plain", "tool": "db-backup-tools 0.1.0",
        "started": "2026-06-12T03:00:00Z", "finished": "2026-06-12T03:00:41Z",
        "artifact": { "name": name, "bytes": ARTIFACT.len(), "sha256": "a".repeat(64) },
        "content": { "bytes": 10, "sha256": "b".repeat(64) },
        "compression": { "type": "gzip", "level": 6 }, "encryption": null, "label": null, "warnings": [], "restore": {},
    })
}

/// A whole backup, as `backup` leaves it.
fn store(storage: &dyn Storage, unit: &str, text: &str, cx: &Context) {
    let put = |role, bytes: &[u8]| storage.put_new(&object(unit, text, role).key(), bytes, cx).unwrap();
    put(artifact(), ARTIFACT);
    put(Role::Inventory, b"{\"schema\": 1}");
    put(Role::Manifest, manifest_of(unit, text).to_string().as_bytes());
}

fn mark(storage: &dyn Storage, role: Role, cx: &Context) {
    storage.put_new(&object("app", OURS, role).key(), b"", cx).unwrap();
}

/// What a row of `list` would say.
fn word(seen: &Seen) -> &'static str {
    match seen {
        Seen::Whole(_) => "whole",
        Seen::Incomplete { .. } => "incomplete",
        Seen::Unknown(_) => "unknown",
        Seen::Damaged(..) => "damaged",
        Seen::Suspicious(_) => "suspicious",
    }
}

fn why(seen: &Seen) -> String {
    match seen {
        Seen::Unknown(error) | Seen::Damaged(_, error) => format!("{error:?}"),
        _ => String::new(),
    }
}

fn look_at(storage: &dyn Storage, unit: &str, text: &str, cx: &Context) -> Seen {
    let entries = scan(storage, None, cx).unwrap();
    let unit = UnitName::new(unit).escaped();
    let entry = entries.iter().find(|entry| entry.stem.unit == unit && entry.stem.id == id(text)).unwrap();
    look(storage, entry, cx).unwrap()
}

const OURS: &str = "20260612_030000Z-k3f9";
const NEIGHBOURS: [(&str, &str); 4] =
    [("app", "20260611_030000Z-aaaa"), ("app2", OURS), ("app", "20260612_030000Z-k3f8"), ("app-staging", OURS)];

/// One backup to be hurt, in a directory, among neighbours that must not notice.
struct Yard {
    base: TempDir,
    storage: Local,
    cx: Context,
}

impl Yard {
    fn new() -> Self {
        let (base, cx) = (tempfile::tempdir().unwrap(), Context::for_tests());
        let storage = Local::new(base.path().join("root"), None);
        storage.prepare(&cx).unwrap();
        for (unit, text) in NEIGHBOURS.into_iter().chain([("app", OURS)]) {
            store(&storage, unit, text, &cx);
        }
        Self { base, storage, cx }
    }

    fn path(&self, role: Role) -> PathBuf {
        self.base.path().join("root").join(object("app", OURS, role).key().as_str())
    }

    fn write(&self, role: Role, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(role), bytes).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = manifest_of("app", OURS);
        change(&mut manifest);
        self.write(Role::Manifest, manifest.to_string());
    }

    fn link(&self, role: Role) {
        let target = self.base.path().join("moved");
        fs::copy(self.path(role.clone()), &target).unwrap();
        fs::remove_file(self.path(role.clone())).unwrap();
        std::os::unix::fs::symlink(target, self.path(role)).unwrap();
    }

    fn remove(&self, role: Role) {
        fs::remove_file(self.path(role)).unwrap();
    }

    fn mark(&self, role: Role) {
        mark(&self.storage, role, &self.cx);
    }
}

type Harm = (&'static str, fn(&Yard), &'static str, &'static str);

/// What was done to one backup, and what is said of it.
const HARMS: &[Harm] = &[
    ("nothing", |_| {}, "whole", ""),
    ("artifact missing", |yard| yard.remove(artifact()), "damaged", "sql.gz is missing"),
    ("artifact empty", |yard| yard.write(artifact(), ""), "damaged", "has 0 bytes, its manifest says 30"),
    ("artifact cut", |yard| yard.write(artifact(), &ARTIFACT[1..]), "damaged", "has 29 bytes, its manifest says 30"),
    ("artifact longer", |yard| yard.write(artifact(), [ARTIFACT, b"x"].concat()), "damaged", "has 31 bytes"),
    ("artifact a link", |yard| yard.link(artifact()), "unknown", "is a symbolic link"),
    ("manifest missing", |yard| yard.remove(Role::Manifest), "incomplete", ""),
    ("manifest empty", |yard| yard.write(Role::Manifest, ""), "unknown", "can't be read"),
    ("manifest of zeros", |yard| yard.write(Role::Manifest, vec![0; 4096]), "unknown", "can't be read"),
    ("manifest cut", |yard| yard.write(Role::Manifest, &manifest_of("app", OURS).to_string()[..200]), "unknown", "can't be read"),
    ("manifest a link", |yard| yard.link(Role::Manifest), "unknown", "symbolic link"),
    ("manifest huge", |yard| yard.write(Role::Manifest, vec![b' '; (16 << 20) + 1]), "unknown", "larger than 16.0 MiB"),
    ("manifest newer", |yard| yard.write(Role::Manifest, "{\"schema\": 7}"), "unknown", "upgrade"),
    (
        "manifest of another unit",
        |yard| yard.write(Role::Manifest, manifest_of("app2", OURS).to_string()),
        "unknown",
        "the manifest of another backup: 20260612_030000Z-k3f9 of app2 on web1",
    ),
    (
        "manifest of another id",
        |yard| yard.write(Role::Manifest, manifest_of("app", "20260612_030000Z-k3f8").to_string()),
        "unknown",
        "another backup",
    ),
    ("manifest of another host", |yard| yard.change(|manifest| manifest["host"] = json!("web10")), "unknown", "another backup"),
    (
        "artifact elsewhere",
        |yard| yard.change(|manifest| manifest["artifact"]["name"] = json!("../../../etc/passwd")),
        "unknown",
        "no name of this backup's",
    ),
    (
        "artifact of another",
        |yard| yard.change(|manifest| manifest["artifact"]["name"] = json!(object("app2", OURS, artifact()).file_name())),
        "unknown",
        "no name of this backup's",
    ),
    (
        "artifact is the manifest",
        |yard| yard.change(|manifest| manifest["artifact"]["name"] = json!(object("app", OURS, Role::Manifest).file_name())),
        "unknown",
        "no name of this backup's",
    ),
    (
        "artifact of another form",
        |yard| {
            yard.change(|manifest| {
                manifest["artifact"]["name"] = json!(object("app", OURS, Role::Artifact("sql".into())).file_name());
            });
        },
        "damaged",
        "sql is missing",
    ),
    ("a second artifact", |yard| yard.write(Role::Artifact("dump".into()), "of a stranger"), "whole", ""),
    ("inventory missing", |yard| yard.remove(Role::Inventory), "whole", ""),
    (
        "found bad",
        |yard| yard.mark(proof(ProofKind::Verify, "20260613_000000Z", false)),
        "damaged",
        "verification, at 2026-06-13 00:00:00 UTC",
    ),
    ("drilled bad", |yard| yard.mark(proof(ProofKind::Drill, "20260613_000000Z", false)), "damaged", "drill"),
    (
        "bad, then good",
        |yard| {
            yard.mark(proof(ProofKind::Verify, "20260613_000000Z", false));
            yard.mark(proof(ProofKind::Verify, "20260614_000000Z", true));
        },
        "whole",
        "",
    ),
    (
        "drilled bad, then read again",
        |yard| {
            yard.mark(proof(ProofKind::Drill, "20260613_000000Z", false));
            yard.mark(proof(ProofKind::Verify, "20260614_000000Z", true));
        },
        "damaged",
        "drill",
    ),
    (
        "both bad, then a drill that held",
        |yard| {
            yard.mark(proof(ProofKind::Drill, "20260613_000000Z", false));
            yard.mark(proof(ProofKind::Verify, "20260613_000001Z", false));
            yard.mark(proof(ProofKind::Drill, "20260614_000000Z", true));
        },
        "whole",
        "",
    ),
    (
        "good, then bad",
        |yard| {
            yard.mark(proof(ProofKind::Drill, "20260613_000000Z", true));
            yard.mark(proof(ProofKind::Verify, "20260614_000000Z", false));
        },
        "damaged",
        "found it bad",
    ),
    (
        "good and bad at once",
        |yard| {
            yard.mark(proof(ProofKind::Drill, "20260613_000000Z", false));
            yard.mark(proof(ProofKind::Verify, "20260613_000000Z", true));
        },
        "damaged",
        "found it bad",
    ),
    ("suspect", |yard| yard.mark(Role::Suspect), "suspicious", ""),
    (
        "suspect, accepted",
        |yard| {
            yard.mark(Role::Suspect);
            yard.mark(Role::Accept);
        },
        "whole",
        "",
    ),
    (
        "suspect and cut",
        |yard| {
            yard.mark(Role::Suspect);
            yard.write(artifact(), "");
        },
        "damaged",
        "has 0 bytes",
    ),
];

#[test]
fn each_harm_is_seen_for_what_it_is_and_no_neighbour_suffers() {
    for (harm, hurt, expected, part) in HARMS {
        let yard = Yard::new();
        hurt(&yard);
        let seen = look_at(&yard.storage, "app", OURS, &yard.cx);
        assert_eq!(word(&seen), *expected, "{harm}: {seen:?}");
        assert!(why(&seen).contains(part), "{harm}: {seen:?}");
        for (unit, text) in NEIGHBOURS {
            assert_eq!(word(&look_at(&yard.storage, unit, text, &yard.cx)), "whole", "{harm}: {unit} {text}");
        }
    }
}

#[test]
fn damage_comes_with_a_way_out() {
    let yard = Yard::new();
    yard.remove(artifact());
    let Seen::Damaged(manifest, error) = look_at(&yard.storage, "app", OURS, &yard.cx) else { panic!() };
    assert_eq!((manifest.id, error.kind()), (id(OURS), Kind::Damaged));
    assert!(error.hint_text().unwrap().contains("--from"));
}

#[test]
fn an_incomplete_one_tells_its_last_change() {
    let yard = Yard::new();
    yard.remove(Role::Manifest);
    let Seen::Incomplete { modified } = look_at(&yard.storage, "app", OURS, &yard.cx) else { panic!() };
    assert!((yard.cx.clock.now() - modified.unwrap()).num_hours().abs() < 1);
}

#[test]
fn a_second_look_sees_a_commit_that_the_listing_missed() {
    let (storage, cx) = (Memory::new(), Context::for_tests());
    storage.put_new(&object("app", OURS, Role::Inventory).key(), b"{}", &cx).unwrap();
    let entries = scan(&storage, None, &cx).unwrap();
    assert_eq!(word(&look(&storage, &entries[0], &cx).unwrap()), "incomplete");
    storage.delete(&entries[0].keys(), &cx);
    store(&storage, "app", OURS, &cx);
    assert_eq!(word(&look(&storage, &entries[0], &cx).unwrap()), "whole");
}

#[test]
fn a_storage_that_fails_makes_a_backup_unknown_and_never_less() {
    for (call, fault) in [
        (Call::Read, Fault::Fail(Kind::Storage)),
        (Call::Read, Fault::Fail(Kind::StorageDenied)),
        (Call::Read, Fault::Fail(Kind::Timeout)),
        (Call::Read, Fault::Short),
        (Call::Read, Fault::EndsEarly),
        (Call::Stat, Fault::Fail(Kind::Connection)),
    ] {
        let (storage, cx) = (Faulty::new(Memory::new()), Context::for_tests());
        store(&storage, "app", OURS, &cx);
        storage.fail(call, 1, fault);
        assert_eq!(word(&look_at(&storage, "app", OURS, &cx)), "unknown", "{call:?} {fault:?}");
        assert_eq!(word(&look_at(&storage, "app", OURS, &cx)), "whole");
    }
}

#[test]
fn an_interruption_is_an_error_and_no_finding() {
    let (storage, cx) = (Memory::new(), Context::for_tests());
    store(&storage, "app", OURS, &cx);
    let entries = scan(&storage, None, &cx).unwrap();
    cx.cancel.cancel(crate::host::cancel::Reason::Signal(15));
    assert_eq!(look(&storage, &entries[0], &cx).unwrap_err().kind(), Kind::Interrupted);
}

#[test]
fn a_scan_tells_what_is_there_oldest_first_in_deletion_order() {
    let (storage, cx) = (Memory::new(), Context::for_tests());
    for (unit, text) in NEIGHBOURS.into_iter().chain([("app", OURS)]) {
        store(&storage, unit, text, &cx);
    }
    for role in
        [Role::Pin, proof(ProofKind::Verify, "20260614_000000Z", true), proof(ProofKind::Drill, "20260613_000000Z", false)]
    {
        mark(&storage, role, &cx);
    }
    let entries = scan(&storage, None, &cx).unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.stem.to_string()).collect();
    let expected = [
        "app_20260611_030000Z-aaaa",
        "app_20260612_030000Z-k3f8",
        "app_20260612_030000Z-k3f9",
        "app-staging_20260612_030000Z-k3f9",
        "app2_20260612_030000Z-k3f9",
    ];
    assert_eq!(names, expected);
    let ours = &entries[2];
    assert!(ours.has_manifest && ours.pinned && !ours.suspect && !ours.accepted);
    assert_eq!(ours.artifact.as_deref(), Some("sql.gz"));
    assert_eq!(
        ours.proofs.iter().map(|proof| (proof.kind, proof.ok)).collect::<Vec<_>>(),
        [(ProofKind::Drill, false), (ProofKind::Verify, true)]
    );
    let keys = ours.keys();
    let files: Vec<_> = keys.iter().map(|key| key.file_name().strip_prefix(expected[2]).unwrap()).collect();
    let order =
        [".manifest.json", ".sql.gz", ".drill.20260613_000000Z.bad", ".inventory.json", ".pin", ".verify.20260614_000000Z.ok"];
    assert_eq!(files, order);
}

#[test]
fn a_scan_of_a_host_sees_no_other_and_passes_over_strangers() {
    let (storage, cx) = (Memory::new(), Context::for_tests());
    store(&storage, "app", OURS, &cx);
    let web10 = object("app", OURS, artifact()).key().as_str().replace("web1/", "web10/");
    let foreign = ["web1/notes.txt", "web1/20260612_030000Z/README", "web1/20260611_030000Z/app_20260612_030000Z-k3f9.sql.gz"];
    for text in foreign.into_iter().chain([web10.as_str()]) {
        storage.set(&text.parse().unwrap(), b"", cx.clock.now());
    }
    let host = object("app", OURS, Role::Manifest).host;
    let of_host = survey(&storage, Some(&host), &cx).unwrap();
    assert_eq!((of_host.entries.len(), of_host.foreign), (1, 3));
    let of_all = survey(&storage, None, &cx).unwrap();
    assert_eq!((of_all.entries.len(), of_all.foreign), (2, 3));
}

#[test]
fn an_absent_storage_is_an_error_and_no_empty_catalog() {
    let base = tempfile::tempdir().unwrap();
    let error = scan(&Local::new(base.path().join("gone"), None), None, &Context::for_tests()).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
}

#[test]
fn copies_of_one_backup_meet_and_no_others() {
    let cx = Context::for_tests();
    let storages = [Memory::new(), Memory::new()];
    store(&storages[0], "app", OURS, &cx);
    store(&storages[0], "app2", OURS, &cx);
    store(&storages[1], "app", OURS, &cx);
    store(&storages[1], "app", "20260601_030000Z-zzzz", &cx);
    let listing = |name: &str, storage: &Memory| (name.to_owned(), scan(storage, None, &cx).unwrap());
    let backups = merge(vec![listing("near", &storages[0]), listing("far", &storages[1])]);
    let found: Vec<_> = backups
        .iter()
        .map(|backup| {
            let places: Vec<_> = backup.copies.iter().map(|copy| copy.storage.as_ref()).collect();
            (backup.stem.to_string(), places.join("+"))
        })
        .collect();
    let expected =
        [("app_20260601_030000Z-zzzz", "far"), ("app_20260612_030000Z-k3f9", "near+far"), ("app2_20260612_030000Z-k3f9", "near")];
    assert_eq!(found, expected.map(|(stem, places)| (stem.to_owned(), places.to_owned())));
}
