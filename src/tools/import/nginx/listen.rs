//! `listen` with its options, `allow`, `deny`, `limit_conn`: how a listener of egret comes about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::tools::import::draft::{Listener, Route, Tcp};
use crate::tools::import::findings::{
    Code, DATAGRAMS, HTTP_VHOST, INBOUND_TLS, OPEN_TO_ALL, PER_CLIENT_LIMIT, PROXY_HEADER, SERVICE_LOST, SOCKET_MODE,
};
use crate::tools::import::nginx::access::{Rule, Who, who};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::{Scope, time};

/// A `listen` that was understood.
#[derive(Clone)]
pub(super) struct ListenAddr<'a> {
    pub(super) directive: Option<&'a Directive>,
    pub(super) at: At,
    /// Of several servers on the address, this is the one.
    pub(super) default: bool,
}

impl ListenAddr<'_> {
    /// The variables of nginx that are the same for all connections to this address of a server.
    pub(super) fn variables(&self, server: &Directive) -> Vec<(&'static str, String)> {
        let mut known = Vec::new();
        match &self.at {
            At::Tcp(address) => {
                known.push(("server_port", address.port().to_string()));
                // On a wildcard it is the address that the client came to.
                if !address.ip().is_unspecified() {
                    known.push(("server_addr", address.ip().to_string()));
                }
            }
            At::Unix(path) => {
                known.push(("server_port", String::new()));
                known.push(("server_addr", format!("unix:{path}")));
            }
        }
        let name = server.children().iter().find(|one| one.name.text == "server_name");
        let name = name.map_or("", |one| one.argument(0));
        if !name.starts_with(['~', '*', '.', '$']) {
            known.push(("server_name", name.to_owned()));
        }
        known
    }
}

/// The variables that are the same for all connections to a server, whichever of its addresses they come to.
pub(super) fn common_variables(listen_addrs: &[ListenAddr<'_>], server: &Directive) -> Vec<(&'static str, String)> {
    let mut all = listen_addrs.iter().map(|listen_addr| listen_addr.variables(server));
    let mut common = all.next().unwrap_or_default();
    all.for_each(|others| common.retain(|known| others.contains(known)));
    common
}

/// What is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// On the network.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(String),
}

/// Where a listener leads.
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

/// A listener that gets an address when all others have theirs.
pub(super) struct Extra<'a> {
    pub(super) code: Code,
    pub(super) directive: &'a Directive,
    pub(super) title: String,
    pub(super) listener: Listener,
    /// Ports are tried from the next one on.
    pub(super) port: u16,
}

/// The most ports of one range; each becomes a listener of its own.
const MOST_PORTS: u16 = 256;

impl<'a> Importer<'_> {
    /// The addresses that a server listens on, without those that cannot be carried over.
    pub(super) fn listen_addrs(&self, server: &'a Directive, http: bool) -> Vec<ListenAddr<'a>> {
        let mut listen_addrs: Vec<_> = listens(server).flat_map(|directive| listen_addrs_of(directive, http)).collect();
        if listens(server).next().is_none() && http {
            let at = At::Tcp((Ipv4Addr::UNSPECIFIED, 80).into());
            listen_addrs.push(ListenAddr { directive: None, at, default: false });
        }
        listen_addrs
    }

    /// What is lost of the `listen` of a server from which something goes out.
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

    /// A listener at an address. One that is taken by another upstream becomes an extra.
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

    /// Nobody may come by any of these addresses.
    pub(super) fn all_denied(&mut self, listen_addrs: &[ListenAddr<'_>], scope: &Scope<'_>) -> bool {
        let mut denied = |listen_addr: &ListenAddr<'_>| match &listen_addr.at {
            At::Unix(_) => false,
            At::Tcp(address) => self.who(scope, address.is_ipv6()) == Who::Networks(Vec::new()),
        };
        !listen_addrs.is_empty() && listen_addrs.iter().all(&mut denied)
    }

    /// The listener of an address, without its upstream; `None` if nobody may come. `handed_on`: it is the clients' own
    /// TLS that goes through, so that they borrow no identity.
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

    /// Address and access; false if nobody may come. No address if everybody may, which is not decided here.
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
        match self.who(scope, address.is_ipv6()) {
            Who::Networks(networks) if networks.is_empty() => {
                self.listed(at, "nobody may come here: all are denied");
                return false;
            }
            Who::Networks(networks) => listener.allow = networks,
            Who::Everyone if loopback => {}
            Who::Everyone if inbound_tls => address.set_ip(loopback_like(&address)),
            Who::Everyone => return true,
        }
        if inbound_tls && !address.ip().is_loopback() {
            address.set_ip(loopback_like(&address));
            listener.allow.clear();
        }
        listener.listen = address.to_string();
        true
    }

    fn open_to_all(&mut self, open: SocketAddr, at: &Directive, listener: &mut Listener) {
        let title = "everybody who reaches this address may come, and speaks to the server in its name";
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

    fn who(&mut self, scope: &Scope<'_>, v6: bool) -> Who {
        let mut rules = Vec::new();
        for directive in scope.any_of(&["allow", "deny"]) {
            match Rule::read(directive.name.text == "allow", directive.argument(0)) {
                Some(rule) => {
                    rules.push(rule);
                    self.carried(directive, "listeners: allow");
                }
                None => self.listed(directive, "this is about Unix sockets, whose mode says who may come"),
            }
        }
        who(&rules, v6)
    }

    /// The bound of connections, if it is one of the whole server and not of each client.
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

    /// Gives addresses to the listeners that have none of their own.
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

    /// A listener for a piece of configuration that has no `listen`.
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

fn listens(server: &Directive) -> impl Iterator<Item = &Directive> {
    server.children().iter().filter(|directive| directive.name.text == "listen")
}

/// A `listen` has this parameter.
fn has(listen: &Directive, parameter: &str) -> bool {
    listen.arguments.iter().skip(1).any(|word| word.text == parameter)
}

fn is_datagrams(listen: &Directive) -> bool {
    has(listen, "udp") || has(listen, "quic")
}

fn listen_addrs_of(directive: &Directive, http: bool) -> Vec<ListenAddr<'_>> {
    let places = addresses(directive.argument(0), http).filter(|_| !is_datagrams(directive)).unwrap_or_default();
    let default = has(directive, "default_server") || has(directive, "default");
    places.into_iter().map(|at| ListenAddr { directive: Some(directive), at, default }).collect()
}

/// Options of connections that come in. An interval and a count of probes are egret's own.
fn tcp(listen: &Directive) -> Tcp {
    let options = || listen.arguments.iter().skip(1).map(|word| word.text.as_str());
    let keepalive = options().find_map(|word| word.strip_prefix("so_keepalive="));
    let idle = keepalive.and_then(|text| time(text.split(':').next()?));
    Tcp {
        keepalive: match keepalive {
            Some("off") => Some(None),
            _ => idle.filter(|idle| PROBED.contains(idle)).map(Some),
        },
        fast_open: options().any(|word| word.starts_with("fastopen=")),
        multipath: options().any(|word| word == "multipath"),
    }
}

/// Silence before probes, as egret takes it.
const PROBED: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(9 * 3600);

/// The options of a `listen` that are not carried over.
fn lost<'a>(listen_addr: &ListenAddr<'a>) -> Vec<&'a str> {
    let tcp = matches!(listen_addr.at, At::Tcp(_));
    let carried = |word: &str| {
        let tcp_only =
            ["so_keepalive=", "fastopen="].iter().any(|option| word.starts_with(option)) || word == "multipath";
        ["default_server", "default", "ssl", "proxy_protocol", "bind", "http2"].contains(&word) || (tcp && tcp_only)
    };
    let words =
        listen_addr.directive.iter().flat_map(|listen| listen.arguments.iter().skip(1)).map(|word| word.text.as_str());
    words.filter(|word| !carried(word)).collect()
}

/// Keys of `limit_conn_zone` that are the same for all clients of a server.
const WHOLE: [&str; 4] = ["$server_addr", "$server_port", "$server_name", "$hostname"];

/// All ports that a configuration listens on.
pub(super) fn ports(tree: &[Directive]) -> Vec<u16> {
    let mut ports = Vec::new();
    for directive in tree {
        if directive.name.text == "listen" {
            let places = addresses(directive.argument(0), false).unwrap_or_default();
            ports.extend(places.iter().filter_map(|at| if let At::Tcp(at) = at { Some(at.port()) } else { None }));
        }
        ports.extend(self::ports(directive.children()));
    }
    ports
}

/// The port of an address as it is written; 0 for Unix sockets.
fn port_of(listen: &str) -> u16 {
    listen.parse::<SocketAddr>().map_or(0, |address| address.port())
}

/// All addresses of a kind.
fn everyone(like: &SocketAddr) -> Vec<IpNet> {
    let any: IpAddr = if like.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    IpNet::new(any, 0).into_iter().collect()
}

/// Both cannot be bound.
fn collide(one: &str, other: &str) -> bool {
    let (Ok(first), Ok(second)) = (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) else { return one == other };
    let everything = first.ip().is_unspecified() || second.ip().is_unspecified();
    let port = first.port() == second.port();
    port && (first.ip() == second.ip() || everything && first.is_ipv4() == second.is_ipv4())
}

fn loopback_like(address: &SocketAddr) -> IpAddr {
    if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

/// The places that the first argument of a `listen` means.
pub(super) fn addresses(text: &str, http: bool) -> Option<Vec<At>> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| vec![At::Unix(path.to_owned())]);
    }
    let (host, ports) = match text.parse::<IpAddr>() {
        Ok(_) => (text, "80"),
        Err(_) if text.ends_with(']') => (text, "80"),
        Err(_) => match text.rsplit_once(':') {
            Some(parts) => parts,
            None if text.starts_with(|c: char| c.is_ascii_digit()) => ("*", text),
            None => (text, "80"),
        },
    };
    let ip: IpAddr = match host.trim_matches(['[', ']']) {
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let ports = (first > 0 && first <= last && last - first < MOST_PORTS && (!http || first == last))
        .then_some(first..=last)?;
    Some(ports.map(|port| At::Tcp((ip, port).into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_nginx() {
        let one = |text: &str| match addresses(text, true).as_deref() {
            Some([At::Tcp(address)]) => address.to_string(),
            Some([At::Unix(path)]) => path.clone(),
            _ => "none".to_owned(),
        };
        for (text, address) in [
            ("8080", "0.0.0.0:8080"),
            ("*:81", "0.0.0.0:81"),
            ("192.0.2.1", "192.0.2.1:80"),
            ("[::]:443", "[::]:443"),
            ("[::1]", "[::1]:80"),
            ("localhost:9", "127.0.0.1:9"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("host.example.com:80", "none"),
            ("0", "none"),
        ] {
            assert_eq!(one(text), address, "{text}");
        }
        assert_eq!(addresses("127.0.0.1:10-12", false).map(|all| all.len()), Some(3));
    }
}
