//! When to try again after a failure. Pure.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    until: Option<Instant>,
    last: Duration,
    trouble: Trouble,
    proven: bool,
}

/// Ordered from the least to the most severe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// None could be made.
    #[default]
    Failed,
    /// One was made, and the server has ended it unused.
    Died,
    /// The server does not believe our certificate.
    Refused,
}

/// After a broken connection: a server that restarts is back within seconds.
const FIRST: Duration = Duration::from_millis(250);
/// A server that stays away is asked twice a minute.
const MOST: Duration = Duration::from_secs(30);
/// A certificate that is refused stays refused until an operator acts: here that makes a new origin, but it may be a
/// change at the server.
const FIRST_REFUSED: Duration = Duration::from_secs(30);
/// The longest pause after a refusal: ten minutes, as `FIRST_REFUSED` explains.
const MOST_REFUSED: Duration = Duration::from_secs(600);
/// After a connection that lived for this many pauses, and for a second at least, the next pause is short again.
const CALM: u32 = 4;

impl Pause {
    /// Records a failure. Failures during a pause were begun before it, and do not make it longer.
    ///
    /// `spread` is a random number from 0 to 1: a pause is shortened by up to half, so that pools that failed together
    /// do not retry together.
    pub(crate) fn failed(&mut self, trouble: Trouble, spread: f64, now: Instant) {
        self.proven = false;
        if self.ends_after(now).is_some() && self.trouble >= trouble {
            return;
        }
        let calm = (self.last * CALM).max(Duration::from_secs(1));
        if self.until.is_some_and(|until| now.saturating_duration_since(until) > calm) {
            self.last = Duration::ZERO;
        }
        let (first, most) = if trouble == Trouble::Refused { (FIRST_REFUSED, MOST_REFUSED) } else { (FIRST, MOST) };
        self.last = (self.last * 2).clamp(first, most);
        self.trouble = trouble;
        self.until = Some(now + self.last.mul_f64(1.0 - spread.clamp(0.0, 1.0) / 2.0));
    }

    /// Records a success. It does not prove yet that new connections survive.
    pub(crate) fn worked(&mut self) {
        self.proven = true;
        if self.trouble != Trouble::Died {
            self.until = None;
            self.last = Duration::ZERO;
            self.trouble = Trouble::Failed;
        }
    }

    /// Records a served client. Without a warm connection that does not prove that warm ones survive, and neither
    /// proves that the server accepts our certificate, since it may refuse late.
    pub(crate) fn worked_for_others(&mut self, warm: bool) {
        let heals = match self.trouble {
            Trouble::Failed => true,
            Trouble::Died => warm,
            Trouble::Refused => false,
        };
        if heals {
            self.until = None;
            self.last = Duration::ZERO;
            self.trouble = Trouble::Failed;
        }
    }

    pub(crate) fn ends_after(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Whether the last attempt succeeded; if not, one origination at a time is enough.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(trouble: Trouble, count: usize) -> Vec<Duration> {
        let mut pause = Pause::default();
        let mut now = Instant::now();
        let one = |_| {
            pause.failed(trouble, 0.0, now);
            let end = pause.ends_after(now).expect("a pause");
            let length = end - now;
            now = end;
            length
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pauses(Trouble::Failed, 3), [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(*pauses(Trouble::Failed, 20).last().expect("twenty"), MOST);
        assert_eq!(pauses(Trouble::Refused, 2), [FIRST_REFUSED, FIRST_REFUSED * 2]);
        assert_eq!(*pauses(Trouble::Refused, 20).last().expect("twenty"), MOST_REFUSED);
    }

    #[test]
    fn failures_of_one_moment_count_once_but_a_refusal_weighs_more() {
        let mut pause = Pause::default();
        let now = Instant::now();
        (0..9).for_each(|_| pause.failed(Trouble::Failed, 0.0, now));
        assert_eq!(pause.ends_after(now), Some(now + FIRST));
        pause.failed(Trouble::Refused, 0.0, now);
        assert_eq!(pause.ends_after(now), Some(now + FIRST_REFUSED));
    }

    #[test]
    fn a_refusal_is_not_forgotten_because_clients_got_through_the_handshake() {
        let mut pause = Pause::default();
        let now = Instant::now();
        pause.failed(Trouble::Refused, 1.0, now);
        pause.worked_for_others(true);
        assert_eq!(pause.ends_after(now), Some(now + FIRST_REFUSED / 2));
        pause.failed(Trouble::Failed, 1.0, now + FIRST_REFUSED);
        pause.worked_for_others(false);
        assert_eq!(pause.ends_after(now + FIRST_REFUSED), None);
        assert!(!pause.is_proven());
    }

    #[test]
    fn a_server_that_ends_what_was_made_is_asked_ever_less_until_one_is_used() {
        let mut pause = Pause::default();
        let mut now = Instant::now();
        for expected in [FIRST, FIRST * 2, FIRST * 4] {
            pause.failed(Trouble::Died, 0.0, now);
            pause.worked_for_others(false);
            assert_eq!(pause.ends_after(now), Some(now + expected));
            now += expected;
            pause.worked();
            assert!(pause.is_proven());
            now += Duration::from_millis(100);
        }
        // They live for long: what comes then is another affair.
        let mut calm = pause;
        calm.failed(Trouble::Died, 0.0, now + FIRST * 4 * CALM);
        assert_eq!(calm.ends_after(now + FIRST * 4 * CALM), Some(now + FIRST * 4 * CALM + FIRST));
        pause.failed(Trouble::Died, 0.0, now);
        pause.worked_for_others(true);
        assert_eq!(pause.ends_after(now), None);
    }
}
