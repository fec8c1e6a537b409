//! Throw-away certificates as files, and configurations that name them.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use egret::config::values::Config;
use egret::config::{Loaded, parse};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tempfile::TempDir;

/// The name that the server's certificate has.
pub(crate) const NAME: &str = "origin.example.com";

/// An authority, a server's certificate and a client's, P-256 all of them.
pub(crate) struct Credentials {
    folder: TempDir,
    root: CertificateDer<'static>,
    server: (CertificateDer<'static>, Vec<u8>),
}

impl Credentials {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // By default all have one name: each would look as if it had signed itself, and be tried for that.
        params.distinguished_name.push(DnType::CommonName, "Authority");
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate");
        write(folder.path(), "ca.crt", &root.pem());
        let issuer = Issuer::new(params, key);
        let server = leaf(folder.path(), "server", NAME, &issuer);
        leaf(folder.path(), "client", "client.example.com", &issuer);
        Self { folder, root: root.der().clone(), server }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server shows.
    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.server.0
    }

    /// A server that asks for the client's certificate and gives `tickets` to each TLS 1.3 client.
    pub(crate) fn server(&self, tickets: usize) -> Arc<ServerConfig> {
        let (certificate, key) = self.server.clone();
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.into()))
            .expect("key and certificate");
        config.send_tls13_tickets = tickets;
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("random bytes");
        Arc::new(config)
    }

    /// A configuration with so many listeners, each with an upstream of its own; all share an identity and a trust.
    pub(crate) fn text(&self, listeners: usize) -> String {
        let mut text = "[identities.client]\ncertificate = \"client.crt\"\nprivate_key = \"client.key\"\n\
                        [trust.servers]\nroots = [\"ca.crt\"]\n"
            .to_owned();
        for at in 0..listeners {
            write!(
                text,
                "[upstreams.u{at}]\nservers = [\"{NAME}:443\"]\ntls = {{ identity = \"client\", trust = \"servers\" }}\n\
                 [[listeners]]\nlisten = \"127.0.0.1:{}\"\nupstream = \"u{at}\"\n",
                10_000 + at
            )
            .expect("memory takes it");
        }
        text
    }

    /// That configuration, understood.
    pub(crate) fn config(&self, listeners: usize) -> Config {
        self.loaded(&self.text(listeners)).config
    }

    /// Paths in `text` start at the folder of the certificates.
    pub(crate) fn loaded(&self, text: &str) -> Loaded {
        let origin = self.folder().join("egret.toml");
        match parse(&origin.to_string_lossy(), text, &|_| None) {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{problems}"),
        }
    }
}

fn leaf(folder: &Path, file: &str, name: &str, issuer: &Issuer<'_, KeyPair>) -> (CertificateDer<'static>, Vec<u8>) {
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    write(folder, &format!("{file}.crt"), &certificate.pem());
    write(folder, &format!("{file}.key"), &key.serialize_pem());
    (certificate.der().clone(), key.serialize_der())
}

/// egret takes no key that others may read.
fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
}
