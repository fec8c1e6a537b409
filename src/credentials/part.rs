//! The state of an identity or a trust in a generation: a file that cannot be used harms only what uses it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::values::{Name, Written};
use crate::credentials::certificate::Date;
use crate::credentials::{identity, trust};

#[derive(Debug)]
pub(crate) enum Part<T> {
    Live(Arc<T>),
    /// Its files cannot be used: what an earlier generation loaded stays in force.
    Kept {
        last: Arc<T>,
        broken: Arc<Broken>,
    },
    /// Its files cannot be used, and there was no good state before. Upstreams that need it serve no streams.
    Unavailable(Arc<Broken>),
}

/// The fault of a part.
#[derive(Debug)]
pub struct Broken {
    pub(crate) fault: Fault,
    /// The first of the loads in a row that failed.
    pub(crate) since: Date,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PartKind {
    Identity,
    Trust,
}

/// Why a part could not be loaded. It is text and not the error, since the error may quote what a variable of the
/// environment was replaced by: a secret in the place of a path, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The kind of part.
    pub kind: PartKind,
    /// What the configuration calls the part.
    pub name: Name,
    /// The class of what is wrong with the file.
    pub reason: &'static str,
    /// The file and what is wrong with it, without values of variables.
    pub detail: String,
}

impl PartKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Trust => "trust",
        }
    }
}

impl Fault {
    pub(crate) fn of_identity(name: &Name, error: &identity::Error, written: &Written) -> Self {
        let detail = written.hide_values(&error.to_string());
        Self { kind: PartKind::Identity, name: name.clone(), reason: error.reason(), detail }
    }

    pub(crate) fn of_trust(name: &Name, error: &trust::Error, written: &Written) -> Self {
        let detail = written.hide_values(&error.to_string());
        Self { kind: PartKind::Trust, name: name.clone(), reason: error.reason(), detail }
    }
}

impl Fault {
    pub(crate) fn too_late(kind: PartKind, name: &Name, limit: Duration) -> Self {
        let detail = format!("its files could not be loaded within {} s: a disk hangs", limit.as_secs());
        Self { kind, name: name.clone(), reason: TooLate(kind).reason(), detail }
    }
}

struct TooLate(PartKind);

impl TooLate {
    fn reason(&self) -> &'static str {
        match self.0 {
            PartKind::Identity => "identity_timeout",
            PartKind::Trust => "trust_timeout",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind.as_str(), self.name, self.detail)
    }
}

impl Broken {
    /// The class of what an unavailable part means for streams that need it.
    pub fn reason(&self) -> &'static str {
        match self.fault.kind {
            PartKind::Identity => "identity_unavailable",
            PartKind::Trust => "trust_unavailable",
        }
    }
}

impl<T> Part<T> {
    pub(crate) const STATES: [&'static str; 3] = ["live", "kept", "unavailable"];

    /// The state after a load; `before` is the part of the running generation.
    pub(crate) fn after(loaded: Result<T, Fault>, before: Option<&Self>, now: Date) -> Self {
        let fault = match loaded {
            Ok(part) => return Self::Live(Arc::new(part)),
            Err(fault) => fault,
        };
        let since = before.and_then(Self::broken).map_or(now, |broken| broken.since);
        let broken = Arc::new(Broken { fault, since });
        match before.and_then(Self::usable) {
            Some(last) => Self::Kept { last: Arc::clone(last), broken },
            None => Self::Unavailable(broken),
        }
    }

    /// `None` if streams cannot be served.
    pub(crate) fn usable(&self) -> Option<&Arc<T>> {
        match self {
            Self::Live(part) | Self::Kept { last: part, .. } => Some(part),
            Self::Unavailable(_) => None,
        }
    }

    pub(crate) fn broken(&self) -> Option<&Arc<Broken>> {
        match self {
            Self::Live(_) => None,
            Self::Kept { broken, .. } | Self::Unavailable(broken) => Some(broken),
        }
    }

    pub(crate) fn state(&self) -> &'static str {
        match self {
            Self::Live(_) => "live",
            Self::Kept { .. } => "kept",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
