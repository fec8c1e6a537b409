//! Each strategy, judged by what the servers count.

use std::net::SocketAddr;

use crate::support::egret::{Egret, listener};
use crate::support::fleet::{Fleet, Held, Manner, Node, ask, ask_many};
use crate::support::free_port;

/// The lines of `servers`, each with what follows its address.
fn servers(nodes: &[Node], more: &[&str]) -> String {
    let table = |(node, more): (&Node, &&str)| format!("{{ address = \"{}\"{more} }}", node.address);
    format!("servers = [{}]\n", nodes.iter().zip(more).map(table).collect::<Vec<_>>().join(", "))
}

fn egret(fleet: &Fleet, lines: &str) -> (Egret, SocketAddr) {
    let sections = fleet.upstream(lines) + &listener("in", free_port(), "fleet");
    let egret = tokio::task::block_in_place(|| Egret::start(&sections));
    let address = egret.address("in");
    (egret, address)
}

fn answered(nodes: &[Node]) -> Vec<usize> {
    nodes.iter().map(Node::answered).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_are_taken_in_proportion_to_weights() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(3).await;
    let lines = servers(&nodes, &["", ", weight = 2", ", weight = 3"]) + "balance = \"round_robin\"\n";
    let (_egret, address) = egret(&fleet, &lines);
    for _ in 0..60 {
        ask(address).await.unwrap();
    }
    assert_eq!(answered(&nodes), [10, 20, 30]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stay_spread_over_servers_in_proportion_to_weights() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(3).await;
    let (_egret, address) = egret(&fleet, &servers(&nodes, &["", ", weight = 1", ", weight = 2"]));
    let mut held = Vec::new();
    for _ in 0..120 {
        held.push(Held::open(address).await.unwrap());
    }
    let open: Vec<_> = nodes.iter().map(Node::open).collect();
    for (open, wanted) in open.iter().zip([30usize, 30, 60]) {
        assert!(open.abs_diff(wanted) <= 12, "{:?}", nodes.iter().map(Node::open).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_server_has_all_streams_until_it_fails_and_again_when_it_is_back() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(2).await;
    let lines = servers(&nodes, &["", ""]) + "balance = \"priority\"\nejection = { backoff = \"100ms\" }\n";
    let (_egret, address) = egret(&fleet, &lines);
    let (_, failed) = ask_many(address, 50, 4).await;
    assert_eq!((failed.len(), nodes[1].answered()), (0, 0), "{failed:?}");
    nodes[0].kill().await;
    let (ports, failed) = ask_many(address, 50, 4).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert!(ports.iter().all(|port| *port == nodes[1].address.port()));
    nodes[0].start(Manner::Answers).await;
    while ask(address).await.unwrap() != nodes[0].address.port() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let before = nodes[1].answered();
    assert!(ask_many(address, 20, 1).await.1.is_empty());
    assert_eq!(nodes[1].answered(), before, "the first is back for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_priority_is_used_only_when_no_higher_one_is_to_be_had() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(3).await;
    let (_egret, address) = egret(&fleet, &servers(&nodes, &["", "", ", priority = 2"]));
    assert!(ask_many(address, 60, 4).await.1.is_empty());
    assert_eq!(nodes[2].answered(), 0);
    assert!(nodes[0].answered() > 5 && nodes[1].answered() > 5, "{:?}", answered(&nodes));
    nodes[0].kill().await;
    assert!(ask_many(address, 40, 4).await.1.is_empty());
    assert_eq!(nodes[2].answered(), 0, "one of the first two is well");
    nodes[1].kill().await;
    assert!(ask_many(address, 40, 4).await.1.is_empty());
    assert_eq!(nodes[2].answered(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_has_more_streams_than_its_bound() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(2).await;
    let lines = servers(&nodes, &[", max_connections = 3", ", max_connections = 5"]);
    let (egret, address) = egret(&fleet, &lines);
    let mut opening = tokio::task::JoinSet::new();
    (0..12).for_each(|_| drop(opening.spawn(Held::open(address))));
    let opened = opening.join_all().await;
    let held: Vec<_> = opened.into_iter().filter_map(Result::ok).collect();
    assert_eq!((held.len(), nodes[0].open(), nodes[1].open()), (8, 3, 5));
    tokio::task::block_in_place(|| {
        let line = egret.wait_for_log("a stream without room", |line| line["reason"] == "servers_full");
        assert!(line["repair"].as_str().unwrap().contains("max_connections"), "{line}");
    });
    drop(held);
    while ask(address).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
