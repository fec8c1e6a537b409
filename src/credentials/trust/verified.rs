//! Chains that were accepted, so that the same one need not be built again a moment later.
//!
//! Most of the cost of a full handshake for the client is two signatures to check: the authority's under
//! the certificate, and the server's under the handshake. The second proves that the server has the key, and is
//! checked every time. The first is about bytes that a server shows unchanged for months.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::Believed;
use crate::credentials::certificate::Date;
use crate::credentials::period::Period;
use crate::credentials::presented::Presented;

/// The chains that one verifier has accepted.
///
/// A verifier has one trust and one mode for ever, so neither is part of the comparison: another trust (a new root, a
/// new list, another pin) is another verifier with an empty list. Only acceptance is remembered; a rejection is
/// computed anew each time, and its reasons with it.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    presented: Presented,
    server_name: ServerName<'static>,
    good: Period,
    believed: Believed,
}

/// Chains at once. An origin has one server name, and as many certificates as its servers differ, and twice that while
/// they are renewed. Comparing eight chains takes no longer than one: they differ in the first bytes, or in length.
const MAX_CHAINS: usize = 8;

/// Longer chains are not kept. Those of public authorities have 3 to 6 KiB; with this, an origin's memory for chains
/// ends at 128 KiB, whatever its servers send.
const MAX_SIZE: usize = 16 * 1024;

/// Seconds after which a chain is built anew although nothing has changed. Building one (P-256, one certificate below
/// the root) takes 836,000 instructions and was 19 % of the CPU of a connection with a full handshake; finding it here
/// takes 500 instructions. Once in five minutes is then nothing, even at one handshake a second.
const MAX_AGE: i64 = 300;

impl Verified {
    /// The chain, if it was accepted for this name and still is: the kept copy, and the period from its verification to
    /// its expiry.
    pub(super) fn find(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<(Presented, Believed, Period)> {
        let now = Date::from(now);
        let mut entries = self.lock();
        let at = entries
            .iter()
            .position(|entry| entry.presented.is(leaf, intermediates) && entry.server_name == *server_name)?;
        let entry = &entries[at];
        if entry.good.holds(now) {
            let valid = Period { until: entry.believed.until, ..entry.good };
            return Some((entry.presented.clone(), entry.believed.clone(), valid));
        }
        entries.swap_remove(at);
        None
    }

    pub(super) fn keep(&self, presented: &Presented, server_name: &ServerName<'_>, now: UnixTime, believed: Believed) {
        let now = Date::from(now);
        let good = Period::of(now, MAX_AGE).cut_at(believed.until);
        if presented.size() > MAX_SIZE || !good.holds(now) {
            return;
        }
        let presented = presented.clone();
        let server_name = server_name.to_owned();
        let mut entries = self.lock();
        if entries.len() >= MAX_CHAINS
            && let Some(oldest) = (0..entries.len()).min_by_key(|index| entries[*index].good.from)
        {
            entries.swap_remove(oldest);
        }
        entries.push(Entry { presented, server_name, good, believed });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Every change is a single push or remove: what is left by a panic is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_000_000;
    const FAR: Date = Date(i64::MAX);

    fn at(second: i64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(second.unsigned_abs()))
    }

    fn der(bytes: &[u8]) -> CertificateDer<'static> {
        bytes.to_vec().into()
    }

    fn name(text: &str) -> ServerName<'static> {
        ServerName::try_from(text.to_owned()).expect("a host name")
    }

    fn good(until: Date) -> Believed {
        Believed { until, root: None, candidate: None }
    }

    fn believed(leaf: &[u8], valid_until: Date) -> Verified {
        let verified = Verified::default();
        verified.keep(&Presented::new(&der(leaf), &[]), &name("a.example.com"), at(NOW), good(valid_until));
        verified
    }

    fn finds(verified: &Verified, leaf: &[u8], more: &[CertificateDer<'_>], host: &str, second: i64) -> bool {
        verified.find(&der(leaf), more, &name(host), at(second)).is_some()
    }

    #[test]
    fn only_the_same_bytes_under_the_same_name_are_found() {
        let verified = believed(b"leaf", FAR);
        assert!(finds(&verified, b"leaf", &[], "a.example.com", NOW));
        assert!(!finds(&verified, b"leaf", &[], "b.example.com", NOW));
        assert!(!finds(&verified, b"laef", &[], "a.example.com", NOW));
        // The same bytes, cut into certificates elsewhere.
        assert!(!finds(&verified, b"le", &[der(b"af")], "a.example.com", NOW));
        assert!(!finds(&verified, b"leaf", &[der(b"")], "a.example.com", NOW));
    }

    #[test]
    fn nothing_is_believed_for_longer_than_it_is_valid() {
        let verified = believed(b"leaf", Date(NOW + 10));
        assert!(finds(&verified, b"leaf", &[], "a.example.com", NOW + 9));
        assert!(!finds(&verified, b"leaf", &[], "a.example.com", NOW + 10));
        // Not even if the clock goes back then.
        assert!(!finds(&verified, b"leaf", &[], "a.example.com", NOW));
        assert!(!finds(&believed(b"leaf", Date(NOW)), b"leaf", &[], "a.example.com", NOW));
    }

    #[test]
    fn a_chain_is_built_anew_after_a_while_and_when_the_clock_was_set_back() {
        let verified = believed(b"leaf", FAR);
        assert!(finds(&verified, b"leaf", &[], "a.example.com", NOW + MAX_AGE - 1));
        assert!(!finds(&verified, b"leaf", &[], "a.example.com", NOW + MAX_AGE));
        assert!(!finds(&believed(b"leaf", FAR), b"leaf", &[], "a.example.com", NOW - 1));
    }

    #[test]
    fn chains_are_bounded_in_number_and_size() {
        let verified = Verified::default();
        for number in 0..100u8 {
            let presented = Presented::new(&der(&[number]), &[]);
            verified.keep(&presented, &name("a.example.com"), at(NOW + i64::from(number)), good(FAR));
        }
        assert_eq!(verified.lock().len(), MAX_CHAINS);
        // The oldest have gone.
        assert!(!finds(&verified, &[91], &[], "a.example.com", NOW + 100));
        assert!(finds(&verified, &[92], &[], "a.example.com", NOW + 100));
        let long = vec![0; MAX_SIZE + 1];
        assert!(!finds(&believed(&long, FAR), &long, &[], "a.example.com", NOW));
    }
}
