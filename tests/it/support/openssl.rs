//! `openssl s_server`: the server that can be told to be wrong.

use std::net::SocketAddr;
use std::process::Command;

use super::pki::{Pair, Pki};
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running `openssl s_server -www`: answers each request with a page about the TLS session.
pub(crate) struct OpensslServer {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl OpensslServer {
    pub(crate) fn start(pki: &Pki, pair: &Pair, arguments: &[&str]) -> Self {
        Self::start_as(guarded("openssl"), pki, pair, arguments)
    }

    /// The same with a command that runs openssl, wherever it does.
    pub(crate) fn start_as(mut command: Command, pki: &Pki, pair: &Pair, arguments: &[&str]) -> Self {
        let port = free_port();
        command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")]);
        command.arg("-cert").arg(&pair.certificate);
        if !pair.is_self_signed() {
            command.arg("-cert_chain").arg(pki.intermediate());
        }
        command.arg("-key").arg(&pair.key).args(arguments);
        let output = pki.folder().join(format!("s_server-{port}.log"));
        let mut process = Process::spawn("openssl s_server", command, &output);
        // It serves one connection after the other, so no connection is made to find out.
        process.wait_for_output("ACCEPT");
        Self { process, address: loopback(port) }
    }

    /// What it said, alerts included.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}
