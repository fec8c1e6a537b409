//! A draft as TOML, for people to read on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::write::{Text, Value};
use crate::tools::import::draft::{Draft, Ejection, Listener, Server, Tcp, Tls, Upstream};

/// `head`: lines of the comment at the beginning.
pub(super) fn write(draft: &Draft, head: &[String]) -> String {
    let names = Names::of(draft);
    let mut text = Text::default();
    for line in head {
        text.comment(line);
    }
    text.blank();
    write_process(draft, &mut text);
    for (identity, name) in draft.identities.iter().zip(&names.identities) {
        text.table(&["identities", name]).set("certificate", identity.certificate.as_str());
        text.set_some("private_key", identity.private_key.as_deref());
        text.set_some("password_file", identity.password_file.as_deref());
        text.set_if("allow_loose_key_permissions", identity.loose_permissions, true);
    }
    for (trust, name) in draft.trusts.iter().zip(&names.trusts) {
        text.table(&["trust", name]).set_list("roots", &trust.roots);
        text.set_some("certificate", trust.certificate.as_deref());
        text.set_list("crls", &trust.crls).set_list("names", &trust.names);
    }
    for (upstream, name) in draft.upstreams.iter().zip(&names.upstreams) {
        write_upstream(upstream, name, &names, &mut text);
    }
    for (listener, name) in draft.listeners.iter().zip(&names.listeners) {
        write_listener(listener, name.as_deref(), &names, &mut text);
    }
    text.finish()
}

fn write_process(draft: &Draft, text: &mut Text) {
    text.set_some("drain_timeout", draft.drain);
    text.table_if_any(&["runtime"], |text| {
        text.set_some("workers", draft.workers.map(Value::number));
        let processors = draft.affinity.iter().map(Value::number);
        text.set_if("affinity", !draft.affinity.is_empty(), Value::list(processors));
    });
    text.table_if_any(&["dns"], |text| {
        text.set_list("servers", &draft.dns.servers);
        text.set_some("min_ttl", draft.dns.valid).set_some("max_ttl", draft.dns.valid);
    });
}

fn write_upstream(upstream: &Upstream, name: &str, names: &Names, text: &mut Text) {
    text.table(&["upstreams", name]).set("servers", servers(&upstream.servers));
    text.set_some("balance", upstream.balance);
    text.set_some("ejection", upstream.ejection.and_then(ejection));
    text.set_if("passthrough", upstream.passthrough, true);
    text.set_some("upgrade", upstream.upgrade);
    text.set_some("originate_timeout", upstream.originate);
    text.set_some("idle_timeout", upstream.idle);
    text.set_some("half_closed_timeout", upstream.half_closed);
    text.set_if("eof", upstream.eof_lenient, "lenient");
    text.set_some("tcp", tcp(&upstream.tcp));
    text.table_if_any(&["upstreams", name, "tls"], |text| write_tls(&upstream.tls, names, text));
}

/// A list of addresses, or tables where servers have other settings.
fn servers(servers: &[Server]) -> Value {
    let is_plain = |server: &Server| server.weight.is_none() && !server.reserve && server.max_connections.is_none();
    if servers.iter().all(is_plain) {
        return Value::strings(servers.iter().map(|server| &server.address));
    }
    Value::lines(servers.iter().filter_map(|server| {
        Value::inline([
            ("address", Some(server.address.as_str().into())),
            ("weight", server.weight.map(Value::number)),
            ("priority", server.reserve.then(|| Value::number(2))),
            ("max_connections", server.max_connections.map(Value::number)),
        ])
    }))
}

fn ejection(ejection: Ejection) -> Option<Value> {
    match ejection {
        Ejection::Never => Value::inline([("max_share", Some(Value::number(0)))]),
        Ejection::After(failures, time) => {
            Value::inline([("failures", Some(Value::number(failures))), ("backoff", Some(time.into()))])
        }
    }
}

fn tcp(tcp: &Tcp) -> Option<Value> {
    Value::inline([
        ("keepalive", tcp.keepalive.map(|time| time.map_or_else(|| "never".into(), Value::from))),
        ("fast_open", tcp.fast_open.then(|| true.into())),
        ("multipath", tcp.multipath.then(|| true.into())),
    ])
}

fn write_tls(tls: &Tls, names: &Names, text: &mut Text) {
    text.set_some("identity", tls.identity.map(|at| names.identities[at].as_str()));
    text.set_some("trust", tls.trust.map(|at| names.trusts[at].as_str()));
    text.set_some("server_name", tls.server_name.as_deref());
    text.set_if("sni", tls.no_sni, false);
    let insecure = [("none", &tls.unverified), ("chain", &tls.any_name)];
    let insecure = insecure.into_iter().find_map(|(verify, reason)| Some((verify, reason.as_deref()?)));
    if let Some((verify, reason)) = insecure {
        text.set("verify", verify).set("insecure_reason", reason);
    }
    text.set_some("min_version", tls.min_version).set_some("max_version", tls.max_version);
    text.set_list("alpn", &tls.alpn).set_list("key_exchange", &tls.key_exchange);
    text.set_if("resumption", tls.no_resumption, false);
}

fn write_listener(listener: &Listener, name: Option<&str>, names: &Names, text: &mut Text) {
    text.comment(&listener.from).list_item("listeners");
    text.set_some("name", name).set("listen", listener.listen.as_str());
    text.set_some("mode", listener.mode);
    text.set_some("upstream", listener.upstream.map(|at| names.upstreams[at].as_str()));
    text.set_list("allow", listener.allow.iter().map(ToString::to_string));
    text.set_some("max_connections", listener.max_connections.map(Value::number));
    text.set_some("tcp", tcp(&listener.tcp));
    let routes = listener.routes.iter().filter_map(|route| {
        let upstream = names.upstreams[route.upstream].as_str();
        Value::inline([
            ("server_names", Some(Value::strings(&route.server_names))),
            ("upstream", Some(upstream.into())),
        ])
    });
    text.set_if("routes", !listener.routes.is_empty(), Value::lines(routes));
}

/// Names of the sections, each unique.
struct Names {
    identities: Vec<String>,
    trusts: Vec<String>,
    upstreams: Vec<String>,
    /// Of listeners on port 0, whose addresses are equal.
    listeners: Vec<Option<String>>,
}

impl Names {
    fn of(draft: &Draft) -> Self {
        let identities = unique(draft.identities.iter().map(|identity| stem(&identity.certificate)));
        let trusts = draft.trusts.iter().map(|trust| trust.certificate.as_ref().or_else(|| trust.roots.first()));
        let trusts = unique(trusts.map(|path| path.map_or_else(|| "names".to_owned(), |path| stem(path))));
        let bases: Vec<_> = draft.upstreams.iter().map(|upstream| name(&upstream.base)).collect();
        // Upstreams of one name differ in the identity more often than in anything else.
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        bases.iter().for_each(|base| *counts.entry(base).or_default() += 1);
        let wanted = draft.upstreams.iter().zip(&bases).map(|(upstream, base)| match upstream.tls.identity {
            Some(at) if counts[base.as_str()] > 1 => format!("{base}-as-{}", identities[at]),
            _ => base.clone(),
        });
        let upstreams = unique(wanted);
        let nameless = |listener: &Listener| listener.listen.ends_with(":0");
        let led = draft.listeners.iter().filter(|listener| nameless(listener)).map(|listener| listener.upstream);
        let mut made = unique(led.map(|at| at.map_or_else(String::new, |at| upstreams[at].clone()))).into_iter();
        let named = |listener: &Listener| if nameless(listener) { made.next() } else { None };
        let listeners = draft.listeners.iter().map(named).collect();
        Self { identities, trusts, upstreams, listeners }
    }
}

fn unique(wanted: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::new();
    // The number that was given last for a base, so that many of one name are not tried from the first on each time.
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for base in wanted {
        let number = last.entry(base.clone()).or_insert(1);
        let mut name = base.clone();
        while !taken.insert(name.clone()) {
            *number += 1;
            name = format!("{base}-{number}");
        }
        names.push(name);
    }
    names
}

/// Characters of a name before a number is appended; names have at most 63 characters.
const LONGEST: usize = 28;

/// A valid name from any text.
fn name(text: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    let name: String = text.to_ascii_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name: String = name.trim_start_matches(['_', '.', '-']).chars().take(LONGEST).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name.trim_end_matches(['.', '-']).to_owned() }
}

fn stem(path: &str) -> String {
    name(Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        assert_eq!(name("_Back_End."), "back_end");
        assert_eq!(name("***"), "unnamed");
        assert_eq!(unique(["a", "a", "a-2"].map(String::from).into_iter()), ["a", "a-2", "a-2-2"]);
    }
}
