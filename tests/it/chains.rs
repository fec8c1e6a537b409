//! A chain that was believed a moment ago is not built again, and nothing else is believed because of it. The verifier
//! is asked as rustls asks it, at the times that the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use egret::config::values::{Name, Trust as TrustSpec};
use egret::credentials::trust::{Mode, Trust, Verifier};
use egret::observe::metrics::{OriginMetrics, Registry};
use egret::pipeline::originate::origin::resumption::Resumption;
use egret::pipeline::originate::origin::{Origin, OriginKey};
use rustls::Error;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;

use crate::support::authority::{Ca, Leaf, Wish};
use crate::support::metrics::Metrics;
use crate::support::origins::{originate, roots, trust, upstream, visit};
use crate::support::tls_server::{Setup, TLS12, TLS13, TlsServer};

/// A verifier and its account.
struct Judge {
    registry: Registry,
    verifier: Verifier,
}

impl Judge {
    fn new(trust: &Arc<Trust>, mode: Mode) -> Self {
        let (registry, metrics) = counted();
        Self { registry, verifier: Verifier::new(Arc::clone(trust), mode, metrics) }
    }

    /// The verdict on a chain `seconds` from now.
    fn judge(&self, chain: &[CertificateDer<'_>], name: &str, seconds: i64) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(
            UnixTime::now().as_secs().checked_add_signed(seconds).unwrap(),
        ));
        self.verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(drop)
    }

    /// Chains built and remembered.
    fn chains(&self) -> (f64, f64) {
        chains(&self.registry)
    }
}

fn counted() -> (Registry, Arc<OriginMetrics>) {
    let registry = Registry::new();
    let metrics = Arc::new(OriginMetrics::new(&registry, &Name::new("up")));
    (registry, metrics)
}

fn chains(registry: &Registry) -> (f64, f64) {
    let metrics = Metrics::parse(&registry.render());
    let of = |result| metrics.sum("egret_chains_total", &[("result", result)]);
    (of("built"), of("remembered"))
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

#[test]
fn the_same_chain_is_built_once_and_believed_again() {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("root");
    let chain = root.intermediate("between").leaf(&Wish::default()).chain;
    for mode in [Mode::Full, Mode::Report] {
        let judge = Judge::new(&trust(&roots(folder.path(), &[&root])), mode);
        for _ in 0..10 {
            judge.judge(&chain, "localhost", 0).unwrap();
        }
        assert_eq!(judge.chains(), (1.0, 9.0), "{mode:?}");
    }
}

#[test]
fn another_name_chain_or_trust_is_judged_for_itself() {
    let folder = TempDir::new().unwrap();
    let (root, stranger) = (Ca::new("root"), Ca::new("root"));
    let between = root.intermediate("between");
    let chain = between.leaf(&Wish::default()).chain;
    let judge = Judge::new(&trust(&roots(folder.path(), &[&root])), Mode::Full);
    judge.judge(&chain, "localhost", 0).unwrap();
    // The leaf is believed, but not as another host, and not below an issuer that did not sign it.
    judge.judge(&chain, "other.example.com", 0).unwrap_err();
    judge
        .judge(
            &[chain[0].clone(), stranger.intermediate("between").leaf(&Wish::default()).chain[1].clone()],
            "localhost",
            0,
        )
        .unwrap_err();
    judge.judge(&chain[..1], "localhost", 0).unwrap_err();
    // Beside an intermediate that is believed, another leaf is a stranger.
    judge
        .judge(&[Ca::new("between").leaf(&Wish::default()).chain[0].clone(), chain[1].clone()], "localhost", 0)
        .unwrap_err();
    judge.judge(&chain, "localhost", 0).unwrap();
    assert_eq!(judge.chains(), (1.0, 1.0));
    // Whoever does not trust the root is not persuaded by who does.
    let other = Judge::new(&trust(&roots(folder.path(), &[&stranger])), Mode::Full);
    other.judge(&chain, "localhost", 0).unwrap_err();
    assert_eq!(other.chains(), (0.0, 0.0));
}

#[test]
fn the_clock_ends_it_both_ways() {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("root");
    let chain = root.leaf(&Wish::default()).chain;
    let judge = Judge::new(&trust(&roots(folder.path(), &[&root])), Mode::Full);
    judge.judge(&chain, "localhost", 0).unwrap();
    // 30 days are over: expired although it was believed, and so it is when the clock was set back before its first.
    judge.judge(&chain, "localhost", 31 * DAY).unwrap_err();
    judge.judge(&chain, "localhost", 0).unwrap();
    judge.judge(&chain, "localhost", -2 * DAY).unwrap_err();
    assert_eq!(judge.chains(), (2.0, 0.0));
    // Within a certificate's life it is looked at anew by and by.
    judge.judge(&chain, "localhost", 0).unwrap();
    judge.judge(&chain, "localhost", 1).unwrap();
    assert_eq!(judge.chains(), (3.0, 1.0));
    judge.judge(&chain, "localhost", HOUR).unwrap();
    assert_eq!(judge.chains(), (4.0, 1.0));
}

#[test]
fn a_revocation_list_ends_it_with_its_next_update() {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("root");
    let leaf = root.leaf(&Wish::default());
    let listed = |revoked: &[&_], next_update| {
        let file = folder.path().join(format!("{:08x}.pem", fastrand::u32(..)));
        std::fs::write(&file, root.crl(revoked, next_update)).unwrap();
        trust(&TrustSpec { crls: vec![file], ..roots(folder.path(), &[&root]) })
    };
    let judge = Judge::new(&listed(&[], time::Duration::seconds(100)), Mode::Full);
    judge.judge(&leaf.chain, "localhost", 0).unwrap();
    judge.judge(&leaf.chain, "localhost", 90).unwrap();
    assert_eq!(judge.chains(), (1.0, 1.0));
    // The list has run out: what it said is no longer known, whatever was believed before.
    judge.judge(&leaf.chain, "localhost", 110).unwrap_err();
    // A newer list is another trust, and that is another verifier, which remembers nothing.
    let newer = listed(&[&leaf.serial], time::Duration::days(1));
    Judge::new(&newer, Mode::Full).judge(&leaf.chain, "localhost", 0).unwrap_err();
}

#[test]
fn what_is_refused_is_refused_anew_each_time() {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("root");
    let chain = Ca::new("stranger").leaf(&Wish::default()).chain;
    let full = Judge::new(&trust(&roots(folder.path(), &[&root])), Mode::Full);
    let report = Judge::new(&trust(&roots(folder.path(), &[&root])), Mode::Report);
    for _ in 0..3 {
        full.judge(&chain, "localhost", 0).unwrap_err();
        report.judge(&chain, "localhost", 0).unwrap();
    }
    assert_eq!((full.chains(), report.chains()), ((0.0, 0.0), (0.0, 0.0)));
}

/// In whole handshakes: the second is not resumed, its chain is remembered, and its facts are told all the same.
#[tokio::test]
async fn a_full_handshake_with_a_known_chain_tells_the_same_facts() {
    let folder = TempDir::new().unwrap();
    let root = Ca::new("root");
    let leaf = root.leaf(&Wish::default());
    let (registry, origin, server) = world(&folder, &root, &leaf).await;
    for _ in 0..3 {
        let (negotiated, seen) = visit(server.address(), server.address(), &origin).await;
        assert_eq!((negotiated.resumed, seen.resumed), (Resumption::Off, false));
        assert_eq!(negotiated.server.unwrap().sha256, leaf.sha256());
    }
    assert_eq!(chains(&registry), (1.0, 2.0));
}

/// Whoever shows a chain that is believed has proven nothing: the signature under the handshake does.
#[tokio::test]
async fn a_known_chain_without_its_key_is_worth_nothing() {
    for versions in [TLS12, TLS13] {
        let folder = TempDir::new().unwrap();
        let root = Ca::new("root");
        let leaf = root.leaf(&Wish::default());
        let (registry, origin, server) = world(&folder, &root, &leaf).await;
        visit(server.address(), server.address(), &origin).await;
        let thief = Leaf { chain: leaf.chain.clone(), ..root.leaf(&Wish::default()) };
        let thief = TlsServer::start(&thief, Setup { versions, ..Setup::default() }).await;
        let error = originate(thief.address(), server.address(), &origin).await.unwrap_err();
        assert_eq!(error.reason(), "certificate_invalid", "{error}");
        assert_eq!(chains(&registry), (1.0, 1.0), "its chain was known");
    }
}

/// A server, and an origin that never resumes.
async fn world(folder: &TempDir, root: &Ca, leaf: &Leaf) -> (Registry, Origin, TlsServer) {
    let server = TlsServer::start(leaf, Setup::default()).await;
    let address: SocketAddr = server.address();
    let trust = trust(&roots(folder.path(), &[root]));
    let mut spec = upstream(address);
    spec.tls.settings.resumption = false;
    let key = OriginKey::new(&spec, &"localhost".try_into().unwrap(), None, &trust);
    let (registry, metrics) = counted();
    (registry, Origin::counted(key, None, trust, metrics).unwrap(), server)
}
