//! `egret demo`: an upstream that asks for client certificates, and egret in front of it, without any set-up.
//!
//! Everything is made for the occasion and gone afterwards: the authority, the certificates, the folder they lie
//! in. The proxy in front of the upstream is not: it is the ordinary egret, with an ordinary configuration file.

mod certificates;
mod folder;
mod page;
mod ports;
mod upstream;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::{self, Problems};
use crate::control::hardening::Hardening;
use crate::control::signals::{self, Signals};
use crate::control::snapshot::Rigour;
use crate::control::supervise::{self, Ended, Start};
use crate::observe::logging;
use certificates::Certificates;
use folder::Folder;
use page::Page;
use ports::Ports;
use upstream::Upstream;

const SERVER_NAME: &str = "certauth.example.com";

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Signals cannot be received, so the folder could not be removed when the process ends.
    #[error(transparent)]
    Signals(signals::Error),
    /// The folder or a file in it cannot be made.
    #[error("cannot write {path}: {cause}", path = .path.display())]
    Folder {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A key or a certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(rcgen::Error),
    /// The upstream cannot be configured.
    #[error("cannot make the upstream: {0}")]
    Tls(String),
    /// No port of 127.0.0.1 is to be had.
    #[error("cannot listen on 127.0.0.1: {0}")]
    Listen(io::Error),
    /// The page cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The configuration is not one.
    #[error("{0}")]
    Configuration(Problems),
    /// There is no log.
    #[error(transparent)]
    Log(logging::Error),
    /// egret does not start.
    #[error(transparent)]
    Run(supervise::Error),
}

/// Starts the upstream, writes to `out` what to try, and runs egret in front of it until it is asked to stop.
///
/// # Errors
/// Why it could not start. The folder is gone then, too.
pub async fn run(out: &mut dyn Write) -> Result<Ended, Error> {
    // Before there is anything that a signal could leave behind.
    let signals = Signals::new().map_err(Error::Signals)?;
    let folder = Folder::new()?;
    let certificates = Certificates::new().map_err(Error::Certificate)?;
    let upstream = Upstream::bind(&certificates).await?;
    let page = Page { ports: Ports::choose()?, upstream: upstream.address()?, folder: folder.path() };
    let file = write_files(&folder, &certificates, &page)?;

    let source = {
        let file = file.clone();
        Arc::new(move || config::load(&file, &|_| None))
    };
    let config = source().map_err(Error::Configuration)?.config;
    let log = logging::init(&config.log).map_err(Error::Log)?;
    out.write_all(page.text().as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)?;
    let mut upstreams = JoinSet::new();
    upstreams.spawn(upstream.serve());
    let rigour = Rigour::PartByPart;
    // The folder is removed at the end, and the upstream has certificates of its own.
    let hardening = Hardening::off();
    let start = Start { source, file: Some(file), config, log, key_log: None, rigour, entrypoint: None, hardening };
    supervise::run_under(signals, start).await.map_err(Error::Run)
}

/// Writes what egret will read. The authority's key and those of the upstream are in no file.
fn write_files(folder: &Folder, certificates: &Certificates, page: &Page<'_>) -> Result<PathBuf, Error> {
    folder.write("ca.crt", &certificates.authority)?;
    folder.write("client.crt", &certificates.client.pem)?;
    folder.write("client.key", &certificates.client.key.serialize_pem())?;
    folder.write("egret.toml", &page.configuration())
}
