//! A real vsftpd that lets in nobody without TLS and a client certificate on the control connection. Its data connections
//! are plaintext.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::pki::{Pair, Pki};
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running vsftpd with one file, `file`, for the user `anonymous`. Starts as root only: it gives up its rights itself.
pub(crate) struct Vsftpd {
    // Ended before its folder is removed.
    _process: Process,
    folder: TempDir,
    pub(crate) port: u16,
}

/// What `file` holds.
pub(crate) const CONTENT: &str = "hello\n";

impl Vsftpd {
    pub(crate) fn start(pki: &Pki, server: &Pair) -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [empty, home] = ["empty", "home"].map(|name| folder.path().join(name));
        for path in [&empty, &home] {
            fs::create_dir(path).unwrap();
        }
        fs::write(home.join("file"), CONTENT).unwrap();
        let port = free_port();
        let config = format!(
            "listen=YES\nbackground=NO\nlisten_address=127.0.0.1\nlisten_port={port}\nanonymous_enable=YES\n\
             anon_root={home}\nno_anon_password=YES\nsecure_chroot_dir={empty}\nssl_enable=YES\n\
             allow_anon_ssl=YES\nforce_anon_logins_ssl=YES\nforce_anon_data_ssl=NO\nrequire_cert=YES\n\
             validate_cert=YES\nca_certs_file={root}\nrsa_cert_file={certificate}\nrsa_private_key_file={key}\n\
             ssl_tlsv1=YES\ndebug_ssl=YES\nxferlog_enable=YES\nvsftpd_log_file={log}\nlog_ftp_protocol=YES\n\
             seccomp_sandbox=NO\n",
            home = home.display(),
            empty = empty.display(),
            root = pki.root().display(),
            certificate = server.certificate.display(),
            key = server.key.display(),
            log = folder.path().join("log").display(),
        );
        let file = folder.path().join("vsftpd.conf");
        fs::write(&file, config).unwrap();
        let mut command = guarded("/usr/sbin/vsftpd");
        command.arg(&file);
        let mut process = Process::spawn("vsftpd", command, &folder.path().join("output"));
        process.wait_for_port(loopback(port));
        Self { _process: process, folder, port }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        let log: PathBuf = self.folder.path().join("log");
        String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
    }
}
