//! What a reload would carry over because the new files cannot be used.

use serde_json::Value;

use super::{keys, text};

/// `new` as it would run after `old`: identities and trusts that cannot be loaded stay unchanged, and with them the
/// origins of the upstreams that use them.
pub(super) fn apply(old: &Value, new: &Value) -> Value {
    let mut after = new.clone();
    for (kind, digests, key) in [("identity", "identities", "identity"), ("trust", "trusts", "trust")] {
        for name in keys(&new["broken"][kind], &Value::Null) {
            if old[digests][&name].is_null() {
                continue;
            }
            after[digests][&name] = old[digests][&name].clone();
            for upstream in users(&new["settings"]["upstreams"], key, &name) {
                after["origins"][&upstream] = old["origins"][&upstream].clone();
            }
        }
    }
    after
}

/// Upstreams whose `tls` names this part. System roots, which no upstream names, are left out: neither side can read
/// them then.
fn users(upstreams: &Value, key: &str, name: &str) -> Vec<String> {
    let uses = |upstream: &String| text(&upstreams[upstream]["tls"][key]) == name;
    keys(upstreams, &Value::Null).into_iter().filter(uses).collect()
}
