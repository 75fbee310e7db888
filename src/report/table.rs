//! Text for a terminal: aligned columns, colours, and control characters made visible. Nothing that
//! a label, a name or a server says reaches a terminal raw.

use std::borrow::Cow;

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

/// A table under construction. Its texts stand in one, as there may be a hundred thousand rows.
pub(super) struct Table {
    headers: Vec<&'static str>,
    right: Vec<&'static str>,
    text: String,
    /// Where each cell's text ends, and its colour; row by row.
    cells: Vec<(usize, Option<Paint>)>,
}

impl Table {
    /// A table with these columns; those in `right` are aligned to the right.
    pub(super) fn new(headers: &[&'static str], right: &[&'static str]) -> Self {
        let mut table = Self { headers: headers.to_vec(), right: right.to_vec(), text: String::new(), cells: Vec::new() };
        table.row(headers.iter().map(|header| ((*header).to_owned(), None)).collect());
        table
    }

    /// Adds a row; an empty cell is shown as `-`, but in the last column.
    pub(super) fn row(&mut self, cells: Vec<(String, Option<Paint>)>) {
        let last = self.headers.len() - 1;
        for (at, (text, paint)) in cells.into_iter().enumerate() {
            let text = visible(&text);
            self.text.push_str(if text.is_empty() && at < last { "-" } else { &text });
            self.cells.push((self.text.len(), paint));
        }
    }

    /// Each cell with its column, row by row.
    fn cells(&self) -> impl Iterator<Item = (usize, &str, Option<Paint>)> {
        let columns = self.headers.len();
        let starts = std::iter::once(0).chain(self.cells.iter().map(|(end, _)| *end));
        let cells = starts.zip(&self.cells).enumerate();
        cells.map(move |(at, (start, (end, paint)))| (at % columns, &self.text[start..*end], *paint))
    }

    /// The text, with a line end after each row. The last column is cut where the rows would be
    /// wider than `fit` columns; no other column is ever cut.
    pub(super) fn render(&self, color: bool, fit: Option<usize>) -> String {
        let mut widths = vec![0; self.headers.len()];
        for (at, text, _) in self.cells() {
            widths[at] = text.chars().count().max(widths[at]);
        }
        let last = self.headers.len() - 1;
        let before_last: usize = widths[..last].iter().map(|width| width + 2).sum();
        let room = fit.map(|fit| fit.saturating_sub(before_last).max(self.headers[last].len()));
        let mut out = String::with_capacity(self.text.len() * 2);
        let mut line = 0;
        for (at, text, color_of) in self.cells() {
            let text = if at == last { cut(text, room) } else { Cow::Borrowed(text) };
            let pad = widths[at].saturating_sub(text.chars().count());
            let is_right = self.right.contains(&self.headers[at]);
            out.extend(std::iter::repeat_n(' ', if is_right { pad } else { 0 }));
            match color_of {
                Some(color_of) => out.push_str(&paint(&text, color_of, color)),
                None => out.push_str(&text),
            }
            if at < last {
                out.extend(std::iter::repeat_n(' ', if is_right { 2 } else { pad + 2 }));
            } else {
                out.truncate(line + out[line..].trim_end().len());
                out.push('\n');
                line = out.len();
            }
        }
        out
    }
}

fn cut(text: &str, room: Option<usize>) -> Cow<'_, str> {
    match room {
        Some(room) if text.chars().count() > room => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        _ => Cow::Borrowed(text),
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
