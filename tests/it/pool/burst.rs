//! More clients at once than there are warm connections.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::support::{before, blocking, fills, takes, wait_for_warm};
use crate::support::fleet::{Fleet, ask};

const CLIENTS: usize = 200;
const SHELF: usize = 8;

/// All at once: each is answered.
async fn burst(egret: SocketAddr) {
    let mut asking = JoinSet::new();
    for _ in 0..CLIENTS {
        asking.spawn(async move { ask(egret).await.map(drop) });
    }
    let answers = asking.join_all().await;
    answers.into_iter().collect::<Result<Vec<()>, _>>().expect("none fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_far_above_the_shelf_is_served_and_nobody_waits_for_the_pool() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(1).await;
    let server = &nodes[0];
    let pool = format!("pool = {{ min_idle = {SHELF}, max_idle = {SHELF} }}\n");
    let with = before(&fleet, &[server.address], &pool);
    for _ in 0..2 {
        blocking(|| wait_for_warm(&with, SHELF));
        let (accepted, filled, hits) = (server.accepted(), blocking(|| fills(&with, "ready")), hits(&with));
        burst(with.address("in")).await;
        assert!(hits + SHELF as f64 <= blocking(|| takes(&with, "hit")), "what was warm was used");
        // What is made meanwhile is for the clients too: each who takes it needs no handshake of its own. Beyond
        // that, the shelf is full once more and no more than that.
        blocking(|| wait_for_warm(&with, SHELF));
        assert_eq!(server.accepted() - accepted, CLIENTS, "a connection for each client, warm or not");
        let filled = blocking(|| fills(&with, "ready")) - filled;
        assert!(filled <= CLIENTS as f64 / 2.0, "{filled} of {CLIENTS} handshakes were the pool's");
    }
    assert_eq!(blocking(|| takes(&with, "hit") + takes(&with, "miss")), 2.0 * CLIENTS as f64);
    assert_eq!(blocking(|| fills(&with, "failed")), 0.0);
}

fn hits(egret: &crate::support::egret::Egret) -> f64 {
    blocking(|| takes(egret, "hit"))
}
