//! Keys and ciphers for a kernel that makes the records of a connection, and the detection of what this kernel can.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use crate::config::values::KernelTls;
use crate::net::kernel_tls::{self, Direction};

/// A key as the kernel takes it: one of the structures `tls12_crypto_info_*` of `linux/tls.h`, which serve for
/// TLS 1.3 as well. Wiped when it is dropped.
pub(crate) struct KeyInfo {
    bytes: Zeroizing<[u8; LONGEST]>,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

/// Version and cipher, IV of 8 or 12 bytes, key of 16 or 32, salt of 4 or none, sequence number.
const LONGEST: usize = 4 + 8 + 32 + 4 + 8;

impl KeyInfo {
    /// The key of one direction whose next record has the number `sequence`. `None`: no kernel knows the suite.
    pub(crate) fn new(tls13: bool, secrets: &ConnectionTrafficSecrets, sequence: u64) -> Option<Self> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        Some(Self::from_parts(tls13, cipher, key.as_ref(), iv.as_ref().try_into().ok()?, sequence))
    }

    fn from_parts(tls13: bool, cipher: Cipher, key: &[u8], iv: [u8; 12], sequence: u64) -> Self {
        let mut info = Self { bytes: Zeroizing::new([0; LONGEST]), len: 0 };
        info.add(&if tls13 { 0x0304_u16 } else { 0x0303 }.to_ne_bytes());
        info.add(&cipher.number().to_ne_bytes());
        let salt = cipher.salt();
        let mut sent = iv;
        if !tls13 && cipher != Cipher::ChaCha20Poly1305 {
            sent[salt] ^= FAR;
        }
        info.add(&sent[salt..]);
        info.add(key);
        info.add(&iv[..salt]);
        info.add(&sequence.to_be_bytes());
        info
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// In TLS 1.2 with GCM the sender chooses the eight bytes of a nonce that it sends. rustls and our record layer
/// mix the sequence number into a start by XOR; the kernel counts up from what it is given. From the same start
/// the kernel's first record would have the nonce of a record that was already sent (the client's Finished is
/// number 0), which gives away the key of authentication. So the kernel starts half the space away: neither
/// side makes 2^63 records.
const FAR: u8 = 0x80;

impl Cipher {
    const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    fn of(secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { .. } => Some(Self::Aes128Gcm),
            ConnectionTrafficSecrets::Aes256Gcm { .. } => Some(Self::Aes256Gcm),
            ConnectionTrafficSecrets::Chacha20Poly1305 { .. } => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// By its name in the registry of AEAD algorithms (RFC 5116).
    fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES_128_GCM",
            Self::Aes256Gcm => "AES_256_GCM",
            Self::ChaCha20Poly1305 => "CHACHA20_POLY1305",
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Aes128Gcm => 51,
            Self::Aes256Gcm => 52,
            Self::ChaCha20Poly1305 => 54,
        }
    }

    /// Bytes of the IV that the kernel keeps apart.
    fn salt(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 4,
            Self::ChaCha20Poly1305 => 0,
        }
    }

    fn key_length(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }
}

/// What of TLS this kernel does, as far as it may be used. Found by trying: distributions switch parts off, so
/// a version number says too little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    taken: Vec<(bool, Cipher, Direction)>,
    renews: bool,
}

impl Offers {
    /// Asks the kernel, on connections of its own over loopback. Blocks for some milliseconds; a kernel that
    /// has TLS as a module may load it now.
    ///
    /// # Errors
    /// The kernel has no TLS, or there is no loopback to ask it on.
    pub fn detect(policy: KernelTls) -> io::Result<Self> {
        let mut found = Self::default();
        if policy == KernelTls::Off {
            return Ok(found);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        for (tls13, cipher) in [false, true].into_iter().flat_map(|tls13| Cipher::ALL.map(|cipher| (tls13, cipher))) {
            found.try_suite(&listener, tls13, cipher)?;
        }
        if policy == KernelTls::Auto && !found.renews {
            found.taken.retain(|(tls13, ..)| !tls13);
        }
        Ok(found)
    }

    fn try_suite(&mut self, listener: &TcpListener, tls13: bool, cipher: Cipher) -> io::Result<()> {
        let near = TcpStream::connect(listener.local_addr()?)?;
        let _far = listener.accept()?;
        kernel_tls::attach(&near)?;
        let key = |byte: u8| KeyInfo::from_parts(tls13, cipher, &vec![byte; cipher.key_length()], [byte; 12], 0);
        for direction in [Direction::Send, Direction::Receive] {
            if kernel_tls::set_key(&near, direction, key(1).bytes()).is_ok() {
                self.taken.push((tls13, cipher, direction));
            }
        }
        // Both directions came with the same version.
        self.renews |= tls13 && kernel_tls::set_key(&near, Direction::Send, key(2).bytes()).is_ok();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn everything() -> Self {
        let suites = [false, true].into_iter().flat_map(|tls13| Cipher::ALL.map(|cipher| (tls13, cipher)));
        let both = |(tls13, cipher)| [Direction::Send, Direction::Receive].map(|way| (tls13, cipher, way));
        Self { taken: suites.flat_map(both).collect(), renews: true }
    }

    /// Whether the kernel may have this direction of a connection.
    pub(crate) fn takes(&self, tls13: bool, secrets: &ConnectionTrafficSecrets, direction: Direction) -> bool {
        Cipher::of(secrets).is_some_and(|cipher| self.taken.contains(&(tls13, cipher, direction)))
    }

    /// Whether there is anything that the kernel may have.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Whether the kernel can go on with a new key, as TLS 1.3 may want at any time.
    pub fn renews(&self) -> bool {
        self.renews
    }
}

impl std::fmt::Display for Offers {
    /// For example `TLSv1.3 AES_128_GCM both`, with commas between.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (tls13, cipher) in [false, true].into_iter().flat_map(|tls13| Cipher::ALL.map(|cipher| (tls13, cipher))) {
            let takes = |direction| self.taken.contains(&(tls13, cipher, direction));
            let directions = match (takes(Direction::Send), takes(Direction::Receive)) {
                (true, true) => "both",
                (true, false) => "send",
                (false, true) => "receive",
                (false, false) => continue,
            };
            write!(f, "{separator}TLSv1.{} {} {directions}", 2 + u8::from(tls13), cipher.name())?;
            separator = ", ";
        }
        Ok(())
    }
}

pub(super) struct Offload {
    pub(super) send: Handing,
    pub(super) receive: Handing,
    pub(super) shown: bool,
}

pub(super) enum Handing {
    /// It stays in user space.
    Kept,
    /// It can be handed over between two records; the sequence number is known then.
    Asked(ConnectionTrafficSecrets),
    /// The kernel has it; this new key has still to be set.
    Given(Option<KeyInfo>),
}

impl Offload {
    /// For what the kernel may have of a connection; `None` if that is nothing.
    pub(super) fn new(
        offers: &Offers,
        tls13: bool,
        send: ConnectionTrafficSecrets,
        receive: ConnectionTrafficSecrets,
    ) -> Option<Box<Self>> {
        let handing = |secrets: ConnectionTrafficSecrets, direction| match offers.takes(tls13, &secrets, direction) {
            true => Handing::Asked(secrets),
            false => Handing::Kept,
        };
        let send = handing(send, Direction::Send);
        let receive = handing(receive, Direction::Receive);
        let nothing = matches!((&send, &receive), (Handing::Kept, Handing::Kept));
        (!nothing).then(|| Box::new(Self { send, receive, shown: false }))
    }

    pub(super) fn of(&self, direction: Direction) -> &Handing {
        match direction {
            Direction::Send => &self.send,
            Direction::Receive => &self.receive,
        }
    }

    pub(super) fn of_mut(&mut self, direction: Direction) -> &mut Handing {
        match direction {
            Direction::Send => &mut self.send,
            Direction::Receive => &mut self.receive,
        }
    }
}

impl Handing {
    /// The direction has new secrets of TLS 1.3, whose next record is `sequence`.
    pub(super) fn renew(&mut self, secrets: ConnectionTrafficSecrets, sequence: u64) {
        match self {
            Self::Kept => {}
            Self::Asked(old) => *old = secrets,
            Self::Given(info) => *info = KeyInfo::new(true, &secrets, sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IV: [u8; 12] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab];

    fn info(tls13: bool, cipher: Cipher, key: u8) -> Vec<u8> {
        KeyInfo::from_parts(tls13, cipher, &vec![key; cipher.key_length()], IV, 0x0102).bytes().to_vec()
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    const SEQUENCE: [u8; 8] = [0, 0, 0, 0, 0, 0, 1, 2];

    #[test]
    fn a_key_of_tls13_is_laid_out_as_the_kernel_reads_it() {
        let head = |cipher: u16| joined(&[&0x0304_u16.to_ne_bytes(), &cipher.to_ne_bytes()]);
        let salt = &IV[..4];
        let iv = &IV[4..];
        let aes128 = joined(&[&head(51), iv, &[7; 16], salt, &SEQUENCE]);
        assert_eq!(info(true, Cipher::Aes128Gcm, 7), aes128);
        assert_eq!(aes128.len(), size_of::<libc::tls12_crypto_info_aes_gcm_128>());
        let aes256 = joined(&[&head(52), iv, &[8; 32], salt, &SEQUENCE]);
        assert_eq!(info(true, Cipher::Aes256Gcm, 8), aes256);
        assert_eq!(aes256.len(), size_of::<libc::tls12_crypto_info_aes_gcm_256>());
        let chacha = joined(&[&head(54), &IV, &[9; 32], &SEQUENCE]);
        assert_eq!(info(true, Cipher::ChaCha20Poly1305, 9), chacha);
        assert_eq!(chacha.len(), size_of::<libc::tls12_crypto_info_chacha20_poly1305>());
    }

    #[test]
    fn in_tls12_with_gcm_the_kernel_counts_its_nonces_far_from_ours() {
        let head = joined(&[&0x0303_u16.to_ne_bytes(), &51_u16.to_ne_bytes()]);
        let far = [0xa4 ^ 0x80, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab];
        assert_eq!(info(false, Cipher::Aes128Gcm, 7), joined(&[&head, &far, &[7; 16], &IV[..4], &SEQUENCE]));
        let kernel = u64::from_be_bytes(far);
        let ours = |sequence: u64| u64::from_be_bytes(IV[4..].try_into().unwrap()) ^ sequence;
        // The record layer ends at 2^33 records of two blocks, the kernel's share with it.
        for sequence in [0, 1, 2, 255, 256, (1 << 24) - 1, (1 << 33) - 1] {
            assert!(ours(sequence).wrapping_sub(kernel) > 1 << 32 && kernel.wrapping_sub(ours(sequence)) > 1 << 32);
        }
        // Here the nonce is not sent: both sides compute it from the sequence number.
        assert_eq!(&info(false, Cipher::ChaCha20Poly1305, 9)[4..16], IV);
    }

    #[test]
    fn off_asks_nothing_and_a_kernel_without_tls_says_so() {
        assert_eq!(Offers::detect(KernelTls::Off).unwrap(), Offers::default());
        let pair = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(pair.local_addr().unwrap()).unwrap();
        let here = kernel_tls::attach(&near).is_ok();
        assert_eq!(Offers::detect(KernelTls::Prefer).is_ok(), here);
        let auto = Offers::detect(KernelTls::Auto);
        assert_eq!(auto.is_ok(), here);
        assert!(
            auto.is_err() || auto.as_ref().is_ok_and(|offers| offers.renews || !offers.taken.iter().any(|it| it.0))
        );
    }
}
