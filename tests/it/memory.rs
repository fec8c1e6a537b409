//! What a stream costs that has nothing to say: `docs/hot-path.md` states it.

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
