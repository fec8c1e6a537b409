//! From a cause to its repair: the upstream with its settings changed, written as configuration of
//! egret and of nginx, and in words what is for the server to do. Pure.

mod egret;
mod nginx;

use rustls::pki_types::ServerName;

use crate::config::formats::ServedName;
use crate::config::read::Text;
use crate::config::values::{self, Anchors, ExactCertificate, ExpectedName, KeyExchange, KeyShare, Name, TlsVersion};
use crate::pipeline::originate::origin::KEY_EXCHANGE;
use crate::protocols::Upgrade;
use crate::tools::explain::cause::CauseKind;
use crate::tools::explain::chain::Chain;
use crate::tools::explain::report::Repair;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) name: Name,
    pub(crate) upstream: values::Upstream,
    pub(crate) identity: Option<values::Identity>,
    /// `None`: the system's roots.
    pub(crate) trust: Option<values::Trust>,
    /// The file's tables may hold more than this plan.
    pub(crate) is_part: bool,
}

impl Plan {
    /// Verified, and sent as SNI if it is a DNS name.
    pub(super) fn server_name(&self, server: &values::Server) -> ServerName<'static> {
        let configured = self.upstream.tls.server_name.clone();
        configured.unwrap_or_else(|| server.host.server_name())
    }
}

struct Mending<'a> {
    plan: Plan,
    /// Verified, and sent as SNI if it is a DNS name.
    server_name: String,
    chain: &'a Chain,
    changed: bool,
    comments: Vec<String>,
    advice: Vec<String>,
}

/// A man in the middle presents a certificate too.
const COMPARE: &str = "Compare the fingerprint with the one that you get from the server's owner, before you trust it.";

/// The repair of all these causes at one server of the plan.
pub(crate) fn repair<'a>(
    kinds: impl IntoIterator<Item = &'a CauseKind>,
    plan: &Plan,
    server: &values::Server,
    chain: &Chain,
) -> Repair {
    let mut plan = plan.clone();
    // A repair never switches verification off.
    plan.upstream.tls.verify = values::Verify::Full;
    let server_name = plan.server_name(server).to_str().into_owned();
    let mut mending = Mending { plan, server_name, chain, changed: false, comments: Vec::new(), advice: Vec::new() };
    kinds.into_iter().for_each(|kind| mending.mend(kind));
    let Mending { plan, changed, comments, advice, .. } = mending;
    if !changed {
        return Repair { advice, ..Repair::default() };
    }
    written(&plan, server, chain, &comments, advice)
}

/// For a server with which nothing is wrong.
pub(crate) fn as_it_is(plan: &Plan, server: &values::Server, chain: &Chain) -> Repair {
    written(plan, server, chain, &[], Vec::new())
}

fn written(
    plan: &Plan,
    server: &values::Server,
    chain: &Chain,
    comments: &[String],
    mut advice: Vec<String>,
) -> Repair {
    let nginx = nginx::directives(plan, server, chain, comments);
    advice.extend(nginx.as_ref().err().map(ToString::to_string));
    Repair { egret: Some(egret::tables(plan, comments)), nginx: nginx.ok(), advice }
}

impl Mending<'_> {
    fn mend(&mut self, kind: &CauseKind) {
        match kind {
            CauseKind::ServerNameMissing(Some(_)) => self.change(|plan| plan.upstream.tls.settings.sni = true),
            CauseKind::ServerNameMissing(None) => {
                self.advice("give the server by its name, or the name with --server-name");
            }
            CauseKind::ServerNameUnrecognized(names) => self.unknown_name(names),
            CauseKind::WrongName { names, expected } => {
                self.name(names);
                self.advice(&format!("or at the server: a certificate for {}", expected.join(" or ")));
            }
            CauseKind::IdentityRequired { given: false, .. } | CauseKind::RefusedInAnswer { given: false, .. } => {
                self.identity()
            }
            CauseKind::IdentityRequired { given: true, .. }
            | CauseKind::IdentityRejected { .. }
            | CauseKind::RefusedInAnswer { .. } => {
                self.other_identity();
            }
            CauseKind::IdentityUnusable => {
                self.advice("present a certificate with another kind of key: ECDSA P-256, or RSA")
            }
            CauseKind::SelfSigned { .. } | CauseKind::AuthorityAsLeaf { .. } | CauseKind::NotTheExactOne => {
                self.exactly()
            }
            CauseKind::CommonNameOnly { common_name } => self.by_common_name(common_name.as_deref()),
            CauseKind::PrivateAuthority { issuer, .. } | CauseKind::LeafAsAuthority { issuer } => self.roots(issuer),
            CauseKind::ChainIncomplete { issuer, .. } => {
                self.advice(
                    "at the server: send the intermediate behind the leaf (nginx: both in the file of ssl_certificate)",
                );
                self.roots(issuer);
            }
            CauseKind::TrustTooNarrow => self.change(|plan| plan.trust = None),
            CauseKind::UpgradeNotWanted => self.change(|plan| plan.upstream.upgrade = None),
            CauseKind::StartTlsServer { protocol, .. } => self.start_tls(*protocol),
            CauseKind::HybridDropped => self.classic(),
            CauseKind::ResumptionIntolerant(_) => {
                self.change(|plan| plan.upstream.tls.settings.resumption = false);
                self.advice("at the server: set a session id context, or give no sessions");
            }
            CauseKind::GroupsExcluded => self.change(|plan| plan.upstream.tls.settings.key_exchange.clear()),
            CauseKind::VersionExcluded(_) => self.change(|plan| {
                plan.upstream.tls.settings.min_version = TlsVersion::V1_2;
                plan.upstream.tls.settings.max_version = TlsVersion::V1_3;
            }),
            CauseKind::AlpnRefused { without: true } => self.change(|plan| plan.upstream.tls.settings.alpn.clear()),
            CauseKind::PinMismatch => self.pin(),
            other => self.advice.extend(advice(other)),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Plan)) {
        let before = self.plan.clone();
        change(&mut self.plan);
        self.changed |= self.plan != before;
    }

    fn advice(&mut self, text: &str) {
        self.advice.push(text.to_owned());
    }

    /// The client's side first: most often the server never had this name.
    fn unknown_name(&mut self, names: &[String]) {
        let sent = self.server_name.clone();
        self.advice(&format!(
            "here: `server_name` of the upstream (--server-name) has to be a name that the server has; \"{sent}\" is sent as SNI"
        ));
        self.name(names);
        self.advice(&format!("or at the server: a site and a certificate for \"{sent}\""));
    }

    /// Takes the first name that is no wildcard.
    fn name(&mut self, names: &[String]) {
        if self.plan.trust.as_ref().is_some_and(|trust| !trust.names.is_empty()) {
            return self.expected_name(names);
        }
        let of = |kind| names.iter().filter_map(move |name| name.strip_prefix(kind));
        let served = of("dns:").find(|name| !name.contains('*')).or_else(|| of("ip:").next());
        if let Some(ServedName(name)) = served.and_then(|name| ServedName::parse(name).ok()) {
            return self.change(|plan| plan.upstream.tls.server_name = Some(name));
        }
        if let Some(uri) = of("uri:").next() {
            let uri = ExpectedName::Uri(uri.to_owned());
            return self.change(|plan| plan.trust.get_or_insert_default().names = vec![uri]);
        }
        if let Some(wildcard) = of("dns:").next() {
            self.advice(&format!("reach the server by a name of {wildcard}, and set it as server_name"));
        }
    }

    /// The names of a trust replace the server name.
    fn expected_name(&mut self, names: &[String]) {
        let mut known = names.iter().filter(|name| !name.contains('*'));
        let name = known.find_map(|name| ExpectedName::parse(name).ok());
        self.change(|plan| {
            if let (Some(trust), Some(name)) = (&mut plan.trust, name) {
                trust.names = vec![name];
            }
        });
    }

    fn identity(&mut self) {
        let stem = self.plan.name.clone();
        self.comments
            .push("The client certificate that the server's owner has issued, and its key (mode 0600).".into());
        self.change(|plan| {
            plan.identity = Some(values::Identity {
                certificate: format!("{stem}.crt").into(),
                private_key: Some(format!("{stem}.key").into()),
                password_file: None,
                allow_loose_key_permissions: false,
            });
            plan.upstream.tls.identity = Some(stem);
        });
    }

    fn other_identity(&mut self) {
        self.identity();
        self.changed = true;
        self.advice("get a client certificate of an authority that the server accepts; or have the server's owner accept this one");
    }

    /// Trusts the one certificate that the server shows.
    fn exactly(&mut self) {
        let Some(sha256) = self.chain.leaf().map(|leaf| leaf.facts.sha256) else { return };
        if !self.comments.iter().any(|comment| comment == COMPARE) {
            self.comments.push(COMPARE.into());
        }
        self.change(|plan| {
            let names = plan.trust.take().map(|trust| trust.names).unwrap_or_default();
            let anchors = Anchors::Certificate(ExactCertificate::Sha256(sha256));
            plan.trust = Some(values::Trust { anchors, names, ..values::Trust::default() });
        });
    }

    fn by_common_name(&mut self, common_name: Option<&str>) {
        self.advice("at the server: a certificate with subject alternative names");
        self.exactly();
        // One certificate needs no name unless `names` asks for one, which this one cannot have.
        self.change(|plan| plan.trust.iter_mut().for_each(|trust| trust.names.clear()));
        let expected = &self.plan.upstream.tls.server_name;
        let is_it = |name: &ServerName<'_>| Some(name.to_str().as_ref()) == common_name;
        let own = self.plan.upstream.servers.iter().any(|server| is_it(&server.host.server_name()));
        if !expected.as_ref().is_some_and(is_it)
            && (expected.is_some() || !own)
            && let Some(ServedName(name)) = common_name.and_then(|name| ServedName::parse(name).ok())
        {
            self.change(|plan| plan.upstream.tls.server_name = Some(name));
        }
    }

    fn roots(&mut self, issuer: &str) {
        // One certificate that is trusted by itself needs no root.
        if matches!(&self.plan.trust, Some(values::Trust { anchors: Anchors::Certificate(_), .. })) {
            return;
        }
        let file = format!("{}-ca.pem", self.plan.name);
        self.comments.push(format!(
            "The certificate of \"{issuer}\", from its owner (nginx: and those above it, up to the root)."
        ));
        self.change(|plan| {
            let trust = plan.trust.get_or_insert_default();
            trust.anchors = Anchors::Roots { system: false, paths: vec![file.into()] };
        });
        self.changed = true;
    }

    fn classic(&mut self) {
        self.comments
            .push("A classic group first: its key share fits one packet. The hybrid stays on the list.".into());
        self.change(|plan| {
            let tls = &mut plan.upstream.tls;
            tls.settings.key_exchange_share = KeyShare::Auto;
            tls.settings.key_exchange = classic_first(&tls.settings.key_exchange);
        });
        self.advice("at the server, or what stands before it: take ClientHellos of more than one packet (1500 bytes)");
    }

    fn pin(&mut self) {
        let Some(leaf) = self.chain.leaf() else { return };
        let pin = leaf.facts.spki_sha256;
        self.comments.push(COMPARE.into());
        self.change(|plan| plan.trust.get_or_insert_default().pins = vec![pin]);
    }

    fn start_tls(&mut self, protocol: Upgrade) {
        self.change(|plan| plan.upstream.upgrade = Some(protocol));
        if let Some(port) = protocol.tls_port {
            let name = protocol.name;
            self.advice(&format!("take the port on which {name} is TLS from the first byte, usually {port}"));
        }
    }
}

/// The same groups, a classic one first.
fn classic_first(groups: &[KeyExchange]) -> Vec<KeyExchange> {
    let groups = if groups.is_empty() { &KEY_EXCHANGE } else { groups };
    let classic = groups.iter().copied().find(|group| *group != KeyExchange::X25519Mlkem768);
    let first = classic.unwrap_or(KeyExchange::X25519);
    let others = groups.iter().copied().filter(|group| *group != first);
    std::iter::once(first).chain(others).collect()
}

fn advice(kind: &CauseKind) -> Option<String> {
    let text = match kind {
        CauseKind::Unreachable(_) => "check host and port, name servers, routes and firewalls on the way",
        CauseKind::Upgrade(_) => "at the server: offer TLS; or check that the port is the one of this protocol",
        CauseKind::PlaintextServer(_) => "take the port on which the server speaks TLS, or switch TLS on there",
        CauseKind::Expired { .. } => {
            "at the server: renew the certificate, and load it (many servers need a reload); check this machine's clock if the date is a surprise"
        }
        CauseKind::NotYetValid { .. } => {
            "set this machine's clock (timedatectl); if it is right, wait, or have the certificate issued anew"
        }
        CauseKind::Revoked => "at the server: a new certificate; do not trust this one",
        CauseKind::CrlExpired(_) => "fetch the revocation list anew; egret notices the new file",
        CauseKind::WeakKey(_) => {
            "at the server: a new key (ECDSA P-256, or RSA with 2048 bits or more) and a certificate for it"
        }
        CauseKind::WeakSignature(_) => "at the server: a certificate that is signed with SHA-256 or better",
        CauseKind::VersionTooOld(_) => "at the server: switch TLS 1.2 or 1.3 on; egret does not speak older versions",
        CauseKind::SuiteTooOld(_) => {
            "at the server: switch suites with AEAD and forward secrecy on (OpenSSL: ECDHE+AESGCM:ECDHE+CHACHA20)"
        }
        CauseKind::GroupUnknown(_) => "at the server: allow X25519, P-256 or P-384 (OpenSSL: groups X25519:P-256)",
        CauseKind::AlpnRefused { .. } => "at the server: allow the protocol",
        CauseKind::Other(_) => "docs/failures.md says what is likely behind this word, and what to look at",
        _ => return None,
    };
    Some(text.to_owned())
}
