//! Handshakes that are repeated without a session belong to the origin of the first; and sessions that are too large make no
//! ClientHello that a server cannot read.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::intolerance::{Answer, peek, refuse, session};
use crate::support::egret::{Egret, listener, roots};
use crate::support::free_port;
use crate::support::peer::{self, Accepted, Peer};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{ask_and_finish, connect, read_to_end};
use crate::support::tls_server::{TLS12, TLS13};

const HOST: &str = "server.example.com";
const OTHER: &str = "other.example.com";

/// A server that gives tickets, and takes clients of the authority or without a certificate.
fn config(pki: &Pki, pair: &Pair, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.root()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().unwrap();
    let builder = ServerConfig::builder_with_protocol_versions(versions).with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(peer::chain(pair), peer::key(pair)).unwrap();
    config.ticketer = Ticketer::new().unwrap();
    config
}

/// Says whom it serves: the digest of the client's certificate, and the name that was asked for.
fn introduce(mut tls: Accepted) {
    let mut word = [0; 5];
    if tls.read_exact(&mut word).is_err() {
        return;
    }
    let client = tls.conn.peer_certificates().map_or(0, |chain| digest(&chain[0]));
    let line = format!("{client:x} {}", tls.conn.server_name().unwrap_or("-"));
    let _ = tls.write_all(line.as_bytes());
    peer::end(&mut tls);
    let _ = tls.read(&mut word);
}

fn digest(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Origins of one server that differ in one part each; all of them are refused their sessions, in turns.
#[test]
fn a_repeated_handshake_never_crosses_origins() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST, OTHER]);
    let (alice, bob) = (pki.client("alice"), pki.client("bob"));
    let of = |client: &Pair, name: &str| format!("{:x} {name}", digest(&peer::chain(client)[0]));
    let origins = [
        ("alice", HOST, "identity = \"alice\"", of(&alice, HOST)),
        ("bob", HOST, "identity = \"bob\"", of(&bob, HOST)),
        ("nobody", HOST, "", format!("0 {HOST}")),
        ("other", OTHER, "identity = \"alice\"", of(&alice, OTHER)),
    ];
    for (versions, answer) in
        [(TLS13, Answer::Alert(80)), (TLS13, Answer::Close), (TLS12, Answer::Alert(80)), (TLS12, Answer::Reset)]
    {
        let config = Arc::new(config(&pki, &pair, versions));
        // Which session was offered by whom: by the name, and by the order in which clients come.
        let turn = Arc::<Mutex<&str>>::default();
        let offered = Arc::<Mutex<HashMap<Vec<u8>, HashSet<&str>>>>::default();
        let (now, seen) = (Arc::clone(&turn), Arc::clone(&offered));
        let server = Peer::start(move |tcp| {
            let Some(hello) = peek(&tcp) else { return };
            match session(&hello) {
                None => introduce(peer::accepted(tcp, &config)),
                Some(part) => {
                    seen.lock().unwrap().entry(part).or_default().insert(*now.lock().unwrap());
                    refuse(tcp, &hello, answer);
                }
            }
        });
        let mut sections = roots("t", &pki.root()) + &alice.identity("alice") + &bob.identity("bob");
        for (name, host, tls, _) in &origins {
            sections += &format!(
                "[upstreams.{name}]\nservers = [\"{}\"]\n[upstreams.{name}.tls]\ntrust = \"t\"\nserver_name = {host:?}\n{tls}\n",
                server.address
            );
            sections += &listener(name, free_port(), name);
        }
        let egret = Egret::start(&sections);
        for _ in 0..4 {
            for (name, _, _, expected) in &origins {
                *turn.lock().unwrap() = name;
                let (came, _) = ask_and_finish(egret.address(name), b"hello");
                assert_eq!(String::from_utf8_lossy(&came), *expected, "{name}, {answer:?}\n{}", egret.log_text());
            }
        }
        let offered = offered.lock().unwrap();
        assert!(offered.len() >= origins.len(), "{answer:?}: each origin has offered a session of its own");
        assert!(offered.values().all(|origins| origins.len() == 1), "{answer:?}: a session crossed: {offered:?}");
    }
}

/// Tickets of at least this length.
#[derive(Debug)]
struct Padded(Arc<dyn ProducesTickets>, usize);

impl ProducesTickets for Padded {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = self.0.encrypt(plain)?;
        let length = ticket.len() as u32;
        ticket.resize(ticket.len().max(self.1 - 4), 0);
        ticket.extend_from_slice(&length.to_be_bytes());
        Some(ticket)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (ticket, length) = cipher.split_last_chunk::<4>()?;
        self.0.decrypt(ticket.get(..u32::from_be_bytes(*length) as usize)?)
    }
}

/// A ClientHello of more than one record is none to many servers.
#[test]
fn a_large_ticket_makes_no_hello_of_more_than_a_record_and_every_client_is_served() {
    const RECORD: usize = 5 + 16_384;
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    for (versions, ticket, resumes) in [
        (TLS13, 200, true),
        (TLS13, 7_500, true),
        (TLS13, 9_000, false),
        (TLS13, 17_000, false),
        (TLS13, 60_000, false),
        (TLS12, 200, true),
        (TLS12, 8_000, true),
        (TLS12, 17_000, false),
        (TLS12, 60_000, false),
    ] {
        let mut config = config(&pki, &pair, versions);
        config.ticketer = Arc::new(Padded(Ticketer::new().unwrap(), ticket));
        let config = Arc::new(config);
        let longest = Arc::<Mutex<usize>>::default();
        let seen = Arc::clone(&longest);
        let server = Peer::start(move |tcp| {
            let Some(hello) = peek(&tcp) else { return };
            let mut longest = seen.lock().unwrap();
            *longest = (*longest).max(hello.len());
            drop(longest);
            introduce(peer::accepted(tcp, &config));
        });
        let upstream = format!(
            "[upstreams.app]\nservers = [\"{}\"]\n[upstreams.app.tls]\ntrust = \"t\"\nserver_name = {HOST:?}\n",
            server.address
        );
        let egret = Egret::start(&(roots("t", &pki.root()) + &upstream + &listener("app", free_port(), "app")));
        let what = format!("a ticket of {ticket} bytes");
        for _ in 0..4 {
            let mut client = connect(egret.address("app"));
            client.write_all(b"hello").unwrap();
            assert_eq!(read_to_end(&mut client).0, format!("0 {HOST}").as_bytes(), "{what}\n{}", egret.log_text());
        }
        let metrics = egret.metrics();
        let resumed = metrics.sum("egret_originations_total", &[("reason", "resumed")]);
        assert_eq!(resumed > 0.0, resumes, "{what}: {resumed} resumed\n{}", egret.log_text());
        assert!(*longest.lock().unwrap() <= RECORD, "{what}: a ClientHello of {} bytes", longest.lock().unwrap());
        assert_eq!(metrics.sum("egret_origination_failures_total", &[]), 0.0, "{what}");
    }
}
