//! Clients that leave before there is a stream: at every stage what they were using is given back at once, and
//! whoever only half-closed still gets the answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::bad_input::{SSL_REQUEST, STARTUP, for_postgres, refused_at_once};
use crate::failures::{HOST, REQUEST, one_upstream};
use crate::support::egret::{Egret, listener, roots};
use crate::support::peer::{self, Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::plain::{self, End};
use crate::support::{eventually, free_port};

const CLIENTS: usize = 30;

/// Connects clients that say `first`, waits until all are being served and `stalled`, and resets them.
fn come_and_reset(egret: &Egret, first: &[u8], stalled: impl Fn() -> bool) {
    let address = egret.address("plain");
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = plain::connect(address);
            client.write_all(first).unwrap();
            client
        })
        .collect();
    eventually("all clients to be accepted", || {
        (egret.metrics().sum("egret_connections_active", &[]) >= CLIENTS as f64).then_some(())
    });
    eventually("all clients to wait", || stalled().then_some(()));
    clients.into_iter().for_each(plain::reset);
}

/// Clients come while the origination cannot go on for half a minute, and reset: nothing of them is left.
fn given_back_at_once(egret: &Egret, stalled: impl Fn() -> bool) {
    let floor = egret.descriptors();
    come_and_reset(egret, REQUEST, stalled);
    egret.wait_until_idle(floor);
    let metrics = egret.metrics();
    let left = metrics.sum("egret_streams_ended_total", &[("reason", "downstream_reset")]);
    assert_eq!(left, CLIENTS as f64, "{}", egret.log_text());
    // It is nobody's failure: held to the deadline, each would be one.
    assert_eq!(metrics.sum("egret_origination_failures_total", &[]), 0.0, "{}", egret.log_text());
}

#[test]
fn reset_before_a_client_has_said_what_it_wants_leaves_nothing() {
    let pki = Pki::new();
    for first in [&b""[..], &STARTUP[..5], SSL_REQUEST] {
        let (_peer, egret) = for_postgres(&pki);
        let floor = egret.descriptors();
        come_and_reset(&egret, first, || true);
        egret.wait_until_idle(floor);
        refused_at_once(&egret, "downstream_io", CLIENTS);
    }
}

#[test]
fn close_before_a_client_has_said_what_it_wants_is_its_own_class() {
    let pki = Pki::new();
    let (_peer, egret) = for_postgres(&pki);
    let floor = egret.descriptors();
    for first in [&b""[..], &STARTUP[..5], SSL_REQUEST] {
        let (bytes, _) = plain::ask_and_finish(egret.address("plain"), first);
        assert!(bytes.is_empty() || first == SSL_REQUEST, "{bytes:?}");
    }
    refused_at_once(&egret, "downstream_closed", 3);
    egret.wait_until_idle(floor);
}

#[test]
fn reset_while_the_name_is_looked_up_leaves_nothing() {
    let pki = Pki::new();
    // A name server that is there and never answers.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let egret = Egret::start(&format!(
        "[dns]\nservers = [\"{}\"]\n{}[upstreams.silent]\nservers = [\"{HOST}:443\"]\noriginate_timeout = \"30s\"\n\
         tls = {{ trust = \"internal\" }}\n{}",
        silent.local_addr().unwrap(),
        roots("internal", &pki.root()),
        listener("plain", free_port(), "silent"),
    ));
    given_back_at_once(&egret, || true);
}

#[test]
fn reset_while_the_handshake_stalls_leaves_nothing() {
    let pki = Pki::new();
    let [asked, left] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let seen = (Arc::clone(&asked), Arc::clone(&left));
    let peer = Peer::start(move |mut tcp| {
        let _ = tcp.read(&mut [0; 4096]);
        seen.0.fetch_add(1, Ordering::Relaxed);
        let _ = tcp.read_to_end(&mut Vec::new());
        seen.1.fetch_add(1, Ordering::Relaxed);
    });
    given_back_at_once(&patient(&pki, &peer), || asked.load(Ordering::Relaxed) == CLIENTS);
    // The server is told as well.
    eventually("the server to be rid of them", || (left.load(Ordering::Relaxed) == CLIENTS).then_some(()));
}

/// egret whose patience is longer than any hesitation of this server.
fn patient(pki: &Pki, peer: &Peer) -> Egret {
    Egret::start(&format!(
        "{}[upstreams.hesitant]\nservers = [\"{}\"]\noriginate_timeout = \"30s\"\n\
         tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        peer.address,
        listener("plain", free_port(), "hesitant"),
    ))
}

/// A server that sends back what it gets, but begins its handshakes only when it is told to.
struct Hesitant {
    peer: Peer,
    begin: Arc<AtomicBool>,
}

impl Hesitant {
    fn start(pki: &Pki) -> Self {
        let begin = Arc::new(AtomicBool::new(false));
        let config = anonymous(&pki.server(&[HOST]));
        let told = Arc::clone(&begin);
        let peer = Peer::start(move |tcp| {
            eventually("the test to say when", || told.load(Ordering::Relaxed).then_some(()));
            peer::echo(peer::accepted(tcp, &config));
        });
        Self { peer, begin }
    }

    fn begin(&self) {
        self.begin.store(true, Ordering::Relaxed);
    }
}

#[test]
fn half_close_during_a_slow_handshake_loses_neither_request_nor_answer() {
    let pki = Pki::new();
    let server = Hesitant::start(&pki);
    let egret = patient(&pki, &server.peer);
    let floor = egret.descriptors();
    let mut said_all = plain::connect(egret.address("plain"));
    said_all.write_all(REQUEST).unwrap();
    plain::finish(&said_all);
    let mut said_nothing = plain::connect(egret.address("plain"));
    plain::finish(&said_nothing);
    eventually("both to be accepted", || (egret.metrics().sum("egret_connections_active", &[]) == 2.0).then_some(()));
    server.begin();
    assert_eq!(plain::read_to_end(&mut said_all), (REQUEST.to_vec(), End::Clean), "{}", egret.log_text());
    assert_eq!(plain::read_to_end(&mut said_nothing), (Vec::new(), End::Clean), "{}", egret.log_text());
    let finished = egret.metrics().sum("egret_streams_ended_total", &[("reason", "finished")]);
    assert_eq!(finished, 2.0, "{}", egret.log_text());
    drop((said_all, said_nothing));
    egret.wait_until_idle(floor);
}

#[test]
fn reset_in_the_middle_of_an_answer_resets_the_server() {
    let pki = Pki::new();
    let ended = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ended);
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        let _ = tls.read(&mut [0; 64]);
        while tls.write_all(&[7; 16_384]).is_ok() {}
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let trust = roots("internal", &pki.root());
    let egret = one_upstream(&peer.address.to_string(), "trust = \"internal\"", &trust);
    let floor = egret.descriptors();
    for _ in 0..CLIENTS {
        let mut client = plain::connect(egret.address("plain"));
        client.write_all(REQUEST).unwrap();
        client.read_exact(&mut [0; 50_000]).unwrap();
        plain::reset(client);
    }
    eventually("the server to be rid of them", || (ended.load(Ordering::Relaxed) == CLIENTS).then_some(()));
    egret.wait_until_idle(floor);
    let reset = egret.metrics().sum("egret_streams_ended_total", &[("reason", "downstream_reset")]);
    assert_eq!(reset, CLIENTS as f64, "{}", egret.log_text());
}
