//! What DNS names is where streams go.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::support::dns::{DnsServer, Reply};
use crate::support::egret::{Egret, listener};
use crate::support::fleet::{Fleet, Held, Manner, Node, ask, ask_many};
use crate::support::free_port;

const NAME: &str = "db.example.com";

/// Servers on several addresses of loopback with one port.
async fn nodes(fleet: &Fleet, number: u8) -> (Vec<Node>, u16) {
    let port = free_port();
    let nodes: Vec<_> = (1..=number).map(|last| fleet.node(SocketAddr::from(([127, 0, 7, last], port)))).collect();
    for node in &nodes {
        node.start(Manner::Answers).await;
    }
    (nodes, port)
}

fn named(nodes: &[&Node]) -> Reply {
    Reply::Addresses(nodes.iter().map(|node| node.address.ip()).collect(), 1)
}

fn egret(fleet: &Fleet, dns: &DnsServer, lines: &str) -> Egret {
    let sections = format!("[dns]\nservers = [\"{}\"]\nmin_ttl = \"50ms\"\nmax_ttl = \"100ms\"\n", dns.address);
    let sections = sections + &fleet.upstream(lines) + &listener("in", free_port(), "fleet");
    tokio::task::block_in_place(|| Egret::start(&sections))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_fails_while_addresses_come_and_go() {
    let fleet = Fleet::new();
    let (nodes, port) = nodes(&fleet, 4).await;
    let dns = DnsServer::start().await;
    dns.set(NAME, named(&[&nodes[0], &nodes[1]]));
    let egret = egret(&fleet, &dns, &format!("servers = [\"{NAME}:{port}\"]\n"));
    let (address, floor) = (egret.address("in"), egret.descriptors());
    let load = tokio::spawn(ask_many(address, 1500, 12));
    let mut at = 0;
    while !load.is_finished() {
        // One leaves, one comes; one that has left is killed once nobody can have its name any more.
        let (leaves, stays, comes) = (at % 4, (at + 1) % 4, (at + 2) % 4);
        dns.set(NAME, named(&[&nodes[stays], &nodes[comes]]));
        tokio::time::sleep(Duration::from_millis(250)).await;
        nodes[leaves].kill().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        nodes[leaves].start(Manner::Answers).await;
        at += 1;
    }
    let (ports, failed) = load.await.unwrap();
    assert_eq!((ports.len(), failed.len()), (1500, 0), "{failed:?}");
    assert!(nodes.iter().all(|node| node.answered() > 0) || at < 4, "{at} changes");
    tokio::task::block_in_place(|| egret.wait_until_idle(floor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leaves_gets_no_new_streams_and_keeps_those_it_has() {
    let fleet = Fleet::new();
    let (nodes, port) = nodes(&fleet, 2).await;
    let dns = DnsServer::start().await;
    dns.set(NAME, named(&[&nodes[0]]));
    let egret = egret(&fleet, &dns, &format!("servers = [\"{NAME}:{port}\"]\n"));
    let (mut held, _) = Held::open(egret.address("in")).await.unwrap();
    dns.set(NAME, named(&[&nodes[1]]));
    while nodes[1].accepted() == 0 {
        ask(egret.address("in")).await.unwrap();
    }
    let before = nodes[0].accepted();
    assert!(ask_many(egret.address("in"), 20, 2).await.1.is_empty());
    assert_eq!(nodes[0].accepted(), before);
    assert_eq!(held.ping().await.unwrap(), port);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_to_an_address_that_leaves_end_if_so_configured() {
    let fleet = Fleet::new();
    let (nodes, port) = nodes(&fleet, 2).await;
    let dns = DnsServer::start().await;
    dns.set(NAME, named(&[&nodes[0]]));
    let egret = egret(&fleet, &dns, &format!("servers = [\"{NAME}:{port}\"]\nclose_on_removal = true\n"));
    let (mut held, _) = Held::open(egret.address("in")).await.unwrap();
    // Nobody else comes: it is noticed for the sake of the stream alone.
    dns.set(NAME, named(&[&nodes[1]]));
    let ended = tokio::task::block_in_place(|| {
        egret.wait_for_log("the end of the stream", |line| line["message"] == "connection")
    });
    assert_eq!(ended["ended"], "removed", "{ended}");
    assert!(held.ping().await.is_err());
    assert!(ask(egret.address("in")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_looked_up_with_its_ports_priorities_and_weights() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(3).await;
    let dns = DnsServer::start().await;
    let [heavy, light, backup] = [&nodes[0], &nodes[1], &nodes[2]].map(|node| node.address.port());
    dns.set(
        "_echo._tcp.fleet.example.com",
        Reply::Services(vec![
            (1, 30, heavy, "a.example.com"),
            (1, 10, light, "b.example.com"),
            (2, 99, backup, "a.example.com"),
        ]),
    );
    for host in ["a.example.com", "b.example.com"] {
        dns.set(host, Reply::Addresses(vec![IpAddr::from([127, 0, 0, 1])], 60));
    }
    // Without `server_name`, the domain of the service is what the certificate has to say.
    let lines = "servers = [\"_echo._tcp.fleet.example.com\"]\nbalance = \"round_robin\"\n";
    let sections = format!("[dns]\nservers = [\"{}\"]\n", dns.address) + &fleet.upstream(lines);
    let sections = sections.replace(", server_name = \"fleet.example.com\"", "");
    let sections = sections + &listener("in", free_port(), "fleet");
    let egret = tokio::task::block_in_place(|| Egret::start(&sections));
    let (ports, failed) = ask_many(egret.address("in"), 40, 1).await;
    assert!(failed.is_empty(), "{failed:?}\n{}", egret.log_text());
    let of = |port: u16| ports.iter().filter(|answered| **answered == port).count();
    assert_eq!((of(heavy), of(light), of(backup)), (30, 10, 0));
    nodes[0].kill().await;
    nodes[1].kill().await;
    let (ports, failed) = ask_many(egret.address("in"), 10, 2).await;
    assert!(failed.is_empty() && ports.iter().all(|port| *port == backup), "{failed:?} {ports:?}");
}
