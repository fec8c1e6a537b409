//! A real OpenLDAP that answers nobody without TLS and a client certificate.

use std::fs;

use tempfile::TempDir;

use super::pki::{Pair, Pki};
use super::process::{Process, guarded};
use super::{free_port, loopback};

/// A running slapd with an empty directory. SASL EXTERNAL makes `uid=NAME,dc=example,dc=com` of the common name.
pub(crate) struct Slapd {
    // Ended before its folder is removed.
    process: Process,
    _folder: TempDir,
    pub(crate) port: u16,
}

impl Slapd {
    pub(crate) fn start(pki: &Pki, server: &Pair) -> Self {
        let tls = format!(
            "TLSCACertificateFile {}\nTLSCertificateFile {}\nTLSCertificateKeyFile {}\nTLSVerifyClient demand\n\
             security tls=1\n",
            pki.root().display(),
            server.certificate.display(),
            server.key.display(),
        );
        Self::start_with(&tls)
    }

    pub(crate) fn without_tls() -> Self {
        Self::start_with("")
    }

    fn start_with(tls: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let config = format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n{tls}\
             authz-regexp \"cn=([^,]+)\" \"uid=$1,dc=example,dc=com\"\n\
             database mdb\nsuffix \"dc=example,dc=com\"\ndirectory {}\n\
             rootdn \"cn=admin,dc=example,dc=com\"\nrootpw secret\n",
            data.display(),
        );
        let file = folder.path().join("slapd.conf");
        fs::write(&file, config).unwrap();
        let port = free_port();
        let mut command = guarded("/usr/sbin/slapd");
        command.args(["-d", "stats", "-h", &format!("ldap://127.0.0.1:{port}"), "-f"]).arg(&file);
        let mut process = Process::spawn("slapd", command, &folder.path().join("output"));
        process.wait_for_port(loopback(port));
        Self { process, _folder: folder, port }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }
}
