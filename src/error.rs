//! The one error type. Its kind alone decides the retry and the exit code; its text says what
//! happened, to which target, why, and what to do next, and never holds a secret.

use std::fmt;

use serde::Serialize;

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The command line or the configuration is wrong; nothing was done.
    Config,
    /// A destination that must not be touched; nothing was done.
    Refused,
    /// A NAME or WHEN matches nothing.
    NotFound,
    /// Another run holds the lock.
    Locked,
    /// A signal or the caller ended it.
    Interrupted,
    /// The time of one attempt at a unit was up, or of a clean-up.
    Timeout,
    /// A server could not be reached, or the connection broke: worth another try.
    Connection,
    /// A storage failed in a way that may pass: worth another try.
    Storage,
    /// A storage failed in a way that stays: no permission, read-only, full.
    StorageDenied,
    /// A storage lacks what was asked for.
    Missing,
    /// Something is there already.
    Exists,
    /// A child process failed, or what it wrote was not whole.
    Child,
    /// The source or destination server said no: privilege, object, setting.
    Database,
    /// What was stored is not what was written.
    Damaged,
    /// A check or a freshness rule did not hold.
    Check,
    /// Our own mistake, or the host failed us.
    Internal,
}

impl Kind {
    /// Whether a new attempt may go better.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Connection | Self::Storage)
    }
}

/// Where it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The target or unit.
    pub target: Option<String>,
    /// The step: `connect`, `dump`, `upload`, `load`, ...
    pub step: Option<String>,
    /// The storage's name in the config.
    pub storage: Option<String>,
}

/// A failure. Boxed inside, as results carry it everywhere.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    place: Place,
    cause: String,
    hint: Option<String>,
    source: Option<anyhow::Error>,
}

/// What can fail, fails with our error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind; `cause` is a clause without a full stop: `no such database`.
    pub fn new(kind: Kind, cause: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, place: Place::default(), cause: cause.into(), hint: None, source: None }))
    }

    /// Says what to do next: `check POSTGRES_PASSWORD`.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says what to do next, where nothing is said yet.
    #[must_use]
    pub fn hint_if_none(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Keeps what it came from; its text is shown behind the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the target, where none is named yet.
    #[must_use]
    pub fn target(mut self, target: impl fmt::Display) -> Self {
        self.0.place.target.get_or_insert_with(|| target.to_string());
        self
    }

    /// Names the step, where none is named yet.
    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.0.place.step.get_or_insert_with(|| step.into());
        self
    }

    /// Names the storage, where none is named yet.
    #[must_use]
    pub fn storage(mut self, storage: impl Into<String>) -> Self {
        self.0.place.storage.get_or_insert_with(|| storage.into());
        self
    }

    /// Changes the kind, where a caller knows better what a failure means.
    #[must_use]
    pub fn kind_is(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same failure once more in other words: kind, place and hint stay.
    #[must_use]
    pub fn restated(&self, cause: impl Into<String>) -> Self {
        let Inner { kind, place, hint, .. } = self.0.as_ref();
        Self(Box::new(Inner { kind: *kind, place: place.clone(), cause: cause.into(), hint: hint.clone(), source: None }))
    }

    /// The same failure once more, for another who is to hear of it.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.restated(self.cause())
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Where it happened.
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// What happened and why, in one line, with the causes below it.
    pub fn cause(&self) -> String {
        let mut text = self.0.cause.clone();
        if let Some(source) = &self.0.source {
            for cause in source.chain() {
                let cause = cause.to_string();
                if !text.ends_with(&cause) {
                    text.push_str(": ");
                    text.push_str(&cause);
                }
            }
        }
        text
    }

    /// What to do next.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { target, step, storage } = &self.0.place;
        for part in [target.clone(), storage.as_ref().map(|name| format!("storage {name}")), step.clone()].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.cause())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.0.kind)?;
        self.0.hint.as_ref().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// So that an `Error` can cross a `Read` or `Write` boundary and come out as itself again.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Takes our error out of an I/O error again, or makes one of this kind from it.
pub fn from_io(error: std::io::Error, kind: Kind, cause: impl Into<String>) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(io) => Error::new(kind, cause).source(io),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_place_cause_and_source_once() {
        let io = std::io::Error::from_raw_os_error(28);
        let error = Error::new(Kind::StorageDenied, "can't write").source(io).storage("local").target("app").step("upload");
        assert_eq!(error.to_string(), "app: storage local: upload: can't write: No space left on device (os error 28)");
    }

    #[test]
    fn a_failure_told_once_more_is_the_same_failure() {
        let io = std::io::Error::from_raw_os_error(28);
        let error =
            Error::new(Kind::StorageDenied, "can't write").source(io).target("app").step("upload").hint("free some space");
        assert_eq!(format!("{:?}", error.copy()), format!("{error:?}"));
        let restated = error.restated(format!("x.gz: {}", error.cause())).hint_if_none("none").storage("local");
        insta::assert_snapshot!(
            format!("{restated:?}"),
            @"StorageDenied app: storage local: upload: x.gz: can't write: No space left on device (os error 28) (hint: free some space)"
        );
    }

    #[test]
    fn an_error_comes_back_from_io_as_itself() {
        let io: std::io::Error = Error::new(Kind::Child, "pg_dump exited with 1").hint("look").into();
        let error = from_io(io, Kind::Internal, "read");
        assert_eq!((error.kind(), error.hint_text()), (Kind::Child, Some("look")));
    }
}
