//! Values of keys: strings of many formats, numbers, lists, named tables.

use rustix::thread::CpuSet;
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::problems::{Problem, quote};
use crate::config::read::{Fault, Given, Reader};
use crate::config::source::Span;
use crate::config::terms::Name;

pub(crate) trait Value: Sized {
    /// The type's name in messages, with its article.
    const WANTED: &'static str;
    const EXAMPLE: &'static str;

    const KEYS: &'static [&'static str] = &[];

    /// Outer `None`: the value has another TOML type; inner `None`: the problem is already reported.
    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>>;

    /// The repair for a value of another type; `typed` is its text if it is a single value.
    fn repair(_typed: Option<&str>) -> String {
        format!("write {}", Self::EXAMPLE)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema;

    fn read(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        Self::find(found, reader).unwrap_or_else(|| {
            let repair = Self::repair(reader.typed(found));
            reader.wrong_type(found, Self::WANTED, repair);
            None
        })
    }
}

pub(crate) trait Text: Sized {
    /// Values as they may be typed; the first serves as example.
    const EXAMPLES: &'static [&'static str];
    /// There are no other values than the examples.
    const CLOSED: bool = false;

    fn parse(text: &str) -> Result<Self, Fault>;
}

impl<T: Text> Value for T {
    const WANTED: &'static str = "a string";
    const EXAMPLE: &'static str = "a string in double quotes";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let Some(text) = reader.string(found, found.get_ref().as_str()?) else { return Some(None) };
        Some(match reader.text(found.span(), &text) {
            Given::Value(_, value) => Some(value),
            _ => None,
        })
    }

    /// The repair for a value that is right but for its missing quotes.
    fn repair(typed: Option<&str>) -> String {
        match typed.map(|typed| (typed, T::parse(typed))) {
            Some((typed, Ok(_))) => format!("put it into double quotes: \"{typed}\""),
            Some((_, Err(fault))) => fault.repair,
            None => format!("write a string in double quotes, such as \"{}\"", T::EXAMPLES[0]),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        match T::CLOSED {
            true => json_schema!({ "type": "string", "enum": T::EXAMPLES }),
            false => json_schema!({ "type": "string", "examples": T::EXAMPLES }),
        }
    }
}

impl Value for bool {
    const WANTED: &'static str = "true or false";
    const EXAMPLE: &'static str = "`true` or `false`, without quotes";

    fn find(found: &Spanned<DeValue<'_>>, _: &mut Reader<'_>) -> Option<Option<Self>> {
        found.get_ref().as_bool().map(Some)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Self>()
    }
}

/// A number of things: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) usize);

/// The most that can be asked for: more than a process can have descriptors or threads.
const MOST: usize = u32::MAX as usize;

impl Value for Count {
    const WANTED: &'static str = "a whole number";
    const EXAMPLE: &'static str = "a whole number without quotes, such as `100`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        whole(1, found, reader).map(|number| number.map(Self))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": MOST })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processor(pub(crate) usize);

impl Value for Processor {
    const WANTED: &'static str = "a whole number";
    const EXAMPLE: &'static str = "the number of a processor without quotes, such as `0`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let integer = found.get_ref().as_integer()?;
        let number = usize::from_str_radix(integer.as_str(), integer.radix()).ok();
        let processor = number.filter(|number| *number < CpuSet::MAX_CPU).map(Self);
        if processor.is_none() {
            let title = format!("{} is the number of no processor", quote(&integer.to_string()));
            let repair = "write numbers from the line `processor` of /proc/cpuinfo; the first is 0";
            reader.report(Problem::new(found.span(), title, "out of range", repair));
        }
        Some(processor)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": CpuSet::MAX_CPU - 1 })
    }
}

/// A part of a whole: from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fraction(pub(crate) f64);

impl Value for Fraction {
    const WANTED: &'static str = "a number from 0 to 1";
    const EXAMPLE: &'static str = "a number from 0 to 1 without quotes, such as `0.5`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let value = found.get_ref();
        let typed = value.as_float().map(|float| float.as_str()).or_else(|| value.as_integer().map(|i| i.as_str()))?;
        let number = typed.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            let title = format!("{} is out of range", quote(typed));
            reader.report(Problem::new(
                found.span(),
                title,
                "out of range",
                "write a number from 0 to 1, such as `0.5`",
            ));
        }
        Some(number.map(Self))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

/// A number of things that may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) usize);

impl Value for Amount {
    const WANTED: &'static str = Count::WANTED;
    const EXAMPLE: &'static str = "a whole number without quotes, such as `8`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        whole(0, found, reader).map(|number| number.map(Self))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": MOST })
    }
}

/// A whole number from `least` on.
fn whole(least: usize, found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<usize>> {
    let integer = found.get_ref().as_integer()?;
    let number = usize::from_str_radix(integer.as_str(), integer.radix()).ok();
    let number = number.filter(|number| (least..=MOST).contains(number));
    if number.is_none() {
        let title = format!("{} is out of range", quote(&integer.to_string()));
        let repair = format!("write a number from {least} to {MOST}, or leave the key out for the default");
        reader.report(Problem::new(found.span(), title, "out of range", repair));
    }
    Some(number)
}

/// Longest text that a repair repeats: longer ones are hard to read.
const LONGEST_REPEATED: usize = 60;

impl<T: Value> Value for Vec<Given<T>> {
    const WANTED: &'static str = "a list";
    const EXAMPLE: &'static str = "a list in square brackets; of tables, a header `[[...]]` for each";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let array = found.get_ref().as_array()?;
        Some(Some(array.iter().map(|item| reader.value(item)).collect()))
    }

    fn repair(typed: Option<&str>) -> String {
        match typed.filter(|typed| typed.len() <= LONGEST_REPEATED && !typed.contains('\n')) {
            Some(typed) => format!("put it into square brackets: `[{typed}]`"),
            None => format!("write {}", Self::EXAMPLE),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": T::schema(generator) })
    }
}

/// One table, or a list of tables of its kind.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<Given<T>>);

impl<T: Value> Value for OneOrMany<T> {
    const WANTED: &'static str = "a table or a list of tables";
    const EXAMPLE: &'static str = "a header `[...]` for one table, or `[[...]]` for each of several";
    const KEYS: &'static [&'static str] = T::KEYS;

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        if let Some(many) = Vec::find(found, reader) {
            return Some(many.map(Self));
        }
        found.get_ref().as_table()?;
        Some(Some(Self(vec![reader.value(found)])))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let one = T::schema(generator);
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// Tables under names of the user's choice: `[identities.NAME]`.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(Key, Given<T>)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: Name,
    pub(crate) at: Span,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Named<T> {
    /// The table of a name. A file may have ten thousand, each referred to: it is found by halving.
    pub(crate) fn get(&self, name: &Name) -> Option<&(Key, Given<T>)> {
        let at = self.0.binary_search_by(|(key, _)| key.name.cmp(name)).ok()?;
        self.0.get(at)
    }
}

impl<T: Value> Value for Named<T> {
    const WANTED: &'static str = "a table of named tables";
    const EXAMPLE: &'static str = "a header with a name for each, such as `[upstreams.certauth]`";

    fn find(found: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let table = found.get_ref().as_table()?;
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            // A bad name is reported here; its table is kept, so that its content is checked as well.
            let _ = reader.text::<Name>(key.span(), key.get_ref());
            let key = Key { name: Name::new(&**key.get_ref()), at: key.span() };
            entries.push((key, reader.value(value)));
        }
        // The parser keeps tables in this order too; `get` relies on it.
        entries.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        Some(Some(Self(entries)))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9][a-z0-9_.-]{0,62}$" },
            "additionalProperties": T::schema(generator),
        })
    }
}
