//! `http`: each way out by TLS is an upstream. What depends on requests (paths, hosts, headers) is a finding.

use crate::tools::import::draft::Listener;
use crate::tools::import::findings::{Code, FRAGMENT, HTTP_HOST, HTTP_PATH, HTTP_VHOST};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::listen::{Extra, To};
use crate::tools::import::nginx::listen_addr::{At, ListenAddr, common_variables};
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::{PassTarget, ProxyPass};
use crate::tools::import::nginx::scope::Scope;

struct Server<'a> {
    directive: &'a Directive,
    scope: Scope<'a>,
    listen_addrs: Vec<ListenAddr<'a>>,
    exits: Vec<Exit<'a>>,
}

struct Exit<'a> {
    location: &'a Directive,
    upstream: usize,
}

/// The number of a server that only the importer put around a piece of configuration.
pub(super) const MADE_UP: usize = usize::MAX;

impl<'a> Importer<'_> {
    pub(super) fn http(&mut self, outer: &Scope<'a>, block: &'a Directive, extras: &mut Vec<Extra<'a>>) {
        let scope = outer.inner(block.children());
        let blocks: Vec<_> = block.children().iter().filter(|one| one.name.text == "upstream").collect();
        let mut servers = Vec::new();
        for directive in block.children().iter().filter(|one| one.name.text == "server") {
            servers.push(self.http_server(&scope, directive, &blocks));
        }
        for at in 0..servers.len() {
            self.open_server(&servers, at, extras);
        }
    }

    fn http_server(&mut self, outer: &Scope<'a>, directive: &'a Directive, blocks: &[&'a Directive]) -> Server<'a> {
        let scope = outer.inner(directive.children());
        let listen_addrs = if directive.id == MADE_UP { Vec::new() } else { self.listen_addrs(directive, true) };
        let scope = scope.with(common_variables(&listen_addrs, directive));
        let mut locations = Vec::new();
        collect(&scope, directive, &mut locations);
        let mut exits = Vec::new();
        for (location, scope) in &locations {
            if let Some(upstream) = self.exit(location, scope, directive, blocks) {
                exits.push(Exit { location, upstream });
            }
        }
        // The location of everything goes first: it gets the address.
        if let Some(root) = exits.iter().position(|exit| path_of(exit.location) == "/") {
            exits[..=root].rotate_right(1);
        }
        for (location, _) in &locations {
            self.location(location, exits.iter().find(|exit| exit.location.id == location.id), exits.first());
        }
        Server { directive, scope, listen_addrs, exits }
    }

    /// `None` unless the location uses TLS to its upstream.
    fn exit(
        &mut self,
        location: &'a Directive,
        scope: &Scope<'a>,
        server: &'a Directive,
        blocks: &[&'a Directive],
    ) -> Option<usize> {
        let (prefix, pass) = PASSES.iter().find_map(|(name, prefix)| {
            Some((*prefix, location.children().iter().rfind(|one| one.name.text == *name)?))
        })?;
        let url = self.url(scope, pass)?;
        let tls = matches!(url.scheme.as_str(), "https" | "grpcs" | "suwsgi");
        let port = if tls { 443 } else { 80 };
        let late = pass.argument(0).contains('$');
        let target = self.target(pass, &url.authority, blocks, Some(port), late)?;
        if let PassTarget::Block(..) = &target
            && url.authority.contains(':')
        {
            self.listed(pass, "an upstream block has no port of its own");
        }
        let proxy_pass = ProxyPass { scope: scope.clone(), prefix, http: true, pass, target };
        if !tls && !self.plaintext(&proxy_pass, location) {
            return None;
        }
        let upstream = self.upstream(&proxy_pass)?;
        self.host(&proxy_pass, &url.authority);
        self.path_changes(location, pass, &url.path);
        self.carried(server, "listeners");
        Some(upstream)
    }

    /// nginx makes up a `Host` for the server; a client of egret sends its own.
    fn host(&mut self, proxy_pass: &ProxyPass<'_>, authority: &str) {
        let header = format!("{}_set_header", proxy_pass.prefix);
        let headers = proxy_pass.scope.all(&header);
        let host = headers.iter().find(|one| one.argument(0).eq_ignore_ascii_case("host")).copied();
        let wanted = host.map_or(authority, |host| host.argument(1));
        if let Some(host) = host.filter(|_| ["$host", "$http_host"].contains(&wanted)) {
            self.carried(host, "the Host of the client goes through as it is");
            return;
        }
        let wanted = if wanted == "$proxy_host" { authority } else { wanted };
        let title = format!("nginx writes `Host: {wanted}` into requests; egret carries bytes, and changes none");
        let repair = format!("let clients say it: `curl --header \"Host: {wanted}\"`, or the name in their URL");
        self.find(HTTP_HOST, host.unwrap_or(proxy_pass.pass), title, "a Host", repair);
    }

    fn path_changes(&mut self, location: &Directive, pass: &Directive, path: &str) {
        if !path.is_empty() && !path.starts_with('$') && path != path_of(location) {
            let title = format!("nginx writes `{path}` in place of `{}` into requests", path_of(location));
            let repair = "let clients ask for the path that the server knows";
            self.find(HTTP_PATH, pass, title, "a path", repair);
        }
    }

    /// Only one location of all can have an address.
    fn location(&mut self, location: &Directive, exit: Option<&Exit<'_>>, main: Option<&Exit<'_>>) {
        let Some(main) = main else { return };
        let path = path_of(location);
        match exit {
            Some(exit) if exit.location.id == main.location.id && path != "/" => {
                let title = format!("only requests for `{path}` went to this server; now all do");
                let repair = "a stream of bytes has no paths: see that nothing else is asked for here";
                self.find(HTTP_PATH, location, title, "a path", repair);
            }
            Some(exit) if exit.upstream == main.upstream => self.carried(location, "the same upstream"),
            Some(_) => {}
            None if location.name.text == "location" && !self.is_settled(location) => {
                let title = format!("requests for `{path}` were answered by nginx itself; now they go to the server");
                let repair = "keep them away from egret, or leave this to nginx";
                self.find(HTTP_PATH, location, title, "a path", repair);
            }
            None => {}
        }
    }

    fn is_settled(&self, directive: &Directive) -> bool {
        self.report.entries.get(directive.id).is_none_or(|entry| entry.outcome.is_some())
    }

    fn open_server(&mut self, servers: &[Server<'a>], at: usize, extras: &mut Vec<Extra<'a>>) {
        let server = &servers[at];
        let Some(main) = server.exits.first() else {
            self.list_all(server.directive, "nothing goes out of this server by TLS");
            return;
        };
        let scope = scope_of(server, main);
        self.listen_losses(server.directive, true);
        if server.directive.id == MADE_UP {
            self.made_up(FRAGMENT, main.location, main.upstream);
        }
        for listen_addr in &server.listen_addrs {
            if owner(servers, listen_addr) == Some(at) {
                self.open(listen_addr, server.directive, &scope, &To::one(main.upstream), extras);
            } else {
                self.virtual_host(server, listen_addr, main.upstream, extras);
            }
        }
        let Some(listen_addr) = server.listen_addrs.first() else { return };
        let mut reported = vec![main.upstream];
        for exit in server.exits.iter().filter(|exit| exit.location.id != main.location.id) {
            if reported.contains(&exit.upstream) {
                continue;
            }
            reported.push(exit.upstream);
            self.other_location(server, listen_addr, exit, extras);
        }
    }

    fn virtual_host(
        &mut self,
        server: &Server<'a>,
        listen_addr: &ListenAddr<'a>,
        upstream: usize,
        extras: &mut Vec<Extra<'a>>,
    ) {
        let name = server.directive.children().iter().find(|one| one.name.text == "server_name");
        let directive = name.or(listen_addr.directive).unwrap_or(server.directive);
        let title = "servers on one address differ only by the Host of a request, which egret does not read";
        let from = self.line(directive);
        if let Some(listen) = listen_addr.directive {
            self.carried(listen, "listeners: listen, on an address of its own");
        }
        let listener = Listener { from, upstream: Some(upstream), ..Listener::default() };
        extra(HTTP_VHOST, (directive, title.to_owned()), listen_addr, listener, extras);
    }

    fn other_location(
        &mut self,
        server: &Server<'a>,
        listen_addr: &ListenAddr<'a>,
        exit: &Exit<'a>,
        extras: &mut Vec<Extra<'a>>,
    ) {
        let title = format!(
            "requests for `{}` go to another server, and a stream of bytes has no paths",
            path_of(exit.location)
        );
        let from = self.line(exit.location);
        self.carried(server.directive, "listeners");
        let listener = Listener { from, upstream: Some(exit.upstream), ..Listener::default() };
        extra(HTTP_PATH, (exit.location, title), listen_addr, listener, extras);
    }
}

/// Records a listener that gets an address of its own, on a port near that of `listen_addr`.
fn extra<'a>(
    code: Code,
    (directive, title): (&'a Directive, String),
    listen_addr: &ListenAddr<'a>,
    listener: Listener,
    extras: &mut Vec<Extra<'a>>,
) {
    let port = match &listen_addr.at {
        At::Tcp(address) => address.port(),
        At::Unix(_) => 8080,
    };
    let same = |known: &Extra<'_>| known.directive.id == directive.id && known.listener.upstream == listener.upstream;
    if !extras.iter().any(same) {
        extras.push(Extra { code, directive, title, listener, port });
    }
}

/// Directives that forward requests, each with the prefix of its settings.
const PASSES: [(&str, &str); 3] = [("proxy_pass", "proxy"), ("grpc_pass", "grpc"), ("uwsgi_pass", "uwsgi")];

/// All locations of a server, nested ones too, each with its scope.
fn collect<'a>(scope: &Scope<'a>, block: &'a Directive, into: &mut Vec<(&'a Directive, Scope<'a>)>) {
    for location in block.children().iter().filter(|one| one.name.text == "location") {
        let inner = scope.inner(location.children());
        into.push((location, inner.clone()));
        collect(&inner, location, into);
    }
}

fn scope_of<'a>(server: &Server<'a>, exit: &Exit<'a>) -> Scope<'a> {
    server.scope.inner(exit.location.children())
}

/// The last argument.
fn path_of(location: &Directive) -> &str {
    location.arguments.last().map_or("", |word| &word.text)
}

/// Of the servers on the address `listen_addr`, the default server if it uses TLS upstream; else the first that does.
fn owner(servers: &[Server<'_>], listen_addr: &ListenAddr<'_>) -> Option<usize> {
    let on = |server: &Server<'_>, default: bool| {
        !server.exits.is_empty()
            && server.listen_addrs.iter().any(|other| other.at == listen_addr.at && (other.default || !default))
    };
    servers.iter().position(|server| on(server, true)).or_else(|| servers.iter().position(|server| on(server, false)))
}
