//! A configuration of nginx becomes one of egret.
//!
//! The way of the text: [`token`] > [`parse`] > [`include`] > (`stream`, `http`: each `proxy_pass` is a [`ProxyPass`](proxy_pass::ProxyPass),
//! whose settings are read in their [`scope`] with [`variables`] put in) > a draft. Every directive is entered into
//! the account before anything is looked at, and what is left at the end gets the reason of its name.

pub(crate) mod access;
mod balance;
mod http;
mod identity;
mod importer;
pub(crate) mod include;
mod listen;
mod listen_addr;
mod names;
pub mod parse;
mod process;
mod proxy_pass;
pub(crate) mod scope;
mod stream;
mod target;
mod tls;
pub mod token;
pub(crate) mod variables;
pub(super) mod words;

use std::path::Path;

use crate::tools::import::draft::Draft;
use crate::tools::import::files::Files;
use crate::tools::import::findings::{DIFFERENCE, INCLUDE_MISSING, SourceRange};
use crate::tools::import::nginx::http::MADE_UP;
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::include::Whole;
use crate::tools::import::nginx::parse::{Directive, Word};
use crate::tools::import::nginx::scope::Scope;
use crate::tools::import::report::{ImportReport, Outcome, ReportEntry};
use crate::tools::import::{Imported, Options, redact};

/// Reads a configuration of nginx.
///
/// # Errors
/// It cannot be read, or nginx would not read it either.
pub fn import(files: &dyn Files, path: &Path, options: &Options) -> Result<Imported, include::Error> {
    let mut whole = include::read(files, path)?;
    let mut report = ImportReport::new(std::mem::take(&mut whole.sources), options.redact);
    if options.redact {
        redact::tree(&mut whole.tree);
        redact::sources(&mut report.sources);
    }
    let place = SourceRange { file: 0, start: 0, end: 0 };
    let blank = ReportEntry { place, text: String::new(), parent: None, outcome: None, lost: Vec::new() };
    report.entries = vec![blank; whole.count];
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
    let mut importer = Importer { report, draft: Draft::default(), options, files, folder, users: Vec::new() };
    importer.enter(&whole.tree, None);
    importer.includes(&whole);
    let tree = put_around(std::mem::take(&mut whole.tree));
    importer.everything(&tree);
    importer.close();
    Ok(Imported::new(importer.report, importer.draft, "nginx"))
}

impl Importer<'_> {
    fn includes(&mut self, whole: &Whole) {
        for (id, brought) in &whole.includes {
            match brought {
                Ok(count) => {
                    let noun = if *count == 1 { "file" } else { "files" };
                    self.report.settle(*id, Outcome::Carried(format!("{count} {noun}, in its place")));
                }
                Err(why) => {
                    let place = self.report.entries[*id].place.clone();
                    let why = if self.options.redact { "it cannot be read" } else { why };
                    let title = format!("what this brings is not looked at: {why}");
                    self.report.find(INCLUDE_MISSING, place, title, "missing", "bring the file, and import again");
                    self.report.settle(*id, Outcome::Found(INCLUDE_MISSING.word));
                }
            }
        }
        for file in &whole.differences {
            let place = SourceRange { file: *file, start: 0, end: 1 };
            let title = "this is a difference: lines with `-` are left out, those with `+` are taken";
            self.report.find(DIFFERENCE, place, title, "a difference", "see that it is what you meant");
        }
    }

    fn everything(&mut self, tree: &[Directive]) {
        let scope = Scope::new(tree);
        self.process(tree);
        let mut extras = Vec::new();
        for block in tree {
            match block.name.text.as_str() {
                "stream" => self.stream(&scope, block, &mut extras),
                "http" => self.http(&scope, block, &mut extras),
                _ => {}
            }
        }
        let taken = listen_addr::ports(tree);
        self.place_extras(extras, &taken);
        self.shared_sessions();
        for block in tree.iter().filter(|block| ["stream", "http"].contains(&block.name.text.as_str())) {
            if block.children().iter().any(|one| one.name.text == "server" && self.is_carried(one)) {
                self.carried(block, "upstreams, listeners");
            }
        }
    }

    fn is_carried(&self, directive: &Directive) -> bool {
        let entry = self.report.entries.get(directive.id);
        entry.is_some_and(|entry| matches!(entry.outcome, Some(Outcome::Carried(_))))
    }

    /// What is left gets a reason, too; an unknown directive inside a carried block counts as a lost protection.
    fn close(&mut self) {
        for at in 0..self.report.entries.len() {
            let entry = &self.report.entries[at];
            if entry.outcome.is_some() {
                continue;
            }
            let name = entry.name();
            let parent = entry.parent.map(|parent| &self.report.entries[parent]);
            let outer = parent.and_then(|parent| parent.outcome.as_ref());
            let in_use = matches!(outer, Some(Outcome::Carried(_) | Outcome::Found(_)));
            let map = parent.is_some_and(|parent| ["map", "geo", "split_clients", "types"].contains(&parent.name()));
            match words::lost(name).filter(|_| in_use && !map) {
                Some((code, title, repair)) => {
                    let place = entry.place.clone();
                    self.report.find(code, place, title, "not carried", repair);
                    self.report.settle(at, Outcome::Found(code.word));
                }
                None => {
                    let outer = match outer {
                        Some(Outcome::Listed(why)) => Some(why.clone()),
                        _ => None,
                    };
                    let why = words::why_not(name).map(str::to_owned).or(outer);
                    let why = why.unwrap_or_else(|| words::UNKNOWN.to_owned());
                    self.report.entries[at].outcome = Some(Outcome::Listed(why));
                }
            }
        }
        self.report.sort();
    }
}

/// A fragment of a configuration gets the enclosing blocks that it lacks.
fn put_around(tree: Vec<Directive>) -> Vec<Directive> {
    let has = |names: &[&str]| tree.iter().any(|one| names.contains(&one.name.text.as_str()));
    if has(&["http", "stream", "mail", "events"]) || tree.is_empty() {
        return tree;
    }
    let stream = any(&tree, &["ssl_preread", "proxy_ssl"]) && !any(&tree, &["location"]);
    let inner = if has(&["location", "proxy_pass"]) && !has(&["server"]) { around("server", tree) } else { tree };
    around(if stream { "stream" } else { "http" }, inner)
}

fn any(tree: &[Directive], names: &[&str]) -> bool {
    tree.iter().any(|one| names.contains(&one.name.text.as_str()) || any(one.children(), names))
}

fn around(name: &str, tree: Vec<Directive>) -> Vec<Directive> {
    let file = tree[0].file;
    let span = tree[0].name.span.clone();
    let name = Word { text: name.to_owned(), span };
    vec![Directive { name, arguments: Vec::new(), block: Some(tree), file, id: MADE_UP }]
}
