//! A configuration of egret in the making: what both importers fill in, and [`crate::tools::import::write`] writes.

use std::time::Duration;

use ipnet::IpNet;

/// The configuration. Names are given when everything is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    /// `[runtime] workers`.
    pub(crate) workers: Option<usize>,
    /// `[runtime] affinity`.
    pub(crate) affinity: Vec<usize>,
    /// `drain_timeout`.
    pub(crate) drain: Option<Duration>,
    /// `[dns]`.
    pub(crate) dns: Dns,
    /// `[identities]`.
    pub(crate) identities: Vec<Identity>,
    /// `[trust]`.
    pub(crate) trusts: Vec<Trust>,
    /// `[upstreams]`.
    pub(crate) upstreams: Vec<Upstream>,
    /// `[[listeners]]`.
    pub(crate) listeners: Vec<Listener>,
}

/// Name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    /// Name servers, with a port if it is not 53.
    pub servers: Vec<String>,
    /// How long every answer is kept, in place of its own word.
    pub(crate) valid: Option<Duration>,
}

/// A client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its file.
    pub certificate: String,
    /// The file of its key.
    pub private_key: Option<String>,
    /// The file with the password of the key.
    pub password_file: Option<String>,
    /// `allow_loose_key_permissions`.
    pub(crate) loose_permissions: bool,
}

/// Whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Root certificates; files or folders.
    pub(crate) roots: Vec<String>,
    /// Exactly one certificate, in place of roots.
    pub(crate) certificate: Option<String>,
    /// Revocation lists.
    pub crls: Vec<String>,
    /// Names that are expected, with their kind, in place of the server name.
    pub names: Vec<String>,
}

/// A destination. Two that are equal are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// What its name is made from.
    pub(crate) base: String,
    /// In order.
    pub servers: Vec<Server>,
    /// `balance`.
    pub balance: Option<&'static str>,
    /// `ejection`.
    pub ejection: Option<Ejection>,
    /// `tcp`.
    pub tcp: Tcp,
    /// The clients' own TLS is handed on; nothing of `tls` holds.
    pub passthrough: bool,
    /// TLS.
    pub tls: Tls,
    /// `upgrade`.
    pub upgrade: Option<&'static str>,
    /// `originate_timeout`.
    pub(crate) originate: Option<Duration>,
    /// `idle_timeout`.
    pub(crate) idle: Option<Duration>,
    /// `half_closed_timeout`.
    pub(crate) half_closed: Option<Duration>,
    /// `eof = "lenient"`.
    pub(crate) eof_lenient: bool,
}

/// A server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// Host and port.
    pub(crate) address: String,
    /// `weight`.
    pub(crate) weight: Option<u32>,
    /// `priority = 2`: only if the others are not to be had.
    pub(crate) reserve: bool,
    /// `max_connections`.
    pub(crate) max_connections: Option<u32>,
}

/// When an address that fails gets no streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ejection {
    /// It always gets them.
    Never,
    /// Failures in a row, and the time that a server is then left out.
    After(u32, Duration),
}

/// Options of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tcp {
    /// `keepalive`; `Some(None)`: never.
    pub keepalive: Option<Option<Duration>>,
    /// `fast_open`.
    pub fast_open: bool,
    /// `multipath`.
    pub multipath: bool,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Number of an identity.
    pub identity: Option<usize>,
    /// Number of a trust.
    pub trust: Option<usize>,
    /// `server_name`.
    pub server_name: Option<String>,
    /// `sni = false`.
    pub(crate) no_sni: bool,
    /// `verify = "none"`, and why.
    pub(crate) unverified: Option<String>,
    /// `verify = "chain"`, and why.
    pub(crate) any_name: Option<String>,
    /// `min_version`.
    pub min_version: Option<&'static str>,
    /// `max_version`.
    pub max_version: Option<&'static str>,
    /// `alpn`.
    pub alpn: Vec<String>,
    /// `key_exchange`.
    pub key_exchange: Vec<&'static str>,
    /// `resumption = false`.
    pub(crate) no_resumption: bool,
}

impl Tls {
    /// These groups, each once. With none that TLS 1.2 has, TLS 1.2 could not be spoken: then it is not offered.
    pub(crate) fn offer(&mut self, groups: Vec<&'static str>) {
        self.key_exchange.clear();
        for group in groups {
            if !self.key_exchange.contains(&group) {
                self.key_exchange.push(group);
            }
        }
        if self.key_exchange.iter().all(|group| *group == "x25519mlkem768") {
            match self.max_version {
                Some("1.2") => self.key_exchange.clear(),
                _ => self.min_version = Some("1.3"),
            }
        }
    }
}

/// Where connections come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where it comes from, for the comment.
    pub(crate) from: String,
    /// Address and port, or `unix:` and a path.
    pub listen: String,
    /// Who may come, if that has to be said.
    pub(crate) allow: Vec<IpNet>,
    /// Mode of a Unix socket.
    pub(crate) mode: Option<&'static str>,
    /// Number of an upstream; with routes, that of clients for whom there is none.
    pub(crate) upstream: Option<usize>,
    /// Upstreams by the name that clients ask for.
    pub(crate) routes: Vec<Route>,
    /// Connections at once.
    pub(crate) max_connections: Option<usize>,
    /// `tcp`.
    pub(crate) tcp: Tcp,
}

/// A way for some of the clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Names, and wildcards.
    pub(crate) server_names: Vec<String>,
    /// Number of an upstream.
    pub(crate) upstream: usize,
}

impl Draft {
    /// Leaves out what no listener leads to.
    pub(crate) fn prune(&mut self) {
        let used = |at: usize| {
            let routes = self.listeners.iter().flat_map(|listener| &listener.routes).any(|route| route.upstream == at);
            routes || self.listeners.iter().any(|listener| listener.upstream == Some(at))
        };
        let upstreams: Vec<bool> = (0..self.upstreams.len()).map(used).collect();
        let places = places(&upstreams);
        for listener in &mut self.listeners {
            listener.upstream = listener.upstream.and_then(|at| places[at]);
            listener.routes.retain_mut(|route| places[route.upstream].map(|at| route.upstream = at).is_some());
        }
        keep(&mut self.upstreams, &upstreams);
        let named = |number: fn(&Tls) -> Option<usize>, count: usize| -> Vec<bool> {
            (0..count).map(|at| self.upstreams.iter().any(|upstream| number(&upstream.tls) == Some(at))).collect()
        };
        let identities = named(|tls| tls.identity, self.identities.len());
        let trusts = named(|tls| tls.trust, self.trusts.len());
        let new_identities = self::places(&identities);
        let new_trusts = self::places(&trusts);
        for upstream in &mut self.upstreams {
            upstream.tls.identity = upstream.tls.identity.and_then(|at| new_identities[at]);
            upstream.tls.trust = upstream.tls.trust.and_then(|at| new_trusts[at]);
        }
        keep(&mut self.identities, &identities);
        keep(&mut self.trusts, &trusts);
    }

    /// The number of an identity like this.
    pub(crate) fn identity(&mut self, identity: Identity) -> usize {
        number_of(&mut self.identities, identity)
    }

    /// The number of a trust like this.
    pub(crate) fn trust(&mut self, trust: Trust) -> usize {
        number_of(&mut self.trusts, trust)
    }

    /// The number of an upstream like this.
    pub(crate) fn upstream(&mut self, upstream: Upstream) -> usize {
        number_of(&mut self.upstreams, upstream)
    }
}

/// The new numbers of what is kept.
fn places(kept: &[bool]) -> Vec<Option<usize>> {
    let before = |at: usize| kept[..at].iter().filter(|keep| **keep).count();
    kept.iter().enumerate().map(|(at, keep)| keep.then(|| before(at))).collect()
}

fn keep<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().copied().unwrap_or(true));
}

/// The index of an equal value in the list; it is added if there is none.
fn number_of<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    list.iter().position(|known| *known == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}
