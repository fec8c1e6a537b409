//! What an import reports: findings, and what became of every directive.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::config::Source;
use crate::tools::import::findings::{Code, Finding, SourceRange, Weight};

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the configuration, at this key.
    Carried(String),
    /// A finding is about it; the word of its code.
    Found(&'static str),
    /// Nothing was made of it, and why.
    Listed(String),
}

/// A directive in the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportEntry {
    /// Its place in the text.
    pub place: SourceRange,
    /// Its text, without its block.
    pub text: String,
    pub(crate) parent: Option<usize>,
    /// What became of it; `None` only while the import is at work.
    pub outcome: Option<Outcome>,
    /// Parameters that were lost although the directive was carried.
    pub(crate) lost: Vec<String>,
}

impl ReportEntry {
    pub(crate) fn name(&self) -> &str {
        self.text.split([' ', '=']).next().unwrap_or_default()
    }

    /// Its key in the configuration, and the parameters that were left out; the code of its finding; or why it is not
    /// carried.
    pub fn detail(&self) -> String {
        match &self.outcome {
            Some(Outcome::Carried(key)) if self.lost.is_empty() => key.clone(),
            Some(Outcome::Carried(key)) => format!("{key}; without {}", self.lost.join(", ")),
            Some(Outcome::Found(code)) => (*code).to_owned(),
            Some(Outcome::Listed(why)) => why.clone(),
            None => String::new(),
        }
    }
}

/// Findings and the account of one import.
#[derive(Clone, Debug, Default)]
pub struct ImportReport {
    /// The files that were read.
    pub sources: Vec<Source>,
    /// Every directive, by its number.
    pub entries: Vec<ReportEntry>,
    /// Sorted once the import is done.
    pub findings: Vec<Finding>,
    /// Code, place and title of all findings.
    known: BTreeSet<(&'static str, SourceRange, String)>,
    /// Only places and masks of the files are shown.
    pub(crate) masked: bool,
}

impl ImportReport {
    pub(crate) fn new(sources: Vec<Source>, masked: bool) -> Self {
        Self { sources, masked, ..Self::default() }
    }

    /// Sets the outcome of a directive. A carried directive stays carried; a finding replaces a reason.
    pub(crate) fn settle(&mut self, id: usize, outcome: Outcome) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let keeps = match &entry.outcome {
            Some(Outcome::Carried(_)) => true,
            Some(Outcome::Found(_)) => !matches!(outcome, Outcome::Carried(_)),
            _ => false,
        };
        if !keeps {
            entry.outcome = Some(outcome);
        }
    }

    /// Takes a carried directive back, since it is of no use without another that is lost.
    pub(crate) fn withdraw_carried(&mut self, id: usize, why: &str) {
        let carried = |entry: &&mut ReportEntry| matches!(entry.outcome, Some(Outcome::Carried(_)));
        if let Some(entry) = self.entries.get_mut(id).filter(carried) {
            entry.outcome = Some(Outcome::Listed(why.to_owned()));
        }
    }

    pub(crate) fn carry(&mut self, id: usize, key: &str) {
        self.settle(id, Outcome::Carried(key.to_owned()));
    }

    /// Like `carry`, without these parameters.
    pub(crate) fn carry_without(&mut self, id: usize, key: &str, lost: &[&str]) {
        self.carry(id, key);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.lost = lost.iter().map(|&parameter| parameter.to_owned()).collect();
        }
    }

    /// Adds a finding once for each place: a directive may apply to many servers.
    pub(crate) fn find(
        &mut self,
        code: Code,
        place: SourceRange,
        title: impl Into<String>,
        label: &str,
        repair: impl Into<String>,
    ) {
        let finding = Finding { code, place, title: title.into(), label: label.to_owned(), repair: repair.into() };
        if self.known.insert((code.word, finding.place.clone(), finding.title.clone())) {
            self.findings.push(finding);
        }
    }

    /// By weight, then in the order of the text.
    pub(crate) fn sort(&mut self) {
        self.findings.sort_by(|one, other| (one.code.weight, &one.place).cmp(&(other.code.weight, &other.place)));
    }

    pub(crate) fn count(&self, weight: Weight) -> usize {
        self.findings.iter().filter(|finding| finding.code.weight == weight).count()
    }

    /// `file:line` of a place, for comments.
    pub(crate) fn line(&self, place: &SourceRange) -> String {
        let source = &self.sources[place.file];
        format!("{}:{}", source.origin(), source.position(place.start).line)
    }

    /// How many entries there are, how many were carried, are subject of a finding, are listed.
    pub fn counts(&self) -> [usize; 4] {
        let count = |passes: fn(&Outcome) -> bool| {
            self.entries.iter().filter(|entry| entry.outcome.as_ref().is_some_and(passes)).count()
        };
        [
            self.entries.len(),
            count(|outcome| matches!(outcome, Outcome::Carried(_))),
            count(|outcome| matches!(outcome, Outcome::Found(_))),
            count(|outcome| matches!(outcome, Outcome::Listed(_))),
        ]
    }

    /// Everything for programs. `config` is the text that was made, if any.
    pub fn to_json(&self, config: Option<&str>) -> Value {
        let findings: Vec<_> = self.findings.iter().map(|finding| self.finding_to_json(finding)).collect();
        let directives: Vec<_> = self.entries.iter().map(|entry| self.entry_to_json(entry)).collect();
        let [all, carried, found, listed] = self.counts();
        json!({
            "config": config,
            "findings": findings,
            "directives": directives,
            "counts": { "directives": all, "carried": carried, "found": found, "listed": listed },
        })
    }

    fn finding_to_json(&self, finding: &Finding) -> Value {
        let mut value = self.place_to_json(&finding.place);
        let Finding { code, title, label, repair, .. } = finding;
        for (key, text) in [
            ("code", code.word),
            ("weight", code.weight.word()),
            ("title", title.as_str()),
            ("label", label.as_str()),
            ("repair", repair.as_str()),
        ] {
            value[key] = text.into();
        }
        value
    }

    fn entry_to_json(&self, entry: &ReportEntry) -> Value {
        let mut value = self.place_to_json(&entry.place);
        let outcome = match &entry.outcome {
            Some(Outcome::Carried(_)) => "carried",
            Some(Outcome::Found(_)) => "found",
            Some(Outcome::Listed(_)) => "listed",
            None => "unknown",
        };
        value["directive"] = entry.text.as_str().into();
        value["outcome"] = outcome.into();
        value["detail"] = entry.detail().into();
        value
    }

    fn place_to_json(&self, place: &SourceRange) -> Value {
        let source = &self.sources[place.file];
        let start = source.position(place.start);
        let end = source.position(place.end);
        json!({
            "file": source.origin(),
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
        })
    }
}
