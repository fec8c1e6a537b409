//! From what was observed to what is wrong: a pure function.

mod certificate;
mod kind;

use std::net::SocketAddr;

use rustls::AlertDescription;
use rustls::pki_types::ServerName;

pub(crate) use self::kind::CauseKind;
use crate::config::values::{self, TlsVersion};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::refusal::Refusal;
use crate::pipeline::originate::handshake::{Cause as Broken, Flight, Plaintext};
use crate::protocols::Upgrade;
use crate::tools::explain::attempt::AttemptKind;
use crate::tools::explain::chain::{Anchor, Chain};
use crate::tools::explain::legacy_hello::Answer;
use crate::tools::explain::plaintext_probe::Greeting;
use crate::tools::explain::probe::{Failure, Observation, Stage};
use crate::tools::explain::question::Meaning;
use crate::wording;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) kind: CauseKind,
    /// Class in log and metrics.
    pub(crate) reason: &'static str,
    /// `None`: at the lookup of the name.
    pub(crate) endpoint: Option<SocketAddr>,
}

pub(crate) struct Evidence<'a> {
    pub(crate) spec: &'a values::Upstream,
    /// The name that is verified, and sent if it is a DNS name.
    pub(crate) server_name: &'a ServerName<'static>,
    pub(crate) now: Date,
    /// Class and sentence of the failed lookup.
    pub(crate) unresolved: Option<(&'static str, String)>,
    pub(crate) observations: &'a [Observation],
    /// The certificate of the identity is not for clients by its extended key usage.
    pub(crate) not_for_clients: bool,
    pub(crate) chain: &'a Chain,
    pub(crate) anchors: &'a [Anchor],
    pub(crate) explicit_trust: bool,
    pub(crate) system_believes: bool,
    /// Refusals of the leaf if it is trusted by itself: further faults behind the first.
    pub(crate) alone: Vec<Refusal>,
    /// Refusal at a moment within the dates of an expired or future leaf.
    pub(crate) in_time: Option<Refusal>,
    /// Sent before any request.
    pub(crate) greeting: Option<Greeting>,
    /// In which it answered a request for TLS.
    pub(crate) plaintext_protocol: Option<Upgrade>,
    /// Its choice when offered everything.
    pub(crate) legacy: Option<Answer>,
}

/// The most important cause first; empty if nothing is wrong.
pub(crate) fn causes(evidence: &Evidence<'_>) -> Vec<Cause> {
    if let Some((reason, detail)) = &evidence.unresolved {
        return vec![Cause { kind: CauseKind::Unreachable(detail.clone()), reason, endpoint: None }];
    }
    let Some(main) = evidence.main() else { return Vec::new() };
    let Some(reason) = main.reason() else {
        return evidence.intolerance().into_iter().chain(evidence.refused_when_asked()).collect();
    };
    let cause = |kind, reason| Cause { kind, reason, endpoint: Some(main.endpoint) };
    if !main.connected() {
        let detail = main.failure.as_ref().map(|failure| failure.detail.clone()).unwrap_or_default();
        return vec![cause(CauseKind::Unreachable(detail), reason)];
    }
    if let Some(kind) = evidence.name_that_was_not_sent(main) {
        return vec![cause(kind, reason)];
    }
    let mut causes = Vec::new();
    if let Some(refusal) = main.refusal() {
        let kinds = certificate::kinds(refusal, evidence);
        causes.extend(kinds.into_iter().map(|(kind, reason)| cause(kind, reason)));
    }
    if let Some(failure) = &main.failure {
        let kind = match &failure.stage {
            Stage::Dial => None,
            Stage::Upgrade => Some(evidence.of_upgrade(&failure.detail)),
            Stage::Handshake(Broken::Certificate(_)) => None,
            Stage::Handshake(broken) => Some(evidence.of_handshake(broken, main, &failure.detail)),
        };
        causes.extend(kind.map(|kind| cause(kind, failure.reason)));
    }
    causes
}

impl<'a> Evidence<'a> {
    /// The attempt that the verdict is about: as configured, at the first address that fails after the connect; else at
    /// the first that answers; else at the first.
    pub(crate) fn main(&self) -> Option<&'a Observation> {
        let mut tried = self.observations.iter().filter(|seen| seen.kind == AttemptKind::AsConfigured);
        let wrong = tried.clone().find(|seen| seen.connected() && seen.reason().is_some());
        wrong.or_else(|| tried.clone().find(|seen| seen.connected())).or_else(|| tried.next())
    }

    pub(crate) fn attempt(&self, kind: AttemptKind) -> Option<&'a Observation> {
        self.observations.iter().find(|seen| seen.kind == kind)
    }

    /// From the first attempt that saw one.
    pub(crate) fn request(&self) -> Option<&'a crate::credentials::observation::CertificateRequest> {
        self.observations.iter().find_map(|seen| seen.seen.request.as_ref())
    }

    /// As configured an origination succeeds, and with a session of that it fails.
    fn intolerance(&self) -> Option<Cause> {
        let resumed = self.attempt(AttemptKind::Resumed)?;
        let reason = resumed.reason()?;
        let kind = match (&resumed.failure, resumed.refusal()) {
            (Some(Failure { stage: Stage::Handshake(_), detail, .. }), None) => {
                CauseKind::ResumptionIntolerant(detail.clone())
            }
            (_, Some(refusal)) => CauseKind::Other(format!("with a session of the first attempt: {refusal}")),
            (failure, None) => {
                let detail = failure.as_ref().map(|failure| failure.detail.as_str()).unwrap_or_default();
                CauseKind::Other(format!("the next connection failed before TLS: {detail}"))
            }
        };
        Some(Cause { kind, reason, endpoint: Some(resumed.endpoint) })
    }

    /// As configured a handshake succeeds, and the question brings out that the client certificate is refused.
    fn refused_when_asked(&self) -> Option<Cause> {
        let asked = self.attempt(AttemptKind::Question)?;
        let cause = |kind, reason| Some(Cause { kind, reason, endpoint: Some(asked.endpoint) });
        if let Some(failure) = &asked.failure {
            let Stage::Handshake(broken) = &failure.stage else { return None };
            return cause(self.of_handshake(broken, asked, &failure.detail), failure.reason);
        }
        let answer = asked.answer.as_ref()?;
        let given = self.request().is_some_and(|request| request.answered);
        let kind = CauseKind::RefusedInAnswer { answer: answer.text.clone(), given };
        match (answer.meaning, given) {
            (Meaning::NoCertificate, false) => cause(kind, "client_certificate_required"),
            (Meaning::NoCertificate | Meaning::CertificateRefused, _) => cause(kind, "client_certificate_rejected"),
            _ => None,
        }
    }

    /// This attempt got as far as the server's certificate.
    fn speaks(&self, kind: AttemptKind) -> bool {
        self.attempt(kind).is_some_and(|seen| seen.agreed.is_some() || !seen.presented().is_empty())
    }

    /// No name was sent, and with one the server answers differently.
    fn name_that_was_not_sent(&self, main: &Observation) -> Option<CauseKind> {
        if main.sni {
            return None;
        }
        match (self.server_name, self.attempt(AttemptKind::WithSni)) {
            (ServerName::DnsName(name), Some(with)) => {
                let better = with.reason().is_none()
                    || (with.presented().first() != main.presented().first() && !with.presented().is_empty());
                better.then(|| CauseKind::ServerNameMissing(Some(name.as_ref().to_owned())))
            }
            (ServerName::IpAddress(_), _) if main.handshake() == Some(&Broken::ServerNameUnrecognized) => {
                Some(CauseKind::ServerNameMissing(None))
            }
            _ => None,
        }
    }

    fn of_upgrade(&self, detail: &str) -> CauseKind {
        if self.speaks(AttemptKind::WithoutUpgrade) {
            return CauseKind::UpgradeNotWanted;
        }
        let asked = self.spec.upgrade.map(Plaintext::Upgrade);
        match &self.greeting {
            Some(greeting) if asked != Some(greeting.guess) => CauseKind::of_plaintext(greeting.guess, Some(greeting)),
            _ => CauseKind::Upgrade(detail.to_owned()),
        }
    }

    fn of_handshake(&self, broken: &Broken, main: &Observation, detail: &str) -> CauseKind {
        match broken {
            Broken::NotTls(guess) => CauseKind::of_plaintext(*guess, self.greeting.as_ref()),
            Broken::ClientCertificateRequired => self.identity_required(true),
            Broken::ClientCertificateRejected(alert) => self.identity_rejected(Some(*alert)),
            Broken::ServerNameUnrecognized => CauseKind::ServerNameUnrecognized(self.names_without_sni()),
            Broken::AlpnRefused => {
                let chosen = self.attempt(AttemptKind::WithoutAlpn).map(|seen| seen.agreed.is_some());
                CauseKind::AlpnRefused { without: chosen == Some(true) }
            }
            Broken::Closed(Flight::AfterOurFinished) | Broken::Reset(Flight::AfterOurFinished)
                if self.request().is_some() =>
            {
                self.identity_required(false)
            }
            Broken::Closed(Flight::AfterOurCertificate) | Broken::Reset(Flight::AfterOurCertificate) => {
                self.identity_rejected(None)
            }
            Broken::VersionMismatch => self.of_version().unwrap_or_else(|| CauseKind::Other(detail.to_owned())),
            _ => self.of_silence(main).unwrap_or_else(|| CauseKind::Other(detail.to_owned())),
        }
    }

    /// The server closed without a reason, or only said that it rejects the offer.
    fn of_silence(&self, main: &Observation) -> Option<CauseKind> {
        if main.presented().is_empty() {
            if let Some(greeting) = &self.greeting {
                return Some(CauseKind::of_plaintext(greeting.guess, Some(greeting)));
            }
            if let Some(protocol) = self.plaintext_protocol {
                return Some(CauseKind::of_plaintext(Plaintext::Upgrade(protocol), None));
            }
        }
        if main.sni && main.presented().is_empty() && self.speaks(AttemptKind::WithoutSni) {
            return Some(CauseKind::ServerNameUnrecognized(self.names_without_sni()));
        }
        if main.hybrid && self.speaks(AttemptKind::Classic) {
            return Some(CauseKind::HybridDropped);
        }
        if self.speaks(AttemptKind::AllGroups) {
            return Some(CauseKind::GroupsExcluded);
        }
        self.of_version().or_else(|| self.of_choice())
    }

    fn names_without_sni(&self) -> Vec<String> {
        let leaf = self.attempt(AttemptKind::WithoutSni).and_then(|seen| seen.presented().first());
        leaf.and_then(|der| CertificateFacts::read(der)).map(|facts| facts.names).unwrap_or_default()
    }

    fn of_version(&self) -> Option<CauseKind> {
        let excluded = |version| !(self.spec.tls.min_version..=self.spec.tls.max_version).contains(&version);
        for (version, attempt) in [(TlsVersion::V1_2, AttemptKind::Tls12), (TlsVersion::V1_3, AttemptKind::Tls13)] {
            if excluded(version) && self.speaks(attempt) {
                return Some(CauseKind::VersionExcluded(version));
            }
        }
        let old = self.legacy.as_ref().filter(|answer| !answer.version_is_spoken)?;
        Some(CauseKind::VersionTooOld(old.version.clone()))
    }

    fn of_choice(&self) -> Option<CauseKind> {
        let answer = self.legacy.as_ref()?;
        match (answer.suite_is_spoken, answer.group_is_spoken, &answer.group) {
            (false, ..) => Some(CauseKind::SuiteTooOld(answer.suite.clone())),
            (true, false, Some(group)) => Some(CauseKind::GroupUnknown(group.clone())),
            _ => None,
        }
    }

    fn identity_required(&self, said: bool) -> CauseKind {
        let request = self.request();
        let acceptable = request.map(|request| request.acceptable.clone()).unwrap_or_default();
        match request.is_some_and(|request| request.unusable_key) {
            true => CauseKind::IdentityUnusable,
            false => CauseKind::IdentityRequired { acceptable, said, given: self.spec.tls.identity.is_some() },
        }
    }

    fn identity_rejected(&self, alert: Option<AlertDescription>) -> CauseKind {
        let request = self.request();
        let foreign = request.is_some_and(|request| request.foreign_issuer);
        let acceptable = request.map(|request| request.acceptable.clone()).unwrap_or_default();
        let not_for_clients = self.not_for_clients;
        CauseKind::IdentityRejected { acceptable, foreign, not_for_clients, alert: alert.map(wording::alert) }
    }
}
