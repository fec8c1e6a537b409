//! Faults before TLS: names and connections.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::stage::{Case, Explained, HOST, config, explain, run};
use crate::support::dns::{DnsServer, Reply};
use crate::support::nginx::{Nginx, tls};
use crate::support::pki::{Leaf, Pki};
use crate::support::{free_port, loopback};

/// An address that answers no attempt to connect: a listener whose backlog is full.
fn filtered() -> (SocketAddr, Vec<Socket>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        // It is begun, and never finished.
        let _ = client.connect(&address.into());
        held.push(client);
    }
    (address, held)
}

/// Asks by a name that this name server is asked for.
async fn by_name(server: SocketAddr, name: &str, port: impl Into<Option<u16>>, trust: &str) -> Explained {
    let folder = TempDir::new().unwrap();
    let port = port.into().map(|port: u16| format!(":{port}")).unwrap_or_default();
    let file = config(
        &folder,
        "named.toml",
        &format!(
            "{trust}\n[dns]\nservers = [\"{server}\"]\n[upstreams.backend]\nservers = [\"{name}{port}\"]\n\
             tls = {{ trust = \"t\" }}\n"
        ),
    );
    let asked = tokio::task::spawn_blocking(move || explain(&["--config", &file, "--upstream", "backend"]));
    asked.await.unwrap()
}

#[test]
fn every_fault_before_tls_is_named() {
    let pki = Pki::new();
    let root = pki.root().display().to_string();
    let (hole, _held) = filtered();
    let refused = loopback(free_port()).to_string();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let folder = TempDir::new().unwrap();
    let lost = config(
        &folder,
        "lost.toml",
        &format!(
            "[dns]\nservers = [\"{}\"]\n[upstreams.backend]\nservers = [\"{HOST}:443\"]\ntls = {{ trust = \"t\" }}\n\
             [trust.t]\nroots = [{root:?}]\n",
            silent.local_addr().unwrap()
        ),
    );
    let in_nginx = run(vec![
        Case::new("nobody listens", &[&refused, "--ca", &root], "connect_refused"),
        Case::new("no answer", &[&hole.to_string(), "--ca", &root], "connect_timeout").impatient(),
        Case::new("no name server", &["--config", &lost], "dns_timeout").impatient(),
    ]);
    assert_eq!(in_nginx, 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let pki = Pki::new();
    let dns = DnsServer::start().await;
    dns.set(HOST, Reply::NoSuchName);
    let trust = format!("[trust.t]\nroots = [{:?}]\n", pki.root());
    let explained = by_name(dns.address, HOST, 443, &trust).await;
    assert_eq!(explained.cause(), "dns_no_such_name", "{}", explained.text());
    assert_eq!(explained.report["addresses"], serde_json::json!([]));
}

/// Its hosts have ports of their own, and the name that is verified is that of the service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_tried_where_its_hosts_listen() {
    const SERVICE: &str = "_postgresql._tcp.example.com";
    let pki = Pki::new();
    let (port, closed) = (free_port(), free_port());
    let tls = tls(&pki.server(&[HOST, "example.com"]), &pki.root(), "TLSv1.2 TLSv1.3");
    let block = format!("server {{ listen 127.0.0.1:{port} ssl; {tls} location / {{ return 200 ok; }} }}\n");
    let nginx = tokio::task::block_in_place(|| Nginx::start(&block, &[port]));
    let dns = DnsServer::start().await;
    dns.set(SERVICE, Reply::Services(vec![(10, 1, port, "a.example.com"), (20, 1, closed, "b.example.com")]));
    let here = || Reply::Addresses(vec![IpAddr::from([127, 0, 0, 1])], 60);
    ["a.example.com", "b.example.com"].into_iter().for_each(|host| dns.set(host, here()));
    let trust = format!("[trust.t]\nroots = [{:?}]\n", pki.root());
    let explained = by_name(dns.address, SERVICE, None, &trust).await;
    let told = [port, closed].map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(explained.report["addresses"], serde_json::json!(told), "{}", explained.text());
    // One that nobody listens at costs a moment, and no stream.
    assert_eq!((explained.code, explained.notes()), (0, vec!["addresses_differ"]), "{}", explained.text());
    explained.has_no_directives("nginx takes no service in proxy_pass").unwrap();
    drop(nginx);
}

/// Two addresses of one name: one of them has an expired certificate, or nobody listens there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_a_name_is_tried() {
    let pki = Pki::new();
    let port = free_port();
    let block = |address: &str, pair: &crate::support::pki::Pair| {
        let tls = tls(pair, &pki.root(), "TLSv1.2 TLSv1.3");
        format!("server {{ listen {address}:{port} ssl; {tls} location / {{ return 200 ok; }} }}\n")
    };
    let old = pki.issue("old", &Leaf { common_name: HOST, names: &[HOST], valid: (-30, -1) });
    let blocks = block("127.0.0.1", &pki.server(&[HOST])) + &block("127.0.0.2", &old);
    let nginx = tokio::task::block_in_place(|| Nginx::start(&blocks, &[port]));
    let dns = DnsServer::start().await;
    let ip = |last: u8| IpAddr::from([127, 0, 0, last]);
    let trust = format!("[trust.t]\nroots = [{:?}]\n", pki.root());

    dns.set(HOST, Reply::Addresses(vec![ip(1), ip(2)], 60));
    let explained = by_name(dns.address, HOST, port, &trust).await;
    assert_eq!(explained.cause(), "certificate_expired", "{}", explained.text());
    assert_eq!(explained.report["causes"][0]["address"], format!("127.0.0.2:{port}"));
    assert!(explained.notes().contains(&"addresses_differ"), "{}", explained.text());

    // An address where nobody listens costs a moment, and no stream.
    dns.set(HOST, Reply::Addresses(vec![ip(3), ip(1)], 60));
    let explained = by_name(dns.address, HOST, port, &trust).await;
    assert_eq!((explained.code, explained.notes()), (0, vec!["addresses_differ"]), "{}", explained.text());
    drop(nginx);
}
