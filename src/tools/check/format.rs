//! Formats of findings: text, JSON, SARIF for code scanning, annotations of a build.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Finding, Found};
use crate::config::{Position, Severity, Style};

/// The shape of what is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people, in the manner of rustc.
    #[default]
    Text,
    /// One JSON array.
    Json,
    /// A log of SARIF 2.1.0 (OASIS), which code scanning reads.
    Sarif,
    /// Workflow commands of GitHub Actions, which become annotations.
    Github,
}

/// More than a person repairs in one go; a file that is not meant for egret at all fills no screen buffer.
const SHOWN: usize = 100;

/// Every finding, then the number of problems. Empty if nothing was found.
pub(crate) fn text(found: &Found, style: Style) -> String {
    let mut text = String::new();
    let source = found.source();
    let findings = found.findings();
    for finding in findings.iter().take(SHOWN) {
        let _ = writeln!(text, "{}\n", finding.problem.render(source, finding.severity, style));
    }
    if findings.len() > SHOWN {
        let _ = writeln!(text, "and {} more\n", findings.len() - SHOWN);
    }
    let wrong = findings.iter().filter(|finding| finding.severity.is_error()).count();
    if wrong > 0 {
        let noun = if wrong == 1 { "problem" } else { "problems" };
        let _ = writeln!(text, "egret: {wrong} {noun} in {}", source.origin());
    }
    text
}

pub(crate) fn json(found: &Found) -> Value {
    let one = |finding: &Finding| finding.problem.to_json(found.source(), finding.severity);
    found.findings().iter().map(one).collect()
}

/// For code scanning: SARIF 2.1.0, one run.
pub(crate) fn sarif(found: &Found) -> Value {
    let mut rules: Vec<&str> = found.findings().iter().map(|finding| rule(finding.severity)).collect();
    rules.sort_unstable();
    rules.dedup();
    let rules: Vec<Value> = rules.into_iter().map(|id| json!({ "id": id })).collect();
    let results: Vec<Value> = found.findings().iter().map(|finding| result(found, finding)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "egret", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(found: &Found, finding: &Finding) -> Value {
    let problem = &finding.problem;
    let mut place = json!({ "artifactLocation": { "uri": uri(found.source().origin()) } });
    if let Some((start, end)) = span(found, finding) {
        place["region"] = json!({
            "startLine": start.line, "startColumn": start.column, "endLine": end.line, "endColumn": end.column,
        });
    }
    json!({
        "ruleId": rule(finding.severity),
        "level": level(finding.severity).0,
        "message": { "text": format!("{}. Repair: {}", problem.title, problem.repair) },
        "locations": [{ "physicalLocation": place }],
    })
}

fn level(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Error | Severity::Forbidden => ("error", "error"),
        Severity::Advice(_) => ("warning", "warning"),
        Severity::Note(_) => ("note", "notice"),
    }
}

fn rule(severity: Severity) -> &'static str {
    severity.code().unwrap_or("problem")
}

/// A path as a URI reference (RFC 3986): what is neither unreserved nor a slash is escaped.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(byte.into()),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

pub(crate) fn github(found: &Found) -> String {
    let mut text = String::new();
    for finding in found.findings() {
        let (_, word) = level(finding.severity);
        let mut properties = format!("file={}", property(found.source().origin()));
        if let Some((start, end)) = span(found, finding) {
            let _ = write!(properties, ",line={},col={},endLine={}", start.line, start.column, end.line);
        }
        let title = property(&format!("egret: {}", rule(finding.severity)));
        let problem = &finding.problem;
        let message = message(&format!("{}\n{}", problem.title, problem.repair));
        let _ = writeln!(text, "::{word} {properties},title={title}::{message}");
    }
    text
}

/// Line ends and separators are escaped as the runner's toolkit does it.
fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

fn span(found: &Found, finding: &Finding) -> Option<(Position, Position)> {
    let span = finding.problem.span.as_ref()?;
    Some((found.source().position(span.start), found.source().position(span.end)))
}
