//! The configuration: one YAML file, read whole, every mistake found in one go.

pub mod model;
pub mod secret;
pub mod mistake;
mod expand;
pub mod env_file;
pub mod node;
mod walk;
pub mod read;
pub mod sample;

pub use mistake::{ConfigError, Mistake};
pub use read::{HostFacts, find, read_file};
