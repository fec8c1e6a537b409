//! A repair, put into the user's own file: a TOML table may be written only once, so that lines for a table which is
//! there already cannot be pasted at the end.

use similar::TextDiff;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use crate::config::source::Source;

/// Lines before and after a change, as diff(1) and git show them: enough for patch(1) to find the place again.
const CONTEXT: usize = 3;

/// Files above this size are not edited: a repair is written while clients wait, and parsing a megabyte takes some 20 ms.
/// Ten thousand upstreams have two; a file of this size has a thousand.
const LARGEST: usize = 256 << 10;

/// The repair in the form that fits the file of `source`: unchanged where it can be appended, else as a unified diff of
/// the file after the repair's comments. Text that is not TOML is advice and stays unchanged.
pub(crate) fn fit(repair: &str, source: &Source) -> String {
    let text = source.text();
    if text.len() > LARGEST || !source.is_file() || can_be_appended(repair, text) {
        return repair.to_owned();
    }
    let merged = merge(repair, text).filter(|merged| merged != text);
    merged.map_or_else(|| repair.to_owned(), |merged| diff(repair, &merged, source))
}

fn can_be_appended(repair: &str, text: &str) -> bool {
    format!("{text}\n{repair}").parse::<DocumentMut>().is_ok()
}

/// The text with the repair's keys set; `None` if either is no TOML.
fn merge(repair: &str, text: &str) -> Option<String> {
    let mut repair = repair.parse::<DocumentMut>().ok()?;
    let mut document = text.parse::<DocumentMut>().ok()?;
    leave_what_is_shared(&mut repair, &document);
    set_all(document.as_table_mut(), repair.as_table());
    Some(document.to_string())
}

/// Tables that upstreams refer to by name, the key by which they do, and the keys that say what such a table is.
const SHARED: [(&str, &str, &[&str]); 2] =
    [("trust", "trust", &["certificate", "roots", "pins_only"]), ("identities", "identity", &["certificate"])];

/// A trust or an identity of the file may serve other upstreams: where the repair would make another of it, the repair's
/// gets a name of its own.
fn leave_what_is_shared(repair: &mut DocumentMut, document: &DocumentMut) {
    for (tables, reference, makes) in SHARED {
        let Some(taken) = document.get(tables).and_then(Item::as_table_like) else { continue };
        let Some(own) = repair.get_mut(tables).and_then(Item::as_table_mut) else { continue };
        let makes_another = |name: &str, item: &Item| {
            let item = item.as_table_like();
            taken.contains_key(name) && item.is_some_and(|item| makes.iter().any(|key| item.contains_key(key)))
        };
        // A repair has one of each at most.
        let name = own.iter().find(|(name, item)| makes_another(name, item)).map(|(name, _)| name.to_owned());
        let Some(name) = name else { continue };
        let mut others = (2..).map(|number| format!("{name}-{number}"));
        let free = others.find(|other| !taken.contains_key(other)).expect("there is always another number");
        if let Some(table) = own.remove(&name) {
            own.insert(&free, table);
        }
        refer(repair, reference, &name, &free);
    }
}

fn refer(repair: &mut DocumentMut, reference: &str, from: &str, to: &str) {
    let Some(upstreams) = repair.get_mut("upstreams").and_then(Item::as_table_mut) else { return };
    for (_, upstream) in upstreams.iter_mut() {
        let tls = upstream.as_table_like_mut().and_then(|upstream| upstream.get_mut("tls"));
        let name = tls.and_then(Item::as_table_like_mut).and_then(|tls| tls.get_mut(reference));
        if let Some(name) = name.filter(|name| name.as_str() == Some(from)) {
            *name = toml_edit::value(to);
        }
    }
}

fn set_all(into: &mut dyn TableLike, keys: &Table) {
    for (key, item) in keys {
        match (into.get_mut(key), item.as_table()) {
            (Some(place), Some(keys)) if place.is_table_like() => set_in(place, keys),
            (Some(place), _) if place.is_value() => set_value(place, clean(item.clone())),
            _ => drop(into.insert(key, clean(item.clone()))),
        }
    }
}

fn set_in(place: &mut Item, keys: &Table) {
    if let Some(table) = place.as_table_like_mut() {
        set_all(table, keys);
    }
    if let Some(table) = place.as_inline_table_mut() {
        table.fmt();
    }
}

/// The value changes; the comment behind it and the blanks around it stay.
fn set_value(place: &mut Item, item: Item) {
    let decor = place.as_value().map(|value| value.decor().clone());
    *place = item;
    if let (Some(value), Some(decor)) = (place.as_value_mut(), decor) {
        *value.decor_mut() = decor;
    }
}

/// Drops the position and the comments that the item has in the repair: a new table goes to the end of the file.
fn clean(mut item: Item) -> Item {
    if let Some(table) = item.as_table_mut() {
        table.set_position(None);
        table.decor_mut().set_prefix("\n");
        for (_, inner) in table.iter_mut() {
            *inner = clean(std::mem::take(inner));
        }
    }
    item
}

fn diff(repair: &str, merged: &str, source: &Source) -> String {
    let comments: String =
        repair.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let name = source.origin();
    let diff = TextDiff::from_lines(source.text(), merged);
    format!("{comments}{}", diff.unified_diff().context_radius(CONTEXT).header(name, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPAIR: &str =
        "# First compare.\n[trust.db]\ncertificate = \"sha256:00\"\n\n[upstreams.db.tls]\ntrust = \"db\"\n";

    fn fitted(repair: &str, text: &str) -> String {
        fit(repair, &Source::new("egret.toml", text))
    }

    fn merged(text: &str) -> String {
        merge(REPAIR, text).unwrap()
    }

    #[test]
    fn what_can_be_appended_stays() {
        for text in ["", "[upstreams.db]\nservers = ['a:1']\n", "[upstreams.'d.b'.tls]\ntrust = 'x'\n"] {
            assert_eq!(fitted(REPAIR, text), REPAIR, "{text}");
        }
        let advice = "the server has TLS switched off: ssl = on\n    x";
        assert_eq!(fitted(advice, "a = 1\n"), advice);
    }

    #[test]
    fn an_inline_table_is_changed_in_its_line() {
        let text = "# Mine.\n[upstreams.db]\nservers = ['a:1']\ntls = { server_name = 'a' } # stays\n\n[log]\n";
        let patch = fitted(REPAIR, text);
        for line in [
            "# First compare.",
            "--- egret.toml",
            "-tls = { server_name = 'a' } # stays",
            "+tls = { server_name = 'a', trust = \"db\" } # stays",
            "+[trust.db]",
            "+certificate = \"sha256:00\"",
        ] {
            assert!(patch.lines().any(|found| found == line), "{line}\n{patch}");
        }
        assert!(!patch.contains("-# Mine"), "{patch}");
    }

    #[test]
    fn tables_that_are_there_get_the_keys_and_keep_their_own() {
        for text in [
            "[upstreams.db]\nservers = ['a:1']\n[upstreams.db.tls]\nserver_name = 'a' # why\n[listeners]\n",
            "upstreams.db.tls.server_name = 'a' # why\nupstreams.db.servers = ['a:1']\n",
            "[upstreams]\ndb = { servers = ['a:1'], tls = { server_name = 'a' } } # why\n",
        ] {
            let merged = merged(text);
            let document: toml::Table = merged.parse().unwrap_or_else(|error| panic!("{error}\n{merged}"));
            assert_eq!(document["upstreams"]["db"]["tls"]["trust"].as_str(), Some("db"), "{merged}");
            assert_eq!(document["upstreams"]["db"]["tls"]["server_name"].as_str(), Some("a"), "{merged}");
            assert_eq!(document["trust"]["db"]["certificate"].as_str(), Some("sha256:00"), "{merged}");
            assert!(merged.contains("# why"), "{merged}");
        }
    }

    #[test]
    fn a_trust_that_others_may_use_is_left_alone() {
        for (taken, name) in [("[trust.db]\nroots = ['x']\n", "db-2"), ("trust = { db = {}, db-2 = {} }\n", "db-3")] {
            let text = format!("{taken}[upstreams.db.tls]\nserver_name = 'a'\n");
            let merged = merged(&text);
            let document: toml::Table = merged.parse().unwrap_or_else(|error| panic!("{error}\n{merged}"));
            assert_eq!(document["upstreams"]["db"]["tls"]["trust"].as_str(), Some(name), "{merged}");
            assert_eq!(document["trust"][name]["certificate"].as_str(), Some("sha256:00"), "{merged}");
            assert!(document["trust"]["db"].get("certificate").is_none(), "{merged}");
        }
        let pins = "[trust.db]\npins = [\"sha256/AA\"]\n";
        let merged = merge(pins, "[trust.db]\nroots = ['x']\n").unwrap();
        assert!(merged.contains("roots") && merged.contains("AA") && !merged.contains("db-2"), "{merged}");
    }

    #[test]
    fn a_file_that_is_too_large_or_none_is_not_edited() {
        let conflict = "[upstreams.db]\ntls = {}\n";
        assert_eq!(fitted(REPAIR, &format!("{conflict}#{}", "x".repeat(LARGEST))), REPAIR);
        assert_ne!(fitted(REPAIR, conflict), REPAIR);
    }
}
