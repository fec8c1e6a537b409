//! What has to become of each record after the handshake.

use rustls::AlertDescription;

/// One side's view of what the other has said so far.
pub struct Model {
    pub tls13: bool,
    /// Tickets that are kept.
    pub tickets: usize,
    /// An answer is due.
    pub owed: bool,
    /// Bytes of a handshake message that has begun.
    begun: Vec<u8>,
    /// Records in a row that are neither data nor tickets.
    idle: usize,
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Data,
    /// `renewed`: what follows is under the server's next key.
    Quiet {
        renewed: bool,
    },
    Closed,
    /// The server gives up.
    Alert(u8),
    /// We do, and say why.
    Fault(AlertDescription),
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// What egret bears of warnings, requests and key updates in a row, and of one message.
const MOST_IDLE: usize = 32;
const LONGEST: usize = 0xffff;

impl Model {
    pub fn new(tls13: bool, tickets: usize) -> Self {
        Self { tls13, tickets, owed: false, begun: Vec::new(), idle: 0 }
    }

    pub fn judge(&mut self, kind: u8, body: &[u8]) -> Verdict {
        // RFC 8446 section 5.1: nothing comes between the parts of a message.
        let amid = !self.begun.is_empty();
        match kind {
            HANDSHAKE => self.messages(body),
            CHANGE_CIPHER_SPEC | ALERT | DATA if amid => UNEXPECTED,
            DATA => {
                self.idle = 0;
                Verdict::Data
            }
            ALERT => self.alert(body),
            _ => UNEXPECTED,
        }
    }

    /// RFC 8446 section 6 and RFC 5246 section 7.2.
    fn alert(&mut self, body: &[u8]) -> Verdict {
        match (body, self.tls13) {
            ([1 | 2, 0], _) => Verdict::Closed,
            // user_canceled, and any warning of TLS 1.2.
            ([1, 90], true) | ([1, _], false) => self.borne(),
            ([1 | 2, description], _) => Verdict::Alert(*description),
            _ => DECODE_ERROR,
        }
    }

    fn messages(&mut self, body: &[u8]) -> Verdict {
        if body.is_empty() {
            return UNEXPECTED;
        }
        self.begun.extend_from_slice(body);
        let mut renewed = false;
        while let [kind, a, b, c, ref rest @ ..] = self.begun[..] {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > LONGEST {
                return DECODE_ERROR;
            }
            if ![0, 4, 24].contains(&kind) {
                return UNEXPECTED;
            }
            if rest.len() < length {
                break;
            }
            let (message, after) = rest.split_at(length);
            let (message, after) = (message.to_vec(), after.to_vec());
            match self.message(kind, &message, after.is_empty()) {
                Verdict::Quiet { renewed: now } => renewed |= now,
                end => return end,
            }
            self.begun = after;
        }
        Verdict::Quiet { renewed }
    }

    fn message(&mut self, kind: u8, body: &[u8], last: bool) -> Verdict {
        match (kind, body, self.tls13) {
            // RFC 8446 section 4.6.3, and 5.1: the key changes between records.
            (24, [0 | 1], true) if !last => UNEXPECTED,
            (24, [asks @ (0 | 1)], true) => {
                let borne = self.borne();
                self.owed |= *asks == 1 && borne == QUIET;
                if borne == QUIET { Verdict::Quiet { renewed: true } } else { borne }
            }
            (24, [0 | 1], false) | (0, [], true) | (4, _, false) => UNEXPECTED,
            // RFC 5246 section 7.4.1.1
            (0, [], false) => {
                self.owed = true;
                self.borne()
            }
            (4, ticket, true) if is_ticket(ticket) => {
                self.tickets += 1;
                QUIET
            }
            _ => DECODE_ERROR,
        }
    }

    fn borne(&mut self) -> Verdict {
        self.idle += 1;
        if self.idle > MOST_IDLE { UNEXPECTED } else { QUIET }
    }
}

const QUIET: Verdict = Verdict::Quiet { renewed: false };
const UNEXPECTED: Verdict = Verdict::Fault(AlertDescription::UnexpectedMessage);
const DECODE_ERROR: Verdict = Verdict::Fault(AlertDescription::DecodeError);

/// RFC 8446 section 5.4: the type of a record is the last byte that is not zero.
pub fn unpadded(kind: u8, body: &[u8]) -> (u8, &[u8]) {
    match body {
        _ if kind != 0 => (kind, body),
        [rest @ .., last] => unpadded(*last, rest),
        [] => (0, body),
    }
}

/// RFC 8446 section 4.6.1.
fn is_ticket(body: &[u8]) -> bool {
    let fields = || {
        let (_lifetime_and_age, rest) = body.split_at_checked(8)?;
        let (_nonce, rest) = field(rest, 1)?;
        let (ticket, rest) = field(rest, 2)?;
        let (mut extensions, rest) = field(rest, 2)?;
        let mut seen = Vec::new();
        while !extensions.is_empty() {
            let (kind, after) = extensions.split_at_checked(2)?;
            let (value, after) = field(after, 2)?;
            // early_data holds a number of four bytes; what is not known is passed over.
            if seen.contains(&kind) || (kind == [0, 42] && value.len() != 4) {
                return None;
            }
            seen.push(kind);
            extensions = after;
        }
        (!ticket.is_empty() && rest.is_empty()).then_some(())
    };
    fields().is_some()
}

/// A vector with its length before it.
fn field(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}
