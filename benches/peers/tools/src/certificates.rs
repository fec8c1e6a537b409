//! Throw-away certificates: the origin's, the client's and the one that follows it, and two that a proxy has to refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::arguments::Arguments;

/// The name that proxies verify and send as SNI.
pub const ORIGIN: &str = "origin.example.com";

pub fn write(arguments: &Arguments) -> Result<()> {
    let folder: PathBuf = arguments.get("folder")?;
    let [ours, theirs] = [authority(&folder, "ca")?, authority(&folder, "strange-ca")?];
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    leaf(&folder, "origin", ORIGIN, &server, &ours)?;
    leaf(&folder, "stranger", ORIGIN, &server, &theirs)?;
    leaf(&folder, "misnamed", "other.example.com", &server, &ours)?;
    for name in ["client", "next-client"] {
        leaf(&folder, name, "client.example.com", &ExtendedKeyUsagePurpose::ClientAuth, &ours)?;
    }
    // HAProxy wants certificate and key in one file.
    let pair = [fs::read(folder.join("client.crt"))?, fs::read(folder.join("client.key"))?].concat();
    private(&folder.join("client.pem"), &pair)
}

fn authority(folder: &Path, name: &str) -> Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("benchmark {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    fs::write(folder.join(format!("{name}.crt")), params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

/// P-256, which is what the key generator makes.
fn leaf(
    folder: &Path,
    file: &str,
    name: &str,
    usage: &ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage.clone()];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    fs::write(folder.join(format!("{file}.crt")), params.signed_by(&key, issuer)?.pem())?;
    private(&folder.join(format!("{file}.key")), key.serialize_pem().as_bytes())
}

fn private(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}
