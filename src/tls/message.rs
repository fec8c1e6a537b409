//! Messages in records that hold no application data.

use rustls::AlertDescription;

use super::record::Fault;

/// A handshake message that may come after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// new_session_ticket of TLS 1.3, without its header (RFC 8446 section 4.6.1).
    Ticket(&'a [u8]),
    /// key_update (RFC 8446 section 4.6.3).
    KeyUpdate { requested: bool },
    /// hello_request of TLS 1.2: asks for a renegotiation (RFC 5246 section 7.4.1.1).
    HelloRequest,
}

/// Cuts handshake messages out of records: several may share one, and one may span several.
#[derive(Default)]
pub(super) struct Joiner {
    partial: Vec<u8>,
}

/// Type and length.
const HEADER: usize = 4;
/// The longest message taken, as in rustls.
const MAX_BODY: usize = 0xffff;

impl Joiner {
    /// Whether a message has begun and not ended: nothing else may come between (RFC 8446 section 5.1).
    pub(super) fn is_amid(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Hands out each message that `fragment` completes; `last` says that the record ends with it.
    pub(super) fn feed<E: From<Fault>>(
        &mut self,
        fragment: &[u8],
        mut take: impl FnMut(Message<'_>, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        if fragment.is_empty() {
            return Err(Fault::UnexpectedMessage.into());
        }
        // Not cut anew with each fragment: a long message in many short ones would be copied over and over.
        self.partial.extend_from_slice(fragment);
        let mut taken = 0;
        while let Some((message, after)) = cut(&self.partial[taken..])? {
            take(message, after.is_empty())?;
            taken = self.partial.len() - after.len();
        }
        self.partial.drain(..taken);
        if self.partial.is_empty() {
            // An empty vector still holds its memory.
            self.partial = Vec::new();
        }
        Ok(())
    }
}

/// The first message of `bytes`, and what follows it. `None`: it is not all there.
fn cut(bytes: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, Fault> {
    let Some((&[kind, a, b, c], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_BODY {
        return Err(Fault::DecodeError);
    }
    let parse: fn(&[u8]) -> Result<Message<'_>, Fault> = match kind {
        0 => |body| if body.is_empty() { Ok(Message::HelloRequest) } else { Err(Fault::DecodeError) },
        4 => |body| Ok(Message::Ticket(body)),
        24 => |body| match body {
            [0] => Ok(Message::KeyUpdate { requested: false }),
            [1] => Ok(Message::KeyUpdate { requested: true }),
            _ => Err(Fault::DecodeError),
        },
        _ => return Err(Fault::UnexpectedMessage),
    };
    let Some((body, after)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    Ok(Some((parse(body)?, after)))
}

/// The two bytes of an alert record: whether it is a warning, and what it says.
pub(super) fn alert(body: &[u8]) -> Result<(bool, AlertDescription), Fault> {
    match *body {
        [1, description] => Ok((true, description.into())),
        [2, description] => Ok((false, description.into())),
        _ => Err(Fault::DecodeError),
    }
}
