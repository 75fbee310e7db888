//! A live database's files are no backup of it: refused, with what to do instead.

use super::support::Test;

const HINT: &str = "type: postgres";

fn no_backup(test: &Test) {
    assert!(!test.stored().iter().any(|path| path.ends_with(".manifest.json")));
}

#[test]
fn a_running_postgres_in_the_root_is_refused_before_anything_is_read() {
    // An artifact that was begun would be there: tar itself would be asked for all of it.
    let test = Test::of_tree("touch PG_VERSION postmaster.pid", "")
        .fake_tar(r#"case "$*" in *--file=-*) touch {dir}/ran ;; esac; exec {real} "$@""#);
    test.run(["backup"])
        .fails(1)
        .says("a live database is in it: its root has PG_VERSION and postmaster.pid")
        .says(HINT)
        .says("stop:");
    assert!(!test.path("ran").exists());
    test.run(["validate", "--connect"]).fails(1);
    test.run(["backup", "--dry-run"]).fails(1).says("a live database is in it");
    no_backup(&test);
}

#[test]
fn one_anywhere_below_is_refused() {
    let test = Test::of_tree(
        "mkdir -p a/pg/base/1 a/pg/zzz; touch a/pg/PG_VERSION a/pg/base/1/PG_VERSION a/pg/postmaster.pid a/pg/zzz/x",
        "",
    );
    test.run(["backup"]).fails(1).says("a live database is in it: a/pg has PG_VERSION and postmaster.pid").says(HINT);
    no_backup(&test);
    let test = Test::of_tree("mkdir -p a/mysql; touch a/mysql/ibdata1", "");
    test.run(["backup"]).fails(1).says("a live database is in it: a/mysql has ibdata1");
    no_backup(&test);
}

#[test]
fn one_that_is_stopped_excluded_or_allowed_is_backed_up() {
    Test::of_tree("mkdir pg other; touch pg/PG_VERSION other/postmaster.pid", "").run(["backup"]).ok();
    let tree = "mkdir -p pg; touch pg/PG_VERSION pg/postmaster.pid ibdata1";
    Test::of_tree(tree, "exclude: [/pg, ibdata1]").run(["backup"]).ok();
    Test::of_tree(tree, "allow_live_database: true").run(["backup"]).ok();
    Test::of_tree("touch PG_VERSION postmaster.pid", "exclude: [postmaster.pid]").run(["backup"]).ok();
}

#[test]
fn a_file_beside_one_is_nothing_to_do_with_it() {
    let test = Test::of_volume("path: {dir}/tree/app.conf");
    std::fs::create_dir(test.path("tree")).unwrap();
    test.in_tree("touch app.conf PG_VERSION postmaster.pid ibdata1");
    test.run(["backup"]).ok();
}
