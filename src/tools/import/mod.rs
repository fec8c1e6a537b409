//! Configurations of other proxies become one of egret: text in, text out.
//!
//! [`nginx`] and [`stunnel`] read, each in its own way, and fill a [`draft`]; [`write`] makes TOML of it.
//! [`findings`] holds what there is to say: what the other program did that is unsafe, and what egret does in its
//! place; [`report`] what became of every single directive. The text is read by egret's own loader before it is given away.
//!
//! Imports inside go downwards: nginx, stunnel > redact > write > facts > files > draft > text > report > findings.

pub(crate) mod draft;
mod facts;
pub mod files;
pub mod findings;
pub mod nginx;
mod redact;
pub mod report;
pub mod stunnel;
mod text;
mod write;

use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::{self, Problems, Style};
use crate::tools::import::draft::Draft;
use crate::tools::import::findings::Weight;
use crate::tools::import::report::ImportReport;

/// How to read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep what the other program does, also where it is unsafe.
    pub faithful: bool,
    /// Who may come to listeners that were open to everybody.
    pub allow: Vec<IpNet>,
    /// What relative paths are put behind; empty: they stay as they are.
    pub base: PathBuf,
    /// Mask hosts, addresses, paths and secrets in everything that is shown.
    pub redact: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The configuration, if there is anything to carry.
    pub config: Option<String>,
    /// Findings, and the account of all directives.
    pub report: ImportReport,
    /// The configuration does not load. That is a mistake of the importer's, and better report than written.
    pub broken: Option<Problems>,
}

impl Imported {
    fn new(report: ImportReport, mut draft: Draft, program: &str) -> Self {
        draft.prune();
        if draft.listeners.is_empty() {
            return Self { config: None, report, broken: None };
        }
        let text = write::write(&draft, &head(&report, program));
        let broken = config::parse("the imported configuration", &text, &|_| None).err();
        Self { config: Some(text), report, broken }
    }

    /// Everything that was found out, for people.
    pub fn render(&self, style: Style) -> String {
        self.report.render(style)
    }
}

fn head(report: &ImportReport, program: &str) -> Vec<String> {
    let [_, _, _, listed] = report.counts();
    let [errors, decisions, notes] = Weight::ALL.map(|weight| report.count(weight));
    let origin = report.sources.first().map_or("", |source| source.origin());
    vec![
        format!("Imported from {origin}, a configuration of {program}."),
        format!("Errors: {errors}; to decide: {decisions}; notes: {notes}; directives not carried over: {listed}."),
        format!("`egret import {program}` says which, and why."),
    ]
}
