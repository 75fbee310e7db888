//! Containers that stand still while a volume is read: none longer than that, none that did not run, and all of them go on,
//! whatever ends the backup.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::engine::Container;
use crate::support::tool::Running;
use crate::support::{Docker, Podman, Signal, Test, Traced, eventually, is_root};

/// Far longer than an end should take, and far shorter than what is waited for here.
const SOON: Duration = Duration::from_secs(40);
/// In the place of tar: says what the test's containers do while it reads, and goes on as this says.
const READS: &str = "case \"$*\" in *--file=-*)
    for name in $CONTAINERS; do
        echo \"$(${ENGINE:-docker} container inspect --format '{{.State.Status}}' $name)\" >>{dir}/states.new
    done
    mv {dir}/states.new {dir}/states
    ";
const ON: &str = ";; esac\nexec /usr/bin/tar \"$@\"";
/// Until the test lets it, or ends.
const WAITS: &str = "while [ -d {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done";

/// A target `files` on a directory, with these lines, whose tar tells of these containers.
fn test_of(lines: &str, containers: &[&Container], reads: &str) -> Test {
    let test = Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets:\n  - name: files\n    type: volume\n    path: '{{dir}}/data'\n    {}\n",
        lines.replace('\n', "\n    ")
    ));
    fs::create_dir(test.path("data")).unwrap();
    fs::write(test.path("data/file"), "content\n").unwrap();
    test.script("bin/tar", &format!("{READS}{reads}{ON}"));
    let names: Vec<&str> = containers.iter().map(|one| one.name()).collect();
    test.env("CONTAINERS", names.join(" "))
}

/// What the containers did while tar read, in their order.
fn states(test: &Test) -> Vec<String> {
    fs::read_to_string(test.path("states")).unwrap().lines().map(str::to_owned).collect()
}

/// What is left to be undone.
fn records(test: &Test) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(test.path("state/undo")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    paths.map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()).collect()
}

fn names(containers: &[&Container]) -> String {
    containers.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ")
}

/// One that waits with its end, once it is told to stop, until [`let_end`].
fn slow(docker: &'static Docker) -> Container {
    let waits =
        "trap 'touch /stopping; while [ ! -e /end ]; do sleep 0.05; done; exit 0' TERM; touch /up; while :; do sleep 0.1; done";
    let slow = docker.run(docker.busybox()).name("slow").option(&["--stop-timeout", "100"]);
    let slow = slow.command(&["sh", "-c", waits]).start();
    eventually("it is up", || has(&slow, "/up"));
    slow
}

fn has(container: &Container, file: &str) -> bool {
    container.try_exec(["test", "-e", file]).status.success()
}

fn let_end(slow: &Container) {
    slow.exec(["touch", "/end"]);
}

fn box_of(docker: &'static Docker, name: &str) -> Container {
    docker.run(docker.busybox()).name(name).start()
}

/// Starts a backup, and comes back while it reads.
fn reading(test: &Test) -> Running {
    let _ = fs::remove_file(test.path("states"));
    let running = test.spawn(["backup"]);
    eventually("it reads", || test.path("states").exists());
    running
}

#[test]
fn containers_are_stopped_while_it_is_read_and_only_those_that_ran_go_on() {
    let Some(docker) = Docker::shared() else { return };
    let (web, db, idle) = (box_of(docker, "web"), box_of(docker, "db"), docker.run(docker.busybox()).name("idle").create());
    let was = web.started_at();
    let all = [&web, &db, &idle];
    let test = test_of(&format!("stop: [{}]", names(&all)), &all, "");
    let both = names(&[&web, &db]);
    let planned = test.run(["backup", "--dry-run"]).ok();
    assert!(planned.stdout.contains(&format!("would stop {both} (not running: {})", idle.name())), "{}", planned.stdout);
    let looked = test.run(["validate", "--connect"]).ok();
    assert!(looked.stdout.contains(&format!("would stop {both} (not running: ")), "{}", looked.stdout);
    assert_eq!(web.started_at(), was);
    test.run(["backup"]).ok().says(&format!("files: stopped {both}\n")).says(&format!("files: started again {both} after "));
    assert_eq!(states(&test), ["exited", "exited", "created"]);
    assert_eq!((web.state(), db.state(), idle.state()), ("running".into(), "running".into(), "created".into()));
    assert!(web.started_at() > db.started_at() && db.started_at() > was, "they start in the other order");
    assert_eq!(records(&test), Vec::<Value>::new());
}

#[test]
fn what_somebody_else_starts_meanwhile_puts_the_backup_in_doubt() {
    let Some(docker) = Docker::shared() else { return };
    let web = box_of(docker, "web");
    let test = test_of(&format!("stop: [{}]", web.name()), &[&web], "docker start $CONTAINERS >/dev/null");
    let said = format!("container {}, stopped meanwhile, ran again before it was over", web.name());
    test.run(["backup"]).fails(3).says(&said);
    assert_eq!((states(&test), web.state(), records(&test)), (vec!["exited".to_owned()], "running".into(), Vec::new()));
}

/// It may well have containers that write.
#[test]
fn an_engine_that_does_not_say_what_uses_a_path_is_not_passed_over() {
    let with = |said: &str| {
        let test = test_of("stop: users", &[], "").fake_bin("docker", &format!("echo '{said}' >&2\nexit 1"));
        fs::remove_file(test.path("bin/tar")).unwrap();
        test.fake_bin("podman", "exit 0").run(["backup"])
    };
    let denied = "permission denied while trying to connect to the Docker daemon socket";
    with(denied).fails(1).says("permission denied").says("member of the group docker");
    // None of its containers runs.
    with("failed to connect to the docker API: dial unix /run/docker.sock: connect: no such file or directory").ok();
}

#[test]
fn all_that_use_a_volume_are_stopped_and_no_others() {
    let Some(docker) = Docker::shared() else { return };
    let (volume, other) = (docker.volume("data"), docker.volume("other"));
    volume.fill(|root| fs::write(root.join("file"), "content\n").unwrap());
    let writer = docker.run(docker.busybox()).name("writer").volume(&volume, "/data").start();
    let reader = docker.run(docker.busybox()).name("reader").volume(&volume, "/data:ro").start();
    let stranger = docker.run(docker.busybox()).name("stranger").volume(&other, "/data").start();
    let test = test_of("stop: users", &[&writer, &reader, &stranger], "");
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let place = format!("path: '{}'", test.path("data").display());
    let helper = format!("volume: {}\n    helper_image: {}", volume.name(), docker.with_tar());
    test.write("backup.yml", &config.replace(&place, &helper));
    let was = stranger.started_at();
    // Read on this machine, it tells what they do; in a helper container, that it is none of the users.
    test.run(["backup"]).ok().says("files: stopped ").says(writer.name()).says(reader.name());
    if test.path("states").exists() {
        assert_eq!(states(&test), ["exited", "exited", "running"]);
    }
    assert_eq!(([&writer, &reader].map(Container::is_running), stranger.started_at()), ([true; 2], was));
}

#[test]
fn all_that_have_a_path_mounted_or_what_is_below_or_above_it_are_stopped() {
    let Some(docker) = Docker::shared() else { return };
    let test = test_of("pause: users", &[], "");
    fs::create_dir_all(test.path("data/sub")).unwrap();
    fs::create_dir(test.path("data2")).unwrap();
    let bind = |name: &str, path: &str| {
        docker.run(docker.busybox()).name(name).bind(&format!("{}:/data", test.path(path).display())).start()
    };
    // What has no source on this machine uses none of its paths.
    let scratch = docker.run(docker.busybox()).name("scratch").option(&["--mount", "type=tmpfs,destination=/scratch"]).start();
    let users = [bind("same", "data"), bind("below", "data/sub"), bind("above", ""), bind("beside", "data2"), scratch];
    let list = users.each_ref().map(Container::name).join(" ");
    let was = users.each_ref().map(Container::started_at);
    let test = test.env("CONTAINERS", list);
    test.run(["backup"]).ok();
    assert_eq!(states(&test), ["paused", "paused", "paused", "running", "running"]);
    assert_eq!((users.each_ref().map(Container::is_running), users.each_ref().map(Container::started_at)), ([true; 5], was));
}

#[test]
fn containers_are_meant_by_a_label_and_one_that_none_has_is_told() {
    let Some(docker) = Docker::shared() else { return };
    let label = format!("{}=yes", docker.unique("still"));
    let (one, two) = (docker.run(docker.busybox()).name("one").label(&label).start(), box_of(docker, "two"));
    let test = test_of(&format!("pause: {{ label: {label} }}"), &[&one, &two], "");
    test.run(["backup"]).ok().says(&format!("files: paused {}\n", one.name())).says(&format!("files: unpaused {}", one.name()));
    assert_eq!((states(&test), one.state()), (vec!["paused".to_owned(), "running".to_owned()], "running".into()));
    let test = test_of(&format!("pause: {{ label: {label}0 }}"), &[&one], "");
    let told = format!("files: no container has the label {label}0: nothing was paused");
    let ran = test.run(["backup", "--json"]).ok().says(&format!("warning: {told}"));
    assert_eq!(ran.json()["items"][0]["warnings"][0], told["files: ".len()..]);
    assert_eq!(states(&test), ["running"]);
}

#[test]
fn a_failure_a_timeout_and_a_signal_leave_none_stopped() {
    let Some(docker) = Docker::shared() else { return };
    let web = box_of(docker, "web");
    let stop = format!("stop: [{}]", web.name());
    let test = test_of(&stop, &[&web], "exit 2");
    test.run(["backup"]).fails(1).says("files: started again");
    assert_eq!((states(&test), web.state(), records(&test)), (vec!["exited".into()], "running".into(), Vec::new()));
    let test = test_of(&format!("{stop}\ntimeout: 10s"), &[&web], WAITS);
    test.run(["backup"]).fails(1).says("not done within 10s").says("files: started again");
    assert_eq!((web.state(), records(&test)), ("running".into(), Vec::new()));
    let test = test_of(&stop, &[&web], WAITS);
    let mut running = reading(&test);
    running.kill(Signal::TERM);
    assert!(running.ends_within(SOON));
    running.wait().fails(143).says("files: started again");
    assert_eq!((states(&test), web.state(), records(&test)), (vec!["exited".into()], "running".into(), Vec::new()));
}

#[test]
fn a_stop_that_fails_fails_the_backup_and_those_before_it_run_again() {
    let Some(docker) = Docker::shared() else { return };
    let (web, db) = (box_of(docker, "web"), box_of(docker, "db"));
    let was = [&web, &db].map(Container::started_at);
    let test = test_of(&format!("stop: [{}]", names(&[&web, &db])), &[], "");
    let real = docker.command([""; 0]).get_program().to_owned().into_string().unwrap();
    let broken = format!("[ \"$1 $2\" = \"stop {}\" ] && {{ echo it hangs on >&2; exit 1; }}; exec {real} \"$@\"", db.id());
    test.script("bin/docker", &broken);
    let ran = test.run(["backup"]).fails(1).says("files: engine: docker exited with code 1: it hangs on");
    assert!(ran.stderr.contains(&format!("files: started again {} after ", web.name())), "{}", ran.stderr);
    let now = [&web, &db].map(Container::started_at);
    assert_eq!((web.state(), now[0] > was[0], now[1] == was[1]), ("running".into(), true, true));
    assert_eq!((records(&test), test.stored()), (Vec::new(), Vec::new()));
}

#[test]
fn a_signal_while_a_container_is_being_stopped_leaves_it_running() {
    let Some(docker) = Docker::shared() else { return };
    let slow = slow(docker);
    let was = slow.started_at();
    let test = test_of(&format!("stop: [{}]", slow.name()), &[&slow], "");
    let mut running = test.spawn(["backup"]);
    eventually("it is being stopped", || has(&slow, "/stopping"));
    assert_eq!(records(&test)[0]["containers"][0]["name"], slow.name());
    running.kill(Signal::TERM);
    let_end(&slow);
    assert!(running.ends_within(SOON));
    running.wait().fails(143);
    assert_eq!((slow.state(), slow.started_at() > was, records(&test)), ("running".into(), true, Vec::new()));
}

#[test]
fn what_a_killed_backup_left_stopped_is_started_by_the_next_command_that_changes_something() {
    let Some(docker) = Docker::shared() else { return };
    let (web, db) = (box_of(docker, "web"), box_of(docker, "db"));
    let both = names(&[&web, &db]);
    let test = test_of(&format!("stop: [{both}]"), &[&web, &db], WAITS);
    fs::write(test.path("go"), "").unwrap();
    test.run(["backup"]).ok();
    let restored = test.path("restored.tar");
    let commands: [&[&str]; 3] = [&["backup"], &["restore", "files", "--output", restored.to_str().unwrap()], &["prune"]];
    for command in commands {
        fs::remove_file(test.path("go")).unwrap();
        let running = reading(&test);
        running.kill(Signal::KILL);
        drop(running);
        assert_eq!((web.state(), db.state()), ("exited".into(), "exited".into()));
        fs::write(test.path("go"), "").unwrap();
        // Others tell it, and touch nothing.
        let left = format!("containers {both} were left stopped by a run of ");
        for command in [&["list"][..], &["validate"], &["backup", "--dry-run"]] {
            test.run(command).ok().says(&left).says("the next backup, restore or prune does it");
        }
        let problems = test.run(["list", "--json"]).ok().json()["problems"].clone();
        assert_eq!(problems[0]["severity"], "notice", "{problems}");
        assert_eq!((web.state(), records(&test).len()), ("exited".into(), 1));
        test.run(command).ok().says(&left).says(", files) that was killed: started again\n");
        assert_eq!((web.state(), db.state(), records(&test)), ("running".into(), "running".into(), Vec::new()), "{command:?}");
        test.run(["prune", "--json"]).ok().never_shows("left stopped");
    }
}

#[test]
fn a_stop_that_outlives_a_killed_backup_is_waited_for() {
    let Some(docker) = Docker::shared() else { return };
    let slow = slow(docker);
    let was = slow.started_at();
    let test = test_of(&format!("stop: [{}]", slow.name()), &[&slow], "");
    let running = test.spawn(["backup"]);
    eventually("it is being stopped", || has(&slow, "/stopping"));
    running.kill(Signal::KILL);
    drop(running);
    // It is still being stopped when the next command has looked at it.
    let real = docker.command([""; 0]).get_program().to_owned().into_string().unwrap();
    let looked = format!("{real} \"$@\"; code=$?; case \"$*\" in *{}*) touch {{dir}}/looked;; esac; exit $code", slow.id());
    test.script("bin/docker", &looked);
    let pruning = test.spawn(["prune"]);
    eventually("it is looked at", || test.path("looked").exists());
    assert!(slow.is_running());
    let_end(&slow);
    pruning.wait().ok().says("that was killed: started again");
    assert_eq!((slow.state(), slow.started_at() > was, records(&test)), ("running".into(), true, Vec::new()));
}

#[test]
fn an_engine_that_is_down_is_told_and_asked_again_by_the_next_command() {
    let Some(docker) = Docker::shared() else { return };
    let web = box_of(docker, "web");
    let test = test_of(&format!("stop: [{}]", web.name()), &[&web], WAITS);
    let running = reading(&test);
    running.kill(Signal::KILL);
    drop(running);
    let down = test.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let problem = format!("container {} was left stopped by a run of ", web.name());
    down.run(["prune"]).fails(3).says(&problem).says("could not be started again: ");
    assert_eq!((web.state(), records(&down).len()), ("exited".into(), 1));
    let up = down.env("DOCKER_HOST", "");
    up.run(["prune"]).ok().says("started again");
    assert_eq!((web.state(), records(&up)), ("running".into(), Vec::new()));
}

#[test]
fn a_container_that_does_not_start_again_is_told_until_it_does_or_is_gone() {
    let Some(docker) = Docker::shared() else { return };
    let once = "[ -e /was ] && exit 7; touch /was; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let once = docker.run(docker.busybox()).name("once").command(&["sh", "-c", once]).start();
    eventually("it is up", || once.try_exec(["test", "-e", "/was"]).status.success());
    let test = test_of(&format!("stop: [{}]", once.name()), &[&once], "");
    let failure = format!("{}: it was started, and exited at once with code 7", once.name());
    let ran = test.run(["backup", "--json"]).fails(3);
    let problem = &ran.json()["problems"][0];
    assert_eq!(
        (&problem["severity"], &problem["target"], &problem["step"]),
        (&"partial".into(), &"files".into(), &"containers".into())
    );
    assert!(problem["cause"].as_str().unwrap().contains(&failure), "{problem}");
    assert!(problem["hint"].as_str().unwrap().starts_with(&format!("docker start {}", once.name())), "{problem}");
    assert!(test.stored_one(".manifest.json").exists(), "the backup is whole");
    let again = test.run(["prune"]).fails(3);
    assert_eq!(again.stderr.matches("exited at once with code 7").count(), 1, "{}", again.stderr);
    drop(once);
    test.run(["prune"]).ok().says(": gone\n");
    assert_eq!(records(&test), Vec::<Value>::new());
}

#[test]
fn what_can_not_be_stopped_or_written_down_stops_nothing() {
    let Some(docker) = Docker::shared() else { return };
    let web = box_of(docker, "web");
    let was = web.started_at();
    let test = test_of(&format!("stop: [{0}, {0}x]", web.name()), &[&web], "");
    let hint = format!("hint: did you mean {}?", web.name());
    for command in [&["backup"][..], &["backup", "--dry-run"]] {
        test.run(command).fails(1).says(&format!("files: engine: docker has no container {}x", web.name())).says(&hint);
    }
    let looked = test.run(["validate", "--connect"]).fails(1);
    assert!(looked.stdout.contains(&hint), "{}", looked.stdout);
    let removed = docker.run(docker.busybox()).name("removed").option(&["--rm"]).start();
    let test = test_of(&format!("stop: [{}]", names(&[&web, &removed])), &[&web], "");
    test.run(["backup"]).fails(2).says("was made with --rm: to stop it would remove it").says("use `pause:`");
    assert!(removed.is_running());
    let test = test_of(&format!("stop: [{}]", web.name()), &[&web], "");
    fs::write(test.path("state/undo"), "").unwrap();
    test.run(["backup"]).fails(1).says("files: ").says("nothing was stopped");
    assert_eq!((web.started_at(), test.stored()), (was, Vec::new()));
}

/// With a second target `more` on the same directory, which stops the same container.
fn with_two(web: &Container, reads: &str) -> Test {
    let stop = format!("stop: [{}]", web.name());
    let test = test_of(&stop, &[web], reads);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap().replace("targets:", "parallel: 2\ntargets:");
    let second = format!("  - {{ name: more, type: volume, path: '{}', {stop} }}\n", test.path("data").display());
    test.write("backup.yml", &(config + &second));
    test
}

#[test]
fn two_units_that_stop_the_same_container_do_so_one_after_the_other() {
    let Some(docker) = Docker::shared() else { return };
    let web = box_of(docker, "web");
    let test = with_two(&web, "docker container inspect --format '{{.State.Status}}' $CONTAINERS >>{dir}/all");
    test.run(["backup"]).ok().says("files: stopped ").says("more: stopped ");
    assert_eq!(fs::read_to_string(test.path("all")).unwrap(), "exited\nexited\n");
    assert!(web.is_running() && records(&test).is_empty());
}

#[test]
fn who_waits_for_a_container_starts_what_its_killed_holder_left() {
    let Some(docker) = Docker::shared() else { return };
    let web = box_of(docker, "web");
    let test = with_two(&web, WAITS);
    let first = test.spawn(["backup", "files"]);
    eventually("the first reads", || test.path("states").exists());
    let second = test.spawn(["backup", "more"]);
    let waits = format!("waits for container {}: its lock is held by process {}", web.name(), first.pid().as_raw_nonzero());
    eventually("the second waits", || second.stderr_so_far().contains(&waits));
    fs::remove_file(test.path("states")).unwrap();
    fs::write(test.path("go"), "").unwrap();
    first.kill(Signal::KILL);
    drop(first);
    let left = format!("more: container {} stopped by a run that was killed: started again first", web.name());
    second.wait().ok().says(&left).says("more: stopped ").says("more: started again");
    assert_eq!((states(&test), web.state(), records(&test)), (vec!["exited".to_owned()], "running".into(), Vec::new()));
}

#[test]
fn podmans_containers_stand_still_likewise() {
    let Some(podman) = Podman::shared() else { return };
    if !is_root() {
        eprintln!("SKIPPED: whether an ordinary user's containers run here, the machine decides");
        return;
    }
    let volume = podman.volume("held");
    let (name, mount) = (format!("{}-user", volume.name()), format!("{}:/data", volume.name()));
    podman.ok(["run", "--detach", "--network", "none", "--name", &name, "--volume", &mount, podman.with_tar()]);
    let state = || podman.ok(["container", "inspect", "--format", "{{.State.Status}}", &name]);
    assert_eq!(state(), "running");
    let test = test_of("stop: users", &[], WAITS);
    let config = fs::read_to_string(test.path("backup.yml")).unwrap();
    let place = format!("path: '{}'", test.path("data").display());
    let held = format!("volume: {}\n    engine: podman", volume.name());
    test.write("backup.yml", &config.replace(&place, &held));
    let test = podman.for_program(test).env("ENGINE", "podman").env("CONTAINERS", &name);
    fs::write(test.path("go"), "").unwrap();
    test.run(["backup"]).ok().says(&format!("files: stopped {name}\n")).says(&format!("files: started again {name} after "));
    assert_eq!((states(&test), state()), (vec!["exited".to_owned()], "running".into()));
    fs::remove_file(test.path("go")).unwrap();
    let running = reading(&test);
    running.kill(Signal::KILL);
    drop(running);
    assert_eq!((state(), &records(&test)[0]["engine"]), ("exited".into(), &"podman".into()));
    test.run(["prune"]).ok().says("that was killed: started again");
    assert_eq!((state(), records(&test)), ("running".into(), Vec::new()));
    podman.ok(["rm", "--force", "--time", "0", &name]);
}

/// Nothing that the program does to its journal may come in an order in which a death leaves a container stopped and unknown.
#[test]
fn killed_before_any_step_it_leaves_no_container_that_nobody_starts() {
    let Some(docker) = Docker::shared() else { return };
    // Watched for as long as a stop may take: a second, and the slack.
    let web = docker.run(docker.busybox()).name("web").option(&["--stop-timeout", "1"]).start();
    let test = Traced::new(test_of(&format!("stop: [{}]", web.name()), &[&web], ""));
    let steps = test.steps(["backup"]);
    let steps: Vec<_> = steps.into_iter().filter(|step| step.text.contains("state/undo")).collect();
    let calls = |name: &str| steps.iter().filter(|step| step.call == name).count();
    assert!(calls("fsync") >= 3 && calls("renameat2") == 1 && calls("unlink") + calls("unlinkat") == 1, "{steps:?}");
    for step in &steps {
        test.killed_before(step, ["backup"]);
        assert!(web.is_running() || records(&test).len() == 1, "{step:?}");
        test.run(["prune"]).ok();
        assert_eq!((web.state(), records(&test)), ("running".into(), Vec::new()), "{step:?}");
    }
}
