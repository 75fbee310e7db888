//! Standard output and standard error as values: whether a terminal is behind them, how wide it is,
//! and whether colour is wanted. Clones write to the same place; a write is never split.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::pipe::Pipe;
use crate::host::{Cancel, Env};

type Width = Arc<dyn Fn() -> Option<usize> + Send + Sync>;

/// A place to write to.
#[derive(Clone)]
pub struct Stream {
    writer: Arc<Mutex<Box<dyn Write + Send>>>,
    width: Option<Width>,
    color: bool,
}

impl Stream {
    /// A stream that is no terminal: a pipe, a file, a test's buffer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Arc::new(Mutex::new(Box::new(writer))), width: None, color: false }
    }

    /// The same as a terminal that is this many columns wide.
    #[must_use]
    pub fn terminal(self, columns: usize, env: &Env) -> Self {
        Self { width: Some(Arc::new(move || Some(columns))), color: wants_color(env), ..self }
    }

    /// The process's standard output. A reader that stands still holds a write no longer than until the
    /// token's cancel.
    pub fn stdout(env: &Env, cancel: &Cancel) -> Self {
        Self::of_process(io::stdout, env, cancel)
    }

    /// The process's standard error; likewise.
    pub fn stderr(env: &Env, cancel: &Cancel) -> Self {
        Self::of_process(io::stderr, env, cancel)
    }

    fn of_process<W: IsTerminal + AsFd + Send + Sync + 'static>(handle: impl Fn() -> W, env: &Env, cancel: &Cancel) -> Self {
        let (writer, again) = (Pipe::new(handle(), cancel.clone()), handle());
        if !again.is_terminal() {
            return Self::new(writer);
        }
        let columns = move || rustix::termios::tcgetwinsize(again.as_fd()).ok().map(|size| usize::from(size.ws_col));
        // A terminal of width 0 does not know its width.
        let width: Width = Arc::new(move || columns().filter(|columns| *columns > 0));
        Self { width: Some(width), color: wants_color(env), ..Self::new(writer) }
    }

    /// Whether a terminal is behind it.
    pub fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// The terminal's width now, in columns; `None`: no terminal, or it does not say.
    pub fn width(&self) -> Option<usize> {
        self.width.as_ref().and_then(|width| width())
    }

    /// Whether colour is wanted: a terminal, no `NO_COLOR`, not `TERM=dumb`.
    pub fn color(&self) -> bool {
        self.color
    }

    /// Writes all of it in one piece, and flushes.
    pub fn put(&self, text: &[u8]) -> io::Result<()> {
        let mut writer = self.lock();
        writer.write_all(text)?;
        writer.flush()
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Write + Send>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream(terminal: {}, color: {})", self.is_terminal(), self.color)
    }
}

/// As no-color.org has it: set and not empty.
fn wants_color(env: &Env) -> bool {
    let set = |name| env.get_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && env.get("TERM") != Some("dumb")
}
