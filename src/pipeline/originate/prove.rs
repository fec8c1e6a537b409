//! Proves an upstream without a client: one origination as a stream makes it, and the server's judgement of our
//! certificate, then the connection is closed.

use tokio::time::Instant;

use crate::config::values::CheckKind;
use crate::observe::logging::flood::Event;
use crate::pipeline::originate::attempts::Attempt;
use crate::pipeline::originate::failure::Failure;
use crate::pipeline::originate::upstream::{Lack, Originator};

impl Originator {
    /// One origination by the rules of streams: to the first server that accepts, within the upstream's own timeout,
    /// and before `until`. In TLS 1.3 a server that refuses our certificate does so after the handshake: that is waited
    /// for, as before a connection is put into a pool. Errors: the failure of the last attempt; all are counted and
    /// logged.
    ///
    /// Cancel safe: dropping the future closes whatever was begun.
    pub(crate) async fn prove(&self, until: Option<Instant>) -> Result<(), Failure> {
        if let Some(Lack { broken, server }) = &self.lacks {
            return Err(self.unproven(Failure::lacking(broken.clone(), server.clone())));
        }
        let deadline = Instant::now() + self.timeout;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let mut attempts = self.attempts_until(self.rules, deadline).await;
        let mut last = None;
        loop {
            let attempt = match attempts.next().await {
                Ok(attempt) => attempt,
                Err(exhausted) => {
                    return Err(last.unwrap_or_else(|| self.untried(exhausted, |failure| self.log(failure))));
                }
            };
            match self.reach(&attempt).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    attempts.lost(attempt.endpoint(), &failure.addresses());
                    last = Some(failure);
                }
            }
        }
    }

    /// Whether an address is healthy that an origination has reached.
    pub(crate) fn is_proven(&self) -> bool {
        let now = Instant::now();
        self.lacks.is_none() && self.endpoints.known().list().iter().any(|member| member.endpoint.is_proven(now))
    }

    async fn reach(&self, attempt: &Attempt) -> Result<(), Failure> {
        if attempt.endpoint().origin().is_none() {
            // The client makes TLS: a connection is all that egret makes.
            self.check(attempt, CheckKind::Tls).await.map_err(|failure| self.unproven(failure))?;
            attempt.endpoint().prove();
            return Ok(());
        }
        let (warm, endpoint) = self.make_ready(attempt).await.inspect_err(|failure| self.log(failure))?;
        endpoint.served();
        warm.leave();
        Ok(())
    }

    /// Logs the last failure of an upstream that was waited for in vain.
    pub(crate) fn log_unproven(&self, failure: &Failure) {
        self.log_failure(Event::Unproven, failure);
    }

    fn unproven(&self, failure: Failure) -> Failure {
        self.report_failure(&failure, &mut |failure: &Failure| self.log(failure));
        failure
    }

    fn log(&self, failure: &Failure) {
        // The failure before it, which opened the circuit, was logged.
        if failure.was_tried() {
            self.log_failure(Event::ProofFailed, failure);
        }
    }
}
