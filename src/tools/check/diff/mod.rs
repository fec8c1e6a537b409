//! What a reload from one configuration to another would touch: a pure comparison of two outlines.

mod kept;
mod live;

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use serde_json::{Value, json};

use self::live::Live;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// In the order in which they are printed.
    pub(crate) changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kind: DiffKind,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// Consequence for sockets, tickets, warm connections and streams.
    pub(crate) effect: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiffKind {
    Process,
    Listener,
    Identity,
    Trust,
    /// An upstream with one server name; it owns tickets and warm connections.
    Origin,
    Shelf,
    /// Settings of an upstream that no origin depends on.
    Upstream,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Added,
    Removed,
    /// The parts that differ.
    Changed(Vec<String>),
    /// Its files cannot be used: what runs stays in force.
    Kept,
    /// Its files cannot be used, and nothing runs that could stay.
    Unavailable,
}

impl DiffKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Listener => "listener",
            Self::Identity => "identity",
            Self::Trust => "trust",
            Self::Origin => "origin",
            Self::Shelf => "shelf",
            Self::Upstream => "upstream",
        }
    }
}

/// Compares two values of [`crate::control::reload_fingerprint`].
pub(crate) fn diff(old: &Value, new: &Value) -> Diff {
    let mut diff = Diff::default();
    let new = &kept::apply(old, new);
    diff.process(&old["settings"], &new["settings"]);
    diff.listeners(old, new);
    diff.digests(DiffKind::Identity, &old["identities"], &new["identities"]);
    diff.digests(DiffKind::Trust, &old["trusts"], &new["trusts"]);
    diff.broken(DiffKind::Identity, &old["identities"], &new["broken"]["identity"]);
    diff.broken(DiffKind::Trust, &old["trusts"], &new["broken"]["trust"]);
    let live = Live::of(old);
    diff.origins(&live, old, new);
    let old = &old["settings"]["upstreams"];
    let new = &new["settings"]["upstreams"];
    diff.shelves(&live, old, new);
    diff.upstreams(&live, old, new);
    diff
}

/// Sections of the settings that are compared by themselves.
const OWN: [&str; 4] = ["identities", "trust", "upstreams", "listeners"];

impl Diff {
    fn push(&mut self, kind: DiffKind, name: &str, outcome: Outcome, effect: impl Into<String>) {
        self.changes.push(Change { kind, name: name.to_owned(), outcome, effect: effect.into() });
    }

    fn process(&mut self, old: &Value, new: &Value) {
        for name in keys(old, new).into_iter().filter(|name| !OWN.contains(&name.as_str())) {
            let effect = match name.as_str() {
                "runtime" | "admin" | "limits" | "reload" => "takes effect at the next start",
                "log" => "the level takes effect at once, the format at the next start; streams go on",
                _ => "takes effect at once; streams go on",
            };
            if let Some(outcome) = outcome(&old[&name], &new[&name]) {
                self.push(DiffKind::Process, &name, outcome, effect);
            }
        }
    }

    fn listeners(&mut self, old: &Value, new: &Value) {
        let old_list = by_name(&old["settings"]["listeners"]);
        let new_list = by_name(&new["settings"]["listeners"]);
        for name in keys(&old_list, &new_list) {
            let same_socket = old["sockets"][&name] == new["sockets"][&name];
            match outcome(&old_list[&name], &new_list[&name]) {
                None => {}
                Some(Outcome::Added) => {
                    self.push(DiffKind::Listener, &name, Outcome::Added, "is bound before the old one gives way")
                }
                Some(Outcome::Removed) => {
                    self.push(
                        DiffKind::Listener,
                        &name,
                        Outcome::Removed,
                        "stops accepting; its streams go on to their ends",
                    );
                }
                Some(changed) => {
                    let effect = match same_socket {
                        true => "keeps its socket: no connection is refused; streams in flight go on as they began",
                        false => "gets a new socket; the old one stops accepting, its streams go on to their ends",
                    };
                    self.push(DiffKind::Listener, &name, changed, effect);
                }
            }
        }
    }

    fn digests(&mut self, kind: DiffKind, old: &Value, new: &Value) {
        for name in keys(old, new) {
            let outcome = match (&old[&name], &new[&name]) {
                (old, new) if old == new => continue,
                (Value::Null, _) => Outcome::Added,
                (_, Value::Null) => Outcome::Removed,
                _ => Outcome::Changed(vec!["content".to_owned()]),
            };
            let effect = match outcome {
                Outcome::Added => "is loaded",
                Outcome::Removed => "is forgotten when the last stream that uses it ends",
                _ => "new streams use the new one; streams in flight go on with the old one",
            };
            self.push(kind, &name, outcome, effect);
        }
    }

    fn broken(&mut self, kind: DiffKind, old: &Value, broken: &Value) {
        for (name, part) in broken.as_object().into_iter().flatten() {
            let why = text(&part["why"]);
            let (outcome, effect) = match old[name].is_null() {
                false => (Outcome::Kept, format!("its files cannot be used, what runs stays in force: {why}")),
                true => {
                    (Outcome::Unavailable, format!("its files cannot be used, nor the upstreams that need it: {why}"))
                }
            };
            self.push(kind, name, outcome, effect);
        }
    }

    fn origins(&mut self, live: &Live<'_>, old: &Value, new: &Value) {
        for upstream in keys(&old["origins"], &new["origins"]) {
            let was = list(&old["origins"][&upstream]);
            let is = list(&new["origins"][&upstream]);
            for origin in is.iter().filter(|origin| !was.contains(origin)) {
                let server = text(&origin["server_name"]);
                let twin = was.iter().find(|twin| twin["server_name"] == origin["server_name"]);
                let (outcome, effect) = match twin.and_then(|twin| outcome(twin, origin)) {
                    Some(outcome) => (outcome, live.dropped(&upstream, server)),
                    None => (Outcome::Added, "starts without tickets and warm connections".to_owned()),
                };
                self.push(DiffKind::Origin, &format!("{upstream}: {server}"), outcome, effect);
            }
            let names: Vec<&Value> = is.iter().map(|origin| &origin["server_name"]).collect();
            for origin in was.iter().filter(|origin| !names.contains(&&origin["server_name"])) {
                let server = text(&origin["server_name"]);
                let effect = live.dropped(&upstream, server);
                self.push(DiffKind::Origin, &format!("{upstream}: {server}"), Outcome::Removed, effect);
            }
        }
    }

    fn shelves(&mut self, live: &Live<'_>, old: &Value, new: &Value) {
        for name in keys(old, new) {
            let was = &old[&name]["pool"];
            let is = &new[&name]["pool"];
            let Some(outcome) = outcome(was, is) else { continue };
            let effect = match outcome {
                Outcome::Added => format!("up to {} connections are kept warm", is["max_idle"]),
                Outcome::Removed => format!("{} is closed at once", live.warm(&name, &was["max_idle"])),
                _ => format!(
                    "{} and of an unchanged origin is kept, up to {} and to an age of {} s",
                    live.warm(&name, &was["max_idle"]),
                    is["max_idle"],
                    is["max_idle_age"],
                ),
            };
            self.push(DiffKind::Shelf, &name, outcome, effect);
        }
    }

    /// What an origin depends on is reported with the origin, and the pool with the shelf.
    fn upstreams(&mut self, live: &Live<'_>, old: &Value, new: &Value) {
        for name in keys(old, new) {
            let mut was = old[&name].clone();
            let mut is = new[&name].clone();
            for part in ["tls", "upgrade", "pool"] {
                for side in [&mut was, &mut is] {
                    side.as_object_mut().and_then(|side| side.remove(part));
                }
            }
            let effect = match outcome(&was, &is) {
                None => continue,
                Some(Outcome::Added) => "is there for new streams".to_owned(),
                Some(Outcome::Removed) => format!("gets no more streams; {}", live.streams(&name)),
                Some(_) => format!("holds for new streams; {}", live.streams(&name)),
            };
            self.changes.extend(outcome(&was, &is).map(|outcome| Change {
                kind: DiffKind::Upstream,
                name,
                outcome,
                effect,
            }));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn to_json(&self) -> Value {
        let one = |change: &Change| {
            let (word, parts) = match &change.outcome {
                Outcome::Added => ("added", &[][..]),
                Outcome::Removed => ("removed", &[][..]),
                Outcome::Changed(parts) => ("changed", &parts[..]),
                Outcome::Kept => ("kept", &[][..]),
                Outcome::Unavailable => ("unavailable", &[][..]),
            };
            json!({
                "kind": change.kind.as_str(),
                "name": change.name,
                "fate": word,
                "parts": parts,
                "effect": change.effect,
            })
        };
        self.changes.iter().map(one).collect()
    }
}

impl fmt::Display for Diff {
    /// For people: a line a change, its effect below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            let (sign, mut what) = match &change.outcome {
                Outcome::Added => ('+', String::new()),
                Outcome::Removed => ('-', String::new()),
                Outcome::Changed(parts) => ('~', format!(" ({})", parts.join(", "))),
                Outcome::Kept => ('!', " (kept)".to_owned()),
                Outcome::Unavailable => ('!', " (unavailable)".to_owned()),
            };
            write!(what, "\n    {}", change.effect)?;
            writeln!(f, "{sign} {} {}{what}", change.kind.as_str(), change.name)?;
        }
        if self.is_empty() { writeln!(f, "nothing would change") } else { Ok(()) }
    }
}

/// `None` if the values are equal.
fn outcome(old: &Value, new: &Value) -> Option<Outcome> {
    match (old, new) {
        (old, new) if old == new => None,
        (Value::Null, _) => Some(Outcome::Added),
        (_, Value::Null) => Some(Outcome::Removed),
        (Value::Object(_), Value::Object(_)) => {
            Some(Outcome::Changed(keys(old, new).into_iter().filter(|key| old[key] != new[key]).collect()))
        }
        _ => Some(Outcome::Changed(vec![format!("{old} -> {new}")])),
    }
}

fn keys(one: &Value, other: &Value) -> BTreeSet<String> {
    [one, other].into_iter().filter_map(Value::as_object).flat_map(|map| map.keys().cloned()).collect()
}

fn by_name(list: &Value) -> Value {
    let named = |one: &Value| (text(&one["name"]).to_owned(), one.clone());
    Value::Object(self::list(list).iter().map(named).collect())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
