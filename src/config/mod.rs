//! The configuration: one YAML file, read whole, every mistake found in one go.

pub mod model;
pub mod secret;
pub mod mistake;
pub mod env_file;
pub mod node;
pub mod read;
pub mod sample;
