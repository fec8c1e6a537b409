//! The bearer tokens of admin addresses. Only their digests are kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

use super::BuildError;
use crate::config::values::Config;
use crate::credentials::files;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(HashMap<PathBuf, Digest>);

impl Tokens {
    /// Those of the configuration; those of `previous` stay, since admin addresses change at a restart only. Reads files.
    pub(super) fn load(config: &Config, previous: Option<&Self>, errors: &mut Vec<BuildError>) -> Self {
        let mut tokens = previous.cloned().unwrap_or_default();
        for path in config.admin.iter().filter_map(|admin| admin.token_file.as_ref()) {
            match files::read(path) {
                Ok(content) => {
                    let token = digest(&SHA256, content.bytes.expose().trim_ascii());
                    tokens.0.insert(path.clone(), token);
                }
                Err(error) => errors.push(BuildError::Token(path.clone(), error)),
            }
        }
        tokens
    }

    /// Whether `shown` is the token in this file. The time that this takes depends on the length of `shown` alone.
    pub(crate) fn is_valid(&self, file: &Path, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        self.0.get(file).is_some_and(|token| verify_slices_are_equal(token.as_ref(), shown.as_ref()).is_ok())
    }
}
