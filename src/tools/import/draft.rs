//! A configuration of egret in the making: what both importers fill in, and [`crate::tools::import::write`] writes.

use std::time::Duration;

use ipnet::IpNet;

#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) workers: Option<usize>,
    pub(crate) affinity: Vec<usize>,
    pub(crate) drain: Option<Duration>,
    pub(crate) dns: Dns,
    pub(crate) identities: Vec<Identity>,
    pub(crate) trusts: Vec<Trust>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    /// Name servers, with a port if it is not 53.
    pub servers: Vec<String>,
    /// Replaces the TTL of every answer.
    pub(crate) valid: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub certificate: String,
    pub private_key: Option<String>,
    pub password_file: Option<String>,
    pub(crate) loose_permissions: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Root certificates; files or folders.
    pub(crate) roots: Vec<String>,
    /// In place of roots.
    pub(crate) certificate: Option<String>,
    pub crls: Vec<String>,
    /// Expected in place of the server name, with their kind.
    pub names: Vec<String>,
}

/// Two equal ones are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// The name is made from it.
    pub(crate) base: String,
    pub servers: Vec<Server>,
    pub balance: Option<&'static str>,
    pub ejection: Option<Ejection>,
    pub tcp: Tcp,
    /// The clients' own TLS is forwarded; nothing of `tls` applies.
    pub passthrough: bool,
    pub tls: Tls,
    pub upgrade: Option<&'static str>,
    pub(crate) originate: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) half_closed: Option<Duration>,
    pub(crate) eof_lenient: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// `HOST:PORT`.
    pub(crate) address: String,
    pub(crate) weight: Option<u32>,
    /// `priority = 2`: only if no other server is available.
    pub(crate) reserve: bool,
    pub(crate) max_connections: Option<u32>,
}

/// When a failing address gets no streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ejection {
    Never,
    /// Failures in a row, and how long the server is then left out.
    After(u32, Duration),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tcp {
    /// `Some(None)`: never.
    pub keepalive: Option<Option<Duration>>,
    pub fast_open: bool,
    pub multipath: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Index of an identity.
    pub identity: Option<usize>,
    /// Index of a trust.
    pub trust: Option<usize>,
    pub server_name: Option<String>,
    pub(crate) no_sni: bool,
    /// `verify = "none"`, and why.
    pub(crate) unverified: Option<String>,
    /// `verify = "chain"`, and why.
    pub(crate) any_name: Option<String>,
    pub min_version: Option<&'static str>,
    pub max_version: Option<&'static str>,
    pub alpn: Vec<String>,
    pub key_exchange: Vec<&'static str>,
    pub(crate) no_resumption: bool,
}

impl Tls {
    /// Each group once. Without any group of TLS 1.2, TLS 1.2 is not offered.
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its source, for the comment.
    pub(crate) from: String,
    /// Address and port, or `unix:` and a path.
    pub listen: String,
    pub(crate) allow: Vec<IpNet>,
    pub(crate) mode: Option<&'static str>,
    /// Index of an upstream; with routes, that of clients without a route.
    pub(crate) upstream: Option<usize>,
    /// By the server name of the client.
    pub(crate) routes: Vec<Route>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) tcp: Tcp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) server_names: Vec<String>,
    /// Index of an upstream.
    pub(crate) upstream: usize,
}

impl Draft {
    /// Removes everything that no listener leads to.
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

    pub(crate) fn identity(&mut self, identity: Identity) -> usize {
        number_of(&mut self.identities, identity)
    }

    pub(crate) fn trust(&mut self, trust: Trust) -> usize {
        number_of(&mut self.trusts, trust)
    }

    pub(crate) fn upstream(&mut self, upstream: Upstream) -> usize {
        number_of(&mut self.upstreams, upstream)
    }
}

/// New indexes of the kept entries.
fn places(kept: &[bool]) -> Vec<Option<usize>> {
    let before = |at: usize| kept[..at].iter().filter(|keep| **keep).count();
    kept.iter().enumerate().map(|(at, keep)| keep.then(|| before(at))).collect()
}

fn keep<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().copied().unwrap_or(true));
}

/// Index of an equal value in the list; it is added if there is none.
fn number_of<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    list.iter().position(|known| *known == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}
