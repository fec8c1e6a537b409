//! The state of an identity or a trust in a generation: a file that cannot be used harms only what uses it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::values::{Name, Written};
use crate::credentials::certificate::Date;
use crate::credentials::{identity, trust};

/// An identity or a trust of a generation.
#[derive(Debug)]
pub(crate) enum Part<T> {
    /// As its files say.
    Live(Arc<T>),
    /// Its files cannot be used: what an earlier generation loaded stays in force.
    Kept {
        /// The last good state.
        last: Arc<T>,
        /// What is wrong with the files of now.
        broken: Arc<Broken>,
    },
    /// Its files cannot be used, and there was no good state before. Nobody speaks for it and nobody is believed by it.
    Unavailable(Arc<Broken>),
}

/// What is wrong with a part.
#[derive(Debug)]
pub struct Broken {
    /// Which part, and why it could not be loaded the last time.
    pub(crate) fault: Fault,
    /// The first of the loads in a row that failed.
    pub(crate) since: Date,
}

/// A kind of part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PartKind {
    /// A certificate chain and its key.
    Identity,
    /// Roots, one certificate or pins.
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
    /// The word for log, metric and status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Trust => "trust",
        }
    }
}

impl Fault {
    /// An identity's files cannot be used.
    pub(crate) fn of_identity(name: &Name, error: &identity::Error, written: &Written) -> Self {
        let detail = written.hide_values(&error.to_string());
        Self { kind: PartKind::Identity, name: name.clone(), reason: error.reason(), detail }
    }

    /// A trust's files cannot be used.
    pub(crate) fn of_trust(name: &Name, error: &trust::Error, written: &Written) -> Self {
        let detail = written.hide_values(&error.to_string());
        Self { kind: PartKind::Trust, name: name.clone(), reason: error.reason(), detail }
    }
}

impl Fault {
    /// Its files were not read within `limit`.
    pub(crate) fn too_late(kind: PartKind, name: &Name, limit: Duration) -> Self {
        let detail = format!("its files could not be loaded within {} s: a disk hangs", limit.as_secs());
        Self { kind, name: name.clone(), reason: TooLate(kind).reason(), detail }
    }
}

/// The files of a part of this kind were not read in time.
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
    /// The words of all states.
    pub(crate) const STATES: [&'static str; 3] = ["live", "kept", "unavailable"];

    /// What a load came to; `before` is the part of the generation that runs.
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

    /// What streams use; none if they cannot be served.
    pub(crate) fn usable(&self) -> Option<&Arc<T>> {
        match self {
            Self::Live(part) | Self::Kept { last: part, .. } => Some(part),
            Self::Unavailable(_) => None,
        }
    }

    /// What is wrong with its files.
    pub(crate) fn broken(&self) -> Option<&Arc<Broken>> {
        match self {
            Self::Live(_) => None,
            Self::Kept { broken, .. } | Self::Unavailable(broken) => Some(broken),
        }
    }

    /// The word of its state, one of [`Part::STATES`].
    pub(crate) fn state(&self) -> &'static str {
        match self {
            Self::Live(_) => "live",
            Self::Kept { .. } => "kept",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
