//! Names to addresses, against a name server that a test steers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use egret::config::values::{Dns, Host};
use egret::observe::metrics::Registry;
use egret::pipeline::originate::servers::resolve::{Error, Files, Resolver};
use rustls::pki_types::DnsName;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::support::PATIENCE;
use crate::support::dns::{DnsServer, Reply};

const NAME: &str = "db.example.com";

fn resolver(server: SocketAddr) -> Resolver {
    let dns = Dns { servers: vec![server], min_ttl: Duration::from_millis(50), max_ttl: Duration::from_secs(300) };
    Resolver::new(&dns, &Registry::silent()).unwrap()
}

fn host() -> Host {
    Host::Dns(DnsName::try_from(NAME).unwrap())
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn v6(last: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])
}

async fn resolve(resolver: &Resolver) -> Result<Vec<IpAddr>, Error> {
    timeout(Duration::from_secs(20), resolver.resolve(&host())).await.expect("bounded").map(|ips| ips.to_vec())
}

/// Goes on asking until the answer is this one.
async fn comes_to(resolver: &Resolver, wanted: &[IpAddr]) {
    asks_until(resolver, |got| matches!(got, Ok(ips) if ips == wanted)).await;
}

async fn asks_until(resolver: &Resolver, mut is_it: impl FnMut(&Result<Vec<IpAddr>, Error>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = resolve(resolver).await;
        if is_it(&got) {
            return;
        }
        assert!(Instant::now() < deadline, "still {got:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn ip_is_its_own_answer() {
    let resolver = resolver(SocketAddr::from(([127, 0, 0, 1], 9)));
    assert_eq!(resolver.resolve(&Host::Ip(v6(7))).await.unwrap().to_vec(), [v6(7)]);
}

#[tokio::test]
async fn both_families_are_found_and_ipv6_comes_first() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Addresses(vec![v4(2), v4(1), v6(2), v6(1)], 60));
    assert_eq!(resolve(&resolver(server.address)).await.unwrap(), [v6(2), v6(1), v4(2), v4(1)]);
}

#[tokio::test]
async fn start_without_dns_works() {
    let place = DnsServer::start().await;
    let address = place.address;
    drop(place);
    // Its socket closes with its task.
    while UdpSocket::bind(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    let resolver = resolver(address);
    let error = resolve(&resolver).await.unwrap_err();
    assert!(matches!(error.reason(), "dns_failure" | "dns_timeout"), "{error}");
    let server = DnsServer::start_at(address).await;
    server.set(NAME, Reply::Addresses(vec![v4(1)], 60));
    comes_to(&resolver, &[v4(1)]).await;
}

#[tokio::test]
async fn one_query_for_a_burst() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Late(Duration::from_millis(30), Box::new(Reply::Addresses(vec![v4(1)], 60))));
    let resolver = Arc::new(resolver(server.address));
    let burst: Vec<_> = (0..200)
        .map(|_| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { resolve(&resolver).await })
        })
        .collect();
    for caller in burst {
        assert_eq!(caller.await.unwrap().unwrap(), [v4(1)]);
    }
    assert_eq!(server.queries(NAME), 2, "one for each family");
}

#[tokio::test]
async fn ttl_is_honoured() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Addresses(vec![v4(1)], 1));
    let resolver = resolver(server.address);
    let asked = Instant::now();
    resolve(&resolver).await.unwrap();
    server.set(NAME, Reply::Addresses(vec![v4(2)], 60));
    while asked.elapsed() < Duration::from_millis(900) {
        let (got, at) = (resolve(&resolver).await.unwrap(), asked.elapsed());
        assert!(got == [v4(1)] || at >= Duration::from_secs(1), "asked again after {at:?}");
        sleep(Duration::from_millis(100)).await;
    }
    comes_to(&resolver, &[v4(2)]).await;
    assert_eq!(server.queries(NAME), 4);
}

#[tokio::test]
async fn alias_that_runs_out_first_ends_the_answer() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Alias { alias_ttl: 0, target: v4(1), target_ttl: 3600 });
    let resolver = resolver(server.address);
    assert_eq!(resolve(&resolver).await.unwrap(), [v4(1)]);
    server.set(NAME, Reply::Addresses(vec![v4(2)], 60));
    comes_to(&resolver, &[v4(2)]).await;
}

#[tokio::test]
async fn stale_answer_serves_while_dns_fails() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Addresses(vec![v4(1)], 0));
    let resolver = resolver(server.address);
    resolve(&resolver).await.unwrap();
    for outage in [Reply::Failure, Reply::Silence] {
        server.set(NAME, outage);
        let asked = server.queries(NAME);
        // Until the answer has run out, and a failure is forgotten: then DNS is asked again.
        asks_until(&resolver, |got| {
            assert_eq!(got.as_deref(), Ok(&[v4(1)][..]));
            server.queries(NAME) > asked
        })
        .await;
    }
    server.set(NAME, Reply::Addresses(vec![v4(2)], 60));
    comes_to(&resolver, &[v4(2)]).await;
}

#[tokio::test]
async fn name_that_is_gone_is_not_served_stale() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Addresses(vec![v4(1)], 0));
    let resolver = resolver(server.address);
    resolve(&resolver).await.unwrap();
    server.set(NAME, Reply::NoSuchName);
    asks_until(&resolver, |got| matches!(got, Err(error) if error.reason() == "dns_no_such_name")).await;
}

#[tokio::test]
async fn no_such_name_is_remembered() {
    let server = DnsServer::start().await;
    let resolver = resolver(server.address);
    for _ in 0..3 {
        assert_eq!(resolve(&resolver).await.unwrap_err().reason(), "dns_no_such_name");
    }
    assert_eq!(server.queries(NAME), 2, "one for each family");
}

#[tokio::test]
async fn name_without_an_address_has_a_class_of_its_own() {
    for useless in [vec![], vec![IpAddr::from([0, 0, 0, 0])]] {
        let server = DnsServer::start().await;
        server.set(NAME, Reply::Addresses(useless, 60));
        assert_eq!(resolve(&resolver(server.address)).await.unwrap_err().reason(), "dns_no_address");
    }
}

#[tokio::test]
async fn outage_has_a_class_and_ends_within_its_bound() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Failure);
    assert_eq!(resolve(&resolver(server.address)).await.unwrap_err().reason(), "dns_failure");
    server.set(NAME, Reply::Silence);
    let asked = timeout(PATIENCE, resolve(&resolver(server.address))).await.expect("an outage has an end");
    assert_eq!(asked.unwrap_err().reason(), "dns_timeout");
}

#[tokio::test]
async fn server_that_drops_ipv6_queries_delays_nobody() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::SilenceForV6(Box::new(Reply::Addresses(vec![v4(1)], 60))));
    assert_eq!(resolve(&resolver(server.address)).await.unwrap(), [v4(1)]);
    assert_eq!(server.queries(NAME), 2, "the query that is not answered ran into its first time-out");
}

#[tokio::test]
async fn caller_that_leaves_does_not_end_the_look_up() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Late(Duration::from_millis(100), Box::new(Reply::Addresses(vec![v4(1)], 60))));
    let resolver = resolver(server.address);
    timeout(Duration::from_millis(10), resolver.resolve(&host())).await.expect_err("the answer is late");
    assert_eq!(resolve(&resolver).await.unwrap(), [v4(1)]);
    assert_eq!(server.queries(NAME), 2, "the second caller joined the first's");
}

#[tokio::test]
async fn hosts_file_comes_before_dns_and_its_changes_are_seen() {
    let server = DnsServer::start().await;
    server.set(NAME, Reply::Addresses(vec![v4(1)], 60));
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, format!("192.0.2.8 {NAME} db # a comment\n")).unwrap();
    let files = Files { hosts: hosts.clone(), ..Files::default() };
    let dns = Dns { servers: vec![server.address], min_ttl: Duration::ZERO, max_ttl: Duration::from_secs(300) };
    let resolver = Resolver::with_files(&dns, files, &Registry::silent()).unwrap();
    assert_eq!(resolve(&resolver).await.unwrap(), [v4(8)]);
    std::fs::write(&hosts, format!("2001:db8::9 {NAME}\n")).unwrap();
    assert_eq!(resolve(&resolver).await.unwrap(), [v6(9)]);
    assert_eq!(server.queries(NAME), 0, "neither family of a name in the file is asked for");
    std::fs::remove_file(&hosts).unwrap();
    assert_eq!(resolve(&resolver).await.unwrap(), [v4(1)]);
}
