//! From the file as typed to the values that run. One function per section; all problems are collected.
//!
//! Here keys are combined: defaults, references, contradictions, what is missing. Nothing here
//! touches a file or a socket.

mod access;
mod listeners;
mod process;
mod routes;
mod servers;
mod tcp;
mod trust;
mod upstreams;

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::file::{self, File};
use crate::config::formats::Reference;
use crate::config::nearest::suggest;
use crate::config::problems::{Problem, quote};
use crate::config::read::{Given, Key, Named};
use crate::config::source::Span;
use crate::config::values::{Config, Identity, Name, Readiness, Written};

/// Resolves a whole file. The configuration is meaningful only if no problem was added.
pub(super) fn resolve(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> Config {
    let mut resolver = Resolver { folder, problems };
    Config {
        log: file.log.or_empty().settings(),
        runtime: process::runtime(&file.runtime.or_empty(), &mut resolver),
        limits: file.limits.or_empty().settings(),
        dns: process::dns(&file.dns.or_empty(), &mut resolver),
        admin: listeners::admins(&file.admin, &mut resolver),
        reload: file.reload.or_empty().settings(),
        readiness: file.readiness.or(Readiness::Listeners),
        drain_timeout: file.drain_timeout.or(process::DRAIN_TIMEOUT),
        identities: named(&file.identities, |section| identity(section, &mut resolver)),
        trusts: named(&file.trust, |section| trust::trust(section, &mut resolver)),
        upstreams: named(&file.upstreams, |section| upstreams::upstream(section, file, &mut resolver)),
        listeners: listeners::listeners(file, &mut resolver),
        source: Written::default(),
    }
}

struct Resolver<'a> {
    folder: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Resolver<'_> {
    fn report(&mut self, span: &Span, title: impl Into<String>, label: impl Into<String>, repair: impl Into<String>) {
        self.problems.push(Problem::new(span.clone(), title, label, repair));
    }

    /// The value of a key that has no default; `line` is how it could be written.
    fn need<'a, T>(&mut self, given: &'a Given<T>, at: &Span, key: &str, line: &str) -> Option<&'a T> {
        if given.is_absent() {
            self.report(
                at,
                format!("{} is missing", quote(key)),
                format!("no {}", quote(key)),
                format!("add `{line}`"),
            );
        }
        given.value()
    }

    /// Refuses an empty list that could mean "nobody" as well as "everybody".
    fn refuse_empty<T>(&mut self, list: &Given<file::List<T>>, key: &str, absent: &str) {
        if let Some((span, _)) = list.located().filter(|(_, list)| list.is_empty()) {
            let title = format!("{} is an empty list", quote(key));
            self.report(span, title, "nothing in it", format!("name at least one, or leave the key out ({absent})"));
        }
    }

    /// Refuses each value that the list holds for the second time.
    fn refuse_repeated<T: PartialEq>(&mut self, list: &Given<file::List<T>>, kind: &str) {
        let items: Vec<_> = list.value().into_iter().flatten().filter_map(Given::located).collect();
        for (at, (span, item)) in items.iter().enumerate() {
            if items[..at].iter().any(|(_, earlier)| earlier == item) {
                self.report(span, format!("this {kind} is listed twice"), "listed before", "remove one of the two");
            }
        }
    }

    fn refer<T>(
        &mut self,
        given: &Given<Reference>,
        tables: &Given<Named<T>>,
        kind: &str,
        table: &str,
    ) -> Option<Name> {
        let (span, Reference(name)) = given.located()?;
        let is_known = tables.value().is_some_and(|tables| tables.get(name).is_some());
        // A table that could not be read is already reported; its content is not known.
        if !matches!(tables, Given::Wrong) && !is_known {
            let known: Vec<&str> = keys(tables).map(|key| key.name.as_str()).collect();
            let repair = match known.is_empty() {
                true => format!("add a table `[{table}.{name}]`"),
                false => format!("{} Or add a table `[{table}.{name}]`", suggest(name.as_str(), known)),
            };
            self.report(span, format!("there is no {kind} {}", quote(name.as_str())), "unknown", repair);
        }
        Some(name.clone())
    }
}

/// The names of tables, those that could not be read included.
fn keys<T>(tables: &Given<Named<T>>) -> impl Iterator<Item = &Key> {
    tables.value().into_iter().flat_map(|named| named.0.iter().map(|(key, _)| key))
}

fn list<T: Clone>(given: &Given<file::List<T>>) -> Vec<T> {
    given.value().into_iter().flatten().filter_map(Given::value).cloned().collect()
}

fn named<T, V>(tables: &Given<Named<T>>, mut resolve: impl FnMut(&T) -> Option<V>) -> BTreeMap<Name, V> {
    let entries = tables.value().into_iter().flat_map(|named| &named.0);
    let sections = entries.filter_map(|(key, section)| Some((key, section.value()?)));
    sections.filter_map(|(key, section)| Some((key.name.clone(), resolve(section)?))).collect()
}

fn identity(section: &file::Identity, resolver: &mut Resolver<'_>) -> Option<Identity> {
    let folder = resolver.folder;
    let certificate =
        resolver.need(&section.certificate, &section.at, "certificate", "certificate = \"client.pem\"")?;
    Some(Identity {
        certificate: certificate.within(folder),
        private_key: section.private_key.value().map(|path| path.within(folder)),
        password_file: section.password_file.value().map(|path| path.within(folder)),
        allow_loose_key_permissions: section.allow_loose_key_permissions.or(false),
    })
}
