//! Servers that do not speak TLS on this port, or not yet, or not as it was said.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use super::stage::{Case, HOST, explain, run};
use crate::support::egret::{Egret, listener};
use crate::support::nginx::Nginx;
use crate::support::peer::{Peer, accepted, anonymous, echo};
use crate::support::pki::Pki;
use crate::support::plain;
use crate::support::{free_port, loopback};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Says this to each client, and then nothing.
fn greeter(greeting: &'static [u8]) -> Peer {
    Peer::start(move |mut tcp| {
        let _ = tcp.write_all(greeting);
        let _ = tcp.read_to_end(&mut Vec::new());
    })
}

/// Whether a client asks for TLS in PostgreSQL's way. A ClientHello is taken whole, so that who is refused is
/// not reset.
fn asks_postgres(tcp: &mut TcpStream) -> bool {
    let mut first = [0; 8];
    let asks = tcp.read_exact(&mut first).is_ok() && first == SSL_REQUEST;
    if !asks {
        let _ = tcp.read(&mut [0; 4096]);
    }
    asks
}

#[test]
fn every_server_without_tls_is_recognised() {
    let port = free_port();
    let block = format!("server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }}");
    let _nginx = Nginx::start(&block, &[port]);
    let smtp = greeter(b"220 mail.example.com ESMTP ready\r\n");
    let ftp = greeter(b"220 FTP server ready\r\n");
    let imap = greeter(b"* OK IMAP4rev1 ready\r\n");
    let pop3 = greeter(b"+OK POP3 ready\r\n");
    let mysql = greeter(b"\x4a\x00\x00\x00\x0a8.0.36\0\x0b\x00\x00\x00abcdefgh\0\xff\xf7");
    let ssh = greeter(b"SSH-2.0-Example_1.0\r\n");
    let redis = Peer::start(|mut tcp| {
        let _ = tcp.read(&mut [0; 4096]);
        let _ = tcp.write_all(b"-ERR unknown command\r\n");
    });
    let postgres = Peer::start(|mut tcp| {
        if asks_postgres(&mut tcp) {
            let _ = tcp.write_all(b"N");
            let _ = tcp.read(&mut [0; 1]);
        }
    });
    let silent = greeter(b"");
    let closing = Peer::start(|mut tcp| drop(tcp.read(&mut [0; 4096])));

    let pki = Pki::new();
    let root = pki.root().display().to_string();
    let case = |address: std::net::SocketAddr, what, cause, more: &[&str]| {
        let address = address.to_string();
        Case::new(what, &[&[&address[..], "--server-name", HOST, "--ca", &root], more].concat(), cause).class("not_tls")
    };
    let in_nginx = run(vec![
        case(loopback(port), "HTTP", "plaintext_server", &[]),
        case(ssh.address, "SSH", "plaintext_server", &[]),
        case(redis.address, "Redis", "plaintext_server", &[]),
        case(smtp.address, "SMTP", "starttls_server", &[]),
        case(ftp.address, "FTP", "starttls_server", &[]),
        case(imap.address, "IMAP", "starttls_server", &[]),
        case(pop3.address, "POP3", "starttls_server", &[]),
        case(mysql.address, "MySQL", "starttls_server", &[]),
        case(postgres.address, "PostgreSQL without TLS", "upgrade_refused", &["--upgrade", "postgres"])
            .class("upgrade_refused"),
        case(silent.address, "silence", "handshake_timeout", &[]).class("handshake_timeout").impatient(),
        case(closing.address, "a bare close", "closed_in_handshake", &[]).class("closed_in_handshake"),
    ]);
    assert_eq!(in_nginx, 0);
    let explained = explain(&[&smtp.address.to_string()[..], "--ca", &root]);
    let sentence = explained.report["causes"][0]["sentence"].to_string();
    assert!(sentence.contains("SMTP") && sentence.contains("mail.example.com ESMTP"), "{sentence}");
}

#[test]
fn postgres_is_found_by_asking_it_and_the_upgrade_that_is_the_repair_works() {
    let pki = Pki::new();
    let tls = anonymous(&pki.server(&[HOST]));
    let postgres = Peer::start(move |mut tcp| {
        if asks_postgres(&mut tcp) && tcp.write_all(b"S").is_ok() {
            echo(accepted(tcp, &tls));
        }
    });
    let (address, root) = (postgres.address.to_string(), pki.root().display().to_string());
    let explained = explain(&[&address[..], "--server-name", HOST, "--ca", &root]);
    assert_eq!(explained.cause(), "starttls_server", "{}", explained.text());
    explained.has_no_directives("nginx cannot ask a server of PostgreSQL for TLS").unwrap();
    let asked = explain(&[&address[..], "--server-name", HOST, "--upgrade", "postgres"]);
    assert_eq!(asked.cause(), "private_authority", "{}", asked.text());
    asked.has_no_directives("nginx cannot ask a server of PostgreSQL for TLS").unwrap();
    let repair = explained.egret(&[]).unwrap();
    assert!(repair.contains("upgrade = \"postgres\""), "{repair}");

    let egret = Egret::start(&format!("{repair}\n{}", listener("plain", free_port(), "backend")));
    let mut client = plain::connect(egret.address("plain"));
    // A StartupMessage of protocol 3.0 with a user; the server of this test sends it back.
    let startup = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";
    client.write_all(startup).unwrap();
    let mut answer = [0; 18];
    client.read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}\n{}", egret.log_text()));
    assert_eq!(&answer, startup);
}

/// From version 17 the server takes TLS from the first byte on the same port, if ALPN names the protocol.
#[test]
fn postgres_direct_is_recommended_where_the_server_answers_its_alpn_and_not_elsewhere() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let mut newer = anonymous(&pair).as_ref().clone();
    newer.alpn_protocols = vec![b"postgresql".to_vec()];
    let (newer, older) = (Arc::new(newer), anonymous(&pair));
    let postgres = |takes_direct: bool| {
        let tls = if takes_direct { Arc::clone(&newer) } else { Arc::clone(&older) };
        Peer::start(move |mut tcp| {
            let mut first = [0];
            let is_direct = tcp.peek(&mut first).is_ok() && first == [0x16];
            let begins = if is_direct { takes_direct } else { asks_postgres(&mut tcp) && tcp.write_all(b"S").is_ok() };
            if begins {
                echo(accepted(tcp, &tls));
            } else {
                // A close behind unread bytes would be a reset.
                let _ = tcp.read(&mut [0; 4096]);
            }
        })
    };
    let root = pki.root().display().to_string();
    for takes_direct in [true, false] {
        let server = postgres(takes_direct);
        let address = server.address.to_string();
        let asked =
            |upgrade: &str| explain(&[&address[..], "--server-name", HOST, "--ca", &root, "--upgrade", upgrade]);
        let by_request = asked("postgres");
        assert_eq!(by_request.cause(), "nothing", "{}", by_request.text());
        assert_eq!(by_request.notes().contains(&"direct_tls_possible"), takes_direct, "{}", by_request.text());
        let direct = asked("postgres-direct");
        assert_eq!(direct.cause() == "nothing", takes_direct, "{}", direct.text());
        if !takes_direct {
            let repair = direct.egret(&[]).unwrap();
            assert!(repair.contains("upgrade = \"postgres\""), "{repair}\n{}", direct.text());
        }
    }
}

#[test]
fn an_upgrade_that_nobody_wants_is_named() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let (address, root) = (peer.address.to_string(), pki.root().display().to_string());
    let arguments = [&address[..], "--server-name", HOST, "--ca", &root, "--upgrade", "postgres"];
    let in_nginx = run(vec![
        Case::new("TLS at once", &arguments, "upgrade_not_wanted").class("upgrade_not_the_protocol").mended(),
    ]);
    assert_eq!(in_nginx, 1);
}

/// Servers that speak first are recognised by what they say, the others by their answer to a request.
#[test]
fn the_right_upgrade_is_named_for_every_protocol() {
    let pki = Pki::new();
    let root = pki.root().display().to_string();
    let asked = |request: &'static [u8], answer: &'static [u8]| {
        Peer::start(move |mut tcp| {
            // Whole requests and hellos are read: a close behind unread bytes would be a reset.
            let mut first = vec![0; 4096];
            let length = tcp.read(&mut first).unwrap_or(0);
            if first[..length].starts_with(request) && tcp.write_all(answer).is_ok() && tcp.read(&mut first).is_ok() {
                let _ = tcp.write_all(b"<proceed/>");
                let _ = tcp.read_to_end(&mut Vec::new());
            }
        })
    };
    let features = b"<stream:stream version='1.0'><stream:features><starttls/></stream:features>";
    for (word, server) in [
        ("smtp", greeter(b"220-mail.example.com\r\n220 ready\r\n")),
        ("smtp", greeter(b"554 no service\r\n")),
        ("lmtp", greeter(b"220 mail.example.com LMTP ready\r\n")),
        ("ftp", greeter(b"220 (vsFTPd 3.0.3)\r\n")),
        ("imap", greeter(b"* PREAUTH welcome\r\n")),
        ("pop3", greeter(b"+OK <1@mail.example.com>\r\n")),
        ("nntp", greeter(b"201 news.example.com ready (no posting)\r\n")),
        ("sieve", greeter(b"\"IMPLEMENTATION\" \"x\"\r\nOK\r\n")),
        ("ldap", asked(b"\x30\x1d\x02\x01\x01\x77", b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")),
        (
            "xmpp",
            asked(
                b"<?xml version='1.0'?><stream:stream to='server.example.com' version='1.0' xmlns='jabber:client'",
                features,
            ),
        ),
        (
            "xmpp-server",
            asked(
                b"<?xml version='1.0'?><stream:stream to='server.example.com' version='1.0' xmlns='jabber:server'",
                features,
            ),
        ),
    ] {
        let explained =
            explain(&[&server.address.to_string()[..], "--server-name", HOST, "--ca", &root, "--timeout", "3s"]);
        assert_eq!(explained.cause(), "starttls_server", "{word}: {}", explained.text());
        let repair = explained.egret(&[]).unwrap_or_else(|| panic!("{word}: {}", explained.text()));
        assert!(repair.contains(&format!("upgrade = {word:?}")), "{word}: {repair}");
    }
}

/// A server of the configured protocol that does not offer TLS is no reason to configure that protocol.
#[test]
fn the_configured_upgrade_that_a_server_declines_is_no_repair() {
    for (word, greeting) in [("imap", &b"* PREAUTH welcome\r\n"[..]), ("smtp", b"554 no service\r\n")] {
        let server = greeter(greeting);
        let explained = explain(&[&server.address.to_string()[..], "--server-name", HOST, "--upgrade", word]);
        assert_ne!(explained.cause(), "starttls_server", "{}", explained.text());
        assert!(explained.report["causes"][0]["reason"].as_str().is_some_and(|class| class.starts_with("upgrade_")));
    }
}
