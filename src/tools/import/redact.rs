//! Masks: hosts, addresses, paths and whatever may be a secret are replaced in the input, so that nothing that is
//! made of it can show them. The same text gets the same mask, so that what belonged together still does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Source;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::words;
use crate::tools::import::stunnel::read::{Line, LineKind};

pub(super) fn tree(tree: &mut [Directive]) {
    let mut masks = Masks::default();
    masks.directives(tree, false);
}

pub(super) fn lines(lines: &mut [Line]) {
    let mut masks = Masks::default();
    for line in lines {
        match &mut line.kind {
            LineKind::Service(text) | LineKind::Other(text) => *text = masks.literal(text),
            LineKind::Option(name, value) => {
                if !is_word(name) {
                    *name = masks.literal(name);
                }
                if !STUNNEL_WORDS.contains(&value.to_ascii_lowercase().as_str()) {
                    *value = masks.literal(value);
                }
            }
        }
    }
}

pub(super) fn sources(sources: &mut [Source]) {
    for (number, source) in sources.iter_mut().enumerate() {
        let text = source.text().to_owned();
        *source = Source::new(&format!("file-{}", number + 1), &text);
    }
}

/// Each text with its mask.
#[derive(Debug, Default)]
pub(super) struct Masks {
    known: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Masks {
    fn directives(&mut self, tree: &mut [Directive], entries: bool) {
        for directive in tree {
            let name = directive.name.text.clone();
            if entries || !words::is_known(&name) {
                directive.name.text = self.word(&name);
            }
            for word in &mut directive.arguments {
                word.text = self.word(&word.text);
            }
            let entries = ["map", "geo", "types", "split_clients"].contains(&name.as_str());
            if let Some(block) = &mut directive.block {
                self.directives(block, entries);
            }
        }
    }

    /// Words of nginx's own language stay.
    pub(super) fn word(&mut self, text: &str) -> String {
        if is_language(text) {
            return text.to_owned();
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let path = match path {
                _ if path.contains('$') => self.with_variables(path),
                "" | "/" => path.to_owned(),
                path => self.path(path),
            };
            return format!("{}://{}{path}", self.literal(scheme), self.word(authority));
        }
        if let Some((key, value)) = text.split_once('=').filter(|(key, _)| is_word(key)) {
            return format!("{key}={}", self.word(value));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return format!("unix:{}", self.path(path));
        }
        if let Some(text) = text.strip_prefix("*.") {
            return format!("*.{}", self.word(text));
        }
        if text.starts_with('~') {
            return format!("~{}", self.mask(text, "pattern", |number| format!("pattern-{number}")));
        }
        if text.contains('$') {
            return self.with_variables(text);
        }
        self.literal(text)
    }

    fn literal(&mut self, text: &str) -> String {
        if text.is_empty() || is_language(text) || text == "/" {
            return text.to_owned();
        }
        if let Some((host, port)) = text.rsplit_once(':').filter(|(host, port)| is_port(port) && !host.contains('/')) {
            return match text.parse::<SocketAddr>() {
                Ok(address) => SocketAddr::new(self.address(address.ip()), address.port()).to_string(),
                Err(_) => format!("{}:{port}", self.literal(host)),
            };
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let mask = self.address(ip);
            return if text.starts_with('[') { format!("[{mask}]") } else { mask.to_string() };
        }
        if let Some((ip, length)) = text.split_once('/')
            && let (Ok(ip), Ok(length)) = (ip.parse::<IpAddr>(), length.parse::<u8>())
        {
            let mask = ipnet::IpNet::new(self.address(ip), length);
            return mask.map_or_else(|_| text.to_owned(), |network| network.trunc().to_string());
        }
        let path =
            text.contains('/') || [".pem", ".crt", ".key", ".conf", ".sock"].iter().any(|end| text.ends_with(end));
        if path {
            return self.path(text);
        }
        let host = text.contains('.') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        match host {
            true => self.mask(text, "host", |number| format!("host-{number}.example.com")),
            false => self.mask(text, "name", |number| format!("name-{number}")),
        }
    }

    fn path(&mut self, text: &str) -> String {
        let end = text.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, end)| end);
        let end = end.filter(|end| ["pem", "crt", "key", "crl", "sock", "conf", "p12", "log"].contains(end));
        let end = end.map(|end| format!(".{end}")).unwrap_or_default();
        let start = if text.starts_with('/') { "/" } else { "" };
        self.mask(text, "path", |number| format!("{start}path-{number}{end}"))
    }

    fn address(&mut self, ip: IpAddr) -> IpAddr {
        if ip.is_loopback() || ip.is_unspecified() {
            return ip;
        }
        let text = self.mask(&ip.to_string(), "address", |number| match ip {
            // Documentation blocks, one after the other (RFC 5737), then what is left of the first.
            IpAddr::V4(_) => {
                let blocks = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
                let [a, b, c] = blocks[(number - 1) / 254 % blocks.len()];
                Ipv4Addr::new(a, b, c, u8::try_from((number - 1) % 254 + 1).unwrap_or(1)).to_string()
            }
            IpAddr::V6(_) => {
                let low = u16::try_from(number % 65_536).unwrap_or(1);
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low).to_string()
            }
        });
        text.parse().unwrap_or(ip)
    }

    /// Variables of nginx keep their names; everything else is masked.
    fn with_variables(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (literal, variable) = rest.split_at(at);
            out += &self.piece(literal);
            let inner = variable[1..].trim_start_matches('{');
            let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
            let name = &inner[..end];
            out += "${";
            // What follows these is what a person called a header, an argument or a cookie.
            let chosen = CHOSEN.iter().find_map(|start| Some((start, name.strip_prefix(start)?)));
            if let Some((start, rest)) = chosen.filter(|(_, rest)| !["host", "upgrade"].contains(rest)) {
                out += start;
                out += &self.mask(rest, "variable", |number| format!("variable_{number}"));
            } else if VARIABLES.iter().any(|known| name.starts_with(known)) || name.is_empty() {
                out += name;
            } else {
                out += &self.mask(&format!("${name}"), "variable", |number| format!("variable_{number}"));
            }
            out.push('}');
            rest = inner[end..].strip_prefix('}').unwrap_or_else(|| &inner[end..]);
        }
        // `$name` alone is what `set` and `map` want to see.
        let out = out + &self.piece(rest);
        match out.strip_prefix("${").and_then(|out| out.strip_suffix('}')).filter(|out| !out.contains('$')) {
            Some(name) => format!("${name}"),
            None => out,
        }
    }

    /// Between variables: signs stay, words are masked.
    fn piece(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut word = String::new();
        for letter in text.chars().chain(std::iter::once('\0')) {
            if letter.is_ascii_alphanumeric() || letter == '_' || letter == '-' {
                word.push(letter);
                continue;
            }
            let taken = std::mem::take(&mut word);
            if !taken.is_empty() {
                out += &if is_language(&taken) || is_port(&taken) { taken } else { self.literal(&taken) };
            }
            if letter != '\0' {
                out.push(letter);
            }
        }
        out
    }

    fn mask(&mut self, text: &str, kind: &'static str, make: impl Fn(usize) -> String) -> String {
        // Hosts are compared without regard to case.
        let key = format!("{kind} {}", text.to_ascii_lowercase());
        if let Some(mask) = self.known.get(&key) {
            return mask.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let mask = make(*count);
        self.known.insert(key, mask.clone());
        mask
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 11 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Numbers, times and sizes, and the words that settings are made of.
fn is_language(text: &str) -> bool {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = digits > 0 && ["", "s", "m", "h", "d", "ms", "k", "K", "M", "g", "r/s"].contains(&&text[digits..]);
    number || WORDS.contains(&text)
}

/// Words of nginx's language as arguments, which identify nobody.
const WORDS: &[&str] = &[
    "on",
    "off",
    "any",
    "all",
    "auto",
    "none",
    "default",
    "hostnames",
    "volatile",
    "backup",
    "down",
    "resolve",
    "ssl",
    "udp",
    "tcp",
    "http2",
    "quic",
    "proxy_protocol",
    "default_server",
    "reuseport",
    "deferred",
    "bind",
    "transparent",
    "optional",
    "local",
    "consistent",
    "two",
    "least_conn",
    "error",
    "timeout",
    "non_idempotent",
    "http",
    "https",
    "grpc",
    "grpcs",
    "uwsgi",
    "suwsgi",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.1",
    "TLSv1.2",
    "TLSv1.3",
    "HIGH",
    "MEDIUM",
    "LOW",
    "Host",
    "host",
    "Upgrade",
    "upgrade",
    "Connection",
    "close",
    "Curves",
    "Groups",
    "Options",
    "localhost",
    "*",
    "=",
    "~",
    "~*",
    "^~",
    "@",
    "_",
    "info",
    "notice",
    "warn",
    "debug",
    "epoll",
    "postgresql",
    "h2",
    "http/1.1",
    "1.1",
    "1.0",
    "SO_KEEPALIVE",
    "8080",
];

/// Values of stunnel's options that identify nobody.
const STUNNEL_WORDS: &[&str] = &[
    "yes",
    "no",
    "pgsql",
    "smtp",
    "imap",
    "pop3",
    "nntp",
    "ldap",
    "proxy",
    "connect",
    "socks",
    "cifs",
    "prio",
    "rr",
    "all",
    "tlsv1.2",
    "tlsv1.3",
    "tlsv1.1",
    "tlsv1",
    "sslv3",
    "none",
    "source",
    "destination",
    "both",
];

/// Prefixes of variables whose rest a person chooses.
const CHOSEN: &[&str] = &["http_", "arg_", "cookie_", "upstream_http_", "sent_http_", "upstream_cookie_"];

/// Prefixes of nginx's own variables.
const VARIABLES: &[&str] = &[
    "ssl_",
    "remote_addr",
    "binary_remote_addr",
    "server_",
    "host",
    "http_",
    "proxy_",
    "request",
    "uri",
    "args",
    "is_args",
    "upstream_",
    "scheme",
    "arg_",
    "cookie_",
    "time_",
    "status",
    "bytes_",
    "protocol",
    "session_time",
    "connection",
    "document_",
    "remote_",
    "realip_",
    "msec",
    "pid",
    "hostname",
    "body_",
    "query_string",
];
