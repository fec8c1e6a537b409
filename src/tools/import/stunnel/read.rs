//! Lines of a configuration of stunnel.
//!
//! `option = value`; `[service]` begins a service; `;` and `#` begin a comment; `include = folder` brings the files
//! of a folder (stunnel's manual, "CONFIGURATION FILE"). The names of options are the same in any case.

use crate::config::Span;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) kind: LineKind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// `[name]`
    Service(String),
    /// `name = value`, the name in lower case.
    Option(String, String),
    Other(String),
}

pub(crate) fn lines(text: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let mut at = 0;
    for whole in text.split_inclusive('\n') {
        let begin = at;
        at += whole.len();
        let whole = whole.trim_start_matches('\u{feff}');
        let line = whole.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        let start = begin + text[begin..at].find(line).unwrap_or(0);
        found.push(Line { kind: kind(line), span: start..start + line.len() });
    }
    found
}

fn kind(line: &str) -> LineKind {
    if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
        return LineKind::Service(name.trim().to_owned());
    }
    match line.split_once('=') {
        Some((name, value)) => LineKind::Option(name.trim().to_ascii_lowercase(), value.trim().to_owned()),
        None => LineKind::Other(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_kind() {
        let text = "; c\n Client = yes\n[a b]\n\nsni=\nwhat\n";
        let kinds: Vec<_> = lines(text).into_iter().map(|line| line.kind).collect();
        assert_eq!(
            kinds,
            [
                LineKind::Option("client".into(), "yes".into()),
                LineKind::Service("a b".into()),
                LineKind::Option("sni".into(), String::new()),
                LineKind::Other("what".into()),
            ]
        );
        assert_eq!(lines(text)[0].span, 5..17);
    }
}
