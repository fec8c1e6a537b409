//! Faults of the handshake: versions, suites, groups, names that are not sent, client certificates.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, RootCertStore, ServerConfig};
use tempfile::TempDir;

use super::stage::{Case, HOST, config, explain, run};
use crate::support::nginx::{Nginx, tls};
use crate::support::openssl::OpensslServer;
use crate::support::peer::{self, Peer, anonymous};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::reset;
use crate::support::{free_port, loopback};

#[test]
fn every_fault_of_versions_suites_groups_and_protocols_is_named() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let openssl = |arguments: &[&str]| OpensslServer::start(&pki, &pair, arguments);
    let (only12, only13) = (openssl(&["-tls1_2"]), openssl(&["-tls1_3"]));
    let old = openssl(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    let cbc = openssl(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]);
    let (p521, p521_in_12) = (openssl(&["-groups", "P-521"]), openssl(&["-tls1_2", "-groups", "P-521"]));
    let p256 = openssl(&["-groups", "P-256"]);
    let mut h2 = ServerConfig::clone(&anonymous(&pair));
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let h2 = Peer::echo(Arc::new(h2));

    let root = pki.root().display().to_string();
    let folder = TempDir::new().unwrap();
    let configured = |name: &str, server: &OpensslServer, line: &str| {
        let tables = format!(
            "[trust.t]\nroots = [{root:?}]\n[upstreams.backend]\nservers = [\"{}\"]\n[upstreams.backend.tls]\n\
             server_name = {HOST:?}\ntrust = \"t\"\n{line}\n",
            server.address
        );
        config(&folder, name, &tables)
    };
    let new = configured("new.toml", &only12, "min_version = \"1.3\"");
    let former = configured("former.toml", &only13, "max_version = \"1.2\"");
    let narrow = configured("narrow.toml", &p256, "key_exchange = [\"x25519\"]");
    let case = |address: &std::net::SocketAddr, cause, more: &[&str]| {
        let address = address.to_string();
        Case::new(cause, &[&[&address[..], "--server-name", HOST, "--ca", &root], more].concat(), cause)
    };
    let in_nginx = run(vec![
        Case::new("TLS 1.2 excluded", &["--config", &new], "version_excluded").class("version_mismatch").mended(),
        Case::new("TLS 1.3 excluded", &["--config", &former], "version_excluded").class("version_mismatch").mended(),
        Case::new("narrow groups", &["--config", &narrow], "groups_excluded").class("no_common_parameters").mended(),
        case(&old.address, "version_too_old", &[]).class("version_mismatch"),
        case(&cbc.address, "suite_too_old", &[]).class("no_common_parameters"),
        case(&p521.address, "group_unknown", &[]).class("no_common_parameters"),
        case(&p521_in_12.address, "group_unknown", &[]).class("no_common_parameters"),
        case(&only13.address, "alpn_refused", &["--alpn", "postgresql"]).mended(),
        case(&h2.address, "alpn_refused", &["--alpn", "postgresql"]).mended(),
    ]);
    assert_eq!(in_nginx, 5);
}

#[test]
fn every_fault_of_the_server_name_is_named() {
    let pki = Pki::new();
    let (right, other) = (pki.server(&[HOST]), pki.server(&["default.example.com"]));
    let (first, second) = (free_port(), free_port());
    let tls = |pair: &Pair| tls(pair, &pki.root(), "TLSv1.2 TLSv1.3");
    let site = |port: u16| {
        let tls = tls(&right);
        format!("server {{ listen 127.0.0.1:{port} ssl; server_name {HOST}; {tls} location / {{ return 200 ok; }} }}\n")
    };
    let blocks = format!(
        "server {{ listen 127.0.0.1:{first} ssl default_server; {} location / {{ return 403 wrong; }} }}\n\
         server {{ listen 127.0.0.1:{second} ssl default_server; ssl_reject_handshake on; }}\n{}{}",
        tls(&other),
        site(first),
        site(second)
    );
    let _nginx = Nginx::start(&blocks, &[first, second]);
    let certificate = right.certificate.display().to_string();
    let key = right.key.display().to_string();
    let strict = ["-servername", HOST, "-servername_fatal", "-cert2", &certificate, "-key2", &key];
    let fatal = OpensslServer::start(&pki, &right, &strict);

    let root = pki.root().display().to_string();
    let intermediate = pki.intermediate().display().to_string();
    let (first, second, fatal) = (loopback(first).to_string(), loopback(second).to_string(), fatal.address.to_string());
    let without = ["--server-name", HOST, "--ca", &root, "--no-sni"];
    let missing = "server_name_missing";
    let in_nginx = run(vec![
        Case::new("another site's certificate", &[&[&first[..]], &without[..]].concat(), missing)
            .class("certificate_name_mismatch")
            .mended(),
        Case::new("no certificate", &[&[&second[..]], &without[..]].concat(), missing)
            .class("server_name_unrecognized")
            .mended(),
        Case::new("an address, and names only", &[&second, "--ca", &root], missing).class("server_name_unrecognized"),
        Case::new(
            "a name that nobody knows",
            // OpenSSL sends no chain with the second certificate.
            &[&fatal, "--server-name", "wrong.example.com", "--ca", &intermediate],
            "server_name_unrecognized",
        )
        .mended()
        .nginx_with(&[("backend-ca.pem", &pki.both())]),
    ]);
    assert_eq!(in_nginx, 3);
    // Servers that say it by another alert, or by a close: the answer without SNI shows what it is about. Our side is first.
    for ends in [Some(AlertDescription::HandshakeFailure), Some(AlertDescription::InternalError), None] {
        let strict = refusing_names(&other, ends);
        let address = strict.address.to_string();
        let explained = explain(&[&address, "--server-name", "typo.example.com", "--ca", &root]);
        assert_eq!((explained.code, explained.cause()), (3, "server_name_unrecognized"), "{}", explained.text());
        let advice = explained.report["repair"]["advice"].as_array().unwrap();
        assert!(advice[0].as_str().unwrap().starts_with("here: `server_name`"), "{advice:?}");
        assert!(advice[1].as_str().unwrap().starts_with("or at the server"), "{advice:?}");
    }
    // What nginx would get, told to who asks in egret's way.
    let explained = explain(&[&first[..], "--server-name", HOST, "--ca", &root]);
    assert_eq!((explained.code, explained.notes()), (0, vec!["server_name_needed"]), "{}", explained.text());
    assert_eq!(explained.attempt("without_sni")["result"], "certificate_name_mismatch");
}

#[test]
fn every_fault_of_the_client_certificate_is_named() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let pair = pki.server(&[HOST]);
    let root = pki.root().display().to_string();
    let wants = ["-Verify", "3", "-verify_return_error", "-CAfile", &root];
    let openssl = |more: &[&str]| OpensslServer::start(&pki, &pair, &[&wants[..], more].concat());
    let (in12, in13) = (openssl(&["-tls1_2"]), openssl(&["-tls1_3"]));
    let rsa_only = openssl(&["-client_sigalgs", "RSA-PSS+SHA256:RSA+SHA256"]);
    let silent = Peer::start_tls(wants_in_silence(&pair, &pki), |mut tls| {
        while tls.conn.is_handshaking() && tls.conn.complete_io(&mut tls.sock).is_ok() {}
        match tls.conn.peer_certificates() {
            Some(_) => peer::echo(tls),
            None => drop(tls.sock.shutdown(Shutdown::Both)),
        }
    });

    let (client, foreign) = (pki.client("app"), stranger.client("app"));
    let files = [("backend.crt", client.certificate.as_path()), ("backend.key", client.key.as_path())];
    let case = |address: std::net::SocketAddr, identity: Option<&Pair>, cause| {
        let address = address.to_string();
        let mut case = Case::new(cause, &[&address, "--server-name", HOST, "--ca", &root], cause);
        for (flag, file) in identity.iter().flat_map(|own| [("--cert", &own.certificate), ("--key", &own.key)]) {
            case.arguments.extend([flag.to_owned(), file.display().to_string()]);
        }
        case
    };
    let (required, rejected) = ("client_certificate_required", "client_certificate_rejected");
    let in_nginx = run(vec![
        case(in12.address, None, required).mended_with(&files),
        case(in13.address, None, required).mended_with(&files),
        case(in12.address, Some(&foreign), rejected).mended_with(&files),
        case(in13.address, Some(&foreign), rejected).mended_with(&files),
        case(rsa_only.address, Some(&client), "client_key_unusable").class(required),
        case(silent.address, None, "client_certificate_required_silently")
            .class("closed_in_handshake")
            .mended_with(&files),
    ]);
    assert_eq!(in_nginx, 5);
    let explained = explain(&[&in13.address.to_string()[..], "--server-name", HOST, "--ca", &root]);
    assert_eq!(explained.attempt("as_configured")["late"], true, "{}", explained.text());
    let acceptable = explained.report["client_certificate"]["acceptable"].to_string();
    assert!(acceptable.contains("CN=Test Root"), "{acceptable}");
}

/// Answers a ClientHello without a server name, and ends the handshake for every other: with an alert, or without.
fn refusing_names(pair: &Pair, ends: Option<AlertDescription>) -> Peer {
    let config = anonymous(pair);
    Peer::start(move |mut tcp| {
        let mut seen = [0; 4_096];
        let Ok(length) = tcp.peek(&mut seen) else { return };
        // The extension server_name is the only one with a list of one host name.
        if seen[..length].windows(16).any(|piece| piece == b"typo.example.com") {
            peer::read_record(&mut tcp);
            if let Some(alert) = ends {
                tcp.write_all(&[21, 3, 3, 0, 2, 2, u8::from(alert)]).unwrap();
            }
            let _ = tcp.shutdown(Shutdown::Both);
            return;
        }
        peer::echo(peer::accepted(tcp, &config));
    })
}

/// Asks for a certificate, takes none too, and leaves it to the program to hang up.
fn wants_in_silence(pair: &Pair, pki: &Pki) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.root()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
    Arc::new(builder.with_single_cert(peer::chain(pair), key).unwrap())
}

#[test]
fn a_large_hello_that_is_dropped_or_reset_is_named() {
    let pki = Pki::new();
    let server = OpensslServer::start(&pki, &pki.server(&[HOST]), &[]);
    let address = server.address;
    let dropping = Peer::start(move |client| {
        if let Some(hello) = small_hello(&client) {
            carry(client, address, &hello);
        } else {
            // Nothing comes back, until the client has had enough.
            let _ = (&client).read(&mut [0; 1]);
        }
    });
    let resetting = Peer::start(move |client| match small_hello(&client) {
        Some(hello) => carry(client, address, &hello),
        None => reset(client),
    });
    let root = pki.root().display().to_string();
    let case = |peer: &Peer, class| {
        let arguments = [&peer.address.to_string()[..], "--server-name", HOST, "--ca", &root];
        Case::new(class, &arguments, "post_quantum_hello_dropped").class(class).mended()
    };
    let in_nginx = run(vec![case(&dropping, "handshake_timeout").impatient(), case(&resetting, "reset_in_handshake")]);
    assert_eq!(in_nginx, 2);
}

/// The first record, if it fits a packet; a large one is taken and gone.
fn small_hello(mut client: &TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    client.read_exact(&mut record).ok()?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    client.read_exact(&mut record[5..]).ok()?;
    (length < 1_000).then_some(record)
}

/// Both ways between a client and a server, until both are done.
fn carry(client: TcpStream, server: std::net::SocketAddr, first: &[u8]) {
    let Ok(mut server) = TcpStream::connect(server) else { return };
    server.write_all(first).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut client = client;
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    let _ = up.join();
}
