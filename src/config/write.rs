//! The one writer of configuration text: repairs, `explain` and `import` make their tables here, so that keys, strings
//! and comments are escaped in one place.

use std::fmt::Display;
use std::time::Duration;

use crate::config::values::quoting::{key, string};

#[derive(Debug, Default)]
pub(crate) struct Text {
    text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Value(String);

impl Text {
    /// A line of comment. Control characters become spaces: a comment ends with its line.
    pub(crate) fn comment(&mut self, comment: &str) -> &mut Self {
        self.part();
        let line: String = comment.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        self.text.push_str(format!("# {line}").trim_end());
        self.text.push('\n');
        self
    }

    pub(crate) fn blank(&mut self) -> &mut Self {
        self.text.push('\n');
        self
    }

    pub(crate) fn table(&mut self, path: &[&str]) -> &mut Self {
        self.head("[", path, "]")
    }

    pub(crate) fn list_item(&mut self, name: &str) -> &mut Self {
        self.head("[[", &[name], "]]")
    }

    pub(crate) fn table_if_any(&mut self, path: &[&str], set: impl FnOnce(&mut Self)) -> &mut Self {
        let before = self.text.len();
        self.table(path);
        let empty = self.text.len();
        set(self);
        if self.text.len() == empty {
            self.text.truncate(before);
        }
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.text.push_str(&format!("{} = {}\n", key(name), value.into().0));
        self
    }

    pub(crate) fn set_some(&mut self, name: &str, value: Option<impl Into<Value>>) -> &mut Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    pub(crate) fn set_if(&mut self, name: &str, is_set: bool, value: impl Into<Value>) -> &mut Self {
        self.set_some(name, is_set.then_some(value))
    }

    /// Writes no key if the list is empty.
    pub(crate) fn set_list<T: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) -> &mut Self {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return self;
        }
        self.set(name, Value::strings(values))
    }

    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    fn head(&mut self, open: &str, path: &[&str], close: &str) -> &mut Self {
        self.part();
        let path: Vec<String> = path.iter().map(|part| key(part)).collect();
        self.text.push_str(&format!("{open}{}{close}\n", path.join(".")));
        self
    }

    fn part(&mut self) {
        let last = self.text.lines().last().unwrap_or_default();
        if !last.is_empty() && !last.starts_with('#') {
            self.text.push('\n');
        }
    }
}

impl Value {
    pub(crate) fn strings<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<String> = values.into_iter().map(|value| string(value.as_ref())).collect();
        Self(format!("[{}]", values.join(", ")))
    }

    pub(crate) fn list(values: impl IntoIterator<Item = Self>) -> Self {
        let values: Vec<String> = values.into_iter().map(|value| value.0).collect();
        Self(format!("[{}]", values.join(", ")))
    }

    pub(crate) fn lines(values: impl IntoIterator<Item = Self>) -> Self {
        let values: String = values.into_iter().map(|value| format!("    {},\n", value.0)).collect();
        Self(format!("[\n{values}]"))
    }

    /// `{ key = value, ... }`, of those keys that have a value; `None` if there is none.
    pub(crate) fn inline<'a>(keys: impl IntoIterator<Item = (&'a str, Option<Self>)>) -> Option<Self> {
        let keys = keys.into_iter().filter_map(|(name, value)| Some(format!("{} = {}", key(name), value?.0)));
        let keys: Vec<String> = keys.collect();
        (!keys.is_empty()).then(|| Self(format!("{{ {} }}", keys.join(", "))))
    }

    pub(crate) fn number(number: impl Display) -> Self {
        Self(number.to_string())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(string(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(string(&text))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(value.to_string())
    }
}

impl From<Duration> for Value {
    /// In the largest unit that says it exactly.
    fn from(duration: Duration) -> Self {
        let millis = duration.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let (length, unit) = units.into_iter().find(|(length, _)| millis.is_multiple_of(*length)).unwrap_or((1, "ms"));
        Self(string(&format!("{}{unit}", millis / length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_names_stay_inside_of_their_keys_values_and_comments() {
        let mut text = Text::default();
        text.comment("a\nroots = []").table(&["trust", "a.b\"]\n"]).set("names", Value::strings(["${HOME}\n"]));
        assert_eq!(text.finish(), "# a roots = []\n[trust.\"a.b\\\"]\\u000A\"]\nnames = [\"$${HOME}\\u000A\"]\n");
    }

    #[test]
    fn tables_are_apart_and_comments_belong_to_what_follows() {
        let mut text = Text::default();
        text.comment("of a").table(&["a"]).set("x", true).comment("of b").list_item("b").set("y", Value::number(1));
        text.table_if_any(&["c"], |_| ()).table_if_any(&["d"], |text| {
            text.set("z", "z");
        });
        assert_eq!(text.finish(), "# of a\n[a]\nx = true\n\n# of b\n[[b]]\ny = 1\n\n[d]\nz = \"z\"\n");
    }

    #[test]
    fn durations_have_the_largest_exact_unit() {
        for (seconds, text) in [(90, "\"90s\""), (7200, "\"2h\""), (0, "\"0d\"")] {
            assert_eq!(Value::from(Duration::from_secs(seconds)).0, text);
        }
    }

    #[test]
    fn inline_tables_hold_what_is_given() {
        let two = [("a", Some("x".into())), ("b", None), ("c", Some(true.into()))];
        assert_eq!(Value::inline(two).unwrap().0, "{ a = \"x\", c = true }");
        assert!(Value::inline([("a", None)]).is_none());
    }
}
