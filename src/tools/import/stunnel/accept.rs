//! `accept`: where clients come in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::tools::import::draft::Listener;
use crate::tools::import::findings::{OPEN_TO_ALL, SERVICE_LOST, SOCKET_MODE};
use crate::tools::import::stunnel::service::port;
use crate::tools::import::stunnel::{Importer, Setting};

impl Importer<'_> {
    pub(super) fn listener(&mut self, accept: &Setting) -> Option<Listener> {
        let from = self.report.line(&accept.place);
        if accept.value.starts_with('/') {
            let listen = format!("unix:{}", accept.value);
            let mode = self.options.faithful.then_some("0666");
            let title = "every user of this machine may use this socket, unless the mask of stunnel forbids it";
            let repair = "egret makes it for its own user alone; `mode = \"0660\"` and `allow_users` for others";
            self.find(SOCKET_MODE, accept, title, "open to users", repair);
            return Some(Listener { from, listen, mode, ..Listener::default() });
        }
        let Some(mut address) = address(&accept.value) else {
            let title = "this listener is lost: its address is a name, which only the other machine may know";
            self.find(SERVICE_LOST, accept, title, "not an address", "write the IP address, and import again");
            return None;
        };
        let mut listener = Listener { from, ..Listener::default() };
        if !address.ip().is_loopback() {
            self.open_to_all(accept, &mut address, &mut listener);
        }
        listener.listen = address.to_string();
        Some(listener)
    }

    fn open_to_all(&mut self, accept: &Setting, address: &mut SocketAddr, listener: &mut Listener) {
        let title = "every client that reaches this address may connect, and uses the identity towards the server";
        let everyone = if address.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        let repair = if self.options.faithful {
            listener.allow = everyone.parse().into_iter().collect();
            format!("written as `allow = [\"{everyone}\"]`; name the networks of the clients")
        } else {
            let fitting = self.options.allow.iter().filter(|network| network.addr().is_ipv6() == address.is_ipv6());
            listener.allow = fitting.copied().collect();
            if !listener.allow.is_empty() {
                return;
            }
            let loopback: IpAddr =
                if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            address.set_ip(loopback);
            "egret listens on loopback, on the same port; for others: the address in `listen` and the networks of the \
             clients in `allow`, or `egret import --allow NETWORK`"
                .to_owned()
        };
        self.find(OPEN_TO_ALL, accept, title, "open", repair);
    }
}

/// `[HOST:]PORT`; the port may be the name of its service. Port 0 is any free port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port_text) = text.rsplit_once(':').unwrap_or(("", text));
    let ip: IpAddr = match host.trim_matches(['[', ']']) {
        "" | "*" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port(port_text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_stunnel() {
        for (text, expected) in [
            ("8443", "0.0.0.0:8443"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("localhost:imaps", "127.0.0.1:993"),
            (":::443", "[::]:443"),
            ("[::1]:https", "[::1]:443"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in ["host.example.com:443", "127.0.0.1", "127.0.0.1:none", ""] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
