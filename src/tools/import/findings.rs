//! The kinds of findings of an import, each with its weight, and findings with their places.

use crate::config::Span;

/// A kind of finding; its word stays the same from version to version and has a row in `docs/import.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The word.
    pub word: &'static str,
    /// How much it asks of a person.
    pub weight: Weight,
}

/// How much a finding asks of a person. In the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// A function or a protection of the other program is lost; `--strict` fails.
    Error,
    /// egret does something else, or the other program does something unsafe, and a person has to say what is right.
    Decision,
    /// Good to know; egret does the right thing by itself.
    Note,
}

impl Weight {
    /// The most severe first.
    pub(crate) const ALL: [Self; 3] = [Self::Error, Self::Decision, Self::Note];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Decision => "decision",
            Self::Note => "note",
        }
    }
}

macro_rules! codes {
    ($($name:ident $weight:ident $word:literal,)*) => {
        $(
            #[doc = concat!("`", $word, "`; what it means stands in `docs/import.md`.")]
            pub(crate) const $name: Code = Code { word: $word, weight: Weight::$weight };
        )*
        /// All kinds there are.
        pub const CODES: &[Code] = &[$($name),*];
    };
}

codes! {
    IDENTITY_LOST Error "identity-lost",
    TRUST_LOST Error "trust-lost",
    NAME_LOST Error "name-lost",
    REVOCATION_LOST Error "revocation-lost",
    ACCESS_LOST Error "access-lost",
    LIMIT_LOST Error "limit-lost",
    SERVICE_LOST Error "service-lost",
    UNKNOWN_DIRECTIVE Error "unknown-directive",
    FORWARDS_ANYWHERE Error "forwards-anywhere",
    INBOUND_TLS Error "inbound-tls",
    HTTP_HOST Error "http-host",
    HTTP_PATH Error "http-path",
    HTTP_VHOST Error "http-vhost",
    PLAINTEXT Error "plaintext",
    PROXY_HEADER Error "proxy-header",
    SOURCE_ADDRESS Error "source-address",
    PER_CLIENT_LIMIT Error "per-client-limit",
    BALANCING Error "balancing",
    VARIABLE Error "variable",
    DATAGRAMS Error "datagrams",
    SOCKET_UPSTREAM Error "socket-upstream",
    INCLUDE_MISSING Error "include-missing",
    SERVER_SIDE Error "server-side",
    PROTOCOL Error "protocol",
    VERIFY_ABSENT Decision "verify-absent",
    VERIFY_OFF Decision "verify-off",
    VERIFY_ANY_NAME Decision "verify-any-name",
    VERIFY_WITHOUT_TRUST Decision "verify-without-trust",
    TRUST_IS_THE_SERVER Decision "trust-is-the-server",
    NAME_OF_BLOCK Decision "name-of-block",
    NO_NAME Decision "no-name",
    KEY_MISSING Decision "key-missing",
    LOOSE_PERMISSIONS Decision "loose-permissions",
    OPEN_TO_ALL Decision "open-to-all",
    SOCKET_MODE Decision "socket-mode",
    EOF_STRICT Decision "eof-strict",
    PLAINTEXT_TO_TLS Decision "plaintext-to-tls",
    TLS_SETTINGS_WITHOUT_TLS Decision "tls-settings-without-tls",
    PASSED_THROUGH Decision "passed-through",
    FRAGMENT Decision "fragment",
    DIFFERENCE Decision "difference",
    HALF_CLOSE Note "half-close",
    SNI_OFF Note "sni-off",
    SESSIONS_SHARED Note "sessions-shared",
    SESSIONS_OFF Note "sessions-off",
    DEPTH_ONE Note "depth-one",
    RESOLVED_ONCE Note "resolved-once",
    WEAK_PROTOCOL Note "weak-protocol",
    WEAK_CIPHERS Note "weak-ciphers",
    KEY_LOG Note "key-log",
}

/// A place in one of the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRange {
    /// The number of the file.
    pub file: usize,
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

impl SourceRange {
    pub(crate) fn new(file: usize, span: &Span) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// Where.
    pub place: SourceRange,
    /// What is so, in one sentence without a full stop.
    pub(crate) title: String,
    /// For the underlined text.
    pub(crate) label: String,
    /// What egret does in its place, or what to do.
    pub repair: String,
}
