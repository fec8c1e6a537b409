//! Faults of the server's certificate.

use std::fmt::Write as _;
use std::path::Path;

use tempfile::TempDir;

use super::house::{House, first_of};
use super::stage::{Case, HOST, Pasted, config, explain, explain_with, fail_in_nginx, run, serves};
use crate::support::authority::openssl;
use crate::support::nginx::Nginx;
use crate::support::pki::{Leaf, Pki};
use crate::support::{free_port, loopback};

/// A real nginx with a server block for each certificate.
#[derive(Default)]
struct Servers {
    blocks: String,
    ports: Vec<u16>,
}

impl Servers {
    /// One more server; gives where it will listen.
    fn add(&mut self, certificate: &Path, key: &Path) -> String {
        let port = free_port();
        // What is weak is served all the same.
        writeln!(
            self.blocks,
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; \
             ssl_ciphers DEFAULT@SECLEVEL=0; location / {{ return 200 ok; }} }}",
            certificate.display(),
            key.display()
        )
        .unwrap();
        self.ports.push(port);
        loopback(port).to_string()
    }

    fn start(&self) -> Nginx {
        Nginx::start(&self.blocks, &self.ports)
    }
}

/// Another certificate with the same key, by itself: what a root is after the server was renewed.
fn again_of(pair: &crate::support::pki::Pair) -> String {
    let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
    let again = format!("{certificate}.again");
    let days = ["-days", "40", "-out", &again];
    openssl(Path::new("."), &[&["x509", "-in", &certificate, "-signkey", &key][..], &days].concat());
    again
}

#[test]
fn every_fault_of_trust_is_named_and_its_repair_works() {
    let (pki, house, stranger) = (Pki::new(), House::new("Example Org"), Pki::new());
    let mut servers = Servers::default();
    let mut add = |pair: &crate::support::pki::Pair| servers.add(&pair.certificate, &pair.key);
    let good = pki.server(&[HOST]);
    let stock = pki.stock_self_signed("stock", HOST, &[]);
    let named = format!("subjectAltName=DNS:{HOST}");
    let named = pki.stock_self_signed("named", HOST, &["-addext", &named]);
    let old = pki.version_one("v1", HOST);
    let common = pki.issue("common", &Leaf { common_name: HOST, names: &[], valid: (-1, 30) });
    let (good_at, stock_at, named_at) = (add(&good), add(&stock), add(&named));
    let (old_at, common_at) = (add(&old), add(&common));
    let mut add = |(certificate, key): super::house::Files| servers.add(&certificate, &key);
    let whole_at = add(house.server("whole", &["intermediate.pem"]));
    let bare_at = add(house.server("bare", &[]));
    let hinted_at = add(house.server_with_hint("hinted"));
    let authority_at = add(house.authority_as_server());
    let _nginx = servers.start();

    let leaf = first_of(&good.certificate).display().to_string();
    let root = pki.root().display().to_string();
    let name = ["--server-name", HOST];
    let asked = |at: &str, more: &[&str]| -> Vec<String> {
        [&[at][..], &name, more].concat().iter().map(ToString::to_string).collect()
    };
    let case = |what, at: &str, more: &[&str], cause| {
        let arguments = asked(at, more);
        Case { arguments, ..Case::new(what, &[], cause) }
    };
    let house_root = house.file("root.pem").display().to_string();
    let stranger_root = stranger.root().display().to_string();
    let (ca_pem, own) = ("backend-ca.pem", "backend.pem");
    let unknown = "certificate_unknown_issuer";
    let (former, renewed) = (Pki::named("Again"), Pki::named("Again"));
    let again = renewed.root().display().to_string();
    let mut later = Servers::default();
    let former_pair = former.server(&[HOST]);
    let former_at = later.add(&former_pair.certificate, &former_pair.key);
    let _later = later.start();
    let in_nginx = run(vec![
        case("a private authority", &good_at, &[], "private_authority")
            .class(unknown)
            .mended_with(&[(ca_pem, &pki.root())]),
        case("another authority than the trusted", &whole_at, &["--ca", &stranger_root], "private_authority")
            .class(unknown)
            .mended_with(&[(ca_pem, &house.file("root.pem"))]),
        case("an authority that was made anew", &former_at, &["--ca", &again], "private_authority")
            .class(unknown)
            .mended_with(&[(ca_pem, &former.root())]),
        case("no intermediate, root of the same house", &bare_at, &["--ca", &house_root], "chain_incomplete")
            .class(unknown)
            .mended_with(&[(ca_pem, &house.file("intermediate.pem"))])
            .nginx_with(&[(ca_pem, &house.file("both.pem"))]),
        case("no intermediate, and a hint where it is", &hinted_at, &[], "chain_incomplete")
            .class(unknown)
            .mended_with(&[(ca_pem, &house.file("intermediate.pem"))])
            .nginx_with(&[(ca_pem, &house.file("both.pem"))]),
        case("the leaf given as root", &good_at, &["--ca", &leaf], "leaf_as_authority")
            .class(unknown)
            .mended_with(&[(ca_pem, &pki.root())]),
        case("stock self-signed, common name only", &stock_at, &[], "certificate_self_signed")
            .mended()
            .nginx_with(&[(own, &stock.certificate)]),
        case("self-signed with names", &named_at, &[], "certificate_self_signed")
            .mended()
            .nginx_with(&[(own, &named.certificate)]),
        case("X.509 v1", &old_at, &[], "certificate_self_signed").mended().nginx_with(&[(own, &old.certificate)]),
        case("v1 as root, renewed", &old_at, &["--ca", &again_of(&old)], "authority_as_leaf")
            .class("certificate_self_signed")
            .mended()
            .nginx_with(&[(own, &old.certificate)]),
        case("CA as leaf as root, renewed", &named_at, &["--ca", &again_of(&named)], "authority_as_leaf")
            .class("certificate_self_signed")
            .mended()
            .nginx_with(&[(own, &named.certificate)]),
        case("an authority's certificate as leaf", &authority_at, &["--ca", &house_root], "authority_as_leaf")
            .class("certificate_invalid")
            .mended()
            .nginx_with(&[(ca_pem, &house.file("root.pem"))]),
        case("a common name only", &common_at, &["--ca", &root], "common_name_only")
            .class("certificate_name_mismatch")
            .mended()
            .nginx_with(&[(ca_pem, &pki.root())]),
        Case::new("an address where names are served", &[&good_at, "--ca", &root], "certificate_name_mismatch")
            .mended(),
    ]);
    assert_eq!(in_nginx, 14);
}

#[test]
fn every_fault_of_names_dates_and_strength_is_named() {
    let pki = Pki::new();
    let mut servers = Servers::default();
    let leaf = |stem: &str, name: &str, valid| pki.issue(stem, &Leaf { common_name: name, names: &[name], valid });
    let other = leaf("other", "other.example.com", (-1, 30));
    let (expired, early) = (leaf("expired", HOST, (-30, -1)), leaf("early", HOST, (1, 30)));
    let good = leaf("good", HOST, (-1, 90));
    let names = format!("subjectAltName=DNS:{HOST}");
    let no_ca = ["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
    let weak = |stem, key, hash| pki.stock_self_signed(stem, HOST, &[&["-newkey", key, hash][..], &no_ca].concat());
    let (short, sha1) = (weak("short", "rsa:1024", "-sha256"), weak("sha1", "rsa:2048", "-sha1"));
    let mut add = |pair: &crate::support::pki::Pair| servers.add(&pair.certificate, &pair.key);
    let (other_at, expired_at, early_at) = (add(&other), add(&expired), add(&early));
    let (good_at, short_at, sha1_at) = (add(&good), add(&short), add(&sha1));
    let _nginx = servers.start();

    let root = pki.root().display().to_string();
    let crl = pki.crl(&[&good]).display().to_string();
    let folder = TempDir::new().unwrap();
    let trust = |name: &str, lines: &str| {
        let servers = format!("[upstreams.backend]\nservers = [{good_at:?}]\n");
        let tls = format!("tls = {{ server_name = {HOST:?}, trust = \"t\" }}\n");
        config(&folder, name, &format!("{servers}{tls}[trust.t]\n{lines}\n"))
    };
    let pinned = trust("pin.toml", &format!("roots = [{root:?}]\npins = [\"sha256/{}=\"]", "A".repeat(43)));
    let exact = trust("exact.toml", &format!("certificate = \"sha256:{}\"", "ab".repeat(32)));
    let ca = |at: &str, cause, pem: &str| Case::new(cause, &[at, "--server-name", HOST, "--ca", pem], cause);
    let pem = |pair: &crate::support::pki::Pair| pair.certificate.display().to_string();
    let revoked = [&good_at[..], "--server-name", HOST, "--ca", &root, "--crl", &crl];
    let in_nginx = run(vec![
        ca(&other_at, "certificate_name_mismatch", &root).mended(),
        ca(&expired_at, "certificate_expired", &root),
        ca(&early_at, "certificate_not_yet_valid", &root),
        ca(&short_at, "certificate_weak_key", &pem(&short)),
        ca(&sha1_at, "certificate_weak_signature", &pem(&sha1)),
        Case::new("revoked", &revoked, "certificate_revoked"),
        Case::new("another key than the pinned", &["--config", &pinned], "certificate_pin_mismatch")
            .mended()
            .not_in_nginx("nginx cannot pin a key"),
        Case::new("another than the exact one", &["--config", &exact], "certificate_not_the_exact_one")
            .mended()
            .nginx_with(&[("backend-ca.pem", &pki.root())]),
    ]);
    assert_eq!(in_nginx, 2);
}

#[test]
fn faults_behind_the_first_are_told_too_and_mended_together() {
    let pki = Pki::new();
    let names = ["other.example.com"];
    let pair = pki.issue("old", &Leaf { common_name: names[0], names: &names, valid: (-30, -1) });
    let mut servers = Servers::default();
    let at = servers.add(&pair.certificate, &pair.key);
    let _nginx = servers.start();
    let explained = explain(&[&at, "--server-name", HOST]);
    let causes: Vec<&str> =
        explained.report["causes"].as_array().unwrap().iter().map(|one| one["cause"].as_str().unwrap()).collect();
    assert!(causes.contains(&"certificate_expired"), "{causes:?}\n{}", explained.text());
    assert!(causes.contains(&"certificate_name_mismatch"), "{causes:?}\n{}", explained.text());
    assert!(causes.contains(&"private_authority"), "{causes:?}\n{}", explained.text());

    // The server's owner renews the certificate; what is to be configured then works, in nginx too.
    let renewed = pki.server(&names);
    let mut servers = Servers::default();
    let renewed_at = servers.add(&renewed.certificate, &renewed.key);
    let _renewed = servers.start();
    let files = [("backend-ca.pem", pki.root())];
    let tables = explained.egret(&files).unwrap().replace(&at, &renewed_at);
    serves(&tables).unwrap_or_else(|log| panic!("{log}"));
    let directives = explained.nginx(&files).replace(&at, &renewed_at);
    assert_eq!(fail_in_nginx(&[Pasted { what: "renewed".into(), directives }]), [""; 0]);
}

#[test]
fn trust_that_is_narrower_than_the_systems_is_named() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let pair = pki.server(&[HOST]);
    let mut servers = Servers::default();
    let at = servers.add(&pair.certificate, &pair.key);
    let _nginx = servers.start();
    let ca = stranger.root().display().to_string();
    let system = [("SSL_CERT_FILE", pki.root())];
    let system: Vec<(&str, &Path)> = system.iter().map(|(name, path)| (*name, path.as_path())).collect();
    let explained = explain_with(&[&at[..], "--server-name", HOST, "--ca", &ca], &system);
    assert_eq!(explained.cause(), "trust_too_narrow", "{}", explained.text());
    let repair = explained.egret(&[]).unwrap();
    assert!(!repair.contains("trust"), "{repair}");
    let directives = explained.nginx(&[("/etc/ssl/certs/ca-certificates.crt", pki.root())]);
    assert_eq!(fail_in_nginx(&[Pasted { what: "the system's roots".into(), directives }]), [""; 0]);
}

#[test]
fn what_a_chain_lacks_and_has_too_much_is_shown() {
    let house = House::new("Example Org");
    let mut servers = Servers::default();
    let mut add = |(certificate, key): super::house::Files| servers.add(&certificate, &key);
    let rooted_at = add(house.server("rooted", &["intermediate.pem", "root.pem"]));
    let bare_at = add(house.server("bare", &[]));
    let _nginx = servers.start();
    let root = house.file("root.pem").display().to_string();
    let explained = explain(&[&rooted_at[..], "--server-name", HOST, "--ca", &root]);
    assert_eq!(explained.code, 0, "{}", explained.text());
    assert!(explained.notes().contains(&"chain_superfluous_root"), "{}", explained.text());
    let roles: Vec<&str> = explained.report["chain"]["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["leaf", "intermediate", "superfluous_root"]);
    assert_eq!(explained.report["chain"]["anchor"], "CN=Root, O=Example Org");
    let explained = explain(&[&bare_at[..], "--server-name", HOST, "--ca", &root]);
    assert_eq!(explained.report["chain"]["missing"], "CN=Issuing, O=Example Org");
}
