//! The configuration that runs: plain values, checked, without files and sockets. Every module uses them.
//!
//! A value of these types has passed every check that needs neither a file nor a socket. `config::file`
//! holds what was typed, `config::resolve` is the border between the two.

pub mod quoting;
mod servers;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::config::source::Source;
use crate::protocols::Upgrade;
use crate::protocols::answers::AnswerFormat;

pub use self::servers::{Balance, Share};
pub use crate::config::file::{
    CheckSettings as ActiveCheck, DnsSettings as Dns, EjectionSettings as Ejection, LimitSettings as Limits,
    LogSettings as Log, PoolSettings as Pool, ReloadSettings as Reload, RuntimeSettings as Runtime, TcpSettings as Tcp,
    TlsSettings, UpstreamSettings,
};
pub use crate::config::terms::{
    AdminRole, CheckKind, Eof, ExpectedName, Hardening, Host, KernelTls, KeyExchange, KeyShare, LogFormat, Name,
    NamePattern, Readiness, Server, Strategy, TlsVersion, User,
};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How the log is written.
    pub log: Log,
    /// Threads.
    pub runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) dns: Dns,
    /// Default: none.
    pub(crate) admin: Vec<Admin>,
    pub(crate) reload: Reload,
    /// Default listeners.
    pub(crate) readiness: Readiness,
    /// How long streams may finish after SIGTERM. Default 30 s.
    pub(crate) drain_timeout: Duration,
    /// Client certificates with their keys.
    pub identities: BTreeMap<Name, Identity>,
    /// What makes servers trusted.
    pub trusts: BTreeMap<Name, Trust>,
    /// Destinations. Each names an identity and a trust that exist.
    pub upstreams: BTreeMap<Name, Upstream>,
    /// Addresses to listen on, at least one. Each names an upstream that exists.
    pub listeners: Vec<Listener>,
    /// The text of the configuration; a repair is printed as a change of it.
    pub source: Written,
}

/// The text of a configuration. Not a part of its value: two texts may mean the same.
#[derive(Clone, Debug, Default)]
pub struct Written(pub(crate) Option<Arc<Source>>);

impl Written {
    /// A message about this configuration without the values of its variables.
    pub fn hide_values(&self, message: &str) -> String {
        self.0.as_ref().map_or_else(|| message.to_owned(), |source| source.hide_values(message))
    }
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin {
    pub(crate) listen: ListenAddress,
    pub(crate) access: Access,
    pub(crate) role: AdminRole,
    /// Its content is the bearer token of clients. Default: none.
    pub(crate) token_file: Option<PathBuf>,
}

impl Log {
    /// Lines for programs, before a configuration says otherwise.
    pub fn json(level: Option<&str>) -> Self {
        let default = Self::default();
        Self { format: LogFormat::Json, level: level.map_or(default.level, str::to_owned) }
    }

    /// Lines are for people.
    pub fn is_text(&self) -> bool {
        self.format == LogFormat::Text
    }
}

/// A client certificate: the chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM chain (leaf first) or PKCS#12.
    pub certificate: PathBuf,
    /// PEM key: PKCS#8 (plain or encrypted), PKCS#1 or SEC1. `None`: in the file of the certificate.
    pub private_key: Option<PathBuf>,
    /// File whose first line is the password of the key or PKCS#12.
    pub password_file: Option<PathBuf>,
    /// Accept a key file that other users may read.
    pub allow_loose_key_permissions: bool,
}

/// What makes a server trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// What a certificate is checked against.
    pub anchors: Anchors,
    /// SHA-256 of the SubjectPublicKeyInfo of a certificate in the verified chain; one must be met.
    /// With `Anchors::PinsOnly` the leaf's key alone decides.
    pub pins: Vec<[u8; 32]>,
    /// The certificate must carry one of these; empty: the server name.
    pub names: Vec<ExpectedName>,
    /// PEM or DER files of revocation lists. Every certificate of a chain is looked up; a list past
    /// its `nextUpdate` is an error, a missing list is not.
    pub crls: Vec<PathBuf>,
    /// PEM files and folders of roots that are to replace those of `anchors`: checked in shadow, with counts of what
    /// would fail. Empty: none.
    pub candidate_roots: Vec<PathBuf>,
}

impl Default for Trust {
    /// The system's roots, and the server name.
    fn default() -> Self {
        let anchors = Anchors::Roots { system: true, paths: Vec::new() };
        Self { anchors, pins: Vec::new(), names: Vec::new(), crls: Vec::new(), candidate_roots: Vec::new() }
    }
}

/// What a server's certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchors {
    /// Chains to one of these roots: the system's, and PEM files and folders of such.
    Roots {
        /// Those of the operating system.
        system: bool,
        /// PEM files, and folders of PEM files.
        paths: Vec<PathBuf>,
    },
    /// Exactly this certificate, whatever it says of itself (v1, CA as leaf). Name and dates are checked.
    Certificate(ExactCertificate),
    /// The leaf's public key is one of the pins; no chain is built. Name and dates are checked.
    PinsOnly,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExactCertificate {
    /// A PEM or DER file that holds just one.
    File(PathBuf),
    /// The SHA-256 of its DER encoding.
    Sha256([u8; 32]),
}

/// A named destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// At least one.
    pub servers: Vec<Server>,
    /// Which of them gets a stream.
    pub balance: Balance,
    /// When an address that fails gets none.
    pub ejection: Ejection,
    /// Active health checks, in addition to what live traffic shows. Default: none.
    pub active_check: Option<ActiveCheck>,
    /// How TLS is spoken to them.
    pub tls: Tls,
    /// The protocol spoken in plaintext before TLS begins.
    pub upgrade: Option<Upgrade>,
    /// How a client is answered that cannot be served. `None`: by a reset. Default: as `upgrade` has it.
    pub answer: Option<AnswerFormat>,
    /// Finished originations that are kept ready. Default: none.
    pub pool: Option<Pool>,
    /// Options of its connections.
    pub tcp: Tcp,
    /// The keys that stand for themselves. With `passthrough`, `tls` and `upgrade` hold nothing but defaults.
    pub settings: UpstreamSettings,
}

impl Tls {
    /// With the protocol of ALPN that servers of this upgrade demand, unless others are set.
    pub(crate) fn speaking_before(mut self, upgrade: Option<Upgrade>) -> Self {
        let alpn = upgrade.and_then(|protocol| protocol.alpn).filter(|_| self.settings.alpn.is_empty());
        self.settings.alpn.extend(alpn.map(|protocol| protocol.as_bytes().to_vec()));
        self
    }
}

impl Deref for Upstream {
    type Target = UpstreamSettings;

    fn deref(&self) -> &UpstreamSettings {
        &self.settings
    }
}

impl UpstreamSettings {
    /// Time limits of its streams.
    pub(crate) fn stream_limits(&self) -> StreamLimits {
        let Self { idle_timeout: idle, max_lifetime: lifetime, half_closed_timeout: half_closed, eof, .. } = *self;
        StreamLimits { idle, lifetime, half_closed, eof }
    }
}

/// Time limits of a stream. A reload does not change the limits of a stream in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Close a stream after this long without traffic in either direction. `None`: never. Default 1 h.
    pub idle: Option<Duration>,
    /// A stream ends at this age. Default: none.
    pub lifetime: Option<Duration>,
    /// Close a stream with one closed direction after this long without traffic in the other. Default 60 s.
    pub half_closed: Duration,
    /// What an upstream's end without close_notify means.
    pub eof: Eof,
}

/// How TLS is spoken to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `None`: no client certificate.
    pub identity: Option<Name>,
    /// `None`: the system's roots.
    pub trust: Option<Name>,
    /// `None`: the host of each server.
    pub server_name: Option<ServerName<'static>>,
    /// What happens if verification of the server fails. Default full.
    pub verify: Verify,
    /// The keys that stand for themselves.
    pub settings: TlsSettings,
}

impl Deref for Tls {
    type Target = TlsSettings;

    fn deref(&self) -> &TlsSettings {
        &self.settings
    }
}

/// What happens if verification of the server fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The server is refused.
    Full,
    /// The server is refused, except for a name that only the upstream expects.
    Chain {
        /// `insecure_reason` of the configuration.
        reason: String,
    },
    /// The server is used; the failure is logged and counted, to find out what `Full` would refuse.
    Report {
        /// `insecure_reason` of the configuration.
        reason: String,
    },
    /// The server is not verified.
    None {
        /// `insecure_reason` of the configuration.
        reason: String,
    },
}

/// An address on which connections are accepted, and their destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its label: the configured name, else its address.
    pub name: Name,
    /// The address to listen on.
    pub listen: ListenAddress,
    pub(crate) destination: Destination,
    pub(crate) access: Access,
    /// Connections at once on this listener. Default: no bound of its own.
    pub(crate) max_connections: Option<usize>,
    /// Options of its connections; those of a Unix socket have none.
    pub(crate) tcp: Tcp,
}

impl Listener {
    /// Listeners with the same key keep their socket over a reload.
    pub fn key(&self) -> ListenerKey {
        match &self.listen {
            ListenAddress::Tcp(address) if address.port() == 0 => ListenerKey::AnyPort(address.ip(), self.name.clone()),
            ListenAddress::Tcp(address) => ListenerKey::Tcp(*address),
            ListenAddress::Unix { path, .. } => ListenerKey::Unix(path.clone()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Destination {
    One(Name),
    /// By the client's ClientHello, to upstreams that pass TLS through.
    ByHello {
        /// At least one. No two of them match a client equally well.
        rules: Vec<Rule>,
        /// For clients that no rule matches. `None`: they are refused.
        default: Option<Name>,
    },
}

/// The clients that go to one upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Their server name matches one of these.
    pub server_names: Vec<NamePattern>,
    /// They offer one of these by ALPN; empty: any offer.
    pub alpn: Vec<Vec<u8>>,
    /// An upstream that passes TLS through.
    pub upstream: Name,
}

impl Destination {
    /// Every upstream that is a destination; one may occur several times.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Name> {
        let (rules, last) = match self {
            Self::One(name) => (&[][..], Some(name)),
            Self::ByHello { rules, default } => (&rules[..], default.as_ref()),
        };
        rules.iter().map(|rule| &rule.upstream).chain(last)
    }
}

/// Listeners with the same key share a socket over a reload. Its name and the mode of its file may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKey {
    /// Its address and port.
    Tcp(SocketAddr),
    /// An address with a port that the kernel chooses; the name distinguishes such listeners.
    AnyPort(IpAddr, Name),
    /// The path of its socket.
    Unix(PathBuf),
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An address and port; port 0: one that the kernel chooses.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// The path of the socket.
        path: PathBuf,
        /// The mode of its file. Default 0600.
        mode: u32,
    },
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Allowed clients. Loopback addresses and Unix sockets need no list; any other address must name networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Networks of TCP clients; empty: every client that can reach a loopback address.
    pub networks: Vec<IpNet>,
    /// Users at the other end of a Unix socket (SO_PEERCRED); empty: every user that the mode of the file lets in.
    pub users: Vec<User>,
}
