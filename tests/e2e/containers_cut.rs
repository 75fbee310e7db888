//! The connection to the engine is cut under a program in a container: its client exits 0, as if that had ended well. What is done
//! then is whole, or it failed, and says so.

use crate::support::tool::files_below;
use crate::support::{Container, CutEngine, Docker, Ran, Test, eventually};

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, word text);
    INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 3000) n; SELECT lo_from_bytea(0, 'large');";
/// More than any program but pg_dump says.
const MUCH: usize = 500_000;

struct Place {
    docker: &'static Docker,
    container: &'static Container,
    database: String,
    test: Test,
}

impl Place {
    fn new(option: &str) -> Option<Self> {
        let (docker, container) = (Docker::shared()?, Container::postgres()?);
        let database = container.new_database(ROWS);
        let test = Test::inside(container, &database).target_option("retries: 0").target_option(option);
        Some(Self { docker, container, database, test })
    }

    /// Runs it where this is cut.
    fn run(&mut self, cut: &CutEngine, arguments: &[&str]) -> Ran {
        let test = std::mem::take(&mut self.test);
        self.test = test.env("DOCKER_HOST", cut.host());
        self.test.run(arguments)
    }

    /// How many programs this runs in containers.
    fn programs(&mut self, arguments: &[&str]) -> usize {
        let counting = CutEngine::at_program(self.docker, usize::MAX, 0);
        self.run(&counting, arguments).ok();
        counting.programs()
    }

    fn backups(&self) -> usize {
        self.test.stored().iter().filter(|name| name.ends_with(".manifest.json")).count()
    }

    /// Of this database alone.
    fn beside_it(&self) -> Vec<String> {
        self.container.databases_like(&format!("{}_", self.database))
    }
}

/// Done, or failed because of the cut.
#[track_caller]
fn is_done(ran: Ran, number: usize) -> bool {
    let done = ran.code == Some(0);
    if !done {
        assert!(ran.stderr.contains("the connection to the engine broke"), "program {number}:\n{}", ran.stderr);
        ran.fails(1);
    }
    done
}

#[test]
fn a_backup_that_is_cut_is_none() {
    for format in ["plain", "custom"] {
        let Some(mut place) = Place::new(&format!("format: {format}")) else { return };
        let count = place.programs(&["backup"]);
        let mut done = 1;
        for (number, bytes) in (0..count).map(|number| (number, 0)).chain([(count - 1, 100), (count - 1, MUCH)]) {
            let cut = CutEngine::at_program(place.docker, number, bytes);
            done += usize::from(is_done(place.run(&cut, &["backup"]), number));
            assert_eq!(place.backups(), done, "program {number}, {bytes} bytes");
        }
        assert_eq!(done, 1, "each of them proves something");
        eventually("pg_dump has ended", || !place.container.processes().iter().any(|line| line.contains(&place.database)));
    }
}

#[test]
fn what_is_cut_may_pass_and_is_tried_again() {
    let Some(mut place) = Place::new("format: plain") else { return };
    place.test = Test::inside(place.container, &place.database).target_option("retries: 1");
    let cut = CutEngine::at_program(place.docker, 2, MUCH);
    place.run(&cut, &["backup"]).ok().says("the connection to the engine broke");
}

#[test]
fn a_restore_that_is_cut_is_done_or_leaves_nothing() {
    for format in ["plain", "custom"] {
        let Some(mut place) = Place::new(&format!("format: {format}")) else { return };
        place.test.run(["backup"]).ok();
        let copy = format!("{}_copy", place.database);
        let arguments = ["restore", "app", "--to-database", &copy];
        let count = place.programs(&arguments);
        let whole = place.container.dump(&place.database);
        assert_eq!(place.container.dump(&copy), whole);
        for number in count / 2..count {
            place.container.psql(&format!("DROP DATABASE IF EXISTS {copy}"));
            let cut = CutEngine::at_program(place.docker, number, 0);
            let done = is_done(place.run(&cut, &arguments), number);
            assert_eq!(place.beside_it(), if done { vec![copy.clone()] } else { Vec::new() }, "program {number}");
            assert!(!done || place.container.dump(&copy) == whole, "program {number}");
        }
    }
}

#[test]
fn a_live_database_stays_or_makes_room_where_a_restore_is_cut() {
    let Some(mut place) = Place::new("format: plain") else { return };
    place.test.run(["backup"]).ok();
    let arguments = ["restore", "app", "--replace", "--disconnect"];
    let count = place.programs(&arguments);
    let mut swaps = 1;
    for number in count - 4..count {
        place.container.psql_in(&place.database, "CREATE TABLE later ()");
        let cut = CutEngine::at_program(place.docker, number, 0);
        let done = is_done(place.run(&cut, &arguments), number);
        swaps += usize::from(done);
        let is_restored = place.container.psql_in(&place.database, "SELECT to_regclass('later') IS NULL") == "t";
        assert_eq!((is_restored, place.beside_it().len()), (done, swaps), "program {number}");
        place.container.psql_in(&place.database, "DROP TABLE IF EXISTS later");
    }
    assert!(swaps > 1, "a rename whose answer was lost is looked after");
    // The swap, and who ends the sessions that are in its way.
    let cut = CutEngine::from_program(place.docker, count - 2, 0);
    place.container.psql_in(&place.database, "CREATE TABLE later ()");
    let ran = place.run(&cut, &arguments).fails(1);
    ran.says(&format!("it is not known whether {} is the restored database now", place.database)).says("look on the server");
}

#[test]
fn a_drill_that_is_cut_proves_nothing_and_blames_nobody() {
    let Some(mut place) = Place::new("checks: [ { name: all, sql: 'SELECT count(*) = 3000 FROM t' } ]") else { return };
    place.test.run(["backup"]).ok();
    let arguments = ["restore", "app", "--drill"];
    // Its first process, a look for programs, initdb, the server, and psql time and again.
    for number in [0, 1, 2, 3, 7, 9, 11] {
        let cut = CutEngine::at_program(place.docker, number, 0);
        let ran = place.run(&cut, &arguments);
        assert!(matches!(ran.code, Some(0 | 1)), "program {number}:\n{}", ran.stderr);
        let locks = files_below(&place.test.path("state")).into_iter().filter(|name| name.starts_with("drill-"));
        assert_eq!(locks.count(), 0, "program {number}");
    }
    assert!(place.test.run(["list"]).ok().stdout.contains(" whole "), "it is not the backup's fault");
}
