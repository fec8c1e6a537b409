//! A real Dovecot that takes no mail and no log-in without TLS. IMAP, POP3 and ManageSieve let in clients with a certificate
//! only, whose common name is the user; LMTP does not ask for one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::account::Account;
use super::pki::{Pair, Pki};
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running master with its services. Starts as root only: it gives each service the rights that it needs.
pub(crate) struct Dovecot {
    // Ended before its folder is removed.
    process: Process,
    _folder: TempDir,
    pub(crate) imap: u16,
    pub(crate) pop3: u16,
    pub(crate) sieve: u16,
    pub(crate) lmtp: u16,
}

impl Dovecot {
    pub(crate) fn start(pki: &Pki, server: &Pair) -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [base, mail] = ["base", "mail"].map(|name| folder.path().join(name));
        for path in [&base, &mail] {
            fs::create_dir(path).unwrap();
        }
        Account::of("mail").own(&mail);
        let [imap, pop3, sieve, lmtp] = [free_port(), free_port(), free_port(), free_port()];
        let config = format!(
            "base_dir = {base}\nlog_path = /dev/stderr\nprotocols = imap pop3 sieve lmtp\nlisten = 127.0.0.1\n\
             ssl = required\nssl_cert = <{certificate}\nssl_key = <{key}\nssl_ca = <{root}\n\
             ssl_verify_client_cert = yes\nssl_require_crl = no\nauth_ssl_require_client_cert = yes\n\
             auth_ssl_username_from_cert = yes\nauth_mechanisms = plain external\n\
             mail_location = maildir:{mail}/%u\nfirst_valid_uid = 1\n\
             passdb {{\n driver = static\n args = nopassword=y\n}}\n\
             userdb {{\n driver = static\n args = uid=mail gid=mail home={mail}/%u\n}}\n\
             service imap-login {{\n chroot =\n inet_listener imap {{\n  port = {imap}\n }}\n \
             inet_listener imaps {{\n  port = 0\n }}\n}}\n\
             service pop3-login {{\n chroot =\n inet_listener pop3 {{\n  port = {pop3}\n }}\n \
             inet_listener pop3s {{\n  port = 0\n }}\n}}\n\
             service managesieve-login {{\n chroot =\n inet_listener sieve {{\n  port = {sieve}\n }}\n}}\n\
             service lmtp {{\n inet_listener lmtp {{\n  port = {lmtp}\n }}\n}}\n\
             service anvil {{\n chroot =\n}}\n",
            base = base.display(),
            mail = mail.display(),
            certificate = server.certificate.display(),
            key = server.key.display(),
            root = pki.both().display(),
        );
        let file = folder.path().join("dovecot.conf");
        fs::write(&file, config).unwrap();
        let mut command = guarded("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(&file);
        let mut process = Process::spawn("dovecot", command, &folder.path().join("output"));
        for port in [imap, pop3, sieve, lmtp] {
            process.wait_for_port(loopback(port));
        }
        Self { process, _folder: folder, imap, pop3, sieve, lmtp }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }
}
