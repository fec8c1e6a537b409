//! The two stories this program has to end: a client identity that leaks into another's connections, and
//! a self-signed upstream that nobody explains.

use std::fmt::Write as _;
use std::fs;

use crate::support::egret::{Egret, listener, roots};
use crate::support::name_server::NameServer;
use crate::support::nginx::{Nginx, certauth};
use crate::support::openssl::OpensslServer;
use crate::support::pki::Pki;
use crate::support::plain::{End, ask};
use crate::support::{free_port, http, loopback};

/// One nginx endpoint, and egret with one listener that has an identity and one that has none.
struct CertAuth {
    pki: Pki,
    _nginx: Nginx,
    egret: Egret,
    sections: String,
}

const HOST: &str = "certauth.example.com";

impl CertAuth {
    fn start(protocols: &str) -> Self {
        let pki = Pki::new();
        let port = free_port();
        let wrong = certauth(port, "default_server", "_", protocols, &pki.server(&["default.example.com"]), &pki);
        let right = certauth(port, "", HOST, protocols, &pki.server(&[HOST]), &pki);
        let nginx = Nginx::start(&(wrong + &right), &[port]);
        let tls = |identity: &str| {
            format!(
                "servers = [\"127.0.0.1:{port}\"]\n\
                 tls = {{ {identity} trust = \"internal\", server_name = \"{HOST}\" }}\n"
            )
        };
        let sections = roots("internal", &pki.root())
            + &pki.client("payments").identity("payments")
            + &format!("[upstreams.known]\n{}", tls("identity = \"payments\","))
            + &format!("[upstreams.unknown]\n{}", tls(""))
            + &listener("known", free_port(), "known")
            + &listener("unknown", free_port(), "unknown");
        let egret = Egret::start(&sections);
        Self { pki, _nginx: nginx, egret, sections }
    }

    /// `requests` by curl, the two listeners in turns: each gets its own answer every time. How many of
    /// them nginx resumed, with and without identity.
    fn interleave(&self, requests: usize) -> [usize; 2] {
        let [known, unknown] = ["known", "unknown"].map(|name| self.egret.address(name));
        let mut resumed = [0; 2];
        for round in 0..requests {
            let with_identity = round % 2 == 0;
            let answer = http::get_as(HOST, if with_identity { known } else { unknown });
            let (status, dn) = if with_identity { (200, "dn=CN=payments ") } else { (403, "dn= ") };
            assert_eq!(answer.status, status, "request {round}: {answer:?}\n{}", self.egret.log_text());
            assert!(answer.body.contains(dn), "request {round}: {answer:?}");
            assert!(answer.body.contains(&format!("sni={HOST} ")), "request {round}: {answer:?}");
            resumed[usize::from(!with_identity)] += usize::from(answer.body.contains("reused=r "));
        }
        resumed
    }
}

/// Seed one, with resumption at work all the time: a server that never resumed would prove nothing.
fn never_mixed(protocols: &str) {
    let scene = CertAuth::start(protocols);
    let resumed = scene.interleave(200);
    assert!(resumed.iter().all(|count| *count >= 90), "of 100 requests each, nginx resumed {resumed:?}");
    for round in 0..3 {
        let changed = format!("{}\n[trust.spare-{round}]\nroots = [{:?}]\n", scene.sections, scene.pki.root());
        scene.egret.rewrite(&changed);
        assert!(scene.egret.reload(), "{}", scene.egret.log_text());
        let resumed = scene.interleave(20);
        assert_eq!(resumed, [10, 10], "an unchanged origin resumes from the first request after a reload on");
    }
}

#[test]
fn with_and_without_identity_are_never_mixed_on_tls_1_2() {
    never_mixed("TLSv1.2");
}

#[test]
fn with_and_without_identity_are_never_mixed_on_tls_1_3() {
    never_mixed("TLSv1.3");
}

#[test]
fn server_sees_the_name_of_the_upstream_without_being_told_to() {
    let pki = Pki::new();
    let port = free_port();
    let nginx = certauth(port, "", HOST, "TLSv1.2 TLSv1.3", &pki.server(&[HOST]), &pki);
    let _nginx = Nginx::start(&nginx, &[port]);
    let names = NameServer::start(0);
    let egret = Egret::start(&format!(
        "[dns]\nservers = [\"{}\"]\n{}[upstreams.certauth]\nservers = [\"{HOST}:{port}\"]\ntls = {{ trust = \"internal\" }}\n{}",
        names.address,
        roots("internal", &pki.root()),
        listener("plain", free_port(), "certauth"),
    ));
    let answer = http::get(egret.address("plain"));
    assert_eq!(answer.status, 403, "{answer:?}\n{}", egret.log_text());
    assert!(answer.body.contains(&format!("sni={HOST} ")), "{answer:?}");
    let line = egret.wait_for_log("the connection", |line| line["message"] == "connection");
    assert_eq!(line["server_name"], HOST, "{line}");
    assert_eq!(line["upstream"], "certauth", "{line}");
    assert_eq!(line["endpoint"], loopback(port).to_string(), "{line}");
    assert!(line["tls_version"].as_str().is_some_and(|version| version.contains("1.3")), "{line}");
    assert!(line["received"].as_u64().is_some_and(|bytes| bytes > 0), "{line}");
}

/// nginx lets a listener that does not trust a server in after one that does, and locks the trusting one
/// out in the other order. `trusting_first` says which order.
fn trust_does_not_leak(protocols: &str, trusting_first: bool) {
    let pki = Pki::new();
    let stranger = Pki::new();
    let port = free_port();
    let nginx = certauth(port, "", HOST, protocols, &pki.server(&[HOST]), &pki);
    let _nginx = Nginx::start(&nginx, &[port]);
    let mut sections = roots("right", &pki.root()) + &roots("wrong", &stranger.root());
    for name in ["right", "wrong"] {
        let tls = format!("tls = {{ trust = \"{name}\", server_name = \"{HOST}\" }}");
        write!(sections, "[upstreams.{name}]\nservers = [\"127.0.0.1:{port}\"]\n{tls}\n").unwrap();
        // Each round is judged by the server's certificate, not by what the rounds before came to.
        sections += "ejection = { max_share = 0 }\n";
        sections += &listener(name, free_port(), name);
    }
    let egret = Egret::start(&sections);
    let order = if trusting_first { ["right", "wrong"] } else { ["wrong", "right"] };
    for round in 0..10 {
        for name in order {
            let answer = http::get(egret.address(name));
            let expected = if name == "right" { 403 } else { 0 };
            assert_eq!(answer.status, expected, "{name} in round {round}: {answer:?}\n{}", egret.log_text());
        }
    }
    let refused = egret.metrics().sum("egret_origination_failures_total", &[("reason", "certificate_unknown_issuer")]);
    assert_eq!(refused, 10.0);
}

#[test]
fn trust_does_not_leak_to_a_listener_that_does_not_trust() {
    trust_does_not_leak("TLSv1.2", true);
    trust_does_not_leak("TLSv1.3", true);
}

#[test]
fn distrust_does_not_leak_to_a_listener_that_trusts() {
    trust_does_not_leak("TLSv1.2", false);
    trust_does_not_leak("TLSv1.3", false);
}

/// Seed two: refused with class, facts and repair; and the repair, put at the end of the file as it
/// stands in the log, is all that is needed.
#[test]
fn self_signed_upstream_is_refused_explained_and_accepted_after_pasting_the_repair() {
    let pki = Pki::new();
    let names = NameServer::start(0);
    let host = "internal.example.com";
    let pair = pki.stock_self_signed("stock", host, &["-addext", &format!("subjectAltName=DNS:{host}")]);
    let server = OpensslServer::start(&pki, &pair, &[]);
    let sections = format!(
        "[dns]\nservers = [\"{}\"]\n[upstreams.internal]\nservers = [\"{host}:{}\"]\n{}",
        names.address,
        server.address.port(),
        listener("plain", free_port(), "internal"),
    );
    let egret = Egret::start(&sections);
    let (bytes, end) = ask(egret.address("plain"), b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!((bytes.len(), end), (0, End::Reset));

    let line = egret.wait_for_log("the refusal", |line| line["message"] == "origination failed");
    assert_eq!(line["reason"], "certificate_self_signed", "{line}");
    let facts = line["facts"].as_object().unwrap_or_else(|| panic!("facts are no object: {line}"));
    let facts = serde_json::to_string(facts).unwrap();
    assert!(facts.contains(host), "{facts}");
    assert!(facts.to_lowercase().replace(':', "").contains(&pair.sha256()), "{facts}");
    let repair = line["repair"].as_str().unwrap_or_else(|| panic!("no repair: {line}"));

    egret.rewrite(&format!("{sections}\n{repair}\n"));
    assert!(egret.reload(), "the repair does not load:\n{repair}\n{}", egret.log_text());
    let answer = http::get(egret.address("plain"));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", egret.log_text());
}

/// What a person gets who types the command that stands in every tutorial: a CA certificate used as leaf,
/// and no name but the common name; or, with another command, version 1.
#[test]
fn stock_certificates_of_openssl_are_accepted_when_named_exactly() {
    let pki = Pki::new();
    let pairs = [pki.stock_self_signed("stock", HOST, &[]), pki.version_one("v1", HOST)];
    for pair in pairs {
        let server = OpensslServer::start(&pki, &pair, &[]);
        let upstream = |name: &str, trust: &str| {
            format!(
                "[upstreams.{name}]\nservers = [\"{}\"]\ntls = {{ trust = \"{trust}\", server_name = \"{HOST}\" }}\n",
                server.address
            )
        };
        let egret = Egret::start(
            &(format!("[trust.exact]\ncertificate = {0:?}\n[trust.named]\ncertificate = {0:?}\n", pair.certificate)
                + "names = [\"dns:other.example.com\"]\n"
                + &upstream("right", "exact")
                + &upstream("wrong", "named")
                + &listener("right", free_port(), "right")
                + &listener("wrong", free_port(), "wrong")),
        );
        let text = fs::read_to_string(&pair.certificate).unwrap();
        let answer = http::get(egret.address("right"));
        assert_eq!(answer.status, 200, "{answer:?}\n{}\n{text}", egret.log_text());
        assert_eq!(http::get(egret.address("wrong")).status, 0, "a name of `names` is checked");
        let line = egret.wait_for_log("the refusal", |line| line["message"] == "origination failed");
        assert_eq!(line["reason"], "certificate_name_mismatch", "{line}");
    }
}
