//! Every reason for which a server or egret's own certificate is refused is a class of its own, the same
//! word in log and metric; the client learns it as a reset before a byte of its data went anywhere.

use serde_json::Value;

use crate::support::egret::{Egret, listener, roots};
use crate::support::nginx::{Nginx, tls};
use crate::support::openssl::OpensslServer;
use crate::support::pki::{Leaf, Pair, Pki};
use crate::support::plain::{End, ask};
use crate::support::redis::Redis;
use crate::support::{free_port, loopback};

pub(crate) const HOST: &str = "server.example.com";
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// egret with one listener, `plain`, whose upstream has these servers and TLS settings.
pub(crate) fn one_upstream(servers: &str, tls: &str, sections: &str) -> Egret {
    one_upstream_with("", servers, tls, sections)
}

/// The same with more lines for the upstream.
pub(crate) fn one_upstream_with(upstream: &str, servers: &str, tls: &str, sections: &str) -> Egret {
    let listener = listener("plain", free_port(), "judged");
    Egret::start(&format!(
        "{sections}\n[upstreams.judged]\nservers = [\"{servers}\"]\noriginate_timeout = \"2s\"\n{upstream}\n\
         [upstreams.judged.tls]\nserver_name = \"{HOST}\"\n{tls}\n{listener}"
    ))
}

/// Three clients are refused for this reason: it is in the log and in the metric, no other is, and
/// nothing of them is left. Gives the line of the log.
pub(crate) fn refused_as(egret: &Egret, class: &str) -> Value {
    const CLIENTS: u32 = 3;
    let address = egret.address("plain");
    let floor = egret.descriptors();
    for _ in 0..CLIENTS {
        let (bytes, end) = ask(address, REQUEST);
        assert_eq!((bytes.len(), end), (0, End::Reset), "{class}\n{}", egret.log_text());
    }
    let is_failure = |line: &Value| line["message"] == "origination failed";
    let line = egret.wait_for_log(class, |line| is_failure(line) && line["reason"] == class);
    let failures = |labels: &[(&str, &str)]| egret.metrics().sum("egret_origination_failures_total", labels);
    assert_eq!(failures(&[("reason", class), ("upstream", "judged")]), f64::from(CLIENTS), "{}", egret.log_text());
    assert_eq!(failures(&[]), f64::from(CLIENTS), "{}", egret.log_text());
    assert_eq!(line["upstream"], "judged", "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
    egret.wait_until_idle(floor);
    line
}

/// A server that would serve anybody.
fn nginx(server: &Pair, pki: &Pki) -> (Nginx, String) {
    let port = free_port();
    let tls = tls(server, &pki.root(), "TLSv1.2 TLSv1.3");
    let block = format!("server {{ listen 127.0.0.1:{port} ssl; {tls} location / {{ return 200 ok; }} }}");
    (Nginx::start(&block, &[port]), loopback(port).to_string())
}

/// What the log says of the certificate: everything that a person would otherwise ask the server for.
fn explains(line: &Value, pair: &Pair) {
    let facts = line["facts"].as_object().unwrap_or_else(|| panic!("facts are no object: {line}"));
    for fact in ["subject", "issuer", "names", "not_before", "not_after", "sha256"] {
        assert!(facts.contains_key(fact), "no {fact} in {line}");
    }
    let sha256 = facts["sha256"].as_str().unwrap().to_lowercase().replace(':', "");
    assert!(sha256.contains(&pair.sha256()), "{line}");
}

/// A leaf with this name and validity, behind nginx, is refused by a trust that has the right root.
fn leaf_is_refused_as(name: &str, valid: (i64, i64), class: &str) -> Value {
    let pki = Pki::new();
    let pair = pki.issue("leaf", &Leaf { common_name: name, names: &[name], valid });
    let (_nginx, address) = nginx(&pair, &pki);
    let egret = one_upstream(&address, "trust = \"internal\"", &roots("internal", &pki.root()));
    let line = refused_as(&egret, class);
    explains(&line, &pair);
    line
}

#[test]
fn wrong_name_is_its_own_class() {
    let line = leaf_is_refused_as("other.example.com", (-1, 30), "certificate_name_mismatch");
    let text = line.to_string();
    assert!(text.contains("other.example.com"), "what the server presented: {line}");
    assert!(text.contains(HOST), "what was expected: {line}");
    assert!(line["repair"].as_str().is_some_and(|repair| !repair.is_empty()), "{line}");
}

#[test]
fn expired_is_its_own_class() {
    leaf_is_refused_as(HOST, (-30, -1), "certificate_expired");
}

#[test]
fn not_yet_valid_is_its_own_class() {
    leaf_is_refused_as(HOST, (1, 30), "certificate_not_yet_valid");
}

#[test]
fn revoked_is_its_own_class_and_unrevoked_is_served() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let other = pki.server(&["other.example.com"]);
    let (_nginx, address) = nginx(&pair, &pki);
    let trust = |revoked: &Pair| {
        let crl = pki.crl(&[revoked]);
        format!("[trust.internal]\nroots = [{:?}]\ncrls = [{crl:?}]\n", pki.root())
    };
    let egret = one_upstream(&address, "trust = \"internal\"", &trust(&pair));
    explains(&refused_as(&egret, "certificate_revoked"), &pair);
    drop(egret);
    let egret = one_upstream(&address, "trust = \"internal\"", &trust(&other));
    assert!(ask(egret.address("plain"), REQUEST).0.ends_with(b"ok"), "{}", egret.log_text());
}

#[test]
fn unknown_issuer_is_its_own_class_and_reaches_the_server_as_an_alert() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let pair = pki.server(&[HOST]);
    let (nginx, address) = nginx(&pair, &pki);
    let egret = one_upstream(&address, "trust = \"stranger\"", &roots("stranger", &stranger.root()));
    let line = refused_as(&egret, "certificate_unknown_issuer");
    explains(&line, &pair);
    assert!(line["repair"].as_str().is_some_and(|repair| !repair.is_empty()), "{line}");
    assert!(nginx.errors().contains("SSL alert number 48"), "unknown_ca:\n{}", nginx.errors());
}

/// What is left in a bundle when an authority was made anew under its old name.
#[test]
fn root_of_the_same_name_with_another_key_is_an_unknown_issuer() {
    let pki = Pki::named("Renewed");
    let (_nginx, address) = nginx(&pki.server(&[HOST]), &pki);
    let former = Pki::named("Renewed");
    let egret = one_upstream(&address, "trust = \"former\"", &roots("former", &former.root()));
    refused_as(&egret, "certificate_unknown_issuer");
}

#[test]
fn roots_of_the_system_do_not_vouch_for_a_private_authority() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let (_nginx, address) = nginx(&pair, &pki);
    let egret = one_upstream(&address, "", "");
    refused_as(&egret, "certificate_unknown_issuer");
}

#[test]
fn weak_key_and_weak_signature_are_classes_of_their_own() {
    let pki = Pki::new();
    let names = &format!("subjectAltName=DNS:{HOST}");
    let weak = ["-cipher", "DEFAULT@SECLEVEL=0"];
    for (class, key, hash) in
        [("certificate_weak_key", "rsa:1024", "-sha256"), ("certificate_weak_signature", "rsa:2048", "-sha1")]
    {
        let leaf = "basicConstraints=critical,CA:FALSE";
        let arguments = ["-newkey", key, hash, "-addext", names, "-addext", leaf];
        let pair = pki.stock_self_signed(class, HOST, &arguments);
        let server = OpensslServer::start(&pki, &pair, &weak);
        let trust = roots("weak", &pair.certificate);
        let egret = one_upstream(&server.address.to_string(), "trust = \"weak\"", &trust);
        refused_as(&egret, class);
    }
}

#[test]
fn another_certificate_than_the_exact_one_and_another_key_than_the_pinned_are_classes_of_their_own() {
    let pki = Pki::new();
    let pair = pki.server(&[HOST]);
    let (_nginx, address) = nginx(&pair, &pki);
    let exact = format!("[trust.internal]\ncertificate = \"sha256:{}\"\n", "ab".repeat(32));
    let egret = one_upstream(&address, "trust = \"internal\"", &exact);
    explains(&refused_as(&egret, "certificate_not_the_exact_one"), &pair);
    drop(egret);
    let pin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let pinned = format!("[trust.internal]\nroots = [{:?}]\npins = [\"{pin}\"]\n", pki.root());
    let egret = one_upstream(&address, "trust = \"internal\"", &pinned);
    explains(&refused_as(&egret, "certificate_pin_mismatch"), &pair);
}

/// The server wants a certificate; `identity` is what egret has. On TLS 1.2 the handshake fails; on TLS 1.3
/// it is over for egret when the server says no, and the same class ends the stream.
fn server_wants_a_certificate(version: &str, identity: Option<&Pair>, pki: &Pki, class: &str) -> Vec<Value> {
    let pair = pki.server(&[HOST]);
    let root = pki.root();
    let wants = ["-Verify", "3", "-verify_return_error", "-CAfile", root.to_str().unwrap(), version];
    let server = OpensslServer::start(pki, &pair, &wants);
    let (tls, section) = match identity {
        None => ("trust = \"internal\"", String::new()),
        Some(pair) => ("trust = \"internal\"\nidentity = \"app\"", pair.identity("app")),
    };
    let egret = one_upstream(&server.address.to_string(), tls, &(roots("internal", &root) + &section));
    if version == "-tls1_2" {
        offers_an_identity(&refused_as(&egret, class), identity.is_some());
        return egret.log();
    }
    let floor = egret.descriptors();
    let (bytes, end) = ask(egret.address("plain"), REQUEST);
    assert_eq!((bytes.len(), end), (0, End::Reset), "{}\n{}", egret.log_text(), server.output());
    egret.wait_for_log(class, |line| line["reason"] == class || line["ended"] == class);
    let told = egret.wait_for_log("repair", |line| line["reason"] == class && line["repair"].is_string());
    offers_an_identity(&told, identity.is_some());
    let count = |family: &str| egret.metrics().sum(family, &[("reason", class)]);
    let counted = count("egret_streams_ended_total") + count("egret_origination_failures_total");
    assert!(counted >= 1.0, "{class} is not counted\n{}", egret.log_text());
    egret.wait_until_idle(floor);
    egret.log()
}

/// `another`: in place of one that was refused. OpenSSL's server names the authorities of -CAfile.
fn offers_an_identity(line: &Value, another: bool) {
    let repair = line["repair"].as_str().unwrap_or_else(|| panic!("no repair: {line}"));
    assert_eq!(repair.contains("issued by \"") && repair.contains("CN="), another, "{repair}");
    // The file has the upstream's tls table: the repair is a change of it.
    for added in ["[identities.judged]", "identity = \"judged\""] {
        assert!(repair.lines().any(|line| line.strip_prefix('+') == Some(added)), "{repair}");
    }
}

#[test]
fn missing_client_certificate_is_its_own_class_on_both_versions() {
    let pki = Pki::new();
    for version in ["-tls1_2", "-tls1_3"] {
        server_wants_a_certificate(version, None, &pki, "client_certificate_required");
    }
}

#[test]
fn refused_client_certificate_is_its_own_class_on_both_versions() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let client = stranger.client("stranger");
    for version in ["-tls1_2", "-tls1_3"] {
        server_wants_a_certificate(version, Some(&client), &pki, "client_certificate_rejected");
    }
}

/// Public authorities do not issue clientAuth any more: the log names it where a server refuses such a certificate, and
/// never otherwise.
#[test]
fn refused_client_certificate_that_is_not_for_clients_is_named_so_on_both_versions() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let class = "client_certificate_rejected";
    for (client, blamed) in [(pki.client_for_servers("app"), true), (stranger.client("app"), false)] {
        for version in ["-tls1_2", "-tls1_3"] {
            let log = server_wants_a_certificate(version, Some(&client), &pki, class);
            let details = log.iter().filter(|line| line["reason"] == class).filter_map(|line| line["detail"].as_str());
            let details: Vec<&str> = details.collect();
            let names_it = |detail: &&str| detail.contains("its extended key usage lacks clientAuth");
            assert_eq!((details.is_empty(), details.iter().all(names_it)), (false, blamed), "{version}: {details:?}");
        }
    }
}

#[test]
fn redis_that_wants_a_certificate_says_so_through_egret() {
    let pki = Pki::new();
    let redis = Redis::start(&pki, &pki.server(&[HOST]));
    let address = loopback(redis.port).to_string();
    let egret = one_upstream(&address, "trust = \"internal\"", &roots("internal", &pki.root()));
    let (bytes, _) = ask(egret.address("plain"), b"PING\r\n");
    assert!(bytes.is_empty(), "{bytes:?}");
    let class = "client_certificate_required";
    egret.wait_for_log(class, |line| line["reason"] == class || line["ended"] == class);
}
