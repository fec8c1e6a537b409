//! What a stream costs that has nothing to say (`docs/hot-path.md` states it), and what is left of it when it has ended.

use std::io::Write;
use std::net::TcpStream;

use crate::lifecycle::{Scene, echoes};
use crate::support::egret::{Egret, listener};
use crate::support::{eventually, plain};

const STREAMS: usize = 1000;
/// Handshakes at once, so that what they need for a moment does not count.
const TOGETHER: usize = 50;

/// Resident memory of an idle stream of TLS 1.3 at most. The build of the tests needs 8.8 KiB; one buffer of
/// the smallest size would add 18.
const KIB_EACH: u64 = 14;

#[test]
fn idle_streams_hold_no_buffers() {
    let scene = Scene::new("");
    let egret = Egret::start(&(scene.upstream + &listener("echo", 0, "echo")));
    let address = egret.address("echo");
    let open = || -> Vec<TcpStream> {
        let mut streams: Vec<_> = (0..TOGETHER).map(|_| plain::connect(address)).collect();
        // Each has moved bytes, so each has held buffers.
        assert!(streams.iter_mut().all(echoes), "{}", egret.log_text());
        streams
    };
    let _first = open();
    let before = egret.resident_kib();
    let _streams: Vec<_> = (0..STREAMS / TOGETHER).map(|_| open()).collect();
    eventually("all streams to be counted", || {
        (egret.metrics().sum("egret_connections_active", &[]) >= STREAMS as f64).then_some(())
    });
    let each = (egret.resident_kib() - before) as f64 / STREAMS as f64;
    assert!(each <= KIB_EACH as f64, "{each:.1} KiB for each of {STREAMS} idle streams");
}

/// Clients that each send so many bytes, as far as the kernel takes them, and read nothing.
fn crowd(egret: &Egret, size: usize, bytes: usize) -> Vec<TcpStream> {
    let (address, data) = (egret.address("echo"), vec![b'd'; bytes]);
    let send = |_| {
        let mut client = plain::connect(address);
        client.set_nonblocking(true).unwrap();
        let _ = client.write(&data);
        client
    };
    let crowd = (0..size).map(send).collect();
    eventually("all streams to be counted", || (active(egret) >= size as f64).then_some(()));
    crowd
}

fn active(egret: &Egret) -> f64 {
    egret.metrics().sum("egret_connections_active", &[])
}

/// Streams that have only been opened, that moved bytes, and whose clients did not read.
#[test]
fn memory_is_given_back_when_a_crowd_has_left() {
    const KINDS: [(&str, usize); 3] = [("idle", 0), ("busy", 16 << 10), ("unread", 256 << 10)];
    /// Less than what 1500 streams of any kind take.
    const LEFT_KIB: u64 = 8 << 10;
    let scene = Scene::new("");
    let egret = Egret::start(&(scene.upstream + &listener("echo", 0, "echo")));
    // What is kept whatever comes: sessions, and the spare buffers of each worker.
    for (_, bytes) in KINDS {
        drop(crowd(&egret, 50, bytes));
        eventually("a few streams to end", || (active(&egret) == 0.0).then_some(()));
    }
    let before = egret.resident_kib();
    for (what, bytes) in KINDS {
        drop(crowd(&egret, 1500, bytes));
        eventually(&format!("the memory of {what} streams to be given back"), || {
            (egret.resident_kib() <= before + LEFT_KIB).then_some(())
        });
    }
}
