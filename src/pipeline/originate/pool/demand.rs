//! How many warm connections are worth having: from arrivals and the time that an origination takes. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::values::Pool;

#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Arrivals per second, with a short memory and with a long one.
    quick: f64,
    slow: f64,
    at: Instant,
    last: Instant,
    /// Time of an origination, in seconds, until it is on the shelf.
    takes: f64,
}

/// A change of the traffic is followed within a second.
const QUICK: f64 = 1.0;
/// Seconds: sparse traffic, some connections a minute, is remembered this long.
const SLOW: f64 = 20.0;
/// Arrivals that would have come in a silence, if the rate were what it was: more than this do not stay away by chance.
/// Without it, the shelf was still full a minute after three hundred arrivals a second.
const EXPECTED: f64 = 3.0;
/// Part of a new measurement in the time of an origination: the last eight or so count.
const WEIGHT: f64 = 0.125;
/// Before the first measurement. A guess of the worst kind of path, so that the first seconds are not too cold.
const GUESS: f64 = 0.2;

impl Demand {
    pub(crate) fn new(now: Instant) -> Self {
        Self { quick: 0.0, slow: 0.0, at: now, last: now, takes: GUESS }
    }

    /// `count` streams have come since the last call.
    pub(crate) fn arrived(&mut self, count: usize, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        if count > 0 {
            self.last = now;
        }
        let count = count as f64;
        self.quick = self.quick * (-passed / QUICK).exp() + count / QUICK;
        self.slow = self.slow * (-passed / SLOW).exp() + count / SLOW;
    }

    pub(crate) fn took(&mut self, time: Duration) {
        let time = time.as_secs_f64();
        self.takes = if self.takes == GUESS { time } else { self.takes + WEIGHT * (time - self.takes) };
    }

    /// How many there should be, ready or under way.
    ///
    /// The target is n + 2·sqrt(n), n = arrival rate x origination time: head-room for Poisson arrivals. It is
    /// `min_idle` if a connection would probably expire unused.
    pub(crate) fn wanted(&self, pool: &Pool, age: Duration, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let quick = self.quick * (-passed / QUICK).exp();
        let slow = self.slow * (-passed / SLOW).exp();
        let silence = now.saturating_duration_since(self.last).as_secs_f64();
        let rate = quick.max(slow.min(EXPECTED / silence));
        if rate * age.as_secs_f64() < USED {
            return pool.min_idle;
        }
        let meanwhile = rate * self.takes;
        let wanted = (meanwhile + 2.0 * meanwhile.sqrt()).ceil();
        // Not negative, and far below what a usize holds before it is bounded.
        (wanted as usize).clamp(pool.min_idle.max(1), pool.max_idle)
    }
}

/// A connection is made if this many arrivals are expected before it is too old.
const USED: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Pool = Pool { min_idle: 1, max_idle: 16, max_idle_age: Duration::from_secs(30) };
    const AGE: Duration = POOL.max_idle_age;

    fn after(rate: f64, seconds: f64) -> (Demand, Instant) {
        let mut now = Instant::now();
        let mut demand = Demand::new(now);
        demand.took(Duration::from_millis(80));
        for _ in 0..(rate * seconds) as usize {
            now += Duration::from_secs_f64(1.0 / rate);
            demand.arrived(1, now);
        }
        (demand, now)
    }

    #[test]
    fn steady_traffic_is_met_with_what_it_takes_while_one_is_made() {
        let (demand, now) = after(50.0, 5.0);
        // 50 x 0.08 = 4 are taken meanwhile, and two roots of four come on top; the last arrival weighs a little more.
        assert!((8..=9).contains(&demand.wanted(&POOL, AGE, now)));
        let (demand, now) = after(2.0, 30.0);
        assert!((1..=2).contains(&demand.wanted(&POOL, AGE, now)));
    }

    #[test]
    fn no_traffic_leaves_the_floor() {
        let (demand, now) = after(50.0, 5.0);
        let wanted: Vec<usize> =
            (0..120).map(|second| demand.wanted(&POOL, AGE, now + Duration::from_secs(second))).collect();
        assert!(wanted.is_sorted_by(|sooner, later| sooner >= later), "{wanted:?}");
        assert_eq!(*wanted.last().expect("a minute"), POOL.min_idle);
    }

    #[test]
    fn heavy_traffic_that_stops_is_forgotten_sooner_than_sparse_traffic() {
        let (mut demand, now) = after(300.0, 30.0);
        (0..50).for_each(|_| demand.took(Duration::from_millis(300)));
        assert_eq!(demand.wanted(&POOL, AGE, now), POOL.max_idle);
        assert!(demand.wanted(&POOL, AGE, now + Duration::from_secs(10)) <= 2);
        let (demand, now) = after(0.2, 60.0);
        let none = Pool { min_idle: 0, ..POOL };
        assert!(demand.wanted(&none, AGE, now + Duration::from_secs(10)) >= 1, "one in five seconds");
    }

    #[test]
    fn bounds_hold_whatever_comes() {
        let mut demand = Demand::new(Instant::now());
        assert_eq!(demand.wanted(&POOL, AGE, demand.at), POOL.min_idle);
        demand.arrived(1_000_000, demand.at);
        demand.took(Duration::from_secs(10));
        assert_eq!(demand.wanted(&POOL, AGE, demand.at), POOL.max_idle);
        let none = Pool { min_idle: 0, ..POOL };
        assert_eq!(Demand::new(demand.at).wanted(&none, AGE, demand.at), 0);
    }

    #[test]
    fn what_would_rather_age_than_be_used_is_not_made() {
        let mut demand = Demand::new(Instant::now());
        demand.arrived(1, demand.at);
        let none = Pool { min_idle: 0, ..POOL };
        assert!((1..=2).contains(&demand.wanted(&none, AGE, demand.at)));
        assert_eq!(demand.wanted(&none, AGE, demand.at + Duration::from_secs(120)), 0);
        assert_eq!(demand.wanted(&none, Duration::from_millis(100), demand.at + Duration::from_secs(5)), 0);
    }
}
