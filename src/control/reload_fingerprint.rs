//! A generation as a document: comparing two of them shows what a reload would affect.

use serde_json::{Map, Value, json};

use crate::config;
use crate::config::values::{Listener, Name};
use crate::control::snapshot::Snapshot;
use crate::credentials::fingerprint::hex;
use crate::credentials::part::Part;
use crate::credentials::trust::Trust;
use crate::pipeline::originate::Originator;

/// The settings, with fingerprints in place of the contents of files: identities by leaf, key and chain, trusts by the
/// digest of everything that decides verification, origins by every part of their keys. No secret is in it.
pub(crate) fn outline(snapshot: &Snapshot) -> Value {
    let config = &snapshot.config;
    let identities = snapshot.identities().iter().filter_map(|(name, part)| {
        let fingerprint = part.usable()?.fingerprint();
        Some((name.to_string(), json!([hex(&fingerprint.leaf), hex(&fingerprint.key), hex(&fingerprint.chain)])))
    });
    let digest = |(name, part): (&Name, &Part<Trust>)| Some((name.to_string(), hex(part.usable()?.digest()).into()));
    let trusts = snapshot.trusts().iter().filter_map(digest);
    let origins = snapshot.upstreams().iter().map(|(name, originator)| (name.to_string(), origins(originator)));
    let sockets = config.listeners.iter().map(|listener| (listener.name.to_string(), socket(listener)));
    json!({
        "settings": config::document(config),
        "identities": identities.collect::<Map<_, _>>(),
        "trusts": trusts.collect::<Map<_, _>>(),
        "broken": { "identity": broken(snapshot, "identity"), "trust": broken(snapshot, "trust") },
        "origins": origins.collect::<Map<_, _>>(),
        "sockets": sockets.collect::<Map<_, _>>(),
    })
}

fn broken(snapshot: &Snapshot, kind: &str) -> Value {
    let of_kind = snapshot.troubled().filter(|part| part.broken.fault.kind.as_str() == kind);
    let parts = of_kind.map(|part| {
        let why = json!({ "state": part.state, "why": part.broken.fault.to_string() });
        (part.broken.fault.name.to_string(), why)
    });
    parts.collect::<Map<_, _>>().into()
}

/// The outline of the running generation, with what a reload would affect: `live` counts tickets and warm connections
/// of each origin, and streams in flight, by upstream.
pub(crate) fn running(snapshot: &Snapshot) -> Value {
    let mut outline = outline(snapshot);
    let counts = snapshot.upstreams().iter().map(|(name, originator)| (name.to_string(), live(originator)));
    outline["live"] = counts.collect::<Map<_, _>>().into();
    outline
}

fn live(originator: &Originator) -> Value {
    let origins = originator.servers().iter().filter_map(|server| server.origin.as_ref()).map(|origin| {
        let counts = json!({ "tickets": origin.sessions_held(), "warm": origin.shelf().idle() });
        (origin.server_name().to_str().into_owned(), counts)
    });
    let members = originator.endpoints().known();
    let streams: usize = members.list().iter().map(|member| member.endpoint.in_flight()).sum();
    json!({ "origins": origins.collect::<Map<_, _>>(), "streams": streams })
}

fn origins(originator: &Originator) -> Value {
    let mut all: Vec<Map<String, Value>> = Vec::new();
    // With passthrough, there is none.
    for origin in originator.servers().iter().filter_map(|server| server.origin.as_ref()) {
        let parts = origin.key().parts().into_iter().map(|(name, part)| (name.to_owned(), part.into())).collect();
        if !all.contains(&parts) {
            all.push(parts);
        }
    }
    json!(all)
}

fn socket(listener: &Listener) -> Value {
    format!("{:?}", listener.key()).into()
}
