//! Backups of databases that are whole when they are listed, and restores that are done when
//! they say so. The modules stand in the order in which they may be used: each uses only those
//! above it (`tests/e2e/architecture.rs` holds that).

pub mod names;
pub mod quantity;
pub mod error;
pub mod observe;
pub mod host;
pub mod config;
pub mod plan;
pub mod source;
pub mod stage;
pub mod storage;
pub mod catalog;
pub mod retention;
pub mod outcome;
pub mod commands;
pub mod report;
pub mod exit;
pub mod cli;
pub mod run;

pub use run::{World, run};
