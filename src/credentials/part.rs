//! The state of an identity or a trust in a generation: a file that cannot be used harms only what uses it.

use std::sync::Arc;

use crate::config::values::Name;
use crate::credentials::certificate::Date;
use crate::credentials::{identity, trust};

/// An identity or a trust of a generation.
#[derive(Debug)]
pub enum Part<T> {
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
    pub fault: Fault,
    /// The first of the loads in a row that failed.
    pub since: Date,
}

/// Why a part could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An identity's files cannot be used.
    #[error("identity {0}: {1}")]
    Identity(Name, identity::Error),
    /// A trust's files cannot be used.
    #[error("trust {0}: {1}")]
    Trust(Name, trust::Error),
}

impl Fault {
    /// The kind of part: a word for log, metric and status.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Identity(..) => "identity",
            Self::Trust(..) => "trust",
        }
    }

    /// What the configuration calls the part.
    pub fn name(&self) -> &Name {
        match self {
            Self::Identity(name, _) | Self::Trust(name, _) => name,
        }
    }

    /// The class of what is wrong with the file.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Identity(_, error) => error.reason(),
            Self::Trust(_, error) => error.reason(),
        }
    }
}

impl Broken {
    /// The class of what an unavailable part means for streams that need it.
    pub fn reason(&self) -> &'static str {
        match &self.fault {
            Fault::Identity(..) => "identity_unavailable",
            Fault::Trust(..) => "trust_unavailable",
        }
    }
}

impl<T> Part<T> {
    /// The words of all states.
    pub const STATES: [&'static str; 3] = ["live", "kept", "unavailable"];

    /// What a load came to; `before` is the part of the generation that runs.
    pub fn after(loaded: Result<T, Fault>, before: Option<&Self>, now: Date) -> Self {
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
    pub fn usable(&self) -> Option<&Arc<T>> {
        match self {
            Self::Live(part) | Self::Kept { last: part, .. } => Some(part),
            Self::Unavailable(_) => None,
        }
    }

    /// What is wrong with its files.
    pub fn broken(&self) -> Option<&Arc<Broken>> {
        match self {
            Self::Live(_) => None,
            Self::Kept { broken, .. } | Self::Unavailable(broken) => Some(broken),
        }
    }

    /// The word of its state, one of [`Part::STATES`].
    pub fn state(&self) -> &'static str {
        match self {
            Self::Live(_) => "live",
            Self::Kept { .. } => "kept",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
