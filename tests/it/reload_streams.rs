//! Reloads under traffic: no stream is harmed, no connection refused.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::support::egret::{Egret, listener, roots};
use crate::support::pattern::{Digest, Pattern};
use crate::support::peer::{Peer, chain, end, mutual};
use crate::support::pki::{Leaf, Pair, Pki};
use crate::support::{eventually, free_port, plain};

const HOST: &str = "echo.example.com";
const STREAMS: u64 = 500;
const RELOADS: u64 = 100;

/// The certificates that the server has seen of its clients.
type Seen = Arc<Mutex<Vec<CertificateDer<'static>>>>;

fn echo_that_remembers(pki: &Pki, seen: &Seen) -> Peer {
    let seen = Arc::clone(seen);
    Peer::start_tls(mutual(&pki.server(&[HOST]), pki), move |mut tls| {
        let mut piece = vec![0; 16_384];
        let mut first = true;
        while let Ok(length @ 1..) = tls.read(&mut piece) {
            if std::mem::take(&mut first) {
                let leaf = tls.conn.peer_certificates().unwrap()[0].clone().into_owned();
                seen.lock().unwrap().push(leaf);
            }
            if tls.write_all(&piece[..length]).and_then(|()| tls.flush()).is_err() {
                return;
            }
        }
        end(&mut tls);
    })
}

/// Sends until told to stop; what comes back is what was sent.
fn stream(address: SocketAddr, seed: u64, stop: &AtomicBool) -> io::Result<()> {
    let mut tcp = plain::connect(address);
    let reader = tcp.try_clone()?;
    let back = std::thread::spawn(move || read_all(reader));
    let mut pattern = Pattern::new(seed);
    let mut digest = Digest::new();
    let mut piece = vec![0; 4_096];
    while !stop.load(Ordering::Relaxed) {
        pattern.fill(&mut piece);
        tcp.write_all(&piece)?;
        digest.update(&piece);
        // Not in step with each other.
        std::thread::sleep(Duration::from_millis(150 + seed % 100));
    }
    tcp.shutdown(Shutdown::Write)?;
    let sent = (digest.length, digest.hex());
    let got = back.join().expect("reading does not panic")?;
    if got == sent { Ok(()) } else { Err(io::Error::other(format!("sent {sent:?}, got back {got:?}"))) }
}

fn read_all(mut tcp: TcpStream) -> io::Result<(u64, String)> {
    let mut digest = Digest::new();
    let mut piece = vec![0; 4_096];
    loop {
        match tcp.read(&mut piece)? {
            0 => return Ok((digest.length, digest.hex())),
            length => digest.update(&piece[..length]),
        }
    }
}

/// A new connection that carries a byte both ways.
fn carries_a_byte(address: SocketAddr) -> io::Result<()> {
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
    tcp.write_all(b"x")?;
    tcp.read_exact(&mut [0])
}

/// Connects all the time.
fn knock(address: SocketAddr, stop: &AtomicBool, served: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        carries_a_byte(address).expect("no connection is refused while egret reloads");
        served.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn hundred_reloads_harm_none_of_five_hundred_streams_and_refuse_no_connection() {
    let pki = Pki::new();
    let seen = Seen::default();
    let peer = echo_that_remembers(&pki, &seen);
    let pair = pki.client("app");
    let sections = format!(
        "{}{}[upstreams.echo]\nservers = [\"{}\"]\n\
         tls = {{ identity = \"app\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
        roots("internal", &pki.root()),
        pair.identity("app"),
        peer.address,
        listener("echo", free_port(), "echo"),
    );
    let egret = Egret::start(&sections);
    let address = egret.address("echo");
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));

    let harmed: Vec<String> = std::thread::scope(|scope| {
        // However the reloads end, the threads are told.
        let told = StopOnDrop(&stop);
        let start = |seed| {
            let stop = &stop;
            scope.spawn(move || stream(address, seed, stop))
        };
        let streams: Vec<_> = (0..STREAMS).map(start).collect();
        scope.spawn(|| knock(address, &stop, &served));
        eventually("all streams to be in flight", || {
            (egret.metrics().sum("egret_connections_active", &[]) >= STREAMS as f64).then_some(())
        });
        for round in 0..RELOADS {
            reload_once(round, &egret, &sections, &pki, &seen, address);
        }
        drop(told);
        let ends = streams.into_iter().map(|stream| stream.join().expect("a stream does not panic"));
        ends.enumerate().filter_map(|(seed, end)| Some(format!("stream {seed}: {}", end.err()?))).collect()
    });

    assert!(harmed.is_empty(), "{} of {STREAMS} streams were harmed, such as {:?}", harmed.len(), harmed.first());
    assert!(served.into_inner() > RELOADS, "too few connections to judge by");
    let metrics = egret.metrics();
    assert_eq!(metrics.sum("egret_reloads_total", &[("result", "rejected")]), 10.0);
    assert_eq!(metrics.sum("egret_reloads_total", &[("result", "accepted")]), 90.0);
    assert_eq!(metrics.sum("egret_origination_failures_total", &[]), 0.0, "{}", egret.log_text());
}

/// Every second rotates the identity, every tenth finds a broken configuration, the rest a changed one.
fn reload_once(round: u64, egret: &Egret, sections: &str, pki: &Pki, seen: &Seen, address: SocketAddr) {
    if round % 10 == 5 {
        egret.rewrite("[upstreams.echo]\nservers = [");
        assert!(!egret.reload(), "a broken configuration was accepted");
        egret.rewrite(sections);
    } else if round.is_multiple_of(2) {
        let rotated = rotate(pki, round);
        assert!(egret.reload(), "round {round}\n{}", egret.log_text());
        let leaf = &chain(&rotated)[0];
        carries_a_byte(address).unwrap();
        assert!(
            seen.lock().unwrap().contains(leaf),
            "round {round}: a connection after the reload has the old identity"
        );
    } else {
        egret.rewrite(&format!("{sections}\n{}", roots(&format!("spare-{round}"), &pki.root())));
        assert!(egret.reload(), "round {round}\n{}", egret.log_text());
    }
}

fn rotate(pki: &Pki, round: u64) -> Pair {
    pki.issue("app", &Leaf { common_name: &format!("app-{round}"), names: &[], valid: (-1, 30) })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
