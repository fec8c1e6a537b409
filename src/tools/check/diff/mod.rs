//! What a reload from one configuration to another would touch: a pure comparison of two outlines.

mod kept;
mod live;

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use serde_json::{Value, json};

use self::live::Live;

/// What a reload would touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// In the order in which they are told.
    pub(crate) changes: Vec<Change>,
}

/// One thing that is there in both configurations, or in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What it is.
    pub(crate) kind: Kind,
    /// What the configuration calls it.
    pub(crate) name: String,
    /// What becomes of it.
    pub(crate) fate: Fate,
    /// What follows for sockets, tickets, warm connections and streams.
    pub(crate) effect: String,
}

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A section about the whole process.
    Process,
    /// A listener.
    Listener,
    /// An identity.
    Identity,
    /// A trust.
    Trust,
    /// An upstream's way to one server name: who owns tickets and warm connections.
    Origin,
    /// The warm connections of an upstream.
    Shelf,
    /// The settings of an upstream that no origin depends on.
    Upstream,
}

/// What becomes of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Only the new configuration has it.
    Added,
    /// Only the old one has it.
    Removed,
    /// Both have it, and these parts differ.
    Changed(Vec<String>),
    /// Its files cannot be used: what runs stays in force.
    Kept,
    /// Its files cannot be used, and nothing runs that could stay.
    Unavailable,
}

impl Kind {
    /// The word.
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

/// Compares two outlines ([`crate::control::reload_fingerprint`]).
pub(crate) fn diff(old: &Value, new: &Value) -> Diff {
    let mut diff = Diff::default();
    let new = &kept::apply(old, new);
    diff.process(&old["settings"], &new["settings"]);
    diff.listeners(old, new);
    diff.digests(Kind::Identity, &old["identities"], &new["identities"]);
    diff.digests(Kind::Trust, &old["trusts"], &new["trusts"]);
    diff.broken(Kind::Identity, &old["identities"], &new["broken"]["identity"]);
    diff.broken(Kind::Trust, &old["trusts"], &new["broken"]["trust"]);
    let live = Live::of(old);
    diff.origins(&live, old, new);
    let (old, new) = (&old["settings"]["upstreams"], &new["settings"]["upstreams"]);
    diff.shelves(&live, old, new);
    diff.upstreams(&live, old, new);
    diff
}

/// Sections of the settings that are compared by themselves.
const OWN: [&str; 4] = ["identities", "trust", "upstreams", "listeners"];

impl Diff {
    fn push(&mut self, kind: Kind, name: &str, fate: Fate, effect: impl Into<String>) {
        self.changes.push(Change { kind, name: name.to_owned(), fate, effect: effect.into() });
    }

    fn process(&mut self, old: &Value, new: &Value) {
        for name in keys(old, new).into_iter().filter(|name| !OWN.contains(&name.as_str())) {
            let effect = match name.as_str() {
                "runtime" | "admin" | "limits" | "reload" => "takes effect at the next start",
                "log" => "the level takes effect at once, the format at the next start; streams go on",
                _ => "takes effect at once; streams go on",
            };
            if let Some(fate) = fate(&old[&name], &new[&name]) {
                self.push(Kind::Process, &name, fate, effect);
            }
        }
    }

    fn listeners(&mut self, old: &Value, new: &Value) {
        let (old_list, new_list) = (by_name(&old["settings"]["listeners"]), by_name(&new["settings"]["listeners"]));
        for name in keys(&old_list, &new_list) {
            let same_socket = old["sockets"][&name] == new["sockets"][&name];
            match fate(&old_list[&name], &new_list[&name]) {
                None => {}
                Some(Fate::Added) => {
                    self.push(Kind::Listener, &name, Fate::Added, "is bound before the old one gives way")
                }
                Some(Fate::Removed) => {
                    self.push(Kind::Listener, &name, Fate::Removed, "stops accepting; its streams go on to their ends");
                }
                Some(changed) => {
                    let effect = match same_socket {
                        true => "keeps its socket: no connection is refused; streams in flight go on as they began",
                        false => "gets a new socket; the old one stops accepting, its streams go on to their ends",
                    };
                    self.push(Kind::Listener, &name, changed, effect);
                }
            }
        }
    }

    fn digests(&mut self, kind: Kind, old: &Value, new: &Value) {
        for name in keys(old, new) {
            let fate = match (&old[&name], &new[&name]) {
                (old, new) if old == new => continue,
                (Value::Null, _) => Fate::Added,
                (_, Value::Null) => Fate::Removed,
                _ => Fate::Changed(vec!["content".to_owned()]),
            };
            let effect = match fate {
                Fate::Added => "is loaded",
                Fate::Removed => "is forgotten when the last stream that uses it ends",
                _ => "new streams use the new one; streams in flight go on with the old one",
            };
            self.push(kind, &name, fate, effect);
        }
    }

    /// Parts whose files cannot be used.
    fn broken(&mut self, kind: Kind, old: &Value, broken: &Value) {
        for (name, part) in broken.as_object().into_iter().flatten() {
            let why = text(&part["why"]);
            let (fate, effect) = match old[name].is_null() {
                false => (Fate::Kept, format!("its files cannot be used, what runs stays in force: {why}")),
                true => (Fate::Unavailable, format!("its files cannot be used, nor the upstreams that need it: {why}")),
            };
            self.push(kind, name, fate, effect);
        }
    }

    fn origins(&mut self, live: &Live<'_>, old: &Value, new: &Value) {
        for upstream in keys(&old["origins"], &new["origins"]) {
            let (was, is) = (list(&old["origins"][&upstream]), list(&new["origins"][&upstream]));
            for origin in is.iter().filter(|origin| !was.contains(origin)) {
                let server = text(&origin["server_name"]);
                let twin = was.iter().find(|twin| twin["server_name"] == origin["server_name"]);
                let (fate, effect) = match twin.and_then(|twin| fate(twin, origin)) {
                    Some(fate) => (fate, live.dropped(&upstream, server)),
                    None => (Fate::Added, "starts without tickets and warm connections".to_owned()),
                };
                self.push(Kind::Origin, &format!("{upstream}: {server}"), fate, effect);
            }
            let names: Vec<&Value> = is.iter().map(|origin| &origin["server_name"]).collect();
            for origin in was.iter().filter(|origin| !names.contains(&&origin["server_name"])) {
                let server = text(&origin["server_name"]);
                let effect = live.dropped(&upstream, server);
                self.push(Kind::Origin, &format!("{upstream}: {server}"), Fate::Removed, effect);
            }
        }
    }

    fn shelves(&mut self, live: &Live<'_>, old: &Value, new: &Value) {
        for name in keys(old, new) {
            let (was, is) = (&old[&name]["pool"], &new[&name]["pool"]);
            let Some(fate) = fate(was, is) else { continue };
            let effect = match fate {
                Fate::Added => format!("up to {} connections are kept warm", is["max_idle"]),
                Fate::Removed => format!("{} is closed at once", live.warm(&name, &was["max_idle"])),
                _ => format!(
                    "{} and of an unchanged origin is kept, up to {} and to an age of {} s",
                    live.warm(&name, &was["max_idle"]),
                    is["max_idle"],
                    is["max_idle_age"],
                ),
            };
            self.push(Kind::Shelf, &name, fate, effect);
        }
    }

    /// What an origin depends on is told with the origin, and the pool with the shelf.
    fn upstreams(&mut self, live: &Live<'_>, old: &Value, new: &Value) {
        for name in keys(old, new) {
            let (mut was, mut is) = (old[&name].clone(), new[&name].clone());
            for part in ["tls", "upgrade", "pool"] {
                for side in [&mut was, &mut is] {
                    side.as_object_mut().and_then(|side| side.remove(part));
                }
            }
            let effect = match fate(&was, &is) {
                None => continue,
                Some(Fate::Added) => "is there for new streams".to_owned(),
                Some(Fate::Removed) => format!("gets no more streams; {}", live.streams(&name)),
                Some(_) => format!("holds for new streams; {}", live.streams(&name)),
            };
            self.changes.extend(fate(&was, &is).map(|fate| Change { kind: Kind::Upstream, name, fate, effect }));
        }
    }

    /// Nothing would be touched.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// For scripts: one object a change.
    pub(crate) fn to_json(&self) -> Value {
        let one = |change: &Change| {
            let (word, parts) = match &change.fate {
                Fate::Added => ("added", &[][..]),
                Fate::Removed => ("removed", &[][..]),
                Fate::Changed(parts) => ("changed", &parts[..]),
                Fate::Kept => ("kept", &[][..]),
                Fate::Unavailable => ("unavailable", &[][..]),
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
            let (sign, mut what) = match &change.fate {
                Fate::Added => ('+', String::new()),
                Fate::Removed => ('-', String::new()),
                Fate::Changed(parts) => ('~', format!(" ({})", parts.join(", "))),
                Fate::Kept => ('!', " (kept)".to_owned()),
                Fate::Unavailable => ('!', " (unavailable)".to_owned()),
            };
            write!(what, "\n    {}", change.effect)?;
            writeln!(f, "{sign} {} {}{what}", change.kind.as_str(), change.name)?;
        }
        if self.is_empty() { writeln!(f, "nothing would change") } else { Ok(()) }
    }
}

/// What became of a value; `None`: it is the same.
fn fate(old: &Value, new: &Value) -> Option<Fate> {
    match (old, new) {
        (old, new) if old == new => None,
        (Value::Null, _) => Some(Fate::Added),
        (_, Value::Null) => Some(Fate::Removed),
        (Value::Object(_), Value::Object(_)) => {
            Some(Fate::Changed(keys(old, new).into_iter().filter(|key| old[key] != new[key]).collect()))
        }
        _ => Some(Fate::Changed(vec![format!("{old} -> {new}")])),
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
