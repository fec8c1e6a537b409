//! The terms of the configuration: names, servers, and the words of a fixed set. A typed value of one of these types is
//! what runs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::{DnsName, ServerName};

/// The name of a listener, upstream, identity or trust: what the configuration calls it, and the
/// label of its metrics.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// A name as it was typed; which characters are allowed is checked in `config::resolve`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What an admin address lets its clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRole {
    /// Metrics, probes, status.
    Read,
    /// Also the configuration, reload, drain and quit.
    Control,
}

/// When the process is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Once connections are accepted.
    Listeners,
    /// While every upstream that a listener leads to is proven and healthy too.
    Upstreams,
}

/// Whether the kernel may make the records of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelTls {
    /// All records are made in user space.
    Off,
    /// The kernel, where it can do all that the version of TLS needs: TLS 1.3 needs one that accepts key updates.
    Auto,
    /// The kernel, wherever it can. One that accepts no key update ends a stream that needs one.
    Prefer,
}

/// Whether the process gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardening {
    /// Everything that no reload can need.
    On,
    /// Nothing.
    Off,
}

/// A name that a server's certificate has to carry: as subject alternative name, unless its kind says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedName {
    /// A host name; a wildcard in the certificate may cover it (RFC 9525).
    Dns(DnsName<'static>),
    /// An address.
    Ip(IpAddr),
    /// A URI, compared to the letter (a SPIFFE ID).
    Uri(String),
    /// The common name of its subject, compared to the letter.
    CommonName(String),
    /// An organizational unit of its subject, compared to the letter.
    OrganizationalUnit(String),
}

/// As `trust.NAME.names` takes it.
impl fmt::Display for ExpectedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{}", name.as_ref()),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::CommonName(name) => write!(f, "cn:{name}"),
            Self::OrganizationalUnit(name) => write!(f, "ou:{name}"),
        }
    }
}

/// What an upstream's FIN without close_notify means while the client has not ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eof {
    /// A truncation: the client gets a reset.
    Strict,
    /// A clean end.
    Lenient,
}

/// One server of an upstream, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Its address or name.
    pub host: Host,
    /// Its TCP port; 0 for a service, whose ports come from DNS.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Dns(name) => write!(f, "{}:{}", name.as_ref(), self.port),
            Host::Service(name) => f.write_str(name.as_ref()),
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
        }
    }
}

/// The address or name of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name; looked up when the last answer has expired.
    Dns(DnsName<'static>),
    /// The name of a service, `_service._proto.name` (RFC 2782); looked up when the last answer has expired.
    Service(DnsName<'static>),
    /// An address.
    Ip(IpAddr),
}

impl Host {
    /// The name to verify, and to send as SNI if it is a DNS name.
    pub fn server_name(&self) -> ServerName<'static> {
        match self {
            Self::Dns(name) => ServerName::DnsName(name.clone()),
            // DNS is not trusted for the hosts of a service: the certificate must match the domain that was asked for
            // (RFC 6125, section 1.8: a derived domain).
            Self::Service(name) => ServerName::DnsName(domain_of(name).unwrap_or_else(|| name.clone())),
            Self::Ip(ip) => ServerName::IpAddress((*ip).into()),
        }
    }
}

/// The domain of a service: without `_service._proto.`.
fn domain_of(service: &DnsName<'_>) -> Option<DnsName<'static>> {
    let mut labels = service.as_ref().splitn(3, '.');
    let domain = labels.nth(2)?;
    DnsName::try_from(domain.to_owned()).ok()
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A group for the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// Hybrid of X25519 and ML-KEM-768 (draft-ietf-tls-ecdhe-mlkem).
    X25519Mlkem768,
    /// RFC 7748.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

/// The group whose key share is sent with the first ClientHello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyShare {
    /// The first of the list; a classic one for an endpoint that does not tolerate the hybrid one.
    #[default]
    Auto,
    /// The hybrid group.
    Hybrid,
    /// The first group that is not hybrid.
    Classic,
}

/// One name or all below it; in lower case, as DNS compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name.
    Exactly(String),
    /// Every name that ends with a dot and this.
    Below(String),
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By user id.
    Id(u32),
    /// Looked up in the user database when the configuration is loaded.
    Name(String),
}

/// How one of several addresses is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Of two addresses, drawn in proportion to their weights, the one with fewer streams for its weight.
    #[default]
    LeastConnections,
    /// Each in turn, in proportion to the weights.
    RoundRobin,
    /// The first of the list that is available.
    Priority,
}

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection.
    Tcp,
    /// Upgrade and TLS handshake as for a stream.
    Tls,
}
