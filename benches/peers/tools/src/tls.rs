//! TLS of the origin and of the reference relay: one suite and one group, so that all proxies do the same
//! cryptography.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::arguments::Arguments;

/// Requires a client certificate. Shows the certificate that `--show` names; `--tickets` says whether
/// sessions can be resumed.
pub fn server(arguments: &Arguments) -> Result<ServerConfig> {
    let folder: PathBuf = arguments.get("certificates")?;
    let provider = provider(&[kx_group::X25519]);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&folder)?, Arc::clone(&provider)).build()?;
    let (chain, key) = pair(&folder, &arguments.get_or("show", "origin".to_owned())?)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if arguments.get_or("tickets", false)? {
        config.ticketer = Ticketer::new()?;
    } else {
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The plainest use of rustls, with its store for sessions where `resume`.
pub fn client(arguments: &Arguments, resume: bool) -> Result<ClientConfig> {
    let folder: PathBuf = arguments.get("certificates")?;
    let (chain, key) = pair(&folder, "client")?;
    let mut config = ClientConfig::builder_with_provider(provider(&[kx_group::X25519, kx_group::SECP256R1]))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&folder)?)
        .with_client_auth_cert(chain, key)?;
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

fn provider(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    let cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, kx_groups: groups.to_vec(), ..default_provider() })
}

fn pair(folder: &Path, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt")))?;
    Ok((vec![certificate], PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?))
}

fn roots(folder: &Path) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    Ok(Arc::new(roots))
}
