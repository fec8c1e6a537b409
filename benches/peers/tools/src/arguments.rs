//! `--name value` pairs.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};

/// The pairs of one command line.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut pairs = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("{word} is not a --name"))?;
            let value = words.next().with_context(|| format!("{word} has no value"))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    /// The value of `--name`, which has to be there.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<T> {
        let value = self.0.get(name).with_context(|| format!("--{name} is missing"))?;
        value.parse().map_err(|_| anyhow!("--{name} cannot be {value}"))
    }

    /// The value of `--name`, or what stands for it.
    pub fn get_or<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        if self.0.contains_key(name) { self.get(name) } else { Ok(default) }
    }
}
