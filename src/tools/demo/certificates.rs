//! An authority for one afternoon, and what it signs.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;

use crate::tools::demo::SERVER_NAME;

/// The authority's key is dropped as soon as these are signed.
pub(super) struct Certificates {
    /// PEM.
    pub(super) authority: String,
    /// The root by which the upstream verifies clients.
    pub(super) root: CertificateDer<'static>,
    pub(super) client: Leaf,
    /// The upstream's, for [`SERVER_NAME`].
    pub(super) server: Leaf,
    /// The upstream's, for clients that do not name [`SERVER_NAME`].
    pub(super) wrong: Leaf,
}

pub(super) struct Leaf {
    pub(super) der: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

impl Certificates {
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = authority_params()?;
        let root = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        Ok(Self {
            authority: root.pem(),
            root: root.der().clone(),
            client: Leaf::new("demo client", "client.example.com", ExtendedKeyUsagePurpose::ClientAuth, &issuer)?,
            server: Leaf::new("demo upstream", SERVER_NAME, server.clone(), &issuer)?,
            wrong: Leaf::new("demo upstream, wrong name", "wrong.example.com", server, &issuer)?,
        })
    }
}

impl Leaf {
    fn new(
        common_name: &str,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params(vec![name.to_owned()], common_name)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, issuer)?;
        Ok(Self { der: certificate.der().clone(), pem: certificate.pem(), key })
    }
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(Vec::new(), "demo authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Clocks of other programs on the machine agree; an hour is for one that is being set.
const BEFORE: Duration = Duration::from_secs(3600);
/// A month: longer than anybody leaves a demo running.
const AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + AFTER).into();
    params.distinguished_name.push(DnType::OrganizationName, "egret demo");
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
