//! A real Redis that speaks TLS only, and only to clients with a certificate.

use std::process::Command;

use super::namespace::Namespace;
use super::pki::{Pair, Pki};
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running redis-server.
pub(crate) struct Redis {
    process: Process,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start(pki: &Pki, server: &Pair) -> Self {
        let mut redis = Self::spawn(guarded("redis-server"), pki, server);
        redis.process.wait_for_port(loopback(redis.port));
        redis
    }

    /// Starts inside a namespace, where only those inside reach it.
    pub(crate) fn start_inside(namespace: &Namespace, pki: &Pki, server: &Pair) -> Self {
        let mut redis = Self::spawn(namespace.guarded("redis-server"), pki, server);
        redis.process.wait_for_output("Ready to accept connections");
        redis
    }

    fn spawn(mut command: Command, pki: &Pki, server: &Pair) -> Self {
        let port = free_port();
        command.args(["--port", "0", "--bind", "127.0.0.1", "--tls-port", &port.to_string()]);
        command.args(["--tls-auth-clients", "yes", "--save", "", "--appendonly", "no", "--maxclients", "2000"]);
        command.arg("--dir").arg(pki.folder());
        command.arg("--tls-cert-file").arg(&server.certificate).arg("--tls-key-file").arg(&server.key);
        command.arg("--tls-ca-cert-file").arg(pki.root());
        Self { process: Process::spawn("redis-server", command, &pki.folder().join("redis.log")), port }
    }
}
