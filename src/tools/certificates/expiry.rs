//! Everything with an end that a configuration uses, the nearest end first.

use std::fmt::Write;

use serde_json::Value;

use super::read::{Item, items};
use crate::config::values::{self, Config, Name};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::identity::{self, Identity};
use crate::credentials::inventory::{self, Lifetime, Validity};
use crate::credentials::part::Fault;
use crate::credentials::trust::Trust;

/// The inventory of a configuration by expiry date; entries without one are last. An identity that cannot be used (its
/// key is missing, say) is read as far as its certificates can be. Blocks on the file system.
///
/// # Errors
///
/// An identity or trust that cannot be read: what is unknown is not reported as valid.
pub(crate) fn lifetimes(config: &Config) -> Result<Vec<Lifetime>, Fault> {
    let mut lifetimes = Vec::new();
    for (name, spec) in &config.identities {
        let found = of_identity(name, spec);
        lifetimes.extend(found.map_err(|error| Fault::of_identity(name, &error, &config.source))?);
    }
    for (name, spec) in &config.trusts {
        let trust = Trust::load(name, spec).map_err(|error| Fault::of_trust(name, &error, &config.source))?;
        lifetimes.extend(inventory::of_trust(&trust));
    }
    lifetimes.sort_by(|one, other| {
        let key = |it: &Lifetime| (it.not_after.is_none(), it.not_after, it.name.clone());
        key(one).cmp(&key(other))
    });
    Ok(lifetimes)
}

fn of_identity(name: &Name, spec: &values::Identity) -> Result<Vec<Lifetime>, identity::Error> {
    let error = match Identity::load(spec) {
        Ok(identity) => return Ok(inventory::of_identity(name, &identity)),
        Err(error) => error,
    };
    let items = items(&spec.certificate, spec.password_file.as_deref()).unwrap_or_default();
    let chain: Vec<CertificateFacts> = items.into_iter().filter_map(certificate).collect();
    if chain.is_empty() { Err(error) } else { Ok(inventory::of_chain(name, &spec.certificate, &chain)) }
}

fn certificate(item: Item) -> Option<CertificateFacts> {
    if let Item::Certificate(facts, _) = item { Some(*facts) } else { None }
}

/// Days left, negative after expiry; `None` without an expiry date.
fn days(lifetime: &Lifetime, now: Date) -> Option<i64> {
    lifetime.not_after.map(|end| (end.0 - now.0).div_euclid(24 * 60 * 60))
}

/// Whether anything expires within this many days; `None`: by the share of its life that is left.
pub(crate) fn any_within(lifetimes: &[Lifetime], now: Date, within: Option<u32>) -> bool {
    lifetimes.iter().any(|lifetime| match within {
        Some(within) => days(lifetime, now).is_some_and(|days| days < i64::from(within)),
        None => matches!(lifetime.validity(now), Validity::EndsSoon | Validity::Ended),
    })
}

pub(crate) fn text(lifetimes: &[Lifetime], now: Date) -> String {
    let mut text = String::new();
    text.push_str("  days  ends                  kind         name              state          subject (file)\n");
    for lifetime in lifetimes {
        let days = days(lifetime, now).map(|days| days.to_string()).unwrap_or_default();
        let end = lifetime.not_after.map_or_else(|| "never".to_owned(), |end| end.to_string());
        let state = lifetime.validity(now).as_str();
        let Lifetime { kind, name, subject, file, .. } = lifetime;
        let kind = kind.as_str();
        let name = name.as_str();
        let file = file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let _ = writeln!(text, "{days:>6}  {end:<20}  {kind:<11}  {name:<16}  {state:<13}  {subject} ({file})");
    }
    text
}

pub(crate) fn json(lifetimes: &[Lifetime], now: Date) -> Value {
    let one = |lifetime: &Lifetime| {
        let mut document = lifetime.document(now);
        document["days"] = days(lifetime, now).into();
        document
    };
    lifetimes.iter().map(one).collect()
}
