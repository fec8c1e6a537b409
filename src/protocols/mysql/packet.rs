//! Packets of the connection phase: a length of three bytes, a number, a payload.

use std::ops::Range;

use crate::secret::Secret;

/// Length and number.
const HEAD: usize = 4;

/// CLIENT_* flags of both sides.
pub(super) mod capability {
    pub(crate) const CONNECT_WITH_DB: u32 = 1 << 3;
    pub(crate) const PROTOCOL_41: u32 = 1 << 9;
    pub(crate) const SSL: u32 = 1 << 11;
    pub(crate) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(crate) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(crate) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
}

/// Why there is no whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incomplete {
    /// This many bytes have to be read before it can be asked again.
    Lacks(usize),
    /// It has more bytes than are taken.
    TooLong,
}

/// The number and the payload of the packet that `bytes` are. No more than what is lacking is read, so nothing follows.
pub(super) fn whole(bytes: &[u8], most: usize) -> Result<(u8, &[u8]), Incomplete> {
    let Some((&[a, b, c, sequence], payload)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(Incomplete::Lacks(HEAD - bytes.len()));
    };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    match length.saturating_sub(payload.len()) {
        _ if length > most => Err(Incomplete::TooLong),
        0 => Ok((sequence, &payload[..length])),
        lacks => Err(Incomplete::Lacks(lacks)),
    }
}

/// A packet. Payloads of the connection phase are far shorter than the 16 MiB that its length can say.
pub(super) fn packet(sequence: u8, payload: &[&[u8]]) -> Secret {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let [a, b, c, ..] = u32::try_from(length).expect("bounded by what is read").to_le_bytes();
    let mut bytes = Secret::with_capacity(HEAD + length);
    bytes.buffer().extend_from_slice(&[a, b, c, sequence]);
    payload.iter().for_each(|part| bytes.buffer().extend_from_slice(part));
    bytes
}

/// The bytes before the first NUL, and those behind it.
pub(super) fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The first packet of a server (HandshakeV10).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) capabilities: u32,
    pub(super) scramble: [u8; SCRAMBLE],
    pub(super) plugin: Vec<u8>,
    /// Where the lower half of the capabilities stands.
    capabilities_at: usize,
}

/// Random bytes that a client mixes with its password; the NUL behind them is not one of them.
pub(super) const SCRAMBLE: usize = 20;

/// The version of the protocol that its first byte says.
pub(super) const VERSION: u8 = 10;

impl Greeting {
    /// `None`: it is not one.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (&[VERSION], rest) = payload.split_first_chunk()? else { return None };
        let (_server, rest) = until_nul(rest)?;
        let (_thread, rest) = rest.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (_filler, rest) = rest.split_first()?;
        let capabilities_at = payload.len() - rest.len();
        let (&[a, b], rest) = rest.split_first_chunk()?;
        let (_charset_and_status, rest) = rest.split_first_chunk::<3>()?;
        let (&[c, d], rest) = rest.split_first_chunk()?;
        let (_length_and_reserved, rest) = rest.split_first_chunk::<11>()?;
        let (second, rest) = rest.split_first_chunk::<12>()?;
        let mut scramble = [0; SCRAMBLE];
        scramble[..8].copy_from_slice(first);
        scramble[8..].copy_from_slice(second);
        // The NUL behind the scramble, and then a name that some servers end with a NUL.
        let plugin = rest.get(1..).unwrap_or_default();
        let plugin = until_nul(plugin).map_or(plugin, |(name, _)| name).to_vec();
        Some(Self { capabilities: u32::from_le_bytes([a, b, c, d]), scramble, plugin, capabilities_at })
    }

    /// The payload for a client of a plaintext listener: TLS is not offered. Everything else is between the client and
    /// the server once the client has logged in, MariaDB's extended capabilities included.
    pub(super) fn without_tls(&self, payload: &[u8]) -> Vec<u8> {
        let mut shown = payload.to_vec();
        let low = (self.capabilities & !capability::SSL) as u16;
        shown[self.capabilities_at..self.capabilities_at + 2].copy_from_slice(&low.to_le_bytes());
        shown
    }
}

/// A client's answer to a greeting (HandshakeResponse41).
#[derive(Debug)]
pub(super) struct Response {
    payload: Secret,
    pub(super) capabilities: u32,
    scrambled: Range<usize>,
    /// With the length before it.
    scrambled_field: Range<usize>,
    plugin: Range<usize>,
}

/// Capabilities, longest packet, character set, filler, and MariaDB's extended capabilities: all that a request for TLS
/// has.
pub(super) const REQUEST: usize = 32;

/// A plugin that no account has. A server that reads this name asks the client to start again with the account's.
const NO_PLUGIN: &[u8] = b"egret";

/// The name and the value of an attribute that the clients with MySQL's own C library send.
const LIBMYSQL: &[u8] = b"\x0c_client_name\x08libmysql";

impl Response {
    /// `None`: it is not one.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let head: &[u8; REQUEST] = payload.first_chunk()?;
        let capabilities = capabilities(head);
        let has = |flag| capabilities & flag != 0;
        let (_user, rest) = until_nul(&payload[REQUEST..])?;
        let start = payload.len() - rest.len();
        let is_counted = has(capability::PLUGIN_AUTH_LENENC) || has(capability::SECURE_CONNECTION);
        let (scrambled, rest) = if is_counted {
            // One byte in both forms: nothing that is sent here has 251 bytes or more.
            let (length, rest) = rest.split_first().filter(|(length, _)| **length < 0xfb)?;
            rest.split_at_checked(usize::from(*length))?
        } else {
            until_nul(rest)?
        };
        let end = payload.len() - rest.len();
        let scrambled_end = if is_counted { end } else { end - 1 };
        let rest = match until_nul(rest) {
            Some((_database, rest)) if has(capability::CONNECT_WITH_DB) => rest,
            None if has(capability::CONNECT_WITH_DB) => &[],
            _ => rest,
        };
        let plugin_at = payload.len() - rest.len();
        let plugin = if has(capability::PLUGIN_AUTH) { until_nul(rest).map_or(rest, |(name, _)| name) } else { &[] };
        Some(Self {
            capabilities,
            scrambled: scrambled_end - scrambled.len()..scrambled_end,
            scrambled_field: start..end,
            plugin: plugin_at..plugin_at + plugin.len(),
            payload: Secret::new(payload.to_vec()),
        })
    }

    /// The request for TLS of this client. Servers take the capabilities from this packet, and not from the one inside
    /// TLS: those of the client, and TLS.
    pub(super) fn request(&self) -> [u8; REQUEST] {
        let mut request = *self.payload.expose().first_chunk().expect("it is longer");
        request[..4].copy_from_slice(&(self.capabilities | capability::SSL).to_le_bytes());
        request
    }

    pub(super) fn plugin(&self) -> &[u8] {
        &self.payload.expose()[self.plugin.clone()]
    }

    /// The answer to the greeting's scramble.
    pub(super) fn scrambled(&self) -> &[u8] {
        &self.payload.expose()[self.scrambled.clone()]
    }

    /// Whether a server can ask the client to authenticate with another plugin, or again.
    pub(super) fn can_switch(&self) -> bool {
        self.capabilities & capability::PLUGIN_AUTH != 0
    }

    pub(super) fn is_of_libmysql(&self) -> bool {
        self.payload.expose().windows(LIBMYSQL.len()).any(|part| part == LIBMYSQL)
    }

    /// As the client has sent it, for a server that has sent the same greeting.
    pub(super) fn inside_tls(&self, sequence: u8) -> Secret {
        packet(sequence, &[&self.request(), &self.payload.expose()[REQUEST..]])
    }

    /// For a server whose greeting the client has not seen: it is made to send an AuthSwitchRequest with its own scramble.
    pub(super) fn inside_tls_to_other(&self, sequence: u8) -> Secret {
        let payload = self.payload.expose();
        let before = &payload[REQUEST..self.scrambled_field.start];
        let between = &payload[self.scrambled_field.end..self.plugin.start];
        // An empty one has one byte in all three forms: a length, or its end.
        packet(sequence, &[&self.request(), before, &[0], between, NO_PLUGIN, &payload[self.plugin.end..]])
    }
}

pub(super) fn capabilities(request: &[u8; REQUEST]) -> u32 {
    let [a, b, c, d, ..] = *request;
    u32::from_le_bytes([a, b, c, d])
}

/// All capabilities of a request, with those that MariaDB has added.
pub(super) fn all_capabilities(request: &[u8]) -> Option<[&[u8]; 2]> {
    Some([request.get(..4)?, request.get(28..REQUEST)?])
}
