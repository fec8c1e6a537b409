//! Both directions of an established connection: keys and what renews them.

use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::{AlertDescription, ContentType, ExtractedSecrets, InvalidMessage, ProtocolVersion, SupportedCipherSuite};

use super::handed;
use super::kernel::{Handing, KeyInfo, Offers, Offload};
use super::message::{Joiner, Message, alert};
use super::record::{Exhausted, Fault, Frame, Layout, MAX_PLAINTEXT, Opener, Sealer};
use crate::net::kernel_tls::Direction;
use crate::secret::on_wiped_stack;
use crate::wording;

/// The protected side of a connection after its handshake. Pure: what it reads and writes are buffers.
pub struct Session {
    sealer: Sealer,
    opener: Opener,
    /// Derives new secrets and takes tickets. TLS 1.2 has neither.
    kernel: Option<Box<Kernel>>,
    joiner: Joiner,
    /// Warnings, renegotiation requests or key updates since the last application data.
    non_data_records: u8,
    reply: Option<Reply>,
    renegotiation: Renegotiation,
    closed: bool,
    /// Blocks left at which a key that cannot be changed is warned of; zero once it was.
    warn_at: u64,
    /// The part that the operating system's kernel has, or will get.
    offload: Option<Box<Offload>>,
}

/// Whether the peer has asked for a renegotiation (TLS 1.2), which is declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renegotiation {
    /// It has not.
    NotAsked,
    /// It has, and has sent no data since.
    Asked,
    /// It has, and went on.
    GoneOn,
}

type Kernel = KernelConnection<ClientConnectionData>;

/// An answer that is due. One of a kind is enough: RFC 8446 section 4.6.3 lets key updates be answered
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    KeyUpdate,
    NoRenegotiation,
}

/// The record at the front of the received bytes; `wire` is its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// No whole record yet; it needs this many bytes at least.
    Partial(usize),
    /// Application data, in place. May be empty.
    Data {
        /// Bytes of the record.
        wire: usize,
        /// Where the plaintext stands.
        plain: Range<usize>,
    },
    /// Something between the two ends of TLS, which was dealt with.
    Quiet {
        /// Bytes of the record.
        wire: usize,
    },
    /// close_notify: no more will come.
    Closed,
}

/// What a record held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Application data.
    Data,
    /// Something between the two ends of TLS, which was dealt with.
    Quiet,
    /// close_notify: no more will come.
    Closed,
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol. It is owed the alert of the fault.
    #[error("the peer broke the protocol: {0}")]
    Fault(Fault),
    /// The peer sent a fatal alert.
    #[error("the peer sent the alert {}", wording::alert(*.0))]
    Alert(AlertDescription),
    /// rustls did not take a message; the peer is owed `alert`.
    #[error("{}", wording::sentence(error))]
    Rejected {
        /// What rustls says.
        error: rustls::Error,
        /// What to tell the peer.
        alert: AlertDescription,
    },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Error {
    /// The alert that the peer is owed. `None`: it sent one itself.
    pub fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::Fault(fault) => Some(fault.alert()),
            Self::Rejected { alert, .. } => Some(*alert),
            Self::Alert(_) => None,
        }
    }

    /// The same in rustls's words, in which the rest of the program speaks of TLS.
    pub fn into_rustls(self) -> rustls::Error {
        match self {
            Self::Alert(alert) => rustls::Error::AlertReceived(alert),
            Self::Rejected { error, .. } => error,
            Self::Fault(Fault::BadRecordMac) => rustls::Error::DecryptError,
            Self::Fault(Fault::RecordOverflow) => rustls::Error::PeerSentOversizedRecord,
            Self::Fault(Fault::DecodeError) => rustls::Error::InvalidMessage(InvalidMessage::MissingData("record")),
            Self::Fault(Fault::UnexpectedMessage) => rustls::Error::General("a message that must not come now".into()),
        }
    }
}

/// Records without application data in a row that are tolerated, as in rustls: a peer must not keep us busy with
/// warnings or key updates.
const MAX_NON_DATA_RECORDS: u8 = 32;
/// Room for what `control` writes: a record with the five bytes of a key update, or the two of an alert.
pub const CONTROL: usize = 64;

/// A record that is not application data, for a kernel that makes the records: it needs the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// Alert or handshake.
    pub(crate) kind: ContentType,
    body: [u8; 5],
    len: usize,
}

impl Control {
    pub(crate) fn body(&self) -> &[u8] {
        &self.body[..self.len]
    }
}

impl Session {
    /// `offers`: what the operating system's kernel may have of it.
    ///
    /// # Errors
    /// A suite that the record layer does not know.
    pub fn new(secrets: ExtractedSecrets, kernel: Kernel, offers: Option<&Offers>) -> Result<Self, rustls::Error> {
        let tls13 = kernel.protocol_version() == ProtocolVersion::TLSv1_3;
        let limit = confidentiality_limit(kernel.negotiated_cipher_suite());
        Ok(Self {
            sealer: Sealer::new(tls13, &secrets.tx.1, secrets.tx.0, limit)?,
            opener: Opener::new(tls13, &secrets.rx.1, secrets.rx.0)?,
            kernel: tls13.then(|| Box::new(kernel)),
            joiner: Joiner::default(),
            non_data_records: 0,
            reply: None,
            renegotiation: Renegotiation::NotAsked,
            closed: false,
            warn_at: if tls13 { 0 } else { limit / WARN_PART },
            offload: offers.and_then(|offers| Offload::new(offers, tls13, secrets.tx.1, secrets.rx.1)),
        })
    }

    /// Whether kernel TLS has to be attached to the socket: once, before a direction is handed over.
    pub(crate) fn shows(&mut self) -> bool {
        self.offload.as_mut().is_some_and(|offload| !std::mem::replace(&mut offload.shown, true))
    }

    /// Whether a direction is to be handed to the kernel between two of its records.
    pub(crate) fn is_asked(&self, direction: Direction) -> bool {
        self.handing(direction).is_some_and(|handing| matches!(handing, Handing::Asked(_)))
    }

    /// Whether the kernel has a direction.
    pub(crate) fn in_kernel(&self, direction: Direction) -> bool {
        self.handing(direction).is_some_and(|handing| matches!(handing, Handing::Given(_)))
    }

    /// The key of a direction that is to be handed over, good until its next record. `None`: it is not.
    pub(crate) fn key_info(&self, direction: Direction) -> Option<KeyInfo> {
        let Handing::Asked(secrets) = self.handing(direction)? else { return None };
        let sequence = match direction {
            Direction::Send => self.sealer.sequence(),
            Direction::Receive => self.opener.sequence(),
        };
        KeyInfo::new(self.kernel.is_some(), secrets, sequence)
    }

    /// Records whether the kernel has taken a direction; if not, it stays in user space for good.
    pub(crate) fn handed_over(&mut self, direction: Direction, taken: bool) {
        let Some(offload) = &mut self.offload else { return };
        *offload.of_mut(direction) = if taken { Handing::Given(None) } else { Handing::Kept };
        if taken && direction == Direction::Send {
            self.sealer.hand_over();
        }
    }

    /// The new key of a direction that the kernel has, once: nothing may be sent or received before the kernel
    /// has it.
    pub(crate) fn renewed(&mut self, direction: Direction) -> Option<KeyInfo> {
        match self.offload.as_mut()?.of_mut(direction) {
            Handing::Given(info) => info.take(),
            Handing::Kept | Handing::Asked(_) => None,
        }
    }

    fn handing(&self, direction: Direction) -> Option<&Handing> {
        self.offload.as_ref().map(|offload| offload.of(direction))
    }

    /// How records that we send are laid out.
    pub const fn layout(&self) -> Layout {
        self.sealer.layout()
    }

    /// Whether `control` has a record that should not wait for data.
    pub const fn owes_reply(&self) -> bool {
        self.reply.is_some()
    }

    /// As far as the peer has asked for one.
    pub(crate) const fn renegotiation(&self) -> Renegotiation {
        self.renegotiation
    }

    /// Whether the key of a version that cannot change it nears its limit; true once.
    pub(crate) fn nears_limit(&mut self) -> bool {
        let nears = self.sealer.left() < self.warn_at;
        if nears {
            self.warn_at = 0;
        }
        nears
    }

    /// Writes what has to go before the next `records` records of data: an answer to the peer, a change
    /// of our key. Returns its length, mostly zero.
    ///
    /// # Errors
    /// TLS 1.2 cannot change its key, and this one is used up.
    pub fn control(&mut self, out: &mut [u8; CONTROL], records: u64) -> Result<usize, Exhausted> {
        let spent = !self.sealer.is_good_for(records);
        match self.reply.take() {
            Some(Reply::KeyUpdate) => self.update_sealer(out),
            Some(Reply::NoRenegotiation) => self.alert(out, AlertDescription::NoRenegotiation),
            None if !spent => Ok(0),
            // An error before data is read that could not be sent any more.
            None if self.kernel.is_none() => Err(Exhausted),
            None => self.update_sealer(out),
        }
    }

    /// As `control`, for a kernel that makes the records. `cut`: records that the kernel may have made two of,
    /// because it had no room for the whole at once.
    pub(crate) fn kernel_control(&mut self, records: u64, cut: u64) -> Result<Option<Control>, Exhausted> {
        self.sealer.skip(cut);
        // The two versions have one kind of answer each.
        let kind = if self.kernel.is_some() { ContentType::Handshake } else { ContentType::Alert };
        let mut out = [0; CONTROL];
        let len = self.control(&mut out, records)?;
        let [body @ .., _] = out.first_chunk::<6>().expect("it is longer");
        Ok((len > 0).then_some(Control { kind, body: *body, len }))
    }

    /// As `alert`, for a kernel that makes the records.
    pub(crate) fn kernel_alert(&mut self, description: AlertDescription) -> Result<Control, Exhausted> {
        let mut out = [0; CONTROL];
        let len = self.alert(&mut out, description)?;
        Ok(Control { kind: ContentType::Alert, body: [out[0], out[1], 0, 0, 0], len })
    }

    /// key_update under the old key, then the new one. It does not ask the peer for its own: each side
    /// counts its own records.
    fn update_sealer(&mut self, out: &mut [u8; CONTROL]) -> Result<usize, Exhausted> {
        const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
        let kernel = self.kernel.as_mut().ok_or(Exhausted)?;
        let front = self.sealer.layout().front();
        out[front..front + KEY_UPDATE.len()].copy_from_slice(&KEY_UPDATE);
        let wire = self.sealer.seal(ContentType::Handshake, out, KEY_UPDATE.len())?;
        let limit = confidentiality_limit(kernel.negotiated_cipher_suite());
        let Self { sealer, offload, .. } = self;
        on_wiped_stack(|| {
            let (sequence, secrets) = kernel.update_tx_secret().map_err(|_| Exhausted)?;
            *sealer = Sealer::new(true, &secrets, sequence, limit).map_err(|_| Exhausted)?;
            if let Some(offload) = offload {
                offload.send.renew(secrets, sequence);
            }
            Ok(())
        })?;
        if self.in_kernel(Direction::Send) {
            self.sealer.hand_over();
        }
        Ok(wire)
    }

    /// Writes an alert record: of level warning for close_notify and no_renegotiation, else fatal.
    /// Returns its length.
    ///
    /// # Errors
    /// The key is used up.
    pub fn alert(&mut self, out: &mut [u8; CONTROL], description: AlertDescription) -> Result<usize, Exhausted> {
        let warning = matches!(description, AlertDescription::CloseNotify | AlertDescription::NoRenegotiation);
        let front = self.sealer.layout().front();
        out[front] = if warning { 1 } else { 2 };
        out[front + 1] = description.into();
        self.sealer.seal(ContentType::Alert, out, 2)
    }

    /// Makes a record of application data; see `Sealer::seal`.
    ///
    /// # Errors
    /// The key is used up: `control` was not asked in time, or cannot help (TLS 1.2).
    pub fn seal(&mut self, slot: &mut [u8], len: usize) -> Result<usize, Exhausted> {
        self.sealer.seal(ContentType::ApplicationData, slot, len)
    }

    /// Opens the record at the front of `bytes` in place, and deals with it if it is not data. To be
    /// called again with what follows `wire` until it says `Partial` or `Closed`.
    ///
    /// # Errors
    /// The session is over. What was opened before is sound.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Opened, Error> {
        if self.closed {
            return Ok(Opened::Closed);
        }
        let wire = match self.opener.frame(bytes)? {
            Frame::Partial(needed) => return Ok(Opened::Partial(needed)),
            Frame::Whole(wire) => wire,
        };
        let (kind, plain) = self.opener.open(&mut bytes[..wire])?;
        Ok(match self.process_record(kind, &bytes[plain.clone()])? {
            Processed::Data => Opened::Data { wire, plain },
            Processed::Quiet => Opened::Quiet { wire },
            Processed::Closed => Opened::Closed,
        })
    }

    /// Whether the peer has sent close_notify.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the peer has begun a handshake message and not ended it.
    pub(crate) fn is_amid(&self) -> bool {
        self.joiner.is_amid()
    }

    /// Deals with what a record of the peer holds; `open` does so itself, a kernel that opens them does not.
    ///
    /// # Errors
    /// The session is over.
    pub fn process_record(&mut self, kind: ContentType, body: &[u8]) -> Result<Processed, Error> {
        if kind != ContentType::Handshake && self.joiner.is_amid() {
            return Err(Fault::UnexpectedMessage.into());
        }
        match kind {
            ContentType::ApplicationData => {
                self.non_data_records = 0;
                if self.renegotiation == Renegotiation::Asked {
                    self.renegotiation = Renegotiation::GoneOn;
                }
                return Ok(Processed::Data);
            }
            ContentType::Handshake => self.handshake(body)?,
            ContentType::Alert if self.process_alert(body)? => {
                self.closed = true;
                return Ok(Processed::Closed);
            }
            ContentType::Alert => {}
            _ => return Err(Fault::UnexpectedMessage.into()),
        }
        Ok(Processed::Quiet)
    }

    /// Whether it is close_notify. In TLS 1.3 every other alert but user_canceled ends the connection,
    /// whatever its level says (RFC 8446 section 6).
    fn process_alert(&mut self, body: &[u8]) -> Result<bool, Error> {
        let (warning, description) = alert(body)?;
        match description {
            AlertDescription::CloseNotify => return Ok(true),
            AlertDescription::UserCanceled if warning => {}
            _ if warning && self.kernel.is_none() => {}
            _ => return Err(Error::Alert(description)),
        }
        tolerate(&mut self.non_data_records)?;
        Ok(false)
    }

    fn handshake(&mut self, fragment: &[u8]) -> Result<(), Error> {
        let Self { joiner, kernel, opener, non_data_records, reply, renegotiation, offload, .. } = self;
        joiner.feed(fragment, |message, last| match (message, kernel.as_mut()) {
            (Message::Ticket(body), Some(kernel)) => {
                handed::with(body.len(), || kernel.handle_new_session_ticket(body)).map_err(reject)
            }
            // The record that follows is under the new key, so nothing may share this one.
            (Message::KeyUpdate { requested }, Some(kernel)) if last => {
                tolerate(non_data_records)?;
                on_wiped_stack(|| {
                    let (sequence, secrets) = kernel.update_rx_secret().map_err(reject)?;
                    *opener = Opener::new(true, &secrets, sequence).map_err(reject)?;
                    if let Some(offload) = offload {
                        offload.receive.renew(secrets, sequence);
                    }
                    Ok::<(), Error>(())
                })?;
                if requested {
                    *reply = Some(Reply::KeyUpdate);
                }
                Ok(())
            }
            (Message::HelloRequest, None) => {
                // A new handshake could bring another certificate than the one that was verified, and TLS 1.3 has none
                // (RFC 8446 section 4.1.2). A server may go on without (RFC 5246 section 7.2.2).
                *reply = Some(Reply::NoRenegotiation);
                *renegotiation = Renegotiation::Asked;
                tolerate(non_data_records)
            }
            _ => Err(Fault::UnexpectedMessage.into()),
        })
    }
}

fn tolerate(non_data_records: &mut u8) -> Result<(), Error> {
    *non_data_records += 1;
    if *non_data_records > MAX_NON_DATA_RECORDS { Err(Fault::UnexpectedMessage.into()) } else { Ok(()) }
}

fn reject(error: rustls::Error) -> Error {
    let alert = match &error {
        rustls::Error::InvalidMessage(_) => AlertDescription::DecodeError,
        rustls::Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        _ => AlertDescription::InternalError,
    };
    Error::Rejected { error, alert }
}

/// Blocks that one key may encrypt. rustls keeps the figures with the suites, in full records: 2^24 with AES-GCM, so
/// 2^34 blocks, with which an attacker's advantage is 2^-61 (`(s + q + 1)^2 / 2^129`). Counted in records, small ones
/// would use a key up a thousand times too early.
fn confidentiality_limit(suite: SupportedCipherSuite) -> u64 {
    let records = match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    };
    records.saturating_mul(MAX_PLAINTEXT as u64 / 16)
}

/// The last sixteenth of a key's use: 16 GiB, minutes at the least, in which a client may be moved.
const WARN_PART: u64 = 16;

#[cfg(test)]
pub(crate) mod tests;
