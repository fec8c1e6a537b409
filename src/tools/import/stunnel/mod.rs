//! A configuration of stunnel: its client services become upstreams and listeners.

mod accept;
pub(crate) mod read;
mod service;
mod tls;
mod words;

use std::path::{Path, PathBuf};

use crate::config::Source;
use crate::tools::import::draft::Draft;
use crate::tools::import::files::Files;
use crate::tools::import::findings::{Code, INCLUDE_MISSING, SERVICE_LOST, SourceRange, UNKNOWN_DIRECTIVE};
use crate::tools::import::nginx::include::Error;
use crate::tools::import::report::{ImportReport, Outcome, ReportEntry};
use crate::tools::import::stunnel::read::{Line, LineKind};
use crate::tools::import::{Imported, Options, redact};

#[derive(Clone, Debug)]
struct Setting {
    name: String,
    value: String,
    id: usize,
    place: SourceRange,
}

#[derive(Clone, Debug)]
struct Service {
    name: String,
    id: usize,
    place: SourceRange,
    own: Vec<Setting>,
}

struct Importer<'a> {
    report: ImportReport,
    draft: Draft,
    options: &'a Options,
    files: &'a dyn Files,
    /// Relative paths start here.
    folder: PathBuf,
    /// Options before the first service, which apply to all services.
    common: Vec<Setting>,
}

/// Reads a configuration of stunnel.
///
/// # Errors
/// It cannot be read.
pub fn import(files: &dyn Files, path: &Path, options: &Options) -> Result<Imported, Error> {
    let text = files.main(path).map_err(|error| Error::Unreadable { path: path.to_path_buf(), error })?;
    let report = ImportReport::new(vec![Source::new(&path.display().to_string(), &text)], options.redact);
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
    let mut importer = Importer { report, draft: Draft::default(), options, files, folder, common: Vec::new() };
    let mut lines = read::lines(&text);
    if options.redact {
        redact::lines(&mut lines);
        redact::sources(&mut importer.report.sources);
    }
    let services = importer.enter(&lines);
    if services.is_empty() {
        importer.inetd();
    }
    for service in &services {
        importer.service(service);
    }
    importer.close();
    Ok(Imported::new(importer.report, importer.draft, "stunnel"))
}

impl Importer<'_> {
    /// Enters every line into the account, and puts options into their services.
    fn enter(&mut self, lines: &[Line]) -> Vec<Service> {
        let mut services: Vec<Service> = Vec::new();
        for (id, line) in lines.iter().enumerate() {
            let place = SourceRange::new(0, &line.span);
            let parent = services.last().map(|service| service.id);
            let (text, parent) = match &line.kind {
                LineKind::Service(name) => (format!("[{name}]"), None),
                LineKind::Option(name, value) => (format!("{name} = {value}"), parent),
                LineKind::Other(text) => (text.clone(), parent),
            };
            let outcome =
                matches!(line.kind, LineKind::Other(_)).then(|| Outcome::Listed("this is no option".to_owned()));
            self.report.entries.push(ReportEntry { place: place.clone(), text, parent, outcome, lost: Vec::new() });
            match &line.kind {
                LineKind::Service(name) => {
                    services.push(Service { name: name.clone(), id, place, own: Vec::new() });
                }
                LineKind::Option(name, value) => {
                    let setting = Setting { name: name.clone(), value: value.clone(), id, place };
                    services.last_mut().map_or(&mut self.common, |service| &mut service.own).push(setting);
                }
                LineKind::Other(_) => {}
            }
        }
        services
    }

    /// Without any service, stunnel serves one connection, which inetd has accepted.
    fn inetd(&mut self) {
        for setting in self.common.clone() {
            if ["connect", "exec"].contains(&setting.name.as_str()) {
                let title = "this service is lost: inetd accepts its connections";
                let repair = "a `[[listeners]]` of egret in place of the entry of inetd";
                self.find(SERVICE_LOST, &setting, title, "inetd", repair);
            }
        }
    }

    fn carried(&mut self, setting: &Setting, key: &str) {
        self.report.settle(setting.id, Outcome::Carried(key.to_owned()));
    }

    fn listed(&mut self, setting: &Setting, why: &str) {
        self.report.settle(setting.id, Outcome::Listed(why.to_owned()));
    }

    fn find(
        &mut self,
        code: Code,
        setting: &Setting,
        title: impl Into<String>,
        label: &str,
        repair: impl Into<String>,
    ) {
        self.report.find(code, setting.place.clone(), title, label, repair);
        self.report.settle(setting.id, Outcome::Found(code.word));
    }

    /// What is left gets a reason, too, and a finding if the loss is unknown.
    fn close(&mut self) {
        for at in 0..self.report.entries.len() {
            let entry = &self.report.entries[at];
            if entry.outcome.is_some() {
                continue;
            }
            let outer = match entry.parent.map(|parent| &self.report.entries[parent]) {
                Some(ReportEntry { outcome: Some(Outcome::Listed(why)), .. }) => Some(why.clone()),
                Some(ReportEntry { outcome: Some(Outcome::Found(_)), .. }) => {
                    Some("its service is not carried over".to_owned())
                }
                _ => None,
            };
            let name = entry.name();
            if name == "include" {
                let title = "what this folder brings is not read";
                self.lost(INCLUDE_MISSING, at, title, "bring what it has into one file, and import again");
            } else if let Some(why) = outer.or_else(|| words::why_not(name).map(str::to_owned)) {
                self.report.entries[at].outcome = Some(Outcome::Listed(why));
            } else {
                let title = "the importer does not know this option, and cannot say what is lost with it";
                self.lost(UNKNOWN_DIRECTIVE, at, title, "see in stunnel's manual whether it is needed");
            }
        }
        self.report.sort();
    }

    fn lost(&mut self, code: Code, at: usize, title: &str, repair: &str) {
        let place = self.report.entries[at].place.clone();
        self.report.find(code, place, title, "not carried", repair);
        self.report.settle(at, Outcome::Found(code.word));
    }
}

fn is_yes(setting: &Setting) -> bool {
    setting.value.eq_ignore_ascii_case("yes")
}
