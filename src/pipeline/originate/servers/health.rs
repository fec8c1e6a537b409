//! Whether an endpoint gets streams: a circuit breaker without a clock of its own.
//!
//! ```text
//!            failures in a row                back-off over: one trial
//!   closed ───────────────────────> open ─────────────────────────────> trial
//!     ^                               ^    no other endpoint: sooner     │  │
//!     │                               └──────────── failure ─────────────┘  │
//!     └───────────────────────────── success ───────────────────────────────┘
//! ```
//!
//! While other endpoints are healthy, an open one gets no stream during its back-off. When there is no other, waiting
//! that long would turn a short restart into an outage: then a trial may begin as soon as ten times the time has passed
//! that the last one took. A server that refuses at once is so asked a hundred times a second at most, and one that
//! answers after seconds is not asked before its back-off ends; either way trials take a tenth of the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::values::Ejection;

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: usize,
    /// Consecutive refusals after a completed handshake; a good handshake does not end the row.
    late: usize,
    ejections: u32,
    open: Option<Open>,
    /// The end of the last ejection, and its length.
    back: Option<(Instant, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Instant,
    length: Duration,
    /// From then on a trial may begin if there is no other endpoint.
    again: Instant,
    trial: Option<Instant>,
}

/// What a stream may do with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Closed,
    /// The back-off is over: one stream may try it.
    Due,
    Open {
        /// Until then.
        until: Instant,
        /// Or, if there is no other endpoint, until then.
        again: Instant,
    },
    /// Another stream tries it.
    Trial {
        since: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    Usual,
    Trial,
}

/// Time between two trials if there is no other endpoint, as a multiple of the time that the first took.
const TRIAL_COST: u32 = 4;

/// Least time between them: a refusal costs a server one packet, and a hundred of them a second are no load.
const LEAST_GAP: Duration = Duration::from_millis(10);

/// A back-off is made longer by a random part up to this: endpoints that failed together are not tried together.
const JITTER: f64 = 0.25;

impl Breaker {
    pub(crate) fn gate(&self, now: Instant) -> Gate {
        match self.open {
            None => Gate::Closed,
            Some(Open { trial: Some(since), .. }) => Gate::Trial { since },
            Some(Open { until, .. }) if until <= now => Gate::Due,
            Some(Open { until, again, .. }) => Gate::Open { until, again },
        }
    }

    /// Begins the trial of an open circuit. `urgent`: there is no other endpoint. False: not now, or it is under
    /// way, or there is nothing to try.
    pub(crate) fn begin_trial(&mut self, now: Instant, urgent: bool) -> bool {
        let Some(open) = &mut self.open else { return false };
        let due = open.until <= now || (urgent && open.again <= now);
        if open.trial.is_some() || !due {
            return false;
        }
        open.trial = Some(now);
        true
    }

    /// The trial is over. True if it was under way: its stream was given up before an outcome.
    pub(crate) fn abandon_trial(&mut self) -> bool {
        self.open.as_mut().is_some_and(|open| open.trial.take().is_some())
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.max(self.late)
    }

    pub(crate) fn is_spotless(&self) -> bool {
        self.failures == 0 && self.open.is_none()
    }

    /// Whether bytes of the server would change its state.
    pub(crate) fn is_suspected(&self) -> bool {
        self.late > 0
    }

    /// An attempt succeeded. True if that closed the circuit.
    pub(crate) fn succeeded(&mut self, now: Instant) -> bool {
        self.failures = 0;
        let Some(open) = self.open.take() else { return false };
        self.back = Some((now, open.length));
        true
    }

    /// Records a failure after `took`. True if that opened the circuit. `chance` is random, from 0 to 1.
    pub(crate) fn failed(
        &mut self,
        kind: AttemptKind,
        took: Duration,
        now: Instant,
        settings: &Ejection,
        chance: f64,
    ) -> bool {
        if settings.max_share <= 0.0 {
            return false;
        }
        match (self.open, kind) {
            (Some(_), AttemptKind::Trial) => {
                self.open(took, now, settings, chance);
                false
            }
            // Of streams that began before it was opened.
            (Some(_), AttemptKind::Usual) => false,
            (None, _) => {
                self.failures = self.failures.saturating_add(1);
                let opens = self.failures >= settings.failures;
                if opens {
                    self.reopen(took, now, settings, chance);
                }
                opens
            }
        }
    }

    /// Records a stream that was refused after its handshake (TLS 1.3 servers verify the client's certificate then).
    /// True if that opened the circuit.
    pub(crate) fn refused_late(&mut self, now: Instant, settings: &Ejection, chance: f64) -> bool {
        self.late = self.late.saturating_add(1);
        if settings.max_share <= 0.0 || self.open.is_some() || self.late < settings.failures {
            return false;
        }
        // The trial's handshake will succeed again: the next refusal opens the circuit at once.
        self.late = settings.failures.saturating_sub(1);
        self.reopen(Duration::MAX, now, settings, chance);
        true
    }

    pub(crate) fn served(&mut self) {
        self.late = 0;
    }

    /// Opens a closed circuit. If it was healthy for as long as its last ejection, earlier ejections are forgotten.
    fn reopen(&mut self, took: Duration, now: Instant, settings: &Ejection, chance: f64) {
        if self.back.is_some_and(|(since, length)| now.saturating_duration_since(since) >= length) {
            self.ejections = 0;
        }
        self.open(took, now, settings, chance);
    }

    fn open(&mut self, took: Duration, now: Instant, settings: &Ejection, chance: f64) {
        let length = backoff(self.ejections, settings).mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
        self.ejections = self.ejections.saturating_add(1);
        let gap = took.saturating_mul(TRIAL_COST).clamp(LEAST_GAP.min(length), length);
        self.open = Some(Open { until: now + length, length, again: now + gap, trial: None });
    }
}

/// The back-off after `before` earlier ejections.
fn backoff(before: u32, settings: &Ejection) -> Duration {
    let factor = 2u32.checked_pow(before).unwrap_or(u32::MAX);
    settings.backoff.saturating_mul(factor).min(settings.max_backoff)
}

/// How many of `endpoints` may be ejected while others are healthy: the share, but at least one.
fn bound_of_ejected(endpoints: usize, settings: &Ejection) -> usize {
    // At most the number of endpoints, which a float holds exactly.
    ((endpoints as f64 * settings.max_share) as usize).clamp(1, endpoints.max(1))
}

/// Which of the endpoints of a tier get streams although their circuit is open: those beyond the bound of ejected
/// ones, the soonest to be tried first. None if all are open: then the tier has failed as a whole.
pub(crate) fn spared(gates: &[Gate], settings: &Ejection) -> Vec<bool> {
    let mut open: Vec<_> = (0..gates.len()).filter(|at| gates[*at] != Gate::Closed).collect();
    let bound = bound_of_ejected(gates.len(), settings);
    let beyond = if open.len() == gates.len() { 0 } else { open.len().saturating_sub(bound) };
    open.sort_by_key(|at| match gates[*at] {
        Gate::Open { until, .. } => Some(until),
        Gate::Closed | Gate::Due | Gate::Trial { .. } => None,
    });
    let mut spared = vec![false; gates.len()];
    open.iter().take(beyond).for_each(|at| spared[*at] = true);
    spared
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Ejection =
        Ejection { failures: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(8), max_share: 0.5 };
    const QUICK: Duration = Duration::from_micros(200);

    fn ejected(now: Instant, took: Duration) -> Breaker {
        let mut breaker = Breaker::default();
        for failure in 1..=3 {
            assert_eq!(breaker.failed(AttemptKind::Usual, took, now, &SETTINGS, 0.0), failure == 3);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_and_a_success_between_starts_anew() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..5 {
            assert!(!breaker.failed(AttemptKind::Usual, QUICK, now, &SETTINGS, 0.0));
            assert!(!breaker.failed(AttemptKind::Usual, QUICK, now, &SETTINGS, 0.0));
            breaker.succeeded(now);
        }
        assert_eq!(breaker.gate(now), Gate::Closed);
        assert!(matches!(ejected(now, QUICK).gate(now), Gate::Open { .. }));
    }

    #[test]
    fn one_trial_at_a_time_after_the_back_off() {
        let now = Instant::now();
        let mut breaker = ejected(now, QUICK);
        assert!(!breaker.begin_trial(now + SETTINGS.backoff / 2, false));
        let later = now + SETTINGS.backoff;
        assert_eq!(breaker.gate(later), Gate::Due);
        assert!(breaker.begin_trial(later, false));
        assert!(!breaker.begin_trial(later, false) && !breaker.begin_trial(later, true));
        breaker.abandon_trial();
        assert!(breaker.begin_trial(later, false), "a trial without an outcome does not block the next");
        assert!(breaker.succeeded(later));
        assert_eq!(breaker.gate(later), Gate::Closed);
    }

    #[test]
    fn for_want_of_others_what_refuses_at_once_is_soon_tried_again_and_what_stalls_is_not() {
        let now = Instant::now();
        assert!(ejected(now, QUICK).begin_trial(now + LEAST_GAP, true));
        let mut stalls = ejected(now, Duration::from_secs(3));
        assert!(!stalls.begin_trial(now + SETTINGS.backoff - QUICK, true));
        assert!(stalls.begin_trial(now + SETTINGS.backoff, true));
    }

    #[test]
    fn back_off_doubles_up_to_its_bound_and_is_forgotten_in_health() {
        let mut now = Instant::now();
        let mut breaker = ejected(now, QUICK);
        for seconds in [1, 2, 4, 8, 8] {
            let Gate::Open { until, .. } = breaker.gate(now) else { panic!("not open") };
            assert_eq!(until - now, Duration::from_secs(seconds));
            now = until;
            assert!(breaker.begin_trial(now, false));
            breaker.failed(AttemptKind::Trial, QUICK, now, &SETTINGS, 0.0);
        }
        breaker.succeeded(now);
        for (well, seconds) in [(Duration::from_secs(2), 8), (Duration::from_secs(8), 1)] {
            now += well;
            for _ in 0..3 {
                breaker.failed(AttemptKind::Usual, QUICK, now, &SETTINGS, 0.0);
            }
            let Gate::Open { until, .. } = breaker.gate(now) else { panic!("not open") };
            assert_eq!(until - now, Duration::from_secs(seconds), "well for {well:?}");
            breaker.succeeded(now);
        }
    }

    #[test]
    fn late_refusals_open_although_every_handshake_was_good() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for refusal in 1..=3 {
            breaker.succeeded(now);
            assert_eq!(breaker.refused_late(now, &SETTINGS, 0.0), refusal == 3);
        }
        breaker.succeeded(now);
        assert!(breaker.refused_late(now, &SETTINGS, 0.0), "one more after the trial is enough");
        breaker.succeeded(now);
        breaker.served();
        assert!(!breaker.refused_late(now, &SETTINGS, 0.0));
    }

    #[test]
    fn at_most_a_share_is_left_out_but_always_one() {
        for (endpoints, bound) in [(1, 1), (2, 1), (3, 1), (4, 2), (10, 5)] {
            assert_eq!(bound_of_ejected(endpoints, &SETTINGS), bound);
        }
        assert_eq!(bound_of_ejected(3, &Ejection { max_share: 1.0, ..SETTINGS }), 3);
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_are_left_out_unless_all_have_failed(states in prop::collection::vec(0..4u8, 1..20)) {
            let now = Instant::now();
            let gate = |state: &u8| match state {
                0 => Gate::Closed,
                1 => Gate::Open { until: now + QUICK, again: now },
                2 => Gate::Due,
                _ => Gate::Trial { since: now },
            };
            let gates: Vec<_> = states.iter().map(gate).collect();
            let spared = spared(&gates, &SETTINGS);
            let out = gates.iter().zip(&spared).filter(|(gate, spared)| **gate != Gate::Closed && !**spared).count();
            if gates.contains(&Gate::Closed) {
                let open = gates.iter().filter(|gate| **gate != Gate::Closed).count();
                prop_assert_eq!(out, open.min(bound_of_ejected(gates.len(), &SETTINGS)));
            } else {
                prop_assert_eq!(out, gates.len());
            }
        }

        /// Whatever happens in whatever order: never two trials, open only after failures, closed after a success,
        /// and no back-off beyond its bound.
        #[test]
        fn the_circuit_keeps_its_promises(steps in prop::collection::vec((0..6u8, 0..3000u64, 0.0..1.0f64), 1..200)) {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            let mut running = false;
            let mut row = 0;
            for (step, millis, chance) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 => { breaker.succeeded(now); (running, row) = (false, 0) }
                    1 | 2 => {
                        if breaker.gate(now) == Gate::Closed { row += 1 }
                        breaker.failed(AttemptKind::Usual, Duration::from_millis(millis), now, &SETTINGS, chance);
                    }
                    3 | 4 => {
                        let begun = breaker.begin_trial(now, step == 4);
                        prop_assert!(!(begun && running), "two trials");
                        running |= begun;
                    }
                    _ if running => {
                        breaker.failed(AttemptKind::Trial, Duration::from_millis(millis), now, &SETTINGS, chance);
                        running = false;
                    }
                    _ => {}
                }
                match breaker.gate(now) {
                    Gate::Closed => prop_assert!(row < 3),
                    Gate::Open { until, again } => {
                        prop_assert!(row >= 3 && again <= until);
                        prop_assert!(until <= now + SETTINGS.max_backoff.mul_f64(1.0 + JITTER));
                    }
                    Gate::Trial { .. } => prop_assert!(running),
                    Gate::Due => prop_assert!(!running),
                }
            }
        }
    }
}
