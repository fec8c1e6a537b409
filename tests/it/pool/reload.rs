//! What is warm when the configuration, or a file that it names, is replaced.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::support::{Certificates, Counting, discards, takes, trip, wait_for_warm, warm};
use crate::support::egret::{Egret, roots};
use crate::support::peer::{Peer, end};
use crate::support::pki::{Leaf, Pair, Pki};
use crate::support::plain;

/// Answers the first byte with the number of the certificate that the connection was made with.
fn telling(certificates: &Certificates) -> Peer {
    Peer::start_tls(certificates.mutual(), |mut tls| {
        if !matches!(tls.read(&mut [0]), Ok(1)) {
            return;
        }
        let der = tls.conn.peer_certificates().unwrap()[0].clone();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let serial = u64::try_from(&leaf.serial).unwrap();
        let _ = tls.write_all(&serial.to_be_bytes()).and_then(|()| tls.flush());
        let _ = tls.read(&mut [0]);
        end(&mut tls);
    })
}

/// A new stream; the number of the certificate that its server saw.
fn seen(egret: SocketAddr) -> u64 {
    let mut tcp = plain::connect(egret);
    tcp.write_all(b"x").unwrap();
    let mut serial = [0; 8];
    tcp.read_exact(&mut serial).unwrap();
    u64::from_be_bytes(serial)
}

fn rotate(pki: &Pki, round: usize) -> Pair {
    pki.issue("app", &Leaf { common_name: &format!("app-{round}"), names: &[], valid: (-1, 30) })
}

fn reload(egret: &Egret) {
    let answer = egret.admin("POST", "/reload");
    assert_eq!(answer.status, 200, "{answer:?}\n{}", egret.log_text());
}

#[test]
fn after_a_rotation_no_new_stream_uses_the_old_certificate_warm_or_not() {
    const ROTATIONS: usize = 12;
    let certificates = Certificates::new();
    let peer = telling(&certificates);
    let first = certificates.pki.client("app");
    let egret = Egret::start(&certificates.sections(&first, peer.address, "min_idle = 6, max_idle = 6"));
    let address = egret.address("app");
    let (current, stop, streams) = (AtomicU64::new(first.serial()), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let load = || {
            while !stop.load(Ordering::SeqCst) {
                let least = current.load(Ordering::SeqCst);
                let serial = seen(address);
                assert!(serial >= least, "a stream that began after {least} was in use went out with {serial}");
                streams.fetch_add(1, Ordering::SeqCst);
            }
        };
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        for round in 0..ROTATIONS {
            std::thread::sleep(Duration::from_millis(60));
            let next = rotate(&certificates.pki, round);
            reload(&egret);
            current.store(next.serial(), Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
        loads.into_iter().for_each(|load| load.join().expect("no stream has the old certificate"));
    });
    assert!(streams.into_inner() > 4 * ROTATIONS as u64, "too few streams to judge by");
    assert!(takes(&egret, "hit") > 0.0 && discards(&egret, "warm_replaced") > 0.0);

    // Without load: the shelf is full of what the old certificate has made when it is replaced.
    wait_for_warm(&egret, 6);
    let (hits, replaced) = (takes(&egret, "hit"), discards(&egret, "warm_replaced"));
    let next = rotate(&certificates.pki, ROTATIONS);
    reload(&egret);
    assert_eq!(seen(address), next.serial());
    wait_for_warm(&egret, 6);
    assert_eq!(discards(&egret, "warm_replaced"), replaced + 6.0);
    assert_eq!(seen(address), next.serial());
    assert!(takes(&egret, "hit") > hits, "the second was warm");
}

#[test]
fn a_reload_keeps_what_is_warm_unless_something_of_its_origin_changed() {
    let certificates = Certificates::new();
    let server = Counting::start(certificates.mutual(), None, None);
    let client = certificates.pki.client("app");
    let sections = |pool: &str| certificates.sections(&client, server.address(), pool);
    let pool = "min_idle = 4, max_idle = 4, max_idle_age = \"5m\"";
    let egret = Egret::start(&sections(pool));
    wait_for_warm(&egret, 4);

    egret.rewrite(&(sections(pool) + &roots("spare", &certificates.pki.root())));
    reload(&egret);
    assert_eq!((warm(&egret), server.accepted()), (4.0, 4), "carried over");
    trip(egret.address("app"), b"hello");
    assert_eq!(takes(&egret, "hit"), 1.0);
    wait_for_warm(&egret, 4);
    assert_eq!(server.accepted(), 5);

    // Other bounds, the same origin.
    egret.rewrite(&sections("min_idle = 2, max_idle = 2, max_idle_age = \"5m\""));
    reload(&egret);
    assert_eq!((warm(&egret), discards(&egret, "warm_excess"), server.accepted()), (2.0, 2.0, 5));

    // One more root in the trust is another origin.
    let (root, other) = (certificates.pki.root(), Pki::new());
    let trusting = sections(pool).replace(&format!("[{root:?}]"), &format!("[{root:?}, {:?}]", other.root()));
    egret.rewrite(&trusting);
    reload(&egret);
    assert_eq!(discards(&egret, "warm_replaced"), 2.0);
    wait_for_warm(&egret, 4);
    assert_eq!(server.accepted(), 9);

    egret.rewrite(&trusting.replace(&format!("pool = {{ {pool} }}"), ""));
    reload(&egret);
    assert_eq!((warm(&egret), discards(&egret, "warm_replaced")), (0.0, 6.0));
    trip(egret.address("app"), b"hello");
    assert_eq!(server.accepted(), 10, "made for its client");
}
