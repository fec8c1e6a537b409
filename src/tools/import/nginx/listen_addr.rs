//! What a `listen` says: its addresses and its parameters. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::tools::import::draft::Tcp;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::time;

#[derive(Clone)]
pub(super) struct ListenAddr<'a> {
    pub(super) directive: Option<&'a Directive>,
    pub(super) at: At,
    /// The `default_server` among several on this address.
    pub(super) default: bool,
}

impl ListenAddr<'_> {
    /// Variables of nginx that are equal for all connections to this address of a server.
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

/// Variables that are equal for all connections to a server, at any of its addresses.
pub(super) fn common_variables(listen_addrs: &[ListenAddr<'_>], server: &Directive) -> Vec<(&'static str, String)> {
    let mut all = listen_addrs.iter().map(|listen_addr| listen_addr.variables(server));
    let mut common = all.next().unwrap_or_default();
    all.for_each(|others| common.retain(|known| others.contains(known)));
    common
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Tcp(SocketAddr),
    Unix(String),
}

/// The most ports of one range; each becomes a listener of its own.
const MOST_PORTS: u16 = 256;

pub(super) fn listens(server: &Directive) -> impl Iterator<Item = &Directive> {
    server.children().iter().filter(|directive| directive.name.text == "listen")
}

pub(super) fn has(listen: &Directive, parameter: &str) -> bool {
    listen.arguments.iter().skip(1).any(|word| word.text == parameter)
}

pub(super) fn is_datagrams(listen: &Directive) -> bool {
    has(listen, "udp") || has(listen, "quic")
}

pub(super) fn listen_addrs_of(directive: &Directive, http: bool) -> Vec<ListenAddr<'_>> {
    let places = addresses(directive.argument(0), http).filter(|_| !is_datagrams(directive)).unwrap_or_default();
    let default = has(directive, "default_server") || has(directive, "default");
    places.into_iter().map(|at| ListenAddr { directive: Some(directive), at, default }).collect()
}

/// Options of client connections. Interval and count of probes are egret's own.
pub(super) fn tcp(listen: &Directive) -> Tcp {
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

/// Idle time before probes, in egret's range.
const PROBED: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(9 * 3600);

pub(super) fn lost<'a>(listen_addr: &ListenAddr<'a>) -> Vec<&'a str> {
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

/// Whether both cannot be bound at the same time.
pub(super) fn collide(one: &str, other: &str) -> bool {
    let (Ok(first), Ok(second)) = (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) else { return one == other };
    let everything = first.ip().is_unspecified() || second.ip().is_unspecified();
    let port = first.port() == second.port();
    port && (first.ip() == second.ip() || everything && first.is_ipv4() == second.is_ipv4())
}

/// Addresses of the first argument of a `listen`.
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
    let first: u16 = first.parse().ok()?;
    let last: u16 = last.parse().ok()?;
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
