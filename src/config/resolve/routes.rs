//! The destinations of a listener's connections.

use crate::config::file::{self, File};
use crate::config::formats::{Alpn, Reference};
use crate::config::problems::quote;
use crate::config::read::Given;
use crate::config::resolve::{Resolver, list};
use crate::config::source::Span;
use crate::config::values::{Destination, Name, NamePattern, Rule};

pub(super) fn destination(section: &file::Listener, file: &File, resolver: &mut Resolver<'_>) -> Option<Destination> {
    if section.routes.is_absent() {
        resolver.need(&section.upstream, &section.at, "upstream", "upstream = \"NAME\"");
        return refer(&section.upstream, file, resolver).map(Destination::One);
    }
    resolver.refuse_empty(&section.routes, "routes", "all connections go to `upstream`");
    let sections: Vec<_> = section.routes.value().into_iter().flatten().filter_map(Given::value).collect();
    refuse_shared_names(&sections, resolver);
    let rules: Vec<_> = sections.into_iter().filter_map(|route| rule(route, file, resolver)).collect();
    let default = refer_passing(&section.upstream, file, resolver);
    Some(Destination::ByHello { rules, default })
}

fn rule(section: &file::Route, file: &File, resolver: &mut Resolver<'_>) -> Option<Rule> {
    let file::Route { at, server_names, alpn, upstream } = section;
    resolver.need(server_names, at, "server_names", "server_names = [\"db.example.com\"]");
    resolver.need(upstream, at, "upstream", "upstream = \"NAME\"");
    if let Some((span, _)) = server_names.located().filter(|(_, names)| names.is_empty()) {
        let repair = "name at least one; clients that no route is for go to the listener's `upstream`";
        resolver.report(span, "`server_names` is an empty list", "nothing in it", repair);
    }
    resolver.refuse_repeated(server_names, "name");
    resolver.refuse_repeated(alpn, "protocol");
    resolver.refuse_empty(alpn, "alpn", "whatever the client offers");
    let upstream = refer_passing(upstream, file, resolver);
    let alpn = list(alpn).into_iter().map(|protocol| protocol.0).collect();
    Some(Rule { server_names: list(server_names), alpn, upstream: upstream? })
}

fn refer(given: &Given<Reference>, file: &File, resolver: &mut Resolver<'_>) -> Option<Name> {
    resolver.refer(given, &file.upstreams, "upstream", "upstreams")
}

/// The reference of a listener that reads the client's ClientHello and passes its TLS through.
fn refer_passing(given: &Given<Reference>, file: &File, resolver: &mut Resolver<'_>) -> Option<Name> {
    let name = refer(given, file, resolver)?;
    let sections = file.upstreams.value().into_iter().flat_map(|named| &named.0);
    let mut named = sections.filter(|(key, _)| key.name == name).filter_map(|(_, section)| section.value());
    let speaks = named.any(|section| section.passthrough.is_absent() || section.passthrough.value() == Some(&false));
    if let Some(span) = given.span().filter(|_| speaks) {
        let title = format!(
            "{} would put the client's TLS into a TLS of egret's own: a listener with `routes` hands on what it gets",
            quote(name.as_str())
        );
        let repair = format!(
            "write `passthrough = true` in `[upstreams.{name}]` in place of `tls`; clients that speak plaintext need a \
             listener of their own without `routes`"
        );
        resolver.report(span, title, "speaks TLS itself", repair);
    }
    Some(name)
}

/// A client that two routes fit equally well would go to one of them by chance.
fn refuse_shared_names(sections: &[&file::Route], resolver: &mut Resolver<'_>) {
    for (at, section) in sections.iter().enumerate() {
        let rivals: Vec<_> = sections[..at].iter().filter(|earlier| rival(section, earlier)).collect();
        for (span, pattern) in names(section) {
            if rivals.iter().any(|rival| names(rival).any(|(_, earlier)| earlier == pattern)) {
                let title = format!("{} has a route already", quote(&pattern.to_string()));
                let repair = "remove one of the two, or tell them apart by `alpn`";
                resolver.report(span, title, "routed above", repair);
            }
        }
    }
}

fn rival(one: &file::Route, other: &file::Route) -> bool {
    let one = list::<Alpn>(&one.alpn);
    let other = list::<Alpn>(&other.alpn);
    one.is_empty() && other.is_empty() || one.iter().any(|protocol| other.contains(protocol))
}

fn names(section: &file::Route) -> impl Iterator<Item = (&Span, &NamePattern)> {
    section.server_names.value().into_iter().flatten().filter_map(Given::located)
}
