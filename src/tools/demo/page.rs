//! What the demo writes: a configuration for egret, and a page for its user.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::tools::demo::SERVER_NAME;
use crate::tools::demo::ports::Ports;

pub(super) struct Page<'a> {
    pub(super) ports: Ports,
    pub(super) upstream: SocketAddr,
    pub(super) folder: &'a Path,
}

impl Page<'_> {
    /// Its paths are relative to its own folder.
    pub(super) fn configuration(&self) -> String {
        let Ports { with_identity, without_identity, admin } = self.ports;
        let with = with_identity.address();
        let without = without_identity.address();
        let admin = admin.address();
        let upstream = self.upstream;
        format!(
            r#"# Whoever stops the demo has seen enough.
drain_timeout = "1s"

[log]
format = "text"

[admin]
listen = "{admin}"

[identities.demo]
certificate = "client.crt"
private_key = "client.key"

[trust.demo]
roots = ["ca.crt"]

[upstreams.with-identity]
servers = ["{upstream}"]
tls = {{ identity = "demo", trust = "demo", server_name = "{SERVER_NAME}" }}

[upstreams.without-identity]
servers = ["{upstream}"]
tls = {{ trust = "demo", server_name = "{SERVER_NAME}" }}

[[listeners]]
name = "with-identity"
listen = "{with}"
upstream = "with-identity"

[[listeners]]
name = "without-identity"
listen = "{without}"
upstream = "without-identity"
"#
        )
    }

    /// What runs, which commands to try, and what they show. Lines that begin with `curl` can be pasted into a shell.
    pub(super) fn text(&self) -> String {
        let mut text = self.replaced();
        for part in [self.what_runs(), self.to_try(), self.what_it_shows(), self.further()] {
            text += &part;
        }
        text
    }

    fn replaced(&self) -> String {
        let mut text: String = self.ports.replaced().collect();
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    fn what_runs(&self) -> String {
        format!(
            "An HTTPS server runs on {}. It answers 200 to a client that has a certificate, 403 to one that has none.\n\
             egret runs in front of it: plain HTTP in, verified TLS out.\n\n",
            self.upstream
        )
    }

    fn to_try(&self) -> String {
        let Ports { with_identity, without_identity, admin } = self.ports;
        let lines = [
            ("With a client certificate: 200, and the certificate as the server saw it", with_identity.address(), "/"),
            ("To the same server, without one: 403", without_identity.address(), "/"),
            ("What runs: listeners, upstreams, who is trusted", admin.address(), "/status"),
            ("The same in numbers, for Prometheus", admin.address(), "/metrics"),
        ];
        let mut text = "Try in another terminal, in any order and as often as you like:\n\n".to_owned();
        for (what, address, path) in lines {
            // Writing to a string cannot fail.
            let _ = write!(text, "  {what}:\n    curl http://{address}{path}\n");
        }
        text
    }

    fn what_it_shows(&self) -> String {
        format!(
            "
What the answers show:

  - SNI is sent. Without it, and for any other name, this server presents a wrong certificate; \"server_name\"
    says what it got.
  - The server is verified. Its certificate has to be signed by the throw-away authority in ca.crt and made out
    to {SERVER_NAME}, before egret shows its own certificate or sends a byte.
  - The two are never mixed, although they share one server that would let them: with a certificate it is
    always 200, without always 403.
  - \"resumed\" says whether a former session was taken up, which saves most of a handshake. After the first
    answer it is true, for each of the two by sessions of its own.
"
        )
    }

    fn further(&self) -> String {
        let folder = self.folder.display();
        let port = self.upstream.port();
        let authority = quoted(&self.folder.join("ca.crt"));
        format!(
            "
The server without egret in front; first by its name, then without SNI, which curl refuses for the wrong name:

    curl --cacert {authority} --resolve {SERVER_NAME}:{port}:127.0.0.1 https://{SERVER_NAME}:{port}/
    curl --cacert {authority} https://127.0.0.1:{port}/

Certificates, keys and the configuration of egret (egret.toml; a change is loaded when it is saved) are in
{folder} until the end. Ctrl-C ends it. This is the log:

"
        )
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::tools::demo::ports::Port;

    #[test]
    fn the_configuration_is_one_that_nobody_would_advise_against() {
        let free = |port| Port { wanted: port, port };
        let ports = Ports { with_identity: free(1), without_identity: free(2), admin: free(3) };
        let page = Page { ports, upstream: free(4).address(), folder: Path::new("/folder") };
        let text = page.configuration();
        let loaded = config::parse("/folder/egret.toml", &text, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(config::lint(&loaded).is_empty(), "{:?}", config::lint(&loaded));
        assert!(!page.text().contains("is taken:"));
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/egret-demo-0/ca.crt")), "/tmp/egret-demo-0/ca.crt");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
