//! Sessions never leave the origin that made them. The server is the judge: it marks each session with the
//! door at which it was made, and the two origins of a test come through different doors while they
//! believe to talk to the same endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use egret::config::values::{ExpectedName, KeyExchange, TlsVersion, Upstream, Verify};
use egret::credentials::identity::Identity;
use egret::credentials::trust::Trust;
use egret::pipeline::originate::origin::Origin;
use egret::pipeline::originate::origin::resumption::{MAX_PER_ENDPOINT, MAX_SESSIONS, Resumption};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::ServerName;
use tempfile::TempDir;

use crate::support::authority::{Ca, Wish};
use crate::support::origins::{identity, named_origin, origin, originate, roots, trust, upstream, visit};
use crate::support::tls_server::{Clients, Setup, TLS12, TLS13, TlsServer};

const VERSIONS: [(TlsVersion, &[&SupportedProtocolVersion]); 2] =
    [(TlsVersion::V1_2, TLS12), (TlsVersion::V1_3, TLS13)];

/// What origins of a test are made of.
struct Parts {
    upstream: Upstream,
    server_name: ServerName<'static>,
    identity: Option<Arc<Identity>>,
    trust: Arc<Trust>,
}

impl Parts {
    fn origin(&self) -> Origin {
        named_origin(&self.upstream, &self.server_name, self.identity.as_ref(), &self.trust)
    }
}

struct World {
    folder: TempDir,
    ca: Ca,
    server: TlsServer,
    version: TlsVersion,
    alice: Arc<Identity>,
    bob: Arc<Identity>,
}

impl World {
    async fn new(version: TlsVersion, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        let folder = TempDir::new().unwrap();
        let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
        let leaf =
            ca.leaf(&Wish { names: &["localhost", "other.example.com", "spiffe://example.com/s"], ..Wish::default() });
        let clients_are = Clients::Optional(&clients);
        let setup = Setup { versions, clients: clients_are, alpn: &["a", "b"], doors: 2, ..Setup::default() };
        let server = TlsServer::start(&leaf, setup).await;
        let client = |cn| identity(folder.path(), &clients.leaf(&Wish { cn, ..Wish::default() }));
        let (alice, bob) = (client("alice"), client("bob"));
        Self { ca, server, version, alice, bob, folder }
    }

    fn base(&self) -> Parts {
        let mut upstream = upstream(self.server.address());
        upstream.tls.settings.min_version = self.version;
        upstream.tls.settings.max_version = self.version;
        Parts {
            upstream,
            server_name: "localhost".try_into().unwrap(),
            identity: Some(Arc::clone(&self.alice)),
            trust: trust(&roots(self.folder.path(), &[&self.ca])),
        }
    }

    /// The base with exactly one part changed, for each part.
    fn variants(&self) -> Vec<(&'static str, Parts)> {
        let with = |change: &dyn Fn(&mut Parts)| {
            let mut parts = self.base();
            change(&mut parts);
            parts
        };
        let spec = || roots(self.folder.path(), &[&self.ca]);
        let uri = ExpectedName::Uri("spiffe://example.com/s".into());
        vec![
            ("identity", with(&|parts| parts.identity = Some(Arc::clone(&self.bob)))),
            ("no identity", with(&|parts| parts.identity = None)),
            ("trust", with(&|parts| parts.trust = trust(&roots(self.folder.path(), &[&self.ca, &Ca::new("more")])))),
            (
                "expected names",
                with(&|parts| {
                    let mut spec = spec();
                    spec.names = vec![uri.clone()];
                    parts.trust = trust(&spec);
                }),
            ),
            ("server name", with(&|parts| parts.server_name = "other.example.com".try_into().unwrap())),
            ("alpn", with(&|parts| parts.upstream.tls.settings.alpn = vec![b"b".to_vec()])),
            (
                "versions",
                with(&|parts| match self.version {
                    TlsVersion::V1_2 => parts.upstream.tls.settings.max_version = TlsVersion::V1_3,
                    TlsVersion::V1_3 => parts.upstream.tls.settings.min_version = TlsVersion::V1_2,
                }),
            ),
            ("servers", with(&|parts| parts.upstream.servers[0].port ^= 1)),
            ("sni", with(&|parts| parts.upstream.tls.settings.sni = false)),
            ("chain", with(&|parts| parts.upstream.tls.verify = Verify::Chain { reason: "a test".into() })),
            ("report", with(&|parts| parts.upstream.tls.verify = Verify::Report { reason: "a test".into() })),
            ("none", with(&|parts| parts.upstream.tls.verify = Verify::None { reason: "a test".into() })),
            (
                "key exchange",
                with(&|parts| {
                    parts.upstream.tls.settings.key_exchange = vec![KeyExchange::X25519, KeyExchange::Secp256r1]
                }),
            ),
        ]
    }

    async fn visit(&self, door: usize, parts: &Parts, origin: &Origin) -> Resumption {
        let endpoint = self.server.address();
        let (negotiated, seen) = visit(self.server.doors[door], endpoint, origin).await;
        let client = parts.identity.as_ref().map(|identity| identity.leaf().common_name.clone().unwrap());
        assert_eq!(seen.client, client, "the identity that the server saw");
        assert_eq!(seen.resumed, negotiated.resumed == Resumption::Resumed, "both sides agree");
        assert_eq!(seen.made_at, seen.resumed.then_some(door), "a session of another origin");
        negotiated.resumed
    }
}

#[tokio::test]
async fn the_same_origin_resumes() {
    for (version, versions) in VERSIONS {
        let world = World::new(version, versions).await;
        let parts = world.base();
        let origin = parts.origin();
        assert_eq!(world.visit(0, &parts, &origin).await, Resumption::NoSession);
        for _ in 0..5 {
            assert_eq!(world.visit(0, &parts, &origin).await, Resumption::Resumed);
        }
    }
}

#[tokio::test]
async fn origins_that_differ_in_one_part_never_share_a_session() {
    for (version, versions) in VERSIONS {
        let world = World::new(version, versions).await;
        for (part, variant) in world.variants() {
            let base = world.base();
            assert_ne!(base.origin().key(), variant.origin().key(), "{part}");
            for (first, second) in [(&base, &variant), (&variant, &base)] {
                let (one, other) = (first.origin(), second.origin());
                assert_eq!(world.visit(0, first, &one).await, Resumption::NoSession, "{part}");
                assert_eq!(world.visit(0, first, &one).await, Resumption::Resumed, "{part}");
                assert_eq!(world.visit(1, second, &other).await, Resumption::NoSession, "{part}");
                assert_eq!(world.visit(1, second, &other).await, Resumption::Resumed, "{part}");
                assert_eq!(world.visit(0, first, &one).await, Resumption::Resumed, "{part}: tickets were lost");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_clients_at_once_never_share_a_session() {
    for (version, versions) in VERSIONS {
        let world = Arc::new(World::new(version, versions).await);
        for (part, variant) in world.variants() {
            let parts = [world.base(), variant];
            let origins = Arc::new(parts.each_ref().map(Parts::origin));
            let parts = Arc::new(parts);
            let clients = (0..16).map(|client| {
                let (world, parts, origins) = (Arc::clone(&world), Arc::clone(&parts), Arc::clone(&origins));
                tokio::spawn(async move {
                    let mut resumed = 0;
                    for round in 0..6 {
                        let door = (client + round) % 2;
                        let what = world.visit(door, &parts[door], &origins[door]).await;
                        resumed += usize::from(what == Resumption::Resumed);
                    }
                    resumed
                })
            });
            let mut resumed = 0;
            for client in clients.collect::<Vec<_>>() {
                resumed += client.await.unwrap();
            }
            assert!(resumed > 16, "{part}: only {resumed} of 96 resumed");
        }
    }
}

/// Measured with other proxies: who does not trust the server is let in by the session of who does, or
/// locks out who does.
#[tokio::test]
async fn distrust_is_not_healed_by_a_session_and_trust_is_not_broken_by_one() {
    for (version, versions) in VERSIONS {
        let world = World::new(version, versions).await;
        let trusting = world.base();
        let distrusting = Parts { trust: trust(&roots(world.folder.path(), &[&Ca::new("stranger")])), ..world.base() };
        for distrust_first in [true, false] {
            let (yes, no) = (trusting.origin(), distrusting.origin());
            for round in 0..6 {
                if (round % 2 == 0) == distrust_first {
                    let refused = originate(world.server.address(), world.server.address(), &no).await;
                    assert_eq!(refused.unwrap_err().reason(), "certificate_unknown_issuer");
                } else {
                    world.visit(0, &trusting, &yes).await;
                }
            }
            assert_eq!(no.sessions_held(), 0);
            assert_eq!(world.visit(0, &trusting, &yes).await, Resumption::Resumed);
        }
    }
}

#[tokio::test]
async fn a_rotated_identity_starts_anew_and_is_the_one_that_is_seen() {
    for (version, versions) in VERSIONS {
        let world = World::new(version, versions).await;
        let before = world.base();
        let old = before.origin();
        world.visit(0, &before, &old).await;
        let after = Parts { identity: Some(Arc::clone(&world.bob)), ..world.base() };
        let new = after.origin();
        assert_eq!(world.visit(1, &after, &new).await, Resumption::NoSession);
        // Streams of the old generation may still open connections: they stay who they were.
        assert_eq!(world.visit(0, &before, &old).await, Resumption::Resumed);
    }
}

#[tokio::test]
async fn an_equal_configuration_has_an_equal_key() {
    let world = World::new(TlsVersion::V1_3, TLS13).await;
    let base = world.base();
    assert_eq!(base.origin().key(), world.base().origin().key());
    // What is spelled out and what is the default are the same.
    let mut spelled = world.base();
    spelled.upstream.tls.settings.key_exchange =
        vec![KeyExchange::X25519Mlkem768, KeyExchange::X25519, KeyExchange::Secp256r1, KeyExchange::Secp384r1];
    assert_eq!(base.origin().key(), spelled.origin().key());
}

#[tokio::test]
async fn without_resumption_nothing_is_offered_or_kept() {
    for (version, versions) in VERSIONS {
        let world = World::new(version, versions).await;
        let mut parts = world.base();
        parts.upstream.tls.settings.resumption = false;
        let origin = parts.origin();
        for _ in 0..3 {
            assert_eq!(world.visit(0, &parts, &origin).await, Resumption::Off);
        }
        assert_eq!(origin.sessions_held(), 0);
    }
}

#[tokio::test]
async fn a_session_of_one_endpoint_serves_another_of_the_same_origin() {
    for (version, versions) in VERSIONS {
        let world = World::new(version, versions).await;
        let origin = world.base().origin();
        let (first, second) = (world.server.doors[0], world.server.doors[1]);
        let (made, _) = visit(first, first, &origin).await;
        assert_eq!(made.resumed, Resumption::NoSession);
        let (used, seen) = visit(second, second, &origin).await;
        assert_eq!((used.resumed, seen.made_at), (Resumption::Resumed, Some(0)));
        // Its own sessions come first from now on. In TLS 1.2 a resumed session goes on being the same one.
        let own = if version == TlsVersion::V1_2 { 0 } else { 1 };
        assert_eq!(visit(second, second, &origin).await.1.made_at, Some(own));
        assert_eq!(visit(first, first, &origin).await.1.made_at, Some(0));
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_session_is_verified_in_full() {
    for (_, versions) in VERSIONS {
        let folder = TempDir::new().unwrap();
        let ca = Ca::new("servers");
        let leaf = ca.leaf(&Wish::default());
        let remembers = TlsServer::start(&leaf, Setup { versions, ..Setup::default() }).await;
        let restarted = TlsServer::start(&leaf, Setup { versions, ..Setup::default() }).await;
        let endpoint: SocketAddr = remembers.address();
        let origin = origin(&upstream(endpoint), None, &trust(&roots(folder.path(), &[&ca])));
        visit(remembers.address(), endpoint, &origin).await;
        let (negotiated, seen) = visit(restarted.address(), endpoint, &origin).await;
        assert_eq!((negotiated.resumed, seen.resumed), (Resumption::Refused, false));
    }
}

#[tokio::test]
async fn sessions_are_bounded_in_number() {
    let world = World::new(TlsVersion::V1_3, TLS13).await;
    let parts = world.base();
    let origin = parts.origin();
    let endpoint = |last| SocketAddr::from(([192, 0, 2, last], 443));
    // Each connection brings four tickets and uses up one at most.
    for last in 1..=3 {
        for _ in 0..MAX_PER_ENDPOINT / 3 + 10 {
            visit(world.server.address(), endpoint(last), &origin).await;
        }
        // The first connection to an endpoint borrows one of another.
        let (held, full) = (origin.sessions_held(), (MAX_PER_ENDPOINT * usize::from(last)).min(MAX_SESSIONS));
        assert!((full - 1..=full).contains(&held), "{held} of {full}");
    }
    // The third has got its part: those that had the most have given.
    assert!(origin.sessions_held_of(endpoint(3)) > MAX_SESSIONS / 4);
}

/// Servers behind one origin that share no keys are told apart after one session that was wasted.
#[tokio::test]
async fn an_endpoint_with_keys_of_its_own_is_lent_a_session_once() {
    for (_, versions) in VERSIONS {
        let folder = TempDir::new().unwrap();
        let ca = Ca::new("servers");
        let leaf = ca.leaf(&Wish::default());
        let rich = TlsServer::start(&leaf, Setup { versions, ..Setup::default() }).await;
        let poor = TlsServer::start(&leaf, Setup { versions, sessions: false, ..Setup::default() }).await;
        let origin = origin(&upstream(rich.address()), None, &trust(&roots(folder.path(), &[&ca])));
        visit(rich.address(), rich.address(), &origin).await;
        let held = origin.sessions_held_of(rich.address());
        for expected in [Resumption::Refused, Resumption::NoSession, Resumption::NoSession] {
            assert_eq!(visit(poor.address(), poor.address(), &origin).await.0.resumed, expected);
        }
        assert!(origin.sessions_held_of(rich.address()) + 1 >= held, "the other's sessions were used up");
        assert_eq!(visit(rich.address(), rich.address(), &origin).await.0.resumed, Resumption::Resumed);
    }
}

/// The end of the server's chain, or of the own certificate, ends every session that descends from it.
#[tokio::test]
async fn no_session_outlives_what_was_verified() {
    let folder = TempDir::new().unwrap();
    let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
    let trusted = trust(&roots(folder.path(), &[&ca]));
    let soon = || Wish { cn: "soon", until: time::Duration::seconds(5), ..Wish::default() };
    let (short_server, long_server) = (ca.leaf(&soon()), ca.leaf(&Wish::default()));
    let short_client = identity(folder.path(), &clients.leaf(&soon()));
    let mut waiting = Vec::new();
    for (_, versions) in VERSIONS {
        for (leaf, own) in [(&short_server, None), (&long_server, Some(&short_client))] {
            let setup = Setup { versions, clients: Clients::Optional(&clients), ..Setup::default() };
            let server = TlsServer::start(leaf, setup).await;
            let origin = origin(&upstream(server.address()), own, &trusted);
            visit(server.address(), server.address(), &origin).await;
            // Sessions that a resumed one brings end with it.
            let (again, _) = visit(server.address(), server.address(), &origin).await;
            assert_eq!(again.resumed, Resumption::Resumed);
            waiting.push((server, origin, own.is_none()));
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    for (server, origin, server_expired) in waiting {
        match originate(server.address(), server.address(), &origin).await {
            Ok((_, negotiated)) => assert_eq!(negotiated.resumed, Resumption::NoSession),
            Err(error) if server_expired => assert_eq!(error.reason(), "certificate_expired"),
            Err(error) => assert_eq!(error.reason(), "client_certificate_rejected"),
        }
    }
}
