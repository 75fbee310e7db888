//! Backups of volumes of real container engines: at their mountpoint, or in a container where they can't be read from here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::support::{CutEngine, Docker, Podman, Test, eventually, is_root, volume_target::tar_of};

const HELPERS: &str = "db-backup-tools=helper";

fn manifest(test: &Test) -> Value {
    serde_json::from_slice(&fs::read(test.stored_one(".manifest.json")).unwrap()).unwrap()
}

/// A volume's files are in a directory of the test: no one sees them at its mountpoint.
fn bound(docker: &'static Docker, test: &Test) -> super::support::engine::Volume {
    fs::create_dir(test.path("tree")).unwrap();
    let device = format!("device={}", test.path("tree").display());
    docker.volume_with_options("bound", &["type=none", "o=bind", &device])
}

/// Gives the test a target of this volume, with more of its keys.
fn target(test: &Test, volume: &str, keys: &str) {
    let text = format!(
        "version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\n\
         targets:\n  - {{ name: files, type: volume, volume: {volume}{}{keys} }}\n",
        if keys.is_empty() { "" } else { ", " }
    );
    test.write("backup.yml", &text);
}

/// Helper containers of this engine that use this volume. Others' tests have theirs.
pub(crate) fn helpers(docker: &Docker, volume: &str) -> Vec<String> {
    let filters = [format!("label={HELPERS}"), format!("volume={volume}")];
    let listed = docker.ok(["ps", "-a", "-q", "--filter", &filters[0], "--filter", &filters[1]]);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn a_volume_is_read_at_its_mountpoint() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("plain");
    volume.fill(|root| fs::write(root.join("a"), "content").unwrap());
    let test = Test::new();
    target(&test, volume.name(), "");
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./", "./a"]);
    let facts = &manifest(&test)["restore"];
    assert_eq!((&facts["volume"], &facts["engine"], &facts["path"]), (&volume.name().into(), &"docker".into(), &Value::Null));
    assert!(facts["archiver"].as_str().unwrap().ends_with(" on the host"), "{facts}");
    let said = test.run(["validate", "--connect"]).ok().stdout;
    assert!(said.contains(&format!("on volume {} of docker, at its mountpoint", volume.name())), "{said}");
}

#[test]
fn what_can_not_be_read_from_here_is_read_in_a_container() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    test.in_tree("mkdir d; echo content >d/a; ln d/a d/b; truncate -s 64M sparse; mkfifo f; touch \"$(printf 'new\\nline')\" x.tmp; setfattr -n user.note -v 1 d/a; setfacl -m u:nobody:rw d/a");
    target(&test, volume.name(), "");
    test.run(["backup"]).fails(1).says("can't be read from here").says("driver options").says("helper_image:");
    target(&test, volume.name(), &format!("helper_image: {}, exclude: ['*.tmp']", docker.with_tar()));
    let said = test.run(["backup", "--dry-run"]).ok().stdout;
    let way = format!("in a container of image {}, on volume {} of docker", docker.with_tar(), volume.name());
    assert!(said.contains(&way) && said.contains("GNU tar 1."), "{said}");
    assert_eq!(test.run(["backup", "--json"]).ok().json()["items"][0]["warnings"], serde_json::json!([]));
    assert_eq!(test.archived(), ["./", "./d/", "./d/a", "./d/b", "./f", "./new\\nline", "./sparse"]);
    test.in_tree("rm x.tmp");
    tar_of(&test.stored_one(".tar.gz"), &["--compare", "--directory", test.path("tree").to_str().unwrap()]);
    let back = test.path("back");
    fs::create_dir(&back).unwrap();
    tar_of(
        &test.stored_one(".tar.gz"),
        &["--extract", "--xattrs", "--xattrs-include=*", "--directory", back.to_str().unwrap(), "./d"],
    );
    let of = |root: &str| {
        let words = ["-cn", "--absolute-names", "d/a"];
        let acl = Command::new("getfacl").args(words).current_dir(test.path(root)).output().unwrap().stdout;
        let attributes = Command::new("getfattr").args(["-d", "d/a"]).current_dir(test.path(root)).output().unwrap().stdout;
        String::from_utf8([acl, attributes].concat()).unwrap()
    };
    assert_eq!(of("tree"), of("back"));
    assert!(of("back").contains("user:65534:rw-") && of("back").contains("user.note=\"1\""), "{}", of("back"));
    let manifest = manifest(&test);
    assert!(
        manifest["restore"]["archiver"].as_str().unwrap().ends_with(&format!("in a container of image {}", docker.with_tar()))
    );
    assert_eq!((&manifest["inventory"]["files"], &manifest["inventory"]["bytes"]), (&3.into(), &((64 << 20) + 8).into()));
    assert!(helpers(docker, volume.name()).is_empty());
}

#[test]
fn whoever_may_use_the_engine_and_not_enter_the_mountpoint_reads_it_in_a_container() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("closed");
    volume.fill(|root| fs::write(root.join("a"), "content").unwrap());
    let Ok(socket) = fs::metadata("/var/run/docker.sock") else { return };
    let test = Test::new();
    target(&test, volume.name(), "");
    let test = test.unprivileged_in_group(socket.gid());
    test.run(["backup"]).fails(1).says("can't be read from here").says("Permission denied").says("helper_image:").says("as root");
    target(&test, volume.name(), &format!("helper_image: {}", docker.with_tar()));
    std::os::unix::fs::chown(test.path("backup.yml"), Some(65534), None).unwrap();
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./", "./a"]);
}

#[test]
fn whoever_may_not_use_the_engine_is_told_so() {
    if Docker::shared().is_none() || !is_root() {
        return;
    }
    let test = Test::new();
    target(&test, "any", "engine: docker");
    test.unprivileged().run(["backup"]).fails(1).says("permission denied").says("as a member of the group docker");
}

#[test]
fn a_helper_without_gnu_tar_is_refused_unless_that_is_said_and_recorded() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    let busybox = docker.busybox();
    test.in_tree("echo content >a");
    target(&test, volume.name(), &format!("helper_image: {busybox}"));
    test.run(["backup"])
        .fails(1)
        .says(&format!("tar in the image {busybox} is not GNU tar (tar (busybox)"))
        .says("archiver: basic");
    test.run(["validate", "--connect"]).fails(1);
    target(&test, volume.name(), &format!("helper_image: {busybox}, archiver: basic"));
    let ran = test.run(["backup", "--json"]).ok();
    let warning = ran.json()["items"][0]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("a basic tar (tar (busybox)") && warning.contains("are not kept"), "{warning}");
    assert_eq!(test.archived(), ["./", "./a"]);
    assert_eq!((&manifest(&test)["restore"]["basic"], &manifest(&test)["warnings"][0]), (&true.into(), &warning.into()));
    target(&test, volume.name(), &format!("helper_image: {busybox}, archiver: basic, exclude: [b]"));
    // It knows no such option, or does as it is told.
    let ran = test.run(["backup"]);
    assert!(ran.code == Some(0) || (ran.code == Some(1) && ran.stderr.contains("--exclude")), "{}", ran.stderr);
}

#[test]
fn an_image_that_is_not_here_is_never_pulled() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    target(&test, volume.name(), "helper_image: localhost:9/no/such:image");
    let ran = test.run(["backup"]).fails(1).says("the image localhost:9/no/such:image is not on this machine");
    ran.says("docker pull localhost:9/no/such:image");
}

#[test]
fn an_image_without_a_tar_is_said() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    let empty = docker.unique("empty").to_lowercase();
    let tar = test.path("empty.tar");
    assert!(Command::new("tar").args(["-cf", tar.to_str().unwrap(), "--files-from=/dev/null"]).status().unwrap().success());
    docker.ok(["import", tar.to_str().unwrap(), &empty]);
    target(&test, volume.name(), &format!("helper_image: {empty}"));
    let ran = test.run(["backup"]);
    docker.ok(["rmi", &empty]);
    ran.fails(1).says(&format!("there is no tar in the image {empty}")).says("debian:stable-slim");
}

#[test]
fn a_volume_that_is_not_there_is_not_made() {
    let Some(docker) = Docker::shared() else { return };
    let name = docker.unique("absent");
    let test = Test::new();
    target(&test, &name, &format!("engine: docker, helper_image: {}", docker.with_tar()));
    test.run(["backup"]).fails(1).says(&format!("docker has no volume {name}")).says("docker volume ls");
    assert!(!docker.adopt_volume(&name).exists());
}

#[test]
fn an_engine_on_another_machine_is_not_read_at_a_path_of_this_one() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("there");
    volume.fill(|root| fs::write(root.join("a"), "content").unwrap());
    let real = docker.command(["x"]).get_program().to_str().unwrap().to_owned();
    let test = Test::new()
        .fake_bin("docker", &format!("[ \"$1\" = info ] && {{ echo elsewhere; exit; }}; exec {real} \"$@\" # --version"));
    target(&test, volume.name(), "");
    test.run(["backup"]).fails(1).says("docker runs on another machine").says("helper_image:");
    target(&test, volume.name(), &format!("helper_image: {}", docker.with_tar()));
    test.run(["backup"]).ok();
    assert!(manifest(&test)["restore"]["archiver"].as_str().unwrap().contains("in a container"));
    assert_eq!(test.archived(), ["./", "./a"]);
}

#[test]
fn what_tar_says_in_a_container_counts_as_well() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    let _socket = std::os::unix::net::UnixListener::bind(test.path("tree/s.sock")).unwrap();
    target(&test, volume.name(), &format!("helper_image: {}", docker.with_tar()));
    test.run(["backup"]).ok().says("1 file left out, as a tar holds no sockets: s.sock");
    test.in_tree("mkdir pg; touch pg/PG_VERSION pg/postmaster.pid");
    test.run(["backup"]).fails(1).says("a live database is in it: pg has PG_VERSION and postmaster.pid");
    eventually("the helper is gone", || helpers(docker, volume.name()).is_empty());
}

#[test]
fn a_way_to_the_engine_that_ends_midway_makes_no_backup() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    test.in_tree("head -c 3000000 /dev/urandom >a");
    target(&test, volume.name(), &format!("helper_image: {}", docker.with_tar()));
    let cut = CutEngine::after(docker, 1_000_000);
    let test = test.env("DOCKER_HOST", cut.host());
    test.run(["backup"]).fails(1);
    assert!(!test.stored().iter().any(|path| path.ends_with(".manifest.json")));
    eventually("the helper is gone", || helpers(docker, volume.name()).is_empty());
}

/// A backup that takes long, in a container that is at it.
fn at_work(docker: &'static Docker, test: &Test, volume: &str) -> super::support::Running {
    test.in_tree("head -c 600000000 /dev/zero >a");
    target(test, volume, &format!("helper_image: {}", docker.with_tar()));
    let running = test.spawn(["backup"]);
    eventually("a helper reads the volume", || !helpers(docker, volume).is_empty());
    running
}

#[test]
fn a_signal_leaves_no_container() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    let mut running = at_work(docker, &test, volume.name());
    running.kill(Signal::TERM);
    assert!(running.ends_within(Duration::from_secs(40)));
    running.wait().fails(143);
    assert_eq!(helpers(docker, volume.name()), Vec::<String>::new());
    assert!(!test.stored().iter().any(|path| path.ends_with(".manifest.json")));
}

#[test]
fn a_program_that_is_killed_leaves_no_container_for_long() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let volume = bound(docker, &test);
    let running = at_work(docker, &test, volume.name());
    kill_process(running.pid(), Signal::KILL).unwrap();
    eventually("the helper has ended by itself", || helpers(docker, volume.name()).is_empty());
    drop(running);
}

#[test]
fn a_database_container_that_runs_is_refused_and_one_that_is_stopped_is_not() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("pg");
    let server =
        docker.run(docker.postgres()).volume(&volume, "/var/lib/postgresql/data").env("POSTGRES_PASSWORD", "x").start().ready();
    let test = Test::new();
    target(&test, volume.name(), "");
    test.run(["backup"])
        .fails(1)
        .says("a live database is in it: its root has PG_VERSION and postmaster.pid")
        .says("type: postgres");
    server.stop();
    test.run(["backup"]).ok();
    assert!(test.archived().contains(&"./PG_VERSION".to_owned()));
}

#[test]
fn a_volume_of_podman_is_read_at_its_mountpoint() {
    let Some(podman) = Podman::shared() else { return };
    let volume = podman.volume("files");
    fs::write(volume.mountpoint().join("a"), "content").unwrap();
    let test = podman.for_program(Test::new());
    target(&test, volume.name(), "engine: podman");
    test.run(["backup"]).ok();
    assert_eq!(
        (test.archived(), &manifest(&test)["restore"]["engine"]),
        (vec!["./".to_owned(), "./a".to_owned()], &"podman".into())
    );
}

#[test]
fn podman_reads_a_volume_in_a_container_too() {
    let Some(podman) = Podman::shared().filter(|_| is_root()) else { return };
    let volume = podman.volume("files");
    fs::write(volume.mountpoint().join("a"), "content").unwrap();
    // As where its engine is in a virtual machine.
    let real = Command::new("sh").args(["-c", "command -v podman"]).output().unwrap().stdout;
    let real = String::from_utf8(real).unwrap();
    let script = format!("[ \"$1\" = info ] && {{ echo elsewhere; exit; }}; exec {} \"$@\" # --version", real.trim());
    let test = podman.for_program(Test::new()).fake_bin("podman", &script);
    target(&test, volume.name(), &format!("engine: podman, helper_image: {}", podman.with_tar()));
    test.run(["backup"]).ok();
    assert_eq!(test.archived(), ["./", "./a"]);
    assert!(manifest(&test)["restore"]["archiver"].as_str().unwrap().contains("in a container"));
}
