//! What is asked above TLS, and what the answer shows of the client certificate: pure functions of bytes.
//!
//! In TLS 1.3 a handshake is over for the client before the server has judged the client certificate, and many servers
//! judge only in the protocol above: nginx answers HTTP 400, PostgreSQL an error.

use crate::credentials::certificate::clean;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `GET` of a path, HTTP/1.1.
    Http(HttpPath),
    /// PostgreSQL's StartupMessage for a user. It authenticates nobody: the connection ends after the first answer.
    Postgres(PostgresUser),
}

/// Path of a request, with its query (RFC 9112 section 3.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpPath(String);

/// Also the name of the database, as with psql.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresUser(String);

/// Longest path: servers take request lines of 8 KiB.
const LONGEST_PATH: usize = 4 << 10;

/// Longest name in PostgreSQL (NAMEDATALEN - 1).
const LONGEST_USER: usize = 63;

/// Bytes of an answer that are read: nginx's own pages have 300, headers some KiB.
pub(crate) const LONGEST_ANSWER: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status line or error message.
    pub(crate) text: String,
    pub(crate) meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The server reports no client certificate, or no usable one.
    NoCertificate,
    CertificateRefused,
    /// Refused for a reason that the answer does not name.
    Denied,
    Served,
    /// An answer of this protocol that says nothing about access.
    Other,
    Unknown,
}

impl HttpPath {
    /// # Errors
    /// In words: it does not begin with `/`, is too long, or holds what would end the request line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("a path begins with `/`".into());
        }
        if text.len() > LONGEST_PATH || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "a path has at most {LONGEST_PATH} visible ASCII characters; write others as %XX (RFC 3986)"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl PostgresUser {
    /// # Errors
    /// In words: it is empty, too long, or holds a NUL.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.len() {
            1..=LONGEST_USER if !text.contains('\0') => Ok(Self(text.to_owned())),
            _ => Err(format!("a user of PostgreSQL has 1 to {LONGEST_USER} bytes, and no NUL")),
        }
    }
}

impl Question {
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Postgres(_) => "postgres",
        }
    }

    pub(crate) fn title(&self) -> String {
        match self {
            Self::Http(HttpPath(path)) => format!("GET {path} HTTP/1.1"),
            Self::Postgres(PostgresUser(user)) => format!("StartupMessage of user \"{}\"", clean(user)),
        }
    }

    /// For the server at `authority` (host, and the port if it is not 443).
    pub(crate) fn bytes(&self, authority: &str) -> Vec<u8> {
        match self {
            Self::Http(HttpPath(path)) => format!(
                "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: egret-explain/{}\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n",
                env!("CARGO_PKG_VERSION")
            )
            .into_bytes(),
            Self::Postgres(PostgresUser(user)) => startup_message(user),
        }
    }

    /// The answer is whole, or not of this protocol.
    pub(crate) fn is_whole(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Http(_) if bytes.iter().zip(b"HTTP/").any(|(byte, expected)| byte != expected) => true,
            // A connection that is kept open although it was not asked for: the length says where the page ends.
            Self::Http(_) => http_length(bytes).is_some_and(|length| bytes.len() >= length),
            Self::Postgres(_) if bytes.first().is_some_and(|kind| !b"REv".contains(kind)) => true,
            Self::Postgres(_) => postgres_message(bytes).is_some(),
        }
    }

    /// `None` if there are no bytes.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        if bytes.is_empty() {
            return None;
        }
        let known = match self {
            Self::Http(_) => http(bytes),
            Self::Postgres(_) => postgres(bytes),
        };
        Some(known.unwrap_or_else(|| Answer { text: first_line(bytes), meaning: Meaning::Unknown }))
    }
}

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    clean(String::from_utf8_lossy(line).trim_end())
}

/// The end of the message, where Content-Length says it (RFC 9112 section 6.3).
fn http_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let headers = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
    length.checked_add(head + 4)
}

/// Internal codes of nginx, and of what is made from it; it sends them as 400, with a page that says this.
const NGINX: [(u16, &str, Meaning); 2] = [
    (496, "No required SSL certificate was sent", Meaning::NoCertificate),
    (495, "The SSL certificate error", Meaning::CertificateRefused),
];

fn http(bytes: &[u8]) -> Option<Answer> {
    let text = first_line(bytes);
    let status: u16 = text.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let page = String::from_utf8_lossy(bytes);
    let said = NGINX.iter().find(|(_, sentence, _)| page.contains(sentence));
    let meaning = match (status, said) {
        (400, Some((_, sentence, meaning))) => {
            return Some(Answer { text: format!("{text}: {sentence}"), meaning: *meaning });
        }
        (401 | 403, _) => Meaning::Denied,
        (200..400, _) => Meaning::Served,
        _ => NGINX.iter().find(|(code, ..)| *code == status).map_or(Meaning::Other, |(.., meaning)| *meaning),
    };
    Some(Answer { text, meaning })
}

/// Protocol 3.0, as every server since PostgreSQL 7.4 knows it: length, version, pairs of strings, end.
fn startup_message(user: &str) -> Vec<u8> {
    let body = [b"\0\x03\0\0user\0".as_slice(), user.as_bytes(), b"\0\0"].concat();
    let length = u32::try_from(body.len() + 4).expect("a user has at most 63 bytes");
    [length.to_be_bytes().as_slice(), &body].concat()
}

/// Type and body of the first message, once it is whole.
fn postgres_message(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    Some((*kind, rest.get(4..usize::try_from(length).ok()?)?))
}

fn postgres(bytes: &[u8]) -> Option<Answer> {
    let (kind, body) = postgres_message(bytes)?;
    match kind {
        b'R' => {
            let method = u32::from_be_bytes(body.get(..4)?.try_into().ok()?);
            let text = match method {
                0 => "AuthenticationOk: the user is let in without a password".to_owned(),
                3 | 5 | 10 => "the server asks for the user's password".to_owned(),
                other => format!("the server asks for authentication of kind {other}"),
            };
            Some(Answer { text, meaning: Meaning::Served })
        }
        b'E' => Some(postgres_error(body)),
        // NegotiateProtocolVersion: the server goes on.
        b'v' => {
            Some(Answer { text: "the server negotiates the version of the protocol".into(), meaning: Meaning::Other })
        }
        _ => None,
    }
}

/// ErrorResponse: fields of a letter and a string. Messages are in the server's language; only English ones are known.
fn postgres_error(body: &[u8]) -> Answer {
    let fields = || body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
    let field = |letter| fields().find(|(first, _)| **first == letter).map(|(_, text)| String::from_utf8_lossy(text));
    let code = field(b'C').unwrap_or_default();
    let message = field(b'M').unwrap_or_default();
    let meaning = match &*code {
        "28000" if message.contains("requires a valid client certificate") => Meaning::NoCertificate,
        "28000" if message.contains("certificate authentication failed") => Meaning::CertificateRefused,
        "28000" | "28P01" => Meaning::Denied,
        _ => Meaning::Other,
    };
    Answer { text: clean(&format!("error {code}: {message}")), meaning }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str) -> Question {
        Question::Http(HttpPath::parse(path).unwrap())
    }

    fn login() -> Question {
        Question::Postgres(PostgresUser::parse("app").unwrap())
    }

    fn error(code: &str, message: &str) -> Vec<u8> {
        let body = format!("SFATAL\0C{code}\0M{message}\0\0").into_bytes();
        [b"E".as_slice(), &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), &body].concat()
    }

    #[test]
    fn answers_of_http_mean_what_they_say() {
        for (answer, text, meaning) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK", Meaning::Served),
            ("HTTP/1.1 301 Moved Permanently\r\n", "HTTP/1.1 301 Moved Permanently", Meaning::Served),
            ("HTTP/1.0 404 Not Found\r\n", "HTTP/1.0 404 Not Found", Meaning::Other),
            ("HTTP/1.1 403 Forbidden\r\n", "HTTP/1.1 403 Forbidden", Meaning::Denied),
            (
                "HTTP/1.1 400 Bad Request\r\n\r\nNo required SSL certificate was sent",
                "HTTP/1.1 400 Bad Request: No required SSL certificate was sent",
                Meaning::NoCertificate,
            ),
            (
                "HTTP/1.1 400 Bad Request\r\n\r\n400 The SSL certificate error",
                "HTTP/1.1 400 Bad Request: The SSL certificate error",
                Meaning::CertificateRefused,
            ),
            ("HTTP/1.1 496 Whatever\r\n", "HTTP/1.1 496 Whatever", Meaning::NoCertificate),
            ("HTTP/1.1 400 Bad Request\r\n\r\nbad header", "HTTP/1.1 400 Bad Request", Meaning::Other),
            ("HTTP/1.1 200 OK\r\n\r\nNo required SSL certificate was sent", "HTTP/1.1 200 OK", Meaning::Served),
            ("220 mail.example.com\u{1b}[2J ESMTP\r\n", "220 mail.example.com\\u{1b}[2J ESMTP", Meaning::Unknown),
        ] {
            assert_eq!(get("/").answer(answer.as_bytes()), Some(Answer { text: text.into(), meaning }));
        }
        assert_eq!(get("/").answer(b""), None);
    }

    #[test]
    fn answers_of_postgres_mean_what_they_say() {
        let required = "connection requires a valid client certificate";
        let failed = "certificate authentication failed for user \"app\"";
        for (answer, meaning) in [
            (b"R\0\0\0\x08\0\0\0\0".to_vec(), Meaning::Served),
            (b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec(), Meaning::Served),
            (error("28000", required), Meaning::NoCertificate),
            (error("28000", failed), Meaning::CertificateRefused),
            (error("28000", "no pg_hba.conf entry for host"), Meaning::Denied),
            (error("3D000", "database \"app\" does not exist"), Meaning::Other),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), Meaning::Unknown),
        ] {
            assert_eq!(login().answer(&answer).map(|answer| answer.meaning), Some(meaning), "{answer:?}");
        }
        assert_eq!(login().bytes("db.example.com"), b"\0\0\0\x12\0\x03\0\0user\0app\0\0");
    }

    #[test]
    fn an_answer_ends_where_its_protocol_says() {
        let page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert!(get("/").is_whole(page) && !get("/").is_whole(&page[..page.len() - 1]));
        assert!(!get("/").is_whole(b"HTTP/1.1 200 OK\r\n\r\nok"), "only the end of the connection says it");
        assert!(get("/").is_whole(b"220 mail") && login().is_whole(b"HTTP/1.1"), "another protocol");
        assert!(login().is_whole(b"R\0\0\0\x08\0\0\0\0") && !login().is_whole(b"R\0\0\0\x08\0\0\0"));
    }

    #[test]
    fn a_path_or_user_that_would_say_more_is_refused() {
        for path in ["", "health", "/a b", "/a\r\nX: y", "/\u{e9}", &format!("/{}", "a".repeat(LONGEST_PATH))] {
            assert!(HttpPath::parse(path).is_err(), "{path:?}");
        }
        for user in ["", "a\0b", &"a".repeat(64)] {
            assert!(PostgresUser::parse(user).is_err(), "{user:?}");
        }
        let bytes = get("/health?x=1").bytes("web.example.com:8443");
        assert!(bytes.starts_with(b"GET /health?x=1 HTTP/1.1\r\nHost: web.example.com:8443\r\n"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_shows_what_is_invisible(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for question in [get("/"), login()] {
                let _ = question.is_whole(&bytes);
                let text = question.answer(&bytes).map(|answer| answer.text).unwrap_or_default();
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }
}
