//! A plan as tables of egret's configuration.

use std::path::Path;

use super::Plan;
use crate::config::values::{self, Anchors, ExactCertificate, KeyShare, Name, Server, Share, Strategy, TlsVersion};
use crate::config::write::{Text, Value};
use crate::credentials::fingerprint::{labelled_hex, labelled_pin};

/// Whole tables, with the values that differ from the defaults.
pub(super) fn tables(plan: &Plan, comments: &[String]) -> String {
    let mut text = Text::default();
    for comment in comments {
        text.comment(comment);
    }
    if plan.is_part {
        text.comment("What else is in these tables (timeouts, limits, options) may stay.");
    }
    if let Some(identity) = &plan.identity {
        let name = plan.upstream.tls.identity.as_ref().unwrap_or(&plan.name);
        text.table(&["identities", name.as_str()]);
        set_identity(identity, &mut text);
    }
    if let Some(trust) = &plan.trust {
        text.table(&["trust", trust_name(plan).as_str()]);
        set_trust(trust, &mut text);
    }
    text.table(&["upstreams", plan.name.as_str()]);
    text.set("servers", Value::list(plan.upstream.servers.iter().map(|server| one_server(plan, server))));
    text.set_some("upgrade", plan.upstream.upgrade.map(|protocol| protocol.word));
    text.table_if_any(&["upstreams", plan.name.as_str(), "tls"], |text| set_tls(plan, text));
    text.finish()
}

/// Its address; a table if it has other settings.
fn one_server(plan: &Plan, server: &Server) -> Value {
    let address = server.to_string();
    let share = plan.upstream.balance.share(server);
    let default = Share::default();
    // By `priority`, the place in the list is the number.
    let placed = plan.upstream.balance.strategy == Strategy::Priority;
    let weight = (share.weight != default.weight).then(|| Value::number(share.weight));
    let priority = (share.priority != default.priority && !placed).then(|| Value::number(share.priority));
    let most = share.max_connections.map(Value::number);
    if weight.is_none() && priority.is_none() && most.is_none() {
        return address.into();
    }
    let address = Some(Value::from(address));
    Value::inline([("address", address), ("weight", weight), ("priority", priority), ("max_connections", most)])
        .expect("there is an address")
}

fn trust_name(plan: &Plan) -> &Name {
    plan.upstream.tls.trust.as_ref().unwrap_or(&plan.name)
}

fn set_identity(identity: &values::Identity, text: &mut Text) {
    text.set("certificate", path(&identity.certificate));
    text.set_some("private_key", identity.private_key.as_deref().map(path));
    text.set_some("password_file", identity.password_file.as_deref().map(path));
    text.set_if("allow_loose_key_permissions", identity.allow_loose_key_permissions, true);
}

fn set_trust(trust: &values::Trust, text: &mut Text) {
    match &trust.anchors {
        Anchors::Roots { system, paths } => {
            text.set_list("roots", paths.iter().map(|file| path(file))).set_if("system_roots", *system, true);
        }
        Anchors::Certificate(ExactCertificate::File(file)) => {
            text.set("certificate", path(file));
        }
        Anchors::Certificate(ExactCertificate::Sha256(sha256)) => {
            text.set("certificate", labelled_hex(sha256));
        }
        Anchors::PinsOnly => {
            text.set("pins_only", true);
        }
    }
    text.set_list("pins", trust.pins.iter().map(labelled_pin));
    text.set_list("names", trust.names.iter().map(ToString::to_string));
    text.set_list("crls", trust.crls.iter().map(|file| path(file)));
    text.set_list("candidate_roots", trust.candidate_roots.iter().map(|file| path(file)));
}

fn set_tls(plan: &Plan, text: &mut Text) {
    let tls = &plan.upstream.tls;
    text.set_some("server_name", tls.server_name.as_ref().map(|name| name.to_str().into_owned()));
    text.set_if("sni", !tls.sni, false);
    text.set_some("identity", tls.identity.as_ref().filter(|_| plan.identity.is_some()).map(Name::as_str));
    text.set_some("trust", plan.trust.as_ref().map(|_| trust_name(plan).as_str()));
    if let (verify, Some(reason)) = tls.verify.parts() {
        text.set("verify", verify).set("insecure_reason", reason);
    }
    text.set_if("min_version", tls.min_version != TlsVersion::V1_2, "1.3");
    text.set_if("max_version", tls.max_version != TlsVersion::V1_3, "1.2");
    text.set_list("alpn", tls.alpn.iter().map(|name| String::from_utf8_lossy(name)));
    text.set_list("key_exchange", tls.key_exchange.iter().map(|name| name.word()));
    text.set_some(
        "key_exchange_share",
        Some(tls.key_exchange_share).filter(|share| *share != KeyShare::Auto).map(KeyShare::word),
    );
    text.set_if("resumption", !tls.resumption, false);
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
