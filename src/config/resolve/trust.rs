//! What makes a server trusted: exactly one of roots, certificate and pins for each trust.

use crate::config::file;
use crate::config::formats::CertificateText;
use crate::config::read::Given;
use crate::config::resolve::{Resolver, list};
use crate::config::source::Span;
use crate::config::values::{Anchors, ExactCertificate, Trust};

pub(super) fn trust(section: &file::Trust, resolver: &mut Resolver<'_>) -> Option<Trust> {
    resolver.refuse_empty(&section.roots, "roots", "the roots of the system are believed");
    resolver.refuse_empty(&section.pins, "pins", "no key is pinned");
    resolver.refuse_empty(&section.names, "names", "the server name is expected");
    resolver.refuse_empty(&section.candidate_roots, "candidate_roots", "nothing is checked in shadow");
    resolver.refuse_repeated(&section.roots, "path");
    resolver.refuse_repeated(&section.candidate_roots, "path");
    resolver.refuse_repeated(&section.pins, "pin");
    resolver.refuse_repeated(&section.names, "name");
    resolver.refuse_repeated(&section.crls, "path");
    let folder = resolver.folder;
    Some(Trust {
        anchors: anchors(section, resolver)?,
        pins: list(&section.pins).into_iter().map(|pin| pin.0).collect(),
        names: list(&section.names),
        crls: list(&section.crls).iter().map(|path| path.within(folder)).collect(),
        candidate_roots: list(&section.candidate_roots).iter().map(|path| path.within(folder)).collect(),
    })
}

fn anchors(section: &file::Trust, resolver: &mut Resolver<'_>) -> Option<Anchors> {
    let pins_only = section.pins_only.located().filter(|(_, on)| **on).map(|(span, _)| span);
    refuse_mixtures(section, pins_only, resolver);
    let folder = resolver.folder;
    match &section.certificate {
        Given::Wrong => return None,
        Given::Value(_, CertificateText::File(path)) => {
            return Some(Anchors::Certificate(ExactCertificate::File(path.within(folder))));
        }
        Given::Value(_, CertificateText::Sha256(digest)) => {
            return Some(Anchors::Certificate(ExactCertificate::Sha256(*digest)));
        }
        Given::Absent => {}
    }
    if pins_only.is_some() {
        return Some(Anchors::PinsOnly);
    }
    let system = section.system_roots.or(section.roots.is_absent());
    if let Some(span) = section.system_roots.span().filter(|_| !system && section.roots.is_absent()) {
        let repair =
            "name root certificates: `roots = [\"ca.pem\"]`; or one certificate: `certificate = \"server.pem\"`";
        resolver.report(span, "this trust believes nobody", "nothing else is believed", repair);
    }
    let paths = list(&section.roots).iter().map(|path| path.within(folder)).collect();
    Some(Anchors::Roots { system, paths })
}

/// `certificate`, `pins_only` and roots exclude each other: a second one would have no effect.
fn refuse_mixtures(section: &file::Trust, pins_only: Option<&Span>, resolver: &mut Resolver<'_>) {
    let system = section.system_roots.located().filter(|(_, on)| **on).map(|(span, _)| span);
    let others = [
        ("roots", section.roots.span()),
        ("candidate_roots", section.candidate_roots.span()),
        ("system_roots", system),
        ("crls", section.crls.span()),
    ];
    let others: Vec<_> = others.into_iter().filter_map(|(key, span)| Some((key, span?))).collect();
    if !section.certificate.is_absent() {
        for (key, span) in others.iter().copied().chain(pins_only.map(|span| ("pins_only", span))) {
            let title = format!("`{key}` has no meaning beside `certificate`, which believes exactly one certificate");
            resolver.report(span, title, "has no effect", format!("remove `{key}`, or `certificate`"));
        }
    } else if let Some(pins_only) = pins_only {
        for (key, span) in others {
            let title = format!("`{key}` has no meaning beside `pins_only = true`: no chain is built");
            resolver.report(span, title, "has no effect", format!("remove `{key}`, or `pins_only`"));
        }
        if section.pins.is_absent() {
            let repair = "add `pins = [\"sha256/...\"]`, or remove `pins_only`";
            resolver.report(pins_only, "`pins_only` without `pins` believes nobody", "no pins", repair);
        }
    }
}
