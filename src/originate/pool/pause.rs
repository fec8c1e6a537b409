//! When to try again after a failure. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A pause between failures and the next try, which doubles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pause {
    until: Option<Instant>,
    last: Duration,
    refused: bool,
    proven: bool,
}

/// A connection that broke: a server that restarts is back within seconds.
const FIRST: Duration = Duration::from_millis(250);
/// A server that stays away is asked twice a minute.
const MOST: Duration = Duration::from_secs(30);
/// A certificate that is refused stays refused until a person does something; that is a new origin here, but may be
/// a file at the server.
const FIRST_REFUSED: Duration = Duration::from_secs(30);
/// See there.
const MOST_REFUSED: Duration = Duration::from_secs(600);

impl Pause {
    /// It failed. Failures during a pause were begun before it, and do not make it longer.
    ///
    /// `spread` is a random number from 0 to 1: a pause is shortened by up to half, so that many who failed together
    /// do not come back together.
    pub fn failed(&mut self, refused: bool, spread: f64, now: Instant) {
        self.proven = false;
        if self.ends_after(now).is_some() && (self.refused || !refused) {
            return;
        }
        let (first, most) = if refused { (FIRST_REFUSED, MOST_REFUSED) } else { (FIRST, MOST) };
        self.last = (self.last * 2).clamp(first, most);
        self.refused = refused;
        self.until = Some(now + self.last.mul_f64(1.0 - spread.clamp(0.0, 1.0) / 2.0));
    }

    /// It worked.
    pub fn worked(&mut self) {
        *self = Self { proven: true, ..Self::default() };
    }

    /// It worked for others, who do not see a certificate refused that the server judges late.
    pub fn worked_for_others(&mut self) {
        if !self.refused {
            (self.until, self.last) = (None, Duration::ZERO);
        }
    }

    /// The end of the pause, if it is one now.
    pub fn ends_after(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Whether the last try worked; if not, one at a time is enough.
    pub fn is_proven(&self) -> bool {
        self.proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(refused: bool, count: usize) -> Vec<Duration> {
        let (mut pause, mut now) = (Pause::default(), Instant::now());
        let one = |_| {
            pause.failed(refused, 0.0, now);
            let end = pause.ends_after(now).expect("a pause");
            let length = end - now;
            now = end;
            length
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pauses(false, 3), [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(*pauses(false, 20).last().expect("twenty"), MOST);
        assert_eq!(pauses(true, 2), [FIRST_REFUSED, FIRST_REFUSED * 2]);
        assert_eq!(*pauses(true, 20).last().expect("twenty"), MOST_REFUSED);
    }

    #[test]
    fn failures_of_one_moment_count_once_but_a_refusal_weighs_more() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        (0..9).for_each(|_| pause.failed(false, 0.0, now));
        assert_eq!(pause.ends_after(now), Some(now + FIRST));
        pause.failed(true, 0.0, now);
        assert_eq!(pause.ends_after(now), Some(now + FIRST_REFUSED));
    }

    #[test]
    fn a_refusal_is_not_forgotten_because_clients_got_through_the_handshake() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        pause.failed(true, 1.0, now);
        pause.worked_for_others();
        assert_eq!(pause.ends_after(now), Some(now + FIRST_REFUSED / 2));
        pause.failed(false, 1.0, now + FIRST_REFUSED);
        pause.worked_for_others();
        assert_eq!(pause.ends_after(now + FIRST_REFUSED), None);
        assert!(!pause.is_proven());
    }
}
