//! What a file of certificates says that an importer has to know.

use crate::originate::certificate::CertificateFacts;
use crate::originate::pem;

/// Is this PEM text one single certificate, and that of a server with one of these names?
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

/// The group for the key exchange that OpenSSL calls so.
pub(super) fn group(word: &str) -> Option<&'static str> {
    Some(match word {
        "X25519MLKEM768" => "x25519mlkem768",
        "X25519" | "x25519" => "x25519",
        "prime256v1" | "P-256" | "secp256r1" => "secp256r1",
        "secp384r1" | "P-384" => "secp384r1",
        _ => return None,
    })
}
