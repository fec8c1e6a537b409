//! A server that ends connections which say nothing for two seconds.

use std::time::{Duration, Instant};

use super::support::{before, blocking, discards, fills, takes};
use crate::support::eventually;
use crate::support::fleet::{Fleet, Manner, ask_many};
use crate::support::free_port;
use crate::support::loopback;

const LIMIT: Duration = Duration::from_secs(2);
const TAKES: usize = 10_000;
/// Silences between takes: around the limit, and around the three quarters of it at which egret gives up first.
const SILENCES: [u64; 5] = [1_990, 1_500, 2_010, 1_980, 2_000];
const FLOOR: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_takes_around_an_idle_limit_get_no_stale_connection() {
    let fleet = Fleet::new();
    let server = fleet.node(loopback(free_port()));
    server.start(Manner::Idles(LIMIT)).await;
    let pool = format!("pool = {{ min_idle = {FLOOR}, max_idle = 16, max_idle_age = \"1m\" }}\n");
    let began = Instant::now();
    let egret = before(&fleet, &[server.address], &pool);
    // Nobody knows the limit, until two generations of warm connections have met it.
    blocking(|| eventually("the limit to be met twice", || (discards(&egret, "warm_closed") > 4.0).then_some(())));
    tokio::time::sleep(LIMIT).await;
    let (closed, accepted) = (blocking(|| discards(&egret, "warm_closed")), server.accepted());
    // Each lives for a second at least: three quarters of the limit, less a quarter by chance.
    let sets = began.elapsed().as_secs() as usize + 2;
    assert!(accepted <= sets * FLOOR, "{accepted} connections for a floor of {FLOOR}");

    for silence in SILENCES {
        tokio::time::sleep(Duration::from_millis(silence)).await;
        let (ports, failed) = ask_many(egret.address("in"), TAKES / SILENCES.len(), 8).await;
        assert_eq!((ports.len(), failed.len()), (TAKES / SILENCES.len(), 0), "{failed:?}");
    }
    assert_eq!(server.stale(), 0, "a client spoke on a connection that the server had ended");
    blocking(|| {
        assert_eq!(discards(&egret, "warm_closed"), closed, "what was learned is kept");
        assert!(discards(&egret, "warm_aged") > 0.0);
        assert!(takes(&egret, "hit") > TAKES as f64 / 4.0, "{} hits", takes(&egret, "hit"));
        // No loop: besides those that were used, some sets of the shelf in as many silences.
        let idle = fills(&egret, "ready") - takes(&egret, "hit");
        assert!(idle < 16.0 * 2.0 * SILENCES.len() as f64, "{idle} connections were made for nobody");
    });
}
