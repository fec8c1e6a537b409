//! Servers and the names they are known by.

use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::{DnsName, ServerName};

use crate::config::problems::quote;
use crate::config::read::{Fault, Text};
use crate::config::terms::{ExpectedName, Host, NamePattern, Server};
use crate::protocols::Upgrade;

impl Text for Server {
    const EXAMPLES: &'static [&'static str] =
        &["db.example.com:5432", "192.0.2.1:443", "[2001:db8::1]:443", "_postgresql._tcp.example.com"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(a_url(text, scheme, rest));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(address.ip()), port: nonzero(address.port(), text)? });
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Err(no_port(text, &SocketAddr::new(ip, 443).to_string()));
        }
        if let Some(name) = service(text) {
            return Ok(Self { host: Host::Service(dns(name)?), port: 0 });
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(match text.parse::<u16>() {
                Ok(port) => no_host(port),
                Err(_) => no_port(text, &format!("{text}:443")),
            });
        };
        let Ok(port) = port.parse() else {
            let title = format!("{} is not a port", quote(port));
            return Err(Fault::new(title, "not a port", format!("write a number from 1 to 65535: \"{host}:443\"")));
        };
        Ok(Self { host: Host::Dns(dns(host)?), port: nonzero(port, text)? })
    }
}

/// The name of a service in DNS (RFC 2782), distinguished from a host's by its first two labels and the missing port.
fn service(text: &str) -> Option<&str> {
    let mut labels = text.splitn(3, '.');
    let underscored = labels.by_ref().take(2).filter(|label| label.len() > 1 && label.starts_with('_')).count() == 2;
    let domain = labels.next().is_some_and(|domain| !domain.is_empty());
    (underscored && domain && !text.contains(':')).then_some(text)
}

fn no_port(text: &str, with_port: &str) -> Fault {
    let title = format!("the server {} has no port", quote(text));
    Fault::new(title, "no port", format!("add the port of the TLS server: \"{with_port}\""))
}

fn no_host(port: u16) -> Fault {
    Fault::new(
        format!("the server `{port}` has no host"),
        "no host",
        format!("add the host: \"db.example.com:{port}\""),
    )
}

fn nonzero(port: u16, text: &str) -> Result<u16, Fault> {
    if port == 0 {
        let title = format!("{} has port 0", quote(text));
        return Err(Fault::new(title, "nothing can listen there", "write a port from 1 to 65535"));
    }
    Ok(port)
}

fn a_url(text: &str, scheme: &str, rest: &str) -> Fault {
    let host = rest.split('/').next().unwrap_or(rest);
    let port = match scheme {
        _ if host.contains(':') => String::new(),
        "redis" | "rediss" => ":6379".to_owned(),
        _ => format!(":{}", Upgrade::of_scheme(scheme).map_or(443, |protocol| protocol.port)),
    };
    let title = format!("{} is a URL, not a server", quote(text));
    Fault::new(title, "a URL", format!("write host and port only: \"{host}{port}\""))
}

/// A host name, as TLS and certificates know it, in lower case.
fn dns(text: &str) -> Result<DnsName<'static>, Fault> {
    if text.starts_with("*.") {
        return Err(Fault::new(
            format!("{} is a pattern, not a name", quote(text)),
            "a wildcard",
            "write the full name; a wildcard in the server's certificate covers it",
        ));
    }
    if let Some(at) = text.find(char::is_whitespace) {
        let title = format!("{} has a blank, at character {}", quote(text), text[..at].chars().count() + 1);
        return Err(Fault::new(
            title,
            "a blank",
            format!("remove it: {}", quote(&text.split_whitespace().collect::<String>())),
        ));
    }
    // DNS and certificates compare without regard to case; servers that choose by SNI may not.
    DnsName::try_from(text.to_ascii_lowercase()).map_err(|_| {
        let title = format!("{} is not a host name", quote(text));
        let repair = "write letters, digits, `-`, `_` and dots; an international name in its `xn--` form";
        Fault::new(title, "not a host name", repair)
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedName(pub(crate) ServerName<'static>);

impl Text for ServedName {
    const EXAMPLES: &'static [&'static str] = &["db.example.com", "192.0.2.1"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self(ServerName::IpAddress(ip.into())));
        }
        if let Ok(server) = Server::parse(text) {
            let title = format!("{} has a port", quote(text));
            let name = server.host.server_name().to_str().into_owned();
            return Err(Fault::new(title, "certificates name no ports", format!("write \"{name}\"")));
        }
        dns(text).map(|name| Self(ServerName::DnsName(name)))
    }
}

impl Text for ExpectedName {
    const EXAMPLES: &'static [&'static str] = &["dns:db.example.com", "ip:192.0.2.1", "uri:spiffe://example.com/db"];

    fn parse(text: &str) -> Result<Self, Fault> {
        match text.split_once(':') {
            Some(("dns", name)) => dns(name).map(Self::Dns),
            Some(("ip", address)) => address.parse().map(Self::Ip).map_err(|_| {
                let title = format!("{} is not an IP address", quote(address));
                Fault::new(title, "not an IP address", "write \"ip:192.0.2.1\" or \"ip:2001:db8::1\"")
            }),
            Some(("uri", uri)) => expected_uri(uri).map(Self::Uri),
            Some(("cn", name)) => in_subject(name).map(Self::CommonName),
            Some(("ou", name)) => in_subject(name).map(Self::OrganizationalUnit),
            _ => Err(untyped(text)),
        }
    }
}

impl Text for NamePattern {
    const EXAMPLES: &'static [&'static str] = &["db.example.com", "*.example.com"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            let repair = "write a host name; clients that ask for none go to the listener's `upstream`";
            return Err(Fault::new("an IP address is never sent as SNI (RFC 6066)", "never asked for", repair));
        }
        match text.strip_prefix("*.") {
            Some(parent) if !parent.starts_with("*.") => folded(parent).map(Self::Below),
            _ if text.contains('*') => {
                let title = format!("{} is no pattern of names", quote(text));
                let repair = "write a full name, or `*.` and a name for all below it; for all names, the \
                              listener's `upstream`";
                Err(Fault::new(title, "a star in the wrong place", repair))
            }
            _ => folded(text).map(Self::Exactly),
        }
    }
}

/// A host name as it is compared: without its closing dot, which is never sent, and in lower case.
fn folded(text: &str) -> Result<String, Fault> {
    dns(text).map(|name| name.as_ref().trim_end_matches('.').to_owned())
}

/// Text of a subject: compared to the letter, so that a blank at its ends would be a slip.
fn in_subject(name: &str) -> Result<String, Fault> {
    if name.is_empty() || name.trim() != name || name.chars().any(char::is_control) {
        let title = format!("{} is no name of a subject", quote(name));
        return Err(Fault::new(
            title,
            "compared to the letter",
            "write it without blanks around it, as in \"cn:project:db\"",
        ));
    }
    Ok(name.to_owned())
}

/// A URI that a certificate could carry (RFC 5280, section 4.2.1.6: a scheme and more, in ASCII).
fn expected_uri(uri: &str) -> Result<String, Fault> {
    let scheme = uri.split_once(':').filter(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if scheme.is_none() || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        let title = format!("{} is not a URI", quote(uri));
        return Err(Fault::new(
            title,
            "not a URI",
            "write it with its scheme, such as \"uri:spiffe://example.com/db\"",
        ));
    }
    Ok(uri.to_owned())
}

fn untyped(text: &str) -> Fault {
    let kind = if text.parse::<IpAddr>().is_ok() {
        "ip"
    } else if text.contains("://") {
        "uri"
    } else {
        "dns"
    };
    let title = format!("{} does not say what kind of name it is", quote(text));
    Fault::new(title, "no `dns:`, `ip:`, `uri:`, `cn:` or `ou:`", format!("write \"{kind}:{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair<T: Text>(text: &str) -> Option<String> {
        T::parse(text).err().map(|fault| fault.repair)
    }

    #[test]
    fn servers_print_as_they_are_typed() {
        for text in Server::EXAMPLES.iter().chain(&["under_score.example.com:1", "_a._tcp.example.com:1"]) {
            assert_eq!(Server::parse(text).map(|server| server.to_string()).as_deref(), Ok(*text));
        }
    }

    #[test]
    fn a_missing_port_is_asked_for() {
        assert!(repair::<Server>("2001:db8::1").is_some_and(|repair| repair.contains("\"[2001:db8::1]:443\"")));
        assert!(repair::<Server>("[2001:db8::1]").is_some_and(|repair| repair.contains("\"[2001:db8::1]:443\"")));
        assert!(repair::<Server>("a.example.com").is_some_and(|repair| repair.contains("\"a.example.com:443\"")));
        let url = repair::<Server>("https://a.example.com/x");
        assert!(url.is_some_and(|repair| repair.contains("\"a.example.com:443\"")));
    }

    #[test]
    fn names_say_their_kind() {
        assert!(repair::<ExpectedName>("a.example.com").is_some_and(|repair| repair.contains("\"dns:a.example.com\"")));
        assert!(repair::<ExpectedName>("192.0.2.1").is_some_and(|repair| repair.contains("\"ip:192.0.2.1\"")));
        assert_eq!(ExpectedName::parse("ip:::1"), Ok(ExpectedName::Ip(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))));
        assert!(repair::<ExpectedName>("dns:*.example.com").is_some());
    }
}
