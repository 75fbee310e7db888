//! Backups of files, restored into volumes of a real Docker Engine.

use std::fs;
use std::path::Path;

use crate::support::archive::{Archive, SMALL_TREE, assert_same, small_tree, uploads_with};
use crate::support::{Docker, NewContainer, Ran, Signal, Test, Volume, eventually, is_root};
use crate::volume_engine::helpers;

/// A test with a backup of a small tree; the target is this volume.
fn archived(volume: &str) -> Test {
    let test = uploads_with("");
    test.write(
        "backup.yml",
        &format!(
            "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
             targets: [ {{ name: uploads, type: volume, volume: {volume}, engine: docker }} ]\n"
        ),
    );
    small_tree(&test.path("was"));
    Archive::of(&test.path("was")).counted(SMALL_TREE).put(&test, "uploads");
    test
}

/// The volume that keeps what this one held, as a restore has told it.
fn former_of(volume: &Volume, ran: &Ran) -> String {
    let begin = format!("{}_before_", volume.name());
    ran.stderr.split_whitespace().find(|word| word.starts_with(&begin)).unwrap().to_owned()
}

/// A container that does nothing, and ends at once when it is told to.
fn idle(docker: &'static Docker) -> NewContainer {
    docker.run(docker.busybox()).option(&["--stop-signal", "KILL"]).command(&["sleep", "1000"])
}

/// What the engine keeps of a volume beside its files: nothing of ours may stay there.
fn beside(mountpoint: &Path) -> Vec<String> {
    let names = fs::read_dir(mountpoint.parent().unwrap()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_volume_is_made_and_filled_by_root() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let name = docker.unique("restored");
    let test = archived(&name);
    test.run(["restore", "uploads"]).ok().says(&format!("to volume {name} of docker"));
    let volume = docker.adopt_volume(&name);
    assert_same(&test.path("was"), &volume.mountpoint());
    assert_eq!(beside(&volume.mountpoint()), ["_data"]);
    let label = docker.ok(["volume", "inspect", "--format", "{{json .Labels}}", &name]);
    assert!(label.contains(r#""db-backup-tools.restored":"20260612_030000Z-t3st""#), "{label}");
    // A container sees it.
    assert_eq!(volume.shell("cat file"), "hello");
    // One that failed is not there.
    let other = docker.unique("failed");
    let artifact = test.stored_one(".tar");
    fs::write(&artifact, fs::read(&artifact).unwrap().repeat(1).split_off(512)).unwrap();
    test.run(["restore", "uploads", "--to-volume", &other]).fails(1);
    assert!(!docker.raw(["volume", "inspect", &other]).status.success());
}

#[test]
fn what_a_volume_holds_is_left_alone_or_kept_in_another() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("data");
    volume.fill(|path| fs::write(path.join("precious"), "old").unwrap());
    let test = archived(volume.name());
    test.run(["restore", "uploads"]).fails(2).says("exists and is not empty").says("--replace");
    let ran = test.run(["restore", "uploads", "--replace"]).ok().says("is kept in volume").says("to remove it: docker volume rm");
    assert_same(&test.path("was"), &volume.mountpoint());
    let former = former_of(&volume, &ran);
    let former = docker.adopt_volume(&former);
    assert_eq!(former.shell("cat precious"), "old");
    assert_eq!((beside(&volume.mountpoint()), beside(&former.mountpoint())), (vec!["_data".into()], vec!["_data".into()]));
    // The commands that were told swap back.
    let back = ran.stderr.lines().find_map(|line| line.split_once("with its containers stopped: ")).unwrap().1;
    assert!(std::process::Command::new("sh").args(["-c", back]).status().unwrap().success());
    assert_eq!((volume.shell("ls"), former.shell("cat file")), ("precious".into(), "hello".into()));
}

#[test]
fn a_volume_in_use_is_refused_or_its_users_are_stopped_meanwhile() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("data");
    let user = idle(docker).volume(&volume, "/data").start();
    let other = idle(docker).start();
    let test = archived(volume.name());
    test.run(["restore", "uploads"]).fails(2).says(user.name()).says("and is running").says("--stop");
    assert!(volume.mountpoint().read_dir().unwrap().next().is_none());
    let (began, others) = (user.started_at(), other.started_at());
    test.run(["restore", "uploads", "--stop"]).ok();
    assert!(user.is_running() && user.started_at() != began && other.started_at() == others);
    assert_eq!(user.exec(["cat", "/data/file"]), "hello");
    user.pause();
    test.run(["restore", "uploads", "--stop", "--replace"]).fails(2).says("and is paused");
    user.unpause();
    // One that only exists is in nobody's way.
    user.stop();
    let ran = test.run(["restore", "uploads", "--replace"]).ok();
    let former = former_of(&volume, &ran);
    drop(docker.adopt_volume(&former));
    assert!(!user.is_running());
}

#[test]
fn a_container_that_was_started_meanwhile_is_noticed_before_the_swap() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("data");
    let test = archived(volume.name());
    let user = idle(docker).volume(&volume, "/data").create();
    let script = format!("case \"$*\" in *--extract*) docker start {} >/dev/null;; esac\nexec /bin/tar \"$@\"", user.name());
    test.script("bin/tar", &script);
    test.run(["restore", "uploads"]).fails(2).says("and is running");
    assert!(user.exec(["ls", "-A", "/data"]).is_empty());
    assert_eq!(beside(&volume.mountpoint()), ["_data"]);
}

#[test]
fn a_directory_that_a_container_has_mounted_is_swapped_while_that_stands_still() {
    let Some(docker) = Docker::shared() else { return };
    let test = archived("unused");
    let live = test.path("live");
    fs::create_dir(&live).unwrap();
    fs::write(live.join("precious"), "old").unwrap();
    let user = idle(docker).bind(&format!("{}:/data", live.display())).start();
    let began = user.started_at();
    let ran = test.run(["restore", "uploads", "--to-path", "live", "--replace"]).ok();
    ran.says("go on with what it is now until they are started again").says(user.name());
    assert_eq!(user.exec(["cat", "/data/precious"]), "old");
    user.stop();
    user.start();
    assert_eq!((user.exec(["cat", "/data/file"]), began != user.started_at()), ("hello".into(), true));
    let began = user.started_at();
    test.run(["restore", "uploads", "--to-path", "live", "--replace", "--stop"]).ok().says("is kept as");
    assert!(user.is_running() && user.started_at() != began);
    assert_eq!(user.exec(["cat", "/data/file"]), "hello");
}

#[test]
fn a_volume_that_is_out_of_reach_is_refused() {
    let Some(docker) = Docker::shared() else { return };
    let test = archived("unused");
    let bound = test.path("bound");
    fs::create_dir(&bound).unwrap();
    let volume = docker.volume_with_options("bound", &["type=none", "o=bind", &format!("device={}", bound.display())]);
    let ran = test.run(["restore", "uploads", "--to-volume", volume.name()]).fails(2);
    assert!(ran.stderr.contains("only while a container uses it") || !is_root(), "{}", ran.stderr);
    assert!(bound.read_dir().unwrap().next().is_none());
}

#[test]
fn a_kill_leaves_containers_running() {
    let Some(docker) = Docker::shared().filter(|_| is_root()) else { return };
    let volume = docker.volume("data");
    let user = idle(docker).volume(&volume, "/data").start();
    let test = archived(volume.name());
    // An engine's client that never comes to an end with what it stopped: the restore is killed right then.
    let docker_client =
        String::from_utf8(std::process::Command::new("sh").args(["-c", "command -v docker"]).output().unwrap().stdout);
    let script = "{docker} \"$@\"; code=$?\n[ \"$1\" != stop ] || { touch {dir}/stopped; while [ -d {dir} ]; do sleep 0.1; done; }\nexit $code";
    test.script("bin/docker", &script.replace("{docker}", docker_client.unwrap().trim()));
    let running = test.spawn(["restore", "uploads", "--stop"]);
    eventually("the container is stopped", || test.path("stopped").exists());
    running.kill(Signal::KILL);
    running.wait();
    fs::remove_file(test.path("bin/docker")).unwrap();
    assert!(!user.is_running());
    test.run(["restore", "uploads", "--stop"]).ok();
    assert!(user.is_running());
    assert_eq!(user.exec(["cat", "/data/file"]), "hello");
}

/// The same, for a volume that only a container reaches.
fn archived_for_helper(docker: &Docker, volume: &str) -> Test {
    let test = archived(volume);
    let text = fs::read_to_string(test.path("backup.yml")).unwrap();
    test.write("backup.yml", &text.replace("engine: docker", &format!("engine: docker, helper_image: '{}'", docker.with_tar())));
    test
}

#[test]
fn a_volume_that_is_out_of_reach_is_written_by_a_container() {
    let Some(docker) = Docker::shared() else { return };
    let bound = tempfile::tempdir().unwrap();
    let volume = docker.volume_with_options("bound", &["type=none", "o=bind", &format!("device={}", bound.path().display())]);
    let test = archived_for_helper(docker, volume.name());
    test.run(["restore", "uploads"]).ok().says("reading the whole backup first").says("to volume");
    assert_same(&test.path("was"), bound.path());
    test.run(["restore", "uploads"]).fails(2).says("exists and is not empty");
    volume.shell("rm -rf dir; echo old >precious");
    let ran = test.run(["restore", "uploads", "--replace"]).ok().says("to copy it back");
    assert_same(&test.path("was"), bound.path());
    let former = former_of(&volume, &ran);
    let former = docker.adopt_volume(&former);
    assert_eq!(former.shell("cat precious; cat file; getfattr --only-values -n user.origin file 2>/dev/null || :"), "old\nhello");
    assert_eq!([volume.name(), former.name()].map(|name| helpers(docker, name)), [(); 2].map(|()| Vec::<String>::new()));
}

#[test]
fn what_is_damaged_or_hostile_touches_no_volume() {
    let Some(docker) = Docker::shared() else { return };
    let bound = tempfile::tempdir().unwrap();
    let volume = docker.volume_with_options("bound", &["type=none", "o=bind", &format!("device={}", bound.path().display())]);
    volume.shell("echo old >precious");
    let test = archived_for_helper(docker, volume.name());
    let artifact = test.stored_one(".tar");
    let mut bytes = fs::read(&artifact).unwrap();
    let place = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[place] = b'j';
    fs::write(&artifact, &bytes).unwrap();
    test.run(["restore", "uploads", "--replace"]).fails(1).says("sha256");
    // Whole by its digest, and forged.
    let was = test.path("was");
    let out = ["-cPf", "-", "--transform", "s,^./file$,../evil,", "-C", was.to_str().unwrap(), "."];
    fs::remove_dir_all(test.storage().join("web1")).unwrap();
    Archive::of_tar(std::process::Command::new("tar").args(out).output().unwrap().stdout).put(&test, "uploads");
    test.run(["restore", "uploads", "--replace"]).fails(1).says("leads upwards");
    assert_eq!(volume.shell("ls"), "precious");
    assert!(!docker.ok(["volume", "ls", "--quiet"]).contains(&format!("{}_before", volume.name())));
}

#[test]
fn a_kill_ends_the_container_and_the_next_restore_mends_it() {
    let Some(docker) = Docker::shared() else { return };
    let bound = tempfile::tempdir().unwrap();
    let volume = docker.volume_with_options("bound", &["type=none", "o=bind", &format!("device={}", bound.path().display())]);
    let test = archived_for_helper(docker, volume.name());
    // More than the pipes on the way hold.
    fs::write(test.path("was/large"), vec![b'x'; 96 << 20]).unwrap();
    fs::remove_dir_all(test.storage().join("web1")).unwrap();
    Archive::of(&test.path("was")).counted([5, 4, 3, 1, SMALL_TREE[4] + (96 << 20)]).put(&test, "uploads");
    let running = test.spawn(["restore", "uploads"]);
    eventually("something is unpacked", || bound.path().join("dir").exists());
    running.kill(Signal::KILL);
    running.wait();
    eventually("its container is gone", || helpers(docker, volume.name()).is_empty());
    let ran = test.run(["restore", "uploads", "--replace"]).ok();
    drop(docker.adopt_volume(&former_of(&volume, &ran)));
    assert_same(&test.path("was"), bound.path());
}
