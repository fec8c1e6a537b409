//! How long a server lets an unused connection live, learned from those that it has closed. Pure.
//!
//! A connection that the server is about to close is the worst to hand out: the client's first bytes may cross the
//! close on the path, and whether they were read is unknown. So warm connections leave the shelf before that.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lifetime {
    last: Option<Closed>,
    learned: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    born: Instant,
    age: Duration,
}

/// No server has an idle limit shorter than this. Under load warm connections are young, and those that restarts end
/// are of equal age by chance: with servers that restarted eight times a second, two thirds of what was made was
/// thrown away for its age.
const LEAST: Duration = Duration::from_millis(500);

/// What was learned is forgotten after this time: the server's settings may have changed.
const MEMORY: Duration = Duration::from_secs(600);

impl Lifetime {
    /// Records a connection that the server closed: when it began and its age.
    ///
    /// Two that ended at about the same age and began at different times show an idle limit; a server that restarts
    /// ends all at one time, whatever their age.
    pub(crate) fn closed(&mut self, born: Instant, age: Duration, now: Instant) {
        let this = Closed { born, age };
        if let Some(last) = self.last.replace(this)
            && age >= LEAST
            && last.age.abs_diff(age) <= age / 5
            && apart(last.born, born) > age / 4
        {
            self.learned = Some((age.min(last.age) * 3 / 4, now + MEMORY));
        }
    }

    /// The greatest age of a warm connection: the configured one, or the server's limit.
    pub(crate) fn most(&self, configured: Duration, now: Instant) -> Duration {
        match self.learned {
            Some((learned, until)) if until > now => learned.min(configured),
            _ => configured,
        }
    }
}

fn apart(one: Instant, other: Instant) -> Duration {
    one.saturating_duration_since(other).max(other.saturating_duration_since(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Duration = Duration::from_secs(30);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_idle_limit_is_learned_and_forgotten() {
        let start = Instant::now();
        let mut lifetime = Lifetime::default();
        lifetime.closed(start, ms(2_010), start + ms(2_010));
        assert_eq!(lifetime.most(CONFIGURED, start + ms(2_010)), CONFIGURED);
        lifetime.closed(start + ms(1_500), ms(2_000), start + ms(3_500));
        assert_eq!(lifetime.most(CONFIGURED, start + ms(3_500)), ms(1_500));
        assert_eq!(lifetime.most(ms(100), start + ms(3_500)), ms(100));
        assert_eq!(lifetime.most(CONFIGURED, start + ms(3_500) + MEMORY), CONFIGURED);
    }

    #[test]
    fn a_restart_teaches_nothing() {
        let start = Instant::now();
        let mut lifetime = Lifetime::default();
        // Made together and ended together, then some made one after the other and ended together.
        for (born, end) in [(0, 900), (5, 900), (10, 900), (2_000, 9_000), (4_000, 9_000), (8_000, 9_000)] {
            lifetime.closed(start + ms(born), ms(end - born), start + ms(end));
        }
        assert_eq!(lifetime.most(CONFIGURED, start + ms(9_000)), CONFIGURED);
        // Of equal age, since each was made after the restart before.
        for end in [10_000, 10_100, 10_200] {
            lifetime.closed(start + ms(end - 40), ms(40), start + ms(end));
        }
        assert_eq!(lifetime.most(CONFIGURED, start + ms(10_200)), CONFIGURED);
    }
}
