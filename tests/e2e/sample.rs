//! The sample database, which the quickstart and many tests start from.

use crate::support::{SHARED, repository, sample_database};

#[test]
fn the_sample_has_rows_enough_and_of_every_kind() {
    let sample = sample_database();
    let rows = sample.psql("SELECT sum(reltuples)::bigint FROM pg_class WHERE relkind = 'r' AND oid >= 16384");
    assert!(rows.parse::<u64>().unwrap() > 100_000, "{rows}");
    assert_eq!(sample.psql("SELECT count(*) FROM pg_largeobject_metadata"), "6");
    assert_eq!(sample.psql("SELECT last_value, is_called FROM audit.log_id_seq"), "777777|t");
}

#[test]
fn two_loads_of_the_sample_are_equal() {
    let loads = [SHARED.create_database(), SHARED.create_database()];
    for database in &loads {
        database.load(&repository().join("scripts/sample.sql"));
    }
    let [one, two] = loads.map(|database| database.dump());
    assert!(one == two, "two loads of scripts/sample.sql differ");
}

#[test]
fn a_plain_owner_can_load_the_sample() {
    let database = SHARED.create_database();
    let name = database.name();
    SHARED
        .psql("postgres", &format!("CREATE ROLE sample_owner_{name} LOGIN; ALTER DATABASE {name} OWNER TO sample_owner_{name}"));
    let file = repository().join("scripts/sample.sql");
    database.psql(&format!("SET SESSION AUTHORIZATION sample_owner_{name};\n\\o /dev/null\n\\i '{}'", file.display()));
    let rows = database.psql("SELECT count(*) FROM shop.order_lines");
    SHARED.psql("postgres", &format!("DROP DATABASE {name}; DROP ROLE sample_owner_{name}"));
    assert_eq!(rows, "50000");
}
