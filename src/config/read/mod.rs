//! Reading that does not stop: each key of each table is read on its own, so that one mistake hides no other.
//!
//! serde gives up at the first error of a document. Here a key that cannot be read becomes
//! [`Given::Wrong`]: reported once, and not reported as missing later.

mod environment;
mod setting;
mod value;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use self::environment::Environment;
pub(crate) use self::setting::{Setting, declared, plain, plain_of, setting, settings, shown};
pub(crate) use self::value::{Amount, Count, Fraction, Key, Named, OneOrMany, Processor, Text, Value};

use self::environment::{Typed, interpolate};
use crate::config::nearest::{nearest, suggest};
use crate::config::problems::{Problem, quote};
use crate::config::source::{Source, Span};
use crate::config::variables::Variables;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Given<T> {
    #[default]
    Absent,
    /// Not a `T`; the problem is already reported.
    Wrong,
    Value(Span, T),
}

impl<T> Given<T> {
    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Value(_, value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn located(&self) -> Option<(&Span, &T)> {
        match self {
            Self::Value(span, value) => Some((span, value)),
            _ => None,
        }
    }

    pub(crate) fn span(&self) -> Option<&Span> {
        self.located().map(|(span, _)| span)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Clone + Default> Given<T> {
    /// The table that was typed, or one without keys.
    pub(crate) fn or_empty(&self) -> Cow<'_, T> {
        self.value().map_or_else(|| Cow::Owned(T::default()), Cow::Borrowed)
    }
}

impl<T: Copy> Given<T> {
    pub(crate) fn or(&self, default: T) -> T {
        self.value().copied().unwrap_or(default)
    }
}

impl<T: Value> JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<T>().into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) title: String,
    pub(crate) label: String,
    pub(crate) repair: String,
}

impl Fault {
    pub(crate) fn new(title: impl Into<String>, label: impl Into<String>, repair: impl Into<String>) -> Self {
        Self { title: title.into(), label: label.into(), repair: repair.into() }
    }

    fn at(self, span: Span) -> Problem {
        Problem::new(span, self.title, self.label, self.repair)
    }
}

/// The keys of a table, each with the keys of the table that it holds, if it does.
pub(crate) type Inside = &'static [(&'static str, &'static [&'static str])];

pub(crate) struct Reader<'a> {
    source: &'a Source,
    environment: Environment<'a>,
    problems: Vec<Problem>,
    variables: Variables,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source, environment: Environment<'a>) -> Self {
        Self { source, environment, problems: Vec::new(), variables: Variables::default() }
    }

    pub(super) fn finish(self) -> (Vec<Problem>, Variables) {
        (self.problems, self.variables)
    }

    pub(crate) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The value of a key. One that is in `mistyped` was meant to be there.
    pub(crate) fn key<T: Value>(&mut self, table: &DeTable<'_>, key: &str, mistyped: &[&str]) -> Given<T> {
        match table.get(key) {
            Some(found) => self.value(found),
            None if mistyped.contains(&key) => Given::Wrong,
            None => Given::Absent,
        }
    }

    pub(crate) fn value<T: Value>(&mut self, found: &Spanned<DeValue<'_>>) -> Given<T> {
        match T::read(found, self) {
            Some(value) => Given::Value(found.span(), value),
            None => Given::Wrong,
        }
    }

    /// A text that needs no variables put in, such as an argument (the shell has done that).
    pub(crate) fn text<T: Text>(&mut self, span: Span, text: &str) -> Given<T> {
        match T::parse(text) {
            Ok(value) => Given::Value(span, value),
            Err(fault) => {
                self.report(fault.at(span));
                Given::Wrong
            }
        }
    }

    /// Reports every unknown key of a table. Returns the known keys that were probably meant.
    pub(crate) fn refuse_unknown(&mut self, table: &DeTable<'_>, inside: Inside) -> Vec<&'static str> {
        let known = inside.iter().map(|(key, _)| *key);
        let mut meant = Vec::new();
        for (key, text) in table.keys().map(|key| (key, key.get_ref().as_ref())) {
            if known.clone().any(|known| known == text) {
                continue;
            }
            let title = format!("the key {} is unknown", quote(text));
            let repair = match inside.iter().find(|(_, keys)| keys.contains(&text)) {
                Some((table, _)) => format!("it belongs into the table `{table}`"),
                None => suggest(text, known.clone()),
            };
            self.report(Problem::new(key.span(), title, "unknown here", repair));
            meant.extend(nearest(text, known.clone()));
        }
        meant
    }

    fn wrong_type(&mut self, found: &Spanned<DeValue<'_>>, wanted: &str, repair: String) {
        let title = format!("{wanted} is wanted here, this is {}", article(found.get_ref().type_str()));
        self.report(Problem::new(found.span(), title, format!("not {wanted}"), repair));
    }

    fn typed(&self, found: &Spanned<DeValue<'_>>) -> Option<&'a str> {
        let single = !found.get_ref().is_table() && !found.get_ref().is_array();
        single.then(|| self.source.slice(&found.span()))
    }

    fn string(&mut self, found: &Spanned<DeValue<'_>>, text: &str) -> Option<String> {
        let span = found.span();
        let typed = Typed { text, raw: self.source.slice(&span), span: span.clone() };
        match interpolate(&typed, self.environment, &mut self.variables) {
            Ok(text) => Some(text),
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// Declares a table of the file: the struct, its JSON schema, and how it is read, from one list of keys.
///
/// Each key becomes a [`Given`]; `at` is where the table begins, for problems about what it lacks. Keys that stand for
/// themselves are declared behind `runs as`, with their defaults: what runs follows from the same line (`settings!`).
macro_rules! section {
    ($(#[$about:meta])* struct $name:ident runs as $(#[$extra:meta])* $values:ident {
        $( $(#[$doc:meta])* $key:ident: $kind:ty $(= $default:tt)?, )*
    }) => {
        $crate::config::read::section! { $(#[$about])* struct $name {} runs as $(#[$extra])* $values {
            $( $(#[$doc])* $key: $kind $(= $default)?, )*
        } }
    };
    ($(#[$about:meta])* struct $name:ident { $( $(#[$other_doc:meta])* $other:ident: $other_kind:ty, )* } runs as $(#[$extra:meta])* $values:ident {
        $( $(#[$doc:meta])* $key:ident: $kind:ty $(= $default:tt)?, )*
    }) => {
        $crate::config::read::section! { $(#[$about])* struct $name {
            $( $(#[$other_doc])* $other: $other_kind, )*
            $( $(#[$doc])* $( #[doc = concat!("Default: ", stringify!($default), ".")] )? $key: $kind, )*
        } }
        $crate::config::read::settings! { $name, $(#[$extra])* $values {
            $( $(#[$doc])* $( #[doc = concat!("Default: ", stringify!($default), ".")] )? $key: $kind $(= $default)?, )*
        } }
    };
    ($(#[$about:meta])* struct $name:ident { $( $(#[$doc:meta])* $key:ident: $kind:ty, )* }) => {
        #[derive(Clone, Debug, Default, schemars::JsonSchema)]
        #[schemars(default, deny_unknown_fields)]
        $(#[$about])*
        pub(crate) struct $name {
            /// Where the table begins.
            #[schemars(skip)]
            #[allow(dead_code, reason = "not every table has a rule about what it lacks")]
            pub(crate) at: $crate::config::source::Span,
            $( $(#[$doc])* pub(crate) $key: $crate::config::read::Given<$kind>, )*
        }

        impl $name {
            /// Every key, and the keys of the table that it holds, if it does.
            const INSIDE: $crate::config::read::Inside =
                &[$( (stringify!($key), <$kind as $crate::config::read::Value>::KEYS) ),*];

            /// Reads all keys of a table, whatever is wrong with some.
            pub(crate) fn read_table(
                table: &toml::de::DeTable<'_>,
                at: $crate::config::source::Span,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Self {
                let mistyped = reader.refuse_unknown(table, Self::INSIDE);
                Self { at, $( $key: reader.key(table, stringify!($key), &mistyped), )* }
            }
        }

        impl $crate::config::read::Value for $name {
            const WANTED: &'static str = "a table";
            const EXAMPLE: &'static str = "a table, such as `[section]` with a line for each key";
            const KEYS: &'static [&'static str] = &[$( stringify!($key) ),*];

            fn find(
                found: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Option<Self>> {
                let table = found.get_ref().as_table()?;
                Some(Some(Self::read_table(table, found.span(), reader)))
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }
        }
    };
}
pub(crate) use section;
