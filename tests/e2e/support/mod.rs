//! What the tests stand on: servers, the program, and waiting for a condition.
//! Nothing here sleeps for a guessed time, and nothing here replaces a real thing by a double.

// Which of these helpers are in use changes with the tests.
#![allow(dead_code, unused_imports)]

pub mod archive;
pub mod cluster;
pub mod compose;
pub mod container;
pub mod engine;
pub mod engine_cut;
pub mod in_process;
pub mod planted;
pub mod podman;
pub mod proxy;
pub mod proxy_http;
mod proxy_odd;
pub mod s3;
pub mod s3_request;
pub mod script;
pub mod strace;
pub mod tool;
pub mod volume;
pub mod volume_target;
pub mod ways;
mod tests;
mod s3_tests;

use std::path::Path;
use std::time::{Duration, Instant};

pub use cluster::{Cluster, Database, SERVER_16, SERVER_18, SHARED, comparable, sample_database};
pub use compose::Compose;
pub use container::{Container, NewContainer};
pub use engine::Docker;
pub use engine_cut::CutEngine;
pub use planted::{Planted, Seed};
pub use podman::Podman;
pub use proxy::{Call, Fault, Kind, Proxy};
pub use rustix::process::Signal;
pub use s3::{Ceph, S3Bucket, S3sFs, Server};
pub use strace::{Step, Traced};
pub use tool::{Ran, Running, Test, files_below};
pub use volume::Volume;

/// The root of the source tree.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the tests run as root: then servers, and what must not be allowed everything, do not.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port of this machine on which nobody listens: below those that the kernel gives to clients, and to whoever asks for any. So none
/// of those takes the place of a server that is away for a while, or has ended.
pub fn free_port() -> u16 {
    loop {
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let port = 10_000 + u16::from_str_radix(&random[..4], 16).unwrap() % 22_000;
        if std::net::TcpListener::bind((cluster::HOST, port)).is_ok() {
            return port;
        }
    }
}

/// How long what must come is waited for: far longer than anything here takes, on a busy machine too.
pub const LONG: Duration = Duration::from_secs(180);

/// Waits until a condition holds; fails the test when it does not for [`LONG`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(LONG, condition), "not within {LONG:?}: {what}");
}

/// Waits until a condition holds, at most this long. Whether it does.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
