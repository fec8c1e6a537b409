//! The text that problems point into: a configuration file, or a command line.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::variables::Variables;

/// Bytes of a [`Source`]; the end is exclusive.
pub(crate) type Span = Range<usize>;

/// A text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    origin: String,
    folder: PathBuf,
    text: String,
    /// Byte at which each line begins, kept because ten thousand findings ask for their lines.
    starts: Vec<usize>,
    variables: Variables,
}

/// Where a byte stands, counted from one; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

pub(super) const COMMAND_LINE: &str = "command line";
/// The origin of a configuration by variables.
pub(super) const ENVIRONMENT: &str = "environment";

impl Source {
    /// A text under the path or word `origin`. Relative paths in it are relative to the folder of `origin`.
    pub(crate) fn new(origin: &str, text: &str) -> Self {
        let folder = Path::new(origin).parent().map(Path::to_path_buf).unwrap_or_default();
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { origin: origin.to_owned(), folder, text: text.to_owned(), starts, variables: Variables::default() }
    }

    pub(super) fn with_variables(self, variables: Variables) -> Self {
        Self { variables, ..self }
    }

    pub(crate) fn hide_values(&self, message: &str) -> String {
        self.variables.hide(message)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.origin != COMMAND_LINE && self.origin != ENVIRONMENT
    }

    /// Path of the file, or what stands for it.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; empty if the span is not one of this source.
    pub fn slice(&self, span: &Span) -> &str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// Line and column of a byte.
    pub fn position(&self, byte: usize) -> Position {
        let byte = self.boundary(byte);
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts[line - 1];
        Position { line, column: self.text[start..byte].chars().count() + 1 }
    }

    /// The whole lines that a span touches, without the last line break.
    pub(crate) fn lines(&self, span: &Span) -> Span {
        let from = self.boundary(span.start);
        let to = self.boundary(span.end.max(span.start));
        let start = self.text[..from].rfind('\n').map_or(0, |newline| newline + 1);
        // A span may end with its line's break; the line after it is not touched.
        let last = if to > from && self.text[..to].ends_with('\n') { to - 1 } else { to };
        let end = self.text[last..].find('\n').map_or(self.text.len(), |newline| last + newline);
        // A line of Windows ends with a carriage return as well.
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        start..end
    }

    /// The nearest character boundary at or before a byte.
    fn boundary(&self, byte: usize) -> usize {
        let mut at = byte.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters() {
        let source = Source::new("a.toml", "x\nä=ß1\n");
        assert_eq!(source.position(7), Position { line: 2, column: 4 });
        assert_eq!(source.slice(&source.lines(&(7..8))), "ä=ß1");
        assert_eq!(source.lines(&(9..9)), 9..9);
    }
}
