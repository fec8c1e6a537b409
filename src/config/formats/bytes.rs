//! Amounts of memory: `"256MiB"`.

use crate::config::problems::quote;
use crate::config::read::{Fault, Text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];

/// Below this not one stream gets its buffers.
const LEAST: u64 = 4 << 20;
/// More than any machine has; sums of it are far from overflow.
const MOST: u64 = 1 << 50;

impl Text for Bytes {
    const EXAMPLES: &'static [&'static str] = &["256MiB", "2GiB", "65536KiB"];

    fn parse(text: &str) -> Result<Self, Fault> {
        let Some(bytes) = amount(text) else {
            return Err(Fault::new(
                format!("{} is not an amount of memory", quote(text)),
                "not an amount of memory",
                "write a whole number with a unit (KiB, MiB or GiB), such as \"256MiB\"",
            ));
        };
        if !(LEAST..=MOST).contains(&bytes) {
            let title = format!("{} is not between 4 MiB and 1048576 GiB", quote(text));
            return Err(Fault::new(title, "out of bounds", "write at least \"4MiB\""));
        }
        Ok(Self(bytes))
    }
}

/// `None`: not a number with a unit, or beyond all bounds.
fn amount(text: &str) -> Option<u64> {
    let (number, shift) = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_a_binary_unit() {
        for (text, bytes) in [("4MiB", 4 << 20), ("256MiB", 256 << 20), ("2GiB", 2 << 30), ("65536KiB", 64 << 20)] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_or_is_out_of_bounds_is_refused() {
        for text in
            ["", "256", "MiB", "1MB", "64 MiB", "-64MiB", "+64MiB", "1.5GiB", "0MiB", "3MiB", "18446744073709551615GiB"]
        {
            assert!(Bytes::parse(text).is_err(), "{text:?}");
        }
    }
}
