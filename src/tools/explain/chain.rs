//! The chain as a server sent it: issuers, missing and superfluous certificates.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::credentials::certificate::{CertificateFacts, clean, is_issued_by};
use crate::credentials::fingerprint::Sha256;

#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// As sent.
    pub(crate) links: Vec<Link>,
    /// The chain sent ends with an issuer of this name that is neither sent nor trusted.
    pub(crate) missing: Option<String>,
    /// The trusted root that completes it, or would.
    pub(crate) anchor: Option<String>,
    /// From the leaf on, issuers that are sent or trusted lead to a trusted one that is its own issuer. A chain
    /// that ends at a trusted intermediate may do without.
    pub(crate) rooted: bool,
    /// A root of the right name is trusted, and did not issue what was sent.
    pub(crate) namesake: bool,
    /// Certificates of the path were sent in another order.
    pub(crate) out_of_order: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) facts: CertificateFacts,
    /// Where its issuer's certificate can be had (RFC 5280 section 4.2.2.1, caIssuers).
    pub(crate) issuer_url: Option<String>,
    pub(crate) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leaf,
    Intermediate,
    /// Self-signed at the end of the path: a client that trusts it has it already.
    SuperfluousRoot,
    /// Not on the path from the leaf, or sent twice.
    Stray,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Intermediate => "intermediate",
            Self::SuperfluousRoot => "superfluous_root",
            Self::Stray => "stray",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// Of its DER encoding.
    pub(crate) sha256: Sha256,
}

/// Judges a chain. `verified`: some trust has found a path from it to one of the anchors.
pub(crate) fn build(presented: &[CertificateDer<'_>], anchors: &[Anchor], verified: bool) -> Chain {
    let read: Vec<_> = presented.iter().filter_map(|der| Some((der, CertificateFacts::read(der)?))).collect();
    let path = path(&read);
    let links = read.iter().enumerate().map(|(at, (der, facts))| link(der, facts, at, &path)).collect();
    let rooted = read.first().is_some_and(|(_, leaf)| is_rooted(&leaf.issuer, &read, anchors));
    let mut chain =
        Chain { links, rooted, out_of_order: path.windows(2).any(|two| two[0] > two[1]), ..Chain::default() };
    // A path may end below the top of what was sent: at the first issuer that is trusted.
    let mut wanted = path.iter().map(|at| &read[*at].1);
    let known = |facts: &&CertificateFacts| {
        let by_name = |anchor: &Anchor| !facts.self_signed && anchor.subject == facts.issuer;
        anchors.iter().any(|anchor| by_name(anchor) || anchor.sha256 == facts.sha256)
    };
    match wanted.find(known) {
        Some(facts) => {
            let by_itself = anchors.iter().find(|anchor| anchor.sha256 == facts.sha256);
            chain.anchor = Some(by_itself.map_or(&facts.issuer, |anchor| &anchor.subject).clone());
            chain.namesake = !verified && by_itself.is_none();
        }
        None => {
            let top = path.last().map(|at| &read[*at].1);
            chain.missing = top.filter(|top| !top.self_signed).map(|top| top.issuer.clone());
        }
    }
    chain
}

impl Chain {
    pub(crate) fn leaf(&self) -> Option<&Link> {
        self.links.first()
    }

    pub(crate) fn intermediates(&self) -> usize {
        self.links.iter().filter(|link| link.role == Role::Intermediate).count()
    }

    /// Below a root.
    pub(crate) fn top(&self) -> Option<&Link> {
        self.links.iter().rfind(|link| matches!(link.role, Role::Leaf | Role::Intermediate))
    }
}

/// From the leaf upwards, by name and signature; each certificate once.
fn path(read: &[(&CertificateDer<'_>, CertificateFacts)]) -> Vec<usize> {
    let mut path = Vec::new();
    let mut next = (!read.is_empty()).then_some(0);
    while let Some(at) = next {
        path.push(at);
        let (der, facts) = &read[at];
        let issuer = |other: &usize| !path.contains(other) && is_issued_by(der, read[*other].0);
        next = if facts.self_signed { None } else { (0..read.len()).find(issuer) };
    }
    path
}

/// By names alone: signatures are checked by the trust.
fn is_rooted(issuer: &str, read: &[(&CertificateDer<'_>, CertificateFacts)], anchors: &[Anchor]) -> bool {
    let mut issuer = issuer;
    // Each certificate leads one step up at most.
    for _ in 0..=read.len() + anchors.len() {
        let trusted = anchors.iter().find(|anchor| anchor.subject == issuer);
        if trusted.is_some_and(|anchor| anchor.issuer == anchor.subject) {
            return true;
        }
        let sent = || read.iter().map(|(_, facts)| facts).find(|facts| facts.subject == issuer);
        match trusted.map(|anchor| &anchor.issuer).or_else(|| sent().map(|facts| &facts.issuer)) {
            Some(next) => issuer = next,
            None => return false,
        }
    }
    false
}

fn link(der: &CertificateDer<'_>, facts: &CertificateFacts, at: usize, path: &[usize]) -> Link {
    let role = match (at, path.contains(&at)) {
        (0, _) => Role::Leaf,
        (_, true) if facts.self_signed => Role::SuperfluousRoot,
        (_, true) => Role::Intermediate,
        (_, false) => Role::Stray,
    };
    let parsed = X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed);
    Link { facts: facts.clone(), issuer_url: parsed.as_ref().and_then(issuer_url), role }
}

fn issuer_url(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else { return None };
        access.accessdescs.iter().find_map(|one| match &one.access_location {
            // id-ad-caIssuers
            GeneralName::URI(uri) if one.access_method.to_id_string() == "1.3.6.1.5.5.7.48.2" => Some(clean(uri)),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn chain() -> Vec<CertificateDer<'static>> {
        let params = |cn: &str, ca: bool| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, cn);
            params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
            params
        };
        let key = || KeyPair::generate().expect("a key");
        let der = |certificate: Certificate| certificate.der().clone();
        let root_key = key();
        let top_key = key();
        let low_key = key();
        let leaf_key = key();
        let root = params("root", true).self_signed(&root_key).expect("a root");
        let by_root = Issuer::new(params("root", true), root_key);
        let top = params("top", true).signed_by(&top_key, &by_root).expect("an intermediate");
        let by_top = Issuer::new(params("top", true), top_key);
        let low = params("low", true).signed_by(&low_key, &by_top).expect("an intermediate");
        let by_low = Issuer::new(params("low", true), low_key);
        let leaf = params("leaf", false).signed_by(&leaf_key, &by_low).expect("a leaf");
        vec![der(leaf), der(low), der(top), der(root)]
    }

    fn anchor(subject: &str) -> Anchor {
        Anchor { subject: format!("CN={subject}"), issuer: "CN=root".into(), sha256: [0; 32] }
    }

    #[test]
    fn what_is_missing_and_what_completes_it_are_named() {
        let all = chain();
        let whole = build(&all[..3], &[anchor("root")], true);
        assert_eq!((whole.missing, whole.anchor.as_deref()), (None, Some("CN=root")));
        let without_top = build(&all[..2], &[anchor("root")], false);
        assert_eq!((without_top.missing.as_deref(), without_top.anchor), (Some("CN=top"), None));
        let bare = build(&all[..1], &[], false);
        assert_eq!(bare.missing.as_deref(), Some("CN=low"));
        let namesake = build(&all[..3], &[anchor("root")], false);
        assert!(namesake.namesake);
    }

    #[test]
    fn a_chain_on_an_intermediate_is_rooted_if_its_root_is_trusted_too() {
        let all = chain();
        assert!(build(&all[..3], &[anchor("root")], true).rooted);
        assert!(!build(&all[..2], &[anchor("top")], true).rooted);
        assert!(build(&all[..2], &[anchor("top"), anchor("root")], true).rooted);
        assert!(!build(&all, &[anchor("top")], true).rooted, "a root that is only sent is not trusted");
    }

    #[test]
    fn superfluous_and_stray_have_their_own_roles() {
        let mut all = chain();
        let stranger = chain().remove(1);
        all.push(stranger);
        let roles: Vec<Role> = build(&all, &[], false).links.iter().map(|link| link.role).collect();
        assert_eq!(
            roles,
            [Role::Leaf, Role::Intermediate, Role::Intermediate, Role::SuperfluousRoot, Role::Stray],
            "the stranger has a name of the path, but another key"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever the order behind the leaf, the same certificates are on the path.
        #[test]
        fn order_is_seen_and_does_not_change_the_path(order in Just(vec![1, 2, 3]).prop_shuffle()) {
            let all = chain();
            let sent: Vec<_> = std::iter::once(&all[0]).chain(order.iter().map(|at| &all[*at])).cloned().collect();
            let judged = build(&sent, &[anchor("root")], true);
            prop_assert_eq!(judged.intermediates(), 2);
            prop_assert!(judged.links.iter().any(|link| link.role == Role::SuperfluousRoot));
            prop_assert_eq!(judged.out_of_order, order != [1, 2, 3]);
        }

        #[test]
        fn no_certificates_make_it_panic(ders in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4)) {
            let ders: Vec<CertificateDer<'_>> = ders.into_iter().map(CertificateDer::from).collect();
            let _ = build(&ders, &[anchor("root")], false);
        }
    }
}
