use super::*;

fn load(kind: Kind, cause: &str) -> Error {
    Error::new(kind, cause).step("load")
}

#[test]
fn what_the_backup_holds_is_its_fault() {
    for error in [
        Error::new(Kind::Damaged, "the artifact's digest differs").step("read"),
        Error::new(Kind::Damaged, "what was restored is not what was dumped: ...").step("compare"),
        load(Kind::Damaged, "the dump does not end as a whole one does"),
        load(Kind::Check, "the dump holds \\!, which acts outside of its database"),
        load(Kind::Child, "loading with psql exited with code 3: ERROR:  syntax error at or near \"x\""),
        load(Kind::Child, "loading with psql exited with code 3: ERROR:  invalid input syntax for type integer: \"x\""),
        load(
            Kind::Child,
            "loading with psql exited with code 3: ERROR:  duplicate key value violates unique constraint \"t_pkey\"",
        ),
        load(
            Kind::Child,
            "loading with pg_restore exited with code 1: could not execute query: ERROR:  relation \"a\" already exists",
        ),
        load(Kind::Child, "loading with pg_restore exited with code 1: could not read from input file: end of file"),
    ] {
        assert!(is_backups_fault(&error), "{error}");
    }
}

#[test]
fn what_the_surroundings_lack_is_not() {
    let psql = |said: &str| load(Kind::Child, &format!("loading with psql exited with code 3: ERROR:  {said}"));
    for error in [
        Error::new(Kind::Damaged, "x.inventory.json is not as the manifest says: its digest differs").step("inventory"),
        Error::new(Kind::Check, "check \"users\" does not hold: expected \"true\", found \"f\"").step("check"),
        Error::new(Kind::Check, "nothing was compared").step("compare"),
        Error::new(Kind::Missing, "the storage lacks it").step("read"),
        Error::new(Kind::Storage, "the storage can't be read").step("read"),
        Error::new(Kind::Refused, "the receiving server lacks roles that the dump names"),
        Error::new(Kind::Child, "there is no initdb"),
        load(Kind::Interrupted, "interrupted by signal 15"),
        load(Kind::Timeout, "not done within 2s"),
        load(Kind::Connection, "loading with psql exited with code 2: server closed the connection unexpectedly"),
        load(Kind::Database, "loading with psql exited with code 3: ERROR:  permission denied to set role \"a\""),
        load(Kind::Child, "loading with psql was killed by signal 9 (SIGKILL; the out-of-memory killer?)"),
        load(Kind::Child, "loading with psql exited with code 1: out of memory"),
        psql("could not extend file \"base/5/1\": No space left on device"),
        psql("out of shared memory"),
        psql("invalid value for parameter \"lc_messages\": \"de_DE.UTF-8\""),
        psql("must be owner of extension plpgsql"),
        psql("canceling statement due to user request"),
        psql("could not open extension control file \"/x/postgis.control\""),
        psql("extension \"postgis\" is not available"),
        psql("could not load library \"/x/plperl.so\""),
        psql("unrecognized configuration parameter \"transaction_timeout\""),
        psql("role \"shop_owner\" does not exist"),
        psql("tablespace \"fast\" does not exist"),
    ] {
        assert!(!is_backups_fault(&error), "{error}");
    }
}

#[test]
fn many_differences_are_counted_and_some_are_named() {
    assert!(differences(&Comparison::default()).is_none());
    let of = |count: usize| Comparison { differences: (1..=count).map(|n| format!("d{n}")).collect(), ..Comparison::default() };
    assert_eq!(differences(&of(2)).unwrap().cause(), "what was restored is not what was dumped: d1; d2");
    assert!(differences(&of(20)).unwrap().cause().ends_with("d19; d20"));
    assert!(differences(&of(1023)).unwrap().cause().ends_with("d19; d20; and 1003 more"));
}

fn check(expect: Option<&str>) -> Check {
    Check { name: "users".into(), sql: "select true".into(), expect: expect.map(str::to_owned), databases: Vec::new() }
}

#[test]
fn an_answer_holds_where_it_is_the_expected_text_or_the_same_boolean() {
    let ok = |expect, found: &str| answered(&check(expect), Ok(found.to_owned())).unwrap().0.ok;
    assert!(ok(None, "t") && ok(None, "true") && ok(Some("true"), "t") && ok(Some("false"), "f") && ok(Some("7"), "7"));
    assert!(!ok(None, "f") && !ok(None, "") && !ok(None, "1") && !ok(Some("7"), "7.0") && !ok(Some("f"), "false"));
    assert!(ok(Some(""), ""));
}

#[test]
fn a_question_that_fails_is_told_with_what_was_said() {
    let (question, failure) = answered(&check(Some("5")), Ok("4".into())).unwrap();
    assert!(!question.ok && question.expected == "5" && question.found == "4");
    assert_eq!(failure.unwrap().cause(), "check \"users\" does not hold: expected \"5\", found \"4\"");
    let error = Error::new(Kind::Child, "asking exited with code 3: ERROR:  relation \"users\" does not exist");
    let (question, failure) = answered(&check(None), Err(error)).unwrap();
    assert!(!question.ok && question.found.contains("does not exist"), "{}", question.found);
    assert!(failure.unwrap().cause().starts_with("check \"users\" could not be asked: "));
    assert!(answered(&check(None), Err(Error::new(Kind::Connection, "gone"))).is_err());
}

#[test]
fn a_check_is_put_to_the_databases_that_it_names_and_to_no_server() {
    let checks = ["[]", "[shop, 'a*']", "['b*']"]
        .map(|databases| format!("{{ name: n{}, sql: s, databases: {databases} }}", databases.len()));
    let yaml = format!(
        "version: 1\nstorages: {{ a: {{ type: local, path: /a }} }}\ntargets: [ {{ name: c, type: postgres, databases: all, globals: true, checks: [{}] }} ]",
        checks.join(", ").replace("databases: []", "expect: x")
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup.yml");
    std::fs::write(&path, yaml).unwrap();
    let facts = crate::config::read::HostFacts { host_name: "h".into(), is_root: true, home: None };
    let config = crate::config::read::read_file(&path, &crate::host::Env::default(), &facts).unwrap();
    let target = &config.targets[0];
    let count = |unit: &UnitName, database| asked(target, unit, database).unwrap().len();
    let unit = |database: &str| UnitName::of_database(&target.name, database);
    assert_eq!(
        (count(&unit("shop"), None), count(&unit("shop.x"), None), count(&unit("abc"), None), count(&unit("b"), Some("b"))),
        (2, 1, 2, 2)
    );
    assert_eq!(count(&UnitName::of_globals(&target.name), None), 0);
}
