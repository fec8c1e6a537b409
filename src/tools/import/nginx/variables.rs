//! What a text with variables comes to, as far as the configuration alone can tell.

use crate::tools::import::nginx::parse::Directive;
use crate::tools::import::nginx::scope::Scope;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    /// By the server name in the ClientHello.
    ByName(Choice),
    /// Depends on this variable, whose value only a connection has.
    Unknown(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) cases: Vec<Case>,
    pub(crate) default: Option<Case>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// A name, `*.example.com`, `.example.com`, or `~` and a regular expression.
    pub(crate) key: String,
    pub(crate) text: String,
    /// The variable without a value before the connection, if there is one; `text` is then empty.
    pub(crate) unknown: Option<String>,
    pub(crate) id: usize,
}

impl Choice {
    fn map(mut self, change: impl Fn(&str) -> String) -> Self {
        for case in self.cases.iter_mut().chain(&mut self.default) {
            if case.unknown.is_none() {
                case.text = change(&case.text);
            }
        }
        self
    }
}

/// The variables of a block, and the ids of the directives that resolved them.
#[derive(Debug)]
pub(crate) struct Variables<'s, 'a> {
    scope: &'s Scope<'a>,
    /// Ids of `set` and `map`, with everything inside, that took part in an answer.
    pub(crate) used: Vec<usize>,
}

/// Holds the server name of the ClientHello.
pub(crate) const HELLO_NAME: &str = "ssl_preread_server_name";

/// Bound of a chain of variables that refer to each other.
const DEEPEST: usize = 16;

impl<'s, 'a> Variables<'s, 'a> {
    pub(crate) fn new(scope: &'s Scope<'a>) -> Self {
        Self { scope, used: Vec::new() }
    }

    pub(crate) fn resolve(&mut self, text: &str) -> Value {
        self.text(text, 0)
    }

    fn text(&mut self, text: &str, depth: usize) -> Value {
        let mut value = Value::Text(String::new());
        for part in parts(text) {
            let next = match part {
                Part::Literal(literal) => Value::Text(literal.to_owned()),
                Part::Variable(name) if depth < DEEPEST => self.variable(name, depth + 1),
                Part::Variable(name) => Value::Unknown(name.to_owned()),
            };
            value = join(value, next);
        }
        value
    }

    fn variable(&mut self, name: &str, depth: usize) -> Value {
        if let Some(set) = self.find_set(name) {
            self.used.push(set.id);
            return self.text(set.argument(1), depth);
        }
        match self.find_map(name) {
            Some(map) => self.map(map, depth),
            None => match self.scope.known(name) {
                Some(value) => Value::Text(value.to_owned()),
                None => Value::Unknown(name.to_owned()),
            },
        }
    }

    /// A `set` that always applies: not one of two, and none inside an `if`.
    fn find_set(&self, name: &str) -> Option<&'a Directive> {
        let sets = self.scope.chain().iter().copied().find_map(|block| {
            let sets: Vec<_> = block.iter().filter(|directive| defines(directive, "set", 0, name)).collect();
            (!sets.is_empty()).then_some(sets)
        })?;
        let all = self.scope.chain().iter().copied().flatten();
        let conditional = all.filter(|directive| directive.name.text == "if").flat_map(Directive::children);
        let changed = conditional.into_iter().any(|directive| defines(directive, "set", 0, name));
        // The last of several in one block is what counts when the request gets on.
        sets.last().copied().filter(|_| !changed)
    }

    fn find_map(&self, name: &str) -> Option<&'a Directive> {
        let mut all = self.scope.chain().iter().copied().flatten();
        all.rfind(|directive| defines(directive, "map", 1, name))
    }

    fn map(&mut self, map: &'a Directive, depth: usize) -> Value {
        self.used.push(map.id);
        let mut choice = Choice::default();
        for entry in map.children() {
            let key = entry.name.text.as_str();
            let id = entry.id;
            let (text, unknown) = match self.text(entry.argument(0), depth) {
                Value::Text(text) => (text, None),
                Value::ByName(_) => (String::new(), Some(map.argument(1).trim_start_matches('$').to_owned())),
                Value::Unknown(variable) => (String::new(), Some(variable)),
            };
            let case = Case { key: key.trim_start_matches('\\').to_owned(), text, unknown, id };
            match key {
                "default" => choice.default = Some(case),
                // What a file brings follows its `include`.
                "include" => {}
                "hostnames" | "volatile" if entry.arguments.is_empty() => self.used.push(id),
                _ => choice.cases.push(case),
            }
        }
        let source = map.argument(0);
        if source == format!("${HELLO_NAME}") || source == format!("${{{HELLO_NAME}}}") {
            return Value::ByName(choice);
        }
        self.choose(source, choice, depth)
    }

    /// For a map on another variable: its source may be known, or make no difference.
    fn choose(&mut self, source: &str, choice: Choice, depth: usize) -> Value {
        let all: Vec<_> = choice.cases.iter().chain(&choice.default).collect();
        self.used.extend(all.iter().map(|case| case.id));
        let same = |pair: &[&Case]| pair[0].text == pair[1].text && pair[0].unknown == pair[1].unknown;
        if let (Some(default), true) = (&choice.default, all.windows(2).all(same)) {
            return value_of(default);
        }
        match self.text(source, depth) {
            Value::Text(text) => {
                chosen(choice, &text).unwrap_or_else(|| Value::Unknown(source.trim_start_matches('$').to_owned()))
            }
            Value::Unknown(name) => Value::Unknown(name),
            Value::ByName(_) => Value::Unknown(source.trim_start_matches('$').to_owned()),
        }
    }
}

/// The result of a map for a known text: its case, ignoring ASCII case, else the default. `None`: a regular expression
/// may match, which only nginx can decide.
fn chosen(choice: Choice, text: &str) -> Option<Value> {
    if let Some(case) = choice.cases.iter().find(|case| case.key.eq_ignore_ascii_case(text)) {
        return Some(value_of(case));
    }
    let expression = choice.cases.iter().any(|case| case.key.starts_with('~'));
    (!expression).then(|| choice.default.map_or_else(|| Value::Text(String::new()), |case| value_of(&case)))
}

fn value_of(case: &Case) -> Value {
    match &case.unknown {
        Some(variable) => Value::Unknown(variable.clone()),
        None => Value::Text(case.text.clone()),
    }
}

fn defines(directive: &Directive, name: &str, at: usize, variable: &str) -> bool {
    directive.name.text == name && directive.argument(at).strip_prefix('$') == Some(variable)
}

fn join(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Text(first), Value::Text(second)) => Value::Text(first + &second),
        (Value::Text(first), Value::ByName(choice)) => Value::ByName(choice.map(|text| format!("{first}{text}"))),
        (Value::ByName(choice), Value::Text(second)) => Value::ByName(choice.map(|text| format!("{text}{second}"))),
        (Value::ByName(_), Value::ByName(_)) => Value::Unknown(HELLO_NAME.to_owned()),
        (unknown @ Value::Unknown(_), _) | (_, unknown) => unknown,
    }
}

enum Part<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

/// Literals and variables (`$name`, `${name}`) of a text.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (literal, dollar) = rest.split_at(at);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let (name, after) = variable_at(dollar);
        match name {
            "" => parts.push(Part::Literal("$")),
            name => parts.push(Part::Variable(name)),
        }
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    parts
}

fn variable_at(text: &str) -> (&str, &str) {
    let inner = &text[1..];
    if let Some((name, after)) = inner.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (name, after);
    }
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    inner.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::import::nginx::parse::parse;

    fn value(config: &str, text: &str) -> Value {
        let tree = parse(config, 0, &mut 0).expect("it is a configuration");
        Variables::new(&Scope::new(&tree)).resolve(text)
    }

    #[test]
    fn constants_are_put_in() {
        assert_eq!(value("set $a x; set $b $a.y;", "https://${b}:1$"), Value::Text("https://x.y:1$".into()));
        assert_eq!(value("set $a x; if ($b) { set $a y; }", "$a"), Value::Unknown("a".into()));
        assert_eq!(value("set $a $a;", "$a"), Value::Unknown("a".into()));
    }

    #[test]
    fn maps_on_the_name_of_the_hello_are_choices() {
        let Value::ByName(choice) = value(
            "map $ssl_preread_server_name $up { hostnames; *.a.example.com one; ~^b two; default three; }",
            "$up:443",
        ) else {
            panic!("no choice");
        };
        let cases: Vec<_> = choice.cases.iter().map(|case| (case.key.as_str(), case.text.as_str())).collect();
        assert_eq!(cases, [("*.a.example.com", "one:443"), ("~^b", "two:443")]);
        assert_eq!(choice.default.map(|case| case.text).as_deref(), Some("three:443"));
    }

    #[test]
    fn cases_that_nobody_knows_leave_the_others() {
        let map = "map $ssl_preread_server_name $up { a one; ~^(?<x>.+)$ $x; default $ssl_preread_server_name; }";
        let Value::ByName(choice) = value(map, "$up:443") else { panic!("no choice") };
        let cases: Vec<_> = choice.cases.iter().map(|case| (case.text.as_str(), case.unknown.as_deref())).collect();
        assert_eq!(cases, [("one:443", None), ("", Some("x"))]);
        assert_eq!(choice.default.and_then(|case| case.unknown).as_deref(), Some(HELLO_NAME));
    }

    #[test]
    fn variables_of_a_listener_are_known_there() {
        let tree = parse("map $server_port $up { 8082 one; ~^9 nine; default other; }", 0, &mut 0).expect("it is one");
        for (port, expected) in [("8082", Value::Text("one".into())), ("8083", Value::Unknown("server_port".into()))] {
            let scope = Scope::new(&tree).with(vec![("server_port", port.to_owned())]);
            assert_eq!(Variables::new(&scope).resolve("$up"), expected, "{port}");
            assert_eq!(Variables::new(&scope).resolve("x${server_port}x"), Value::Text(format!("x{port}x")));
        }
    }

    #[test]
    fn maps_on_what_is_known_are_looked_up() {
        let config = "set $stage test; map $stage $host { test t.example.com; default p.example.com; }";
        assert_eq!(value(config, "$host"), Value::Text("t.example.com".into()));
        assert_eq!(value("map $time_iso8601 $x { default same; a same; }", "$x"), Value::Text("same".into()));
        assert_eq!(value("map $uri $x { default a; /b c; }", "$x"), Value::Unknown("uri".into()));
    }
}
