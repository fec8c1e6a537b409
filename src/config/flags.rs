//! A configuration typed as arguments, or set by variables of the environment: the same tables, the same checks, problems
//! that point at the argument or the variable.

use std::sync::Arc;

use crate::config::file::{Admin, File, Identity, List, Listed, Listener, Tls, Trust, Upstream};
use crate::config::formats::Reference;
use crate::config::load::{Loaded, finish};
use crate::config::problems::{Problem, Problems};
use crate::config::read::{Given, Key, Named, OneOrMany, Reader, Text};
use crate::config::source::{COMMAND_LINE, ENVIRONMENT, Source, Span};
use crate::config::terms::{Name, Server};
use crate::config::variables::Variables;
use crate::protocols::Upgrade;

/// What arguments can set. Paths are relative to the working folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`: an address and port, or `unix:/path`.
    pub listen: String,
    /// `--to`: servers with their ports.
    pub to: Vec<String>,
    /// `--cert`: the client certificate.
    pub cert: Option<String>,
    /// `--key`: its private key; default: in the file of the certificate.
    pub key: Option<String>,
    /// `--password-file`: its first line is the password of the key.
    pub password_file: Option<String>,
    /// `--server-name`: default, the host of each server.
    pub server_name: Option<String>,
    /// `--trust`: files and folders with root certificates; default: the roots of the system.
    pub trust: Vec<String>,
    /// `--upgrade`: the protocol spoken before TLS begins.
    pub upgrade: Option<String>,
    /// `--allow`: networks whose clients are allowed.
    pub allow: Vec<String>,
    /// `--admin`: the address of the admin endpoint, of the whole process.
    pub admin: Option<String>,
}

/// One tunnel of several, by the variables `EGRET_TUNNEL_NAME_...`; or without a name, by `EGRET_...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) name: Option<String>,
    /// What the names of its variables begin with.
    pub(crate) prefix: String,
    pub(crate) flags: Flags,
}

/// The name that the sections of a tunnel without one have, and the label of their metrics.
const NAME: &str = "default";

/// Understands arguments.
///
/// # Errors
/// Everything that is wrong with them.
pub fn from_flags(flags: &Flags) -> Result<Loaded, Problems> {
    let flags = of_urls(flags);
    let mut line = Line::new("egret run");
    let admin = line.put("--admin", &flags.admin);
    let arguments = line.arguments(None, &flags);
    let source = Arc::new(Source::new(COMMAND_LINE, &line.text));
    load(source, &[arguments], &admin, Vec::new())
}

/// Understands variables. No message shows a value: a key may have been put where its file is meant. `problems` were
/// found before.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn from_variables(tunnels: &[Tunnel], mut problems: Vec<Problem>) -> Result<Loaded, Problems> {
    if tunnels.is_empty() && problems.is_empty() {
        let repair = "name a file, use `--listen` and `--to`, or set `EGRET_LISTEN` and `EGRET_TO`";
        problems.push(Problem::of_file("there is no configuration", repair));
    }
    let mut line = Line::new("");
    let mut admin = Vec::new();
    let mut arguments = Vec::new();
    let flags: Vec<Flags> = tunnels.iter().map(|tunnel| of_urls(&tunnel.flags)).collect();
    for (tunnel, flags) in tunnels.iter().zip(&flags) {
        line.prefix = Some(tunnel.prefix.clone());
        admin.extend(line.put("--admin", &flags.admin));
        arguments.push(line.arguments(tunnel.name.as_deref(), flags));
    }
    let source = Source::new(ENVIRONMENT, &line.text).with_variables(line.variables);
    load(Arc::new(source), &arguments, &admin, problems)
}

fn load(
    source: Arc<Source>,
    tunnels: &[Arguments<'_>],
    admin: &[Argument<'_>],
    mut problems: Vec<Problem>,
) -> Result<Loaded, Problems> {
    // A shell has put the variables in; a `${` that is left is meant.
    let mut reader = Reader::new(&source, &|_| None);
    let mut file = File::default();
    let mut sections = Sections::default();
    tunnels.iter().for_each(|tunnel| sections.add(tunnel, &mut reader));
    if !admin.is_empty() {
        let listen = one(admin, &mut reader);
        file.admin = unplaced(OneOrMany(vec![unplaced(Admin { listen, ..Admin::default() })]));
    }
    file.identities = named(sections.identities);
    file.trust = named(sections.trust);
    file.upstreams = named(sections.upstreams);
    file.listeners = unplaced(sections.listeners);
    let (found, _) = reader.finish();
    problems.extend(found);
    match problems.is_empty() || !tunnels.is_empty() {
        true => finish(source, file, problems),
        false => Err(Problems::new(source, problems)),
    }
}

type Entry<T> = (Key, Given<T>);

#[derive(Default)]
struct Sections {
    identities: Vec<Entry<Identity>>,
    trust: Vec<Entry<Trust>>,
    upstreams: Vec<Entry<Upstream>>,
    listeners: Vec<Given<Listener>>,
}

impl Sections {
    fn add(&mut self, tunnel: &Arguments<'_>, reader: &mut Reader<'_>) {
        let key = || Key { name: tunnel.section(), at: 0..0 };
        // A key without its certificate is reported as such, and not dropped.
        let own = [&tunnel.cert, &tunnel.key, &tunnel.password_file];
        let identity = own.iter().any(|given| !given.is_empty()).then(|| tunnel.identity(reader));
        let trust = (!tunnel.trust.is_empty()).then(|| Trust { roots: all(&tunnel.trust, reader), ..Trust::default() });
        let tls = Tls {
            identity: if identity.is_some() { tunnel.reference() } else { Given::Absent },
            trust: if trust.is_some() { tunnel.reference() } else { Given::Absent },
            server_name: one(&tunnel.server_name, reader),
            ..Tls::default()
        };
        self.identities.extend(identity.map(|section| (key(), unplaced(section))));
        self.trust.extend(trust.map(|section| (key(), unplaced(section))));
        self.upstreams.push((key(), unplaced(tunnel.upstream(tls, reader))));
        self.listeners.push(unplaced(tunnel.listener(reader)));
    }
}

/// `--to postgres://db.example.com` is `--upgrade postgres --to db.example.com:5432`. URLs of another protocol than the
/// first stay as they are, and are reported as no server; so are those with more than host and port in them.
fn of_urls(flags: &Flags) -> Flags {
    let mut flags = flags.clone();
    let mut protocol = flags.upgrade.as_deref().and_then(Upgrade::of);
    for to in &mut flags.to {
        let Some((scheme, rest)) = to.split_once("://") else { continue };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let Some(row) = Upgrade::of_scheme(scheme).filter(|row| protocol.is_none_or(|other| other == *row)) else {
            continue;
        };
        if host.is_empty() || host.contains(['/', '@', '?']) {
            continue;
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
        *to = if has_port { host.to_owned() } else { format!("{host}:{}", row.port) };
        protocol = Some(row);
    }
    flags.upgrade = flags.upgrade.or_else(|| protocol.map(|protocol| protocol.word.to_owned()));
    flags
}

struct Arguments<'a> {
    name: Option<&'a str>,
    listen: Vec<Argument<'a>>,
    to: Vec<Argument<'a>>,
    cert: Vec<Argument<'a>>,
    key: Vec<Argument<'a>>,
    password_file: Vec<Argument<'a>>,
    server_name: Vec<Argument<'a>>,
    trust: Vec<Argument<'a>>,
    upgrade: Vec<Argument<'a>>,
    allow: Vec<Argument<'a>>,
}

impl Arguments<'_> {
    fn section(&self) -> Name {
        Name::new(self.name.unwrap_or(NAME))
    }

    fn reference(&self) -> Given<Reference> {
        unplaced(Reference(self.section()))
    }

    fn identity(&self, reader: &mut Reader<'_>) -> Identity {
        Identity {
            certificate: one(&self.cert, reader),
            private_key: one(&self.key, reader),
            password_file: one(&self.password_file, reader),
            ..Identity::default()
        }
    }

    fn upstream(&self, tls: Tls, reader: &mut Reader<'_>) -> Upstream {
        let servers = servers(&self.to, reader);
        let upgrade = one(&self.upgrade, reader);
        Upstream { servers, upgrade, tls: unplaced(tls), ..Upstream::default() }
    }

    fn listener(&self, reader: &mut Reader<'_>) -> Listener {
        let listen = one(&self.listen, reader);
        let allow = all(&self.allow, reader);
        let name = self.name.map_or(Given::Absent, |name| unplaced(Name::new(name)));
        Listener { name, listen, allow, upstream: self.reference(), ..Listener::default() }
    }
}

type Argument<'a> = (Span, &'a str);

fn one<T: Text>(arguments: &[Argument<'_>], reader: &mut Reader<'_>) -> Given<T> {
    match arguments.first() {
        Some((span, text)) => reader.text(span.clone(), text),
        None => Given::Absent,
    }
}

fn all<T: Text>(arguments: &[Argument<'_>], reader: &mut Reader<'_>) -> Given<List<T>> {
    let (Some((first, _)), Some((last, _))) = (arguments.first(), arguments.last()) else { return Given::Absent };
    let span = first.start..last.end;
    Given::Value(span, arguments.iter().map(|(span, text)| reader.text(span.clone(), text)).collect())
}

fn servers(arguments: &[Argument<'_>], reader: &mut Reader<'_>) -> Given<List<Listed>> {
    match all::<Server>(arguments, reader) {
        Given::Absent => Given::Absent,
        Given::Wrong => Given::Wrong,
        Given::Value(span, servers) => Given::Value(span, servers.into_iter().map(Given::from).collect()),
    }
}

/// Tables in the order of their names, by which they are found.
fn named<T>(mut entries: Vec<Entry<T>>) -> Given<Named<T>> {
    entries.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    if entries.is_empty() { Given::Absent } else { unplaced(Named(entries)) }
}

fn unplaced<T>(value: T) -> Given<T> {
    Given::Value(0..0, value)
}

/// The arguments as they could have been typed, or the variables with references in place of their values; and where each
/// value is in it.
struct Line {
    text: String,
    /// Of the names of variables. `None`: these are arguments.
    prefix: Option<String>,
    variables: Variables,
}

impl Line {
    fn new(start: &str) -> Self {
        Self { text: start.to_owned(), prefix: None, variables: Variables::default() }
    }

    fn arguments<'a>(&mut self, name: Option<&'a str>, flags: &'a Flags) -> Arguments<'a> {
        Arguments {
            name,
            listen: self.put("--listen", [&flags.listen]),
            to: self.put("--to", &flags.to),
            cert: self.put("--cert", &flags.cert),
            key: self.put("--key", &flags.key),
            password_file: self.put("--password-file", &flags.password_file),
            server_name: self.put("--server-name", &flags.server_name),
            trust: self.put("--trust", &flags.trust),
            upgrade: self.put("--upgrade", &flags.upgrade),
            allow: self.put("--allow", &flags.allow),
        }
    }

    fn put<'a>(&mut self, flag: &str, values: impl IntoIterator<Item = &'a String>) -> Vec<Argument<'a>> {
        match &self.prefix {
            None => values.into_iter().map(|value| self.put_argument(flag, value)).collect(),
            Some(prefix) => self.put_variable(&variable(prefix, flag), values),
        }
    }

    fn put_argument<'a>(&mut self, flag: &str, value: &'a str) -> Argument<'a> {
        self.text.push(' ');
        self.text.push_str(flag);
        self.text.push(' ');
        let start = self.text.len();
        // One line, whatever the value holds: the line is drawn, never run.
        self.text.extend(value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        (start..self.text.len(), value)
    }

    fn put_variable<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a String>) -> Vec<Argument<'a>> {
        let mut span = 0..0;
        let mut arguments = Vec::new();
        for value in values {
            if arguments.is_empty() {
                let gap = if self.text.is_empty() { "" } else { " " };
                let start = self.text.len() + gap.len() + name.len() + 1;
                self.text.push_str(&format!("{gap}{name}=${{{name}}}"));
                span = start..self.text.len();
            }
            self.variables.add(name, value);
            arguments.push((span.clone(), value.as_str()));
        }
        arguments
    }
}

/// The variable of a flag: `EGRET_` and the flag in capitals.
pub(crate) fn variable(prefix: &str, flag: &str) -> String {
    format!("{prefix}{}", flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(to: &[&str], upgrade: Option<&str>) -> Option<(Vec<String>, Option<&'static str>)> {
        let flags = Flags {
            listen: "127.0.0.1:1".to_owned(),
            to: to.iter().map(|&to| to.to_owned()).collect(),
            upgrade: upgrade.map(str::to_owned),
            ..Flags::default()
        };
        let upstream = from_flags(&flags).ok()?.config.upstreams.pop_first()?.1;
        let servers = upstream.servers.iter().map(ToString::to_string).collect();
        Some((servers, upstream.upgrade.map(|protocol| protocol.word)))
    }

    #[test]
    fn url_of_a_protocol_is_its_upgrade_and_its_port() {
        for protocol in Upgrade::all() {
            for scheme in protocol.schemes {
                let expected = (vec![format!("host.example.com:{}", protocol.port)], Some(protocol.word));
                assert_eq!(upstream(&[&format!("{scheme}://host.example.com")], None), Some(expected), "{scheme}");
            }
            let expected = (vec!["host.example.com:7".to_owned()], Some(protocol.word));
            assert_eq!(upstream(&["host.example.com:7"], Some(protocol.word)), Some(expected), "{}", protocol.word);
        }
        let both = (vec!["a.example.com:5432".to_owned(), "[2001:db8::1]:7".to_owned()], Some("postgres"));
        assert_eq!(upstream(&["postgres://a.example.com/", "postgresql://[2001:db8::1]:7"], None), Some(both));
    }

    #[test]
    fn url_with_a_password_or_of_another_protocol_is_refused() {
        for to in [
            &["postgres://app:secret@db.example.com"][..],
            &["postgres://db.example.com/app"],
            &["postgres://"],
            &["https://www.example.com"],
            &["postgres://db.example.com", "smtp://mail.example.com"],
        ] {
            assert_eq!(upstream(to, None), None, "{to:?}");
        }
        assert_eq!(upstream(&["postgres://db.example.com"], Some("smtp")), None);
    }
}
