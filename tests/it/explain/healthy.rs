//! Servers with which nothing is wrong: nothing is made up.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use rustls::ServerConfig;
use tempfile::TempDir;

use super::house::House;
use super::stage::{HOST, config, explain, serves};
use crate::support::nginx::{Nginx, certauth, tls};
use crate::support::openssl::OpensslServer;
use crate::support::peer::{Peer, anonymous, echo, mutual};
use crate::support::pki::{Pair, Pki};
use crate::support::{free_port, loopback};

/// Nothing is wrong, and the configuration that is shown works.
fn is_healthy(what: &str, arguments: &[&str]) {
    let explained = explain(arguments);
    assert_eq!((explained.code, explained.cause()), (0, "nothing"), "{what}\n{}", explained.text());
    let tables = explained.egret(&[]).unwrap_or_else(|| panic!("{what}: no configuration\n{}", explained.text()));
    serves(&tables).unwrap_or_else(|log| panic!("{what}\n{log}"));
}

/// Each on a thread of its own.
fn are_healthy(cases: &[(&str, Vec<&str>)]) {
    std::thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(4)) {
            scope.spawn(|| half.iter().for_each(|(what, arguments)| is_healthy(what, arguments)));
        }
    });
}

#[test]
fn no_fault_is_found_with_ten_healthy_kinds_of_nginx_and_openssl() {
    let (pki, house) = (Pki::new(), House::new("Example Org"));
    let (pair, wild) = (pki.server(&[HOST]), pki.server(&["*.example.com"]));
    let by_address = pki.server(&["127.0.0.1"]);
    let mut blocks = String::new();
    let mut ports = Vec::new();
    let mut site = |pair: &Pair, protocols: &str, more: &str| {
        let port = free_port();
        ports.push(port);
        let tls = tls(pair, &pki.root(), protocols);
        writeln!(blocks, "server {{ listen 127.0.0.1:{port} ssl; {tls} {more} location / {{ return 200 ok; }} }}")
            .unwrap();
        loopback(port).to_string()
    };
    let both = "TLSv1.2 TLSv1.3";
    let usual = site(&pair, both, "");
    let only12 = site(&pair, "TLSv1.2", "");
    let only13 = site(&pair, "TLSv1.3", "");
    let wildcard = site(&wild, both, "");
    let address = site(&by_address, both, "");
    let forgetful = site(&pair, both, "ssl_session_tickets off; ssl_session_cache off;");
    let asks = site(&pair, both, "ssl_verify_client optional;");
    let demands = site(&pair, both, "ssl_verify_client on;");
    let [disordered, rooted] =
        [("disordered", &["root.pem", "intermediate.pem"]), ("rooted", &["intermediate.pem", "root.pem"])].map(
            |(stem, behind)| {
                let port = free_port();
                ports.push(port);
                let (certificate, key) = house.server(stem, behind);
                writeln!(
                    blocks,
                    "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; \
                     location / {{ return 200 ok; }} }}",
                    certificate.display(),
                    key.display()
                )
                .unwrap();
                loopback(port).to_string()
            },
        );
    let shared = free_port();
    ports.push(shared);
    blocks += &certauth(shared, "default_server", "_", both, &pki.server(&["default.example.com"]), &pki);
    blocks += &certauth(shared, "", HOST, both, &pair, &pki);
    let shared = loopback(shared).to_string();
    let _nginx = Nginx::start(&blocks, &ports);
    let openssl = OpensslServer::start(&pki, &pair, &["-num_tickets", "0"]);
    let openssl = openssl_address(&openssl);

    let (root, house_root) = (pki.root().display().to_string(), house.file("root.pem").display().to_string());
    let client = pki.client("app");
    let (certificate, key) = (client.certificate.display().to_string(), client.key.display().to_string());
    let named = |at| vec![at, "--server-name", HOST, "--ca", &root];
    let own = ["--cert", &certificate, "--key", &key];
    are_healthy(&[
        ("the usual", named(&usual)),
        ("TLS 1.2 only", named(&only12)),
        ("TLS 1.3 only", named(&only13)),
        ("a wildcard", named(&wildcard)),
        ("an address", vec![&address, "--ca", &root]),
        ("no sessions", named(&forgetful)),
        ("asks for a certificate, none given", named(&asks)),
        ("asks for a certificate, given", [&named(&asks)[..], &own].concat()),
        ("demands a certificate", [&named(&demands)[..], &own].concat()),
        ("several sites", named(&shared)),
        ("certificates out of order", vec![&disordered, "--server-name", HOST, "--ca", &house_root]),
        ("its root sent along", vec![&rooted, "--server-name", HOST, "--ca", &house_root]),
        ("no tickets", named(&openssl)),
    ]);
    let explained = explain(&named(&asks));
    assert_eq!(explained.notes(), ["client_certificate_optional"], "{}", explained.text());
    let explained = explain(&[&named(&demands)[..], &own].concat());
    assert_eq!(explained.attempt("without_identity")["result"], "ok", "nginx answers by HTTP");
    assert_eq!(explained.attempt("foreign_session")["resumption"], "refused", "{}", explained.text());
    assert_eq!(explained.attempt("resumed")["resumption"], "resumed", "{}", explained.text());
    assert!(explained.notes().contains(&"session_carries_identity"), "{}", explained.text());
}

fn openssl_address(server: &OpensslServer) -> String {
    server.address.to_string()
}

#[test]
fn no_fault_is_found_with_healthy_servers_of_other_kinds() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let plain = Peer::echo(anonymous(&pair));
    let demanding = Peer::echo(mutual(&pair, &pki));
    let speaks_first = Peer::start_tls(anonymous(&pair), |mut tls| {
        let _ = tls.write_all(b"220 ready\r\n");
        echo(tls);
    });
    let mut h2 = ServerConfig::clone(&anonymous(&pair));
    h2.alpn_protocols = vec![b"h2".to_vec(), b"postgresql".to_vec()];
    let h2 = Peer::echo(Arc::new(h2));
    let old = pki.version_one("v1", HOST);
    let exact = OpensslServer::start(&pki, &old, &[]);

    let root = pki.root().display().to_string();
    let client = pki.client("app");
    let (certificate, key) = (client.certificate.display().to_string(), client.key.display().to_string());
    let [plain, demanding, speaks_first, h2] =
        [&plain, &demanding, &speaks_first, &h2].map(|peer| peer.address.to_string());
    let folder = TempDir::new().unwrap();
    let configured = |name: &str, address: &str, trust: &str, tls: &str| {
        let upstream =
            format!("[upstreams.backend]\nservers = [\"{address}\"]\n[upstreams.backend.tls]\ntrust = \"t\"\n");
        config(&folder, name, &format!("{upstream}server_name = {HOST:?}\n{tls}\n[trust.t]\n{trust}\n"))
    };
    let by_root = format!("roots = [{root:?}]");
    let exactly = format!("certificate = \"sha256:{}\"", old.sha256());
    let v1 = configured("v1.toml", &exact.address.to_string(), &exactly, "");
    let narrow = configured("narrow.toml", &plain, &by_root, "key_exchange = [\"secp256r1\"]\nmax_version = \"1.2\"");
    let off = configured("off.toml", &plain, &by_root, "resumption = false");
    let named = |at| vec![at, "--server-name", HOST, "--ca", &root];
    are_healthy(&[
        ("rustls", named(&plain)),
        ("rustls with certificates", [&named(&demanding)[..], &["--cert", &certificate, "--key", &key]].concat()),
        ("a server that speaks first", named(&speaks_first)),
        ("a protocol by ALPN", [&named(&h2)[..], &["--alpn", "postgresql"]].concat()),
        ("X.509 v1, trusted for itself", vec!["--config", &v1]),
        ("narrow settings", vec!["--config", &narrow]),
        ("no resumption", vec!["--config", &off]),
    ]);
}
