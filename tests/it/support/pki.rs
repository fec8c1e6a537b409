//! A throw-away certificate authority: root, intermediate, and whatever leaf a test asks for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::process::run;

/// An authority and the folder that holds everything it made.
pub(crate) struct Pki {
    folder: TempDir,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_pem: String,
}

/// A certificate chain with its key, as files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    serial: u64,
}

/// What a leaf says.
pub(crate) struct Leaf<'a> {
    pub(crate) common_name: &'a str,
    /// DNS names and IP addresses of the subject alternative name.
    pub(crate) names: &'a [&'a str],
    /// Days from now.
    pub(crate) valid: (i64, i64),
}

impl Pki {
    pub(crate) fn new() -> Self {
        static AUTHORITIES: AtomicU64 = AtomicU64::new(1);
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        Self::named(&number.to_string())
    }

    /// Two authorities of the same name differ in nothing but their keys.
    pub(crate) fn named(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (root_params, root_key) = authority(&format!("Test Root {name}"));
        let root_pem = root_params.self_signed(&root_key).unwrap().pem();
        fs::write(folder.path().join("root.pem"), root_pem).unwrap();
        let mut expired = root_params.clone();
        expired.not_after = OffsetDateTime::now_utc() - Duration::days(1);
        let expired = expired.self_signed(&root_key).unwrap().pem();
        fs::write(folder.path().join("root-expired.pem"), expired).unwrap();
        let root = Issuer::new(root_params, root_key);
        let (params, key) = authority(&format!("Test Intermediate {name}"));
        let intermediate_pem = params.signed_by(&key, &root).unwrap().pem();
        fs::write(folder.path().join("intermediate.pem"), &intermediate_pem).unwrap();
        // Real servers read these as other users.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, intermediate: Issuer::new(params, key), intermediate_pem }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root's certificate.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// A certificate of the root's name and key that expired yesterday.
    pub(crate) fn expired_root(&self) -> PathBuf {
        self.folder.path().join("root-expired.pem")
    }

    /// The intermediate's certificate.
    pub(crate) fn intermediate(&self) -> PathBuf {
        self.folder.path().join("intermediate.pem")
    }

    /// Both in one file.
    pub(crate) fn both(&self) -> PathBuf {
        let file = self.folder.path().join("both.pem");
        let root = fs::read_to_string(self.root()).unwrap();
        fs::write(&file, format!("{}{root}", self.intermediate_pem)).unwrap();
        file
    }

    /// A server's certificate for these names.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.issue(names[0], &Leaf { common_name: names[0], names, valid: (-1, 90) })
    }

    /// A client's certificate with this common name.
    pub(crate) fn client(&self, common_name: &str) -> Pair {
        self.issue(common_name, &Leaf { common_name, names: &[], valid: (-1, 90) })
    }

    /// A client's certificate that is for servers only: its extended key usage lacks clientAuth.
    pub(crate) fn client_for_servers(&self, common_name: &str) -> Pair {
        let leaf = Leaf { common_name, names: &[], valid: (-1, 90) };
        self.issue_for(common_name, &leaf, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// A leaf of the intermediate; `stem` names its files, and the same stem again replaces them.
    pub(crate) fn issue(&self, stem: &str, leaf: &Leaf<'_>) -> Pair {
        let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue_for(stem, leaf, purposes)
    }

    fn issue_for(&self, stem: &str, leaf: &Leaf<'_>, purposes: Vec<ExtendedKeyUsagePurpose>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let (chain, serial) = self.chain(leaf, purposes, &key);
        let pair = self.pair(stem, serial);
        replace(&pair.certificate, &chain, 0o644);
        replace(&pair.key, &key.serialize_pem(), 0o600);
        pair
    }

    /// The chain of a new client's certificate for a key that is there, as a renewal makes it.
    pub(crate) fn renewed(&self, key: &Path, common_name: &str) -> String {
        let key = KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
        let leaf = Leaf { common_name, names: &[], valid: (-1, 90) };
        self.chain(&leaf, vec![ExtendedKeyUsagePurpose::ClientAuth], &key).0
    }

    /// Leaf and intermediate as PEM, and the leaf's serial number.
    fn chain(&self, leaf: &Leaf<'_>, purposes: Vec<ExtendedKeyUsagePurpose>, key: &KeyPair) -> (String, u64) {
        static SERIAL: AtomicU64 = AtomicU64::new(1000);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = leaf.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = named(leaf.common_name);
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(leaf.valid.0);
        params.not_after = now + Duration::days(leaf.valid.1);
        params.serial_number = Some(serial.into());
        params.extended_key_usages = purposes;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.signed_by(key, &self.intermediate).unwrap().pem() + &self.intermediate_pem, serial)
    }

    /// The intermediate's revocation list with these certificates on it.
    pub(crate) fn crl(&self, revoked: &[&Pair]) -> PathBuf {
        self.crl_until(revoked, Duration::days(7))
    }

    /// The same, to be replaced by the next one `next_update` from now on.
    pub(crate) fn crl_until(&self, revoked: &[&Pair], next_update: Duration) -> PathBuf {
        let now = OffsetDateTime::now_utc();
        let entry = |pair: &&Pair| RevokedCertParams {
            serial_number: SerialNumber::from(pair.serial),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update: now + next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.path().join("intermediate.crl");
        fs::write(&path, list.signed_by(&self.intermediate).unwrap().pem().unwrap()).unwrap();
        path
    }

    /// What `openssl req -x509` makes of these arguments: version 3, a CA certificate used as leaf, and
    /// no name but the common name unless the arguments say so.
    pub(crate) fn stock_self_signed(&self, stem: &str, common_name: &str, arguments: &[&str]) -> Pair {
        let pair = self.pair(stem, SELF_SIGNED);
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", &format!("/CN={common_name}")]);
        command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate).args(arguments);
        if !arguments.contains(&"-newkey") {
            command.args(["-newkey", "rsa:2048"]);
        }
        run(&mut command);
        pair
    }

    /// A version 1 certificate: what `openssl x509 -req -signkey` makes.
    pub(crate) fn version_one(&self, stem: &str, common_name: &str) -> Pair {
        let pair = self.pair(stem, SELF_SIGNED);
        let request = self.folder.path().join(format!("{stem}.csr"));
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", &format!("/CN={common_name}")]);
        run(command.arg("-keyout").arg(&pair.key).arg("-out").arg(&request));
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "30"]).arg("-signkey").arg(&pair.key);
        run(command.arg("-in").arg(&request).arg("-out").arg(&pair.certificate));
        pair
    }

    fn pair(&self, stem: &str, serial: u64) -> Pair {
        let path = |end: &str| self.folder.path().join(format!("{stem}.{end}"));
        Pair { certificate: path("crt"), key: path("key"), serial }
    }
}

impl Pair {
    /// The lines of an identity in egret's configuration.
    pub(crate) fn identity(&self, name: &str) -> String {
        let Self { certificate, key, .. } = self;
        format!("[identities.{name}]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n")
    }

    /// Its number; a later certificate has a greater one.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Made by no authority.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.serial == SELF_SIGNED
    }

    /// The SHA-256 of the leaf, in lower-case hex.
    pub(crate) fn sha256(&self) -> String {
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&self.certificate);
        let text = run(&mut command);
        text.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase()
    }
}

/// In place of the serial number that an authority gives.
const SELF_SIGNED: u64 = 0;

/// Writes beside the file and renames over it, as a careful operator does: a reader sees the old or the
/// new, never half.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn authority(common_name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
    (params, KeyPair::generate().unwrap())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
