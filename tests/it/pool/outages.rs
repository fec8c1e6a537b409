//! Everything that can go wrong with servers at once, under load and with a pool.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::support::{blocking, takes, wait_for_warm};
use crate::support::dns::{DnsServer, Reply};
use crate::support::egret::{Egret, listener};
use crate::support::fleet::{BlackHole, Fleet, Manner, Node, ask_many};
use crate::support::{eventually, free_port, loopback};

const NAME: &str = "db.example.com";
const STREAMS: usize = 10_000;
const RESTARTS: usize = 20;
const FLOOR: usize = 4;

/// One server that is always well, two that are killed and started in turns without a word to anybody, three of which
/// DNS names two, and three that never work.
struct World {
    well: Node,
    restarted: Arc<[Node; 2]>,
    named: Vec<Node>,
    resets: Node,
    stalls: Node,
    hole: BlackHole,
    dns: Arc<DnsServer>,
    port: u16,
}

impl World {
    async fn new(fleet: &Fleet) -> Self {
        let (node, port) = (|| fleet.node(loopback(free_port())), free_port());
        let named = |last| fleet.node(SocketAddr::from((Ipv4Addr::new(127, 0, 8, last), port)));
        let world = Self {
            well: node(),
            restarted: Arc::new([node(), node()]),
            named: (1..=3).map(named).collect(),
            resets: node(),
            stalls: node(),
            hole: BlackHole::new(),
            dns: Arc::new(DnsServer::start().await),
            port,
        };
        for node in world.restarted.iter().chain(&world.named).chain([&world.well]) {
            node.start(Manner::Answers).await;
        }
        world.resets.start(Manner::Resets).await;
        world.stalls.start(Manner::Stalls).await;
        world.dns.set(NAME, world.reply(0));
        world
    }

    /// Two of the three; TTL one second, which the configuration bounds.
    fn reply(&self, round: usize) -> Reply {
        let ip = |at: usize| self.named[at % 3].address.ip();
        Reply::Addresses(vec![ip(round), ip(round + 1)], 1)
    }

    fn sections(&self, fleet: &Fleet) -> String {
        let nodes = [&self.well, &self.restarted[0], &self.restarted[1], &self.resets, &self.stalls];
        let addresses = nodes.iter().map(|node| node.address).chain([self.hole.address]);
        let servers: Vec<_> = addresses.map(|address| format!("\"{address}\"")).collect();
        // A back-off in which trials come often: each is a chance to fail a stream.
        let lines = format!(
            "servers = [{}, \"{NAME}:{}\"]\noriginate_timeout = \"6s\"\n\
             ejection = {{ backoff = \"200ms\", max_backoff = \"400ms\", max_share = 0.75 }}\n\
             pool = {{ min_idle = {FLOOR}, max_idle = 16, max_idle_age = \"2s\" }}\n",
            servers.join(", "),
            self.port
        );
        format!("[dns]\nservers = [\"{}\"]\nmin_ttl = \"50ms\"\nmax_ttl = \"100ms\"\n", self.dns.address)
            + &fleet.upstream(&lines)
            + &listener("in", free_port(), "fleet")
    }

    /// Kills and starts, and has DNS name others, until the load is over and it was often enough.
    async fn trouble<T>(&self, load: &JoinHandle<T>) -> usize {
        let mut round = 0;
        while round < RESTARTS || !load.is_finished() {
            let node = &self.restarted[round % 2];
            node.kill().await;
            self.dns.set(NAME, self.reply(round));
            tokio::time::sleep(Duration::from_millis(60)).await;
            node.start(Manner::Answers).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
            round += 1;
        }
        round
    }
}

/// Of the streams that did not finish, those that stood at a server when it was killed; and the others. One that was
/// warm stands from the moment that its server has bytes of the client: before that, another takes its place.
fn unfinished(egret: &Egret, restarted: &[Node]) -> (usize, Vec<String>) {
    let lines = egret.log().into_iter().filter(|line| line["message"] == "connection" && line["ended"] != "finished");
    let cut = |line: &serde_json::Value| {
        let by_server = ["upstream_reset", "upstream_truncated"].contains(&line["ended"].as_str().unwrap_or_default());
        let at_restarted = restarted.iter().any(|node| line["endpoint"] == node.address.to_string());
        by_server && at_restarted && (line["pooled"] == false || line["sent"].as_u64() == Some(4))
    };
    let (cut, others): (Vec<_>, Vec<_>) = lines.partition(cut);
    (cut.len(), others.iter().map(ToString::to_string).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_fails_that_had_a_healthy_server_whatever_the_others_do() {
    let fleet = Fleet::new();
    let world = World::new(&fleet).await;
    let egret = blocking(|| Egret::start(&world.sections(&fleet)));
    blocking(|| wait_for_warm(&egret, FLOOR));
    // Until the tries of those that swallow and stall are over, some descriptors are theirs.
    let floor = egret.descriptors();
    let load = tokio::spawn(ask_many(egret.address("in"), STREAMS, 16));
    let restarts = world.trouble(&load).await;
    let (ports, failed) = load.await.unwrap();

    let (cut, others) = blocking(|| unfinished(&egret, &*world.restarted));
    assert!(failed.len() <= cut, "{} failed, {cut} were cut: {failed:?}", failed.len());
    assert!(others.is_empty(), "{others:?}");
    assert!(cut <= 16 * restarts && restarts >= RESTARTS, "{cut} cut in {restarts} restarts");
    assert_eq!(ports.len() + failed.len(), STREAMS);
    assert!(world.well.answered() > 500 && world.named.iter().all(|node| node.answered() > 0));
    // Left alone but for trials: far below a share of the streams.
    let tries = (world.resets.accepted(), world.stalls.accepted());
    assert!(tries.0 < STREAMS / 10 && tries.1 < STREAMS / 20, "{tries:?}");
    blocking(|| {
        assert!(takes(&egret, "hit") > STREAMS as f64 / 4.0, "{} hits", takes(&egret, "hit"));
        eventually("the shelf to be at its floor", || {
            (egret.metrics().sum("egret_pool_warm", &[]) <= FLOOR as f64).then_some(())
        });
        wait_for_warm(&egret, FLOOR);
        // One more: a new warm connection is made before the one that has aged is closed, or a trial runs.
        egret.wait_until_idle(floor + FLOOR);
    });
}
