//! Words of a fixed set, names, paths and free text.

use std::path::{Path, PathBuf};

use crate::config::nearest::{nearest, suggest};
use crate::config::problems::quote;
use crate::config::read::{Fault, Text, setting};
use crate::config::terms::{
    AdminRole, CheckKind, Eof, Hardening, KernelTls, KeyExchange, KeyShare, LogFormat, Name, Readiness, Strategy,
    TlsVersion,
};
use crate::config::values::Verify;
use crate::protocols::answers::AnswerFormat;
use crate::protocols::{self, Upgrade};

/// A type whose values are a few words: read, listed and written from one table.
macro_rules! words {
    ($kind:ty { $($word:literal => $value:path,)* }) => {
        impl $kind {
            /// The word of the configuration.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $($value => $word,)*
                }
            }
        }

        setting!($kind => Self, |typed| *typed, |value| value.word());

        impl Text for $kind {
            const EXAMPLES: &'static [&'static str] = &[$($word),*];
            const CLOSED: bool = true;

            fn parse(text: &str) -> Result<Self, Fault> {
                match text {
                    $($word => Ok($value),)*
                    _ => Err(unknown_word(text, Self::EXAMPLES)),
                }
            }
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyWord {
    Full,
    Chain,
    Report,
    None,
}

words!(LogFormat { "text" => Self::Text, "json" => Self::Json, });
words!(Strategy {
    "least_connections" => Self::LeastConnections,
    "round_robin" => Self::RoundRobin,
    "priority" => Self::Priority,
});
words!(AdminRole { "read" => Self::Read, "control" => Self::Control, });
words!(Readiness { "listeners" => Self::Listeners, "upstreams" => Self::Upstreams, });
words!(CheckKind { "tls" => Self::Tls, "tcp" => Self::Tcp, });
words!(Eof { "strict" => Self::Strict, "lenient" => Self::Lenient, });
words!(Hardening { "on" => Self::On, "off" => Self::Off, });
words!(KernelTls { "off" => Self::Off, "auto" => Self::Auto, "prefer" => Self::Prefer, });

impl Text for Upgrade {
    const EXAMPLES: &'static [&'static str] = protocols::WORDS;
    const CLOSED: bool = true;

    fn parse(text: &str) -> Result<Self, Fault> {
        Self::of(text).ok_or_else(|| unknown_word(text, Self::EXAMPLES))
    }
}

/// A protocol in which clients are answered, or "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerWord(pub(crate) Option<AnswerFormat>);

impl Text for AnswerWord {
    const EXAMPLES: &'static [&'static str] = &{
        let mut words = ["none"; AnswerFormat::WORDS.len() + 1];
        let mut at = 0;
        while at < AnswerFormat::WORDS.len() {
            words[at] = AnswerFormat::WORDS[at];
            at += 1;
        }
        words
    };
    const CLOSED: bool = true;

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "none" => Ok(Self(None)),
            _ => AnswerFormat::of(text)
                .map(|format| Self(Some(format)))
                .ok_or_else(|| unknown_word(text, Self::EXAMPLES)),
        }
    }
}

words!(VerifyWord {
    "full" => Self::Full,
    "chain" => Self::Chain,
    "report" => Self::Report,
    "none" => Self::None,
});
impl Verify {
    /// The word of the configuration, and the reason that all but `full` need.
    pub(crate) fn parts(&self) -> (&'static str, Option<&str>) {
        let (word, reason) = match self {
            Self::Full => return (VerifyWord::Full.word(), None),
            Self::Chain { reason } => (VerifyWord::Chain, reason),
            Self::Report { reason } => (VerifyWord::Report, reason),
            Self::None { reason } => (VerifyWord::None, reason),
        };
        (word.word(), Some(reason))
    }
}

words!(KeyExchange {
    "x25519mlkem768" => Self::X25519Mlkem768,
    "x25519" => Self::X25519,
    "secp256r1" => Self::Secp256r1,
    "secp384r1" => Self::Secp384r1,
});

words!(KeyShare {
    "auto" => Self::Auto,
    "hybrid" => Self::Hybrid,
    "classic" => Self::Classic,
});

fn unknown_word(text: &str, known: &[&'static str]) -> Fault {
    let words = known.iter().copied().map(quote).collect::<Vec<_>>();
    let expected = if let [word] = &words[..] { word.clone() } else { format!("one of {}", words.join(", ")) };
    let repair = nearest(text, known.iter().copied())
        .map_or_else(|| format!("write {expected}"), |word| format!("did you mean {}?", quote(word)));
    Fault::new(format!("unknown value {}; expected {expected}", quote(text)), "unknown", repair)
}

impl TlsVersion {
    /// The word of the configuration.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

setting!(TlsVersion => Self, |typed| *typed, |version| version.word());

impl Text for TlsVersion {
    const EXAMPLES: &'static [&'static str] = &["1.2", "1.3"];
    const CLOSED: bool = true;

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "1.2" => Ok(Self::V1_2),
            "1.3" => Ok(Self::V1_3),
            _ => Err(Fault::new(
                format!("{} is no version of TLS that egret speaks", quote(text)),
                "not spoken",
                "write \"1.2\" or \"1.3\" (older versions are broken: RFC 8996)",
            )),
        }
    }
}

/// The longest name; what DNS and metric stores take as one label.
const NAME_LENGTH: usize = 63;

impl Text for Name {
    const EXAMPLES: &'static [&'static str] = &["certauth"];

    fn parse(text: &str) -> Result<Self, Fault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let fits = text.bytes().all(|byte| plain(byte) || b"_.-".contains(&byte));
        if text.len() <= NAME_LENGTH && text.bytes().next().is_some_and(plain) && fits {
            return Ok(Self::new(text));
        }
        let title = format!("{} cannot be a name", quote(text));
        let rule = "names are letters of ASCII, digits, `_`, `.`, `-`, begin with a letter or digit, and have at most 63 \
                    characters";
        let without = text.split_whitespace().collect::<String>();
        let repair = match without != text && Self::parse(&without).is_ok() {
            true => format!("write {} without blanks ({rule})", quote(&without)),
            false => rule.to_owned(),
        };
        Err(Fault::new(title, "not a name", repair))
    }
}

/// The name of another table. Its characters are checked where that table is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference(pub(crate) Name);

impl Text for Reference {
    const EXAMPLES: &'static [&'static str] = Name::EXAMPLES;

    fn parse(text: &str) -> Result<Self, Fault> {
        Ok(Self(Name::new(text)))
    }
}

/// A path as it is typed; relative to the folder of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location(PathBuf);

impl Location {
    pub(crate) fn within(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }
}

impl Text for Location {
    const EXAMPLES: &'static [&'static str] = &["certs/ca.pem"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() || text.contains('\0') {
            let repair = "write a path; a relative one starts at the folder of this file";
            return Err(Fault::new(format!("{} is no path", quote(text)), "no path", repair));
        }
        Ok(Self(text.into()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) String);

impl Text for Reason {
    const EXAMPLES: &'static [&'static str] = &["the vendor's test server, until its certificate is renewed"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.trim().is_empty() {
            let repair = "say in a few words why it is allowed: it stands in the log at every start";
            return Err(Fault::new("the reason is empty", "no reason", repair));
        }
        Ok(Self(text.to_owned()))
    }
}

/// One protocol of the ALPN extension (RFC 7301).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alpn(pub(crate) Vec<u8>);

impl Text for Alpn {
    const EXAMPLES: &'static [&'static str] = &["h2", "http/1.1", "postgresql"];

    fn parse(text: &str) -> Result<Self, Fault> {
        if !(1..=255).contains(&text.len()) {
            let title = format!("{} is no protocol name", quote(text));
            return Err(Fault::new(title, "1 to 255 bytes", "write a registered name, such as \"h2\""));
        }
        Ok(Self(text.into()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Congestion(pub(crate) String);

/// `TCP_CA_NAME_MAX` without its closing zero (include/net/tcp.h of Linux).
const CONGESTION_LENGTH: usize = 15;

impl Text for Congestion {
    const EXAMPLES: &'static [&'static str] = &["cubic", "bbr", "reno"];

    fn parse(text: &str) -> Result<Self, Fault> {
        let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        if fits && (1..=CONGESTION_LENGTH).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        let title = format!("{} is no name of a congestion control", quote(text));
        let repair = "write one of those that `sysctl net.ipv4.tcp_available_congestion_control` lists";
        Err(Fault::new(title, "no such name", repair))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(pub(crate) String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Text for LogLevel {
    const EXAMPLES: &'static [&'static str] = &["info", "debug", "info,egret::relay=trace"];

    fn parse(text: &str) -> Result<Self, Fault> {
        // Alone, an unknown word would be taken for a module and switch everything of it on.
        let words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
        for word in words {
            if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
                let title = format!("{} is no level of the log", quote(word));
                return Err(Fault::new(title, "not a level", suggest(word, LEVELS)));
            }
        }
        tracing_subscriber::EnvFilter::try_new(text).map_err(|error| {
            let repair = "write a level, or a level and exceptions: \"info,egret::relay=trace\"";
            Fault::new(format!("{} is no filter of the log", quote(text)), error.to_string(), repair)
        })?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_alone_is_no_level() {
        assert!(LogLevel::parse("verbose").is_err());
        assert!(LogLevel::parse("info,egret=nonsense").is_err());
        assert!(LogLevel::parse("INFO,egret::relay=trace").is_ok());
    }

    #[test]
    fn names_have_a_small_alphabet() {
        assert!(["a", "0.a_b-c", &"a".repeat(63)].iter().all(|name| Name::parse(name).is_ok()));
        assert!(["", "-a", "_A", "a b", " a", "ä", &"a".repeat(64)].iter().all(|name| Name::parse(name).is_err()));
    }
}
