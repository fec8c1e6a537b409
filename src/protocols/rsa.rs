//! The RSA key for clients that encrypt a password on a connection without TLS.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::OnceCell;

use crate::secret::Secret;

/// A private key and its public half.
#[derive(Debug)]
pub struct DecryptionKey {
    private: OaepPrivateDecryptingKey,
    /// SubjectPublicKeyInfo in PEM, as servers of MySQL send theirs.
    public: String,
}

/// Bits; servers of MySQL make theirs of this size, and some clients take no larger one.
const SIZE: KeySize = KeySize::Rsa2048;

/// Characters on a line of PEM (RFC 7468 section 2).
const LINE: usize = 64;

/// The key of this process: made when the first client needs one, on a thread for blocking work, since that takes a
/// processor for some 0.1 s. Cancel safe.
pub(super) async fn key() -> &'static DecryptionKey {
    static KEY: OnceCell<DecryptionKey> = OnceCell::const_new();
    KEY.get_or_init(|| async {
        tokio::task::spawn_blocking(DecryptionKey::generate).await.expect("making a key does not panic")
    })
    .await
}

impl DecryptionKey {
    /// Makes one.
    #[expect(clippy::missing_panics_doc, reason = "making a key needs memory and randomness only")]
    pub fn generate() -> Self {
        let key = PrivateDecryptingKey::generate(SIZE).expect("2048 bits are a size that is supported");
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("the key was just made");
        let encoded = STANDARD.encode(der.as_ref());
        let lines: Vec<_> = encoded.as_bytes().chunks(LINE).map(String::from_utf8_lossy).collect();
        let public = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let private = OaepPrivateDecryptingKey::new(key).expect("an RSA key can be used with OAEP");
        Self { private, public }
    }

    /// The public half in PEM.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// `None`: it was not encrypted for this key.
    pub(super) fn decrypt(&self, encrypted: &[u8]) -> Option<Secret> {
        let mut plain = Secret::new(vec![0; self.private.min_output_size()]);
        let length = self.private.decrypt(&OAEP_SHA1_MGF1SHA1, encrypted, plain.buffer(), None).ok()?.len();
        plain.buffer().truncate(length);
        Some(plain)
    }
}
