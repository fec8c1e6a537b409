//! The messages that begin a handshake, read and written part by part: records, ClientHello, ServerHello (RFC 8446
//! sections 4.1 and 5.1, RFC 5246 section 7.4.1). Pure; what the parts mean is for the callers.

pub(crate) use super::record::HEADER as RECORD_HEAD;

/// Type of a record that holds handshake messages.
pub(crate) const HANDSHAKE: u8 = 22;
/// Type and length of a handshake message.
pub(crate) const MESSAGE_HEAD: usize = 4;

/// Types of handshake messages.
pub(crate) const CLIENT_HELLO: u8 = 1;
pub(crate) const SERVER_HELLO: u8 = 2;
pub(crate) const SERVER_KEY_EXCHANGE: u8 = 12;
pub(crate) const SERVER_HELLO_DONE: u8 = 14;

/// Types of extensions.
pub(crate) const SERVER_NAME: u16 = 0;
pub(crate) const SUPPORTED_GROUPS: u16 = 10;
pub(crate) const EC_POINT_FORMATS: u16 = 11;
pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
pub(crate) const ALPN: u16 = 16;
pub(crate) const EXTENDED_MASTER_SECRET: u16 = 23;
pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
pub(crate) const PSK_KEY_EXCHANGE_MODES: u16 = 45;
pub(crate) const KEY_SHARE: u16 = 51;
pub(crate) const RENEGOTIATION_INFO: u16 = 0xff01;

/// The only kind of name in the extension server_name (RFC 6066 section 3).
pub(crate) const HOST_NAME: u8 = 0;

pub(crate) struct ClientHello<'a> {
    pub(crate) version: u16,
    pub(crate) random: &'a [u8],
    pub(crate) session: &'a [u8],
    pub(crate) suites: &'a [u8],
    pub(crate) compression: &'a [u8],
    pub(crate) extensions: Extensions<'a>,
}

pub(crate) struct ServerHello<'a> {
    pub(crate) version: u16,
    pub(crate) suite: u16,
    pub(crate) extensions: Extensions<'a>,
}

/// Type and content of each extension; an error is the last item.
pub(crate) struct Extensions<'a>(Reader<'a>);

/// The unread bytes. A read returns `None` if fewer are left than it needs, or than the length before them says.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> ClientHello<'a> {
    /// # Errors
    /// Says which part is wrong.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it ends before its session";
        let mut input = Reader(body);
        let version = input.u16().ok_or(SHORT)?;
        let random = input.take(32).ok_or(SHORT)?;
        let session = input.with_u8_length().ok_or("its session is cut")?;
        let suites = input.with_u16_length().ok_or("its suites are cut")?;
        if suites.is_empty() || suites.len() % 2 != 0 {
            return Err("its suites are none");
        }
        let compression = input.with_u8_length().ok_or("its compression methods are cut")?;
        // TLS 1.2 has hellos without extensions.
        let extensions = match input.0.is_empty() {
            true => &[],
            false => input.with_u16_length().ok_or("its extensions are cut")?,
        };
        if !input.0.is_empty() {
            return Err("something follows its extensions");
        }
        Ok(Self { version, random, session, suites, compression, extensions: Extensions(Reader(extensions)) })
    }
}

impl<'a> ServerHello<'a> {
    /// Reads as many extensions as are whole. `None`: the cipher suite is not.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let mut input = Reader(body);
        let version = input.u16()?;
        input.take(32)?;
        input.with_u8_length()?;
        let suite = input.u16()?;
        // The compression method, and the length of the extensions.
        input.take(1)?;
        input.u16();
        Some(Self { version, suite, extensions: Extensions(input) })
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<(u16, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let read = self.0.u16().and_then(|kind| Some((kind, self.0.with_u16_length()?)));
        if read.is_none() {
            self.0.0 = &[];
        }
        Some(read.ok_or("an extension is cut"))
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn with_u8_length(&mut self) -> Option<&'a [u8]> {
        let count = self.take(1)?[0];
        self.take(count.into())
    }

    pub(crate) fn with_u16_length(&mut self) -> Option<&'a [u8]> {
        let count = self.u16()?;
        self.take(count.into())
    }
}

/// A list that is all of an extension's content.
pub(crate) fn whole_list(content: &[u8]) -> Option<Reader<'_>> {
    let mut input = Reader(content);
    let list = input.with_u16_length()?;
    input.0.is_empty().then_some(Reader(list))
}

/// The host name in the content of server_name: a list of names of several kinds, of which only one was ever defined.
///
/// # Errors
/// Says what is wrong.
pub(crate) fn read_server_name(content: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    const CUT: &str = "its server name is cut";
    let mut names = whole_list(content).ok_or(CUT)?;
    let mut found = None;
    while !names.0.is_empty() {
        let kind = names.take(1).ok_or(CUT)?;
        let name = names.with_u16_length().ok_or(CUT)?;
        if kind == [HOST_NAME] && found.replace(name).is_some() {
            return Err("it has two server names");
        }
    }
    Ok(found)
}

/// The protocols in the content of ALPN (RFC 7301 section 3.1).
///
/// # Errors
/// The content is cut.
pub(crate) fn read_protocols(content: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    const CUT: &str = "its ALPN is cut";
    let mut list = whole_list(content).ok_or(CUT)?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.with_u8_length().filter(|protocol| !protocol.is_empty()).ok_or(CUT)?);
    }
    Ok(protocols)
}

pub(crate) fn read_u16s(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// The content of all records before the first of another type; the last may be cut.
pub(crate) fn read_records(mut records: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let [HANDSHAKE, 3, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        content.extend_from_slice(&rest[..length]);
        records = &rest[length..];
    }
    content
}

/// Type and body of each handshake message that is whole.
pub(crate) fn read_messages(mut content: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let [kind, a, b, c, rest @ ..] = content {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((body, after)) = rest.split_at_checked(length) else { break };
        messages.push((*kind, body));
        content = after;
    }
    messages
}

/// A ClientHello as one handshake message. Its lists together stay below 64 KiB.
pub(crate) fn client_hello(
    random: &[u8; 32],
    session: &[u8],
    suites: &[u16],
    extensions: &[(u16, Vec<u8>)],
) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random);
    body.push(session.len() as u8);
    body.extend(session);
    body.extend(u16_list(suites));
    body.extend([1, 0]);
    let extension = |(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &with_u16_length(content)].concat();
    body.extend(with_u16_length(&extensions.iter().flat_map(extension).collect::<Vec<_>>()));
    message(CLIENT_HELLO, &body)
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind][..], &length[1..], body].concat()
}

/// A record of the version that a first record has (RFC 8446 section 5.1).
pub(crate) fn record(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1][..], &with_u16_length(fragment)].concat()
}

/// The extension server_name with its type.
pub(crate) fn server_name(host: &str) -> (u16, Vec<u8>) {
    (SERVER_NAME, with_u16_length(&[&[HOST_NAME][..], &with_u16_length(host.as_bytes())].concat()))
}

pub(crate) fn u16_list(values: &[u16]) -> Vec<u8> {
    with_u16_length(&values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>())
}

pub(crate) fn with_u16_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
