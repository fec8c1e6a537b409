//! Servers of TLS 1.2 that ask for a renegotiation: it is declined with a warning, the stream goes on where the server does,
//! and where it does not the end has a name.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::{ContentType, ServerConfig};

use crate::support::egret::{Egret, listener, roots};
use crate::support::peer::{self, Peer};
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{ask, connect, read_to_end};
use crate::support::records::{Records, shake};
use crate::support::tls_server::{TLS12, TLS13};
use crate::support::{eventually, free_port, loopback};

const HOST: &str = "server.example.com";
const HELLO_REQUEST: [u8; 4] = [0; 4];
const NO_RENEGOTIATION: [u8; 2] = [1, 100];
const DECLINED: &str = "renegotiation_declined";

fn egret(pki: &Pki, server: &str) -> Egret {
    let upstream = format!(
        "[upstreams.app]\nservers = [{server:?}]\n\n[upstreams.app.tls]\ntrust = \"t\"\nserver_name = {HOST:?}\n"
    );
    Egret::start(&(roots("t", &pki.root()) + &upstream + &listener("app", free_port(), "app")))
}

/// How a server ends a stream in which it has asked.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Alert(u8),
    Fin,
    Reset,
    CloseNotify,
}

fn end(mut records: Records, ends: Ends) {
    match ends {
        Ends::Alert(alert) => records.send(ContentType::Alert, &[2, alert]),
        Ends::CloseNotify => records.send(ContentType::Alert, &[1, 0]),
        Ends::Fin => {}
        Ends::Reset => return records.reset(),
    }
    records.finish();
}

#[test]
fn a_renegotiation_is_declined_and_the_end_after_it_is_named() {
    let pki = Pki::new();
    let mut config = ServerConfig::clone(&peer::versions(&pki.server(&[HOST]), TLS12));
    config.enable_secret_extraction = true;
    let config = Arc::new(config);
    for (asks, data, ends, ended) in [
        (1, &b""[..], Ends::Alert(40), DECLINED),
        (1, b"", Ends::Alert(100), DECLINED),
        (1, b"", Ends::Alert(80), DECLINED),
        (1, b"", Ends::Fin, DECLINED),
        (1, b"", Ends::Reset, DECLINED),
        (3, b"", Ends::Alert(40), DECLINED),
        // It goes on: what comes later is about something else, unless the alert speaks of it.
        (1, b"goes on", Ends::Alert(40), DECLINED),
        (1, b"goes on", Ends::Alert(80), "upstream_alert"),
        (1, b"goes on", Ends::Fin, "upstream_truncated"),
        (1, b"goes on", Ends::Reset, "upstream_reset"),
        (2, b"goes on", Ends::CloseNotify, "finished"),
        (0, b"", Ends::Alert(40), "upstream_alert"),
    ] {
        let server = Peer::start_tls(Arc::clone(&config), move |mut tls| {
            shake(&mut tls);
            let mut records = Records::of(tls);
            assert_eq!(records.receive(), Some((ContentType::ApplicationData, b"hello".to_vec())));
            for _ in 0..asks {
                records.send(ContentType::Handshake, &HELLO_REQUEST);
                assert_eq!(records.receive(), Some((ContentType::Alert, NO_RENEGOTIATION.to_vec())));
            }
            if !data.is_empty() {
                records.send(ContentType::ApplicationData, data);
            }
            end(records, ends);
        });
        let egret = egret(&pki, &server.address.to_string());
        let what = format!("asked {asks} times, data {data:?}, {ends:?}");
        let mut client = connect(egret.address("app"));
        client.write_all(b"hello").unwrap();
        let mut came = vec![0; data.len()];
        client.read_exact(&mut came).unwrap_or_else(|error| panic!("{what}: {error}\n{}", egret.log_text()));
        assert_eq!(came, data, "{what}");
        drop(read_to_end(&mut client));
        drop(client);
        let line = egret.wait_for_log("the end", |line| line["message"] == "connection");
        assert_eq!(line["ended"], ended, "{what}: {line}");
        let named = egret.log().iter().filter(|line| line["message"] == "renegotiation declined").count();
        assert_eq!(named, usize::from(asks > 0), "{what}: once for each stream\n{}", egret.log_text());
        assert!(!egret.log_text().contains("endpoint ejected"), "{what}");
    }
}

/// TLS 1.3 has no such message.
#[test]
fn a_renegotiation_in_tls_1_3_breaks_the_protocol() {
    let pki = Pki::new();
    let mut config = ServerConfig::clone(&peer::versions(&pki.server(&[HOST]), TLS13));
    config.enable_secret_extraction = true;
    let server = Peer::start_tls(Arc::new(config), |mut tls| {
        shake(&mut tls);
        let mut records = Records::of(tls);
        records.send(ContentType::Handshake, &HELLO_REQUEST);
        records.finish();
    });
    let egret = egret(&pki, &server.address.to_string());
    assert!(ask(egret.address("app"), b"hello").0.is_empty());
    let line = egret.wait_for_log("the end", |line| line["message"] == "connection");
    assert_eq!(line["ended"], "upstream_tls_error", "{line}");
}

/// `openssl s_server`, which renegotiates when its input says so.
struct Interactive {
    child: Child,
    output: std::path::PathBuf,
    address: String,
}

impl Interactive {
    fn start(pki: &Pki, pair: &Pair) -> Self {
        let address = loopback(free_port()).to_string();
        let output = pki.folder().join("s_server.log");
        let file = std::fs::File::create(&output).unwrap();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-tls1_2", "-accept", &address]);
        command.arg("-cert").arg(&pair.certificate).arg("-cert_chain").arg(pki.intermediate());
        command.arg("-key").arg(&pair.key).stdin(Stdio::piped());
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let server = Self { child, output, address };
        server.wait_for("ACCEPT");
        server
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} of s_server"), || {
            std::fs::read_to_string(&self.output).unwrap().contains(text).then_some(())
        });
    }

    fn says(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It answers the warning with the fatal alert handshake_failure.
#[test]
fn openssl_that_renegotiates_is_named() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    // For new keys, and for a client certificate.
    for asks in ["r\n", "R\n"] {
        let mut server = Interactive::start(&pki, &pair);
        let egret = egret(&pki, &server.address);
        let mut client = connect(egret.address("app"));
        client.write_all(b"a word of the client\n").unwrap();
        server.wait_for("a word of the client");
        server.says(asks);
        assert!(read_to_end(&mut client).0.is_empty());
        egret.wait_for_log("the request", |line| line["message"] == "renegotiation declined");
        let line = egret.wait_for_log("the end", |line| line["message"] == "connection");
        assert_eq!(line["ended"], DECLINED, "{line}");
    }
}
