//! Logs, by tracing: lines on standard error and a file for each run.
//!
//! What a person sees by default are the report's own lines, without timestamps; tracing adds to
//! them what `-v` or `RUST_LOG` asks for, with timestamps. With `--log-format json` each line on
//! standard error is an object, the report's lines too. The file takes all of it at debug.
//! A log never fails a run, and the time comes from the clock that it is given.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::SecondsFormat;
use rustix::fs::OFlags;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::console::{Console, lock};
use crate::error::{Error, Kind, Result};
use crate::host::Clock;
use crate::names::RunId;

/// The tracing target of the report's own lines, which people see without tracing's help.
pub(super) const REPORT: &str = "db_backup_tools::report";

/// What is logged before the log file's place is known is kept up to this many bytes.
const KEPT_BEFORE_OPEN: usize = 256 << 10;

/// What decides how much is logged.
pub(super) struct Levels<'a> {
    pub(super) quiet: bool,
    pub(super) verbose: u8,
    pub(super) json: bool,
    pub(super) rust_log: Option<&'a str>,
}

impl Levels<'_> {
    /// What others than the report may say. `RUST_LOG` wins, where it can be read.
    fn of_others(&self) -> EnvFilter {
        let asked = self.rust_log.filter(|text| !text.trim().is_empty()).and_then(|text| EnvFilter::try_new(text).ok());
        asked.unwrap_or_else(|| {
            EnvFilter::new(match (self.quiet, self.verbose) {
                (true, _) => "error",
                (_, 0) => "warn",
                (_, 1) => "warn,db_backup_tools=debug",
                _ => "debug,db_backup_tools=trace",
            })
        })
    }

    /// What the report says on standard error; problems are never filtered out.
    fn of_report(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::WARN,
            (_, 0) => Level::INFO,
            _ => Level::DEBUG,
        }
    }
}

/// Where tracing's events go.
pub(super) fn dispatch(levels: &Levels<'_>, console: &Arc<Console>, file: &LogFile, clock: &Arc<dyn Clock>) -> Dispatch {
    let most = levels.of_report();
    let is_report = |metadata: &Metadata<'_>| metadata.target() == REPORT;
    // As text the report's lines are on standard error already, but for those at debug.
    let least = if levels.json { Level::ERROR } else { Level::DEBUG };
    let ours = filter_fn(move |metadata| is_report(metadata) && (least..=most).contains(metadata.level()));
    let others = levels.of_others().and(filter_fn(move |metadata| !is_report(metadata)));
    let on_stderr = lines(levels.json, Out::Console(console.clone()), clock).with_filter(ours.or(others));
    let in_file = lines(levels.json, Out::File(file.clone()), clock).with_filter(LevelFilter::DEBUG);
    Dispatch::new(tracing_subscriber::registry().with(on_stderr).with(in_file))
}

fn lines<S>(json: bool, out: Out, clock: &Arc<dyn Clock>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .log_internal_errors(false)
        .with_timer(Timer(clock.clone()))
        .with_writer(move || out.clone());
    if json { layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed() } else { layer.boxed() }
}

struct Timer(Arc<dyn Clock>);

impl FormatTime for Timer {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        w.write_str(&self.0.now().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// Takes one formatted event a write, which is how tracing-subscriber's layer writes.
#[derive(Clone)]
enum Out {
    Console(Arc<Console>),
    File(LogFile),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Console(console) => console.put(bytes),
            Self::File(file) => file.put(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log file of a run. Until it is opened, what is logged is kept, so that the file begins where
/// the run does.
#[derive(Clone)]
pub(super) struct LogFile(Arc<Mutex<State>>);

enum State {
    Kept(Vec<u8>),
    Open(File),
    Failed(io::Error),
}

impl LogFile {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Kept(Vec::new()))))
    }

    /// Opens `db-backup_RUN_PID.log` in this directory, for us alone to read.
    pub(super) fn open(&self, directory: &Path, run: RunId, pid: u32) -> Result<PathBuf> {
        let path = directory.join(format!("db-backup_{run}_{pid}.log"));
        let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(no_follow).open(&path);
        opened.and_then(|file| self.begin(file)).map(|()| path.clone()).map_err(|error| {
            Error::new(Kind::StorageDenied, format!("can't write the log file {}", path.display()))
                .source(error)
                .step("log")
                .hint("`log_dir:` must be a directory that exists and that we may write to")
        })
    }

    /// Goes on in this file, after what was kept.
    pub(super) fn begin(&self, mut file: File) -> io::Result<()> {
        let mut state = lock(&self.0);
        if let State::Kept(kept) = &*state {
            file.write_all(kept)?;
        }
        *state = State::Open(file);
        Ok(())
    }

    fn put(&self, bytes: &[u8]) {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Kept(kept) if kept.len() + bytes.len() <= KEPT_BEFORE_OPEN => kept.extend_from_slice(bytes),
            State::Kept(_) | State::Failed(_) => {}
            State::Open(file) => {
                if let Err(error) = file.write_all(bytes) {
                    *state = State::Failed(error);
                }
            }
        }
    }

    /// Why lines are missing in it, if any are.
    pub(super) fn failure(&self) -> Option<String> {
        match &*lock(&self.0) {
            State::Failed(error) => Some(format!("the log file is not whole: {error}")),
            State::Kept(_) | State::Open(_) => None,
        }
    }
}
