//! A configuration typed as arguments: the same tables, the same checks, problems that point at the argument.

use std::sync::Arc;

use crate::config::file::{File, Identity, List, Listed, Listener, Tls, Trust, Upstream};
use crate::config::formats::Reference;
use crate::config::load::{Loaded, finish};
use crate::config::problems::Problems;
use crate::config::read::{Given, Key, Named, Reader, Text};
use crate::config::source::{COMMAND_LINE, Source, Span};
use crate::config::terms::{Name, Server};

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
}

/// The one name that identity, trust and upstream have, and the label of their metrics.
const NAME: &str = "default";
/// Understands arguments.
///
/// # Errors
/// Everything that is wrong with them.
pub fn from_flags(flags: &Flags) -> Result<Loaded, Problems> {
    let (line, arguments) = Line::of(flags);
    let source = Arc::new(Source::new(COMMAND_LINE, &line));
    // A shell has put the variables in; a `${` that is left is meant.
    let mut reader = Reader::new(&source, &|_| None);
    let file = arguments.file(&mut reader);
    let (problems, _) = reader.finish();
    finish(source, file, problems)
}

struct Arguments<'a> {
    listen: Argument<'a>,
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
    fn file(&self, reader: &mut Reader<'_>) -> File {
        // A key without its certificate is reported as such, and not dropped.
        let own = [&self.cert, &self.key, &self.password_file];
        let identity = own.iter().any(|given| !given.is_empty()).then(|| self.identity(reader));
        let trust = (!self.trust.is_empty()).then(|| Trust { roots: all(&self.trust, reader), ..Trust::default() });
        let tls = Tls {
            identity: if identity.is_some() { name() } else { Given::Absent },
            trust: if trust.is_some() { name() } else { Given::Absent },
            server_name: one(&self.server_name, reader),
            ..Tls::default()
        };
        File {
            identities: named(identity),
            trust: named(trust),
            upstreams: named(Some(self.upstream(tls, reader))),
            listeners: unplaced(vec![unplaced(self.listener(reader))]),
            ..File::default()
        }
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
        let (span, address) = &self.listen;
        let listen = reader.text(span.clone(), address);
        let allow = all(&self.allow, reader);
        Listener { listen, allow, upstream: name(), ..Listener::default() }
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

fn name() -> Given<Reference> {
    unplaced(Reference(Name::new(NAME)))
}

fn named<T>(section: Option<T>) -> Given<Named<T>> {
    let key = Key { name: Name::new(NAME), at: 0..0 };
    section.map_or(Given::Absent, |section| unplaced(Named(vec![(key, unplaced(section))])))
}

fn unplaced<T>(value: T) -> Given<T> {
    Given::Value(0..0, value)
}

/// The command line as it could have been typed, and where each value stands in it.
struct Line {
    text: String,
}

impl Line {
    fn of(flags: &Flags) -> (String, Arguments<'_>) {
        let mut line = Self { text: "egret run".to_owned() };
        let arguments = Arguments {
            listen: line.put("--listen", &flags.listen),
            to: line.put_all("--to", &flags.to),
            cert: line.put_all("--cert", &flags.cert),
            key: line.put_all("--key", &flags.key),
            password_file: line.put_all("--password-file", &flags.password_file),
            server_name: line.put_all("--server-name", &flags.server_name),
            trust: line.put_all("--trust", &flags.trust),
            upgrade: line.put_all("--upgrade", &flags.upgrade),
            allow: line.put_all("--allow", &flags.allow),
        };
        (line.text, arguments)
    }

    fn put<'a>(&mut self, flag: &str, value: &'a str) -> Argument<'a> {
        self.text.push(' ');
        self.text.push_str(flag);
        self.text.push(' ');
        let start = self.text.len();
        // One line, whatever the value holds: the line is drawn, never run.
        self.text.extend(value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        (start..self.text.len(), value)
    }

    fn put_all<'a>(&mut self, flag: &str, values: impl IntoIterator<Item = &'a String>) -> Vec<Argument<'a>> {
        values.into_iter().map(|value| self.put(flag, value)).collect()
    }
}
