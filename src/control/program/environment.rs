//! Variables of the program's environment, with the addresses that were bound.
//!
//! `{listener.NAME}` stands for the address of a listener, `{listener.NAME.host}` and `{listener.NAME.port}` for its
//! parts, `{listener.NAME.path}` for the path of a Unix socket. With one listener its name may be left out. `{{` and `}}`
//! are braces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::values::{ListenAddress, Name};

/// `NAME=VALUE`, in whose value references are put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    name: String,
    value: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// What is between braces.
    Reference(String),
}

/// Where a listener can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) listener: Name,
    pub(crate) address: Address,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<&ListenAddress> for Address {
    fn from(address: &ListenAddress) -> Self {
        match address {
            ListenAddress::Tcp(address) => Self::Tcp(*address),
            ListenAddress::Unix { path, .. } => Self::Unix(path.clone()),
        }
    }
}

/// A reference that stands for nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--env {variable}: {{{reference}}} {why}")]
pub struct Error {
    variable: String,
    reference: String,
    why: String,
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        "unknown_reference"
    }
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
        if name.is_empty() || text.contains('\0') {
            return Err("a variable needs a name, and has no zero byte".to_owned());
        }
        Ok(Self { name: name.to_owned(), value: pieces(value)? })
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        let inner = (brace == "{").then(|| after.split_once('}')).flatten();
        let (reference, after) = inner.ok_or("a brace is open; write `{{` or `}}` for a brace itself")?;
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        pieces.push(Piece::Reference(reference.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

/// The variables with their values.
///
/// # Errors
/// The first reference that stands for nothing.
pub(crate) fn resolve(variables: &[Variable], listeners: &[Reached]) -> Result<Vec<(String, String)>, Error> {
    variables.iter().map(|variable| Ok((variable.name.clone(), variable.resolve(listeners)?))).collect()
}

impl Variable {
    fn resolve(&self, listeners: &[Reached]) -> Result<String, Error> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Reference(reference) => value(reference, listeners).map_err(|why| Error {
                variable: self.name.clone(),
                reference: reference.clone(),
                why,
            }),
        };
        self.value.iter().map(piece).collect()
    }
}

/// The parts of an address that can be asked for.
const PARTS: [&str; 3] = ["host", "port", "path"];

fn value(reference: &str, listeners: &[Reached]) -> Result<String, String> {
    let asked = match reference.strip_prefix("listener") {
        Some("") => "",
        Some(rest) if rest.starts_with('.') => &rest[1..],
        _ => return Err("is unknown; `{listener.NAME}` is the address of a listener, `{{` is a brace".to_owned()),
    };
    // The name of a listener may hold dots.
    let (name, part) = match asked.rsplit_once('.') {
        _ if listeners.iter().any(|reached| reached.listener.as_str() == asked) => (asked, None),
        _ if PARTS.contains(&asked) => ("", Some(asked)),
        Some((name, part)) if PARTS.contains(&part) => (name, Some(part)),
        _ => (asked, None),
    };
    find(name, listeners)?.address.part(part)
}

fn find<'a>(name: &str, listeners: &'a [Reached]) -> Result<&'a Reached, String> {
    let known = || listeners.iter().map(|reached| reached.listener.as_str()).collect::<Vec<_>>().join(", ");
    match listeners {
        [only] if name.is_empty() => Ok(only),
        _ if name.is_empty() => Err(format!("needs the name of a listener; there are: {}", known())),
        _ => listeners
            .iter()
            .find(|reached| reached.listener.as_str() == name)
            .ok_or_else(|| format!("is no listener; there are: {}", known())),
    }
}

impl Address {
    fn part(&self, part: Option<&str>) -> Result<String, String> {
        match (self, part) {
            (Self::Tcp(address), None) => Ok(reachable(*address).to_string()),
            (Self::Tcp(address), Some("host")) => Ok(reachable(*address).ip().to_string()),
            (Self::Tcp(address), Some("port")) => Ok(address.port().to_string()),
            (Self::Unix(path), None | Some("path")) => Ok(path.display().to_string()),
            (Self::Tcp(_), _) => Err("is asked for a path, but the listener is on TCP".to_owned()),
            (Self::Unix(_), _) => Err("is asked for host or port, but the listener is a Unix socket".to_owned()),
        }
    }
}

/// A program on this machine reaches a listener on all addresses by the loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: &str, address: &str) -> Reached {
        Reached { listener: Name::new(name), address: Address::Tcp(address.parse().unwrap()) }
    }

    fn put_in(value: &str, listeners: &[Reached]) -> Result<String, Error> {
        let variable: Variable = format!("URL={value}").parse().unwrap();
        Ok(resolve(&[variable], listeners)?.remove(0).1)
    }

    #[test]
    fn references_become_addresses() {
        let socket = Reached { listener: Name::new("sock"), address: Address::Unix("/run/app.sock".into()) };
        let listeners = [
            tcp("db", "127.0.0.1:5432"),
            tcp("db.example.com", "[::1]:6432"),
            tcp("all", "0.0.0.0:80"),
            tcp("all6", "[::]:80"),
            tcp("port", "127.0.0.2:1"),
            socket,
        ];
        for (value, wanted) in [
            ("postgres://app@{listener.db}/x", "postgres://app@127.0.0.1:5432/x"),
            ("{listener.db.host} {listener.db.port}", "127.0.0.1 5432"),
            ("{listener.db.example.com}", "[::1]:6432"),
            ("{listener.db.example.com.host}", "::1"),
            ("{listener.all}", "127.0.0.1:80"),
            ("{listener.all6}", "[::1]:80"),
            // A listener whose name is that of a part.
            ("{listener.port}", "127.0.0.2:1"),
            ("{listener.port.port}", "1"),
            ("{listener.sock} {listener.sock.path}", "/run/app.sock /run/app.sock"),
            ("{{\"a\":{{}}}} }}{{", "{\"a\":{}} }{"),
            ("a=b=c", "a=b=c"),
            ("", ""),
        ] {
            assert_eq!(put_in(value, &listeners).as_deref(), Ok(wanted), "{value}");
        }
    }

    #[test]
    fn the_only_listener_needs_no_name() {
        let only = [tcp("127.0.0.1:0", "127.0.0.1:4000")];
        for (value, wanted) in [
            ("{listener}", "127.0.0.1:4000"),
            ("{listener.port}", "4000"),
            ("{listener.host}", "127.0.0.1"),
            ("{listener.127.0.0.1:0}", "127.0.0.1:4000"),
        ] {
            assert_eq!(put_in(value, &only).as_deref(), Ok(wanted), "{value}");
        }
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        let listeners = [tcp("db", "127.0.0.1:1"), tcp("cache", "127.0.0.1:2")];
        for value in [
            "{listener}",
            "{listener.port}",
            "{listener.dv}",
            "{listener.db.path}",
            "{HOME}",
            "{}",
            "{listener.db.}",
            "{listenerdb}",
        ] {
            let error = put_in(value, &listeners).unwrap_err();
            assert_eq!(error.reason(), "unknown_reference");
            assert!(error.to_string().contains(value), "{error}");
        }
        for text in ["NAME", "=x", "", "A={", "A=}", "A={x", "A={{}", "A=x}}}"] {
            assert!(text.parse::<Variable>().is_err(), "{text}");
        }
    }
}
