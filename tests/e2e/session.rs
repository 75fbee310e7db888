//! A session on a server that stays as long as its test wants it: in the way, or holding a lock.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use crate::support::Cluster;

/// An open session. It ends when it is dropped.
pub struct Session(Child);

impl Session {
    /// Connects to a database, runs this SQL there, and stays.
    pub fn start(cluster: &Cluster, database: &str, sql: &str) -> Self {
        let mut command = cluster.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{sql}\nSELECT 'the session is open';").unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.lines().any(|line| line.unwrap() == "the session is open"), "no session: {sql}");
        child.stdin = Some(input);
        Self(child)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
