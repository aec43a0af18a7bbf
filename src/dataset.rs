//! Rows of text and label from CSV files, with the place of every fault.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::files::{self, FileError};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The text.
    pub text: String,
    /// Class number; 0 in files that are read without labels.
    pub label: usize,
    /// Which of [`Dataset::files`] it came from.
    pub file: usize,
    /// 1-based line in that file.
    pub line: u64,
}

impl Row {
    /// Digest of text and label: what the row is, wherever it stands.
    pub fn digest(&self) -> Digest {
        row_digest(&self.text, self.label)
    }
}

/// Digest of a text and its class number.
pub fn row_digest(text: &str, label: usize) -> Digest {
    Digest::of_parts([(label as u64).to_le_bytes().as_slice(), text.as_bytes()])
}

/// Rows of one or more files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The files, in order of their names.
    pub files: Vec<PathBuf>,
    /// The rows, in file order.
    pub rows: Vec<Row>,
}

/// Where the label of a row stands and what it may be.
#[derive(Debug, Clone, Copy)]
pub struct LabelColumn<'a> {
    /// The column.
    pub column: &'a str,
    /// Class names; a number is an index into them.
    pub names: &'a [String],
}

/// Data that cannot be used, with its place.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No file fits the path.
    #[error("no file matches `{0}`")]
    NoFile(String),
    /// A file or folder that may hold rows cannot be looked at.
    #[error("could not read {}, which may hold rows: {cause}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file without rows.
    #[error("{} has no rows", .0.display())]
    Empty(PathBuf),
    /// A column is not in the header.
    #[error("{} has no column `{column}`; it has {known}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What the header holds.
        known: String,
    },
    /// A row is not CSV.
    #[error("{}, line {line}: {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// All rows have one label.
    #[error("{} has only one class: every row is `{label}`", path.display())]
    OneClass {
        /// The file.
        path: PathBuf,
        /// The class.
        label: String,
    },
}

/// The files that a path or glob names, sorted.
///
/// # Errors
/// When there is none, or a file or folder on the way cannot be looked at: fewer rows than a person
/// meant must not pass in silence.
pub fn matching_files(project: &Path, pattern: &str) -> Result<Vec<PathBuf>, DatasetError> {
    let none = || DatasetError::NoFile(pattern.to_owned());
    let full = project.join(pattern);
    if full.is_file() {
        return Ok(vec![full]);
    }
    // Only what a person wrote is a pattern, not the folder that the project happens to be in.
    let project = glob::Pattern::escape(&project.to_string_lossy());
    let full = Path::new(&project).join(pattern);
    let mut found = Vec::new();
    for path in glob::glob(&full.to_string_lossy()).map_err(|_| none())? {
        let path = path.map_err(|error| unreadable(error.path(), &error.error().to_string()))?;
        let kind = std::fs::metadata(&path);
        if kind
            .map_err(|error| unreadable(&path, &error.to_string()))?
            .is_file()
        {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        Err(none())
    } else {
        Ok(found)
    }
}

fn unreadable(path: &Path, cause: &str) -> DatasetError {
    DatasetError::Unreadable {
        path: path.to_owned(),
        cause: cause.to_owned(),
    }
}

/// The header of a CSV file, whose rows are not read.
///
/// # Errors
/// When the file cannot be read.
pub fn columns(path: &Path) -> Result<Vec<String>, DatasetError> {
    let first = files::read_first_line(path)?;
    let mut reader = csv::ReaderBuilder::new().from_reader(first.as_bytes());
    let header = reader
        .headers()
        .map_err(|error| row_error(path, 1, &error))?;
    Ok(header.iter().map(str::to_owned).collect())
}

impl Dataset {
    /// Reads every file that `pattern` names below `project`.
    ///
    /// # Errors
    /// The first fault, with file and line.
    pub fn load(
        project: &Path,
        pattern: &str,
        text_column: &str,
        label: Option<LabelColumn<'_>>,
    ) -> Result<Self, DatasetError> {
        let paths = matching_files(project, pattern)?;
        let mut rows = Vec::new();
        for (file, path) in paths.iter().enumerate() {
            let before = rows.len();
            read_file(path, file, text_column, label, &mut rows)?;
            if rows.len() == before {
                return Err(DatasetError::Empty(path.clone()));
            }
        }
        if let Some(label) = label {
            let first = rows[0].label;
            if rows.iter().all(|row: &Row| row.label == first) {
                return Err(DatasetError::OneClass {
                    path: paths[0].clone(),
                    label: label.names[first].clone(),
                });
            }
        }
        // Receipts and messages show paths as the pipeline writes them.
        let files = paths
            .iter()
            .map(|path| path.strip_prefix(project).unwrap_or(path).to_owned())
            .collect();
        Ok(Self { files, rows })
    }

    /// Where a row stands, for people.
    pub fn place(&self, row: &Row) -> String {
        format!("{}, line {}", self.files[row.file].display(), row.line)
    }

    /// Texts in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.text.as_str())
    }
}

fn read_file(
    path: &Path,
    file: usize,
    text_column: &str,
    label: Option<LabelColumn<'_>>,
    rows: &mut Vec<Row>,
) -> Result<(), DatasetError> {
    let content = files::read_text(path)?;
    if let Some(line) = unclosed_quote(&content) {
        return Err(DatasetError::Row {
            path: path.to_owned(),
            line,
            what: "a quote opens here and never closes".into(),
        });
    }
    let mut reader = csv::ReaderBuilder::new().from_reader(content.as_bytes());
    let header = reader
        .headers()
        .map_err(|error| row_error(path, 1, &error))?
        .clone();
    if header.is_empty() {
        return Err(DatasetError::Empty(path.to_owned()));
    }
    let find = |column: &str| {
        header
            .iter()
            .position(|name| name == column)
            .ok_or_else(|| DatasetError::NoColumn {
                path: path.to_owned(),
                column: column.to_owned(),
                known: header.iter().collect::<Vec<_>>().join(", "),
            })
    };
    let text_at = find(text_column)?;
    let label_at = label.map(|label| find(label.column)).transpose()?;
    let mut lines = Lines::of(&content);
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, |at| lines.line_at(at));
            row_error(path, line, &error)
        })?;
        let line = record.position().map_or(0, |at| lines.line_at(at));
        let class = match label.zip(label_at) {
            Some((label, at)) => class_of(record.get(at).unwrap_or_default(), label.names)
                .map_err(|what| DatasetError::Row {
                    path: path.to_owned(),
                    line,
                    what,
                })?,
            None => 0,
        };
        rows.push(Row {
            text: record.get(text_at).unwrap_or_default().to_owned(),
            label: class,
            file,
            line,
        });
    }
    Ok(())
}

/// Numbers the lines of a text as an editor does. The CSV reader's own numbers are one too small
/// after CR LF (rust-csv issue 395), and it knows no CR alone.
struct Lines<'a> {
    bytes: &'a [u8],
    counted: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn of(content: &'a str) -> Self {
        Self {
            bytes: content.as_bytes(),
            counted: 0,
            line: 1,
        }
    }

    /// The line on which a row begins; rows are asked for in order.
    fn line_at(&mut self, position: &csv::Position) -> u64 {
        // A position is where the row before ended, so line breaks may come first.
        let end = usize::try_from(position.byte()).unwrap_or(usize::MAX);
        let end = end.min(self.bytes.len());
        let breaks = self.bytes[end..].iter();
        let start = end + breaks.take_while(|&&b| b == b'\r' || b == b'\n').count();
        while self.counted < start {
            let next = self.bytes.get(self.counted + 1);
            match self.bytes[self.counted] {
                b'\n' => self.line += 1,
                b'\r' if next != Some(&b'\n') => self.line += 1,
                _ => {}
            }
            self.counted += 1;
        }
        self.line
    }
}

fn class_of(text: &str, names: &[String]) -> Result<usize, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the row has no label".into());
    }
    let by_name = names.iter().position(|name| name == text);
    let by_number = || {
        text.parse()
            .ok()
            .filter(|&number: &usize| number < names.len())
    };
    by_name.or_else(by_number).ok_or_else(|| {
        format!(
            "label `{text}` is not one of {} (or 0 to {})",
            names.join(", "),
            names.len() - 1
        )
    })
}

/// The line of a quoted field that runs to the end of the file. The CSV reader would take all
/// that follows as one text.
fn unclosed_quote(content: &str) -> Option<u64> {
    let mut line = 1;
    let mut opened = None;
    let mut at_field_start = true;
    for byte in content.bytes() {
        match (byte, opened) {
            // A quote inside an unquoted field is a character like any other.
            (b'"', None) if at_field_start => opened = Some(line),
            // A doubled quote closes here and opens again at the next byte, as a field start.
            (b'"', Some(_)) => opened = None,
            _ => {}
        }
        at_field_start = opened.is_none() && matches!(byte, b',' | b'\n' | b'\r' | b'"');
        line += u64::from(byte == b'\n');
    }
    opened
}

fn row_error(path: &Path, line: u64, error: &csv::Error) -> DatasetError {
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("the row has {len} fields, the header {expected_len}"),
        _ => error.to_string(),
    };
    DatasetError::Row {
        path: path.to_owned(),
        line,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(content: &[u8]) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rows.csv"), content).unwrap();
        let names = ["negative".to_owned(), "positive".to_owned()];
        let label = LabelColumn {
            column: "label",
            names: &names,
        };
        Dataset::load(folder.path(), "*.csv", "text", Some(label)).map_err(|error| {
            error
                .to_string()
                .replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn labels_by_name_or_number_and_texts_over_lines() {
        let data = load(b"label,text\n1,\"good,\nvery \"\"good\"\"\"\nnegative,bad\n").unwrap();
        assert_eq!(data.rows[0].text, "good,\nvery \"good\"");
        assert_eq!((data.rows[0].label, data.rows[1].label), (1, 0));
        assert_eq!(data.place(&data.rows[1]), "rows.csv, line 4");
        assert!(load(b"text,label\na 5\" disk,1\nbad,0\n").is_ok());
    }

    #[test]
    fn lines_are_those_of_an_editor_whatever_ends_them() {
        for end in ["\n", "\r\n", "\r"] {
            let written = |rows: &str| rows.replace('\n', end).into_bytes();
            let data = load(&written("text,label\na,1\n\n\"b\nc\",0\nd,1\n")).unwrap();
            let lines: Vec<u64> = data.rows.iter().map(|row| row.line).collect();
            assert_eq!(lines, [2, 4, 6], "{end:?}");
            let fault = load(&written("text,label\na,1\nb,0\nc,2\n")).unwrap_err();
            assert!(fault.contains("line 4: label `2`"), "{end:?}: {fault}");
            let fault = load(&written("text,label\na,1\nb,0,7\n")).unwrap_err();
            assert!(
                fault.contains("line 3: the row has 3 fields"),
                "{end:?}: {fault}"
            );
        }
    }

    #[test]
    fn the_projects_own_folder_is_no_pattern() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["exp [v2]", "exp v"] {
            let project = folder.path().join(name);
            std::fs::create_dir(&project).unwrap();
            std::fs::write(project.join("train[1].csv"), "text\n").unwrap();
        }
        let project = folder.path().join("exp [v2]");
        for pattern in ["*.csv", "train[1].csv"] {
            let found = matching_files(&project, pattern).unwrap();
            assert_eq!(found, [project.join("train[1].csv")], "{pattern}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_looked_at_is_named_and_not_left_out() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let project = tempfile::tempdir().unwrap();
        let project = project.path();
        std::fs::create_dir_all(project.join("data/closed")).unwrap();
        std::fs::write(project.join("data/a.csv"), "text\n").unwrap();
        symlink("gone", project.join("data/b.csv")).unwrap();
        let error = matching_files(project, "data/*.csv").unwrap_err();
        assert!(error.to_string().contains("data/b.csv"), "{error}");
        std::fs::remove_file(project.join("data/b.csv")).unwrap();
        let closed = project.join("data/closed");
        let allow = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&closed, mode).unwrap();
        };
        allow(0o000);
        // The superuser reads what it likes.
        let may_read = std::fs::read_dir(&closed).is_ok();
        let found = matching_files(project, "data/**/*.csv");
        allow(0o755);
        match found {
            Ok(found) => assert!(may_read, "{found:?}"),
            Err(error) => assert!(error.to_string().contains("data/closed"), "{error}"),
        }
    }

    #[test]
    fn a_header_is_read_without_the_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, b"text,\"the label\"\r\n\xff\xff\n").unwrap();
        assert_eq!(columns(&path).unwrap(), ["text", "the label"]);
        std::fs::write(&path, b"").unwrap();
        assert!(columns(&path).unwrap().is_empty());
    }

    #[test]
    fn every_fault_has_its_place() {
        let cases: [(&[u8], &str); 9] = [
            (
                b"text,label\ngood,\n",
                "rows.csv, line 2: the row has no label",
            ),
            (
                b"text,label\ngood,1\nbad,2\n",
                "rows.csv, line 3: label `2` is not one of negative, positive (or 0 to 1)",
            ),
            (
                b"text,label\ngood,1\nb\xffd,0\n",
                "rows.csv is not UTF-8: bad byte at line 3, byte 2 of the line",
            ),
            (
                b"text,label\ngood,1\n\"bad,0\nmore,1\n",
                "rows.csv, line 3: a quote opens here and never closes",
            ),
            (
                b"text,label\ngood,1\nbad,0,0\n",
                "rows.csv, line 3: the row has 3 fields, the header 2",
            ),
            (b"", "rows.csv has no rows"),
            (b"text,label\n", "rows.csv has no rows"),
            (
                b"text,label\na,1\nb,1\n",
                "rows.csv has only one class: every row is `positive`",
            ),
            (
                b"body,label\na,1\n",
                "rows.csv has no column `text`; it has body, label",
            ),
        ];
        for (content, expected) in cases {
            assert_eq!(load(content).unwrap_err(), expected);
        }
    }
}
