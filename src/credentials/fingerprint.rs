//! Digests that identify keys, certificates and whole trusts.

pub use crate::config::formats::{hex, labelled_hex};
use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

pub(crate) type Sha256 = [u8; 32];

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    fixed(digest(&SHA256, bytes).as_ref())
}

/// `sha256/BASE64`, the form that `trust.NAME.pins` takes (RFC 7469 section 2.4 has the digest, curl the form).
pub fn labelled_pin(digest: &Sha256) -> String {
    format!("sha256/{}", BASE64_STANDARD.encode(digest))
}

/// A digest over several fields. Each is tagged and carries its length, so that no two lists of
/// fields read the same.
pub(crate) struct Fields(Context);

impl Fields {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn add(&mut self, tag: &str, bytes: &[u8]) {
        for part in [tag.as_bytes(), bytes] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// Adds a set: the order in which its members come does not matter.
    pub(crate) fn add_set(&mut self, tag: &str, members: impl IntoIterator<Item = Sha256>) {
        let mut members: Vec<Sha256> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        self.add(tag, &members.concat());
    }

    pub(crate) fn finish(self) -> Sha256 {
        fixed(self.0.finish().as_ref())
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::new()
    }
}

fn fixed(digest: &[u8]) -> Sha256 {
    digest.try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let digest = |fields: &[(&str, &[u8])]| {
            let mut all = Fields::new();
            fields.iter().for_each(|(tag, bytes)| all.add(tag, bytes));
            all.finish()
        };
        assert_ne!(digest(&[("a", b"bc")]), digest(&[("ab", b"c")]));
        assert_ne!(digest(&[("a", b"b"), ("c", b"")]), digest(&[("a", b"bc"), ("", b"")]));
    }
}
