//! How a listener of egret comes about: from a `listen` with `allow`, `deny` and `limit_conn`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::tools::import::draft::{Listener, Route};
use crate::tools::import::findings::{
    Code, DATAGRAMS, HTTP_VHOST, INBOUND_TLS, OPEN_TO_ALL, PER_CLIENT_LIMIT, PROXY_HEADER, SERVICE_LOST, SOCKET_MODE,
};
use crate::tools::import::nginx::access::{AllowedClients, Rule, allowed_clients};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::listen_addr::{
    At, ListenAddr, addresses, collide, has, is_datagrams, listen_addrs_of, listens, lost, tcp,
};
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::Scope;

#[derive(Clone, Debug, Default)]
pub(super) struct To {
    pub(super) upstream: Option<usize>,
    pub(super) routes: Vec<Route>,
}

impl To {
    pub(super) fn one(upstream: usize) -> Self {
        Self { upstream: Some(upstream), routes: Vec::new() }
    }
}

/// A listener that gets an address once all others have theirs.
pub(super) struct Extra<'a> {
    pub(super) code: Code,
    pub(super) directive: &'a Directive,
    pub(super) title: String,
    pub(super) listener: Listener,
    /// The first port to try.
    pub(super) port: u16,
}

impl<'a> Importer<'_> {
    /// Without the addresses that cannot be carried over.
    pub(super) fn listen_addrs(&self, server: &'a Directive, http: bool) -> Vec<ListenAddr<'a>> {
        let mut listen_addrs: Vec<_> = listens(server).flat_map(|directive| listen_addrs_of(directive, http)).collect();
        if listens(server).next().is_none() && http {
            let at = At::Tcp((Ipv4Addr::UNSPECIFIED, 80).into());
            listen_addrs.push(ListenAddr { directive: None, at, default: false });
        }
        listen_addrs
    }

    /// Reports the losses of the `listen` of a server with TLS upstream.
    pub(super) fn listen_losses(&mut self, server: &'a Directive, http: bool) {
        for directive in listens(server) {
            if is_datagrams(directive) {
                let title = "datagrams are nothing that egret carries";
                self.find(DATAGRAMS, directive, title, "UDP", "left out");
                continue;
            }
            if addresses(directive.argument(0), http).is_none() {
                let title = "this listener is lost: its address is a name, which only the other machine may know";
                let repair = "write the IP address, and import again";
                self.find(SERVICE_LOST, directive, title, "not an address", repair);
                continue;
            }
            if has(directive, "ssl") {
                let title = "clients speak TLS here; egret takes plain TCP";
                let repair = "the listener is on loopback: let clients on this machine speak plainly, or leave nginx in \
                              front of it";
                self.find(INBOUND_TLS, directive, title, "TLS of clients", repair);
            }
            if has(directive, "proxy_protocol") {
                let title = "a PROXY header is expected here, which egret does not read";
                let repair = "switch it off at the load balancer that sends it";
                self.find(PROXY_HEADER, directive, title, "PROXY header", repair);
            }
        }
    }

    /// An address that is taken by another upstream becomes an extra listener.
    pub(super) fn open(
        &mut self,
        listen_addr: &ListenAddr<'a>,
        server: &'a Directive,
        scope: &Scope<'_>,
        to: &To,
        extras: &mut Vec<Extra<'a>>,
    ) {
        let at = listen_addr.directive.unwrap_or(server);
        let upstreams = &self.draft.upstreams;
        let handed_on = !to.routes.is_empty() || to.upstream.is_some_and(|at| upstreams[at].passthrough);
        let Some(mut listener) = self.listener(listen_addr, server, scope, handed_on) else { return };
        (listener.upstream, listener.routes) = (to.upstream, to.routes.clone());
        self.report.carry_without(at.id, "listeners: listen", &lost(listen_addr));
        self.carried(server, "listeners");
        match self.draft.listeners.iter().find(|known| collide(&known.listen, &listener.listen)) {
            Some(known) if known.upstream == to.upstream && known.routes == to.routes => {}
            Some(_) => {
                let title = format!("another server listens on {} already", listener.listen);
                let port = port_of(&listener.listen);
                extras.push(Extra { code: HTTP_VHOST, directive: at, title, listener, port });
            }
            None => self.draft.listeners.push(listener),
        }
    }

    /// Reports addresses without any permitted client.
    pub(super) fn all_denied(&mut self, listen_addrs: &[ListenAddr<'_>], scope: &Scope<'_>) -> bool {
        let mut denied = |listen_addr: &ListenAddr<'_>| match &listen_addr.at {
            At::Unix(_) => false,
            At::Tcp(address) => self.allowed_clients(scope, address.is_ipv6()) == AllowedClients::Networks(Vec::new()),
        };
        !listen_addrs.is_empty() && listen_addrs.iter().all(&mut denied)
    }

    /// A listener without its upstream; `None` if no client is permitted. `handed_on`: the clients' own TLS is
    /// forwarded, so that they use no identity of egret.
    fn listener(
        &mut self,
        listen_addr: &ListenAddr<'_>,
        server: &Directive,
        scope: &Scope<'_>,
        handed_on: bool,
    ) -> Option<Listener> {
        let at = listen_addr.directive.unwrap_or(server);
        let mut listener = Listener { from: self.line(at), ..Listener::default() };
        match &listen_addr.at {
            At::Unix(path) => self.unix(path, at, &mut listener),
            At::Tcp(address) => {
                if !self.tcp(*address, listen_addr, at, scope, &mut listener) {
                    return None;
                }
                if handed_on && listener.listen.is_empty() {
                    listener.allow = everyone(address);
                    listener.listen = address.to_string();
                } else if listener.listen.is_empty() {
                    self.open_to_all(*address, at, &mut listener);
                }
            }
        }
        listener.max_connections = self.limit(scope);
        if let (Some(directive), At::Tcp(_)) = (listen_addr.directive, &listen_addr.at) {
            listener.tcp = tcp(directive);
        }
        Some(listener)
    }

    fn unix(&mut self, path: &str, at: &Directive, listener: &mut Listener) {
        listener.listen = format!("unix:{}", self.path(path));
        if self.options.faithful {
            listener.mode = Some("0666");
            return;
        }
        let title = "every user of this machine may use this socket: nginx makes it with mode 0666";
        let repair = "egret makes it for its own user alone; `mode = \"0660\"` and `allow_users` for others";
        self.find(SOCKET_MODE, at, title, "open to all users", repair);
    }

    /// Address and access; false if no client is permitted. Without an address if all are, which is not decided here.
    fn tcp(
        &mut self,
        address: SocketAddr,
        listen_addr: &ListenAddr<'_>,
        at: &Directive,
        scope: &Scope<'_>,
        listener: &mut Listener,
    ) -> bool {
        let inbound_tls = listen_addr.directive.is_some_and(|at| at.arguments.iter().any(|word| word.text == "ssl"));
        let loopback = address.ip().is_loopback();
        let mut address = address;
        match self.allowed_clients(scope, address.is_ipv6()) {
            AllowedClients::Networks(networks) if networks.is_empty() => {
                self.listed(at, "nobody may come here: all are denied");
                return false;
            }
            AllowedClients::Networks(networks) => listener.allow = networks,
            AllowedClients::Everyone if loopback => {}
            AllowedClients::Everyone if inbound_tls => address.set_ip(loopback_like(&address)),
            AllowedClients::Everyone => return true,
        }
        if inbound_tls && !address.ip().is_loopback() {
            address.set_ip(loopback_like(&address));
            listener.allow.clear();
        }
        listener.listen = address.to_string();
        true
    }

    fn open_to_all(&mut self, open: SocketAddr, at: &Directive, listener: &mut Listener) {
        let title = "every client that reaches this address may connect, and uses the identity towards the server";
        listener.listen = open.to_string();
        if self.options.faithful {
            listener.allow = everyone(&open);
            let repair = "written as `allow` for all addresses; name the networks of the clients";
            self.find(OPEN_TO_ALL, at, title, "open", repair);
            return;
        }
        let fitting = self.options.allow.iter().filter(|network| network.addr().is_ipv6() == open.is_ipv6());
        listener.allow = fitting.copied().collect();
        if !listener.allow.is_empty() {
            return;
        }
        listener.listen = SocketAddr::new(loopback_like(&open), open.port()).to_string();
        let repair = "egret listens on loopback, on the same port; for others: the address in `listen` and the networks of \
                      the clients in `allow`, or `egret import --allow NETWORK`";
        self.find(OPEN_TO_ALL, at, title, "open", repair);
    }

    fn allowed_clients(&mut self, scope: &Scope<'_>, v6: bool) -> AllowedClients {
        let mut rules = Vec::new();
        for directive in scope.any_of(&["allow", "deny"]) {
            match Rule::read(directive.name.text == "allow", directive.argument(0)) {
                Some(rule) => {
                    rules.push(rule);
                    self.carried(directive, "listeners: allow");
                }
                None => {
                    self.listed(directive, "this is about Unix sockets, whose mode decides which users may connect")
                }
            }
        }
        allowed_clients(&rules, v6)
    }

    /// A limit on connections, if it is one of the whole server and not per client.
    fn limit(&mut self, scope: &Scope<'_>) -> Option<usize> {
        let mut bound: Option<usize> = None;
        for directive in scope.all("limit_conn") {
            let zones = scope.all("limit_conn_zone");
            let named = |zone: &&&Directive| {
                let name = zone.argument(1).strip_prefix("zone=").and_then(|rest| rest.split(':').next());
                name == Some(directive.argument(0))
            };
            let zone = zones.iter().find(named).copied();
            let key = zone.map_or("", |zone| zone.argument(0));
            let count = directive.argument(1).parse::<usize>().ok().filter(|count| *count > 0);
            match count.filter(|_| WHOLE.contains(&key)) {
                Some(count) => {
                    bound = Some(bound.map_or(count, |known| known.min(count)));
                    self.carried(directive, "listeners: max_connections");
                    if let Some(zone) = zone {
                        self.carried(zone, "listeners: max_connections");
                    }
                }
                None => {
                    let title = "a bound for each client is nothing that egret has";
                    let repair = "`max_connections` of a listener bounds all clients together";
                    self.find(PER_CLIENT_LIMIT, directive, title, "for each client", repair);
                    if let Some(zone) = zone {
                        self.listed(zone, "a bound for each client is nothing that egret has");
                    }
                }
            }
        }
        bound
    }

    pub(super) fn place_extras(&mut self, extras: Vec<Extra<'a>>, taken: &[u16]) {
        for Extra { code, directive, title, mut listener, port } in extras {
            let used: Vec<u16> = self.draft.listeners.iter().map(|known| port_of(&known.listen)).collect();
            let free = (port.saturating_add(1)..=u16::MAX).chain(1024..port);
            let Some(free) = free.into_iter().find(|port| !used.contains(port) && !taken.contains(port)) else {
                continue;
            };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free)).to_string();
            let repair = format!("egret listens on {address} for it: let its clients connect there");
            self.find(code, directive, title, "not told apart", repair);
            listener.listen = address;
            listener.mode = None;
            listener.allow.clear();
            self.draft.listeners.push(listener);
        }
    }

    /// A listener for a part of a configuration that has no `listen`.
    pub(super) fn made_up(&mut self, code: Code, directive: &Directive, upstream: usize) {
        let listen = "127.0.0.1:8080".to_owned();
        let repair = format!("egret listens on {listen} for it; change that");
        self.find(code, directive, "this is a piece of a configuration, without a `listen`", "no address", repair);
        let from = self.line(directive);
        if !self.draft.listeners.iter().any(|known| known.listen == listen) {
            self.draft.listeners.push(Listener { from, listen, upstream: Some(upstream), ..Listener::default() });
        }
    }
}

/// Keys of `limit_conn_zone` that are equal for all clients of a server.
const WHOLE: [&str; 4] = ["$server_addr", "$server_port", "$server_name", "$hostname"];

/// 0 for Unix sockets.
fn port_of(listen: &str) -> u16 {
    listen.parse::<SocketAddr>().map_or(0, |address| address.port())
}

fn everyone(like: &SocketAddr) -> Vec<IpNet> {
    let any: IpAddr = if like.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    IpNet::new(any, 0).into_iter().collect()
}

fn loopback_like(address: &SocketAddr) -> IpAddr {
    if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}
