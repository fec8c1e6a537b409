//! Clients that speak TLS themselves: routed by what their ClientHello asks for, and otherwise left alone.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::egret::{Egret, listener};
use crate::support::nginx::{Nginx, SEEN, tls};
use crate::support::pattern::{Digest, Pattern};
use crate::support::peer::Peer;
use crate::support::pki::{Pair, Pki};
use crate::support::plain::{self, End};
use crate::support::{free_port, process};

/// An upstream that passes through, and its name.
fn upstream(name: &str, server: impl std::fmt::Display) -> String {
    format!("[upstreams.{name}]\nservers = [\"{server}\"]\npassthrough = true\n")
}

/// A listener with routes from names to upstreams.
fn routes(name: &str, routes: &[(&str, &str)]) -> String {
    let mut text = format!("[[listeners]]\nname = {name:?}\nlisten = \"127.0.0.1:0\"\nroutes = [\n");
    for (server_name, upstream) in routes {
        writeln!(text, "    {{ server_names = [{server_name:?}], upstream = {upstream:?} }},").unwrap();
    }
    text + "]\n"
}

/// What a TLS client sends first when it asks for this name.
fn client_hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// `https://NAME/` through a listener: exit code, and both streams as one text.
fn curl(through: SocketAddr, name: &str, pki: &Pki, client: &Pair) -> (i32, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]);
    command.arg("--connect-to").arg(format!("{name}:443:{through}")).arg("--cacert").arg(pki.root());
    command.arg("--cert").arg(&client.certificate).arg("--key").arg(&client.key);
    let output = process::attempt(command.arg(format!("https://{name}/")));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn curl_meets_the_right_server_and_verifies_it_itself() {
    let pki = Pki::new();
    let client = pki.client("alice");
    let (one, two) = (free_port(), free_port());
    let block = |port: u16, name: &str, says: &str| {
        let tls = tls(&pki.server(&[name]), &pki.root(), "TLSv1.2 TLSv1.3");
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; {tls} ssl_verify_client on; \
             location / {{ return 200 \"{says} {SEEN}\"; }} }}\n"
        )
    };
    let http = block(one, "one.example.com", "the first") + &block(two, "*.two.example.com", "the second");
    let _nginx = Nginx::start(&http, &[one, two]);
    let egret = Egret::start(
        &(upstream("first", format!("127.0.0.1:{one}"))
            + &upstream("second", format!("127.0.0.1:{two}"))
            + &routes("by-name", &[("one.example.com", "first"), ("*.two.example.com", "second")])),
    );
    let through = egret.address("by-name");
    for (name, says) in [("one.example.com", "the first"), ("deep.two.example.com", "the second")] {
        let (code, text) = curl(through, name, &pki, &client);
        assert_eq!(code, 0, "{text}\n{}", egret.log_text());
        // The server has seen the client's own certificate, and the client the server's.
        assert!(text.starts_with(says) && text.contains(&format!("sni={name} dn=CN=alice verify=SUCCESS")), "{text}");
        let line = egret.wait_for_log(name, |line| line["message"] == "connection" && line["server_name"] == name);
        assert_eq!(line["ended"], "finished", "{line}");
        assert!(line["tls_version"].is_null(), "{line}");
    }

    // Nobody is here by that name: the client is told so in its own words.
    let (code, text) = curl(through, "three.example.com", &pki, &client);
    assert!(code == 35 && text.contains("unrecognized name"), "{code} {text}");
    let line = egret.wait_for_log("the refusal", |line| line["reason"] == "no_route");
    assert!(line["repair"].as_str().is_some_and(|repair| repair.contains("three.example.com")), "{line}");
    assert_eq!(egret.metrics().sum("egret_connections_refused_total", &[("reason", "no_route")]), 1.0);
}

#[test]
fn plaintext_and_broken_hellos_reach_no_server() {
    let reached = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reached);
    let peer = Peer::start(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let egret = Egret::start(&(upstream("echo", peer.address) + &listener("plain", free_port(), "echo")));
    for (first, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "downstream_not_tls"),
        (b"\x16\x03\x01\x00\x02\x01\x00\x16\x03\x01\x00\x00", "downstream_hello_malformed"),
    ] {
        let (answer, end) = plain::ask(egret.address("plain"), first);
        assert_eq!((answer, end), (Vec::new(), End::Reset));
        egret.wait_for_log(reason, |line| line["reason"] == reason);
        assert_eq!(egret.metrics().sum("egret_connections_refused_total", &[("reason", reason)]), 1.0);
    }
    assert_eq!(reached.load(Ordering::Relaxed), 0);
}

#[test]
fn a_dead_server_gives_way_to_the_next() {
    let peer = Peer::start(|mut tcp| tcp.write_all(b"here").unwrap());
    let servers = format!("127.0.0.1:{}\", \"{}", free_port(), peer.address);
    let in_order = upstream("two", servers) + "balance = \"priority\"\n";
    let egret = Egret::start(&(in_order + &listener("plain", free_port(), "two")));
    let mut tcp = plain::connect(egret.address("plain"));
    tcp.write_all(&client_hello("a.example.com")).unwrap();
    let mut answer = [0; 4];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"here");
    egret.wait_for_log("the dead one", |line| line["reason"] == "connect_refused");
}

const GREAT: u64 = 256 << 20;

#[test]
fn a_great_upload_and_its_answer_arrive_after_half_closes() {
    let peer = Peer::start(|mut tcp| {
        let (length, digest) = plain::receive(&mut tcp);
        let _ = plain::send(&mut tcp, 2, GREAT);
        tcp.write_all(format!("{length} {digest}").as_bytes()).unwrap();
    });
    let egret = Egret::start(&(upstream("sink", peer.address) + &listener("plain", free_port(), "sink")));
    let floor = egret.descriptors();
    let mut tcp = plain::connect(egret.address("plain"));
    let hello = client_hello("a.example.com");
    let mut sent = Digest::new();
    sent.update(&hello);
    tcp.write_all(&hello).unwrap();
    let mut pattern = Pattern::new(1);
    let mut piece = vec![0; 1 << 20];
    while sent.length < GREAT {
        pattern.fill(&mut piece);
        sent.update(&piece);
        tcp.write_all(&piece).unwrap();
    }
    tcp.shutdown(Shutdown::Write).unwrap();
    let length = sent.length;
    let wanted = format!("{length} {}", sent.hex());
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    assert!(answer.len() as u64 == GREAT + wanted.len() as u64 && answer.ends_with(wanted.as_bytes()), "{wanted}");
    drop(tcp);
    let line = egret.wait_for_log("the connection", |line| line["message"] == "connection");
    assert_eq!(line["received"].as_u64(), Some(answer.len() as u64), "{line}");
    assert_eq!(line["ended"], "finished", "{line}");
    // Idle workers keep a few pipes.
    egret.wait_until_idle(floor + 64);
}

const STREAMS: usize = 200;

#[test]
fn streams_live_through_reloads_that_change_their_routes() {
    let echo = Peer::start(|mut tcp| {
        let mut piece = vec![0; 65_536];
        while let Ok(length @ 1..) = tcp.read(&mut piece) {
            if tcp.write_all(&piece[..length]).is_err() {
                return;
            }
        }
    });
    let sections = |idle: u32, name: &str| {
        upstream("echo", echo.address)
            + &format!("idle_timeout = \"{idle}m\"\n")
            + &routes("by-name", &[("always.example.com", "echo"), (name, "echo")])
    };
    let egret = Egret::start(&sections(1, "first.example.com"));
    let address = egret.address("by-name");
    let mut streams: Vec<_> = (0..STREAMS).map(|_| Stream::open(address, "first.example.com")).collect();
    for reload in 2..12 {
        egret.rewrite(&sections(reload, &format!("name-{reload}.example.com")));
        assert!(egret.reload(), "{}", egret.log_text());
        for stream in &mut streams {
            stream.echoes(1 + reload as usize * 7_000);
        }
        // The new names are known at once, the old ones no more.
        Stream::open(address, &format!("name-{reload}.example.com")).echoes(1);
        let (answer, _) = plain::ask(address, &client_hello("first.example.com"));
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 112]);
    }
}

struct Stream {
    tcp: TcpStream,
    pattern: Pattern,
}

impl Stream {
    fn open(address: SocketAddr, name: &str) -> Self {
        let mut tcp = plain::connect(address);
        let hello = client_hello(name);
        tcp.write_all(&hello).unwrap();
        let mut back = vec![0; hello.len()];
        tcp.read_exact(&mut back).unwrap();
        assert_eq!(back, hello);
        Self { tcp, pattern: Pattern::new(3) }
    }

    /// So many bytes come back; few enough for the sockets to hold them.
    fn echoes(&mut self, length: usize) {
        let (mut sent, mut back) = (vec![0; length], vec![0; length]);
        self.pattern.fill(&mut sent);
        self.tcp.write_all(&sent).unwrap();
        self.tcp.read_exact(&mut back).unwrap();
        assert!(sent == back, "{length} bytes came back as others");
    }
}
