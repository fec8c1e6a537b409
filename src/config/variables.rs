//! The values that replaced `${NAME}`. A variable of the environment may hold a secret that was put at the wrong key, so no
//! message shows its value: wherever the value would be quoted, the reference is.

use std::fmt;

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables(Vec<Variable>);

#[derive(Clone, PartialEq, Eq)]
struct Variable {
    reference: String,
    value: String,
}

/// Characters of a value that are recognised without its rest: messages cut long texts. Shorter values have to be there
/// as a whole.
const RECOGNISED: usize = 8;

/// Values up to this length are recognised as whole words only: the `1` of a variable is not the 1 in `127.0.0.1`.
const WORD: usize = 3;

impl Variables {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        let variable = Variable { reference: format!("${{{name}}}"), value: value.to_owned() };
        if !value.is_empty() && !self.0.contains(&variable) {
            self.0.push(variable);
            // A value that holds another is recognised before it.
            self.0.sort_by_key(|variable| std::cmp::Reverse(variable.value.len()));
        }
    }

    /// The text with references in place of values: whole values, their beginnings where a message has cut them, and in
    /// any case of letters, since host names are folded to lower case. Escapes of control characters hide no value.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for variable in &self.0 {
            text = variable.hide(&text);
            let escaped: String = variable.value.escape_debug().collect();
            if escaped != variable.value {
                text = Variable { value: escaped, ..variable.clone() }.hide(&text);
            }
        }
        text
    }
}

impl Variable {
    fn hide(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        let mut before = None;
        while let Some(first) = rest.chars().next() {
            let length = if rest.starts_with(&self.reference) { 0 } else { self.length_in(rest, before) };
            if length > 0 {
                out.push_str(&self.reference);
                before = rest[..length].chars().last();
                rest = &rest[length..];
                continue;
            }
            out.push(first);
            before = Some(first);
            rest = &rest[first.len_utf8()..];
        }
        out
    }

    /// Bytes at the front of the text that are the value, or a part of it that reveals it.
    fn length_in(&self, text: &str, before: Option<char>) -> usize {
        let same = text.chars().zip(self.value.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b));
        let (count, length) = same.fold((0, 0), |(count, length), (letter, _)| (count + 1, length + letter.len_utf8()));
        let all = self.value.chars().count();
        if count < all.min(RECOGNISED) {
            return 0;
        }
        let is_word = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        let is_part_of_word = is_word(before) || is_word(text[length..].chars().next());
        if all <= WORD && is_part_of_word { 0 } else { length }
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|variable| &variable.reference)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(values: &[(&str, &str)]) -> Variables {
        let mut variables = Variables::default();
        values.iter().for_each(|(name, value)| variables.add(name, value));
        variables
    }

    #[test]
    fn a_value_is_shown_as_its_reference() {
        let secret = "sekret-4711-and-a-good-deal-more-of-it";
        let variables = variables(&[("S", secret), ("N", "5"), ("Q", "a\"b\nc"), ("EMPTY", "")]);
        for (text, shown) in [
            (format!("`{secret}` is not a duration"), "`${S}` is not a duration"),
            ("`folder/SEKRET-4711-AND-a-go...`".to_owned(), "`folder/${S}...`"),
            (r#"`a\"b\nc`, a"b"#.to_owned(), "`${Q}`, a\"b"),
            ("5 of 55, `5`, ${N}".to_owned(), "${N} of 55, `${N}`, ${N}"),
        ] {
            assert_eq!(variables.hide(&text), shown);
        }
        assert_eq!(format!("{variables:?}"), r#"["${S}", "${Q}", "${N}"]"#);
    }

    proptest! {
        #[test]
        fn no_long_value_is_left(value in "[ -~]{4,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            let shown = variables(&[("V", &value)]).hide(&format!("{before}{value}{after}"));
            prop_assert!(!shown.replace("${V}", "\u{0}").contains(&value), "{shown}");
        }
    }
}
