//! `tls.close_on_revocation`: ends streams whose server is not trusted any more after a reload.

use std::sync::Arc;

use rustls::pki_types::UnixTime;
use tokio::sync::watch;

use crate::credentials::presented::Presented;
use crate::credentials::refusal::Refusal;
use crate::credentials::trust::{Mode, Trust};
use crate::pipeline::originate::negotiated::Negotiated;
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::upstream::Originator;

impl Originator {
    /// `next` replaces this originator: streams are checked with its trust from now on. A `verify` that refuses no
    /// server ends no stream.
    pub(super) fn hand_trust_over(&self, next: &Self) {
        let origin = next.servers().iter().find_map(|server| server.origin.as_ref());
        if let Some(origin) = origin.filter(|origin| matches!(origin.key().mode(), Mode::Full | Mode::Chain)) {
            self.running.send_if_modified(|running| {
                let is_new = running.as_ref().is_none_or(|trust| trust.digest() != origin.trust().digest());
                *running = Some(Arc::clone(origin.trust()));
                is_new
            });
        }
    }

    /// Watches the trust for one stream; `None` if `close_on_revocation` is off.
    pub(crate) fn watch_trust(
        &self,
        origin: Option<&Arc<Origin>>,
        negotiated: Option<&Negotiated>,
    ) -> Option<Box<Distrust>> {
        let chain = negotiated?.chain.clone()?;
        Some(Box::new(Distrust { origin: Arc::clone(origin?), chain, running: self.running.subscribe() }))
    }
}

pub(crate) struct Distrust {
    origin: Arc<Origin>,
    chain: Presented,
    running: watch::Receiver<Option<Arc<Trust>>>,
}

impl Distrust {
    /// Resolves once a running trust refuses the chain for another reason than its age. Cancel safe.
    pub(crate) async fn came(mut self) {
        loop {
            let trust = self.running.borrow_and_update().clone();
            if trust.is_some_and(|trust| self.is_refused_by(&trust)) {
                return;
            }
            if self.running.changed().await.is_err() {
                // The upstream was removed: no new trust will come.
                std::future::pending::<()>().await;
            }
        }
    }

    /// An expiry ends no stream: a certificate or a CRL that has expired since was valid when the stream began.
    fn is_refused_by(&self, trust: &Trust) -> bool {
        let Some((leaf, intermediates)) = self.chain.certificates().split_first() else { return false };
        let mode = self.origin.key().mode();
        let name = self.origin.server_name();
        let judged = trust.check_in(mode, leaf, intermediates, name, UnixTime::now());
        matches!(
            judged,
            Err(Refusal::Revoked
                | Refusal::UnknownIssuer
                | Refusal::SelfSigned { .. }
                | Refusal::PinMismatch
                | Refusal::NotTheExactOne
                | Refusal::NameMismatch { .. })
        )
    }
}
