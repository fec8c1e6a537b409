//! Problems of a configuration: each with its place and its repair.

use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;

use crate::config::source::{Source, Span};
use crate::escape::{self, escaped_lines};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The text to underline; `None`: the file as a whole.
    pub span: Option<Span>,
    /// What is wrong, in one sentence without a full stop.
    pub title: String,
    pub(crate) label: String,
    /// What to write.
    pub repair: String,
}

impl Problem {
    /// A mistake at a place.
    pub fn new(span: Span, title: impl Into<String>, label: impl Into<String>, repair: impl Into<String>) -> Self {
        Self { span: Some(span), title: title.into(), label: label.into(), repair: repair.into() }
    }

    pub(crate) fn of_file(title: impl Into<String>, repair: impl Into<String>) -> Self {
        Self { span: None, title: title.into(), label: String::new(), repair: repair.into() }
    }

    /// The same problem with references in place of the values of variables.
    pub(crate) fn without_values(self, source: &Source) -> Self {
        let hide = |text: &str| source.hide_values(text);
        Self { span: self.span, title: hide(&self.title), label: hide(&self.label), repair: hide(&self.repair) }
    }

    pub(crate) fn render(&self, source: &Source, severity: Severity, style: Style) -> String {
        let title = severity.level().primary_title(escaped_lines(&self.title));
        let title = if let Some(code) = severity.code() { title.id(code) } else { title };
        let group = match &self.span {
            Some(span) => title.element(self.snippet(source, span)),
            None => Group::with_title(title).element(annotate_snippets::Origin::path(escaped_lines(source.origin()))),
        };
        let help = Level::HELP.message(escaped_lines(&self.repair));
        style.renderer().render(&[group.element(help)])
    }

    pub(crate) fn to_json(&self, source: &Source, severity: Severity) -> serde_json::Value {
        let at = self.span.as_ref().map(|span| (source.position(span.start), source.position(span.end)));
        json!({
            "file": source.origin(),
            "line": at.map(|(start, _)| start.line),
            "column": at.map(|(start, _)| start.column),
            "end_line": at.map(|(_, end)| end.line),
            "end_column": at.map(|(_, end)| end.column),
            "severity": severity.word(),
            "code": severity.code(),
            "title": self.title,
            "label": self.label,
            "repair": self.repair,
        })
    }

    /// The touched lines only: the renderer works through all it is given, and a file may be long.
    fn snippet<'a>(&'a self, source: &'a Source, span: &Span) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let lines = source.lines(span);
        let within = |byte: usize| byte.clamp(lines.start, lines.end) - lines.start;
        Snippet::source(masked(source.slice(&lines)))
            .line_start(source.position(lines.start).line)
            .path(escaped_lines(source.origin()))
            .annotation(
                AnnotationKind::Primary.span(within(span.start)..within(span.end)).label(escaped_lines(&self.label)),
            )
    }
}

/// How grave a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Refused.
    Error,
    /// A rule of the user's own forbids it.
    Forbidden,
    /// Legal but unwise; the code names its kind.
    Advice(&'static str),
    /// Worth knowing, and nothing to change: `--strict` passes it. The code names the kind.
    Note(&'static str),
}

impl Severity {
    pub(crate) fn is_error(self) -> bool {
        matches!(self, Self::Error | Self::Forbidden)
    }

    /// Whether a pipeline that treats warnings as errors refuses it.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::Advice(_))
    }

    /// The kind, where there are kinds; stays the same from version to version.
    pub(crate) fn code(self) -> Option<&'static str> {
        match self {
            Self::Error => None,
            Self::Forbidden => Some("policy"),
            Self::Advice(code) | Self::Note(code) => Some(code),
        }
    }

    fn level(self) -> Level<'static> {
        match self {
            Self::Error | Self::Forbidden => Level::ERROR,
            Self::Advice(_) => Level::WARNING,
            Self::Note(_) => Level::NOTE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Error | Self::Forbidden => "error",
            Self::Advice(_) => "advice",
            Self::Note(_) => "note",
        }
    }
}

/// How diagnostics are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Text only: files, pipes.
    #[default]
    Plain,
    /// With colours: terminals.
    Coloured,
}

impl Style {
    pub(crate) fn renderer(self) -> Renderer {
        match self {
            Self::Plain => Renderer::plain(),
            Self::Coloured => Renderer::styled(),
        }
    }
}

/// Everything that is wrong with one configuration: never empty, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    source: Arc<Source>,
    list: Vec<Problem>,
}

/// More than a person repairs in one go; a file that is not meant for egret at all fills no screen buffer.
const SHOWN: usize = 100;

impl Problems {
    /// Sorts the problems by place; those of the whole file come first. Values of variables are not shown.
    pub(crate) fn new(source: Arc<Source>, list: Vec<Problem>) -> Self {
        let mut list: Vec<Problem> = list.into_iter().map(|problem| problem.without_values(&source)).collect();
        list.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        list.dedup();
        Self { source, list }
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    pub(crate) fn shown(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter().take(SHOWN)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The text they point into.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All of them for people, an empty line between two. At most a hundred are drawn, the rest is counted.
    pub fn render(&self, style: Style) -> String {
        let mut drawn: Vec<String> =
            self.shown().map(|problem| problem.render(&self.source, Severity::Error, style)).collect();
        if self.list.len() > SHOWN {
            drawn.push(format!("and {} more", self.list.len() - SHOWN));
        }
        drawn.join("\n\n")
    }

    /// All of them for editors and scripts: a JSON array.
    pub fn to_json(&self) -> serde_json::Value {
        self.list.iter().map(|problem| problem.to_json(&self.source, Severity::Error)).collect()
    }

    pub(crate) fn reason(&self) -> &'static str {
        "configuration_invalid"
    }
}

/// Lines of a file, with something to see for each character that is invisible, of as many bytes: what is underlined
/// is counted in bytes. The renderer does so for ASCII itself.
fn masked(lines: &str) -> String {
    let mut masked = String::with_capacity(lines.len());
    for letter in lines.chars() {
        match letter.len_utf8() {
            2 if escape::is_invisible(letter) => masked.push('·'),
            3 if escape::is_invisible(letter) => masked.push('\u{fffd}'),
            4 if escape::is_invisible(letter) => masked.push_str("\u{fffd}?"),
            _ => masked.push(letter),
        }
    }
    masked
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Problems {}

/// The longest piece of a person's text that a sentence quotes; the rest is in the underlined line.
const QUOTED: usize = 60;

/// Text of the configuration inside a sentence: escaped, and cut if it is longer than [`QUOTED`].
pub(crate) fn quote(text: &str) -> String {
    let mut shown = String::new();
    text.chars().take(QUOTED).for_each(|letter| escape::push(&mut shown, letter));
    let dots = if text.chars().nth(QUOTED).is_some() { "..." } else { "" };
    format!("`{shown}{dots}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_file_is_invisible_when_it_is_drawn() {
        let line = "key = \"a\u{9b}b\u{ad}c\u{2028}d\u{202e}e\u{200b}f\u{e0041}g\u{7f}\u{1b}[31m\" # end";
        let source = Source::new("egret\u{202e}.toml", line);
        let span = line.find("# end").map(|start| start..line.len()).expect("it is there");
        let problem = Problem::new(span, "a\u{202e}b", "c\u{2028}d", "e\u{200b}f");
        let drawn = problem.render(&source, Severity::Error, Style::Plain);
        assert!(!drawn.chars().any(|letter| letter != '\n' && escape::is_invisible(letter)), "{drawn:?}");
        let column = |piece| {
            let found = drawn.lines().find_map(|line| line.split_once(piece));
            found.map(|(before, _)| before.chars().count())
        };
        assert!(column("# end").is_some() && column("# end") == column("^"), "{drawn}");
    }
}
