//! What files of certificates and keys, and words of OpenSSL, mean to an importer.

use std::net::IpAddr;

use rustls::pki_types::DnsName;

use crate::credentials::certificate::CertificateFacts;
use crate::credentials::pem;

/// Whether this PEM text is one certificate of a server with one of these names.
pub(super) fn is_of_server<'a>(text: &str, mut names: impl Iterator<Item = &'a str>) -> bool {
    let Ok(sections) = pem::sections(text.as_bytes()) else { return false };
    let certificates: Vec<_> = sections.iter().filter(|section| section.label.ends_with("CERTIFICATE")).collect();
    let [one] = certificates.as_slice() else { return false };
    let Some(facts) = CertificateFacts::read(one.body.expose()) else { return false };
    names.any(|name| {
        let typed = [format!("dns:{name}"), format!("ip:{name}")];
        let common = facts.names.is_empty() && facts.common_name.as_deref() == Some(name);
        common || facts.names.iter().any(|known| typed.contains(known))
    })
}

/// Whether a certificate could carry this name and a name server could know it.
pub(super) fn is_name(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || DnsName::try_from(text).is_ok()
}

pub(super) fn certificates(text: &str) -> usize {
    let sections = pem::sections(text.as_bytes()).unwrap_or_default();
    sections.iter().filter(|section| section.label.ends_with("CERTIFICATE")).count()
}

/// Others than the owner have access to a file with this mode.
pub(super) fn is_loose(mode: u32) -> bool {
    mode & 0o077 != 0
}

/// Title and repair for a key or password file with such a mode.
pub(super) fn loose(mode: u32, faithful: bool) -> (String, &'static str) {
    let title =
        format!("others than its owner may use this key or password file (mode {mode:04o}), and egret refuses it");
    let repair = match faithful {
        true => "written as `allow_loose_key_permissions = true`; `chmod 600` the file, and remove that line",
        false => "`chmod 600` the file, or `allow_loose_key_permissions = true` in the identity",
    };
    (title, repair)
}

/// Title for programs that do not check for `close_notify`.
pub(super) fn eof_strict(program: &str) -> String {
    format!(
        "an end of the server without close_notify, which may be a truncation, is a clean end for the clients of \
         {program}; those of egret get a reset"
    )
}

/// Repair for [`eof_strict`].
pub(super) const EOF_REPAIR: &str =
    "if the server ends so: `eof = \"lenient\"` in the upstream, or `egret import --faithful`";

pub(super) fn group(word: &str) -> Option<&'static str> {
    Some(match word {
        "X25519MLKEM768" => "x25519mlkem768",
        "X25519" | "x25519" => "x25519",
        "prime256v1" | "P-256" | "secp256r1" => "secp256r1",
        "secp384r1" | "P-384" => "secp384r1",
        _ => return None,
    })
}
