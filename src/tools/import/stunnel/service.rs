//! One service: `client = yes` becomes an upstream and a listener, anything else is a finding.

use std::net::IpAddr;
use std::time::Duration;

use crate::protocols::Upgrade;
use crate::tools::import::draft::{Server, Upstream};
use crate::tools::import::facts::{EOF_REPAIR, eof_strict, is_name};
use crate::tools::import::findings::{
    ACCESS_LOST, EOF_STRICT, HALF_CLOSE, PROTOCOL, PROXY_HEADER, RESOLVED_ONCE, SERVER_SIDE, SERVICE_LOST,
    SOCKET_UPSTREAM, SOURCE_ADDRESS,
};
use crate::tools::import::report::Outcome;
use crate::tools::import::stunnel::{Importer, Service, Setting, is_yes};

/// `None` for paths of Unix sockets and anything else.
pub(super) fn split(text: &str) -> Option<(&str, u16)> {
    if text.starts_with('/') {
        return None;
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    Some((host.trim_matches(['[', ']']), self::port(port).filter(|port| *port > 0)?))
}

/// By number, or by the name of its service in IANA's registry and /etc/services.
pub(super) fn port(text: &str) -> Option<u16> {
    let named = SERVICES.iter().find(|(names, _)| names.split(' ').any(|name| name == text));
    named.map(|(_, port)| *port).or_else(|| text.parse().ok())
}

/// Services that people use in `accept` and `connect`.
const SERVICES: [(&str, u16); 14] = [
    ("smtp", 25),
    ("http", 80),
    ("pop3", 110),
    ("nntp", 119),
    ("imap imap2", 143),
    ("ldap", 389),
    ("https", 443),
    ("smtps ssmtp urd submissions", 465),
    ("nntps", 563),
    ("ldaps", 636),
    ("ftps", 990),
    ("imaps", 993),
    ("pop3s", 995),
    ("postgresql", 5432),
];

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
        let Some(accept) = self.get(service, "accept") else { return self.service_lost(service) };
        let Some(mut listener) = self.listener(&accept) else {
            return self.report.settle(service.id, Outcome::Found(SERVICE_LOST.word));
        };
        let (servers, balance) = self.servers(service);
        if servers.is_empty() {
            return self.service_lost(service);
        }
        if let Some(client) = client {
            self.carried(&client, "TLS is what egret speaks to every server");
        }
        let tls = self.tls(service, &servers);
        let servers = servers.into_iter().map(|address| Server { address, ..Server::default() }).collect();
        let base = service.name.clone();
        let mut upstream = Upstream { base, servers, balance, upgrade, tls, ..Upstream::default() };
        self.times(service, &mut upstream);
        self.end_of_stream(service, &mut upstream);
        self.source_address(service);
        self.access(service);
        listener.upstream = Some(self.draft.upstream(upstream));
        if self.draft.listeners.iter().any(|known| known.listen == listener.listen && !listener.listen.ends_with(":0"))
        {
            let title = "this service is lost: another one listens on its address already";
            self.find(SERVICE_LOST, &accept, title, "in use", "give it an address of its own, and import again");
            self.report.settle(service.id, Outcome::Listed("its address is in use".to_owned()));
            return;
        }
        self.draft.listeners.push(listener);
        self.carried(&accept, "listeners: listen");
        self.report.settle(service.id, Outcome::Carried("upstreams, listeners".to_owned()));
    }

    fn service_lost(&mut self, service: &Service) {
        let title = "this service is lost: it has no `accept` or no `connect` over TCP";
        let repair = "egret carries connections from listeners to servers over TCP; leave it to stunnel";
        self.report.find(SERVICE_LOST, service.place.clone(), title, "not carried", repair);
        self.report.settle(service.id, Outcome::Found(SERVICE_LOST.word));
    }

    /// The last value of the service, else of the global options.
    pub(super) fn get(&self, service: &Service, name: &str) -> Option<Setting> {
        self.all(service, name).pop()
    }

    pub(super) fn all(&self, service: &Service, name: &str) -> Vec<Setting> {
        let named = |list: &[Setting]| -> Vec<Setting> {
            list.iter().filter(|setting| setting.name == name).cloned().collect()
        };
        let own = named(&service.own);
        if own.is_empty() { named(&self.common) } else { own }
    }

    /// Outer `None`: an upgrade that egret does not support, so that the service cannot work.
    fn protocol(&mut self, service: &Service) -> Option<Option<&'static str>> {
        let Some(protocol) = self.get(service, "protocol") else { return Some(None) };
        let word = protocol.value.to_ascii_lowercase();
        if let Some(upgrade) = Upgrade::of_stunnel(&word) {
            self.carried(&protocol, "upstreams: upgrade");
            if word == "smtp" {
                self.log_in(service);
            }
            return Some(Some(upgrade.word));
        }
        match word.as_str() {
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

    /// stunnel can log in to a server of SMTP before its client speaks.
    fn log_in(&mut self, service: &Service) {
        let Some(user) = self.get(service, "protocolusername") else { return };
        let title = "stunnel logs in to the server by this name and a password; egret does not";
        let repair = "set both in the client; or let the server accept the client certificate in their place";
        self.find(PROTOCOL, &user, title, "a log-in", repair);
    }

    fn servers(&mut self, service: &Service) -> (Vec<String>, Option<&'static str>) {
        let delayed = self.get(service, "delay");
        if let Some(delay) = delayed.as_ref().filter(|delay| is_yes(delay)) {
            self.carried(delay, "names are always resolved anew");
        }
        let mut servers = Vec::new();
        for connect in self.all(service, "connect") {
            let named = |(host, _): &(&str, u16)| host.is_empty() || is_name(host);
            let Some((host, port)) = split(&connect.value).filter(named) else {
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

    fn times(&mut self, service: &Service, upstream: &mut Upstream) {
        let idle = self.time(service, "timeoutidle");
        let originate = self.time(service, "timeoutconnect");
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

    fn end_of_stream(&mut self, service: &Service, upstream: &mut Upstream) {
        upstream.eof_lenient = self.options.faithful;
        if !self.options.faithful {
            self.report.find(EOF_STRICT, service.place.clone(), eof_strict("stunnel"), "end", EOF_REPAIR);
        }
        if let Some(reset) = self.get(service, "reset").filter(|reset| !is_yes(reset)) {
            let title = "stunnel hides errors of the server from clients; those of egret get a reset";
            self.find(HALF_CLOSE, &reset, title, "no reset", "nothing: a client has to see that data may be missing");
        }
    }

    /// Access limits other than the address of the listener.
    fn access(&mut self, service: &Service) {
        let libwrap = self.get(service, "libwrap").filter(is_yes);
        let others = ["ident", "username"].map(|name| self.get(service, name));
        for setting in libwrap.into_iter().chain(others.into_iter().flatten()) {
            let title = "clients were judged here by more than their address, which is lost: now all that reach the listener pass";
            let repair = "name their networks in `allow`, or their users in `allow_users` of a Unix socket";
            self.find(ACCESS_LOST, &setting, title, "not carried", repair);
        }
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
