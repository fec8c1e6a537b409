//! What an import has to say: findings with places, and what became of every directive.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::problems::quote;
use crate::config::{Problem, Severity, Source, Span, Style};

/// A kind of finding; its word stays the same from version to version and has a row in `docs/import.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The word.
    pub word: &'static str,
    /// What kind of news it is.
    pub weight: Weight,
}

/// What kind of news a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The other program does something unsafe or surprising, and egret does not.
    Fault,
    /// egret does something else than the other program, on purpose.
    Change,
    /// egret cannot do it.
    Lost,
}

impl Weight {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Change => "change",
            Self::Lost => "lost",
        }
    }
}

macro_rules! codes {
    ($($name:ident $weight:ident $word:literal,)*) => {
        $(
            #[doc = concat!("`", $word, "`; what it means stands in `docs/import.md`.")]
            pub const $name: Code = Code { word: $word, weight: Weight::$weight };
        )*
        /// All kinds there are.
        pub const CODES: &[Code] = &[$($name),*];
    };
}

codes! {
    SNI_OFF Fault "sni-off",
    VERIFY_ABSENT Fault "verify-absent",
    VERIFY_OFF Fault "verify-off",
    VERIFY_ANY_NAME Fault "verify-any-name",
    VERIFY_WITHOUT_TRUST Fault "verify-without-trust",
    SESSIONS_SHARED Fault "sessions-shared",
    DEPTH_ONE Fault "depth-one",
    NAME_OF_BLOCK Fault "name-of-block",
    NO_NAME Fault "no-name",
    RESOLVED_ONCE Fault "resolved-once",
    PLAINTEXT_TO_TLS Fault "plaintext-to-tls",
    TLS_SETTINGS_WITHOUT_TLS Fault "tls-settings-without-tls",
    WEAK_PROTOCOL Fault "weak-protocol",
    WEAK_CIPHERS Fault "weak-ciphers",
    TRUST_IS_THE_SERVER Fault "trust-is-the-server",
    KEY_MISSING Fault "key-missing",
    KEY_LOG Fault "key-log",
    OPEN_TO_ALL Fault "open-to-all",
    FORWARDS_ANYWHERE Fault "forwards-anywhere",
    SESSIONS_OFF Change "sessions-off",
    INBOUND_TLS Lost "inbound-tls",
    SOCKET_MODE Change "socket-mode",
    PASSED_THROUGH Change "passed-through",
    FRAGMENT Change "fragment",
    DIFFERENCE Change "difference",
    HTTP_HOST Lost "http-host",
    HTTP_PATH Lost "http-path",
    HTTP_VHOST Lost "http-vhost",
    PLAINTEXT Lost "plaintext",
    PROXY_HEADER Lost "proxy-header",
    SOURCE_ADDRESS Lost "source-address",
    PER_CLIENT_LIMIT Lost "per-client-limit",
    BALANCING Lost "balancing",
    VARIABLE Lost "variable",
    DATAGRAMS Lost "datagrams",
    SOCKET_UPSTREAM Lost "socket-upstream",
    INCLUDE_MISSING Lost "include-missing",
    SERVER_SIDE Lost "server-side",
    PROTOCOL Lost "protocol",
}

/// A place in one of the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the file.
    pub file: usize,
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

impl Place {
    /// A span of a file.
    pub fn new(file: usize, span: &Span) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// Where.
    pub place: Place,
    /// What is so, in one sentence without a full stop.
    pub title: String,
    /// A few words for the underlined text.
    pub label: String,
    /// What egret does in its place, or what to do.
    pub repair: String,
}

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands in the configuration; at which key.
    Carried(String),
    /// A finding is about it; the word of its code.
    Found(&'static str),
    /// Nothing was made of it, and why.
    Listed(String),
}

/// A directive in the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub place: Place,
    /// Its text, without its block.
    pub text: String,
    /// The entry of the block that it stands in.
    pub parent: Option<usize>,
    /// What became of it; `None` only while the import is at work.
    pub outcome: Option<Outcome>,
    /// If it was carried: the parameters that were not.
    pub lost: Vec<String>,
}

impl Entry {
    /// Where it stands in the configuration, and without what; what was found; or why it is not carried.
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
    pub entries: Vec<Entry>,
    /// Sorted by place once the import is done.
    pub findings: Vec<Finding>,
    /// Nothing but places and masks is shown of the files.
    pub masked: bool,
}

impl ImportReport {
    /// Says what became of a directive. What was carried stays carried; a finding counts more than a reason.
    pub fn settle(&mut self, id: usize, outcome: Outcome) {
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

    /// Says that a directive stands in the configuration.
    pub fn carry(&mut self, id: usize, key: &str) {
        self.settle(id, Outcome::Carried(key.to_owned()));
    }

    /// The same, but for these of its parameters.
    pub fn carry_without(&mut self, id: usize, key: &str, lost: &[&str]) {
        self.carry(id, key);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.lost = lost.iter().map(|&parameter| parameter.to_owned()).collect();
        }
    }

    /// Adds a finding, unless the same was found at the same place: a directive may hold for many servers.
    pub fn find(&mut self, code: Code, place: Place, title: impl Into<String>, label: &str, repair: impl Into<String>) {
        let finding = Finding { code, place, title: title.into(), label: label.to_owned(), repair: repair.into() };
        if !self.findings.iter().any(|known| known.code == code && known.place == finding.place) {
            self.findings.push(finding);
        }
    }

    /// `file:line` of a place, for comments.
    pub fn line(&self, place: &Place) -> String {
        let source = &self.sources[place.file];
        format!("{}:{}", source.origin(), source.position(place.start).line)
    }

    fn column(&self, place: &Place) -> String {
        let source = &self.sources[place.file];
        let at = source.position(place.start);
        format!("{}:{}:{}", source.origin(), at.line, at.column)
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

    /// Everything for people: findings, then what was not carried, then the count.
    pub fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text += &self.render_finding(finding, style);
            text += "\n\n";
        }
        let listed = self.listed();
        if !listed.is_empty() {
            text += "not carried:\n";
            text.extend(listed.iter().map(|line| format!("  {line}\n")));
            text.push('\n');
        }
        let parts = self.in_part();
        if !parts.is_empty() {
            text += "carried in part:\n";
            text.extend(parts.iter().map(|line| format!("  {line}\n")));
            text.push('\n');
        }
        let [all, carried, found, listed] = self.counts();
        let _ = writeln!(
            text,
            "{all} directives: {carried} carried, {found} in findings, {listed} not carried; {} findings",
            self.findings.len()
        );
        text
    }

    fn render_finding(&self, finding: &Finding, style: Style) -> String {
        if self.masked {
            // The line would be shown as it stands.
            let Finding { code, title, repair, .. } = finding;
            return format!(
                "warning[{}]: {title}\n --> {}\n  = help: {repair}",
                code.word,
                self.column(&finding.place)
            );
        }
        let Finding { code, place, title, label, repair } = finding;
        let problem = Problem::new(place.start..place.end, title, label, repair);
        problem.render(&self.sources[place.file], Severity::Advice(code.word), style)
    }

    /// One line for each directive that was carried without some of its parameters.
    fn in_part(&self) -> Vec<String> {
        let parts = self.entries.iter().filter(|entry| !entry.lost.is_empty());
        let line = |entry: &Entry| {
            format!("{}: `{}`: without {}", self.column(&entry.place), entry.text, entry.lost.join(", "))
        };
        parts.map(line).collect()
    }

    /// One line for each directive that was not carried; a block whose whole content has its reason is one line.
    fn listed(&self) -> Vec<String> {
        let reason = |at: usize| match &self.entries[at].outcome {
            Some(Outcome::Listed(why)) => Some(why),
            _ => None,
        };
        let mut inside = vec![0usize; self.entries.len()];
        let mut folded = vec![false; self.entries.len()];
        for at in (0..self.entries.len()).rev() {
            let Some(parent) = self.entries[at].parent else { continue };
            if reason(at).is_some() && reason(at) == reason(parent) {
                folded[at] = true;
                inside[parent] += 1 + inside[at];
            }
        }
        let lines = self.entries.iter().enumerate().filter(|(at, _)| !folded[*at]).filter_map(|(at, entry)| {
            let more = if inside[at] > 0 { format!(" (and {} inside)", inside[at]) } else { String::new() };
            Some(format!("{}: {}{more}: {}", self.column(&entry.place), quote(&entry.text), reason(at)?))
        });
        lines.collect()
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

    fn entry_to_json(&self, entry: &Entry) -> Value {
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

    fn place_to_json(&self, place: &Place) -> Value {
        let source = &self.sources[place.file];
        let (start, end) = (source.position(place.start), source.position(place.end));
        json!({
            "file": source.origin(),
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
        })
    }
}
