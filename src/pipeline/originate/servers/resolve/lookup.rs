//! One look-up: hosts file, then DNS with both families and the search list.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use rustls::pki_types::DnsName;
use tokio::time::timeout;

use super::{Error, Files, Target, shown};
use crate::wording;

pub(super) struct Source {
    files: Files,
    servers: Servers,
}

enum Servers {
    Configured(Arc<Client>),
    System(Mutex<Option<(Vec<u8>, Arc<Client>)>>),
}

struct Client {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

/// An answer with its TTL.
#[derive(Debug)]
pub(super) struct Found<A> {
    pub(super) answer: A,
    pub(super) ttl: Duration,
}

/// No answer, with its TTL if the reply has one.
#[derive(Debug)]
pub(super) struct Miss {
    pub(super) error: Error,
    pub(super) ttl: Option<Duration>,
}

/// One attempt of a query. Twice that stays below the bound of the whole look-up; inside, UDP is repeated by the
/// measured round-trip time.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Attempts after the first.
const RETRIES: usize = 1;

/// With the addresses of one family known, the other is waited for this long (RFC 8305 section 3, "resolution delay"):
/// some name servers drop AAAA queries.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Most addresses of a name that are used. An answer over TCP could hold thousands.
const MAX_ADDRESSES: usize = 64;

/// Most hosts of a service that are used: each is two look-ups more.
const MAX_TARGETS: usize = 32;

impl Source {
    /// The configured servers, or the system's if there are none.
    pub(super) fn new(servers: &[SocketAddr], files: Files) -> Result<Self, Error> {
        let servers = match servers {
            [] => Servers::System(Mutex::new(None)),
            servers => {
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(name_server).collect());
                let client = Client::new(config, ResolverOpts::default());
                let client = client.map_err(|e| Error::Failure { name: "dns.servers".into(), detail: e.into() })?;
                Servers::Configured(Arc::new(client))
            }
        };
        Ok(Self { files, servers })
    }

    /// Asks DNS for the hosts of a service (RFC 2782).
    pub(super) async fn service(&self, name: &DnsName<'static>) -> Result<Found<Arc<[Target]>>, Miss> {
        let typed = Name::from_str(name.as_ref()).map_err(|e| Error::failure(name, e.to_string()))?;
        let client = self.client(name)?;
        let mut last = Miss::from(Error::NoSuchName { name: shown(name) });
        for candidate in client.candidates(&typed) {
            match client.resolver.lookup(candidate, RecordType::SRV).await {
                Ok(lookup) => return targets(name, &lookup),
                Err(error) => {
                    let miss = why(name, &error);
                    if is_more_telling(&miss.error, &last.error) {
                        last = miss;
                    }
                }
            }
        }
        Err(last)
    }

    pub(super) async fn lookup(&self, name: &DnsName<'static>) -> Result<Found<Arc<[IpAddr]>>, Miss> {
        let typed = Name::from_str(name.as_ref()).map_err(|e| Error::failure(name, e.to_string()))?;
        if let Some(addresses) = self.in_hosts(&typed).await {
            return Ok(Found { answer: addresses, ttl: Duration::ZERO });
        }
        let client = self.client(name)?;
        let mut last = Miss::from(Error::NoSuchName { name: shown(name) });
        for candidate in client.candidates(&typed) {
            match client.both_families(name, candidate).await {
                Ok(found) => return Ok(found),
                Err(miss) if is_more_telling(&miss.error, &last.error) => last = miss,
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn in_hosts(&self, name: &Name) -> Option<Arc<[IpAddr]>> {
        let path = self.files.hosts.clone();
        // A missing or unreadable file has no entry for any name.
        let hosts = tokio::task::spawn_blocking(move || read_hosts(&path)).await.ok()?.ok()?;
        let families = [RecordType::AAAA, RecordType::A].into_iter();
        let found = families.filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)));
        let addresses: Arc<[IpAddr]> = found.flat_map(|lookup| addresses_of(&lookup)).take(MAX_ADDRESSES).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    fn client(&self, name: &DnsName<'_>) -> Result<Arc<Client>, Miss> {
        let read = match &self.servers {
            Servers::Configured(client) => return Ok(Arc::clone(client)),
            Servers::System(read) => read,
        };
        // A local file of a few lines, read where the system's resolver would read it too.
        let text = fs::read(&self.files.resolv_conf).unwrap_or_default();
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((before, client)) if *before == text => Ok(Arc::clone(client)),
            _ => {
                let client = Client::from_resolv_conf(&text).map_err(|e| Error::failure(name, e))?;
                let client = Arc::new(client);
                *read = Some((text, Arc::clone(&client)));
                Ok(client)
            }
        }
    }
}

impl Client {
    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, String> {
        let search = config.search().to_vec();
        let ndots = options.ndots;
        options.timeout = options.timeout.min(QUERY_TIMEOUT);
        options.attempts = RETRIES;
        // `Names` caches stale answers too, and the hosts file was read before.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|e| e.to_string())?;
        Ok(Self { resolver, search, ndots })
    }

    fn from_resolv_conf(text: &[u8]) -> Result<Self, String> {
        let (config, options) = system_conf::parse_resolv_conf(text).unwrap_or_else(|_| {
            let local = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
            (ResolverConfig::from_parts(None, Vec::new(), vec![local]), ResolverOpts::default())
        });
        Self::new(config, options)
    }

    /// The names to ask for, by resolv.conf(5): a name with `ndots` dots first as it is, others first
    /// with what `search` says; one that ends in a dot only as it is.
    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if name.is_fqdn() {
            return vec![absolute];
        }
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        // A name that grows too long by appending is not a candidate.
        let mut candidates: Vec<Name> =
            self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        let at = if dots >= self.ndots { 0 } else { candidates.len() };
        candidates.insert(at, absolute);
        candidates
    }

    async fn both_families(&self, name: &DnsName<'_>, candidate: Name) -> Result<Found<Arc<[IpAddr]>>, Miss> {
        let v6 = self.resolver.lookup(candidate.clone(), RecordType::AAAA);
        let v4 = self.resolver.lookup(candidate, RecordType::A);
        tokio::pin!(v6, v4);
        let (v6, v4) = tokio::select! {
            first = &mut v6 => { let other = second(&first, v4).await; (Some(first), other) }
            first = &mut v4 => { let other = second(&first, v6).await; (other, Some(first)) }
        };
        combine(name, v6, v4)
    }
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Self { error, ttl: None }
    }
}

type Reply = Result<Lookup, NetError>;

/// `None` if the other family's reply is late and the first is good.
async fn second(first: &Reply, other: impl Future<Output = Reply>) -> Option<Reply> {
    match first {
        Ok(lookup) if !addresses_of(lookup).is_empty() => timeout(RESOLUTION_DELAY, other).await.ok(),
        _ => Some(other.await),
    }
}

/// Combines the two replies. If one family is missing, the answer is cached only for a short time.
fn combine(name: &DnsName<'_>, v6: Option<Reply>, v4: Option<Reply>) -> Result<Found<Arc<[IpAddr]>>, Miss> {
    let mut addresses = Vec::new();
    let mut ttl = Duration::MAX;
    let mut miss = None::<Miss>;
    for reply in [v6, v4] {
        match reply {
            None => ttl = Duration::ZERO,
            Some(Ok(lookup)) => {
                let lowest = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
                ttl = ttl.min(Duration::from_secs(lowest.into()));
                addresses.extend(addresses_of(&lookup));
            }
            Some(Err(error)) => {
                let new = why(name, &error);
                if !new.error.is_answer() {
                    ttl = Duration::ZERO;
                }
                miss = Some(match miss {
                    Some(old) => graver(old, new),
                    None => new,
                });
            }
        }
    }
    addresses.truncate(MAX_ADDRESSES);
    match (addresses.is_empty(), miss) {
        (false, _) => Ok(Found { answer: addresses.into(), ttl }),
        (true, Some(miss)) => Err(miss),
        (true, None) => Err(Error::NoAddress { name: shown(name) }.into()),
    }
}

/// Which error of two candidates to show: a failure, since the name may exist there; then "no address",
/// since the name does exist.
fn is_more_telling(new: &Error, old: &Error) -> bool {
    old.is_answer() && !(matches!(old, Error::NoAddress { .. }) && matches!(new, Error::NoSuchName { .. }))
}

/// Of the errors of two families the one to believe: a failure, since the other might have had an
/// address; then "no such name", which is said of the name and not of a family.
fn graver(a: Miss, b: Miss) -> Miss {
    let rank = |miss: &Miss| match miss.error {
        Error::NoAddress { .. } => 0,
        Error::NoSuchName { .. } => 1,
        Error::Failure { .. } => 2,
        Error::Timeout { .. } => 3,
    };
    if rank(&b) > rank(&a) { b } else { a }
}

fn why(name: &DnsName<'_>, error: &NetError) -> Miss {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(no)) => {
            let ttl = no.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            let name = shown(name);
            let gone = no.response_code == ResponseCode::NXDomain;
            let error = if gone { Error::NoSuchName { name } } else { Error::NoAddress { name } };
            Miss { error, ttl }
        }
        NetError::Timeout => Error::Timeout { name: shown(name) }.into(),
        other => Error::failure(name, wording::sentence(other)).into(),
    }
}

/// Addresses one can connect to. Filters write 0.0.0.0 for "blocked"; connecting there reaches this machine.
fn addresses_of(lookup: &Lookup) -> Vec<IpAddr> {
    let all = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
    all.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).collect()
}

/// The hosts of a service that can be asked for. A target of "." says that the service is not offered.
fn targets(name: &DnsName<'_>, lookup: &Lookup) -> Result<Found<Arc<[Target]>>, Miss> {
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some((srv, record.ttl)),
        _ => None,
    });
    let mut targets = Vec::new();
    let mut lowest = u32::MAX;
    for (srv, ttl) in records.take(MAX_TARGETS) {
        lowest = lowest.min(ttl);
        let host = srv.target.to_ascii();
        if let Ok(host) = DnsName::try_from(host.trim_end_matches('.').to_owned())
            && srv.port != 0
        {
            targets.push(Target { host, port: srv.port, priority: srv.priority, weight: srv.weight });
        }
    }
    if targets.is_empty() {
        return Err(Error::NoAddress { name: shown(name) }.into());
    }
    // DNS answers in any order; the order in which they are shown should rest.
    targets.sort_by(|a, b| (a.priority, a.host.as_ref(), a.port).cmp(&(b.priority, b.host.as_ref(), b.port)));
    Ok(Found { answer: targets.into(), ttl: Duration::from_secs(lowest.into()) })
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn read_hosts(path: &Path) -> io::Result<Hosts> {
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(File::open(path)?)?;
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(resolv_conf: &str, name: &str) -> Vec<String> {
        let client = Client::from_resolv_conf(resolv_conf.as_bytes()).unwrap();
        client.candidates(&Name::from_str(name).unwrap()).iter().map(Name::to_string).collect()
    }

    #[test]
    fn search_list_is_tried_by_the_number_of_dots() {
        let conf = "nameserver 192.0.2.53\nsearch ns.example.com example.com\noptions ndots:2";
        assert_eq!(candidates(conf, "db"), ["db.ns.example.com.", "db.example.com.", "db."]);
        assert_eq!(candidates(conf, "a.b.c"), ["a.b.c.", "a.b.c.ns.example.com.", "a.b.c.example.com."]);
        assert_eq!(candidates(conf, "db."), ["db."]);
    }

    #[test]
    fn empty_resolv_conf_means_the_name_server_of_this_machine() {
        assert_eq!(candidates("", "db.example.com"), ["db.example.com."]);
    }

    #[test]
    fn changed_resolv_conf_is_noticed_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { hosts: folder.path().join("hosts"), resolv_conf: folder.path().join("resolv.conf") };
        let source = Source::new(&[], files.clone()).unwrap();
        let name = DnsName::try_from("db").unwrap();
        let before = source.client(&name).unwrap();
        assert!(Arc::ptr_eq(&before, &source.client(&name).unwrap()), "an unchanged file keeps its client");
        fs::write(&files.resolv_conf, "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
        assert_eq!(source.client(&name).unwrap().search, [Name::from_str("example.com").unwrap()]);
    }

    #[test]
    fn failure_outweighs_no_such_name() {
        let name = DnsName::try_from("a.example.com").unwrap();
        let gone = Miss::from(Error::NoSuchName { name: shown(&name) });
        let down = why(&name, &NetError::Timeout);
        assert_eq!(graver(gone, down).error.reason(), "dns_timeout");
    }
}
