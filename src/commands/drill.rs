//! `restore --drill`: each chosen unit's backup restored into a scratch place, held against its
//! inventory, asked the target's own questions, and thrown away.

#[allow(dead_code)]
pub(super) mod judge;

use std::time::Duration;

use crate::catalog::resolve::When;
use crate::commands::Found;
use crate::config::model::Config;
use crate::error::{Error, Kind};
use crate::host::Context;
use crate::outcome::Items;

/// `restore --drill`'s options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Units or targets, by name or glob; none: all enabled ones.
    pub patterns: Vec<String>,
    /// Which backup of each.
    pub at: When,
    /// Only this storage.
    pub from: Option<String>,
    /// Whose; none: our own.
    pub host: Option<String>,
    /// How long to wait for another run's lock.
    pub wait: Option<Duration>,
    /// Objects loaded at once, where the format can.
    pub jobs: Option<std::num::NonZeroU32>,
    /// Look, and do nothing.
    pub dry_run: bool,
}

/// Drills what is selected.
pub fn run(_config: &Config, _options: &Options, _cx: &Context) -> Found {
    Found::failure(Items::Drills(Vec::new()), &Error::new(Kind::Internal, "not yet"))
}
