//! Advice on the certificates that a configuration names. What cannot be read is no advice but a problem, told
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::values::{Name, Verify};
use crate::config::{Advice, Loaded, Place, Problem};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::identity::Identity;
use crate::credentials::inventory::{self, Lifetime, LifetimeKind};
use crate::credentials::trust::{RootFacts, Trust};

/// What is unwise about the certificates, keys and lists of a configuration, and about its reasons. Blocks on the
/// file system. `within` is in seconds; `None`: by the share of the life that is left.
pub(crate) fn advise(loaded: &Loaded, now: Date, within: Option<i64>) -> Vec<Advice> {
    let mut advisor = Advisor { loaded, now, within, advice: Vec::new() };
    let trusts: BTreeMap<&Name, Trust> =
        loaded.config.trusts.iter().filter_map(|(name, spec)| Some((name, Trust::load(name, spec).ok()?))).collect();
    for (name, trust) in &trusts {
        advisor.trust(name, trust);
    }
    for (name, spec) in &loaded.config.identities {
        if let Ok(identity) = Identity::load(spec) {
            advisor.identity(name, &identity, &trusts);
        }
    }
    advisor.one_identity_several_trusts();
    advisor.reasons();
    advisor.advice
}

struct Advisor<'a> {
    loaded: &'a Loaded,
    now: Date,
    within: Option<i64>,
    advice: Vec<Advice>,
}

impl Advisor<'_> {
    fn advise(&mut self, code: &'static str, place: Place<'_>, title: String, label: &str, repair: &str) {
        let problem = match self.loaded.locate(place) {
            Some(span) => Problem::new(span, title, label, repair),
            None => Problem::of_file(title, repair),
        };
        self.advice.push(Advice { code, problem });
    }

    fn identity(&mut self, name: &Name, identity: &Identity, trusts: &BTreeMap<&Name, Trust>) {
        let place = Place::Identity(name);
        let chain: Vec<CertificateFacts> =
            identity.certified().cert.iter().filter_map(|der| CertificateFacts::read(der)).collect();
        // A leaf that is out of its period is an error, reported with the other files. Each by its own life: the issuer of
        // a leaf of six days lives for years.
        let valid = identity.check_period(self.now).is_ok();
        let lifetimes = if valid { inventory::of_identity(name, identity) } else { Vec::new() };
        let ending = lifetimes.iter().filter_map(|one| self.ending(one));
        if let Some((end, days)) = ending.min_by_key(|(end, _)| *end) {
            let title = format!("the identity `{name}` {days}, at {end}");
            self.advise("identity-expires", place, title, "ends soon", "renew it: egret takes the new files by itself");
        }
        if !identity.leaf().for_clients {
            let title = format!(
                "the extended key usage of the certificate of `{name}` lacks clientAuth: it is not for clients"
            );
            let repair = "have it issued with clientAuth; public authorities no longer do, a private one does";
            self.advise("identity-not-for-clients", place, title, "for servers only", repair);
        }
        self.remarks(place, identity.remarks());
        self.strength(place, &chain);
        self.order(name, &chain);
        let roots: Vec<&RootFacts> = trusts.values().flat_map(Trust::roots).collect();
        self.completeness(name, &chain, &roots);
    }

    fn strength(&mut self, place: Place<'_>, chain: &[CertificateFacts]) {
        for facts in chain {
            if facts.has_weak_key() {
                let title = format!("the RSA key of `{}` has only {} bits", facts.subject, facts.key_bits);
                self.advise("weak-key", place, title, "weak", "replace it by one of P-256, or of 3072 bits");
            }
            if let Some(algorithm) = facts.weak_signature.filter(|_| !facts.self_signed) {
                let title = format!("the certificate `{}` is signed with {algorithm}", facts.subject);
                self.advise("weak-signature", place, title, "weak", "have it signed with SHA-256");
            }
        }
    }

    /// Each certificate has to be issued by the next (RFC 5246, section 7.4.2; RFC 8446, section 4.4.2).
    fn order(&mut self, name: &Name, chain: &[CertificateFacts]) {
        let broken = chain.windows(2).find(|pair| pair[0].issuer != pair[1].subject);
        if let Some([one, next]) = broken {
            let known = chain.iter().any(|facts| facts.subject == one.issuer);
            let title = format!(
                "in the chain of `{name}`, `{}` is followed by `{}`, which did not issue it",
                one.subject, next.subject
            );
            let repair = if known {
                "put the leaf first, and after each certificate the one that issued it"
            } else {
                "remove what does not belong to the chain, and put in the issuer"
            };
            self.advise("chain-disorder", Place::Identity(name), title, "out of order", repair);
        }
        if let [_, .., last] = chain
            && last.self_signed
        {
            let title = format!(
                "the chain of `{name}` carries its root `{}`: servers have it, or do not believe it",
                last.subject
            );
            self.advise(
                "root-superfluous",
                Place::Identity(name),
                title,
                "superfluous",
                "remove the root from the file",
            );
        }
    }

    /// An intermediate is certainly missing if a root bundle of this configuration holds it as such. It is probably
    /// missing if the leaf says where its issuer can be fetched and no trust here has that issuer.
    fn completeness(&mut self, name: &Name, chain: &[CertificateFacts], roots: &[&RootFacts]) {
        let Some(last) = chain.last().filter(|last| !last.self_signed) else { return };
        let issuer = roots.iter().find(|root| root.subject == last.issuer);
        if issuer.is_some_and(|root| !root.self_signed) {
            let title = format!("the chain of `{name}` ends before the intermediate `{}`", last.issuer);
            let repair =
                "append the intermediate to the file: a server that only has the root cannot complete the chain";
            self.advise("chain-incomplete", Place::Identity(name), title, "incomplete", repair);
        }
    }

    /// What files hold that is not used: nothing of a file is skipped in silence.
    fn remarks(&mut self, place: Place<'_>, remarks: &[String]) {
        for remark in remarks {
            let repair = "remove it from the file, or put right what is wrong with it";
            self.advise("file-part-unused", place, remark.clone(), "not used", repair);
        }
    }

    fn trust(&mut self, name: &Name, trust: &Trust) {
        self.remarks(Place::Trust(name), trust.remarks());
        for lifetime in inventory::of_trust(trust) {
            match lifetime.kind {
                LifetimeKind::Root => self.root(name, &lifetime),
                LifetimeKind::Certificate => self.exact(name, &lifetime),
                LifetimeKind::Crl => self.list(name, &lifetime),
                LifetimeKind::Identity => {}
            }
        }
        self.roots(name, trust);
    }

    fn root(&mut self, name: &Name, root: &Lifetime) {
        let Some((end, days)) = self.ending(root) else { return };
        let unused = if end < self.now { ", and is not used" } else { "" };
        let title = format!("the root `{}` of `{name}` {days}, at {end}{unused}", root.subject);
        let repair = "put its successor beside it, and remove it when no server needs it any more";
        self.advise("root-expires", Place::Trust(name), title, "ends soon", repair);
    }

    /// A pinned certificate expires like any other.
    fn exact(&mut self, name: &Name, certificate: &Lifetime) {
        let Some((end, days)) = self.ending(certificate) else { return };
        let title = format!("the certificate `{}` of `{name}` {days}, at {end}", certificate.subject);
        let repair =
            "have the server renew it, and take the new one; both need `roots`, or the same key by `pins_only`";
        self.advise("certificate-expires", Place::Trust(name), title, "ends soon", repair);
    }

    fn list(&mut self, name: &Name, list: &Lifetime) {
        let Some((end, days)) = self.ending(list) else { return };
        let place = Place::Trust(name);
        if end < self.now {
            let title = format!("a revocation list of `{name}` is stale since {end}: every server is refused");
            let repair = "fetch the list anew, by a timer: egret takes the new file by itself";
            self.advise("crl-stale", place, title, "stale", repair);
        } else {
            let title = format!("a revocation list of `{name}` {days}: from {end} on every server is refused");
            self.advise("crl-ends", place, title, "ends soon", "fetch the list by a timer, well before it ends");
        }
    }

    /// Candidate roots have the same faults as trusted roots.
    fn roots(&mut self, name: &Name, trust: &Trust) {
        let place = Place::Trust(name);
        for root in trust.roots().iter().chain(trust.candidate_roots()).filter(|root| !root.system) {
            let subject = &root.subject;
            if !root.authority {
                let title = format!("`{subject}` is no authority but a server's own certificate");
                let repair = "write `certificate = \"...\"` in place of `roots` to believe exactly this one";
                self.advise("leaf-as-root", place, title, "not a root", repair);
            } else if !root.self_signed {
                let title = format!(
                    "`{subject}` is an intermediate: it is believed here, programs with OpenSSL ask for its root"
                );
                self.advise(
                    "intermediate-as-root",
                    place,
                    title,
                    "not a root",
                    "put the root in its place, unless it is meant",
                );
            }
            if root.weak_key {
                let title = format!("the RSA key of the root `{subject}` is shorter than 2048 bits");
                self.advise("weak-key", place, title, "weak", "replace the authority: chains to it are refused");
            }
        }
    }

    /// One certificate shown to unrelated servers lets them see that it is the same client; every rotation has to suit
    /// all of them.
    fn one_identity_several_trusts(&mut self) {
        let mut trusts: BTreeMap<&Name, BTreeSet<Option<&Name>>> = BTreeMap::new();
        for upstream in self.loaded.config.upstreams.values() {
            if let Some(identity) = &upstream.tls.identity {
                trusts.entry(identity).or_default().insert(upstream.tls.trust.as_ref());
            }
        }
        let shared: Vec<_> = trusts.into_iter().filter(|(_, trusts)| trusts.len() > 1).collect();
        for (identity, trusts) in shared {
            let title = format!("the identity `{identity}` is shown to servers of {} trusts", trusts.len());
            let repair = "give each side an identity of its own, unless one authority stands behind all of them";
            self.advise("identity-several-trusts", Place::Identity(identity), title, "shared", repair);
        }
    }

    /// "until 2026-03-01" in a reason is a promise.
    fn reasons(&mut self) {
        let upstreams: Vec<_> = self.loaded.config.upstreams.iter().collect();
        for (name, upstream) in upstreams {
            let (Verify::Chain { reason } | Verify::Report { reason } | Verify::None { reason }) = &upstream.tls.verify
            else {
                continue;
            };
            let last = dates(reason).max();
            if let Some(day) = last.as_ref().filter(|day| **day < today(self.now)) {
                let title = format!("the reason for the insecure `{name}` is past its date, {day}");
                let repair = "remove `verify` and `insecure_reason`, or say why it still has to be";
                self.advise("insecure-reason-past", Place::Upstream(name), title, "past its date", repair);
            } else if last.is_none() {
                let title = format!("the reason for the insecure `{name}` names no day on which it ends");
                let repair = "add the day by which it is mended: `insecure_reason = \"... until 2030-01-31\"`";
                self.advise("insecure-reason-endless", Place::Upstream(name), title, "no end", repair);
            }
        }
    }

    /// Expiry date and time left in words; `None` if that is long enough.
    fn ending(&self, lifetime: &Lifetime) -> Option<(Date, String)> {
        let end = lifetime.not_after?;
        let left = end.0 - self.now.0;
        let within = self.within.unwrap_or_else(|| end.0 - lifetime.soon_from().unwrap_or(end).0);
        (left < within || left < 0).then(|| {
            let days = match left / DAY {
                days if left < 0 => format!("has ended {} days ago", -days),
                0 => "ends in less than a day".to_owned(),
                1 => "ends in 1 day".to_owned(),
                days => format!("ends in {days} days"),
            };
            (end, days)
        })
    }
}

const DAY: i64 = 24 * 60 * 60;

fn today(now: Date) -> String {
    now.to_string().chars().take(10).collect()
}

/// The calendar dates (YYYY-MM-DD) of a text: they compare as texts.
fn dates(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '-').filter(|word| is_date(word)).map(str::to_owned)
}

fn is_date(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |part: &str, length: usize| if part.len() == length { part.parse::<u32>().ok() } else { None };
    number(year, 4).is_some()
        && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
        && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_a_reason_are_found() {
        let found: Vec<_> = dates("until 2026-03-01, or 2026-13-01; see 1-2-3 and (2027-01-31)").collect();
        assert_eq!(found, ["2026-03-01", "2027-01-31"]);
    }
}
