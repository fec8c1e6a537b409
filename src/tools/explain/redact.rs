//! Masks what names people, hosts and files: an explanation that can be shown to strangers.
//!
//! By content: an explanation is prose and tables, but every name in it is known. `tools::import::redact` masks by grammar,
//! because it cannot know which words of a foreign configuration are names. They share no code for that reason.

use serde_json::Value;

use crate::tools::explain::report::{Exchange, Explanation};

/// The explanation with names, addresses, paths and fingerprints replaced, each everywhere by the same word.
pub(crate) fn redact(explanation: &Explanation) -> Explanation {
    let mut shortened = explanation.clone();
    let exchanges = shortened.reports.iter_mut().filter_map(|report| report.exchange.as_mut());
    exchanges.for_each(shorten);
    let value = serde_json::to_value(shortened).expect("plain data becomes JSON");
    let mut secrets: Vec<String> = explanation.reports.iter().flat_map(secrets).collect();
    // The longest first: a name may be part of another.
    secrets.sort_by_key(|text| (std::cmp::Reverse(text.len()), text.clone()));
    secrets.dedup();
    serde_json::from_value(masked(value, &secrets)).expect("texts are replaced by texts")
}

/// Words of a question that identify nobody.
const COMMON: [&str; 5] = ["GET", "HTTP/1.1", "StartupMessage", "of", "user"];

/// An answer may name anything: only its code stays.
fn shorten(exchange: &mut Exchange) {
    for answer in [&mut exchange.answer, &mut exchange.without_identity].into_iter().flatten() {
        *answer = answer.split(' ').take(2).collect::<Vec<_>>().join(" ").trim_end_matches(':').to_owned();
    }
}

fn secrets(report: &super::report::Report) -> Vec<String> {
    let mut found = vec![report.server.clone(), report.server_name.clone(), report.upstream.clone()];
    found.extend(report.server.rsplit_once(':').map(|(host, _)| host.to_owned()));
    found.extend(report.addresses.iter().cloned());
    found.extend(
        report
            .attempts
            .iter()
            .flat_map(|attempt| [Some(attempt.address.clone()), attempt.certificate.clone()])
            .flatten(),
    );
    found.extend(report.trust.split(", ").filter(|part| part.contains(['/', '.'])).map(str::to_owned));
    if let Some(identity) = &report.identity {
        found.extend([&identity.subject, &identity.issuer, &identity.sha256].into_iter().cloned());
        found.extend(common_name(&identity.subject));
        found.extend(identity.files.iter().cloned());
    }
    for certificate in report.chain.iter().flat_map(|chain| &chain.certificates) {
        found.extend(
            [&certificate.subject, &certificate.issuer, &certificate.sha256, &certificate.pin].into_iter().cloned(),
        );
        found.extend(certificate.names.iter().filter_map(|name| name.split_once(':')).map(|(_, name)| name.to_owned()));
        found.extend(certificate.issuer_url.clone());
        let hex = certificate.sha256.split_once(':').map(|(_, hex)| hex.to_owned());
        found.extend(hex);
        found.extend(common_name(&certificate.subject));
    }
    found.extend(report.client_certificate.iter().flat_map(|request| request.acceptable.iter().cloned()));
    found.extend(
        report.exchange.iter().flat_map(|exchange| {
            exchange.sent.split([' ', '"']).filter(|word| !COMMON.contains(word)).map(str::to_owned)
        }),
    );
    found.retain(|text| text.len() > 2 && text != "the system's roots");
    found
}

fn common_name(subject: &str) -> Option<String> {
    let (_, name) = subject.rsplit_once("CN=")?;
    name.split(", ").next().map(str::to_owned)
}

fn masked(value: Value, secrets: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(masked_text(text, secrets)),
        Value::Array(list) => list.into_iter().map(|value| masked(value, secrets)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (key, masked(value, secrets))).collect())
        }
        other => other,
    }
}

fn masked_text(mut text: String, secrets: &[String]) -> String {
    for (number, secret) in secrets.iter().enumerate() {
        text = with_mask(&text, secret, &format!("masked-{}", number + 1));
    }
    text
}

/// Whole words only: an upstream named `app` is not masked inside "application".
fn with_mask(text: &str, secret: &str, mask: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret) {
        let before = &rest[..at];
        let after = &rest[at + secret.len()..];
        let amid = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let previous = before.chars().next_back().or_else(|| masked.chars().next_back());
        masked.push_str(before);
        masked.push_str(if amid(previous) || amid(after.chars().next()) { secret } else { mask });
        rest = after;
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_masked_everywhere() {
        let secrets = ["db.example.com".to_owned(), "app".to_owned()];
        let text = "app: db.example.com:443, an application at db.example.com2; dns:db.example.com".to_owned();
        let masked = masked_text(text, &secrets);
        assert_eq!(masked, "masked-2: masked-1:443, an application at db.example.com2; dns:masked-1");
    }
}
