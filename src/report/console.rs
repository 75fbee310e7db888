//! Standard error, shared by lines and progress bars: a line is written while the bars are away, so
//! neither tears the other. A failed write to standard error is let go: there is nowhere to say so.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::stream::Stream;
use super::table::visible;

const WITHOUT_SIZE: &str = "{spinner} {prefix}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}";
const WITH_SIZE: &str =
    "{spinner} {prefix}  [{bar:24}]  {binary_bytes} of about {binary_total_bytes}  {binary_bytes_per_sec}  {elapsed}";

/// Standard error and the bars on it.
pub(super) struct Console {
    stream: Stream,
    bars: Option<MultiProgress>,
    units: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Console {
    /// `bars`: whether progress bars are wanted; without a terminal there are none.
    pub(super) fn new(stream: Stream, bars: bool) -> Self {
        let draw = || {
            let terminal = BarTerminal { stream: stream.clone(), drawn: Mutex::new(String::new()) };
            MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(terminal), 10))
        };
        let bars = (bars && stream.is_terminal()).then(draw);
        Self { stream, bars, units: Mutex::new(BTreeMap::new()) }
    }

    /// Whether colour is wanted.
    pub(super) fn color(&self) -> bool {
        self.stream.color()
    }

    /// Writes whole lines.
    pub(super) fn put(&self, lines: &[u8]) {
        let write = || {
            let _ = self.stream.put(lines);
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Shows a bar for a unit; a spinner where the size is not known.
    pub(super) fn begin(&self, unit: &str, expected_bytes: Option<u64>) {
        let Some(bars) = &self.bars else { return };
        self.end(unit);
        let (bar, template) = match expected_bytes {
            Some(bytes) if bytes > 0 => (ProgressBar::new(bytes), WITH_SIZE),
            _ => (ProgressBar::no_length(), WITHOUT_SIZE),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bars.add(bar.with_style(style.progress_chars("=> ")).with_prefix(visible(unit)));
        bar.enable_steady_tick(Duration::from_millis(200));
        lock(&self.units).insert(unit.to_owned(), bar);
    }

    /// Moves a unit's bar to this many bytes.
    pub(super) fn advance(&self, unit: &str, bytes: u64) {
        if let Some(bar) = lock(&self.units).get(unit) {
            // What is expected is an estimate: the bar grows with the truth.
            if bar.length().is_some_and(|length| length < bytes) {
                bar.set_length(bytes);
            }
            bar.set_position(bytes);
        }
    }

    /// Takes a unit's bar away.
    pub(super) fn end(&self, unit: &str) {
        let bar = lock(&self.units).remove(unit);
        if let (Some(bar), Some(bars)) = (bar, &self.bars) {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
    }

    /// Takes all bars away.
    pub(super) fn clear(&self) {
        let units: Vec<String> = lock(&self.units).keys().cloned().collect();
        for unit in units {
            self.end(&unit);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal as indicatif draws on it: what is drawn is gathered and written in one piece.
struct BarTerminal {
    stream: Stream,
    drawn: Mutex<String>,
}

impl BarTerminal {
    fn add(&self, text: fmt::Arguments<'_>) -> io::Result<()> {
        lock(&self.drawn).write_fmt(text).map_err(io::Error::other)
    }

    fn move_cursor(&self, by: usize, direction: char) -> io::Result<()> {
        if by == 0 { Ok(()) } else { self.add(format_args!("\u{1b}[{by}{direction}")) }
    }
}

impl fmt::Debug for BarTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BarTerminal")
    }
}

impl TermLike for BarTerminal {
    fn width(&self) -> u16 {
        self.stream.width().and_then(|width| u16::try_from(width).ok()).unwrap_or(80)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.add(format_args!("{s}\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.add(format_args!("{s}"))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add(format_args!("\r\u{1b}[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *lock(&self.drawn));
        if !drawn.is_empty() {
            // indicatif unwraps what drawing returns, and a terminal that hung up must not end a backup.
            let _ = self.stream.put(drawn.as_bytes());
        }
        Ok(())
    }
}
