//! What a file holds, in words.

use std::fmt::Write;

use serde_json::{Value, json};

use super::read::Item;
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::fingerprint::{labelled_hex, labelled_pin};

pub(crate) fn text(items: &[Item], now: Date) -> String {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let _ = match item {
            Item::Certificate(facts, _) => {
                writeln!(text, "{}. {}\n{}", index + 1, role(facts), paragraph(facts, now))
            }
            Item::Key { public, encrypted } => {
                let owner = public.and_then(|public| owner(items, |facts| facts.spki_sha256 == public));
                writeln!(text, "{}. private key: {}\n", index + 1, key_words(*encrypted, public.is_some(), owner))
            }
            Item::Crl { issuer, next_update, revoked } => {
                let next =
                    next_update.map_or_else(|| "never".to_owned(), |date| format!("{date}, {}", when(date, now)));
                writeln!(text, "{}. revocation list of {issuer}: {revoked} revoked, next update {next}\n", index + 1)
            }
            Item::Other(label) => {
                writeln!(text, "{}. {label}: neither certificate, key nor list that can be read\n", index + 1)
            }
        };
    }
    if items.is_empty() { "nothing: no section of PEM\n".to_owned() } else { text }
}

fn key_words(encrypted: bool, usable: bool, owner: Option<usize>) -> String {
    match (owner, encrypted, usable) {
        (Some(number), ..) => format!("that of certificate {number}"),
        (None, true, _) => "encrypted; not opened".to_owned(),
        (None, false, true) => "of none of these certificates".to_owned(),
        (None, false, false) => "of a kind that cannot be used".to_owned(),
    }
}

fn paragraph(facts: &CertificateFacts, now: Date) -> String {
    let mut text = String::new();
    for (name, value) in facts.fields() {
        let _ = writeln!(text, "   {name:<11} {value}");
    }
    let _ = writeln!(text, "   {:<11} {}", "pin", labelled_pin(&facts.spki_sha256));
    let ended = match () {
        () if facts.not_before > now => format!("not yet valid: begins {}", when(facts.not_before, now)),
        () if facts.not_after < now => format!("expired: ended {}", when(facts.not_after, now)),
        () => format!("valid: ends {}", when(facts.not_after, now)),
    };
    let _ = writeln!(text, "   {:<11} {ended}", "now");
    for warning in warnings(facts) {
        let _ = writeln!(text, "   {:<11} {warning}", "note");
    }
    text
}

pub(crate) fn role(facts: &CertificateFacts) -> &'static str {
    match (facts.authority, facts.self_signed) {
        (true, true) => "root certificate",
        (true, false) => "intermediate certificate",
        (false, true) => "self-signed certificate of a server or client",
        (false, false) => "certificate of a server or client",
    }
}

fn warnings(facts: &CertificateFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if facts.has_weak_key() {
        warnings.push(format!("its RSA key of {} bits is too short to be believed", facts.key_bits));
    }
    if let Some(algorithm) = facts.weak_signature.filter(|_| !facts.self_signed) {
        warnings.push(format!("it is signed with {algorithm}, which is broken"));
    }
    if facts.version < 3 {
        warnings.push(format!("it is of version {}, which can say neither names nor what it is for", facts.version));
    }
    if !facts.authority && facts.names.is_empty() && facts.common_name.is_some() {
        warnings.push("its name stands in the common name only, where nobody looks any more (RFC 9525)".to_owned());
    }
    warnings
}

/// How long from now, or ago.
pub(crate) fn when(date: Date, now: Date) -> String {
    match (date.0 - now.0).div_euclid(24 * 60 * 60) {
        0 => "today".to_owned(),
        1 => "in 1 day".to_owned(),
        days if days > 0 => format!("in {days} days"),
        -1 => "within the last day".to_owned(),
        days => format!("{} days ago", -days - 1),
    }
}

/// The number, from 1, of the first certificate that fits.
fn owner(items: &[Item], fits: impl Fn(&CertificateFacts) -> bool) -> Option<usize> {
    items.iter().position(|item| matches!(item, Item::Certificate(facts, _) if fits(facts))).map(|index| index + 1)
}

pub(crate) fn json(items: &[Item]) -> Value {
    let one = |item: &Item| match item {
        Item::Certificate(facts, _) => certificate(facts),
        Item::Key { public, encrypted } => json!({
            "kind": "key",
            "encrypted": encrypted,
            "certificate": public.and_then(|public| owner(items, |facts| facts.spki_sha256 == public)),
        }),
        Item::Crl { issuer, next_update, revoked } => json!({
            "kind": "crl",
            "issuer": issuer,
            "next_update": next_update.map(|date| date.to_string()),
            "revoked": revoked,
        }),
        Item::Other(label) => json!({ "kind": "other", "label": label }),
    };
    items.iter().map(one).collect()
}

fn certificate(facts: &CertificateFacts) -> Value {
    json!({
        "kind": "certificate",
        "role": role(facts),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "names": facts.names,
        "not_before": facts.not_before.to_string(),
        "not_after": facts.not_after.to_string(),
        "sha256": labelled_hex(&facts.sha256),
        "pin": labelled_pin(&facts.spki_sha256),
        "key": facts.key,
        "key_bits": facts.key_bits,
        "authority": facts.authority,
        "self_signed": facts.self_signed,
        "version": facts.version,
        "notes": warnings(facts),
    })
}
