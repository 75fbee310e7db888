//! Every way in to a server: what the config says, a `uri:`, a service file, `PG*` variables, `~/.pgpass`.
//! Each is a backup of a real database that succeeds, or is refused for the right reason.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::cluster::{HOST, PASSWORD, SUPERUSER, quoted};
use crate::support::{Cluster, Database, Ran, SHARED, Test, is_root};

/// A server whose roles only these tests change.
static ROLES: LazyLock<Cluster> = LazyLock::new(Cluster::start);

fn small() -> Database {
    let database = SHARED.create_database();
    database.psql("CREATE TABLE people (id int); INSERT INTO people VALUES (1), (2), (3)");
    database
}

/// A target with these lines; `{port}`, `{db}` and `{socket}` stand for the database's.
fn target(database: &Database, lines: &[&str]) -> Test {
    let lines: String = lines.iter().flat_map(|line| ["    ".to_owned(), filled(database, line), "\n".to_owned()]).collect();
    Test::new().config(&format!(
        "version: 1\nhost: web1\nstate_dir: '{{state}}'\nstorages: {{ local: {{ type: local, path: '{{storage}}' }} }}\n\
         targets:\n  - name: app\n    type: postgres\n    retries: 0\n{lines}"
    ))
}

fn filled(database: &Database, text: &str) -> String {
    let server = database.cluster();
    text.replace("{port}", &server.port().to_string())
        .replace("{db}", database.name())
        .replace("{socket}", server.socket_directory().to_str().unwrap())
}

/// It backs up this very database, whole.
#[track_caller]
fn backs_up(database: &Database, test: &Test) -> Ran {
    backs_up_with(database, test, &[])
}

#[track_caller]
fn backs_up_with(database: &Database, test: &Test, options: &[&str]) -> Ran {
    let ran = test.run(options.iter().chain(&["backup"])).ok();
    let manifest: Value = serde_json::from_str(&fs::read_to_string(test.stored_one(".manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["database"], database.name(), "{manifest:#}");
    assert_eq!(manifest["inventory"]["rows"], 3, "{manifest:#}");
    ran
}

const PLACE: [&str; 3] = ["host: 127.0.0.1", "port: {port}", "user: admin"];

/// `PLACE`, the database, and more lines.
fn at_place(database: &Database, more: &[&str]) -> Test {
    target(database, &[PLACE.as_slice(), &["database: {db}"], more].concat())
}

#[test]
fn by_host_port_user_and_password() {
    let database = small();
    backs_up(&database, &at_place(&database, &["password: ${DB_PASSWORD}"]).env("DB_PASSWORD", PASSWORD));
    // Where others could read it, this would be a warning as well.
    backs_up(&database, &at_place(&database, &[&format!("password: '{PASSWORD}'")]));
    let ipv4 = at_place(&database, &["password: ${A}${B:-4f9a7c}", "sslmode: disable"]).env("A", "only-for-tests-");
    backs_up(&database, &ipv4);
}

#[test]
fn by_the_directory_of_a_socket() {
    let database = small();
    let lines = ["host: '{socket}'", "port: {port}", "user: admin", "password: ${PW}", "database: {db}"];
    backs_up(&database, &target(&database, &lines).env("PW", PASSWORD));
    let uri = "uri: 'postgresql://admin@/{db}?host={socket}&port={port}'";
    backs_up(&database, &target(&database, &[uri]).env("PGPASSWORD", PASSWORD));
    let socket = database.cluster().socket_directory().to_str().unwrap().replace('/', "%2F");
    let uri = format!("uri: 'postgres://admin@{socket}:{{port}}/{{db}}'");
    backs_up(&database, &target(&database, &[&uri]).env("PGPASSWORD", PASSWORD));
}

#[test]
fn by_a_uri_however_it_is_given() {
    let database = small();
    let uri = filled(&database, &format!("postgresql://admin:{PASSWORD}@127.0.0.1:{{port}}/{{db}}?sslmode=prefer"));
    backs_up(&database, &target(&database, &[&format!("uri: '{uri}'")])).never_shows(PASSWORD);
    backs_up(&database, &target(&database, &["uri: ${APP_URL}"]).env("APP_URL", &uri));
    backs_up(&database, &target(&database, &["uri: { file: '{dir}/url' }"]).file("url", &format!("{uri}\n")));
    let command = target(&database, &["uri: { command: cat url }"]).file("url", &uri);
    backs_up(&database, &command);
    let apart = filled(&database, &format!("postgresql://admin:{PASSWORD}@127.0.0.1:{{port}}"));
    backs_up(&database, &target(&database, &["uri: ${APP_URL}", "database: {db}"]).env("APP_URL", apart));
}

#[test]
fn by_a_uri_with_escapes() {
    let database = ROLES.create_from("template0", "");
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2), (3)");
    let odd = format!("{} / é", database.name());
    database.psql("CREATE ROLE \"al@ice:x\" SUPERUSER LOGIN PASSWORD 'p:a/s@s %&é'");
    ROLES.psql("postgres", &format!("ALTER DATABASE {} RENAME TO {}", database.name(), quoted(&odd)));
    let renamed = ROLES.adopt(&odd);
    let escaped = format!("{}%20%2F%20%C3%A9", database.name());
    let uri = format!("uri: 'postgresql://al%40ice%3Ax:p%3Aa%2Fs%40s%20%25%26%C3%A9@127.0.0.1:{{port}}/{escaped}'");
    backs_up(&renamed, &target(&renamed, &[&uri])).never_shows("p:a/s@s");
}

#[test]
fn by_an_ipv6_address() {
    // Machines without IPv6 exist: there, that the address is understood shows in the refusal.
    let database = small();
    let test = target(&database, &["uri: 'postgresql://admin:${PW}@[::1]:1/{db}'"]).env("PW", PASSWORD);
    test.run(["backup"]).fails(1).says("\"::1\", port 1 failed").never_shows(PASSWORD);
    let server = Cluster::start_with(&["listen_addresses=127.0.0.1,::1"]);
    if !server.log().contains("IPv6 address \"::1\"") || server.log().contains("could not bind IPv6") {
        return;
    }
    let database = server.create_database();
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2), (3)");
    backs_up(&database, &target(&database, &["uri: 'postgresql://admin:${PW}@[::1]:{port}/{db}'"]).env("PW", PASSWORD));
    backs_up(
        &database,
        &target(&database, &["host: '::1'", "port: {port}", "user: admin", "password: ${PW}", "database: {db}"])
            .env("PW", PASSWORD),
    );
}

#[test]
fn by_variables_where_the_config_says_nothing() {
    let database = small();
    let all = |test: Test| {
        test.env("PGHOST", HOST)
            .env("PGPORT", database.cluster().port().to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGPASSWORD", PASSWORD)
    };
    backs_up(&database, &all(target(&database, &[])).env("PGDATABASE", database.name()));
    // What the config says wins, name by name.
    let wrong = all(at_place(&database, &["password: ${PW}"])).env("PW", PASSWORD);
    let wrong = wrong.env("PGHOST", "elsewhere.invalid").env("PGPORT", "1").env("PGUSER", "nobody").env("PGPASSWORD", "wrong");
    backs_up(&database, &wrong.env("PGDATABASE", "wrong"));
}

#[test]
fn no_variable_leads_a_configured_host_elsewhere() {
    let database = small();
    let service = "[elsewhere]\nhost=elsewhere.invalid\nhostaddr=192.0.2.1\nport=1\nuser=nobody\ndbname=wrong\npassword=wrong\n";
    let secret = ["password: ${PW}"];
    let test = at_place(&database, &secret).env("PW", PASSWORD).file("services", service);
    let test = test.env("PGHOSTADDR", "192.0.2.1").env("PGSERVICE", "elsewhere").env("PGCONNECT_TIMEOUT", "5");
    backs_up(&database, &test.env("PGSERVICEFILE", "services"));
    let uri = target(&database, &["uri: 'postgresql://admin:${PW}@127.0.0.1:{port}/{db}'"]).env("PW", PASSWORD);
    let uri = uri.file("services", service).env("PGHOSTADDR", "192.0.2.1").env("PGSERVICE", "elsewhere");
    backs_up(&database, &uri.env("PGSERVICEFILE", "services").env("PGCONNECT_TIMEOUT", "5"));
}

#[test]
fn by_a_service_file_of_which_the_config_overrides_parts() {
    let database = small();
    let service = filled(
        &database,
        &format!(
            "# comment\n[other]\nhost=wrong\n[mine]\nhost=127.0.0.1\nport={{port}}\ndbname={{db}}\nuser=admin\npassword={PASSWORD}\n"
        ),
    );
    backs_up(&database, &target(&database, &[]).file(".pg_service.conf", &service).env("PGSERVICE", "mine"));
    let named = || target(&database, &[]).file("services", &service).env("PGSERVICEFILE", "services");
    backs_up(&database, &named().env("PGSERVICE", "mine"));
    named().env("PGSERVICE", "nosuch").run(["backup"]).fails(2).says("no service file has the service \"nosuch\"");
    let uri = target(&database, &["uri: postgresql:///?service=mine"]).file(".pg_service.conf", &service);
    backs_up(&database, &uri);
    let other = small();
    let overridden = target(&other, &["database: {db}", "user: admin"]).file(".pg_service.conf", &service);
    backs_up(&other, &overridden.env("PGSERVICE", "mine").env("PGDATABASE", "wrong").env("PGUSER", "wrong"));
}

#[test]
fn by_a_password_file() {
    let database = small();
    let line = filled(&database, &format!("127.0.0.1:{{port}}:{{db}}:admin:{PASSWORD}\n"));
    backs_up(&database, &at_place(&database, &[]).file(".pgpass", &line));
    backs_up(&database, &at_place(&database, &[]).file("passwords", &line).env("PGPASSFILE", "passwords"));
    at_place(&database, &[]).run(["backup"]).fails(1).says("no password supplied").says("~/.pgpass");
}

#[test]
fn a_password_is_taken_as_it_is() {
    for (number, word) in
        ["ends in a space ", "$HOME ${x} \\ 'q' \"d\"", "pässwörd ☃", "0012345678", "a#b: c"].into_iter().enumerate()
    {
        let role = format!("taken_{number}");
        let database = ROLES.create_database();
        database.psql(&format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD $pw${word}$pw$"));
        database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2), (3)");
        let login = |line: &str| {
            let user = format!("user: {role}");
            target(&database, &["host: 127.0.0.1", "port: {port}", "database: {db}", &user, line])
        };
        backs_up(&database, &login("password: { file: secret }").file("secret", &format!("{word}\n")));
        backs_up(&database, &login("password: { file: secret }").file("secret", word));
        backs_up(&database, &login("password: { command: cat secret }").file("secret", &format!("{word}\n")));
        backs_up(&database, &login("password: { command: [cat, secret] }").file("secret", word));
        backs_up(&database, &login("password: ${PW}").env("PW", word));
        backs_up_with(&database, &login("password: ${PW}").file("vars", &format!("PW=\"{word}\"\n")), &["--env-file", "vars"]);
        let wrong = login("password: { file: secret }").file("secret", &format!("{word}\n\n"));
        wrong.run(["backup"]).fails(1).says("password authentication failed");
    }
    let digits = ROLES.create_database();
    digits.psql(
        "CREATE ROLE of_digits SUPERUSER LOGIN PASSWORD '00123'; CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2), (3)",
    );
    let lines = ["host: 127.0.0.1", "port: {port}", "database: {db}", "user: of_digits", "password: 00123"];
    backs_up(&digits, &target(&digits, &lines));
}

#[test]
fn the_environment_wins_over_the_env_file() {
    let database = small();
    let test = at_place(&database, &["password: ${PW}"]).file("vars", "PW=wrong\n").env("PW", PASSWORD);
    backs_up_with(&database, &test, &["--env-file", "vars"]);
    // libpq's own variables may stand in the file as well.
    let test = at_place(&database, &[]).file("vars", &format!("export PGPASSWORD='{PASSWORD}'\n"));
    backs_up_with(&database, &test, &["--env-file", "vars"]);
}

#[test]
fn a_secret_that_can_t_be_had_is_said_before_the_server_is_asked() {
    let database = small();
    let fails = |line: &str| at_place(&database, &[line]).file("empty", "").run(["backup"]).fails(2);
    fails("password: { file: /nonexistent/secret }").says("targets[0].password.file (line ").says("No such file");
    fails("password: { file: empty }").says("is empty");
    fails("password: { command: 'echo sealed >&2; exit 7' }").says("exited with code 7: sealed");
    fails("password: { command: [no-such-program] }").says("no-such-program");
}

#[test]
fn tls_where_the_server_has_it_and_a_refusal_where_not() {
    let plain = small();
    let ran = at_place(&plain, &["password: ${PW}", "sslmode: require"]).env("PW", PASSWORD).run(["backup"]).fails(1);
    ran.says("error: app: connect: ").says("server does not support SSL").says("hint: turn TLS on at the server");

    let keys = tempfile::tempdir().unwrap();
    certificate(keys.path());
    let file = |name: &str| keys.path().join(name).display().to_string();
    let settings = ["ssl=on".to_owned(), format!("ssl_cert_file={}", file("cert")), format!("ssl_key_file={}", file("key"))];
    let server = Cluster::start_with(&settings.each_ref().map(String::as_str));
    let database = server.create_database();
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2), (3)");
    let with = |lines: &[&str]| at_place(&database, &[&["password: ${PW}"], lines].concat()).env("PW", PASSWORD);
    // pg_dump's session says itself how it got there.
    let seen =
        "case $1 in --version) ;; *) psql -XAtc 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()' >{dir}/ssl ;; esac";
    let test = with(&["sslmode: require"]).fake_bin("pg_dump", &format!("{seen}\nexec {{real}} \"$@\""));
    backs_up(&database, &test);
    assert_eq!(fs::read_to_string(test.path("ssl")).unwrap(), "t\n");
    backs_up(&database, &with(&["sslmode: verify-ca"]).env("PGSSLROOTCERT", file("cert")));
    with(&["sslmode: verify-full"]).env("PGSSLROOTCERT", file("cert")).run(["backup"]).fails(1).says("does not match host name");
    with(&["sslmode: verify-ca"]).run(["backup"]).fails(1).says("root certificate").says("PGSSLROOTCERT");
    let uri = filled(&database, "uri: 'postgresql://admin:${PW}@127.0.0.1:{port}/{db}?sslmode=verify-ca'");
    let by_uri = target(&database, &[&uri]).env("PW", PASSWORD).env("PGSSLROOTCERT", file("cert"));
    backs_up(&database, &by_uri);
}

/// A self-signed certificate of a name that is not the server's, which the server's user may read.
fn certificate(directory: &Path) {
    let [key, cert] = ["key", "cert"].map(|name| directory.join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=db.example.org"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl: scripts/test installs what the tests need");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        // Where root starts a server it runs as another user, as the file of its socket shows.
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(SHARED.socket_directory()).unwrap();
        chown(&key, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}
