//! Tables for people, also on a narrow terminal.

use std::iter::once;

use comfy_table::Table as TextTable;
use comfy_table::presets::NOTHING;

/// Spaces between two columns.
const GAP: usize = 2;
/// Where a text begins that stands below its row.
const INDENT: usize = 4;
/// A column that is folded more narrowly than this is harder to read than stacked rows.
const NARROWEST: usize = 16;

/// A plain table, without lines or trailing spaces. Where it is wider than the terminal, its widest
/// column is folded between words, or stands below the others, or every row becomes a block of
/// lines: the first of these that is narrow enough.
pub fn render(header: &[&str], mut rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let cells = cells.flat_map(|cell| cell.lines());
            cells.chain(once(*name)).map(length).max().unwrap_or(0)
        })
        .collect();
    let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    let widest = (0..widths.len()).max_by_key(|&at| widths[at]);
    if let (Some(width), Some(widest)) = (width.filter(|width| total > *width), widest) {
        let room = (width + widths[widest]).saturating_sub(total);
        let column = || rows.iter().filter_map(|row| row.get(widest));
        let longest = column().flat_map(|cell| cell.split_whitespace());
        let longest = longest.chain(once(header[widest])).map(length).max();
        if room < NARROWEST || longest > Some(room) {
            return match moved_below(&widths, width) {
                Some(columns) => below(header, &rows, &columns, width),
                None => stack(header, &rows, width),
            };
        }
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(widest)) {
            *cell = fold(cell, room).join("\n");
        }
    }
    plain(header, rows)
}

fn plain(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = TextTable::new();
    table.load_preset(NOTHING).set_header(header.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP as u16));
    }
    table.trim_fmt()
}

/// The columns without which the others fit: the widest ones, and not more than stay.
fn moved_below(widths: &[usize], width: usize) -> Option<Vec<usize>> {
    let mut columns: Vec<usize> = (0..widths.len()).collect();
    columns.sort_by_key(|&at| std::cmp::Reverse(widths[at]));
    let fit = (1..=widths.len() / 2).find(|&count| {
        let rest = columns[count..].iter().map(|&at| widths[at] + GAP);
        rest.sum::<usize>() <= width + GAP
    })?;
    columns.truncate(fit);
    columns.sort_unstable();
    Some(columns)
}

/// Some columns in lines of their own, below the rest of each row.
fn below(header: &[&str], rows: &[Vec<String>], columns: &[usize], width: usize) -> String {
    fn part<T: Clone>(cells: &[T], is_wanted: impl Fn(usize) -> bool) -> Vec<T> {
        let cells = cells.iter().enumerate().filter(|(at, _)| is_wanted(*at));
        cells.map(|(_, cell)| cell.clone()).collect()
    }
    let stays = |at: usize| !columns.contains(&at);
    let rest = rows.iter().map(|row| part(row, stays)).collect();
    let table = plain(&part(header, stays), rest);
    let mut lines = table.lines().map(str::to_owned);
    let mut shown: Vec<String> = lines.next().into_iter().collect();
    for (line, row) in lines.zip(rows) {
        shown.push(line);
        let mut moved = part(row, |at| columns.contains(&at));
        moved.retain(|cell| !matches!(cell.as_str(), "" | "-"));
        if moved.is_empty() {
            continue;
        }
        let text = moved.join(": ");
        let folded = fold(&text, width.saturating_sub(INDENT));
        shown.extend(folded.iter().map(|line| format!("{:INDENT$}{line}", "")));
    }
    shown.join("\n")
}

/// One cell per line, under the names of the columns.
fn stack(header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let names = header.iter().map(|name| length(name)).max().unwrap_or(0);
    let room = width.saturating_sub(names + GAP).max(1);
    let block = |row: &Vec<String>| {
        let cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        let lines = cells.flat_map(|(name, cell)| {
            let lines = fold(cell, room).into_iter().enumerate();
            lines.map(move |(at, line)| {
                let name = if at == 0 { name } else { "" };
                format!("{name:<names$}  {line}")
            })
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// Lines that are narrow enough: what follows a fold stands below the last column that leaves
/// room for it. Columns are two spaces or more apart.
pub fn hang(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let folded = text.split('\n').map(|line| {
        if length(line) <= width {
            return line.to_owned();
        }
        let mut starts = columns_of(line);
        starts.retain(|at| at + NARROWEST <= width);
        let at = starts.last().copied().unwrap_or(0);
        let start: String = line.chars().take(at).collect();
        let rest: String = line.chars().skip(at).collect();
        // Columns that share the fold can only follow each other.
        let columns = rest.split("  ").map(str::trim);
        let columns: Vec<&str> = columns.filter(|text| !text.is_empty()).collect();
        let rest = columns.join(": ");
        let below = format!("\n{:at$}", "");
        start + &fold(&rest, width.saturating_sub(at)).join(&below)
    });
    folded.collect::<Vec<_>>().join("\n")
}

/// Where the columns of a line begin.
fn columns_of(line: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut spaces = GAP;
    for (at, letter) in line.chars().enumerate() {
        if letter == ' ' {
            spaces += 1;
            continue;
        }
        if spaces >= GAP {
            starts.push(at);
        }
        spaces = 0;
    }
    starts
}

/// Lines of at most `room` characters; a word that is longer has a line of its own.
fn fold(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if length(line) + 1 + length(word) <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row =
            |task: &str, reason: &str| vec![task.to_owned(), "12,345 J".into(), reason.into()];
        vec![
            row("refresh-index", "5,000 rows embedded, 0 kept"),
            row("sentiment-delta", "the gain cannot be told from noise"),
        ]
    }

    #[test]
    fn a_narrow_terminal_folds_the_widest_column_and_no_word() {
        let header = ["task", "joules", "reason"];
        let wide = render(&header, rows(), None);
        assert_eq!(wide.lines().count(), 3, "{wide}");
        assert_eq!(wide, render(&header, rows(), Some(80)));
        for width in [60, 50, 45, 40, 32, 30, 24] {
            let narrow = render(&header, rows(), Some(width));
            for line in narrow.lines() {
                assert!(length(line) <= width, "{width}: {narrow}");
            }
            for word in ["sentiment-delta", "embedded,", "cannot", "noise", "12,345"] {
                assert!(narrow.contains(word), "{width} breaks {word}: {narrow}");
            }
        }
        let below = render(&header, rows(), Some(32));
        assert!(
            below.contains("refresh-index    12,345 J\n    5,000 rows embedded, 0 kept\n"),
            "{below}"
        );
        let stacked = render(&header, rows(), Some(24));
        assert!(
            stacked.starts_with("task    refresh-index\njoules  12,345 J\n"),
            "{stacked}"
        );
    }

    #[test]
    fn a_line_is_folded_below_its_text() {
        let line = "verdict     ACCEPTED: the gain is larger than noise explains";
        assert_eq!(
            hang(line, Some(40)),
            "verdict     ACCEPTED: the gain is larger\n            than noise explains"
        );
        assert_eq!(hang(line, None), line);
        assert_eq!(hang(line, Some(80)), line);
        let narrow = hang("\n  skip   index   the index has all 1,500 rows", Some(26));
        for line in narrow.lines() {
            assert!(length(line) <= 26, "{narrow}");
        }
        assert!(narrow.starts_with("\n  skip   index: the"), "{narrow}");
    }

    #[test]
    fn what_moved_below_skips_empty_cells() {
        let header = ["seq", "time", "task", "reason"];
        let row = |reason: &str| {
            let row = ["1", "2026-11-23 15:38:02", "sentiment-delta", reason];
            row.map(str::to_owned).to_vec()
        };
        let long = "the-gain-cannot-be-told-from-noise";
        let text = render(&header, vec![row(long), row("-"), row("")], Some(45));
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains(&format!("\n    {long}\n")), "{text}");
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(render(&["a", "b"], Vec::new(), None), "a  b");
    }
}
