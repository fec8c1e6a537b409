//! Alerts that come when the handshake is over: which of them judge the client certificate, and what they are to the
//! health of the endpoint.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{ContentType, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::support::egret::{Egret, listener, roots};
use crate::support::free_port;
use crate::support::openssl::OpensslServer;
use crate::support::peer::{self, Accepted, Peer};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{ask, ask_and_finish};
use crate::support::records::{Records, shake};
use crate::support::tls_server::{TLS12, TLS13};

const HOST: &str = "server.example.com";
const REQUIRED: &str = "client_certificate_required";
const REJECTED: &str = "client_certificate_rejected";
const ALERT: &str = "upstream_alert";

/// A server of these versions; `asks` for a client certificate, and takes any of the authority or none.
fn config(pki: &Pki, pair: &Pair, versions: &[&'static SupportedProtocolVersion], asks: bool) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.root()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().unwrap();
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match asks {
        true => builder.with_client_cert_verifier(verifier),
        false => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(peer::chain(pair), peer::key(pair)).unwrap();
    config.enable_secret_extraction = true;
    config.ticketer = Ticketer::new().unwrap();
    Arc::new(config)
}

/// Ends the connection with this fatal alert, at whatever point it is.
fn end_with(tls: Accepted, alert: u8) {
    let mut records = Records::of(tls);
    records.send(ContentType::Alert, &[2, alert]);
    records.finish();
}

fn upstream(servers: &[SocketAddr], identity: bool, more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("{:?}", server.to_string())).collect();
    let identity = if identity { "identity = \"app\"\n" } else { "" };
    format!(
        "[upstreams.app]\nservers = [{}]\n{more}\n[upstreams.app.tls]\ntrust = \"t\"\nserver_name = {HOST:?}\n{identity}",
        servers.join(", ")
    )
}

fn egret(pki: &Pki, servers: &[SocketAddr], identity: bool, more: &str) -> Egret {
    let own = if identity { pki.client("app").identity("app") } else { String::new() };
    Egret::start(
        &(roots("t", &pki.root()) + &own + &upstream(servers, identity, more) + &listener("app", free_port(), "app")),
    )
}

fn ended(egret: &Egret) -> serde_json::Value {
    egret.wait_for_log("the end", |line| line["message"] == "connection")
}

/// RFC 8446 section 6.2, and what else has to be so.
#[test]
fn an_alert_after_the_handshake_is_about_the_certificate_only_if_it_can_be() {
    struct Row(&'static [&'static SupportedProtocolVersion], bool, bool, &'static [u8], &'static str);
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    for (Row(versions, asks, identity, data, class), alerts) in [
        (Row(TLS13, true, true, b"", REJECTED), &[42, 43, 44, 45, 46, 48, 49, 51][..]),
        (Row(TLS13, true, true, b"", REQUIRED), &[116]),
        (Row(TLS13, true, true, b"", ALERT), &[40, 47, 80, 112]),
        (Row(TLS13, true, false, b"", REQUIRED), &[42, 49, 116]),
        (Row(TLS13, true, false, b"", ALERT), &[51, 80]),
        // There is an identity, but the server has not asked for it.
        (Row(TLS13, false, true, b"", ALERT), &[42, 48, 116]),
        (Row(TLS13, false, false, b"", ALERT), &[42, 49, 116]),
        // After data it is about what was said.
        (Row(TLS13, true, true, b"so far", ALERT), &[42, 48, 116]),
        // Judged within the handshake.
        (Row(TLS12, true, true, b"", ALERT), &[42, 48, 49]),
    ] {
        let config = config(&pki, &pair, versions, asks);
        for alert in alerts.iter().copied() {
            let config = Arc::clone(&config);
            let server = Peer::start_tls(config, move |mut tls| {
                shake(&mut tls);
                tls.write_all(data).unwrap();
                tls.flush().unwrap();
                end_with(tls, alert);
            });
            let egret = egret(&pki, &[server.address], identity, "");
            let what = format!("alert {alert}, asked {asks}, identity {identity}, data {data:?}");
            assert_eq!(ask(egret.address("app"), b"hello").0, data, "{what}\n{}", egret.log_text());
            let line = ended(&egret);
            assert_eq!(line["ended"], class, "{what}: {line}");
            let failed = egret.metrics().sum("egret_origination_failures_total", &[]);
            assert_eq!(failed, f64::from(u8::from(class != ALERT)), "{what}");
            if class == ALERT {
                assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("alert")), "{what}: {line}");
            }
        }
    }
}

/// Some servers verify the certificate of a session again.
#[test]
fn a_resumed_session_is_judged_by_what_its_first_handshake_was_asked_for() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    for (asks, alert, class) in [(true, 42, REJECTED), (true, 45, REJECTED), (true, 80, ALERT), (false, 42, ALERT)] {
        let server = Peer::start_tls(config(&pki, &pair, TLS13, asks), move |mut tls| {
            shake(&mut tls);
            match tls.conn.handshake_kind() {
                Some(HandshakeKind::Resumed) => end_with(tls, alert),
                _ => peer::echo(tls),
            }
        });
        let egret = egret(&pki, &[server.address], true, "");
        assert_eq!(ask_and_finish(egret.address("app"), b"hello").0, b"hello", "{}", egret.log_text());
        assert!(ask(egret.address("app"), b"hello").0.is_empty());
        let line = egret.wait_for_log("the end", |line| line["message"] == "connection" && line["resumed"] == true);
        assert_eq!(line["ended"], class, "asked {asks}, alert {alert}: {line}");
    }
}

/// What a client can make a server do.
#[derive(Clone, Copy, Debug)]
enum Provoked {
    /// An alert for what was said.
    ByWords(u8),
    /// An alert for the client's half-close.
    ByEnd(u8),
    Close,
    Reset,
}

impl Provoked {
    fn serve(self, mut tls: Accepted) {
        let mut words = [0; 100];
        match (self, tls.read(&mut words)) {
            (Self::ByWords(alert), Ok(1..)) | (Self::ByEnd(alert), Ok(0)) => end_with(tls, alert),
            (Self::Close, Ok(1..)) => peer::end(&mut tls),
            (Self::Reset, Ok(1..)) => crate::support::plain::reset(tls.sock),
            _ => {}
        }
    }
}

#[test]
fn what_one_client_provokes_ejects_no_endpoint() {
    const CLIENTS: usize = 12;
    let pki = Pki::new();
    let config = config(&pki, &pki.server(&[HOST]), TLS13, true);
    for provoked in [
        Provoked::ByWords(48),
        Provoked::ByWords(49),
        Provoked::ByWords(80),
        Provoked::ByEnd(42),
        Provoked::Close,
        Provoked::Reset,
    ] {
        let start = || Peer::start_tls(Arc::clone(&config), move |tls| provoked.serve(tls));
        let (one, two) = (start(), start());
        let egret = egret(&pki, &[one.address, two.address], true, "ejection = { failures = 2 }");
        for _ in 0..CLIENTS {
            let (came, _) = match provoked {
                Provoked::ByEnd(_) => ask_and_finish(egret.address("app"), b""),
                _ => ask(egret.address("app"), b"GET / HTTP/1.0\r\n\r\n"),
            };
            assert!(came.is_empty());
        }
        let lines = || egret.log().iter().filter(|line| line["message"] == "connection").count();
        egret.wait_for_log("the last", |_| lines() == CLIENTS);
        assert!(!egret.log_text().contains("endpoint ejected"), "{provoked:?}\n{}", egret.log_text());
        assert_eq!(egret.metrics().sum("egret_endpoint_healthy", &[]), 2.0, "{provoked:?}");
    }
}

/// egret finds out by connections of its own, on which no client has said a word.
#[test]
fn an_endpoint_that_refuses_the_certificate_is_ejected_and_the_other_serves() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let config = config(&pki, &pair, TLS13, true);
    for (alert, resumes) in [(42, true), (48, false), (116, false)] {
        let refused = Arc::new(AtomicUsize::new(0));
        let (count, takes) = (Arc::clone(&refused), Arc::clone(&config));
        // Of sessions it takes those that the other gives, or none.
        let mut ends = ServerConfig::clone(&config);
        ends.send_tls13_tickets = 0;
        if !resumes {
            ends.ticketer = Ticketer::new().unwrap();
        }
        let ends = Arc::new(ends);
        let well = Peer::start_tls(takes, peer::echo);
        let ill = Peer::start_tls(ends, move |mut tls| {
            shake(&mut tls);
            count.fetch_add(1, Ordering::Relaxed);
            end_with(tls, alert);
        });
        let ejection = "ejection = { failures = 2, backoff = \"60s\", max_backoff = \"60s\" }";
        let egret = egret(&pki, &[ill.address, well.address], true, ejection);
        let is_ejected = |line: &serde_json::Value| line["message"] == "endpoint ejected";
        let clients = (0..500).take_while(|_| {
            ask_and_finish(egret.address("app"), b"hello");
            std::thread::sleep(std::time::Duration::from_millis(5));
            !egret.log().iter().any(is_ejected)
        });
        let clients = clients.count();
        let line = egret.wait_for_log("the ejection", is_ejected);
        assert_eq!(line["endpoint"], ill.address.to_string(), "after {clients} clients: {line}");
        assert!(line["reason"] == REJECTED || line["reason"] == REQUIRED, "{line}");
        let before = refused.load(Ordering::Relaxed);
        for _ in 0..6 {
            assert_eq!(ask_and_finish(egret.address("app"), b"hello").0, b"hello", "{}", egret.log_text());
        }
        assert_eq!(refused.load(Ordering::Relaxed), before, "alert {alert}");
    }
}

/// OpenSSL's own words, on TLS 1.3, for a certificate of a stranger and for none.
#[test]
fn openssl_judges_after_the_handshake_and_nothing_else_is_blamed_on_the_certificate() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let pair = pki.server(&[HOST]);
    let root = pki.root();
    let verify = ["-tls1_3", "-Verify", "3", "-verify_return_error", "-CAfile", root.to_str().unwrap()];
    for (arguments, identity, class) in [
        (&verify[..], Some(stranger.client("stranger")), REJECTED),
        (&verify, None, REQUIRED),
        (&verify, Some(pki.client("known")), "finished"),
        (&["-tls1_3"], Some(stranger.client("unasked")), "finished"),
    ] {
        let server = OpensslServer::start(&pki, &pair, arguments);
        let own = identity.as_ref().map_or_else(String::new, |pair| pair.identity("app"));
        let sections = roots("t", &root) + &own + &upstream(&[server.address], identity.is_some(), "");
        let egret = Egret::start(&(sections + &listener("app", free_port(), "app")));
        let (came, _) = ask_and_finish(egret.address("app"), b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(came.is_empty(), class != "finished", "{class}\n{}", egret.log_text());
        assert_eq!(ended(&egret)["ended"], class, "{}\n{}", egret.log_text(), server.output());
    }
}
