//! The ports that a configuration uses, for as long as it cannot change.

use std::collections::BTreeSet;

use crate::config::values::{Config, Host, ListenAddress};

/// DNS over TCP, for answers that are too large for UDP (RFC 7766).
const DNS: u16 = 53;

/// TCP ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) bind: BTreeSet<u16>,
    /// `None`: an upstream's ports come from DNS.
    pub(super) connect: Option<BTreeSet<u16>>,
}

impl Ports {
    pub(super) fn of(config: &Config) -> Self {
        let listeners = config.listeners.iter().map(|listener| &listener.listen);
        let tcp = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix { .. } => None,
        };
        let admin = config.admin.iter().map(|admin| &admin.listen);
        let servers = || config.upstreams.values().flat_map(|upstream| &upstream.servers);
        let connect = || {
            let servers = servers().map(|server| server.port);
            servers.chain(config.dns.servers.iter().map(|server| server.port())).chain([DNS]).collect()
        };
        let is_fixed = !servers().any(|server| matches!(server.host, Host::Service(_)));
        Self { bind: listeners.chain(admin).filter_map(tcp).collect(), connect: is_fixed.then(connect) }
    }
}
