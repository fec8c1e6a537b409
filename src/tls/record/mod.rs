//! One TLS record: sealed where its plaintext stands, opened where it was received.
//!
//! Pure: no I/O, no allocation but the keys.

use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType};

/// The most plaintext of one record (RFC 8446 section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;
/// The most bytes of one record on the wire: TLS 1.2 allows 2 KiB of expansion (RFC 5246 section 6.2.3).
pub const MAX_WIRE: usize = HEADER + MAX_PLAINTEXT + 2048;
/// Type, version, length.
pub const HEADER: usize = 5;

/// The longest message that is not data: a key update.
const CONTROL_BODY: usize = 5;
const TAG: usize = 16;
/// The part of a TLS 1.2 GCM nonce that is sent (RFC 5288 section 3).
const EXPLICIT_NONCE: usize = 8;

/// How the records of a version and suite are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// TLS 1.3: the content type and padding are sealed too (RFC 8446 section 5.2).
    Tls13,
    /// TLS 1.2 with AES-GCM: eight bytes of nonce before the ciphertext (RFC 5288).
    Tls12Gcm,
    /// TLS 1.2 with ChaCha20-Poly1305: the nonce is not sent (RFC 7905).
    Tls12ChaCha,
    /// The kernel makes them: what is written is plaintext.
    Kernel,
}

impl Layout {
    /// Bytes of a record before its plaintext.
    pub const fn front(self) -> usize {
        match self {
            Self::Tls13 | Self::Tls12ChaCha => HEADER,
            Self::Tls12Gcm => HEADER + EXPLICIT_NONCE,
            Self::Kernel => 0,
        }
    }

    /// Bytes of a record after its plaintext.
    pub const fn back(self) -> usize {
        match self {
            Self::Tls13 => 1 + TAG,
            Self::Tls12Gcm | Self::Tls12ChaCha => TAG,
            Self::Kernel => 0,
        }
    }

    /// The length field of a peer may say at most this.
    const fn max_length(self) -> usize {
        match self {
            Self::Tls13 => MAX_PLAINTEXT + 256,
            Self::Tls12Gcm | Self::Tls12ChaCha => MAX_WIRE - HEADER,
            Self::Kernel => MAX_PLAINTEXT,
        }
    }
}

/// What a peer did wrong, as the alert that says so to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Does not authenticate: damaged, forged, or out of order.
    BadRecordMac,
    /// Longer than a record may be.
    RecordOverflow,
    /// Must not come now.
    UnexpectedMessage,
    /// Is not what its type says.
    DecodeError,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BadRecordMac => "a record does not authenticate",
            Self::RecordOverflow => "a record is too long",
            Self::UnexpectedMessage => "a message must not come now",
            Self::DecodeError => "a message cannot be decoded",
        })
    }
}

impl Fault {
    /// The alert to send.
    pub const fn alert(self) -> AlertDescription {
        match self {
            Self::BadRecordMac => AlertDescription::BadRecordMac,
            Self::RecordOverflow => AlertDescription::RecordOverflow,
            Self::UnexpectedMessage => AlertDescription::UnexpectedMessage,
            Self::DecodeError => AlertDescription::DecodeError,
        }
    }
}

/// The front of a stream of bytes, seen as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not all of it is there; it is known to need this many bytes at least.
    Partial(usize),
    /// It is there, and this long, header included.
    Whole(usize),
}

/// Blocks of a record's plaintext and type, and one for its tag: what the bound of AES-GCM counts (`s + q` in
/// draft-irtf-cfrg-aead-limits section 5.1.1; RFC 8446 section 5.5 says the same in full records).
pub(crate) const fn blocks(plaintext: usize) -> u64 {
    plaintext as u64 / 16 + 2
}

/// No more records may be sealed with this key: the suite's limit is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

struct Keyed {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    layout: Layout,
}

impl Keyed {
    fn new(tls13: bool, secrets: &ConnectionTrafficSecrets, sequence: u64) -> Result<Self, rustls::Error> {
        let unsupported = || rustls::Error::General("a suite that the record layer does not know".into());
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(unsupported()),
        };
        let layout = match secrets {
            _ if tls13 => Layout::Tls13,
            ConnectionTrafficSecrets::Chacha20Poly1305 { .. } => Layout::Tls12ChaCha,
            _ => Layout::Tls12Gcm,
        };
        let iv = iv.as_ref().try_into().map_err(|_| unsupported())?;
        Self::from_parts(layout, algorithm, key.as_ref(), iv, sequence).ok_or_else(unsupported)
    }

    fn from_parts(
        layout: Layout,
        algorithm: &'static Algorithm,
        key: &[u8],
        iv: [u8; 12],
        sequence: u64,
    ) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, iv, sequence, layout })
    }

    /// The IV with the sequence number mixed in (RFC 8446 section 5.3, RFC 7905 section 2). In TLS 1.2
    /// with GCM the sender may choose its nonces; taking these keeps them unique as well.
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, mask) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= mask;
        }
        nonce
    }

    /// The additional data of TLS 1.2 (RFC 5246 section 6.2.3.3).
    fn aad12(&self, header: [u8; HEADER], plaintext: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&header[..3]);
        aad[11..].copy_from_slice(&(plaintext as u16).to_be_bytes());
        aad
    }
}

/// Seals the records of one direction.
pub struct Sealer {
    keyed: Keyed,
    /// Blocks that the key may still encrypt.
    left: u64,
}

impl Sealer {
    /// `limit`: blocks that one key of the suite may encrypt.
    ///
    /// # Errors
    /// A suite that is not one of the five AEADs of TLS.
    pub fn new(
        tls13: bool,
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        limit: u64,
    ) -> Result<Self, rustls::Error> {
        Ok(Self { keyed: Keyed::new(tls13, secrets, sequence)?, left: limit })
    }

    /// How records are laid out.
    pub const fn layout(&self) -> Layout {
        self.keyed.layout
    }

    pub(super) const fn sequence(&self) -> u64 {
        self.keyed.sequence
    }

    /// The kernel makes the records from here on; this only counts them.
    pub(super) fn hand_over(&mut self) {
        self.keyed.layout = Layout::Kernel;
    }

    /// So many writes were made records of once more than was counted. Room to change the key with is always left.
    pub(super) fn skip(&mut self, records: u64) {
        let room = self.left.min(blocks(CONTROL_BODY));
        self.left = self.left.saturating_sub(records.saturating_mul(blocks(0))).max(room);
    }

    /// Whether the key is good for `records` full records, and for a control record before and after them.
    pub(super) const fn is_good_for(&self, records: u64) -> bool {
        self.left >= records.saturating_mul(blocks(MAX_PLAINTEXT)).saturating_add(2 * blocks(CONTROL_BODY))
    }

    #[cfg(test)]
    pub(super) const fn limit_to(&mut self, blocks: u64) {
        self.left = blocks;
    }

    /// Blocks that the key may still encrypt.
    pub(crate) const fn left(&self) -> u64 {
        self.left
    }

    /// Makes a record of the `len` bytes that stand in `slot` after `layout().front()` bytes of room;
    /// `layout().back()` bytes must be free after them. Returns the record's length.
    ///
    /// # Errors
    /// The key is used up. Nothing was changed.
    ///
    /// # Panics
    /// If the slot is too short or `len` more than `MAX_PLAINTEXT`.
    pub fn seal(&mut self, kind: ContentType, slot: &mut [u8], len: usize) -> Result<usize, Exhausted> {
        assert!(len <= MAX_PLAINTEXT, "more than one record's worth");
        let left = self.left.checked_sub(blocks(len)).ok_or(Exhausted)?;
        let layout = self.keyed.layout;
        let wire = layout.front() + len + layout.back();
        let slot = &mut slot[..wire];
        match layout {
            Layout::Tls13 => self.seal13(kind, slot, len),
            Layout::Tls12Gcm | Layout::Tls12ChaCha => self.seal12(kind, slot, len),
            Layout::Kernel => {}
        }
        self.keyed.sequence += 1;
        self.left = left;
        Ok(wire)
    }

    fn seal13(&self, kind: ContentType, slot: &mut [u8], len: usize) {
        let header = header(ContentType::ApplicationData, len + 1 + TAG);
        slot[..HEADER].copy_from_slice(&header);
        slot[HEADER + len] = kind.into();
        let (sealed, tag) = slot[HEADER..].split_at_mut(len + 1);
        self.seal_in_place(Aad::from(&header), sealed, tag);
    }

    fn seal12(&self, kind: ContentType, slot: &mut [u8], len: usize) {
        let front = self.keyed.layout.front();
        let header = header(kind, slot.len() - HEADER);
        slot[..HEADER].copy_from_slice(&header);
        slot[HEADER..front].copy_from_slice(&self.keyed.nonce()[12 + HEADER - front..]);
        let (sealed, tag) = slot[front..].split_at_mut(len);
        self.seal_in_place(Aad::from(&self.keyed.aad12(header, len)), sealed, tag);
    }

    fn seal_in_place<const N: usize>(&self, aad: Aad<&[u8; N]>, sealed: &mut [u8], tag: &mut [u8]) {
        let nonce = Nonce::assume_unique_for_key(self.keyed.nonce());
        let made = self.keyed.key.seal_in_place_separate_tag(nonce, aad, sealed);
        tag.copy_from_slice(made.expect("one record is far below what an AEAD takes").as_ref());
    }
}

/// Opens the records of one direction.
pub struct Opener {
    keyed: Keyed,
}

impl Opener {
    /// # Errors
    /// A suite that is not one of the five AEADs of TLS.
    pub fn new(tls13: bool, secrets: &ConnectionTrafficSecrets, sequence: u64) -> Result<Self, rustls::Error> {
        Ok(Self { keyed: Keyed::new(tls13, secrets, sequence)? })
    }

    pub(super) const fn sequence(&self) -> u64 {
        self.keyed.sequence
    }

    /// Whether a whole record stands at the front of `bytes`.
    ///
    /// # Errors
    /// The header is not one of a record that may come. It says so as early as it can be seen.
    pub fn frame(&self, bytes: &[u8]) -> Result<Frame, Fault> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(Frame::Partial(HEADER));
        };
        self.check_kind(header[0])?;
        if header[1] != 3 {
            return Err(Fault::DecodeError);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > self.keyed.layout.max_length() {
            return Err(Fault::RecordOverflow);
        }
        let wire = HEADER + length;
        Ok(if bytes.len() < wire { Frame::Partial(wire) } else { Frame::Whole(wire) })
    }

    /// After the handshake of TLS 1.3 every record is protected and says that it is application data; a
    /// change_cipher_spec is unexpected as well (RFC 8446 section 5).
    fn check_kind(&self, kind: u8) -> Result<(), Fault> {
        let fits = match ContentType::from(kind) {
            ContentType::ApplicationData => true,
            ContentType::Alert | ContentType::Handshake => self.keyed.layout != Layout::Tls13,
            _ => false,
        };
        if fits { Ok(()) } else { Err(Fault::UnexpectedMessage) }
    }

    /// Opens one whole record, header included, in place. Returns what it holds and where that stands.
    ///
    /// # Errors
    /// It does not authenticate, or is not well formed. The bytes are then useless, and so is the
    /// connection.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), Fault> {
        let header = *record.first_chunk::<HEADER>().ok_or(Fault::DecodeError)?;
        let opened = match self.keyed.layout {
            Layout::Tls13 => self.open13(header, record),
            Layout::Tls12Gcm | Layout::Tls12ChaCha => self.open12(header, record),
            Layout::Kernel => Err(Fault::UnexpectedMessage),
        }?;
        self.keyed.sequence = self.keyed.sequence.checked_add(1).ok_or(Fault::UnexpectedMessage)?;
        Ok(opened)
    }

    fn open13(&self, header: [u8; HEADER], record: &mut [u8]) -> Result<(ContentType, Range<usize>), Fault> {
        let nonce = Nonce::assume_unique_for_key(self.keyed.nonce());
        let inner = self.keyed.key.open_in_place(nonce, Aad::from(&header), &mut record[HEADER..]);
        let inner: &[u8] = inner.map_err(|_| Fault::BadRecordMac)?;
        // Padding is zeros after the type; without a type there is no record (RFC 8446 section 5.4).
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(Fault::UnexpectedMessage)?;
        if inner.len() > MAX_PLAINTEXT + 1 {
            return Err(Fault::RecordOverflow);
        }
        Ok((inner[end].into(), HEADER..HEADER + end))
    }

    fn open12(&self, header: [u8; HEADER], record: &mut [u8]) -> Result<(ContentType, Range<usize>), Fault> {
        let front = self.keyed.layout.front();
        let len = record.len().checked_sub(front + TAG).ok_or(Fault::BadRecordMac)?;
        let mut nonce = self.keyed.nonce();
        nonce[12 + HEADER - front..].copy_from_slice(&record[HEADER..front]);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(self.keyed.aad12(header, len));
        let opened = self.keyed.key.open_in_place(nonce, aad, &mut record[front..]);
        opened.map_err(|_| Fault::BadRecordMac)?;
        if len > MAX_PLAINTEXT {
            return Err(Fault::RecordOverflow);
        }
        Ok((header[0].into(), front..front + len))
    }
}

fn header(kind: ContentType, length: usize) -> [u8; HEADER] {
    let [high, low] = (length as u16).to_be_bytes();
    [kind.into(), 3, 3, high, low]
}

#[cfg(test)]
mod tests;
