//! Text for a terminal: aligned columns, colours, and control characters made visible. Nothing that
//! a label, a name or a server says reaches a terminal raw.

use std::fmt::Write as _;

/// Colours by their SGR code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

/// The text in this colour, where colour is wanted.
pub(super) fn paint(text: &str, paint: Paint, color: bool) -> String {
    if color { format!("\u{1b}[{}m{text}\u{1b}[0m", paint as u8) } else { text.to_owned() }
}

/// One line: every control character, line ends too, as an escape that can be read. So are those
/// that turn the direction of text around, as a name could pose as another with them.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Prose that may have several lines, such as a server's message: further lines are indented.
pub(super) fn prose(text: &str) -> String {
    let line = |line: &str| visible(&line.trim_end().replace('\t', " "));
    text.trim_end().split('\n').map(line).collect::<Vec<_>>().join("\n    ")
}

/// A table under construction.
pub(super) struct Table {
    headers: Vec<&'static str>,
    right: Vec<&'static str>,
    rows: Vec<Vec<(String, Option<Paint>)>>,
}

impl Table {
    /// A table with these columns; those in `right` are aligned to the right.
    pub(super) fn new(headers: &[&'static str], right: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), right: right.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`, but in the last column.
    pub(super) fn row(&mut self, cells: Vec<(String, Option<Paint>)>) {
        let last = self.headers.len() - 1;
        let filled = |(at, (text, paint)): (usize, (String, Option<Paint>))| {
            let text = visible(&text);
            (if text.is_empty() && at < last { "-".to_owned() } else { text }, paint)
        };
        self.rows.push(cells.into_iter().enumerate().map(filled).collect());
    }

    /// The text, with a line end after each row. The last column is cut where the rows would be
    /// wider than `fit` columns; no other column is ever cut.
    pub(super) fn render(&self, color: bool, fit: Option<usize>) -> String {
        let headers = self.headers.iter().map(|header| ((*header).to_owned(), None)).collect();
        let all: Vec<&Vec<_>> = std::iter::once(&headers).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.headers.len())
            .map(|at| all.iter().filter_map(|row| row.get(at)).map(|(text, _)| text.chars().count()).max().unwrap_or(0))
            .collect();
        let last = self.headers.len() - 1;
        let before_last: usize = widths[..last].iter().map(|width| width + 2).sum();
        let room = fit.map(|fit| fit.saturating_sub(before_last).max(self.headers[last].len()));
        let mut out = String::new();
        for row in all {
            let mut line = String::new();
            for (at, (text, color_of)) in row.iter().enumerate() {
                let text = if at == last { cut(text, room) } else { text.clone() };
                let pad = " ".repeat(widths[at].saturating_sub(text.chars().count()));
                let shown = color_of.map_or(text.clone(), |color_of| paint(&text, color_of, color));
                let (before, after) =
                    if self.right.contains(&self.headers[at]) { (pad, String::new()) } else { (String::new(), pad) };
                let _ = write!(line, "{before}{shown}{after}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn cut(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if text.chars().count() > room => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_a_cursor_is_made_visible() {
        assert_eq!(visible("a\u{1b}[2Jb\r\n\t\u{7f}\u{9b}"), "a\\u{1b}[2Jb\\r\\n\\t\\u{7f}\\u{9b}");
        assert_eq!(visible("x\u{202e}y é 東"), "x\\u{202e}y é 東");
        assert_eq!(prose("ERROR:  no\nLINE 1:\tx\r\n"), "ERROR:  no\n    LINE 1: x");
    }

    #[test]
    fn only_the_last_column_is_cut_to_fit() {
        let mut table = Table::new(&["ID", "LABEL"], &["ID"]);
        table.row(vec![("7".into(), None), ("a long label".into(), None)]);
        table.row(vec![(String::new(), None), (String::new(), None)]);
        assert_eq!(table.render(false, Some(10)), "ID  LABEL\n 7  a lon…\n -\n");
        assert_eq!(table.render(false, None), "ID  LABEL\n 7  a long label\n -\n");
    }
}
