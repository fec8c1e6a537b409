//! `proxy_ssl_certificate`, its key and its password, or the commands to OpenSSL in their place: who we are.

use crate::tools::import::draft::Identity;
use crate::tools::import::facts::{is_loose, loose};
use crate::tools::import::findings::{IDENTITY_LOST, KEY_MISSING, LOOSE_PERMISSIONS};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::ProxyPass;
use crate::tools::import::nginx::tls::IDENTITY;

/// Reason for everything that belongs to a lost certificate.
const NO_CERTIFICATE: &str = "the client certificate is lost, see the finding about it";

impl Importer<'_> {
    pub(super) fn tls_identity(&mut self, proxy_pass: &ProxyPass<'_>) -> Option<usize> {
        let commands = proxy_pass.scope.all(&format!("{}_ssl_conf_command", proxy_pass.prefix));
        let command = |name: &str| commands.iter().rfind(|one| one.argument(0) == name).copied();
        if let Some(certificate) = command("Certificate") {
            return self.identity_of_commands(proxy_pass, certificate, command("PrivateKey"));
        }
        let key = proxy_pass.ssl("certificate_key");
        let certificate = proxy_pass.ssl("certificate").filter(|directive| !directive.argument(0).is_empty());
        let Some(certificate) = certificate else {
            for directive in [key, proxy_pass.ssl("certificate")].into_iter().flatten() {
                self.listed(directive, "there is no certificate to this key");
            }
            return None;
        };
        let Some(path) = self.file(proxy_pass, certificate, "identities: certificate", IDENTITY) else {
            for directive in [key, proxy_pass.ssl("password_file")].into_iter().flatten() {
                self.listed(directive, NO_CERTIFICATE);
            }
            return None;
        };
        if key.is_none() {
            let title = "there is no key to this certificate: nginx does not start";
            self.find(KEY_MISSING, certificate, title, "no key", "egret looks for the key in the same file");
        }
        let private_key = match key {
            Some(key) => match self.file(proxy_pass, key, "identities: private_key", IDENTITY) {
                Some(path) => Some(path),
                None => {
                    self.report.withdraw_carried(certificate.id, NO_CERTIFICATE);
                    return None;
                }
            },
            None => None,
        };
        let password = proxy_pass.ssl("password_file");
        let password_file = password
            .and_then(|file| self.file(proxy_pass, file, "identities: password_file (its first line)", IDENTITY));
        let secrets: Vec<_> = [key.or(Some(certificate)), password].into_iter().flatten().collect();
        self.identity(path, private_key, password_file, &secrets)
    }

    /// `Certificate` and `PrivateKey` commands replace the directives.
    fn identity_of_commands(
        &mut self,
        proxy_pass: &ProxyPass<'_>,
        certificate: &Directive,
        key: Option<&Directive>,
    ) -> Option<usize> {
        for what in ["certificate", "certificate_key", "password_file"] {
            if let Some(directive) = proxy_pass.ssl(what) {
                self.listed(directive, "the commands `Certificate` and `PrivateKey` replace it");
            }
        }
        let Some(key) = key else {
            let title = "the client certificate is lost: `Certificate` has no `PrivateKey` beside it";
            self.find(IDENTITY_LOST, certificate, title, "no key", "name both, and import again");
            return None;
        };
        let path = self.path_of_file(certificate, certificate.argument(1), "identities: certificate", IDENTITY);
        let private_key = self.path_of_file(key, key.argument(1), "identities: private_key", IDENTITY);
        let (Some(path), Some(private_key)) = (path, private_key) else {
            for directive in [certificate, key] {
                self.report.withdraw_carried(directive.id, NO_CERTIFICATE);
            }
            return None;
        };
        self.identity(path, Some(private_key), None, &[key])
    }

    /// `secrets`: settings that name files with a secret.
    fn identity(
        &mut self,
        certificate: String,
        private_key: Option<String>,
        password_file: Option<String>,
        secrets: &[&Directive],
    ) -> Option<usize> {
        let private_key = private_key.filter(|key| *key != certificate);
        let files = [Some(private_key.as_ref().unwrap_or(&certificate)), password_file.as_ref()];
        let modes: Vec<_> = files.into_iter().flatten().map(|path| self.files.mode(&self.folder.join(path))).collect();
        for (directive, mode) in secrets.iter().zip(&modes) {
            if let Some(mode) = mode.filter(|mode| is_loose(*mode)) {
                let (title, repair) = loose(mode, self.options.faithful);
                self.report.find(LOOSE_PERMISSIONS, self.place(directive), title, "readable by others", repair);
            }
        }
        // A file that is not here may have any mode where the configuration runs.
        let loose_permissions = self.options.faithful && modes.iter().any(|mode| mode.is_none_or(is_loose));
        Some(self.draft.identity(Identity { certificate, private_key, password_file, loose_permissions }))
    }
}
