//! Throw-away authorities and certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// An authority.
pub struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    above: Vec<CertificateDer<'static>>,
}

/// A certificate with its chain and key.
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub pem: String,
    pub key: KeyPair,
    pub serial: SerialNumber,
}

/// What a certificate says; the default is good today.
pub struct Wish<'a> {
    pub cn: &'a str,
    pub names: &'a [&'a str],
    pub from: Duration,
    pub until: Duration,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { cn: "server", names: &["localhost"], from: Duration::days(-1), until: Duration::days(30) }
    }
}

impl Ca {
    /// A root.
    pub fn new(cn: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(cn);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key), above: Vec::new() }
    }

    /// An authority below this one; its leaves bring its certificate along.
    pub fn intermediate(&self, cn: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(cn);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key), above: vec![certificate.der().clone()] }
    }

    pub fn leaf(&self, wish: &Wish<'_>) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = leaf_params(wish);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = std::iter::once(certificate.der().clone()).chain(self.above.iter().cloned()).collect();
        Leaf { chain, pem: certificate.pem(), key, serial: params.serial_number.unwrap() }
    }

    /// A revocation list with these serial numbers.
    pub fn crl(&self, revoked: &[&SerialNumber], next_update: Duration) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: now - Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update: now + next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Leaf {
    /// A certificate that vouches for itself; with `ca` it says that it is an authority.
    pub fn self_signed(wish: &Wish<'_>, ca: bool) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(wish);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = params.self_signed(&key).unwrap();
        let serial = params.serial_number.unwrap();
        Self { chain: vec![certificate.der().clone()], pem: certificate.pem(), key, serial }
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    pub fn sha256(&self) -> [u8; 32] {
        egret::credentials::fingerprint::sha256(&self.chain[0])
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, &self.pem).unwrap();
        write_key(&key, self.key.serialize_pem().as_bytes());
        (certificate, key)
    }
}

/// Writes a file that only its owner may read.
pub fn write_key(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs `openssl` in a folder, for what rcgen does not make: old versions, old ciphers.
pub fn openssl(folder: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn ca_params(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, cn);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(wish: &Wish<'_>) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, wish.cn);
    params.subject_alt_names = wish.names.iter().map(|name| san(name)).collect();
    params.not_before = now + wish.from;
    params.not_after = now + wish.until;
    let number: [u8; 8] = std::array::from_fn(|_| fastrand::u8(1..0x80));
    params.serial_number = Some(SerialNumber::from_slice(&number));
    params
}

fn san(name: &str) -> SanType {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return SanType::IpAddress(ip);
    }
    let text = name.try_into().unwrap();
    if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
}
