//! How many there are: what a server allows, what all pools may have, what is kept and what goes.

use std::net::SocketAddr;
use std::time::Duration;

use super::support::{before, blocking, discards, takes, wait_for_warm, warm};
use crate::support::dns::{DnsServer, Reply};
use crate::support::egret::{Egret, listener};
use crate::support::fleet::{Fleet, Held, Manner, ask_many};
use crate::support::{eventually, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_warm_connections_together_stay_within_what_a_server_allows() {
    const ALLOWED: usize = 6;
    let fleet = Fleet::new();
    let nodes = fleet.nodes(1).await;
    let lines = format!(
        "servers = [{{ address = \"{}\", max_connections = {ALLOWED} }}]\n\
         pool = {{ min_idle = 4, max_idle = 8, max_idle_age = \"5m\" }}\n",
        nodes[0].address
    );
    let sections = fleet.upstream(&lines) + &listener("in", free_port(), "fleet");
    let egret = blocking(|| Egret::start(&sections));
    blocking(|| wait_for_warm(&egret, 4));
    // The pool makes up for what is taken meanwhile; no client is turned away for it.
    let mut opening = tokio::task::JoinSet::new();
    (0..ALLOWED).for_each(|_| drop(opening.spawn(Held::open(egret.address("in")))));
    let held: Vec<_> = opening.join_all().await.into_iter().collect::<Result<_, _>>().expect("room for each");
    let (_, failed) = ask_many(egret.address("in"), 6, 2).await;
    assert_eq!(failed.len(), 6, "the server has all that it may have");
    assert_eq!((nodes[0].open(), nodes[0].most()), (ALLOWED, ALLOWED));
    blocking(|| assert_eq!(warm(&egret), 0.0));
    drop(held);
    blocking(|| wait_for_warm(&egret, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_connections_to_an_address_that_leaves_dns_go() {
    const NAME: &str = "db.example.com";
    let (fleet, port) = (Fleet::new(), free_port());
    let nodes = [1, 2].map(|last| fleet.node(SocketAddr::from(([127, 0, 9, last], port))));
    for node in &nodes {
        node.start(Manner::Answers).await;
    }
    let dns = DnsServer::start().await;
    let only = |at: usize| Reply::Addresses(vec![nodes[at].address.ip()], 1);
    dns.set(NAME, only(0));
    let pool = "pool = { min_idle = 2, max_idle = 2, max_idle_age = \"5m\" }";
    let sections = format!("[dns]\nservers = [\"{}\"]\nmin_ttl = \"50ms\"\nmax_ttl = \"100ms\"\n", dns.address)
        + &fleet.upstream(&format!("servers = [\"{NAME}:{port}\"]\n{pool}\n"))
        + &listener("in", free_port(), "fleet");
    let egret = blocking(|| Egret::start(&sections));
    blocking(|| wait_for_warm(&egret, 2));
    assert_eq!((nodes[0].open(), nodes[1].open()), (2, 0));
    // No client comes.
    dns.set(NAME, only(1));
    let moved = || ((nodes[0].open(), nodes[1].open()) == (0, 2)).then_some(());
    blocking(|| eventually("what is warm to move to the new address", moved));
    blocking(|| assert_eq!((discards(&egret, "warm_retired"), takes(&egret, "hit")), (2.0, 0.0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pools_together_have_no_more_than_the_process_may() {
    const ALL: usize = 5;
    let fleet = Fleet::new();
    let nodes = fleet.nodes(2).await;
    let upstream = |at: usize| {
        let lines = format!("servers = [\"{}\"]\npool = {{ min_idle = 4, max_idle = 4 }}\n", nodes[at].address);
        fleet.upstream(&lines)
    };
    let second = upstream(1).replace("[upstreams.fleet]", "[upstreams.second]");
    let second = second.split_once("[upstreams").expect("an upstream").1;
    let sections = format!("{}[upstreams{second}[limits]\nmax_warm = {ALL}\n", upstream(0));
    let sections = sections + &listener("in", free_port(), "fleet") + &listener("other", free_port(), "second");
    let egret = blocking(|| Egret::start(&sections));
    blocking(|| wait_for_warm(&egret, ALL));
    let before: usize = nodes.iter().map(|node| node.accepted()).sum();
    // A pool without an event looks every second whether it lacks connections.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let after: usize = nodes.iter().map(|node| node.accepted()).sum();
    assert_eq!((blocking(|| warm(&egret)), before, after), (ALL as f64, ALL, ALL), "and no try is made beyond them");
    // What one pool gives up, the other may have.
    assert!(ask_many(egret.address("in"), 8, 2).await.1.is_empty());
    assert!(ask_many(egret.address("other"), 8, 2).await.1.is_empty());
    blocking(|| wait_for_warm(&egret, ALL));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_floor_is_kept_without_traffic_and_reached_again_after_it() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(1).await;
    let pool = "pool = { min_idle = 2, max_idle = 8, max_idle_age = \"1s\" }\n";
    let egret = before(&fleet, &[nodes[0].address], pool);
    blocking(|| wait_for_warm(&egret, 2));
    // Three times the age: sets of two, each a second old at most and three quarters of one at least.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sets = nodes[0].accepted();
    assert!((6..=20).contains(&sets), "{sets} connections for a floor of two in three seconds");
    blocking(|| wait_for_warm(&egret, 2));

    let load = tokio::spawn(ask_many(egret.address("in"), 600, 12));
    let mut most = 0.0_f64;
    while !load.is_finished() {
        most = most.max(blocking(|| warm(&egret)));
    }
    assert!(load.await.unwrap().1.is_empty());
    most = most.max(blocking(|| warm(&egret)));
    assert!(most > 2.0 && most <= 8.0, "{most}");
    blocking(|| wait_for_warm(&egret, 2));
    blocking(|| eventually("the server to have no others", || (nodes[0].open() == 2).then_some(())));
}
