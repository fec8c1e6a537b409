//! A configuration as a document: every key with its value or default, under the names that the file uses. What
//! policies ask about, and what two configurations are compared by.

mod upstreams;

use std::time::Duration;

use serde_json::{Map, Value, json};

use self::upstreams::upstream;
use crate::config::formats::labelled_hex;
use crate::config::values::{
    Access, Admin, Anchors, Config, Destination, ExactCertificate, Identity, ListenAddress, Listener, Name, Rule, Tls,
    Trust, User,
};

/// The whole of it. Durations are in seconds; `null` stands for "never" and "no bound". Paths and names only: no
/// content of a file is in it.
pub fn document(config: &Config) -> Value {
    json!({
        "drain_timeout": seconds(config.drain_timeout),
        "readiness": config.readiness.word(),
        "log": config.log.document(),
        "runtime": config.runtime.document(),
        "dns": config.dns.document(),
        "limits": config.limits.document(),
        "reload": config.reload.document(),
        "admin": config.admin.iter().map(admin).collect::<Vec<_>>(),
        "identities": table(config.identities.iter().map(|(name, spec)| (name, identity(spec)))),
        "trust": table(config.trusts.iter().map(|(name, spec)| (name, trust(spec)))),
        "upstreams": table(config.upstreams.iter().map(|(name, spec)| (name, upstream(spec)))),
        "listeners": config.listeners.iter().map(listener).collect::<Vec<_>>(),
    })
}

fn identity(spec: &Identity) -> Value {
    json!({
        "certificate": spec.certificate,
        "private_key": spec.private_key,
        "password_file": spec.password_file,
        "allow_loose_key_permissions": spec.allow_loose_key_permissions,
    })
}

fn trust(spec: &Trust) -> Value {
    let (system, roots, certificate) = match &spec.anchors {
        Anchors::Roots { system, paths } => (*system, paths.clone(), Value::Null),
        Anchors::Certificate(ExactCertificate::File(file)) => (false, Vec::new(), json!(file)),
        Anchors::Certificate(ExactCertificate::Sha256(sha256)) => (false, Vec::new(), labelled_hex(sha256).into()),
        Anchors::PinsOnly => (false, Vec::new(), Value::Null),
    };
    json!({
        "system_roots": system,
        "roots": roots,
        "certificate": certificate,
        "pins": spec.pins.iter().map(labelled_hex).collect::<Vec<_>>(),
        "pins_only": matches!(spec.anchors, Anchors::PinsOnly),
        "names": spec.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "crls": spec.crls,
        "candidate_roots": spec.candidate_roots,
    })
}

fn tls(spec: &Tls) -> Value {
    let (verify, reason) = spec.verify.parts();
    let own = json!({
        "identity": spec.identity.as_ref().map(Name::as_str),
        "trust": spec.trust.as_ref().map(Name::as_str),
        "server_name": spec.server_name.as_ref().map(|name| name.to_str().into_owned()),
        "verify": verify,
        "insecure_reason": reason,
    });
    with(own, spec.settings.document())
}

/// The keys of a table that need others to have a meaning, and those that stand for themselves.
fn with(own: Value, settings: Map<String, Value>) -> Value {
    let Value::Object(mut keys) = own else { return own };
    keys.extend(settings);
    Value::Object(keys)
}

fn protocols(alpn: &[Vec<u8>]) -> Vec<String> {
    alpn.iter().map(|protocol| String::from_utf8_lossy(protocol).into_owned()).collect()
}

fn listener(spec: &Listener) -> Value {
    let mut value = entrance(&spec.listen, &spec.access);
    for (key, part) in [
        ("name", json!(spec.name.as_str())),
        ("loopback", is_local(&spec.listen).into()),
        ("upstream", default(&spec.destination).map(Name::as_str).into()),
        ("routes", routes(&spec.destination)),
        ("max_connections", spec.max_connections.into()),
        ("tcp", spec.tcp.document().into()),
    ] {
        value[key] = part;
    }
    value
}

/// The upstream for clients that no route matches.
fn default(destination: &Destination) -> Option<&Name> {
    match destination {
        Destination::One(name) => Some(name),
        Destination::ByHello { default, .. } => default.as_ref(),
    }
}

fn routes(destination: &Destination) -> Value {
    let Destination::ByHello { rules, .. } = destination else { return Value::Array(Vec::new()) };
    let route = |rule: &Rule| {
        json!({
            "server_names": rule.server_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "alpn": protocols(&rule.alpn),
            "upstream": rule.upstream.as_str(),
        })
    };
    rules.iter().map(route).collect()
}

fn is_local(listen: &ListenAddress) -> bool {
    match listen {
        ListenAddress::Tcp(address) => address.ip().is_loopback(),
        ListenAddress::Unix { .. } => true,
    }
}

fn admin(spec: &Admin) -> Value {
    let mut document = entrance(&spec.listen, &spec.access);
    document["role"] = spec.role.word().into();
    document["token_file"] = json!(spec.token_file);
    document
}

fn entrance(listen: &ListenAddress, access: &Access) -> Value {
    let users = access.users.iter().map(|user| match user {
        User::Id(id) => json!(id),
        User::Name(name) => json!(name),
    });
    let mode = match listen {
        ListenAddress::Unix { mode, .. } => Some(format!("{mode:04o}")),
        ListenAddress::Tcp(_) => None,
    };
    json!({
        "listen": listen.to_string(),
        "mode": mode,
        "allow": access.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "allow_users": users.collect::<Vec<_>>(),
    })
}

fn table<'a>(entries: impl Iterator<Item = (&'a Name, Value)>) -> Map<String, Value> {
    entries.map(|(name, value)| (name.to_string(), value)).collect()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
