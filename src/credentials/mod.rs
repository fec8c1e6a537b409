//! Keys, certificates and trust: read from files, judged, compared.
//!
//! | file | idea |
//! | --- | --- |
//! | [`identity`] | certificate chain and private key that egret presents |
//! | [`trust`] | what makes a server trusted: roots, names, pins, revocation lists |
//! | [`inventory`] | everything with an end, from when to when it is valid |
//! | [`part`] | an identity or trust that is live, kept from before, or unavailable |
//! | [`certificate`], [`period`] | what a certificate says of itself: names, issuer; from when to when |
//! | [`files`], [`contents`], [`pem`] | files in the forms in which people have them |
//! | [`presented`], [`observation`], [`refusal`] | what one handshake saw of a server, and the objection to it |
//! | [`fingerprint`] | digests by which certificates, keys and origins are compared |

pub mod certificate;
pub mod contents;
pub(crate) mod files;
pub mod fingerprint;
pub mod identity;
pub(crate) mod inventory;
pub mod observation;
pub(crate) mod part;
pub mod pem;
pub(crate) mod period;
pub(crate) mod presented;
pub mod refusal;
pub mod trust;
