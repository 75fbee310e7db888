//! The smallest role that can back everything up: docs/postgres-role.md, line by line.

use std::sync::LazyLock;

use crate::forge::target_on;
use crate::support::cluster::{PASSWORD, SUPERUSER, quoted};
use crate::support::{Cluster, Database, Test, repository};

/// A server whose roles only these tests change.
static ROLES: LazyLock<Cluster> = LazyLock::new(Cluster::start);

/// The statements of the page, for a role of this name.
fn statements(role: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("docs/postgres-role.md")).unwrap();
    let block = page.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().map(|line| line.replace("backup", role).replace("change-me", PASSWORD)).collect()
}

/// All that is hard to read: others' tables and schemas, row security, sequences, large objects, views that no one refreshed.
fn hard_to_read() -> Database {
    let database = ROLES.create_database();
    database.psql(
        "DO $$ BEGIN CREATE ROLE somebody; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         CREATE SCHEMA closed; CREATE TABLE closed.orders (id serial, owner text); ALTER TABLE closed.orders OWNER TO somebody;
         INSERT INTO closed.orders (owner) VALUES ('a'), ('b'), ('c');
         ALTER TABLE closed.orders ENABLE ROW LEVEL SECURITY; ALTER TABLE closed.orders FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON closed.orders USING (owner = current_user);
         REVOKE ALL ON SCHEMA closed FROM PUBLIC; REVOKE ALL ON ALL TABLES IN SCHEMA closed FROM PUBLIC;
         CREATE MATERIALIZED VIEW closed.sums AS SELECT count(*) FROM closed.orders WITH NO DATA;
         SELECT lo_from_bytea(0, 'a large object');
         ALTER DEFAULT PRIVILEGES IN SCHEMA closed REVOKE ALL ON TABLES FROM PUBLIC",
    );
    database
}

#[test]
fn the_role_of_the_page_backs_everything_up() {
    let database = hard_to_read();
    for statement in statements("reader_whole") {
        ROLES.psql("postgres", &statement);
    }
    let test = target_on(Test::new(), &ROLES, "reader_whole", database.name());
    test.run(["validate", "--connect"]).ok();
    test.run(["backup"]).ok();
    let restored = ROLES.adopt(&format!("{}_again", database.name()));
    target_on(test, &ROLES, SUPERUSER, database.name()).run(["restore", "app", "--to-database", restored.name()]).ok();
    assert_eq!(database.dump(), restored.dump());
}

#[test]
fn each_line_left_out_is_told_by_validate_and_fails_the_backup() {
    let database = hard_to_read();
    let says = ["table closed.orders: no SELECT", "row security would hide rows", "large object"];
    for (left_out, says) in says.into_iter().enumerate() {
        let role = format!("reader_without_{left_out}");
        for (_, statement) in statements(&role).iter().enumerate().filter(|(at, _)| *at != left_out + 1) {
            ROLES.psql("postgres", statement);
        }
        let test = target_on(Test::new(), &ROLES, &role, database.name());
        let ran = test.run(["validate", "--connect"]).fails(1);
        assert!(ran.stdout.contains(says), "{}", ran.stdout);
        test.run(["backup"]).fails(1);
        assert!(test.stored().is_empty(), "{:?}", test.stored());
    }
}

#[test]
fn what_only_a_superuser_sees_is_a_warning_and_no_silence() {
    let database = hard_to_read();
    database.psql(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE USER MAPPING FOR somebody SERVER far OPTIONS (user 'x', password 'hidden');
         CREATE SUBSCRIPTION sub CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)",
    );
    for statement in statements("reader_blind") {
        ROLES.psql("postgres", &statement);
    }
    let test = target_on(Test::new(), &ROLES, "reader_blind", database.name());
    let told = "options of the user mapping for somebody on server far";
    test.run(["validate", "--connect"]).ok();
    test.run(["backup"]).ok().says(told).says("subscription");
    let manifest = crate::forge::manifest(&test).to_string();
    assert!(manifest.contains(told), "{manifest}");
    database.psql("ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub");
    let superuser = target_on(Test::new(), &ROLES, SUPERUSER, database.name());
    assert!(!superuser.run(["backup"]).ok().stderr.contains("only a superuser"), "{}", quoted(database.name()));
}
