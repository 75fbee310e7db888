//! What was hurt × how × which command met it: nothing panics, nothing wrong is restored, nothing whole is
//! deleted for a damaged neighbour, and the message names the file.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Planted, Ran, Seed, Test, eventually};

const CONFIG: &str = "
version: 1
host: web1
state_dir: {state}
storages:
  local: { type: local, path: '{storage}' }
defaults: { retention: { keep_last: 1 } }
targets:
  - { name: app, type: postgres, database: app }
  - { name: shop, type: postgres, database: shop }
";

const HARMS: [&str; 8] = ["truncated", "flipped", "emptied", "missing", "swapped", "unreadable", "link", "stand-in"];

/// `good` is older and whole; `harm` is the newest and is hurt; `shop` is of the same run.
struct Scene {
    test: Test,
    harmed: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let test = Test::new().config(CONFIG);
        Planted::new("app", "20260610_030000Z-good").of_seed(2).into(&test.storage());
        Planted::new("shop", "20260611_030000Z-shop").of_seed(2).into(&test.storage());
        let harmed = Planted::new("app", "20260611_030000Z-harm").of_seed(1).into(&test.storage());
        Self { test, harmed }
    }

    fn path(&self, thing: &str) -> PathBuf {
        match thing {
            "artifact" => self.harmed.with_extension("sql"),
            "manifest" => self.harmed.with_extension("manifest.json"),
            "inventory" => self.harmed.with_extension("inventory.json"),
            _ => self.harmed.parent().unwrap().to_owned(),
        }
    }

    /// Does the harm; false: there is no such harm.
    fn harm(&self, thing: &str, harm: &str) -> bool {
        let path = self.path(thing);
        let is_dir = path.is_dir();
        let away = self.test.path("away");
        match harm {
            "truncated" | "flipped" if is_dir => return false,
            "truncated" => rewrite(&path, |bytes| bytes.truncate(bytes.len() / 2)),
            "flipped" => rewrite(&path, |bytes| {
                // In a manifest, a digit of a digest: it still parses. Elsewhere the middle.
                let digest = String::from_utf8_lossy(bytes).find("sha256\": \"").map_or(0, |at| at + 10);
                let digit = || bytes[digest..].iter().position(u8::is_ascii_digit).unwrap();
                let at = if thing == "manifest" { digest + digit() } else { bytes.len() / 2 };
                bytes[at] ^= 1;
            }),
            "emptied" if is_dir => {
                for entry in fs::read_dir(&path).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
            "emptied" => rewrite(&path, Vec::clear),
            "missing" => fs::rename(&path, away).unwrap(),
            "swapped" => {
                let text = path.to_str().unwrap();
                let other = if is_dir {
                    text.replace("20260611", "20260610")
                } else {
                    text.replace("app_", "shop_").replace("harm", "shop")
                };
                fs::rename(&path, &away).unwrap();
                fs::rename(&other, &path).unwrap();
                fs::rename(&away, other).unwrap();
            }
            "unreadable" => {}
            "link" => {
                fs::rename(&path, &away).unwrap();
                symlink(&away, &path).unwrap();
            }
            _ => {
                fs::rename(&path, &away).unwrap();
                if is_dir { fs::write(&path, "").unwrap() } else { fs::create_dir(&path).unwrap() }
            }
        }
        true
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// How the harmed one is shown: `3 damaged`, with a `!` where its file is named.
fn shown(ran: &Ran, name: &str) -> String {
    assert!(matches!(ran.code, Some(0 | 1 | 3 | 4)) && !ran.stderr.contains("panicked"), "{ran:?}");
    let items = ran.json()["items"].as_array().unwrap().clone();
    let row = items.iter().find(|item| item["id"].as_str().unwrap().ends_with("-harm"));
    let state = row.map_or("-", |row| row["state"].as_str().unwrap()).to_owned();
    let named = if ran.stderr.contains(name) { " !" } else { "" };
    format!("{} {state}{named}", ran.code.unwrap())
}

/// What a restore of the newest gave: which one, or its exit code; anything else fails the test.
fn restored(scene: &Scene, name: &str) -> String {
    let output = scene.test.path("restored.sql");
    let ran = scene.test.run(["restore", "app", "--output", output.to_str().unwrap(), "--json"]);
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    let named = if ran.stderr.contains(name) { " !" } else { "" };
    let Ok(bytes) = fs::read(&output) else {
        assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
        return format!("{}{named}", ran.code.unwrap());
    };
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let id = ran.json()["items"][0]["id"].as_str().unwrap()[17..].to_owned();
    let expected = if id == "harm" { 1 } else { 2 };
    assert!(bytes == Seed::get(expected).artifact, "what {id} restored is not what it holds");
    fs::remove_file(output).unwrap();
    format!("{id}{named}")
}

/// What a prune would do with the older one before anybody has verified the newest.
fn decided(ran: &Ran) -> String {
    let items = ran.json()["items"].as_array().unwrap().clone();
    let row = items.iter().find(|item| item["id"].as_str().unwrap().ends_with("-good"));
    row.map_or("-", |row| row["decision"].as_str().unwrap()).to_owned()
}

fn meet(thing: &str, harm: &str) -> Option<Vec<String>> {
    let mut scene = Scene::new();
    if !scene.harm(thing, harm) {
        return None;
    }
    let before = scene.test.stored();
    if harm == "unreadable" {
        scene.test = scene.test.unprivileged();
        fs::set_permissions(scene.path(thing), fs::Permissions::from_mode(0o000)).unwrap();
    }
    // Which of artifact and manifest is wrong about a digest can't be told.
    let name = if thing == "directory" { "20260611_030000Z" } else { "app_20260611_030000Z-harm." };
    let run = |arguments: &[&str]| scene.test.run(arguments);
    let mut row = vec![
        shown(&run(&["list", "app", "--json"]), name),
        shown(&run(&["list", "app", "--all", "--json"]), name),
        restored(&scene, name),
        decided(&run(&["prune", "--dry-run", "--json"])),
        shown(&run(&["list", "app", "--verify", "--json"]), name),
        restored(&scene, name),
    ];
    let prune = run(&["prune"]);
    assert!(matches!(prune.code, Some(0 | 1 | 3)), "{prune:?}");
    row.push(prune.code.unwrap().to_string());
    if harm == "unreadable" {
        fs::set_permissions(scene.path(thing), fs::Permissions::from_mode(0o700)).unwrap();
    }
    // The older one was proven: nothing that befell the newest may cost it.
    let after = scene.test.stored();
    let lost: Vec<_> = before.iter().filter(|file| !file.contains("-harm") && !after.contains(file)).collect();
    assert!(lost.is_empty(), "{thing} {harm}: {lost:?} are gone");
    Some(row)
}

#[test]
fn no_damage_is_restored_hidden_or_costs_a_neighbour() {
    let line = |thing: &str, harm: &str, row: &[&str]| {
        let mut line = format!("{thing:<9} {harm:<10}");
        for (cell, width) in row.iter().zip([12, 12, 7, 6, 13, 7, 5]) {
            let _ = write!(line, " {cell:<width$}");
        }
        line.trim_end().to_owned() + "\n"
    };
    let header = ["list", "list --all", "restore", "prune?", "list --verify", "restore", "prune"];
    let mut matrix = line("", "", &header);
    for thing in ["artifact", "manifest", "inventory", "directory"] {
        for harm in HARMS {
            if let Some(row) = meet(thing, harm) {
                matrix += &line(thing, harm, &row.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }
    // `!`: the file is named. `prune?`: what would befall the older one while nobody knows better.
    assert_snapshot!(matrix, @r"
                         list         list --all   restore prune? list --verify restore prune
    artifact  truncated  3 damaged !  3 damaged !  good !  keep   1 damaged !   good !  0
    artifact  flipped    0 whole      0 whole      1 !     delete 1 damaged !   good !  0
    artifact  emptied    3 damaged !  3 damaged !  good !  keep   1 damaged !   good !  0
    artifact  missing    3 damaged !  3 damaged !  good !  keep   1 damaged !   good !  0
    artifact  swapped    0 whole      0 whole      1 !     delete 1 damaged !   good !  0
    artifact  unreadable 0 whole      0 whole      1 !     delete 1 whole !     1 !     0
    artifact  link       3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    artifact  stand-in   3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    manifest  truncated  3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    manifest  flipped    0 whole      0 whole      1 !     delete 1 damaged !   good !  0
    manifest  emptied    3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    manifest  missing    0 -          0 incomplete good    keep   0 -           good    0
    manifest  swapped    3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    manifest  unreadable 3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    manifest  link       3 - !        3 unknown !  1 !     keep   1 - !         1 !     3
    manifest  stand-in   0 -          3 unknown !  good    keep   0 -           good    0
    inventory truncated  0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory flipped    0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory emptied    0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory missing    0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory swapped    0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory unreadable 0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory link       0 whole      0 whole      harm    delete 1 whole !     harm    0
    inventory stand-in   0 whole      0 whole      harm    delete 1 whole !     harm    0
    directory emptied    0 -          0 -          good    keep   0 -           good    0
    directory missing    0 -          0 -          good    keep   0 -           good    0
    directory swapped    0 -          0 - !        4       -      0 -           4       0
    directory unreadable 1 - !        1 - !        1 !     -      1 - !         1 !     1
    directory link       1 - !        1 - !        1 !     -      1 - !         1 !     1
    directory stand-in   1 - !        1 - !        1 !     -      1 - !         1 !     1
    ");
}

/// The program stops where it opens the artifact; this does something, and lets it go on.
fn while_it_reads(test: Test, act: impl FnOnce(&Test)) -> (Test, Ran) {
    let scene = Scene { harmed: test.storage().join("web1/20260611_030000Z/app_20260611_030000Z-harm"), test };
    let artifact = scene.path("artifact").to_str().unwrap().to_owned();
    let log = scene.test.path("trace").to_str().unwrap().to_owned();
    let stop = "inject=open,openat,openat2:signal=STOP:when=1";
    let test = scene.test.under(["strace", "-f", "-qq", "-o", &log, "-P", &artifact, "-e", stop]);
    let running = test.spawn(["list", "app", "--verify", "--json"]);
    let child = || {
        let pid = running.pid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)
    };
    eventually("it opens the artifact", || fs::read_to_string(&log).unwrap_or_default().contains("stopped by SIGSTOP"));
    act(&test);
    kill_process(child().unwrap(), Signal::CONT).unwrap();
    let ran = running.wait();
    (test, ran)
}

#[test]
fn what_is_deleted_while_it_is_verified_gets_no_verdict() {
    let Scene { test, .. } = Scene::new();
    let (test, ran) = while_it_reads(test, |test| {
        test.run_at("2026-06-12T12:00:00Z", ["prune", "--delete", "harm"]).ok();
    });
    let ran = ran.ok().says("20260611_030000Z-harm was deleted in local while it was read");
    assert!(!ran.stdout.contains("harm\""), "{}", ran.stdout);
    let stored = test.stored();
    assert!(!stored.iter().any(|file| file.contains("harm")), "{stored:?}");
    assert!(stored.iter().any(|file| file.contains("good.verify.")), "{stored:?}");
}
