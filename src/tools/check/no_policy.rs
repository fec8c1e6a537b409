//! In place of the user's own rules, in a build without the feature `policy`.

use std::path::PathBuf;

use super::Finding;
use crate::config::Loaded;

/// Fail closed: a policy that cannot be asked forbids.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the policy {} cannot be evaluated: this egret was built without the feature `policy`", file.display())]
    NotBuilt { file: PathBuf },
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        "policy_not_built"
    }
}

/// # Errors
/// There is a policy.
pub(crate) fn evaluate(_: &Loaded, files: &[PathBuf], _: &[(String, String)]) -> Result<Vec<Finding>, Error> {
    files.first().map_or_else(|| Ok(Vec::new()), |file| Err(Error::NotBuilt { file: file.clone() }))
}
