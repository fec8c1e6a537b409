//! Parts of a ClientHello that some servers, or middleboxes before them, do not tolerate: learned for each endpoint,
//! and forgotten after a time. No clock of its own.

use std::time::Duration;

use tokio::time::Instant;

/// A part of a ClientHello that TLS can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// A session to resume. OpenSSL ends such a handshake with an alert if it verifies clients and was given no session
    /// id context.
    Session,
    /// The key share of a post-quantum hybrid, with which a ClientHello takes two packets.
    HybridShare,
}

impl Feature {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Session => "resumption_intolerant",
            Self::HybridShare => "post_quantum_hello_dropped",
        }
    }
}

/// What one ClientHello may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) session: bool,
    /// The hybrid's key share, if the settings begin with it. Without it the group is still on the list: a server that
    /// insists on it asks for its share (HelloRetryRequest, RFC 8446 section 4.1.4).
    pub(crate) hybrid_share: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self { session: true, hybrid_share: true }
    }
}

impl Offer {
    pub(crate) fn without(self, feature: Feature) -> Self {
        match feature {
            Feature::Session => Self { session: false, ..self },
            Feature::HybridShare => Self { hybrid_share: false, ..self },
        }
    }
}

/// The evidence that a part of the ClientHello caused a failure, when a handshake failed with it and not without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The server answered with an alert, or with bytes that are no TLS.
    Answer,
    /// The connection broke or timed out. A server that was just restarted does that too.
    Silence,
}

#[derive(Debug, Default)]
pub(crate) struct Tolerances {
    session: Tolerance,
    hybrid_share: Tolerance,
}

impl Tolerances {
    pub(crate) fn offer(&mut self, now: Instant) -> Offer {
        Offer { session: self.session.may_offer(now), hybrid_share: self.hybrid_share.may_offer(now) }
    }

    /// Whether a ClientHello may offer everything, and no trial is due.
    pub(crate) fn leave_nothing_out(&self) -> bool {
        [&self.session, &self.hybrid_share].iter().all(|one| !matches!(one.state, State::LeftOut { .. }))
    }

    pub(crate) fn of(&mut self, feature: Feature) -> &mut Tolerance {
        match feature {
            Feature::Session => &mut self.session,
            Feature::HybridShare => &mut self.hybrid_share,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tolerance {
    state: State,
    /// Handshakes in a row that broke with it and succeeded without it, and for whose failure there is another
    /// explanation.
    strikes: u32,
    /// Times in a row that it was left out: sets the length of the next.
    left_out: u32,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unknown,
    Tolerated {
        until: Instant,
    },
    /// Handshakes fail without it just as well.
    Innocent {
        until: Instant,
    },
    /// It is left out; then one handshake offers it again.
    LeftOut {
        until: Instant,
    },
}

/// How long a part is left out at first, and then what one handshake costs that offers it again: nothing if the server
/// answers, a third of its time where nothing comes back. It doubles up to the longest.
const LEFT_OUT: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(7_200);

/// Time in which one handshake offers it again and the others do not: longer than any `originate_timeout` in use.
const AGAIN: Duration = Duration::from_secs(60);

/// How long a success, or a failure with another explanation, clears it. A server that fails for another reason so gets
/// one more connection a minute, and a slow one none.
const CLEARED: Duration = Duration::from_secs(60);

/// Handshakes without an answer that are needed to leave a part out: a server's restart causes one.
const STRIKES: u32 = 2;

impl Tolerance {
    fn may_offer(&mut self, now: Instant) -> bool {
        let State::LeftOut { until } = &mut self.state else { return true };
        let again = *until <= now;
        if again {
            *until = now + AGAIN;
        }
        again
    }

    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        !matches!(self.state, State::Innocent { until } if now < until)
    }

    /// A handshake has failed with it and succeeded without it, and none has succeeded with it since.
    pub(crate) fn is_doubted(&self) -> bool {
        self.strikes > 0
    }

    /// Whether it may be the cause of a server's silence. A server that accepted it a moment ago is slow, or down.
    pub(crate) fn is_suspect_of_silence(&self, now: Instant) -> bool {
        self.is_suspect(now) && !matches!(self.state, State::Tolerated { until } if now < until)
    }

    pub(crate) fn tolerated(&mut self, now: Instant) {
        *self = Self { state: State::Tolerated { until: now + CLEARED }, strikes: 0, left_out: 0 };
    }

    /// Records a handshake that failed with it and succeeded without. Returns for how long it is left out; `None`: not
    /// yet.
    pub(crate) fn not_tolerated(&mut self, evidence: Evidence, now: Instant) -> Option<Duration> {
        self.strikes = self.strikes.saturating_add(1);
        let known = self.left_out > 0 || self.strikes >= STRIKES || evidence == Evidence::Answer;
        if !known {
            self.state = State::Unknown;
            return None;
        }
        let factor = 2u32.checked_pow(self.left_out).unwrap_or(u32::MAX);
        let length = LEFT_OUT.saturating_mul(factor).min(LONGEST);
        self.left_out = self.left_out.saturating_add(1);
        self.state = State::LeftOut { until: now + length };
        Some(length)
    }

    /// Records a handshake that failed with it, and again without.
    pub(crate) fn innocent(&mut self, now: Instant) {
        self.state = State::Innocent { until: now + CLEARED };
        self.strikes = 0;
    }

    /// Records a handshake that failed with it and was not repeated without.
    pub(crate) fn failed(&mut self) {
        if matches!(self.state, State::Tolerated { .. }) {
            self.state = State::Unknown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_answer_or_two_silences_leave_it_out() {
        let now = Instant::now();
        let mut left_out = Tolerance::default();
        assert_eq!(left_out.not_tolerated(Evidence::Answer, now), Some(LEFT_OUT));
        let mut silent = Tolerance::default();
        assert_eq!(silent.not_tolerated(Evidence::Silence, now), None);
        assert!(silent.may_offer(now));
        assert_eq!(silent.not_tolerated(Evidence::Silence, now), Some(LEFT_OUT));
        let mut restarted = Tolerance::default();
        for _ in 0..10 {
            assert_eq!(restarted.not_tolerated(Evidence::Silence, now), None);
            restarted.tolerated(now);
        }
    }

    #[test]
    fn what_is_left_out_is_offered_again_by_one_and_longer_left_out_after_that() {
        let mut now = Instant::now();
        let mut tolerance = Tolerance::default();
        let mut left_out = tolerance.not_tolerated(Evidence::Answer, now);
        let mut lengths = Vec::new();
        while let Some(length) = left_out.filter(|_| lengths.len() < 6) {
            lengths.push(length.as_secs());
            assert!(!tolerance.may_offer(now + length - SECOND));
            now += length;
            assert_eq!([tolerance.may_offer(now), tolerance.may_offer(now)], [true, false]);
            left_out = tolerance.not_tolerated(Evidence::Silence, now);
        }
        assert_eq!(lengths, [600, 1_200, 2_400, 4_800, 7_200, 7_200]);
        tolerance.tolerated(now);
        assert!(tolerance.may_offer(now));
        assert_eq!(tolerance.not_tolerated(Evidence::Answer, now), Some(LEFT_OUT), "it begins anew");
    }

    #[test]
    fn a_handshake_that_never_came_to_an_end_offers_it_to_the_next_again() {
        let now = Instant::now();
        let mut tolerance = Tolerance::default();
        tolerance.not_tolerated(Evidence::Answer, now);
        assert!(tolerance.may_offer(now + LEFT_OUT));
        assert!(!tolerance.may_offer(now + LEFT_OUT + AGAIN - SECOND));
        assert!(tolerance.may_offer(now + LEFT_OUT + AGAIN));
    }

    #[test]
    fn a_server_that_fails_for_another_reason_is_asked_twice_once_a_minute() {
        let now = Instant::now();
        let mut tolerance = Tolerance::default();
        assert!(tolerance.is_suspect(now) && tolerance.is_suspect_of_silence(now));
        tolerance.innocent(now);
        tolerance.failed();
        let after = |tolerance: &Tolerance, passed| tolerance.is_suspect(now + passed);
        assert_eq!([SECOND, CLEARED - SECOND, CLEARED].map(|passed| after(&tolerance, passed)), [false, false, true]);
    }

    #[test]
    fn a_server_that_took_it_is_slow_when_silent_and_suspected_after_it_has_failed() {
        let now = Instant::now();
        let mut tolerance = Tolerance::default();
        tolerance.tolerated(now);
        assert!(tolerance.is_suspect(now) && !tolerance.is_suspect_of_silence(now));
        assert!(tolerance.is_suspect_of_silence(now + CLEARED));
        tolerance.failed();
        assert!(tolerance.is_suspect_of_silence(now));
    }
}
