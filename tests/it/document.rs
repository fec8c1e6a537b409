//! The resolved configuration as a document: what rules of users ask about, and what `egret diff` compares.

use std::fs;
use std::path::Path;

use egret::config;
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The document of the example that has every key.
fn document() -> Value {
    let loaded = config::parse("config/egret.toml", &read("config/egret.toml"), &|_| None).unwrap();
    config::document(&loaded.config)
}

/// What the schema says of a value, without references; of several kinds the one with keys.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        return resolved(root, &root["$defs"][name]);
    }
    let mut kinds = schema["anyOf"].as_array().into_iter().flatten().map(|kind| resolved(root, kind));
    kinds.rfind(|kind| kind["properties"].is_object()).unwrap_or(schema)
}

/// Walks schema and document together: `found` is every value of the document at this place. Gives back the keys
/// that were looked for.
fn walk<'a>(root: &Value, schema: &Value, found: &[&'a Value], at: &str) -> usize {
    let schema = resolved(root, schema);
    let found: Vec<&Value> = found.iter().copied().filter(|value| !value.is_null()).collect();
    if let Some(keys) = schema["properties"].as_object() {
        // One table or several, as of the admin addresses: the document has a list.
        let each = |value: &'a Value| value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        let found: Vec<&Value> = found.into_iter().flat_map(each).collect();
        assert!(!found.is_empty(), "config/egret.toml shows no {at}");
        let below = |(key, schema): (&String, &Value)| {
            let missing = found.iter().find(|value| value.get(key).is_none());
            assert!(missing.is_none(), "{at} lacks `{key}`: {missing:?}");
            let values: Vec<&Value> = found.iter().map(|value| &value[key]).collect();
            1 + walk(root, schema, &values, &format!("{at}.{key}"))
        };
        return keys.iter().map(below).sum();
    }
    if let Some(items) = schema.get("items") {
        let values: Vec<&Value> = found.iter().flat_map(|list| list.as_array().expect(at)).collect();
        return walk(root, items, &values, &format!("{at}[]"));
    }
    if let Some(named) = schema.get("additionalProperties").filter(|named| named.is_object()) {
        let values: Vec<&Value> = found.iter().flat_map(|table| table.as_object().expect(at).values()).collect();
        return walk(root, named, &values, &format!("{at}.*"));
    }
    0
}

#[test]
fn every_key_of_the_schema_is_in_the_document() {
    let schema: Value = serde_json::from_str(&read("docs/schema.json")).unwrap();
    let keys = walk(&schema, &schema, &[&document()], "config");
    assert!(keys > 90, "only {keys} keys were looked for");
}

#[test]
fn what_was_left_out_stands_with_its_default_and_never_as_null() {
    let document = document();
    let upstream = &document["upstreams"]["trial"];
    assert_eq!(upstream["servers"][0]["address"], "trial.example.com:443");
    assert_eq!((&upstream["servers"][0]["weight"], &upstream["balance"]), (&1.into(), &"least_connections".into()));
    assert_eq!((&upstream["idle_timeout"], &upstream["max_lifetime"]), (&3600.0.into(), &Value::Null));
    assert_eq!(document["upstreams"]["untouched"]["tls"], Value::Null, "no TLS of egret's own");
    assert_eq!(document["listeners"][1]["mode"], "0660");
}
