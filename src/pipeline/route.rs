//! Where a connection goes: a pure look-up from (listener, class) to a route.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::values::{Name, NamePattern, Rule, StreamLimits};
use crate::observe::metrics::{ListenerMetrics, RouteMetrics};
use crate::pipeline::classify::hello::ClientHello;
use crate::pipeline::classify::{Class, Expect, Protocol};
use crate::pipeline::originate::Originator;
use crate::pipeline::relay::Counters;
use crate::protocols::answers::AnswerFormat;

/// The routes of one listener, and what its clients have to send first.
pub struct RouteTable {
    pub(crate) listener: Name,
    pub(crate) expect: Expect,
    /// How long the client may take for its first bytes.
    pub(crate) patience: Duration,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) routes: Routes,
}

/// A route from a listener to an upstream. A stream holds its route, and with it the upstream's origin, as long as it
/// lives: an old generation dies when its last stream does.
pub struct Route {
    pub(crate) originator: Arc<Originator>,
    pub(crate) limits: StreamLimits,
    pub(crate) counters: Counters,
    pub(crate) metrics: RouteMetrics,
    /// `None`: a client that cannot be served gets a reset.
    pub(crate) answer: Option<AnswerFormat>,
}

pub(crate) enum Routes {
    One(Arc<Route>),
    ByHello(Box<ByHello<Arc<Route>>>),
}

impl RouteTable {
    /// How a client is answered that has not said where it wants to go.
    pub(crate) fn answer(&self) -> Option<AnswerFormat> {
        match &self.routes {
            Routes::One(only) => only.answer,
            Routes::ByHello(_) => None,
        }
    }

    /// The route of a connection of this class.
    ///
    /// # Errors
    /// No rule fits, and there is no default.
    pub fn find(&self, class: &Class) -> Result<&Arc<Route>, NoRoute> {
        match (&self.routes, &class.protocol) {
            (Routes::One(only), _) => Ok(only),
            (Routes::ByHello(rules), Protocol::Tls(hello)) => rules.find(hello).ok_or_else(|| NoRoute(hello.clone())),
            (Routes::ByHello(rules), Protocol::Plaintext) => {
                rules.default.as_ref().ok_or_else(|| NoRoute(ClientHello::default()))
            }
        }
    }
}

/// No route fits what the client asks for.
#[derive(Debug, thiserror::Error)]
#[error("no route is for {0}")]
pub struct NoRoute(ClientHello);

impl NoRoute {
    pub(crate) fn reason(&self) -> &'static str {
        "no_route"
    }

    pub(crate) fn repair(&self) -> String {
        match &self.0.server_name {
            Some(name) => format!(
                "if the client asks for the right name, add it to the listener's `routes`:\n    \
                 {{ server_names = [{name:?}], upstream = \"NAME\" }}"
            ),
            None => {
                "let the client send the server's name (SNI), or give the listener an `upstream` for such".to_owned()
            }
        }
    }
}

/// Rules by name. A look-up costs one probe for the name, and one for each of its dots.
pub struct ByHello<T> {
    exact: HashMap<Box<str>, Choices<T>>,
    below: HashMap<Box<str>, Choices<T>>,
    default: Option<T>,
}

struct Choices<T> {
    by_protocol: Vec<(Box<[u8]>, T)>,
    otherwise: Option<T>,
}

impl<T: Clone> ByHello<T> {
    /// The rules with what they lead to.
    pub fn new(rules: &[Rule], mut target: impl FnMut(&Name) -> T, default: Option<T>) -> Self {
        let mut by_hello = Self { exact: HashMap::new(), below: HashMap::new(), default };
        for rule in rules {
            let target = target(&rule.upstream);
            for pattern in &rule.server_names {
                let (names, name) = match pattern {
                    NamePattern::Exactly(name) => (&mut by_hello.exact, name),
                    NamePattern::Below(parent) => (&mut by_hello.below, parent),
                };
                let choices = names.entry(name.as_str().into()).or_default();
                choices.by_protocol.extend(rule.alpn.iter().map(|p| (p.as_slice().into(), target.clone())));
                if rule.alpn.is_empty() {
                    choices.otherwise = Some(target.clone());
                }
            }
        }
        by_hello
    }
}

impl<T> ByHello<T> {
    /// The target of the nearest name that has one for what the client offers; else the default.
    pub fn find(&self, hello: &ClientHello) -> Option<&T> {
        let named = hello.server_name.as_deref().and_then(|name| {
            let exact = self.exact.get(name).and_then(|choices| choices.find(&hello.alpn));
            exact.or_else(|| parents(name).find_map(|parent| self.below.get(parent)?.find(&hello.alpn)))
        });
        named.or(self.default.as_ref())
    }
}

impl<T> Choices<T> {
    /// The client's order decides between two of its protocols.
    fn find(&self, offer: &[Box<[u8]>]) -> Option<&T> {
        let wanted = |protocol: &[u8]| self.by_protocol.iter().find(|(known, _)| **known == *protocol);
        offer.iter().find_map(|protocol| wanted(protocol)).map(|(_, target)| target).or(self.otherwise.as_ref())
    }
}

impl<T> Default for Choices<T> {
    fn default() -> Self {
        Self { by_protocol: Vec::new(), otherwise: None }
    }
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(names: &[&str], alpn: &[&str], upstream: &str) -> Rule {
        let pattern = |name: &&str| match name.strip_prefix("*.") {
            Some(parent) => NamePattern::Below(parent.to_owned()),
            None => NamePattern::Exactly((*name).to_owned()),
        };
        let alpn = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Rule { server_names: names.iter().map(pattern).collect(), alpn, upstream: Name::new(upstream) }
    }

    fn rules(default: Option<&str>) -> ByHello<Name> {
        let rules = [
            rule(&["*.example.com", "example.com"], &[], "wide"),
            rule(&["*.db.example.com"], &[], "narrow"),
            rule(&["one.db.example.com"], &[], "exact"),
            rule(&["web.example.com"], &["h2", "h3"], "h2"),
            rule(&["web.example.com"], &["acme-tls/1"], "acme"),
            rule(&["only.example.net"], &["h2"], "only-h2"),
        ];
        ByHello::new(&rules, Name::clone, default.map(Name::new))
    }

    fn found(rules: &ByHello<Name>, name: Option<&str>, alpn: &[&str]) -> Option<String> {
        let alpn = alpn.iter().map(|protocol| protocol.as_bytes().into()).collect();
        rules.find(&ClientHello { server_name: name.map(Into::into), alpn }).map(ToString::to_string)
    }

    #[test]
    fn the_nearest_name_wins() {
        let rules = rules(None);
        for (name, upstream) in [
            ("one.db.example.com", Some("exact")),
            ("two.db.example.com", Some("narrow")),
            ("x.one.db.example.com", Some("narrow")),
            ("db.example.com", Some("wide")),
            ("example.com", Some("wide")),
            ("example.net", None),
            ("notexample.com", None),
            (".", None),
        ] {
            assert_eq!(found(&rules, Some(name), &[]).as_deref(), upstream, "{name}");
        }
        assert_eq!(found(&rules, None, &["h2"]), None);
    }

    #[test]
    fn a_protocol_decides_among_routes_of_a_name_and_the_next_name_takes_the_rest() {
        let rules = rules(Some("default"));
        for (name, offer, upstream) in [
            ("web.example.com", &["acme-tls/1", "h2"][..], "acme"),
            ("web.example.com", &["http/1.1", "h3"], "h2"),
            ("web.example.com", &["http/1.1"], "wide"),
            ("only.example.net", &["h2"], "only-h2"),
            ("only.example.net", &[], "default"),
            ("elsewhere.example.org", &["h2"], "default"),
        ] {
            assert_eq!(found(&rules, Some(name), offer).as_deref(), Some(upstream), "{name} {offer:?}");
        }
    }
}
