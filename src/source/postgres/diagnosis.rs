//! Reads what PostgreSQL's programs say on their standard error: what sort of failure it is, and
//! what an operator can do. What is not known here is quoted as it stands.

use crate::error::{Error, Kind};
use crate::host::process::Exit;

/// How much of a program's message an error shows, in characters.
const SHOWN: usize = 600;

const BROKEN: &str = "the connection broke: look into the server's log, and at firewalls and proxies on the way";

/// How libpq begins when there is no connection.
const UNCONNECTED: [&str; 2] = ["connection to server ", "could not translate host name "];

/// What the programs say, in lower case; what that means; and what to do. The first that fits counts.
/// The texts are those of libpq, pg_dump and the server under `LC_ALL=C`.
const KNOWN: [(&str, Kind, &str); 36] = [
    ("could not translate host name", Kind::Connection, "check `host:` and this machine's name resolution"),
    ("connection refused", Kind::Connection, "is the server running there, and are `host:` and `port:` right?"),
    (
        "no such file or directory\n\tis the server running",
        Kind::Connection,
        "is the server running, and is `host:` its socket's directory?",
    ),
    ("timeout expired", Kind::Connection, "the server did not answer in time: check `host:`, `port:` and firewalls"),
    ("no route to host", Kind::Connection, "check `host:` and the network"),
    ("network is unreachable", Kind::Connection, "check `host:` and the network"),
    ("the database system is", Kind::Connection, "the server is starting, stopping or recovering: wait for it"),
    (
        "too many clients",
        Kind::Connection,
        "the server has no connection left: raise max_connections, or back up at a calmer time",
    ),
    (
        "remaining connection slots",
        Kind::Connection,
        "the server has no connection left: raise max_connections, or back up at a calmer time",
    ),
    ("password authentication failed", Kind::Database, "check `user:` and `password:` (or PGPASSWORD, ~/.pgpass)"),
    ("no password supplied", Kind::Database, "set `password:` in the target, PGPASSWORD, or a line in ~/.pgpass"),
    (
        "no pg_hba.conf entry",
        Kind::Database,
        "allow this host, user and database in the server's pg_hba.conf, or set `sslmode: require`",
    ),
    ("peer authentication failed", Kind::Database, "run as that system user, or connect by `host: localhost` with a password"),
    ("server does not support ssl", Kind::Database, "turn TLS on at the server, or set another `sslmode:`"),
    (
        "certificate verify failed",
        Kind::Database,
        "give libpq the right root certificate (PGSSLROOTCERT), or set another `sslmode:`",
    ),
    (
        "root certificate file",
        Kind::Database,
        "give libpq the root certificate (PGSSLROOTCERT, or ~/.postgresql/root.crt), or set another `sslmode:`",
    ),
    (
        "does not match host name",
        Kind::Database,
        "the server's certificate is for that name: set `host:` to it, or `sslmode: verify-ca`",
    ),
    ("server version mismatch", Kind::Child, "install client programs of the server's version, or set `client_bin:`"),
    (
        "row-level security",
        Kind::Database,
        "row security would hide rows from this role: ALTER ROLE ... BYPASSRLS, or back up as the owner",
    ),
    (
        "permission denied for large object",
        Kind::Database,
        "grant SELECT on the large objects, or back up as their owner or a superuser",
    ),
    ("permission denied to create database", Kind::Database, "restore as a role with CREATEDB: ALTER ROLE ... CREATEDB"),
    ("must be able to set role", Kind::Database, "restore as a superuser or a member of that role, or with --no-owner"),
    ("must be member of role", Kind::Database, "restore as a superuser or a member of that role, or with --no-owner"),
    (
        "permission denied",
        Kind::Database,
        "let the role read everything: GRANT pg_read_all_data TO it (server 14 and later), or back up as the owner",
    ),
    ("invalid locale", Kind::Database, "this server lacks the dump's locale: install it on the server's machine"),
    (
        "parameter \"lc_monetary\"",
        Kind::Database,
        "this server lacks the locale that the dump's amounts of money are written in: install it on the server's machine",
    ),
    ("invalid lc_", Kind::Database, "this server lacks the dump's locale: install it on the server's machine"),
    ("no space left on device", Kind::Database, "the server's disk is full"),
    ("server closed the connection", Kind::Connection, "the server went away in the middle: look into its log"),
    ("terminating connection", Kind::Connection, "somebody ended the session, or the server was stopped: look into its log"),
    // A connection that breaks in the middle, as libpq says it without and with TLS.
    ("could not receive data from server", Kind::Connection, BROKEN),
    ("could not send data to server", Kind::Connection, BROKEN),
    ("ssl connection has been closed unexpectedly", Kind::Connection, BROKEN),
    ("ssl syscall error", Kind::Connection, BROKEN),
    ("connection timed out", Kind::Connection, BROKEN),
    ("host is down", Kind::Connection, "check `host:` and the network"),
];

/// An error for a program that ended badly. `doing` is a clause: `pg_dump`, `loading the dump`.
pub(super) fn failed(doing: &str, exit: Exit, stderr: &str) -> Error {
    let said = message(stderr);
    let ended = exit.describe();
    let cause = match exit {
        // Nothing was begun: what psql was to ask, and its exit code, say nothing.
        Exit::Code(_) if UNCONNECTED.iter().any(|start| said.starts_with(start)) => said,
        _ if said.is_empty() => format!("{doing} {ended} and said nothing"),
        Exit::Code(_) => format!("{doing} {ended}: {said}"),
        Exit::Signal(_) => format!("{doing} {ended}; before that it said: {said}"),
    };
    classified(cause, stderr, matches!(exit, Exit::Signal(_)))
}

/// An error with this cause, classified by what was said on standard error.
fn classified(cause: String, stderr: &str, by_signal: bool) -> Error {
    let lower = stderr.to_ascii_lowercase();
    let known = KNOWN.iter().find(|(text, _, _)| lower.contains(text) && !by_signal);
    let missing = (lower.contains("database \"") || lower.contains("role \"")) && lower.contains("does not exist");
    match known {
        Some((_, kind, hint)) => Error::new(*kind, cause).hint(*hint),
        None if missing => Error::new(Kind::Database, cause).hint("check `database:` and `user:`"),
        None => Error::new(Kind::Child, cause),
    }
}

/// What a program said, in one line, without its own name before each line.
pub(super) fn message(stderr: &str) -> String {
    let lines = stderr.lines().map(strip_prefixes).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// Each line of a program that ended well, as warnings.
pub(super) fn warnings(stderr: &str) -> Vec<String> {
    stderr.lines().map(strip_prefixes).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn strip_prefixes(line: &str) -> &str {
    let mut line = line.trim();
    for prefix in ["pg_dump: ", "pg_restore: ", "psql: ", "error: ", "warning: "] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    // `psql:<stdin>:12: `: the line is one of ours, and means nothing to a reader.
    match line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": ")) {
        Some((_, text)) => text.trim_start(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_put_into_one_line_with_a_way_out() {
        let stderr =
            "pg_dump: error: query failed: ERROR:  permission denied for table secret\npg_dump: detail: Query was: LOCK TABLE\n";
        let error = failed("pg_dump", Exit::Code(1), stderr);
        insta::assert_snapshot!(error, @"pg_dump exited with code 1: query failed: ERROR:  permission denied for table secret; detail: Query was: LOCK TABLE");
        assert_eq!(error.kind(), Kind::Database);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("pg_read_all_data")));
    }

    #[test]
    fn only_a_lost_connection_is_worth_another_try() {
        let refused = "psql: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n";
        assert!(failed("psql", Exit::Code(2), refused).kind().is_transient());
        for broken in
            ["SSL connection has been closed unexpectedly", "could not receive data from server: Connection reset by peer"]
        {
            let stderr = format!(
                "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetCopyData() failed.\npg_dump: detail: Error message from server: {broken}\n"
            );
            assert!(failed("pg_dump", Exit::Code(1), &stderr).kind().is_transient(), "{broken}");
        }
        assert!(!failed("pg_dump", Exit::Code(1), "pg_dump: error: out of memory").kind().is_transient());
        assert!(!failed("pg_dump", Exit::Signal(9), refused).kind().is_transient());
    }
}
