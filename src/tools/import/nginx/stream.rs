//! `stream`: each server with TLS on its way out is an upstream, each of its `listen` a listener.

use crate::tools::import::findings::{PASSED_THROUGH, PLAINTEXT, PLAINTEXT_TO_TLS, TLS_SETTINGS_WITHOUT_TLS};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::listen::{Extra, To};
use crate::tools::import::nginx::listen_addr::{At, ListenAddr};
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::ProxyPass;
use crate::tools::import::nginx::scope::Scope;
use crate::tools::import::nginx::target::Destination;

impl<'a> Importer<'_> {
    pub(super) fn stream(&mut self, outer: &Scope<'a>, block: &'a Directive, extras: &mut Vec<Extra<'a>>) {
        let scope = outer.inner(block.children());
        let blocks: Vec<_> = block.children().iter().filter(|one| one.name.text == "upstream").collect();
        for server in block.children().iter().filter(|one| one.name.text == "server") {
            self.stream_server(&scope, server, &blocks, extras);
        }
    }

    fn stream_server(
        &mut self,
        outer: &Scope<'a>,
        server: &'a Directive,
        blocks: &[&'a Directive],
        extras: &mut Vec<Extra<'a>>,
    ) {
        let scope = outer.inner(server.children());
        let Some(pass) = scope.own().iter().find(|one| one.name.text == "proxy_pass") else {
            self.list_all(server, "nothing goes out of this server");
            return;
        };
        let listen_addrs = self.listen_addrs(server, false);
        self.listen_losses(server, false);
        if self.all_denied(&listen_addrs, &scope) {
            return self.list_all(server, "nobody may come here: all are denied");
        }
        if listen_addrs.is_empty() {
            return self.list_all(server, "no address of it can be carried over");
        }
        for listen_addr in &listen_addrs {
            let scope = scope.with(listen_addr.variables(server));
            self.stream_listener(&scope, (server, pass), listen_addr, blocks, extras);
        }
    }

    /// One address of a server: settings may depend on its port.
    fn stream_listener(
        &mut self,
        scope: &Scope<'a>,
        (server, pass): (&'a Directive, &'a Directive),
        listen_addr: &ListenAddr<'a>,
        blocks: &[&'a Directive],
        extras: &mut Vec<Extra<'a>>,
    ) {
        let target = match self.destination(scope, pass, blocks) {
            Some(Destination::One(target)) => target,
            Some(Destination::ByName(choice)) => {
                let to = self.by_name(scope, pass, choice, blocks);
                match to.routes.is_empty() && to.upstream.is_none() {
                    true => self.list_all(server, "none of its servers can be carried over"),
                    false => self.open(listen_addr, server, scope, &to, extras),
                }
                return;
            }
            None => {
                return self.list_all(server, "where it leads is not known, see the finding about its `proxy_pass`");
            }
        };
        let proxy_pass = ProxyPass { scope: scope.clone(), prefix: "proxy", http: false, pass, target };
        let upstream = match self.kind(&proxy_pass, server, std::slice::from_ref(listen_addr)) {
            Outgoing::Tls => self.upstream(&proxy_pass),
            Outgoing::PassedThrough => self.passthrough(&proxy_pass),
            Outgoing::Plaintext => None,
        };
        if let Some(upstream) = upstream {
            self.open(listen_addr, server, scope, &To::one(upstream), extras);
        }
    }

    /// Whether nginx uses TLS to the server, was meant to, or forwards the TLS of the clients. Plaintext is a finding.
    fn kind(&mut self, proxy_pass: &ProxyPass<'a>, server: &'a Directive, listen_addrs: &[ListenAddr<'_>]) -> Outgoing {
        let on = |name: &str| proxy_pass.scope.get(name).filter(|one| one.argument(0) == "on");
        if let Some(directive) = on("proxy_ssl") {
            self.carried(directive, "TLS is what egret speaks to every server");
            return Outgoing::Tls;
        }
        if let Some(directive) = on("ssl_preread") {
            self.carried(directive, "upstreams: passthrough");
            return Outgoing::PassedThrough;
        }
        let from_tls =
            listen_addrs.iter().any(|listen_addr| matches!(&listen_addr.at, At::Tcp(at) if is_tls_port(at.port())));
        let to_tls = proxy_pass.target.ports().iter().any(|port| is_tls_port(*port));
        let inbound =
            listen_addrs.iter().filter_map(|listen_addr| listen_addr.directive).any(|at| at.line().contains(" ssl"));
        if from_tls && to_tls && !inbound && !has_tls_settings(proxy_pass) {
            let title = "this is taken for TLS of the clients, since both ports are of TLS";
            let repair = "`passthrough = true`: what does not begin with a ClientHello is refused";
            self.find(PASSED_THROUGH, proxy_pass.pass, title, "passed through", repair);
            return Outgoing::PassedThrough;
        }
        if self.plaintext(proxy_pass, server) { Outgoing::Tls } else { Outgoing::Plaintext }
    }

    /// Reports plaintext to the server: TLS was meant, or it cannot be carried over.
    pub(super) fn plaintext(&mut self, proxy_pass: &ProxyPass<'a>, server: &'a Directive) -> bool {
        let faithful = self.options.faithful;
        let done = if faithful { "not carried over" } else { "egret speaks TLS to it" };
        if has_tls_settings(proxy_pass) {
            let title = "there are settings of TLS, but nothing switches it on: nginx speaks plaintext";
            let repair = format!("{done}; in nginx: `proxy_ssl on;` (stream) or `https://` (http)");
            self.find(TLS_SETTINGS_WITHOUT_TLS, proxy_pass.pass, title, "plaintext", repair);
        } else if let Some(port) = proxy_pass.target.ports().into_iter().find(|port| is_tls_port(*port)) {
            let title = format!("nginx speaks plaintext to port {port}, where TLS is expected");
            let repair = format!("{done}; in nginx: `proxy_ssl on;` (stream) or `https://` (http)");
            self.find(PLAINTEXT_TO_TLS, proxy_pass.pass, title, "plaintext", repair);
        } else {
            let title = "nginx speaks plaintext to this server, and egret speaks TLS to every server";
            let repair = match proxy_pass.target.ports().contains(&5432) {
                true => "not carried over; if it is PostgreSQL with TLS: an upstream with `upgrade = \"postgres\"`",
                false => "not carried over; leave it to nginx, or switch TLS on at the server",
            };
            self.find(PLAINTEXT, proxy_pass.pass, title, "plaintext", repair);
            self.list_all(server, "it is not TLS that goes out of here");
            return false;
        }
        if faithful {
            self.list_all(server, "it is not TLS that goes out of here");
        }
        !faithful
    }
}

enum Outgoing {
    Tls,
    PassedThrough,
    Plaintext,
}

/// Ports of implicit TLS (IANA's registry of service names and ports, and common use).
const TLS_PORTS: [u16; 22] = [
    443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 2376, 3269, 4443, 5061, 5671, 5986, 6443, 6514, 8443, 8883,
    9443,
];

pub(super) fn is_tls_port(port: u16) -> bool {
    TLS_PORTS.contains(&port)
}

fn has_tls_settings(proxy_pass: &ProxyPass<'_>) -> bool {
    let names = ["certificate", "trusted_certificate", "name", "verify", "server_name"];
    names.iter().any(|name| {
        proxy_pass.scope.own().iter().any(|one| one.name.text == format!("{}_ssl_{name}", proxy_pass.prefix))
    })
}
