//! What an explanation says, as plain data: the text for people and the JSON for programs are made of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All that `egret explain --json` prints. Fields are added, never renamed or removed, within one `version`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// 1.
    pub(crate) version: u32,
    /// One for each server of the upstream.
    pub(crate) reports: Vec<Report>,
}

/// One server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Report {
    /// Host and port, as configured.
    pub(crate) server: String,
    /// The name of the upstream.
    pub(crate) upstream: String,
    /// What certificates are checked for, and SNI if it is a DNS name.
    pub(crate) server_name: String,
    /// The server name is sent.
    pub(crate) sni: bool,
    /// The client certificate that is presented.
    pub(crate) identity: Option<Identity>,
    /// Whom the configuration believes, in words.
    pub(crate) trust: String,
    /// This machine's clock (RFC 3339).
    pub(crate) clock: String,
    /// The addresses of the host, with their ports if it is a service; empty: it could not be looked up.
    pub(crate) addresses: Vec<String>,
    /// What was tried, in order.
    pub(crate) attempts: Vec<AttemptReport>,
    /// What the server presented; null: nothing.
    pub(crate) chain: Option<Chain>,
    /// The server's request for a client certificate; null: it did not ask, or did not come so far.
    pub(crate) client_certificate: Option<Request>,
    /// What was asked above TLS, and the answer; null: nothing was asked, or no handshake succeeded.
    #[serde(default)]
    pub(crate) exchange: Option<Exchange>,
    /// What is wrong, the first thing first; empty: nothing.
    pub(crate) causes: Vec<CauseReport>,
    /// What is worth knowing, and no fault.
    pub(crate) notes: Vec<Note>,
    /// The repair; without a cause, the configuration that works.
    pub(crate) repair: Repair,
    /// The ClientHello of the attempt as configured, field by field; only with `--show-hello`.
    pub(crate) hello: Option<Vec<Field>>,
}

/// A client certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Identity {
    /// Its distinguished name.
    pub(crate) subject: String,
    /// Who issued it.
    pub(crate) issuer: String,
    /// The end of its validity, or of that of its chain if that is sooner (RFC 3339).
    pub(crate) not_after: String,
    /// Of the DER encoding of the leaf, as `sha256:HEX`.
    pub(crate) sha256: String,
    /// The files that it was read from: certificate, key, password.
    pub(crate) files: Vec<String>,
}

/// One origination that was tried.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Attempt")]
pub(crate) struct AttemptReport {
    /// How it differs: `as_configured`, `without_sni`, `with_sni`, `without_identity`, `tls12`, `tls13`, `classic`,
    /// `all_groups`, `without_alpn`, `without_upgrade`, `direct_tls`, `resumed`, `foreign_session`, `question`,
    /// `question_without_identity`.
    pub(crate) attempt: String,
    /// Where.
    pub(crate) address: String,
    /// The server name stood in the ClientHello.
    pub(crate) sni: bool,
    /// `ok`, or a word of docs/failures.md.
    pub(crate) result: String,
    /// A sentence, if it is not `ok`.
    pub(crate) detail: Option<String>,
    /// It failed when the handshake was already over for the client.
    pub(crate) late: bool,
    /// The version of TLS.
    pub(crate) version: Option<String>,
    /// The cipher suite.
    pub(crate) suite: Option<String>,
    /// The group of the key exchange.
    pub(crate) group: Option<String>,
    /// The protocol chosen by ALPN.
    pub(crate) alpn: Option<String>,
    /// `resumed`, `refused`, `no_session` (no session to offer) or `off`.
    pub(crate) resumption: Option<String>,
    /// The server's certificate, as `sha256:HEX`.
    pub(crate) certificate: Option<String>,
    /// From connect to the end of the handshake, or to the failure.
    pub(crate) milliseconds: u64,
}

/// The chain as the server sent it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Chain {
    /// In the order of sending.
    pub(crate) certificates: Vec<Certificate>,
    /// An issuer that is neither sent nor trusted.
    pub(crate) missing: Option<String>,
    /// The trusted root that completes the chain.
    pub(crate) anchor: Option<String>,
    /// The certificates were not sent in the order in which they were issued.
    pub(crate) out_of_order: bool,
    /// `ok`, or the word of what the configured trust has against it.
    pub(crate) by_trust: String,
    /// The same for the roots of the system; null: it has none.
    pub(crate) by_system: Option<String>,
    /// The same if the server's certificate is taken for itself: name, dates and key alone.
    pub(crate) by_itself: String,
    /// The same for the candidate roots alone, of a chain that the trust believes; null: there are none.
    #[serde(default)]
    pub(crate) by_candidates: Option<String>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Certificate {
    /// `leaf`, `intermediate`, `superfluous_root` or `stray`.
    pub(crate) role: String,
    /// Distinguished name.
    pub(crate) subject: String,
    /// Distinguished name.
    pub(crate) issuer: String,
    /// `dns:`, `ip:` and `uri:` names; at most 32.
    pub(crate) names: Vec<String>,
    /// RFC 3339.
    pub(crate) not_before: String,
    /// RFC 3339.
    pub(crate) not_after: String,
    /// Such as `RSA 2048`.
    pub(crate) key: String,
    /// Of the DER encoding, as `sha256:HEX`.
    pub(crate) sha256: String,
    /// Of the public key, as `sha256/BASE64`.
    pub(crate) pin: String,
    /// It vouches for itself.
    pub(crate) self_signed: bool,
    /// It says that it is an authority.
    pub(crate) authority: bool,
    /// Where its issuer's certificate can be had.
    pub(crate) issuer_url: Option<String>,
}

/// The server's request for a client certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Request {
    /// Authorities that it accepts; empty: it does not say. At most 16.
    pub(crate) acceptable: Vec<String>,
    /// A certificate was sent in the attempt as configured.
    pub(crate) answered: bool,
}

/// A question above TLS, and its answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Exchange {
    /// `http` or `postgres`.
    pub(crate) protocol: String,
    /// What was sent, in one line.
    pub(crate) sent: String,
    /// The status line or error of the answer; null: none came.
    pub(crate) answer: Option<String>,
    /// The answer to the same question without the client certificate; null: not asked, or none came.
    pub(crate) without_identity: Option<String>,
    /// The client certificate is accepted, or refused; null: the answers do not show it.
    pub(crate) accepted: Option<bool>,
    /// What the answers show, in one sentence.
    pub(crate) sentence: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Cause")]
pub(crate) struct CauseReport {
    /// The finer word of docs/explain.md, or the same as `reason`.
    pub(crate) cause: String,
    /// The class that log and metrics have for it (docs/failures.md).
    pub(crate) reason: String,
    /// One sentence.
    pub(crate) sentence: String,
    /// Where it shows; null: before any connection.
    pub(crate) address: Option<String>,
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Note {
    /// A word of docs/explain.md.
    pub(crate) note: String,
    /// One sentence.
    pub(crate) sentence: String,
}

/// The repair.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Repair {
    /// Tables for egret's configuration: they take the place of those of the same names.
    pub(crate) egret: Option<String>,
    /// Directives for `server { }` of nginx's stream module.
    pub(crate) nginx: Option<String>,
    /// What else is to be done, and by whom.
    pub(crate) advice: Vec<String>,
}

/// A field of the ClientHello.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Field {
    /// Its name in RFC 8446, or of the extension.
    pub(crate) name: String,
    /// Its value in words.
    pub(crate) value: String,
}

impl Explanation {
    /// Something is wrong with a server.
    pub(crate) fn has_causes(&self) -> bool {
        self.reports.iter().any(|report| !report.causes.is_empty())
    }
}
