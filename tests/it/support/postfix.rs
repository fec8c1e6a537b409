//! A real Postfix that takes mail from nobody without TLS and a client certificate, and throws it away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::account::Account;
use super::pki::{Pair, Pki};
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running master with its services. Starts as root only: it gives each service the rights that it needs.
pub(crate) struct Postfix {
    // Ended before its folder is removed.
    _process: Process,
    folder: TempDir,
    pub(crate) port: u16,
}

/// What takes mail, and what it hands it to. Nothing of it lives in a chroot.
const SERVICES: &str = "cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
                        rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                        trace unix - - n - 0 bounce\ndiscard unix - - n - - discard\nanvil unix - - n - 1 anvil\n\
                        error unix - - n - - error\npostlog unix-dgram n - n - 1 postlogd\n";

impl Postfix {
    /// `level`: `smtpd_tls_security_level`.
    pub(crate) fn start(pki: &Pki, server: &Pair, level: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [config, queue, data] = ["config", "queue", "data"].map(|name| folder.path().join(name));
        for path in [&config, &queue, &data] {
            fs::create_dir(path).unwrap();
        }
        Account::of("postfix").own(&data);
        let port = free_port();
        fs::write(config.join("master.cf"), format!("{port} inet n - n - - smtpd\n{SERVICES}")).unwrap();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {queue}\ndata_directory = {data}\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
             mail_owner = postfix\nsetgid_group = postdrop\nmaillog_file_prefixes = {folder}\n\
             maillog_file = {folder}/log\nmyhostname = mail.example.com\nmydestination = example.com\n\
             mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nalias_maps =\n\
             alias_database =\nlocal_recipient_maps =\nlocal_transport = discard\n\
             smtpd_tls_security_level = {level}\nsmtpd_tls_chain_files = {key}, {certificate}\n\
             smtpd_tls_CAfile = {root}\nsmtpd_tls_req_ccert = yes\nsmtpd_tls_loglevel = 2\n\
             smtpd_tls_session_cache_database =\n",
            queue = queue.display(),
            data = data.display(),
            folder = folder.path().display(),
            key = server.key.display(),
            certificate = server.certificate.display(),
            root = pki.root().display(),
        );
        fs::write(config.join("main.cf"), main).unwrap();
        // Makes the folders of the queue.
        super::process::run(guarded("/usr/sbin/postfix").arg("-c").arg(&config).arg("check"));
        let mut command = guarded("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(&config).arg("-d");
        let mut process = Process::spawn("postfix", command, &folder.path().join("output"));
        process.wait_for_port(loopback(port));
        Self { _process: process, folder, port }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        let log: PathBuf = self.folder.path().join("log");
        String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
    }
}
