//! What a question and its answers show of the client certificate: a pure function.

use crate::tools::explain::attempt::AttemptKind;
use crate::tools::explain::cause::Evidence;
use crate::tools::explain::probe::Observation;
use crate::tools::explain::question::{Meaning, Question};
use crate::tools::explain::report::Exchange;

/// `None`: no handshake succeeded.
pub(super) fn exchange(question: &Question, evidence: &Evidence<'_>) -> Option<Exchange> {
    let asked = evidence.attempt(AttemptKind::Question)?;
    let without = evidence.attempt(AttemptKind::QuestionWithoutIdentity);
    let (accepted, sentence) = verdict(asked, without, evidence);
    let text = |seen: &Observation| seen.answer.as_ref().map(|answer| answer.text.clone());
    Some(Exchange {
        protocol: question.protocol().into(),
        sent: question.title(),
        answer: text(asked),
        without_identity: without.and_then(text),
        accepted,
        sentence,
    })
}

/// Accepted: the same question without the certificate is refused. Refused: the server's answer says so.
fn verdict(asked: &Observation, without: Option<&Observation>, evidence: &Evidence<'_>) -> (Option<bool>, String) {
    let sent = evidence.request().map(|request| request.answered);
    let refused = (sent == Some(true)).then_some(false);
    if let Some(failure) = &asked.failure {
        let refused = refused.filter(|_| REFUSALS.contains(&failure.reason));
        return (refused, format!("the server ended the connection in place of an answer: {}", failure.detail));
    }
    let Some(answer) = &asked.answer else {
        return (None, "the server gave no answer, so that nothing more is known".into());
    };
    match (answer.meaning, sent) {
        (Meaning::NoCertificate, _) => (refused, "the server says that it wants a client certificate".into()),
        (Meaning::CertificateRefused, _) => (refused, "the server says that it refuses the client certificate".into()),
        (Meaning::Unknown, _) => (None, "the answer is not of this protocol".into()),
        (_, None) => {
            (None, "the server asks for no client certificate, so that the answer shows nothing of one".into())
        }
        (_, Some(false)) => (None, "no client certificate was sent; what the server serves may depend on one".into()),
        (Meaning::Served, Some(true)) => served(without),
        (Meaning::Denied, Some(true)) => {
            (None, "the server denies this; the answer does not say whether because of the client certificate".into())
        }
        (Meaning::Other, Some(true)) => {
            (None, "the server has answered; the answer does not say whether the client certificate is accepted".into())
        }
    }
}

/// Classes by which a server refuses a client without a certificate, or with a wrong one.
const REFUSALS: [&str; 2] = ["client_certificate_required", "client_certificate_rejected"];

fn served(without: Option<&Observation>) -> (Option<bool>, String) {
    let refused = without.is_some_and(|seen| {
        let by_tls = seen.failure.as_ref().is_some_and(|failure| REFUSALS.contains(&failure.reason));
        let meaning = seen.answer.as_ref().map(|answer| answer.meaning);
        by_tls || matches!(meaning, Some(Meaning::NoCertificate | Meaning::CertificateRefused | Meaning::Denied))
    });
    match refused {
        true => (Some(true), "with the client certificate this is served, without one it is refused".into()),
        false => (None, "the server serves this; it was not refused without the client certificate either".into()),
    }
}
