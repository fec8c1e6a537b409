//! Real clients of every protocol, and the class in what they print: no server, a server that is not trusted, one that
//! refuses the client certificate, and a drain.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{HOST, egret, sections};
use crate::support::egret::{Egret, Settings};
use crate::support::mariadb::{self, MariaDb, mariadb};
use crate::support::peer::{Peer, accepted, echo, mutual};
use crate::support::pki::Pki;
use crate::support::postgres::{Postgres, pgbench, psql};
use crate::support::process::attempt;
use crate::support::redis::Redis;
use crate::support::{eventually, free_port};

const REFUSED: &str = "connect_refused";
const UNTRUSTED: &str = "certificate_unknown_issuer";
const REJECTED: &str = "client_certificate_rejected";

/// A client, by its arguments: the port and what it is run for.
type Client<'a> = (&'a str, &'a dyn Fn(u16) -> Command);

/// Runs each client against an upstream that fails in each of three ways: its output has the class, and the log too.
fn every_client_prints_the_class(pki: &Pki, port: u16, keys: &str, clients: &[Client<'_>]) {
    let stranger = Pki::new();
    let own = pki.client("app");
    let foreign = stranger.client("app");
    for (class, trust, client, port) in
        [(REFUSED, pki, &own, free_port()), (UNTRUSTED, &stranger, &own, port), (REJECTED, pki, &foreign, port)]
    {
        for (name, command) in clients {
            let egret = egret(trust, client, port, keys);
            let output = attempt(&mut command(egret.address("db").port()));
            let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(shown.contains(&format!("egret: {class}: ")), "{name}, {class}: {shown}\n{}", egret.log_text());
            assert!(shown.contains("listener db"), "{name}, {class}: {shown}");
            egret.wait_for_log(class, |line| line["message"] == "connection" && line["ended"] == class);
        }
    }
}

/// A program for Python's clients, with its port. Debian's Python, which has Debian's packages.
fn python(program: &'static str) -> impl Fn(u16) -> Command {
    move |port| {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-W", "ignore", "-c", &program.replace("PORT", &port.to_string())]);
        command
    }
}

#[test]
fn clients_of_postgres_print_the_class() {
    let pki = Pki::new();
    let postgres = Postgres::start(&pki, &pki.server(&[HOST]));
    let psycopg = python(
        "import psycopg2\n\
         psycopg2.connect(host='127.0.0.1', port=PORT, user='app', dbname='postgres', connect_timeout=10)",
    );
    let clients: [Client<'_>; 4] = [
        ("psql", &|port| psql(port, "disable", "select 1")),
        ("psql that asks for TLS first", &|port| psql(port, "prefer", "select 1")),
        ("pgbench", &|port| pgbench(port, &["-S", "-t", "1"])),
        ("psycopg", &psycopg),
    ];
    every_client_prints_the_class(&pki, postgres.port, "upgrade = \"postgres\"", &clients);
}

#[test]
fn curl_prints_the_class_with_answer_http() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    let curl = |more: &'static [&'static str]| {
        move |port: u16| {
            let mut command = Command::new("curl");
            command.args(["--silent", "--show-error", "--include", "--noproxy", "*"]).args(more);
            command.arg(format!("http://127.0.0.1:{port}/"));
            command
        }
    };
    let (get, post) = (curl(&[]), curl(&["--data", "a=b"]));
    let clients: [Client<'_>; 2] = [("curl", &get), ("curl with a body", &post)];
    every_client_prints_the_class(&pki, redis.port, "answer = \"http\"", &clients);
}

#[test]
fn redis_cli_prints_the_class_with_answer_redis() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    every_client_prints_the_class(&pki, redis.port, "answer = \"redis\"", &[("redis-cli", &redis_cli)]);
}

/// In these protocols the server speaks first: the client has said nothing when it is answered.
const FIRST_READERS: [(&str, &str); 7] = [
    ("smtp", "import smtplib; smtplib.SMTP('127.0.0.1', PORT)"),
    ("smtp", "import smtplib; smtplib.LMTP('127.0.0.1', PORT)"),
    ("imap", "import imaplib; imaplib.IMAP4('127.0.0.1', PORT)"),
    ("pop3", "import poplib; poplib.POP3('127.0.0.1', PORT)"),
    ("ftp", "import ftplib; ftplib.FTP().connect('127.0.0.1', PORT)"),
    ("nntp", "import nntplib; nntplib.NNTP('127.0.0.1', PORT)"),
    ("sieve", SIEVE),
];

/// Reads the capabilities (RFC 5804 section 1.7), and raises what it gets in their place.
const SIEVE: &str = "\
import socket
for line in socket.create_connection(('127.0.0.1', PORT), 30).makefile('r'):
    if line.split(' ')[0] in ('BYE', 'NO'):
        raise ConnectionError(line)
";

/// Opens a stream (RFC 6120 section 4.2), reads it as XML, and raises the text of a stream error.
const XMPP: &str = "\
import socket, xml.etree.ElementTree as xml
s = socket.create_connection(('127.0.0.1', PORT), 30)
s.sendall(b\"<?xml version='1.0'?><stream:stream to='example.com' version='1.0' xmlns='jabber:client' \"
          b\"xmlns:stream='http://etherx.jabber.org/streams'>\")
parser = xml.XMLPullParser(['end'])
while more := s.recv(4096):
    parser.feed(more)
    for _, element in parser.read_events():
        if element.tag == '{http://etherx.jabber.org/streams}error':
            raise ConnectionError([element[0].tag, element.findtext('{urn:ietf:params:xml:ns:xmpp-streams}text')])
";

fn redis_cli(port: u16) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "get", "key"]);
    command
}

fn ldap(tool: &'static str) -> impl Fn(u16) -> Command {
    move |port| {
        let mut command = Command::new(tool);
        command.args(["-x", "-o", "nettimeout=30", "-H", &format!("ldap://127.0.0.1:{port}")]);
        command
    }
}

#[test]
fn clients_of_mail_files_and_news_print_the_class() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    for (answer, program) in FIRST_READERS {
        let client = python(program);
        every_client_prints_the_class(&pki, redis.port, &format!("answer = \"{answer}\""), &[(program, &client)]);
    }
}

/// A directory that agrees to StartTLS (RFC 4511 section 4.14), and lets in clients with a certificate of the authority.
fn directory(pki: &Pki) -> Peer {
    let tls = mutual(&pki.server(&[HOST]), pki);
    Peer::start(move |mut tcp| {
        let success = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0";
        if tcp.read(&mut [0; 64]).is_ok_and(|length| length > 0) && tcp.write_all(success).is_ok() {
            echo(accepted(tcp, &tls));
        }
    })
}

/// OpenLDAP's clients show nothing of a Notice of Disconnection: the answer has to be that to their request, also when the
/// request is on its way to the server already.
#[test]
fn clients_of_directories_print_the_class() {
    let pki = Pki::new();
    let server = directory(&pki);
    let (who, search) = (ldap("ldapwhoami"), ldap("ldapsearch"));
    let tools: [Client<'_>; 2] = [("ldapwhoami", &who), ("ldapsearch", &search)];
    every_client_prints_the_class(&pki, server.address.port(), "upgrade = \"ldap\"", &tools);
}

#[test]
fn clients_of_presence_print_the_class() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    let xmpp = python(XMPP);
    every_client_prints_the_class(&pki, redis.port, "answer = \"xmpp\"", &[("xmpp", &xmpp)]);
}

const PYMYSQL: &str = "import os, pymysql; pymysql.connect(host='127.0.0.1', port=int(os.environ['PORT']), user='app')";
/// MySQL's own C library, and its implementation in Python.
const CONNECTOR_C: &str = "\
import os, mysql.connector
mysql.connector.connect(host='127.0.0.1', port=int(os.environ['PORT']), user='app', ssl_disabled=True, use_pure=False)";
const CONNECTOR_PURE: &str = "\
import os, mysql.connector
mysql.connector.connect(host='127.0.0.1', port=int(os.environ['PORT']), user='app', ssl_disabled=True, use_pure=True)";

fn mysql_client(port: u16) -> Command {
    mariadb(port, "app", &["--execute=select 1"])
}

/// With a server that is there, the client has read its greeting, and the error has a number further on.
#[test]
fn clients_of_mysql_print_the_class() {
    let pki = Pki::new();
    let server = MariaDb::start(&pki, &pki.server(&[HOST]));
    let clients: [Client<'_>; 4] = [
        ("mariadb", &mysql_client),
        ("PyMySQL", &|port| mariadb::python(port, PYMYSQL)),
        ("mysql-connector-python with MySQL's C library", &|port| mariadb::python(port, CONNECTOR_C)),
        ("mysql-connector-python", &|port| mariadb::python(port, CONNECTOR_PURE)),
    ];
    every_client_prints_the_class(&pki, server.port, "upgrade = \"mysql\"", &clients);
}

/// A greeting of MySQL that offers TLS; then the server is silent.
const MYSQL: &[u8] = b"\x51\0\0\0\x0a8.4.0-example\0\x07\0\0\0abcdefgh\0\0\x8a\xaf\x02\0\x08\0\x15\
    \0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0";

/// The client has spoken as far as it can, and waits for a server that never begins TLS.
fn drained(pki: &Pki, port: u16, keys: &str, name: &str, command: &dyn Fn(u16) -> Command) {
    let keys = format!("{keys}\noriginate_timeout = \"60s\"");
    let settings = Settings { drain_timeout: "1s", ..Settings::default() };
    let egret = Egret::start_with(settings, &sections(pki, &pki.client("app"), port, &keys));
    let mut command = command(egret.address("db").port());
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the client to be served", || {
        (egret.metrics().sum("egret_connections_active", &[]) >= 1.0).then_some(())
    });
    egret.signal(Signal::TERM);
    let output = client.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(shown.contains("egret: drained: egret stops"), "{name}: {shown}\n{}", egret.log_text());
}

/// A server that never begins TLS, keys of the upstream, and a client with its name.
type Waiting<'a> = (&'a Peer, String, &'a str, &'a dyn Fn(u16) -> Command);

#[test]
fn clients_of_every_protocol_print_that_egret_stops() {
    let pki = Pki::new();
    let mute = Peer::start(|mut tcp| {
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    let greeting = Peer::start(|mut tcp| {
        let _ = tcp.write_all(MYSQL);
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    let curl = |port: u16| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", &format!("http://127.0.0.1:{port}/")]);
        command
    };
    let psql = |port: u16| psql(port, "disable", "select 1");
    let (who, xmpp) = (ldap("ldapwhoami"), python(XMPP));
    let mut clients: Vec<Waiting<'_>> = vec![
        (&mute, "upgrade = \"postgres\"".into(), "psql", &psql),
        (&mute, "answer = \"http\"".into(), "curl", &curl),
        (&mute, "answer = \"redis\"".into(), "redis-cli", &redis_cli),
        (&mute, "upgrade = \"ldap\"".into(), "ldapwhoami", &who),
        (&mute, "upgrade = \"xmpp\"".into(), "xmpp", &xmpp),
        (&mute, "upgrade = \"mysql\"".into(), "mariadb before a greeting", &mysql_client),
        (&greeting, "upgrade = \"mysql\"".into(), "mariadb", &mysql_client),
        (&greeting, "upgrade = \"mysql\"".into(), "PyMySQL", &|port| mariadb::python(port, PYMYSQL)),
        (&greeting, "upgrade = \"mysql\"".into(), "connector, C", &|port| mariadb::python(port, CONNECTOR_C)),
        (&greeting, "upgrade = \"mysql\"".into(), "connector", &|port| mariadb::python(port, CONNECTOR_PURE)),
    ];
    let readers = FIRST_READERS.map(|(answer, program)| (format!("answer = \"{answer}\""), program, python(program)));
    clients.extend(readers.iter().map(|(keys, name, command)| (&mute, keys.clone(), *name, command as _)));
    for (peer, keys, name, command) in clients {
        drained(&pki, peer.address.port(), &keys, name, command);
    }
}
