//! `proxy_ssl_*` to the TLS settings of an upstream, with a finding for each default of nginx that is no good.

use std::net::IpAddr;

use crate::config::problems::quote;
use crate::tools::import::draft::{Tls, Trust};
use crate::tools::import::facts;
use crate::tools::import::findings::{
    Code, DEPTH_ONE, IDENTITY_LOST, KEY_LOG, NAME_LOST, NAME_OF_BLOCK, NO_NAME, REVOCATION_LOST, SESSIONS_OFF, SNI_OFF,
    TRUST_IS_THE_SERVER, TRUST_LOST, VERIFY_ABSENT, VERIFY_OFF, VERIFY_WITHOUT_TRUST, WEAK_CIPHERS, WEAK_PROTOCOL,
};
use crate::tools::import::nginx::importer::{Importer, User};
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::ProxyPass;
use crate::tools::import::nginx::variables::Value;

struct Naming {
    /// Verified, and sent with `proxy_ssl_server_name on`.
    name: String,
    /// Set by a directive, not taken from `proxy_pass`.
    said: bool,
    sent: bool,
}

impl ProxyPass<'_> {
    /// The inherited or own directive `proxy_ssl_...` (or `grpc_ssl_...`).
    pub(super) fn ssl(&self, what: &str) -> Option<&Directive> {
        self.scope.get(&format!("{}_ssl_{what}", self.prefix))
    }

    fn on(&self, what: &str, default: bool) -> bool {
        self.ssl(what).map_or(default, |directive| directive.argument(0) == "on")
    }
}

impl Importer<'_> {
    pub(super) fn tls(&mut self, proxy_pass: &ProxyPass<'_>) -> Tls {
        let naming = self.naming(proxy_pass);
        let verified = proxy_pass.on("verify", false);
        let mut tls = Tls { identity: self.tls_identity(proxy_pass), ..Tls::default() };
        self.verification(proxy_pass, &naming, &mut tls);
        self.name(proxy_pass, &naming, verified, &mut tls);
        self.sni(proxy_pass, &naming, &mut tls);
        self.versions(proxy_pass, &mut tls);
        self.sessions(proxy_pass, &mut tls);
        self.remember(proxy_pass, &naming, verified);
        self.tls_details(proxy_pass, &mut tls);
        if proxy_pass.prefix == "grpc" {
            tls.alpn = vec!["h2".to_owned()];
        }
        tls
    }

    /// The text of a setting; if it depends on the connection, a finding says what is lost.
    fn constant(&mut self, proxy_pass: &ProxyPass<'_>, directive: &Directive, lost: Lost) -> Option<String> {
        match self.resolve(&proxy_pass.scope, directive.argument(0)) {
            Value::Text(text) if text.is_empty() => {
                self.carried(directive, "empty: as if it were not set");
                None
            }
            Value::Text(text) => Some(text),
            Value::ByName(_) | Value::Unknown(_) => {
                let Lost(code, what) = lost;
                let title =
                    format!("{what} is lost: {} changes from connection to connection", quote(directive.argument(0)));
                let repair = "write one upstream of egret for each value, and a listener for each";
                self.find(code, directive, title, "a variable", repair);
                None
            }
        }
    }

    /// The path in a setting. Keys in engines, variables and stores are not files: they are lost.
    pub(super) fn file(
        &mut self,
        proxy_pass: &ProxyPass<'_>,
        directive: &Directive,
        key: &str,
        lost: Lost,
    ) -> Option<String> {
        let text = self.constant(proxy_pass, directive, lost)?;
        self.path_of_file(directive, &text, key, lost)
    }

    /// `None` unless it is the path of a file.
    pub(super) fn path_of_file(&mut self, directive: &Directive, text: &str, key: &str, lost: Lost) -> Option<String> {
        let Lost(code, what) = lost;
        if let Some(scheme) = NOT_FILES.iter().find(|scheme| text.starts_with(**scheme)) {
            let title =
                format!("{what} is lost: `{scheme}` is not a file, and egret takes certificates and keys from files");
            let repair = "store it in a file that egret may read, and name it in the configuration";
            self.find(code, directive, title, "not a file", repair);
            return None;
        }
        self.carried(directive, key);
        Some(self.path(text))
    }

    fn verification(&mut self, proxy_pass: &ProxyPass<'_>, naming: &Naming, tls: &mut Tls) {
        let setting = proxy_pass.ssl("verify").filter(|directive| directive.argument(0) != "on").cloned();
        let on = proxy_pass.on("verify", false);
        if !on {
            self.unverified(proxy_pass, setting.as_ref());
        }
        if !on && self.options.faithful {
            let said = setting.map_or_else(|| "is not set".to_owned(), |at| format!("is off in {}", self.line(&at)));
            tls.unverified = Some(format!("as in nginx, where {}_ssl_verify {said}", proxy_pass.prefix));
            for what in ["trusted_certificate", "crl"] {
                if let Some(directive) = proxy_pass.ssl(what) {
                    self.listed(directive, "nothing is verified: nginx does not use it, nor does egret");
                }
            }
            return;
        }
        if let Some(directive) = proxy_pass.ssl("verify").filter(|_| on) {
            self.carried(directive, "verification is always on");
            self.depth(proxy_pass, directive);
        }
        tls.trust = self.trust(proxy_pass, naming, on);
    }

    fn unverified(&mut self, proxy_pass: &ProxyPass<'_>, setting: Option<&Directive>) {
        let repair = match (self.options.faithful, proxy_pass.ssl("trusted_certificate")) {
            (true, _) => "written as `verify = \"none\"`; remove that, and name the roots in a trust".to_owned(),
            (_, Some(file)) => format!("egret verifies, by the roots in {}", file.argument(0)),
            (_, None) => "egret verifies, by the roots of the system; for a private authority: `roots = [\"ca.pem\"]` \
                          in a trust, for a self-signed server `certificate = \"server.pem\"`"
                .to_owned(),
        };
        let title = "the server is not verified: anyone on the way can pose as it";
        match setting {
            Some(directive) => self.find(VERIFY_OFF, directive, title, "off", repair),
            None => {
                let title = format!("{title} ({}_ssl_verify is off unless it is switched on)", proxy_pass.prefix);
                self.find(VERIFY_ABSENT, proxy_pass.pass, title, "nobody asked for verification", repair);
            }
        }
    }

    fn depth(&mut self, proxy_pass: &ProxyPass<'_>, verify: &Directive) {
        let depth = proxy_pass.ssl("verify_depth");
        let bound = depth.map_or(Some(1), |directive| directive.argument(0).parse::<u32>().ok());
        let title = "a chain with two intermediates is refused by nginx (depth 1), and public authorities have such";
        if bound.is_some_and(|bound| bound <= 1) {
            let repair = "nothing: egret has no such bound; in nginx, `proxy_ssl_verify_depth 4;`";
            self.find(DEPTH_ONE, depth.unwrap_or(verify), title, "depth 1", repair);
        } else if let Some(depth) = depth {
            self.carried(depth, "egret builds chains of any depth");
        }
    }

    fn trust(&mut self, proxy_pass: &ProxyPass<'_>, naming: &Naming, on: bool) -> Option<usize> {
        let roots =
            proxy_pass.ssl("trusted_certificate").and_then(|file| self.file(proxy_pass, file, "trust: roots", TRUST));
        let crl = proxy_pass.ssl("crl").and_then(|file| self.file(proxy_pass, file, "trust: crls", REVOCATION));
        if roots.is_none() && on && proxy_pass.ssl("trusted_certificate").is_none() {
            let directive = proxy_pass.ssl("verify").unwrap_or(proxy_pass.pass);
            let title = "verification is on, but no trusted certificate is configured: nginx does not start";
            let repair = "egret believes the roots of the system; name others in a trust";
            self.find(VERIFY_WITHOUT_TRUST, directive, title, "no roots", repair);
        }
        let exact = roots.as_ref().filter(|path| self.is_the_server(path, proxy_pass, naming)).cloned();
        if let (Some(_), Some(directive)) = (&exact, proxy_pass.ssl("trusted_certificate")) {
            let title = "this is the server's own certificate, not that of an authority: its next renewal is an outage";
            let repair = "egret believes exactly this certificate; ask its owner for that of the authority";
            self.find(TRUST_IS_THE_SERVER, directive, title, "not an authority", repair);
            if let Some(crl) = proxy_pass.ssl("crl") {
                let title = "the revocation list is lost: exactly one certificate is trusted, and no list is looked at";
                let repair = "name the authority's certificate in `proxy_ssl_trusted_certificate`, and import again";
                self.find(REVOCATION_LOST, crl, title, "not used", repair);
            }
            // One certificate without a subject alternative name is known by its common name.
            let names = self.verified_names(naming, on, &["dns"]);
            return Some(self.draft.trust(Trust { certificate: exact, names, ..Trust::default() }));
        }
        let names = if roots.is_some() { self.verified_names(naming, on, &["dns", "cn"]) } else { Vec::new() };
        let trust =
            Trust { roots: roots.into_iter().collect(), crls: crl.into_iter().collect(), names, ..Trust::default() };
        (trust != Trust::default()).then(|| self.draft.trust(trust))
    }

    /// Names that nginx verifies; a common name counts if the certificate has no others. nginx does not match
    /// addresses, but egret has no other way than to verify them.
    fn verified_names(&self, naming: &Naming, on: bool, kinds: &[&str]) -> Vec<String> {
        let name = naming.name.as_str();
        let wanted = self.options.faithful && on && facts::is_name(name) && name.parse::<IpAddr>().is_err();
        kinds.iter().filter(|_| wanted).map(|kind| format!("{kind}:{name}")).collect()
    }

    /// The file has one certificate, issued for the verified name.
    fn is_the_server(&self, path: &str, proxy_pass: &ProxyPass<'_>, naming: &Naming) -> bool {
        let hosts = proxy_pass.hosts();
        let names = std::iter::once(naming.name.as_str()).chain(hosts.iter().map(String::as_str));
        let Some(text) = self.files.certificates(&self.folder.join(path)) else { return false };
        facts::is_of_server(&text, names)
    }

    fn naming(&mut self, proxy_pass: &ProxyPass<'_>) -> Naming {
        let sent = proxy_pass.on("server_name", false);
        let said = proxy_pass.ssl("name").filter(|name| !DEFAULT_NAMES.contains(&name.argument(0)));
        let name = match said {
            None => {
                if let Some(name) = proxy_pass.ssl("name") {
                    self.carried(name, "the host of the server is the default");
                }
                None
            }
            Some(directive) => {
                let name = self.constant(proxy_pass, directive, NAME);
                name.map(|name| (directive, without_port(&name).to_owned()))
            }
        };
        match name {
            Some((directive, name)) if facts::is_name(&name) => {
                self.carried(directive, "upstreams: tls.server_name");
                Naming { name, said: true, sent }
            }
            Some((directive, name)) => {
                let title = format!("the name of the server is lost: {} is not a name of a host", quote(&name));
                let repair = "egret expects and sends the host of each server; `server_name` says another";
                self.find(NAME_LOST, directive, title, "not a name", repair);
                Naming { name: proxy_pass.name(), said: false, sent }
            }
            None => Naming { name: proxy_pass.name(), said: false, sent },
        }
    }

    fn name(&mut self, proxy_pass: &ProxyPass<'_>, naming: &Naming, verified: bool, tls: &mut Tls) {
        let hosts = proxy_pass.hosts();
        let same = hosts.iter().all(|host| *host == naming.name);
        if naming.said && !same {
            tls.server_name = Some(naming.name.clone());
        }
        if naming.said || same || !(naming.sent || verified) {
            return;
        }
        if self.options.faithful && facts::is_name(&naming.name) {
            tls.server_name = Some(naming.name.clone());
        }
        let title = format!(
            "the name that is verified and sent is `{}`, the name of the upstream block, not that of a server",
            naming.name
        );
        let hosts = hosts.first().cloned().unwrap_or_default();
        let repair = match self.options.faithful {
            true => format!("written as `server_name`; what was meant may be `{hosts}`"),
            false => {
                format!("egret takes the host of each server; in nginx: `{}_ssl_name {hosts};`", proxy_pass.prefix)
            }
        };
        self.find(NAME_OF_BLOCK, proxy_pass.pass, title, "a block's name", repair);
    }

    fn sni(&mut self, proxy_pass: &ProxyPass<'_>, naming: &Naming, tls: &mut Tls) {
        let setting = proxy_pass.ssl("server_name").cloned();
        if let Some(directive) = setting.as_ref().filter(|_| naming.sent) {
            self.carried(directive, "a name is sent unless it is an address");
        }
        let nameless = if naming.said {
            naming.name.parse::<IpAddr>().is_ok()
        } else {
            proxy_pass.hosts().iter().all(|host| host.parse::<IpAddr>().is_ok())
        };
        if nameless {
            let title = "the server has no name, only an address: no SNI can be sent, and its certificate has to carry \
                         the address";
            let repair = "add its name: `server_name = \"...\"` in egret, `proxy_ssl_name` and `proxy_ssl_server_name \
                          on;` in nginx";
            self.find(NO_NAME, proxy_pass.pass, title, "no name", repair);
            return;
        }
        if naming.sent {
            return;
        }
        tls.no_sni = self.options.faithful;
        let host =
            if naming.said { naming.name.clone() } else { proxy_pass.hosts().first().cloned().unwrap_or_default() };
        let done = if self.options.faithful { "written as `sni = false`" } else { "egret sends it" };
        let repair = format!("{done}; in nginx: `{0}_ssl_server_name on; {0}_ssl_name {host};`", proxy_pass.prefix);
        let title = "no SNI is sent: a server of several names answers with another certificate, or hangs up";
        self.find(SNI_OFF, setting.as_ref().unwrap_or(proxy_pass.pass), title, "no SNI", repair);
    }

    fn versions(&mut self, proxy_pass: &ProxyPass<'_>, tls: &mut Tls) {
        let Some(directive) = proxy_pass.ssl("protocols").cloned() else { return };
        let words: Vec<_> = directive.arguments.iter().map(|word| word.text.as_str()).collect();
        (tls.min_version, tls.max_version) = match (words.contains(&"TLSv1.2"), words.contains(&"TLSv1.3")) {
            (true, false) => (None, Some("1.2")),
            (false, true) => (Some("1.3"), None),
            _ => (None, None),
        };
        let weak: Vec<_> = words.iter().copied().filter(|word| WEAK_VERSIONS.contains(word)).collect();
        if weak.is_empty() {
            self.carried(&directive, "upstreams: tls.min_version, tls.max_version");
            return;
        }
        let title = format!("{} can be broken (RFC 8996)", weak.join(", "));
        self.find(WEAK_PROTOCOL, &directive, title, "old", "egret speaks TLS 1.2 and 1.3 only");
    }

    fn sessions(&mut self, proxy_pass: &ProxyPass<'_>, tls: &mut Tls) {
        let Some(directive) = proxy_pass.ssl("session_reuse").cloned() else { return };
        if directive.argument(0) != "off" {
            self.carried(&directive, "sessions are continued");
            return;
        }
        tls.no_resumption = self.options.faithful;
        let title = "sessions are never continued: each connection pays for a whole handshake";
        let repair = match self.options.faithful {
            true => "written as `resumption = false`; it is not needed, see below",
            false => "egret continues them, since it keeps sessions of different identities and trusts apart",
        };
        self.find(SESSIONS_OFF, &directive, title, "off", repair);
    }

    /// Records users of a server entry, to find shared sessions. Servers resolved at run time have no entry with
    /// sessions.
    fn remember(&mut self, proxy_pass: &ProxyPass<'_>, naming: &Naming, verified: bool) {
        if !proxy_pass.on("session_reuse", true) {
            return;
        }
        let text =
            |what: &str| proxy_pass.ssl(what).map_or_else(String::new, |directive| directive.argument(0).to_owned());
        let settings = [
            ("client certificate", text("certificate")),
            ("trust", format!("{verified} {}", text("trusted_certificate"))),
            ("server name", if naming.sent { naming.name.clone() } else { String::new() }),
            ("versions", proxy_pass.ssl("protocols").map_or_else(String::new, Directive::line)),
        ];
        let place = self.place(proxy_pass.pass);
        self.users.push(User { http: proxy_pass.http, entry: proxy_pass.entry(), settings, place });
    }

    fn tls_details(&mut self, proxy_pass: &ProxyPass<'_>, tls: &mut Tls) {
        if let Some(directive) = proxy_pass.ssl("ciphers") {
            self.ciphers(directive);
        }
        if let Some(directive) = proxy_pass.ssl("alpn") {
            tls.alpn = directive.arguments.iter().map(|word| word.text.clone()).collect();
            tls.alpn.dedup();
            self.carried(directive, "upstreams: tls.alpn");
        }
        for directive in proxy_pass.scope.all(&format!("{}_ssl_conf_command", proxy_pass.prefix)) {
            self.command(directive, tls);
        }
        if let Some(directive) = proxy_pass.ssl("key_log") {
            let title = "the secrets of every TLS session are written to a file";
            self.find(KEY_LOG, directive, title, "key log", "left out; `egret run --key-log FILE` if it is needed");
        }
    }

    fn ciphers(&mut self, directive: &Directive) {
        let text = directive.argument(0);
        let asked = |word: &&&str| text.split([':', ' ', ',']).any(|part| part == **word || part == format!("+{word}"));
        match WEAK_SUITES.iter().find(asked) {
            Some(word) => {
                let title = format!("`{word}` among the suites: weak, or none at all");
                let repair = "egret speaks the AEAD suites of TLS 1.2 and 1.3 only";
                self.find(WEAK_CIPHERS, directive, title, "weak", repair);
            }
            None => self.listed(directive, "egret speaks the AEAD suites of TLS 1.2 and 1.3, and none else"),
        }
    }

    /// A command of OpenSSL: groups and versions are carried; `tls_identity` reads those of the identity.
    fn command(&mut self, directive: &Directive, tls: &mut Tls) {
        let value = directive.argument(1);
        match directive.argument(0) {
            "Curves" | "Groups" => match value.split(':').map(facts::group).collect::<Option<Vec<_>>>() {
                Some(groups) => {
                    tls.offer(groups);
                    self.carried(directive, "upstreams: tls.key_exchange");
                }
                None => self.listed(directive, "one of these groups is unknown to egret"),
            },
            "MinProtocol" | "MaxProtocol" => self.version(directive, tls),
            "Certificate" | "PrivateKey" => {}
            "VerifyCAFile" | "VerifyCAPath" | "VerifyCAStore" | "ChainCAFile" | "ChainCAPath" | "VerifyMode" => {
                let title = "the trusted certificates are set by a command to OpenSSL, which is lost";
                self.find(
                    TRUST_LOST,
                    directive,
                    title,
                    "not carried",
                    "name the roots in a trust: `roots = [\"ca.pem\"]`",
                );
            }
            _ => self.listed(directive, "a command to OpenSSL, which is not what egret speaks TLS with"),
        }
    }

    fn version(&mut self, directive: &Directive, tls: &mut Tls) {
        match (directive.argument(0), directive.argument(1)) {
            ("MinProtocol", "TLSv1.3") => tls.min_version = Some("1.3"),
            ("MaxProtocol", "TLSv1.2") => tls.max_version = Some("1.2"),
            ("MinProtocol", _) | ("MaxProtocol", "TLSv1.3" | "None") => {}
            (_, old) => {
                let title = format!("{} can be broken (RFC 8996)", quote(old));
                return self.find(WEAK_PROTOCOL, directive, title, "old", "egret speaks TLS 1.2 and 1.3 only");
            }
        }
        self.carried(directive, "upstreams: tls.min_version, tls.max_version");
    }
}

/// nginx verifies and sends `host` of `host:port` (`ngx_stream_proxy_ssl_name`).
fn without_port(name: &str) -> &str {
    if name.parse::<IpAddr>().is_ok() {
        return name;
    }
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => name.split_once(':').map_or(name, |(host, _)| host),
    }
}

/// A setting that cannot be carried: the code of its finding, and its subject.
#[derive(Clone, Copy)]
pub(super) struct Lost(pub(super) Code, pub(super) &'static str);

pub(super) const IDENTITY: Lost = Lost(IDENTITY_LOST, "the client certificate");
const TRUST: Lost = Lost(TRUST_LOST, "the trusted certificate");
const REVOCATION: Lost = Lost(REVOCATION_LOST, "the revocation list");
const NAME: Lost = Lost(NAME_LOST, "the name of the server");
/// Prefixes that nginx accepts in place of a file name.
const NOT_FILES: [&str; 4] = ["engine:", "store:", "data:", "pkcs11:"];

/// Names equal to the default.
const DEFAULT_NAMES: [&str; 2] = ["$proxy_host", "${proxy_host}"];
const WEAK_VERSIONS: [&str; 4] = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"];
/// Words of OpenSSL's cipher lists that enable weak suites (ciphers(1)).
const WEAK_SUITES: [&str; 12] =
    ["ALL", "aNULL", "eNULL", "NULL", "EXPORT", "EXP", "LOW", "RC4", "3DES", "MD5", "@SECLEVEL=0", "DES-CBC3-SHA"];
