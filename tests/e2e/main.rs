//! End-to-end tests: the real program, real servers, a real disk. One binary, so that servers start once.

// The lints that hold the architecture are for the program: a test starts programs, reads its own
// environment and clock, and fails by panicking.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod support;

mod architecture;
mod sample;

mod backup;
mod cancel;
mod connect;
mod crash;
mod cut;
mod damage;
mod disk;
mod docs;
mod forge;
mod hostile;
mod list;
mod locks;
mod messages;
mod prune;
mod restore;
mod restore_breaks;
mod restore_choice;
mod roundtrip;
mod session;
