//! Databases that are named by their Compose file and service.

use crate::support::{Compose, Docker, Test, cluster};

fn test_of(service: &str, docker: &Docker) -> Test {
    let compose = format!(
        "services:\n  db:\n    image: {}\n    network_mode: none\n    environment: {{ POSTGRES_PASSWORD: {}, POSTGRES_USER: shop }}\n",
        docker.postgres(),
        cluster::PASSWORD
    );
    let config = format!(
        "version: 1\nhost: web1\nstate_dir: {{state}}\nstorages:\n  local: {{ type: local, path: '{{storage}}' }}\ntargets:\n  - name: app\n    \
         type: postgres\n    compose: {{ file: compose.yml, service: {service} }}\n    database: shop\n    retries: 0\n"
    );
    Test::new().file("compose.yml", &compose).config(&config)
}

#[test]
fn a_services_database_is_dumped_restored_and_drilled_without_a_port_or_a_client() {
    let Some(docker) = Docker::shared() else { return };
    let test = test_of("db", docker);
    let Some(compose) = Compose::up(&test.path("compose.yml")) else { return };
    let db = compose.container("db");
    crate::support::eventually("it is ready", || {
        db.try_exec(["pg_isready", "-q", "-h", "127.0.0.1", "-U", "shop"]).status.success()
    });
    let psql = ["psql", "-X", "-q", "-A", "-t", "-U", "shop", "-d", "shop"];
    db.feed(psql, b"CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    let checked = test.run(["validate", "--connect"]).ok().stdout;
    assert!(checked.contains(&format!("docker exec into {} (pg_dump ", db.name())), "{checked}");
    assert!(checked.contains("as shop, database shop"), "{checked}");
    test.run(["backup"]).ok();
    test.run(["restore", "app", "--drill"]).ok().says("1 table and 100 rows compared");
    test.run(["restore", "app", "--replace"]).ok();
    assert_eq!(String::from_utf8_lossy(&db.feed(psql, b"SELECT count(*) FROM t").stdout), "100\n");
    compose.ok(["stop"]);
    test.run(["backup"]).fails(1).says("is not running").says("docker start");
    // Its image is all that a drill needs of it.
    test.run(["restore", "app", "--drill"]).ok();
    compose.ok(["rm", "--force", "-v"]);
    let ran = test.run(["restore", "app", "--drill"]).fails(1);
    let ran = ran.says("no container belongs to service db of").says("`drill: { cluster: temporary }`");
    assert!(ran.stderr.contains("up -d db"), "{}", ran.stderr);
    test.run(["restore", "app", "--output", "dump.sql"]).ok();
}

#[test]
fn a_service_with_several_containers_is_refused_by_their_names() {
    let Some(docker) = Docker::shared() else { return };
    let test = test_of("db", docker);
    let file = test.path("compose.yml");
    let directory = test.path("");
    let both = ["one", "two"].map(|name| {
        let new = docker.run(docker.busybox()).name(name);
        new.compose_labels("several", "db", file.to_str().unwrap(), directory.to_str().unwrap()).start()
    });
    let ran = test.run(["backup"]).fails(2).says("has 2 containers: ").says("`container: NAME` instead of `compose:`");
    assert!(both.iter().all(|container| ran.stderr.contains(container.name())), "{}", ran.stderr);
}
