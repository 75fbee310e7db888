//! What a person meets where a container is not what the configuration says, and what it tells them.

use std::process::{Command, Stdio};

use crate::support::engine::program;
use crate::support::{Container, Docker, Test, is_root};

/// What the run says, without the test's own names.
fn said(test: &Test, arguments: &[&str], code: i32, container: &Container) -> String {
    let said = test.run(arguments).fails(code).stderr.replace(container.name(), "NAME");
    said.lines().filter(|line| !line.starts_with("backup: ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_container_that_does_not_run_is_told_with_what_to_do() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker.run(docker.busybox()).start();
    let test = Test::inside(&container, "shop").target_option("retries: 0");
    container.pause();
    insta::assert_snapshot!(said(&test, &["backup"], 1, &container), @r"
    app: failed
    error: app: container: container NAME is paused
      hint: let it go on: docker unpause NAME
    ");
    container.unpause();
    docker.ok(["kill", container.name()]);
    insta::assert_snapshot!(said(&test, &["backup"], 1, &container), @r"
    app: failed
    error: app: container: container NAME is not running
      hint: start it: docker start NAME; why it ended: docker logs NAME
    ");
    docker.ok(["rm", container.name()]);
    insta::assert_snapshot!(said(&test, &["backup"], 1, &container), @r"
    app: failed
    error: app: engine: neither docker nor podman has a container NAME
      hint: look at the names in `docker ps --all`; Compose's are PROJECT-SERVICE-1, or use `compose: { file, service }`
    ");
    assert!(test.stored().is_empty());
}

#[test]
fn a_container_without_the_programs_is_told_of() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker.run(docker.busybox()).start();
    let test = Test::inside(&container, "shop").target_option("retries: 0");
    insta::assert_snapshot!(said(&test, &["backup"], 1, &container), @r"
    app: failed
    error: app: programs: container NAME has no psql
      hint: is it the database's? look at the containers and their images: docker ps
    ");
}

#[test]
fn a_container_without_a_shell_is_told_of() {
    let Some(docker) = Docker::shared() else { return };
    let test = Test::new();
    std::fs::copy(program("busybox").unwrap(), test.path("tmp/sleep")).unwrap();
    let image = docker.unique("bare");
    let mut tar =
        Command::new("tar").arg("-c").arg("-C").arg(test.path("tmp")).arg("sleep").stdout(Stdio::piped()).spawn().unwrap();
    let mut import = docker.command(["import", "-c", r#"CMD ["/sleep", "600"]"#, "-", &image]);
    assert!(import.stdin(tar.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap().success());
    tar.wait().unwrap();
    let container = docker.run(&image).start();
    let test = Test::inside(&container, "shop").target_option("retries: 0");
    let text = said(&test, &["backup"], 1, &container);
    drop(container);
    docker.ok(["rmi", &image]);
    insta::assert_snapshot!(text, @r"
    app: failed
    error: app: programs: container NAME has no shell, with which psql would be found and run in it
      hint: is it the database's? look at the containers and their images: docker ps
    ");
}

#[test]
fn an_engine_that_can_not_be_asked_is_told_of() {
    let Some(docker) = Docker::shared() else { return };
    let container = docker.run(docker.busybox()).start();
    let test = || Test::inside(&container, "shop").target_option("retries: 0").target_option("engine: docker");
    let down = test().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    insta::assert_snapshot!(said(&down, &["backup"], 1, &container), @r"
    app: failed
    error: app: engine: docker exited with code 1: Cannot connect to the Docker daemon at unix:///nonexistent/docker.sock. Is the docker daemon running?
      hint: start the engine, and look at it with: docker ps
    ");
    let absent = test().env("PATH", "/nonexistent");
    insta::assert_snapshot!(said(&absent, &["backup"], 1, &container), @r"
    app: failed
    error: app: engine: there is no docker in a directory of PATH
      hint: install the engine's client, or add its directory to PATH; cron's PATH is shorter than a shell's
    ");
    if is_root() {
        let ran = test().unprivileged().run(["backup"]).fails(1);
        let ran = ran.says("permission denied").says("run it as root, or as a member of the group docker");
        assert!(!ran.stderr.contains("start the engine"), "{}", ran.stderr);
    }
}

#[test]
fn a_server_in_a_container_that_wants_a_password_is_told_of() {
    let Some(container) = Container::postgres() else { return };
    let database = container.new_database("");
    let address = container.exec(["hostname", "-i"]);
    let test = Test::inside(container, &database).target_option(&format!("host: {}", address.trim()));
    test.run(["backup"]).fails(1).says("no password supplied").says("set `password:` in the target");
    let wrong = test.target_option("password: ${WRONG}").env("WRONG", "not-the-right-one");
    wrong.run(["backup"]).fails(1).says("password authentication failed").never_shows("not-the-right-one");
}
