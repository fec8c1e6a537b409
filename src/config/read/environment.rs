//! `${NAME}` in strings: values from the environment.

use crate::config::problems::{Problem, quote};
use crate::config::source::Span;
use crate::config::variables::Variables;

/// Looks a variable up; `None`: it is not set (or no UTF-8).
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) struct Typed<'a> {
    /// The text after TOML's escapes.
    pub(super) text: &'a str,
    /// As it was typed, with quotes.
    pub(super) raw: &'a str,
    pub(super) span: Span,
}

/// Puts the variables in and remembers them. `$${` is a literal `${`. All bad references of a string are reported.
pub(super) fn interpolate(
    typed: &Typed<'_>,
    environment: Environment<'_>,
    variables: &mut Variables,
) -> Result<String, Vec<Problem>> {
    let mut out = String::with_capacity(typed.text.len());
    let mut problems = Vec::new();
    let mut rest = typed.text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &reference[2..];
            continue;
        }
        out.push_str(before);
        match read_reference(reference) {
            Ok((name, after)) => {
                match environment(name) {
                    Some(value) => {
                        variables.add(name, &value);
                        out.push_str(&value);
                    }
                    None => problems.push(undefined(typed, name)),
                }
                rest = after;
            }
            Err(broken) => {
                problems.push(malformed(typed, broken));
                rest = &reference[broken.len()..];
            }
        }
    }
    out.push_str(rest);
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

/// Name and rest of a text that begins with `${`; as error, the part that is no reference.
fn read_reference(text: &str) -> Result<(&str, &str), &str> {
    let inner = &text[2..];
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let name = &inner[..end];
    let named = name.starts_with(|c: char| !c.is_ascii_digit());
    match inner[end..].strip_prefix('}') {
        Some(after) if named => Ok((name, after)),
        Some(_) => Err(&text[..end + 3]),
        None => Err(&text[..end + 2]),
    }
}

fn undefined(typed: &Typed<'_>, name: &str) -> Problem {
    Problem::new(
        locate(typed, &format!("${{{name}}}")),
        format!("the environment variable {} is not set", quote(name)),
        "not set",
        format!("set it before the start (`export {name}=...`), or write `$${{{name}}}` for the literal text"),
    )
}

fn malformed(typed: &Typed<'_>, broken: &str) -> Problem {
    Problem::new(
        locate(typed, broken),
        format!("{} is no reference to an environment variable", quote(broken)),
        "neither a variable nor plain text",
        "write `${NAME}` (letters, digits, underscore), or `$${` for a literal `${`",
    )
}

/// The place of a reference inside the string; of the whole string if escapes hide it.
fn locate(typed: &Typed<'_>, reference: &str) -> Span {
    match typed.raw.find(reference) {
        Some(at) => typed.span.start + at..typed.span.start + at + reference.len(),
        None => typed.span.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_in(text: &str) -> Result<String, usize> {
        let typed = Typed { text, raw: text, span: 0..text.len() };
        let environment = |name: &str| (name == "A_1").then(|| "${A_1}".to_owned());
        interpolate(&typed, &environment, &mut Variables::default()).map_err(|problems| problems.len())
    }

    #[test]
    fn values_are_put_in_once_and_dollars_stay() {
        assert_eq!(put_in("x${A_1}y$").as_deref(), Ok("x${A_1}y$"));
        assert_eq!(put_in("$${A_1} $$ $5").as_deref(), Ok("${A_1} $$ $5"));
    }

    #[test]
    fn every_bad_reference_is_reported() {
        assert_eq!(put_in("${B} ${ ${} ${1X} ${C"), Err(5));
    }
}
