//! Addresses to listen on, networks that may come, name servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::formats::word::Location;
use crate::config::problems::{Problem, quote};
use crate::config::read::{Fault, Reader, Text, Value};
use crate::config::terms::User;

/// Where to listen, as it is typed: the path may be relative, the socket's mode has a key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(Location),
}

impl Text for Listen {
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:8080", "[::1]:8080", "unix:/run/egret/app.sock"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        text.parse().map(Self::Tcp).map_err(|_| not_an_address(text))
    }
}

fn unix(path: &str) -> Result<Listen, Fault> {
    if path.starts_with('@') {
        return Err(Fault::new(
            "abstract sockets are not offered",
            "anyone on this machine can reach an abstract socket",
            "write a path, whose folder and mode decide which users may connect: \"unix:/run/egret/app.sock\"",
        ));
    }
    Location::parse(path).map(Listen::Unix)
}

fn not_an_address(text: &str) -> Fault {
    let title = format!("{} is not an address to listen on", quote(text));
    let (label, repair) = if let Ok(ip) = text.parse::<IpAddr>() {
        ("no port", format!("add the port: \"{}\"", SocketAddr::new(ip, 8080)))
    } else if let Some(port) = port_of(text, &["", "*", "localhost"]) {
        ("no IP address", format!("name the address: \"127.0.0.1:{port}\" for this machine only"))
    } else if text.starts_with(['/', '.']) {
        ("a path without `unix:`", format!("write \"unix:{text}\""))
    } else {
        ("not an address", "write an IP address and a port, \"127.0.0.1:8080\", or \"unix:/path\"".to_owned())
    };
    Fault::new(title, label, repair)
}

/// The port of a text that has one of these hosts, or is nothing but a port.
fn port_of(text: &str, hosts: &[&str]) -> Option<u16> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if hosts.contains(&host) { port.parse().ok() } else { None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl Text for Mode {
    const EXAMPLES: &'static [&'static str] = &["0600", "0660", "0666"];

    fn parse(text: &str) -> Result<Self, Fault> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            let title = format!("{} is not a file mode", quote(text));
            Fault::new(title, "not a file mode", "write permission bits in octal, such as \"0600\" or \"0660\"")
        })
    }
}

/// A name server; the port is 53 unless another is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DnsServer(pub(crate) SocketAddr);

/// RFC 1035, section 4.2.
const DNS_PORT: u16 = 53;

impl Text for DnsServer {
    const EXAMPLES: &'static [&'static str] = &["192.0.2.53", "127.0.0.1:5353", "[2001:db8::53]:53"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Ok(ip) = text.parse() {
            return Ok(Self(SocketAddr::new(ip, DNS_PORT)));
        }
        text.parse().map(Self).map_err(|_| {
            let title = format!("{} is not the address of a name server", quote(text));
            let repair = "write an IP address, with a port if it is not 53: \"192.0.2.53\", \"127.0.0.1:5353\"";
            Fault::new(title, "not an IP address", repair)
        })
    }
}

impl Text for IpNet {
    const EXAMPLES: &'static [&'static str] = &["192.0.2.0/24", "2001:db8::/32", "192.0.2.7"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::from(ip.to_canonical()));
        }
        let Ok(network) = text.parse::<Self>() else {
            let title = format!("{} is not a network", quote(text));
            let repair = "write an address and the length of its prefix, such as \"192.0.2.0/24\"";
            return Err(Fault::new(title, "not a network", repair));
        };
        if network.trunc() != network {
            // Either the address or the length is a slip; which one, only its author knows.
            let title = format!("{} is an address inside a network, not a network", quote(text));
            let repair =
                format!("write \"{}\" for the network, or \"{}\" for the one address", network.trunc(), network.addr());
            return Err(Fault::new(title, "bits are set after the prefix", repair));
        }
        unmapped(network).ok_or_else(|| {
            let title = format!("{} mixes IPv4 with IPv6 addresses", quote(text));
            let repair = "write IPv4 networks as such, \"192.0.2.0/24\", and IPv6 networks beside them";
            Fault::new(title, "holds all of ::ffff:0:0/96 and more", repair)
        })
    }
}

/// The network in the form that peers are compared with: peers of `::ffff:0:0/96` are IPv4 clients, so a network inside
/// it is its IPv4 network (RFC 4291 section 2.5.5.2). `None` for a network that contains it and is not all of IPv6: it
/// reads as if it admitted every IPv4 client, and admits none.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return Some(network) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len()) {
        (Some(ipv4), length @ 96..) => Ipv4Net::new(ipv4, length - 96).ok().map(IpNet::V4),
        (_, 1..96) if v6.contains(&MAPPED) => None,
        _ => Some(network),
    }
}

/// `::ffff:0.0.0.0`.
const MAPPED: Ipv6Addr = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();

impl Value for User {
    const WANTED: &'static str = "a user";
    const EXAMPLE: &'static str = "a name, \"app\", or a user id without quotes, `1000`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        if found.get_ref().is_str() {
            return Some(UserName::read(found, reader).map(|UserName(name)| Self::Name(name)));
        }
        let integer = found.get_ref().as_integer()?;
        // The highest id is the kernel's word for "no user" (chown(2)).
        let id = u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|id| *id != u32::MAX);
        if id.is_none() {
            let title = format!("{} is no user id", quote(&integer.to_string()));
            reader.report(Problem::new(found.span(), title, "out of range", "write an id from 0 to 4294967294"));
        }
        Some(id.map(Self::Id))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0, "maximum": 4_294_967_294_u32 })
    }
}

struct UserName(String);

impl Text for UserName {
    const EXAMPLES: &'static [&'static str] = &["app"];

    fn parse(text: &str) -> Result<Self, Fault> {
        // A name cannot contain the characters that separate fields or lines of the user database.
        if text.is_empty() || text.contains([':', '\n', '\0', '/', ' ']) {
            let title = format!("{} is no user name", quote(text));
            return Err(Fault::new(
                title,
                "no user name",
                "write a name, \"app\", or a user id without quotes, `1000`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair<T: Text>(text: &str) -> Option<String> {
        T::parse(text).err().map(|fault| fault.repair)
    }

    #[test]
    fn an_address_without_its_half_gets_it() {
        assert!(repair::<Listen>("::1").is_some_and(|repair| repair.contains("\"[::1]:8080\"")));
        assert!(repair::<Listen>("localhost:81").is_some_and(|repair| repair.contains("\"127.0.0.1:81\"")));
        assert!(repair::<Listen>("9000").is_some_and(|repair| repair.contains("\"127.0.0.1:9000\"")));
        assert!(repair::<Listen>("/run/x").is_some_and(|repair| repair.contains("\"unix:/run/x\"")));
    }

    #[test]
    fn a_network_has_no_bits_after_its_prefix() {
        assert!(repair::<IpNet>("192.0.2.7/24").is_some_and(|repair| repair.contains("\"192.0.2.0/24\"")));
        assert_eq!(IpNet::parse("192.0.2.7").map(|network| network.prefix_len()), Ok(32));
    }

    #[test]
    fn a_mapped_network_is_its_ipv4_network() {
        for (text, network) in [
            ("::ffff:127.0.0.0/104", Some("127.0.0.0/8")),
            ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("::/64", None),
            ("::fffe:0:0/95", None),
        ] {
            let parsed = IpNet::parse(text).ok().map(|network| network.to_string());
            assert_eq!(parsed.as_deref(), network, "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(Mode::parse("0640"), Ok(Mode(0o640)));
        assert!(["", "8", "0800", "+600", "1777", "rw"].iter().all(|text| Mode::parse(text).is_err()));
    }
}
