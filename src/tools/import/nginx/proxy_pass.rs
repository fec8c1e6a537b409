//! A `proxy_pass` with everything that holds for it, and the upstream that it becomes.

use std::net::IpAddr;
use std::time::Duration;

use crate::tools::import::draft::{Server, Upstream};
use crate::tools::import::facts::{EOF_REPAIR, eof_strict, is_name};
use crate::tools::import::findings::{
    EOF_STRICT, HALF_CLOSE, PROXY_HEADER, RESOLVED_ONCE, SERVICE_LOST, SOCKET_UPSTREAM, SOURCE_ADDRESS,
};
use crate::tools::import::nginx::balance;
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::{Scope, time};
use crate::tools::import::report::Outcome;

pub(super) struct ProxyPass<'a> {
    pub(super) scope: Scope<'a>,
    /// Prefix of its settings: `proxy`, `grpc`, `uwsgi`.
    pub(super) prefix: &'static str,
    /// In `http`, not in `stream`.
    pub(super) http: bool,
    pub(super) pass: &'a Directive,
    pub(super) target: PassTarget<'a>,
}

#[derive(Clone)]
pub(super) enum PassTarget<'a> {
    Block(&'a Directive, Vec<ServerLine<'a>>),
    /// One server. `late`: it comes from a variable, so nginx resolves its name at run time.
    One {
        host: String,
        port: u16,
        late: bool,
    },
}

#[derive(Clone)]
pub(super) struct ServerLine<'a> {
    pub(super) directive: &'a Directive,
    pub(super) host: String,
    pub(super) port: u16,
}

impl ServerLine<'_> {
    pub(super) fn has(&self, flag: &str) -> bool {
        self.directive.arguments.iter().skip(1).any(|word| word.text == flag)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let words = self.directive.arguments.iter().skip(1);
        words.filter_map(|word| word.text.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl<'a> PassTarget<'a> {
    /// Without servers on Unix sockets.
    pub(super) fn block(directive: &'a Directive, http: bool) -> Self {
        let servers = directive.children().iter().filter(|line| line.name.text == "server");
        let lines = servers.filter_map(|directive| {
            let (host, port) = split(directive.argument(0)).filter(|(host, _)| is_name(host))?;
            Some(ServerLine { directive, host, port: port.or_else(|| http.then_some(80))? })
        });
        Self::Block(directive, lines.collect())
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Block(_, servers) => servers.iter().map(|line| line.port).collect(),
            Self::One { port, .. } => vec![*port],
        }
    }
}

impl ProxyPass<'_> {
    /// Each once.
    pub(super) fn hosts(&self) -> Vec<String> {
        match &self.target {
            PassTarget::Block(_, servers) => {
                let mut hosts: Vec<String> = servers.iter().map(|line| line.host.clone()).collect();
                let mut seen = Vec::new();
                hosts.retain(|host| {
                    !seen.contains(host) && {
                        seen.push(host.clone());
                        true
                    }
                });
                hosts
            }
            PassTarget::One { host, .. } => vec![host.clone()],
        }
    }

    /// The name that nginx uses if no directive sets one.
    pub(super) fn name(&self) -> String {
        match &self.target {
            PassTarget::Block(directive, _) => directive.argument(0).to_owned(),
            PassTarget::One { host, .. } => host.clone(),
        }
    }

    /// The key of nginx's session store: the block, or the one server.
    pub(super) fn entry(&self) -> String {
        match &self.target {
            PassTarget::Block(directive, _) => directive.argument(0).to_owned(),
            // Found at run time: nginx keeps no session for it, so it shares none.
            PassTarget::One { late: true, .. } => format!("directive {}", self.pass.id),
            PassTarget::One { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

/// Of `host:port`, `[v6]:port`, or a host alone; `None` for Unix sockets and anything else.
pub(super) fn split(text: &str) -> Option<(String, Option<u16>)> {
    if text.is_empty() || text.starts_with("unix:") {
        return None;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').map(str::parse).transpose().ok()?;
        return Some((host.to_owned(), port));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), Some(port.parse().ok().filter(|port| *port != 0)?))),
        None => Some((text.to_owned(), None)),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// egret's bound on durations.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

impl Importer<'_> {
    /// With TLS; `None` if no server is left.
    pub(super) fn upstream(&mut self, proxy_pass: &ProxyPass<'_>) -> Option<usize> {
        let servers = self.servers(proxy_pass);
        if servers.is_empty() {
            self.no_server(proxy_pass.pass);
            return None;
        }
        let mut upstream =
            Upstream { base: proxy_pass.name(), servers, tls: self.tls(proxy_pass), ..Upstream::default() };
        self.finish(proxy_pass, &mut upstream);
        self.end_of_stream(proxy_pass, &mut upstream);
        Some(self.draft.upstream(upstream))
    }

    fn no_server(&mut self, pass: &Directive) {
        let title = "no server of this can be carried over";
        let repair = "egret speaks TLS over TCP to hosts with ports: name one";
        self.find(SERVICE_LOST, pass, title, "no server", repair);
    }

    /// nginx accepts the end of a server without `close_notify`.
    fn end_of_stream(&mut self, proxy_pass: &ProxyPass<'_>, upstream: &mut Upstream) {
        upstream.eof_lenient = self.options.faithful;
        if !self.options.faithful {
            self.find_beside(EOF_STRICT, proxy_pass.pass, eof_strict("nginx"), "end", EOF_REPAIR);
        }
    }

    /// With the clients' own TLS forwarded; `None` if no server is left.
    pub(super) fn passthrough(&mut self, proxy_pass: &ProxyPass<'_>) -> Option<usize> {
        let servers = self.servers(proxy_pass);
        if servers.is_empty() {
            self.no_server(proxy_pass.pass);
            return None;
        }
        let mut upstream = Upstream { base: proxy_pass.name(), servers, passthrough: true, ..Upstream::default() };
        self.finish(proxy_pass, &mut upstream);
        Some(self.draft.upstream(upstream))
    }

    fn finish(&mut self, proxy_pass: &ProxyPass<'_>, upstream: &mut Upstream) {
        if let PassTarget::Block(block, lines) = &proxy_pass.target {
            upstream.balance = self.balance(block, lines);
            upstream.ejection = balance::ejection(lines);
        }
        self.times(proxy_pass, upstream);
        self.probes(proxy_pass, upstream);
        self.proxy_features(proxy_pass);
        self.carried(proxy_pass.pass, "upstreams: servers");
    }

    fn servers(&mut self, proxy_pass: &ProxyPass<'_>) -> Vec<Server> {
        match &proxy_pass.target {
            PassTarget::One { host, port, late } => {
                if !late && host.parse::<IpAddr>().is_err() {
                    self.resolved_once(proxy_pass.pass, host);
                }
                vec![Server { address: join(host, *port), ..Server::default() }]
            }
            PassTarget::Block(block, lines) => {
                self.block_of(block, lines);
                let (backup, first): (Vec<_>, Vec<_>) =
                    lines.iter().filter(|line| !line.has("down")).partition(|line| line.has("backup"));
                let mut servers: Vec<Server> = Vec::new();
                for line in first.iter().chain(&backup) {
                    let server = balance::server(line, join(&line.host, line.port));
                    if !servers.iter().any(|known| known.address == server.address) {
                        servers.push(server);
                    }
                }
                servers
            }
        }
    }

    /// Findings about an upstream block and its servers, once for all its users.
    fn block_of(&mut self, block: &Directive, lines: &[ServerLine<'_>]) {
        self.carried(block, "upstreams");
        for line in lines {
            let what = match (line.has("down"), line.has("backup")) {
                (true, _) => "left out, as it is down",
                (_, true) => "upstreams: servers, in reserve",
                _ => "upstreams: servers",
            };
            self.report.carry_without(line.directive.id, what, &balance::lost(line, lines));
            if line.host.parse::<IpAddr>().is_err() && !line.has("resolve") {
                self.resolved_once(line.directive, &line.host);
            }
        }
        for directive in block.children().iter().filter(|line| line.argument(0).starts_with("unix:")) {
            let title = "egret speaks TLS over TCP only";
            self.find(SOCKET_UPSTREAM, directive, title, "a Unix socket", "left out");
        }
        let servers = block.children().iter().filter(|line| line.name.text == "server");
        for directive in servers.filter(|server| !lines.iter().any(|line| line.directive.id == server.id)) {
            let title = "this server is lost: it is not a host with a port";
            self.find(
                SERVICE_LOST,
                directive,
                title,
                "not a host with a port",
                "write the host and the port of a server",
            );
        }
    }

    fn resolved_once(&mut self, directive: &Directive, host: &str) {
        let title = format!("`{host}` is resolved when nginx starts, and never again");
        let repair = "nothing: egret resolves it anew when its time to live is over; in nginx, `resolve` behind the \
                      server and a `resolver`";
        self.find(RESOLVED_ONCE, directive, title, "resolved once", repair);
    }

    fn times(&mut self, proxy_pass: &ProxyPass<'_>, upstream: &mut Upstream) {
        let connect = self.time_of(proxy_pass, "connect_timeout");
        let next = self.time_of(proxy_pass, "next_upstream_timeout");
        upstream.originate = match (next, connect) {
            (Some((directive, time)), _) | (None, Some((directive, time))) => {
                self.carried(directive, "upstreams: originate_timeout");
                Some(time)
            }
            (None, None) => self.options.faithful.then_some(Duration::from_secs(60)),
        };
        if let (Some(_), Some((directive, _))) = (next, connect) {
            self.listed(directive, "one deadline holds for all servers: that of `next_upstream_timeout`");
        }
        let idle = ["timeout", "read_timeout", "send_timeout"].map(|what| self.time_of(proxy_pass, what));
        let idle: Vec<_> = idle.into_iter().flatten().collect();
        for (directive, _) in &idle {
            self.carried(directive, "upstreams: idle_timeout");
        }
        let default = if proxy_pass.http { 60 } else { 600 };
        let default = self.options.faithful.then_some(Duration::from_secs(default));
        upstream.idle = idle.into_iter().map(|(_, time)| time).max().or(default);
    }

    /// `proxy_socket_keepalive`: egret probes by default.
    fn probes(&mut self, proxy_pass: &ProxyPass<'_>, upstream: &mut Upstream) {
        let Some(directive) = proxy_pass.scope.get(&format!("{}_socket_keepalive", proxy_pass.prefix)) else { return };
        if directive.argument(0) == "off" {
            upstream.tcp.keepalive = Some(None);
        }
        self.carried(directive, "upstreams: tcp.keepalive");
    }

    fn time_of<'b>(&mut self, proxy_pass: &ProxyPass<'b>, what: &str) -> Option<(&'b Directive, Duration)> {
        let directive = proxy_pass.scope.get(&format!("{}_{what}", proxy_pass.prefix))?;
        match time(directive.argument(0)) {
            Some(length) if length > Duration::ZERO && length <= LONGEST => Some((directive, length)),
            Some(_) => {
                self.listed(directive, "no bound, or one longer than a year: the default of egret holds");
                None
            }
            None => {
                self.listed(directive, "this time depends on variables or is invalid");
                None
            }
        }
    }

    /// Reports what nginx would do to the connection besides TLS.
    fn proxy_features(&mut self, proxy_pass: &ProxyPass<'_>) {
        let get = |what: &str| proxy_pass.scope.get(&format!("{}_{what}", proxy_pass.prefix));
        if let Some(directive) = get("protocol").filter(|directive| directive.argument(0) != "off") {
            let title = "the server is told the client's address in a PROXY header, which egret does not send";
            let repair = "switch it off at the server as well: it waits for a header that does not come";
            self.find(PROXY_HEADER, directive, title, "PROXY header", repair);
        }
        if let Some(directive) = get("bind").filter(|directive| directive.argument(0) != "off") {
            let title = "connections to the server are to come from this address; egret lets the system choose";
            let repair = "use a route with a source address (`ip route ... src`) if the server looks at it";
            self.find(SOURCE_ADDRESS, directive, title, "source address", repair);
        }
        match get("next_upstream") {
            Some(directive) if directive.argument(0) == "off" => {
                self.listed(directive, "egret always goes on to the next server while no byte of the client is lost");
            }
            Some(directive) if proxy_pass.http => {
                self.listed(directive, "egret goes on when a server cannot be reached; it sees no status of HTTP");
            }
            Some(directive) => self.carried(directive, "egret goes on to the next server"),
            None => {}
        }
        match get("half_close") {
            Some(directive) if directive.argument(0) == "on" => {
                self.carried(directive, "egret always passes the end of one side on");
            }
            directive if !proxy_pass.http => {
                let title = "when one side ends, nginx ends the other; egret passes the end on, and the other direction goes on";
                let repair = "`half_closed_timeout` bounds that; in nginx: `proxy_half_close on;`";
                self.find_beside(HALF_CLOSE, directive.unwrap_or(proxy_pass.pass), title, "end of one side", repair);
                if let Some(directive) = directive {
                    self.report.settle(directive.id, Outcome::Found(HALF_CLOSE.word));
                }
            }
            _ => {}
        }
    }
}
