//! Why a configuration that is right in itself cannot run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::values::{Name, Written};
use crate::credentials::files;
use crate::credentials::part::Broken;
use crate::pipeline::admit;
use crate::pipeline::originate::origin;
use crate::pipeline::originate::servers::resolve;

/// One reason to reject a generation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An identity or a trust cannot be used; only where all of them have to be ([`super::Rigour::Strict`]), or beside
    /// [`BuildError::NothingServed`].
    #[error("{}", .0.fault)]
    Part(Arc<Broken>),
    /// TLS cannot be spoken as an upstream says.
    #[error("upstream {0}: {1}")]
    Upstream(Name, origin::Error),
    /// A listener's `allow_users` has a user that this machine does not have.
    #[error("listener {0}: {1}")]
    Listener(Name, admit::Error),
    /// The token of an admin address cannot be read.
    #[error("admin: token_file {path}: {1}", path = .0.display())]
    Token(PathBuf, files::Error),
    /// Names cannot be resolved as the configuration says.
    #[error("dns: {0}")]
    Dns(resolve::Error),
    /// Every upstream that a listener leads to lacks its identity or its trust.
    #[error("no stream could be served: every upstream lacks its identity or its trust")]
    NothingServed,
}

impl BuildError {
    /// What to change.
    pub fn repair(&self) -> String {
        match self {
            Self::Part(_) => "put the right file in its place, or name another".to_owned(),
            Self::Upstream(..) => "change the settings under tls that contradict each other".to_owned(),
            Self::Listener(..) => "name a user of this machine, or a numeric user id".to_owned(),
            Self::Token(..) => "put the token into the file, or name another".to_owned(),
            Self::Dns(_) => "check [dns] and the resolver configuration of the system".to_owned(),
            Self::NothingServed => "put right the files of one upstream at least".to_owned(),
        }
    }

    /// The class, for log and metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Part(broken) => broken.fault.reason,
            Self::Upstream(_, error) => error.reason(),
            Self::Listener(_, error) => error.reason(),
            Self::Token(..) => "admin_token_unusable",
            Self::Dns(error) => error.reason(),
            Self::NothingServed => "nothing_served",
        }
    }
}

/// All reasons to reject a generation, at least one. Their text shows no value of a variable.
#[derive(Debug)]
pub struct BuildErrors {
    list: Vec<BuildError>,
    written: Written,
}

impl BuildErrors {
    pub(super) fn new(list: Vec<BuildError>, written: Written) -> Self {
        Self { list, written }
    }

    /// The class of the first.
    pub fn reason(&self) -> &'static str {
        self.list.first().map_or("interrupted", BuildError::reason)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BuildError> {
        self.list.iter()
    }

    /// Class and text of each.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.list.iter().map(|error| (error.reason(), self.written.hide_values(&error.to_string())))
    }
}

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (_, line)) in self.lines().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildErrors {}
