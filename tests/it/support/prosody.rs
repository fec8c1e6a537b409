//! A real Prosody that serves nobody without TLS and a client certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::account::Account;
use super::pki::{Pair, Pki};
use super::process::Process;
use super::{free_port, loopback};

/// A running prosody.
pub(crate) struct Prosody {
    // Ended before its folder is removed.
    _process: Process,
    _folder: TempDir,
    pub(crate) clients: u16,
    pub(crate) servers: u16,
}

impl Prosody {
    pub(crate) fn start(pki: &Pki, server: &Pair, domain: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let account = Account::of("prosody");
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let key = folder.path().join("server.key");
        fs::copy(&server.key, &key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let [clients, servers] = [free_port(), free_port()];
        let config = format!(
            "pidfile = {pid:?}\ndata_path = {data:?}\ninterfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {clients} }}\n\
             s2s_ports = {{ {servers} }}\nc2s_require_encryption = true\ns2s_require_encryption = true\n\
             s2s_secure_auth = true\nmodules_enabled = {{ \"saslauth\", \"tls\", \"disco\" }}\n\
             authentication = \"internal_plain\"\nlog = {{ {{ levels = {{ min = \"info\" }}, to = \"console\" }} }}\n\
             ssl = {{ certificate = {certificate:?}, key = {key:?}, cafile = {root:?}, \
             verify = {{ \"peer\", \"fail_if_no_peer_cert\" }} }}\nVirtualHost {domain:?}\n",
            pid = folder.path().join("pid"),
            certificate = server.certificate,
            root = pki.root(),
        );
        let file = folder.path().join("prosody.cfg.lua");
        fs::write(&file, config).unwrap();
        for path in [folder.path(), &data, &key] {
            account.own(path);
        }
        let mut command = account.command("/usr/bin/prosody".as_ref());
        command.arg("-F").arg("--config").arg(&file);
        let mut process = Process::spawn("prosody", command, &folder.path().join("output"));
        for port in [clients, servers] {
            process.wait_for_port(loopback(port));
        }
        Self { _process: process, _folder: folder, clients, servers }
    }
}
