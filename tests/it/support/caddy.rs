//! A real Caddy: TLS as the standard library of Go has it.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use super::pki::Pair;
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running Caddy that ends TLS for a plain HTTP server.
pub(crate) struct Caddy {
    _process: Process,
    _folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Caddy {
    /// `tls` are lines of its block of that name.
    pub(crate) fn start(host: &str, pair: &Pair, tls: &str, backend: SocketAddr) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let Pair { certificate, key, .. } = pair;
        let text = format!(
            "{{\n\tadmin off\n\tauto_https off\n}}\nhttps://{host}:{port} {{\n\tbind 127.0.0.1\n\
             \ttls {} {} {{\n{tls}\n\t}}\n\treverse_proxy {backend}\n}}\n",
            certificate.display(),
            key.display()
        );
        let config = folder.path().join("Caddyfile");
        fs::write(&config, text).unwrap();
        let mut command = guarded("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config);
        command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
        let mut process = Process::spawn("caddy", command, &folder.path().join("output.log"));
        process.wait_for_port(loopback(port));
        Self { _process: process, _folder: folder, address: loopback(port) }
    }
}
