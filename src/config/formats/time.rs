//! Durations: `"500ms"`, `"30s"`, `"1h30m"`.

use std::time::Duration;

use crate::config::problems::quote;
use crate::config::read::{Fault, Text};

/// Units and their length in milliseconds. `ms` stands before `m`: the longest suffix has to win.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// No deadline of a connection is longer than a year; the clocks behind timers are far from overflow there.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

impl Text for Duration {
    const EXAMPLES: &'static [&'static str] = &["30s", "500ms", "5m", "1h30m", "1d"];

    fn parse(text: &str) -> Result<Self, Fault> {
        let Some(duration) = sum(text) else { return Err(not_a_duration(text)) };
        if duration > LONGEST {
            return Err(Fault::new(
                format!("{} is longer than a year", quote(text)),
                "too long",
                "write at most \"365d\"",
            ));
        }
        Ok(duration)
    }
}

/// The sum of number-unit pairs; `None`: not of that form, or beyond all bounds.
fn sum(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let (unit, length) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        millis = millis.checked_add(number.checked_mul(*length)?)?;
        rest = &rest[digits + unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

fn not_a_duration(text: &str) -> Fault {
    let title = format!("{} is not a duration", quote(text));
    if !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Fault::new(title, "no unit", format!("say the unit, such as \"{text}s\" (ms, s, m, h or d)"));
    }
    Fault::new(
        title,
        "not a duration",
        "write whole numbers with a unit (ms, s, m, h or d), such as \"30s\" or \"1h30m\"",
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

impl Text for Limit {
    const EXAMPLES: &'static [&'static str] = &["1h", "30m", "never"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if text == "never" {
            return Ok(Self(None));
        }
        let duration = Duration::parse(text)
            .map_err(|fault| Fault { repair: format!("{}; or \"never\"", fault.repair), ..fault })?;
        Ok(Self(Some(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up() {
        assert_eq!(Duration::parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(Duration::parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(Limit::parse("never"), Ok(Limit(None)));
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "5", "s", "5 s", "1.5s", "-1s", "5sec", "99999999999999999999s", "366d"] {
            assert!(Duration::parse(text).is_err(), "{text:?}");
        }
    }
}
