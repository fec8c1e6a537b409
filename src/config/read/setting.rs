//! Keys that stand for themselves: what runs is what was typed, or the declared default.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value as Json, json};
use toml::de::DeTable;

use super::{Amount, Count, Fraction, Given, Processor, Reader, Value};
use crate::config::formats::{Alpn, Bytes, Congestion, DnsServer, Limit, LogLevel};
use crate::config::source::Source;

/// A type of keys that need no other key to have a meaning.
pub(crate) trait Setting: Value {
    /// The type that runs.
    type Plain: Clone;

    fn plain(&self) -> Self::Plain;

    /// As the document of a configuration has it.
    fn show(plain: &Self::Plain) -> Json;
}

/// A default as it is declared: a value of TOML.
pub(crate) fn declared<T: Setting>(text: &str) -> T::Plain {
    let source = Source::new("default", text);
    let written = format!("default = {text}");
    let table = DeTable::parse(&written).expect("a declared default is TOML: a test reads each");
    let mut reader = Reader::new(&source, &|_| None);
    let value = table.get_ref().get("default").and_then(|found| T::read(found, &mut reader));
    value.expect("a declared default is of its key's type: a test reads each").plain()
}

/// Implements [`Setting`] for types that wrap what runs, or are it.
macro_rules! setting {
    ($kind:ty => $plain:ty, |$typed:ident| $run:expr, |$shown:ident| $show:expr) => {
        impl $crate::config::read::Setting for $kind {
            type Plain = $plain;

            fn plain(&self) -> $plain {
                let $typed = self;
                $run
            }

            fn show($shown: &$plain) -> serde_json::Value {
                $show.into()
            }
        }
    };
}
pub(crate) use setting;

setting!(bool => Self, |typed| *typed, |on| *on);
setting!(Duration => Self, |typed| *typed, |duration| duration.as_secs_f64());
setting!(Limit => Option<Duration>, |typed| typed.0, |limit| limit.map(|limit| limit.as_secs_f64()));
setting!(Count => usize, |typed| typed.0, |count| *count);
setting!(Amount => usize, |typed| typed.0, |amount| *amount);
setting!(Processor => usize, |typed| typed.0, |number| *number);
setting!(Fraction => f64, |typed| typed.0, |part| *part);
setting!(Bytes => u64, |typed| typed.0, |bytes| *bytes);
setting!(LogLevel => String, |typed| typed.0.clone(), |level| level.clone());
setting!(Congestion => String, |typed| typed.0.clone(), |name| name.clone());
setting!(DnsServer => SocketAddr, |typed| typed.0, |address| json!(address));
setting!(Alpn => Vec<u8>, |typed| typed.0.clone(), |protocol| String::from_utf8_lossy(protocol).into_owned());

impl<T: Setting> Setting for Vec<Given<T>> {
    type Plain = Vec<T::Plain>;

    fn plain(&self) -> Vec<T::Plain> {
        self.iter().filter_map(Given::value).map(T::plain).collect()
    }

    fn show(plain: &Vec<T::Plain>) -> Json {
        plain.iter().map(T::show).collect()
    }
}

/// Declares what runs of a section's keys that stand for themselves: its type, its defaults, and how it is shown. A key
/// without a default may be absent.
macro_rules! settings {
    ($section:ident, $(#[$extra:meta])* $name:ident {
        $( $(#[$doc:meta])* $key:ident: $kind:ty $(= $default:tt)?, )*
    }) => {
        #[doc = concat!("The keys of a `", stringify!($section), "` that stand for themselves, as they run.")]
        #[allow(private_interfaces, reason = "the types that the projections stand for are public")]
        #[derive(Clone, Debug, PartialEq)]
        $(#[$extra])*
        pub struct $name {
            $( $(#[$doc])* pub $key: $crate::config::read::plain!($kind $(, $default)?), )*
        }

        impl $section {
            /// The keys that stand for themselves, each as typed or its default.
            pub(crate) fn settings(&self) -> $name {
                $name { $( $key: $crate::config::read::plain_of!(self.$key, $kind $(, $default)?), )* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $section::default().settings()
            }
        }

        impl $name {
            /// Every key as the document of a configuration has it.
            pub(crate) fn document(&self) -> serde_json::Map<String, serde_json::Value> {
                let entries = [
                    $( (stringify!($key), $crate::config::read::shown!(self.$key, $kind $(, $default)?)), )*
                ];
                entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }
        }
    };
}
pub(crate) use settings;

macro_rules! plain {
    ($kind:ty) => { Option<<$kind as $crate::config::read::Setting>::Plain> };
    ($kind:ty, $default:tt) => { <$kind as $crate::config::read::Setting>::Plain };
}
pub(crate) use plain;

macro_rules! plain_of {
    ($given:expr, $kind:ty) => {
        $given.value().map(<$kind as $crate::config::read::Setting>::plain)
    };
    // Read once: a configuration may have ten thousand tables.
    ($given:expr, $kind:ty, $default:tt) => {{
        static DEFAULT: std::sync::LazyLock<<$kind as $crate::config::read::Setting>::Plain> =
            std::sync::LazyLock::new(|| $crate::config::read::declared::<$kind>(stringify!($default)));
        $given.value().map_or_else(|| DEFAULT.clone(), <$kind as $crate::config::read::Setting>::plain)
    }};
}
pub(crate) use plain_of;

macro_rules! shown {
    ($plain:expr, $kind:ty) => {
        $plain.as_ref().map_or(serde_json::Value::Null, <$kind as $crate::config::read::Setting>::show)
    };
    ($plain:expr, $kind:ty, $default:tt) => {
        <$kind as $crate::config::read::Setting>::show(&$plain)
    };
}
pub(crate) use shown;
