//! TLS settings of a service: identity, trust, versions.

use std::net::IpAddr;
use std::path::Path;

use crate::config::problems::quote;
use crate::tools::import::draft::{Identity, Tls, Trust};
use crate::tools::import::facts::{self, is_loose, loose};
use crate::tools::import::findings::{
    IDENTITY_LOST, LOOSE_PERMISSIONS, NAME_LOST, NO_NAME, REVOCATION_LOST, SESSIONS_OFF, SNI_OFF, TRUST_LOST,
    VERIFY_ABSENT, VERIFY_ANY_NAME, VERIFY_OFF, VERIFY_WITHOUT_TRUST, WEAK_PROTOCOL,
};
use crate::tools::import::stunnel::service::split;
use crate::tools::import::stunnel::{Importer, Service, Setting, is_yes};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verification {
    Nothing,
    Chain,
    /// The certificate itself has to be in the file.
    Peer,
}

impl Importer<'_> {
    pub(super) fn tls(&mut self, service: &Service, servers: &[String]) -> Tls {
        let mut tls = Tls { identity: self.identity(service), ..Tls::default() };
        let hosts: Vec<_> = servers.iter().filter_map(|server| split(server)).map(|(host, _)| host).collect();
        self.sni(service, &hosts, &mut tls);
        self.verification(service, &hosts, &mut tls);
        self.versions(service, &mut tls);
        if let Some(resume) = self.get(service, "sessionresume") {
            if is_yes(&resume) {
                self.carried(&resume, "sessions are continued");
            } else {
                tls.no_resumption = self.options.faithful;
                let title = "sessions are never continued: each connection pays for a whole handshake";
                let repair = match self.options.faithful {
                    true => "written as `resumption = false`",
                    false => "egret continues them, and keeps those of different identities and trusts apart",
                };
                self.find(SESSIONS_OFF, &resume, title, "off", repair);
            }
        }
        if let Some(curves) = self.get(service, "curves") {
            let groups: Option<Vec<_>> = curves.value.split(':').map(facts::group).collect();
            match groups {
                Some(groups) => {
                    tls.offer(groups);
                    self.carried(&curves, "upstreams: tls.key_exchange");
                }
                None => self.listed(&curves, "one of these groups is none that egret has"),
            }
        }
        tls
    }

    fn identity(&mut self, service: &Service) -> Option<usize> {
        self.pre_shared_key(service);
        let certificate = self.get(service, "cert").filter(|cert| !cert.value.is_empty())?;
        let key = self.get(service, "key").filter(|key| !key.value.is_empty());
        let settings = || [Some(&certificate), key.as_ref()].into_iter().flatten();
        let mut lost = false;
        for setting in settings() {
            if let Some(scheme) = NOT_FILES.iter().find(|scheme| setting.value.starts_with(**scheme)) {
                let title = format!(
                    "the client certificate is lost: the certificate or the key is in `{scheme}`, which is not a file"
                );
                self.find(IDENTITY_LOST, setting, title, "not a file", NOT_A_FILE);
                lost = true;
            }
        }
        for engine in ["engineid", "enginenum"].map(|name| self.get(service, name)).into_iter().flatten() {
            let title = "the client certificate is lost: its key is in an engine of OpenSSL, which is not a file";
            self.find(IDENTITY_LOST, &engine, title, "an engine", NOT_A_FILE);
            lost = true;
        }
        if lost {
            settings().for_each(|setting| self.listed(setting, "the client certificate is lost, see its finding"));
            return None;
        }
        settings().for_each(|setting| self.report.carry(setting.id, "identities"));
        let secret = key.as_ref().unwrap_or(&certificate);
        let mode = self.files.mode(&self.folder.join(&secret.value));
        if let Some(mode) = mode.filter(|mode| is_loose(*mode)) {
            let (title, repair) = loose(mode, self.options.faithful);
            self.report.find(LOOSE_PERMISSIONS, secret.place.clone(), title, "readable by others", repair);
        }
        // A file that is not here may have any mode where the configuration runs.
        let loose_permissions = self.options.faithful && mode.is_none_or(is_loose);
        let certificate = self.path(&certificate.value);
        let private_key = key.map(|key| self.path(&key.value)).filter(|key| *key != certificate);
        Some(self.draft.identity(Identity { certificate, private_key, password_file: None, loose_permissions }))
    }

    fn pre_shared_key(&mut self, service: &Service) {
        for name in ["psksecrets", "pskidentity"] {
            if let Some(setting) = self.get(service, name) {
                let title = "the pre-shared key is lost: egret knows itself and servers by certificates only";
                let repair = "use a certificate on both sides, or leave this service to stunnel";
                self.find(IDENTITY_LOST, &setting, title, "a pre-shared key", repair);
            }
        }
    }

    fn path(&self, text: &str) -> String {
        let base = &self.options.base;
        let as_it_is = Path::new(text).is_absolute() || base.as_os_str().is_empty();
        if as_it_is { text.to_owned() } else { base.join(text).display().to_string() }
    }

    fn sni(&mut self, service: &Service, hosts: &[&str], tls: &mut Tls) {
        let sni = self.get(service, "sni");
        let nameless = hosts.iter().all(|host| host.parse::<IpAddr>().is_ok());
        match sni {
            Some(sni) if sni.value.is_empty() && !nameless => {
                tls.no_sni = self.options.faithful;
                let title = "no SNI is sent: a server of several names answers with another certificate, or hangs up";
                let repair = if tls.no_sni { "written as `sni = false`" } else { "egret sends it" };
                self.find(SNI_OFF, &sni, title, "no SNI", repair);
            }
            Some(sni) if sni.value.is_empty() => self.carried(&sni, "an address is never sent"),
            Some(sni) if !facts::is_name(&sni.value) => self.no_name(&sni),
            Some(sni) => {
                if hosts.iter().any(|host| *host != sni.value) {
                    tls.server_name = Some(sni.value.clone());
                }
                self.carried(&sni, "upstreams: tls.server_name");
            }
            None if nameless => {
                let title = "the server has no name, only an address: no SNI can be sent, and its certificate has to \
                             carry the address";
                let repair = "add its name: `server_name = \"...\"` in egret, `sni` and `checkHost` in stunnel";
                self.report.find(NO_NAME, service.place.clone(), title, "no name", repair);
            }
            None => {}
        }
    }

    fn verification(&mut self, service: &Service, hosts: &[&str], tls: &mut Tls) {
        let how = self.how(service);
        let files = self.anchors(service);
        if how == Verification::Nothing {
            self.unverified(service, tls);
            if tls.unverified.is_some() {
                return;
            }
        } else if files.is_empty() {
            let title = "verification is on, but no trusted certificate is configured";
            let repair = "egret believes the roots of the system; name others in a trust";
            self.report.find(VERIFY_WITHOUT_TRUST, service.place.clone(), title, "no roots", repair);
        }
        let mut trust = Trust::default();
        match how {
            Verification::Peer => self.exact(service, &files, &mut trust),
            _ => trust.roots = files.iter().map(|file| self.path(&file.value)).collect(),
        }
        for file in &files {
            self.carried(file, "trust");
        }
        let used = |list: &Setting| trust.certificate.is_none() && !list.value.is_empty();
        let lists: Vec<_> = self.all(service, "crlfile").into_iter().filter(used).collect();
        for list in lists {
            let path = self.path(&list.value);
            if !trust.crls.contains(&path) {
                trust.crls.push(path);
            }
            self.carried(&list, "trust: crls");
        }
        self.revocation(service, trust.certificate.is_some());
        trust.names = self.names(service, how, hosts, tls);
        tls.trust = (trust != Trust::default()).then(|| self.draft.trust(trust));
    }

    /// `verifyPeer`: the file holds the server's certificate. egret takes exactly one.
    fn exact(&mut self, service: &Service, files: &[Setting], trust: &mut Trust) {
        let file = self.get(service, "cafile").filter(|file| !file.value.is_empty());
        let one = file.filter(|file| {
            let text = self.files.certificates(&self.folder.join(&file.value));
            text.is_none_or(|text| facts::certificates(&text) <= 1)
        });
        match one {
            Some(file) => trust.certificate = Some(self.path(&file.value)),
            None => {
                let title = "`verifyPeer` with several certificates is lost: egret takes exactly one, or what authorities issue";
                let repair = "written as roots; name the server's certificate as `certificate` in the trust";
                for file in files {
                    self.report.find(TRUST_LOST, file.place.clone(), title, "several", repair);
                }
                trust.roots = files.iter().map(|file| self.path(&file.value)).collect();
            }
        }
    }

    /// Revocation checks that egret does not make. `pinned`: lists are not read.
    fn revocation(&mut self, service: &Service, pinned: bool) {
        let ocsp = ["ocspaia", "ocsprequire"].into_iter().filter_map(|name| self.get(service, name)).filter(is_yes);
        let ocsp: Vec<_> = ocsp.chain(self.get(service, "ocsp")).collect();
        for setting in ocsp {
            let title = "revocation is not asked by OCSP any more: egret asks no OCSP server";
            let repair = "revocation lists are `crls` in a trust; certificates of a few days need none";
            self.find(REVOCATION_LOST, &setting, title, "not carried", repair);
        }
        let lists = self.all(service, "crlfile").into_iter().filter(|_| pinned).chain(self.all(service, "crlpath"));
        for setting in lists.collect::<Vec<_>>() {
            let title = "the revocation list is lost: egret takes files, and none beside one exact certificate";
            self.find(
                REVOCATION_LOST,
                &setting,
                title,
                "not carried",
                "name the files in `crls` of a trust with roots",
            );
        }
    }

    fn no_name(&mut self, setting: &Setting) {
        let title = format!("the name of the server is lost: {} is not a name of a host", quote(&setting.value));
        let repair = "egret expects and sends the host of each server; `server_name` and `names` say others";
        self.find(NAME_LOST, setting, title, "not a name", repair);
    }

    fn how(&mut self, service: &Service) -> Verification {
        let mut how = Verification::Nothing;
        if let Some(level) = self.get(service, "verify") {
            how = match level.value.as_str() {
                // Level 1 is for clients without a certificate; a server always has one.
                "1" | "2" => Verification::Chain,
                "3" | "4" => Verification::Peer,
                _ => Verification::Nothing,
            };
            self.carried(&level, "upstreams: tls.trust");
        }
        for (name, found) in [("verifychain", Verification::Chain), ("verifypeer", Verification::Peer)] {
            if let Some(setting) = self.get(service, name).filter(is_yes) {
                how = found;
                self.carried(&setting, "upstreams: tls.trust");
            }
        }
        how
    }

    fn anchors(&self, service: &Service) -> Vec<Setting> {
        let named = ["cafile", "capath"].into_iter().filter_map(|name| self.get(service, name));
        named.filter(|file| !file.value.is_empty()).collect()
    }

    fn unverified(&mut self, service: &Service, tls: &mut Tls) {
        let title = "the server is not verified: anyone on the way can pose as it";
        let off = ["verifychain", "verifypeer"].iter().find_map(|name| self.get(service, name));
        let repair = if self.options.faithful {
            tls.unverified = Some("as in stunnel, where neither verifyChain nor verifyPeer is on".to_owned());
            "written as `verify = \"none\"`; remove that, and name the roots in a trust"
        } else {
            "egret verifies, by the file that is named, else by the roots of the system"
        };
        match off {
            Some(setting) => self.find(VERIFY_OFF, &setting, title, "off", repair),
            None => {
                let place = service.place.clone();
                self.report.find(VERIFY_ABSENT, place, title, "nobody asked for verification", repair);
            }
        }
    }

    /// Names that stunnel expects and does not send.
    fn names(&mut self, service: &Service, how: Verification, hosts: &[&str], tls: &mut Tls) -> Vec<String> {
        let mut names = Vec::new();
        for (option, kind) in [("checkhost", "dns"), ("checkip", "ip")] {
            for setting in self.all(service, option) {
                let address = setting.value.parse::<IpAddr>().is_ok();
                if !facts::is_name(&setting.value) || address != (kind == "ip") {
                    self.no_name(&setting);
                    continue;
                }
                let name = format!("{kind}:{}", setting.value);
                if !names.contains(&name) {
                    names.push(name);
                }
                self.carried(&setting, "trust: names");
            }
        }
        for setting in self.all(service, "checkemail") {
            let title = "the name of the server is lost: egret does not know servers by mail addresses";
            self.find(NAME_LOST, &setting, title, "not carried", "name the host in `names` of a trust");
        }
        if names.is_empty() && how == Verification::Chain {
            let title = "the chain is verified, but any name will do: every server of this authority can pose as it";
            let sent = tls.server_name.clone().or_else(|| hosts.first().map(|host| (*host).to_owned()));
            let sent = sent.unwrap_or_default();
            let repair = if self.options.faithful {
                tls.any_name = Some("as in stunnel, where verifyChain is on and there is no checkHost".to_owned());
                format!("written as `verify = \"chain\"`; remove that, and egret expects `{sent}`")
            } else {
                format!("egret expects `{sent}`; in stunnel: `checkHost = {sent}`")
            };
            self.report.find(VERIFY_ANY_NAME, service.place.clone(), title, "any name", repair);
        }
        let sent: Vec<String> = match &tls.server_name {
            Some(name) => vec![name.clone()],
            None => hosts.iter().map(|host| (*host).to_owned()).collect(),
        };
        let known = |name: &String| {
            let name = name.split_once(':').map_or("", |(_, name)| name);
            !sent.is_empty() && sent.iter().all(|sent| sent == name)
        };
        if names.len() == 1 && names.iter().all(known) { Vec::new() } else { names }
    }

    fn versions(&mut self, service: &Service, tls: &mut Tls) {
        for (name, min, max) in
            [("sslversion", true, true), ("sslversionmin", true, false), ("sslversionmax", false, true)]
        {
            let Some(setting) = self.get(service, name) else { continue };
            let version = match setting.value.as_str() {
                "TLSv1.2" => Some("1.2"),
                "TLSv1.3" => Some("1.3"),
                "all" => None,
                old => {
                    let title = format!("{old} can be broken (RFC 8996)");
                    self.find(WEAK_PROTOCOL, &setting, title, "old", "egret speaks TLS 1.2 and 1.3 only");
                    continue;
                }
            };
            if min && version == Some("1.3") {
                tls.min_version = version;
            }
            if max && version == Some("1.2") {
                tls.max_version = version;
            }
            self.carried(&setting, "upstreams: tls.min_version, tls.max_version");
        }
    }
}

/// Prefixes that stunnel accepts in place of a file name.
const NOT_FILES: [&str; 4] = ["pkcs11:", "engine:", "store:", "data:"];
const NOT_A_FILE: &str = "store certificate and key in files that egret may read, and name them in the configuration";
