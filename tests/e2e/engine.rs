//! What the tests on containers stand on: the engine, its images, and that nothing of a test outlives it.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::engine::PROCESS_LABEL;
use crate::support::{Compose, CutEngine, Docker, Podman, Test, cluster, eventually, is_root};

#[test]
fn a_server_in_a_container_answers_and_is_dumped_there() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker
        .run(docker.postgres())
        .name("db")
        .env("POSTGRES_USER", "app")
        .env("POSTGRES_DB", "shop")
        .env("POSTGRES_PASSWORD", cluster::PASSWORD)
        .start()
        .ready();
    container.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    assert_eq!(container.psql("SELECT current_user, current_database(), count(*) FROM t"), "app|shop|1000");
    let dump = container.exec(["pg_dump", "-U", "app", "shop"]);
    assert!(dump.contains("COPY public.t (n) FROM stdin;") && dump.contains("\n1000\n"), "{dump}");
    assert_eq!(container.inspect()["Config"]["Volumes"]["/var/lib/postgresql/data"], serde_json::json!({}));
}

#[test]
fn a_stopped_container_starts_again_with_its_data() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker.postgres_container();
    container.psql("CREATE TABLE kept ()");
    let (id, started) = (container.id(), container.started_at());
    container.stop();
    assert_eq!(container.state(), "exited");
    container.start();
    container.wait_ready();
    assert_eq!(container.psql("SELECT count(*) FROM kept"), "0");
    assert!(container.id() == id && container.started_at() != started);
    container.pause();
    assert_eq!(container.state(), "paused");
    container.unpause();
    assert!(container.is_running());
}

#[test]
fn the_helper_image_keeps_what_busybox_does_not() {
    let Some(docker) = Docker::shared() else { return };
    let [from, to] = ["from", "to"].map(|name| docker.volume(name));
    // As another user, the files come by the same tar, and some attributes are root's alone.
    from.fill(|root| {
        let file = root.join("sparse");
        fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
        let set = Command::new("setfattr").args(["-n", "user.note", "-v", "kept"]).arg(&file).status();
        assert!(set.unwrap().success());
        assert!(Command::new("setfacl").args(["-m", "u:12345:r"]).arg(&file).status().unwrap().success());
    });
    let tar = "cd /from && tar -c --xattrs --acls --sparse . | tar -x -p --xattrs --acls -C /to";
    let copier = docker.run(docker.with_tar()).volume(&from, "/from:ro").volume(&to, "/to").start();
    copier.exec(["sh", "-c", tar]);
    assert_eq!(copier.exec(["stat", "-c", "%s", "/to/sparse"]), (64 << 20).to_string());
    let blocks: u32 = copier.exec(["stat", "-c", "%b", "/to/sparse"]).parse().unwrap();
    assert!(blocks < 1000, "{blocks} blocks");
    let listed = copier.exec(["sh", "-c", "cd /to && tar -c --xattrs --acls sparse | tar -tvv --xattrs --acls"]);
    assert!(listed.contains("user.note") && listed.contains("user:12345:r--"), "{listed}");
    let busybox = docker.run(docker.busybox()).start();
    let version = busybox.exec(["sh", "-c", "tar --version 2>&1 || true"]);
    assert!(version.contains("busybox") && !version.contains("GNU"), "{version}");
}

#[test]
fn containers_and_volumes_go_with_their_guards() {
    let Some(docker) = Docker::shared() else { return };
    let volume = docker.volume("data");
    volume.fill(|root| fs::write(root.join("file"), "text\n").unwrap());
    assert_eq!(volume.shell("cat file"), "text");
    let container = docker.run(docker.busybox()).name("web").volume(&volume, "/data").label("a=b").start();
    assert_eq!(container.exec(["cat", "/data/file"]), "text");
    let (container_name, volume_name) = (container.name().to_owned(), volume.name().to_owned());
    assert!(container_name.ends_with("-web") && docker.containers_with(&docker.label()).contains(&container_name));
    drop(container);
    drop(volume);
    assert!(!docker.adopt_container(&container_name).exists());
    assert!(!docker.adopt_volume(&volume_name).exists());
}

#[test]
fn a_cut_way_to_the_engine_ends_output_early() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker.run(docker.busybox()).start();
    let cut = CutEngine::after(docker, 1 << 20);
    let mut exec = docker.command(["exec", container.name(), "head", "-c", "30000000", "/dev/zero"]);
    let output = exec.env("DOCKER_HOST", cut.host()).output().unwrap();
    assert!((1_000_000..1_100_000).contains(&output.stdout.len()), "{} bytes", output.stdout.len());
    // Questions are answered.
    let mut ps = docker.command(["ps", "--no-trunc", "--quiet"]);
    let output = ps.env("DOCKER_HOST", cut.host()).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(&container.id()));
}

const VICTIM: &str = "DB_BACKUP_TEST_VICTIM_OF_DOCKER";

/// Not a test by itself: the process that the next one kills.
#[test]
fn a_process_with_containers_that_waits_to_be_killed() {
    let Some(file) = std::env::var_os(VICTIM) else { return };
    let Some(docker) = Docker::shared() else { return };
    let volume = docker.volume("data");
    let _container = docker.run(docker.busybox()).volume(&volume, "/data").start();
    fs::write(&file, docker.label() + "\n").unwrap();
    eventually("it is killed", || false);
}

#[test]
fn a_killed_test_process_leaves_no_container_and_no_volume() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    let file = test.path("label");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine::a_process_with_containers_that_waits_to_be_killed"])
        .env(VICTIM, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let label = || fs::read_to_string(&file).unwrap_or_default();
    eventually("its container runs", || label().ends_with('\n'));
    let label = label().trim_end().to_owned();
    assert!(label.starts_with(PROCESS_LABEL) && label != docker.label());
    let left = || docker.containers_with(&label).len() + docker.volumes_with(&label).len();
    assert_eq!(left(), 2);
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("what it made is gone", || left() == 0);
}

#[test]
fn a_compose_project_comes_up_and_goes() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new().file(
        "compose.yml",
        &format!(
            "services:\n  web:\n    image: {}\n    network_mode: none\n    volumes: ['data:/data']\nvolumes:\n  data: {{}}\n",
            docker.busybox()
        ),
    );
    let Some(compose) = Compose::up(&test.path("compose.yml")) else { return };
    let web = compose.container("web");
    let labels = &web.inspect()["Config"]["Labels"];
    assert_eq!(labels["com.docker.compose.service"], "web");
    assert_eq!(labels["com.docker.compose.project"], compose.project());
    assert_eq!(labels["com.docker.compose.project.config_files"], test.path("compose.yml").to_str().unwrap());
    assert_eq!(labels["com.docker.compose.project.working_dir"], test.path("").to_str().unwrap().trim_end_matches('/'));
    let volume = docker.adopt_volume(&compose.volume("data"));
    assert!(volume.exists());
    drop(compose);
    assert!(!web.exists() && !volume.exists());
}

#[test]
fn podman_has_volumes_and_runs_the_helper_image() {
    let Some(podman) = Podman::shared() else { return };
    let volume = podman.volume("data");
    fs::write(volume.mountpoint().join("file"), "text").unwrap();
    assert!(podman.ok(["volume", "ls", "-q"]).lines().any(|name| name == volume.name()));
    if is_root() {
        let mount = format!("{}:/data:ro", volume.name());
        let run = ["run", "--rm", "--network", "none", "-v", &mount, podman.with_tar(), "tar", "-c", "-C", "/data", "."];
        assert!(podman.ok(run).contains("./file"));
    }
}
