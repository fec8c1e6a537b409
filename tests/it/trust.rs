//! Whom egret believes: certificates that other tools make, names, files and folders.

use std::net::Ipv4Addr;
use std::path::Path;

use egret::config::values::{Anchors, ExactCertificate, ExpectedName, Trust as TrustSpec};
use egret::credentials::certificate::CertificateFacts;
use egret::credentials::refusal::Refusal;
use egret::credentials::trust::Trust;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;

use crate::support::authority::{Ca, Leaf, Wish, openssl};
use crate::support::eventually;
use crate::support::origins::{name, origin, roots, trust, upstream, visit};
use crate::support::tls_server::{Setup, TLS12, TLS13, TlsServer};

fn check(spec: &TrustSpec, chain: &[CertificateDer<'_>], server_name: &str) -> Result<(), Refusal> {
    let server_name = ServerName::try_from(server_name.to_owned()).unwrap();
    trust(spec).check(&chain[0], &chain[1..], &server_name, UnixTime::now()).map(drop)
}

fn exactly(file: &Path) -> TrustSpec {
    let anchors = Anchors::Certificate(ExactCertificate::File(file.into()));
    TrustSpec { anchors, ..TrustSpec::default() }
}

fn read(file: &Path) -> Vec<CertificateDer<'static>> {
    let sections = egret::credentials::pem::sections(&std::fs::read(file).unwrap()).unwrap();
    sections.iter().map(|section| section.body.expose().to_vec().into()).collect()
}

/// X.509 v1, and what `openssl req -x509` makes: an authority's certificate as leaf.
fn odd_certificates(folder: &Path) {
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "9",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-subj",
            "/CN=localhost",
        ],
    );
    openssl(
        folder,
        &[
            "req",
            "-new",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "v1.key",
            "-out",
            "v1.csr",
            "-subj",
            "/CN=localhost",
        ],
    );
    openssl(folder, &["x509", "-req", "-in", "v1.csr", "-signkey", "v1.key", "-days", "9", "-out", "v1.crt"]);
}

fn leaf(folder: &Path, name: &str) -> Leaf {
    let certificate = folder.join(format!("{name}.crt"));
    let key = std::fs::read_to_string(folder.join(format!("{name}.key"))).unwrap();
    Leaf {
        chain: read(&certificate),
        pem: std::fs::read_to_string(certificate).unwrap(),
        key: rcgen::KeyPair::from_pem(&key).unwrap(),
        serial: 0.into(),
    }
}

#[tokio::test]
async fn what_openssl_makes_is_believed_as_exactly_one_certificate() {
    let folder = TempDir::new().unwrap();
    odd_certificates(folder.path());
    for made in ["ca", "v1"] {
        let leaf = leaf(folder.path(), made);
        let file = folder.path().join(format!("{made}.crt"));
        for versions in [TLS12, TLS13] {
            let server = TlsServer::start(&leaf, Setup { versions, ..Setup::default() }).await;
            let origin = origin(&upstream(server.address()), None, &trust(&exactly(&file)));
            let (_, seen) = visit(server.address(), server.address(), &origin).await;
            assert!(!seen.resumed, "{made}");
        }
        // Its name is checked only if `names` says so, and it is no way to trust another certificate.
        assert_eq!(check(&exactly(&file), &leaf.chain, "b.example.com"), Ok(()));
        let named = |name| TrustSpec { names: vec![dns(name)], ..exactly(&file) };
        assert_eq!(check(&named("localhost"), &leaf.chain, "b.example.com"), Ok(()));
        assert!(matches!(check(&named("a.example.com"), &leaf.chain, "localhost"), Err(Refusal::NameMismatch { .. })));
        let other = Leaf::self_signed(&Wish::default(), true);
        assert_eq!(check(&exactly(&file), &other.chain, "localhost"), Err(Refusal::NotTheExactOne));
        // As a root it is the server's own: for its name, while it is valid, and with its pin.
        let as_root =
            TrustSpec { anchors: Anchors::Roots { system: false, paths: vec![file.clone()] }, ..TrustSpec::default() };
        assert_eq!(check(&as_root, &leaf.chain, "localhost"), Ok(()), "{made}");
        assert!(matches!(check(&as_root, &leaf.chain, "b.example.com"), Err(Refusal::NameMismatch { .. })), "{made}");
        let pinned = TrustSpec { pins: vec![[7; 32]], ..as_root.clone() };
        assert_eq!(check(&pinned, &leaf.chain, "localhost"), Err(Refusal::PinMismatch), "{made}");
        // Another certificate with its key is not it, and the reason leads to the repair.
        let at = folder.path();
        let (certificate, key) = (format!("{made}.crt"), format!("{made}.key"));
        openssl(at, &["x509", "-in", &certificate, "-signkey", &key, "-days", "20", "-out", "again.crt"]);
        let again = check(&as_root, &read(&at.join("again.crt")), "localhost");
        assert_eq!(again, Err(Refusal::SelfSigned { among_roots: true }), "{made}");
    }
}

#[test]
fn the_exact_certificate_still_has_its_dates_and_names() {
    let folder = TempDir::new().unwrap();
    let day = time::Duration::days(1);
    let write = |leaf: &Leaf| leaf.write(folder.path(), "exact").0;
    let old = Leaf::self_signed(&Wish { from: -day * 3, until: -day, ..Wish::default() }, true);
    assert!(matches!(check(&exactly(&write(&old)), &old.chain, "localhost"), Err(Refusal::Expired { .. })));
    let early = Leaf::self_signed(&Wish { from: day, ..Wish::default() }, true);
    assert!(matches!(check(&exactly(&write(&early)), &early.chain, "localhost"), Err(Refusal::NotYetValid { .. })));
    // With any subject alternative name, the common name counts for nothing.
    let named = Leaf::self_signed(&Wish { cn: "localhost", names: &["a.example.com"], ..Wish::default() }, true);
    let spec = |name| TrustSpec { names: vec![dns(name)], ..exactly(&write(&named)) };
    assert!(matches!(check(&spec("localhost"), &named.chain, "localhost"), Err(Refusal::NameMismatch { .. })));
    assert_eq!(check(&spec("a.example.com"), &named.chain, "localhost"), Ok(()));
}

/// A certificate, or a key, that was chosen needs no name: databases of clouds and appliances have none that is a host's.
#[test]
fn what_was_chosen_needs_no_name_unless_names_asks_for_one() {
    let folder = TempDir::new().unwrap();
    for (cn, names) in
        [("project:instance", &[][..]), ("", &[]), ("x", &["*.example.com"]), ("x", &["spiffe://example.com/db"])]
    {
        let leaf = Leaf::self_signed(&Wish { cn, names, ..Wish::default() }, true);
        let exact = exactly(&leaf.write(folder.path(), "chosen").0);
        let pinned = TrustSpec {
            anchors: Anchors::PinsOnly,
            pins: vec![CertificateFacts::read(&leaf.chain[0]).unwrap().spki_sha256],
            ..TrustSpec::default()
        };
        for spec in [exact, pinned] {
            assert_eq!(check(&spec, &leaf.chain, "192.0.2.1"), Ok(()), "{cn} {names:?}");
            let named = TrustSpec { names: vec![dns("db.example.org")], ..spec };
            let refusal = check(&named, &leaf.chain, "db.example.org");
            assert!(matches!(refusal, Err(Refusal::NameMismatch { .. })), "{cn} {names:?}: {refusal:?}");
        }
    }
}

#[test]
fn a_name_of_the_subject_is_compared_to_the_letter() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let chain = ca.leaf(&Wish { cn: "project:instance", names: &[], ..Wish::default() }).chain;
    let with = |names: Vec<ExpectedName>| TrustSpec { names, ..roots(folder.path(), &[&ca]) };
    let common = |name: &str| ExpectedName::CommonName(name.into());
    assert_eq!(check(&with(vec![common("project:instance")]), &chain, "localhost"), Ok(()));
    assert_eq!(check(&with(vec![dns("a.example.com"), common("project:instance")]), &chain, "localhost"), Ok(()));
    for other in
        [common("Project:Instance"), common("project"), ExpectedName::OrganizationalUnit("project:instance".into())]
    {
        let refusal = check(&with(vec![other]), &chain, "localhost");
        assert!(matches!(refusal, Err(Refusal::NameMismatch { .. })), "{refusal:?}");
    }
}

/// Roots have no dates to the library: they are judged here, at each chain.
#[test]
fn a_root_out_of_date_vouches_for_nobody_unless_its_renewal_is_there() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = |file: &str, from: i32, until: i32, odd: bool| {
        let mut params = params.clone();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.extend(odd.then_some(extension));
        std::fs::write(at.join(file), params.self_signed(&key).unwrap().pem()).unwrap();
    };
    root("old.crt", 2020, 2021, false);
    root("early.crt", 2090, 2091, false);
    root("now.crt", 2020, 2091, false);
    root("odd.crt", 2020, 2091, true);
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let leaf =
        leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), &rcgen::Issuer::from_params(&params, &key)).unwrap();
    let chain = vec![leaf.der().clone()];
    let verdict = |roots: &[&str]| {
        let paths = roots.iter().map(|root| at.join(root)).collect();
        check(
            &TrustSpec { anchors: Anchors::Roots { system: false, paths }, ..TrustSpec::default() },
            &chain,
            "localhost",
        )
    };
    for (roots, expired) in [(&["old.crt"][..], true), (&["early.crt"], false)] {
        let refusal = verdict(roots).unwrap_err();
        assert!(matches!(refusal, Refusal::RootOutOfDate { expired: is, .. } if is == expired), "{refusal:?}");
        assert_eq!(refusal.reason(), "certificate_root_out_of_date");
    }
    for roots in [&["now.crt"][..], &["old.crt", "now.crt"], &["now.crt", "early.crt", "old.crt"]] {
        assert_eq!(verdict(roots), Ok(()), "{roots:?}");
    }
    // A critical extension that nobody understands: left out by name, and alone it is no trust at all.
    let spec = |paths: &[&str]| TrustSpec {
        anchors: Anchors::Roots { system: false, paths: paths.iter().map(|path| at.join(path)).collect() },
        ..TrustSpec::default()
    };
    let error = Trust::load(&name("t"), &spec(&["odd.crt"])).unwrap_err();
    assert!(error.to_string().contains("1.2.3.4.5"), "{error}");
    let both =
        std::fs::read_to_string(at.join("odd.crt")).unwrap() + &std::fs::read_to_string(at.join("now.crt")).unwrap();
    std::fs::write(at.join("both.crt"), both).unwrap();
    let trust = Trust::load(&name("t"), &spec(&["both.crt"])).unwrap();
    assert_eq!(trust.roots().len(), 1);
    assert!(
        matches!(trust.remarks(), [remark] if remark.contains("1.2.3.4.5") && remark.contains("line 1")),
        "{:?}",
        trust.remarks()
    );
}

fn dns(name: &str) -> ExpectedName {
    ExpectedName::Dns(name.to_owned().try_into().unwrap())
}

#[test]
fn weak_keys_and_signatures_are_called_so() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    openssl(
        at,
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-keyout", "root.key", "-out", "root.crt",
            "-subj", "/CN=root",
        ],
    );
    std::fs::write(at.join("san"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let issue = |bits: &str, digest: &str, name: &str| {
        openssl(at, &["req", "-new", "-newkey", bits, "-nodes", "-keyout", "x.key", "-out", "x.csr", "-subj", "/CN=x"]);
        openssl(
            at,
            &[
                "x509", "-req", "-in", "x.csr", "-CA", "root.crt", "-CAkey", "root.key", "-days", "9", digest,
                "-extfile", "san", "-out", name,
            ],
        );
        read(&at.join(name))
    };
    let paths = vec![at.join("root.crt")];
    let spec = TrustSpec { anchors: Anchors::Roots { system: false, paths }, ..TrustSpec::default() };
    let weak_key = issue("rsa:1024", "-sha256", "short.crt");
    assert_eq!(check(&spec, &weak_key, "localhost").unwrap_err().reason(), "certificate_weak_key");
    let exact = exactly(&at.join("short.crt"));
    assert_eq!(check(&exact, &weak_key, "localhost").unwrap_err().reason(), "certificate_weak_key");
    let sha1 = issue("rsa:2048", "-sha1", "sha1.crt");
    assert_eq!(check(&spec, &sha1, "localhost").unwrap_err().reason(), "certificate_weak_signature");
}

#[test]
fn expected_names_take_the_place_of_the_server_name() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::new("servers");
    let chain =
        ca.leaf(&Wish { names: &["a.example.com", "192.0.2.7", "spiffe://example.com/db"], ..Wish::default() }).chain;
    let with = |names: Vec<ExpectedName>| TrustSpec { names, ..roots(folder.path(), &[&ca]) };
    let uri = |uri: &str| ExpectedName::Uri(uri.into());
    let good =
        [dns("a.example.com"), ExpectedName::Ip(Ipv4Addr::new(192, 0, 2, 7).into()), uri("spiffe://example.com/db")];
    for name in good {
        assert_eq!(check(&with(vec![dns("b.example.com"), name]), &chain, "localhost"), Ok(()));
    }
    let bad = [
        dns("b.example.com"),
        ExpectedName::Ip(Ipv4Addr::new(192, 0, 2, 8).into()),
        uri("spiffe://example.com/d"),
        uri("spiffe://example.com/db/"),
    ];
    for name in bad {
        let verdict = check(&with(vec![name]), &chain, "a.example.com");
        assert!(matches!(verdict, Err(Refusal::NameMismatch { .. })));
    }
    assert_eq!(check(&with(Vec::new()), &chain, "192.0.2.7"), Ok(()));
}

#[test]
fn roots_come_from_files_and_folders() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let inside = folder.path().join("roots");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("one.pem"), &one.pem).unwrap();
    std::fs::write(inside.join("README"), "not a certificate").unwrap();
    std::fs::write(inside.join("empty"), "").unwrap();
    std::fs::write(inside.join(".hidden"), &two.pem).unwrap();
    let spec = |path: &Path| TrustSpec {
        anchors: Anchors::Roots { system: false, paths: vec![path.into()] },
        ..TrustSpec::default()
    };
    let chain = |ca: &Ca| ca.leaf(&Wish::default()).chain;
    assert_eq!(check(&spec(&inside), &chain(&one), "localhost"), Ok(()));
    assert_eq!(check(&spec(&inside), &chain(&two), "localhost"), Err(Refusal::UnknownIssuer));
    assert_eq!(trust(&spec(&inside)).roots().len(), 1);
    let der = folder.path().join("two.der");
    std::fs::write(&der, egret::credentials::pem::sections(two.pem.as_bytes()).unwrap()[0].body.expose()).unwrap();
    assert_eq!(check(&spec(&der), &chain(&two), "localhost"), Ok(()));
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let folder = TempDir::new().unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (text, damaged) = (folder.path().join("text"), folder.path().join("damaged"));
    std::fs::write(&text, "hello").unwrap();
    std::fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nZm9v\n-----END CERTIFICATE-----\n").unwrap();
    let missing = folder.path().join("missing");
    for (path, reason) in [
        (&empty, "trust_malformed"),
        (&text, "trust_malformed"),
        (&damaged, "trust_malformed"),
        (&missing, "trust_unreadable"),
    ] {
        let spec =
            TrustSpec { anchors: Anchors::Roots { system: false, paths: vec![path.clone()] }, ..TrustSpec::default() };
        let error = Trust::load(&name("test"), &spec).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    }
    let ca = Ca::new("ca");
    let two = folder.path().join("two.pem");
    std::fs::write(&two, format!("{}{}", ca.pem, ca.pem)).unwrap();
    let error = Trust::load(&name("test"), &exactly(&two)).unwrap_err();
    assert!(error.to_string().contains("holds 2 certificates"), "{error}");
}

#[test]
fn the_digest_is_that_of_the_content_and_not_of_the_files() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let digest = |spec: &TrustSpec| *trust(spec).digest();
    let both = roots(folder.path(), &[&one, &two]);
    assert_eq!(digest(&both), digest(&roots(folder.path(), &[&two, &one])));
    assert_ne!(digest(&both), digest(&roots(folder.path(), &[&one])));
    assert_ne!(digest(&both), digest(&TrustSpec { pins: vec![[1; 32]], ..both.clone() }));
    let list = folder.path().join("list.pem");
    std::fs::write(&list, one.crl(&[], time::Duration::days(1))).unwrap();
    assert_ne!(digest(&both), digest(&TrustSpec { crls: vec![list], ..both.clone() }));
}

/// Without any verification the handshake's signature is still checked; with so short a key it cannot be,
/// and that is said instead of a bad signature.
#[tokio::test]
async fn a_short_key_is_no_bad_signature() {
    let folder = TempDir::new().unwrap();
    let request = [
        "req",
        "-x509",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-days",
        "9",
        "-keyout",
        "s.key",
        "-out",
        "s.crt",
        "-subj",
        "/CN=localhost",
    ];
    openssl(folder.path(), &request);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let accept = port.to_string();
    let mut server = tokio::process::Command::new("openssl")
        .args(["s_server", "-accept", &accept, "-key", "s.key", "-cert", "s.crt", "-quiet"])
        .args(["-cipher", "DEFAULT@SECLEVEL=0"])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let endpoint = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("openssl to listen", || std::net::TcpStream::connect(endpoint).ok());
    let mut spec = upstream(endpoint);
    spec.tls.verify = egret::config::values::Verify::None { reason: "a test".into() };
    let origin = origin(&spec, None, &trust(&roots(folder.path(), &[&Ca::new("any")])));
    let error = crate::support::origins::originate(endpoint, endpoint, &origin).await.unwrap_err();
    assert_eq!(error.reason(), "certificate_weak_key", "{error}");
    server.kill().await.unwrap();
}
