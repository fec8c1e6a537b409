//! Much data: it arrives unharmed whichever side ends first, and a slow reader costs no memory.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::failures::{HOST, one_upstream};
use crate::support::egret::{Egret, roots};
use crate::support::nginx::{Nginx, tls};
use crate::support::peer::{Peer, anonymous, end, versions};
use crate::support::pki::Pki;
use crate::support::{free_port, loopback, plain};

const GIB: u64 = 1 << 30;

fn egret_to(address: std::net::SocketAddr, pki: &Pki) -> Egret {
    one_upstream(&address.to_string(), "trust = \"internal\"", &roots("internal", &pki.root()))
}

/// The client sends everything and half-closes; only then the server sends, and closes.
#[test]
fn gibibyte_each_way_arrives_when_the_client_half_closes_first() {
    let pki = Pki::new();
    let (tell, told) = mpsc::channel();
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        let got = plain::receive(&mut tls);
        let sent = plain::send(&mut tls, 2, GIB);
        end(&mut tls);
        tell.send((got, sent)).unwrap();
    });
    let egret = egret_to(peer.address, &pki);
    let mut client = plain::connect(egret.address("plain"));
    let sent = plain::send(&mut client, 1, GIB);
    plain::finish(&client);
    let got = plain::receive(&mut client);
    let (server_got, server_sent) = told.recv().unwrap();
    assert_eq!(server_got, (GIB, sent), "client to server\n{}", egret.log_text());
    assert_eq!(got, (GIB, server_sent), "server to client\n{}", egret.log_text());
    counts(&egret, GIB, GIB);
}

/// The server sends everything and says its end; only then the client sends, and closes.
#[test]
fn gibibyte_each_way_arrives_when_the_server_half_closes_first() {
    let pki = Pki::new();
    let (tell, told) = mpsc::channel();
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        let sent = plain::send(&mut tls, 2, GIB);
        end(&mut tls);
        tell.send((plain::receive(&mut tls), sent)).unwrap();
    });
    let egret = egret_to(peer.address, &pki);
    let mut client = plain::connect(egret.address("plain"));
    let got = plain::receive(&mut client);
    let sent = plain::send(&mut client, 1, GIB);
    plain::finish(&client);
    let (server_got, server_sent) = told.recv().unwrap();
    assert_eq!(got, (GIB, server_sent), "server to client\n{}", egret.log_text());
    assert_eq!(server_got, (GIB, sent), "client to server\n{}", egret.log_text());
    counts(&egret, GIB, GIB);
}

/// The line of the log and the metric agree to the byte.
fn counts(egret: &Egret, sent: u64, received: u64) {
    let line = egret.wait_for_log("the connection", |line| line["message"] == "connection");
    assert_eq!((line["sent"].as_u64(), line["received"].as_u64()), (Some(sent), Some(received)), "{line}");
    assert_eq!(line["ended"], "finished", "{line}");
    let bytes = egret.metrics().sum("egret_bytes_total", &[]);
    assert_eq!(bytes, (sent + received) as f64);
}

/// Both directions at once, TLS 1.2, and OpenSSL at the other end: nginx gives TLS to a plain server.
#[test]
fn both_directions_at_once_arrive_through_openssl_on_either_version() {
    const LENGTH: u64 = 64 << 20;
    let pki = Pki::new();
    let (tell, told) = mpsc::channel();
    let plain_server = Peer::start(move |mut tcp| {
        let mut writer = tcp.try_clone().unwrap();
        let sender = std::thread::spawn(move || plain::send(&mut writer, 2, LENGTH));
        let got = plain::receive(&mut (&mut tcp).take(LENGTH));
        tell.send((got, sender.join().unwrap())).unwrap();
        let _ = tcp.read(&mut [0]);
    });
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let port = free_port();
        let tls = tls(&pki.server(&[HOST]), &pki.root(), protocol);
        let server = plain_server.address;
        let _nginx = Nginx::start_stream(
            &format!("server {{ listen 127.0.0.1:{port} ssl; {tls} proxy_pass {server}; }}"),
            &[port],
        );
        let egret = egret_to(loopback(port), &pki);
        let mut client = plain::connect(egret.address("plain"));
        let mut writer = client.try_clone().unwrap();
        let sender = std::thread::spawn(move || plain::send(&mut writer, 1, LENGTH));
        let got = plain::receive(&mut (&mut client).take(LENGTH));
        let sent = sender.join().unwrap();
        let (server_got, server_sent) = told.recv().unwrap();
        assert_eq!(server_got, (LENGTH, sent), "{protocol}: client to server\n{}", egret.log_text());
        assert_eq!(got, (LENGTH, server_sent), "{protocol}: server to client\n{}", egret.log_text());
    }
}

#[test]
fn half_close_works_on_tls_1_2_as_well() {
    let pki = Pki::new();
    let config = versions(&pki.server(&[HOST]), &[&rustls::version::TLS12]);
    let peer = Peer::start_tls(config, |mut tls| {
        let (length, digest) = plain::receive(&mut tls);
        let _ = tls.write_all(format!("{length} {digest}").as_bytes());
        end(&mut tls);
    });
    let egret = egret_to(peer.address, &pki);
    let mut client = plain::connect(egret.address("plain"));
    let sent = plain::send(&mut client, 1, 10_000_000);
    plain::finish(&client);
    let (answer, _) = plain::read_to_end(&mut client);
    assert_eq!(String::from_utf8(answer).unwrap(), format!("10000000 {sent}"), "{}", egret.log_text());
}

/// How much more memory egret may hold while one side is slow: its buffers, and room for the allocator.
/// What is offered meanwhile is hundreds of times as much.
const FLAT_KIB: u64 = 8 * 1024;

/// What a slow reader takes before it leaves.
const SLOW_TAKES: u64 = 8_000_000;

/// Takes a megabyte a second at most.
fn read_slowly(from: &mut impl Read) -> u64 {
    let mut piece = vec![0; 50_000];
    let mut taken = 0;
    while taken < SLOW_TAKES {
        from.read_exact(&mut piece).unwrap();
        taken += piece.len() as u64;
        std::thread::sleep(Duration::from_millis(50));
    }
    taken
}

/// Watches egret's memory while `work` goes on; fails if it grows.
fn memory_stays_flat(egret: &Egret, what: &str, work: impl FnOnce() -> u64 + Send) {
    let before = egret.resident_kib();
    let (taken, highest) = std::thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut highest = before;
        while !work.is_finished() {
            highest = highest.max(egret.resident_kib());
            std::thread::sleep(Duration::from_millis(50));
        }
        (work.join().unwrap(), highest)
    });
    let figure = format!("{what}: {taken} bytes taken, resident {before} KiB before and {highest} KiB at most");
    println!("{figure}");
    assert!(highest <= before + FLAT_KIB, "{figure}: more than {FLAT_KIB} KiB above");
}

/// One short stream, so that what is allocated once for all streams is not counted as growth.
fn warm(egret: &Egret) {
    drop(plain::connect(egret.address("plain")));
    egret.wait_for_log("the first connection", |line| line["message"] == "connection");
}

#[test]
fn slow_client_costs_no_memory() {
    let pki = Pki::new();
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), |mut tls| offer_without_end(&mut tls));
    let egret = egret_to(peer.address, &pki);
    warm(&egret);
    memory_stays_flat(&egret, "slow client", || read_slowly(&mut plain::connect(egret.address("plain"))));
}

#[test]
fn slow_server_costs_no_memory() {
    let pki = Pki::new();
    let (tell, told) = mpsc::channel();
    let peer = Peer::start_tls(anonymous(&pki.server(&[HOST])), move |mut tls| {
        // The stream that only warms is over at once.
        if tls.read_exact(&mut [0]).is_ok() {
            tell.send(read_slowly(&mut tls)).unwrap();
        }
    });
    let egret = egret_to(peer.address, &pki);
    warm(&egret);
    let mut client = plain::connect(egret.address("plain"));
    memory_stays_flat(&egret, "slow server", move || {
        let sender = std::thread::spawn(move || offer_without_end(&mut client));
        let taken = told.recv().unwrap();
        sender.join().unwrap();
        taken
    });
}

/// Writes as much as the other side takes, until it goes away.
fn offer_without_end(to: &mut impl Write) {
    let piece = vec![7; 65_536];
    while to.write_all(&piece).is_ok() {}
}
