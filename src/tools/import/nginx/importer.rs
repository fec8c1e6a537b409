//! One import at work: what it reads, what it has report, what it has drafted.

use std::path::{Path, PathBuf};

use crate::tools::import::Options;
use crate::tools::import::draft::Draft;
use crate::tools::import::files::Files;
use crate::tools::import::findings::{Code, SourceRange};
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::Scope;
use crate::tools::import::nginx::variables::{Value, Variables};
use crate::tools::import::nginx::words;
use crate::tools::import::report::{ImportReport, Outcome, ReportEntry};

/// Its methods are in the modules of their subjects.
pub(super) struct Importer<'a> {
    pub(super) report: ImportReport,
    pub(super) draft: Draft,
    pub(super) options: &'a Options,
    pub(super) files: &'a dyn Files,
    /// Relative paths start here.
    pub(super) folder: PathBuf,
    /// For the findings about shared sessions.
    pub(super) users: Vec<User>,
}

/// A use of a server entry of nginx, with everything that its sessions should depend on.
pub(super) struct User {
    pub(super) http: bool,
    pub(super) entry: String,
    pub(super) settings: [(&'static str, String); 4],
    pub(super) place: SourceRange,
}

impl Importer<'_> {
    pub(super) fn place(&self, directive: &Directive) -> SourceRange {
        SourceRange::new(directive.file, &directive.span())
    }

    /// `file:line` of a directive.
    pub(super) fn line(&self, directive: &Directive) -> String {
        self.report.line(&self.place(directive))
    }

    pub(super) fn carried(&mut self, directive: &Directive, key: impl Into<String>) {
        self.report.settle(directive.id, Outcome::Carried(key.into()));
    }

    pub(super) fn listed(&mut self, directive: &Directive, why: impl Into<String>) {
        self.report.settle(directive.id, Outcome::Listed(why.into()));
    }

    /// Lists a directive and everything in it that has no outcome yet, for one reason.
    pub(super) fn list_all(&mut self, directive: &Directive, why: &str) {
        if self.report.entries.get(directive.id).is_some_and(|entry| entry.outcome.is_none()) {
            self.listed(directive, why);
        }
        directive.children().iter().for_each(|child| self.list_all(child, why));
    }

    /// Adds a finding at a directive, as its outcome.
    pub(super) fn find(
        &mut self,
        code: Code,
        directive: &Directive,
        title: impl Into<String>,
        label: &str,
        repair: impl Into<String>,
    ) {
        self.report.find(code, self.place(directive), title, label, repair);
        self.report.settle(directive.id, Outcome::Found(code.word));
    }

    /// Adds a finding at a directive that is carried nevertheless.
    pub(super) fn find_beside(
        &mut self,
        code: Code,
        directive: &Directive,
        title: impl Into<String>,
        label: &str,
        repair: impl Into<String>,
    ) {
        self.report.find(code, self.place(directive), title, label, repair);
    }

    /// Resolves a text; the directives that took part are carried by it.
    pub(super) fn resolve(&mut self, scope: &Scope<'_>, text: &str) -> Value {
        let mut variables = Variables::new(scope);
        let value = variables.resolve(text);
        if !matches!(value, Value::Unknown(_)) {
            for id in variables.used {
                self.report.settle(id, Outcome::Carried("its value stands where it is used".to_owned()));
            }
        }
        value
    }

    /// Enters every directive into the account.
    pub(super) fn enter(&mut self, tree: &[Directive], parent: Option<usize>) {
        for directive in tree {
            let entry = ReportEntry {
                place: self.place(directive),
                text: shown(directive),
                parent,
                outcome: None,
                lost: Vec::new(),
            };
            self.report.entries[directive.id] = entry;
            self.enter(directive.children(), Some(directive.id));
        }
    }

    /// A path as it has to be written for egret.
    pub(super) fn path(&self, text: &str) -> String {
        let path = Path::new(text);
        if path.is_absolute() || self.options.base.as_os_str().is_empty() {
            return text.to_owned();
        }
        self.options.base.join(path).display().to_string()
    }
}

/// The text of a directive in the report. Of an included file, which may hold anything, only nginx's own names are
/// shown.
fn shown(directive: &Directive) -> String {
    match (directive.file, words::is_known(&directive.name.text)) {
        (0, _) => directive.line(),
        (_, true) => directive.name.text.clone(),
        (_, false) => HIDDEN.to_owned(),
    }
}

/// Replaces a name of an included file, which may be a secret.
const HIDDEN: &str = "(not shown)";
