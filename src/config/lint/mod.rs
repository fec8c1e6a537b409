//! Legal but unwise: `egret check` warns about it, and `egret check --strict` refuses it.

mod limits;

use std::collections::BTreeSet;

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::config::file;
use crate::config::load::{Loaded, Place};
use crate::config::problems::{Problem, Severity, Style, quote};
use crate::config::read::{Given, Key, Named};
use crate::config::source::Span;
use crate::config::values::{
    Access, Anchors, ExpectedName, Host, ListenAddress, Listener, Name, TlsVersion, Trust, Upstream, Verify,
};

/// Something legal but unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Its kind; stays the same from version to version.
    pub code: &'static str,
    pub(crate) problem: Problem,
}

/// Codes of what is worth knowing and nothing to change.
const NOTES: [&str; 2] = ["loopback-browser", "upgrade-limits"];

/// Ports on which servers speak HTTP over TLS: 443 and its usual alternatives, and the API of Kubernetes.
const HTTPS_PORTS: [u16; 4] = [443, 6443, 8443, 9443];

impl Advice {
    /// How grave it is.
    pub fn severity(&self) -> Severity {
        if NOTES.contains(&self.code) { Severity::Note(self.code) } else { Severity::Advice(self.code) }
    }

    /// Lines for people.
    pub fn render(&self, loaded: &Loaded, style: Style) -> String {
        self.problem.render(loaded.source(), self.severity(), style)
    }
}

/// All advice on a configuration, in the order of its text, without values of variables. Touches no file.
pub fn lint(loaded: &Loaded) -> Vec<Advice> {
    let mut lint = Lint { loaded, advice: Vec::new() };
    lint.identities();
    lint.trusts();
    for (key, section) in sections(&loaded.file.upstreams) {
        if let Some(upstream) = loaded.config.upstreams.get(&key.name) {
            if !upstream.passthrough {
                lint.verification(key, section, upstream);
                lint.names(key, section, upstream);
            }
            lint.upgrade(section, upstream);
            lint.streams(section, upstream);
            lint.pool(section, upstream);
        }
    }
    lint.pools();
    lint.entrances();
    lint.unused();
    lint.advice.sort_by_key(|advice| advice.problem.span.as_ref().map(|span| span.start));
    let hide = |advice: Advice| Advice { problem: advice.problem.without_values(loaded.source()), ..advice };
    lint.advice.into_iter().map(hide).collect()
}

struct Lint<'a> {
    loaded: &'a Loaded,
    advice: Vec<Advice>,
}

impl Lint<'_> {
    fn advise(&mut self, code: &'static str, span: &Span, title: impl Into<String>, label: &str, repair: &str) {
        self.advice.push(Advice { code, problem: Problem::new(span.clone(), title, label, repair) });
    }

    fn identities(&mut self) {
        for (_, section) in sections(&self.loaded.file.identities) {
            if let Some((span, true)) = flag(&section.allow_loose_key_permissions) {
                let title = "a private key that other users may read is taken";
                self.advise(
                    "loose-key-permissions",
                    span,
                    title,
                    "allowed",
                    "`chmod 600` the key, and remove this line",
                );
            }
        }
    }

    fn trusts(&mut self) {
        for (key, section) in sections(&self.loaded.file.trust) {
            let Some(trust) = self.loaded.config.trusts.get(&key.name) else { continue };
            if let (Some(span), [_]) = (section.pins.span(), trust.pins.as_slice()) {
                let title = "only one key is pinned: when the server has to replace it, nobody gets through";
                self.advise("single-pin", span, title, "no second key", "pin the key that is kept in reserve as well");
            }
            if let Some(span) = section.names.span().filter(|_| trust.names.iter().any(is_of_subject)) {
                let title =
                    "a name of the subject is expected: no rule binds an authority to whose name it writes there";
                let repair = "have the server's certificate issued with a subject alternative name, and expect that";
                self.advise("names-of-subject", span, title, "free text", repair);
            }
            if let Some(span) = section.names.span().filter(|_| are_wide(&trust.names)) {
                let title = "names of several domains are expected: a server of one passes for a server of the other";
                self.advise("names-too-wide", span, title, "too wide", "make a trust for each, with its own names");
            }
        }
    }

    fn verification(&mut self, key: &Key, section: &file::Upstream, upstream: &Upstream) {
        let default = file::Tls::default();
        let tls = section.tls.value().unwrap_or(&default);
        let at = tls.verify.span().unwrap_or(&key.at);
        let name = quote(key.name.as_str());
        match &upstream.tls.verify {
            Verify::Full => {}
            Verify::Chain { .. } => {
                let title = format!("every server of the trusted authorities can pose as the server of {name}");
                let repair = "remove it; `names` in a trust says which names its servers have";
                self.advise("verify-chain", at, title, "any name", repair);
            }
            Verify::Report { .. } => {
                let title = format!("servers of {name} that do not pass are served all the same");
                self.advise(
                    "verify-report",
                    at,
                    title,
                    "not enforced",
                    "remove it when the log names no server any more",
                );
            }
            Verify::None { .. } => {
                let title = format!("anyone can pose as the server of {name}");
                let repair = "remove it; for a self-signed server, a trust with `certificate = \"server.pem\"`";
                self.advise("verify-none", at, title, "not verified", repair);
                if let Some(span) = tls.trust.span() {
                    let title = "the trust has no effect with `verify = \"none\"`";
                    self.advise("trust-without-effect", span, title, "not looked at", "remove one of the two");
                }
            }
        }
        if let Some(span) = tls.max_version.span().filter(|_| upstream.tls.max_version == TlsVersion::V1_2) {
            let title = "TLS 1.3 is switched off: the client certificate is sent in the clear";
            self.advise("tls12-only", span, title, "1.2 only", "remove it, unless the server fails with TLS 1.3");
        }
    }

    fn names(&mut self, key: &Key, section: &file::Upstream, upstream: &Upstream) {
        let tls = &upstream.tls;
        let sni = section.tls.value().and_then(|tls| flag(&tls.sni));
        if let Some((span, false)) = sni {
            let title = "no SNI is sent: a server of several names answers with some certificate";
            self.advise("sni-off", span, title, "off", "remove it, unless the server fails with SNI");
        }
        let trust = tls.trust.as_ref().and_then(|name| self.loaded.config.trusts.get(name));
        let named = trust.is_some_and(|trust| !trust.names.is_empty())
            || matches!(tls.verify, Verify::None { .. } | Verify::Chain { .. });
        let by_ip = match &tls.server_name {
            Some(name) => matches!(name, ServerName::IpAddress(_)),
            None => upstream.servers.iter().any(|server| matches!(server.host, Host::Ip(_))),
        };
        if by_ip && !named {
            let span = section.servers.span().unwrap_or(&key.at);
            let title =
                "a server is known by its IP address only: its certificate must carry the address, no SNI is sent";
            let repair = "add the name of the server: `server_name = \"db.example.com\"`; or `names` in its trust";
            self.advise("ip-without-name", span, title, "no name", repair);
        }
        if let Some((span, trust)) = section.tls.value().and_then(|tls| tls.trust.span()).zip(trust) {
            self.exact_with_resets(span, trust, upstream);
        }
    }

    fn upgrade(&mut self, section: &file::Upstream, upstream: &Upstream) {
        let limits = upstream.upgrade.and_then(|protocol| protocol.limits);
        if let Some((span, limits)) = section.upgrade.span().zip(limits) {
            self.advise("upgrade-limits", span, limits, "in part", "docs/protocols.md says what works");
        }
    }

    /// One certificate that several servers would have to share.
    fn exact_with_resets(&mut self, span: &Span, trust: &Trust, upstream: &Upstream) {
        if matches!(trust.anchors, Anchors::Certificate(_)) && upstream.servers.len() > 1 {
            let title = "exactly one certificate is believed, but there are several servers";
            let repair = "sign their certificates by one root and use `roots`, unless they share the certificate";
            self.advise("one-certificate-for-many", span, title, "one certificate", repair);
        }
    }

    fn entrances(&mut self) {
        let config = &self.loaded.config;
        let admins = self.loaded.file.admin.value().into_iter().flat_map(|admins| &admins.0).filter_map(Given::value);
        for ((at, section), admin) in admins.enumerate().zip(&config.admin) {
            self.entrance(Place::Admin(at), section.allow.span(), &admin.listen, &admin.access);
        }
        let sections = self.loaded.file.listeners.value().into_iter().flatten().filter_map(Given::value);
        for (section, listener) in sections.zip(&config.listeners) {
            self.entrance(Place::Listener(&listener.name), section.allow.span(), &listener.listen, &listener.access);
            self.browsers(listener);
        }
    }

    fn entrance(&mut self, place: Place<'_>, allow: Option<&Span>, listen: &ListenAddress, access: &Access) {
        let everyone = |network: &IpNet| network.prefix_len() == 0;
        if let Some(span) = allow.filter(|_| access.networks.iter().any(everyone)) {
            let title = "every client that can reach this address may connect";
            self.advise("allow-everyone", span, title, "all addresses", "name the networks of the clients");
        }
        let ListenAddress::Unix { mode, .. } = listen else { return };
        if mode & 0o006 != 0 && access.users.is_empty() {
            let span = self.loaded.locate(place).unwrap_or_default();
            let title = "every user of this machine may come";
            let repair = "name users: `allow_users = [\"app\"]`; or use a narrower `mode`, such as \"0660\"";
            self.advise("socket-open-to-all", &span, title, "open by its mode", repair);
        }
    }

    /// A web page can send requests to every loopback port of the machine that shows it.
    fn browsers(&mut self, listener: &Listener) {
        let ListenAddress::Tcp(address) = listener.listen else { return };
        let upstreams = &self.loaded.config.upstreams;
        let lends_identity = |upstream: &Upstream| {
            let speaks_http = upstream.servers.iter().any(|server| HTTPS_PORTS.contains(&server.port));
            upstream.tls.identity.is_some() && !upstream.passthrough && upstream.upgrade.is_none() && speaks_http
        };
        let reached = listener.destination.upstreams();
        if address.ip().to_canonical().is_loopback()
            && reached.filter_map(|name| upstreams.get(name)).any(lends_identity)
        {
            let span = self.loaded.locate(Place::Listener(&listener.name)).unwrap_or_default();
            let title = "a web page in a browser on this machine can send requests here, with the client certificate";
            let repair = "where people browse on this machine, listen on a Unix socket: \"unix:/run/egret/app.sock\"";
            self.advise("loopback-browser", &span, title, "plaintext on loopback", repair);
        }
    }

    /// Tables that nothing refers to: a slip in a name, or a key that lies around for nothing.
    fn unused(&mut self) {
        let config = &self.loaded.config;
        let file = &self.loaded.file;
        let upstreams: BTreeSet<&Name> =
            config.listeners.iter().flat_map(|listener| listener.destination.upstreams()).collect();
        let identities = config.upstreams.values().filter_map(|upstream| upstream.tls.identity.as_ref()).collect();
        let trusts = config.upstreams.values().filter_map(|upstream| upstream.tls.trust.as_ref()).collect();
        self.unreferred("unused-upstream", "no listener leads to this upstream", &file.upstreams, &upstreams);
        self.unreferred("unused-identity", "no upstream presents this identity", &file.identities, &identities);
        self.unreferred("unused-trust", "no upstream asks for this trust", &file.trust, &trusts);
    }

    fn unreferred<T>(&mut self, code: &'static str, title: &str, tables: &Given<Named<T>>, used: &BTreeSet<&Name>) {
        for (key, _) in sections(tables).filter(|(key, _)| !used.contains(&key.name)) {
            self.advise(code, &key.at, title, "unused", "refer to it, or remove it");
        }
    }
}

fn is_of_subject(name: &ExpectedName) -> bool {
    matches!(name, ExpectedName::CommonName(_) | ExpectedName::OrganizationalUnit(_))
}

/// Whether DNS names end in more than one domain, taken as their last two labels.
fn are_wide(names: &[ExpectedName]) -> bool {
    let dns =
        names.iter().filter_map(|name| if let ExpectedName::Dns(name) = name { Some(name.as_ref()) } else { None });
    let domains: BTreeSet<String> = dns
        .map(|name| {
            let labels: Vec<&str> = name.trim_end_matches('.').rsplit('.').take(2).collect();
            labels.join(".").to_ascii_lowercase()
        })
        .collect();
    domains.len() > 1
}

fn sections<T>(tables: &Given<Named<T>>) -> impl Iterator<Item = (&Key, &T)> {
    let entries = tables.value().into_iter().flat_map(|named| &named.0);
    entries.filter_map(|(key, section)| Some((key, section.value()?)))
}

fn flag(given: &Given<bool>) -> Option<(&Span, bool)> {
    given.located().map(|(span, on)| (span, *on))
}
