//! Servers that fail in every way. No stream fails that had a healthy server when it came.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::egret::{Egret, listener};
use crate::support::fleet::{BlackHole, Fleet, Manner, Node, ask, ask_many};
use crate::support::free_port;

fn egret(fleet: &Fleet, addresses: &[SocketAddr], lines: &str) -> (Egret, SocketAddr) {
    let list: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let lines = format!("servers = [{}]\n{lines}", list.join(", "));
    let sections = fleet.upstream(&lines) + &listener("in", free_port(), "fleet");
    let egret = tokio::task::block_in_place(|| Egret::start(&sections));
    let address = egret.address("in");
    (egret, address)
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

fn idle(egret: &Egret, floor: usize) {
    tokio::task::block_in_place(|| egret.wait_until_idle(floor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_pays_for_servers_that_swallow_reset_or_stall() {
    let fleet = Fleet::new();
    let good = fleet.nodes(2).await;
    let (resets, stalls) = (fleet.node(free_address()), fleet.node(free_address()));
    resets.start(Manner::Resets).await;
    stalls.start(Manner::Stalls).await;
    let hole = BlackHole::new();
    let addresses = [hole.address, resets.address, stalls.address, free_address(), good[0].address, good[1].address];
    // A back-off in which trials come often: each is a chance to fail a stream.
    let lines = "originate_timeout = \"6s\"\nejection = { backoff = \"200ms\", max_backoff = \"400ms\" }\n";
    let (egret, address) = egret(&fleet, &addresses, lines);
    let floor = egret.descriptors();
    let (ports, failed) = ask_many(address, 1500, 24).await;
    assert_eq!((ports.len(), failed.len()), (1500, 0), "{failed:?}");
    for node in &good {
        assert!(node.answered() > 250, "{}", node.answered());
    }
    // Left alone but for trials: far below a share of the streams.
    assert!(resets.accepted() < 300 && stalls.accepted() < 150, "{} {}", resets.accepted(), stalls.accepted());
    idle(&egret, floor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_fails_while_servers_are_killed_and_started_under_load() {
    let fleet = Fleet::new();
    let nodes = Arc::new(fleet.nodes(3).await);
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let (egret, address) = egret(&fleet, &addresses, "");
    let floor = egret.descriptors();
    let done = Arc::new(AtomicBool::new(false));
    let (restarting, over) = (Arc::clone(&nodes), Arc::clone(&done));
    let restarts = tokio::spawn(async move {
        let mut restarts = 0;
        while restarts < 20 || !over.load(Ordering::SeqCst) {
            // Two of the three, in turns: the third was always healthy.
            let node: &Node = &restarting[restarts % 2];
            node.kill().await;
            tokio::time::sleep(Duration::from_millis(60)).await;
            node.start(Manner::Answers).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
            restarts += 1;
        }
        restarts
    });
    let (ports, failed) = ask_many(address, 4000, 16).await;
    done.store(true, Ordering::SeqCst);
    let restarts = restarts.await.unwrap();
    let cut: usize = nodes.iter().map(Node::cut).sum();
    assert!(failed.len() <= cut, "{} failed, {cut} were cut: {failed:?}", failed.len());
    assert!(ports.len() + failed.len() == 4000 && restarts >= 20);
    let ended = unexplained(&egret);
    assert!(ended.is_empty(), "{ended:?}");
    idle(&egret, floor);
}

/// Streams that ended by an origination that failed, in place of by their server's death.
fn unexplained(egret: &Egret) -> Vec<String> {
    let lines = egret.log().into_iter().filter(|line| line["message"] == "connection");
    let ended = lines.map(|line| line["ended"].as_str().unwrap_or_default().to_owned());
    let cut = ["finished", "upstream_reset", "upstream_truncated", "downstream_reset"];
    ended.filter(|ended| !cut.contains(&ended.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_server_serves_from_the_moment_it_is_back() {
    let fleet = Fleet::new();
    let nodes = fleet.nodes(1).await;
    let (egret, address) = egret(&fleet, &[nodes[0].address], "");
    for _ in 0..10 {
        nodes[0].kill().await;
        // Long enough, with clients enough, that the circuit is open.
        let (ports, failed) = ask_many(address, 32, 8).await;
        assert_eq!((ports.len(), failed.len()), (0, 32));
        nodes[0].start(Manner::Answers).await;
        let (ports, failed) = ask_many(address, 64, 16).await;
        assert_eq!((ports.len(), failed.len()), (64, 0), "{failed:?}\n{}", egret.log_text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_circuit_answers_at_once_and_says_why() {
    let fleet = Fleet::new();
    let stalls = fleet.node(free_address());
    stalls.start(Manner::Stalls).await;
    let (egret, address) = egret(&fleet, &[stalls.address], "originate_timeout = \"1s\"\n");
    let (_, failed) = ask_many(address, 3, 3).await;
    assert_eq!(failed.len(), 3);
    let accepted = stalls.accepted();
    let (_, failed) = ask_many(address, 50, 10).await;
    assert_eq!(failed.len(), 50);
    // A stream that is answered at once meets no server; one trial may be among them.
    assert!(stalls.accepted() <= accepted + 2, "{} tries", stalls.accepted() - accepted);
    let line =
        tokio::task::block_in_place(|| egret.wait_for_log("an open circuit", |line| line["reason"] == "circuit_open"));
    assert!(line["detail"].as_str().unwrap().contains("handshake_timeout"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_fails_at_one_address_goes_on_at_the_next_of_the_same_name() {
    let fleet = Fleet::new();
    let port = free_port();
    let good = fleet.node(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let bad = fleet.node(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port)));
    good.start(Manner::Answers).await;
    bad.start(Manner::Resets).await;
    let dns = crate::support::dns::DnsServer::start().await;
    let both = vec![bad.address.ip(), good.address.ip()];
    dns.set("db.example.com", crate::support::dns::Reply::Addresses(both, 60));
    let lines = format!("servers = [\"db.example.com:{port}\"]\nejection = {{ max_share = 0 }}\n");
    let sections = format!("[dns]\nservers = [\"{}\"]\n", dns.address) + &fleet.upstream(&lines);
    let sections = sections + &listener("in", free_port(), "fleet");
    let egret = tokio::task::block_in_place(|| Egret::start(&sections));
    for _ in 0..20 {
        assert_eq!(ask(egret.address("in")).await.unwrap(), port);
    }
    assert!(bad.accepted() > 0, "nobody went to the address that fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_find_a_dead_server_before_any_stream_and_people_see_why() {
    let fleet = Fleet::new();
    let good = fleet.nodes(1).await;
    let dead = free_address();
    let lines = "active_check = { interval = \"50ms\", kind = \"tls\" }\nejection = { backoff = \"50ms\" }\n";
    let (egret, address) = egret(&fleet, &[dead, good[0].address], lines);
    let health = |of: SocketAddr| {
        let status: serde_json::Value = serde_json::from_str(&egret.admin("GET", "/status").body).unwrap();
        let endpoints = status["upstreams"][0]["endpoints"].as_array().unwrap().clone();
        endpoints.into_iter().find(|endpoint| endpoint["endpoint"] == of.to_string()).unwrap()
    };
    tokio::task::block_in_place(|| {
        crate::support::eventually("the dead server to be ejected", || {
            matches!(health(dead)["health"].as_str().unwrap(), "ejected" | "trial").then_some(())
        });
        assert_eq!(health(dead)["last_failure"]["reason"], "connect_refused");
        assert_eq!(health(good[0].address)["health"], "healthy");
        let gauge = |of: SocketAddr| egret.metrics().sum("egret_endpoint_healthy", &[("endpoint", &of.to_string())]);
        assert_eq!((gauge(dead), gauge(good[0].address)), (0.0, 1.0));
    });
    let late = fleet.node(dead);
    late.start(Manner::Answers).await;
    tokio::task::block_in_place(|| {
        crate::support::eventually("the server to be found", || (health(dead)["health"] == "healthy").then_some(()));
    });
    assert_eq!(late.answered(), 0, "no stream was needed");
    let (_, failed) = ask_many(address, 40, 4).await;
    assert!(failed.is_empty() && late.answered() > 0, "{failed:?}");
}
