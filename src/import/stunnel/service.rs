//! One service: `client = yes` becomes an upstream and a listener, anything else is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::import::draft::{Identity, Listener, Server, Tls, Trust, Upstream};
use crate::import::findings::{
    NO_NAME, OPEN_TO_ALL, Outcome, PROTOCOL, PROXY_HEADER, RESOLVED_ONCE, SERVER_SIDE, SESSIONS_OFF, SNI_OFF,
    SOCKET_MODE, SOCKET_UPSTREAM, SOURCE_ADDRESS, VERIFY_ABSENT, VERIFY_ANY_NAME, VERIFY_OFF, VERIFY_WITHOUT_TRUST,
    WEAK_PROTOCOL,
};
use crate::import::stunnel::{Importer, Service, Setting};

/// How stunnel verifies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verification {
    /// Not at all.
    Nothing,
    /// The chain.
    Chain,
    /// The certificate itself has to be known.
    Peer,
}

/// The host and port of an address; `None` for paths of Unix sockets and what is neither.
fn split(text: &str) -> Option<(&str, u16)> {
    if text.starts_with('/') {
        return None;
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    Some((host.trim_matches(['[', ']']), port.parse().ok().filter(|port| *port > 0)?))
}

impl Importer<'_> {
    pub(super) fn service(&mut self, service: &Service) {
        let client = self.get(service, "client");
        if client.as_ref().is_none_or(|client| !is_yes(client)) {
            let title = format!("`{}` takes TLS of clients and speaks plainly to a server", service.name);
            let repair = "not carried over: egret is for the other direction; leave it to stunnel";
            self.report.find(SERVER_SIDE, service.place.clone(), title, "a server", repair);
            self.report.settle(service.id, Outcome::Found(SERVER_SIDE.word));
            return;
        }
        let Some(upgrade) = self.protocol(service) else { return };
        let (servers, balance) = self.servers(service);
        let accept = self.get(service, "accept");
        let (Some(accept), false) = (accept, servers.is_empty()) else {
            let why = "without `accept` and a `connect` over TCP there is nothing to carry";
            self.report.settle(service.id, Outcome::Listed(why.to_owned()));
            return;
        };
        let Some(mut listener) = self.listener(&accept) else { return };
        if let Some(client) = client {
            self.carried(&client, "TLS is what egret speaks to every server");
        }
        let tls = self.tls(service, &servers);
        let servers = servers.into_iter().map(|address| Server { address, ..Server::default() }).collect();
        let base = service.name.clone();
        let mut upstream = Upstream { base, servers, balance, upgrade, tls, ..Upstream::default() };
        self.times(service, &mut upstream);
        self.source_address(service);
        listener.upstream = Some(self.draft.upstream(upstream));
        if self.draft.listeners.iter().any(|known| known.listen == listener.listen) {
            self.listed(&accept, "another service listens there already");
            return;
        }
        self.draft.listeners.push(listener);
        self.carried(&accept, "listeners: listen");
        self.report.settle(service.id, Outcome::Carried("upstreams, listeners".to_owned()));
    }

    /// The option that holds: the last of the service, else that of all.
    fn get(&self, service: &Service, name: &str) -> Option<Setting> {
        self.all(service, name).pop()
    }

    fn all(&self, service: &Service, name: &str) -> Vec<Setting> {
        let named = |list: &[Setting]| -> Vec<Setting> {
            list.iter().filter(|setting| setting.name == name).cloned().collect()
        };
        let own = named(&service.own);
        if own.is_empty() { named(&self.common) } else { own }
    }

    /// The upgrade; outer `None`: one that egret does not know, so that the service cannot work.
    fn protocol(&mut self, service: &Service) -> Option<Option<&'static str>> {
        let Some(protocol) = self.get(service, "protocol") else { return Some(None) };
        match protocol.value.to_ascii_lowercase().as_str() {
            "pgsql" => {
                self.carried(&protocol, "upstreams: upgrade");
                Some(Some("postgres"))
            }
            "proxy" => {
                let title = "the server is told the client's address in a PROXY header, which egret does not send";
                let repair = "switch it off at the server as well: it waits for a header that does not come";
                self.find(PROXY_HEADER, &protocol, title, "PROXY header", repair);
                Some(None)
            }
            other => {
                let title = format!("egret does not know how `{other}` goes over to TLS");
                let repair = "not carried over; if the server has a port with TLS from the first byte, take that one";
                self.find(PROTOCOL, &protocol, title, "an upgrade", repair);
                self.report.settle(service.id, Outcome::Listed(format!("`protocol = {other}` is not known to egret")));
                None
            }
        }
    }

    /// The servers, and how one of them is chosen.
    fn servers(&mut self, service: &Service) -> (Vec<String>, Option<&'static str>) {
        let delayed = self.get(service, "delay");
        if let Some(delay) = delayed.as_ref().filter(|delay| is_yes(delay)) {
            self.carried(delay, "names are always resolved anew");
        }
        let mut servers = Vec::new();
        for connect in self.all(service, "connect") {
            let Some((host, port)) = split(&connect.value) else {
                let title = "egret speaks TLS over TCP only";
                self.find(SOCKET_UPSTREAM, &connect, title, "no host and port", "left out");
                continue;
            };
            let host = if host.is_empty() { "localhost" } else { host };
            let server = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            self.carried(&connect, "upstreams: servers");
            if host.parse::<IpAddr>().is_err() && !delayed.as_ref().is_some_and(is_yes) {
                let title = format!("`{host}` is resolved when stunnel starts, and not again while that works");
                let repair = "nothing: egret resolves it anew when its time to live is over; in stunnel, `delay = yes`";
                self.find(RESOLVED_ONCE, &connect, title, "resolved once", repair);
            }
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        // In order, unless it is said otherwise.
        let failover = self.get(service, "failover");
        let in_turns = failover.as_ref().is_some_and(|failover| failover.value == "rr");
        if let Some(failover) = failover {
            self.carried(&failover, "upstreams: balance");
        }
        let balance = if in_turns { "round_robin" } else { "priority" };
        let balance = (servers.len() > 1).then_some(balance);
        (servers, balance)
    }

    fn listener(&mut self, accept: &Setting) -> Option<Listener> {
        let from = self.report.line(&accept.place);
        if accept.value.starts_with('/') {
            let listen = format!("unix:{}", accept.value);
            let mode = self.options.faithful.then_some("0666");
            let title = "every user of this machine may use this socket, unless the mask of stunnel forbids it";
            let repair = "egret makes it for its own user alone; `mode = \"0660\"` and `allow_users` for others";
            self.find(SOCKET_MODE, accept, title, "open to users", repair);
            return Some(Listener { from, listen, mode, ..Listener::default() });
        }
        let address = split(&accept.value).and_then(|(host, port)| {
            let ip: IpAddr = match host {
                "" | "*" => Ipv4Addr::UNSPECIFIED.into(),
                "localhost" => Ipv4Addr::LOCALHOST.into(),
                host => host.parse().ok()?,
            };
            Some(SocketAddr::new(ip, port))
        });
        let Some(mut address) = address else {
            self.listed(accept, "this is no address that could be told without resolving a name");
            return None;
        };
        let mut listener = Listener { from, ..Listener::default() };
        if !address.ip().is_loopback() {
            self.open_to_all(accept, &mut address, &mut listener);
        }
        listener.listen = address.to_string();
        Some(listener)
    }

    fn open_to_all(&mut self, accept: &Setting, address: &mut SocketAddr, listener: &mut Listener) {
        let title = "everybody who reaches this address may come, and speaks to the server in its name";
        let everyone = if address.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        let open = *address;
        let repair = if self.options.faithful {
            listener.allow = everyone.parse().into_iter().collect();
            format!("written as `allow = [\"{everyone}\"]`; name the networks of the clients")
        } else {
            let fitting = self.options.allow.iter().filter(|network| network.addr().is_ipv6() == address.is_ipv6());
            listener.allow = fitting.copied().collect();
            if !listener.allow.is_empty() {
                return;
            }
            let loopback: IpAddr =
                if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            address.set_ip(loopback);
            format!("egret listens on {address}; for others: `listen = \"{open}\"` and `allow = [\"...\"]`")
        };
        self.find(OPEN_TO_ALL, accept, title, "open", repair);
    }

    fn tls(&mut self, service: &Service, servers: &[String]) -> Tls {
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
            let groups: Option<Vec<_>> = curves.value.split(':').map(crate::import::facts::group).collect();
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
        let certificate = self.get(service, "cert").filter(|cert| !cert.value.is_empty())?;
        let key = self.get(service, "key").filter(|key| !key.value.is_empty());
        for setting in [Some(&certificate), key.as_ref()].into_iter().flatten() {
            if setting.value.starts_with("pkcs11:") {
                self.listed(setting, "egret takes certificates and keys from files only");
                return None;
            }
            self.carried(setting, "identities");
        }
        let certificate = self.path(&certificate.value);
        let private_key = key.map(|key| self.path(&key.value)).filter(|key| *key != certificate);
        Some(self.draft.identity(Identity { certificate, private_key, password_file: None }))
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
            let title = "verification is on, but nothing says whom to believe";
            let repair = "egret believes the roots of the system; name others in a trust";
            self.report.find(VERIFY_WITHOUT_TRUST, service.place.clone(), title, "no roots", repair);
        }
        let mut trust = Trust::default();
        let file = self.get(service, "cafile");
        match file.filter(|_| how == Verification::Peer) {
            Some(file) => trust.certificate = Some(self.path(&file.value)),
            None => trust.roots = files.iter().map(|file| self.path(&file.value)).collect(),
        }
        for file in &files {
            self.carried(file, "trust");
        }
        for list in self.all(service, "crlfile").into_iter().filter(|_| trust.certificate.is_none()) {
            trust.crls.push(self.path(&list.value));
            self.carried(&list, "trust: crls");
        }
        trust.names = self.names(service, how, hosts, tls);
        tls.trust = (trust != Trust::default()).then(|| self.draft.trust(trust));
    }

    fn how(&mut self, service: &Service) -> Verification {
        let mut how = Verification::Nothing;
        if let Some(level) = self.get(service, "verify") {
            how = match level.value.as_str() {
                "2" => Verification::Chain,
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
        ["cafile", "capath"].into_iter().filter_map(|name| self.get(service, name)).collect()
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

    /// Names that stunnel expects and that are not the one that is sent.
    fn names(&mut self, service: &Service, how: Verification, hosts: &[&str], tls: &Tls) -> Vec<String> {
        let mut names = Vec::new();
        for (option, kind) in [("checkhost", "dns"), ("checkip", "ip")] {
            for setting in self.all(service, option) {
                names.push(format!("{kind}:{}", setting.value));
                self.carried(&setting, "trust: names");
            }
        }
        for setting in self.all(service, "checkemail") {
            self.listed(&setting, "servers are not known by mail addresses");
        }
        if names.is_empty() && how == Verification::Chain {
            let title = "the chain is verified, but any name will do: every server of this authority can pose as it";
            let sent = tls.server_name.clone().or_else(|| hosts.first().map(|host| (*host).to_owned()));
            let repair = format!("egret expects `{0}`; in stunnel: `checkHost = {0}`", sent.unwrap_or_default());
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

    fn times(&mut self, service: &Service, upstream: &mut Upstream) {
        let (idle, originate) = (self.time(service, "timeoutidle"), self.time(service, "timeoutconnect"));
        let faithful = self.options.faithful.then_some(Duration::from_secs(12 * 3600));
        upstream.idle = idle.or(faithful);
        upstream.originate = originate;
        let close = self.time(service, "timeoutclose");
        upstream.half_closed = close.filter(|close| upstream.idle.is_none_or(|idle| *close <= idle));
    }

    fn time(&mut self, service: &Service, name: &str) -> Option<Duration> {
        let setting = self.get(service, name)?;
        let seconds = setting.value.parse::<u64>().ok().filter(|seconds| (1..=31_536_000).contains(seconds))?;
        self.carried(
            &setting,
            match name {
                "timeoutidle" => "upstreams: idle_timeout",
                "timeoutconnect" => "upstreams: originate_timeout",
                _ => "upstreams: half_closed_timeout",
            },
        );
        Some(Duration::from_secs(seconds))
    }

    fn source_address(&mut self, service: &Service) {
        for name in ["local", "transparent"] {
            let Some(setting) = self.get(service, name).filter(|setting| setting.value != "none") else { continue };
            let title = "connections to the server are to come from another address; egret lets the system choose";
            let repair = "use a route with a source address (`ip route ... src`) if the server looks at it";
            self.find(SOURCE_ADDRESS, &setting, title, "source address", repair);
        }
    }
}

fn is_yes(setting: &Setting) -> bool {
    setting.value.eq_ignore_ascii_case("yes")
}
