//! Where a target's client programs are and run: on this machine, or in a container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnosis;
use super::inside::Inside;
use crate::error::{Error, Result};
use crate::host::engine::Stdin;
use crate::host::process::{Exit, Finished, Program};

/// Variables of one child, and their values, which may be secrets.
pub(super) type Variables = BTreeMap<&'static str, String>;

/// Where client programs are.
#[derive(Debug, Clone)]
pub(super) enum Site {
    /// On this machine; in this directory alone, where one is given.
    Host(Option<PathBuf>),
    /// In a container.
    Inside(Arc<Inside>),
}

impl Site {
    /// A program there, to be given arguments, with these variables and none of this process's own that libpq reads.
    pub(super) fn program(&self, path: &Path, stdin: Stdin, variables: &Variables) -> Program {
        match self {
            Self::Host(_) => with(Program::new(path), variables),
            Self::Inside(inside) => inside.program(path, stdin, variables),
        }
    }

    /// How a program there ended, and what it said. An error where the way to it was cut before.
    pub(super) fn ended(&self, doing: &str, finished: &Finished) -> Result<(Exit, String)> {
        match self {
            Self::Host(_) => Ok((finished.exit, finished.stderr_tail.clone())),
            Self::Inside(inside) => inside.ended(doing, finished.exit, &finished.stderr_tail),
        }
    }

    /// An error for one that ended badly, see [`diagnosis::failed`].
    pub(super) fn failed(&self, doing: &str, exit: Exit, stderr: &str) -> Error {
        match self {
            Self::Host(_) => diagnosis::failed(doing, exit, stderr),
            Self::Inside(inside) => inside.failed(doing, exit, stderr),
        }
    }

    /// The container.
    pub(super) fn inside(&self) -> Option<&Inside> {
        match self {
            Self::Host(_) => None,
            Self::Inside(inside) => Some(inside),
        }
    }
}

/// The program with these variables, and no other that libpq reads.
pub(super) fn with(program: Program, variables: &Variables) -> Program {
    let clean = program.without_env_prefix("PG").env("LC_ALL", "C");
    variables.iter().fold(clean, |program, (name, value)| program.env(*name, value.as_str()))
}
