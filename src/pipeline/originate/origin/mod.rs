//! An origin: one identity, trust and server name of an upstream, with the TLS state for it.

pub(crate) mod ahead;
pub mod resumption;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption as SessionConfig, Tls12Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, KeyLog, NamedGroup, SignatureScheme, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::values::{self, KeyExchange, KeyShare, Server, TlsVersion};
use crate::credentials::certificate::{Date, distinguished_name};
use crate::credentials::fingerprint::{Sha256, hex};
use crate::credentials::identity::{Fingerprint, Identity};
use crate::credentials::observation::{CertificateRequest, Observed, note};
use crate::credentials::trust::{Mode, Trust, Verifier};
use crate::observe::metrics::OriginMetrics;
use crate::pipeline::originate::hello::Offer;
use crate::pipeline::originate::origin::ahead::{Ahead, Begun, Place, Prepared};
use crate::pipeline::originate::origin::resumption::{ShareOnly, Store, Taking};
use crate::pipeline::originate::pool::shelf::Shelf;
use crate::pipeline::originate::pool::warm::Warm;
use crate::protocols::Upgrade;
use crate::tls::kernel::Offers;
use crate::wording;

/// Everything by which origins differ. If two are equal, one origin may serve both; if any part is
/// different, no session of one may be resumed by the other. Compared as it is, not by a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginKey {
    servers: Vec<Server>,
    upgrade: Option<Upgrade>,
    server_name: ServerName<'static>,
    sni: bool,
    identity: Option<Fingerprint>,
    trust: Sha256,
    mode: Mode,
    min_version: TlsVersion,
    max_version: TlsVersion,
    alpn: Vec<Vec<u8>>,
    key_exchange: Vec<KeyExchange>,
    key_share: KeyShare,
    resumption: bool,
    keeps_chain: bool,
}

/// One identity, trust and server name of an upstream. Owns its verifier, its client-certificate resolver, its
/// configuration and its sessions; shares none of them with another origin.
///
/// An unchanged origin is carried over a reload as this same object: rustls resumes only under the same
/// verifier and resolver, so the sessions stay good. A changed one is a new object and starts empty.
pub struct Origin {
    key: OriginKey,
    config: Arc<ClientConfig>,
    sessions: Option<Arc<Store>>,
    identity: Option<Arc<Identity>>,
    trust: Arc<Trust>,
    metrics: Arc<OriginMetrics>,
    kernel: Option<Arc<Offers>>,
    shelf: Arc<Shelf<Warm>>,
    ahead: Ahead,
}

/// Why an origin cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The oldest version that is allowed is newer than the newest.
    #[error("min_version is above max_version: no version of TLS is left")]
    NoVersion,
    /// X25519MLKEM768 exists in TLS 1.3 only.
    #[error("key_exchange names no group that TLS 1.2 knows, and max_version is \"1.2\"")]
    NoGroup,
    /// Anything that rustls finds wrong.
    #[error("these TLS settings cannot be used: {}", wording::sentence(.0))]
    Unusable(#[source] rustls::Error),
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        "origin_unusable"
    }
}

/// In the order of preference: the post-quantum hybrid first, then what is fast and everywhere.
pub(crate) const KEY_EXCHANGE: [KeyExchange; 4] =
    [KeyExchange::X25519Mlkem768, KeyExchange::X25519, KeyExchange::Secp256r1, KeyExchange::Secp384r1];

impl Origin {
    /// A new origin: new verifier, new resolver, no sessions. `key` must be that of the same `identity`
    /// and `trust`.
    ///
    /// # Errors
    /// The TLS settings contradict each other.
    pub fn new(key: OriginKey, identity: Option<Arc<Identity>>, trust: Arc<Trust>) -> Result<Self, Error> {
        Self::counted(key, identity, trust, OriginMetrics::silent())
    }

    /// As [`Origin::new`], with metrics.
    ///
    /// # Errors
    /// Those of [`Origin::new`].
    pub fn counted(
        key: OriginKey,
        identity: Option<Arc<Identity>>,
        trust: Arc<Trust>,
        metrics: Arc<OriginMetrics>,
    ) -> Result<Self, Error> {
        debug_assert_eq!(key.identity.as_ref(), identity.as_deref().map(Identity::fingerprint));
        debug_assert_eq!(key.trust, *trust.digest());
        let verifier = Arc::new(Verifier::new(Arc::clone(&trust), key.mode, Arc::clone(&metrics)));
        let resolver = Arc::new(Resolver::new(identity.as_deref()));
        let mut config = ClientConfig::builder_with_provider(provider(&key)?)
            .with_protocol_versions(&versions(&key)?)
            .map_err(Error::Unusable)?
            .dangerous() // rustls' word for a verifier that is not its own
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&key.alpn);
        config.enable_sni = key.sni;
        config.resumption = SessionConfig::disabled();
        // egret makes the records after the handshake.
        config.enable_secret_extraction = true;
        let limit = identity.as_deref().map_or(Date(i64::MAX), Identity::not_after);
        let sessions = key.resumption.then(|| Store::counted(limit, Arc::clone(&metrics)));
        let config = Arc::new(config);
        let shelf = Arc::default();
        let ahead = Ahead::default();
        Ok(Self { key, config, sessions, identity, trust, metrics, kernel: None, shelf, ahead })
    }

    /// To be called before it is shared.
    pub(crate) fn log_keys(&mut self, log: Arc<dyn KeyLog>) {
        Arc::make_mut(&mut self.config).key_log = log;
    }

    /// To be called before it is shared.
    pub(crate) fn offer_to_kernel(&mut self, offers: Arc<Offers>) {
        self.kernel = Some(offers);
    }

    /// What the kernel may have of its streams.
    pub(super) fn kernel(&self) -> Option<&Offers> {
        self.kernel.as_deref()
    }

    /// The parts by which origins differ.
    pub fn key(&self) -> &OriginKey {
        &self.key
    }

    pub(crate) fn server_name(&self) -> &ServerName<'static> {
        &self.key.server_name
    }

    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    pub(crate) fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Warm connections; empty unless a pool gives it bounds.
    pub(crate) fn shelf(&self) -> &Arc<Shelf<Warm>> {
        &self.shelf
    }

    /// The handshake that is begun before its client comes.
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Begins a handshake with `endpoint` ahead of its client, unless there is one, or it would offer less than one that
    /// is begun for a client. True: a task has to watch its age from now on, with [`Ahead::drop_old`].
    pub(crate) fn begin_ahead(&self, endpoint: SocketAddr) -> bool {
        let has_spare = self.sessions.as_ref().is_none_or(|store| store.has_spare(endpoint));
        let Some(place) = (has_spare && !self.ahead.is_there()).then(|| Place::take(&self.metrics)).flatten() else {
            return false;
        };
        let (observed, offer) = (Arc::new(Observed::default()), Offer::default());
        let prepared = self.for_handshake(endpoint, &observed, offer, Taking::Spare);
        match prepared.connection(self.server_name()) {
            Ok(connection) => self.ahead.keep(Begun { endpoint, offer, prepared, observed, connection }, place),
            // The next handshake says what is wrong.
            Err(_) => false,
        }
    }

    /// Sessions held now; 0 without resumption.
    pub fn sessions_held(&self) -> usize {
        self.sessions.as_ref().map_or(0, |store| store.held())
    }

    /// Sessions held now that came from `endpoint`.
    pub fn sessions_held_of(&self, endpoint: SocketAddr) -> usize {
        self.sessions.as_ref().map_or(0, |store| store.held_of(endpoint))
    }

    pub(crate) fn metrics(&self) -> &Arc<OriginMetrics> {
        &self.metrics
    }

    /// Drops its sessions and takes none from now on. To be called when the running generation does not use it any
    /// more; streams of an old generation may still hold it.
    pub(crate) fn retire(&self) {
        if let Some(store) = &self.sessions {
            store.retire();
        }
        self.ahead.clear();
    }

    /// The configuration of one handshake. It is a copy with a view of the sessions of its own (a dozen
    /// reference counts, far below the cost of a handshake); verifier and resolver are the very same objects.
    pub(crate) fn for_handshake(
        &self,
        endpoint: SocketAddr,
        observed: &Arc<Observed>,
        offer: Offer,
        taking: Taking,
    ) -> Prepared {
        let fixed = self.key.fixed_share(offer);
        let view = self.sessions.as_ref().map(|store| store.view_for(endpoint, observed, offer.session, fixed, taking));
        let share = view.as_ref().map_or(fixed, |view| view.share()).unwrap_or_else(|| self.key.first_group());
        let resumption = match (&view, fixed) {
            (Some(view), _) => Some(SessionConfig::store(Arc::clone(view) as _)),
            (None, Some(group)) => {
                Some(SessionConfig::store(Arc::new(ShareOnly(group))).tls12_resumption(Tls12Resumption::Disabled))
            }
            (None, None) => None,
        };
        let mut config = Arc::clone(&self.config);
        if let Some(resumption) = resumption {
            Arc::make_mut(&mut config).resumption = resumption;
        }
        Prepared { config, view, hybrid_share: self.key.is_hybrid_share(share) }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("key", &self.key).finish_non_exhaustive()
    }
}

impl OriginKey {
    /// The key of these settings. `server_name` is the upstream's, or the host of its server.
    pub fn new(
        spec: &values::Upstream,
        server_name: &ServerName<'_>,
        identity: Option<&Identity>,
        trust: &Trust,
    ) -> Self {
        let tls = &spec.tls;
        let key_exchange = if tls.key_exchange.is_empty() { KEY_EXCHANGE.to_vec() } else { tls.key_exchange.clone() };
        Self {
            servers: spec.servers.clone(),
            upgrade: spec.upgrade,
            server_name: server_name.to_owned(),
            sni: tls.sni,
            identity: identity.map(|identity| identity.fingerprint().clone()),
            trust: *trust.digest(),
            mode: Mode::from(&tls.verify),
            min_version: tls.min_version,
            max_version: tls.max_version,
            alpn: tls.alpn.clone(),
            key_exchange,
            key_share: tls.key_exchange_share,
            // A resumed session has no chain to check again.
            resumption: tls.resumption && !tls.close_on_revocation,
            keeps_chain: tls.close_on_revocation,
        }
    }

    /// The key of a server that is only looked at: nothing is verified, and no client certificate is presented.
    pub(crate) fn unverified(server: Server, server_name: ServerName<'static>, trust: &Trust) -> Self {
        Self {
            servers: vec![server],
            upgrade: None,
            server_name,
            sni: true,
            identity: None,
            trust: *trust.digest(),
            mode: Mode::None,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            alpn: Vec::new(),
            key_exchange: KEY_EXCHANGE.to_vec(),
            key_share: KeyShare::Auto,
            resumption: false,
            keeps_chain: false,
        }
    }

    /// Its parts by name, to report what differs between two keys. None is secret.
    pub(crate) fn parts(&self) -> Vec<(&'static str, String)> {
        let identity = self
            .identity
            .as_ref()
            .map(|identity| [&identity.leaf, &identity.key, &identity.chain].map(|digest| hex(digest)));
        vec![
            ("servers", self.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            ("upgrade", format!("{:?}", self.upgrade)),
            ("server_name", self.server_name.to_str().into_owned()),
            ("sni", self.sni.to_string()),
            ("identity", identity.map_or_else(|| "none".to_owned(), |parts| parts.join(" "))),
            ("trust", hex(&self.trust)),
            ("verify", format!("{:?}", self.mode)),
            ("versions", format!("{:?} {:?}", self.min_version, self.max_version)),
            ("alpn", self.alpn.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")),
            ("key_exchange", format!("{:?}", self.key_exchange)),
            ("key_exchange_share", format!("{:?}", self.key_share)),
            ("resumption", self.resumption.to_string()),
            ("close_on_revocation", self.keeps_chain.to_string()),
        ]
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn keeps_chain(&self) -> bool {
        self.keeps_chain
    }

    /// The protocols that are offered by ALPN; of these the server has to choose one.
    pub(crate) fn alpn(&self) -> &[Vec<u8>] {
        &self.alpn
    }

    pub(crate) fn sni(&self) -> bool {
        self.sni && matches!(self.server_name, ServerName::DnsName(_))
    }

    pub(crate) fn versions(&self) -> (TlsVersion, TlsVersion) {
        (self.min_version, self.max_version)
    }

    /// The group whose key share is always sent; `None`: the one that the server chose last, else the first.
    fn fixed_share(&self, offer: Offer) -> Option<NamedGroup> {
        match (self.key_share, offer.hybrid_share) {
            (KeyShare::Hybrid, _) => Some(NamedGroup::X25519MLKEM768),
            (KeyShare::Classic, _) | (KeyShare::Auto, false) => self.classic_group(),
            (KeyShare::Auto, true) => None,
        }
    }

    fn first_group(&self) -> NamedGroup {
        group(&self.key_exchange[0]).name()
    }

    fn classic_group(&self) -> Option<NamedGroup> {
        let classic = self.key_exchange.iter().find(|name| **name != KeyExchange::X25519Mlkem768)?;
        Some(group(classic).name())
    }

    /// TLS 1.2 has no key shares.
    fn is_hybrid_share(&self, share: NamedGroup) -> bool {
        share == NamedGroup::X25519MLKEM768 && self.max_version >= TlsVersion::V1_3
    }

    /// Whether the hybrid's key share may be left out: the settings leave it open, and there is another.
    pub(crate) fn can_leave_out_hybrid_share(&self) -> bool {
        self.key_share == KeyShare::Auto && self.classic_group().is_some()
    }

    /// The settings always send the hybrid's key share, whatever the endpoint tolerates.
    pub(crate) fn pins_hybrid_share(&self) -> bool {
        let is_pinned = match self.key_share {
            KeyShare::Hybrid => true,
            KeyShare::Auto => self.classic_group().is_none(),
            KeyShare::Classic => false,
        };
        is_pinned && self.is_hybrid_share(NamedGroup::X25519MLKEM768)
    }

    pub(crate) fn narrows_key_exchange(&self) -> bool {
        KEY_EXCHANGE.iter().any(|group| !self.key_exchange.contains(group))
    }
}

fn versions(key: &OriginKey) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
    let all = [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)];
    let allowed = all.into_iter().filter(|(version, _)| (key.min_version..=key.max_version).contains(version));
    let versions: Vec<_> = allowed.map(|(_, version)| version).collect();
    if versions.is_empty() { Err(Error::NoVersion) } else { Ok(versions) }
}

fn provider(key: &OriginKey) -> Result<Arc<CryptoProvider>, Error> {
    let only_hybrid = key.key_exchange.iter().all(|group| *group == KeyExchange::X25519Mlkem768);
    if only_hybrid && key.max_version == TlsVersion::V1_2 {
        return Err(Error::NoGroup);
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = key.key_exchange.iter().map(group).collect();
    Ok(Arc::new(provider))
}

fn group(name: &KeyExchange) -> &'static dyn SupportedKxGroup {
    match name {
        KeyExchange::X25519Mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
        KeyExchange::X25519 => aws_lc_rs::kx_group::X25519,
        KeyExchange::Secp256r1 => aws_lc_rs::kx_group::SECP256R1,
        KeyExchange::Secp384r1 => aws_lc_rs::kx_group::SECP384R1,
    }
}

/// Answers a server's request for a certificate, and notes it. One per origin and never changed: rustls
/// ties sessions to this object, so that no session of one identity is resumed under another.
#[derive(Debug)]
struct Resolver {
    certified: Option<Arc<CertifiedKey>>,
    issuers: Vec<Vec<u8>>,
}

/// Most acceptable authorities that are kept for messages; some servers list all public roots.
const MAX_ACCEPTABLE: usize = 16;

impl Resolver {
    fn new(identity: Option<&Identity>) -> Self {
        let certified = identity.map(|identity| Arc::clone(identity.certified()));
        let chain = certified.iter().flat_map(|certified| &certified.cert);
        let issuers = chain.filter_map(|der| X509Certificate::from_der(der).ok());
        let issuers = issuers.map(|(_, certificate)| certificate.issuer().as_raw().to_vec()).collect();
        Self { certified, issuers }
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, root_hint_subjects: &[&[u8]], sigschemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = self.certified.as_ref().map(|own| own.key.choose_scheme(sigschemes).is_some());
        let known = root_hint_subjects.iter().any(|hint| self.issuers.iter().any(|issuer| issuer == hint));
        let acceptable = root_hint_subjects.iter().take(MAX_ACCEPTABLE).filter_map(|name| distinguished_name(name));
        let request = CertificateRequest {
            acceptable: acceptable.collect(),
            answered: usable == Some(true),
            unusable_key: usable == Some(false),
            // The certificate is sent all the same: the list is a hint, and servers leave out intermediates.
            foreign_issuer: self.certified.is_some() && !root_hint_subjects.is_empty() && !known,
        };
        note(|facts| facts.request = Some(request));
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}
