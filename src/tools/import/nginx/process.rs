//! What holds for the whole of nginx: threads, name servers; and what its servers share, sessions above all.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::tools::import::draft::Dns;
use crate::tools::import::findings::SESSIONS_SHARED;
use crate::tools::import::nginx::importer::{Importer, User};
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::time;

impl Importer<'_> {
    /// The directives outside `http` and `stream`, and the name servers of every block.
    pub(super) fn process(&mut self, tree: &[Directive]) {
        for directive in tree {
            match directive.name.text.as_str() {
                "worker_processes" => self.workers(directive),
                "worker_cpu_affinity" => self.affinity(directive),
                "worker_shutdown_timeout" => match time(directive.argument(0)) {
                    Some(length) if !length.is_zero() => {
                        self.draft.drain = Some(length);
                        self.carried(directive, "drain_timeout");
                    }
                    _ => self.listed(directive, "streams have to end: `drain_timeout`"),
                },
                _ => {}
            }
        }
        let mut resolvers = Vec::new();
        find_all(tree, "resolver", &mut resolvers);
        for directive in resolvers {
            self.resolver(directive);
        }
    }

    fn workers(&mut self, directive: &Directive) {
        match directive.argument(0).parse::<usize>() {
            Ok(count) if (1..=1024).contains(&count) => {
                self.draft.workers = Some(count);
                self.carried(directive, "runtime.workers");
            }
            _ => self.carried(directive, "one thread per processor is the default"),
        }
    }

    /// nginx has a mask for each process; the threads of egret share all of them.
    fn affinity(&mut self, directive: &Directive) {
        let masks = directive.arguments.iter().map(|word| word.text.as_str());
        let is_mask = |mask: &str| mask.len() <= MOST_PROCESSORS && mask.bytes().all(|bit| b"01".contains(&bit));
        if !masks.clone().all(is_mask) {
            return self.listed(directive, "the threads of egret run on all processors unless `affinity` names some");
        }
        let bits = masks.flat_map(|mask| mask.bytes().rev().enumerate()).filter(|(_, bit)| *bit == b'1');
        self.draft.affinity = bits.map(|(at, _)| at).collect::<BTreeSet<_>>().into_iter().collect();
        self.carried(directive, "runtime.affinity");
    }

    fn resolver(&mut self, directive: &Directive) {
        let words = directive.arguments.iter().map(|word| word.text.as_str());
        let (settings, servers): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
        let valid = settings.iter().find_map(|word| time(word.strip_prefix("valid=")?)).filter(|time| !time.is_zero());
        let servers: Vec<String> = servers.into_iter().filter_map(address).collect();
        let dns = Dns { servers, valid };
        if dns.servers.is_empty() {
            self.listed(directive, "name servers are known by address; those of the system are the default");
        } else if self.draft.dns == Dns::default() || self.draft.dns == dns {
            self.draft.dns = dns;
            self.carried(directive, "dns");
        } else {
            self.listed(directive, "egret has one set of name servers: `[dns] servers`");
        }
    }

    /// One server entry, used with different certificates or trusts while sessions are resumed: such a fault takes a
    /// day to find.
    pub(super) fn shared_sessions(&mut self) {
        let users = std::mem::take(&mut self.users);
        for (at, user) in users.iter().enumerate() {
            let same = |other: &&User| other.http == user.http && other.entry == user.entry;
            let Some(first) = users[..at].iter().filter(same).find(|other| other.settings != user.settings) else {
                continue;
            };
            let differ = user.settings.iter().zip(&first.settings).filter(|(one, other)| one != other);
            let differ: Vec<_> = differ.map(|((what, _), _)| *what).collect();
            let title = format!(
                "nginx continues TLS sessions of {} here, and the other way round: the {} of one holds for the other",
                self.report.line(&first.place),
                differ.join(" and the ")
            );
            let repair = "nothing: egret keeps a store for each identity and trust; in nginx, an upstream block for \
                          each, or `proxy_ssl_session_reuse off;`";
            self.report.find(SESSIONS_SHARED, user.place.clone(), title, "shared sessions", repair);
        }
    }
}

/// The size of a Linux processor set.
const MOST_PROCESSORS: usize = 1024;

fn address(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(if address.port() == 53 { address.ip().to_string() } else { address.to_string() });
    }
    text.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

fn find_all<'a>(tree: &'a [Directive], name: &str, into: &mut Vec<&'a Directive>) {
    for directive in tree {
        if directive.name.text == name && directive.block.is_none() {
            into.push(directive);
        }
        find_all(directive.children(), name, into);
    }
}
