//! Sessions are resumed, and never across a border: origins that differ in one part know nothing of each
//! other's tickets. Judged by nginx, which says what it resumed and whom it saw.

use std::net::SocketAddr;

use crate::support::egret::{Egret, listener};
use crate::support::nginx::{Nginx, SEEN, tls};
use crate::support::pki::{Pair, Pki};
use crate::support::process::run;
use crate::support::{free_port, http};

const HOST: &str = "certauth.example.com";
const OTHER: &str = "other.example.com";

/// One part of an origin that is not like the base's.
struct Variant {
    name: &'static str,
    server: usize,
    tls: &'static str,
    /// The common name that the server has to see.
    dn: &'static str,
    sni: &'static str,
}

const BASE: &str = "identity = \"alice\"\ntrust = \"base\"\nserver_name = \"certauth.example.com\"";

#[rustfmt::skip]
const VARIANTS: &[Variant] = &[
    Variant { name: "identity", server: 0, tls: "identity = \"bob\"\ntrust = \"base\"\nserver_name = \"certauth.example.com\"", dn: "CN=bob", sni: HOST },
    Variant { name: "no-identity", server: 0, tls: "trust = \"base\"\nserver_name = \"certauth.example.com\"", dn: "", sni: HOST },
    Variant { name: "trust", server: 0, tls: "identity = \"alice\"\ntrust = \"more-roots\"\nserver_name = \"certauth.example.com\"", dn: "CN=alice", sni: HOST },
    Variant { name: "names", server: 0, tls: "identity = \"alice\"\ntrust = \"named\"\nserver_name = \"certauth.example.com\"", dn: "CN=alice", sni: HOST },
    Variant { name: "server-name", server: 0, tls: "identity = \"alice\"\ntrust = \"base\"\nserver_name = \"other.example.com\"", dn: "CN=alice", sni: OTHER },
    Variant { name: "alpn", server: 0, tls: "identity = \"alice\"\ntrust = \"base\"\nserver_name = \"certauth.example.com\"\nalpn = [\"http/1.1\"]", dn: "CN=alice", sni: HOST },
    Variant { name: "versions", server: 0, tls: "identity = \"alice\"\ntrust = \"base\"\nserver_name = \"certauth.example.com\"\nBOUND", dn: "CN=alice", sni: HOST },
    Variant { name: "endpoints", server: 1, tls: BASE, dn: "CN=alice", sni: HOST },
];

/// Two nginx ports that share their ticket keys, so that each could resume what the other gave out.
struct Scene {
    pki: Pki,
    stranger: Pki,
    _nginx: Nginx,
    ports: [u16; 2],
    protocols: &'static str,
}

impl Scene {
    fn new(protocols: &'static str) -> Self {
        let pki = Pki::new();
        let pair = pki.server(&[HOST, OTHER]);
        let ports = [free_port(), free_port()];
        let key = pki.folder().join("tickets.key");
        run(std::process::Command::new("openssl").args(["rand", "-out"]).arg(&key).arg("80"));
        let block = |port: &u16| {
            let tls = tls(&pair, &pki.root(), protocols);
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; {tls} ssl_verify_client optional; \
                 ssl_session_ticket_key {}; location / {{ return 200 \"{SEEN}\"; }} }}\n",
                key.display()
            )
        };
        let _nginx = Nginx::start(&ports.iter().map(block).collect::<String>(), &ports);
        Self { pki, stranger: Pki::new(), _nginx, ports, protocols }
    }

    /// egret with the base and one variant of it, each behind a listener of its name.
    fn egret(&self, variant: &Variant) -> Egret {
        let root = self.pki.root();
        // Between bounds that differ, the version that the server speaks is in both.
        let bound = if self.protocols == "TLSv1.2" { "max_version = \"1.2\"" } else { "min_version = \"1.3\"" };
        let upstream = |name: &str, server: usize, tls: &str| {
            let port = self.ports[server];
            let tls = tls.replace("BOUND", bound);
            format!("[upstreams.{name}]\nservers = [\"127.0.0.1:{port}\"]\n[upstreams.{name}.tls]\n{tls}\n")
        };
        Egret::start(
            &(format!("[trust.base]\nroots = [{root:?}]\n")
                + &format!("[trust.more-roots]\nroots = [{root:?}, {:?}]\n", self.stranger.root())
                + &format!("[trust.named]\nroots = [{root:?}]\nnames = [\"dns:{HOST}\"]\n")
                + &self.client("alice").identity("alice")
                + &self.client("bob").identity("bob")
                + &upstream("base", 0, BASE)
                + &upstream("variant", variant.server, variant.tls)
                + &listener("base", free_port(), "base")
                + &listener("variant", free_port(), "variant")),
        )
    }

    fn client(&self, name: &str) -> Pair {
        self.pki.client(name)
    }
}

/// One request: what the server saw of it. True if it resumed.
fn resumed(address: SocketAddr, dn: &str, sni: &str) -> bool {
    let answer = http::get(address);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains(&format!("dn={dn} ")), "{answer:?}");
    assert!(answer.body.contains(&format!("sni={sni} ")), "{answer:?}");
    answer.body.contains("reused=r ")
}

/// In either order, the second of two origins starts with a full handshake, and then both resume.
fn never_across(scene: &Scene, variant: &Variant, base_first: bool) {
    let egret = scene.egret(variant);
    let base = (egret.address("base"), "CN=alice", HOST);
    let other = (egret.address("variant"), variant.dn, variant.sni);
    let (first, second) = if base_first { (base, other) } else { (other, base) };
    let what = format!("{} on {}, base first: {base_first}", variant.name, scene.protocols);
    let request = |(address, dn, sni)| resumed(address, dn, sni);
    assert!(!request(first), "{what}: nothing to resume yet");
    assert!(request(first), "{what}: the first origin resumes its own session\n{}", egret.log_text());
    assert!(!request(second), "{what}: the second resumed a session of the first");
    assert!(request(second), "{what}: the second origin resumes its own session");
    assert!(request(first), "{what}: and took nothing from the first");
}

fn origins_that_differ_in_one_part_do_not_resume_each_other(protocols: &'static str) {
    let scene = Scene::new(protocols);
    for variant in VARIANTS {
        never_across(&scene, variant, true);
        never_across(&scene, variant, false);
    }
}

#[test]
fn origins_that_differ_in_one_part_do_not_resume_each_other_on_tls_1_2() {
    origins_that_differ_in_one_part_do_not_resume_each_other("TLSv1.2");
}

#[test]
fn origins_that_differ_in_one_part_do_not_resume_each_other_on_tls_1_3() {
    origins_that_differ_in_one_part_do_not_resume_each_other("TLSv1.3");
}

/// The server sees the right client and name in each of 16 x 20 requests, while tickets are in use.
#[test]
fn sixteen_parallel_clients_are_never_mixed_up() {
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        let scene = Scene::new(protocols);
        for variant in VARIANTS.iter().filter(|variant| ["no-identity", "server-name"].contains(&variant.name)) {
            let egret = scene.egret(variant);
            let base = (egret.address("base"), "CN=alice", HOST);
            let other = (egret.address("variant"), variant.dn, variant.sni);
            let client = |number: usize| {
                let requests = (0..20).map(|round| if (number + round).is_multiple_of(2) { base } else { other });
                requests.filter(|(address, dn, sni)| resumed(*address, dn, sni)).count()
            };
            let resumed: usize = std::thread::scope(|scope| {
                let clients: Vec<_> = (0..16).map(|number| scope.spawn(move || client(number))).collect();
                clients.into_iter().map(|client| client.join().unwrap()).sum()
            });
            assert!(resumed > 0, "nothing was resumed, so nothing was tried");
        }
    }
}

#[test]
fn resumption_can_be_switched_off() {
    let scene = Scene::new("TLSv1.3");
    let off = Variant {
        name: "off",
        server: 0,
        tls: "trust = \"base\"\nserver_name = \"certauth.example.com\"\nresumption = false",
        dn: "",
        sni: HOST,
    };
    let egret = scene.egret(&off);
    for _ in 0..3 {
        assert!(!resumed(egret.address("variant"), "", HOST));
    }
}
