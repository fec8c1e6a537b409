//! A draft as TOML, for people to read on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::config::values::quoting::{key, string};
use crate::tools::import::draft::{Draft, Ejection, Listener, Server, Tcp, Tls, Upstream};

/// The text of a configuration; `head` are lines of comment for its beginning.
pub(super) fn write(draft: &Draft, head: &[String]) -> String {
    let names = Names::of(draft);
    let mut text = String::new();
    for line in head {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
    process(draft, &mut text);
    for (identity, name) in draft.identities.iter().zip(&names.identities) {
        let _ = write!(text, "\n[identities.{}]\ncertificate = {}\n", key(name), string(&identity.certificate));
        line(&mut text, "private_key", identity.private_key.as_deref().map(string));
        line(&mut text, "password_file", identity.password_file.as_deref().map(string));
        line(&mut text, "allow_loose_key_permissions", identity.loose_permissions.then(|| "true".to_owned()));
    }
    for (trust, name) in draft.trusts.iter().zip(&names.trusts) {
        let _ = writeln!(text, "\n[trust.{}]", key(name));
        line(&mut text, "roots", list(&trust.roots));
        line(&mut text, "certificate", trust.certificate.as_deref().map(string));
        line(&mut text, "crls", list(&trust.crls));
        line(&mut text, "names", list(&trust.names));
    }
    for (upstream, name) in draft.upstreams.iter().zip(&names.upstreams) {
        write_upstream(upstream, name, &names, &mut text);
    }
    for (listener, name) in draft.listeners.iter().zip(&names.listeners) {
        write_listener(listener, name.as_deref(), &names, &mut text);
    }
    text
}

fn process(draft: &Draft, text: &mut String) {
    if let Some(drain) = draft.drain {
        let _ = writeln!(text, "\ndrain_timeout = {}", duration(drain));
    }
    if draft.workers.is_some() || !draft.affinity.is_empty() {
        text.push_str("\n[runtime]\n");
        line(text, "workers", draft.workers.map(|count| count.to_string()));
        line(text, "affinity", (!draft.affinity.is_empty()).then(|| format!("{:?}", draft.affinity)));
    }
    let dns = &draft.dns;
    if dns.servers.is_empty() && dns.valid.is_none() {
        return;
    }
    text.push_str("\n[dns]\n");
    line(text, "servers", list(&dns.servers));
    line(text, "min_ttl", dns.valid.map(duration));
    line(text, "max_ttl", dns.valid.map(duration));
}

fn write_upstream(upstream: &Upstream, name: &str, names: &Names, text: &mut String) {
    let _ = writeln!(text, "\n[upstreams.{}]", key(name));
    write_servers(&upstream.servers, text);
    line(text, "balance", upstream.balance.map(string));
    line(text, "ejection", upstream.ejection.map(ejection));
    line(text, "passthrough", upstream.passthrough.then(|| "true".to_owned()));
    line(text, "upgrade", upstream.upgrade.map(string));
    line(text, "originate_timeout", upstream.originate.map(duration));
    line(text, "idle_timeout", upstream.idle.map(duration));
    line(text, "half_closed_timeout", upstream.half_closed.map(duration));
    line(text, "eof", upstream.eof_lenient.then(|| string("lenient")));
    line(text, "tcp", tcp(&upstream.tcp));
    write_tls(&upstream.tls, name, names, text);
}

/// A list of addresses, or a table for each where more is to be said.
fn write_servers(servers: &[Server], text: &mut String) {
    let table = |server: &Server| {
        let parts = [
            Some(format!("address = {}", string(&server.address))),
            server.weight.map(|weight| format!("weight = {weight}")),
            server.reserve.then(|| "priority = 2".to_owned()),
            server.max_connections.map(|count| format!("max_connections = {count}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>()
    };
    let tables: Vec<_> = servers.iter().map(table).collect();
    if tables.iter().all(|parts| parts.len() == 1) {
        let addresses: Vec<_> = servers.iter().map(|server| server.address.as_str()).collect();
        return line(text, "servers", list(&addresses));
    }
    text.push_str("servers = [\n");
    for parts in tables {
        let _ = writeln!(text, "    {{ {} }},", parts.join(", "));
    }
    text.push_str("]\n");
}

fn ejection(ejection: Ejection) -> String {
    match ejection {
        Ejection::Never => "{ max_share = 0 }".to_owned(),
        Ejection::After(failures, time) => format!("{{ failures = {failures}, backoff = {} }}", duration(time)),
    }
}

fn tcp(tcp: &Tcp) -> Option<String> {
    let keepalive = tcp.keepalive.map(|time| format!("keepalive = {}", time.map_or_else(|| string("never"), duration)));
    let fast_open = tcp.fast_open.then(|| "fast_open = true".to_owned());
    let multipath = tcp.multipath.then(|| "multipath = true".to_owned());
    let parts: Vec<_> = [keepalive, fast_open, multipath].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{{ {} }}", parts.join(", ")))
}

fn write_tls(tls: &Tls, upstream: &str, names: &Names, text: &mut String) {
    let mut inner = String::new();
    line(&mut inner, "identity", tls.identity.map(|at| string(&names.identities[at])));
    line(&mut inner, "trust", tls.trust.map(|at| string(&names.trusts[at])));
    line(&mut inner, "server_name", tls.server_name.as_deref().map(string));
    line(&mut inner, "sni", tls.no_sni.then(|| "false".to_owned()));
    let insecure = [("none", &tls.unverified), ("chain", &tls.any_name)];
    let insecure = insecure.into_iter().find_map(|(verify, reason)| Some((verify, reason.as_deref()?)));
    line(&mut inner, "verify", insecure.map(|(verify, _)| string(verify)));
    line(&mut inner, "insecure_reason", insecure.map(|(_, reason)| string(reason)));
    line(&mut inner, "min_version", tls.min_version.map(string));
    line(&mut inner, "max_version", tls.max_version.map(string));
    line(&mut inner, "alpn", list(&tls.alpn));
    line(&mut inner, "key_exchange", list(&tls.key_exchange));
    line(&mut inner, "resumption", tls.no_resumption.then(|| "false".to_owned()));
    if !inner.is_empty() {
        let _ = write!(text, "\n[upstreams.{}.tls]\n{inner}", key(upstream));
    }
}

fn write_listener(listener: &Listener, name: Option<&str>, names: &Names, text: &mut String) {
    let _ = writeln!(text, "\n# {}\n[[listeners]]", comment(&listener.from));
    line(text, "name", name.map(string));
    line(text, "listen", Some(string(&listener.listen)));
    line(text, "mode", listener.mode.map(string));
    line(text, "upstream", listener.upstream.map(|at| string(&names.upstreams[at])));
    line(text, "allow", list(&listener.allow.iter().map(ToString::to_string).collect::<Vec<_>>()));
    line(text, "max_connections", listener.max_connections.map(|count| count.to_string()));
    line(text, "tcp", tcp(&listener.tcp));
    if listener.routes.is_empty() {
        return;
    }
    text.push_str("routes = [\n");
    for route in &listener.routes {
        let (patterns, upstream) = (list(&route.server_names).unwrap_or_default(), &names.upstreams[route.upstream]);
        let _ = writeln!(text, "    {{ server_names = {patterns}, upstream = {} }},", string(upstream));
    }
    text.push_str("]\n");
}

/// The names that things get: what people would call them, each only once.
struct Names {
    identities: Vec<String>,
    trusts: Vec<String>,
    upstreams: Vec<String>,
    /// Of listeners on port 0, which their addresses do not tell apart.
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

/// The longest name before a number is put behind it; names have at most 63 characters.
const LONGEST: usize = 28;

/// A name out of any text.
fn name(text: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    let name: String = text.to_ascii_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name: String = name.trim_start_matches(['_', '.', '-']).chars().take(LONGEST).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name.trim_end_matches(['.', '-']).to_owned() }
}

fn stem(path: &str) -> String {
    name(Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or(path))
}

fn line(text: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        let _ = writeln!(text, "{key} = {value}");
    }
}

/// A list; `None` if there is nothing in it.
fn list(values: &[impl AsRef<str>]) -> Option<String> {
    let values: Vec<_> = values.iter().map(|value| string(value.as_ref())).collect();
    (!values.is_empty()).then(|| format!("[{}]", values.join(", ")))
}

fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// In the largest unit that says it exactly.
fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let (length, unit) = units.into_iter().find(|(length, _)| millis.is_multiple_of(*length)).unwrap_or((1, "ms"));
    format!("\"{}{unit}\"", millis / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_those_of_toml_and_egret() {
        assert_eq!(string("a\"b\\${X}\n"), r#""a\"b\\$${X}\u000A""#);
        assert_eq!(duration(Duration::from_secs(90)), "\"90s\"");
        assert_eq!(duration(Duration::from_secs(7200)), "\"2h\"");
    }

    #[test]
    fn names_are_names() {
        assert_eq!(name("_Back_End."), "back_end");
        assert_eq!(name("***"), "unnamed");
        assert_eq!(unique(["a", "a", "a-2"].map(String::from).into_iter()), ["a", "a-2", "a-2-2"]);
    }
}
