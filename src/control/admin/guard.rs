//! Keeps web pages out: a browser on this machine reaches the admin address for any page it shows.
//!
//! Two ways in, two locks. A page may rebind its own name to 127.0.0.1; then the name in `Host` is
//! foreign. Or it posts straight to 127.0.0.1; then the browser says so by `Origin`, which no command
//! line client sends.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::http::request::Parts;
use hyper::{Method, Version, header};

use crate::net::Socket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    /// True on loopback addresses, where clients use the names of this machine only. On other addresses the valid names
    /// are not known, and networks are configured; on a Unix socket no browser arrives.
    local_names_only: bool,
}

impl Guard {
    pub(super) fn of(socket: &Socket) -> Self {
        let loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        Self { local_names_only: socket.tcp_address().is_some_and(loopback) }
    }

    pub(super) fn check(self, request: &Parts) -> Result<(), &'static str> {
        if request.method == Method::POST && request.headers.contains_key(header::ORIGIN) {
            return Err("a request of a web page (it has an Origin)");
        }
        if !self.local_names_only {
            return Ok(());
        }
        let mut hosts = request.headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) if request.version == Version::HTTP_10 => {}
            (Some(host), None) if host.to_str().is_ok_and(is_local_name) => {}
            _ => return Err("Host has to be an IP address or localhost"),
        }
        // The absolute form of a target counts more than Host (RFC 9112, section 3.2.2).
        match request.uri.authority() {
            Some(authority) if !is_local_name(authority.as_str()) => Err("the target has to be on this machine"),
            _ => Ok(()),
        }
    }
}

fn is_local_name(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((ip, port)) = rest.split_once(']') else { return false };
        return ip.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local_names() {
        for host in ["127.0.0.1", "127.0.0.1:9090", "localhost", "LOCALHOST:1", "[::1]", "[::1]:9090", "192.0.2.1:80"] {
            assert!(is_local_name(host), "{host}");
        }
        let foreign = [
            "rebound.example.com",
            "rebound.example.com:9090",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1@example.com",
            "localhost:",
            "localhost:x",
            "[::1",
            "[::1]x",
            "[example.com]",
            "::1",
            "",
        ];
        for host in foreign {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
