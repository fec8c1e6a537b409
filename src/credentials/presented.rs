//! The certificates that a server has shown.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;

use crate::credentials::certificate::CertificateFacts;

/// A chain as a server presented it, leaf first. Cheap to clone: handshakes in which a server shows the same chain
/// share it, and the facts of its leaf, which are read once and on demand.
#[derive(Clone)]
pub(crate) struct Presented(Arc<Chain>);

struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    server: OnceLock<Option<Arc<CertificateFacts>>>,
}

impl Presented {
    pub(crate) fn new(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Self {
        let certificates = std::iter::once(leaf).chain(intermediates).map(|der| der.clone().into_owned()).collect();
        Self(Arc::new(Chain { certificates, server: OnceLock::new() }))
    }

    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }

    pub(crate) fn server(&self) -> Option<Arc<CertificateFacts>> {
        let read = || self.0.certificates.first().and_then(|leaf| CertificateFacts::read(leaf)).map(Arc::new);
        self.0.server.get_or_init(read).clone()
    }

    pub(crate) fn is(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> bool {
        let Some((own, others)) = self.0.certificates.split_first() else { return false };
        // The slices carry the lengths, so no two chains read the same.
        own == leaf && others == intermediates
    }

    pub(crate) fn size(&self) -> usize {
        self.0.certificates.iter().map(|der| der.len()).sum()
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({} certificates)", self.0.certificates.len())
    }
}
