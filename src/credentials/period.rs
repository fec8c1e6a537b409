//! A span of the wall clock in which something holds.

use super::certificate::Date;

/// From one second up to another, which is not part of it.
///
/// A clock can be set back. A period that begins later than the clock shows does not hold: its real age is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: Date,
    pub(crate) until: Date,
}

impl Period {
    pub(crate) fn of(from: Date, seconds: i64) -> Self {
        Self { from, until: Date(from.0.saturating_add(seconds)) }
    }

    pub(crate) fn cut_at(self, end: Date) -> Self {
        Self { until: self.until.min(end), ..self }
    }

    pub(crate) fn holds(self, now: Date) -> bool {
        self.from <= now && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_holds_from_its_first_second_up_to_its_end() {
        let period = Period::of(Date(100), 10);
        for (now, holds) in [(99, false), (100, true), (109, true), (110, false), (i64::MIN, false)] {
            assert_eq!(period.holds(Date(now)), holds, "{now}");
        }
        assert!(!period.cut_at(Date(105)).holds(Date(105)));
        assert!(period.cut_at(Date(200)).holds(Date(109)));
        // Over before it began.
        assert!(!period.cut_at(Date(50)).holds(Date(100)));
        assert!(Period::of(Date(i64::MAX - 1), 10).holds(Date(i64::MAX - 1)));
    }
}
