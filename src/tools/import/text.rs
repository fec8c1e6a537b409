//! The report for people: by weight, equal findings as one with all their places, and the gravest first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Snippet};

use crate::config::Style;
use crate::config::problems::quote;
use crate::escape::escaped_lines;
use crate::tools::import::findings::{Finding, SourceRange, Weight};
use crate::tools::import::report::{ImportReport, Outcome, ReportEntry};

/// Findings that are one for the reader.
struct Same<'a> {
    first: &'a Finding,
    /// In the order of the text.
    places: Vec<&'a SourceRange>,
    /// All have the same title and repair.
    equal: bool,
}

/// Places of one group that are shown; the JSON has all.
const PLACES: usize = 8;
/// Bytes of a line that is shown: longer ones were not written by people.
const LONGEST_LINE: usize = 200;

impl ImportReport {
    /// Errors, decisions, notes, the directives that were not carried, and their number.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for weight in Weight::ALL {
            for same in self.groups(weight) {
                text += &self.render_group(&same, style);
            }
        }
        section("carried in part", &self.in_part(), &mut text);
        section("not carried", &self.not_carried(), &mut text);
        text += &self.summary();
        text
    }

    /// Findings of a weight by code; errors and decisions are grouped only with equal repairs.
    fn groups(&self, weight: Weight) -> Vec<Same<'_>> {
        let mut groups: Vec<Same<'_>> = Vec::new();
        let mut known: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
        for finding in self.findings.iter().filter(|finding| finding.code.weight == weight) {
            let Finding { code, title, repair, .. } = finding;
            let key = match weight {
                Weight::Note => (code.word, "", ""),
                _ => (code.word, title.as_str(), repair.as_str()),
            };
            let at = *known.entry(key).or_insert(groups.len());
            match groups.get_mut(at) {
                Some(same) => {
                    same.equal &= same.first.title == *title && same.first.repair == *repair;
                    same.places.push(&finding.place);
                }
                None => groups.push(Same { first: finding, places: vec![&finding.place], equal: true }),
            }
        }
        groups
    }

    fn render_group(&self, same: &Same<'_>, style: Style) -> String {
        let Finding { code, title, repair, .. } = same.first;
        let more = same.places.len() - 1;
        let title = match same.equal {
            true => escaped_lines(title),
            false => format!("{} (and {more} more of this kind)", escaped_lines(title)),
        };
        let places = self.places(&same.places);
        if code.weight == Weight::Note {
            return format!("note[{}]: {title}\n  at {places}\n  {}\n", code.word, escaped_lines(repair));
        }
        let level = if code.weight == Weight::Error { Level::ERROR } else { Level::WARNING };
        let group = level.primary_title(title).id(code.word);
        let group = match self.snippet(same) {
            Some(snippet) => group.element(snippet),
            None => Group::with_title(group).element(Origin::path(places)),
        };
        let help = Level::HELP.message(escaped_lines(repair));
        style.renderer().render(&[group.element(help)]) + "\n\n"
    }

    /// The line of an error, if it may be shown: the user's own file, not masked, and of one place.
    fn snippet<'a>(&'a self, same: &Same<'a>) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let Finding { code, place, label, .. } = same.first;
        let source = self.sources.get(place.file)?;
        let span = place.start..place.end;
        let lines = source.lines(&span);
        let fits = source.slice(&lines).lines().all(|line| line.len() <= LONGEST_LINE);
        if code.weight != Weight::Error || same.places.len() > 1 || place.file > 0 || self.masked || !fits {
            return None;
        }
        let within = |byte: usize| byte.clamp(lines.start, lines.end) - lines.start;
        let annotation =
            AnnotationKind::Primary.span(within(place.start)..within(place.end)).label(escaped_lines(label));
        let snippet = Snippet::source(source.slice(&lines)).line_start(source.position(lines.start).line);
        Some(snippet.path(escaped_lines(source.origin())).annotation(annotation))
    }

    /// `nginx.conf:3:5` for one place, else `nginx.conf:3, 7; more.conf:1 and 4 more`.
    fn places(&self, places: &[&SourceRange]) -> String {
        let mut text = String::new();
        let mut last = None;
        for place in places.iter().take(PLACES) {
            let source = &self.sources[place.file];
            let at = source.position(place.start);
            let _ = match last {
                Some(file) if file == place.file => write!(text, ", {}", at.line),
                Some(_) => write!(text, "; {}:{}", source.origin(), at.line),
                None if places.len() == 1 => write!(text, "{}:{}:{}", source.origin(), at.line, at.column),
                None => write!(text, "{}:{}", source.origin(), at.line),
            };
            last = Some(place.file);
        }
        if places.len() > PLACES {
            let _ = write!(text, " and {} more", places.len() - PLACES);
        }
        escaped_lines(&text)
    }

    /// One line for each directive that was carried without some of its parameters.
    fn in_part(&self) -> Vec<String> {
        let parts = self.entries.iter().filter(|entry| !entry.lost.is_empty());
        let line = |entry: &ReportEntry| {
            let lost = entry.lost.join(", ");
            format!("{}: {} without {}", self.places(&[&entry.place]), quote(&entry.text), quote(&lost))
        };
        parts.map(line).collect()
    }

    /// One line for each reason why directives were not carried.
    fn not_carried(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<&ReportEntry>)> = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| !self.is_folded(entry)) {
            let Some(Outcome::Listed(why)) = &entry.outcome else { continue };
            let at = *known.entry(why).or_insert(reasons.len());
            match reasons.get_mut(at) {
                Some((_, entries)) => entries.push(entry),
                None => reasons.push((why, vec![entry])),
            }
        }
        let line = |(why, entries): &(&str, Vec<&ReportEntry>)| {
            let names: Vec<_> = entries.iter().map(|entry| entry.name()).collect();
            let places: Vec<_> = entries.iter().map(|entry| &entry.place).collect();
            format!("{} ({}): {why}", few(&names), self.places(&places))
        };
        reasons.iter().map(line).collect()
    }

    /// Its block has the same reason, and is listed.
    fn is_folded(&self, entry: &ReportEntry) -> bool {
        let parent = entry.parent.and_then(|parent| self.entries.get(parent));
        parent.is_some_and(|parent| entry.outcome == parent.outcome)
    }

    fn summary(&self) -> String {
        let [all, carried, found, listed] = self.counts();
        let [errors, decisions, notes] = Weight::ALL.map(|weight| self.count(weight));
        let counts = format!("{all} directives: {carried} carried, {found} in findings, {listed} not carried");
        let noun = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let notes = noun(notes, "note", "notes");
        match (errors, decisions) {
            (0, 0) => format!("nothing to do: {counts}; {notes}\n"),
            _ => format!("{counts}; {}, {decisions} to decide, {notes}\n", noun(errors, "error", "errors")),
        }
    }
}

/// Empty if there are no lines.
fn section(title: &str, lines: &[String], text: &mut String) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    text.extend(lines.iter().map(|line| format!("  {}\n", escaped_lines(line))));
    text.push('\n');
}

/// The first few distinct names, quoted.
fn few(names: &[&str]) -> String {
    let mut different: Vec<&str> = Vec::new();
    for name in names {
        if !different.contains(name) && different.len() <= NAMES {
            different.push(name);
        }
    }
    let shown: Vec<_> = different.iter().take(NAMES).map(|name| quote(name)).collect();
    let dots = if different.len() > NAMES { ", ..." } else { "" };
    shown.join(", ") + dots
}

/// Names shown for one reason.
const NAMES: usize = 4;
