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
    clippy::print_stdout,
    clippy::similar_names,
    clippy::case_sensitive_file_extension_comparisons,
    missing_docs,
    unreachable_pub
)]

mod support;

mod architecture;
mod sample;
mod secrets;

mod backup;
mod bad_dumps;
mod bench;
mod cancel;
mod collect;
mod connect;
mod compose;
mod containers;
mod containers_cancel;
mod containers_cut;
mod containers_drill;
mod containers_errors;
mod crash;
mod custom;
mod cut;
mod damage;
mod databases;
mod disk;
mod docs;
mod fanout;
mod filters;
mod drill;
mod drill_doubts;
mod drill_places;
mod engine;
mod globals;
mod gzip_readers;
mod hold;
mod hooks;
mod invocation;
mod forge;
mod hostile;
mod list;
mod live_database;
mod locks;
mod messages;
mod nasty;
mod parallel;
mod properties;
mod prune;
mod replace;
mod replace_breaks;
mod restore;
mod role;
mod s3;
mod s3_crash;
mod s3_errors;
mod s3_faults;
mod s3_keys;
mod s3_ops;
mod s3_reads;
mod s3_siblings;
mod s3_ways;
mod restore_breaks;
mod restore_choice;
mod roundtrip;
mod s3_contract;
mod storages;
mod session;
mod tables;
mod versions;
mod volume_drill;
mod volume_hostile;
mod volume_restore;
mod volume_to_volume;
mod volume;
mod volume_engine;
mod volume_messages;
