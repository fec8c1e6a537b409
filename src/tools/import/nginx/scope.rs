//! A block with the blocks around it: where nginx looks for what holds in it.

use std::time::Duration;

use crate::tools::import::nginx::parse::Directive;

/// A block with its enclosing blocks, from which it inherits.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    /// From the innermost block; never empty.
    chain: Vec<&'a [Directive]>,
    /// Variables of nginx whose values follow from the `listen` and the server: name and value.
    known: Vec<(&'static str, String)>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(directives: &'a [Directive]) -> Self {
        Self { chain: vec![directives], known: Vec::new() }
    }

    pub(crate) fn inner(&self, directives: &'a [Directive]) -> Self {
        let outer = self.chain.iter().copied();
        Self { chain: std::iter::once(directives).chain(outer).collect(), known: self.known.clone() }
    }

    /// The same block, for connections with these values of variables.
    pub(crate) fn with(&self, known: Vec<(&'static str, String)>) -> Self {
        Self { chain: self.chain.clone(), known }
    }

    /// The value of a variable, if it is equal for all connections here.
    pub(crate) fn known(&self, name: &str) -> Option<&str> {
        self.known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Without inherited directives.
    pub(crate) fn own(&self) -> &'a [Directive] {
        self.chain.first().copied().unwrap_or_default()
    }

    /// The directives of this name in the nearest block that has any.
    pub(crate) fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.any_of(&[name])
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).pop()
    }

    /// The directives of these names in the nearest block that has any, in order.
    pub(crate) fn any_of(&self, names: &[&str]) -> Vec<&'a Directive> {
        let named = |directive: &&Directive| names.contains(&directive.name.text.as_str());
        let blocks = self.chain.iter().map(|block| block.iter().filter(named).collect::<Vec<_>>());
        blocks.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// From the innermost block outwards.
    pub(crate) fn chain(&self) -> &[&'a [Directive]] {
        &self.chain
    }
}

/// Times of nginx: `60`, `500ms`, `1h30m`; several words are one time. `None`: it is none.
pub(crate) fn time(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
        ("M", 2_592_000_000),
        ("y", 31_536_000_000),
    ];
    let mut rest = text.trim();
    let mut millis = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        let after = rest[digits..].trim_start();
        let unit = UNITS.iter().find(|(unit, _)| after.starts_with(unit));
        let (length, taken) = match unit {
            Some((unit, length)) => (*length, unit.len()),
            None if after.is_empty() => (1000, 0),
            None => return None,
        };
        millis = millis.checked_add(number.checked_mul(length)?)?;
        rest = after[taken..].trim_start();
    }
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_nginx() {
        assert_eq!(time("60"), Some(Duration::from_secs(60)));
        assert_eq!(time("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(time("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(time("2M"), Some(Duration::from_secs(5_184_000)));
        for text in ["", "m", "1x", "99999999999999999999", "-1"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
