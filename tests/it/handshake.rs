//! Every way in which a handshake can fail has its own class, tells the facts and, where a line of
//! configuration can help, the repair.

use std::net::SocketAddr;
use std::sync::Arc;

use egret::config::values::{
    Anchors, ExactCertificate, ExpectedName, KeyExchange, TlsVersion, Trust as TrustSpec, Verify,
};
use egret::credentials::trust::Trust;
use egret::pipeline::originate::handshake::{Cause, Error, Flight, Plaintext, late_refusal};
use egret::pipeline::originate::origin::Origin;
use egret::protocols::Upgrade;
use rustls::{AlertDescription, SupportedProtocolVersion};
use tempfile::TempDir;
use time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::authority::{Ca, Leaf, Wish};
use crate::support::origins::{identity, name, origin, originate, roots, silent_client, trust, upstream, visit};
use crate::support::tls_server::{Clients, Seen, Setup, TLS12, TLS13, TlsServer};

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [TLS12, TLS13];

/// The failure of a handshake with a server that has this certificate, and what the server heard of it.
async fn refused(leaf: &Leaf, trust: &Arc<Trust>) -> Error {
    let mut last = None;
    for versions in VERSIONS {
        let server = TlsServer::start(leaf, Setup { versions, ..Setup::default() }).await;
        let origin = origin(&upstream(server.address()), None, trust);
        let error = originate(server.address(), server.address(), &origin).await.expect_err("it is refused");
        let heard = server.failure().await;
        assert!(matches!(heard, rustls::Error::AlertReceived(_)), "{}: the server heard {heard:?}", error.reason());
        last = Some(error);
    }
    last.unwrap()
}

fn exactly(sha256: [u8; 32]) -> Arc<Trust> {
    let anchors = Anchors::Certificate(ExactCertificate::Sha256(sha256));
    trust(&TrustSpec { anchors, ..TrustSpec::default() })
}

fn parsed(error: &Error) -> toml::Table {
    let repair = error.repair(&name("up")).unwrap_or_else(|| panic!("{}: no repair", error.reason()));
    repair.parse().unwrap_or_else(|why| panic!("{repair}: {why}"))
}

#[tokio::test]
async fn a_server_that_is_not_believed_is_refused_by_class_and_hears_the_alert() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let trusted = trust(&roots(folder.path(), &[&ca]));
    let stranger = Ca::new("stranger").intermediate("between");
    let day = Duration::days(1);
    let cases = [
        (stranger.leaf(&Wish::default()), "certificate_unknown_issuer"),
        (Leaf::self_signed(&Wish::default(), false), "certificate_self_signed"),
        (Leaf::self_signed(&Wish::default(), true), "certificate_self_signed"),
        (ca.leaf(&Wish { names: &["a.example.com"], ..Wish::default() }), "certificate_name_mismatch"),
        (ca.leaf(&Wish { cn: "localhost", names: &[], ..Wish::default() }), "certificate_name_mismatch"),
        (ca.leaf(&Wish { from: -day * 3, until: -day, ..Wish::default() }), "certificate_expired"),
        (ca.leaf(&Wish { from: day, ..Wish::default() }), "certificate_not_yet_valid"),
    ];
    for (leaf, class) in cases {
        let error = refused(&leaf, &trusted).await;
        assert_eq!(error.reason(), class, "{error}");
        let facts = error.facts();
        let sha256 = egret::credentials::fingerprint::labelled_hex(&leaf.sha256());
        assert!(facts.contains(&("sha256", sha256)), "{facts:?}");
        assert!(facts.contains(&("expected", "dns:localhost".into())), "{facts:?}");
    }
}

#[tokio::test]
async fn revocation_is_refused_and_so_is_a_stale_list() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let (good, bad) = (ca.leaf(&Wish::default()), ca.leaf(&Wish::default()));
    let with_list = |next_update| {
        let file = folder.path().join("list.pem");
        std::fs::write(&file, ca.crl(&[&bad.serial], next_update)).unwrap();
        trust(&TrustSpec { crls: vec![file], ..roots(folder.path(), &[&ca]) })
    };
    let fresh = with_list(Duration::days(1));
    assert_eq!(refused(&bad, &fresh).await.reason(), "certificate_revoked");
    assert_eq!(refused(&good, &with_list(Duration::hours(-1))).await.reason(), "crl_expired");
    let server = TlsServer::start(&good, Setup::default()).await;
    let origin = origin(&upstream(server.address()), None, &fresh);
    visit(server.address(), server.address(), &origin).await;
}

#[tokio::test]
async fn the_repair_of_a_self_signed_server_lets_it_in() {
    for ca in [false, true] {
        let leaf = Leaf::self_signed(&Wish::default(), ca);
        let error = refused(&leaf, &trust(&roots(TempDir::new().unwrap().path(), &[&Ca::new("other")]))).await;
        let repair = error.repair(&name("up")).unwrap();
        assert!(repair.starts_with("# First compare"), "{repair}");
        let table = parsed(&error);
        assert_eq!(table["upstreams"]["up"]["tls"]["trust"].as_str(), Some("up"));
        let text = table["trust"]["up"]["certificate"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(text, egret::credentials::fingerprint::hex(&leaf.sha256()));
        for versions in VERSIONS {
            let server = TlsServer::start(&leaf, Setup { versions, ..Setup::default() }).await;
            let origin = origin(&upstream(server.address()), None, &exactly(leaf.sha256()));
            visit(server.address(), server.address(), &origin).await;
        }
        let another = Leaf::self_signed(&Wish::default(), ca);
        assert_eq!(refused(&another, &exactly(leaf.sha256())).await.reason(), "certificate_not_the_exact_one");
    }
}

#[tokio::test]
async fn the_repair_of_a_wrong_name_is_the_name_that_would_do() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let trusted = trust(&roots(folder.path(), &[&ca]));
    let leaf = ca.leaf(&Wish { names: &["*.example.com", "right.example.com"], ..Wish::default() });
    let table = parsed(&refused(&leaf, &trusted).await);
    assert_eq!(table["upstreams"]["up"]["tls"]["server_name"].as_str(), Some("right.example.com"));
    let leaf = ca.leaf(&Wish { names: &["spiffe://example.com/db"], ..Wish::default() });
    let table = parsed(&refused(&leaf, &trusted).await);
    assert_eq!(table["trust"]["test"]["names"][0].as_str(), Some("uri:spiffe://example.com/db"));
}

#[tokio::test]
async fn pins_hold_in_addition_to_the_chain_and_in_its_place() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let leaf = ca.leaf(&Wish::default());
    let pin =
        |leaf: &Leaf| egret::credentials::certificate::CertificateFacts::read(&leaf.chain[0]).unwrap().spki_sha256;
    let only = TrustSpec { anchors: Anchors::PinsOnly, ..TrustSpec::default() };
    for base in [roots(folder.path(), &[&ca]), only] {
        let wrong = trust(&TrustSpec { pins: vec![[7; 32]], ..base.clone() });
        let error = refused(&leaf, &wrong).await;
        assert_eq!(error.reason(), "certificate_pin_mismatch");
        let repaired = parsed(&error)["trust"]["test"]["pins"][0].as_str().unwrap().to_owned();
        assert_eq!(repaired, egret::credentials::fingerprint::labelled_pin(&pin(&leaf)));
        let right = trust(&TrustSpec { pins: vec![[7; 32], pin(&leaf)], ..base });
        let server = TlsServer::start(&leaf, Setup::default()).await;
        visit(server.address(), server.address(), &origin(&upstream(server.address()), None, &right)).await;
    }
}

#[tokio::test]
async fn report_serves_and_says_what_would_fail_also_when_resumed() {
    let folder = TempDir::new().unwrap();
    let trusted = trust(&roots(folder.path(), &[&Ca::new("other")]));
    let leaf = Leaf::self_signed(&Wish::default(), true);
    for versions in VERSIONS {
        let server = TlsServer::start(&leaf, Setup { versions, ..Setup::default() }).await;
        let mut spec = upstream(server.address());
        spec.tls.verify = Verify::Report { reason: "a test".into() };
        let lenient = origin(&spec, None, &trusted);
        for resumed in [false, true] {
            let (negotiated, seen) = visit(server.address(), server.address(), &lenient).await;
            assert_eq!(negotiated.would_fail.unwrap().reason(), "certificate_self_signed");
            assert_eq!(seen.resumed, resumed);
        }
        spec.tls.verify = Verify::None { reason: "a test".into() };
        let blind = origin(&spec, None, &trusted);
        let (negotiated, _) = visit(server.address(), server.address(), &blind).await;
        assert!(negotiated.would_fail.is_none());
        assert_eq!(negotiated.server.unwrap().sha256, leaf.sha256());
    }
}

#[tokio::test]
async fn chain_takes_any_name_and_nothing_else_that_full_refuses() {
    let folder = TempDir::new().unwrap();
    let (ca, other) = (Ca::new("servers"), Ca::new("other"));
    let named = |name: &'static str| {
        let names = vec![ExpectedName::Dns(name.try_into().unwrap())];
        trust(&TrustSpec { names, ..roots(folder.path(), &[&ca]) })
    };
    let (right, wrong) = (trust(&roots(folder.path(), &[&ca])), trust(&roots(folder.path(), &[&other])));
    let stranger = Wish { cn: "", names: &["stranger.example.com"], ..Wish::default() };
    let expired = Wish { until: Duration::hours(-1), ..stranger };
    for (wish, trust, class) in [
        (&stranger, &right, None),
        (&Wish { names: &[], ..Wish::default() }, &right, None),
        (&stranger, &wrong, Some("certificate_unknown_issuer")),
        (&expired, &right, Some("certificate_expired")),
        (&stranger, &named("stranger.example.com"), None),
        (&stranger, &named("another.example.com"), Some("certificate_name_mismatch")),
    ] {
        for versions in VERSIONS {
            let server = TlsServer::start(&ca.leaf(wish), Setup { versions, ..Setup::default() }).await;
            let mut spec = upstream(server.address());
            spec.tls.verify = Verify::Chain { reason: "a test".into() };
            let result = originate(server.address(), server.address(), &origin(&spec, None, trust)).await;
            assert_eq!(result.err().map(|error| error.reason()), class, "{:?}", wish.names);
        }
    }
}

/// The server's own key has to sign the handshake, whatever is verified of its certificate.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused_in_every_mode() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let mut stolen = ca.leaf(&Wish::default());
    stolen.key = rcgen::KeyPair::generate().unwrap();
    let reason = || "a test".to_owned();
    let modes = [
        Verify::Full,
        Verify::Chain { reason: reason() },
        Verify::Report { reason: reason() },
        Verify::None { reason: reason() },
    ];
    for verify in modes {
        for versions in VERSIONS {
            let server = TlsServer::start(&stolen, Setup { versions, ..Setup::default() }).await;
            let mut spec = upstream(server.address());
            spec.tls.verify = verify.clone();
            for trust in [trust(&roots(folder.path(), &[&ca])), exactly(stolen.sha256())] {
                let error = originate(server.address(), server.address(), &origin(&spec, None, &trust)).await;
                assert_eq!(error.unwrap_err().reason(), "certificate_invalid");
            }
        }
    }
}

#[tokio::test]
async fn a_wanted_client_certificate_is_asked_for_by_name() {
    let folder = TempDir::new().unwrap();
    let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
    let trusted = trust(&roots(folder.path(), &[&ca]));
    let foreign = identity(folder.path(), &Ca::new("foreign").leaf(&Wish { cn: "eve", ..Wish::default() }));
    let leaf = ca.leaf(&Wish::default());
    for (own, class) in [(None, "client_certificate_required"), (Some(&foreign), "client_certificate_rejected")] {
        let setup = Setup { versions: VERSIONS[0], clients: Clients::Required(&clients), ..Setup::default() };
        let server = TlsServer::start(&leaf, setup).await;
        let origin = origin(&upstream(server.address()), own, &trusted);
        let error = originate(server.address(), server.address(), &origin).await.unwrap_err();
        assert_eq!(error.reason(), class, "TLS 1.2: {error}");
        assert!(error.facts().contains(&("acceptable_issuers", "CN=clients".into())), "{:?}", error.facts());
        if own.is_none() {
            assert!(parsed(&error)["identities"]["up"]["certificate"].is_str());
        } else {
            assert!(error.to_string().contains("other issuers"), "{error}");
        }
    }
    // In TLS 1.3 the handshake is over before the server judges: the alert comes to the reader.
    for (own, class) in [(None, "client_certificate_required"), (Some(&foreign), "client_certificate_rejected")] {
        let setup = Setup { versions: VERSIONS[1], clients: Clients::Required(&clients), ..Setup::default() };
        let server = TlsServer::start(&leaf, setup).await;
        let origin = origin(&upstream(server.address()), own, &trusted);
        let (ended, negotiated) = silent_client(server.address(), &origin).await;
        let request = negotiated.client_certificate.as_ref().unwrap();
        assert_eq!((request.answered, request.foreign_issuer), (own.is_some(), own.is_some()));
        let alert = ended.alert().unwrap_or_else(|| panic!("{ended:?}"));
        assert_eq!(late_refusal(alert, &negotiated).unwrap().reason(), class);
    }
}

#[tokio::test]
async fn version_and_alpn_have_their_classes() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let (leaf, trusted) = (ca.leaf(&Wish::default()), trust(&roots(folder.path(), &[&ca])));
    let server = TlsServer::start(&leaf, Setup { versions: VERSIONS[0], alpn: &["a"], ..Setup::default() }).await;
    let mut spec = upstream(server.address());
    spec.tls.settings.min_version = TlsVersion::V1_3;
    let error = originate(server.address(), server.address(), &origin(&spec, None, &trusted)).await.unwrap_err();
    assert_eq!(error.reason(), "version_mismatch");
    assert_eq!(parsed(&error)["upstreams"]["up"]["tls"]["min_version"].as_str(), Some("1.2"));

    let mut spec = upstream(server.address());
    spec.tls.settings.alpn = vec![b"b".to_vec()];
    let error = originate(server.address(), server.address(), &origin(&spec, None, &trusted)).await.unwrap_err();
    assert_eq!(error.reason(), "alpn_refused");
    let silent = TlsServer::start(&leaf, Setup::default()).await;
    let error = originate(silent.address(), silent.address(), &origin(&spec, None, &trusted)).await.unwrap_err();
    assert_eq!(error.reason(), "alpn_refused", "a server without ALPN has chosen none");

    spec.tls.settings.alpn = vec![b"b".to_vec(), b"a".to_vec()];
    let (negotiated, _) = visit(server.address(), server.address(), &origin(&spec, None, &trusted)).await;
    assert_eq!(negotiated.alpn.as_deref(), Some(&b"a"[..]));
}

#[tokio::test]
async fn the_key_exchange_is_the_first_that_is_named() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let server = TlsServer::start(&ca.leaf(&Wish::default()), Setup::default()).await;
    let trusted = trust(&roots(folder.path(), &[&ca]));
    let cases = [(vec![], "X25519MLKEM768"), (vec![KeyExchange::Secp384r1, KeyExchange::X25519], "secp384r1")];
    for (key_exchange, group) in cases {
        let mut spec = upstream(server.address());
        spec.tls.settings.key_exchange = key_exchange;
        let (negotiated, _) = visit(server.address(), server.address(), &origin(&spec, None, &trusted)).await;
        assert_eq!((negotiated.version, negotiated.group), ("TLSv1.3", group));
    }
}

#[tokio::test]
async fn sni_is_the_server_name_unless_it_is_an_address_or_switched_off() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let leaf = ca.leaf(&Wish { names: &["localhost", "a.example.com", "127.0.0.1"], ..Wish::default() });
    let server = TlsServer::start(&leaf, Setup::default()).await;
    let trusted = trust(&roots(folder.path(), &[&ca]));
    let cases = [
        (None, true, Some("localhost")),
        (Some("a.example.com"), true, Some("a.example.com")),
        (Some("127.0.0.1"), true, None),
        (None, false, None),
    ];
    for (server_name, sni, seen_sni) in cases {
        let mut spec = upstream(server.address());
        spec.tls.server_name = server_name.map(|name| name.try_into().unwrap());
        spec.tls.settings.sni = sni;
        let (_, seen) = visit(server.address(), server.address(), &origin(&spec, None, &trusted)).await;
        assert_eq!(seen.sni.as_deref(), seen_sni);
    }
}

/// A server that answers any ClientHello with these bytes, then closes; `None` resets.
async fn answers(bytes: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut hello = [0; 8192];
        let _ = tcp.read(&mut hello).await;
        match bytes {
            Some(bytes) => {
                let _ = tcp.write_all(bytes).await;
                let _ = tcp.shutdown().await;
                while tcp.read(&mut hello).await.is_ok_and(|read| read > 0) {}
            }
            None => socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap(),
        }
    });
    address
}

fn any_origin(address: SocketAddr) -> Origin {
    let folder = TempDir::new().unwrap();
    origin(&upstream(address), None, &trust(&roots(folder.path(), &[&Ca::new("any")])))
}

#[tokio::test]
async fn what_the_server_says_instead_of_a_hello_is_classified() {
    let cases: [(Option<&'static [u8]>, &str); 10] = [
        (Some(b"\x15\x03\x03\x00\x02\x02\x70"), "server_name_unrecognized"),
        (Some(b"\x15\x03\x03\x00\x02\x02\x28"), "no_common_parameters"),
        (Some(b"\x15\x03\x03\x00\x02\x02\x46"), "version_mismatch"),
        (Some(b"\x15\x03\x03\x00\x02\x02\x78"), "alpn_refused"),
        (Some(b"\x15\x03\x03\x00\x02\x02\x50"), "alert_received"),
        (Some(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"), "protocol_error"),
        (Some(b"\x16\x03\x03\x00\x7a\x02\x00\x00"), "closed_in_handshake"),
        (Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not_tls"),
        (Some(b""), "closed_in_handshake"),
        (None, "reset_in_handshake"),
    ];
    for (bytes, class) in cases {
        let address = answers(bytes).await;
        let error = originate(address, address, &any_origin(address)).await.unwrap_err();
        assert_eq!(error.reason(), class, "{bytes:?}: {error}");
    }
    let address = answers(Some(b"")).await;
    let error = originate(address, address, &any_origin(address)).await.unwrap_err();
    assert_eq!(error.cause(), &Cause::Closed(Flight::BeforeServerHello));
    assert!(error.to_string().contains("before its ServerHello"), "{error}");
}

#[tokio::test]
async fn a_plaintext_server_is_recognised() {
    for (bytes, guess) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], Plaintext::Ssh),
        (b"220 mail.example.com ESMTP\r\n", Plaintext::Upgrade(Upgrade::of("smtp").unwrap())),
        (b"EFATAL:  unsupported frontend protocol\0", Plaintext::Upgrade(Upgrade::of("postgres").unwrap())),
    ] {
        let address = answers(Some(bytes)).await;
        let error = originate(address, address, &any_origin(address)).await.unwrap_err();
        assert_eq!(error.cause(), &Cause::NotTls(guess));
        if let Plaintext::Upgrade(protocol) = guess {
            assert_eq!(parsed(&error)["upstreams"]["up"]["upgrade"].as_str().and_then(Upgrade::of), Some(protocol));
        }
    }
}

/// TLS 1.2: the server goes away when it has our certificate, and does not say why.
#[tokio::test]
async fn a_close_after_our_certificate_says_so() {
    let folder = TempDir::new().unwrap();
    let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
    let setup = Setup { versions: VERSIONS[0], clients: Clients::Required(&clients), ..Setup::default() };
    let server = TlsServer::start(&ca.leaf(&Wish::default()), setup).await;
    // In between, somebody cuts the connection at the client's second flight.
    let cut = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = cut.local_addr().unwrap();
    let behind = server.address();
    tokio::spawn(async move {
        let (mut client, _) = cut.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(behind).await.unwrap();
        let mut bytes = vec![0; 16 << 10];
        let hello = client.read(&mut bytes).await.unwrap();
        server.write_all(&bytes[..hello]).await.unwrap();
        let (mut from_server, _) = server.split();
        let (mut from_client, mut to_client) = client.split();
        tokio::select! {
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
            _ = from_client.read(&mut bytes) => {}
        }
        let _ = to_client.shutdown().await;
        while from_client.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    });
    let me = identity(folder.path(), &clients.leaf(&Wish { cn: "me", ..Wish::default() }));
    let origin = origin(&upstream(address), Some(&me), &trust(&roots(folder.path(), &[&ca])));
    let error = originate(address, address, &origin).await.unwrap_err();
    assert_eq!(error.cause(), &Cause::Closed(Flight::AfterOurCertificate), "{error}");
}

#[tokio::test]
async fn the_client_certificate_is_not_shown_to_a_server_that_is_not_believed() {
    let folder = TempDir::new().unwrap();
    let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
    let me = identity(folder.path(), &clients.leaf(&Wish { cn: "me", ..Wish::default() }));
    for versions in VERSIONS {
        let setup = Setup { versions, clients: Clients::Required(&clients), ..Setup::default() };
        let server = TlsServer::start(&ca.leaf(&Wish::default()), setup).await;
        let distrust = trust(&roots(folder.path(), &[&Ca::new("other")]));
        let origin = origin(&upstream(server.address()), Some(&me), &distrust);
        let error = originate(server.address(), server.address(), &origin).await.unwrap_err();
        assert_eq!(error.reason(), "certificate_unknown_issuer");
        assert!(!error.facts().iter().any(|(name, _)| *name == "client_certificate"), "{:?}", error.facts());
        let heard = server.failure().await;
        assert_eq!(heard, rustls::Error::AlertReceived(AlertDescription::UnknownCA));
    }
}

#[tokio::test]
async fn a_whole_chain_is_presented_and_reaches_the_server() {
    let folder = TempDir::new().unwrap();
    let (root, client_root) = (Ca::new("root"), Ca::new("client root"));
    let server_leaf = root.intermediate("servers").leaf(&Wish::default());
    let me = identity_chain(folder.path(), &client_root);
    for versions in VERSIONS {
        let setup = Setup { versions, clients: Clients::Required(&client_root), ..Setup::default() };
        let server = TlsServer::start(&server_leaf, setup).await;
        let origin = origin(&upstream(server.address()), Some(&me), &trust(&roots(folder.path(), &[&root])));
        let (_, seen) = visit(server.address(), server.address(), &origin).await;
        let expected = Seen { resumed: false, made_at: None, client: Some("me".into()), sni: Some("localhost".into()) };
        assert_eq!(seen, expected);
    }
}

fn identity_chain(folder: &std::path::Path, root: &Ca) -> Arc<egret::credentials::identity::Identity> {
    let between = root.intermediate("clients");
    let mut leaf = between.leaf(&Wish { cn: "me", ..Wish::default() });
    leaf.pem += &between.pem;
    identity(folder, &leaf)
}
