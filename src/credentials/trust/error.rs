//! Why a trust could not be loaded.

use std::path::PathBuf;

use crate::credentials::{contents, files};

/// Why a trust could not be loaded.
#[derive(Debug)]
pub struct Error {
    /// The file or folder at fault; `None`: the system's roots, or the trust as a whole.
    pub(crate) file: Option<PathBuf>,
    pub(crate) what: Wrong,
}

#[allow(missing_docs, reason = "the text of the error is the documentation")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("{0}")]
    File(#[source] files::Error),
    #[error("cannot be listed: {0}")]
    Folder(#[source] std::io::Error),
    #[error("has more than {} files: not the folder that was meant", super::load::MAX_FOLDER)]
    FolderTooLarge,
    #[error("{0}")]
    Damaged(#[source] contents::Error),
    #[error("holds no certificate")]
    NoCertificate,
    #[error("holds no root that can be used; {0}")]
    NoUsableRoot(String),
    #[error("holds {0} certificates where exactly one is trusted: split the file, or use it as `roots`")]
    NotOneCertificate(usize),
    #[error("holds a certificate that cannot be read")]
    BadCertificate,
    #[error(
        "the system has no root certificates{}: install the package ca-certificates, or name `roots`",
        .0.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
    )]
    NoSystemRoots(Option<String>),
    #[error("there are no roots: name `roots`, a `certificate` or `system_roots = true`")]
    NoRoots,
    #[error("`pins_only` without any pin would trust nobody")]
    NoPins,
    #[error("holds no revocation list")]
    NoCrl,
    #[error("line {line}: a revocation list that cannot be used: {why}")]
    BadCrl { line: usize, why: String },
    #[error("`crls` need `roots`: without a chain there is no issuer whose list could be believed")]
    CrlsWithoutChain,
}

impl Error {
    /// The fixed word for log and metric.
    pub fn reason(&self) -> &'static str {
        match &self.what {
            Wrong::File(files::Error::Unreadable(_) | files::Error::NotRegular(_) | files::Error::TooLarge)
            | Wrong::Folder(_)
            | Wrong::FolderTooLarge => "trust_unreadable",
            Wrong::File(files::Error::Empty)
            | Wrong::Damaged(_)
            | Wrong::NoCertificate
            | Wrong::NoUsableRoot(_)
            | Wrong::NotOneCertificate(_)
            | Wrong::BadCertificate => "trust_malformed",
            Wrong::NoSystemRoots(_) | Wrong::NoRoots | Wrong::NoPins => "trust_empty",
            Wrong::NoCrl | Wrong::BadCrl { .. } => "trust_crl_malformed",
            Wrong::CrlsWithoutChain => "trust_contradiction",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} {}", file.display(), self.what),
            None => write!(f, "{}", self.what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.what.source()
    }
}
