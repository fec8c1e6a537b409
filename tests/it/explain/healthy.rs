//! Servers with which nothing is wrong: nothing is made up.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use rustls::ServerConfig;
use tempfile::TempDir;

use super::house::House;
use super::stage::Directives::{self, Likewise};
use super::stage::{HOST, Pasted, config, explain, fail_in_nginx, serves};
use crate::support::nginx::{Nginx, certauth, tls};
use crate::support::openssl::OpensslServer;
use crate::support::peer::{Peer, anonymous, echo, mutual};
use crate::support::pki::{Leaf, Pair, Pki};
use crate::support::{free_port, loopback};

/// A server, how it is asked about, and what becomes of the directives for nginx.
type Row<'a> = (&'static str, Vec<&'a str>, Directives);

/// Nothing is wrong, and the configuration that is shown works. Gives the directives for nginx, if there are any.
fn is_healthy((what, arguments, nginx): &Row<'_>) -> Option<Pasted> {
    let explained = explain(arguments);
    assert_eq!((explained.code, explained.cause()), (0, "nothing"), "{what}\n{}", explained.text());
    let tables = explained.egret(&[]).unwrap_or_else(|| panic!("{what}: no configuration\n{}", explained.text()));
    serves(&tables).unwrap_or_else(|log| panic!("{what}\n{log}"));
    nginx.of(what, &explained, &[]).unwrap_or_else(|wrong| panic!("{what}: {wrong}\n{}", explained.text()))
}

/// Each on a thread of its own; then all that nginx can do, in one nginx. Gives how many those are.
fn are_healthy(rows: &[Row<'_>]) -> usize {
    let pasted: Vec<Pasted> = std::thread::scope(|scope| {
        let part = |part: &'_ [Row<'_>]| part.iter().filter_map(is_healthy).collect::<Vec<_>>();
        let parts: Vec<_> = rows.chunks(rows.len().div_ceil(4)).map(|rows| scope.spawn(move || part(rows))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    let wrong = fail_in_nginx(&pasted);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    pasted.len()
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
    let leaf = |stem, common_name, names| pki.issue(stem, &Leaf { common_name, names, valid: (-1, 90) });
    let two_names = site(&leaf("two-names", "server", &["127.0.0.1", HOST]), both, "");
    let no_name = site(&leaf("no-name", "server", &["127.0.0.1"]), both, "");
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
    let intermediate = pki.intermediate().display().to_string();
    let with_both = Directives::With(vec![("backend-ca.pem", pki.both())]);
    let (lower, lists) = house.revocation_lists();
    let lower = lower.display().to_string();
    let with_lists = Directives::With(vec![("backend-crl.pem", lists)]);
    let client = pki.client("app");
    let (certificate, key) = (client.certificate.display().to_string(), client.key.display().to_string());
    let named = |at| vec![at, "--server-name", HOST, "--ca", &root];
    let own = ["--cert", &certificate, "--key", &key];
    let in_nginx = are_healthy(&[
        ("the usual", named(&usual), Likewise),
        ("TLS 1.2 only", named(&only12), Likewise),
        ("TLS 1.3 only", named(&only13), Likewise),
        ("a wildcard", named(&wildcard), Likewise),
        ("an address", vec![&address, "--ca", &root], Likewise),
        ("no sessions", named(&forgetful), Likewise),
        ("asks for a certificate, none given", named(&asks), Likewise),
        ("asks for a certificate, given", [&named(&asks)[..], &own].concat(), Likewise),
        ("demands a certificate", [&named(&demands)[..], &own].concat(), Likewise),
        ("several sites", named(&shared), Likewise),
        ("certificates out of order", vec![&disordered, "--server-name", HOST, "--ca", &house_root], Likewise),
        ("its root sent along", vec![&rooted, "--server-name", HOST, "--ca", &house_root], Likewise),
        ("no tickets", named(&openssl), Likewise),
        ("an address and a name", vec![&two_names, "--ca", &root], Likewise),
        (
            "an address and no name",
            vec![&no_name, "--ca", &root],
            Directives::None("nginx checks a certificate for a DNS name"),
        ),
        ("an intermediate in place of the root", vec![&usual, "--server-name", HOST, "--ca", &intermediate], with_both),
        (
            "a revocation list",
            vec![&disordered, "--server-name", HOST, "--ca", &house_root, "--crl", &lower],
            with_lists,
        ),
    ]);
    assert_eq!(in_nginx, 16);
    let explained = explain(&named(&asks));
    assert_eq!(explained.notes(), ["client_certificate_optional"], "{}", explained.text());
    let explained = explain(&[&named(&demands)[..], &own].concat());
    assert_eq!(explained.attempt("without_identity")["result"], "ok", "nginx answers by HTTP");
    assert!(!explained.notes().contains(&"client_certificate_issuer_not_listed"), "{}", explained.text());
    assert_eq!(explained.attempt("foreign_session")["resumption"], "refused", "{}", explained.text());
    assert_eq!(explained.attempt("resumed")["resumption"], "resumed", "{}", explained.text());
    assert!(explained.notes().contains(&"session_carries_identity"), "{}", explained.text());

    // nginx lets the handshake pass and refuses by HTTP: what explain says has to be true all the same.
    let (certificate, key) = house.server("stranger", &["intermediate.pem"]);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    for (version, site) in [("both", &demands), ("optional", &asks)] {
        let explained = explain(&[&named(site)[..], &["--cert", &certificate, "--key", &key]].concat());
        assert!(explained.notes().contains(&"client_certificate_issuer_not_listed"), "{version}: {}", explained.text());
    }
}

fn openssl_address(server: &OpensslServer) -> String {
    server.address.to_string()
}

#[test]
fn no_fault_is_found_with_healthy_servers_of_other_kinds() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST, "other.example.com"]);
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
    let stranger = Pki::new();
    let two_files = format!("roots = [{root:?}, {:?}]", stranger.root());
    let two_files = configured("two-files.toml", &plain, &two_files, "");
    let other = format!("{by_root}\nnames = [\"dns:other.example.com\"]");
    let other_name = configured("other-name.toml", &plain, &other, "");
    let unsent = configured("unsent.toml", &plain, &other, "sni = false");
    let by_itself = Directives::With(vec![("backend.pem", old.certificate)]);
    let off = configured("off.toml", &plain, &by_root, "resumption = false");
    let named = |at| vec![at, "--server-name", HOST, "--ca", &root];
    let in_nginx = are_healthy(&[
        ("rustls", named(&plain), Likewise),
        (
            "rustls with certificates",
            [&named(&demanding)[..], &["--cert", &certificate, "--key", &key]].concat(),
            Likewise,
        ),
        ("a server that speaks first", named(&speaks_first), Likewise),
        ("a protocol by ALPN", [&named(&h2)[..], &["--alpn", "postgresql"]].concat(), Likewise),
        ("X.509 v1, trusted for itself", vec!["--config", &v1], by_itself),
        ("narrow settings", vec!["--config", &narrow], Likewise),
        ("no resumption", vec!["--config", &off], Likewise),
        ("roots in two files", vec!["--config", &two_files], Directives::With(vec![("backend-ca.pem", pki.root())])),
        (
            "another name than the one sent",
            vec!["--config", &other_name],
            Directives::None("for the name that it sends"),
        ),
        ("another name, and none sent", vec!["--config", &unsent], Likewise),
    ]);
    assert_eq!(in_nginx, 9);
}
