//! A server that breaks off at any step of the handshake: the class says how, within the deadline, and
//! nothing is left behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::failures::{HOST, REQUEST, one_upstream, one_upstream_with, refused_as};
use crate::support::egret::{Egret, roots};
use crate::support::openssl::OpensslServer;
use crate::support::peer::{Peer, anonymous, first_flight, read_record};
use crate::support::pki::Pki;
use crate::support::plain::{self, End, ask};
use crate::support::{free_port, loopback};

fn egret_to(peer: &Peer, pki: &Pki) -> Egret {
    one_upstream(&peer.address.to_string(), "trust = \"internal\"", &roots("internal", &pki.root()))
}

/// How far a server goes before it misbehaves.
#[derive(Clone, Copy, Debug)]
enum Step {
    Accepted,
    HelloRead,
    HalfOfTheFlightSent,
}

const STEPS: [Step; 3] = [Step::Accepted, Step::HelloRead, Step::HalfOfTheFlightSent];

/// A server that goes as far as `step` and then does `this` to the connection.
fn until(step: Step, pki: &Pki, this: impl Fn(TcpStream) + Send + Sync + 'static) -> Peer {
    let config = anonymous(&pki.server(&[HOST]));
    Peer::start(move |mut tcp| {
        match step {
            // The hello is there, unread: a reset before that could be one of connect.
            Step::Accepted => drop(tcp.peek(&mut [0])),
            Step::HelloRead => read_record(&mut tcp),
            Step::HalfOfTheFlightSent => {
                let flight = first_flight(&mut tcp, &config);
                tcp.write_all(&flight[..flight.len() / 2]).unwrap();
            }
        }
        this(tcp);
    })
}

#[test]
fn server_that_closes_at_any_step_is_its_own_class() {
    let pki = Pki::new();
    for step in STEPS {
        let peer = until(step, &pki, |mut tcp| {
            // A FIN and nothing else: closing with unread bytes would be a reset.
            plain::finish(&tcp);
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        refused_as(&egret_to(&peer, &pki), "closed_in_handshake");
    }
}

#[test]
fn server_that_resets_at_any_step_is_its_own_class() {
    let pki = Pki::new();
    for step in STEPS {
        let peer = until(step, &pki, plain::reset);
        refused_as(&egret_to(&peer, &pki), "reset_in_handshake");
    }
}

#[test]
fn server_that_stalls_at_any_step_is_given_up_at_the_deadline() {
    let pki = Pki::new();
    for step in STEPS {
        let peer = until(step, &pki, |mut tcp| {
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        given_up_at_the_deadline(&egret_to(&peer, &pki));
    }
}

/// Each of three clients is refused when the server has had its time, and none before.
pub(crate) fn given_up_at_the_deadline(egret: &Egret) {
    let start = Instant::now();
    refused_as(egret, "handshake_timeout");
    let each = start.elapsed() / 3;
    assert!(each >= Duration::from_millis(1900), "given up after {each:?}, before the deadline of 2 s");
}

#[test]
fn server_that_speaks_no_tls_is_its_own_class() {
    let pki = Pki::new();
    let greetings: [&[u8]; 3] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example.com ESMTP\r\n", b"-ERR unknown command\r\n"];
    for greeting in greetings {
        let peer = Peer::start(move |mut tcp| {
            let _ = tcp.write_all(greeting);
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        refused_as(&egret_to(&peer, &pki), "not_tls");
    }
}

#[test]
fn alerts_of_the_server_are_told_apart() {
    let pki = Pki::new();
    // Descriptions of alerts: RFC 8446 section 6.
    for (alert, class) in [
        (112, "server_name_unrecognized"),
        (70, "version_mismatch"),
        (40, "no_common_parameters"),
        (116, "client_certificate_required"),
        (80, "alert_received"),
    ] {
        let peer = until(Step::HelloRead, &pki, move |mut tcp| {
            let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, alert]);
            plain::finish(&tcp);
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        refused_as(&egret_to(&peer, &pki), class);
    }
}

#[test]
fn no_version_and_no_cipher_in_common_are_classes_of_their_own() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let trust = roots("internal", &pki.root());
    for (arguments, tls, class) in [
        (&["-tls1_2"][..], "min_version = \"1.3\"", "version_mismatch"),
        (&["-tls1_3"], "max_version = \"1.2\"", "version_mismatch"),
        (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "", "version_mismatch"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], "", "no_common_parameters"),
    ] {
        let server = OpensslServer::start(&pki, &pair, arguments);
        let tls = format!("trust = \"internal\"\n{tls}");
        refused_as(&one_upstream(&server.address.to_string(), &tls, &trust), class);
    }
}

#[test]
fn nobody_listening_is_its_own_class() {
    let pki = Pki::new();
    let nobody = loopback(free_port()).to_string();
    let egret = one_upstream(&nobody, "trust = \"internal\"", &roots("internal", &pki.root()));
    refused_as(&egret, "connect_refused");
}

#[test]
fn next_server_is_tried_and_the_client_loses_nothing() {
    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let servers = format!("{}\", \"{}", loopback(free_port()), peer.address);
    let order = "balance = \"priority\"";
    let egret = one_upstream_with(order, &servers, "trust = \"internal\"", &roots("internal", &pki.root()));
    let (bytes, end) = plain::ask_and_finish(egret.address("plain"), REQUEST);
    assert_eq!((bytes.as_slice(), end), (REQUEST, End::Clean), "{}", egret.log_text());
    egret.wait_for_log("the first server's failure", |line| line["reason"] == "connect_refused");
}

/// A FIN of the server without close_notify may be somebody who cut the stream short.
#[test]
fn truncated_upstream_is_a_reset_for_the_client_unless_it_is_said_to_be_fine() {
    let pki = Pki::new();
    let config = anonymous(&pki.server(&[HOST]));
    let peer = Peer::start_tls(config, |mut tls| {
        let _ = tls.read(&mut [0; 64]);
        tls.write_all(b"half of the tr").and_then(|()| tls.flush()).unwrap();
        plain::finish(&tls.sock);
        let _ = tls.sock.read_to_end(&mut Vec::new());
    });
    for (eof, expected, ended) in [("strict", End::Reset, "upstream_truncated"), ("lenient", End::Clean, "finished")] {
        let trust = roots("internal", &pki.root());
        let address = peer.address.to_string();
        let egret = one_upstream_with(&format!("eof = \"{eof}\""), &address, "trust = \"internal\"", &trust);
        let floor = egret.descriptors();
        let (bytes, end) = match expected {
            End::Reset => ask(egret.address("plain"), REQUEST),
            End::Clean => plain::ask_and_finish(egret.address("plain"), REQUEST),
        };
        assert_eq!(end, expected, "eof = {eof}: {}", egret.log_text());
        assert!(b"half of the tr".starts_with(&bytes), "{bytes:?}");
        egret.wait_for_log(ended, |line| line["ended"] == ended);
        egret.wait_until_idle(floor);
    }
}

#[test]
fn upstream_that_resets_after_the_handshake_resets_the_client() {
    let pki = Pki::new();
    let config = anonymous(&pki.server(&[HOST]));
    let peer = Peer::start_tls(config, |mut tls| {
        let _ = tls.read(&mut [0; 64]);
        plain::reset(tls.sock);
    });
    let egret = egret_to(&peer, &pki);
    let floor = egret.descriptors();
    let (bytes, end) = ask(egret.address("plain"), REQUEST);
    assert_eq!((bytes.len(), end), (0, End::Reset), "{}", egret.log_text());
    egret.wait_for_log("upstream_reset", |line| line["ended"] == "upstream_reset");
    egret.wait_until_idle(floor);
}
