//! Maps on the server name of the clients' hellos become routes.

use crate::config::problems::quote;
use crate::tools::import::draft::Route;
use crate::tools::import::findings::{SourceRange, VARIABLE};
use crate::tools::import::nginx::importer::Importer;
use crate::tools::import::nginx::listen::To;
use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::proxy_pass::ProxyPass;
use crate::tools::import::nginx::scope::Scope;
use crate::tools::import::nginx::variables::{Case, Choice};

impl<'a> Importer<'_> {
    pub(super) fn by_name(
        &mut self,
        scope: &Scope<'a>,
        pass: &'a Directive,
        choice: Choice,
        blocks: &[&'a Directive],
    ) -> To {
        let mut to = To::default();
        for case in &choice.cases {
            if self.is_unknown(case) {
                continue;
            }
            let Some(server_names) = patterns(&case.key) else {
                let title = format!("`{}` cannot be expressed by names and wildcards", case.key);
                self.find_case(case, title, "not carried over; write the names that it stands for");
                continue;
            };
            let Some(upstream) = self.case(scope, pass, case, blocks) else { continue };
            match to.routes.iter_mut().find(|route| route.upstream == upstream) {
                Some(route) => route.server_names.extend(server_names),
                None => to.routes.push(Route { server_names, upstream }),
            }
            self.report.carry(case.id, "listeners: routes");
        }
        if let Some(case) = choice.default.filter(|case| !self.is_unknown(case) && !case.text.is_empty()) {
            to.upstream = self.case(scope, pass, &case, blocks);
            if to.upstream.is_some() {
                self.report.carry(case.id, "listeners: upstream");
            }
        }
        if let Some(directive) = scope.get("ssl_preread") {
            self.carried(directive, "upstreams: passthrough");
        }
        self.carried(pass, "listeners: routes");
        // A name may occur twice in a map of nginx; the first entry wins.
        let mut seen = Vec::new();
        for route in &mut to.routes {
            route.server_names.retain(|name| {
                !seen.contains(name) && {
                    seen.push(name.clone());
                    true
                }
            });
        }
        to.routes.retain(|route| !route.server_names.is_empty());
        to
    }

    fn case(&mut self, scope: &Scope<'a>, pass: &'a Directive, case: &Case, blocks: &[&'a Directive]) -> Option<usize> {
        let target = self.target(pass, &case.text, blocks, None, true)?;
        self.passthrough(&ProxyPass { scope: scope.clone(), prefix: "proxy", http: false, pass, target })
    }

    /// A case whose server only nginx can determine is lost; the others are not.
    fn is_unknown(&mut self, case: &Case) -> bool {
        let Some(variable) = &case.unknown else { return false };
        let title = format!("where {} leads depends on `${variable}`: this entry of the map is lost", quote(&case.key));
        self.find_case(
            case,
            title,
            "the others are carried; write a route and an upstream for each name that it stands for",
        );
        true
    }

    fn find_case(&mut self, case: &Case, title: String, repair: &str) {
        let Some(entry) = self.report.entries.get(case.id) else { return };
        let place: SourceRange = entry.place.clone();
        self.report.find(VARIABLE, place, title, "a pattern", repair);
        self.report.settle(case.id, crate::tools::import::report::Outcome::Found(VARIABLE.word));
    }
}

/// The names and wildcards that match what a key of a map matches; `None` if none do.
fn patterns(key: &str) -> Option<Vec<String>> {
    let key = key.to_ascii_lowercase();
    if let Some(expression) = key.strip_prefix('~') {
        return of_expression(expression.trim_start_matches('*'));
    }
    if let Some(domain) = key.strip_prefix('.') {
        return is_plain(domain).then(|| vec![domain.to_owned(), format!("*.{domain}")]);
    }
    let plain = key.strip_prefix("*.").unwrap_or(&key);
    is_plain(plain).then(|| vec![key.clone()])
}

/// The few regular expressions that people write in place of a wildcard.
fn of_expression(text: &str) -> Option<Vec<String>> {
    let (anchored, text) = match text.strip_prefix('^') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let text = text.strip_suffix('$')?;
    let below = ["(.*)\\.", "(.+)\\.", ".*\\.", ".+\\."].iter().find_map(|start| text.strip_prefix(start));
    let both = ["(.*\\.)?", "(.+\\.)?", "(?:.*\\.)?", "(?:.+\\.)?"].iter().find_map(|start| text.strip_prefix(start));
    let below = below.or_else(|| text.strip_prefix("\\.").filter(|_| !anchored));
    let literal = |text: &str| {
        let name = text.replace("\\.", "\u{0}");
        let name = (!name.contains('.')).then(|| name.replace('\u{0}', "."))?;
        is_plain(&name).then_some(name)
    };
    match (below, both) {
        (Some(rest), _) => literal(rest).map(|name| vec![format!("*.{name}")]),
        (_, Some(rest)) => literal(rest).map(|name| vec![name.clone(), format!("*.{name}")]),
        _ if anchored => literal(text).map(|name| vec![name]),
        _ => None,
    }
}

fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(fits) && !name.starts_with('.') && !name.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_names_where_they_can() {
        let text = |key: &str| patterns(key).map(|names| names.join(" "));
        for (key, names) in [
            ("A.example.com", "a.example.com"),
            ("*.example.com", "*.example.com"),
            (".example.com", "example.com *.example.com"),
            ("~^a\\.example\\.com$", "a.example.com"),
            ("~*^.+\\.example\\.com$", "*.example.com"),
            ("~\\.example\\.com$", "*.example.com"),
            ("~^(.*\\.)?example\\.com$", "example.com *.example.com"),
        ] {
            assert_eq!(text(key).as_deref(), Some(names), "{key}");
        }
        for key in ["example.*", "~example", "~^(a|b)\\.example\\.com$", "~^a.example\\.com$", ""] {
            assert_eq!(text(key), None, "{key}");
        }
    }
}
