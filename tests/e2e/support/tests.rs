//! What the other tests rely on.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Cluster, SHARED, Signal, Test, comparable, eventually, is_root};

#[test]
fn databases_come_with_names_of_their_own_and_go_with_their_guards() {
    let [one, two] = [SHARED.create_database(), SHARED.create_database()];
    assert_ne!(one.name(), two.name());
    assert_eq!(one.psql("SELECT current_database(), 1"), format!("{}|1", one.name()));
    let name = two.name().to_owned();
    drop(two);
    assert!(one.exists() && !SHARED.databases().contains(&name));
}

#[test]
fn a_server_ends_with_its_guard_and_leaves_no_file() {
    let cluster = Cluster::start_with(&["work_mem=5MB"]);
    assert_eq!(cluster.psql("postgres", "SHOW work_mem"), "5MB");
    let (directory, port) = (cluster.socket_directory().to_owned(), cluster.port());
    assert!(directory.is_dir());
    drop(cluster);
    assert!(!directory.exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

const VICTIM: &str = "DB_BACKUP_TEST_VICTIM";

/// Not a test by itself: the process that the next one kills.
#[test]
fn a_process_that_waits_to_be_killed() {
    let Some(file) = std::env::var_os(VICTIM) else { return };
    let cluster = Cluster::start();
    let place = format!("{}\n{}\n", cluster.port(), cluster.socket_directory().display());
    fs::write(&file, place).unwrap();
    eventually("it is killed", || false);
}

#[test]
fn a_killed_test_process_leaves_no_server() {
    let test = Test::new();
    let file = test.path("place");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::tests::a_process_that_waits_to_be_killed"])
        .env(VICTIM, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let place = || fs::read_to_string(&file).unwrap_or_default();
    eventually("its server runs", || place().lines().count() == 2);
    let place = place();
    let (port, directory) = place.trim_end().split_once('\n').unwrap();
    let port: u16 = port.parse().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("its server is gone", || TcpStream::connect(("127.0.0.1", port)).is_err());
    eventually("its directory is gone", || !Path::new(directory).exists());
}

#[test]
fn a_fake_program_is_the_one_that_is_found() {
    let test = Test::new().fake_bin("pg_dump", "echo fake; exec {real} --version");
    let output = Command::new(test.path("bin/pg_dump")).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("fake\npg_dump (PostgreSQL)"));
    assert!(Command::new(test.path("bin/psql")).arg("--version").output().unwrap().status.success());
}

#[test]
fn the_program_gets_no_variable_it_was_not_given() {
    let test = Test::new().env("GIVEN", "yes").under(["sh", "-c", "env; id -u; exit 7"]);
    let ran = test.run(["ignored"]).fails(7);
    let names: Vec<_> = ran.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let expected = ["GIVEN", "HOME", "LANG", "PATH", "PWD", "TMPDIR"];
    assert!(names.iter().all(|name| expected.contains(name) || ["OLDPWD", "SHLVL", "_"].contains(name)), "{names:?}");
}

#[test]
fn an_unprivileged_program_is_not_root_and_may_write_its_directory() {
    let test = Test::new().unprivileged().under(["sh", "-c", "id -u; echo text >storage/file"]);
    let ran = test.run([""; 0]).ok();
    assert!(!is_root() || ran.stdout == "65534\n");
    assert_eq!(test.stored(), ["file"]);
}

#[test]
fn a_running_program_takes_signals() {
    let test =
        Test::new().under(["sh", "-c", "trap 'echo caught >&2; exit 143' TERM; echo ready >&2; while :; do sleep 0.01; done"]);
    let running = test.spawn([""; 0]);
    eventually("it is ready", || running.stderr_so_far() == "ready\n");
    running.kill(Signal::TERM);
    running.wait().fails(143).says("caught");
}

#[test]
fn the_order_of_rows_is_no_part_of_a_dump() {
    let one = "\\restrict x\nCOPY t (a) FROM stdin;\nb\na\n\\.\nSELECT 2;\nSELECT 1;\n\\unrestrict x\n";
    let two = "\\restrict y\nCOPY t (a) FROM stdin;\na\nb\n\\.\nSELECT 2;\nSELECT 1;\n\\unrestrict y\n";
    assert_eq!(comparable(one), comparable(two));
    assert_ne!(comparable(one), comparable(&two.replace("SELECT 2;\nSELECT 1;", "SELECT 1;\nSELECT 2;")));
}
