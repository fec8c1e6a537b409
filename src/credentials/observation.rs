//! Observation of one handshake.
//!
//! The verifier and the client-certificate resolver of an origin are shared by all of its handshakes:
//! rustls resumes a session only under the very same objects. So they cannot hold what belongs to one
//! handshake; they write it to the observation of the task that polls them.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::credentials::certificate::CertificateFacts;
use crate::credentials::period::Period;
use crate::credentials::presented::Presented;
use crate::credentials::refusal::Refusal;

tokio::task_local! {
    static OBSERVED: Arc<Observed>;
}

/// The observation of one handshake.
#[derive(Debug, Default)]
pub struct Observed {
    facts: Mutex<Facts>,
    keeps_chain: bool,
}

/// The facts so far.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The chain that the server presented; none in a resumed handshake.
    pub(crate) presented: Option<Presented>,
    /// Facts of its leaf, set when the chain was taken.
    pub(crate) server: Option<Arc<CertificateFacts>>,
    /// The first objection against the server, whether it ended the handshake or was only reported.
    pub(crate) refusal: Option<Refusal>,
    /// The verifier has accepted the server (or is configured to).
    pub passed: bool,
    /// How long the verification holds: from its time to notAfter of the chain or nextUpdate of the lists.
    pub(crate) valid: Option<Period>,
    pub(crate) chain_bytes: usize,
    /// The server asked for a client certificate. rustls answers only when the server has passed, see
    /// [`Facts::answered`].
    pub(crate) request: Option<CertificateRequest>,
}

/// A server's request for a client certificate, and the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Distinguished names of the authorities that the server accepts; empty if it does not say.
    pub(crate) acceptable: Vec<String>,
    /// A certificate was sent.
    pub answered: bool,
    /// There is an identity, but its key can make none of the signatures that the server accepts.
    pub(crate) unusable_key: bool,
    /// `acceptable` names no issuer of the identity's chain.
    pub foreign_issuer: bool,
}

impl Facts {
    pub(crate) fn server(&self) -> Option<Arc<CertificateFacts>> {
        self.server.clone().or_else(|| self.presented.as_ref()?.server())
    }

    /// Whether a certificate was sent; `None`: the server asked for none.
    pub(crate) fn certificate_sent(&self) -> Option<bool> {
        self.request.as_ref().map(|request| request.answered)
    }

    /// The server's request, if it was answered: before the server has passed, nothing is.
    pub(crate) fn answered(&self) -> Option<&CertificateRequest> {
        self.request.as_ref().filter(|_| self.passed)
    }
}

impl Observed {
    /// For a handshake whose chain is shown to a person: [`Observed::take`] leaves it here.
    pub(crate) fn keeping_chain() -> Self {
        Self { keeps_chain: true, ..Self::default() }
    }

    /// Polls `handshake` so that verifier and resolver write here.
    ///
    /// No `async fn`: that would lay `handshake` out twice.
    pub fn during<F: Future>(self: &Arc<Self>, handshake: F) -> impl Future<Output = F::Output> + use<F> {
        OBSERVED.scope(Arc::clone(self), handshake)
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.lock())
    }

    /// The facts so far, without the chain: the observation may live as long as its connection, and should not hold
    /// kilobytes for it.
    pub(crate) fn take(&self) -> Facts {
        let mut facts = self.lock();
        if self.keeps_chain {
            return facts.clone();
        }
        let presented = facts.presented.take();
        if let Some(presented) = &presented {
            facts.server = presented.server();
        }
        Facts { presented, ..facts.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // No write can fail halfway, so the facts of a poisoned lock are good.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to the observation of the running task; without one (a configuration that is used outside of
/// a handshake of ours) nothing is kept.
pub fn note(write: impl FnOnce(&mut Facts)) {
    let _ = OBSERVED.try_with(|observed| write(&mut observed.lock()));
}
