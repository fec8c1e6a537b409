//! Allowed clients: no other machine may use an identity unless the configuration allows it.

use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::file;
use crate::config::formats::{Listen, Mode};
use crate::config::read::Given;
use crate::config::resolve::{Resolver, list};
use crate::config::source::Span;
use crate::config::values::{Access, ListenAddress, User};

/// The keys that say where to listen and which clients are allowed: the same for listeners and the admin address.
pub(super) struct Entrance<'a> {
    /// What an allowed client gets, for messages.
    pub(super) gives: &'static str,
    pub(super) at: &'a Span,
    pub(super) listen: &'a Given<Listen>,
    pub(super) mode: &'a Given<Mode>,
    pub(super) allow: &'a Given<file::List<IpNet>>,
    pub(super) allow_users: &'a Given<file::List<User>>,
}

/// Only the owner of the process.
const MODE: u32 = 0o600;
/// Bytes of `sun_path` without its closing zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

impl Entrance<'_> {
    pub(super) fn resolve(&self, resolver: &mut Resolver<'_>, example: &str) -> Option<(ListenAddress, Access)> {
        resolver.refuse_empty(self.allow, "allow", "loopback addresses need none");
        resolver.refuse_empty(
            self.allow_users,
            "allow_users",
            "the mode of the socket decides which users may connect",
        );
        let listen = resolver.need(self.listen, self.at, "listen", example)?;
        let span = self.listen.span()?;
        let address = match listen {
            Listen::Tcp(address) => {
                self.check_tcp(*address, span, resolver);
                ListenAddress::Tcp(*address)
            }
            Listen::Unix(location) => {
                let path = location.within(resolver.folder);
                self.check_unix(&path, span, resolver);
                ListenAddress::Unix { path, mode: self.mode.or(Mode(MODE)).0 }
            }
        };
        Some((address, Access { networks: list(self.allow), users: list(self.allow_users) }))
    }

    fn check_tcp(&self, address: SocketAddr, span: &Span, resolver: &mut Resolver<'_>) {
        if !address.ip().to_canonical().is_loopback() && self.allow.is_absent() {
            let title =
                format!("{address} can be reached from other machines, and no `allow` says which clients may connect");
            let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            let repair = format!(
                "name the clients that may connect: `allow = [\"192.0.2.0/24\"]`; or listen for this machine only: \"{loopback}:{}\"",
                address.port(),
            );
            resolver.report(span, title, self.gives, repair);
        }
        self.check_families(address, resolver);
        if let Some(span) = self.mode.span() {
            resolver.report(span, "`mode` is for Unix sockets", "this listens on TCP", "remove `mode`");
        }
        if let Some(span) = self.allow_users.span() {
            let title = "`allow_users` is for Unix sockets: the kernel does not attest who is behind TCP";
            resolver.report(span, title, "this listens on TCP", "listen on \"unix:/path\", or use `allow`");
        }
    }

    /// Networks of the other address family match no client: clients of an IPv4 address have IPv4 addresses. `[::]`
    /// takes both.
    fn check_families(&self, address: SocketAddr, resolver: &mut Resolver<'_>) {
        let networks = list(self.allow);
        let listens_on_ipv4 = address.ip().to_canonical().is_ipv4();
        let fits = |network: &IpNet| {
            address.ip().is_unspecified() && address.is_ipv6() || network.addr().is_ipv4() == listens_on_ipv4
        };
        if let Some(span) = self.allow.span().filter(|_| !networks.is_empty() && !networks.iter().any(fits)) {
            let (own, other) = if listens_on_ipv4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let title = format!("`allow` has {other} networks only, but clients of {address} have {own} addresses");
            resolver.report(span, title, "admits nobody", format!("name the {own} networks of the clients"));
        }
    }

    fn check_unix(&self, path: &Path, span: &Span, resolver: &mut Resolver<'_>) {
        let length = path.as_os_str().len();
        if length > LONGEST_SOCKET_PATH {
            let title = format!("the path of the socket has {length} bytes, the system takes {LONGEST_SOCKET_PATH}");
            resolver.report(span, title, "too long", "choose a shorter path, such as \"unix:/run/egret/app.sock\"");
        }
        if let Some(span) = self.allow.span() {
            let repair = "remove `allow`, or name users: `allow_users = [\"app\"]`";
            resolver.report(span, "`allow` is for TCP: a Unix socket has no networks", "this is a Unix socket", repair);
        }
    }
}
